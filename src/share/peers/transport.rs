//! How a machine speaks to others: the little that sharing needs of a network.
//!
//! Knows: what is said and asked, and who is around. Does not know: what carries it. A network is a task of
//! its own that takes [`Order`]s and tells who is [`Around`]; libp2p's is `node`.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::index::Peer;
use super::message::{Gossip, Question, Reply, Said, Unanswered};

/// Orders that may wait.
const MAX_ORDERS: usize = 8_192;

/// What a network is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Announces something, with others that come at the same time.
    Say(Said),
    /// Tells all.
    Tell(Gossip),
    /// Somebody may be at these addresses.
    Meet(Vec<String>),
    /// Asks a peer.
    Ask(Peer, Question, oneshot::Sender<Result<Reply, Unanswered>>),
    /// Everything is said.
    Drained(oneshot::Sender<()>),
}

/// A peer that is connected.
#[derive(Debug, Clone)]
pub(super) struct Neighbour {
    pub(super) peer: Peer,
    pub(super) address: String,
    /// Whether others can dial it, once that is known.
    pub(super) is_reachable: Option<bool>,
}

/// Who is connected, and where this node listens.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    pub(super) peers: Vec<Neighbour>,
    pub(super) listening: Vec<String>,
    /// Addresses of peers that were heard of.
    pub(super) book: Vec<String>,
    /// Whether an index was compared with somebody's, as far as one question goes.
    pub(super) is_synced: bool,
}

/// A way to others. Nothing of it fails: what does not arrive was not said, or not answered.
pub(super) trait Transport: Send + Sync + std::fmt::Debug {
    /// Announces something, behind; whether there was room for it.
    fn say(&self, said: Said) -> bool;

    /// The same on a thread that may wait for room.
    fn say_in_turn(&self, said: Said);

    /// Tells all.
    fn tell(&self, gossip: Gossip);

    /// Somebody may be at these addresses.
    fn meet(&self, addresses: Vec<String>);

    /// Asks a peer. How long that may take is decided by whoever waits.
    fn ask(&self, peer: &Peer, question: Question) -> BoxFuture<'static, Result<Reply, Unanswered>>;

    /// Waits until everything is said and, where this machine is about to leave, taken by others.
    fn drained(&self) -> BoxFuture<'static, ()>;

    /// Who is around.
    fn around(&self) -> watch::Receiver<Around>;
}

/// A network that is a task, told what to do through a channel.
#[derive(Debug, Clone)]
pub(super) struct Line {
    orders: mpsc::Sender<Order>,
    around: watch::Receiver<Around>,
}

impl Line {
    /// One, and its other end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Order>, watch::Sender<Around>) {
        let (orders, taken) = mpsc::channel(MAX_ORDERS);
        let (tells, around) = watch::channel(Around::default());
        (Self { orders, around }, taken, tells)
    }
}

impl Transport for Line {
    fn say(&self, said: Said) -> bool {
        self.orders.try_send(Order::Say(said)).is_ok()
    }

    fn say_in_turn(&self, said: Said) {
        let _ended = self.orders.blocking_send(Order::Say(said));
    }

    fn tell(&self, gossip: Gossip) {
        let _too_much = self.orders.try_send(Order::Tell(gossip));
    }

    fn meet(&self, addresses: Vec<String>) {
        let _too_much = self.orders.try_send(Order::Meet(addresses));
    }

    fn ask(&self, peer: &Peer, question: Question) -> BoxFuture<'static, Result<Reply, Unanswered>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.orders.try_send(Order::Ask(peer.clone(), question, answer));
        async move {
            sent.map_err(|_| Unanswered::Unreached)?;
            answered.await.unwrap_or(Err(Unanswered::Unreached))
        }
        .boxed()
    }

    fn drained(&self) -> BoxFuture<'static, ()> {
        let orders = self.orders.clone();
        async move {
            let (done, all) = oneshot::channel();
            if orders.send(Order::Drained(done)).await.is_ok() {
                let _the_end = all.await;
            }
        }
        .boxed()
    }

    fn around(&self) -> watch::Receiver<Around> {
        self.around.clone()
    }
}
