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

/// Whether GitHub seems to be out of reach.
#[derive(Debug, Default)]
pub(super) struct Outage {
    given_up: u32,
    until: Option<Instant>,
}

impl Outage {
    /// An error while nothing is worth trying.
    pub(super) fn check(&self, at: Instant) -> Result<()> {
        if self.until.is_some_and(|until| at < until) {
            return Err(Error::new(Kind::Transport, "GitHub could not be reached a moment ago; it is not tried again"));
        }
        Ok(())
    }

    /// Whether the last requests were given up: then one attempt is enough.
    pub(super) fn is_likely(&self) -> bool {
        self.given_up >= MANY
    }

    /// A request was given up.
    pub(super) fn gave_up(&mut self, at: Instant) {
        if self.until.is_some_and(|until| at < until) {
            return;
        }
        self.given_up = self.given_up.saturating_add(1);
        if self.given_up >= MANY {
            let doubled = PAUSE.saturating_mul(1 << (self.given_up - MANY).min(8));
            self.until = Some(at + doubled.min(LONGEST_PAUSE));
        }
    }

    /// Any answer at all.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }
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
}
