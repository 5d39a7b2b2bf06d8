//! What a node and those who ask it have in common: the index, own entries, claims, what was heard.
//!
//! Knows: what is taken from whom, and what others are answered. Does not know: the network.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::copy::{Name, part};
use super::handing::Kept;
use super::index::{BUCKETS, Index, Known, Learned, Peer};
use super::message::{self, Blob, MAX_NAMES, MAX_SAID, Question, Reply, Said};
use super::transport::Around;
use super::{CLAIM, GIVE_UP, MAX_OWN, Other, Standing, lock};
use crate::clock::{Clock, Timestamp};
use crate::cutoff::{Cutoff, CutoffMode, Cutoffs, SUSPECT_SECS};
use crate::entry::Entry;
use crate::key::CacheKey;
use crate::partition::Partition;
use crate::policy::class;
use crate::share::gate::Gate;
use crate::share::patience::Patience;
use crate::share::seal::Group;
use crate::stack::Stack;
use crate::tag::Subject;

/// What the node and those who ask have in common.
pub(super) struct Shared {
    pub(super) group: Arc<Group>,
    pub(super) clock: Clock,
    pub(super) stack: Arc<Stack>,
    pub(super) partitions: Vec<Partition>,
    pub(super) families: Vec<String>,
    pub(super) writers: HashSet<Peer>,
    pub(super) index: Mutex<Index>,
    /// Names of entries of our own.
    pub(super) own: Mutex<HashMap<Name, CacheKey>>,
    /// Who asks GitHub for what, until when.
    pub(super) claims: Mutex<HashMap<Name, (Peer, Instant)>>,
    pub(super) heard: Mutex<Cutoffs>,
    pub(super) tally: Tally,
    pub(super) by_peer: Mutex<HashMap<Peer, Exchange>>,
    pub(super) me: Peer,
    /// How long all of them together are waited for.
    pub(super) gate: Gate,
    /// How long each of them is.
    pub(super) patience: Mutex<HashMap<Peer, Patience>>,
    /// Whether this machine has compared what it knows to the end: before that it settles nothing.
    pub(super) is_whole: AtomicBool,
    /// Whether this machine stays, and others can dial it.
    pub(super) stays: bool,
    /// Bodies of those that have left, or may; our own where we are one of them.
    pub(super) kept: Kept,
    /// Rung when something was announced.
    pub(super) news: Notify,
}

/// What went between this peer and another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exchange {
    /// Entries that it announced.
    pub announced: u64,
    /// Bodies that it was given, and their bytes.
    pub served: (u64, u64),
    /// Bodies that came from it, and their bytes.
    pub received: (u64, u64),
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) looked_up: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) bytes_said: AtomicU64,
    pub(super) blocks_served: AtomicU64,
    pub(super) bytes_served: AtomicU64,
    pub(super) bytes_received: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Shared {
    /// Who is around, and what went to and fro.
    pub(super) fn standing(&self, around: &Around, is_writer: bool) -> Standing {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let by_peer = lock(&self.by_peer);
        let others = around.peers.iter().map(|one| Other {
            peer: one.peer.to_string(),
            address: one.address.clone(),
            is_writer: self.is_writer(&one.peer),
            exchange: by_peer.get(&one.peer).copied().unwrap_or_default(),
        });
        Standing {
            me: self.me.to_string(),
            listening: around.listening.clone(),
            is_writer,
            peers: others.collect(),
            book: around.book.clone(),
            known: self.index().len(),
            own: lock(&self.own).len(),
            served: (load(&self.tally.blocks_served), load(&self.tally.bytes_served)),
            received_bytes: load(&self.tally.bytes_received),
            said_bytes: load(&self.tally.bytes_said),
        }
    }

    /// Counts what went between this peer and another.
    pub(super) fn exchanged(&self, peer: &Peer, count: impl FnOnce(&mut Exchange)) {
        let mut all = lock(&self.by_peer);
        if all.len() >= MAX_NAMES && !all.contains_key(peer) {
            all.clear();
        }
        count(all.entry(peer.clone()).or_default());
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    pub(super) fn is_writer(&self, peer: &Peer) -> bool {
        self.writers.is_empty() || self.writers.contains(peer)
    }

    pub(super) fn name(&self, key: &CacheKey) -> Name {
        self.group.short_name(key)
    }

    /// Whether an entry is of the kind that is shared.
    pub(super) fn is_shared(&self, entry: &Entry) -> bool {
        let class = class::of(&entry.parts.path, &entry.parts.query);
        let wanted =
            if self.families.is_empty() { !class.private } else { self.families.iter().any(|one| one == class.name) };
        wanted && entry.status == 200 && self.partitions.contains(&entry.parts.partition)
    }

    /// Whether a peer is left alone for the moment.
    pub(super) fn rests(&self, peer: &Peer) -> bool {
        let now = Instant::now();
        matches!(lock(&self.patience).get(peer), Some(Patience::Resting { until, .. }) if *until > now)
    }

    /// A peer was waited for: it sent what it should, did so too late, or not at all.
    pub(super) fn waited_for(&self, peer: &Peer, after: impl FnOnce(Patience, Instant) -> Patience) {
        let mut all = lock(&self.patience);
        if all.len() >= MAX_NAMES {
            all.retain(|_, patience| !patience.is_asking());
        }
        let before = all.get(peer).copied().unwrap_or_default();
        match after(before, Instant::now()) {
            patience if patience == Patience::default() => drop(all.remove(peer)),
            patience => drop((all.len() < MAX_NAMES).then(|| all.insert(peer.clone(), patience))),
        }
    }

    /// Takes an announcement, and says what it is about; `None` when it is malformed.
    pub(super) fn learn(&self, said: Said, from: &Peer) -> Option<(Name, Learned)> {
        let by = said.by().map_or_else(|| from.clone(), Peer::from);
        let Ok((name, known)) = said.read() else {
            count(&self.tally.refused, 1);
            return None;
        };
        if by == self.me {
            return Some((name, Learned::Known));
        }
        lock(&self.claims).remove(&name);
        self.exchanged(&by, |one| one.announced += 1);
        let learned = self.index().learn(name, known, Some(&by), self.clock.now());
        if learned == Learned::FromTheFuture {
            count(&self.tally.refused, 1);
        }
        if matches!(learned, Learned::News | Learned::Holder) {
            self.news.notify_waiters();
        }
        Some((name, learned))
    }

    /// What is known of a name: when it was validated, and who has it.
    pub(super) fn heard_of(&self, name: &Name) -> Option<(Timestamp, Vec<Peer>)> {
        self.index().get(name).map(|known| (known.validated_at, known.holders.clone()))
    }

    /// Waits until something else than `before` is known of a name.
    pub(super) async fn hears_of(&self, name: &Name, before: Option<&(Timestamp, Vec<Peer>)>) {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            if self.heard_of(name).as_ref() != before {
                return;
            }
            news.await;
        }
    }

    /// Takes what others have outdated. A time far ahead would outdate for ever.
    pub(super) fn outdated(&self, cutoffs: Vec<Cutoff>) {
        let now = self.clock.now();
        let latest = now.plus(SUSPECT_SECS);
        let mut heard = lock(&self.heard);
        for mut cutoff in cutoffs {
            cutoff.at = cutoff.at.min(latest);
            if cutoff.mode == CutoffMode::Gone {
                self.forget(&cutoff);
            }
            heard.add(cutoff, now);
        }
    }

    pub(super) fn forget(&self, cutoff: &Cutoff) {
        let gone = self.index().forget(|known| {
            let Ok(head) = Entry::peek_half(&known.head) else { return true };
            let key = head.parts.key();
            let subject = Subject { key: &key, parts: &head.parts, listing: head.listing.as_deref() };
            cutoff.scope.covers(subject) && head.fetched_at <= cutoff.at
        });
        // Nor is it kept for others.
        for name in gone {
            self.kept.remove(&name);
        }
    }

    /// Answers another peer; may wait for the disk.
    pub(super) fn answer(&self, peer: &Peer, question: Question) -> Reply {
        match question {
            Question::Block { name, cid } => {
                let block = message::name(&name).and_then(|name| self.block(&name, &cid.0));
                block.map_or(Reply::No, |block| {
                    self.exchanged(peer, |one| one.served = (one.served.0 + 1, one.served.1 + block.len() as u64));
                    count(&self.tally.blocks_served, 1);
                    count(&self.tally.bytes_served, block.len() as u64);
                    Reply::Block(Blob(block.to_vec()))
                })
            }
            Question::Names(prints) => {
                let index = self.index();
                let names = index.names(&index.differing(&prints), MAX_NAMES, crate::share::random(BUCKETS));
                Reply::Names(names.into_iter().map(|(name, at)| (Blob(name.to_vec()), at.secs())).collect())
            }
            Question::Said(names) => {
                let index = self.index();
                let names = names.iter().take(MAX_SAID).filter_map(message::name);
                let said = names.filter_map(|name| self.said(&name, index.get(&name)?));
                Reply::Said(said.collect())
            }
            Question::Claim { name, known } => {
                let Some(name) = message::name(&name).filter(|_| self.is_whole.load(Ordering::Relaxed)) else {
                    return Reply::No;
                };
                // First the claim: whoever gives one up has announced before.
                let claimed = self.claim(name, peer);
                let index = self.index();
                let later =
                    index.get(&name).filter(|later| known.is_none_or(|known| later.validated_at.secs() > known));
                match later.and_then(|later| self.said(&name, later)) {
                    Some(said) => Reply::Said(vec![said]),
                    None => Reply::Claimed(claimed),
                }
            }
            // The node answers that itself.
            Question::Who => Reply::No,
        }
    }

    /// What is said of a copy to somebody who asks: we have it, or who does, if anybody.
    pub(super) fn said(&self, name: &Name, known: &Known) -> Option<Said> {
        let is_here =
            lock(&self.own).contains_key(name) || self.kept.get(name).is_some_and(|(cid, _)| cid == known.cid);
        let holder = if is_here { Some(&self.me) } else { known.holders.first() };
        Some(Said::of(name, known).held_by(holder?))
    }

    /// Takes an entry of our own into the index; what is to be said of it, or `None` if it is too large.
    pub(super) fn take_own(&self, entry: &Entry) -> Option<Said> {
        let key = entry.key();
        let name = self.name(&key);
        let parted = part(entry, &self.group)?;
        let known = Known {
            head: parted.head,
            cid: parted.cid,
            fetched_at: entry.fetched_at,
            validated_at: entry.validated_at,
            holders: Vec::new(),
        };
        let said = Said::of(&name, &known);
        if !self.stays {
            self.kept.insert(name, (parted.cid, parted.block));
        }
        {
            let mut own = lock(&self.own);
            if own.len() < MAX_OWN {
                own.insert(name, key);
            }
        }
        self.index().learn(name, known, None, self.clock.now());
        lock(&self.claims).remove(&name);
        Some(said)
    }

    pub(super) fn block(&self, name: &Name, cid: &[u8]) -> Option<bytes::Bytes> {
        if let Some((_, block)) = self.kept.get(name).filter(|(kept, _)| kept.sha256() == cid) {
            return Some(block);
        }
        let own = lock(&self.own).get(name).copied();
        // What was announced by others may be here by now, too.
        let key = match own {
            Some(key) => key,
            None => Entry::peek_half(&self.index().get(name)?.head.clone()).ok()?.parts.key(),
        };
        let entry = self.stack.look_up(&key)?.entry;
        let parted = part(&entry, &self.group).filter(|_| self.is_shared(&entry))?;
        (parted.cid.sha256() == cid).then_some(parted.block)
    }

    /// We have asked GitHub: what came is announced within a moment, or will not be.
    pub(super) fn give_up(&self, name: &Name) {
        if let Some((_, until)) = lock(&self.claims).get_mut(name) {
            *until = (*until).min(Instant::now() + GIVE_UP);
        }
    }

    /// Whether `peer` is the one who asks GitHub.
    pub(super) fn claim(&self, name: Name, peer: &Peer) -> bool {
        let (mut claims, now) = (lock(&self.claims), Instant::now());
        if claims.len() > MAX_NAMES {
            claims.retain(|_, (_, until)| *until > now);
        }
        let (holder, until) = claims.entry(name).or_insert_with(|| (peer.clone(), now + CLAIM));
        if *until <= now {
            (*holder, *until) = (peer.clone(), now + CLAIM);
        }
        holder == peer
    }
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
