//! The library's further verbs: entries under a caller's own name, invalidation, removal (A19).
//!
//! Knows: names beside URLs. Does not know: upstream; own names are never fetched.

use std::sync::Arc;

use bytes::Bytes;

use super::{Answer, Ask, Cache};
use crate::cid::Cid;
use crate::cutoff::{Cutoff, CutoffMode};
use crate::entry::{Entry, StoredHeaders};
use crate::error::{Error, Kind, Result};
use crate::key::KeyParts;
use crate::outcome::Outcome;
use crate::policy::{self, Before, Lifetime, Signer, class};
use crate::stack::Cleaned;
use crate::tag::Scope;

impl Cache {
    /// Stores `body` under the caller's own name, fresh for `ttl_secs`.
    ///
    /// Errors when the name or body is too large, or the store cannot be written.
    pub fn set(&self, name: &str, body: impl Into<Bytes>, ttl_secs: u64) -> Result<()> {
        let body = body.into();
        if name.is_empty() || name.len() > 1_024 {
            return Err(Error::usage("an own name has 1 to 1,024 bytes"));
        }
        let now = self.clock.now();
        let entry = Entry {
            parts: KeyParts::named(name, &self.partition),
            listing: None,
            status: 200,
            headers: StoredHeaders::default(),
            fetched_at: now,
            validated_at: now,
            class: "own".into(),
            ttl_secs,
            repeats: 0,
            token_digest: None,
            etag_rule: None,
            fields_cid: None,
            expires_at: None,
            link_validated_at: None,
            cid: Cid::of(&body),
            body,
        };
        if !entry.fits() {
            return Err(Error::new(Kind::TooLarge, format!("`{name}`: a body has at most 24 MB")));
        }
        let entry = Arc::new(entry);
        self.stack.keep_in_memory(&entry.key(), &entry);
        if self.stack.put(&entry) {
            Ok(())
        } else {
            Err(Error::new(Kind::Io, format!("cannot write to {}", self.stack.dir().display())))
        }
    }

    /// What is stored under an own name, if it is fresh; a stale one too when `ask.mode` says so.
    pub fn get_own(&self, name: &str, ask: &Ask) -> Option<Answer> {
        let parts = KeyParts::named(name, &self.partition);
        let key = parts.key();
        let found = self.stack.find(&parts, &key)?;
        let lifetime = Lifetime {
            class: "own",
            fresh_secs: ask.ttl_secs.unwrap_or(found.entry.ttl_secs),
            stale_secs: 0,
            private: true,
            is_set: true,
            max_age_secs: None,
        };
        let (cutoff, now) = (self.cutoff(&key, &parts, None), self.clock.now());
        let signer = Signer::default();
        let terms = ask.terms(&lifetime, cutoff, &signer, now);
        let outcome = match policy::before_request(Some(&found.entry), &terms) {
            Before::Fresh { proof, .. } => Outcome::Hit(proof),
            Before::AnswerStale { reason, .. } => Outcome::Stale(reason),
            Before::Revalidate { .. } | Before::Fetch(_) | Before::NotCached => return None,
        };
        super::stored(Some(found), outcome, &lifetime, now).ok()
    }

    /// Says that what is stored under an own name is current again. `false` when nothing is.
    pub fn touch(&self, name: &str) -> bool {
        let parts = KeyParts::named(name, &self.partition);
        let Some(mut found) = self.stack.find(&parts, &parts.key()) else { return false };
        Arc::make_mut(&mut found.entry).validated_at = self.clock.now();
        self.stack.keep_in_memory(&parts.key(), &found.entry);
        self.stack.freshen(&found.entry, found.tier)
    }

    /// Marks everything in `scope` as to be revalidated before it answers again (A15).
    pub fn invalidate(&self, scope: Scope) -> Result<()> {
        self.invalidate_all(&[Cutoff { scope, at: self.clock.now(), mode: CutoffMode::Revalidate }])
    }

    /// Notes invalidations here, durably, and tells everybody with whom answers are shared.
    pub fn invalidate_all(&self, cutoffs: &[Cutoff]) -> Result<()> {
        self.stack.invalidate(cutoffs)?;
        if let Some(share) = &self.share {
            share.outdate(&self.stack.with_twins(cutoffs));
        }
        Ok(())
    }

    /// Notes what a change outdates, best effort: a store that cannot be written has nothing to outdate.
    pub fn outdate(&self, cutoffs: &[Cutoff]) {
        if cutoffs.is_empty() {
            return;
        }
        if let Err(error) = self.invalidate_all(cutoffs) {
            tracing::warn!(%error, "what a change outdates cannot be noted; answers may show the state before it");
        }
    }

    /// The same `ask` with the lifetime of a class, unless it names one already.
    pub fn ask_by_class(&self, ask: &Ask, class: &str) -> Ask {
        let by_class = || Some(self.ttls.load().lifetime_of(class::by_name(class)?, None, None).fresh_secs);
        Ask { ttl_secs: ask.ttl_secs.or_else(by_class), ..*ask }
    }

    /// Removes everything in `scope`, bodies too.
    pub fn clear(&self, scope: &Scope) -> Result<Cleaned> {
        if let Some(share) = &self.share {
            let gone = Cutoff { scope: scope.clone(), at: self.clock.now(), mode: CutoffMode::Gone };
            share.outdate(&self.stack.with_twins(&[gone]));
        }
        self.stack.clear(scope)
    }
}
