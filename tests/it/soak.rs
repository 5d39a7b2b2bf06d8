//! A day of fifty runners: tokens that rotate, things that change, failures, limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use octocache::cache::batch::Batching;
use octocache::cache::{Ask, Cache};
use octocache::clock::{Clock, Timestamp};
use octocache::github::{GitHub, Options};
use octocache::partition::Partition;
use octocache::plan::Plan;
use octocache::plan::report::{QueryReport, Totals};
use octocache::plan::run::{self, Progress, run};
use octocache::policy::TtlTable;
use octocache::request::Api;
use octocache::stack::Stack;
use octocache::token::Token;
use serde_json::json;

use crate::harness::sim::{Doc, Fault, Sim};
use crate::harness::world;

struct Silent;

impl Progress for Silent {
    fn more(&self, _count: usize) {}
    fn done(&self, _report: &QueryReport) {}
}

const RUNNERS: u64 = 50;
const EVERY: Duration = Duration::from_mins(2);
const ROUNDS: u64 = 24 * 30;

/// A small, repeatable source of chance.
struct Chance(u64);

impl Chance {
    fn one_in(&mut self, many: u64) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33).is_multiple_of(many)
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_of_fifty_runners() {
    let clock = Clock::following_tokio(Timestamp::from_secs(1_800_000_000));
    let sim = Sim::start(clock.clone());
    let names = world::organisation(&sim, 20);
    let dir = tempfile::tempdir().unwrap();
    let api = Api::parse(&sim.url()).unwrap();
    // Five plans over different repositories; ten runners share each.
    let plans: Vec<Plan> = (0..5)
        .map(|n| {
            let name = &names[n * 4];
            let text = format!(
                "version: 1\nqueries:\n  repo: {{ recipe: repo, repo: {name} }}\n  latest: {{ recipe: latest-release, repo: {name} }}\n  runs: {{ recipe: workflow-runs, repo: {name} }}\n  issues: {{ recipe: issues, repo: {name} }}\n"
            );
            Plan::parse(&text, "plan.yml", Path::new(".")).unwrap()
        })
        .collect();
    let mut chance = Chance(7);
    let (mut runs, mut without_cache, mut refused, mut told_to_wait) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut sums = Totals::default();
    let (mut sent, mut charged, mut faults) = (0, 0, 0);
    for round in 0..ROUNDS {
        for runner in 0..RUNNERS {
            // Each job has a token of its own; all of them stand for one repository.
            let token = format!("ghs_{round}_{runner}");
            sim.with(|state| state.tokens = [(token.clone(), "repo:acme/app".to_owned())].into());
            if chance.one_in(40) {
                faults += 1;
                told_to_wait += u64::from(runner % 4 == 2);
                let fault = match runner % 4 {
                    0 => Fault::Status(502),
                    1 => Fault::Drop,
                    2 => Fault::Secondary(if chance.one_in(2) { Some(20) } else { None }),
                    _ => Fault::Truncate,
                };
                sim.fail_next(&[fault]);
            }
            if chance.one_in(60) {
                let name = &names[(runner % 5 * 4) as usize];
                sim.put(
                    &format!("/repos/{name}/releases/latest"),
                    Doc::json(json!({ "tag_name": format!("v{round}.{runner}") })),
                );
                sim.put(
                    &format!("/repos/{name}/actions/runs"),
                    Doc::List { items: vec![json!({ "id": round })], wrapped_in: Some("workflow_runs"), numeric: None },
                );
            }
            let options = Options::new(api.clone(), Some(Token::new(&token).unwrap()));
            let upstream = Arc::new(GitHub::over(sim.wire(), options, clock.clone()));
            let stack = Stack::new(dir.path().join("store"), clock.clone());
            let partition = Partition::repository("acme/app").unwrap();
            let cache = Cache::new(api.clone(), partition, stack, upstream, TtlTable::default(), clock.clone());
            let out = dir.path().join(format!("out-{}", runner % 5));
            let options = run::Options {
                output_dir: Some(&out),
                vars: BTreeMap::new(),
                ask: Ask::default(),
                batching: Batching::default(),
            };
            let plan = &plans[(runner % 5) as usize];
            let finished = run(plan, &cache, &options, &Silent).await.unwrap();
            assert_eq!((finished.worst, finished.index.totals.failed), (None, 0), "a failed run: {:?}", finished.index);
            runs += 1;
            without_cache += finished.index.queries.iter().map(|query| query.pages as u64).sum::<u64>();
            let totals = &finished.index.totals;
            sums.hits += totals.hits;
            sums.revalidated += totals.revalidated;
            sums.fetched += totals.fetched;
            sums.stale += totals.stale;
        }
        let log = sim.log();
        refused += log.iter().filter(|logged| matches!(logged.status, 403 | 429)).count() as u64;
        let counts = sim.take_counts();
        (sent, charged) = (sent + counts.0 as u64, charged + counts.1 as u64);
        tokio::time::advance(EVERY).await;
    }
    let used_most = charged as f64 / 24.0;
    println!("a day of {RUNNERS} runners, one plan each every 2 minutes");
    println!("  runs {runs}   failed 0   faults injected {faults}");
    println!(
        "  answers: hit {}   revalidated {}   fetched {}   stale {}",
        sums.hits, sums.revalidated, sums.fetched, sums.stale
    );
    println!(
        "  requests without cache {without_cache}   sent {sent}   charged {charged} ({used_most:.0} an hour of 1,000)"
    );
    let fewer = 100.0 * (1.0 - charged as f64 / without_cache as f64);
    println!("  {fewer:.2} % fewer charged requests");
    let is_wait = |fault: &&Fault| matches!(fault, Fault::Secondary(_));
    let unused = sim.with(|state| state.faults.iter().filter(is_wait).count() as u64);
    assert_eq!(refused, told_to_wait - unused, "GitHub never refused but where the test had it do so");
    assert!(fewer >= 95.0);
}
