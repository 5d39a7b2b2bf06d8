//! What a change outdates, for every operation of GitHub's REST API (`operations.txt`): the reads that may show it.

use octocache::clock::Timestamp;
use octocache::cutoff::Cutoffs;
use octocache::event::outdated_by_write;
use octocache::key::KeyParts;
use octocache::partition::Partition;
use octocache::request::{Api, Request};
use octocache::tag::Subject;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// Changes of a repository that do not outdate all of it: it is known exactly what shows them. Their own path and the
/// list above it do.
const EXACT: &[&str] = &[
    "/issues",
    "/issues/{issue_number}",
    "/issues/{issue_number}/assignees",
    "/issues/{issue_number}/comments",
    "/issues/{issue_number}/labels",
    "/issues/{issue_number}/labels/{name}",
    "/pulls",
    "/pulls/{pull_number}/requested_reviewers",
    "/pulls/{pull_number}/reviews",
    "/pulls/{pull_number}/reviews/{review_id}",
    "/pulls/{pull_number}/reviews/{review_id}/dismissals",
    "/pulls/{pull_number}/reviews/{review_id}/events",
    "/labels",
    "/labels/{name}",
    "/milestones",
    "/milestones/{milestone_number}",
    "/releases",
    "/releases/{release_id}",
    "/releases/{release_id}/assets",
    "/check-runs",
    "/check-runs/{check_run_id}",
    "/check-runs/{check_run_id}/rerequest",
    "/check-suites",
    "/check-suites/preferences",
    "/check-suites/{check_suite_id}/rerequest",
    "/statuses/{sha}",
    "/dispatches",
    "/actions/workflows/{workflow_id}/dispatches",
];

/// What changes nothing that can be read.
const NOTHING: &[&str] = &[
    "POST /app-manifests/{code}/conversions",
    "POST /app/hook/deliveries/{delivery_id}/attempts",
    "POST /app/installations/{installation_id}/access_tokens",
    "DELETE /applications/{client_id}/token",
    "POST /applications/{client_id}/token",
    "POST /applications/{client_id}/token/scoped",
    "POST /credentials/revoke",
    "DELETE /installation/token",
    "POST /markdown",
    "POST /markdown/raw",
    "POST /orgs/{org}/actions/runners/registration-token",
    "POST /orgs/{org}/actions/runners/remove-token",
    "POST /orgs/{org}/attestations/bulk-list",
    "POST /repos/{owner}/{repo}/actions/runners/registration-token",
    "POST /repos/{owner}/{repo}/actions/runners/remove-token",
    "POST /repos/{owner}/{repo}/releases/generate-notes",
    "POST /users/{username}/attestations/bulk-list",
];

fn operations() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("operations.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).collect()
}

/// The path with something in each place.
fn filled(path: &str) -> String {
    let fill = |segment: &str| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
        None => segment.to_owned(),
        Some("owner" | "org" | "enterprise" | "template_owner") => "acme".to_owned(),
        Some("repo" | "template_repo") => "app".to_owned(),
        Some("username" | "assignee") => "octocat".to_owned(),
        Some(name) if name.ends_with("_id") || name.ends_with("number") => "7".to_owned(),
        Some(_) => "x".to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

/// What a change and the reads that may show it have in common.
fn root(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["repos", owner, name, ..] => format!("/repos/{owner}/{name}"),
        // Runners show nowhere else.
        ["orgs", name, "actions", "runners" | "runner-groups", ..] => format!("/orgs/{name}/actions/runner"),
        ["orgs" | "enterprises", name, ..] => format!("/{}/{name}", segments[0]),
        [first, ..] => format!("/{first}"),
        [] => String::new(),
    }
}

#[test]
fn every_change_outdates_the_reads_that_may_show_it() {
    let operations = operations();
    assert!(operations.len() > 1_200, "{}", operations.len());
    let api = Api::github();
    let covers = |outdated: &Cutoffs, path: &str| {
        let request = Request::get(&api, &filled(path)).unwrap();
        let parts = KeyParts::of(&request, &Partition::public());
        outdated.times(Subject { key: &parts.key(), parts: &parts, listing: None }, NOW).revalidate.is_some()
    };
    let gets: Vec<&str> = operations.iter().filter(|(method, _)| *method == "GET").map(|(_, path)| *path).collect();
    let (mut missed, mut exact, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
    for (method, path) in operations.iter().filter(|(method, _)| *method != "GET") {
        let cutoffs = outdated_by_write(method, &filled(path), NOW);
        if cutoffs.is_empty() {
            nothing.push(format!("{method} {path}"));
            continue;
        }
        // By the minute after a delivery, too: what is certain is what was outdated by now.
        let outdated = Cutoffs::decode(&[]).unwrap().as_of(NOW);
        let outdated = cutoffs.into_iter().filter(|cutoff| cutoff.at <= NOW).fold(outdated, |mut all, cutoff| {
            all.add(cutoff, NOW);
            all
        });
        let below = path.strip_prefix("/repos/{owner}/{repo}").unwrap_or_default();
        let is_exact = EXACT.contains(&below);
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let may_show = |get: &&&str| {
            if is_exact {
                **get == *path || (**get == above && above != "/repos/{owner}/{repo}")
            } else {
                root(get) == root(path)
            }
        };
        let open: Vec<&&str> = gets.iter().filter(may_show).filter(|get| !covers(&outdated, get)).collect();
        if is_exact && gets.iter().any(|get| root(get) == root(path) && !covers(&outdated, get)) {
            exact.push(below);
        }
        if !open.is_empty() {
            missed.push(format!("{method} {path}: {open:?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert_eq!(nothing, NOTHING);
    exact.dedup();
    exact.sort_unstable();
    exact.dedup();
    let mut known = EXACT.to_vec();
    known.sort_unstable();
    assert_eq!(exact, known, "each of these is exact for some change");
}

#[test]
fn stars_gists_and_notifications_are_seen_where_they_show() {
    let api = Api::github();
    for (method, path, reads) in [
        (
            "PUT",
            "/user/starred/acme/app",
            &["/user/starred", "/users/octocat/starred", "/repos/acme/app/stargazers", "/repos/acme/app"][..],
        ),
        ("POST", "/gists", &["/gists", "/users/octocat/gists", "/gists/public"]),
        ("PATCH", "/gists/7", &["/gists/7", "/users/octocat/gists"]),
        ("PUT", "/notifications", &["/notifications", "/repos/acme/app/notifications"]),
        ("PUT", "/repos/acme/app/notifications", &["/notifications", "/repos/acme/app/notifications"]),
        ("PUT", "/teams/7/repos/acme/app", &["/teams/7/repos", "/repos/acme/app/teams"]),
        ("PUT", "/orgs/acme/teams/x/repos/acme/app", &["/orgs/acme/teams/x/repos", "/repos/acme/app/teams"]),
        ("POST", "/user/repos", &["/user/repos", "/users/octocat/repos"]),
        ("POST", "/orgs/acme/repos", &["/orgs/acme/repos", "/user/repos", "/repos/acme/new"]),
        ("DELETE", "/repos/acme/app", &["/orgs/acme/repos", "/user/repos", "/repos/acme/app/issues"]),
        ("PUT", "/repos/acme/app/contents/a", &["/repos/acme/app/pulls/7", "/repos/acme/app/commits"]),
        ("PUT", "/repos/acme/app/actions/workflows/7/disable", &["/repos/acme/app/actions/workflows"]),
    ] {
        let cutoffs = outdated_by_write(method, path, NOW);
        let outdated = cutoffs.into_iter().fold(Cutoffs::decode(&[]).unwrap().as_of(NOW), |mut all, cutoff| {
            all.add(cutoff, NOW);
            all
        });
        for read in reads {
            let parts = KeyParts::of(&Request::get(&api, read).unwrap(), &Partition::public());
            let times = outdated.times(Subject { key: &parts.key(), parts: &parts, listing: None }, NOW);
            assert!(times.revalidate.is_some(), "{method} {path}: {read}");
        }
    }
}
