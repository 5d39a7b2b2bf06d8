//! The contract of the place where answers come from.
//!
//! Knows: one request, its preconditions, one reply. Does not know: GitHub, caches.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::Result;
use crate::mask::Masker;
use crate::policy::{Signer, Validators};
use crate::reply::Reply;
use crate::request::Request;
use crate::units::Span;

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a request is to be sent.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// Preconditions.
    pub validators: Validators,
    /// Whether a limit may be waited out; not where a stale answer can stand in.
    pub may_wait: bool,
    /// Whether no cache in the middle may answer (`Cache-Control: no-cache`, RFC 9111 section 5.2.1.4): something is known to
    /// have changed, or somebody wants to have it from GitHub.
    pub end_to_end: bool,
}

/// What answers when the cache cannot.
pub trait Upstream: Send + Sync + std::fmt::Debug {
    /// Asks once (retries included), conditionally where there are validators.
    ///
    /// Any complete answer that says something about the resource is `Ok`, 304, 403 and 404 too.
    /// Limits, 5xx and transport failures are errors (see
    /// [`Error::allows_stale`](crate::error::Error::allows_stale)).
    fn fetch<'a>(&'a self, request: &'a Request, conditions: &'a Conditions) -> BoxFuture<'a, Result<Reply>>;

    /// Who signs requests, as far as validators depend on it.
    fn signer(&self) -> Signer;

    /// What the last answers said of the primary limit, for the bucket with the least left.
    fn rate_limit(&self) -> Option<RateLimit>;

    /// Requests that may still be sent to where `request` is counted, as far as that is known: the
    /// run's own bound, and what live answers said.
    fn allowance(&self, request: &Request) -> Option<u64>;

    /// Requests that went out so far, retries included.
    fn sent(&self) -> u32;

    /// Returns what masks the secrets with which requests are signed, in everything made of answers.
    fn masker(&self) -> Masker {
        Masker::default()
    }
}

/// A primary rate limit, as GitHub's headers told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Bucket: `core`, `search`, `graphql` …
    pub resource: String,
    /// Requests or points per window.
    pub limit: u64,
    /// What is left of them.
    pub remaining: u64,
    /// When the window ends.
    pub reset_at: Timestamp,
}

impl RateLimit {
    /// What is left and until when, for people.
    pub fn describe(&self, now: Timestamp) -> String {
        let window = match self.reset_at.since(now) {
            0 => String::new(),
            secs => format!(" for {}", Span(secs)),
        };
        format!("{} of {} left{window} ({})", self.remaining, self.limit, self.resource)
    }
}
