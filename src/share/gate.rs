//! Waiting for a place beyond this machine, and no longer than its patience allows.
//!
//! Knows: one place's patience, who waits, when to tell its keeper that it has ended. Does not know: what
//! is sent, how a place is reached again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::patience::{Limits, Patience};

/// Waiting is measured in so many parts of a time-out, so that those can be left out in which this
/// process itself was busy; so many are borne in all.
const SLICES: u32 = 5;
const MOST_SLICES: u32 = 50;

/// How one place is waited for.
#[derive(Debug)]
pub(super) struct Gate {
    place: &'static str,
    limits: Limits,
    patience: Mutex<Patience>,
    /// Rung when patience has ended.
    trouble: Notify,
    replies: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// How many wait, since when one does, and for how long one did.
#[derive(Debug, Default)]
struct Waiting {
    requests: u32,
    since: Option<Instant>,
    total: Duration,
}

/// Somebody waits for as long as this is kept.
pub(super) struct Wait<'a>(&'a Mutex<Waiting>);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.requests -= 1;
        if waiting.requests == 0 {
            let waited = waiting.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            waiting.total += waited;
        }
    }
}

impl Gate {
    /// The gate before a place, named for people.
    pub(super) fn new(place: &'static str, limits: Limits) -> Self {
        Self {
            place,
            limits,
            patience: Mutex::default(),
            trouble: Notify::new(),
            replies: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn patience<T>(&self, with: impl FnOnce(&mut Patience) -> T) -> T {
        with(&mut self.patience.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the place is asked at the moment.
    pub(super) fn is_open(&self) -> bool {
        self.patience(|patience| patience.is_asking())
    }

    /// Until when it is left alone.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.patience(|patience| match patience {
            Patience::Asking { .. } => None,
            Patience::Resting { until, .. } => Some(*until),
        })
    }

    /// Time in which at least one request waited.
    pub(super) fn waited(&self) -> Duration {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    /// A request waits, as long as the value is kept.
    pub(super) fn wait(&self) -> Wait<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.requests == 0 {
            waiting.since = Some(Instant::now());
        }
        waiting.requests += 1;
        Wait(&self.waiting)
    }

    /// Waits as long as patience allows; the reply, and how long it was waited for. Time in which this
    /// process itself was too busy to look is no fault of the place's and counts for nothing.
    pub(super) async fn in_time<T>(&self, reply: impl Future<Output = T>) -> (Option<T>, Duration) {
        let mut reply = std::pin::pin!(reply);
        let slice = self.limits.timeout / SLICES;
        let mut waited = Duration::ZERO;
        for _ in 0..MOST_SLICES {
            let started = Instant::now();
            let came = timeout(slice, &mut reply).await;
            let took = started.elapsed();
            if let Ok(reply) = came {
                return (Some(reply), waited + took.min(slice));
            }
            if took <= slice * 2 {
                waited += slice;
            }
            if waited >= self.limits.timeout {
                break;
            }
        }
        (None, waited)
    }

    /// Waits until `done`, as long as the place goes on to reply; a part of a time-out in which it does
    /// not is waited in vain.
    pub(super) async fn while_it_replies(&self, done: impl Future) {
        let _waiting = self.wait();
        let mut done = std::pin::pin!(done);
        let slice = self.limits.timeout / SLICES;
        loop {
            let before = self.replies.load(Ordering::Relaxed);
            if timeout(slice, &mut done).await.is_ok() || !self.is_open() {
                return;
            }
            if self.replies.load(Ordering::Relaxed) == before {
                self.answered(slice + Duration::from_nanos(1), false);
            }
        }
    }

    /// It replied, whoever asked.
    pub(super) fn replied(&self) {
        self.replies.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody waited for so long, and had something of it or nothing.
    pub(super) fn answered(&self, took: Duration, of_use: bool) {
        self.note(|patience, now| patience.answered(took, of_use, &self.limits, now));
    }

    /// It failed, or did not answer in time.
    pub(super) fn failed(&self) {
        self.note(|patience, now| patience.failed(&self.limits, now));
    }

    /// Its keeper tried it, behind the requests; it took so long, or failed.
    pub(super) fn tried(&self, took: Option<Duration>) {
        self.patience(|patience| *patience = patience.tried(took, &self.limits, Instant::now()));
    }

    /// For its keeper: waits until patience has ended.
    pub(super) async fn trouble(&self) {
        self.trouble.notified().await;
    }

    fn note(&self, after: impl FnOnce(Patience, Instant) -> Patience) {
        let ended = self.patience(|patience| {
            let before = *patience;
            *patience = after(before, Instant::now());
            before.is_asking() && !patience.is_asking()
        });
        if ended {
            tracing::warn!(
                "{} does not answer in time; it is left alone for a while, and nothing waits for it",
                self.place
            );
            self.trouble.notify_one();
        }
    }
}
