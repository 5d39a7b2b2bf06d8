//! What a change that goes through us outdates (A16): the events that GitHub will send about it, told by
//! the request alone.
//!
//! Knows: which path or mutation stands for which events. Does not know: what those outdate (`event`),
//! or whether the change came about.

use super::outdated;
use super::payload::Payload;
use crate::clock::Timestamp;
use crate::cutoff::{Cutoff, CutoffMode};
use crate::tag::{Scope, Tag};

/// A row: a path (`*` one segment, `#` a number, `**` any rest), the events, their action.
struct Row(&'static str, &'static [&'static str], &'static str);

/// Below `/repos/OWNER/NAME`; the first that fits counts.
static ROWS: &[Row] = &[
    Row("/issues/comments/**", &["issue_comment"], "edited"),
    Row("/issues/#/comments", &["issue_comment"], "created"),
    Row("/issues/#/**", &["issues"], "labeled"),
    Row("/issues", &["issues"], "opened"),
    Row("/pulls/comments/**", &["pull_request_review_comment"], "edited"),
    Row("/pulls/#/merge", &["pull_request", "push"], "closed"),
    Row("/pulls/#/update-branch", &["pull_request", "push"], "synchronize"),
    Row("/pulls/#/comments/**", &["pull_request_review_comment"], "created"),
    Row("/pulls/#/reviews/**", &["pull_request_review"], "submitted"),
    Row("/pulls/#/**", &["pull_request"], "synchronize"),
    Row("/pulls", &["pull_request"], "opened"),
    Row("/labels/**", &["label"], "edited"),
    Row("/milestones/**", &["milestone"], "edited"),
    Row("/releases/**", &["release", "create"], "edited"),
    Row("/git/refs/**", &["create", "delete", "push"], ""),
    Row("/git/**", &[], ""),
    Row("/contents/**", &["push"], ""),
    Row("/merges", &["push"], ""),
    Row("/merge-upstream", &["push"], ""),
    Row("/branches/**", &["branch_protection_rule", "push"], ""),
    Row("/rulesets/**", &["repository_ruleset"], "edited"),
    Row("/check-runs/**", &["check_run"], "completed"),
    Row("/check-suites/**", &["check_suite"], "completed"),
    Row("/statuses/*", &["status"], ""),
    Row("/actions/workflows/*/dispatches", &["workflow_dispatch"], ""),
    Row("/actions/runs/**", &["workflow_run"], "requested"),
    Row("/actions/jobs/**", &["workflow_job"], "queued"),
    Row("/actions/**", &[], ""),
    Row("/dispatches", &["repository_dispatch"], ""),
    Row("/deployments/**", &["deployment", "deployment_status"], "created"),
    Row("/environments/**", &["deployment"], ""),
    Row("/comments/**", &["commit_comment"], "created"),
    Row("/commits/*/comments", &["commit_comment"], "created"),
    Row("/forks", &["fork"], ""),
    Row("/hooks/**", &["meta"], ""),
    Row("/keys/**", &["deploy_key"], ""),
    Row("/collaborators/**", &["member"], "added"),
    Row("/topics", &["repository"], "edited"),
    Row("/dependabot/**", &["dependabot_alert"], ""),
    Row("/code-scanning/**", &["code_scanning_alert"], ""),
    Row("/secret-scanning/**", &["secret_scanning_alert"], ""),
    Row("/pages/**", &["page_build"], ""),
    Row("/properties/**", &["custom_property_values"], ""),
];

/// Rows whose events outdate all that shows such a change. What the others touch is not known exactly: all of the repository
/// is outdated with them, at the price of free confirmations.
const EXACT: &[&str] = &[
    "/issues",
    "/issues/#",
    "/issues/#/comments",
    "/issues/#/labels/**",
    "/issues/#/assignees",
    "/pulls",
    "/pulls/#/requested_reviewers",
    "/pulls/#/reviews/**",
    "/labels/**",
    "/milestones/**",
    "/releases",
    "/releases/#",
    "/releases/#/assets",
    "/check-runs/**",
    "/check-suites/**",
    "/statuses/*",
    "/dispatches",
    "/actions/workflows/*/dispatches",
];

/// Requests that change nothing that can be read: questions, and tokens.
const CHANGES_NOTHING: &[(&str, &str)] = &[
    ("POST", "/markdown/**"),
    ("POST", "/applications/*/token/**"),
    ("DELETE", "/applications/*/token"),
    ("POST", "/app/installations/*/access_tokens"),
    ("POST", "/app-manifests/*/conversions"),
    ("POST", "/app/hook/deliveries/*/attempts"),
    ("POST", "/credentials/revoke"),
    ("DELETE", "/installation/token"),
    ("POST", "/repos/*/*/actions/runners/registration-token"),
    ("POST", "/repos/*/*/actions/runners/remove-token"),
    ("POST", "/orgs/*/actions/runners/registration-token"),
    ("POST", "/orgs/*/actions/runners/remove-token"),
    ("POST", "/enterprises/*/actions/runners/registration-token"),
    ("POST", "/enterprises/*/actions/runners/remove-token"),
    ("POST", "/repos/*/*/releases/generate-notes"),
    ("POST", "/orgs/*/attestations/bulk-list"),
    ("POST", "/users/*/attestations/bulk-list"),
];

/// Changes after which there is a repository under a name that is not in the path.
const NEW_NAMES: &[(&str, &str)] = &[
    ("POST", "/user/repos"),
    ("POST", "/repos/*/*/forks"),
    ("POST", "/repos/*/*/generate"),
    ("POST", "/repos/*/*/transfer"),
    ("PATCH", "/repos/*/*"),
];

/// Words in a mutation's name, and the families of what it may touch. Its arguments are opaque, so the
/// repository is not known.
const MUTATIONS: &[(&[&str], &[&str])] = &[
    (
        &["Issue", "Label", "Comment", "PullRequest", "Review", "Reaction", "Assign", "Milestone", "Pinned", "Lock"],
        &["issues", "issue", "search", "repo", "members", "events"],
    ),
    (
        &["merge", "Merge", "Ref", "Commit", "Branch"],
        &["commits", "refs", "tags", "languages", "repo", "checks", "issue"],
    ),
    (&["Release"], &["releases", "tags", "refs"]),
    (&["Star"], &["repo", "repos"]),
    (&["Check"], &["checks", "issue"]),
    (&["Deployment", "Environment"], &["workflows", "workflow-runs"]),
    (&["Project", "Discussion", "Gist", "Sponsor", "UserStatus", "UserList"], &["user"]),
];

fn revalidate(scope: Scope, at: Timestamp) -> Cutoff {
    Cutoff { scope, at, mode: CutoffMode::Revalidate }
}

/// What a `POST`, `PATCH`, `PUT` or `DELETE` of `path` outdates, from `now` on: itself, what lies below,
/// the list that it stands in, and what the events about it outdate.
pub fn outdated_by_write(method: &str, path: &str, now: Timestamp) -> Vec<Cutoff> {
    let is_one_of =
        |list: &[(&str, &str)]| list.iter().any(|(verb, pattern)| *verb == method && fits(pattern, path).is_some());
    if is_one_of(CHANGES_NOTHING) {
        return Vec::new();
    }
    if is_one_of(NEW_NAMES) {
        return vec![revalidate(Scope::All, now)];
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let mut cutoffs = match segments.as_slice() {
        ["repos", owner, name, below @ ..] => {
            let repository = format!("{owner}/{name}");
            let below = below.join("/");
            let below = if below.is_empty() { below } else { format!("/{below}") };
            let mut cutoffs = of_repository(method, &repository, &below, now);
            if below == "/notifications" {
                // Read in one repository, they are in all of them.
                cutoffs.extend(tags(&[Tag::Family("events".into())], now));
            }
            cutoffs
        }
        // Stars and subscriptions name the repository last.
        ["user", "starred" | "subscriptions", owner, name] => {
            let mut cutoffs = events(&["star"], "", &format!("{owner}/{name}"), None, now);
            cutoffs.extend(of_people(now));
            cutoffs
        }
        ["orgs", org, "actions", "runners", ..] => {
            tags(&[Tag::Org((*org).to_ascii_lowercase()), Tag::Family("runners".into())], now)
        }
        ["orgs", org, ..] => {
            let mut cutoffs = tags(&[Tag::Org((*org).to_ascii_lowercase())], now);
            cutoffs.extend(tags(&[Tag::User((*org).to_ascii_lowercase())], now));
            cutoffs.extend(of_people(now));
            cutoffs
        }
        ["teams" | "user", ..] => of_people(now),
        ["gists", ..] => ["/gists", "/user"].map(|prefix| revalidate(Scope::Prefix(prefix.into()), now)).into(),
        ["notifications", ..] => tags(&[Tag::Family("events".into())], now),
        // By number, or nothing that is known: anything may have changed.
        _ => vec![revalidate(Scope::All, now)],
    };
    let depth = if segments.first() == Some(&"repos") { 4 } else { 2 };
    cutoffs.push(revalidate(Scope::Prefix(path.to_owned()), now));
    if segments.len() > depth
        && let Some((list, _)) = path.rsplit_once('/')
    {
        cutoffs.push(revalidate(Scope::Prefix(list.to_owned()), now));
    }
    with_documents(cutoffs, now)
}

/// The same for a change at a host beside the API: assets of releases are sent to `uploads.github.com`, or below
/// `/api/uploads` of a server. Elsewhere nothing is changed that the API shows.
pub fn outdated_by_upload(method: &str, path: &str, now: Timestamp) -> Vec<Cutoff> {
    let path = path.strip_prefix("/api/uploads").unwrap_or(path);
    if path.starts_with("/repos/") { outdated_by_write(method, path, now) } else { Vec::new() }
}

/// Members, teams and memberships, wherever they stand; `/users` begins with `/user`, too.
fn of_people(now: Timestamp) -> Vec<Cutoff> {
    let mut cutoffs = tags(&[Tag::Family("members".into())], now);
    cutoffs.push(revalidate(Scope::Prefix("/user".into()), now));
    cutoffs
}

fn of_repository(method: &str, repository: &str, below: &str, now: Timestamp) -> Vec<Cutoff> {
    match (method, below) {
        ("DELETE", "") => events(&["repository"], "deleted", repository, None, now),
        (_, "" | "/transfer") => {
            let mut cutoffs = events(&["repository"], "edited", repository, None, now);
            cutoffs.extend(tags(&[Tag::Repo(repository.to_ascii_lowercase())], now));
            cutoffs
        }
        _ => match ROWS.iter().find_map(|row| Some((row, fits(row.0, below)?))) {
            Some((Row(_, names, action), number)) => {
                let mut cutoffs = events(names, action, repository, number, now);
                if !EXACT.iter().any(|pattern| fits(pattern, below).is_some()) {
                    cutoffs.extend(tags(&[Tag::Repo(repository.to_ascii_lowercase())], now));
                }
                cutoffs
            }
            None => tags(&[Tag::Repo(repository.to_ascii_lowercase())], now),
        },
    }
}

/// What a mutation with these root fields outdates; everything, if one of them is not known.
pub fn outdated_by_mutation(fields: &[String], now: Timestamp) -> Vec<Cutoff> {
    let mut cutoffs = Vec::new();
    for field in fields {
        let mut known = false;
        for (words, families) in MUTATIONS {
            if words.iter().any(|word| field.contains(word)) && !field.ends_with("Repository") {
                known = true;
                cutoffs.extend(families.iter().flat_map(|family| tags(&[Tag::Family((*family).into())], now)));
            }
        }
        if !known {
            cutoffs.push(revalidate(Scope::All, now));
        }
    }
    if fields.is_empty() {
        cutoffs.push(revalidate(Scope::All, now));
    }
    cutoffs.push(revalidate(Scope::Tags(vec![Tag::Family("graphql".into())]), now));
    cutoffs.dedup();
    cutoffs
}

/// Documents may show what was changed, wherever it stands.
fn with_documents(mut cutoffs: Vec<Cutoff>, now: Timestamp) -> Vec<Cutoff> {
    if !cutoffs.iter().any(|cutoff| cutoff.scope.to_string().contains("graphql")) {
        cutoffs.push(revalidate(Scope::Tags(vec![Tag::Family("graphql".into())]), now));
    }
    cutoffs
}

fn tags(tags: &[Tag], now: Timestamp) -> Vec<Cutoff> {
    vec![revalidate(Scope::Tags(tags.to_vec()), now)]
}

fn events(names: &[&str], action: &str, repository: &str, number: Option<u64>, now: Timestamp) -> Vec<Cutoff> {
    let payload = Payload::of_change(repository, action, number);
    let all = names.iter().flat_map(|name| outdated(name, &payload, now));
    // Unlike an event's, the time of the change is now.
    all.map(|cutoff| Cutoff { at: now, ..cutoff }).collect()
}

/// Whether `below` fits a row's pattern, and its number.
#[allow(clippy::option_option, reason = "a pattern may fit without a number")]
fn fits(pattern: &str, below: &str) -> Option<Option<u64>> {
    let mut number = None;
    let mut segments = below.split('/');
    for part in pattern.split('/') {
        if part == "**" {
            return Some(number);
        }
        let segment = segments.next();
        match (part, segment) {
            ("#", Some(segment)) => number = Some(segment.parse().ok()?),
            ("*", Some(segment)) if !segment.is_empty() => {}
            (literal, Some(segment)) if literal == segment => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyParts;
    use crate::partition::Partition;
    use crate::request::{Api, Request};
    use crate::tag::Subject;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn covers(cutoffs: &[Cutoff], path: &str) -> bool {
        let request = Request::get(&Api::github(), path).unwrap();
        let parts = KeyParts::of(&request, &Partition::public());
        let key = parts.key();
        cutoffs.iter().any(|cutoff| cutoff.scope.covers(Subject { key: &key, parts: &parts, listing: None }))
    }

    #[test]
    fn a_write_outdates_what_shows_it_and_little_else() {
        let cases: &[(&str, &str, &[&str], &[&str])] = &[
            (
                "POST",
                "/repos/o/r/issues",
                &["/repos/o/r/issues", "/repos/o/r", "/search/issues?q=x", "/graphql"],
                &["/repos/o/r/releases", "/repos/o/x/issues"],
            ),
            ("PATCH", "/repos/o/r/issues/7", &["/repos/o/r/issues/7", "/repos/o/r/issues"], &["/repos/o/r/languages"]),
            (
                "POST",
                "/repos/o/r/issues/7/comments",
                &["/repos/o/r/issues/7/comments", "/repos/o/r/issues/7"],
                &["/repos/o/x"],
            ),
            (
                "PUT",
                "/repos/o/r/pulls/3/merge",
                &["/repos/o/r/pulls/3", "/repos/o/r/commits/main", "/repos/o/r/languages"],
                &["/users/u"],
            ),
            (
                "DELETE",
                "/repos/o/r/git/refs/heads/x",
                &["/repos/o/r/git/refs", "/repos/o/r/git/refs/heads/x"],
                &["/repos/o/x"],
            ),
            ("POST", "/repos/o/r/releases", &["/repos/o/r/releases/latest", "/repos/o/r/tags"], &["/repos/o/r/issues"]),
            ("POST", "/repos/o/r/something/new", &["/repos/o/r/languages"], &["/repos/o/x"]),
            ("DELETE", "/repos/o/r", &["/repos/o/r/languages", "/orgs/o/repos"], &["/repos/o/x"]),
            ("PUT", "/user/starred/o/r", &["/user/starred", "/repos/o/r"], &["/repos/o/x"]),
            ("POST", "/orgs/o/repos", &["/orgs/o/repos"], &["/orgs/x/repos"]),
            ("POST", "/gists", &["/gists", "/users/u/gists"], &["/repos/o/r"]),
            ("PUT", "/gists/1/star", &["/gists/starred", "/gists/1"], &["/repos/o/r"]),
            ("PATCH", "/repos/o/r/issues/comments/9", &["/repos/o/r/issues/7/comments"], &["/repos/o/x"]),
            ("POST", "/repos/o/r/issues/comments/9/reactions", &["/repos/o/r/issues/7/comments"], &["/repos/o/x"]),
            ("PATCH", "/repos/o/r/pulls/comments/9", &["/repos/o/r/pulls/3/comments"], &["/repos/o/x"]),
            ("PATCH", "/repos/O/R/issues/7", &["/repos/o/r/issues/7", "/repos/o/r/issues/7/comments"], &["/repos/o/x"]),
            (
                "PUT",
                "/repos/o/r/actions/workflows/5/disable",
                &["/repos/o/r/actions/workflows", "/repos/o/r/actions/workflows/ci.yml"],
                &["/repos/o/x"],
            ),
            ("DELETE", "/repos/o/r/actions/artifacts/1", &["/repos/o/r/actions/runs/1/artifacts"], &["/repos/o/x"]),
            ("PUT", "/repos/o/r/contents/f", &["/repos/o/r/pulls/3", "/repos/o/r/pulls/3/files"], &["/repos/o/x"]),
            ("PATCH", "/repos/o/r/git/refs/heads/x", &["/repos/o/r/pulls/3/commits"], &["/repos/o/x"]),
            ("POST", "/repos/o/r/merges", &["/repos/o/r/pulls/3", "/repos/o/r/pulls"], &["/repos/o/x"]),
            ("PATCH", "/notifications/threads/1", &["/notifications", "/repos/o/r/notifications"], &["/repos/o/r"]),
            ("PUT", "/repos/o/r/subscription", &["/repos/o/r/subscription"], &["/repos/o/x"]),
            ("POST", "/user/repos", &["/repos/me/new", "/user/repos"], &[]),
            ("POST", "/repos/o/r/forks", &["/repos/me/r", "/users/me/repos"], &[]),
            ("PUT", "/orgs/o/teams/t/memberships/u", &["/user/teams", "/teams/5/members"], &["/repos/p/x"]),
            ("PUT", "/orgs/o/memberships/u", &["/user/memberships/orgs", "/orgs/o/members"], &["/repos/p/x"]),
            ("PATCH", "/orgs/o", &["/users/o", "/orgs/o"], &["/repos/p/x"]),
            ("PUT", "/user/subscriptions/o/r", &["/user/subscriptions"], &["/repos/p/x"]),
            ("POST", "/orgs/o/actions/runners/generate-jitconfig", &["/orgs/o/actions/runners"], &["/orgs/o/repos"]),
            ("PATCH", "/repositories/12/issues/1", &["/repos/o/r/issues"], &[]),
        ];
        for (method, path, touched, untouched) in cases {
            let cutoffs = outdated_by_write(method, path, NOW);
            assert!(cutoffs.iter().all(|cutoff| cutoff.at == NOW));
            touched.iter().for_each(|path2| assert!(covers(&cutoffs, path2), "{method} {path} leaves {path2}"));
            untouched.iter().for_each(|path2| assert!(!covers(&cutoffs, path2), "{method} {path} outdates {path2}"));
        }
        for (method, path) in [
            ("POST", "/markdown"),
            ("POST", "/markdown/raw"),
            ("DELETE", "/installation/token"),
            ("POST", "/repos/o/r/actions/runners/registration-token"),
            ("POST", "/orgs/o/actions/runners/remove-token"),
            ("POST", "/repos/o/r/releases/generate-notes"),
            ("POST", "/app/hook/deliveries/1/attempts"),
            ("POST", "/applications/x/token"),
        ] {
            assert!(outdated_by_write(method, path, NOW).is_empty(), "{method} {path}");
        }
        let deleted = outdated_by_write("DELETE", "/repos/o/r", NOW);
        assert!(deleted.iter().any(|cutoff| cutoff.mode == CutoffMode::Gone));
    }

    #[test]
    fn a_mutation_outdates_families_or_everything() {
        let of = |fields: &[&str]| {
            outdated_by_mutation(&fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>(), NOW)
        };
        let issue = of(&["createIssue"]);
        assert!(
            covers(&issue, "/repos/o/r/issues") && covers(&issue, "/graphql") && !covers(&issue, "/repos/o/r/releases")
        );
        assert!(covers(&of(&["mergePullRequest"]), "/repos/o/r/commits"));
        for all in [&["somethingNew"][..], &[], &["createRepository"], &["addStar", "unknown"]] {
            assert!(covers(&of(all), "/users/u"), "{all:?}");
        }
    }
}
