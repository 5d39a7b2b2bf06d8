//! Passes over a listing, for clients that walk from page to page themselves.
//!
//! Knows: which pages come after one, and when that one was validated. Does not know: what is on them.
//!
//! A listing is one fact spread over several responses, and each has its own lifetime: behind a page that has just changed, one
//! from before would repeat an item or lack one. So a page answers by itself only if it was validated no earlier than the page
//! before it. That costs requests that are not charged, and none where nothing was asked for again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Cache;
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::key::{CacheKey, KeyParts};
use crate::link;
use crate::policy::CutoffTimes;
use crate::request::{Method, Request};

/// Pages that are remembered; with more, all are validated again.
const MAX_PAGES: usize = 10_000;

/// Parameters by which later pages are asked for (GitHub, "Using pagination in the REST API").
const PARAMS: &[&str] = &["page", "after", "before", "cursor", "since"];

/// When the page before each was validated.
#[derive(Debug, Default)]
pub(super) struct Passes(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    since: HashMap<CacheKey, Timestamp>,
    /// Every later page is to be validated at this time or later: of those before nothing is remembered.
    all_since: Option<Timestamp>,
}

impl Passes {
    fn note(&self, page: CacheKey, at: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.since.len() >= MAX_PAGES && !known.since.contains_key(&page) {
            known.all_since = known.since.drain().map(|(_, at)| at).max().max(known.all_since);
        }
        let since = known.since.entry(page).or_insert(at);
        *since = (*since).max(at);
    }

    fn since(&self, page: &CacheKey) -> Option<Timestamp> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.since.get(page).copied().max(known.all_since)
    }
}

impl Cache {
    /// The same for a page that answers as it is, where others may follow from the store: a walk begins with what the first
    /// page is, whenever it was validated, and whichever process did.
    pub(super) fn note_hit(&self, request: &Request, page: &Entry) {
        if self.behind.is_some() {
            self.note_pass(request, page);
        }
    }

    /// Notes when `page` was validated, for the pages after it.
    pub(super) fn note_pass(&self, request: &Request, page: &Entry) {
        if request.method != Method::Get {
            return;
        }
        let next = page.headers.get("link").and_then(link::next);
        let Some(next) = next.and_then(|next| request.follow(&self.api, next)) else { return };
        // Some clients count pages themselves, by the address that they began with.
        let number = request.param("page").map_or(Some(1), |page| page.parse::<u64>().ok());
        let counted = number.and_then(|number| request.with_param("page", &number.saturating_add(1).to_string()));
        for after in [Some(next), counted].into_iter().flatten() {
            self.passes.note(KeyParts::of(&after, &self.partition).key(), page.validated_at);
        }
    }

    /// `cutoff`, and that a later page must not be older than the page before it.
    pub(super) fn within_pass(&self, request: &Request, key: &CacheKey, cutoff: CutoffTimes) -> CutoffTimes {
        if is_later_page(request) { cutoff.not_before(self.passes.since(key)) } else { cutoff }
    }

    /// The same where the key is not known yet.
    pub(super) fn within_pass_of(&self, request: &Request, cutoff: CutoffTimes) -> CutoffTimes {
        if !is_later_page(request) {
            return cutoff;
        }
        self.within_pass(request, &KeyParts::of(request, &self.partition).key(), cutoff)
    }
}

/// Whether a request asks for a later page of a listing.
pub(super) fn is_later_page(request: &Request) -> bool {
    request.query.split('&').any(|pair| pair.split_once('=').is_some_and(|(name, _)| PARAMS.contains(&name)))
}
