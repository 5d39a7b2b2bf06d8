//! A simulated GitHub with a made-up organisation, for trying things without a token or a network.
//! Prints its address and goes on until its standard input ends. Named a path, it listens on a Unix
//! socket there, too.
//!
//! `cargo run --example simulator [SOCKET]`

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a demonstration"
)]

#[path = "../tests/harness.rs"]
mod harness;

use std::io::Read;

use harness::sim::Sim;
use harness::world;
use octocache::clock::Clock;

fn main() {
    let sim = Sim::start(Clock::System);
    world::organisation(&sim, 30);
    for n in 1..=9 {
        sim.token(&format!("ghs_job{n}"), "repo:acme/repo-0001");
    }
    #[cfg(unix)]
    if let Some(path) = std::env::args().nth(1) {
        sim.listen_unix(path.as_ref());
    }
    println!("{}", sim.url());
    let _ended = std::io::stdin().read_to_end(&mut Vec::new());
    let (sent, charged) = sim.take_counts();
    println!("{sent} requests came, {charged} of them were charged");
}
