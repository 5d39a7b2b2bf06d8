//! What was sent to GitHub, what came back, and what was waited for: numbers that several identities
//! of a process share.
//!
//! Knows: counting. Does not know: why.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use super::limit::Limit;

/// The numbers.
#[derive(Debug, Default)]
pub struct Tally {
    sent: AtomicU64,
    free: AtomicU64,
    answers: [AtomicU64; 6],
    retries: AtomicU64,
    backoff_micros: AtomicU64,
    primary_limits: AtomicU64,
    secondary_limits: AtomicU64,
    waits: AtomicU64,
    wait_micros: AtomicU64,
}

/// The numbers at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Requests that went out, retries and what is only handed through included.
    pub sent: u64,
    /// Of those, 304s to a token: they count against no primary limit.
    pub free: u64,
    /// Answers by [`ANSWERS`].
    pub answers: [u64; 6],
    /// Attempts after the first.
    pub retries: u64,
    /// Time waited before them, in microseconds.
    pub backoff_micros: u64,
    /// Refusals for a primary limit.
    pub primary_limits: u64,
    /// Refusals for a secondary limit.
    pub secondary_limits: u64,
    /// Requests that waited for their turn, so as to stay inside the limits.
    pub waits: u64,
    /// Time that they waited, in microseconds.
    pub wait_micros: u64,
}

/// Kinds of answers: 304, and else by the first digit; `none` where none came.
pub const ANSWERS: [&str; 6] = ["2xx", "304", "3xx", "4xx", "5xx", "none"];

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Tally {
    pub(super) fn sent(&self) {
        add(&self.sent, 1);
    }

    /// An answer to a request with a token, or without one; `None` where none came.
    pub(super) fn answered(&self, status: Option<StatusCode>, with_token: bool) {
        let kind = match status.map(|status| status.as_u16()) {
            Some(304) => 1,
            Some(300..400) => 2,
            Some(400..500) => 3,
            Some(500..) => 4,
            Some(_) => 0,
            None => 5,
        };
        add(&self.answers[kind], 1);
        if kind == 1 && with_token {
            add(&self.free, 1);
        }
    }

    pub(super) fn retried(&self, pause: Duration) {
        add(&self.retries, 1);
        add(&self.backoff_micros, micros(pause));
    }

    pub(super) fn limited(&self, limit: Limit) {
        add(
            match limit {
                Limit::Primary { .. } => &self.primary_limits,
                Limit::Secondary { .. } => &self.secondary_limits,
            },
            1,
        );
    }

    pub(super) fn waited(&self, time: Duration) {
        add(&self.waits, 1);
        add(&self.wait_micros, micros(time));
    }

    /// All of them.
    pub fn now(&self) -> Tallied {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tallied {
            sent: load(&self.sent),
            free: load(&self.free),
            answers: self.answers.each_ref().map(load),
            retries: load(&self.retries),
            backoff_micros: load(&self.backoff_micros),
            primary_limits: load(&self.primary_limits),
            secondary_limits: load(&self.secondary_limits),
            waits: load(&self.waits),
            wait_micros: load(&self.wait_micros),
        }
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
