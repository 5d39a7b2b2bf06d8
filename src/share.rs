//! What lies beyond this machine and keeps copies of entries for many (E).
//!
//! Knows: in which order places are asked, and what a copy must be to be looked at. Does not know: how a
//! place keeps or sends them, freshness.
//!
//! A place never makes a request fail: whatever goes wrong there is a miss, a counter and a line in the
//! log. How long one is waited for is its own [`patience`].

mod gate;
pub mod ipfs;
pub mod patience;
#[cfg(feature = "p2p")]
pub mod peers;
pub mod redis;
pub mod seal;
mod value;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use value::decode as read_value;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::clock::{Clock, Timestamp};
use crate::cutoff::{Cutoff, Cutoffs};
use crate::entry::{Entry, is_redirect};
use crate::key::{CacheKey, KeyParts};
use crate::tier::TierName;

/// A copy that was validated further ahead than this comes from a clock that is wrong.
const FUTURE_SECS: u64 = 30;

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The key.
    pub key: CacheKey,
    /// Its parts.
    pub parts: KeyParts,
    /// When the copy at hand was validated; only a later one is of use.
    pub known: Option<Timestamp>,
}

/// A copy, and where it was.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The entry; its key and digests hold.
    pub entry: Entry,
    /// The place.
    pub tier: TierName,
    /// Whether it may answer as it is.
    pub faith: Faith,
}

/// How far a copy is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faith {
    /// As far as what is stored here: it answers while it is fresh.
    Trusted,
    /// Not at all: it answers once GitHub has said 304 to it, under the token of whoever asks.
    Unproven,
}

/// Who is to ask GitHub for something that is nowhere.
#[derive(Debug)]
pub enum Claim {
    /// We are. Others wait until the guard is gone, for a few seconds at most.
    Ours(Option<Guard>),
    /// Somebody else was, and here is the answer.
    Answered(Box<Copy>),
}

/// As long as it is kept, others wait for what its holder asks for.
pub struct Guard(Option<Box<dyn FnOnce() + Send>>);

impl Guard {
    /// One that calls `release` at its end.
    pub fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(release)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

/// What a place has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tallied {
    /// Entries that were looked for.
    pub looked_up: u64,
    /// Those that were found, sound and of use.
    pub hits: u64,
    /// Entries that were put there.
    pub written: u64,
    /// What was found but is corrupt, of another version, another key's, or from the future.
    pub refused: u64,
    /// Operations that failed or came too late.
    pub failed: u64,
    /// Entries that were not put there: too many waited, or it does not answer.
    pub dropped: u64,
    /// Microseconds in which at least one request, or the end of a process, waited for it.
    pub waited_micros: u64,
    /// Whether it is asked at the moment.
    pub up: bool,
    /// Other machines that are connected, where a place is made of them.
    pub connected: Option<u64>,
}

/// A place beyond this machine.
pub trait Place: Send + Sync + std::fmt::Debug {
    /// Its name.
    fn tier(&self) -> TierName;

    /// Copies, in the order of `wanted`; what a place does not have, or not in time, is `None`.
    fn look_up<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Option<(Entry, Faith)>>>;

    /// Looks for a copy and, where there is none, settles who asks GitHub for it; `None` where a place
    /// cannot settle that.
    fn claim<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Option<Claim>>;

    /// Keeps a copy for `keep_secs`, behind the answer.
    fn put(&self, entry: &Arc<Entry>, keep_secs: u64);

    /// Tells everybody what is outdated, behind the answer.
    fn outdate(&self, cutoffs: &[Cutoff]);

    /// What others have outdated, if that changed since it was asked last.
    fn cutoffs(&self) -> BoxFuture<'_, Option<Cutoffs>>;

    /// Waits until what was put there is there, or will not be.
    fn drained(&self) -> BoxFuture<'_, ()>;

    /// Whether a look-up of many at once is worth it before any of them is needed.
    fn prefetches(&self) -> bool {
        true
    }

    /// Whether it answers, for somebody who wants to know just that and can wait for a while.
    fn answers(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            self.cutoffs().await;
            self.tallied().up
        })
    }

    /// What it has done so far.
    fn tallied(&self) -> Tallied;
}

/// A number below `below`, for choosing one of many; 0 where there is none.
#[cfg(feature = "p2p")]
fn random(below: usize) -> usize {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 8];
    let drawn = ring::rand::SystemRandom::new().fill(&mut bytes);
    drawn.map_or(0, |()| (u64::from_le_bytes(bytes) % (below.max(1) as u64)) as usize)
}

/// All places, nearest first.
#[derive(Debug)]
pub struct Share {
    places: Vec<Arc<dyn Place>>,
    clock: Clock,
    refused: AtomicU64,
}

impl Share {
    /// These places.
    pub fn new(places: Vec<Arc<dyn Place>>, clock: Clock) -> Self {
        Self { places, clock, refused: AtomicU64::new(0) }
    }

    /// Which places answer, for somebody who wants to know just that and can wait for a while.
    pub async fn answer(&self) -> Vec<(TierName, bool)> {
        let all = self.places.iter().map(async |place| (place.tier(), place.answers().await));
        futures_util::future::join_all(all).await
    }

    /// Copies of what is wanted, each from the nearest place that has one; all of a place in one go.
    pub async fn look_up(&self, wanted: &[Wanted]) -> Vec<Option<Copy>> {
        self.look_into(self.places.iter().collect(), wanted).await
    }

    /// The same long before each of them is needed.
    pub async fn prefetch(&self, wanted: &[Wanted]) -> Vec<Option<Copy>> {
        self.look_into(self.places.iter().filter(|place| place.prefetches()).collect(), wanted).await
    }

    async fn look_into(&self, places: Vec<&Arc<dyn Place>>, wanted: &[Wanted]) -> Vec<Option<Copy>> {
        let mut copies: Vec<Option<Copy>> = (0..wanted.len()).map(|_| None).collect();
        for place in places {
            let open: Vec<usize> = (0..wanted.len()).filter(|at| copies[*at].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let asked: Vec<Wanted> = open.iter().map(|at| wanted[*at].clone()).collect();
            for (at, found) in open.into_iter().zip(place.look_up(&asked).await) {
                copies[at] = found.filter(|(entry, _)| self.is_of_use(entry, &wanted[at])).map(|(entry, faith)| Copy {
                    entry,
                    tier: place.tier(),
                    faith,
                });
            }
        }
        copies
    }

    /// Whatever a place hands out, it must be what was asked for, of our time, no redirect, and news.
    fn is_of_use(&self, entry: &Entry, wanted: &Wanted) -> bool {
        let sound = entry.parts == wanted.parts
            && entry.validated_at <= self.clock.now().plus(FUTURE_SECS)
            && !is_redirect(entry.status);
        self.refused.fetch_add(u64::from(!sound), Ordering::Relaxed);
        sound && wanted.known.is_none_or(|known| entry.validated_at > known)
    }

    /// Looks for a copy and, where there is none, settles who asks GitHub for it.
    pub async fn claim(&self, wanted: &Wanted) -> Claim {
        let mut ours = None;
        for place in &self.places {
            let claim = if ours.is_none() { place.claim(wanted).await } else { None };
            let copy = match claim {
                Some(Claim::Answered(copy)) => Some((copy.entry, copy.faith)),
                Some(Claim::Ours(guard)) => {
                    ours = guard;
                    None
                }
                None => place.look_up(std::slice::from_ref(wanted)).await.pop().flatten(),
            };
            if let Some((entry, faith)) = copy.filter(|(entry, _)| self.is_of_use(entry, wanted)) {
                return Claim::Answered(Box::new(Copy { entry, tier: place.tier(), faith }));
            }
        }
        Claim::Ours(ours)
    }

    /// Keeps a copy in all places for `keep_secs`, behind the answer.
    pub fn put(&self, entry: &Arc<Entry>, keep_secs: u64) {
        // No other machine would follow it.
        if is_redirect(entry.status) {
            return;
        }
        for place in &self.places {
            place.put(entry, keep_secs);
        }
    }

    /// Tells everybody what is outdated, behind the answer.
    pub fn outdate(&self, cutoffs: &[Cutoff]) {
        for place in &self.places {
            place.outdate(cutoffs);
        }
    }

    /// What others have outdated since this was asked last.
    pub async fn cutoffs(&self) -> Vec<Cutoff> {
        let all = futures_util::future::join_all(self.places.iter().map(|place| place.cutoffs())).await;
        let now = self.clock.now();
        all.iter().flatten().flat_map(Cutoffs::iter).map(|cutoff| cutoff.clone().believed_at(now)).collect()
    }

    /// Waits until what was put anywhere is there, or will not be.
    pub async fn drained(&self) {
        futures_util::future::join_all(self.places.iter().map(|place| place.drained())).await;
    }

    /// What each place has done so far.
    pub fn tallied(&self) -> Vec<(TierName, Tallied)> {
        let refused = self.refused.load(Ordering::Relaxed);
        let of = |place: &Arc<dyn Place>| {
            let tallied = place.tallied();
            (place.tier(), Tallied { refused: tallied.refused + refused, ..tallied })
        };
        self.places.iter().map(of).collect()
    }
}
