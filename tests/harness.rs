//! What tests, benches and the demo share: a simulated GitHub, a slow network.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each user takes what it needs")]

#[cfg(target_os = "linux")]
#[path = "harness/namespaces.rs"]
pub mod namespaces;
#[allow(clippy::disallowed_methods, reason = "a delay is what it is for")]
#[path = "harness/relay.rs"]
pub mod relay;
#[path = "harness/sim.rs"]
pub mod sim;
#[path = "harness/world.rs"]
pub mod world;
