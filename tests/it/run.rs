//! Plans through the library: outputs, reports, dry runs, failures.

use std::collections::BTreeMap;
use std::path::Path;

use octocache::cache::Ask;
use octocache::cache::batch::Batching;
use octocache::error::Kind;
use octocache::plan::report::{Index, QueryReport};
use octocache::plan::run::{Finished, Options, Progress, run};
use octocache::plan::{Plan, dry};
use octocache::policy::Mode;
use serde_json::{Value, json};

use crate::flow::Fixture;
use crate::harness::sim::{Doc, Fault};
use crate::harness::world;

struct Silent;

impl Progress for Silent {
    fn more(&self, _count: usize) {}
    fn done(&self, _report: &QueryReport) {}
}

fn plan(text: &str) -> Plan {
    Plan::parse(&format!("version: 1\n{text}"), "plan.yml", Path::new(".")).unwrap()
}

impl Fixture {
    async fn run(&self, plan: &Plan, mode: Mode) -> Finished {
        let cache = self.cache(Some("ghp_one"));
        let out = self.dir.path().join("out");
        let vars = BTreeMap::from([("owner".into(), "acme".into()), ("repo".into(), "repo-0004".into())]);
        let options =
            Options { output_dir: Some(&out), vars, ask: Ask::default().mode(mode), batching: Batching::default() };
        run(plan, &cache, &options, &Silent).await.unwrap()
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir.path().join("out").join(file)).unwrap()).unwrap()
    }
}

const PLAN: &str = "queries:
  releases: { recipe: releases }
  latest: { get: '/repos/{owner}/{repo}/releases/latest', jq: '{tag: .tag_name}', output: a/latest.json }
  repos: { recipe: org-repos, org: acme }
  languages: { recipe: languages, via: rest, for-each: { query: repos, items: '.[].full_name' } }
  issues: { recipe: issues, repo: acme/repo-0005 }
  runs: { recipe: workflow-runs }
  user: { recipe: user, user: octocat }
  depth: { recipe: queue-depth }
";

#[tokio::test]
async fn a_plan_cold_warm_stale() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 6);
    let plan = plan(PLAN);
    let cold = fx.run(&plan, Mode::Default).await;
    assert!(cold.worst.is_none(), "{:?}", cold.index);
    assert_eq!(cold.index.queries.len(), 13);
    // releases, latest, repos, 6 languages, 2 pages of issues, runs, user, 2 for the queue.
    assert_eq!(fx.sim.take_counts(), (15, 15));
    assert_eq!(fx.json("a/latest.json"), json!({ "tag": "v1.4.0" }));
    assert_eq!(fx.json("languages/acme/repo-0003.json"), json!({ "Rust": 1003, "Shell": 53 }));
    assert_eq!(fx.json("issues.json").as_array().unwrap().len(), 185);
    assert_eq!(fx.json("runs.json")["workflow_runs"].as_array().unwrap().len(), 3);
    assert_eq!(fx.json("depth.json"), json!({ "queued": 3, "in_progress": 3 }));
    assert!(cold.index.queries.iter().all(|query| query.changed));
    let warm = fx.run(&plan, Mode::Default).await;
    assert_eq!((fx.sim.take_counts(), warm.index.totals.hits), ((0, 0), 13));
    assert!(warm.index.queries.iter().all(|query| !query.changed && query.outcome == "hit"));
    fx.clock.advance(40 * 86_400);
    let stale = fx.run(&plan, Mode::Default).await;
    assert_eq!((fx.sim.take_counts(), stale.index.totals.revalidated), ((15, 0), 13));
    assert_eq!(stale.index.totals.changed, 0);
    // One thing changes: it is fetched, and it alone is news.
    fx.sim.put("/repos/acme/repo-0004/releases/latest", Doc::json(json!({ "tag_name": "v2.0.0" })));
    fx.clock.advance(40 * 86_400);
    let changed = fx.run(&plan, Mode::Default).await;
    assert_eq!(fx.sim.take_counts(), (15, 1));
    assert_eq!(changed.index.changed_queries(), ["latest"]);
    let written: Index = serde_json::from_value(fx.json("index.json")).unwrap();
    assert_eq!(written.totals, changed.index.totals);
}

#[tokio::test]
async fn a_dry_run_sends_nothing_and_predicts_what_a_run_sends() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 6);
    let plan = plan(PLAN);
    let vars = BTreeMap::from([("owner".into(), "acme".into()), ("repo".into(), "repo-0004".into())]);
    let forecast =
        |mode| dry::forecast(&plan, &fx.cache(Some("ghp_one")), &vars, Ask::default().mode(mode), &Batching::default());
    let cold = forecast(Mode::Default);
    assert_eq!(fx.sim.take_counts().0, 0);
    assert!(!fx.dir.path().join("store").exists() && !fx.dir.path().join("out").exists());
    assert_eq!(cold.queries.iter().filter(|query| query.outcome == "unknown").count(), 1, "no items are known yet");
    fx.run(&plan, Mode::Default).await;
    fx.sim.take_counts();
    let warm = forecast(Mode::Default);
    assert_eq!((warm.requests, warm.charged, warm.queries.len()), (0, 0, 13));
    fx.clock.advance(40 * 86_400);
    let stale = forecast(Mode::Default);
    assert_eq!(fx.sim.take_counts().0, 0);
    fx.run(&plan, Mode::Default).await;
    let (sent, charged) = fx.sim.take_counts();
    assert_eq!((stale.requests as usize, stale.charged as usize), (sent, charged));
    assert!(forecast(Mode::OnlyIfCached).queries.iter().all(|query| query.requests == 0));
}

#[tokio::test]
async fn one_failure_leaves_the_others_alone() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let plan = plan(
        "queries:
  good: { get: /users/octocat }
  gone: { get: /users/nobody }
  filter: { get: /users/octocat, jq: '.login.nope', output: f.json }
  each: { get: '/repos/{item}', for-each: [acme/repo-0001, acme/none] }
",
    );
    std::fs::create_dir_all(fx.dir.path().join("out")).unwrap();
    std::fs::write(fx.dir.path().join("out/gone.json"), "{}").unwrap();
    let finished = fx.run(&plan, Mode::Default).await;
    let of = |name: &str| finished.index.queries.iter().filter(|query| query.name == name).collect::<Vec<_>>();
    assert_eq!(of("good")[0].outcome, "fetched");
    assert_eq!((of("gone")[0].outcome.as_str(), of("gone")[0].status), ("failed", Some(404)));
    assert!(!fx.dir.path().join("out/gone.json").exists(), "an old answer does not pass for a new one");
    assert!(of("filter")[0].error.as_ref().unwrap().contains("`.login.nope` failed"));
    assert_eq!(of("each").iter().map(|query| query.outcome.as_str()).collect::<Vec<_>>(), ["fetched", "failed"]);
    assert_eq!(finished.index.totals.failed, 3);
    assert!(finished.worst.is_some());
}

#[tokio::test]
async fn stale_answers_are_marked_and_limits_are_told() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 2);
    let known = plan("queries:\n  a: { get: /users/octocat }\n");
    fx.run(&known, Mode::Default).await;
    fx.clock.advance(2 * 86_400);
    fx.sim.fail_next(&[Fault::Secondary(None), Fault::Secondary(None)]);
    let both = plan("queries:\n  a: { get: /users/octocat }\n  b: { get: /repos/acme/repo-0001 }\n");
    let finished = fx.run(&both, Mode::Default).await;
    let [a, b] = &finished.index.queries[..] else { panic!() };
    assert_eq!(finished.index.totals.requests as usize, fx.sim.take_counts().0 - 1, "failed ones count, too");
    assert_eq!((a.outcome.as_str(), a.stale_reason.as_deref(), a.age_secs), ("stale", Some("limited"), 2 * 86_400));
    assert_eq!(b.outcome, "failed");
    assert!(matches!(finished.worst, Some(Kind::Limited { .. })));
}

#[tokio::test]
async fn watched_fields_decide_what_is_news() {
    let fx = Fixture::new();
    fx.sim.put("/x", Doc::json(json!({ "name": "a", "downloads": 1 })));
    let plan = plan("queries:\n  x: { get: /x, watch: [.name] }\n");
    assert!(fx.run(&plan, Mode::Default).await.index.queries[0].changed);
    fx.sim.put("/x", Doc::json(json!({ "name": "a", "downloads": 2 })));
    assert!(!fx.run(&plan, Mode::NoCache).await.index.queries[0].changed);
    assert_eq!(fx.json("x.json")["downloads"], 2);
    fx.sim.put("/x", Doc::json(json!({ "name": "b", "downloads": 2 })));
    assert!(fx.run(&plan, Mode::NoCache).await.index.queries[0].changed);
}

#[tokio::test]
async fn results_are_redacted_and_credentials_masked() {
    let fx = Fixture::new();
    let secret = format!("ghs_{}", "x".repeat(36));
    fx.sim.put("/x", Doc::json(json!([{ "email": "a@b.c", "text": format!("see {secret}") }])));
    let text = "redact: ['.[].email']\nqueries:\n  x: { get: /x }\n";
    fx.run(&plan(text), Mode::Default).await;
    assert_eq!(fx.json("x.json"), json!([{ "text": "see ***" }]));
    fx.run(&plan(&format!("keep-secrets-like: true\n{text}")), Mode::Default).await;
    assert_eq!(fx.json("x.json"), json!([{ "text": format!("see {secret}") }]));
}

#[tokio::test]
async fn hostile_items_stay_inside() {
    let fx = Fixture::new();
    fx.sim.put("/list", Doc::json(json!(["../../evil", "a/../../b", "ok", "OK", {"x": 1}, "with space", "CON"])));
    for name in ["ok", "OK", "with space"] {
        fx.sim.put(&format!("/items/{}", name.replace(' ', "%20")), Doc::json(json!({ "name": name })));
    }
    let plan = plan("queries:\n  list: { get: /list }\n  each: { get: '/items/{item}', for-each: { query: list } }\n");
    let finished = fx.run(&plan, Mode::Default).await;
    let fetched: Vec<&str> = finished.index.queries.iter().filter_map(|query| query.file.as_deref()).collect();
    assert_eq!(fetched, ["list.json", "each/ok.json", "each/with space.json"]);
    assert_eq!(finished.index.totals.failed, 5);
    assert!(std::fs::read_dir(fx.dir.path()).unwrap().count() == 2, "only store and out");
}

#[tokio::test]
async fn an_output_directory_that_cannot_be_written_is_told_before_any_request() {
    let fx = Fixture::new();
    std::fs::write(fx.dir.path().join("out"), "a file").unwrap();
    let cache = fx.cache(None);
    let out = fx.dir.path().join("out");
    let options =
        Options { output_dir: Some(&out), vars: BTreeMap::new(), ask: Ask::default(), batching: Batching::default() };
    let error = run(&plan("queries:\n  x: { get: /x }\n"), &cache, &options, &Silent).await.unwrap_err();
    assert!(error.to_string().contains("--output-dir"), "{error}");
    assert_eq!(fx.sim.take_counts().0, 0);
}

#[tokio::test]
async fn graphql_queries_are_cached_by_document_and_variables() {
    let fx = Fixture::new();
    fx.sim.put("/graphql", Doc::json(json!({ "data": { "user": { "id": 1 } } })));
    let text = |login: &str| {
        format!(
            "queries:\n  mine: {{ graphql: 'query($l: String!) {{ user(login: $l) {{ id }} }}', variables: {{ l: {login} }} }}\n"
        )
    };
    fx.run(&plan(&text("a")), Mode::Default).await;
    fx.run(&plan(&text("a")), Mode::Default).await;
    assert_eq!(fx.sim.take_counts().0, 1);
    fx.run(&plan(&text("b")), Mode::Default).await;
    let log = fx.sim.log();
    assert_eq!((log.len(), log[0].method.as_str()), (1, "POST"));
    let sent: Value = serde_json::from_slice(&log[0].body).unwrap();
    assert_eq!(sent["variables"], json!({ "l": "b" }));
    fx.sim.put("/graphql", Doc::json(json!({ "errors": [{ "message": "no" }] })));
    let failed = fx.run(&plan(&text("c")), Mode::Default).await;
    let query = &failed.index.queries[0];
    assert_eq!((query.outcome.as_str(), query.file.as_ref()), ("failed", None));
    assert!(query.error.as_ref().unwrap().ends_with("GraphQL answered with errors: no"), "{query:?}");
}

#[tokio::test]
async fn items_come_from_results_of_results() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 6);
    let plan = plan(
        "queries:
  repos: { recipe: org-repos, org: acme, jq: '[.[] | select(.id < 2) | .full_name]' }
  latest: { get: '/repos/{item}/releases', for-each: { query: repos } }
  tags: { get: '/repos/acme/repo-0004/releases?tag={item}', for-each: { query: latest, items: '.[][].tag_name' } }
",
    );
    fx.sim.put(
        "/repos/acme/repo-0000/releases",
        Doc::list(vec![json!({ "tag_name": "a" }), json!({ "tag_name": "b/c" })]),
    );
    fx.sim.put("/repos/acme/repo-0001/releases", Doc::list(vec![json!({ "tag_name": "d" })]));
    let finished = fx.run(&plan, Mode::Default).await;
    let items = |name: &str| -> Vec<String> {
        let of = finished.index.queries.iter().filter(|query| query.name == name);
        of.filter_map(|query| query.item.clone()).collect()
    };
    assert_eq!(items("latest"), ["acme/repo-0000", "acme/repo-0001"]);
    assert_eq!(items("tags"), ["a", "b/c", "d"]);
    assert_eq!(finished.index.totals.failed, 0, "{:?}", finished.index);
    let vars = BTreeMap::new();
    let forecast = dry::forecast(&plan, &fx.cache(Some("ghp_one")), &vars, Ask::default(), &Batching::default());
    assert_eq!((forecast.queries.len(), forecast.requests), (6, 0));
}

#[tokio::test]
async fn children_stay_fresh_while_the_fields_of_their_item_are_unchanged() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 12);
    let plan = plan(
        "queries:
  repos: { recipe: org-repos, org: acme }
  languages:
    recipe: languages
    via: rest
    for-each: { query: repos, items: '.[].full_name', fresh-while: [.pushed_at] }
",
    );
    let cold = fx.run(&plan, Mode::Default).await;
    assert!(cold.worst.is_none(), "{:?}", cold.index);
    assert_eq!(fx.sim.take_counts(), (13, 13));
    // Months later, every lifetime is over; the listing is asked, and proves the rest.
    fx.clock.advance(90 * 86_400);
    let later = fx.run(&plan, Mode::Default).await;
    assert_eq!(fx.sim.take_counts(), (1, 0));
    let query = &later.index.queries[5];
    assert_eq!((query.outcome.as_str(), query.reason.as_deref()), ("hit", Some("fields-unchanged")));
    // One is pushed to: it is looked at at once, inside its lifetime, and once more when the push
    // has settled.
    let pushed = |fx: &Fixture| {
        let now = fx.clock.now().to_string();
        fx.sim.with(|state| {
            let Some(Doc::List { items, .. }) = state.docs.get_mut("/orgs/acme/repos") else { panic!() };
            items[4]["pushed_at"] = json!(now);
        });
    };
    fx.clock.advance(3_600);
    pushed(&fx);
    let changed = fx.run(&plan, Mode::Default).await;
    assert_eq!(fx.sim.take_counts(), (2, 1), "the listing's page is charged, the 304 of the languages is not");
    assert_eq!(changed.index.totals.hits, 11);
    fx.clock.advance(3_600);
    fx.sim.put("/repos/acme/repo-0004/languages", Doc::json(json!({ "Zig": 9 })));
    fx.run(&plan, Mode::Default).await;
    assert_eq!((fx.sim.take_counts(), fx.json("languages/acme/repo-0004.json")), ((2, 1), json!({ "Zig": 9 })));
    fx.clock.advance(90 * 86_400);
    fx.run(&plan, Mode::Default).await;
    assert_eq!(fx.sim.take_counts(), (1, 0));
    // A listing that is itself stale proves nothing: lifetimes decide.
    fx.clock.advance(20 * 3_600);
    fx.sim.fail_next(&[Fault::Secondary(Some(3_600))]);
    let limited = fx.run(&plan, Mode::Default).await;
    let languages = &limited.index.queries[3];
    assert_eq!((languages.outcome.as_str(), languages.reason.as_ref()), ("hit", None));
    fx.clock.advance(4 * 3_600 + 300);
    fx.sim.fail_next(&[Fault::Secondary(Some(3_600))]);
    let limited = fx.run(&plan, Mode::Default).await;
    assert!(limited.index.queries.iter().all(|query| query.stale_reason.is_some()), "{:?}", limited.index.queries[3]);
    // And an invalidation is stronger than any proof.
    fx.clock.advance(3_601);
    fx.cache(Some("ghp_one")).invalidate("family:languages".parse().unwrap()).unwrap();
    fx.sim.take_counts();
    fx.run(&plan, Mode::Default).await;
    assert_eq!(fx.sim.take_counts(), (13, 0));
}

#[tokio::test]
async fn what_is_no_answer_leaves_results_as_they_are() {
    let fx = Fixture::new();
    let plan = plan("queries:\n  stats: { get: /repos/o/r/stats/contributors }\n  repo: { get: /repos/o/r }\n");
    fx.sim.put("/repos/o/r/stats/contributors", Doc::json(json!([1])));
    fx.sim.put("/repos/o/r", Doc::json(json!({ "id": 1 })));
    fx.run(&plan, Mode::Default).await;
    fx.sim.put("/repos/o/r/stats/contributors", Doc::NotReady { left: 9, then: json!([2]) });
    fx.sim.put("/repos/o/r", Doc::Raw { content_type: "text/html", body: "<html>unicorn</html>".into() });
    let finished = fx.run(&plan, Mode::NoCache).await;
    assert!(finished.worst.is_none());
    let reasons: Vec<_> = finished.index.queries.iter().map(|query| query.stale_reason.as_deref()).collect();
    assert_eq!(reasons, [Some("not-ready"), Some("server-error")]);
    assert_eq!((fx.json("stats.json"), fx.json("repo.json")), (json!([1]), json!({ "id": 1 })));
    // With nothing stored there is no result, and no file.
    fx.cache(Some("ghp_one")).clear(&"all".parse().unwrap()).unwrap();
    let finished = fx.run(&plan, Mode::Default).await;
    assert_eq!(finished.worst, Some(Kind::Malformed));
    assert!(finished.index.queries.iter().all(|query| query.outcome == "failed"));
    assert!(!fx.dir.path().join("out/repo.json").exists());
}
