//! Writing behind the answers, for a process that stays.
//!
//! Knows: that a write takes a thread and longer than an answer may wait, and how to wait for all of
//! them at the end. Does not know: what is written.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Cache;
use crate::entry::Entry;
use crate::key::CacheKey;
use crate::stack::{Stack, Turn};

/// Writes that may be under way; whoever comes after them writes himself.
const MAX_WRITES: u32 = 256;

/// Writes under way.
#[derive(Debug, Clone)]
pub struct Behind(Arc<Semaphore>);

impl Default for Behind {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_WRITES as usize)))
    }
}

impl Behind {
    /// Holds `entry` in memory and writes it on another thread. The turn ends when it is written, so
    /// that another process which waits for it finds the entry.
    pub(super) fn store(&self, stack: &Arc<Stack>, key: &CacheKey, entry: &Arc<Entry>, turn: Option<Turn>) {
        stack.keep_in_memory(key, entry);
        let Ok(place) = self.0.clone().try_acquire_owned() else {
            stack.put(entry);
            return;
        };
        let (stack, entry) = (stack.clone(), entry.clone());
        tokio::task::spawn_blocking(move || {
            if !stack.is_superseded(&entry) {
                stack.put(&entry);
            }
            drop((turn, place));
        });
    }

    /// Waits until everything is written.
    pub async fn drained(&self) {
        let _all = self.0.acquire_many(MAX_WRITES).await;
    }
}

impl Cache {
    /// Stores an entry: at once, or in memory now and on disk behind the answer.
    pub(super) fn store(&self, key: &CacheKey, entry: Entry, turn: Option<Turn>) -> Arc<Entry> {
        let entry = self.keep(key, entry, turn);
        self.offer(&entry);
        entry
    }

    /// The same without telling anybody else.
    pub(super) fn keep(&self, key: &CacheKey, entry: Entry, turn: Option<Turn>) -> Arc<Entry> {
        let entry = Arc::new(entry);
        match &self.behind {
            None => {
                self.stack.keep_in_memory(key, &entry);
                self.stack.put(&entry);
            }
            Some(behind) => behind.store(&self.stack, key, &entry, turn),
        }
        entry
    }
}
