//! Peers as a place (E2): what one of them has, the others find in an index of announcements and pull.
//!
//! Knows: what is shared, whom to believe, how long a copy is waited for. Does not know: the network
//! (`node`). A peer never makes a request fail: what it has not, or not in time, is a miss.
//!
//! What a peer sends is *trusted* only for public answers, only where the operator says so, and only
//! while its sender held it fresh. Everything else is a candidate that GitHub's own 304 releases.

mod behaviour;
mod board;
mod compare;
mod copy;
mod handing;
mod index;
mod meet;
mod message;
mod node;
mod pull;
mod shared;
mod transport;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture, join};
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

pub use self::board::Board;
pub(crate) use self::board::read_met;
use self::index::Peer;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::message::read_any;
use self::message::{Gossip, MAX_SAID};
use self::node::{Node, Start, named};
pub use self::shared::Exchange;
use self::shared::{Shared, Tally, count};
use self::transport::{Around, Line, Transport};
use super::gate::Gate;
use super::patience::Limits;
use super::seal::Group;
use super::{Claim, Faith, Place, Tallied, Wanted};
use crate::clock::Clock;
use crate::cutoff::{Cutoff, CutoffMode, Cutoffs};
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::files::{self, Durability};
use crate::partition::Partition;
use crate::stack::Stack;
use crate::tier::TierName;

/// No copy is waited for longer, unless somebody says otherwise.
pub const TIMEOUT: Duration = Duration::from_millis(80);

/// A second holder is asked as well when the first one takes so long.
const HEDGE: Duration = Duration::from_millis(20);

/// Peers that are asked for one copy.
const MAX_ASKED: usize = 3;

/// Who asks GitHub for something is settled for so long.
const CLAIM: Duration = Duration::from_secs(3);

/// The others wait for no longer than so many time-outs: a peer that lies about it, or is slow, must not
/// cost more.
const LONGEST_WAIT: u32 = 5;
const GIVE_UP: Duration = Duration::from_millis(50);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Somebody who wants to know whether there are peers waits so long for the first one.
const MEETS: Duration = Duration::from_secs(5);

/// Entries of our own that can be asked for.
const MAX_OWN: usize = 50_000;

/// How this machine takes part.
#[derive(Debug)]
pub struct Settings {
    /// Where other peers reach this one, as in `/ip4/0.0.0.0/tcp/9100`; `None` to reach out only.
    pub listen: Option<String>,
    /// Peers that are dialled, as in `/ip4/10.0.0.5/tcp/9100`.
    pub bootstrap: Vec<String>,
    /// Where peers were another time, as in `/ip4/10.0.0.5/tcp/9100/p2p/12D3…`; hints, no more.
    pub remembered: Vec<String>,
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
    /// Where it is written down who is around, for people and for processes that come and go.
    pub standing_file: Option<PathBuf>,
    /// Where it is written down whom this process has met, for those to come.
    pub met_file: Option<PathBuf>,
    /// Where machines leave a note of where they are.
    pub board: Option<Arc<dyn Board>>,
}

/// This machine among its peers.
#[derive(Debug)]
pub struct Peers {
    shared: Arc<Shared>,
    around: watch::Receiver<Around>,
    net: Arc<dyn Transport>,
    /// Entries that are on their way to be announced.
    sealing: watch::Sender<usize>,
    start: Mutex<Option<(Start, watch::Sender<Around>)>>,
    task: OnceLock<AbortHandle>,
    trust_public: bool,
    read_only: bool,
    /// The first ones wait until then to hear what others have, if there is anybody to ask.
    first_until: Mutex<Option<tokio::time::Instant>>,
    is_alone: bool,
    board: Option<Arc<dyn Board>>,
}

/// Who is around, for `cache peers`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Standing {
    /// This peer.
    pub me: String,
    /// Where it can be reached.
    pub listening: Vec<String>,
    /// Whether it announces what it has.
    pub is_writer: bool,
    /// Peers that are connected.
    pub peers: Vec<Other>,
    /// Addresses of peers that were heard of.
    pub book: Vec<String>,
    /// Entries that are known of.
    pub known: usize,
    /// Entries of this machine among them.
    pub own: usize,
    /// Bodies given to others, and their bytes.
    pub served: (u64, u64),
    /// Bytes of bodies that came from others.
    pub received_bytes: u64,
    /// Bytes announced.
    pub said_bytes: u64,
}

/// Another peer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Other {
    /// Its name.
    pub peer: String,
    /// Where it is.
    pub address: String,
    /// Whether its announcements are taken.
    pub is_writer: bool,
    /// What went between it and this one.
    pub exchange: Exchange,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.task.get().into_iter().for_each(AbortHandle::abort);
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
        let remembered: Vec<Multiaddr> = settings.remembered.iter().filter_map(|text| text.parse().ok()).collect();
        let key = key(settings.key_file.as_deref())?;
        let (line, orders, around) = Line::new();
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
            by_peer: Mutex::default(),
            me: named(&key.public().to_peer_id()),
            gate: Gate::new("Peers", Limits::new(settings.timeout)),
            patience: Mutex::default(),
            is_whole: AtomicBool::new(false),
            stays: listen.is_some(),
            kept: handing::kept(),
            news: Notify::new(),
        };
        let is_alone = bootstrap.is_empty() && remembered.is_empty() && settings.board.is_none();
        let says = !settings.read_only;
        let mdns = settings.mdns;
        let (standing, met) = (settings.standing_file, settings.met_file);
        let start = Start { key, listen, bootstrap, remembered, mdns, orders, says, standing, met };
        Ok(Self {
            shared: Arc::new(shared),
            around: line.around(),
            net: Arc::new(line),
            sealing: watch::Sender::new(0),
            start: Mutex::new(Some((start, around))),
            task: OnceLock::new(),
            trust_public: settings.trust_public,
            read_only: settings.read_only,
            first_until: Mutex::default(),
            is_alone,
            board: settings.board,
        })
    }

    /// Takes part from now on; where it is not called, from the first use on.
    pub fn start(&self) {
        self.task.get_or_init(|| {
            let start = lock(&self.start).take();
            if !self.is_alone {
                // Less than for other places: the end of a process may take a moment, too.
                let first = self.shared.gate.limits().timeout * 3 / 8;
                *lock(&self.first_until) = Some(tokio::time::Instant::now() + first);
            }
            let shared = self.shared.clone();
            let announcing = (!self.read_only && start.as_ref().is_some_and(|(start, _)| start.standing.is_some()))
                .then(|| self.net.clone());
            let notes = self.board.clone().map(|board| {
                let me = self.shared.stays.then(|| self.shared.me.to_string());
                board::keep(board, self.net.clone(), me)
            });
            let task = async move {
                let Some((start, around)) = start else { return };
                if let Some(net) = announcing {
                    let shared = shared.clone();
                    tokio::task::spawn_blocking(move || announce_all(&shared, &*net));
                }
                match Node::new(start, shared, around) {
                    Ok(node) => drop(join(node.run(), OptionFuture::from(notes)).await),
                    Err(error) => tracing::warn!(%error, "going on without peers"),
                }
            };
            tokio::spawn(task).abort_handle()
        });
    }

    /// How long others are waited for, or wait for us.
    fn longest_wait(&self) -> Duration {
        (self.shared.gate.limits().timeout * LONGEST_WAIT).min(CLAIM)
    }

    /// Who is around.
    pub fn standing(&self) -> Standing {
        let around = self.around.borrow().clone();
        self.shared.standing(&around, !self.read_only)
    }
}

/// Announces what was here before: a server that starts has its store.
fn announce_all(shared: &Shared, net: &dyn Transport) {
    let read = shared.stack.for_each(|entry, _| {
        if shared.is_shared(entry)
            && let Some(said) = shared.take_own(entry)
        {
            net.say_in_turn(said);
        }
    });
    if let Err(error) = read {
        tracing::debug!(%error, "not all of the store is announced");
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
            let _waiting = self.shared.gate.wait();
            self.met().await;
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
        async move {
            let _waiting = self.shared.gate.wait();
            self.met().await;
            self.claim_or_wait(wanted).await
        }
        .boxed()
    }

    fn put(&self, entry: &Arc<Entry>, _: u64) {
        if self.read_only || !self.shared.is_shared(entry) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.start();
        let (shared, net, entry, sealing) =
            (self.shared.clone(), self.net.clone(), entry.clone(), self.sealing.clone());
        sealing.send_modify(|sealing| *sealing += 1);
        // On another thread: sealing takes a while.
        tokio::task::spawn_blocking(move || {
            let said = shared.take_own(&entry).is_some_and(|said| net.say(said));
            count(if said { &shared.tally.written } else { &shared.tally.dropped }, 1);
            sealing.send_modify(|sealing| *sealing -= 1);
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
            self.net.tell(Gossip::Outdated(some.to_vec()));
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
            let mut sealing = self.sealing.subscribe();
            let sealed = async { drop(sealing.wait_for(|sealing| *sealing == 0).await) };
            let _or_not = tokio::time::timeout(self.longest_wait(), sealed).await;
            self.net.drained().await;
        }
        .boxed()
    }

    fn answers(&self) -> BoxFuture<'_, bool> {
        self.start();
        async move {
            let mut around = self.around.clone();
            let met = around.wait_for(|around| !around.peers.is_empty());
            tokio::time::timeout(MEETS, met).await.is_ok_and(|met| met.is_ok())
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
            connected: Some(self.around.borrow().peers.len() as u64),
            waited_micros: self.shared.gate.waited().as_micros() as u64,
            up: !self.around.borrow().peers.is_empty() && self.shared.gate.is_open(),
        }
    }
}
