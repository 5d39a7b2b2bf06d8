//! Redis as a place that many share (E1): entries under names that expire, and who asks GitHub for what
//! is nowhere.
//!
//! Knows: what is sent for a look-up, a claim, a writing. Does not know: freshness; whoever finds a copy
//! here judges it by his own policy.

#[cfg(feature = "p2p")]
pub mod board;
mod link;
mod names;
mod write;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use redis::{FromRedisValue, IntoConnectionInfo, Pipeline, RedisResult, Value};
use tokio::task::AbortHandle;

use self::link::{Link, Reply};
use self::names::Space;
use self::write::{Write, Writes};
use super::patience::Limits;
use super::value;
use super::{Claim, Copy, Faith, Guard, Place, Tallied, Wanted};
use crate::clock::Clock;
use crate::cutoff::{Cutoff, Cutoffs};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::tier::TierName;
use crate::token::Secret;

/// No operation is waited for longer, unless somebody says otherwise.
pub const TIMEOUT: Duration = Duration::from_millis(50);

/// Entries that one pipeline asks for; more are several pipelines at once.
const AT_ONCE: usize = 256;

/// Whoever asks GitHub for something is waited for so long.
const CLAIM: Duration = Duration::from_secs(3);

/// How often the others look whether it is there, to begin with.
const LOOK_FIRST: Duration = Duration::from_millis(4);
const LOOK_LAST: Duration = Duration::from_millis(100);

/// How Redis is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its address, as in `redis://user:password@host:port/db` or `rediss://…` for TLS.
    pub url: Secret,
    /// No operation is waited for longer.
    pub timeout: Duration,
    /// Whether it is only read.
    pub read_only: bool,
}

/// Redis.
#[derive(Debug)]
pub struct Redis {
    link: Arc<Link>,
    writes: Writes,
    read_only: bool,
    tally: Arc<Tally>,
    /// The tasks that connect and write, on the runtime where this was used first.
    tasks: OnceLock<[AbortHandle; 2]>,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.tasks.get().into_iter().flatten().for_each(AbortHandle::abort);
    }
}

/// Counters, as in [`Tallied`].
#[derive(Debug, Default)]
struct Tally {
    looked_up: AtomicU64,
    hits: AtomicU64,
    written: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Redis {
    /// Reads the address; nothing is connected before the first use.
    ///
    /// Errors when it is none. The error does not repeat it, since it may hold a password.
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self> {
        let info = settings.url.reveal().into_connection_info().map_err(|_| {
            Error::usage("the address of Redis cannot be read")
                .hint("it looks like redis://host:6379 or rediss://user:password@host:6379/0")
        })?;
        let link = Link::new(info, Limits::new(settings.timeout));
        let tally = Arc::<Tally>::default();
        let writes = Writes::new(link.clone(), tally.clone(), clock);
        Ok(Self { link, writes, read_only: settings.read_only, tally, tasks: OnceLock::new() })
    }

    fn start(&self) {
        self.tasks.get_or_init(|| [self.link.start(), self.writes.start()]);
    }

    /// Bytes under `names`, each as far as it may be a value.
    fn reading<'a>(names: impl Iterator<Item = &'a str>) -> Pipeline {
        let mut pipe = redis::pipe();
        names.for_each(|name| Self::add_reading(&mut pipe, name));
        pipe.ignore_errors();
        pipe
    }

    /// GET without an end would let a foreign value of half a gigabyte in.
    fn add_reading(pipe: &mut Pipeline, name: &str) {
        pipe.cmd("GETRANGE").arg(name).arg(0).arg(value::MAX_VALUE_BYTES);
    }

    async fn look_up_some(&self, wanted: &[Wanted]) -> Vec<Option<Entry>> {
        let names: Vec<String> = wanted.iter().map(|one| Space::of(&one.parts.partition).entry(&one.key)).collect();
        let pipe = Self::reading(names.iter().map(String::as_str));
        let found = |replies: &Vec<RedisResult<Vec<u8>>>| {
            replies.iter().any(|reply| reply.as_ref().is_ok_and(|bytes| !bytes.is_empty()))
        };
        let replies = match self.link.ask(&pipe, found).await {
            Reply::Some(replies) if replies.len() == wanted.len() => replies,
            Reply::Down => return vec![None; wanted.len()],
            Reply::Some(_) | Reply::Refused(_) | Reply::Failed => {
                count(&self.tally.failed, 1);
                return vec![None; wanted.len()];
            }
        };
        replies.into_iter().zip(wanted).map(|(reply, wanted)| self.read(reply, wanted)).collect()
    }

    fn read(&self, reply: RedisResult<Vec<u8>>, wanted: &Wanted) -> Option<Entry> {
        let refused = |why: &dyn std::fmt::Display| {
            count(&self.tally.refused, 1);
            tracing::debug!(key = %wanted.key, %why, "what Redis has is no entry of ours; it counts as a miss");
        };
        match reply {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => match value::decode(bytes.into(), Some(&wanted.key)) {
                Ok(entry) => {
                    count(&self.tally.hits, 1);
                    self.writes.know(&wanted.key, &entry);
                    Some(entry)
                }
                Err(error) => {
                    refused(&error);
                    None
                }
            },
            Err(error) => {
                refused(&error);
                None
            }
        }
    }

    async fn claim_or_wait(&self, wanted: &Wanted) -> Claim {
        let space = Space::of(&wanted.parts.partition);
        let (claim, entry) = (space.claim(&wanted.key), space.entry(&wanted.key));
        let give_up = tokio::time::Instant::now() + CLAIM;
        let mut pause = LOOK_FIRST;
        loop {
            // First the claim: whoever gives one up has written the entry before.
            let mut pipe = redis::pipe();
            pipe.cmd("SET").arg(&claim).arg(1).arg("NX").arg("PX").arg(CLAIM.as_millis() as u64);
            Self::add_reading(&mut pipe, &entry);
            let found = |replies: &Vec<RedisResult<Value>>| matches!(replies.as_slice(), [_, Ok(Value::BulkString(bytes))] if !bytes.is_empty());
            let reply = self.link.ask(pipe.ignore_errors(), found).await;
            let Reply::Some(replies) = reply else { return Claim::Ours(None) };
            let mut replies = replies.into_iter();
            let claimed = replies.next();
            let guard = matches!(claimed, Some(Ok(Value::Okay))).then(|| {
                let (writes, key, space) = (self.writes.clone(), wanted.key, space.clone());
                Guard::new(move || writes.send(Write::Release(space, key)))
            });
            let held = replies
                .next()
                .and_then(|reply| self.read(reply.and_then(|value| Ok(Vec::from_redis_value(value)?)), wanted));
            let news = held.filter(|entry| wanted.known.is_none_or(|known| entry.validated_at > known));
            match (news, guard, claimed) {
                (Some(entry), ..) => {
                    return Claim::Answered(Box::new(Copy { entry, tier: TierName::Redis, faith: Faith::Trusted }));
                }
                (None, Some(guard), _) => return Claim::Ours(Some(guard)),
                // Somebody else asks.
                (None, None, Some(Ok(Value::Nil))) => {}
                // It may not be written: then nobody is waited for.
                (None, None, _) => return Claim::Ours(None),
            }
            if tokio::time::Instant::now() + pause > give_up {
                return Claim::Ours(None);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_LAST);
        }
    }
}

impl Place for Redis {
    fn tier(&self) -> TierName {
        TierName::Redis
    }

    fn look_up<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Option<(Entry, Faith)>>> {
        self.start();
        count(&self.tally.looked_up, wanted.len() as u64);
        async move {
            // All pipelines are under way at once, over one connection. One holds keys of one slot.
            let mut order: Vec<usize> = (0..wanted.len()).collect();
            order.sort_by(|a, b| wanted[*a].parts.partition.as_str().cmp(wanted[*b].parts.partition.as_str()));
            let sorted: Vec<Wanted> = order.iter().map(|at| wanted[*at].clone()).collect();
            let mut asked: FuturesOrdered<_> = sorted
                .chunk_by(|a, b| a.parts.partition == b.parts.partition)
                .flat_map(|same| same.chunks(AT_ONCE))
                .map(|some| self.look_up_some(some))
                .collect();
            let mut found = Vec::with_capacity(wanted.len());
            while let Some(some) = asked.next().await {
                found.extend(some);
            }
            let mut placed: Vec<(usize, Option<Entry>)> = order.into_iter().zip(found).collect();
            placed.sort_unstable_by_key(|(at, _)| *at);
            placed.into_iter().map(|(_, entry)| Some((entry?, Faith::Trusted))).collect()
        }
        .boxed()
    }

    fn claim<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Option<Claim>> {
        self.start();
        if self.read_only {
            return std::future::ready(None).boxed();
        }
        count(&self.tally.looked_up, 1);
        async move { Some(self.claim_or_wait(wanted).await) }.boxed()
    }

    fn put(&self, entry: &Arc<Entry>, keep_secs: u64) {
        if !self.read_only && tokio::runtime::Handle::try_current().is_ok() {
            self.start();
            self.writes.put(entry, keep_secs);
        }
    }

    fn outdate(&self, cutoffs: &[Cutoff]) {
        if !self.read_only && !cutoffs.is_empty() {
            self.writes.outdate(cutoffs);
        }
    }

    fn cutoffs(&self) -> BoxFuture<'_, Option<Cutoffs>> {
        self.start();
        self.writes.cutoffs(!self.read_only).boxed()
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        self.start();
        self.writes.drained().boxed()
    }

    fn tallied(&self) -> Tallied {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tallied {
            looked_up: load(&self.tally.looked_up),
            hits: load(&self.tally.hits),
            written: load(&self.tally.written),
            refused: load(&self.tally.refused),
            failed: load(&self.tally.failed),
            dropped: load(&self.tally.dropped),
            connected: None,
            waited_micros: self.link.gate().waited().as_micros() as u64,
            up: self.link.is_up(),
        }
    }
}
