//! The contract of the place where answers come from.
//!
//! Knows: one request, its preconditions, one reply. Does not know: GitHub, caches.

use std::future::Future;
use std::pin::Pin;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::policy::Validators;
use crate::reply::Reply;
use crate::request::Request;
use crate::units::Span;

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What answers when the cache cannot.
pub trait Upstream: Send + Sync + std::fmt::Debug {
    /// Asks once (retries included), conditionally where there are `validators`.
    ///
    /// Any complete answer that says something about the resource is `Ok`, 304, 403 and 404 too.
    /// Limits, 5xx and transport failures are errors (see
    /// [`Error::allows_stale`](crate::error::Error::allows_stale)).
    fn fetch<'a>(&'a self, request: &'a Request, validators: &'a Validators) -> BoxFuture<'a, Result<Reply>>;

    /// The digest of the token that signs requests; `None` without one, empty while it is unknown.
    fn token_digest(&self) -> Option<String>;

    /// What the last answers said of the primary limit, for the bucket with the least left.
    fn rate_limit(&self) -> Option<RateLimit>;

    /// Requests that went out so far, retries included.
    fn sent(&self) -> u32;
}

/// A primary rate limit, as GitHub's headers told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
