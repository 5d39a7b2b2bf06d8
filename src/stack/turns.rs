//! Turns between processes: who fetches a key holds a lock, so that others wait for what it brings.
//!
//! Knows: a few hundred lock files, which the kernel releases when their holder dies. Does not
//! know: what is fetched. Two keys may share a lock; then they only take turns. Whoever fails leaves a note, so that those who
//! waited fail with it instead of trying one after the other.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Stack;
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::files::{self, Lock};
use crate::key::CacheKey;

/// Nobody waits longer for another process, which may itself be waiting for a limit.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Who has a stale answer waits no longer than this.
const LONGEST_WAIT_WITH_STALE: Duration = Duration::from_secs(5);

/// A taken turn is asked for again after so long, doubling up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);

const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A note is one line of JSON.
const MAX_NOTE_BYTES: u64 = 4 << 10;

/// The turn to fetch a key; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    lock: Lock,
    key: CacheKey,
    /// When the wait for it began, if there was one.
    waiting_since: Option<Timestamp>,
}

/// What a turn failed of.
#[derive(Serialize, Deserialize)]
struct Failure {
    key: String,
    at: Timestamp,
    /// The status of a 5xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Whether there was no response in time.
    #[serde(default)]
    timed_out: bool,
    text: String,
}

impl Turn {
    /// What the turn before failed of, while this one was waited for.
    pub fn failure(&self) -> Option<Error> {
        let since = self.waiting_since?;
        let failure: Failure = serde_json::from_slice(&self.lock.noted(MAX_NOTE_BYTES).ok()?).ok()?;
        if failure.at < since || failure.key != self.key.to_string() {
            return None;
        }
        let kind = match failure.status {
            Some(status) => Kind::Server(status),
            None if failure.timed_out => Kind::TimedOut,
            None => Kind::Transport,
        };
        Some(Error::new(kind, format!("{} (another process asked)", failure.text)))
    }

    /// Leaves for those who wait what this turn failed of. Best effort.
    pub fn failed(&self, error: &Error, now: Timestamp) {
        let status = match error.kind() {
            Kind::Server(status) => Some(status),
            Kind::Transport | Kind::TimedOut => None,
            _ => return,
        };
        let timed_out = error.kind() == Kind::TimedOut;
        let failure = Failure { key: self.key.to_string(), at: now, status, timed_out, text: error.to_string() };
        let _best_effort = self.lock.note(&serde_json::to_vec(&failure).unwrap_or_default());
    }
}

impl Stack {
    /// Waits for the turn to fetch `key`; `None` where there are
    /// no turns: the store cannot be written, or the one before takes too long. Whose turn it is
    /// looks again (`may_wait`: there is nothing to answer meanwhile): what others stored meanwhile is to be seen by then.
    pub async fn turn(&self, key: &CacheKey, may_wait: bool) -> Option<Turn> {
        let longest = if may_wait { LONGEST_WAIT } else { LONGEST_WAIT_WITH_STALE };
        if !*self.prepared.get_or_init(|| self.said(self.prepare())) {
            return None;
        }
        let dir = self.dir.join("turns");
        let path = dir.join(format!("{:02x}", key.as_bytes()[0]));
        let open = || Lock::open(&path);
        let lock = open().or_else(|_| files::create_private_dir(&dir).and_then(|()| open())).ok()?;
        let (started, since) = (Instant::now(), self.clock.now());
        let mut pause = FIRST_PAUSE;
        loop {
            match lock.take() {
                Ok(true) => {
                    // A server looks every second; whoever has just begun, or has waited, must look now.
                    if !self.is_resident() || pause > FIRST_PAUSE {
                        self.look_again();
                    }
                    let waiting_since = Some(since).filter(|_| pause > FIRST_PAUSE);
                    return Some(Turn { lock, key: *key, waiting_since });
                }
                Ok(false) if started.elapsed() < longest => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Ok(false) | Err(_) => return None,
            }
        }
    }
}
