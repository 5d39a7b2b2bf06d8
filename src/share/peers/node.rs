//! A peer among others: connections, gossip, questions. The only file that names libp2p.
//!
//! Knows: how messages reach others and who said what. Does not know: policy; what is heard goes into the
//! index, what is asked for comes from there. Everything is bounded, and nothing here waits for a disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use libp2p::core::transport::upgrade::Version;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageId};
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::request_response::{self as asking, OutboundRequestId, ResponseChannel};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, Transport, mdns, noise, tcp, yamux};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::behaviour::{Behaviour, BehaviourEvent, MAX_ESTABLISHED, MAX_STREAMS, behaviour};
use super::index::{Learned, Peer};
use super::message::{Blob, Gossip, MAX_SAID, Question, Reply, Said, names};
use super::shared::{Shared, count};
use crate::error::{Error, Kind, Result};
use crate::files::{self, Durability};

/// What is to be said waits so long for more.
const FLUSH: Duration = Duration::from_millis(5);

/// How often peers that are named are dialled again, and an index is compared with somebody's.
const DIAL_EVERY: Duration = Duration::from_secs(5);
const SYNC_EVERY: Duration = Duration::from_secs(20);

/// With another that comes, it is compared again after this.
const COMPARE_AGAIN: Duration = Duration::from_secs(2);

/// While fewer are connected, those that others know are dialled.
const ENOUGH_PEERS: usize = 8;

/// Addresses that are remembered, and that are said at once.
const MAX_BOOK: usize = 1_024;
const MAX_ADDRESSES_SAID: usize = 128;

/// Announcements of one peer that are taken in a second, and at once.
const SAID_PER_SEC: f64 = 2_000.0;
const SAID_AT_ONCE: f64 = 20_000.0;

/// What the node is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Announces something, with others that come at the same time.
    Say(Said),
    /// Tells all.
    Tell(Gossip),
    /// Asks a peer; `None` comes back where it fails.
    Ask(Peer, Question, oneshot::Sender<Option<Reply>>),
    /// Everything is said.
    Drained(oneshot::Sender<()>),
}

/// How a node begins.
pub(super) struct Start {
    pub(super) key: Keypair,
    pub(super) listen: Option<Multiaddr>,
    pub(super) bootstrap: Vec<Multiaddr>,
    pub(super) mdns: bool,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Where it is written down who is around, and whether this peer announces anything.
    pub(super) standing: Option<(PathBuf, bool)>,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Who is connected, and where this node listens.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    pub(super) peers: Vec<(Peer, String)>,
    pub(super) listening: Vec<String>,
    /// Addresses of peers that were heard of.
    pub(super) book: Vec<String>,
    /// Whether an index was compared with somebody's.
    pub(super) is_synced: bool,
}

enum Waiting {
    Asked(oneshot::Sender<Option<Reply>>),
    Sync(PeerId),
}

/// An answer, and whom it goes to.
type Answered = (ResponseChannel<Reply>, Reply);

/// How much a peer may still say.
struct Allowance {
    left: f64,
    at: Instant,
}

pub(super) struct Node {
    swarm: Swarm<Behaviour>,
    topic: IdentTopic,
    shared: Arc<Shared>,
    around: watch::Sender<Around>,
    bootstrap: Vec<Multiaddr>,
    standing: Option<(PathBuf, bool)>,
    orders: mpsc::Receiver<Order>,
    answers: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
    unsaid: Vec<Said>,
    flush_at: Option<Instant>,
    waiting: HashMap<OutboundRequestId, Waiting>,
    /// Where peers can be reached, as they and others say.
    book: HashMap<PeerId, Multiaddr>,
    allowances: HashMap<PeerId, Allowance>,
    compared_at: Option<Instant>,
}

pub(super) fn failed(cause: impl std::fmt::Display) -> Error {
    Error::new(Kind::Transport, format!("peers: {cause}"))
}

/// How a peer is named.
pub(super) fn named(peer: &PeerId) -> Peer {
    peer.to_base58().into()
}

impl Node {
    pub(super) fn new(start: Start, shared: Arc<Shared>, around: watch::Sender<Around>) -> Result<Self> {
        let Start { key, listen, bootstrap, mdns, orders, standing } = start;
        let me = key.public().to_peer_id();
        let psk = PreSharedKey::new(shared.group.derive("peers: network"));
        let noise = noise::Config::new(&key).map_err(failed)?;
        let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .and_then(move |socket, _| PnetConfig::new(psk).handshake(socket))
            .upgrade(Version::V1Lazy)
            .authenticate(noise)
            .multiplex(yamux::Config::default())
            .boxed();
        let name = shared.group.derive("peers: topic");
        let topic = IdentTopic::new(data_encoding::HEXLOWER.encode(&name[..16]));
        let behaviour = behaviour(&key, &topic, mdns)?;
        let mut swarm = Swarm::new(transport, behaviour, me, libp2p::swarm::Config::with_tokio_executor());
        if let Some(listen) = listen {
            swarm.listen_on(listen).map_err(failed)?;
        }
        Ok(Self {
            swarm,
            topic,
            shared,
            around,
            bootstrap,
            standing,
            orders,
            answers: mpsc::channel(MAX_STREAMS),
            unsaid: Vec::new(),
            flush_at: None,
            waiting: HashMap::new(),
            book: HashMap::new(),
            allowances: HashMap::new(),
            compared_at: None,
        })
    }

    /// Takes part until its orders end.
    pub(super) async fn run(mut self) {
        let mut dial = tokio::time::interval(DIAL_EVERY);
        let mut sync = tokio::time::interval(SYNC_EVERY);
        dial.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        sync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let flush_at = self.flush_at;
            let flush = async {
                match flush_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.swarm.select_next_some() => self.on(event),
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some((channel, reply)) = self.answers.1.recv() => {
                    let _gone = self.swarm.behaviour_mut().questions.send_response(channel, reply);
                }
                () = flush => self.flush(),
                _ = dial.tick() => {
                    self.dial();
                    self.write_down();
                }
                _ = sync.tick() => self.compare_with_somebody(),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Say(said) => {
                self.unsaid.push(said);
                if self.unsaid.len() >= MAX_SAID {
                    self.flush();
                } else if self.flush_at.is_none() {
                    self.flush_at = Some(Instant::now() + FLUSH);
                }
            }
            Order::Tell(gossip) => self.publish(&gossip),
            Order::Ask(peer, question, answer) => match peer.parse::<PeerId>() {
                // One that is not connected is dialled, if its address is known.
                Ok(peer) if self.swarm.is_connected(&peer) || self.book.contains_key(&peer) => {
                    let id = self.swarm.behaviour_mut().questions.send_request(&peer, question);
                    self.waiting.insert(id, Waiting::Asked(answer));
                }
                _ => drop(answer.send(None)),
            },
            Order::Drained(done) => {
                self.flush();
                let _gone = done.send(());
            }
        }
    }

    /// Says what waits, in as few messages as fit.
    fn flush(&mut self) {
        self.flush_at = None;
        while !self.unsaid.is_empty() {
            let mut said: Vec<Said> = self.unsaid.drain(..self.unsaid.len().min(MAX_SAID)).collect();
            // What is too large together is said in halves.
            while let Some(rest) = self.publish_all(&mut said) {
                said = rest;
            }
        }
    }

    /// Publishes as many as fit; the rest is given back.
    fn publish_all(&mut self, said: &mut Vec<Said>) -> Option<Vec<Said>> {
        let gossip = Gossip::Have(std::mem::take(said));
        if let Some(sealed) = gossip.seal(&self.shared.group) {
            self.send(sealed);
            return None;
        }
        let Gossip::Have(mut all) = gossip else { return None };
        let rest = all.split_off(all.len() / 2);
        if all.is_empty() {
            return None;
        }
        let mut first = all;
        while let Some(more) = self.publish_all(&mut first) {
            first = more;
        }
        Some(rest)
    }

    fn publish(&mut self, gossip: &Gossip) {
        if let Some(sealed) = gossip.seal(&self.shared.group) {
            self.send(sealed);
        }
    }

    fn send(&mut self, sealed: Vec<u8>) {
        count(&self.shared.tally.bytes_said, sealed.len() as u64);
        // Nobody listens: comparing indexes brings it to whoever comes.
        if let Err(error) = self.swarm.behaviour_mut().gossip.publish(self.topic.clone(), sealed) {
            tracing::trace!(%error, "not announced");
        }
    }

    fn dial(&mut self) {
        for address in self.bootstrap.clone() {
            let known = self.around.borrow().peers.iter().any(|(_, at)| *at == address.to_string());
            if !known && let Err(error) = self.swarm.dial(address.clone()) {
                tracing::trace!(%error, %address, "not dialled");
            }
        }
    }

    /// Writes down who is around, on another thread. Best effort.
    fn write_down(&self) {
        let Some((file, is_writer)) = self.standing.clone() else { return };
        let standing = self.shared.standing(&self.around.borrow(), is_writer);
        tokio::task::spawn_blocking(move || {
            let dir = file.parent().unwrap_or(Path::new("."));
            let written = serde_json::to_vec(&standing)
                .map_err(failed)
                .and_then(|text| files::write_atomic(&file, dir, &text, Durability::Rename));
            if let Err(error) = written {
                tracing::debug!(%error, "who is around is not written down");
            }
        });
    }

    fn compare_with_somebody(&mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        if let Some(peer) = peers.get(crate::share::random(peers.len())) {
            self.ask_who(*peer);
            self.compare_with(*peer);
        }
    }

    fn ask_who(&mut self, peer: PeerId) {
        let id = self.swarm.behaviour_mut().questions.send_request(&peer, Question::Who);
        self.waiting.insert(id, Waiting::Sync(peer));
    }

    fn compare_with(&mut self, peer: PeerId) {
        self.compared_at = Some(Instant::now());
        let prints = self.shared.index().prints().to_vec();
        let id = self.swarm.behaviour_mut().questions.send_request(&peer, Question::Names(prints));
        self.waiting.insert(id, Waiting::Sync(peer));
    }

    fn on(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            })) => self.hear(&propagation_source, &message_id, message.source, &message.data),
            SwarmEvent::Behaviour(BehaviourEvent::Questions(event)) => self.on_question(event),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    if !self.swarm.is_connected(&peer)
                        && let Err(error) = self.swarm.dial(address)
                    {
                        tracing::trace!(%error, %peer, "not dialled");
                    }
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. }
                if num_established.get() == 1 =>
            {
                let address = endpoint.get_remote_address().to_string();
                self.around.send_modify(|around| around.peers.push((named(&peer_id), address)));
                self.ask_who(peer_id);
                // Of many that come at once, one is enough.
                if self.compared_at.is_none_or(|at| at.elapsed() > COMPARE_AGAIN) {
                    self.compare_with(peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                let name = named(&peer_id);
                self.around.send_modify(|around| around.peers.retain(|(peer, _)| *peer != name));
                self.allowances.remove(&peer_id);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "peers can reach this one");
                self.around.send_modify(|around| around.listening.push(address.to_string()));
            }
            _ => {}
        }
    }

    /// Takes what somebody says to all, and says whether it is passed on.
    fn hear(&mut self, by: &PeerId, id: &MessageId, source: Option<PeerId>, data: &[u8]) {
        let acceptance = if let (Some(source), Ok(gossip)) = (source, Gossip::open(data, &self.shared.group)) {
            self.take(&source, gossip)
        } else {
            count(&self.shared.tally.refused, 1);
            MessageAcceptance::Reject
        };
        self.swarm.behaviour_mut().gossip.report_message_validation_result(id, by, acceptance);
    }

    fn take(&mut self, source: &PeerId, gossip: Gossip) -> MessageAcceptance {
        let from = named(source);
        if !self.shared.is_writer(&from) {
            count(&self.shared.tally.refused, 1);
            return MessageAcceptance::Ignore;
        }
        let much = match &gossip {
            Gossip::Have(said) => said.len(),
            Gossip::Outdated(cutoffs) => cutoffs.len(),
        };
        if !self.allows(*source, much) {
            count(&self.shared.tally.refused, much as u64);
            return MessageAcceptance::Ignore;
        }
        match gossip {
            Gossip::Have(said) => {
                let (mut news, mut bad) = (false, false);
                for said in said {
                    match self.shared.learn(said, &from) {
                        Some(learned) => news |= learned == Learned::News,
                        None => bad = true,
                    }
                }
                match (bad, news) {
                    (true, _) => MessageAcceptance::Reject,
                    (false, true) => MessageAcceptance::Accept,
                    (false, false) => MessageAcceptance::Ignore,
                }
            }
            Gossip::Outdated(cutoffs) => {
                self.shared.outdated(cutoffs);
                MessageAcceptance::Accept
            }
        }
    }

    /// A bucket of tokens for each who speaks.
    fn allows(&mut self, source: PeerId, much: usize) -> bool {
        if self.allowances.len() > 4 * MAX_ESTABLISHED as usize {
            self.allowances.clear();
        }
        let now = Instant::now();
        let allowance = self.allowances.entry(source).or_insert(Allowance { left: SAID_AT_ONCE, at: now });
        let filled = allowance.left + (now - allowance.at).as_secs_f64() * SAID_PER_SEC;
        (allowance.left, allowance.at) = (filled.min(SAID_AT_ONCE), now);
        let allowed = allowance.left >= much as f64;
        if allowed {
            allowance.left -= much as f64;
        }
        allowed
    }

    fn on_question(&mut self, event: asking::Event<Question, Reply>) {
        match event {
            asking::Event::Message {
                message: asking::Message::Request { request: Question::Who, channel, .. },
                ..
            } => {
                let reply = self.who();
                let _gone = self.swarm.behaviour_mut().questions.send_response(channel, reply);
            }
            asking::Event::Message { peer, message: asking::Message::Request { request, channel, .. }, .. } => {
                let (shared, answers, peer) = (self.shared.clone(), self.answers.0.clone(), named(&peer));
                // On another thread: it may wait for the disk.
                tokio::task::spawn_blocking(move || {
                    let reply = shared.answer(&peer, request);
                    let _too_much = answers.try_send((channel, reply));
                });
            }
            asking::Event::Message { message: asking::Message::Response { request_id, response }, .. } => {
                match self.waiting.remove(&request_id) {
                    Some(Waiting::Asked(answer)) => drop(answer.send(Some(response))),
                    Some(Waiting::Sync(peer)) => self.go_on_comparing(peer, response),
                    None => {}
                }
            }
            asking::Event::OutboundFailure { request_id, .. } => {
                if let Some(Waiting::Asked(answer)) = self.waiting.remove(&request_id) {
                    drop(answer.send(None));
                }
            }
            asking::Event::InboundFailure { .. } | asking::Event::ResponseSent { .. } => {}
        }
    }

    fn go_on_comparing(&mut self, peer: PeerId, reply: Reply) {
        match reply {
            Reply::Names(said) => {
                let lacking = self.shared.index().lacking(&names(said));
                for some in lacking.chunks(MAX_SAID) {
                    let some = some.iter().map(|name| Blob(name.to_vec())).collect();
                    let id = self.swarm.behaviour_mut().questions.send_request(&peer, Question::Said(some));
                    self.waiting.insert(id, Waiting::Sync(peer));
                }
                if lacking.is_empty() {
                    self.around.send_modify(|around| around.is_synced = true);
                }
            }
            Reply::Said(said) => {
                let from = named(&peer);
                if !self.shared.is_writer(&from) {
                    return;
                }
                let mut news = false;
                for said in said.into_iter().take(MAX_SAID) {
                    news |= self.shared.learn(said, &from) == Some(Learned::News);
                }
                let is_last =
                    !self.waiting.values().any(|waiting| matches!(waiting, Waiting::Sync(one) if *one == peer));
                if is_last {
                    self.around.send_modify(|around| around.is_synced = true);
                    // There may be more than one answer held.
                    if news {
                        self.compare_with(peer);
                    }
                }
            }
            Reply::Who(who) => self.note_addresses(who),
            Reply::Block(_) | Reply::Claimed(_) | Reply::No => {}
        }
    }

    /// Where this peer and those it knows can be reached.
    fn who(&self) -> Reply {
        let around = self.around.borrow();
        let own = around.listening.iter().map(|at| (self.shared.me.to_string(), at.clone()));
        let others = self.book.iter().map(|(peer, at)| (peer.to_base58(), at.to_string()));
        Reply::Who(own.chain(others).take(MAX_ADDRESSES_SAID).collect())
    }

    /// Notes where others can be reached, and dials some of them while there are few.
    fn note_addresses(&mut self, who: Vec<(String, String)>) {
        for (peer, at) in who.into_iter().take(MAX_ADDRESSES_SAID) {
            let (Ok(peer), Ok(at)) = (peer.parse::<PeerId>(), at.parse::<Multiaddr>()) else { continue };
            if peer == *self.swarm.local_peer_id() || self.book.contains_key(&peer) || self.book.len() >= MAX_BOOK {
                continue;
            }
            self.book.insert(peer, at.clone());
            self.around.send_modify(|around| around.book.push(format!("{at}/p2p/{peer}")));
            self.swarm.add_peer_address(peer, at);
            let connected = self.swarm.connected_peers().count();
            if connected < ENOUGH_PEERS
                && !self.swarm.is_connected(&peer)
                && let Err(error) = self.swarm.dial(peer)
            {
                tracing::trace!(%error, %peer, "not dialled");
            }
        }
    }
}
