//! How messages travel: gossip, questions, discovery, and the bounds on all of them.
//!
//! Whoever passes on what no member can have sealed is heard less and less, and then not at all. That many
//! peers share an address is no fault: machines behind one router do, and processes of one machine.
//!
//! Knows: libp2p's settings and why they are as they are. Does not know: what messages say.

use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, ValidationMode};
use libp2p::gossipsub::{PeerScoreParams, PeerScoreThresholds, TopicScoreParams, score_parameter_decay};
use libp2p::identity::Keypair;
use libp2p::request_response::{self as asking, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, mdns, ping};
use sha2::{Digest, Sha256};

use super::copy::MAX_BLOCK_BYTES;
use super::message::{MAX_GOSSIP_BYTES, Question, Reply};
use super::node::failed;
use crate::error::Result;

/// A question takes no longer.
const QUESTION: Duration = Duration::from_secs(2);

/// A peer that does not answer twice in a row is gone, whatever its connection says.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(4);

/// Runners live for minutes: they are to be found within seconds.
const MDNS_EVERY: Duration = Duration::from_secs(15);

/// Connections.
const MAX_PENDING: u32 = 32;
pub(super) const MAX_ESTABLISHED: u32 = 256;
pub(super) const MAX_STREAMS: usize = 64;

/// The protocol of questions.
const QUESTIONS: StreamProtocol = StreamProtocol::new("/octocache/peers/1");

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) questions: asking::cbor::Behaviour<Question, Reply>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) ping: ping::Behaviour,
}

/// What is held against a peer: what it passes on that nobody sealed, and breaking gossip's own rules. What
/// it does not pass on counts for nothing, since days may go by in which nobody says anything.
fn scoring(topic: &IdentTopic) -> (PeerScoreParams, PeerScoreThresholds) {
    let about_messages = TopicScoreParams {
        topic_weight: 1.0,
        // Nobody earns the right to lie by having been here for long.
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -20.0,
        invalid_message_deliveries_decay: score_parameter_decay(Duration::from_hours(1)),
        ..TopicScoreParams::default()
    };
    let params = PeerScoreParams {
        topics: [(topic.hash(), about_messages)].into(),
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_threshold: 6.0,
        ..PeerScoreParams::default()
    };
    let thresholds = PeerScoreThresholds {
        gossip_threshold: -10.0,
        publish_threshold: -50.0,
        graylist_threshold: -80.0,
        ..PeerScoreThresholds::default()
    };
    (params, thresholds)
}

/// All of it, for a peer with this key in the group with this topic.
pub(super) fn behaviour(key: &Keypair, topic: &IdentTopic, mdns: bool) -> Result<Behaviour> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        // The same bytes are one message, whoever passes them on.
        .message_id_fn(|message| MessageId::new(&Sha256::digest(&message.data)[..20]))
        .max_transmit_size(MAX_GOSSIP_BYTES + 1_024)
        .mesh_n(6)
        .mesh_n_low(4)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .heartbeat_interval(Duration::from_millis(500))
        .heartbeat_initial_delay(Duration::from_millis(200))
        .duplicate_cache_time(Duration::from_mins(2))
        .build()
        .map_err(failed)?;
    let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Signed(key.clone()), config).map_err(failed)?;
    let (params, thresholds) = scoring(topic);
    gossip.with_peer_score(params, thresholds).map_err(failed)?;
    gossip.subscribe(topic).map_err(failed)?;
    let codec = asking::cbor::codec::Codec::default()
        .set_request_size_maximum(256 << 10)
        .set_response_size_maximum(MAX_BLOCK_BYTES as u64 + (64 << 10));
    let config = asking::Config::default().with_request_timeout(QUESTION).with_max_concurrent_streams(MAX_STREAMS);
    let questions = asking::Behaviour::with_codec(codec, [(QUESTIONS, ProtocolSupport::Full)], config);
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(MAX_ESTABLISHED))
        .with_max_established_per_peer(Some(2));
    let mdns = if mdns {
        let config = mdns::Config { query_interval: MDNS_EVERY, ..mdns::Config::default() };
        Some(mdns::tokio::Behaviour::new(config, key.public().to_peer_id()).map_err(failed)?)
    } else {
        None
    };
    let ping = ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING));
    Ok(Behaviour { limits: connection_limits::Behaviour::new(limits), gossip, questions, mdns: mdns.into(), ping })
}
