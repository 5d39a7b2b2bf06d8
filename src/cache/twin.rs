//! What is asked by number and stored by name: one resource, one answer.
//!
//! Knows: which entry shows the number that is asked for. Does not know: which names a number has (`alias`).
//!
//! A name may have been given to another repository since, so a page answers for a number only if its own `Link` shows that
//! number. The other way round nothing shows that the name is still the same: such a body is only tried (`candidate`).

use std::sync::Arc;

use super::{Ask, Cache};
use crate::alias::{self, Alias};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::key::{CacheKey, KeyParts};
use crate::policy::{self, Before, CutoffTimes, Lifetime, Signer, class, permissions};
use crate::request::Request;
use crate::stack::Found;

/// What a request's answer is judged by.
#[derive(Clone, Copy)]
pub(super) struct Judged<'a> {
    pub lifetime: &'a Lifetime,
    pub cutoff: CutoffTimes,
    pub signer: &'a Signer,
    pub now: Timestamp,
}

impl Cache {
    /// The fresh answer to a request by number that is stored by name, and the decision that it answers.
    pub(super) fn fresh_by_name(
        &self,
        request: &Request,
        parts: &KeyParts,
        key: &CacheKey,
        ask: &Ask,
        judged: Judged<'_>,
    ) -> Option<(Found, Before)> {
        if !alias::is_by_number(&request.path) {
            return None;
        }
        let class = class::of(&request.path, &request.query);
        self.stack.other_paths(&request.path).into_iter().find_map(|path| {
            let named = KeyParts { path, ..parts.clone() };
            let named_key = named.key();
            let Found { entry, tier } = self.stack.find(&named, &named_key)?;
            if !shows(&entry, request) || !permissions::may_answer(&entry, request, class, judged.signer) {
                return None;
            }
            let by_name = self.cutoff(&named_key, &named, entry.listing.as_deref());
            let terms = ask.terms(judged.lifetime, judged.cutoff.later_of(by_name), judged.signer, judged.now);
            let decision = policy::before_request(Some(&entry), &terms);
            if !matches!(decision, Before::Fresh { .. }) {
                return None;
            }
            let entry = Arc::new(Entry { parts: parts.clone(), ..Arc::unwrap_or_clone(entry) });
            self.stack.keep_in_memory(key, &entry);
            Some((Found { entry, tier }, decision))
        })
    }
}

/// Whether an entry's `Link` shows the number that is asked for.
fn shows(entry: &Entry, request: &Request) -> bool {
    let asked = Alias::between(&entry.parts.path, &request.path);
    asked.is_some() && asked == Alias::by_link(entry)
}
