//! Integration tests: the library and the binary against a simulated GitHub and real tools.

#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod harness;

#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/attacks.rs"]
mod attacks;
#[path = "it/binary.rs"]
mod binary;
#[path = "it/flow.rs"]
mod flow;
#[path = "it/run.rs"]
mod run;
#[path = "it/tools.rs"]
mod tools;
