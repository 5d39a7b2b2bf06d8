//! A made-up organisation for the simulated GitHub: repositories with releases, issues, languages.

use serde_json::{Value, json};

use super::sim::{Doc, Sim};

/// Fills `sim` with the organisation `acme` and so many repositories; returns their full names.
pub fn organisation(sim: &Sim, repositories: usize) -> Vec<String> {
    let names: Vec<String> = (0..repositories).map(|n| format!("acme/repo-{n:04}")).collect();
    let infos: Vec<Value> = (0..repositories).map(repository).collect();
    for (n, name) in names.iter().enumerate() {
        sim.put(&format!("/repos/{name}"), Doc::dated(infos[n].clone()));
        sim.put(&format!("/repos/{name}/languages"), Doc::json(json!({ "Rust": 1_000 + n, "Shell": 50 + n })));
        sim.put(&format!("/repos/{name}/releases"), Doc::list((0..n % 5).map(|m| release(name, m)).collect()));
        sim.put(&format!("/repos/{name}/releases/latest"), Doc::json(release(name, n % 5)));
        sim.put(&format!("/repos/{name}/issues"), issues(name, n));
        // Later pages of a listing are found under a numeric path.
        let numeric = Some(format!("/repositories/{n}/issues"));
        let Doc::List { items, .. } = issues(name, n) else { continue };
        sim.put(&format!("/repos/{name}/issues"), Doc::List { items: items.clone(), wrapped_in: None, numeric });
        sim.put(&format!("/repositories/{n}/issues"), Doc::List { items, wrapped_in: None, numeric: None });
        let runs = (0..3).map(|m| json!({ "id": m, "status": "completed", "name": "ci" })).collect();
        sim.put(
            &format!("/repos/{name}/actions/runs"),
            Doc::List { items: runs, wrapped_in: Some("workflow_runs"), numeric: None },
        );
    }
    sim.put("/orgs/acme/repos", Doc::list(infos));
    sim.rebase(BASE);
    sim.put("/users/octocat", Doc::dated(json!({ "login": "octocat", "id": 583_231, "name": "The Octocat" })));
    names
}

pub fn user(login: &str, id: usize) -> Value {
    let kind = match login {
        "acme" => "Organization",
        bot if bot.ends_with("[bot]") => "Bot",
        _ => "User",
    };
    json!({
        "login": login, "id": id, "node_id": format!("U_{id}"), "gravatar_id": "",
        "avatar_url": format!("https://avatars.githubusercontent.com/u/{id}?v=4"),
        "url": format!("{BASE}/users/{}", login.replace('[', "%5B").replace(']', "%5D")),
        "html_url": format!("https://github.com/{}", login.trim_end_matches("[bot]")),
        "type": kind, "site_admin": false,
    })
}

/// Stands for the simulation's address, which is not known before it runs.
pub const BASE: &str = "http://BASE";

fn repository(n: usize) -> Value {
    let (name, full) = (format!("repo-{n:04}"), format!("acme/repo-{n:04}"));
    let html = format!("https://github.com/{full}");
    let license = (!n.is_multiple_of(3)).then(|| {
        let key = if n % 3 == 1 { "mit" } else { "other" };
        let url = (key == "mit").then(|| format!("{BASE}/licenses/mit"));
        json!({ "key": key, "name": "A licence", "spdx_id": "X", "url": url, "node_id": "L" })
    });
    let open = issues_of(n);
    let mut repository = json!({
        "id": n, "node_id": format!("R_{n}"), "name": name, "full_name": full, "private": false,
        "owner": user("acme", 1), "html_url": html,
        "description": if n.is_multiple_of(4) { Value::Null } else { json!(format!("The repository number {n} of a made-up organisation")) },
        "fork": n.is_multiple_of(5), "url": format!("{BASE}/repos/{full}"), "keys_url": format!("{BASE}/repos/{full}/keys{{/key_id}}"),
        "created_at": "2020-01-01T00:00:00Z", "updated_at": "2026-11-02T00:00:00Z", "pushed_at": "2026-11-01T00:00:00Z",
    });
    let rest = json!({
        "git_url": format!("git://github.com/{full}.git"), "ssh_url": format!("git@github.com:{full}.git"),
        "clone_url": format!("{html}.git"), "svn_url": html, "homepage": null, "size": n * 3,
        "stargazers_count": n * 7 % 1_000, "watchers_count": n * 7 % 1_000,
        "language": if n.is_multiple_of(6) { Value::Null } else { json!("Rust") },
        "has_issues": true, "has_projects": false, "has_downloads": true, "has_wiki": n.is_multiple_of(2), "has_pages": false,
        "has_discussions": false, "forks_count": n % 9, "mirror_url": null, "archived": n.is_multiple_of(7), "disabled": false,
        "open_issues_count": open, "license": license, "allow_forking": true, "is_template": false,
        "web_commit_signoff_required": false, "topics": ["a", "b"], "visibility": "public", "forks": n % 9,
        "open_issues": open, "watchers": n * 7 % 1_000, "default_branch": "main", "permissions": { "pull": true },
    });
    let Value::Object(rest) = rest else { return repository };
    repository.as_object_mut().unwrap().extend(rest);
    repository
}

/// How many open issues and pull requests a repository has: few as a rule, some have many.
fn issues_of(n: usize) -> usize {
    if n % 50 == 5 { 185 } else { n * 37 % 9 }
}

fn release(name: &str, n: usize) -> Value {
    json!({ "id": n, "tag_name": format!("v1.{n}.0"), "name": format!("{name} 1.{n}.0"), "published_at": "2026-10-01T00:00:00Z" })
}

fn issues(name: &str, n: usize) -> Doc {
    // Newest first, as GitHub lists them.
    Doc::list((1..=issues_of(n)).rev().map(|number| issue(name, n, number)).collect())
}

fn issue(name: &str, n: usize, number: usize) -> Value {
    let (repository, html) = (format!("{BASE}/repos/{name}"), format!("https://github.com/{name}"));
    let url = format!("{repository}/issues/{number}");
    let is_pull = number.is_multiple_of(4);
    let html = format!("{html}/{}/{number}", if is_pull { "pull" } else { "issues" });
    let label = json!({
        "id": 77, "node_id": "LA_1", "url": format!("{repository}/labels/help%20wanted"), "name": "help wanted",
        "color": "ff0000", "default": true, "description": null,
    });
    let milestone = json!({
        "url": format!("{repository}/milestones/1"), "html_url": "https://github.com/m", "labels_url": "x", "id": 9,
        "node_id": "MI_1", "number": 1, "title": "1.0", "description": "soon", "state": "open", "open_issues": 4,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-02T00:00:00Z", "closed_at": null, "due_on": null,
    });
    let author = if number.is_multiple_of(5) { user("robot[bot]", 99) } else { user("octocat", 583_231) };
    let mut issue = json!({
        "url": url, "repository_url": repository, "labels_url": format!("{url}/labels{{/name}}"),
        "comments_url": format!("{url}/comments"), "events_url": format!("{url}/events"), "html_url": html,
        "id": 5_000_000_000_u64 + (n * 1_000 + number) as u64, "node_id": format!("I_{n}_{number}"), "number": number,
        "title": format!("{name}: issue {number}"), "user": author,
        "labels": if number.is_multiple_of(3) { vec![label] } else { vec![] }, "state": "open", "locked": number % 8 == 1,
        "assignee": if number.is_multiple_of(6) { user("octocat", 583_231) } else { Value::Null },
        "assignees": if number.is_multiple_of(6) { vec![user("octocat", 583_231)] } else { vec![] },
        "milestone": if number.is_multiple_of(7) { milestone } else { Value::Null }, "comments": number % 11,
        "created_at": format!("2026-{:02}-{:02}T00:00:00Z", 1 + number / 28, 1 + number % 28),
        "updated_at": "2026-11-01T00:00:00Z", "closed_at": null, "author_association": "MEMBER",
        "active_lock_reason": if number % 8 == 1 { json!("too heated") } else { Value::Null },
    });
    if is_pull {
        issue["draft"] = json!(false);
        issue["pull_request"] = json!({
            "url": format!("{repository}/pulls/{number}"), "html_url": html, "diff_url": format!("{html}.diff"),
            "patch_url": format!("{html}.patch"), "merged_at": null,
        });
    }
    issue["body"] = json!("A \"body\" with\nlines");
    issue["reactions"] = json!({ "total_count": 0 });
    issue["timeline_url"] = json!(format!("{url}/timeline"));
    issue["state_reason"] = Value::Null;
    issue
}
