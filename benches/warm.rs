//! Warming as a whole process: a thousand repositories of which one in fifty has changed, another
//! token, against the simulated GitHub, which answers at once.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench prints, and fails loudly"
)]

#[path = "../tests/harness.rs"]
mod harness;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use harness::sim::{Doc, Sim};
use harness::world;
use octocache::clock::Clock;

const PLAN: &str = "version: 1
queries:
  repos: { recipe: org-repos, org: acme }
  languages: { recipe: languages, for-each: { query: repos, items: '.[].full_name', fresh-while: true } }
";

fn warm(dir: &Path, sim: &Sim, token: &str) -> (f64, usize, usize) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octocache"));
    command.args(["warm", "--ahead", "2d", "--partition", "team"]).env_clear().current_dir(dir);
    command.env("HOME", dir).env("OCTOCACHE_API_URL", sim.url()).env("GH_ENTERPRISE_TOKEN", token);
    let started = Instant::now();
    let output = command.output().unwrap();
    let took = started.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (sent, charged) = sim.take_counts();
    (took, sent, charged)
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".github")).unwrap();
    std::fs::write(dir.path().join(".github/octocache.yml"), PLAN).unwrap();
    let sim = Sim::start(Clock::System);
    for token in ["ghs_one", "ghs_two"] {
        sim.token(token, "team");
    }
    world::organisation(&sim, 1_000);
    let (cold, sent, _) = warm(dir.path(), &sim, "ghs_one");
    println!("cold: {cold:.2} s, {sent} requests");
    sim.with(|state| {
        let Some(Doc::List { items, .. }) = state.docs.get_mut("/orgs/acme/repos") else { return };
        items.iter_mut().step_by(50).for_each(|repo| repo["pushed_at"] = "2026-11-11T00:00:00Z".into());
    });
    let (took, sent, charged) = warm(dir.path(), &sim, "ghs_two");
    let held = took <= 2.0 && charged <= 20 + 10;
    let mark = if held { "ok  " } else { "MISS" };
    println!(
        "{mark} another token, 2 % changed: {took:.2} s (goal ≤ 2), {sent} requests, {charged} charged (goal ≤ 30)"
    );
    assert!(held);
}
