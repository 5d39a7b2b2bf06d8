//! What an event at GitHub outdates (C8): the mapping from webhook events to scopes, as data.
//!
//! Knows: payloads as far as names, numbers and times go (GitHub, "Webhook events and payloads").
//! Does not know: how an event came here, or what is done about what it outdates.

mod payload;
mod shape;
mod write;

pub use payload::{MAX_PAYLOAD_BYTES, Payload};
pub use write::{outdated_by_mutation, outdated_by_upload, outdated_by_write};

use crate::clock::Timestamp;
use crate::cutoff::{Cutoff, CutoffMode, SUSPECT_SECS};
use crate::tag::Scope;

/// A row of the mapping: these actions of this event outdate these scopes.
struct Row {
    event: &'static str,
    /// Only for these actions; all of them if empty.
    actions: &'static [&'static str],
    mode: CutoffMode,
    /// Scopes with placeholders; one without a value leaves its scope out.
    scopes: &'static [&'static str],
}

const fn row(event: &'static str, scopes: &'static [&'static str]) -> Row {
    Row { event, actions: &[], mode: CutoffMode::Revalidate, scopes }
}

const fn only(event: &'static str, actions: &'static [&'static str], scopes: &'static [&'static str]) -> Row {
    Row { event, actions, mode: CutoffMode::Revalidate, scopes }
}

/// Lists in which a repository stands.
const LISTS: &[&str] = &["org:{owner}+family:org-repos", "family:repos"];

/// One issue or pull request, whichever its number is of.
const NUMBERED: &[&str] =
    &["/repos/{repo}/issues/{number}", "/repos/{repo}/pulls/{number}", "repo:{repo}+family:issues", "family:search"];

const ISSUE_COMMENTS: &[&str] = &["/repos/{repo}/issues/comments"];

const REVIEWS: &[&str] =
    &["/repos/{repo}/pulls/{number}", "/repos/{repo}/issues/{number}", "/repos/{repo}/pulls/comments"];

const RUNS: &[&str] = &[
    "repo:{repo}+family:workflow-runs",
    "repo:{repo}+family:queue-depth",
    "repo:{repo}+family:artifacts",
    "repo:{repo}+family:runners",
    "org:{owner}+family:runners",
];

/// Check runs also decide whether a pull request can be merged.
const CHECKS: &[&str] = &["repo:{repo}+family:checks", "repo:{repo}+family:issue"];

const DEPLOYMENTS: &[&str] =
    &["/repos/{repo}/deployments", "/repos/{repo}/environments", "repo:{repo}+family:workflow-runs"];

/// Who may see what has changed: everything is in question.
const ACCESS: &[&str] = &["repo:{repo}", "org:{owner}"];

const ALERTS: &[&str] = &["repo:{repo}+family:alerts", "org:{owner}+family:alerts"];

const PACKAGES: &[&str] = &["/orgs/{owner}/packages", "/users/{owner}/packages"];

const PROJECTS: &[&str] = &["/orgs/{owner}/projectsV2", "/users/{owner}/projectsV2"];

const BRANCHES: &[&str] =
    &["/repos/{repo}/branches", "/repos/{repo}/rulesets", "/repos/{repo}/rules", "/orgs/{owner}/rulesets"];

/// All rows; those that fit an event add up. An event without a row outdates its repository.
static ROWS: &[Row] = &[
    row(
        "push",
        &[
            "repo:{repo}+family:commits",
            "repo:{repo}+family:refs",
            "repo:{repo}+family:tags",
            "repo:{repo}+family:languages",
            "repo:{repo}+family:community",
            "repo:{repo}+family:repo",
            "repo:{repo}+family:workflows",
            "repo:{repo}+family:events",
        ],
    ),
    row("push", LISTS),
    row(
        "create",
        &[
            "repo:{repo}+family:commits",
            "repo:{repo}+family:refs",
            "repo:{repo}+family:tags",
            "repo:{repo}+family:repo",
        ],
    ),
    row(
        "delete",
        &[
            "repo:{repo}+family:commits",
            "repo:{repo}+family:refs",
            "repo:{repo}+family:tags",
            "repo:{repo}+family:repo",
            "repo:{repo}+family:releases",
        ],
    ),
    row("release", &["repo:{repo}+family:releases", "repo:{repo}+family:tags", "repo:{repo}+family:refs"]),
    row("issues", NUMBERED),
    row("issues", &["repo:{repo}+family:repo", "repo:{repo}+family:events"]),
    only(
        "issues",
        &["milestoned", "demilestoned", "assigned", "unassigned", "labeled", "unlabeled"],
        &["repo:{repo}+family:members"],
    ),
    only("issues", &["transferred", "deleted"], &["repo:{repo}+family:issue", "repo:{other}"]),
    row("issue_comment", NUMBERED),
    row("issue_comment", ISSUE_COMMENTS),
    row("sub_issues", NUMBERED),
    row("sub_issues", &["repo:{repo}+family:issue"]),
    row("issue_dependencies", NUMBERED),
    row("issue_dependencies", &["repo:{repo}+family:issue"]),
    row("label", &["repo:{repo}+family:members", "repo:{repo}+family:issues", "repo:{repo}+family:issue"]),
    row("milestone", &["repo:{repo}+family:members", "repo:{repo}+family:issues", "repo:{repo}+family:issue"]),
    row("pull_request", NUMBERED),
    row("pull_request", &["repo:{repo}+family:repo", "repo:{repo}+family:events"]),
    only(
        "pull_request",
        &["synchronize", "closed", "opened", "reopened"],
        &["repo:{repo}+family:commits", "repo:{repo}+family:checks"],
    ),
    row("pull_request_review", REVIEWS),
    row("pull_request_review_comment", REVIEWS),
    row("pull_request_review_thread", REVIEWS),
    row("workflow_run", RUNS),
    row("workflow_job", RUNS),
    row("workflow_dispatch", &["repo:{repo}+family:workflow-runs", "repo:{repo}+family:queue-depth"]),
    row("repository_dispatch", &["repo:{repo}+family:workflow-runs", "repo:{repo}+family:queue-depth"]),
    row("merge_group", &["repo:{repo}+family:commits", "repo:{repo}+family:checks"]),
    row("check_run", CHECKS),
    row("check_suite", CHECKS),
    row("status", CHECKS),
    row("commit_comment", &["/repos/{repo}/comments", "repo:{repo}+family:commits"]),
    row("deployment", DEPLOYMENTS),
    row("deployment_status", DEPLOYMENTS),
    row("deployment_review", DEPLOYMENTS),
    row("deployment_protection_rule", DEPLOYMENTS),
    row("repository", &["repo:{repo}+family:repo", "repo:{repo}+family:community"]),
    row("repository", LISTS),
    only(
        "repository",
        &["renamed", "transferred"],
        &["repo:{repo}", "repo:{other}", "org:{other-owner}+family:org-repos"],
    ),
    only("repository", &["publicized"], &["repo:{repo}"]),
    Row { event: "repository", actions: &["privatized", "deleted"], mode: CutoffMode::Gone, scopes: &["repo:{repo}"] },
    row("repository_import", &["repo:{repo}"]),
    row("public", &["repo:{repo}"]),
    row("public", LISTS),
    row("fork", &["repo:{repo}+family:repo", "/repos/{repo}/forks", "family:repos"]),
    row("star", &["repo:{repo}+family:repo", "/repos/{repo}/stargazers", "/users/{sender}/starred", "/user/starred"]),
    row(
        "watch",
        &[
            "repo:{repo}+family:repo",
            "/repos/{repo}/stargazers",
            "/repos/{repo}/subscribers",
            "/users/{sender}/starred",
            "/user/starred",
        ],
    ),
    row("member", ACCESS),
    row("team", ACCESS),
    row("team", &["family:members"]),
    row("team_add", ACCESS),
    row("membership", ACCESS),
    row("membership", &["family:members"]),
    row("organization", ACCESS),
    row("org_block", ACCESS),
    // An installation's or user's whole view is in question.
    row("installation", &["all"]),
    row("installation_repositories", &["all"]),
    row("github_app_authorization", &["all"]),
    row("installation_target", &["all"]),
    row("branch_protection_rule", BRANCHES),
    row("branch_protection_configuration", BRANCHES),
    row("repository_ruleset", BRANCHES),
    row("dependabot_alert", ALERTS),
    row("code_scanning_alert", ALERTS),
    row("secret_scanning_alert", ALERTS),
    row("secret_scanning_alert_location", ALERTS),
    row("secret_scanning_scan", ALERTS),
    row("repository_vulnerability_alert", ALERTS),
    row("security_and_analysis", ALERTS),
    row("security_and_analysis", &["repo:{repo}+family:repo"]),
    row("repository_advisory", &["/repos/{repo}/security-advisories", "/orgs/{owner}/security-advisories"]),
    row("security_advisory", &["/advisories"]),
    row("page_build", &["/repos/{repo}/pages", "repo:{repo}+family:repo"]),
    row("package", PACKAGES),
    row("registry_package", PACKAGES),
    row("discussion", &["/repos/{repo}/discussions", "repo:{repo}+family:repo"]),
    row("discussion_comment", &["/repos/{repo}/discussions"]),
    row("projects_v2", PROJECTS),
    row("projects_v2_item", PROJECTS),
    row("projects_v2_status_update", PROJECTS),
    row("project", &["/repos/{repo}/projects", "/orgs/{owner}/projects", "/projects"]),
    row("project_card", &["/projects"]),
    row("project_column", &["/projects"]),
    row("deploy_key", &["/repos/{repo}/keys"]),
    row("meta", &["/repos/{repo}/hooks", "/orgs/{owner}/hooks"]),
    row("custom_property", &["/orgs/{owner}/properties"]),
    row("custom_property_values", &["/repos/{repo}/properties", "/orgs/{owner}/properties"]),
    // What says nothing about what the API shows.
    row("gollum", &[]),
    row("ping", &[]),
    row("schedule", &[]),
    row("workflow_call", &[]),
    row("marketplace_purchase", &[]),
    row("sponsorship", &[]),
    row("custom_property_promoted_to_enterprise", &[]),
];

/// No event's name.
const OTHER: &str = "";

/// Events of workflows that are others' under a name of their own.
const SAME: &[(&str, &str)] = &[("pull_request_target", "pull_request"), ("pull_request_comment", "issue_comment")];

/// What an event outdates that a workflow hears of: from the time of the change, as GitHub stamped it,
/// and suspect for a while after that; until just now where there is no stamp.
pub fn outdated(event: &str, payload: &Payload, now: Timestamp) -> Vec<Cutoff> {
    let event = canonical(event);
    let suspect_until = payload.changed_at(event).map(|at| at.plus(SUSPECT_SECS).min(now.plus(SUSPECT_SECS)));
    touched(event, payload, suspect_until.unwrap_or(now.minus(1)))
}

/// What a delivery outdates, by the time at which it came: deliveries come late and in any order, and
/// GitHub's own answers may lag behind them. A payload of another event revalidates its repository alone.
pub fn outdated_on_delivery(event: &str, payload: &Payload, now: Timestamp) -> Vec<Cutoff> {
    let event = if fits(event, payload) { canonical(event) } else { OTHER };
    touched(event, payload, now.plus(SUSPECT_SECS))
}

/// Whether a delivered payload is one of `event`, by the members that it has.
pub fn fits(event: &str, payload: &Payload) -> bool {
    shape::fits(canonical(event), payload)
}

/// An event by the name that webhooks have for it, if the mapping has it.
pub fn known(event: &str) -> Option<&'static str> {
    let event = canonical(event);
    ROWS.iter().find(|row| row.event == event).map(|row| row.event)
}

impl Payload {
    /// Whether what an event with this payload is about must be gone.
    fn removes(&self, event: &str) -> bool {
        let action = self.action.as_deref();
        ROWS.iter().any(|row| {
            row.event == event
                && row.mode == CutoffMode::Gone
                && action.is_some_and(|action| row.actions.contains(&action))
        })
    }
}

fn canonical(event: &str) -> &str {
    SAME.iter().find(|(name, _)| *name == event).map_or(event, |(_, same)| same)
}

fn touched(event: &str, payload: &Payload, at: Timestamp) -> Vec<Cutoff> {
    let mut cutoffs: Vec<Cutoff> = Vec::new();
    let mut add = |template: &str, mode| {
        // What cannot be filled in or is no scope is about nothing that is stored.
        if let Some(scope) = fill(template, payload).and_then(|text| text.parse::<Scope>().ok()) {
            let cutoff = Cutoff { scope, at, mode };
            if !cutoffs.contains(&cutoff) {
                cutoffs.push(cutoff);
            }
        }
    };
    let rows: Vec<&Row> = ROWS.iter().filter(|row| row.event == event).collect();
    for row in &rows {
        if row.actions.is_empty() || payload.action.as_deref().is_some_and(|action| row.actions.contains(&action)) {
            for template in row.scopes {
                add(template, row.mode);
                add(&by_number(template), row.mode);
            }
        }
    }
    if rows.is_empty() {
        // Unknown: all of its repository, else of its organisation.
        let template = if payload.repository.is_some() { "repo:{repo}" } else { "org:{owner}" };
        add(template, CutoffMode::Revalidate);
        add(&by_number(template), CutoffMode::Revalidate);
    }
    if !cutoffs.is_empty() {
        // A document may show anything.
        cutoffs.push(Cutoff {
            scope: Scope::Tags(vec![crate::tag::Tag::Family("graphql".into())]),
            at,
            mode: CutoffMode::Revalidate,
        });
    }
    cutoffs
}

/// The same scope by the repository's number: later pages of its listings, and clients that keep numbers, ask for
/// `/repositories/ID/…`. A template without a repository stays as it is.
fn by_number(template: &str) -> String {
    template.replace("repo:{repo}", "repo-id:{repo-id}").replace("/repos/{repo}/", "/repositories/{repo-id}/")
}

fn fill(template: &str, payload: &Payload) -> Option<String> {
    let mut text = template.to_owned();
    while let Some(open) = text.find('{') {
        let close = text[open..].find('}')? + open;
        let value = payload.value(&text[open + 1..close])?;
        // Names of GitHub's have no other characters; anything else is no name.
        if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./[]".contains(&b)) {
            return None;
        }
        text.replace_range(open..=close, &value);
    }
    Some(text)
}

#[cfg(test)]
mod tests;
