//! What is to be done with a request, and why.
//!
//! Knows: where to look, and in which order. Does not know: sending.

use std::sync::Arc;

use super::twin::Judged;
use super::{Ask, Cache};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::key::{CacheKey, KeyParts};
use crate::outcome::Because;
use crate::policy::{self, Before, CutoffTimes, Lifetime, Mode, Signer, class, permissions};
use crate::request::Request;
use crate::stack::Found;

/// What [`Cache::explain`] finds; nothing is sent.
#[derive(Debug)]
pub struct Explained {
    /// The key.
    pub key: CacheKey,
    /// What went into it.
    pub parts: KeyParts,
    /// The lifetime in force.
    pub lifetime: Lifetime,
    /// What is stored, and where.
    pub found: Option<Found>,
    /// A body that is not the asker's, but may be tried.
    pub candidate: Option<Entry>,
    /// What invalidations say.
    pub cutoff: CutoffTimes,
    /// What would be done.
    pub decision: Before,
    /// Who asks.
    pub signer: Signer,
    /// The time of the decision.
    pub now: Timestamp,
}

impl Cache {
    /// What is to be done with a request, and why; looks but sends nothing.
    pub fn explain(&self, request: &Request, ask: &Ask) -> Explained {
        let parts = KeyParts::of(request, &self.partition);
        let key = parts.key();
        let lifetime = self.ttls.load().lifetime(&request.path, &request.query, ask.ttl_secs, ask.stale_secs);
        let lifetime = lifetime.at_most(ask.max_age_secs);
        let mut found = if ask.mode == Mode::NoStore { None } else { self.stack.find(&parts, &key) };
        let cutoff = self.cutoff_of(request, ask, &key, &parts);
        let (now, signer) = (self.clock.now(), self.upstream.signer());
        let terms = ask.terms(&lifetime, cutoff, &signer, now);
        let decide = |found: Option<&Found>| policy::before_request(found.map(|found| &*found.entry), &terms);
        let mut decision = decide(found.as_ref());
        // What is stale near may be fresh farther: look on once before anything is sent.
        if !matches!(decision, Before::Fresh { .. })
            && let Some(newer) = found.as_ref().and_then(|found| self.stack.newer_than(&key, found, now))
        {
            decision = decide(Some(&newer));
            found = Some(newer);
        }
        let set_aside = take_unless_allowed(&mut found, request, &signer);
        if set_aside.is_some() {
            decision = decide(None);
        }
        if decision == Before::Fetch(Because::NotStored) && ask.mode != Mode::NoStore {
            // What is gone is of no use any more.
            found = None;
            let judged = Judged { lifetime: &lifetime, cutoff, signer: &signer, now };
            if let Some((by_name, fresh)) = self.fresh_by_name(request, &parts, &key, ask, judged) {
                (found, decision) = (Some(by_name), fresh);
            }
        }
        let mut candidate = None;
        if decision == Before::Fetch(Because::NotStored)
            && let Some((entry, validators)) = self.candidate(request, &parts, ask, &terms, set_aside)
        {
            decision = Before::Revalidate { validators, because: Because::NotStored };
            candidate = Some(entry);
        }
        Explained { key, parts, lifetime, found, candidate, cutoff, decision, signer, now }
    }

    fn cutoff_of(&self, request: &Request, ask: &Ask, key: &CacheKey, parts: &KeyParts) -> CutoffTimes {
        let cutoff = self.cutoff(key, parts, request.listing.as_deref()).not_before(ask.validated_since);
        self.within_pass(request, key, cutoff)
    }

    /// What is to be done now that there is a later copy.
    pub(super) fn decide_again(&self, request: &Request, ask: &Ask, explained: Explained, found: Found) -> Explained {
        let mut found = Some(found);
        if let Some(other) = take_unless_allowed(&mut found, request, &explained.signer) {
            return super::beyond::try_out(ask, explained, other);
        }
        let Explained { key, parts, lifetime, signer, .. } = explained;
        let cutoff = self.cutoff_of(request, ask, &key, &parts);
        let now = self.clock.now();
        let terms = ask.terms(&lifetime, cutoff, &signer, now);
        let decision = policy::before_request(found.as_ref().map(|found| &*found.entry), &terms);
        Explained { key, parts, lifetime, found, candidate: None, cutoff, decision, signer, now }
    }
}

/// Takes out an entry that came to another token of the same partition, where what a token may do selects the
/// response. Like another partition's, it may be tried; only GitHub's 304 releases it.
fn take_unless_allowed(found: &mut Option<Found>, request: &Request, requester: &Signer) -> Option<Entry> {
    let entry = &found.as_ref()?.entry;
    let class = class::of(&request.path, &request.query);
    if permissions::may_answer(entry, request, class, requester) {
        return None;
    }
    found.take().map(|found| Arc::unwrap_or_clone(found.entry))
}
