//! Bodies that are not the asker's own, but may be tried (A20): another partition's copy, or a guess.
//!
//! Knows: where to find one. Does not know: whether it may answer; only GitHub's 304 to the very
//! token that asks says that.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, VARY};

use super::{Ask, Cache};
use crate::cid::Cid;
use crate::entry::{Entry, EtagRule, StoredHeaders};
use crate::key::KeyParts;
use crate::policy::{self, Terms, Validators};
use crate::request::{Method, Request};

impl Cache {
    /// The body to try for a request that has none of its own; `set_aside` came to another token of the same
    /// partition.
    pub(super) fn candidate(
        &self,
        request: &Request,
        parts: &KeyParts,
        ask: &Ask,
        terms: &Terms<'_>,
        set_aside: Option<Entry>,
    ) -> Option<(Entry, Validators)> {
        if request.method != Method::Get {
            return None;
        }
        if let Some(entry) = set_aside
            && let Some(validators) = policy::may_try(&entry, terms)
        {
            return Some((entry, validators));
        }
        // The newest entry for the same request, under any name of the resource; otherwise those of the latest partitions.
        let may_try = |entry: &Entry| policy::may_try(entry, terms).is_some();
        let latest = self.stack.latest_of_another(parts).filter(may_try);
        let latest = latest.or_else(|| self.by_another_name(parts).find(may_try));
        let others = || {
            let partitions = self.stack.others(&self.partition).into_iter();
            let found = partitions.filter_map(|partition| {
                let key = KeyParts { partition, ..parts.clone() }.key();
                Some(Arc::unwrap_or_clone(self.stack.look_up(&key)?.entry))
            });
            found.filter(may_try).max_by_key(|entry| entry.validated_at)
        };
        let newest = latest.or_else(others);
        let guess = || ask.maybe_empty.then(|| empty_list(parts, terms));
        let candidate = newest.or_else(guess)?;
        let validators = policy::may_try(&candidate, terms)?;
        Some((candidate, validators))
    }

    /// What is stored of the same resource under its other names and its number.
    fn by_another_name<'a>(&'a self, parts: &'a KeyParts) -> impl Iterator<Item = Entry> + 'a {
        self.stack.other_paths(&parts.path).into_iter().filter_map(|path| {
            let other = KeyParts { path, ..parts.clone() };
            let own = || self.stack.look_up(&other.key()).map(|found| Arc::unwrap_or_clone(found.entry));
            own().or_else(|| self.stack.latest_of_another(&other))
        })
    }
}

/// A listing without items, as GitHub would answer it.
fn empty_list(parts: &KeyParts, terms: &Terms<'_>) -> Entry {
    let vary = if terms.signer.token_digest.is_some() { "Accept, Authorization" } else { "Accept" };
    let body = Bytes::from_static(b"[]");
    let mut headers = http::HeaderMap::new();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(VARY, http::HeaderValue::from_static(vary));
    Entry {
        // Not the asker's parts: what GitHub confirms becomes the asker's only then.
        parts: KeyParts { method: "GUESS".into(), ..parts.clone() },
        listing: None,
        status: 200,
        headers: StoredHeaders::of(&headers),
        fetched_at: terms.now,
        validated_at: terms.now,
        class: terms.lifetime.class.into(),
        ttl_secs: terms.lifetime.fresh_secs,
        repeats: 0,
        token_digest: None,
        etag_rule: Some(EtagRule::Github),
        fields_cid: None,
        expires_at: None,
        link_validated_at: None,
        cid: Cid::of(&body),
        body,
    }
}
