//! What the dashboard shows, as one JSON object, and how it went over time (D8).
//!
//! Knows: which numbers people ask for. Does not know: HTML, how they are sent.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};

use super::Door;
use crate::clock::Timestamp;
use crate::share::Tallied;
use crate::tier::TierName;

/// Seconds between two points of the history.
pub(super) const HISTORY_EVERY_SECS: u64 = 10;

/// Points that are kept: an hour's.
const MAX_POINTS: usize = 360;

/// Rows of each table.
const ROWS: usize = 12;

/// Lines of the log that go out at once.
const MAX_LINES: usize = 50;

/// Sums up to a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Point {
    at: Timestamp,
    asked: u64,
    saved: u64,
    charged: u64,
}

/// How it went.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Point>>);

impl History {
    fn all(&self) -> Vec<Point> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn push(&self, point: Point) {
        let mut points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if points.len() == MAX_POINTS {
            points.pop_front();
        }
        points.push_back(point);
    }
}

impl Door {
    fn point(&self) -> Point {
        let counts = self.identities.stats().counts();
        let tallied = self.identities.common().options.tally.now();
        Point {
            at: self.identities.common().clock.now(),
            asked: counts.asked,
            saved: counts.calls_saved(),
            charged: tallied.sent.saturating_sub(tallied.free),
        }
    }

    /// Adds to the history what is true now.
    pub(super) fn remember(&self) {
        self.history.push(self.point());
    }

    /// Everything, with the lines of the log after `seq`; with the history for who has none yet. Without
    /// `details`, totals alone: nothing that names what clients ask for.
    pub(super) fn status(&self, seq: u64, with_history: bool, details: bool) -> Value {
        let common = self.identities.common();
        let (counts, tallied) = (self.identities.stats().counts(), common.options.tally.now());
        let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let point = self.point();
        let limits: Vec<Value> = self.identities.accounts().iter().map(|account| json!(account)).collect();
        let stale: Vec<Value> =
            counts.stale.iter().map(|(reason, count)| json!({ "reason": reason, "count": count })).collect();
        let reload = self.reload_state();
        let masked = |error: String| common.options.masker.text(&error).into_owned();
        let error =
            reload.error.map(|error| if details { masked(error) } else { "The server's log says why.".to_owned() });
        let rows = |rows: Value| if details { rows } else { json!([]) };
        json!({
            "details": details,
            "now": point.at,
            "version": env!("CARGO_PKG_VERSION"),
            "started_at": self.started_at,
            "api": common.api.origin(),
            "point": point,
            "history": with_history.then(|| self.history.all()),
            "totals": {
                "asked": counts.asked, "hits": counts.all_hits(), "revalidated": counts.revalidated + counts.confirmed,
                "fetched": counts.fetched, "failed": counts.failed, "collapsed": counts.collapsed,
                "stale": counts.stale.values().sum::<u64>(), "not_stored": counts.not_stored.values().sum::<u64>(),
                "saved": counts.calls_saved(), "hit_rate": counts.hit_rate(), "bytes_saved": counts.bytes_saved,
                "sent": tallied.sent, "charged": point.charged, "retries": tallied.retries,
                "limited": tallied.primary_limits + tallied.secondary_limits,
                "passed": load(&self.counters.passed), "refused": load(&self.counters.refused),
                "connections": load(&self.counters.connections), "clients": self.identities.count(),
            },
            "limits": limits,
            "stale": stale,
            "stale_lines": rows(json!(self.journal.stale(ROWS))),
            "busiest": rows(json!(self.journal.busiest(ROWS))),
            "tiers": self.tiers(&counts.hits),
            "shared": self.shared(),
            "warm": self.ticks.as_ref().map(|ticks| ticks.now()),
            "webhook": self.webhook.as_ref().map(|webhook| json!({
                "accepted": load(&webhook.received.accepted), "repeated": load(&webhook.received.repeated),
                "refused": load(&webhook.received.refused), "failed": load(&webhook.received.failed),
                "applied": load(&webhook.received.applied),
                "events": webhook.by_event().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            })),
            "config": { "read_at": reload.at, "error": error },
            "lines": rows(json!(self.journal.since(seq, MAX_LINES))),
        })
    }

    /// Places beyond this machine.
    fn shared(&self) -> Value {
        let places = self.identities.common().share.iter().flat_map(|share| share.tallied());
        let of = |(tier, tallied): (TierName, Tallied)| json!({ "name": tier.as_str(), "tallied": tallied });
        Value::Array(places.map(of).collect())
    }

    fn tiers(&self, hits: &std::collections::BTreeMap<String, u64>) -> Value {
        let ((bytes, entries), disk) = (self.identities.common().stack.memory_size(), self.on_disk());
        let hits = |tier: &str| hits.get(tier).copied().unwrap_or(0);
        json!([
            { "name": "memory", "entries": entries, "bytes": bytes, "hits": hits("memory") },
            { "name": "disk", "entries": disk.loose, "bytes": disk.loose_bytes, "hits": hits("disk") },
            { "name": "bundle", "entries": disk.bundled, "bytes": disk.bundle_bytes, "hits": hits("bundle") },
        ])
    }
}
