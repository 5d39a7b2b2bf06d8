//! What a resident warmer did, for whoever shows it.
//!
//! Knows: times and numbers. Does not know: what a tick is.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde::Serialize;

use crate::clock::Timestamp;

/// Ticks so far, and the next one.
#[derive(Debug, Default)]
pub struct Ticks {
    next: AtomicI64,
    last: AtomicI64,
    done: AtomicU64,
    failed: AtomicU64,
    refreshed: AtomicU64,
    left: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ticked {
    /// When the next one comes, jitter aside.
    pub next: Option<Timestamp>,
    /// When the last one ended.
    pub last: Option<Timestamp>,
    /// Ticks that ended well.
    pub done: u64,
    /// Ticks that did not.
    pub failed: u64,
    /// Answers that they brought up to date.
    pub refreshed: u64,
    /// Answers that they left for want of budget.
    pub left: u64,
}

impl Ticks {
    /// The next one is known.
    pub fn announce(&self, next: Timestamp) {
        self.next.store(next.secs(), Ordering::Relaxed);
    }

    /// One has ended, with so many answers brought up to date, and so many left.
    pub fn done(&self, now: Timestamp, refreshed: u64, left: u64) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.refreshed.fetch_add(refreshed, Ordering::Relaxed);
        self.left.fetch_add(left, Ordering::Relaxed);
        self.last.store(now.secs(), Ordering::Relaxed);
    }

    /// One has failed.
    pub fn failed(&self, now: Timestamp) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.last.store(now.secs(), Ordering::Relaxed);
    }

    /// All of it.
    pub fn now(&self) -> Ticked {
        let time =
            |secs: &AtomicI64| Some(secs.load(Ordering::Relaxed)).filter(|secs| *secs > 0).map(Timestamp::from_secs);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ticked {
            next: time(&self.next),
            last: time(&self.last),
            done: count(&self.done),
            failed: count(&self.failed),
            refreshed: count(&self.refreshed),
            left: count(&self.left),
        }
    }
}
