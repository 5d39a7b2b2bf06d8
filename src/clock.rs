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

/// A point in wall time: whole seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From seconds since 1970-01-01 UTC.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs)
    }

    /// Seconds since 1970-01-01 UTC.
    pub fn secs(self) -> i64 {
        self.0
    }

    /// Seconds from `earlier` to this; 0 when `earlier` is later (a clock ahead of ours).
    pub fn since(self, earlier: Timestamp) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// This time and so many seconds.
    #[must_use]
    pub fn plus(self, secs: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(secs).unwrap_or(i64::MAX)))
    }

    /// This time less so many seconds.
    #[must_use]
    pub fn minus(self, secs: u64) -> Self {
        Self(self.0.saturating_sub(i64::try_from(secs).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, whole seconds: `2026-11-20T22:12:44Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp(self.0, 0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true)),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        DateTime::parse_from_rfc3339(&text).map(|time| Timestamp(time.timestamp())).map_err(serde::de::Error::custom)
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
        Self::Manual(Arc::new(AtomicI64::new(at.0)))
    }

    /// A clock that shows `at` and goes on with tokio's timers.
    pub fn following_tokio(at: Timestamp) -> Self {
        Self::Following { at, since: tokio::time::Instant::now() }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        match self {
            #[allow(clippy::disallowed_methods, reason = "this is the one place that reads it")]
            Clock::System => Timestamp(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
            ),
            Clock::Manual(at) => Timestamp(at.load(Ordering::Relaxed)),
            Clock::Following { at, since } => at.plus(since.elapsed().as_secs()),
        }
    }

    /// Moves a manual clock on; others go on by themselves.
    pub fn advance(&self, secs: u64) {
        if let Clock::Manual(at) = self {
            at.fetch_add(i64::try_from(secs).unwrap_or(i64::MAX), Ordering::Relaxed);
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
    fn a_time_ahead_of_ours_has_age_zero() {
        assert_eq!(Timestamp::from_secs(5).since(Timestamp::from_secs(9)), 0);
    }
}
