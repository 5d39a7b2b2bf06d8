//! Writing to Redis behind the answers, and what everybody has outdated.
//!
//! Knows: what waits, that many writes go out as one, that the list of cutoffs is changed by who read it
//! last. Does not know: who waits for an answer; nobody waits for this but the end of a process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache as Table;
use redis::RedisResult;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::link::{Link, Reply};
use super::names::{self, Space};
use super::{Tally, count};
use crate::cid::Cid;
use crate::clock::{Clock, Timestamp};
use crate::cutoff::{Cutoff, CutoffMode, Cutoffs, MAX_BYTES};
use crate::entry::Entry;
use crate::key::CacheKey;
use crate::share::value;
use crate::tag::{Scope, Subject, Tag};

/// Writes that may wait, and the bytes of their bodies; what comes after is not shared.
const MAX_WAITING: usize = 8_192;
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Writes that go out as one.
const AT_ONCE: usize = 128;

/// What was written of late is remembered for so many entries.
const KNOWN: usize = 65_536;

/// A confirmation alone is not worth writing again within so many seconds.
const AGAIN_SECS: u64 = 2;

/// Indexes outlive all of their entries.
const INDEX_SECS: u64 = 400 * 86_400;

/// The list of cutoffs is gone once nothing is old enough to be touched by it.
const CUTOFF_SECS: u64 = 400 * 86_400;

/// Attempts to change the list when others change it, too.
const ATTEMPTS: u32 = 200;

/// What could not be said is said again after this.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// Members of an index that are looked at in one go.
const MEMBERS: usize = 256;

/// Changes the list if it is still the one that was read: KEYS[1] the hash; ARGV: the revision that was
/// read, the new list, its lifetime.
const CHANGE: &str = "if (redis.call('HGET', KEYS[1], 'rev') or '0') ~= ARGV[1] then return 0 end \
redis.call('HSET', KEYS[1], 'list', ARGV[2]) redis.call('HINCRBY', KEYS[1], 'rev', 1) \
redis.call('EXPIRE', KEYS[1], ARGV[3]) return 1";

/// What is to be written.
#[derive(Debug)]
pub(super) enum Write {
    Put(Arc<Entry>, u64),
    Release(Space, CacheKey),
    Drained(oneshot::Sender<()>),
}

/// The queue.
#[derive(Debug, Clone)]
pub(super) struct Writes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Arc<Link>,
    tally: Arc<Tally>,
    queue: mpsc::Sender<Write>,
    waiting: Mutex<Option<mpsc::Receiver<Write>>>,
    bytes: AtomicUsize,
    /// What Redis has of an entry, as far as we know.
    known: Table<CacheKey, (Timestamp, Cid)>,
    /// What is to be said to all; the list merges, so it stays small, and nothing of it is dropped.
    unsaid: Mutex<Cutoffs>,
    wake: Notify,
    /// The list holds times from the future, and is to be written anew.
    to_correct: AtomicBool,
    clock: Clock,
    /// The revision of the list that was read last; -1 before.
    rev: AtomicI64,
}

impl Writes {
    pub(super) fn new(link: Arc<Link>, tally: Arc<Tally>, clock: Clock) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        Self(Arc::new(Inner {
            link,
            tally,
            queue,
            waiting: Mutex::new(Some(waiting)),
            bytes: AtomicUsize::new(0),
            known: Table::new(KNOWN),
            unsaid: Mutex::default(),
            wake: Notify::new(),
            to_correct: AtomicBool::new(false),
            clock,
            rev: AtomicI64::new(-1),
        }))
    }

    pub(super) fn start(&self) -> AbortHandle {
        let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writes = self.clone();
        let task = async move {
            if let Some(waiting) = waiting {
                run(writes, waiting).await;
            }
        };
        tokio::spawn(task).abort_handle()
    }

    /// Redis has this copy.
    pub(super) fn know(&self, key: &CacheKey, entry: &Entry) {
        self.0.known.insert(*key, (entry.validated_at, entry.cid));
    }

    pub(super) fn put(&self, entry: &Arc<Entry>, keep_secs: u64) {
        let key = entry.key();
        if let Some((at, cid)) = self.0.known.get(&key)
            && cid == entry.cid
            && entry.validated_at < at.plus(AGAIN_SECS)
        {
            return;
        }
        let size = entry.body.len();
        if self.0.bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_WAITING_BYTES
            || self.0.queue.try_send(Write::Put(entry.clone(), keep_secs)).is_err()
        {
            self.0.bytes.fetch_sub(size, Ordering::Relaxed);
            count(&self.0.tally.dropped, 1);
            return;
        }
        self.know(&key, entry);
    }

    /// Tells everybody what is outdated, as soon as Redis can be reached.
    pub(super) fn outdate(&self, cutoffs: &[Cutoff]) {
        self.keep_unsaid(cutoffs);
        self.0.wake.notify_one();
    }

    fn keep_unsaid(&self, cutoffs: &[Cutoff]) {
        let mut unsaid = self.0.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.clock.now();
        cutoffs.iter().cloned().for_each(|cutoff| unsaid.add(cutoff, now));
    }

    fn take_unsaid(&self) -> Cutoffs {
        std::mem::take(&mut self.0.unsaid.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Best effort: a full queue means that Redis is far behind.
    pub(super) fn send(&self, write: Write) {
        if self.0.queue.try_send(write).is_err() {
            count(&self.0.tally.dropped, 1);
        }
    }

    pub(super) async fn drained(&self) {
        let (done, all) = oneshot::channel();
        let drained = async {
            if self.0.queue.send(Write::Drained(done)).await.is_ok() {
                let _the_end = all.await;
            }
        };
        self.0.link.gate().while_it_replies(drained).await;
    }

    /// The list, if it changed since it was read last.
    pub(super) async fn cutoffs(&self, may_write: bool) -> Option<Cutoffs> {
        let mut pipe = redis::pipe();
        pipe.cmd("HGET").arg(names::CUTOFFS).arg("rev");
        let Reply::Some((rev,)) = self.0.link.ask::<(Option<i64>,)>(&pipe, |_| false).await else { return None };
        let rev = rev.unwrap_or(0);
        if self.0.rev.load(Ordering::Relaxed) == rev {
            return None;
        }
        let (rev, list, corrected) = self.read_list().await?;
        self.0.rev.store(rev, Ordering::Relaxed);
        if corrected > 0 && may_write {
            // Written back with times that can be believed, or each process to come would take the times from
            // the future for the present again.
            self.0.to_correct.store(true, Ordering::Relaxed);
            self.0.wake.notify_one();
        }
        Some(list)
    }

    /// The list and its revision, and how many of its times were corrected. What cannot be read means that
    /// everything is outdated.
    async fn read_list(&self) -> Option<(i64, Cutoffs, usize)> {
        let mut pipe = redis::pipe();
        pipe.cmd("HMGET").arg(names::CUTOFFS).arg("rev").arg("list");
        type Both = ((Option<i64>, Option<Vec<u8>>),);
        let Reply::Some(((rev, list),)) = self.0.link.send::<Both>(&pipe).await else { return None };
        let list = list.unwrap_or_default();
        let now = self.0.clock.now();
        let Some(read) = (if list.len() > MAX_BYTES { None } else { Cutoffs::decode(&list).ok() }) else {
            count(&self.0.tally.refused, 1);
            tracing::warn!("the invalidations in Redis cannot be read; everything is revalidated");
            return Some((rev.unwrap_or(0), Cutoffs::everything(now), 0));
        };
        let corrected = read.from_the_future(now);
        if corrected > 0 {
            count(&self.0.tally.refused, corrected as u64);
            tracing::warn!(backend = "redis", invalidations = corrected, "invalidations from the future corrected");
        }
        Some((rev.unwrap_or(0), read.as_of(now), corrected))
    }

    /// Adds to the list; `false` when Redis cannot be reached.
    async fn add_to_list(&self, new: &Cutoffs) -> bool {
        for _ in 0..ATTEMPTS {
            let Some((rev, mut list, _)) = self.read_list().await else { return false };
            list.merge(new, self.0.clock.now());
            let mut pipe = redis::pipe();
            pipe.cmd("EVAL").arg(CHANGE).arg(1).arg(names::CUTOFFS).arg(rev).arg(list.encode()).arg(CUTOFF_SECS);
            match self.0.link.send::<(i64,)>(&pipe).await {
                Reply::Some((1,)) => return true,
                // Somebody else was quicker.
                Reply::Some(_) => {}
                Reply::Refused(error) => {
                    tracing::warn!(%error, "Redis does not take what is outdated");
                    return false;
                }
                Reply::Failed | Reply::Down => return false,
            }
        }
        false
    }

    /// Removes what is gone, found by the indexes.
    async fn remove(&self, gone: &[Cutoff]) {
        if gone.is_empty() {
            return;
        }
        let mut pipe = redis::pipe();
        pipe.cmd("SMEMBERS").arg(names::PARTITIONS);
        let Reply::Some((partitions,)) = self.0.link.send::<(Vec<String>,)>(&pipe).await else { return };
        for space in partitions.iter().filter_map(|digest| Space::read_back(digest)) {
            for cutoff in gone {
                for tag in self.tags_for(&space, &cutoff.scope).await {
                    self.remove_of(&space, &tag, cutoff).await;
                }
            }
        }
    }

    /// The indexes in which everything in `scope` stands.
    async fn tags_for(&self, space: &Space, scope: &Scope) -> Vec<String> {
        let named = match scope {
            Scope::Prefix(path) => names::tags_of(path).into_iter().next().filter(|tag| tag.starts_with("repo:")),
            Scope::Tags(tags) => tags.iter().find_map(|tag| match tag {
                Tag::Repo(name) => Some(format!("repo:{name}")),
                Tag::Org(name) | Tag::User(name) => Some(format!("owner:{name}")),
                Tag::RepoId(_) | Tag::Family(_) => None,
            }),
            Scope::All | Scope::Key(_) => None,
        };
        // A path may end within the name of a repository.
        if let (Some(tag), false) = (&named, matches!(scope, Scope::Prefix(path) if path.matches('/').count() < 4)) {
            return vec![tag.clone()];
        }
        let mut pipe = redis::pipe();
        pipe.cmd("SMEMBERS").arg(space.tags());
        match self.0.link.send::<(Vec<String>,)>(&pipe).await {
            // Owners and the rest cover everything; repositories would be looked at twice.
            Reply::Some((tags,)) => tags.into_iter().filter(|tag| !tag.starts_with("repo:")).collect(),
            Reply::Refused(_) | Reply::Failed | Reply::Down => Vec::new(),
        }
    }

    async fn remove_of(&self, space: &Space, tag: &str, cutoff: &Cutoff) {
        let index = space.tag(tag);
        let mut cursor = 0_u64;
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("SSCAN").arg(&index).arg(cursor).arg("COUNT").arg(MEMBERS);
            type Some_ = ((u64, Vec<String>),);
            let Reply::Some(((next, members),)) = self.0.link.send::<Some_>(&pipe).await else { return };
            for members in members.chunks(MEMBERS) {
                self.remove_members(space, &index, members, cutoff).await;
            }
            cursor = next;
            if cursor == 0 {
                return;
            }
        }
    }

    async fn remove_members(&self, space: &Space, index: &str, members: &[String], cutoff: &Cutoff) {
        let named: Vec<(&String, String)> =
            members.iter().filter_map(|member| Some((member, space.entry_named(member)?))).collect();
        let reading = super::Redis::reading(named.iter().map(|(_, name)| name.as_str()));
        let reply = self.0.link.send::<Vec<RedisResult<Vec<u8>>>>(&reading).await;
        let Reply::Some(values) = reply else { return };
        let mut pipe = redis::pipe();
        for ((member, name), found) in named.iter().zip(values) {
            let key = CacheKey::parse(member);
            let entry = found.ok().zip(key).and_then(|(bytes, key)| value::decode(bytes.into(), Some(&key)).ok());
            // What is not there any more, or is no entry, leaves the index with what is gone.
            let is_kept = entry.is_some_and(|entry| {
                let subject = Subject { key: &entry.key(), parts: &entry.parts, listing: entry.listing.as_deref() };
                !cutoff.scope.covers(subject) || entry.fetched_at > cutoff.at
            });
            if !is_kept {
                pipe.cmd("UNLINK").arg(name).ignore().cmd("SREM").arg(index).arg(member).ignore();
            }
        }
        if !pipe.is_empty() && !matches!(self.0.link.send::<()>(&pipe).await, Reply::Some(())) {
            count(&self.0.tally.failed, 1);
        }
    }

    /// Sends entries and releases, those of a partition as one.
    async fn write(&self, puts: Vec<(Arc<Entry>, u64)>, releases: Vec<(Space, CacheKey)>) {
        let mut pipes: BTreeMap<String, (redis::Pipeline, u64)> = BTreeMap::new();
        for (entry, keep_secs) in puts {
            self.0.bytes.fetch_sub(entry.body.len(), Ordering::Relaxed);
            let Some(value) = value::encode(&entry) else {
                count(&self.0.tally.dropped, 1);
                continue;
            };
            let (space, key) = (Space::of(&entry.parts.partition), entry.key());
            let (pipe, entries) = pipes.entry(space.digest().to_owned()).or_default();
            *entries += 1;
            let keep = keep_secs.clamp(1, INDEX_SECS) * 1_000;
            pipe.cmd("SET").arg(space.entry(&key)).arg(value).arg("PX").arg(keep).ignore();
            let path = entry.listing.as_deref().unwrap_or(&entry.parts.path);
            for tag in names::tags_of(path) {
                let index = space.tag(&tag);
                pipe.cmd("SADD").arg(&index).arg(key.to_string()).ignore();
                pipe.cmd("EXPIRE").arg(&index).arg(INDEX_SECS).ignore();
                pipe.cmd("SADD").arg(space.tags()).arg(tag).ignore();
            }
            pipe.cmd("EXPIRE").arg(space.tags()).arg(INDEX_SECS).ignore();
        }
        for (space, key) in releases {
            let (pipe, _) = pipes.entry(space.digest().to_owned()).or_default();
            pipe.cmd("DEL").arg(space.claim(&key)).ignore();
        }
        for (digest, (pipe, entries)) in pipes {
            match self.0.link.send::<()>(&pipe).await {
                Reply::Some(()) => count(&self.0.tally.written, entries),
                Reply::Refused(error) => {
                    // Full, or not ours to write: what is there still answers.
                    tracing::debug!(%error, "Redis does not take entries");
                    count(&self.0.tally.failed, 1);
                    count(&self.0.tally.dropped, entries);
                }
                Reply::Failed | Reply::Down => count(&self.0.tally.dropped, entries),
            }
            self.note_partition(&digest).await;
        }
    }

    /// Records a partition; it lies in another slot than its entries.
    async fn note_partition(&self, digest: &str) {
        let mut pipe = redis::pipe();
        pipe.cmd("SADD").arg(names::PARTITIONS).arg(digest).ignore();
        pipe.cmd("EXPIRE").arg(names::PARTITIONS).arg(INDEX_SECS).ignore();
        let _best_effort = self.0.link.send::<()>(&pipe).await;
    }
}

/// Writes what comes, as much as there is at once, until the runtime ends.
async fn run(writes: Writes, mut waiting: mpsc::Receiver<Write>) {
    let mut some = Vec::new();
    let mut pause = None;
    loop {
        let again = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = again => {}
            () = writes.0.wake.notified() => {}
            _ = waiting.recv_many(&mut some, AT_ONCE) => {}
        }
        // What is outdated first: whoever finds an entry that was put now must find this, too.
        let unsaid = writes.take_unsaid();
        if !unsaid.is_empty() || writes.0.to_correct.swap(false, Ordering::Relaxed) {
            let said = writes.add_to_list(&unsaid).await;
            pause = (!said).then_some(SAY_AGAIN);
            if said {
                let gone: Vec<Cutoff> = unsaid.iter().filter(|one| one.mode == CutoffMode::Gone).cloned().collect();
                writes.remove(&gone).await;
            } else {
                let unsaid: Vec<Cutoff> = unsaid.iter().cloned().collect();
                writes.keep_unsaid(&unsaid);
            }
        }
        let (mut puts, mut releases, mut drained) = (Vec::new(), Vec::new(), Vec::new());
        for write in some.drain(..) {
            match write {
                Write::Put(entry, keep_secs) => puts.push((entry, keep_secs)),
                Write::Release(space, key) => releases.push((space, key)),
                Write::Drained(done) => drained.push(done),
            }
        }
        if !puts.is_empty() || !releases.is_empty() {
            writes.write(puts, releases).await;
        }
        for done in drained {
            let _gone = done.send(());
        }
    }
}
