//! Counters of what the cache did and saved (A18, D5).
//!
//! Knows: counting, and adding up over runs. Does not know: who prints them.
//! Each process appends lines to `stats.log`; whoever reads adds the lines up.

mod table;
mod ticks;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files::{self, Durability};
use crate::outcome::Outcome;
use crate::policy::class::Place;
use crate::tier::TierName;
pub use table::{Count, LATENCY_BOUNDS_MICROS, Latency};
use table::{Table, Way};
pub use ticks::{Ticked, Ticks};

/// Lines are added up into one beyond this size.
const FOLD_BYTES: u64 = 64 << 10;

/// The largest log that is read.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// Sums of counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counts {
    /// The line's version.
    pub v: u32,
    /// Requests to the cache.
    pub asked: u64,
    /// Fresh answers by tier.
    pub hits: BTreeMap<String, u64>,
    /// Answers that GitHub confirmed with 304.
    pub revalidated: u64,
    /// Answers whose bytes another partition had, or that were guessed, and that GitHub confirmed.
    pub confirmed: u64,
    /// Answers that another request's fetch brought.
    pub collapsed: u64,
    /// Answers whose entity tag the rule explained or predicted.
    pub rule_held: u64,
    /// Answers whose entity tag it did not.
    pub rule_failed: u64,
    /// Answers that came from GitHub.
    pub fetched: u64,
    /// Stale answers by reason.
    pub stale: BTreeMap<String, u64>,
    /// Answers that were not stored, by reason.
    pub not_stored: BTreeMap<String, u64>,
    /// Requests that ended without an answer.
    pub failed: u64,
    /// Requests that went to GitHub, retries included.
    pub upstream_requests: u64,
    /// Bytes of bodies that did not come from GitHub.
    pub bytes_saved: u64,
    /// Time spent on all of them, in microseconds.
    pub micros: u64,
}

impl Counts {
    /// Fresh answers of all tiers.
    pub fn all_hits(&self) -> u64 {
        self.hits.values().sum()
    }

    /// Requests that did not count against the primary limit: hits, free 304s and stale answers.
    pub fn calls_saved(&self) -> u64 {
        self.all_hits() + self.revalidated + self.confirmed + self.stale.values().sum::<u64>()
    }

    /// Share of requests that were answered without a charged request, in percent.
    pub fn hit_rate(&self) -> f64 {
        if self.asked == 0 { 0.0 } else { 100.0 * self.calls_saved() as f64 / self.asked as f64 }
    }

    fn add(&mut self, other: &Counts) {
        self.merge(other, u64::saturating_add);
    }

    /// What was counted since `before`, which are earlier counts of the same.
    #[must_use]
    pub fn since(mut self, before: &Counts) -> Counts {
        self.merge(before, u64::saturating_sub);
        for map in [&mut self.hits, &mut self.stale, &mut self.not_stored] {
            map.retain(|_, count| *count > 0);
        }
        self
    }

    fn merge(&mut self, other: &Counts, with: fn(u64, u64) -> u64) {
        self.v = 1;
        let sums = [
            (&mut self.asked, other.asked),
            (&mut self.revalidated, other.revalidated),
            (&mut self.confirmed, other.confirmed),
            (&mut self.collapsed, other.collapsed),
            (&mut self.rule_held, other.rule_held),
            (&mut self.rule_failed, other.rule_failed),
            (&mut self.fetched, other.fetched),
            (&mut self.failed, other.failed),
            (&mut self.upstream_requests, other.upstream_requests),
            (&mut self.bytes_saved, other.bytes_saved),
            (&mut self.micros, other.micros),
        ];
        for (sum, more) in sums {
            *sum = with(*sum, more);
        }
        let maps =
            [(&mut self.hits, &other.hits), (&mut self.stale, &other.stale), (&mut self.not_stored, &other.not_stored)];
        for (sums, more) in maps {
            for (name, count) in more {
                let sum = sums.entry(name.clone()).or_default();
                *sum = with(*sum, *count);
            }
        }
    }
}

/// The counters of a process. Counting takes a few atomic additions and no lock.
#[derive(Debug, Default)]
pub struct Stats {
    table: Table,
    collapsed: AtomicU64,
    rule_held: AtomicU64,
    rule_failed: AtomicU64,
    bytes_saved: AtomicU64,
    bytes_fetched: AtomicU64,
    /// What is in the log already.
    told: Mutex<Counts>,
}

impl Stats {
    /// Counts one answered request.
    pub fn answered(&self, class: Place, outcome: Outcome, tier: Option<TierName>, body_bytes: usize, micros: u64) {
        self.table.count(class, Way::of(outcome, tier), micros);
        let bytes = match outcome {
            Outcome::Fetched(_) | Outcome::NotStored(_) => &self.bytes_fetched,
            Outcome::Hit(_) | Outcome::Revalidated | Outcome::Confirmed | Outcome::Stale(_) => &self.bytes_saved,
        };
        bytes.fetch_add(body_bytes as u64, Ordering::Relaxed);
    }

    /// Counts one answer that another request's fetch brought.
    pub fn collapsed(&self) {
        self.collapsed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts whether the rule for entity tags held, where that could be told.
    pub fn rule(&self, held: Option<bool>) {
        if let Some(held) = held {
            (if held { &self.rule_held } else { &self.rule_failed }).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one request without an answer.
    pub fn failed(&self, class: Place, micros: u64) {
        self.table.count(class, Way::FAILED, micros);
    }

    /// All answers so far by class, outcome and what stands behind it: those that there were.
    pub fn by_class(&self) -> Vec<Count> {
        self.table.counts()
    }

    /// How long answers took, by outcome.
    pub fn latencies(&self) -> Vec<Latency> {
        self.table.latencies()
    }

    /// Bytes of bodies that came from GitHub.
    pub fn bytes_fetched(&self) -> u64 {
        self.bytes_fetched.load(Ordering::Relaxed)
    }

    /// The sums so far; requests to GitHub are counted there.
    pub fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut counts = Counts {
            v: 1,
            collapsed: load(&self.collapsed),
            rule_held: load(&self.rule_held),
            rule_failed: load(&self.rule_failed),
            bytes_saved: load(&self.bytes_saved),
            micros: self.table.micros(),
            ..Counts::default()
        };
        for Count { outcome, detail, count, .. } in self.table.counts() {
            counts.asked += count;
            let map = match outcome {
                "hit" => &mut counts.hits,
                "stale" => &mut counts.stale,
                "not-stored" => &mut counts.not_stored,
                _ => {
                    match outcome {
                        "revalidated" => counts.revalidated += count,
                        "confirmed" => counts.confirmed += count,
                        "fetched" => counts.fetched += count,
                        _ => counts.failed += count,
                    }
                    continue;
                }
            };
            *map.entry(detail.to_owned()).or_default() += count;
        }
        counts
    }

    /// Appends to the store's log what was counted since the last time. `sent` counts the requests
    /// of the process so far: those of failures, too, which no answer tells of. Best effort.
    pub fn flush(&self, dir: &Path, sent: u32) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Counts { upstream_requests: u64::from(sent), ..self.counts() };
        let new = now.clone().since(&told);
        if new.asked == 0 || !dir.exists() {
            return;
        }
        *told = now;
        drop(told);
        let Ok(mut line) = serde_json::to_vec(&new) else { return };
        line.push(b'\n');
        let path = dir.join("stats.log");
        let appended = files::open_append(&path).and_then(|mut log| {
            log.write_all(&line)?;
            log.metadata()
        });
        if appended.is_ok_and(|meta| meta.len() > FOLD_BYTES) {
            let sums = Stats::read(dir);
            let _best_effort = Stats::replace(dir, &sums);
        }
    }

    /// The sums of all runs of this store; broken lines count for nothing.
    pub fn read(dir: &Path) -> Counts {
        let bytes = files::read_bounded(&dir.join("stats.log"), MAX_LOG_BYTES).ok().flatten().unwrap_or_default();
        let mut sums = Counts { v: 1, ..Counts::default() };
        for counts in bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Counts>(line).ok())
        {
            sums.add(&counts);
        }
        sums
    }

    /// Puts `sums` in place of all lines. A line that comes in between may be lost: statistics.
    fn replace(dir: &Path, sums: &Counts) -> Result<()> {
        let mut line = serde_json::to_vec(sums).unwrap_or_default();
        line.push(b'\n');
        files::write_atomic(&dir.join("stats.log"), &dir.join("partial"), &line, Durability::Rename)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::outcome::{Because, Proof};
    use crate::policy::class;

    #[test]
    fn sums_over_runs_with_broken_lines_between() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let stats = Stats::default();
            let place = class::place("repo");
            stats.answered(place, Outcome::Hit(Proof::Lifetime), Some(TierName::Disk), 100, 5);
            stats.answered(place, Outcome::Fetched(Because::NotStored), None, 50, 7);
            stats.failed(class::place("own"), 1);
            stats.flush(dir.path(), 3);
            stats.flush(dir.path(), 3);
            let mut log = fs::OpenOptions::new().append(true).open(dir.path().join("stats.log")).unwrap();
            log.write_all(b"{torn\n").unwrap();
        }
        let sums = Stats::read(dir.path());
        assert_eq!((sums.asked, sums.all_hits(), sums.fetched, sums.failed), (9, 3, 3, 3));
        assert_eq!((sums.upstream_requests, sums.bytes_saved, sums.micros), (9, 300, 39));
        assert!((sums.hit_rate() - 33.3).abs() < 0.1);
    }
}
