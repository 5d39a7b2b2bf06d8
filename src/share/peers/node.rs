//! A peer among others: gossip, questions, and what it is told to do.
//!
//! Knows: how messages reach others and who said what. Does not know: policy; what is heard goes into the
//! index, what is asked for comes from there. Everything is bounded, and nothing here waits for a disk.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use libp2p::core::transport::upgrade::Version;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageId};
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::request_response::{self as asking, OutboundRequestId, ResponseChannel};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, Transport, noise, tcp, yamux};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::behaviour::{Behaviour, BehaviourEvent, MAX_ESTABLISHED, MAX_STREAMS, behaviour};
use super::compare::{COMPARE_EVERY, Comparing};
use super::copy::Name;
use super::handing::Handing;
use super::index::{Learned, Peer};
use super::meet::Meeting;
use super::message::{Gossip, MAX_SAID, Question, Reply, Said, Unanswered};
use super::shared::{Shared, count};
use super::transport::{Around, Order};
use crate::error::{Error, Kind, Result};

/// What is to be said waits so long for more.
const FLUSH: Duration = Duration::from_millis(5);

/// How often it is seen to it that enough peers are connected.
const DIAL_EVERY: Duration = Duration::from_secs(5);

/// Setting a connection up takes no longer: whoever only opens one must not keep others out.
const SET_UP: Duration = Duration::from_secs(5);

/// Questions of others that are answered at once.
const MAX_ANSWERED: usize = 16;

/// Messages that wait for somebody who listens.
const MAX_UNHEARD: usize = 64;

/// Announcements of one peer that are taken in a second, and at once.
const SAID_PER_SEC: f64 = 2_000.0;
const SAID_AT_ONCE: f64 = 20_000.0;

/// How a node begins.
pub(super) struct Start {
    pub(super) key: Keypair,
    pub(super) listen: Option<Multiaddr>,
    pub(super) bootstrap: Vec<Multiaddr>,
    /// Where peers were another time.
    pub(super) remembered: Vec<Multiaddr>,
    pub(super) mdns: bool,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Whether this peer announces anything.
    pub(super) says: bool,
    /// Where it is written down who is around.
    pub(super) standing: Option<PathBuf>,
    /// Where it is written down whom it has met.
    pub(super) met: Option<PathBuf>,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// What is done with an answer.
pub(super) enum Waiting {
    Asked(oneshot::Sender<Result<Reply, Unanswered>>),
    Sync(PeerId),
    Adopt(Name),
    /// Whether peers are of use again, since then.
    Try(Instant),
}

/// An answer, and whom it goes to.
type Answered = (ResponseChannel<Reply>, Reply);

/// How much a peer may still say.
struct Allowance {
    left: f64,
    at: Instant,
}

pub(super) struct Node {
    pub(super) swarm: Swarm<Behaviour>,
    topic: IdentTopic,
    pub(super) shared: Arc<Shared>,
    pub(super) around: watch::Sender<Around>,
    says: bool,
    pub(super) standing: Option<PathBuf>,
    pub(super) met: Option<PathBuf>,
    orders: mpsc::Receiver<Order>,
    answers: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
    turns: Arc<Semaphore>,
    pub(super) unsaid: Vec<Said>,
    flush_at: Option<Instant>,
    /// Sealed, and nobody was there.
    unheard: Vec<Vec<u8>>,
    waiting: HashMap<OutboundRequestId, Waiting>,
    allowances: HashMap<PeerId, Allowance>,
    pub(super) meeting: Meeting,
    pub(super) comparing: Comparing,
    pub(super) handing: Handing,
}

/// Waits until then, or for ever.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
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
        let Start { key, listen, bootstrap, remembered, mdns, says, orders, standing, met } = start;
        let me = key.public().to_peer_id();
        let remembered: Vec<Multiaddr> =
            remembered.into_iter().filter(|at| !at.to_string().ends_with(&me.to_base58())).collect();
        around.send_modify(|around| around.book.extend(remembered.iter().map(Multiaddr::to_string)));
        let psk = PreSharedKey::new(shared.group.derive("peers: network"));
        let noise = noise::Config::new(&key).map_err(failed)?;
        let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .and_then(move |socket, _| PnetConfig::new(psk).handshake(socket))
            .upgrade(Version::V1Lazy)
            .authenticate(noise)
            .multiplex(yamux::Config::default())
            .timeout(SET_UP)
            .boxed();
        let name = shared.group.derive("peers: topic");
        let topic = IdentTopic::new(data_encoding::HEXLOWER.encode(&name[..16]));
        let behaviour = behaviour(&key, &topic, mdns)?;
        let mut swarm = Swarm::new(transport, behaviour, me, libp2p::swarm::Config::with_tokio_executor());
        let handing = Handing::new(shared.stays, shared.gate.limits().timeout);
        if let Some(listen) = listen {
            swarm.listen_on(listen).map_err(failed)?;
        }
        Ok(Self {
            swarm,
            topic,
            shared,
            around,
            says,
            standing,
            met,
            orders,
            answers: mpsc::channel(MAX_STREAMS),
            turns: Arc::new(Semaphore::new(MAX_ANSWERED)),
            unsaid: Vec::new(),
            flush_at: None,
            unheard: Vec::new(),
            waiting: HashMap::new(),
            allowances: HashMap::new(),
            meeting: Meeting::new(bootstrap, remembered),
            comparing: Comparing::default(),
            handing,
        })
    }

    /// Takes part until its orders end.
    pub(super) async fn run(mut self) {
        let mut dial = tokio::time::interval(DIAL_EVERY);
        let mut compare = tokio::time::interval(COMPARE_EVERY);
        dial.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        compare.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shared = self.shared.clone();
        loop {
            let (flush_at, leave_at, try_at) = (self.flush_at, self.handing.until(), self.tries_at());
            tokio::select! {
                event = self.swarm.select_next_some() => self.on(event),
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some((channel, reply)) = self.answers.1.recv() => {
                    let _gone = self.swarm.behaviour_mut().questions.send_response(channel, reply);
                }
                Some((text, found)) = self.meeting.resolved() => self.dial_named(&text, found),
                () = at(flush_at) => self.flush(),
                () = at(leave_at) => self.handing.is_time(),
                () = at(try_at) => self.try_somebody(),
                () = shared.gate.trouble() => {}
                _ = dial.tick() => {
                    self.dial();
                    self.write_down();
                }
                _ = compare.tick() => self.compare(),
            }
        }
    }

    /// Sends a question; what comes back is dealt with as `then` says.
    pub(super) fn ask(&mut self, peer: &PeerId, question: Question, then: Waiting) {
        let id = self.swarm.behaviour_mut().questions.send_request(peer, question);
        self.waiting.insert(id, then);
    }

    /// Whether this peer announces anything.
    pub(super) fn says(&self) -> bool {
        self.says
    }

    /// Whether one of those who are connected and stay has what this name stands for.
    fn is_held(&self, name: &Name) -> bool {
        let index = self.shared.index();
        let holders = index.get(name).map(|known| known.holders.as_slice()).unwrap_or_default();
        let around = self.around.borrow();
        around.peers.iter().any(|one| one.is_reachable == Some(true) && holders.contains(&one.peer))
    }

    /// A peer that is gone begins anew if it comes back.
    pub(super) fn forget_allowance(&mut self, peer: &PeerId) {
        self.allowances.remove(peer);
    }

    /// Whether a question to a peer waits for an answer.
    pub(super) fn waits(&self, which: impl Fn(&Waiting) -> bool) -> bool {
        self.waiting.values().any(which)
    }

    /// When it is tried whether peers are of use again, if nobody waits for any.
    fn tries_at(&self) -> Option<Instant> {
        let is_trying = || self.waits(|waiting| matches!(waiting, Waiting::Try(_)));
        self.shared.gate.rests_until().filter(|_| !is_trying())
    }

    /// Behind all requests: asks one of those that are not known to be slow.
    fn try_somebody(&mut self) {
        let mut peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        peers.retain(|peer| !self.shared.rests(&named(peer)));
        match peers.get(crate::share::random(peers.len())) {
            Some(peer) => self.ask(&peer.clone(), Question::Who, Waiting::Try(Instant::now())),
            None => self.shared.gate.tried(None),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Say(said) => {
                if let Some(name) = said.name().filter(|name| !self.is_held(name)) {
                    self.handing.said(name);
                }
                self.say(said);
            }
            Order::Tell(gossip) => self.publish(&gossip),
            Order::Meet(addresses) => self.meet(&addresses),
            Order::Ask(peer, question, answer) => match peer.parse::<PeerId>() {
                // One that is not connected is dialled, if its address is known.
                Ok(peer) if self.swarm.is_connected(&peer) || self.meeting.reaches(&peer) => {
                    if !self.swarm.is_connected(&peer) {
                        self.dial_peer(peer);
                    }
                    self.ask(&peer, question, Waiting::Asked(answer));
                }
                _ => {
                    self.ask_around();
                    let _gone = answer.send(Err(Unanswered::Unreached));
                }
            },
            Order::Drained(done) => {
                self.flush();
                self.write_down();
                let is_open = self.shared.gate.is_open();
                let takers = self.around.borrow().peers.iter().filter(|one| one.is_reachable == Some(true)).count();
                self.handing.leave(done, if is_open { takers } else { 0 });
            }
        }
    }

    /// Says something, with what else is to be said in the same moment.
    pub(super) fn say(&mut self, said: Said) {
        self.unsaid.push(said);
        if self.unsaid.len() >= MAX_SAID {
            self.flush();
        } else if self.flush_at.is_none() {
            self.flush_at = Some(Instant::now() + FLUSH);
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
        self.publish_sealed(sealed);
    }

    fn publish_sealed(&mut self, sealed: Vec<u8>) {
        match self.swarm.behaviour_mut().gossip.publish(self.topic.clone(), sealed.clone()) {
            Ok(_) => {}
            // Nobody listens yet: it waits for the first one who does.
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) if self.unheard.len() < MAX_UNHEARD => {
                self.unheard.push(sealed);
            }
            // Comparing indexes brings it to whoever comes.
            Err(error) => tracing::trace!(%error, "not announced"),
        }
    }

    fn on(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            })) => self.hear(&propagation_source, &message_id, message.source, &message.data),
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { .. })) => {
                for sealed in std::mem::take(&mut self.unheard) {
                    self.publish_sealed(sealed);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Questions(event)) => self.on_question(event),
            event => self.on_meeting(event),
        }
    }

    /// Takes what somebody says to all, and says whether it is passed on.
    fn hear(&mut self, by: &PeerId, id: &MessageId, source: Option<PeerId>, data: &[u8]) {
        let acceptance = if let (Some(source), Ok(gossip)) = (source, Gossip::open(data, &self.shared.group)) {
            self.take(&source, *by == source, gossip)
        } else {
            count(&self.shared.tally.refused, 1);
            MessageAcceptance::Reject
        };
        self.swarm.behaviour_mut().gossip.report_message_validation_result(id, by, acceptance);
    }

    fn take(&mut self, source: &PeerId, is_direct: bool, gossip: Gossip) -> MessageAcceptance {
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
                        Some((name, learned)) => {
                            news |= matches!(learned, Learned::News | Learned::Holder);
                            if learned == Learned::News && is_direct {
                                self.handing.wants(*source, name);
                            } else if is_direct && self.is_held(&name) {
                                self.handing.is_held(&name);
                            }
                        }
                        None => bad = true,
                    }
                }
                self.adopt();
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
    pub(super) fn allows(&mut self, source: PeerId, much: usize) -> bool {
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
                // On another thread: it may wait for the disk. Some at a time, since sealing takes a while and
                // whoever asks a lot must not keep everything else waiting.
                let turns = self.turns.clone();
                tokio::spawn(async move {
                    let Ok(turn) = turns.acquire_owned().await else { return };
                    let answered = tokio::task::spawn_blocking(move || (shared.answer(&peer, request), turn)).await;
                    if let Ok((reply, _turn)) = answered {
                        let _ended = answers.send((channel, reply)).await;
                    }
                });
            }
            asking::Event::Message { message: asking::Message::Response { request_id, response }, .. } => {
                match self.waiting.remove(&request_id) {
                    Some(Waiting::Asked(answer)) => drop(answer.send(Ok(response))),
                    Some(Waiting::Sync(peer)) => self.go_on_comparing(peer, response),
                    Some(Waiting::Adopt(name)) => self.adopted(name, response),
                    Some(Waiting::Try(since)) => self.shared.gate.tried(Some(since.elapsed())),
                    None => {}
                }
            }
            asking::Event::OutboundFailure { request_id, .. } => match self.waiting.remove(&request_id) {
                Some(Waiting::Asked(answer)) => drop(answer.send(Err(Unanswered::Failed))),
                Some(Waiting::Adopt(name)) => self.adopted(name, Reply::No),
                Some(Waiting::Try(_)) => self.shared.gate.tried(None),
                Some(Waiting::Sync(_)) | None => {}
            },
            asking::Event::InboundFailure { .. } | asking::Event::ResponseSent { .. } => {}
        }
    }
}
