//! The mapping, row by row, over GitHub's published examples, and over payloads that are none.

use std::collections::BTreeSet;

use super::*;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn scopes(event: &str, payload: &Value) -> Vec<String> {
    let payload = Payload::read(payload.to_string().as_bytes()).unwrap();
    let show = |cutoff: &Cutoff| match cutoff.mode {
        CutoffMode::Revalidate => cutoff.scope.to_string(),
        CutoffMode::Gone => format!("gone {}", cutoff.scope),
    };
    outdated(event, &payload, NOW).iter().map(show).collect()
}

fn repository() -> Value {
    json!({ "full_name": "Acme/App", "owner": { "login": "Acme" } })
}

#[test]
fn an_issue_outdates_itself_its_lists_and_counts_and_no_more() {
    let payload = json!({ "action": "edited", "issue": { "number": 7 }, "repository": repository() });
    let expected = [
        "prefix:/repos/Acme/App/issues/7",
        "prefix:/repos/Acme/App/pulls/7",
        "repo:acme/app+family:issues",
        "family:search",
        "repo:acme/app+family:repo",
        "repo:acme/app+family:events",
        "family:graphql",
    ];
    assert_eq!(scopes("issues", &payload), expected);
}

#[test]
fn what_must_go_goes_and_both_names_of_a_renamed_repository_are_touched() {
    let deleted = scopes("repository", &json!({ "action": "privatized", "repository": repository() }));
    assert!(deleted.contains(&"gone repo:acme/app".to_owned()), "{deleted:?}");
    let renamed = json!({ "action": "renamed", "repository": repository(), "changes": { "repository": { "name": { "from": "old" } } } });
    let renamed = scopes("repository", &renamed);
    assert!(
        ["repo:acme/app", "repo:Acme/old"].iter().all(|name| renamed.contains(&name.to_lowercase())),
        "{renamed:?}"
    );
    let moved = json!({
        "action": "transferred", "repository": repository(), "changes": { "owner": { "from": { "user": { "login": "mona" } } } }
    });
    let moved = scopes("repository", &moved);
    assert!(moved.contains(&"repo:mona/app".to_owned()) && moved.contains(&"org:mona+family:org-repos".to_owned()));
}

#[test]
fn unknown_events_outdate_what_they_name_and_schedules_nothing() {
    assert_eq!(scopes("brand_new", &json!({ "repository": repository() })), ["repo:acme/app", "family:graphql"]);
    assert_eq!(scopes("brand_new", &json!({ "organization": { "login": "acme" } })), ["org:acme", "family:graphql"]);
    assert_eq!(scopes("schedule", &json!({ "repository": repository() })), [""; 0]);
    assert_eq!(scopes("brand_new", &json!({})), [""; 0]);
    let target = json!({ "action": "labeled", "number": 3, "repository": repository() });
    assert_eq!(scopes("pull_request_target", &target), scopes("pull_request", &target));
}

#[test]
fn the_time_is_githubs_own_with_a_lag_and_no_clock_leads_far_ahead() {
    let at = |updated: &str| {
        let payload = json!({ "issue": { "number": 7, "updated_at": updated }, "repository": repository() });
        outdated("issues", &Payload::read(payload.to_string().as_bytes()).unwrap(), NOW)[0].at
    };
    assert_eq!(at("2027-01-15T07:00:00Z"), "2027-01-15T07:01:00Z".parse_time());
    assert_eq!(at("2099-01-01T00:00:00Z"), NOW.plus(60));
    assert_eq!(at("soon"), NOW.minus(1));
    let push = json!({ "repository": { "full_name": "a/b", "pushed_at": NOW.secs() - 3_600 } });
    assert_eq!(outdated("push", &Payload::read(push.to_string().as_bytes()).unwrap(), NOW)[0].at, NOW.minus(3_540));
    let payload = Payload::read(push.to_string().as_bytes()).unwrap();
    assert_eq!(outdated_on_delivery("push", &payload, NOW)[0].at, NOW.plus(60), "deliveries go by their receipt");
}

#[test]
fn names_of_events_are_bounded() {
    assert_eq!((known("pull_request_target"), known("push")), (Some("pull_request"), Some("push")));
    assert_eq!(
        known(
            "x
"
        ),
        None
    );
}

trait ParseTime {
    fn parse_time(self) -> Timestamp;
}

impl ParseTime for &str {
    fn parse_time(self) -> Timestamp {
        serde_json::from_value(json!(self)).unwrap()
    }
}

#[test]
fn payloads_of_the_wrong_kind_are_survived() {
    for bad in ["", "{", "[]", "null", "7", "\"x\"", "\u{0}"] {
        assert!(Payload::read(bad.as_bytes()).is_err(), "{bad}");
    }
    let odd = json!({
        "action": 7, "repository": { "full_name": ["x"], "owner": "me", "pushed_at": {} }, "issue": [], "changes": "x",
        "sender": { "login": null }, "number": -1
    });
    assert_eq!(scopes("issues", &odd), ["family:search", "family:graphql"]);
    let hostile = json!({ "repository": { "full_name": "a/b+family:issues" }, "issue": { "number": 1 } });
    assert!(scopes("issues", &hostile).iter().all(|scope| !scope.contains('+')), "{:?}", scopes("issues", &hostile));
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut read = Payload::read(format!("{{\"x\":{deep}}}").as_bytes()).unwrap();
    read.members.clear();
    assert_eq!(read, Payload::default());
    assert!(Payload::read(format!("{{\"issue\":{deep}}}").as_bytes()).is_err());
    assert!(Payload::read(&vec![b' '; MAX_PAYLOAD_BYTES + 1]).is_err());
}

#[test]
fn a_payload_delivered_as_another_event_revalidates_its_repository_and_removes_nothing() {
    let delivered = |event: &str, payload: Value| {
        let payload = Payload::read(payload.to_string().as_bytes()).unwrap();
        let cutoffs = outdated_on_delivery(event, &payload, NOW);
        let of = |cutoff: &Cutoff| format!("{:?} {}", cutoff.mode, cutoff.scope);
        (fits(event, &payload), cutoffs.iter().map(of).collect::<Vec<_>>())
    };
    let only = ["Revalidate repo:acme/app".to_owned(), "Revalidate family:graphql".to_owned()];
    let comment = json!({
        "action": "deleted", "issue": { "number": 7 }, "comment": { "id": 1 }, "repository": repository(),
        "sender": { "login": "mona" }
    });
    assert!(delivered("issue_comment", comment.clone()).0);
    for event in ["repository", "issues", "commit_comment", "installation", "organization", "public", "star"] {
        assert_eq!(delivered(event, comment.clone()), (false, only.to_vec()), "{event}");
    }
    // Whatever else stands in it: a removal has nothing but what it is about.
    for extra in ["starred_at", "rule", "label", "hook_id", "anything"] {
        let mut payload = json!({ "action": "deleted", "repository": repository() });
        payload[extra] = json!(null);
        assert_eq!(delivered("repository", payload), (false, only.to_vec()), "{extra}");
    }
    let (fits, cutoffs) = delivered("repository", json!({ "action": "deleted", "repository": repository() }));
    assert!(fits && cutoffs.contains(&"Gone repo:acme/app".to_owned()), "{cutoffs:?}");
}

#[test]
fn every_published_example_has_its_rows() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("target/node/node_modules/@octokit/webhooks-examples/api.github.com/index.json");
    let Ok(bytes) = std::fs::read(&file) else {
        #[allow(clippy::disallowed_methods, reason = "where the packages must be there")]
        let must = std::env::var_os("CI").is_some();
        assert!(!must, "{} is missing: run scripts/test", file.display());
        #[allow(clippy::print_stderr, reason = "said loudly")]
        {
            eprintln!("SKIPPED: {} is missing; run scripts/test", file.display());
        }
        return;
    };
    let events: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
    let (mut payloads, mut without_row) = (0, BTreeSet::new());
    for event in &events {
        let name = event["name"].as_str().unwrap();
        for example in event["examples"].as_array().unwrap() {
            payloads += 1;
            let payload = Payload::read(example.to_string().as_bytes()).unwrap();
            assert!(fits(name, &payload), "{name}: {:?}", payload.members);
            // Under another event's name it removes nothing.
            for other in ROWS.iter().map(|row| row.event).filter(|other| *other != name) {
                let removes = outdated_on_delivery(other, &payload, NOW).iter().any(|one| one.mode == CutoffMode::Gone);
                assert!(!removes, "{name} as {other}: {:?}", payload.members);
            }
            let found = scopes(name, example);
            let silent = ROWS.iter().any(|row| row.event == name)
                && ROWS.iter().filter(|row| row.event == name).all(|row| row.scopes.is_empty());
            assert_eq!(found.is_empty(), silent, "{name}: {found:?}");
            if !ROWS.iter().any(|row| row.event == name) {
                without_row.insert(name.to_owned());
            }
            // What names a repository and says something touches something of it or its owner.
            if let (false, Some(full)) = (silent, example["repository"]["full_name"].as_str()) {
                let (full, owner) = (full.to_lowercase(), full.split('/').next().unwrap().to_lowercase());
                let about =
                    |scope: &String| scope.to_lowercase().contains(&full) || scope.to_lowercase().contains(&owner);
                assert!(
                    found.iter().any(about)
                        || found.contains(&"all".to_owned())
                        || name == "security_advisory"
                        || name.starts_with("project"),
                    "{name}: {found:?}"
                );
            }
        }
    }
    assert!(payloads >= 300, "{payloads} payloads");
    assert!(without_row.is_empty(), "events without a row: {without_row:?}");
}
