//! What processes of one machine with the same identity tell each other: limits that bit, what is
//! left, points of the last minute, and how many requests are under way.
//!
//! Knows: a small file under a lock, and one lock file per request under way, which the kernel
//! releases when its holder dies. Does not know: what the numbers mean (`budget`).
//! Best effort: a directory that cannot be used means that each process counts for itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::budget::{Budget, Others};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::files::{self, Durability, Lock};
use crate::upstream::RateLimit;

/// The file's version.
const VERSION: u32 = 1;

/// The largest file that is read.
const MAX_BYTES: u64 = 256 << 10;

/// Processes whose points are remembered.
const MAX_PROCESSES: usize = 500;

/// The lock is held for a tenth of a millisecond. A process that is stopped may hold it for ever, and requests wait for it.
const LONGEST_LOCK: Duration = Duration::from_millis(10);

/// Points count for so long.
const WINDOW_SECS: u64 = 60;

/// The place of one identity's file and locks.
#[derive(Debug)]
pub(super) struct Shared {
    dir: PathBuf,
    /// Names this process among those that report.
    process: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    v: u32,
    buckets: Vec<RateLimit>,
    empty_until: BTreeMap<String, Timestamp>,
    stopped_until: Option<Timestamp>,
    processes: BTreeMap<String, Report>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    at: Timestamp,
    rest: u32,
    graphql: u32,
}

impl Shared {
    /// Uses `dir`, a directory of this identity's own.
    pub(super) fn new(dir: PathBuf, process: String) -> Self {
        Self { dir, process }
    }

    /// Tells what `budget` knows and takes over what others told.
    pub(super) fn sync(&self, budget: &mut Budget, points: (u32, u32), now: Timestamp) -> Result<()> {
        files::create_private_dir(&self.dir).map_err(|cause| Error::io("create", &self.dir, cause))?;
        let lock = open(&self.dir.join("lock"))?;
        let is_ours = lock.take_within(LONGEST_LOCK).map_err(|cause| Error::io("lock", &self.dir, cause))?;
        if !is_ours {
            // What this process knows waits until next time: requests do not.
            self.peek(budget, now);
            return Ok(());
        }
        let mut state = self.read();
        self.take_over(&mut state, budget, now);
        let (buckets, empty_until, stopped_until) = budget.limits(now);
        state.processes.insert(self.process.clone(), Report { at: now, rest: points.0, graphql: points.1 });
        let state = State { buckets, empty_until, stopped_until, ..state };
        let bytes = serde_json::to_vec(&state).unwrap_or_default();
        files::write_atomic(&self.path(), &self.dir, &bytes, Durability::Rename)
    }

    /// Takes over what others told, and tells nothing.
    pub(super) fn peek(&self, budget: &mut Budget, now: Timestamp) {
        self.take_over(&mut self.read(), budget, now);
    }

    fn path(&self) -> PathBuf {
        self.dir.join("limits.json")
    }

    fn read(&self) -> State {
        let read = files::read_bounded(&self.path(), MAX_BYTES).ok().flatten().unwrap_or_default();
        // A newer or broken file is as good as none: it is about the next hour at most.
        let state: State = serde_json::from_slice(&read).unwrap_or_default();
        if state.v == VERSION { state } else { State { v: VERSION, ..State::default() } }
    }

    fn take_over(&self, state: &mut State, budget: &mut Budget, now: Timestamp) {
        // Nothing of GitHub's lasts longer than a day: a file from the future is not believed.
        let sane = |until: &Timestamp| until.since(now) <= 24 * 3_600;
        for seen in state.buckets.drain(..).filter(|limit| limit.reset_at > now && sane(&limit.reset_at)) {
            budget.learn(seen);
        }
        for (bucket, until) in state.empty_until.iter().filter(|(_, until)| sane(until)) {
            budget.block(bucket, *until);
        }
        if let Some(until) = state.stopped_until.filter(|until| sane(until)) {
            budget.stop(until);
        }
        state.processes.retain(|_, report| now.since(report.at) < WINDOW_SECS && report.at <= now);
        while state.processes.len() >= MAX_PROCESSES {
            state.processes.pop_first();
        }
        let mut others = Others::default();
        for (_, report) in state.processes.iter().filter(|(name, _)| **name != self.process) {
            others.rest_points = others.rest_points.saturating_add(report.rest);
            others.graphql_points = others.graphql_points.saturating_add(report.graphql);
        }
        budget.others = others;
    }

    /// One of the places for requests under way, if one is free; it is held until the lock is
    /// dropped. `start` spreads the search.
    pub(super) fn slot(&self, start: usize) -> Result<Option<Lock>> {
        for at in 0..super::MAX_CONCURRENCY {
            let number = (start + at) % super::MAX_CONCURRENCY;
            let slot = open(&self.dir.join(format!("{number:02}.slot")))?;
            if slot.take().map_err(|cause| Error::io("lock", &self.dir, cause))? {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }
}

fn open(path: &Path) -> Result<Lock> {
    Lock::open(path).map_err(|cause| Error::io("open", path, cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::budget::Admit;
    use crate::github::limit::Limit;
    use tokio::time::Instant;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[tokio::test(start_paused = true)]
    async fn limits_and_points_reach_the_other_process() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["1", "2"].map(|name| Shared::new(dir.path().join("id"), name.into()));
        let (mut a, mut b) = (Budget::new(8), Budget::new(8));
        a.learn(RateLimit { resource: "core".into(), limit: 1_000, remaining: 7, reset_at: NOW.plus(600) });
        one.sync(&mut a, (30, 4), NOW).unwrap();
        two.sync(&mut b, (0, 0), NOW).unwrap();
        assert_eq!(b.remaining("core", NOW), Some(7));
        assert_eq!(b.others, Others { rest_points: 30, graphql_points: 4 });
        a.limited(Limit::Secondary { wait_secs: Some(90) }, "core", NOW);
        one.sync(&mut a, (0, 0), NOW).unwrap();
        two.sync(&mut b, (0, 0), NOW).unwrap();
        assert_eq!(b.admit("core", 1, None, NOW, Instant::now()), Admit::Limited(NOW.plus(90)));
        two.sync(&mut b, (0, 0), NOW.plus(100)).unwrap();
        assert_eq!(b.others, Others::default(), "a minute later it counts no more");
    }

    #[test]
    fn broken_newer_and_absurd_files_are_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::new(dir.path().to_owned(), "1".into());
        let far = r#"{"v":1,"buckets":[],"empty_until":{"core":"2999-01-01T00:00:00Z"},"stopped_until":"2999-01-01T00:00:00Z","processes":{}}"#;
        for text in ["", "{", "\0\0", r#"{"v":2}"#, r#"{"v":1,"x":1}"#, far] {
            std::fs::write(dir.path().join("limits.json"), text).unwrap();
            let mut budget = Budget::new(8);
            shared.sync(&mut budget, (0, 0), NOW).unwrap();
            assert_eq!(budget.blocked_until("core", NOW), None, "{text}");
        }
    }

    #[test]
    fn a_hundred_slots_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::new(dir.path().to_owned(), "1".into());
        let mut held: Vec<Lock> = (0..100).map(|n| shared.slot(n * 7).unwrap().unwrap()).collect();
        assert!(shared.slot(0).unwrap().is_none());
        held.pop();
        assert!(shared.slot(50).unwrap().is_some());
    }
}
