//! A member of the group that means harm: a real libp2p peer with the secret, that says and answers what it
//! likes. Its messages are written down here once more, so that a change of the protocol is noticed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use libp2p::core::transport::upgrade::Version;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode};
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::request_response::{self as asking, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm, Transport, noise, tcp, yamux};
use octocache::cache::Ask;
use octocache::cid::Cid;
use octocache::clock::Timestamp;
use octocache::entry::Entry;
use octocache::outcome::Outcome;
use octocache::share::seal::Group;
use octocache::token::Secret;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::flow::Fixture;
use crate::harness::world;
use crate::peers::{How, Member, PATH, until};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Blob(#[serde(with = "serde_bytes_as_bytes")] Vec<u8>);

/// Bytes as bytes.
mod serde_bytes_as_bytes {
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Said {
    name: Blob,
    head: Blob,
    cid: Blob,
    by: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Gossip {
    Have(Vec<Said>),
    Outdated(Vec<octocache::cutoff::Cutoff>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Question {
    Block { name: Blob, cid: Blob },
    Names(Vec<(u32, u64)>),
    Said(Vec<Blob>),
    Claim { name: Blob, known: Option<i64> },
    Who,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Reply {
    Block(Blob),
    Names(Vec<(Blob, i64)>),
    Said(Vec<Said>),
    Claimed(bool),
    Who(Vec<(String, String)>),
    No,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    gossip: gossipsub::Behaviour,
    questions: asking::cbor::Behaviour<Question, Reply>,
}

/// The rogue: what is put into its queue is said to all, as it is.
struct Rogue {
    group: Arc<Group>,
    say: mpsc::UnboundedSender<Vec<u8>>,
}

impl Rogue {
    /// One that answers every question for a body with `block`, or never.
    fn start(secret: &str, to: &str, block: Option<Vec<u8>>) -> Self {
        let group = Arc::new(Group::read(&Secret::new(secret)).unwrap());
        let key = Keypair::generate_ed25519();
        let psk = PreSharedKey::new(group.derive("peers: network"));
        let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .and_then(move |socket, _| PnetConfig::new(psk).handshake(socket))
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let config = gossipsub::ConfigBuilder::default()
            .validation_mode(ValidationMode::Strict)
            .max_transmit_size(1 << 20)
            .heartbeat_initial_delay(Duration::from_millis(100))
            .heartbeat_interval(Duration::from_millis(200))
            .build()
            .unwrap();
        let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Signed(key.clone()), config).unwrap();
        let topic = IdentTopic::new(data_encoding::HEXLOWER.encode(&group.derive("peers: topic")[..16]));
        gossip.subscribe(&topic).unwrap();
        let protocol = StreamProtocol::new("/octocache/peers/1");
        let questions = asking::Behaviour::new([(protocol, ProtocolSupport::Full)], asking::Config::default());
        let behaviour = Behaviour { gossip, questions };
        let config = libp2p::swarm::Config::with_tokio_executor();
        let mut swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), config);
        swarm.dial(to.parse::<Multiaddr>().unwrap()).unwrap();
        let (say, mut said) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            let mut unsaid: VecDeque<Vec<u8>> = VecDeque::new();
            let mut again = tokio::time::interval(Duration::from_millis(20));
            loop {
                tokio::select! {
                    more = said.recv() => match more {
                        Some(more) => unsaid.push_back(more),
                        None => return,
                    },
                    _ = again.tick() => {
                        // As much as goes out now; signing the rest again and again would only keep the machine busy.
                        while let Some(data) = unsaid.front() {
                            match swarm.behaviour_mut().gossip.publish(topic.clone(), data.clone()) {
                                Ok(_) | Err(gossipsub::PublishError::Duplicate) => drop(unsaid.pop_front()),
                                Err(_) => break,
                            }
                        }
                    }
                    event = swarm.select_next_some() => {
                        let SwarmEvent::Behaviour(BehaviourEvent::Questions(asking::Event::Message {
                            message: asking::Message::Request { request, channel, .. }, ..
                        })) = event else { continue };
                        let reply = match (request, &block) {
                            (Question::Block { .. }, Some(block)) => Reply::Block(Blob(block.clone())),
                            // Keeps everybody waiting.
                            (Question::Block { .. }, None) => {
                                std::mem::forget(channel);
                                continue;
                            }
                            (Question::Claim { .. }, _) => Reply::Claimed(false),
                            (Question::Names(_), _) => Reply::Names(vec![(Blob(vec![1; 3]), -5); 5_000]),
                            (Question::Who, _) => Reply::Who(vec![("nobody".into(), "nowhere".into()); 5_000]),
                            (Question::Said(_), _) => Reply::Said(Vec::new()),
                        };
                        let _gone = swarm.behaviour_mut().questions.send_response(channel, reply);
                    }
                }
            }
        });
        Self { group, say }
    }

    fn seal(&self, gossip: &Gossip) -> Vec<u8> {
        let plain = cbor4ii::serde::to_vec(Vec::new(), gossip).unwrap();
        self.group.seal("peers: gossip", &zstd::bulk::compress(&plain, 3).unwrap()).unwrap()
    }

    fn say(&self, said: Vec<Said>) {
        self.say.send(self.seal(&Gossip::Have(said))).unwrap();
    }

    /// What an honest peer would say of an entry, and its block.
    fn part(&self, entry: &Entry) -> (Said, Vec<u8>) {
        let (head, tail) = entry.halves();
        let packed = zstd::bulk::compress(&tail, 3).unwrap();
        let block = self.group.seal(entry.parts.partition.as_str(), &packed).unwrap();
        let name = Blob(self.group.short_name(&entry.key()).to_vec());
        let cid = Blob(Cid::of(&block).sha256().to_vec());
        (Said { name, head: Blob(head.to_vec()), cid, by: String::new() }, block)
    }
}

/// An honest member, and what it holds of the path before it is asked for again.
async fn honest(fx: &Fixture, name: &str, secret: &str) -> (Member, Entry) {
    let member = fx.member(name, How::of(secret)).await;
    let answer = member.get(fx, PATH).await;
    ((member), (*answer.entry).clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_member_makes_up_is_answered() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 3);
    let secret = Group::generate().unwrap();
    let (source, truth) = honest(&fx, "source", &secret).await;
    let other = source.get(&fx, "/repos/acme/repo-0002").await.entry;
    drop(source);
    fx.clock.advance(100);
    let later = Entry { validated_at: fx.clock.now(), ..truth.clone() };
    let lie = Bytes::from_static(b"{\"full_name\":\"acme/evil\"}");
    let made_up = Entry { cid: Cid::of(&lie), body: lie, ..later.clone() };
    // What is announced, what is given, and whether it is seen to be wrong before GitHub is asked.
    type Case = fn(&Rogue, &[Entry; 3]) -> (Said, Option<Vec<u8>>);
    let cases: [(&str, Case, bool); 6] = [
        ("another block", |rogue, [later, ..]| (rogue.part(later).0, Some(b"hello".to_vec())), true),
        ("another key's block", |rogue, [later, other, _]| (rogue.part(later).0, Some(rogue.part(other).1)), true),
        (
            "another key's copy under this name",
            |rogue, [later, other, _]| {
                let (said, block) = rogue.part(other);
                (Said { name: rogue.part(later).0.name, ..said }, Some(block))
            },
            true,
        ),
        (
            "a block that is sealed for another partition",
            |rogue, [later, ..]| {
                let (said, _) = rogue.part(later);
                let block = rogue.group.seal("name:other", b"x").unwrap();
                (Said { cid: Blob(Cid::of(&block).sha256().to_vec()), ..said }, Some(block))
            },
            true,
        ),
        ("nothing, ever", |rogue, [later, ..]| (rogue.part(later).0, None), false),
        (
            "a lie that fits in every way",
            |rogue, [.., made_up]| {
                let (said, block) = rogue.part(made_up);
                (said, Some(block))
            },
            false,
        ),
    ];
    for (n, (what, case, is_seen)) in cases.into_iter().enumerate() {
        let victim = fx.member(&format!("victim-{n}"), How::of(&secret)).await;
        let entries = [later.clone(), (*other).clone(), made_up.clone()];
        let draft = Rogue {
            group: Arc::new(Group::read(&Secret::new(secret.as_str())).unwrap()),
            say: mpsc::unbounded_channel().0,
        };
        let (said, block) = case(&draft, &entries);
        let rogue = Rogue::start(&secret, &victim.address(), block);
        rogue.say(vec![said]);
        victim.knows(1).await;
        let started = Instant::now();
        let answer = victim.get(&fx, PATH).await;
        assert!(matches!(answer.outcome, Outcome::Fetched(_)), "{what}: {:?}", answer.outcome);
        assert_eq!(answer.entry.body, truth.body, "{what}");
        assert_eq!(victim.tallied().refused > 0, is_seen, "{what}: {:?}", victim.tallied());
        assert!(started.elapsed() < Duration::from_secs(9), "{what}: {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_that_are_forged_old_early_or_too_many_are_refused_and_counted() {
    let fx = Fixture::new();
    world::organisation(&fx.sim, 3);
    let secret = Group::generate().unwrap();
    let (victim, truth) = honest(&fx, "victim", &secret).await;
    let rogue = Rogue::start(&secret, &victim.address(), None);
    until("they meet", || !victim.peers.standing().peers.is_empty()).await;
    let refused = async |what: &str, sealed: Vec<u8>| {
        let before = victim.tallied().refused;
        // Each by another, since one who was caught is not heard any more.
        let liar = Rogue::start(&secret, &victim.address(), None);
        liar.say.send(sealed).unwrap();
        until(what, || victim.tallied().refused > before).await;
        assert_eq!(victim.peers.standing().known, 1, "{what}");
    };
    let at = |secs: i64| Entry { validated_at: Timestamp::from_secs(fx.clock.now().secs() + secs), ..truth.clone() };
    let early = rogue.part(&at(86_400)).0;
    refused("from the future", rogue.seal(&Gossip::Have(vec![early]))).await;
    let (said, _) = rogue.part(&at(5));
    let text = String::from_utf8(said.head.0.clone()).unwrap().replace("\"status\":200", "\"status\":404");
    let altered = Said { head: Blob(text.into_bytes()), ..said.clone() };
    refused("altered", rogue.seal(&Gossip::Have(vec![altered]))).await;
    refused("no message", b"hello".to_vec()).await;
    refused("cut short", rogue.seal(&Gossip::Have(vec![said.clone()]))[..40].to_vec()).await;
    let other = Group::read(&Secret::new(Group::generate().unwrap())).unwrap();
    refused("of another group", other.seal("peers: gossip", b"x").unwrap()).await;
    refused("too many", rogue.seal(&Gossip::Have(vec![said.clone(); 65]))).await;
    // Who said what nobody can have sealed is not heard any more, whatever it says.
    let caught = Rogue::start(&secret, &victim.address(), None);
    for n in 0..4 {
        let before = victim.tallied().refused;
        caught.say.send(format!("hello {n}").into_bytes()).unwrap();
        let started = Instant::now();
        while victim.tallied().refused == before && started.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let before = victim.tallied().refused;
    caught.say(vec![caught.part(&(*victim.get(&fx, "/repos/acme/repo-0002").await.entry).clone()).0]);
    caught.say.send(b"hello again".to_vec()).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(victim.tallied().refused, before);
    // Older, and the same again later: nothing changes.
    let old = rogue.seal(&Gossip::Have(vec![rogue.part(&at(-50)).0]));
    rogue.say.send(old.clone()).unwrap();
    rogue.say(vec![said]);
    rogue.say.send(old).unwrap();
    // A time that lies far ahead outdates for a minute, not for ever.
    let far = octocache::cutoff::Cutoff {
        scope: "all".parse().unwrap(),
        at: Timestamp::from_secs(4_000_000_000),
        mode: octocache::cutoff::CutoffMode::Revalidate,
    };
    rogue.say.send(rogue.seal(&Gossip::Outdated(vec![far]))).unwrap();
    let started = Instant::now();
    while victim.cache.stack().all_cutoffs().is_empty() {
        victim.cache.hear().await;
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let latest = victim.cache.stack().all_cutoffs().iter().map(|cutoff| cutoff.at).max();
    assert!(latest <= Some(fx.clock.now().plus(60)), "{latest:?}");
    // A flood: bounded in memory, and honest answers go on. All of it is made up beforehand, so that it comes as fast
    // as it can be sent; invalidations are heard faster than announcements.
    let said = rogue.part(&at(-1)).0;
    let announcements = (0..400_u32).map(|n| {
        // The same announcement under names of their own.
        let named = |m: u32| [&(n * 64 + m).to_le_bytes()[..], &[9; 12]].concat();
        Gossip::Have((0..64).map(|m| Said { name: Blob(named(m)), ..said.clone() }).collect())
    });
    let invalidations = (0..3_000).map(|n| {
        let one = octocache::cutoff::Cutoff {
            scope: "repo:acme/nothing".parse().unwrap(),
            at: Timestamp::from_secs(n),
            mode: octocache::cutoff::CutoffMode::Revalidate,
        };
        Gossip::Outdated(vec![one; 64])
    });
    let flood: Vec<_> = announcements.chain(invalidations).map(|gossip| rogue.seal(&gossip)).collect();
    let before = victim.tallied().refused;
    for sealed in flood {
        rogue.say.send(sealed).unwrap();
    }
    until("the flood is held back", || victim.tallied().refused > before + 1_000).await;
    assert!(victim.peers.standing().known <= 20_100, "{}", victim.peers.standing().known);
    let started = Instant::now();
    let answer = victim.cache.get(&fx.request("/repos/acme/repo-0000"), &Ask::default()).await.unwrap();
    assert!(matches!(answer.outcome, Outcome::Fetched(_)) && started.elapsed() < Duration::from_secs(9));
}
