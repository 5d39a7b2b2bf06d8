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
use octocache::stack::{Narrow, Stack};
use octocache::token::Token;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

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

pub struct Runner {
    pub fx: Fixture,
    node: PathBuf,
    /// A machine whose `RUNNER_TEMP` stays from job to job; else each job has its own.
    pub temp: Option<PathBuf>,
}

impl Runner {
    pub fn new() -> Option<Self> {
        Self::of(3)
    }

    /// Before an organisation of so many repositories.
    pub fn of(repositories: usize) -> Option<Self> {
        let node = node_dir()?;
        let fx = Fixture::with_clock(Clock::System);
        world::organisation(&fx.sim, repositories);
        for n in 1..=9 {
            fx.sim.token(&format!("ghs_job{n}"), "repo:acme/repo-0001");
        }
        std::fs::create_dir_all(fx.dir.path().join("work/.github")).unwrap();
        Some(Self { fx, node, temp: None })
    }

    pub fn workspace(&self) -> PathBuf {
        self.fx.dir.path().join("work")
    }

    pub fn plan(&self, text: &str) {
        std::fs::write(self.workspace().join(".github/octocache.yml"), format!("version: 1\n{text}")).unwrap();
    }

    /// A fresh checkout: only the plan stays.
    pub fn clean(&self) {
        for name in [".cache", ".octocache"] {
            let _absent = std::fs::remove_dir_all(self.workspace().join(name));
        }
    }

    pub fn run(&self, token: &str, event: &str, inputs: Value) -> Value {
        self.run_on(token, event, json!({}), inputs)
    }

    /// The same, started by an event with this payload.
    fn run_on(&self, token: &str, event: &str, payload: Value, inputs: Value) -> Value {
        let mut all_of_event = json!({ "repository": { "default_branch": "main" } });
        all_of_event.as_object_mut().unwrap().extend(payload.as_object().unwrap().clone());
        let mut all = json!({ "binary": BINARY });
        all.as_object_mut().unwrap().extend(inputs.as_object().unwrap().clone());
        self.execute(token, event, all_of_event, json!({ "inputs": all, "env": {} }))
    }

    /// A job's steps, which may use the repository's actions by `./proxy`.
    pub fn job(&self, token: &str, event: &str, steps: &Value) -> Value {
        let payload = json!({ "repository": { "default_branch": "main" } });
        // gh says it speaks to api.github.com, whatever is behind the socket.
        let env = json!({ "OCTOCACHE_NAME": "api.github.com", "NODE_PACKAGES": self.node.join("node_modules") });
        self.execute(token, event, payload, json!({ "job": steps, "env": env }))
    }

    fn execute(&self, token: &str, event: &str, all_of_event: Value, what: Value) -> Value {
        let mut scenario = json!({
            "action": env!("CARGO_MANIFEST_DIR"), "workspace": self.workspace(), "cache": self.fx.dir.path().join("cache"),
            "github": {
                "token": token, "api_url": self.fx.sim.url(), "event_name": event, "repository": "acme/repo-0001",
                "ref": if event == "pull_request" { "refs/pull/1/merge" } else { "refs/heads/main" },
                "event": all_of_event,
            },
        });
        if let Some(temp) = &self.temp {
            std::fs::create_dir_all(temp).unwrap();
            scenario["temp"] = json!(temp);
        }
        scenario.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
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

    /// The only store of the machine that stays.
    pub fn store(&self) -> PathBuf {
        let stores = std::fs::read_dir(self.temp.as_ref().unwrap().join("octocache-store")).unwrap();
        let [store] = &stores.map(|store| store.unwrap().path()).collect::<Vec<_>>()[..] else {
            panic!("not one store")
        };
        store.clone()
    }

    /// Puts the bundle of the workspace where jobs find it, as if one of them had saved it.
    pub fn save(&self) {
        let bundle = ".cache/github/bundle.tar.zst";
        let api = Api::parse(&self.fx.sim.url()).unwrap();
        let prefix = octocache::actions::key_prefix(api.key_base(), "repo:acme/repo-0001", "");
        let version = data_encoding::HEXLOWER.encode(&Sha256::digest(bundle));
        let cache = self.fx.dir.path().join("cache");
        std::fs::create_dir_all(&cache).unwrap();
        let entry = cache.join(format!("{prefix}1-0@{}", &version[..8]));
        let tar = Command::new("tar").arg("-cf").arg(entry).arg(bundle).current_dir(self.workspace()).status();
        assert!(tar.unwrap().success());
    }

    pub fn saved(&self) -> usize {
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
    // The next job: another machine, another token, the same repository. Its own releases and the list that shows
    // its own repository depend on its permissions: they are confirmed, free of charge. Nothing else is asked.
    runner.clean();
    runner.fx.sim.take_counts();
    let warm = runner.run("ghs_job2", "push", json!({}));
    assert_eq!(runner.fx.sim.take_counts(), (2, 0));
    let outputs = &warm["outputs"];
    assert_eq!(
        (&outputs["not-modified"], &outputs["changed"], &outputs["served-from-cache"]),
        (&json!("2"), &json!("false"), &json!("5"))
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
    let Some(mut runner) = Runner::new() else { return };
    runner.temp = Some(runner.fx.dir.path().join("temp"));
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
    cache.stack().pack(&Narrow::everything(), false).unwrap();
    runner.save();
    runner.clean();
    runner.fx.sim.take_counts();
    let job = |token: &str, event: &str, payload: Value| {
        let done = runner.run_on(token, event, payload, json!({}));
        assert_eq!(done["failed"], false, "{done}");
        let mut asked: Vec<String> = runner.fx.sim.log().into_iter().map(|logged| logged.target).collect();
        // Releases of its own repository are confirmed by each new token, whatever the event.
        let releases = asked.iter().position(|target| target.contains("/releases"));
        assert_eq!(releases.map(|at| asked.remove(at)).is_some(), token != "ghs_job1");
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
    // What cannot be read outdates the whole repository.
    let odd = job("ghs_job5", "push", json!({ "padding": "x".repeat(27 << 20) }));
    assert!(odd.contains(&"/repos/acme/repo-0001/languages".to_owned()), "{odd:?}");
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
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let operations = std::fs::read_to_string(root.join("docs/proxy.md")).unwrap();
    for (file, told, least) in
        [("action.yml", &readme, 20), ("proxy/action.yml", &operations, 10), ("proxy/stop/action.yml", &operations, 3)]
    {
        let action = std::fs::read_to_string(root.join(file)).unwrap();
        let named = |section: &str, until: &str| -> Vec<String> {
            let Some(text) = action.split(&format!("\n{section}:\n")).nth(1) else { return Vec::new() };
            let text = text.split(until).next().unwrap();
            let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ") && line.ends_with(':');
            text.lines().filter(is_name).map(|line| line.trim().trim_end_matches(':').to_owned()).collect()
        };
        let names = [named("inputs", "\noutputs:"), named("outputs", "\nruns:")].concat();
        assert!(names.len() > least, "{file}: {names:?}");
        for name in names {
            assert!(told.contains(&format!("| `{name}` |")), "`{name}` of {file} is not explained");
        }
        for line in action.lines() {
            if let Some((_, used)) = line.split_once("uses: ") {
                let commit = used.split('@').nth(1).unwrap().split(' ').next().unwrap();
                assert!(commit.len() == 40 && line.contains("# v"), "not pinned: {line}");
            }
            assert!(!(line.contains("run:") && line.contains("${{")), "an expression in a script: {line}");
        }
    }
}

#[test]
fn whom_a_run_has_met_is_kept_with_the_bundle_where_peers_share() {
    let Some(mut runner) = Runner::new() else { return };
    let met = runner.workspace().join(".cache/github/met.json");
    for (plan, is_kept) in [(PLAN.to_owned(), false), (format!("share: {{ p2p: {{ mdns: true }} }}\n{PLAN}"), true)] {
        runner.clean();
        runner.plan(&plan);
        let machine = |name: &str| Some(runner.fx.dir.path().join(format!("{name}-{is_kept}")));
        let (one, other) = (machine("one"), machine("other"));
        runner.temp = one;
        runner.run("ghs_job1", "push", json!({}));
        std::fs::write(runner.store().join("met.json"), r#"["/ip4/10.0.0.5/tcp/9100/p2p/12D3KooWA"]"#).unwrap();
        runner.run("ghs_job1", "schedule", json!({ "mode": "refresh" }));
        assert_eq!(met.exists(), is_kept);
        runner.clean();
        runner.fx.sim.take_counts();
        runner.temp = other;
        runner.run("ghs_job2", "push", json!({}));
        let is_there = runner.store().join("met.json").exists();
        assert_eq!((met.exists(), is_there, runner.fx.sim.take_counts().1), (is_kept, is_kept, 0));
    }
}

#[test]
fn a_reader_after_a_warmer_pays_nothing() {
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
    assert_eq!(
        (&read["outputs"]["served-from-cache"], &read["outputs"]["requests"]),
        (&json!("5"), &json!("2")),
        "{read}"
    );
    assert_eq!(runner.fx.sim.take_counts(), (2, 0), "what depends on permissions is confirmed");
    // A tick at once again finds nothing to do that is charged, and a bundle worth saving or not.
    runner.clean();
    let again = runner.run("ghs_job3", "schedule", json!({ "mode": "warm" }));
    assert_eq!((&again["failed"], runner.fx.sim.take_counts().1), (&json!(false), 0));
}

/// A job whose steps go through the proxy: gh by its socket, octokit by its address.
fn proxied() -> Value {
    let octokit = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/octokit.mjs");
    let mut steps = vec![
        json!({ "name": "proxy", "id": "proxy", "uses": "./proxy", "with": { "binary": BINARY } }),
        json!({ "name": "gh", "run": "gh issue list -R acme/repo-0005 && gh api repos/acme/repo-0001/releases --jq length",
                "env": { "GH_TOKEN": "${{ github.token }}" } }),
        json!({ "name": "octokit", "run": format!("node {octokit} ${{{{ steps.proxy.outputs.api-url }}}} ${{{{ github.token }}}}") }),
    ];
    steps.push(json!({ "name": "stop", "id": "stop", "if": "always()", "uses": "./proxy/stop" }));
    steps.push(json!({ "name": "say", "if": "always()",
        "run": "echo requests=${{ steps.stop.outputs.requests }} changed=${{ steps.stop.outputs.changed }}" }));
    json!(steps)
}

pub fn step<'a>(done: &'a Value, name: &str) -> &'a Value {
    let steps = done["steps"].as_array().unwrap();
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name}: {done}"))
}

#[cfg(unix)]
#[test]
fn steps_of_a_job_go_through_the_proxy_and_the_next_job_asks_nothing() {
    let Some(runner) = Runner::of(6) else { return };
    if !crate::serve::has("gh") {
        return eprintln!("SKIPPED: gh is not installed");
    }
    let steps = proxied();
    let cold = runner.job("ghs_job1", "push", &steps);
    assert_eq!(cold["failed"], false, "{cold}");
    let sent = runner.fx.sim.take_counts().0;
    let said = |done: &Value| step(done, "say")["stdout"].as_str().unwrap().trim().to_owned();
    assert_eq!(said(&cold), format!("requests={sent} changed=true"));
    assert!(step(&cold, "gh")["stdout"].as_str().unwrap().contains("OPEN"), "{cold}");
    assert!(cold["summary"].as_str().unwrap().starts_with("### octocache proxy: "), "{}", cold["summary"]);
    assert_eq!(runner.saved(), 1);
    // Another machine, another token of the same repository.
    runner.clean();
    // A push would outdate what documents show.
    let warm = runner.job("ghs_job2", "schedule", &steps);
    assert_eq!(warm["failed"], false, "{warm}");
    let again: Vec<String> = runner.fx.sim.log().iter().map(|logged| logged.target.clone()).collect();
    assert_eq!(step(&warm, "octokit")["stdout"], step(&cold, "octokit")["stdout"]);
    assert_eq!(step(&warm, "gh")["stdout"], step(&cold, "gh")["stdout"]);
    // What depends on permissions is asked as oneself; nothing else is asked at all.
    let by_permission = |target: &String| target == "/graphql" || target.starts_with("/repos/acme/repo-0001/releases");
    assert!(again.len() <= 2 && again.iter().all(by_permission), "{again:?}");
    // A pull request reads, and saves nothing; nor does what another token saw get into a bundle.
    runner.clean();
    let saved = runner.saved();
    let pull = runner.job("ghs_job3", "pull_request", &steps);
    assert_eq!((&pull["failed"], runner.saved()), (&json!(false), saved), "{pull}");
}

#[cfg(unix)]
#[test]
fn what_other_tokens_see_stays_out_of_the_bundle() {
    let Some(runner) = Runner::of(2) else { return };
    runner.fx.sim.token("ghp_SomebodyElsesSomebodyElsesSomebodyEls", "user:else");
    let other = json!({ "name": "other", "run": "curl -sSf -o /dev/null -H 'Authorization: Bearer ghp_SomebodyElsesSomebodyElsesSomebodyEls' ${{ steps.proxy.outputs.api-url }}/repos/acme/repo-0001" });
    let own = json!({ "name": "own", "run": "curl -sSf -o /dev/null -H 'Authorization: Bearer ${{ github.token }}' ${{ steps.proxy.outputs.api-url }}/repos/acme/repo-0000" });
    let start =
        json!({ "name": "proxy", "id": "proxy", "uses": "./proxy", "with": { "binary": BINARY, "gh": "false" } });
    let stop = json!({ "name": "stop", "id": "stop", "if": "always()", "uses": "./proxy/stop" });
    let done = runner.job("ghs_job1", "push", &json!([&start, other, &own, &stop]));
    assert_eq!((&done["failed"], runner.saved()), (&json!(false), 1), "{done}");
    let list = || {
        let mut list = Command::new(BINARY);
        list.args(["bundle", "list", "--json"]).arg(runner.workspace().join(".cache/github/bundle.tar.zst"));
        String::from_utf8(list.output().unwrap().stdout).unwrap()
    };
    let listed = list();
    assert!(listed.contains("/repos/acme/repo-0000") && !listed.contains("/repos/acme/repo-0001"), "{listed}");
    // The plan's rules for its bundle hold for the proxy, too: also for what an earlier bundle held.
    runner.clean();
    runner.plan("bundle: { never: [\"repo:acme/repo-0000\"] }\nqueries: { a: { get: /x } }");
    let next = json!({ "name": "next", "run": "curl -sSf -o /dev/null -H 'Authorization: Bearer ${{ github.token }}' ${{ steps.proxy.outputs.api-url }}/repos/acme/repo-0001" });
    let done = runner.job("ghs_job2", "push", &json!([start, own, next, stop]));
    assert_eq!((&done["failed"], runner.saved()), (&json!(false), 2), "{done}");
    let listed = list();
    assert!(listed.contains("/repos/acme/repo-0001") && !listed.contains("/repos/acme/repo-0000"), "{listed}");
}

#[cfg(unix)]
#[test]
fn a_proxy_that_fails_says_why_and_one_that_is_not_there_fails_nothing() {
    let Some(runner) = Runner::of(1) else { return };
    let start = |id: &str, with: Value| {
        let mut all = json!({ "binary": BINARY, "gh": "false" });
        all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        json!({ "name": id, "id": id, "uses": "./proxy", "with": all })
    };
    let stop = json!({ "name": "stop", "id": "stop", "if": "always()", "uses": "./proxy/stop" });
    // Nothing to end.
    let done = runner.job("ghs_job1", "push", &json!([stop]));
    assert_eq!((&done["failed"], runner.saved()), (&json!(false), 0), "{done}");
    // It ends at once, and its log says why.
    runner.plan("clases: {}\nqueries: { a: { get: /x } }\n");
    let done = runner.job("ghs_job1", "push", &json!([start("proxy", json!({})), stop]));
    assert_eq!(done["failed"], true);
    let said = step(&done, "Start the proxy")["stdout"].as_str().unwrap();
    assert!(said.contains("::error") && said.contains("did you mean `classes`"), "{said}");
    std::fs::remove_file(runner.workspace().join(".github/octocache.yml")).unwrap();
    // Two at once are one too many.
    let done = runner.job("ghs_job1", "push", &json!([start("one", json!({})), start("two", json!({})), stop]));
    assert!(done["steps"].to_string().contains("a proxy runs already"), "{done}");
    // One that was killed: said, and the job goes on.
    let kill = json!({ "name": "kill", "run": "kill -9 $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' $RUNNER_TEMP/octocache-proxy/ready.json); sleep 0.2" });
    let done = runner.job("ghs_job1", "push", &json!([start("one", json!({})), kill, stop]));
    assert_eq!(done["failed"], false, "{done}");
    let said = step(&done, "End the proxy")["stdout"].as_str().unwrap();
    assert!(said.contains("::error") && said.contains("had ended before"), "{said}");
}
