//! Who is met, and where: peers that are named, that others name, that are found in the local network.
//!
//! Knows: which addresses are dialled, when, and when a peer is gone. Does not know: what peers say to each
//! other.
//!
//! A net that fell in two has no connection left between its halves; so whoever is known and not connected
//! is dialled now and then, and connections beyond those that gossip needs close by themselves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, mdns, ping};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::behaviour::BehaviourEvent;
use super::message::{Question, Reply};
use super::node::{Node, Waiting, named};
use super::transport::Neighbour;

/// While fewer are connected, others that are known are dialled.
const ENOUGH_PEERS: usize = 8;

/// Peers whose addresses are remembered, addresses of each, and those that are said at once.
const MAX_BOOK: usize = 1_024;
const MAX_ADDRESSES: usize = 4;
const MAX_ADDRESSES_SAID: usize = 256;

/// Whoever was not reached so often in a row is not named to others any more.
const GONE: u32 = 4;

/// How often somebody is asked where others are, when one of them is looked for.
const ASK_AROUND: Duration = Duration::from_millis(200);

/// Addresses that names stand for.
const MAX_NAMED: usize = 64;

/// A name is looked up for no longer.
const LOOK_UP: Duration = Duration::from_secs(3);

/// Who is at an address that was named by somebody who set this up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Unmet,
    Met(PeerId),
    /// The same list serves many, and this machine may be on it.
    Myself,
}

/// Where a peer can be reached, as it and others say.
#[derive(Debug, Default)]
struct Reach {
    addresses: Vec<Multiaddr>,
    /// Times that it was not, since it was.
    failures: u32,
}

/// What the answer to a name brought.
type Resolved = (Multiaddr, Vec<Multiaddr>);

/// Whom this node knows of.
#[derive(Debug)]
pub(super) struct Meeting {
    bootstrap: Vec<Multiaddr>,
    named: HashMap<Multiaddr, Named>,
    book: HashMap<PeerId, Reach>,
    resolving: (mpsc::Sender<Resolved>, mpsc::Receiver<Resolved>),
    asked_at: Option<Instant>,
}

/// An address without the name of who is there.
fn bare(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

/// How an address is dialled: from a port of its own. From the one where this node listens, who was connected
/// a moment ago could not be reached again for a minute, since to the system that would be the same connection.
fn dialling(address: &Multiaddr) -> DialOpts {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => DialOpts::peer_id(peer).addresses(vec![bare(address)]).allocate_new_port().build(),
        _ => DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build(),
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

/// The host name in an address and its port, where it has one.
fn host(address: &Multiaddr) -> Option<(String, u16)> {
    let mut parts = address.iter();
    let name = match parts.next()? {
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((name, port)),
        _ => None,
    }
}

/// The addresses that a host name stands for, of the kind that is asked for.
fn addresses(text: &Multiaddr, found: impl Iterator<Item = SocketAddr>) -> Vec<Multiaddr> {
    let kind = text.iter().next();
    let wanted = found.filter(|at| match kind {
        Some(Protocol::Dns4(_)) => at.is_ipv4(),
        Some(Protocol::Dns6(_)) => at.is_ipv6(),
        _ => true,
    });
    // Who must be there, if that was said.
    let pinned: Vec<Protocol<'_>> = text.iter().filter(|part| matches!(part, Protocol::P2p(_))).collect();
    let parts = |at: SocketAddr| {
        pinned.iter().cloned().fold(Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port())), Multiaddr::with)
    };
    wanted.map(parts).take(MAX_NAMED).collect()
}

impl Meeting {
    pub(super) fn new(bootstrap: Vec<Multiaddr>, remembered: Vec<Multiaddr>) -> Self {
        let mut meeting = Self {
            bootstrap,
            named: HashMap::new(),
            book: HashMap::new(),
            resolving: mpsc::channel(16),
            asked_at: None,
        };
        for address in remembered {
            if let Some(Protocol::P2p(peer)) = address.iter().last() {
                meeting.note(peer, bare(&address));
            }
        }
        meeting
    }

    /// The next name that was looked up.
    pub(super) async fn resolved(&mut self) -> Option<Resolved> {
        self.resolving.1.recv().await
    }

    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        self.book.contains_key(peer)
    }

    /// Whether it is worth dialling a peer for a question.
    pub(super) fn reaches(&self, peer: &PeerId) -> bool {
        self.book.get(peer).is_some_and(|reach| reach.failures < GONE)
    }

    /// Notes where a peer can be reached; whether that is news.
    fn note(&mut self, peer: PeerId, address: Multiaddr) -> bool {
        if self.book.len() >= MAX_BOOK && !self.book.contains_key(&peer) {
            // Room for it, if somebody could not be reached.
            let worst = self.book.iter().max_by_key(|(_, reach)| reach.failures);
            match worst.filter(|(_, reach)| reach.failures > 0).map(|(peer, _)| *peer) {
                Some(worst) => self.book.remove(&worst),
                None => return false,
            };
        }
        let reach = self.book.entry(peer).or_default();
        if reach.addresses.contains(&address) {
            return false;
        }
        reach.addresses.insert(0, address);
        reach.addresses.truncate(MAX_ADDRESSES);
        true
    }

    fn is_myself(&mut self, address: &Multiaddr) {
        if let Some(named) = self.named.get_mut(&bare(address)) {
            *named = Named::Myself;
        }
    }
}

impl Node {
    /// Dials those that were named and are not connected, and others while there are few.
    pub(super) fn dial(&mut self) {
        for text in self.meeting.bootstrap.clone() {
            let Some(host) = host(&text) else {
                self.dial_named(&text, vec![text.clone()]);
                continue;
            };
            let told = self.meeting.resolving.0.clone();
            tokio::spawn(async move {
                match tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(host)).await {
                    Ok(Ok(found)) => {
                        let found = addresses(&text, found);
                        let _ended = told.send((text, found)).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, address = %text, "a peer's name is not found"),
                    Err(_) => tracing::debug!(address = %text, "a peer's name is not found in time"),
                }
            });
        }
        let connected = self.swarm.connected_peers().count();
        for _ in connected..ENOUGH_PEERS {
            self.meet_another();
        }
    }

    /// Dials what an address that somebody typed stands for, unless whoever is there is connected.
    pub(super) fn dial_named(&mut self, text: &Multiaddr, found: Vec<Multiaddr>) {
        for address in found {
            let place = bare(&address);
            if self.meeting.named.len() >= MAX_NAMED && !self.meeting.named.contains_key(&place) {
                self.meeting.named.clear();
            }
            let dials = match *self.meeting.named.entry(place).or_insert(Named::Unmet) {
                Named::Unmet => true,
                Named::Met(peer) => !self.swarm.is_connected(&peer),
                Named::Myself => false,
            };
            if dials && let Err(error) = self.swarm.dial(dialling(&address)) {
                tracing::trace!(%error, %text, "not dialled");
            }
        }
    }

    /// Dials somebody who is known and not connected.
    pub(super) fn meet_another(&mut self) {
        let book = &self.meeting.book;
        let unmet: Vec<PeerId> = book.keys().filter(|peer| !self.swarm.is_connected(peer)).copied().collect();
        if let Some(peer) = unmet.get(crate::share::random(unmet.len())) {
            self.dial_peer(*peer);
        }
    }

    /// Whether there is nobody whom this node could meet.
    pub(super) fn meets_nobody(&self) -> bool {
        self.meeting.bootstrap.is_empty() && self.meeting.book.is_empty() && self.around.borrow().peers.is_empty()
    }

    pub(super) fn dial_peer(&mut self, peer: PeerId) {
        let addresses = self.meeting.book.get(&peer).map(|reach| reach.addresses.clone()).unwrap_or_default();
        let options = DialOpts::peer_id(peer).addresses(addresses).condition(PeerCondition::DisconnectedAndNotDialing);
        if let Err(error) = self.swarm.dial(options.allocate_new_port().build()) {
            tracing::trace!(%error, %peer, "not dialled");
        }
    }

    /// Somebody is looked for whose address is not known: somebody may know it.
    pub(super) fn ask_around(&mut self) {
        if self.meeting.asked_at.is_none_or(|at| at.elapsed() > ASK_AROUND) {
            self.meeting.asked_at = Some(Instant::now());
            let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
            if let Some(peer) = peers.get(crate::share::random(peers.len())) {
                self.ask_who(*peer);
            }
        }
    }

    pub(super) fn ask_who(&mut self, peer: PeerId) {
        self.ask(&peer, Question::Who, Waiting::Sync(peer));
    }

    /// Where this peer and those it knows can be reached.
    pub(super) fn who(&self) -> Reply {
        let around = self.around.borrow();
        let own = around.listening.iter().map(|at| (self.shared.me.to_string(), at.clone()));
        // First those that are there for certain; those that are gone are not to be told on and on.
        let mut others: Vec<_> = self.meeting.book.iter().filter(|(_, reach)| reach.failures < GONE).collect();
        others.sort_by_cached_key(|(peer, reach)| (!self.swarm.is_connected(peer), reach.failures));
        let others = others
            .into_iter()
            .flat_map(|(peer, reach)| reach.addresses.iter().map(|at| (peer.to_base58(), at.to_string())));
        Reply::Who(own.chain(others).take(MAX_ADDRESSES_SAID).collect())
    }

    /// Notes what a peer says about where it and others can be reached.
    pub(super) fn note_addresses(&mut self, from: PeerId, who: Vec<(String, String)>) {
        let name = named(&from);
        let is_near =
            self.around.borrow().peers.iter().any(|one| {
                one.peer == name && one.address.parse::<Multiaddr>().is_ok_and(|address| is_loopback(&address))
            });
        let is_reachable = Some(who.iter().any(|(peer, _)| *peer == *name));
        self.around.send_if_modified(|around| {
            let one = around.peers.iter_mut().find(|one| one.peer == name && one.is_reachable != is_reachable);
            one.map(|one| one.is_reachable = is_reachable).is_some()
        });
        for (peer, at) in who.into_iter().take(MAX_ADDRESSES_SAID) {
            let (Ok(peer), Ok(at)) = (peer.parse::<PeerId>(), at.parse::<Multiaddr>()) else { continue };
            // Another host's loopback is not ours.
            if is_loopback(&at) == is_near || !is_loopback(&at) {
                self.found(peer, at);
            }
        }
    }

    /// Somebody may be at these addresses, says a note.
    pub(super) fn meet(&mut self, addresses: &[String]) {
        for address in addresses.iter().filter_map(|text| text.parse::<Multiaddr>().ok()) {
            if let Some(Protocol::P2p(peer)) = address.iter().last() {
                self.found(peer, address);
            }
        }
    }

    /// Somebody is said to be there.
    fn found(&mut self, peer: PeerId, at: Multiaddr) {
        if peer == *self.swarm.local_peer_id() || host(&at).is_some() || !self.meeting.note(peer, bare(&at)) {
            return;
        }
        self.around.send_modify(|around| {
            if around.book.len() < MAX_BOOK {
                around.book.push(format!("{}/p2p/{peer}", bare(&at)));
            }
        });
        self.swarm.add_peer_address(peer, bare(&at));
        if self.swarm.connected_peers().count() < ENOUGH_PEERS && !self.swarm.is_connected(&peer) {
            self.dial_peer(peer);
        }
    }

    /// Takes what happened to connections.
    pub(super) fn on_meeting(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    self.found(peer, address);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(pinged)) => {
                // One that does not know the question is another program, and answers others.
                if let Err(error) = pinged.result
                    && !matches!(error, ping::Failure::Unsupported)
                {
                    tracing::debug!(%error, peer = %pinged.peer, "a peer does not answer any more");
                    let _gone = self.swarm.disconnect_peer_id(pinged.peer);
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. } => {
                let address = endpoint.get_remote_address();
                if endpoint.is_dialer()
                    && let Some(named) = self.meeting.named.get_mut(&bare(address))
                {
                    *named = Named::Met(peer_id);
                }
                if let Some(reach) = self.meeting.book.get_mut(&peer_id) {
                    reach.failures = 0;
                }
                if num_established.get() == 1 {
                    let is_reachable = (endpoint.is_dialer() || self.meeting.knows(&peer_id)).then_some(true);
                    let one = Neighbour { peer: named(&peer_id), address: address.to_string(), is_reachable };
                    self.around.send_modify(|around| around.peers.push(one));
                    self.ask_who(peer_id);
                    self.compare_soon(peer_id);
                    // Whoever comes may be better than those that were given up.
                    if !self.shared.gate.is_open() {
                        self.ask(&peer_id, Question::Who, Waiting::Try(Instant::now()));
                    }
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => self.parted(peer_id),
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                match &error {
                    DialError::LocalPeerId { address } => self.meeting.is_myself(address),
                    // Whoever was there has another name now.
                    DialError::WrongPeerId { address, .. } => {
                        if let Some(reach) = peer_id.and_then(|peer| self.meeting.book.get_mut(&peer)) {
                            reach.addresses.retain(|at| *at != bare(address));
                        }
                    }
                    _ => {}
                }
                if let Some(reach) = peer_id.and_then(|peer| self.meeting.book.get_mut(&peer)) {
                    reach.failures += 1;
                }
                tracing::trace!(%error, "a peer is not reached");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "peers can reach this one");
                self.around.send_modify(|around| around.listening.push(address.to_string()));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let address = address.to_string();
                self.around.send_modify(|around| around.listening.retain(|one| *one != address));
            }
            _ => {}
        }
    }

    fn parted(&mut self, peer: PeerId) {
        let name = named(&peer);
        self.around.send_modify(|around| around.peers.retain(|one| one.peer != name));
        self.forget_allowance(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_addresses_and_become_those_of_their_kind() {
        let parse = |text: &str| text.parse::<Multiaddr>().unwrap();
        assert_eq!(host(&parse("/dns4/cache.example.net/tcp/9100")), Some(("cache.example.net".into(), 9_100)));
        for none in ["/ip4/10.0.0.5/tcp/9100", "/dns4/cache.example.net/udp/9100", "/dns4/cache.example.net"] {
            assert_eq!(host(&parse(none)), None, "{none}");
        }
        let found: Vec<SocketAddr> = ["10.0.0.5:9100", "[fd00::5]:9100"].map(|at| at.parse().unwrap()).into();
        for (text, wanted) in [
            ("/dns4/x/tcp/9100", &["/ip4/10.0.0.5/tcp/9100"][..]),
            ("/dns6/x/tcp/9100", &["/ip6/fd00::5/tcp/9100"]),
            ("/dns/x/tcp/9100", &["/ip4/10.0.0.5/tcp/9100", "/ip6/fd00::5/tcp/9100"]),
        ] {
            let wanted: Vec<Multiaddr> = wanted.iter().map(|at| parse(at)).collect();
            assert_eq!(addresses(&parse(text), found.iter().copied()), wanted);
        }
        // Who must be there is kept.
        let pin = Protocol::P2p(PeerId::random());
        let pinned = addresses(&parse("/dns4/x/tcp/9100").with(pin.clone()), found.into_iter());
        assert_eq!(pinned, [parse("/ip4/10.0.0.5/tcp/9100").with(pin)]);
    }

    #[test]
    fn the_book_is_bounded_and_keeps_those_that_are_reached() {
        let mut meeting = Meeting::new(Vec::new(), Vec::new());
        let at: Multiaddr = "/ip4/10.0.0.5/tcp/9100".parse().unwrap();
        let peers: Vec<PeerId> = (0..=MAX_BOOK).map(|_| PeerId::random()).collect();
        for peer in &peers[..MAX_BOOK] {
            assert!(meeting.note(*peer, at.clone()) && !meeting.note(*peer, at.clone()));
        }
        assert!(!meeting.note(peers[MAX_BOOK], at.clone()));
        meeting.book.get_mut(&peers[7]).unwrap().failures = 1;
        assert!(meeting.note(peers[MAX_BOOK], at.clone()) && !meeting.knows(&peers[7]));
        for port in 0..20 {
            meeting.note(peers[0], at.clone().with(Protocol::Udp(port)));
        }
        assert_eq!(meeting.book[&peers[0]].addresses.len(), MAX_ADDRESSES);
        let remembered = vec![at.clone().with(Protocol::P2p(peers[3])), at];
        assert_eq!(Meeting::new(Vec::new(), remembered).book.len(), 1);
    }
}
