//! The composite Action, its steps executed on this machine with a directory for actions/cache.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use octocache::cache::{Ask, Cache};
use octocache::clock::Clock;
use octocache::github::{GitHub, Options};
use octocache::partition::Partition;
use octocache::policy::TtlTable;
use octocache::request::{Api, Request};
use octocache::stack::Stack;
use octocache::token::Token;
use serde_json::{Value, json};

use crate::binary::BINARY;
use crate::flow::Fixture;
use crate::harness::world;

/// Where `scripts/test` has installed the runner's packages.
pub fn node_dir() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node");
    if dir.join("node_modules/yaml").exists() {
        return Some(dir);
    }
    assert!(std::env::var_os("CI").is_none(), "the node packages are missing: scripts/test installs them");
    eprintln!("SKIPPED: the node packages are not installed; run scripts/test");
    None
}

struct Runner {
    fx: Fixture,
    node: PathBuf,
}

impl Runner {
    fn new() -> Option<Self> {
        let node = node_dir()?;
        let fx = Fixture::with_clock(Clock::System);
        world::organisation(&fx.sim, 3);
        for n in 1..=9 {
            fx.sim.token(&format!("ghs_job{n}"), "repo:acme/repo-0001");
        }
        std::fs::create_dir_all(fx.dir.path().join("work/.github")).unwrap();
        Some(Self { fx, node })
    }

    fn workspace(&self) -> PathBuf {
        self.fx.dir.path().join("work")
    }

    fn plan(&self, text: &str) {
        std::fs::write(self.workspace().join(".github/octocache.yml"), format!("version: 1\n{text}")).unwrap();
    }

    /// A fresh checkout: only the plan stays.
    fn clean(&self) {
        for name in [".cache", ".octocache"] {
            let _absent = std::fs::remove_dir_all(self.workspace().join(name));
        }
    }

    fn run(&self, token: &str, event: &str, inputs: Value) -> Value {
        self.run_on(token, event, json!({}), inputs)
    }

    /// The same, started by an event with this payload.
    fn run_on(&self, token: &str, event: &str, payload: Value, inputs: Value) -> Value {
        let mut all_of_event = json!({ "repository": { "default_branch": "main" } });
        all_of_event.as_object_mut().unwrap().extend(payload.as_object().unwrap().clone());
        let mut all = json!({ "binary": BINARY });
        all.as_object_mut().unwrap().extend(inputs.as_object().unwrap().clone());
        let scenario = json!({
            "action": env!("CARGO_MANIFEST_DIR"), "workspace": self.workspace(), "cache": self.fx.dir.path().join("cache"),
            "inputs": all, "env": {},
            "github": {
                "token": token, "api_url": self.fx.sim.url(), "event_name": event, "repository": "acme/repo-0001",
                "ref": if event == "pull_request" { "refs/pull/1/merge" } else { "refs/heads/main" },
                "event": all_of_event,
            },
        });
        let file = self.fx.dir.path().join("scenario.json");
        std::fs::write(&file, scenario.to_string()).unwrap();
        // Imports are found beside the packages; tests that run at the same time share the copy.
        static COPIED: std::sync::Once = std::sync::Once::new();
        COPIED.call_once(|| {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/action/runner.mjs");
            std::fs::copy(source, self.node.join("runner.mjs")).unwrap();
        });
        let output = Command::new("node").arg(self.node.join("runner.mjs")).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("ghs_job"), "a token is said");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn saved(&self) -> usize {
        std::fs::read_dir(self.fx.dir.path().join("cache")).map_or(0, Iterator::count)
    }
}

const PLAN: &str = "queries:\n  releases: { recipe: releases }\n  repos: { recipe: org-repos, org: acme }\n  langs: { recipe: languages, via: rest, for-each: { query: repos, items: '.[].full_name' } }\n";

#[test]
fn restores_runs_saves_and_reports() {
    let Some(runner) = Runner::new() else { return };
    runner.plan(PLAN);
    let cold = runner.run("ghs_job1", "push", json!({}));
    assert_eq!((&cold["failed"], &cold["outputs"]["cache-hit"]), (&json!(false), &json!("false")), "{cold}");
    assert_eq!(cold["outputs"]["requests"], "5");
    assert_eq!(cold["outputs"]["changed-queries"], r#"["releases","repos","langs"]"#);
    assert_eq!(runner.saved(), 1);
    assert!(cold["summary"].as_str().unwrap().starts_with("### octocache: 0 of 5 from the cache, 5 requests charged"));
    assert!(runner.workspace().join(".octocache/langs/acme/repo-0002.json").exists());
    // The next job: another machine, another token, the same repository. Nothing is asked.
    runner.clean();
    runner.fx.sim.take_counts();
    let warm = runner.run("ghs_job2", "push", json!({}));
    assert_eq!(runner.fx.sim.take_counts().0, 0);
    let outputs = &warm["outputs"];
    assert_eq!(
        (&outputs["cache-hit"], &outputs["changed"], &outputs["served-from-cache"]),
        (&json!("true"), &json!("false"), &json!("5"))
    );
    assert!(outputs["cache-matched-key"].as_str().unwrap().starts_with("octocache-v1-"));
    assert_eq!(runner.saved(), 1, "what did not change is not saved");
    assert!(runner.workspace().join(".octocache/index.json").exists());
    // Revalidated in place, the times are worth saving.
    runner.clean();
    let fresh = runner.run("ghs_job2", "schedule", json!({ "mode": "refresh" }));
    assert_eq!(fresh["outputs"]["changed"], "true", "{fresh}");
    assert_eq!(runner.saved(), 2);
}

#[tokio::test]
async fn the_event_that_started_a_workflow_outdates_what_it_touched() {
    let Some(runner) = Runner::new() else { return };
    runner.plan("queries:\n  releases: { recipe: releases }\n  langs: { recipe: languages, for-each: [acme/repo-0001, acme/repo-0002], via: rest }\n");
    // What a job an hour ago has left.
    let an_hour_ago = Clock::manual(runner.fx.clock.now().minus(3_600));
    let store = Stack::new(runner.workspace().join(".cache/github"), an_hour_ago.clone());
    let api = Api::parse(&runner.fx.sim.url()).unwrap();
    let options = Options::new(api.clone(), Some(Token::new("ghs_job1").unwrap()));
    let upstream = Arc::new(GitHub::new(options, an_hour_ago.clone()));
    let partition = Partition::repository("acme/repo-0001").unwrap();
    let cache = Cache::new(api.clone(), partition, store, upstream, TtlTable::default(), an_hour_ago);
    for path in [
        "/repos/acme/repo-0001/releases?per_page=100",
        "/repos/acme/repo-0001/languages",
        "/repos/acme/repo-0002/languages",
    ] {
        cache.get(&Request::get(&api, path).unwrap(), &Ask::default()).await.unwrap();
    }
    runner.fx.sim.take_counts();
    let job = |token: &str, event: &str, payload: Value| {
        let done = runner.run_on(token, event, payload, json!({ "restore": false }));
        assert_eq!(done["failed"], false, "{done}");
        let asked: Vec<String> = runner.fx.sim.log().into_iter().map(|logged| logged.target).collect();
        assert_eq!(runner.fx.sim.take_counts().1, 0, "nothing has changed, so it is free");
        asked
    };
    let push = |ago: i64| {
        let pushed_at = runner.fx.clock.now().secs() - ago;
        json!({ "repository": { "full_name": "acme/repo-0001", "default_branch": "main", "pushed_at": pushed_at } })
    };
    // A push from before the stored answers says nothing about them.
    assert_eq!(job("ghs_job1", "push", push(7_200)), [""; 0]);
    assert_eq!(job("ghs_job2", "push", push(120)), ["/repos/acme/repo-0001/languages"]);
    assert_eq!(
        job("ghs_job3", "push", push(120)),
        [""; 0],
        "a later job of the same push finds what that one looked at"
    );
    assert_eq!(job("ghs_job4", "schedule", push(0)), [""; 0]);
    // What cannot be read outdates the whole repository; releases are an hour old.
    let odd = job("ghs_job5", "push", json!({ "padding": "x".repeat(27 << 20) }));
    assert!(odd.contains(&"/repos/acme/repo-0001/releases?per_page=100".to_owned()), "{odd:?}");
}

#[test]
fn pull_requests_read_and_never_save() {
    let Some(runner) = Runner::new() else { return };
    runner.plan(PLAN);
    let pull = runner.run("ghs_job1", "pull_request", json!({}));
    assert_eq!((&pull["outputs"]["changed"], runner.saved()), (&json!("true"), 0));
    assert_eq!(pull["steps"][1]["masked"], 0, "the runner knows the job's own token");
    runner.run("ghs_job1", "push", json!({ "save": "never" }));
    assert_eq!(runner.saved(), 0);
    // Another token than the job's own sees more than a reader of the cache may.
    runner.clean();
    let other = runner.run("ghs_job1", "push", json!({ "token": "ghs_job2" }));
    assert_eq!((runner.saved(), &other["steps"][1]["masked"]), (0, &json!(1)));
    runner.clean();
    runner.run("ghs_job1", "push", json!({ "token": "ghs_job2", "save": "always" }));
    assert_eq!(runner.saved(), 1);
}

#[test]
fn the_verdict_comes_after_the_save() {
    let Some(runner) = Runner::new() else { return };
    runner.plan("queries:\n  user: { recipe: user, user: octocat }\n  no: { get: /nowhere }\n");
    let failed = runner.run("ghs_job1", "push", json!({}));
    assert_eq!((&failed["failed"], runner.saved()), (&json!(true), 1));
    let said = failed["steps"].to_string();
    assert!(said.contains("::error title=octocache%3A no::GitHub answered 404 (Not Found) to /nowhere"), "{said}");
    assert!(failed["summary"].as_str().unwrap().contains("| no | failed |"));
    assert_eq!(failed["outputs"]["cache-hit"], "false");
    let lenient = runner.run("ghs_job1", "push", json!({ "fail-on": "never" }));
    assert_eq!(lenient["failed"], false);
}

#[test]
fn inline_queries_and_bad_inputs() {
    let Some(runner) = Runner::new() else { return };
    let inline = runner.run(
        "ghs_job1",
        "push",
        json!({ "query": "me = GET /users/octocat\nthis = GET /repos/{owner}/{repo}\n" }),
    );
    assert_eq!((&inline["failed"], &inline["outputs"]["requests"]), (&json!(false), &json!("2")), "{inline}");
    runner.fx.sim.take_counts();
    for inputs in [
        json!({}),
        json!({ "query": "x = GET /x", "ttl": "soon" }),
        json!({ "query": "x = GET /x", "bundle": "bundle.zip" }),
    ] {
        runner.clean();
        let bad = runner.run("ghs_job1", "push", inputs.clone());
        assert_eq!((&bad["failed"], &bad["outputs"]["cache-hit"]), (&json!(true), &json!("false")), "{inputs}: {bad}");
        assert!(bad["steps"][1]["stdout"].as_str().unwrap().contains("::error title=octocache::"), "{bad}");
    }
    assert_eq!(runner.fx.sim.take_counts().0, 0, "mistakes are found before any request");
}

#[test]
fn the_interface_is_as_documented_and_pinned() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let action = std::fs::read_to_string(root.join("action.yml")).unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let named = |section: &str, until: &str| -> Vec<String> {
        let text = action.split(&format!("\n{section}:\n")).nth(1).unwrap().split(until).next().unwrap();
        let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ") && line.ends_with(':');
        text.lines().filter(is_name).map(|line| line.trim().trim_end_matches(':').to_owned()).collect()
    };
    let names = [named("inputs", "\noutputs:"), named("outputs", "\nruns:")].concat();
    assert!(names.len() > 20);
    for name in names {
        assert!(readme.contains(&format!("| `{name}` |")), "README does not explain `{name}`");
    }
    for line in action.lines() {
        if let Some((_, used)) = line.split_once("uses: ") {
            let commit = used.split('@').nth(1).unwrap().split(' ').next().unwrap();
            assert!(commit.len() == 40 && line.contains("# v"), "not pinned: {line}");
        }
        assert!(!(line.contains("run:") && line.contains("${{")), "an expression in a script: {line}");
    }
}

#[test]
fn a_reader_after_a_warmer_sends_nothing() {
    let Some(runner) = Runner::new() else { return };
    runner.plan(&format!("warm: {{ schedule: '17 * * * *' }}\n{PLAN}"));
    let warmed = runner.run("ghs_job1", "schedule", json!({ "mode": "warm" }));
    assert_eq!((&warmed["failed"], &warmed["outputs"]["changed"]), (&json!(false), &json!("true")), "{warmed}");
    assert!(warmed["summary"].as_str().unwrap().contains("Next warming: 20"), "{warmed}");
    assert_eq!(runner.saved(), 1);
    // The next job: another machine, another token.
    runner.clean();
    runner.fx.sim.take_counts();
    let read = runner.run("ghs_job2", "push", json!({}));
    assert_eq!((&read["outputs"]["cache-hit"], &read["outputs"]["requests"]), (&json!("true"), &json!("0")), "{read}");
    assert_eq!(runner.fx.sim.take_counts().0, 0);
    // A tick at once again finds nothing to do that is charged, and a bundle worth saving or not.
    runner.clean();
    let again = runner.run("ghs_job3", "schedule", json!({ "mode": "warm" }));
    assert_eq!((&again["failed"], runner.fx.sim.take_counts().1), (&json!(false), 0));
}
