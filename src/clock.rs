//! Wall time: the only file that reads it.
//!
//! Knows: the current time and RFC 3339. Does not know: waiting; timers are tokio's, which tests
//! can pause.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in wall time, to the millisecond: what is fetched right after an invalidation is newer than it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Milliseconds since 1970-01-01 UTC.
    millis: i64,
}

/// So many seconds as milliseconds.
fn millis(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1_000)
}

impl Timestamp {
    /// From seconds since 1970-01-01 UTC.
    pub const fn from_secs(secs: i64) -> Self {
        Self { millis: secs.saturating_mul(1_000) }
    }

    /// From milliseconds since 1970-01-01 UTC.
    pub const fn from_millis(millis: i64) -> Self {
        Self { millis }
    }

    /// Whole seconds since 1970-01-01 UTC, rounded down.
    pub fn secs(self) -> i64 {
        self.millis.div_euclid(1_000)
    }

    /// Whole seconds from `earlier` to this, rounded down; 0 when `earlier` is later (a clock ahead of ours).
    pub fn since(self, earlier: Timestamp) -> u64 {
        u64::try_from(self.millis.saturating_sub(earlier.millis) / 1_000).unwrap_or(0)
    }

    /// This time and so many seconds.
    #[must_use]
    pub fn plus(self, secs: u64) -> Self {
        Self { millis: self.millis.saturating_add(millis(secs)) }
    }

    /// This time less so many seconds.
    #[must_use]
    pub fn minus(self, secs: u64) -> Self {
        Self { millis: self.millis.saturating_sub(millis(secs)) }
    }

    /// The last time before this one.
    #[must_use]
    pub fn before(self) -> Self {
        Self { millis: self.millis.saturating_sub(1) }
    }
}

impl fmt::Display for Timestamp {
    /// For people: RFC 3339 in UTC, whole seconds: `2026-11-20T22:12:44Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp(self.secs(), 0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true)),
            None => write!(f, "{}", self.secs()),
        }
    }
}

impl Serialize for Timestamp {
    /// RFC 3339 in UTC: `2026-11-20T22:12:44Z`, or with milliseconds where there are some.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match DateTime::<Utc>::from_timestamp_millis(self.millis).filter(|_| self.millis % 1_000 != 0) {
            Some(time) => serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(Self { millis: time.timestamp_millis() })
    }
}

/// Where "now" comes from. Cheap to clone; clones of a manual clock share its time.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A clock that a test moves.
    Manual(Arc<AtomicI64>),
    /// A clock that goes on with tokio's timers, which a test can pause.
    Following {
        /// What it showed at `since`.
        at: Timestamp,
        /// When it was set.
        since: tokio::time::Instant,
    },
}

impl Clock {
    /// A clock that stands at `at` until [`advance`](Clock::advance) is called.
    pub fn manual(at: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(at.millis)))
    }

    /// A clock that shows `at` and goes on with tokio's timers.
    pub fn following_tokio(at: Timestamp) -> Self {
        Self::Following { at, since: tokio::time::Instant::now() }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        match self {
            #[allow(clippy::disallowed_methods, reason = "this is the one place that reads it")]
            Clock::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp { millis: i64::try_from(since.as_millis()).unwrap_or(i64::MAX) }
            }
            Clock::Manual(at) => Timestamp { millis: at.load(Ordering::Relaxed) },
            Clock::Following { at, since } => {
                let passed = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
                Timestamp { millis: at.millis.saturating_add(passed) }
            }
        }
    }

    /// Moves a manual clock on; others go on by themselves.
    pub fn advance(&self, secs: u64) {
        if let Clock::Manual(at) = self {
            at.fetch_add(millis(secs), Ordering::Relaxed);
        }
    }

    /// The same by milliseconds.
    pub fn advance_millis(&self, millis: i64) {
        if let Clock::Manual(at) = self {
            at.fetch_add(millis, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_there_and_back() {
        let at = Timestamp::from_secs(1_795_212_764);
        let text = serde_json::to_string(&at).unwrap();
        assert_eq!(text, "\"2026-11-20T22:12:44Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), at);
    }

    #[test]
    fn milliseconds_are_kept_and_seconds_are_rounded_down() {
        let at = Timestamp::from_millis(1_795_212_764_987);
        let text = serde_json::to_string(&at).unwrap();
        assert_eq!(text, "\"2026-11-20T22:12:44.987Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), at);
        assert_eq!((at.to_string().as_str(), at.secs()), ("2026-11-20T22:12:44Z", 1_795_212_764));
        assert_eq!(at.since(Timestamp::from_millis(1_795_212_763_988)), 0);
        for far in [Timestamp::from_secs(i64::MAX), Timestamp::from_secs(i64::MIN)] {
            assert_eq!(far.plus(u64::MAX).minus(u64::MAX).before().since(far), 0);
            serde_json::to_string(&far).unwrap();
        }
    }

    #[test]
    fn a_time_ahead_of_ours_has_age_zero() {
        assert_eq!(Timestamp::from_secs(5).since(Timestamp::from_secs(9)), 0);
    }
}
