//! What is true at GitHub at one moment: repositories, what is in them, and how each account sees it.
//!
//! Knows: the state and its responses, as pure functions. Does not know: time, connections, caches.

use bytes::Bytes;
use serde_json::{Value, json};

/// Repositories that there are at most.
pub const REPOSITORIES: usize = 3;

/// Who may write, and sees drafts and what is private.
pub const WRITER: &str = "alice";

#[derive(Debug, Clone)]
pub struct Issue {
    pub number: u64,
    pub title: u64,
    pub open: bool,
    /// Comments: their numbers and texts.
    pub comments: Vec<(u64, u64)>,
}

#[derive(Debug, Clone)]
pub struct Release {
    pub id: u64,
    pub text: u64,
    pub draft: bool,
}

#[derive(Debug, Clone)]
pub struct Repository {
    pub id: u64,
    pub name: String,
    /// Names that it had before, and that lead to it while nobody else has them.
    pub old: Vec<String>,
    pub private: bool,
    pub description: u64,
    pub issues: Vec<Issue>,
    pub releases: Vec<Release>,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Truth {
    pub repositories: Vec<Repository>,
    next: u64,
}

/// A change, with the place of its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Describe,
    Rename,
    /// Another repository takes an old name.
    TakeOldName,
    Hide,
    Show,
    OpenIssue,
    EditIssue(usize),
    CloseIssue(usize),
    Comment(usize),
    EditComment(usize),
    DropComment(usize),
    Release,
    Draft,
    Publish(usize),
    DropRelease(usize),
}

/// A change as a request, and as GitHub's webhook tells it.
#[derive(Debug, Clone)]
pub struct Told {
    pub method: &'static str,
    pub path: String,
    pub body: Value,
    pub event: &'static str,
    pub payload: Value,
}

/// A response, but for validators and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub status: u16,
    pub body: Bytes,
    /// `Link`, with `{base}` where the API's address belongs.
    pub link: Option<String>,
    /// `Location`, likewise.
    pub location: Option<String>,
}

impl Rendered {
    fn of(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string().into(), link: None, location: None }
    }
}

impl Truth {
    pub fn new() -> Self {
        let mut truth = Self { repositories: Vec::new(), next: 100 };
        for n in 0..REPOSITORIES {
            let (id, name) = (truth.number(), format!("acme/r{n}"));
            let mut repository = Repository {
                id,
                name,
                old: Vec::new(),
                private: false,
                description: 0,
                issues: Vec::new(),
                releases: Vec::new(),
            };
            for number in 1..=3 + n as u64 {
                let comments = (0..=number % 3).map(|text| (truth.number(), text)).collect();
                repository.issues.push(Issue { number, title: 0, open: true, comments });
            }
            truth.repositories.push(repository);
        }
        truth
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Carries a change out. `None` where there is nothing to change.
    #[allow(clippy::too_many_lines, reason = "a table of changes")]
    pub fn apply(&mut self, at: usize, change: Change) -> Option<Told> {
        let number = self.number();
        if change == Change::TakeOldName {
            return self.take_old_name(at);
        }
        let repository = self.repositories.get_mut(at)?;
        let (name, id) = (repository.name.clone(), repository.id);
        let path = format!("/repos/{name}");
        let of_repository = |name: &str| json!({ "id": id, "full_name": name, "owner": { "login": "acme" } });
        let told = |method, below: String, body, event, action: &str, more: Value| {
            let mut payload =
                json!({ "action": action, "repository": of_repository(&name), "sender": { "login": "alice" } });
            for (member, value) in more.as_object().cloned().unwrap_or_default() {
                payload[member] = value;
            }
            Some(Told { method, path: format!("{path}{below}"), body, event, payload })
        };
        let issue_at =
            |repository: &Repository, n: usize| (!repository.issues.is_empty()).then(|| n % repository.issues.len());
        match change {
            Change::TakeOldName => None,
            Change::Describe => {
                repository.description = number;
                told("PATCH", String::new(), json!({ "description": "d" }), "repository", "edited", json!({}))
            }
            Change::Rename => {
                let new = format!("acme/n{number}");
                repository.old.push(std::mem::replace(&mut repository.name, new.clone()));
                let changes = json!({ "repository": { "name": { "from": name.split('/').nth(1) } } });
                let more = json!({ "repository": of_repository(&new), "changes": changes });
                told("PATCH", String::new(), json!({ "name": new }), "repository", "renamed", more)
            }
            Change::Hide | Change::Show => {
                let private = change == Change::Hide;
                if repository.private == private {
                    return None;
                }
                repository.private = private;
                let action = if private { "privatized" } else { "publicized" };
                told("PATCH", String::new(), json!({ "private": private }), "repository", action, json!({}))
            }
            Change::OpenIssue => {
                let new = repository.issues.iter().map(|issue| issue.number).max().unwrap_or(0) + 1;
                repository.issues.push(Issue { number: new, title: number, open: true, comments: Vec::new() });
                told(
                    "POST",
                    "/issues".into(),
                    json!({ "title": "t" }),
                    "issues",
                    "opened",
                    json!({ "issue": { "number": new } }),
                )
            }
            Change::EditIssue(n) | Change::CloseIssue(n) => {
                let at = issue_at(repository, n)?;
                let issue = &mut repository.issues[at];
                let closes = matches!(change, Change::CloseIssue(_));
                issue.title = number;
                issue.open &= !closes;
                let action = if closes { "closed" } else { "edited" };
                let more = json!({ "issue": { "number": issue.number } });
                told("PATCH", format!("/issues/{}", issue.number), json!({ "title": "t" }), "issues", action, more)
            }
            Change::Comment(n) => {
                let at = issue_at(repository, n)?;
                let issue = &mut repository.issues[at];
                issue.comments.push((number, number));
                let more = json!({ "issue": { "number": issue.number }, "comment": { "id": number } });
                told(
                    "POST",
                    format!("/issues/{}/comments", issue.number),
                    json!({ "body": "b" }),
                    "issue_comment",
                    "created",
                    more,
                )
            }
            Change::EditComment(n) | Change::DropComment(n) => {
                let with: Vec<usize> =
                    (0..repository.issues.len()).filter(|at| !repository.issues[*at].comments.is_empty()).collect();
                let issue = &mut repository.issues[*with.get(n % with.len().max(1))?];
                let at = n % issue.comments.len();
                let id = issue.comments[at].0;
                let more = json!({ "issue": { "number": issue.number }, "comment": { "id": id } });
                let (method, action) = if matches!(change, Change::EditComment(_)) {
                    issue.comments[at].1 = number;
                    ("PATCH", "edited")
                } else {
                    issue.comments.remove(at);
                    ("DELETE", "deleted")
                };
                told(method, format!("/issues/comments/{id}"), json!({ "body": "b" }), "issue_comment", action, more)
            }
            Change::Release | Change::Draft => {
                let draft = change == Change::Draft;
                repository.releases.insert(0, Release { id: number, text: number, draft });
                let action = if draft { "created" } else { "published" };
                told(
                    "POST",
                    "/releases".into(),
                    json!({ "draft": draft }),
                    "release",
                    action,
                    json!({ "release": { "id": number } }),
                )
            }
            Change::Publish(n) | Change::DropRelease(n) => {
                let at = (!repository.releases.is_empty()).then(|| n % repository.releases.len())?;
                let id = repository.releases[at].id;
                let more = json!({ "release": { "id": id } });
                let (method, action) = if matches!(change, Change::Publish(_)) {
                    repository.releases[at].draft = false;
                    repository.releases[at].text = number;
                    ("PATCH", "published")
                } else {
                    repository.releases.remove(at);
                    ("DELETE", "deleted")
                };
                told(method, format!("/releases/{id}"), json!({ "draft": false }), "release", action, more)
            }
        }
    }

    /// The last old name of a repository goes to the next one, as its own.
    fn take_old_name(&mut self, at: usize) -> Option<Told> {
        let old = self.repositories.get_mut(at)?.old.pop()?;
        let other = (at + 1) % self.repositories.len();
        let repository = &mut self.repositories[other];
        let before = std::mem::replace(&mut repository.name, old.clone());
        let from = before.split('/').nth(1).map(str::to_owned);
        repository.old.push(before.clone());
        let payload = json!({
            "action": "renamed",
            "repository": { "id": repository.id, "full_name": old, "owner": { "login": "acme" } },
            "changes": { "repository": { "name": { "from": from } } },
            "sender": { "login": "alice" },
        });
        let body = json!({ "name": old });
        Some(Told { method: "PATCH", path: format!("/repos/{before}"), body, event: "repository", payload })
    }

    /// The repository that a path names, by which it is known to itself, and the rest of the path.
    fn located<'a>(&self, path: &'a str) -> Option<(&Repository, bool, &'a str)> {
        if let Some(rest) = path.strip_prefix("/repositories/") {
            let (id, _) = rest.split_once('/').unwrap_or((rest, ""));
            let id_number: u64 = id.parse().ok()?;
            let found = self.repositories.iter().find(|repository| repository.id == id_number)?;
            return Some((found, true, &rest[id.len()..]));
        }
        let rest = path.strip_prefix("/repos/")?;
        let end = rest.match_indices('/').nth(1).map_or(rest.len(), |(at, _)| at);
        let (name, below) = rest.split_at(end);
        let name = name.to_ascii_lowercase();
        if let Some(found) = self.repositories.iter().find(|repository| repository.name == name) {
            return Some((found, true, below));
        }
        let found = self.repositories.iter().find(|repository| repository.old.contains(&name))?;
        Some((found, false, below))
    }

    /// The response to a `GET`, for an account.
    pub fn get(&self, account: &str, path: &str, query: &str) -> Rendered {
        let missing = || Rendered::of(404, &json!({ "message": "Not Found" }));
        let Some((repository, is_current, below)) = self.located(path) else { return missing() };
        if repository.private && account != WRITER {
            return missing();
        }
        if !is_current {
            let mark = if query.is_empty() { "" } else { "?" };
            let to = format!("{{base}}/repositories/{}{below}{mark}{query}", repository.id);
            let moved = Rendered::of(301, &json!({ "message": "Moved Permanently" }));
            return Rendered { location: Some(to), ..moved };
        }
        let root = format!("/repositories/{}", repository.id);
        let mut segments = below.split('/').skip(1);
        let (first, second, third) = (segments.next(), segments.next(), segments.next());
        match (first, second, third) {
            (None, ..) => Rendered::of(200, &repository.shown()),
            (Some("issues"), None, _) => {
                let all = query.split('&').any(|pair| pair == "state=all");
                let shown = repository.issues.iter().rev().filter(|issue| all || issue.open);
                page(shown.map(|issue| issue.shown(&repository.name)).collect(), &format!("{root}/issues"), query)
            }
            (Some("issues"), Some(number), None) => match repository.issue(number) {
                Some(issue) => Rendered::of(200, &issue.shown(&repository.name)),
                None => missing(),
            },
            (Some("issues"), Some(number), Some("comments")) => match repository.issue(number) {
                Some(issue) => {
                    let comments =
                        issue.comments.iter().map(|(id, text)| json!({ "id": id, "body": text.to_string() }));
                    page(comments.collect(), &format!("{root}/issues/{number}/comments"), query)
                }
                None => missing(),
            },
            (Some("releases"), None, _) => {
                let shown = repository.releases.iter().filter(|release| account == WRITER || !release.draft);
                page(shown.map(Release::shown).collect(), &format!("{root}/releases"), query)
            }
            (Some("releases"), Some("latest"), None) => {
                match repository.releases.iter().find(|release| !release.draft) {
                    Some(release) => Rendered::of(200, &release.shown()),
                    None => missing(),
                }
            }
            _ => missing(),
        }
    }

    /// The response to the one GraphQL question that is asked.
    pub fn graphql(&self, account: &str, variables: &Value) -> Value {
        let name = format!("{}/{}", variables["o"].as_str().unwrap_or(""), variables["n"].as_str().unwrap_or(""));
        let found = self.located(&format!("/repos/{name}")).map(|(repository, ..)| repository);
        match found.filter(|repository| !repository.private || account == WRITER) {
            Some(repository) => {
                let issue = repository.issues.last().map(|issue| json!({ "title": issue.title.to_string() }));
                json!({ "data": { "repository": { "description": repository.description.to_string(), "issue": issue } } })
            }
            None => json!({
                "data": { "repository": null },
                "errors": [{ "type": "NOT_FOUND", "path": ["repository"], "message": format!("Could not resolve to a Repository with the name '{name}'.") }],
            }),
        }
    }
}

impl Repository {
    fn shown(&self) -> Value {
        let open = self.issues.iter().filter(|issue| issue.open).count();
        json!({
            "id": self.id, "full_name": self.name, "private": self.private, "description": self.description.to_string(),
            "open_issues_count": open,
        })
    }

    fn issue(&self, number: &str) -> Option<&Issue> {
        let number: u64 = number.parse().ok()?;
        self.issues.iter().find(|issue| issue.number == number)
    }
}

impl Issue {
    fn shown(&self, name: &str) -> Value {
        json!({
            "number": self.number, "title": self.title.to_string(), "comments": self.comments.len(),
            "state": if self.open { "open" } else { "closed" }, "repository_url": format!("/repos/{name}"),
        })
    }
}

impl Release {
    fn shown(&self) -> Value {
        json!({ "id": self.id, "name": self.text.to_string(), "draft": self.draft })
    }
}

fn page(items: Vec<Value>, path: &str, query: &str) -> Rendered {
    let param = |name: &str, default: usize| {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok()).unwrap_or(default)
    };
    let (per_page, number) = (param("per_page", 30).clamp(1, 100), param("page", 1).max(1));
    let pages = items.len().div_ceil(per_page).max(1);
    let slice: Vec<Value> = items.into_iter().skip((number - 1) * per_page).take(per_page).collect();
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("page=")).collect();
    let link = |page: usize, rel: &str| {
        let page = format!("page={page}");
        let query: Vec<&str> = rest.iter().copied().chain([page.as_str()]).collect();
        format!("<{{base}}{path}?{}>; rel=\"{rel}\"", query.join("&"))
    };
    let mut links = Vec::new();
    if number > 1 {
        links.push(link(number - 1, "prev"));
    }
    if number < pages {
        links.push(link(number + 1, "next"));
        links.push(link(pages, "last"));
    }
    let link = (!links.is_empty()).then(|| links.join(", "));
    Rendered { link, ..Rendered::of(200, &Value::Array(slice)) }
}
