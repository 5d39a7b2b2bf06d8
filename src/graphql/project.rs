//! GraphQL's answers as REST would have given them: the same names, values and order, as far as
//! both have them (`shape`).
//!
//! Knows: how one API's fields follow from the other's. Does not know: documents, caches.

use serde_json::{Map, Value, json};

/// Makes REST values of GraphQL's.
#[derive(Debug, Clone, Copy)]
pub struct Projector<'a> {
    /// Where REST lives: `https://api.github.com`.
    pub base: &'a str,
}

/// `languages.edges` as REST's object.
pub fn languages(edges: &[Value]) -> Value {
    let pairs = edges.iter().filter_map(|edge| Some((edge["node"]["name"].as_str()?.to_owned(), edge["size"].clone())));
    Value::Object(pairs.collect::<Map<String, Value>>())
}

fn lower(value: &Value) -> Value {
    value.as_str().map_or(Value::Null, |text| json!(text.to_lowercase().replace('_', " ")))
}

/// States that REST writes with an underscore.
fn snake(value: &Value) -> Value {
    value.as_str().map_or(Value::Null, |text| json!(text.to_lowercase()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Projector<'_> {
    /// A repository.
    pub fn repo(self, node: &Value) -> Value {
        let full = text(&node["nameWithOwner"]);
        let html = text(&node["url"]);
        let open = node["openIssues"]["totalCount"].as_u64().unwrap_or(0)
            + node["openPulls"]["totalCount"].as_u64().unwrap_or(0);
        let topics: Vec<&Value> = nodes(&node["repositoryTopics"]).map(|topic| &topic["topic"]["name"]).collect();
        json!({
            "id": node["databaseId"],
            "node_id": node["id"],
            "name": node["name"],
            "full_name": full,
            "private": node["isPrivate"],
            "owner": self.user(&node["owner"]),
            "html_url": html,
            "description": node["description"],
            "fork": node["isFork"],
            "url": format!("{}/repos/{full}", self.base),
            "created_at": node["createdAt"],
            "updated_at": node["updatedAt"],
            "pushed_at": node["pushedAt"],
            "git_url": format!("{}.git", html.replacen("https:", "git:", 1)),
            "ssh_url": node["sshUrl"],
            "clone_url": format!("{html}.git"),
            "svn_url": html,
            "homepage": node["homepageUrl"],
            "size": node["diskUsage"],
            "stargazers_count": node["stargazerCount"],
            "watchers_count": node["stargazerCount"],
            "language": node["primaryLanguage"]["name"],
            "has_issues": node["hasIssuesEnabled"],
            "has_projects": node["hasProjectsEnabled"],
            "has_wiki": node["hasWikiEnabled"],
            "has_discussions": node["hasDiscussionsEnabled"],
            "forks_count": node["forkCount"],
            "mirror_url": node["mirrorUrl"],
            "archived": node["isArchived"],
            "disabled": node["isDisabled"],
            "open_issues_count": open,
            "license": self.license(&node["licenseInfo"]),
            "allow_forking": node["forkingAllowed"],
            "is_template": node["isTemplate"],
            "web_commit_signoff_required": node["webCommitSignoffRequired"],
            "topics": topics,
            "visibility": lower(&node["visibility"]),
            "forks": node["forkCount"],
            "open_issues": open,
            "watchers": node["stargazerCount"],
            "default_branch": node["defaultBranchRef"]["name"],
        })
    }

    fn license(self, license: &Value) -> Value {
        if license.is_null() {
            return Value::Null;
        }
        // A licence that GitHub does not know has no page.
        let key = text(&license["key"]);
        let url = if key == "other" { Value::Null } else { json!(format!("{}/licenses/{key}", self.base)) };
        json!({
            "key": key,
            "name": license["name"],
            "spdx_id": license["spdxId"],
            "url": url,
            "node_id": license["id"],
        })
    }

    fn user(self, actor: &Value) -> Value {
        if actor.is_null() {
            return Value::Null;
        }
        let kind = text(&actor["__typename"]);
        let login = match kind {
            "Bot" => format!("{}[bot]", text(&actor["login"])),
            _ => text(&actor["login"]).to_owned(),
        };
        let url = login.replace('[', "%5B").replace(']', "%5D");
        // GraphQL's address names the picture's version as well.
        let avatar = text(&actor["avatarUrl"]);
        let avatar = match (avatar.find("?u="), avatar.find("&v=")) {
            (Some(start), Some(end)) if start < end => format!("{}?{}", &avatar[..start], &avatar[end + 1..]),
            _ => avatar.to_owned(),
        };
        json!({
            "login": login,
            "id": actor["databaseId"],
            "node_id": actor["id"],
            "avatar_url": avatar,
            "url": format!("{}/users/{url}", self.base),
            "html_url": actor["url"],
            "type": kind,
            "site_admin": actor["isSiteAdmin"].as_bool().unwrap_or(false),
        })
    }

    /// An issue, or a pull request as REST lists it among issues.
    pub fn issue(self, node: &Value, full_name: &str, is_pull: bool) -> Value {
        let number = node["number"].as_u64().unwrap_or(0);
        let repository = format!("{}/repos/{full_name}", self.base);
        let url = format!("{repository}/issues/{number}");
        let html = text(&node["url"]);
        let people = |connection: &Value| nodes(connection).map(|actor| self.user(actor)).collect::<Vec<Value>>();
        let assignees = people(&node["assignees"]);
        let labels: Vec<Value> = nodes(&node["labels"]).map(|label| Self::label(label, &repository)).collect();
        let id: Value = text(&node["fullDatabaseId"]).parse::<u64>().map_or(Value::Null, Into::into);
        // To REST a merged pull request is closed.
        let state = if text(&node["state"]) == "OPEN" { "open" } else { "closed" };
        let mut issue = json!({
            "url": url,
            "repository_url": repository,
            "labels_url": format!("{url}/labels{{/name}}"),
            "comments_url": format!("{url}/comments"),
            "events_url": format!("{url}/events"),
            "html_url": html,
            "id": id,
            "node_id": node["id"],
            "number": number,
            "title": node["title"],
            "user": self.user(&node["author"]),
            "labels": labels,
            "state": state,
            "locked": node["locked"],
            "assignee": assignees.first().cloned().unwrap_or_default(),
            "assignees": assignees,
            "milestone": Self::milestone(&node["milestone"], &repository),
            "comments": node["comments"]["totalCount"],
            "created_at": node["createdAt"],
            "updated_at": node["updatedAt"],
            "closed_at": node["closedAt"],
            "author_association": node["authorAssociation"],
            "active_lock_reason": lower(&node["activeLockReason"]),
        });
        if is_pull {
            issue["draft"] = node["isDraft"].clone();
            issue["pull_request"] = json!({
                "url": format!("{repository}/pulls/{number}"),
                "html_url": html,
                "diff_url": format!("{html}.diff"),
                "patch_url": format!("{html}.patch"),
                "merged_at": node["mergedAt"],
            });
        }
        issue["body"] = node["body"].clone();
        issue["timeline_url"] = json!(format!("{url}/timeline"));
        issue["state_reason"] = snake(&node["stateReason"]);
        issue
    }

    fn label(label: &Value, repository: &str) -> Value {
        let name = text(&label["name"]);
        let encoded: String = name.bytes().fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        });
        json!({
            "node_id": label["id"],
            "url": format!("{repository}/labels/{encoded}"),
            "name": name,
            "color": label["color"],
            "default": label["isDefault"],
            "description": label["description"],
        })
    }

    fn milestone(milestone: &Value, repository: &str) -> Value {
        if milestone.is_null() {
            return Value::Null;
        }
        json!({
            "url": format!("{repository}/milestones/{}", milestone["number"]),
            "html_url": milestone["url"],
            "node_id": milestone["id"],
            "number": milestone["number"],
            "title": milestone["title"],
            "description": milestone["description"],
            "state": snake(&milestone["state"]),
            "created_at": milestone["createdAt"],
            "updated_at": milestone["updatedAt"],
            "closed_at": milestone["closedAt"],
            "due_on": milestone["dueOn"],
        })
    }
}

fn nodes(connection: &Value) -> impl Iterator<Item = &Value> {
    connection["nodes"].as_array().into_iter().flatten().filter(|node| !node.is_null())
}
