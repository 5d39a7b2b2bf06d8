//! Whether a payload is of the event that it is delivered as: the event's name is a header, which GitHub does
//! not sign.
//!
//! Knows: which members tell the payloads of events apart (GitHub, "Webhook events and payloads"). Does not
//! know: what events outdate.

use super::payload::Payload;

/// Members that stand in any payload.
const ANYWHERE: &[&str] = &["action", "repository", "sender", "organization", "installation", "enterprise", "changes"];

/// An event, the members that its payload has, and those of other events that it may have, too.
struct Shape(&'static str, &'static [&'static str], &'static [&'static str]);

/// The shapes that are known. An event without one has none of the members that are named here, as far as
/// that can be told.
static SHAPES: &[Shape] = &[
    Shape("branch_protection_rule", &["rule"], &[]),
    Shape("check_run", &["check_run"], &["deployment"]),
    Shape("check_suite", &["check_suite"], &[]),
    Shape("code_scanning_alert", &["alert"], &[]),
    Shape("commit_comment", &["comment"], &[]),
    Shape("create", &["ref_type", "master_branch"], &[]),
    Shape("delete", &["ref_type"], &[]),
    Shape("dependabot_alert", &["alert"], &[]),
    Shape("deploy_key", &["key"], &[]),
    Shape("deployment", &["deployment"], &["workflow_run"]),
    Shape("deployment_protection_rule", &["deployment"], &["deployment_callback_url"]),
    Shape("deployment_review", &["workflow_run"], &["comment", "workflow_job_run"]),
    Shape("deployment_status", &["deployment", "deployment_status"], &["check_run", "workflow_run"]),
    Shape("discussion", &["discussion"], &["answer", "comment"]),
    Shape("discussion_comment", &["discussion", "comment"], &[]),
    Shape("fork", &["forkee"], &[]),
    Shape("gollum", &["pages"], &[]),
    Shape("installation_repositories", &["repository_selection"], &[]),
    Shape("issue_comment", &["issue", "comment"], &[]),
    Shape("issues", &["issue"], &[]),
    Shape("label", &["label"], &[]),
    Shape("member", &["member"], &[]),
    Shape("membership", &["member", "team"], &[]),
    Shape("merge_group", &["merge_group"], &[]),
    Shape("meta", &["hook"], &[]),
    Shape("milestone", &["milestone"], &[]),
    Shape("org_block", &["blocked_user"], &[]),
    Shape("package", &["package"], &[]),
    Shape("page_build", &["build"], &[]),
    Shape("ping", &["hook", "zen"], &[]),
    Shape("project", &["project"], &[]),
    Shape("project_card", &["project_card"], &[]),
    Shape("project_column", &["project_column"], &[]),
    Shape("projects_v2", &["projects_v2"], &[]),
    Shape("projects_v2_item", &["projects_v2_item"], &[]),
    Shape("pull_request", &["pull_request"], &[]),
    Shape("pull_request_review", &["pull_request", "review"], &[]),
    Shape("pull_request_review_comment", &["pull_request", "comment"], &[]),
    Shape("pull_request_review_thread", &["pull_request", "thread"], &[]),
    Shape("push", &["commits"], &[]),
    Shape("registry_package", &["registry_package"], &[]),
    Shape("release", &["release"], &[]),
    Shape("repository_dispatch", &["client_payload"], &[]),
    Shape("repository_ruleset", &["repository_ruleset"], &[]),
    Shape("repository_vulnerability_alert", &["alert"], &[]),
    Shape("secret_scanning_alert", &["alert"], &[]),
    Shape("secret_scanning_alert_location", &["alert"], &[]),
    Shape("security_advisory", &["security_advisory"], &[]),
    Shape("sponsorship", &["sponsorship"], &[]),
    Shape("star", &["starred_at"], &[]),
    Shape("status", &["sha", "state"], &[]),
    Shape("team", &["team"], &[]),
    Shape("team_add", &["team"], &[]),
    Shape("workflow_job", &["workflow_job"], &["deployment"]),
    Shape("workflow_run", &["workflow_run"], &[]),
];

/// Members of some events' payloads that others have for details.
const DETAILS: &[&str] = &["label", "milestone", "answer", "sha", "state", "repository_selection", "team", "member"];

/// Whether `payload` is one of `event`, by the members that it has.
pub(super) fn fits(event: &str, payload: &Payload) -> bool {
    let has = |name: &str| payload.members.contains(name);
    if payload.removes(event) {
        // Nothing but what any payload has.
        return has("repository") && payload.members.iter().all(|name| ANYWHERE.contains(&name.as_str()));
    }
    let own = SHAPES.iter().find(|shape| shape.0 == event);
    let may = |name: &str| own.is_some_and(|Shape(_, must, may)| must.contains(&name) || may.contains(&name));
    own.is_none_or(|Shape(_, must, _)| must.iter().all(|name| has(name)))
        && SHAPES.iter().flat_map(|shape| shape.1).all(|name| !has(name) || may(name) || DETAILS.contains(name))
}
