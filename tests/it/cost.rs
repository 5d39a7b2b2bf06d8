//! What a plan over a thousand repositories costs: cold, again, under another token, with changes,
//! with little budget, into a limit. Counts are exact.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use octocache::cache::batch::Batching;
use octocache::cache::{Ask, Cache};
use octocache::clock::{Clock, Timestamp};
use octocache::error::Kind;
use octocache::github::{GitHub, Options};
use octocache::partition::Partition;
use octocache::plan::report::QueryReport;
use octocache::plan::run::{self, Finished, Progress, run};
use octocache::plan::{Plan, dry};
use octocache::policy::TtlTable;
use octocache::request::Api;
use octocache::stack::Stack;
use octocache::token::Token;
use serde_json::json;

use crate::harness::sim::{Doc, Sim};
use crate::harness::world;

pub struct Silent;

impl Progress for Silent {
    fn more(&self, _count: usize) {}
    fn done(&self, _report: &QueryReport) {}
}

/// One repository of a thousand, and jobs that run plans over it, each with a token of its own.
pub struct Thousand {
    pub sim: Sim,
    pub clock: Clock,
    pub dir: tempfile::TempDir,
    jobs: u32,
}

impl Thousand {
    pub fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let sim = Sim::start(clock.clone());
        world::organisation(&sim, 1_000);
        Self { sim, clock, dir: tempfile::tempdir().unwrap(), jobs: 0 }
    }

    pub fn cache(&mut self, change: impl FnOnce(&mut Options)) -> Cache {
        self.jobs += 1;
        let token = format!("ghs_job{}", self.jobs);
        self.sim.token(&token, "repo:acme/app");
        let api = Api::parse(&self.sim.url()).unwrap();
        let mut options = Options::new(api.clone(), Some(Token::new(&token).unwrap()));
        change(&mut options);
        let upstream = Arc::new(GitHub::over(self.sim.wire(), options, self.clock.clone()));
        let stack = Stack::new(self.dir.path().join("store"), self.clock.clone());
        let partition = Partition::repository("acme/app").unwrap();
        Cache::new(api, partition, stack, upstream, TtlTable::default(), self.clock.clone())
    }

    /// A run in a job of its own, and what GitHub's log says of it: requests, charged, points.
    async fn job(&mut self, plan: &Plan, change: impl FnOnce(&mut Options)) -> (Finished, (usize, usize, u64)) {
        let cache = self.cache(change);
        let out = self.dir.path().join("out");
        let options = run::Options {
            output_dir: Some(&out),
            vars: BTreeMap::new(),
            ask: Ask::default(),
            batching: Batching::default(),
        };
        let finished = run(plan, &cache, &options, &Silent).await.unwrap();
        let points =
            self.sim.log().iter().filter(|logged| logged.target == "/graphql").map(|logged| logged.points).sum();
        let (sent, charged) = self.sim.take_counts();
        assert_eq!(finished.index.totals.requests as usize, sent, "the report says what was sent");
        assert_eq!(finished.index.totals.charged as usize, charged, "and what it cost");
        (finished, (sent, charged, points))
    }

    fn forecast(&mut self, plan: &Plan) -> (usize, usize) {
        let cache = self.cache(|_| {});
        let forecast = dry::forecast(plan, &cache, &BTreeMap::new(), Ask::default(), &Batching::default());
        assert_eq!(self.sim.log().len(), 0, "a forecast sends nothing");
        (forecast.requests as usize, forecast.charged as usize)
    }

    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Vec<serde_json::Value>)) {
        self.sim.with(|state| match state.docs.get_mut(path) {
            Some(Doc::List { items, .. }) => change(items),
            other => panic!("{other:?}"),
        });
    }
}

pub fn plan(text: &str) -> Plan {
    Plan::parse(&format!("version: 1\nqueries:\n{text}"), "plan.yml", Path::new(".")).unwrap()
}

const REPOS: &str = "  repos: { recipe: org-repos, org: acme }\n";

/// Metadata, languages and open issues of all repositories.
fn everything(issues: &str) -> Plan {
    let each = "query: repos, items: '.[].full_name'";
    plan(&format!(
        "{REPOS}  repo: {{ recipe: repo, for-each: {{ {each}, fresh-while: true }} }}
  languages: {{ recipe: languages, for-each: {{ {each}, fresh-while: true }} }}
  issues: {{ recipe: issues, {issues} for-each: {{ {each} }} }}
"
    ))
}

pub const MONTH: u64 = 31 * 86_400;

#[tokio::test(start_paused = true)]
async fn a_thousand_repositories() {
    let mut world = Thousand::new();
    let batched = everything("");
    // Cold: ten pages of the listing, the rest in batches; a loop over REST needs over 3,000.
    let (cold, (sent, charged, points)) = world.job(&batched, |_| {}).await;
    assert!(cold.worst.is_none() && cold.index.queries.len() == 3_001);
    println!("cold                                    {sent:>5} requests {charged:>5} charged {points:>5} points");
    assert!(sent <= 60 && points <= 1_000, "{sent} requests, {points} points");
    // Within every lifetime, another token: nothing.
    let (warm, counts) = world.job(&batched, |_| {}).await;
    assert_eq!((counts, warm.index.totals.hits), ((0, 0, 0), 3_001));
    // All lifetimes are over, another token, nothing has changed.
    world.clock.advance(MONTH);
    let forecast = world.forecast(&batched);
    let (later, (sent, charged, points)) = world.job(&batched, |_| {}).await;
    let listing = sent - world_batches(&later, "issues");
    println!("a month later, another token            {sent:>5} requests {charged:>5} charged {points:>5} points");
    assert!(listing <= 12, "metadata and languages follow from {listing} requests");
    assert!(sent - listing <= 25, "issues take {} batches", sent - listing);
    assert_eq!(charged, sent - listing, "what is not a batch is free");
    assert!(forecast.0 <= sent && forecast.0 + 5 >= sent, "{forecast:?} foretold at least, {sent} sent");
    assert_eq!(later.index.totals.changed, 0);
    // One in a hundred was pushed to.
    world.clock.advance(MONTH);
    let now = world.clock.now().minus(86_400).to_string();
    world.edit("/orgs/acme/repos", |repos| {
        repos.iter_mut().step_by(100).for_each(|repo| repo["pushed_at"] = json!(now));
    });
    let (_, (sent, charged, points)) = world.job(&plan(&without_issues()), |_| {}).await;
    println!("1 % changed, without issues             {sent:>5} requests {charged:>5} charged {points:>5} points");
    assert!(charged <= 25, "{charged} charged");
}

pub fn without_issues() -> String {
    let each = "query: repos, items: '.[].full_name', fresh-while: true";
    format!(
        "{REPOS}  repo: {{ recipe: repo, for-each: {{ {each} }} }}\n  languages: {{ recipe: languages, for-each: {{ {each} }} }}\n"
    )
}

/// Requests that were reported with the queries called so.
fn world_batches(finished: &Finished, name: &str) -> usize {
    finished.index.queries.iter().filter(|query| query.name == name).map(|query| query.requests as usize).sum()
}

#[tokio::test(start_paused = true)]
async fn the_forecast_is_what_github_logs() {
    let mut world = Thousand::new();
    let names: Vec<String> = (0..120).map(|n| format!("acme/repo-{n:04}")).collect();
    let plan = plan(&format!(
        "  languages: {{ recipe: languages, for-each: [{0}] }}
  repo: {{ recipe: repo, via: rest, for-each: [{0}] }}
  latest: {{ recipe: latest-release, repo: acme/repo-0001 }}
",
        names.join(", ")
    ));
    for (what, wait) in [("cold", 0), ("warm", 60), ("stale", MONTH)] {
        world.clock.advance(wait);
        let forecast = world.forecast(&plan);
        let (_, (sent, charged, _)) = world.job(&plan, |_| {}).await;
        assert_eq!(forecast, (sent, charged), "{what}");
        assert_eq!(what == "warm", sent == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn by_rest_every_revalidation_is_free() {
    let mut world = Thousand::new();
    world.sim.with(|state| state.limit = 100_000);
    let each = "query: repos, items: '.[].full_name'";
    let by_rest = plan(&format!(
        "{REPOS}  languages: {{ recipe: languages, via: rest, for-each: {{ {each} }} }}
  issues: {{ recipe: issues, via: rest, for-each: {{ {each} }} }}
"
    ));
    let (_, (cold, _, _)) = world.job(&by_rest, |_| {}).await;
    world.clock.advance(MONTH);
    let forecast = world.forecast(&by_rest);
    let (later, (sent, charged, _)) = world.job(&by_rest, |_| {}).await;
    println!("by REST: cold {cold}, later {sent} of which {charged} charged");
    assert_eq!((charged, later.index.totals.changed), (0, 0));
    assert_eq!(forecast, (sent, charged), "the forecast is the log's");
    assert_eq!(world.forecast(&by_rest), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn twenty_requests_are_the_most_useful_twenty() {
    let mut world = Thousand::new();
    let languages: Vec<String> = (0..1_000).map(|n| format!("acme/repo-{n:04}")).collect();
    let of = |names: &[String]| {
        plan(&format!("  languages: {{ recipe: languages, via: rest, ttl: 1h, for-each: [{}] }}\n", names.join(", ")))
    };
    // Stale for long, stale for a while, missing.
    world.sim.with(|state| state.limit = 100_000);
    world.job(&of(&languages[..10]), |_| {}).await;
    world.clock.advance(86_400);
    world.job(&of(&languages[10..990]), |_| {}).await;
    world.clock.advance(2 * 3_600);
    let (little, (sent, _, _)) = world.job(&of(&languages), |options| options.max_requests = Some(20)).await;
    assert_eq!(sent, 20);
    let outcome = |n: usize| little.index.queries[n].outcome.as_str();
    assert!((990..1_000).all(|n| outcome(n) == "fetched"), "what is missing comes first");
    assert!((0..10).all(|n| outcome(n) == "revalidated"), "then what is overdue for longest");
    assert!((10..990).all(|n| outcome(n) == "stale"), "the rest is named as stale");
    assert_eq!((little.index.totals.stale, little.worst), (980, None));
    assert_eq!(little.index.queries[500].stale_reason.as_deref(), Some("limited"));
    // The same cold, with batches: what does not fit is named.
    let mut world = Thousand::new();
    let (cold, (sent, _, _)) = world.job(&everything(""), |options| options.max_requests = Some(20)).await;
    assert_eq!(sent, 20);
    assert!(matches!(cold.worst, Some(Kind::Limited { until: None, .. })));
    let failed = cold.index.queries.iter().filter(|query| query.outcome == "failed");
    let why = |error: &str| error.contains("20 requests") || error.contains("more urgent");
    assert!(failed.clone().count() > 0 && failed.clone().all(|query| why(query.error.as_ref().unwrap())));
    assert_eq!(cold.index.queries.len(), 3_001);
}

#[tokio::test(start_paused = true)]
async fn a_limit_in_the_middle_of_a_run() {
    let mut world = Thousand::new();
    let names: Vec<String> = (0..300).map(|n| format!("acme/repo-{n:04}")).collect();
    let of = |names: &[String]| {
        plan(&format!("  languages: {{ recipe: languages, via: rest, for-each: [{}] }}\n", names.join(", ")))
    };
    // A hundred are there, a day too old.
    world.job(&of(&names[..100]), |_| {}).await;
    world.clock.advance(2 * 86_400);
    world.sim.with(|state| state.limit = 150);
    let all = of(&names);
    let (limited, (sent, charged, _)) = world.job(&all, |_| {}).await;
    // Validating the hundred is free, so the whole limit is there for the rest.
    assert_eq!(charged, 150, "{sent} sent");
    let totals = &limited.index.totals;
    assert_eq!(totals.failed, 50);
    assert_eq!(totals.fetched, 150);
    assert_eq!(totals.revalidated + totals.stale, 100);
    assert!(matches!(limited.worst, Some(Kind::Limited { until: Some(_), .. })));
    let reset = world.clock.now().plus(3_600).to_string();
    let failed = limited.index.queries.iter().filter_map(|query| query.error.as_ref());
    assert!(failed.clone().all(|error| error.contains(&reset)), "{:?}", failed.clone().next());
    // Again at once: still limited, and nothing is sent.
    let mut again = 0;
    while again == 0 {
        let (_, (sent, _, _)) = world.job(&all, |_| {}).await;
        assert!(sent <= 8, "a new process finds out with its first requests: {sent}");
        again += 1;
    }
    // When the window is over, only what is missing is sent.
    world.clock.advance(3_601);
    let (resumed, (_, charged, _)) = world.job(&all, |_| {}).await;
    assert_eq!((resumed.index.totals.failed, charged), (0, 50));
}
