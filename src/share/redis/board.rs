//! Where peers leave a note of where they are, in Redis: sets that end by themselves.
//!
//! Knows: names and commands. Does not know: what an address is.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Redis;
use super::link::Reply;
use super::names;
use crate::clock::Clock;
use crate::share::peers::Board;

/// A note is found for an hour or two.
const NOTE_SECS: i64 = 3_600;

/// Addresses that are read at once.
const MAX_READ: usize = 64;

/// The notes of one group.
#[derive(Debug)]
pub struct Notes {
    redis: Arc<Redis>,
    group: String,
    clock: Clock,
}

impl Notes {
    /// Those of a group, by its short name.
    pub fn new(redis: Arc<Redis>, group: String, clock: Clock) -> Self {
        Self { redis, group, clock }
    }

    /// The set of this hour, and of the one before.
    fn sets(&self) -> [String; 2] {
        let hour = self.clock.now().secs() / NOTE_SECS;
        [hour, hour - 1].map(|hour| names::peers(&self.group, hour))
    }
}

impl Board for Notes {
    fn read(&self) -> BoxFuture<'_, Vec<String>> {
        self.redis.start();
        async move {
            let mut pipe = redis::pipe();
            for set in self.sets() {
                pipe.cmd("SRANDMEMBER").arg(set).arg(MAX_READ);
            }
            match self.redis.link.send::<Vec<Vec<String>>>(&pipe).await {
                Reply::Some(found) => found.into_iter().flatten().collect(),
                Reply::Down | Reply::Refused(_) | Reply::Failed => Vec::new(),
            }
        }
        .boxed()
    }

    fn leave(&self, addresses: Vec<String>) -> BoxFuture<'_, ()> {
        self.redis.start();
        async move {
            if self.redis.read_only || addresses.is_empty() {
                return;
            }
            let [set, _] = self.sets();
            let mut pipe = redis::pipe();
            pipe.cmd("SADD").arg(&set).arg(addresses).ignore();
            pipe.cmd("EXPIRE").arg(&set).arg(2 * NOTE_SECS).ignore();
            if let Reply::Refused(error) = self.redis.link.send::<()>(&pipe).await {
                tracing::debug!(%error, "Redis takes no note of where this peer is");
            }
        }
        .boxed()
    }
}
