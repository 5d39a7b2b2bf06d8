//! Where peers leave a note of where they are, in Redis: lines that are added to, and end by themselves.
//!
//! Knows: names and commands. Does not know: what an address is.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::RedisResult;

use super::Redis;
use super::link::Reply;
use super::names;
use crate::clock::Clock;
use crate::share::peers::Board;

/// A note is found for an hour or two.
const NOTE_SECS: i64 = 3_600;

/// Of what was left, the last bytes are read: whoever can write there can write without end.
const MAX_READ: isize = 16 << 10;

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

    /// The lines of this hour, and of the one before.
    fn names(&self) -> [String; 2] {
        let hour = self.clock.now().secs() / NOTE_SECS;
        [hour, hour - 1].map(|hour| names::peers(&self.group, hour))
    }
}

/// Lines, the last one first. What is no text is no address.
fn lines(read: &[u8]) -> impl Iterator<Item = String> {
    let lines = read.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(|line| std::str::from_utf8(line).ok()).map(str::to_owned)
}

impl Board for Notes {
    fn read(&self) -> BoxFuture<'_, Vec<String>> {
        self.redis.start();
        async move {
            let mut pipe = redis::pipe();
            for name in self.names() {
                pipe.cmd("GETRANGE").arg(name).arg(-MAX_READ).arg(-1);
            }
            match self.redis.link.send::<Vec<RedisResult<Vec<u8>>>>(pipe.ignore_errors()).await {
                Reply::Some(found) => found.iter().flatten().flat_map(|read| lines(read)).collect(),
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
            let [name, _] = self.names();
            let mut pipe = redis::pipe();
            pipe.cmd("APPEND").arg(&name).arg(addresses.join("\n") + "\n").ignore();
            pipe.cmd("EXPIRE").arg(&name).arg(2 * NOTE_SECS).ignore();
            if let Reply::Refused(error) = self.redis.link.send::<()>(&pipe).await {
                tracing::debug!(%error, "Redis takes no note of where this peer is");
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_lines_come_first_and_nonsense_is_left_out() {
        let read: Vec<String> = super::lines(b"5/tcp/9\n/ip4/1\n\n\xff\xfe\n/ip4/2\n").collect();
        assert_eq!(read, ["/ip4/2", "/ip4/1", "5/tcp/9"]);
        assert_eq!(super::lines(b"").count(), 0);
    }
}
