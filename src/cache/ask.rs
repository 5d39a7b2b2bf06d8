//! How a request is to be answered.
//!
//! Knows: what one asker may wish. Does not know: what is stored, what is sent.

use crate::cid::Cid;
use crate::clock::Timestamp;
use crate::policy::{Ahead, CutoffTimes, Lifetime, LinkUse, Mode, Signer, Terms};

/// How a request is to be answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// What may be used and asked.
    pub mode: Mode,
    /// Fresh for so many seconds, instead of what the table says.
    pub ttl_secs: Option<u64>,
    /// Validated at most so many seconds ago, whatever else is set: a bound of the client's.
    pub max_age_secs: Option<u64>,
    /// Stale answers may stand in for so many seconds after that.
    pub stale_secs: Option<u64>,
    /// For so many seconds after its lifetime a stale answer comes at once, and whoever asked sees to
    /// it that it is asked for behind it (RFC 5861 section 3); see [`Cache::get_soon`](super::Cache::get_soon).
    pub while_revalidate_secs: u64,
    /// For who looks ahead: what is fresh must stay so for longer.
    pub ahead: Option<Ahead>,
    /// Only what GitHub confirmed at this time or later is fresh; for answers that must show one
    /// moment, such as the pages of a listing.
    pub validated_since: Option<Timestamp>,
    /// Digest of those fields of the parent item that the answer follows from: fresh as long as
    /// they are unchanged, whatever its lifetime (A11).
    pub fields: Option<Cid>,
    /// Whether an empty list is a likely answer: a first request then asks "is it still `[]`?",
    /// which costs nothing if so.
    pub maybe_empty: bool,
    /// What becomes of the answer's `Link`.
    pub link: LinkUse,
    /// Whether a redirect is an answer like any other, for somebody who follows it himself.
    pub unfollowed: bool,
    /// Whether another request's turn is held meanwhile: two turns at once could wait for each other.
    pub in_turn: bool,
    /// Whether to send nothing because the budget is needed for what is more urgent: as if a limit
    /// held.
    pub held_back: bool,
}

impl Ask {
    pub(super) fn terms<'a>(
        &self,
        lifetime: &'a Lifetime,
        cutoff: CutoffTimes,
        signer: &'a Signer,
        now: Timestamp,
    ) -> Terms<'a> {
        let Self { mode, fields, while_revalidate_secs, ahead, link, .. } = *self;
        Terms { mode, lifetime, cutoff, signer, fields, while_revalidate_secs, ahead, link, now }
    }

    /// The same with a mode.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }
}
