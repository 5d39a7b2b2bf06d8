//! An answer: the entry, how it came about, and what was sent for it.
//!
//! Knows: adding up. Does not know: deciding, asking.

use std::sync::Arc;

use http::HeaderMap;

use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::graphql::locations;
use crate::outcome::{NoStore, Outcome};
use crate::policy::{self, Lifetime, Signer};
use crate::reply::Reply;
use crate::stack::Found;
use crate::tier::TierName;

/// An answer and how it came about.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status, headers, times and the body.
    pub entry: Arc<Entry>,
    /// How it was answered.
    pub outcome: Outcome,
    /// The tier that had it, where one did.
    pub tier: Option<TierName>,
    /// Seconds since GitHub last said that it is current.
    pub age_secs: u64,
    /// Its freshness lifetime in force.
    pub ttl_secs: u64,
    /// Requests that were sent for it, retries and redirects included.
    pub requests: u32,
    /// How many of them were answered 304.
    pub not_modified: u32,
    /// How many of them counted against the primary limit: all but authorised 304s.
    pub charged: u32,
    /// Whether another request's fetch brought it.
    pub collapsed: bool,
    /// All headers of GitHub's answer, where this one came from GitHub just now. They describe the
    /// moment and are stored nowhere.
    pub live: Option<Arc<HeaderMap>>,
    /// The stored headers as HTTP has them, where they are at hand.
    pub head: Option<Arc<HeaderMap>>,
}

/// What was sent for an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    requests: u32,
    not_modified: u32,
    charged: u32,
}

impl Spent {
    pub(super) fn add(&mut self, more: Spent) {
        self.requests += more.requests;
        self.not_modified += more.not_modified;
        self.charged += more.charged;
    }

    /// What was sent in vain before `error`.
    pub(super) fn before(error: &Error) -> Self {
        Self { requests: error.requests(), not_modified: 0, charged: error.charged() }
    }

    /// The same error, after all of this was sent.
    pub(super) fn and_then(mut self, error: Error) -> Error {
        self.add(Self::before(&error));
        error.with_requests(self.requests, self.requests - self.charged.min(self.requests))
    }

    /// Adds a reply: an authorised 304 is free (GitHub, "Best practices for using the REST API").
    pub(super) fn count(&mut self, reply: &Reply, signer: &Signer) {
        let not_modified = u32::from(reply.is_not_modified());
        let free = if signer.token_digest.is_some() { not_modified } else { 0 };
        self.requests += reply.attempts;
        self.not_modified += not_modified;
        self.charged += reply.attempts.saturating_sub(free + reply.refused);
    }
}

impl Answer {
    /// An answer that has just come.
    pub(super) fn new(entry: Arc<Entry>, outcome: Outcome, ttl_secs: u64) -> Self {
        Self {
            entry,
            outcome,
            tier: None,
            age_secs: 0,
            ttl_secs,
            requests: 0,
            not_modified: 0,
            charged: 0,
            collapsed: false,
            live: None,
            head: None,
        }
    }

    pub(super) fn spent(&self) -> Spent {
        Spent { requests: self.requests, not_modified: self.not_modified, charged: self.charged }
    }

    pub(super) fn add(&mut self, spent: Spent) {
        self.requests += spent.requests;
        self.not_modified += spent.not_modified;
        self.charged += spent.charged;
    }

    /// The answer to a GraphQL document whose normal form was asked, for the client that posted `body`: its errors lie where
    /// they are in the client's own text.
    #[must_use]
    pub fn with_client_locations(mut self, body: &[u8]) -> Self {
        if self.outcome == Outcome::NotStored(NoStore::GraphqlErrors)
            && let Some(restored) = locations::restored(&self.entry.body, body)
        {
            Arc::make_mut(&mut self.entry).body = restored;
        }
        self
    }

    /// Another answer in place of this one, which was paid for all the same.
    pub(super) fn replaced_by(self, mut other: Answer) -> Answer {
        other.add(self.spent());
        Answer { collapsed: self.collapsed, ..other }
    }
}

/// What is stored, as an answer.
pub(super) fn stored(found: Option<Found>, outcome: Outcome, lifetime: &Lifetime, now: Timestamp) -> Result<Answer> {
    let found = found.ok_or_else(|| Error::new(Kind::Internal, "an answer was promised that is not there"))?;
    let ttl_secs = policy::fresh_secs(&found.entry, lifetime);
    let age_secs = now.since(found.entry.validated_at.min(now));
    Ok(Answer { tier: Some(found.tier), age_secs, ..Answer::new(found.entry, outcome, ttl_secs) })
}
