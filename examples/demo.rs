//! A plan answered through the cache on a bare machine, without token or network: a simulated
//! GitHub counts what each run costs.
//!
//! `cargo run --release --example demo`

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a demonstration"
)]

#[path = "../tests/harness.rs"]
mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use harness::sim::{Doc, Sim};
use harness::world;
use octocache::cache::batch::Batching;
use octocache::cache::{Ask, Cache};
use octocache::clock::{Clock, Timestamp};
use octocache::github::{GitHub, Options};
use octocache::partition::Partition;
use octocache::plan::Plan;
use octocache::plan::report::QueryReport;
use octocache::plan::run::{self, Progress, run};
use octocache::policy::TtlTable;
use octocache::request::Api;
use octocache::stack::{Narrow, Stack};
use octocache::token::Token;

const PLAN: &str = "
version: 1
vars: { owner: acme, repo: repo-0003 }
queries:
  releases: { recipe: releases }
  latest: { recipe: latest-release, jq: '{tag: .tag_name, at: .published_at}' }
  repos: { recipe: org-repos, org: acme }
  languages: { recipe: languages, for-each: { query: repos, items: '.[].full_name', fresh-while: [.pushed_at] } }
  issues: { recipe: issues, repo: acme/repo-0005 }
";

const OURS: &str = "acme/repo-0003";
const OTHERS: &str = "acme/repo-0004";

struct Silent;

impl Progress for Silent {
    fn more(&self, _: usize) {}
    fn done(&self, _: &QueryReport) {}
}

struct Demo {
    sim: Sim,
    clock: Clock,
    dir: tempfile::TempDir,
    plan: Plan,
}

impl Demo {
    /// One job: a process of its own would do the same.
    async fn job(&self, what: &str, token: &str, partition: &str) {
        let api = Api::parse(&self.sim.url()).unwrap();
        let options = Options::new(api.clone(), Some(Token::new(token).unwrap()));
        let upstream = Arc::new(GitHub::new(options, self.clock.clone()));
        let stack = Stack::new(self.dir.path().join("store"), self.clock.clone());
        let partition = Partition::repository(partition).unwrap();
        let cache = Cache::new(api, partition, stack, upstream, TtlTable::default(), self.clock.clone());
        let out = self.dir.path().join("out");
        let options = run::Options {
            output_dir: Some(&out),
            vars: BTreeMap::new(),
            ask: Ask::default(),
            batching: Batching::default(),
        };
        let finished = run(&self.plan, &cache, &options, &Silent).await.unwrap();
        cache.stack().pack(&Narrow::everything(), false).unwrap();
        let totals = &finished.index.totals;
        let (sent, charged) = self.sim.take_counts();
        println!(
            "{what:<46} {:>7} {:>5} {:>11} {:>7} {:>8} {:>7}",
            totals.queries, totals.hits, totals.revalidated, totals.fetched, sent, charged
        );
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let sim = Sim::start(clock.clone());
    for (token, repository) in [("ghs_one", OURS), ("ghs_two", OURS), ("ghs_three", OURS), ("ghs_other", OTHERS)] {
        sim.token(token, repository);
    }
    world::organisation(&sim, 60);
    let plan = Plan::parse(PLAN, "demo", Path::new(".")).unwrap();
    let demo = Demo { sim, clock, dir: tempfile::tempdir().unwrap(), plan };
    println!("A plan over an organisation of 60 repositories; 304s are free, everything else is charged.\n");
    println!(
        "{:<46} {:>7} {:>5} {:>11} {:>7} {:>8} {:>7}",
        "run", "queries", "hit", "revalidated", "fetched", "requests", "charged"
    );
    demo.job("1  nothing is stored yet", "ghs_one", OURS).await;
    demo.job("2  another job, another token: all is fresh", "ghs_two", OURS).await;
    demo.clock.advance(40 * 86_400);
    demo.job("3  40 days later, a third token, no change", "ghs_three", OURS).await;
    demo.clock.advance(3_600);
    let pushed_at = demo.clock.now().minus(1_800).to_string();
    demo.sim.with(|state| {
        let Some(Doc::List { items, .. }) = state.docs.get_mut("/orgs/acme/repos") else { return };
        items[7]["pushed_at"] = pushed_at.into();
    });
    let body = serde_json::json!({ "Rust": 1, "Zig": 2 });
    demo.sim.put("/repos/acme/repo-0007/languages", Doc::json(body));
    demo.job("4  an hour later, one was pushed to", "ghs_one", OURS).await;
    demo.job("5  the same plan in another repository", "ghs_other", OTHERS).await;
    println!(
        "\nThe languages of 60 repositories are one GraphQL request, and need none while `pushed_at` stays the same."
    );
    println!(
        "In run 5 what the first repository stored is only tried: GitHub's own 304 to the other token releases it."
    );
}
