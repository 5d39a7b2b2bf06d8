//! GitHub out of reach: after several requests in a row that were given up, further ones fail at
//! once for a while, so that a run over a thousand queries does not wait a thousand times.
//!
//! Knows: counting and one time. Does not know: what failed.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};

/// Requests given up in a row before further ones are not tried.
const MANY: u32 = 3;

/// For how long; doubled each further time, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(10);

const LONGEST_PAUSE: Duration = Duration::from_mins(2);

/// While it lasts, one request at a time finds out whether it is over.
const PROBE: Duration = Duration::from_secs(5);

/// Whether GitHub seems to be out of reach.
#[derive(Debug, Default)]
pub(super) struct Outage {
    given_up: u32,
    until: Option<Instant>,
    /// A request is under way that finds out whether it is over; others wait no longer than this for its end.
    probing: Option<Instant>,
    /// Addresses to which GitHub answered with an error of its own, and to no other since.
    failing: Vec<String>,
}

impl Outage {
    /// An error while nothing is worth trying.
    pub(super) fn check(&mut self, at: Instant) -> Result<()> {
        self.check_pause(at)?;
        if self.probing.is_some_and(|until| at < until) {
            return Err(not_tried());
        }
        if self.is_likely() {
            self.probing = Some(at + PROBE);
        }
        Ok(())
    }

    /// The same for a request that waits for its place.
    pub(super) fn check_pause(&self, at: Instant) -> Result<()> {
        if self.until.is_some_and(|until| at < until) { Err(not_tried()) } else { Ok(()) }
    }

    /// Whether the last requests were given up: then one attempt is enough.
    pub(super) fn is_likely(&self) -> bool {
        self.given_up >= MANY
    }

    /// A request was given up.
    pub(super) fn gave_up(&mut self, at: Instant) {
        self.probing = None;
        if self.until.is_some_and(|until| at < until) {
            return;
        }
        self.given_up = self.given_up.saturating_add(1);
        if self.given_up >= MANY {
            let doubled = PAUSE.saturating_mul(1 << (self.given_up - MANY).min(8));
            self.until = Some(at + doubled.min(LONGEST_PAUSE));
        }
    }

    /// GitHub answered a request to `address` with an error of its own. One address that fails is that address's matter,
    /// however often it is asked; only where different ones fail, and none is answered, GitHub is out of order.
    pub(super) fn failed(&mut self, address: &str, at: Instant) {
        self.probing = None;
        if self.failing.iter().any(|known| known == address) {
            return;
        }
        if self.failing.len() < MANY as usize {
            self.failing.push(address.to_owned());
        } else {
            address.clone_into(&mut self.failing[MANY as usize - 1]);
        }
        self.gave_up(at);
    }

    /// Any answer at all.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }
}

fn not_tried() -> Error {
    Error::new(Kind::Transport, "GitHub could not be reached a moment ago; it is not tried again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn three_in_a_row_and_a_longer_pause_each_time() {
        let mut outage = Outage::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            outage.gave_up(Instant::now());
            let started = Instant::now();
            while outage.check(Instant::now()).is_err() {
                outage.gave_up(Instant::now());
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            pauses.push(started.elapsed().as_secs());
        }
        assert_eq!(pauses, [0, 0, 10, 20, 40, 80, 120]);
        outage.answered();
        outage.gave_up(Instant::now());
        assert!(outage.check(Instant::now()).is_ok() && !outage.is_likely());
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_that_fails_is_no_outage_and_one_request_looks_whether_it_is_over() {
        let mut outage = Outage::default();
        for _ in 0..10 {
            outage.failed("/repos/o/r/compare/a...b", Instant::now());
        }
        assert!(outage.check(Instant::now()).is_ok() && !outage.is_likely());
        outage.failed("/a", Instant::now());
        outage.failed("/b", Instant::now());
        assert!(outage.check(Instant::now()).is_err() && outage.is_likely());
        tokio::time::advance(PAUSE).await;
        assert!(outage.check(Instant::now()).is_ok(), "one looks");
        assert!(outage.check(Instant::now()).is_err(), "the others do not");
        outage.answered();
        assert!(outage.check(Instant::now()).is_ok());
        assert!(outage.check(Instant::now()).is_ok());
    }
}
