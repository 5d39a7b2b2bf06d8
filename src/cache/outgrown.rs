//! Entity tags that entries of this process had and have no more.
//!
//! Knows: that a client with such a tag has an older copy than ours. Does not know: what is in either.
//!
//! A client whose tag is another one than ours may have a newer copy, for which GitHub alone would say 304 for nothing. So
//! its own tag is asked with, unless we know that ours is the newer one.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use super::{Ask, Cache};
use crate::entry::Entry;
use crate::policy::{Before, Etag, Validators};
use crate::request::Request;

/// Tags that are remembered. With more, some old copies are asked for as their clients would ask themselves.
const MAX_TAGS: usize = 20_000;

/// The tags, as keyed hashes.
#[derive(Debug, Default)]
pub(super) struct Outgrown {
    tags: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Outgrown {
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
    /// Whether the copy to which `theirs` belongs may be newer than ours, which is not fresh.
    pub fn may_be_behind(&self, request: &Request, ask: &Ask, theirs: &Validators) -> bool {
        let Some(Etag::Stored(tag)) = &theirs.etag else { return false };
        let explained = self.explain(request, ask);
        let Some(found) = explained.found.filter(|_| matches!(explained.decision, Before::Revalidate { .. })) else {
            return false;
        };
        let Some(ours) = found.entry.headers.get("etag") else { return false };
        // Tags of different tokens do not compare.
        found.entry.token_digest == explained.signer.token_digest
            && !tag.contains([',', '*'])
            && opaque(tag) != opaque(ours)
            && !self.outgrown.has(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    #[test]
    fn a_tag_is_outgrown_once_another_stands_in_its_place() {
        let outgrown = Outgrown::default();
        let mut one = entry("/x", b"{}");
        let mut two = one.clone();
        outgrown.note(None, &one);
        outgrown.note(Some(&one), &two);
        assert!(!outgrown.has("\"abc\""), "the same tag");
        two.headers.set("etag", "\"def\"".into());
        outgrown.note(Some(&one), &two);
        assert!(outgrown.has("W/\"abc\"") && outgrown.has("\"abc\"") && !outgrown.has("\"def\""));
        for n in 0..=MAX_TAGS {
            one.headers.set("etag", format!("\"{n}\""));
            outgrown.note(Some(&one), &two);
        }
        assert!(outgrown.tags.lock().unwrap().len() <= MAX_TAGS);
    }
}
