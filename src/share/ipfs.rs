//! IPFS as a place that keeps copies for long (E3): sealed blocks, pinned by a node of one's own.
//!
//! Knows: what is sealed and under which name it is pinned, that a node may search the network for ever.
//! Does not know: who else has the secret. The node, and whoever it speaks to, sees sealed bytes.

mod pinned;
mod rpc;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::pinned::{PREFIX, Pin, Pinned};
use self::rpc::{MAX_BLOCK_BYTES, Rpc};
use super::gate::Gate;
use super::patience::Limits;
use super::seal::Group;
use super::{Claim, Faith, Place, Tallied, Wanted, value};
use crate::clock::{Clock, Timestamp};
use crate::cutoff::{Cutoff, CutoffMode, Cutoffs};
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::partition::Partition;
use crate::tag::Subject;
use crate::tier::TierName;
use crate::token::Secret;

/// No look-up is waited for longer, unless somebody says otherwise.
pub const TIMEOUT: Duration = Duration::from_millis(80);

/// Calls behind the answers may take so long.
const BEHIND: Duration = Duration::from_secs(10);

/// Blocks that are asked for at once.
const AT_ONCE: usize = 8;

/// Writes that may wait, and their bytes; what comes after is not kept there.
const MAX_WAITING: usize = 4_096;
const MAX_WAITING_BYTES: usize = 64 << 20;

/// What is kept no longer is let go this often, and the node's list read again.
const READ_AGAIN: Duration = Duration::from_mins(10);

/// How IPFS is used.
#[derive(Debug)]
pub struct Settings {
    /// The address of the node's RPC API, as in `http://127.0.0.1:5001`.
    pub api: String,
    /// What the API wants to see in `Authorization`.
    pub authorization: Option<Secret>,
    /// No look-up is waited for longer.
    pub timeout: Duration,
    /// Who can read what is kept there.
    pub group: Arc<Group>,
}

/// A node.
#[derive(Debug)]
pub struct Ipfs {
    inner: Arc<Inner>,
    task: OnceLock<AbortHandle>,
}

#[derive(Debug)]
struct Inner {
    rpc: Rpc,
    gate: Gate,
    group: Arc<Group>,
    clock: Clock,
    pinned: Mutex<Pinned>,
    /// Whether the node's list was read.
    read: watch::Sender<bool>,
    first_until: Mutex<Option<Instant>>,
    queue: mpsc::Sender<Write>,
    waiting: Mutex<Option<mpsc::Receiver<Write>>>,
    bytes: AtomicUsize,
    looked_up: AtomicU64,
    hits: AtomicU64,
    written: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Write {
    Put(Arc<Entry>, u64),
    Gone(Vec<Cutoff>),
    Drained(oneshot::Sender<()>),
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Drop for Ipfs {
    fn drop(&mut self) {
        self.task.get().into_iter().for_each(AbortHandle::abort);
    }
}

impl Ipfs {
    /// Reads the address; nothing is connected before the first use.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self> {
        let Settings { api, authorization, timeout, group } = settings;
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let inner = Inner {
            rpc: Rpc::new(&api, authorization.as_ref())?,
            gate: Gate::new("The IPFS node", Limits::new(timeout)),
            group,
            clock,
            pinned: Mutex::default(),
            read: watch::Sender::new(false),
            first_until: Mutex::default(),
            queue,
            waiting: Mutex::new(Some(waiting)),
            bytes: AtomicUsize::new(0),
            looked_up: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            written: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner), task: OnceLock::new() })
    }

    /// The task that reads the node's list and writes runs where this is used first.
    fn start(&self) {
        self.task.get_or_init(|| {
            let inner = self.inner.clone();
            *lock(&inner.first_until) = Some(Instant::now() + inner.gate.limits().first());
            let waiting = lock(&inner.waiting).take();
            let task = async move {
                if let Some(waiting) = waiting {
                    keep(inner, waiting).await;
                }
            };
            tokio::spawn(task).abort_handle()
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// A call behind the answers that takes no longer than it may.
    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Error::new(Kind::TimedOut, "IPFS node: no answer in time");
        let answer = tokio::time::timeout(BEHIND, call).await.map_err(late)??;
        self.gate.replied();
        Ok(answer)
    }

    /// Whether the node's list is known; the first ones wait for it.
    async fn is_ready(&self) -> bool {
        if *self.read.borrow() {
            return self.gate.is_open();
        }
        let Some(until) = *lock(&self.first_until) else { return false };
        let mut read = self.read.subscribe();
        let known = tokio::time::timeout_at(until, read.wait_for(|read| *read || !self.gate.is_open()));
        let known = known.await.is_ok_and(|read| read.is_ok_and(|read| *read));
        if !known && lock(&self.first_until).take().is_some() {
            self.gate.answered(self.gate.limits().first(), false);
        }
        known
    }

    /// The latest copy of what is wanted that is kept, and is news.
    fn pin_of(&self, wanted: &Wanted) -> Option<Pin> {
        let now = self.clock.now();
        let pinned = lock(&self.pinned);
        let ids = self.group.ids();
        let names = ids.iter().filter_map(|id| Some(format!("{id}-{}", self.group.name(id, &wanted.key)?)));
        let pins = names.filter_map(|of| pinned.get(&of).cloned());
        let news = |pin: &Pin| pin.until > now && wanted.known.is_none_or(|known| pin.validated_at > known);
        pins.filter(news).max_by_key(|pin| pin.validated_at)
    }

    async fn look_up(&self, wanted: &Wanted) -> Option<Entry> {
        let pin = self.pin_of(wanted)?;
        let (block, took) = self.gate.in_time(self.rpc.get(&pin.cid)).await;
        let block = match block {
            Some(Ok(block)) => block,
            Some(Err(error)) => {
                tracing::debug!(%error, cid = %pin.cid, "not fetched from IPFS");
                count(&self.failed);
                // It answered, though not with the block.
                self.gate.answered(took, false);
                return None;
            }
            None => {
                count(&self.failed);
                self.gate.failed();
                return None;
            }
        };
        self.gate.replied();
        let entry =
            self.read(&block, &wanted.parts.partition).and_then(|plain| value::decode(plain, Some(&wanted.key)));
        self.gate.answered(took, entry.is_ok());
        match entry {
            Ok(entry) => {
                count(&self.hits);
                Some(entry)
            }
            Err(error) => {
                tracing::debug!(%error, cid = %pin.cid, "what IPFS has is no entry of ours; it counts as a miss");
                count(&self.refused);
                None
            }
        }
    }

    fn read(&self, block: &[u8], partition: &Partition) -> Result<bytes::Bytes> {
        self.group.open(partition.as_str(), block).map(Into::into)
    }

    /// Reads the node's list, and lets go what need not be kept.
    async fn read_list(&self) -> Result<Duration> {
        let started = Instant::now();
        let list = self.call(self.rpc.pins(PREFIX)).await?;
        let took = started.elapsed();
        let (pinned, gone) = Pinned::of(list, self.clock.now());
        *lock(&self.pinned) = pinned;
        self.read.send_replace(true);
        for cid in gone {
            self.call(self.rpc.unpin(&cid)).await?;
        }
        Ok(took)
    }

    async fn write(&self, write: Write) {
        match write {
            Write::Put(entry, keep_secs) => {
                self.bytes.fetch_sub(entry.body.len(), Ordering::Relaxed);
                match self.put(&entry, keep_secs).await {
                    Ok(true) => count(&self.written),
                    Ok(false) => count(&self.dropped),
                    Err(error) => {
                        tracing::debug!(%error, "not kept by IPFS");
                        count(&self.failed);
                        count(&self.dropped);
                        self.gate.failed();
                    }
                }
            }
            Write::Gone(cutoffs) => {
                if let Err(error) = self.let_go(&cutoffs).await {
                    tracing::warn!(%error, "what must be gone is still pinned; it answers nothing any more");
                }
            }
            Write::Drained(done) => drop(done.send(())),
        }
    }

    /// Puts and pins a copy in place of an older one; `false` when it is too large or there is a later one.
    async fn put(&self, entry: &Entry, keep_secs: u64) -> Result<bool> {
        let id = self.group.id();
        let (Some(name), Some(plain)) = (self.group.name(&id, &entry.key()), value::encode(entry)) else {
            return Ok(false);
        };
        let sealed = self.group.seal(entry.parts.partition.as_str(), &plain)?;
        if sealed.len() > MAX_BLOCK_BYTES || !self.gate.is_open() {
            return Ok(false);
        }
        let of = format!("{id}-{name}");
        let (validated_at, until) = (entry.validated_at, self.clock.now().plus(keep_secs));
        if lock(&self.pinned).get(&of).is_some_and(|pin| pin.validated_at >= validated_at) {
            return Ok(true);
        }
        let pin = Pin { cid: self.call(self.rpc.put(&sealed)).await?, validated_at, until };
        self.call(self.rpc.pin(&pin.cid, &pinned::name(&of, &pin))).await?;
        let gone = lock(&self.pinned).add(of, pin);
        if let Some(cid) = gone {
            self.call(self.rpc.unpin(&cid)).await?;
        }
        Ok(true)
    }

    /// Lets go what must be gone. Names do not say what a copy is of, so each is looked into.
    async fn let_go(&self, gone: &[Cutoff]) -> Result<()> {
        let all = lock(&self.pinned).all();
        for (of, pin) in all {
            if !self.gate.is_open() {
                return Err(Error::new(Kind::Transport, "the IPFS node does not answer"));
            }
            let doomed = match self.call(self.rpc.get(&pin.cid)).await {
                Ok(block) => self.is_doomed(&block, gone),
                // It is nobody's any more, or cannot be found: it answers nothing.
                Err(_) => true,
            };
            if doomed {
                self.call(self.rpc.unpin(&pin.cid)).await?;
                lock(&self.pinned).remove(&of);
            }
        }
        Ok(())
    }

    /// Whether a copy is of something that must be gone, or of nothing that can be read.
    fn is_doomed(&self, block: &[u8], gone: &[Cutoff]) -> bool {
        let Ok(entry) = self.group.open_any(block).and_then(|plain| value::decode(plain.into(), None)) else {
            return true;
        };
        let key = entry.key();
        let subject = Subject { key: &key, parts: &entry.parts, listing: entry.listing.as_deref() };
        gone.iter().any(|cutoff| cutoff.scope.covers(subject) && entry.fetched_at <= cutoff.at)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Reads the node's list, then writes what comes; when patience ends, tries the node until it is back.
async fn keep(inner: Arc<Inner>, mut waiting: mpsc::Receiver<Write>) {
    let mut said = false;
    let mut read_at = None;
    loop {
        if read_at.is_none_or(|at: Instant| at.elapsed() > READ_AGAIN) || !inner.gate.is_open() {
            match inner.read_list().await {
                Ok(took) => {
                    read_at = Some(Instant::now());
                    inner.gate.tried(Some(took.min(inner.gate.limits().timeout / 2)));
                }
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "the IPFS node cannot be used; going on without it");
                    }
                    inner.gate.tried(None);
                    // Whoever waits for the list hears that there is none.
                    inner.read.send_modify(|_| ());
                }
            }
        }
        let rest = inner.gate.rests_until();
        let again = rest.unwrap_or_else(|| Instant::now() + READ_AGAIN);
        tokio::select! {
            write = waiting.recv() => match write {
                // What comes while it is left alone is not kept: the next confirmation brings it again.
                Some(Write::Put(entry, _)) if rest.is_some() => {
                    inner.bytes.fetch_sub(entry.body.len(), Ordering::Relaxed);
                    count(&inner.dropped);
                }
                Some(write) => inner.write(write).await,
                None => return,
            },
            () = tokio::time::sleep_until(again) => {}
        }
        let expired = lock(&inner.pinned).take_expired(inner.now());
        for cid in expired {
            let _best_effort = inner.call(inner.rpc.unpin(&cid)).await;
        }
    }
}

impl Place for Ipfs {
    fn tier(&self) -> TierName {
        TierName::Ipfs
    }

    fn look_up<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Option<(Entry, Faith)>>> {
        self.start();
        self.inner.looked_up.fetch_add(wanted.len() as u64, Ordering::Relaxed);
        async move {
            let _waiting = self.inner.gate.wait();
            if !self.inner.is_ready().await {
                return vec![None; wanted.len()];
            }
            let all: Vec<_> = wanted.iter().map(|one| self.inner.look_up(one)).collect();
            let trusted = |entry| Some((entry?, Faith::Trusted));
            stream::iter(all).buffered(AT_ONCE).map(trusted).collect().await
        }
        .boxed()
    }

    /// Nobody is told by a node who asks whom.
    fn claim<'a>(&'a self, _: &'a Wanted) -> BoxFuture<'a, Option<Claim>> {
        std::future::ready(None).boxed()
    }

    fn put(&self, entry: &Arc<Entry>, keep_secs: u64) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.start();
        let inner = &self.inner;
        let size = entry.body.len();
        if inner.bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_WAITING_BYTES
            || inner.queue.try_send(Write::Put(entry.clone(), keep_secs)).is_err()
        {
            inner.bytes.fetch_sub(size, Ordering::Relaxed);
            count(&inner.dropped);
        }
    }

    fn outdate(&self, cutoffs: &[Cutoff]) {
        let gone: Vec<Cutoff> = cutoffs.iter().filter(|one| one.mode == CutoffMode::Gone).cloned().collect();
        if !gone.is_empty() && self.inner.queue.try_send(Write::Gone(gone)).is_err() {
            tracing::warn!("what must be gone is still pinned by IPFS: too much waits to be written");
        }
    }

    /// A node tells nobody what is outdated.
    fn cutoffs(&self) -> BoxFuture<'_, Option<Cutoffs>> {
        std::future::ready(None).boxed()
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        self.start();
        async move {
            let (done, all) = oneshot::channel();
            let drained = async {
                if self.inner.queue.send(Write::Drained(done)).await.is_ok() {
                    let _the_end = all.await;
                }
            };
            self.inner.gate.while_it_replies(drained).await;
        }
        .boxed()
    }

    fn tallied(&self) -> Tallied {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let inner = &self.inner;
        Tallied {
            looked_up: load(&inner.looked_up),
            hits: load(&inner.hits),
            written: load(&inner.written),
            refused: load(&inner.refused),
            failed: load(&inner.failed),
            dropped: load(&inner.dropped),
            connected: None,
            waited_micros: inner.gate.waited().as_micros() as u64,
            up: *inner.read.borrow() && inner.gate.is_open(),
        }
    }
}
