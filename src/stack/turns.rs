//! Turns between processes: who fetches a key holds a lock, so that others wait for what it brings.
//!
//! Knows: a few hundred lock files, which the kernel releases when their holder dies. Does not
//! know: what is fetched. Two keys may share a lock; then they only take turns.

use std::time::Duration;

use tokio::time::Instant;

use super::Stack;
use crate::files::{self, Lock};
use crate::key::CacheKey;

/// Nobody waits longer for another process, which may itself be waiting for a limit.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Who has a stale answer waits no longer than this.
const LONGEST_WAIT_WITH_STALE: Duration = Duration::from_secs(5);

/// A taken turn is asked for again after so long, doubling up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);

const LONGEST_PAUSE: Duration = Duration::from_millis(50);

impl Stack {
    /// Waits for the turn to fetch `key`; it ends when the lock is dropped. `None` where there are
    /// no turns: the store cannot be written, or the one before takes too long. Whose turn it is
    /// looks again (`may_wait`: there is nothing to answer meanwhile): what others stored meanwhile is to be seen by then.
    pub async fn turn(&self, key: &CacheKey, may_wait: bool) -> Option<Lock> {
        let longest = if may_wait { LONGEST_WAIT } else { LONGEST_WAIT_WITH_STALE };
        if !*self.prepared.get_or_init(|| self.said(self.prepare())) {
            return None;
        }
        let dir = self.dir.join("turns");
        let path = dir.join(format!("{:02x}", key.as_bytes()[0]));
        let open = || Lock::open(&path);
        let lock = open().or_else(|_| files::create_private_dir(&dir).and_then(|()| open())).ok()?;
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match lock.take() {
                Ok(true) => {
                    // A server looks every second; whoever has just begun, or has waited, must look now.
                    if !self.is_resident() || pause > FIRST_PAUSE {
                        self.look_again();
                    }
                    return Some(lock);
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
