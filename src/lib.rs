//! octocache: one cache for GitHub API responses that every job, runner and developer of a
//! project shares, so that a fact is asked of GitHub once.
//!
//! The library is what the binary and the Action are made of. [`cache::Cache`] is its face:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use octocache::cache::{Ask, Cache};
//! use octocache::clock::Clock;
//! use octocache::github::{GitHub, Options};
//! use octocache::partition::Partition;
//! use octocache::policy::TtlTable;
//! use octocache::request::{Api, Request};
//! use octocache::stack::Stack;
//!
//! # async fn example() -> octocache::error::Result<()> {
//! let (api, clock) = (Api::github(), Clock::System);
//! let upstream = Arc::new(GitHub::new(Options::new(api.clone(), None), clock.clone()));
//! let stack = Stack::new(".cache/github", clock.clone());
//! let cache = Cache::new(api.clone(), Partition::public(), stack, upstream, TtlTable::default(), clock);
//!
//! let answer = cache.get(&Request::get(&api, "/repos/cli/cli")?, &Ask::default()).await?;
//! println!("{}: {} bytes", answer.outcome.as_str(), answer.entry.body.len());
//! cache.flush();
//! # Ok(())
//! # }
//! ```
//!
//! A caller's own facts go under own names, without any request:
//!
//! ```
//! # use std::sync::Arc;
//! # use octocache::{cache::{Ask, Cache}, clock::Clock, github::{GitHub, Options}, partition::Partition};
//! # use octocache::{policy::TtlTable, request::Api, stack::Stack};
//! # let dir = tempfile::tempdir().unwrap();
//! # let (api, clock) = (Api::github(), Clock::System);
//! # let upstream = Arc::new(GitHub::new(Options::new(api.clone(), None), clock.clone()));
//! # let stack = Stack::new(dir.path().join("cache"), clock.clone());
//! # let cache = Cache::new(api, Partition::public(), stack, upstream, TtlTable::default(), clock);
//! cache.set("release-v1.2", "notes", 3_600)?;
//! let notes = cache.get_own("release-v1.2", &Ask::default()).map(|answer| answer.entry.body.clone());
//! assert_eq!(notes.as_deref(), Some(&b"notes"[..]));
//! # Ok::<(), octocache::error::Error>(())
//! ```
//!
//! ARCHITECTURE.md tells how the modules stand on each other; each begins with what it knows and
//! what it deliberately does not.

// Ground: no knowledge of caches.
pub mod clock;
pub mod error;
pub mod units;

// Pure: no I/O, no async, no clock.
pub mod address;
pub mod alias;
pub mod cid;
pub mod entry;
pub mod files;
pub mod graphql;
pub mod json;
pub mod key;
pub mod link;
pub mod mask;
pub mod metrics;
pub mod outcome;
pub mod partition;
pub mod policy;
pub mod reply;
pub mod request;
pub mod schedule;
pub mod tag;
pub mod text;
pub mod token;

// Machinery: each ignorant of the others' purpose.
pub mod bundle;
pub mod collapse;
mod connect;
pub mod cutoff;
pub mod event;
pub mod github;
pub mod share;
pub mod stack;
pub mod stats;
pub mod tier;
pub mod upstream;

// The path from a request to an answer.
pub mod cache;

// Doors.
pub mod actions;
pub mod api;
pub mod plan;
pub mod serve;
pub mod warm;

// Assembly.
pub mod cli;
pub mod config;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
