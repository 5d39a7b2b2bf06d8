//! Changes: what each does to the truth, how GitHub is asked for it, and the event that tells of it.
//!
//! Knows: every change. Does not know: who makes it, who hears of it.

use serde_json::{Value, json};

use super::truth::{Alert, Issue, Release, Repository, Truth};

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
    /// GitHub finds a fault in a dependency.
    Alert,
    Dismiss(usize),
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

impl Truth {
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
            Change::Alert => {
                repository.alerts.insert(0, Alert { number, is_open: true });
                let more = json!({ "alert": { "number": number } });
                told("", String::new(), json!({}), "dependabot_alert", "created", more)
            }
            Change::Dismiss(n) => {
                let at = (!repository.alerts.is_empty()).then(|| n % repository.alerts.len())?;
                let alert = &mut repository.alerts[at];
                alert.is_open = false;
                let more = json!({ "alert": { "number": alert.number } });
                let path = format!("/dependabot/alerts/{}", alert.number);
                told("PATCH", path, json!({ "state": "dismissed" }), "dependabot_alert", "dismissed", more)
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
}
