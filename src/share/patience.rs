//! How long a place is waited for, and when it is tried again: a circuit breaker that counts time, not
//! failures, since waiting in vain is what it costs.
//!
//! Knows: the decision, with `now` as an argument. Does not know: what is asked, tasks, logs.

use std::time::Duration;

use tokio::time::Instant;

/// A place that does not answer is tried again at the latest after this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How much is borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// No single operation is waited for longer.
    pub timeout: Duration,
    /// The first pause after a failure; later ones are longer.
    pub pause: Duration,
}

impl Limits {
    /// Those of a place whose operations take at most `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, pause: Duration::from_secs(1) }
    }

    /// What takes longer than this is slow: for a while it is borne, if it answers now and then.
    pub fn slow(&self) -> Duration {
        self.timeout / 5
    }

    /// So long the first ones wait for a connection.
    pub fn first(&self) -> Duration {
        self.timeout / 2
    }

    /// How much waiting in vain for slow answers is borne in all.
    fn debt(&self) -> Duration {
        self.timeout
    }
}

/// The state of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It is asked. `debt` is what was waited in vain.
    Asking {
        /// Time that slow answers took which brought nothing.
        debt: Duration,
    },
    /// It is left alone until then, and tried once (half-open) before it is asked again.
    Resting {
        /// When it is tried.
        until: Instant,
        /// Failures in a row.
        failures: u32,
    },
}

impl Default for Patience {
    fn default() -> Self {
        Patience::Asking { debt: Duration::ZERO }
    }
}

impl Patience {
    /// Whether it is asked at all.
    pub fn is_asking(&self) -> bool {
        matches!(self, Patience::Asking { .. })
    }

    /// After an answer that took `took` and brought something or nothing.
    #[must_use]
    pub fn answered(self, took: Duration, of_use: bool, limits: &Limits, now: Instant) -> Self {
        let Patience::Asking { debt } = self else { return self };
        // Whoever brings something has earned what was waited for him.
        let debt = match (of_use, took > limits.slow()) {
            (true, _) => debt.saturating_sub(limits.timeout),
            (false, true) => debt + took,
            (false, false) => debt,
        };
        if debt > limits.debt() { Self::default().failed(limits, now) } else { Patience::Asking { debt } }
    }

    /// After a failure, or none in time: the next one would cost as much.
    #[must_use]
    pub fn failed(self, limits: &Limits, now: Instant) -> Self {
        let failures = match self {
            Patience::Asking { .. } => 0,
            Patience::Resting { failures, .. } => failures,
        };
        let pause = limits.pause.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
        Patience::Resting { until: now + pause, failures: failures + 1 }
    }

    /// After a first connection, or the one try of a place that rests: that one is asked again if it came
    /// back, and not slowly.
    #[must_use]
    pub fn tried(self, took: Option<Duration>, limits: &Limits, now: Instant) -> Self {
        match (self, took) {
            (Patience::Asking { .. }, Some(_)) => self,
            (Patience::Resting { .. }, Some(took)) if took <= limits.timeout / 2 => Self::default(),
            _ => self.failed(limits, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn limits() -> Limits {
        Limits::new(50 * MS)
    }

    #[test]
    fn one_failure_is_enough_and_pauses_grow() {
        let now = Instant::now();
        let mut patience = Patience::default().failed(&limits(), now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let Patience::Resting { until, .. } = patience else { panic!("it is asked") };
            pauses.push((until - now).as_secs());
            patience = patience.tried(None, &limits(), now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert!(!patience.tried(Some(40 * MS), &limits(), now).is_asking(), "alive, but slow");
        assert!(patience.tried(Some(2 * MS), &limits(), now).is_asking());
    }

    #[test]
    fn quick_misses_cost_nothing_and_slow_ones_are_borne_for_a_while() {
        let now = Instant::now();
        let mut patience = Patience::default();
        for _ in 0..100_000 {
            patience = patience.answered(MS, false, &limits(), now);
        }
        assert!(patience.is_asking());
        let mut waited = Duration::ZERO;
        while patience.is_asking() {
            patience = patience.answered(20 * MS, false, &limits(), now);
            waited += 20 * MS;
        }
        assert!(waited <= 80 * MS, "{waited:?}");
        // A slow place that brings things is worth it.
        let mut patience = Patience::default();
        for at in 0..1_000 {
            patience = patience.answered(20 * MS, at % 3 == 0, &limits(), now);
        }
        assert!(patience.is_asking());
    }
}
