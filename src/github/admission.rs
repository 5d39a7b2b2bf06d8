//! Waiting for a place: what the budget says, what other processes do, what is under way.
//!
//! Knows: how to wait for each of them. Does not know: what is sent, or how.

use std::time::Duration;

use tokio::time::Instant;

use super::budget::Admit;
use super::{GitHub, MAX_CONCURRENCY, limit_error, lock, luck, sweep};
use crate::error::{Error, Kind, Result};
use crate::files::Lock;

/// What other processes do is looked at this often.
const SYNC_EVERY: Duration = Duration::from_millis(250);

/// While every place for a request is taken by other processes, they are tried this often.
const SLOT_PAUSE: Duration = Duration::from_millis(20);

/// A request under way; its place is free again when this is dropped.
pub(super) struct UnderWay<'a> {
    github: &'a GitHub,
    bucket: &'static str,
    /// Its place among those of all processes.
    slot: Option<Lock>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        drop(self.slot.take());
        lock(&self.github.budget).ended(self.bucket);
        self.github.ended.notify_waiters();
    }
}

impl GitHub {
    /// Waits for a place for a request to `bucket`. While a limit holds there is none.
    pub(super) async fn admitted(&self, bucket: &'static str, cost: u32) -> Result<UnderWay<'_>> {
        lock(&self.outage).check(Instant::now())?;
        loop {
            lock(&self.outage).check_pause(Instant::now())?;
            self.sync(false);
            let another_ended = self.ended.notified();
            let now = self.clock.now();
            let admit = lock(&self.budget).admit(bucket, cost, self.options.reserve, now, Instant::now());
            match admit {
                Admit::Go => {
                    let mut under_way = UnderWay { github: self, bucket, slot: None };
                    under_way.slot = self.slot().await;
                    return Ok(under_way);
                }
                // The second is for the case that what ended did so before we began to listen.
                Admit::AfterAnother => {
                    let _either = tokio::time::timeout(Duration::from_secs(1), another_ended).await;
                }
                Admit::After(pause) => {
                    self.options.tally.waited(pause);
                    tokio::time::sleep(pause).await;
                }
                Admit::Limited(until) => {
                    let secondary = lock(&self.budget).is_stopped(now);
                    return Err(limit_error(until, secondary, self.is_anonymous()));
                }
                Admit::Reserved(until) => {
                    let text = format!("what is left of the rate limit until {until} is reserved for others");
                    return Err(Error::new(Kind::Limited { until: Some(until), secondary: false }, text));
                }
            }
        }
    }

    /// A place among those of all processes of this machine; none where they cannot be counted.
    async fn slot(&self) -> Option<Lock> {
        let shared = self.shared.as_ref().filter(|_| !lock(&self.budget).is_unlimited())?;
        loop {
            match shared.slot((luck() * MAX_CONCURRENCY as f64) as usize) {
                Ok(Some(file)) => return Some(file),
                Ok(None) => tokio::time::sleep(SLOT_PAUSE).await,
                Err(error) => {
                    tracing::debug!(%error, "requests of other processes cannot be counted");
                    return None;
                }
            }
        }
    }

    /// Removes what is left of identities that are used no more, on a thread of its own, if it is time.
    fn sweep(&self) {
        let now = self.clock.now();
        if let Some(dir) = self.options.limits_dir.clone().filter(|dir| sweep::is_due(dir, now)) {
            let _best_effort = std::thread::Builder::new().name("sweep".into()).spawn(move || sweep::sweep(&dir, now));
        }
    }

    /// Learns what other processes told, once, and tells nothing: who is answered from the cache
    /// writes nothing.
    pub(super) fn peek(&self) {
        if let (Some(shared), None) = (&self.shared, *lock(&self.synced)) {
            shared.peek(&mut lock(&self.budget), self.clock.now());
        }
    }

    /// Tells other processes what we know and learns what they know, if it is time, or at once.
    pub(super) fn sync(&self, at_once: bool) {
        let Some(shared) = &self.shared else { return };
        let at = Instant::now();
        let mut synced = lock(&self.synced);
        if synced.is_none() {
            self.sweep();
        }
        if !at_once && synced.is_some_and(|last| at.duration_since(last) < SYNC_EVERY) {
            return;
        }
        *synced = Some(at);
        let mut budget = lock(&self.budget);
        // Where there is no limit, nobody else need leave room for us.
        let points = if budget.is_unlimited() { (0, 0) } else { budget.points(at) };
        if let Err(error) = shared.sync(&mut budget, points, self.clock.now()) {
            tracing::debug!(%error, "limits cannot be shared with other processes");
        }
    }
}
