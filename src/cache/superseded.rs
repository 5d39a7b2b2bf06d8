//! Entity tags that entries of this process had before their response was replaced.
//!
//! Knows: that a client with such a tag has an older copy than ours. Does not know: bodies.
//!
//! A client whose tag is neither ours nor one of these may have a newer copy, for which GitHub would answer 304 at no charge.
//! So the request is sent with the client's tag instead of ours.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use super::{Ask, Cache};
use crate::entry::Entry;
use crate::policy::{Before, Etag, Validators};
use crate::request::Request;

/// Tags that are remembered. Beyond that the list begins anew, and clients with older copies are asked for by their own tags.
const MAX_TAGS: usize = 20_000;

/// The tags, as keyed hashes.
#[derive(Debug, Default)]
pub(super) struct Superseded {
    tags: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Superseded {
    /// Notes that `after` stands in the place of `before`.
    pub(super) fn note(&self, before: Option<&Entry>, after: &Entry) {
        let Some(tag) = before.and_then(|before| before.headers.get("etag")) else { return };
        if after.headers.get("etag") == Some(tag) {
            return;
        }
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if tags.len() >= MAX_TAGS {
            tags.clear();
        }
        tags.insert(self.hasher.hash_one(opaque(tag)));
    }

    fn has(&self, tag: &str) -> bool {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.hasher.hash_one(opaque(tag)))
    }
}

/// A tag as it is compared (RFC 9110 section 8.8.3.2, weakly).
fn opaque(tag: &str) -> &str {
    tag.trim().trim_start_matches("W/")
}

impl Cache {
    /// Whether to send the client's validators: nothing usable is stored, or the client's copy may be newer than the stored one.
    pub fn prefers_client_validators(&self, request: &Request, ask: &Ask, theirs: &Validators) -> bool {
        let explained = self.explain(request, ask);
        let Some(found) = explained.found else { return true };
        let (Before::Revalidate { .. }, Some(Etag::Stored(tag))) = (&explained.decision, &theirs.etag) else {
            return false;
        };
        let Some(ours) = found.entry.headers.get("etag") else { return false };
        // Tags of different tokens do not compare.
        found.entry.token_digest == explained.signer.token_digest
            && !tag.contains([',', '*'])
            && opaque(tag) != opaque(ours)
            && !self.superseded.has(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    #[test]
    fn a_tag_is_superseded_once_another_stands_in_its_place() {
        let superseded = Superseded::default();
        let mut one = entry("/x", b"{}");
        let mut two = one.clone();
        superseded.note(None, &one);
        superseded.note(Some(&one), &two);
        assert!(!superseded.has("\"abc\""), "the same tag");
        two.headers.set("etag", "\"def\"".into());
        superseded.note(Some(&one), &two);
        assert!(superseded.has("W/\"abc\"") && superseded.has("\"abc\"") && !superseded.has("\"def\""));
        for n in 0..=MAX_TAGS {
            one.headers.set("etag", format!("\"{n}\""));
            superseded.note(Some(&one), &two);
        }
        assert!(superseded.tags.lock().unwrap().len() <= MAX_TAGS);
    }
}
