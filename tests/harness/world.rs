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
    sim.put("/users/octocat", Doc::dated(json!({ "login": "octocat", "id": 583_231, "name": "The Octocat" })));
    names
}

fn repository(n: usize) -> Value {
    json!({
        "id": n, "name": format!("repo-{n:04}"), "full_name": format!("acme/repo-{n:04}"), "private": false,
        "owner": { "login": "acme", "id": 1 }, "description": format!("The repository number {n} of a made-up organisation"),
        "pushed_at": "2026-11-01T00:00:00Z", "stargazers_count": n * 7 % 1_000, "default_branch": "main",
    })
}

fn release(name: &str, n: usize) -> Value {
    json!({ "id": n, "tag_name": format!("v1.{n}.0"), "name": format!("{name} 1.{n}.0"), "published_at": "2026-10-01T00:00:00Z" })
}

fn issues(name: &str, n: usize) -> Doc {
    let issue = |number: usize| json!({ "id": n * 1_000 + number, "number": number, "title": format!("{name}: issue {number}"), "state": "open" });
    Doc::list((1..=n * 37 % 250).map(issue).collect())
}
