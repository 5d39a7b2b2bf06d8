//! What GitHub's headers last said of its primary limits, per bucket.
//!
//! Knows: reading them defensively. Does not know: what to do about them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::reply::Reply;
use crate::upstream::RateLimit;

/// Buckets that are remembered; GitHub has about a dozen.
const MAX_BUCKETS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<BTreeMap<String, RateLimit>>);

impl Ledger {
    /// Takes over what a live answer says. Replicas disagree: within a window the smallest
    /// remainder counts, and a newer window replaces an older one.
    pub(super) fn observe(&self, reply: &Reply) {
        let Some(seen) = read(reply) else { return };
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = buckets.len() < MAX_BUCKETS;
        match buckets.get_mut(&seen.resource) {
            Some(old) if old.reset_at > seen.reset_at => {}
            Some(old) if old.reset_at == seen.reset_at => old.remaining = old.remaining.min(seen.remaining),
            Some(old) => *old = seen,
            None if has_room => {
                buckets.insert(seen.resource.clone(), seen);
            }
            None => {}
        }
    }

    /// The bucket with the smallest share left.
    pub(super) fn scarcest(&self) -> Option<RateLimit> {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.values().min_by(|a, b| (a.remaining * b.limit.max(1)).cmp(&(b.remaining * a.limit.max(1)))).cloned()
    }
}

fn read(reply: &Reply) -> Option<RateLimit> {
    let number = |name: &str| reply.header(name)?.parse::<u32>().ok().map(u64::from);
    Some(RateLimit {
        resource: reply.header("x-ratelimit-resource").filter(|name| name.len() <= 64).unwrap_or("core").to_owned(),
        limit: number("x-ratelimit-limit")?,
        remaining: number("x-ratelimit-remaining")?,
        reset_at: reset_at(reply)?,
    })
}

/// `X-RateLimit-Reset`; some servers write milliseconds.
pub(super) fn reset_at(reply: &Reply) -> Option<Timestamp> {
    let number: i64 = reply.header("x-ratelimit-reset")?.parse().ok()?;
    let secs = if number > 99_999_999_999 { number / 1_000 } else { number };
    (secs > 0).then(|| Timestamp::from_secs(secs))
}
