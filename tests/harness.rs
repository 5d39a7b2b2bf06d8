//! What tests, benches and the demo share: a simulated GitHub.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each user takes what it needs")]

pub mod sim;
pub mod world;
