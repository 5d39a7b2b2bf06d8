//! Integration tests: the library and the binary against a simulated GitHub and real tools.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, reason = "tests")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "tests fail loudly and look at the real environment"
)]

mod harness;

#[path = "it/action.rs"]
mod action;
#[path = "it/aliases.rs"]
mod aliases;
#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/attacks.rs"]
mod attacks;
#[path = "it/batch.rs"]
mod batch;
#[path = "it/binary.rs"]
mod binary;
#[cfg(unix)]
#[path = "it/changes.rs"]
mod changes;
#[path = "it/cost.rs"]
mod cost;
#[path = "it/docs.rs"]
mod docs;
#[path = "it/doctor.rs"]
mod doctor;
#[path = "it/flow.rs"]
mod flow;
#[cfg(unix)]
#[path = "it/gh.rs"]
mod gh;
#[path = "it/hostile_bundle.rs"]
mod hostile_bundle;
#[path = "it/hostile_checkout.rs"]
mod hostile_checkout;
#[cfg(unix)]
#[path = "it/hostile_client.rs"]
mod hostile_client;
#[path = "it/hostile_copies.rs"]
mod hostile_copies;
#[cfg(unix)]
#[path = "it/hostile_plan.rs"]
mod hostile_plan;
#[cfg(unix)]
#[path = "it/hostile_text.rs"]
mod hostile_text;
#[cfg(all(target_os = "linux", feature = "p2p"))]
#[path = "it/hosts.rs"]
mod hosts;
#[path = "it/install.rs"]
mod install;
#[cfg(unix)]
#[path = "it/ipfs.rs"]
mod ipfs;
#[cfg(unix)]
#[path = "it/jq.rs"]
mod jq;
#[path = "it/limits.rs"]
mod limits;
#[path = "it/odd_answers.rs"]
mod odd_answers;
#[cfg(unix)]
#[path = "it/operate.rs"]
mod operate;
#[path = "it/operations.rs"]
mod operations;
#[cfg(unix)]
#[path = "it/oracle.rs"]
mod oracle;
#[path = "it/pages.rs"]
mod pages;
#[cfg(feature = "p2p")]
#[path = "it/peers.rs"]
mod peers;
#[path = "it/recorded.rs"]
mod recorded;
#[cfg(unix)]
#[path = "it/redis.rs"]
mod redis;
#[cfg(unix)]
#[path = "it/rfc9111.rs"]
mod rfc9111;
#[cfg(feature = "p2p")]
#[path = "it/rogue.rs"]
mod rogue;
#[path = "it/rotation.rs"]
mod rotation;
#[path = "it/run.rs"]
mod run;
#[cfg(unix)]
#[path = "it/serve.rs"]
mod serve;
#[cfg(all(unix, feature = "p2p"))]
#[path = "it/shared.rs"]
mod shared;
#[path = "it/soak.rs"]
mod soak;
#[cfg(unix)]
#[path = "it/sockets.rs"]
mod sockets;
#[path = "it/tools.rs"]
mod tools;
#[path = "it/warm.rs"]
mod warm;
#[path = "it/wire.rs"]
mod wire;
