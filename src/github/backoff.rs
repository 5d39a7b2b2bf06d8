//! Waiting before asking again (B2): how long, how often, and when to give up.
//!
//! Knows: exponential growth with full jitter, and the bounds of attempts and of all waiting
//! together. Does not know: clocks, sleeping, or what failed beyond its kind.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, Kind};

/// A limit's end is met a little late, and not by everybody at once.
const LIMIT_JITTER: Duration = Duration::from_secs(2);

/// How failures are waited out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first pause.
    pub base: Duration,
    /// By what the bound grows with each further one.
    pub factor: u32,
    /// The bound never grows beyond this.
    pub max: Duration,
    /// Attempts after the first; 0 switches all waiting off.
    pub retries: u32,
    /// All waiting for one request together, limits included.
    pub max_wait: Duration,
    /// Whether only a broken connection is tried again: for clients that try again themselves, so that their attempts and
    /// ours do not multiply.
    pub only_broken: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            factor: 2,
            max: Duration::from_mins(1),
            retries: 4,
            // A secondary limit that names no wait is a minute.
            max_wait: Duration::from_secs(90),
            only_broken: false,
        }
    }
}

/// Waiting so far for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) retries: u32,
    pub(super) waited: Duration,
}

impl Backoff {
    /// No second attempt, no waiting.
    pub fn off() -> Self {
        Self { retries: 0, ..Self::default() }
    }

    /// How long to wait before asking again after `error`; `None` to give up. `luck` is uniform in
    /// 0 to 1.
    pub(super) fn pause(&self, error: &Error, spent: Spent, luck: f64, now: Timestamp) -> Option<Duration> {
        let pause = match error.kind() {
            Kind::Limited { until: Some(until), .. } => {
                Duration::from_secs(until.since(now)) + LIMIT_JITTER.mul_f64(luck.clamp(0.0, 1.0))
            }
            kind if self.only_broken && kind != Kind::Transport => return None,
            _ if error.is_transient() => self.bound(spent.retries).mul_f64(luck.clamp(0.0, 1.0)),
            _ => return None,
        };
        self.allows(pause, spent).then_some(pause)
    }

    /// Whether there may be one more attempt after `pause`.
    pub(super) fn allows(&self, pause: Duration, spent: Spent) -> bool {
        spent.retries < self.retries && spent.waited.saturating_add(pause) <= self.max_wait
    }

    /// The longest pause before the attempt after `retries` others.
    fn bound(&self, retries: u32) -> Duration {
        let grown = self.factor.max(1).saturating_pow(retries);
        self.base.saturating_mul(grown).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn limited(secs: u64) -> Error {
        Error::new(Kind::Limited { until: Some(NOW.plus(secs)), secondary: false }, "limited")
    }

    #[test]
    fn what_asking_again_cannot_help_is_not_asked_again() {
        let backoff = Backoff::default();
        let pause = |kind| backoff.pause(&Error::new(kind, "x"), Spent::default(), 1.0, NOW);
        for kind in [
            Kind::Refused(403),
            Kind::Usage,
            Kind::Corrupt,
            Kind::TooLarge,
            Kind::Limited { until: None, secondary: false },
        ] {
            assert_eq!(pause(kind), None, "{kind:?}");
        }
        assert_eq!(pause(Kind::Server(502)), Some(Duration::from_millis(500)));
        assert_eq!(Backoff::off().pause(&Error::new(Kind::Transport, "x"), Spent::default(), 0.0, NOW), None);
    }

    #[test]
    fn for_clients_that_try_again_only_a_broken_connection_is_tried_again() {
        let backoff = Backoff { only_broken: true, retries: 1, ..Backoff::default() };
        let pause = |kind| backoff.pause(&Error::new(kind, "x"), Spent::default(), 0.0, NOW);
        assert_eq!(pause(Kind::Transport), Some(Duration::ZERO));
        for kind in [Kind::Server(502), Kind::TimedOut, Kind::Malformed, Kind::Refused(403)] {
            assert_eq!(pause(kind), None, "{kind:?}");
        }
        assert!(backoff.pause(&limited(3), Spent::default(), 0.0, NOW).is_some());
    }

    #[test]
    fn a_limit_is_waited_out_only_within_the_bound() {
        let backoff = Backoff::default();
        let pause = |secs, waited| {
            backoff.pause(&limited(secs), Spent { retries: 0, waited: Duration::from_secs(waited) }, 0.5, NOW)
        };
        assert_eq!(pause(30, 0), Some(Duration::from_secs(31)));
        assert_eq!(pause(60, 30), None);
        assert_eq!(pause(3_000, 0), None);
    }

    proptest! {
        #[test]
        fn pauses_stay_within_their_bounds(luck in -1.0..2.0_f64, retries in 0..40_u32, factor in 0..9_u32, waited in 0..90_000_u64) {
            let backoff = Backoff { factor, retries: 50, ..Backoff::default() };
            let spent = Spent { retries, waited: Duration::from_millis(waited) };
            let error = Error::new(Kind::Transport, "x");
            let bound = backoff.bound(retries);
            prop_assert!(bound >= backoff.base && bound <= backoff.max);
            prop_assert!(retries == 0 || bound >= backoff.bound(retries - 1));
            match backoff.pause(&error, spent, luck, NOW) {
                Some(pause) => {
                    prop_assert!(pause <= bound);
                    prop_assert!(spent.waited + pause <= backoff.max_wait);
                }
                None => prop_assert!(spent.waited + bound > backoff.max_wait),
            }
        }

        #[test]
        fn any_sequence_of_failures_ends(luck in proptest::collection::vec(0.0..1.0_f64, 100)) {
            let backoff = Backoff::default();
            let mut spent = Spent::default();
            for luck in luck {
                let Some(pause) = backoff.pause(&Error::new(Kind::Server(500), "x"), spent, luck, NOW) else { break };
                spent = Spent { retries: spent.retries + 1, waited: spent.waited + pause };
            }
            prop_assert!(spent.retries <= backoff.retries && spent.waited <= backoff.max_wait);
        }
    }
}
