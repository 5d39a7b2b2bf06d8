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
  languages: { recipe: languages, for-each: { query: repos, items: '.[].full_name' } }
  issues: { recipe: issues, repo: acme/repo-0005 }
";

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
    async fn job(&self, what: &str, token: &str) {
        let api = Api::parse(&self.sim.url()).unwrap();
        let options = Options::new(api.clone(), Some(Token::new(token).unwrap()));
        let upstream = Arc::new(GitHub::new(options, self.clock.clone()));
        let stack = Stack::new(self.dir.path().join("store"), self.clock.clone());
        let partition = Partition::repository("acme/repo-0003").unwrap();
        let cache = Cache::new(api, partition, stack, upstream, TtlTable::default(), self.clock.clone());
        let out = self.dir.path().join("out");
        let options = run::Options {
            output_dir: &out,
            vars: BTreeMap::new(),
            ask: Ask::default(),
            batching: Batching::default(),
        };
        let finished = run(&self.plan, &cache, &options, &Silent).await.unwrap();
        cache.stack().pack(&Narrow::default(), false).unwrap();
        let totals = &finished.index.totals;
        let (sent, charged) = self.sim.take_counts();
        println!(
            "{what:<42} {:>7} {:>5} {:>11} {:>7} {:>8} {:>7}",
            totals.queries, totals.hits, totals.revalidated, totals.fetched, sent, charged
        );
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let sim = Sim::start(clock.clone());
    for token in ["ghs_monday", "ghs_tuesday"] {
        sim.token(token, "repo:acme/repo-0003");
    }
    world::organisation(&sim, 60);
    let plan = Plan::parse(PLAN, "demo", Path::new(".")).unwrap();
    let demo = Demo { sim, clock, dir: tempfile::tempdir().unwrap(), plan };
    println!("A plan over an organisation of 60 repositories; 304s are free, everything else is charged.\n");
    println!(
        "{:<42} {:>7} {:>5} {:>11} {:>7} {:>8} {:>7}",
        "run", "queries", "hit", "revalidated", "fetched", "requests", "charged"
    );
    demo.job("1  nothing is stored yet", "ghs_monday").await;
    demo.job("2  at once again: everything is fresh", "ghs_monday").await;
    demo.clock.advance(40 * 86_400);
    demo.job("3  40 days later, nothing has changed", "ghs_monday").await;
    demo.clock.advance(40 * 86_400);
    let body = serde_json::json!({ "Rust": 1, "Zig": 2 });
    demo.sim.put("/repos/acme/repo-0007/languages", Doc::json(body));
    demo.job("4  40 days later, one repository changed", "ghs_monday").await;
    demo.clock.advance(3_600);
    demo.job("5  an hour later, the token has rotated", "ghs_tuesday").await;
    println!("\nIn run 5 what is stale is asked under the new token; what is fresh needs no token at all.");
}
