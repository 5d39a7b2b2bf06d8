//! What tests, benches and the demo share: a simulated GitHub.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each user takes what it needs")]

#[path = "harness/sim.rs"]
pub mod sim;
#[path = "harness/world.rs"]
pub mod world;
