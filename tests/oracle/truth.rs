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
pub struct Alert {
    pub number: u64,
    pub is_open: bool,
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
    pub alerts: Vec<Alert>,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Truth {
    pub repositories: Vec<Repository>,
    pub next: u64,
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
                alerts: Vec::new(),
            };
            for number in 1..=3 + n as u64 {
                let comments = (0..=number % 3).map(|text| (truth.number(), text)).collect();
                repository.issues.push(Issue { number, title: 0, open: true, comments });
            }
            truth.repositories.push(repository);
        }
        truth
    }

    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
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

    /// The response to a `GET`, for an account; `full`: with what another `Accept` adds.
    pub fn get(&self, account: &str, full: bool, path: &str, query: &str) -> Rendered {
        let missing = || Rendered::of(404, &json!({ "message": "Not Found" }));
        if path == "/search/issues" {
            return self.search(account, query);
        }
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
                page(shown.map(|issue| issue.shown(&repository.name, full)).collect(), &format!("{root}/issues"), query)
            }
            (Some("issues"), Some(number), None) => match repository.issue(number) {
                Some(issue) => Rendered::of(200, &issue.shown(&repository.name, full)),
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
            (Some("dependabot"), Some("alerts"), None) if account == WRITER => {
                cursors(&repository.alerts, &format!("{root}/dependabot/alerts"), query)
            }
            (Some("stats"), Some("participation"), None) => Rendered::of(200, &json!({ "all": [repository.id] })),
            _ => missing(),
        }
    }

    /// Issues of the repository that `q` names, if it is to be seen.
    fn search(&self, account: &str, query: &str) -> Rendered {
        let name = query.split(['=', '&', '+']).find_map(|word| word.strip_prefix("repo:")).unwrap_or("");
        let found = self.repositories.iter().find(|repository| repository.name == name);
        let issues: Vec<Value> = match found.filter(|repository| !repository.private || account == WRITER) {
            Some(repository) => repository.issues.iter().map(|issue| issue.shown(&repository.name, false)).collect(),
            None => Vec::new(),
        };
        Rendered::of(200, &json!({ "total_count": issues.len(), "incomplete_results": false, "items": issues }))
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
    fn shown(&self, name: &str, full: bool) -> Value {
        let mut shown = json!({
            "number": self.number, "title": self.title.to_string(), "comments": self.comments.len(),
            "state": if self.open { "open" } else { "closed" }, "repository_url": format!("/repos/{name}"),
        });
        if full {
            shown["body_html"] = format!("<p>{}</p>", self.title).into();
        }
        shown
    }
}

impl Release {
    fn shown(&self) -> Value {
        json!({ "id": self.id, "name": self.text.to_string(), "draft": self.draft })
    }
}

/// A page of two, newest first, behind the cursor that the query names.
fn cursors(alerts: &[Alert], path: &str, query: &str) -> Rendered {
    let after = query.split('&').find_map(|pair| pair.strip_prefix("after=c")?.parse::<u64>().ok());
    let behind: Vec<&Alert> = alerts.iter().filter(|alert| after.is_none_or(|after| alert.number < after)).collect();
    let state = |alert: &Alert| if alert.is_open { "open" } else { "dismissed" };
    let shown = behind.iter().take(2).map(|alert| json!({ "number": alert.number, "state": state(alert) })).collect();
    let next =
        (behind.len() > 2).then(|| format!("<{{base}}{path}?per_page=2&after=c{}>; rel=\"next\"", behind[1].number));
    Rendered { link: next, ..Rendered::of(200, &Value::Array(shown)) }
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
