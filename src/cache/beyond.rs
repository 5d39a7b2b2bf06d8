//! What others have: copies from beyond this machine, taken into the store before GitHub is asked.
//!
//! Knows: when a look beyond is worth it, and who asks GitHub for many machines. Does not know: places,
//! freshness; a copy is judged by this cache's own policy, like anything stored.

use std::sync::Arc;

use super::{Ask, Cache, Explained};
use crate::cutoff::Cutoff;
use crate::entry::Entry;
use crate::policy::{self, Before, Mode};
use crate::request::Request;
use crate::share::{Claim, Copy, Faith, Guard, Share, Wanted};
use crate::stack::Found;

impl Cache {
    /// The same with places beyond this machine.
    #[must_use]
    pub fn with_share(self, share: Option<Arc<Share>>) -> Self {
        Self { share, ..self }
    }

    /// The places beyond this machine.
    pub fn share(&self) -> Option<&Share> {
        self.share.as_deref()
    }

    /// Looks beyond for what would be asked of GitHub; if it is nowhere and costs something, settles
    /// who asks. As long as the guard is kept, others wait.
    pub(super) async fn look_beyond(
        &self,
        request: &Request,
        ask: &Ask,
        explained: Explained,
    ) -> (Explained, Option<Guard>) {
        let Some(share) = &self.share else { return (explained, None) };
        if !is_sendable(ask, &explained.decision) {
            return (explained, None);
        }
        let wanted = wanted(&explained);
        // A server's confirmations cost nothing, and are too many to wait for each other.
        let is_free =
            self.behind.is_some() && explained.found.is_some() && !matches!(explained.decision, Before::Fetch(_));
        let costs = !is_free && ask.mode == Mode::Default;
        let (copy, guard) = if costs {
            match share.claim(&wanted).await {
                Claim::Ours(guard) => (None, guard),
                Claim::Answered(copy) => (Some(*copy), None),
            }
        } else {
            (share.look_up(std::slice::from_ref(&wanted)).await.pop().flatten(), None)
        };
        match copy {
            Some(Copy { entry, tier, faith: Faith::Trusted }) => {
                let entry = self.keep(&explained.key, entry, None);
                (self.decide_again(request, ask, explained, Found { entry, tier }), guard)
            }
            Some(Copy { entry, faith: Faith::Unproven, .. }) => (try_out(ask, explained, entry), guard),
            None => (explained, guard),
        }
    }

    /// The same before a batch, by its first resource. `Err` when another machine has asked meanwhile, so
    /// that it is worth looking for all the others, too.
    pub(super) async fn claim_batch(&self, request: &Request, ask: &Ask) -> Result<Option<Guard>, ()> {
        let explained = self.explain(request, ask);
        let before = explained.found.as_ref().map(|found| found.entry.validated_at);
        let (explained, guard) = self.look_beyond(request, ask, explained).await;
        let after = explained.found.as_ref().map(|found| found.entry.validated_at);
        if after > before { Err(()) } else { Ok(guard) }
    }

    /// Looks beyond for all of these at once and takes what is there into the store: a plan's whole set
    /// of keys in one round trip.
    pub async fn fetch_copies(&self, requests: &[(Request, Ask)]) {
        let Some(share) = &self.share else { return };
        let explained = requests.iter().map(|(request, ask)| (request, ask, self.explain(request, ask)));
        let open: Vec<_> = explained.filter(|(_, ask, explained)| is_sendable(ask, &explained.decision)).collect();
        let wanted: Vec<Wanted> = open.iter().map(|(.., explained)| wanted(explained)).collect();
        for ((.., explained), copy) in open.into_iter().zip(share.prefetch(&wanted).await) {
            if let Some(copy) = copy.filter(|copy| copy.faith == Faith::Trusted) {
                self.keep(&explained.key, copy.entry, None);
            }
        }
    }

    /// Takes what others have outdated into this machine's own list. Cheap when nothing is new.
    pub async fn hear(&self) {
        let Some(share) = &self.share else { return };
        let heard = share.cutoffs().await;
        if heard.is_empty() {
            return;
        }
        let (known, now) = (self.stack.all_cutoffs(), self.clock.now());
        // A suspicion, whose time lies ahead, says nothing of what happens before it.
        let is_ahead = |cutoff: &Cutoff| cutoff.at > now;
        let covers = |old: &Cutoff, new: &Cutoff| {
            old.scope == new.scope && old.mode == new.mode && old.at >= new.at && is_ahead(old) == is_ahead(new)
        };
        let news: Vec<Cutoff> = heard.into_iter().filter(|new| !known.iter().any(|old| covers(old, new))).collect();
        if news.is_empty() {
            return;
        }
        // On another thread: it waits for the disk.
        let stack = self.stack.clone();
        let noted = tokio::task::spawn_blocking(move || stack.invalidate(&news)).await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(%error, "what others have outdated cannot be noted; answers may show the state before it");
        }
    }

    /// Waits until what is shared is where others find it, or will not be.
    pub async fn shared(&self) {
        if let Some(share) = &self.share {
            share.drained().await;
        }
    }

    /// Keeps a copy of what GitHub said just now where others find it.
    pub(super) fn offer(&self, entry: &Arc<Entry>) {
        if let Some(share) = &self.share {
            let lifetime = self.ttls.load().lifetime(&entry.parts.path, &entry.parts.query, None, None);
            share.put(entry, entry.ttl_secs.max(lifetime.fresh_secs).saturating_add(lifetime.stale_secs));
        }
    }
}

/// A copy that GitHub has to prove: it is asked whether this is it, under the token of whoever asks.
pub(super) fn try_out(ask: &Ask, explained: Explained, copy: Entry) -> Explained {
    let terms = ask.terms(&explained.lifetime, explained.cutoff, &explained.signer, explained.now);
    let (Before::Fetch(because) | Before::Revalidate { because, .. }) = explained.decision else { return explained };
    match policy::may_try(&copy, &terms) {
        // In place of what is stored, which is older.
        Some(validators) => Explained {
            decision: Before::Revalidate { validators, because },
            candidate: Some(copy),
            found: None,
            ..explained
        },
        None => explained,
    }
}

/// Whether GitHub would be asked, though a copy would do: whoever wants it from GitHub gets it from there.
fn is_sendable(ask: &Ask, decision: &Before) -> bool {
    matches!(ask.mode, Mode::Default | Mode::ForceCache)
        && matches!(decision, Before::Revalidate { .. } | Before::Fetch(_))
}

fn wanted(explained: &Explained) -> Wanted {
    Wanted {
        key: explained.key,
        parts: explained.parts.clone(),
        known: explained.found.as_ref().map(|found| found.entry.validated_at),
    }
}
