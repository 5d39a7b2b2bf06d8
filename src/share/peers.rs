//! Peers as a place (E2): what one of them has, the others find in an index of announcements and pull.
//!
//! Knows: what is shared, whom to believe, how long a copy is waited for. Does not know: the network
//! (`node`). A peer never makes a request fail: what it has not, or not in time, is a miss.
//!
//! What a peer sends is *trusted* only for public answers, only where the operator says so, and only
//! while its sender held it fresh. Everything else is a candidate that GitHub's own 304 releases.

mod copy;
mod index;
mod message;
mod node;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::copy::{Name, part};
use self::index::{Index, Known, Learned, Peer};
use self::message::{Blob, Gossip, MAX_NAMES, MAX_SAID, Question, Reply, Said};
use self::node::{Around, Node, Order, Start, count, named};
use super::gate::Gate;
use super::patience::Limits;
use super::seal::Group;
use super::{Claim, Faith, Guard, Place, Tallied, Wanted};
use crate::clock::{Clock, Timestamp};
use crate::cutoff::{Cutoff, CutoffMode, Cutoffs, SUSPECT_SECS};
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::files::{self, Durability};
use crate::key::CacheKey;
use crate::partition::Partition;
use crate::stack::Stack;
use crate::tag::Subject;
use crate::tier::TierName;

/// No copy is waited for longer, unless somebody says otherwise.
pub const TIMEOUT: Duration = Duration::from_millis(80);

/// A second holder is asked as well when the first one takes so long.
const HEDGE: Duration = Duration::from_millis(20);

/// Whoever asks GitHub for something is waited for so long.
const CLAIM: Duration = Duration::from_secs(3);
const GIVE_UP: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Orders that may wait.
const MAX_ORDERS: usize = 8_192;

/// Entries of our own that can be asked for.
const MAX_OWN: usize = 50_000;

/// How this machine takes part.
#[derive(Debug)]
pub struct Settings {
    /// Where other peers reach this one, as in `/ip4/0.0.0.0/tcp/9100`; `None` to reach out only.
    pub listen: Option<String>,
    /// Peers that are dialled, as in `/ip4/10.0.0.5/tcp/9100`.
    pub bootstrap: Vec<String>,
    /// Whether peers are looked for in the local network.
    pub mdns: bool,
    /// Whose answers are shared.
    pub partitions: Vec<Partition>,
    /// TTL classes that are shared; empty for all that are not private.
    pub families: Vec<String>,
    /// Whether public answers are taken without asking GitHub.
    pub trust_public: bool,
    /// Whether this machine only reads.
    pub read_only: bool,
    /// Peers whose announcements are taken; empty for all members.
    pub writers: Vec<String>,
    /// No copy is waited for longer.
    pub timeout: Duration,
    /// Who takes part.
    pub group: Arc<Group>,
    /// The file with this peer's key; `None` for a new one each time.
    pub key_file: Option<PathBuf>,
}

/// This machine among its peers.
#[derive(Debug)]
pub struct Peers {
    shared: Arc<Shared>,
    gate: Gate,
    around: watch::Receiver<Around>,
    orders: mpsc::Sender<Order>,
    start: Mutex<Option<(Start, watch::Sender<Around>)>>,
    task: OnceLock<AbortHandle>,
    trust_public: bool,
    read_only: bool,
}

/// What the node and those who ask have in common.
struct Shared {
    group: Arc<Group>,
    clock: Clock,
    stack: Arc<Stack>,
    partitions: Vec<Partition>,
    families: Vec<String>,
    writers: HashSet<Peer>,
    index: Mutex<Index>,
    /// Names of entries of our own.
    own: Mutex<HashMap<Name, CacheKey>>,
    /// Who asks GitHub for what, until when.
    claims: Mutex<HashMap<Name, (Peer, Instant)>>,
    heard: Mutex<Cutoffs>,
    tally: Tally,
    me: Peer,
}

#[derive(Debug, Default)]
struct Tally {
    looked_up: AtomicU64,
    hits: AtomicU64,
    written: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    bytes_said: AtomicU64,
    blocks_served: AtomicU64,
    bytes_served: AtomicU64,
    bytes_received: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("me", &self.me).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Who is around, for `cache peers` and the page.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Standing {
    /// This peer.
    pub me: String,
    /// Where it can be reached.
    pub listening: Vec<String>,
    /// Peers that are connected, and where.
    pub peers: Vec<(String, String)>,
    /// Entries that are known of, and own ones among them.
    pub known: usize,
    /// Entries of this machine.
    pub own: usize,
    /// Bodies given to others, and their bytes.
    pub served: (u64, u64),
    /// Bytes of bodies that came from others.
    pub received_bytes: u64,
    /// Bytes announced.
    pub said_bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.task.get().into_iter().for_each(AbortHandle::abort);
    }
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    fn is_writer(&self, peer: &Peer) -> bool {
        self.writers.is_empty() || self.writers.contains(peer)
    }

    fn name(&self, key: &CacheKey) -> Name {
        self.group.short_name(key)
    }

    /// Whether an entry is of the kind that is shared.
    fn is_shared(&self, entry: &Entry) -> bool {
        let class = crate::policy::class::of(&entry.parts.path, &entry.parts.query);
        let wanted =
            if self.families.is_empty() { !class.private } else { self.families.iter().any(|one| one == class.name) };
        wanted && entry.status == 200 && self.partitions.contains(&entry.parts.partition)
    }

    /// Takes an announcement; `None` when it is malformed.
    fn learn(&self, said: Said, from: &Peer) -> Option<Learned> {
        let by = said.by().map_or_else(|| from.clone(), Peer::from);
        let Ok((name, known)) = said.read() else {
            count(&self.tally.refused, 1);
            return None;
        };
        if by == self.me {
            return Some(Learned::Known);
        }
        lock(&self.claims).remove(&name);
        let learned = self.index().learn(name, known, Some(&by), self.clock.now());
        if learned == Learned::FromTheFuture {
            count(&self.tally.refused, 1);
        }
        Some(learned)
    }

    /// Takes what others have outdated. A time far ahead would outdate for ever.
    fn outdated(&self, cutoffs: Vec<Cutoff>) {
        let latest = self.clock.now().plus(SUSPECT_SECS);
        let mut heard = lock(&self.heard);
        for mut cutoff in cutoffs {
            cutoff.at = cutoff.at.min(latest);
            if cutoff.mode == CutoffMode::Gone {
                self.forget(&cutoff);
            }
            heard.add(cutoff);
        }
    }

    fn forget(&self, cutoff: &Cutoff) {
        self.index().forget(|known| {
            let Ok(head) = Entry::peek_half(&known.head) else { return true };
            let key = head.parts.key();
            let subject = Subject { key: &key, parts: &head.parts, listing: head.listing.as_deref() };
            cutoff.scope.covers(subject) && head.fetched_at <= cutoff.at
        });
    }

    /// Answers another peer; may wait for the disk.
    fn answer(&self, peer: &Peer, question: Question) -> Reply {
        match question {
            Question::Block { name, cid } => {
                let block = message::name(&name).and_then(|name| self.block(&name, &cid.0));
                block.map_or(Reply::No, |block| {
                    count(&self.tally.blocks_served, 1);
                    count(&self.tally.bytes_served, block.len() as u64);
                    Reply::Block(Blob(block.to_vec()))
                })
            }
            Question::Names(prints) => {
                let index = self.index();
                let names = index.names(&index.differing(&prints), MAX_NAMES);
                Reply::Names(names.into_iter().map(|(name, at)| (Blob(name.to_vec()), at.secs())).collect())
            }
            Question::Said(names) => {
                let index = self.index();
                let names = names.iter().take(MAX_SAID).filter_map(message::name);
                let said = names.filter_map(|name| Some(self.said(&name, index.get(&name)?)));
                Reply::Said(said.collect())
            }
            Question::Claim { name, known } => {
                let Some(name) = message::name(&name) else { return Reply::No };
                // First the claim: whoever gives one up has announced before.
                let claimed = self.claim(name, peer);
                let index = self.index();
                match index.get(&name).filter(|later| known.is_none_or(|known| later.validated_at.secs() > known)) {
                    Some(later) => Reply::Said(vec![self.said(&name, later)]),
                    None => Reply::Claimed(claimed),
                }
            }
            // The node answers that itself.
            Question::Who => Reply::No,
        }
    }

    /// What is said of a copy to somebody who asks: we have it, or who does.
    fn said(&self, name: &Name, known: &Known) -> Said {
        let is_own = lock(&self.own).contains_key(name);
        let holder = known.holders.first().filter(|_| !is_own).unwrap_or(&self.me);
        Said::of(name, known).held_by(holder)
    }

    /// Learns of a copy of our own.
    fn learn_own(&self, name: Name, known: Known) {
        self.index().learn(name, known, None, self.clock.now());
        lock(&self.claims).remove(&name);
    }

    fn block(&self, name: &Name, cid: &[u8]) -> Option<bytes::Bytes> {
        let key = *lock(&self.own).get(name)?;
        let entry = self.stack.look_up(&key)?.entry;
        let parted = part(&entry, &self.group).filter(|_| self.is_shared(&entry))?;
        (parted.cid.sha256() == cid).then_some(parted.block)
    }

    /// We have asked GitHub: what came is announced within a moment, or will not be.
    fn give_up(&self, name: &Name) {
        if let Some((_, until)) = lock(&self.claims).get_mut(name) {
            *until = (*until).min(Instant::now() + GIVE_UP);
        }
    }

    /// Whether `peer` is the one who asks GitHub.
    fn claim(&self, name: Name, peer: &Peer) -> bool {
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

impl Peers {
    /// Reads addresses and the key; nothing is opened before the first use.
    pub fn new(settings: Settings, stack: Arc<Stack>, clock: Clock) -> Result<Self> {
        let address = |text: &String| {
            text.parse::<Multiaddr>().map_err(|_| {
                Error::usage(format!("`{}` is no address of a peer", text.escape_debug()))
                    .hint("it looks like /ip4/10.0.0.5/tcp/9100")
            })
        };
        let listen = settings.listen.as_ref().map(address).transpose()?;
        let bootstrap = settings.bootstrap.iter().map(address).collect::<Result<Vec<_>>>()?;
        let key = key(settings.key_file.as_deref())?;
        let (orders, waiting) = mpsc::channel(MAX_ORDERS);
        let (around, seen) = watch::channel(Around::default());
        let shared = Shared {
            group: settings.group,
            clock,
            stack,
            partitions: settings.partitions,
            families: settings.families,
            writers: settings.writers.iter().map(|peer| Peer::from(peer.as_str())).collect(),
            index: Mutex::default(),
            own: Mutex::default(),
            claims: Mutex::default(),
            heard: Mutex::default(),
            tally: Tally::default(),
            me: named(&key.public().to_peer_id()),
        };
        let start = Start { key, listen, bootstrap, mdns: settings.mdns, orders: waiting };
        Ok(Self {
            shared: Arc::new(shared),
            gate: Gate::new("Peers", Limits::new(settings.timeout)),
            around: seen,
            orders,
            start: Mutex::new(Some((start, around))),
            task: OnceLock::new(),
            trust_public: settings.trust_public,
            read_only: settings.read_only,
        })
    }

    /// Takes part from now on; where it is not called, from the first use on.
    pub fn start(&self) {
        self.task.get_or_init(|| {
            let start = lock(&self.start).take();
            let shared = self.shared.clone();
            let task = async move {
                let Some((start, around)) = start else { return };
                match Node::new(start, shared, around) {
                    Ok(node) => node.run().await,
                    Err(error) => tracing::warn!(%error, "going on without peers"),
                }
            };
            tokio::spawn(task).abort_handle()
        });
    }

    /// Who is around.
    pub fn standing(&self) -> Standing {
        let around = self.around.borrow().clone();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.shared.tally;
        Standing {
            me: self.shared.me.to_string(),
            listening: around.listening,
            peers: around.peers.into_iter().map(|(peer, at)| (peer.to_string(), at)).collect(),
            known: self.shared.index().len(),
            own: lock(&self.shared.own).len(),
            served: (load(&tally.blocks_served), load(&tally.bytes_served)),
            received_bytes: load(&tally.bytes_received),
            said_bytes: load(&tally.bytes_said),
        }
    }

    async fn ask(&self, peer: &Peer, question: Question) -> Option<Reply> {
        let (answer, answered) = oneshot::channel();
        self.orders.try_send(Order::Ask(peer.clone(), question, answer)).ok()?;
        answered.await.ok()?
    }

    async fn look_up_one(&self, wanted: &Wanted) -> Option<(Entry, Faith)> {
        if !self.shared.partitions.contains(&wanted.parts.partition) {
            return None;
        }
        let name = self.shared.name(&wanted.key);
        let known = self.shared.index().get(&name).cloned()?;
        let is_news = wanted.known.is_none_or(|at| known.validated_at > at);
        if !is_news || known.holders.is_empty() || !self.gate.is_open() {
            return None;
        }
        let (pulled, took) = self.gate.in_time(self.pull(&name, &known, wanted)).await;
        match pulled {
            Some(Some(entry)) => {
                self.gate.answered(took, true);
                count(&self.shared.tally.hits, 1);
                let faith = self.faith(&entry);
                Some((entry, faith))
            }
            // Whoever was asked is not asked for it again.
            Some(None) => {
                self.gate.answered(took, false);
                None
            }
            None => {
                count(&self.shared.tally.failed, 1);
                self.gate.failed();
                known.holders.iter().for_each(|holder| self.shared.index().has_not(&name, holder));
                None
            }
        }
    }

    fn faith(&self, entry: &Entry) -> Faith {
        let age = self.shared.clock.now().since(entry.validated_at.min(self.shared.clock.now()));
        let is_public = entry.parts.partition == Partition::public();
        if self.trust_public && is_public && age <= entry.ttl_secs { Faith::Trusted } else { Faith::Unproven }
    }

    /// The body from one holder, and from a second one if the first takes long.
    async fn pull(&self, name: &Name, known: &Known, wanted: &Wanted) -> Option<Entry> {
        let mut holders = known.holders.iter();
        let first = Box::pin(self.pull_from(holders.next()?, name, known, wanted));
        let first = match select(first, Box::pin(tokio::time::sleep(HEDGE))).await {
            Either::Left((Some(entry), _)) => return Some(entry),
            Either::Left((None, _)) => None,
            Either::Right(((), first)) => Some(first),
        };
        let Some(second) = holders.next() else { return first?.await };
        let second = Box::pin(self.pull_from(second, name, known, wanted));
        let Some(first) = first else { return second.await };
        match select(first, second).await {
            Either::Left((Some(entry), _)) | Either::Right((Some(entry), _)) => Some(entry),
            Either::Left((None, rest)) => rest.await,
            Either::Right((None, rest)) => rest.await,
        }
    }

    async fn pull_from(&self, holder: &Peer, name: &Name, known: &Known, wanted: &Wanted) -> Option<Entry> {
        let question = Question::Block { name: Blob(name.to_vec()), cid: Blob(known.cid.sha256().to_vec()) };
        let reply = self.ask(holder, question).await;
        let Some(Reply::Block(Blob(block))) = reply else {
            self.shared.index().has_not(name, holder);
            return None;
        };
        count(&self.shared.tally.bytes_received, block.len() as u64);
        let partition = &wanted.parts.partition;
        match copy::join(&known.head, &block, &known.cid, &wanted.key, partition, &self.shared.group) {
            Ok(entry) => Some(entry),
            Err(error) => {
                tracing::debug!(%error, %holder, key = %wanted.key, "what a peer sent is refused");
                count(&self.shared.tally.refused, 1);
                self.shared.index().has_not(name, holder);
                None
            }
        }
    }

    /// Who settles who asks GitHub for this: the same peer for everybody who knows the same peers.
    fn owner(&self, name: &Name) -> Option<Peer> {
        let around = self.around.borrow();
        if around.peers.is_empty() {
            return None;
        }
        let all = around.peers.iter().map(|(peer, _)| peer).chain([&self.shared.me]);
        all.max_by_key(|peer| {
            use sha2::Digest;
            sha2::Sha256::digest([&name[..], peer.as_bytes()].concat())
        })
        .cloned()
    }

    async fn claim_or_wait(&self, wanted: &Wanted) -> Option<Claim> {
        let name = self.shared.name(&wanted.key);
        let give_up = Instant::now() + CLAIM;
        loop {
            if let Some((entry, faith)) = self.look_up_one(wanted).await {
                return Some(Claim::Answered(Box::new(super::Copy { entry, tier: TierName::Peer, faith })));
            }
            let owner = self.owner(&name)?;
            let known = wanted.known.map(Timestamp::secs);
            let question = Question::Claim { name: Blob(name.to_vec()), known };
            let settled = if owner == self.shared.me {
                self.shared.answer(&self.shared.me, question)
            } else {
                match self.gate.in_time(self.ask(&owner, question)).await {
                    (Some(Some(settled)), _) => settled,
                    // Nobody settles it: then nobody is waited for.
                    _ => return Some(Claim::Ours(None)),
                }
            };
            match settled {
                Reply::Claimed(true) => {
                    let shared = self.shared.clone();
                    return Some(Claim::Ours(Some(Guard::new(move || shared.give_up(&name)))));
                }
                Reply::Said(said) if owner != self.shared.me && self.shared.is_writer(&owner) => {
                    said.into_iter().take(1).for_each(|said| drop(self.shared.learn(said, &owner)));
                }
                _ => {}
            }
            if Instant::now() + LOOK_EVERY > give_up {
                return Some(Claim::Ours(None));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// This peer's key: from its file, which nobody else can read, or new.
fn key(file: Option<&std::path::Path>) -> Result<Keypair> {
    let Some(file) = file else { return Ok(Keypair::generate_ed25519()) };
    let broken = || {
        Error::new(Kind::Corrupt, format!("{} holds no key of a peer", file.display()))
            .hint("remove it; another one is made, and this machine is another peer from then on")
    };
    if let Some(bytes) = files::read_bounded(file, 4 << 10)? {
        return Keypair::from_protobuf_encoding(&bytes).map_err(|_| broken());
    }
    let made = Keypair::generate_ed25519();
    let bytes = made.to_protobuf_encoding().map_err(|_| broken())?;
    let dir = file.parent().unwrap_or(std::path::Path::new("."));
    files::create_private_dir(dir).map_err(|cause| Error::io("create", dir, cause))?;
    files::write_atomic(file, dir, &bytes, Durability::Synced)?;
    Ok(made)
}

impl Place for Peers {
    fn tier(&self) -> TierName {
        TierName::Peer
    }

    fn look_up<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Option<(Entry, Faith)>>> {
        self.start();
        count(&self.shared.tally.looked_up, wanted.len() as u64);
        async move {
            let _waiting = self.gate.wait();
            let all: Vec<_> = wanted.iter().map(|one| self.look_up_one(one)).collect();
            futures_util::future::join_all(all).await
        }
        .boxed()
    }

    fn claim<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Option<Claim>> {
        self.start();
        if self.read_only || !self.shared.partitions.contains(&wanted.parts.partition) {
            return std::future::ready(None).boxed();
        }
        count(&self.shared.tally.looked_up, 1);
        self.claim_or_wait(wanted).boxed()
    }

    fn put(&self, entry: &Arc<Entry>, _: u64) {
        if self.read_only || !self.shared.is_shared(entry) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.start();
        let (shared, orders, entry) = (self.shared.clone(), self.orders.clone(), entry.clone());
        // On another thread: sealing takes a while.
        tokio::task::spawn_blocking(move || {
            let key = entry.key();
            let name = shared.name(&key);
            let Some(parted) = part(&entry, &shared.group) else {
                count(&shared.tally.dropped, 1);
                return;
            };
            let known = Known {
                head: parted.head,
                cid: parted.cid,
                fetched_at: entry.fetched_at,
                validated_at: entry.validated_at,
                holders: Vec::new(),
            };
            let said = Said::of(&name, &known);
            {
                let mut own = lock(&shared.own);
                if own.len() < MAX_OWN {
                    own.insert(name, key);
                }
            }
            shared.learn_own(name, known);
            match orders.try_send(Order::Say(said)) {
                Ok(()) => count(&shared.tally.written, 1),
                Err(_) => count(&shared.tally.dropped, 1),
            }
        });
    }

    fn outdate(&self, cutoffs: &[Cutoff]) {
        for cutoff in cutoffs.iter().filter(|cutoff| cutoff.mode == CutoffMode::Gone) {
            self.shared.forget(cutoff);
        }
        if self.read_only {
            return;
        }
        for some in cutoffs.chunks(MAX_SAID) {
            let _too_much = self.orders.try_send(Order::Tell(Gossip::Outdated(some.to_vec())));
        }
    }

    fn cutoffs(&self) -> BoxFuture<'_, Option<Cutoffs>> {
        self.start();
        let heard = std::mem::take(&mut *lock(&self.shared.heard));
        std::future::ready((!heard.is_empty()).then_some(heard)).boxed()
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        self.start();
        async move {
            let (done, all) = oneshot::channel();
            if self.orders.send(Order::Drained(done)).await.is_ok() {
                let _the_end = all.await;
            }
        }
        .boxed()
    }

    fn prefetches(&self) -> bool {
        false
    }

    fn tallied(&self) -> Tallied {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.shared.tally;
        Tallied {
            looked_up: load(&tally.looked_up),
            hits: load(&tally.hits),
            written: load(&tally.written),
            refused: load(&tally.refused),
            failed: load(&tally.failed),
            dropped: load(&tally.dropped),
            waited_micros: self.gate.waited().as_micros() as u64,
            up: !self.around.borrow().peers.is_empty() && self.gate.is_open(),
        }
    }
}
