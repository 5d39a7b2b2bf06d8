//! What a run did: `index.json` (version 1) and its sums.
//!
//! Knows: the report's fields. Does not know: tables, colours, GitHub's outputs (`cli`, `actions`).

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::key::CacheKey;
use crate::mask::Masker;
use crate::upstream::RateLimit;

/// The report of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Index {
    /// Format version: 1.
    pub v: u32,
    /// The plan's file.
    pub plan: String,
    /// When the run began.
    pub started_at: Timestamp,
    /// One per query, or per item of a `for-each`, in the plan's order.
    pub queries: Vec<QueryReport>,
    /// Sums.
    pub totals: Totals,
    /// The primary limit as last seen; `null` when nothing was asked.
    #[serde(skip_deserializing)]
    pub rate_limit: Option<RateLimit>,
}

/// What became of one query.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QueryReport {
    /// The query's name.
    pub name: String,
    /// The item, for one of a `for-each`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub item: Option<String>,
    /// The result's file below the output directory; `null` without an answer.
    pub file: Option<String>,
    /// `hit`, `revalidated`, `confirmed`, `fetched`, `not-stored`, `stale` or `failed`: the weakest of its pages.
    pub outcome: String,
    /// [`Outcome::weight`](crate::outcome::Outcome::weight) of that.
    #[serde(skip)]
    pub weight: Option<u8>,
    /// The entries that it was made of.
    #[serde(skip)]
    pub keys: Vec<CacheKey>,
    /// Why, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Seconds since GitHub last confirmed it; the oldest of its pages.
    pub age_secs: u64,
    /// Its freshness lifetime.
    pub ttl_secs: u64,
    /// GitHub's status; `null` without an answer.
    pub status: Option<u16>,
    /// Requests that were sent for it.
    pub requests: u32,
    /// How many of them were answered 304.
    pub not_modified: u32,
    /// How many of them counted against the rate limit.
    #[serde(default)]
    pub charged: u32,
    /// Pages that it was made of.
    pub pages: usize,
    /// SHA-256 of the file.
    pub sha256: Option<String>,
    /// SHA-256 of what `watch` selects, where the query has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub watch_sha256: Option<String>,
    /// Whether it (or what `watch` selects) differs from the run before.
    pub changed: bool,
    /// Why a stale answer stood in.
    pub stale_reason: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl QueryReport {
    /// Masks credentials in what comes from answers: the item and the error.
    pub(super) fn mask(&mut self, masker: &Masker) {
        for text in [&mut self.item, &mut self.error].into_iter().flatten() {
            if let std::borrow::Cow::Owned(masked) = masker.text(text) {
                *text = masked;
            }
        }
    }
}

/// Sums of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Queries and items.
    pub queries: usize,
    /// Answered fresh from the cache.
    pub hits: usize,
    /// Confirmed by GitHub with 304, those of other partitions included.
    pub revalidated: usize,
    /// Answered by GitHub.
    pub fetched: usize,
    /// Answered from the cache although stale.
    pub stale: usize,
    /// Without an answer.
    pub failed: usize,
    /// Results that differ from the run before.
    pub changed: usize,
    /// Requests that were sent, retries and those of failed queries included.
    pub requests: u32,
    /// How many of them were answered 304, free of the primary limit when authorised.
    pub not_modified: u32,
    /// How many of them counted against the primary limit.
    #[serde(default)]
    pub charged: u32,
    /// Requests that a run without cache would have charged, and this one did not.
    pub saved: u64,
}

impl Totals {
    /// The sums over `queries`.
    pub fn of(queries: &[QueryReport]) -> Self {
        let mut totals = Self { queries: queries.len(), ..Self::default() };
        for query in queries {
            *match query.outcome.as_str() {
                "hit" => &mut totals.hits,
                "revalidated" | "confirmed" => &mut totals.revalidated,
                "stale" => &mut totals.stale,
                "failed" => &mut totals.failed,
                _ => &mut totals.fetched,
            } += 1;
            totals.changed += usize::from(query.changed);
            totals.requests += query.requests;
            totals.not_modified += query.not_modified;
            totals.charged += query.charged;
            totals.saved += (query.pages as u64).saturating_sub(u64::from(query.charged));
        }
        totals
    }
}

impl Index {
    /// The names of queries whose results changed, each once.
    pub fn changed_queries(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.queries.iter().filter(|query| query.changed).map(|query| query.name.as_str()).collect();
        names.dedup();
        names
    }
}
