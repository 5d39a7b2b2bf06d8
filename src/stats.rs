//! Counters of what the cache did and saved (A18).
//!
//! Knows: counting, and adding up over runs. Does not know: who prints them.
//! Each process appends one line to `stats.log`; whoever reads adds the lines up.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files::{self, Durability};
use crate::outcome::Outcome;
use crate::tier::TierName;

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
            *sum = sum.saturating_add(more);
        }
        let maps =
            [(&mut self.hits, &other.hits), (&mut self.stale, &other.stale), (&mut self.not_stored, &other.not_stored)];
        for (sums, more) in maps {
            for (name, count) in more {
                *sums.entry(name.clone()).or_default() += count;
            }
        }
    }
}

/// The counters of a process.
#[derive(Debug, Default)]
pub struct Stats {
    counts: Mutex<Counts>,
    /// Requests of this process that are in the log already.
    told: AtomicU32,
}

impl Stats {
    /// Counts one answered request.
    pub fn answered(&self, outcome: Outcome, tier: Option<TierName>, body_bytes: usize, micros: u64) {
        self.with(|counts| {
            counts.asked += 1;
            counts.micros += micros;
            let (map, name) = match outcome {
                Outcome::Hit(_) => (Some(&mut counts.hits), tier.map_or("memory", TierName::as_str)),
                Outcome::Stale(reason) => (Some(&mut counts.stale), reason.as_str()),
                Outcome::NotStored(reason) => (Some(&mut counts.not_stored), reason.as_str()),
                Outcome::Revalidated => {
                    counts.revalidated += 1;
                    (None, "")
                }
                Outcome::Confirmed => {
                    counts.confirmed += 1;
                    (None, "")
                }
                Outcome::Fetched(_) => {
                    counts.fetched += 1;
                    (None, "")
                }
            };
            if let Some(map) = map {
                match map.get_mut(name) {
                    Some(count) => *count += 1,
                    None => drop(map.insert(name.to_owned(), 1)),
                }
            }
            if !matches!(outcome, Outcome::Fetched(_) | Outcome::NotStored(_)) {
                counts.bytes_saved += body_bytes as u64;
            }
        });
    }

    /// Counts one answer that another request's fetch brought.
    pub fn collapsed(&self) {
        self.with(|counts| counts.collapsed += 1);
    }

    /// Counts whether the rule for entity tags held, where that could be told.
    pub fn rule(&self, held: Option<bool>) {
        if let Some(held) = held {
            self.with(|counts| *(if held { &mut counts.rule_held } else { &mut counts.rule_failed }) += 1);
        }
    }

    /// Counts one request without an answer.
    pub fn failed(&self, micros: u64) {
        self.with(|counts| {
            counts.asked += 1;
            counts.failed += 1;
            counts.micros += micros;
        });
    }

    /// The sums so far.
    pub fn counts(&self) -> Counts {
        self.with(|counts| counts.clone())
    }

    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Appends this process's sums to the store's log, and starts again from zero. `sent` counts the
    /// requests of the process so far: those of failures, too, which no answer tells of. Best effort.
    pub fn flush(&self, dir: &Path, sent: u32) {
        let mut counts = self.with(std::mem::take);
        counts.upstream_requests = u64::from(sent.saturating_sub(self.told.swap(sent, Ordering::Relaxed)));
        if counts.asked == 0 || !dir.exists() {
            return;
        }
        counts.v = 1;
        let Ok(mut line) = serde_json::to_vec(&counts) else { return };
        line.push(b'\n');
        let path = dir.join("stats.log");
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let appended = options.open(&path).and_then(|mut log| {
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
    use super::*;
    use crate::outcome::{Because, Proof};

    #[test]
    fn sums_over_runs_with_broken_lines_between() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let stats = Stats::default();
            stats.answered(Outcome::Hit(Proof::Lifetime), Some(TierName::Disk), 100, 5);
            stats.answered(Outcome::Fetched(Because::NotStored), None, 50, 7);
            stats.failed(1);
            stats.flush(dir.path(), 3);
            stats.flush(dir.path(), 3);
            let mut log = fs::OpenOptions::new().append(true).open(dir.path().join("stats.log")).unwrap();
            log.write_all(b"{torn\n").unwrap();
        }
        let sums = Stats::read(dir.path());
        assert_eq!((sums.asked, sums.all_hits(), sums.fetched, sums.failed), (9, 3, 3, 3));
        assert_eq!((sums.upstream_requests, sums.bytes_saved), (9, 300));
        assert!((sums.hit_rate() - 33.3).abs() < 0.1);
    }
}
