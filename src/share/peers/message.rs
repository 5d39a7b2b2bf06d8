//! What peers say to each other, as bytes.
//!
//! Knows: the messages and their bounds. Does not know: who may say what. Whatever comes may have been
//! made by anybody who has the secret; nothing here believes more than its form.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::copy::{MAX_HEAD_BYTES, Name};
use super::index::{BUCKETS, Known, Print};
use crate::cid::Cid;
use crate::clock::Timestamp;
use crate::cutoff::Cutoff;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::share::seal::Group;

/// Announcements in one message.
pub(super) const MAX_SAID: usize = 64;

/// The largest message that goes to all.
pub(super) const MAX_GOSSIP_BYTES: usize = 64 << 10;

/// The same, unpacked.
const MAX_UNPACKED_BYTES: usize = MAX_SAID * (MAX_HEAD_BYTES + 128);

/// Names in one request or answer.
pub(super) const MAX_NAMES: usize = 2_048;

/// The longest name of a peer.
const MAX_PEER_BYTES: usize = 128;

/// What sealed messages are about.
const ABOUT: &str = "peers: gossip";

/// Bytes as bytes, not as a list of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob(pub(super) Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                if bytes.len() > super::copy::MAX_BLOCK_BYTES { Err(E::custom("too long")) } else { Ok(bytes.to_vec()) }
            }
        }
        deserializer.deserialize_bytes(Visitor).map(Blob)
    }
}

/// An announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    name: Blob,
    head: Blob,
    cid: Blob,
    /// Who has it, where that is not the sender.
    by: String,
}

impl Said {
    pub(super) fn of(name: &Name, known: &Known) -> Self {
        let [name, head, cid] = [&name[..], &known.head, known.cid.sha256()].map(|bytes| Blob(bytes.to_vec()));
        Self { name, head, cid, by: String::new() }
    }

    /// The same about a copy that somebody else has.
    pub(super) fn held_by(self, peer: &str) -> Self {
        Self { by: peer.to_owned(), ..self }
    }

    /// What it is about, if it is well formed.
    pub(super) fn name(&self) -> Option<Name> {
        name(&self.name)
    }

    /// Who has it, where that is not the sender.
    pub(super) fn by(&self) -> Option<&str> {
        (!self.by.is_empty() && self.by.len() <= MAX_PEER_BYTES).then_some(self.by.as_str())
    }

    /// Errors when it is none that could have been made of an entry.
    pub(super) fn read(self) -> Result<(Name, Known)> {
        let bad = |_| Error::corrupt("an announcement is malformed");
        if self.head.0.len() > MAX_HEAD_BYTES {
            return Err(Error::corrupt("an announcement is too large"));
        }
        let head = Entry::peek_half(&self.head.0)?;
        let known = Known {
            cid: Cid::of_sha256(self.cid.0.try_into().map_err(bad)?),
            fetched_at: head.fetched_at,
            validated_at: head.validated_at,
            head: self.head.0.into(),
            holders: Vec::new(),
        };
        Ok((self.name.0.try_into().map_err(bad)?, known))
    }
}

/// What is said to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Gossip {
    /// The sender has these.
    Have(Vec<Said>),
    /// These are outdated.
    Outdated(Vec<Cutoff>),
}

impl Gossip {
    /// Packed and sealed; `None` when it is too large.
    pub(super) fn seal(&self, group: &Group) -> Option<Vec<u8>> {
        let plain = cbor4ii::serde::to_vec(Vec::new(), self).ok()?;
        let sealed = group.seal(ABOUT, &zstd::bulk::compress(&plain, 3).ok()?).ok()?;
        (sealed.len() <= MAX_GOSSIP_BYTES).then_some(sealed)
    }

    /// Errors unless a member sealed it, and it is within all bounds.
    pub(super) fn open(sealed: &[u8], group: &Group) -> Result<Self> {
        if sealed.len() > MAX_GOSSIP_BYTES {
            return Err(Error::corrupt("a message is too large"));
        }
        let packed = group.open(ABOUT, sealed)?;
        let plain = zstd::bulk::decompress(&packed, MAX_UNPACKED_BYTES)
            .map_err(|cause| Error::corrupt("a message does not unpack").because(cause))?;
        let gossip: Self = cbor4ii::serde::from_slice(&plain)
            .map_err(|cause| Error::corrupt("a message does not parse").because(cause))?;
        let fits = match &gossip {
            Gossip::Have(said) => said.len() <= MAX_SAID,
            Gossip::Outdated(cutoffs) => cutoffs.len() <= MAX_SAID,
        };
        if fits { Ok(gossip) } else { Err(Error::corrupt("a message says too much at once")) }
    }
}

/// What one peer asks another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// The body of this name's copy, by its address.
    Block { name: Blob, cid: Blob },
    /// Which names are there, in the parts in which these differ.
    Names(#[serde(deserialize_with = "prints")] Vec<Print>),
    /// What is said of these.
    Said(Vec<Blob>),
    /// Whether the asker, whose copy is of that time, is the one who asks GitHub for it.
    Claim { name: Blob, known: Option<i64> },
    /// Where the other and those it knows can be reached.
    Who,
}

/// What the other answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    Block(Blob),
    Names(Vec<(Blob, i64)>),
    Said(Vec<Said>),
    Claimed(bool),
    /// Peers and their addresses.
    Who(Vec<(String, String)>),
    /// It does not have it, or does not say.
    No,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It is not known where the peer is, or it was not there for a while.
    Unreached,
    /// It could not be dialled, does not answer, or the connection is gone.
    Failed,
}

fn prints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Print>, D::Error> {
    let prints = Vec::<Print>::deserialize(deserializer)?;
    if prints.len() == BUCKETS { Ok(prints) } else { Err(D::Error::custom("another number of parts")) }
}

/// A name, if it can be one.
pub(super) fn name(blob: &Blob) -> Option<Name> {
    blob.0.as_slice().try_into().ok()
}

/// Names with times, as another said them.
pub(super) fn names(said: Vec<(Blob, i64)>) -> Vec<(Name, Timestamp)> {
    let read = |(blob, at): &(Blob, i64)| Some((name(blob)?, Timestamp::from_secs(*at)));
    said.iter().take(MAX_NAMES).filter_map(read).collect()
}

#[cfg(any(test, feature = "fuzzing"))]
/// Reads `plain` as each message that a peer can send, up to what is believed of it.
pub(crate) fn read_any(plain: &[u8], group: &Group) {
    let packed = zstd::bulk::compress(plain, 1).unwrap_or_default();
    let sealed = group.seal(ABOUT, &packed).unwrap_or_default();
    let gossip = Gossip::open(&sealed, group).ok();
    let replied = cbor4ii::serde::from_slice::<Reply>(plain).ok();
    let said = match (gossip, replied) {
        (Some(Gossip::Have(said)), _) | (_, Some(Reply::Said(said))) => said,
        (_, Some(Reply::Names(said))) => {
            assert!(names(said).len() <= MAX_NAMES);
            Vec::new()
        }
        _ => Vec::new(),
    };
    for one in said {
        let _names = (one.name(), one.by().map(str::len));
        let _known = one.read();
    }
    let _question = cbor4ii::serde::from_slice::<Question>(plain);
}

#[cfg(test)]
mod tests {
    use super::super::copy::{part, tests::group};
    use super::*;
    use crate::entry::tests::entry;

    fn said(n: usize, group: &Group) -> Said {
        let one = entry(&format!("/repos/o/r{n}"), format!("{{\"n\":{n}}}").as_bytes());
        let parted = part(&one, group).unwrap();
        let known = Known {
            head: parted.head,
            cid: parted.cid,
            fetched_at: one.fetched_at,
            validated_at: one.validated_at,
            holders: Vec::new(),
        };
        Said::of(&[n as u8; 16], &known)
    }

    #[test]
    fn what_is_said_is_heard_by_the_group_alone_and_small() {
        let group = group();
        let all: Vec<Said> = (0..MAX_SAID).map(|n| said(n, &group)).collect();
        let gossip = Gossip::Have(all);
        let sealed = gossip.seal(&group).unwrap();
        assert_eq!(Gossip::open(&sealed, &group).unwrap(), gossip);
        assert!(sealed.len() < MAX_SAID * 200, "{} bytes for {MAX_SAID}", sealed.len());
        assert!(!sealed.windows(5).any(|part| part == b"repos"));
        assert!(Gossip::open(&sealed, &super::super::copy::tests::group()).is_err());
        for at in (0..sealed.len()).step_by(7) {
            let mut flipped = sealed.clone();
            flipped[at] ^= 0x20;
            assert!(Gossip::open(&flipped, &group).is_err() && Gossip::open(&sealed[..at], &group).is_err());
        }
        let Gossip::Have(said) = gossip else { return };
        let (name, known) = said[7].clone().read().unwrap();
        assert_eq!((name, known.validated_at), ([7; 16], entry("/x", b"").validated_at));
    }

    #[test]
    fn members_can_say_nothing_that_breaks_another() {
        let group = group();
        let seal = |plain: &[u8]| group.seal(ABOUT, &zstd::bulk::compress(plain, 3).unwrap()).unwrap();
        let too_many = Gossip::Have((0..=MAX_SAID).map(|n| said(n, &group)).collect());
        let too_many = cbor4ii::serde::to_vec(Vec::new(), &too_many).unwrap();
        for (what, sealed) in [
            ("nothing", seal(b"")),
            ("no CBOR", seal(b"hello")),
            ("too many", seal(&too_many)),
            ("a bomb", seal(&vec![0x81; 64 << 20])),
            ("no zstd", group.seal(ABOUT, b"hello").unwrap()),
        ] {
            assert!(Gossip::open(&sealed, &group).is_err(), "{what}");
        }
        let sound = said(1, &group);
        let forged = [
            Said { name: Blob(vec![1; 15]), ..sound.clone() },
            Said { cid: Blob(vec![1; 33]), ..sound.clone() },
            Said { head: Blob(vec![b'{'; MAX_HEAD_BYTES + 1]), ..sound.clone() },
            Said { head: Blob(b"{\"v\":1,".to_vec()), ..sound.clone() },
            Said { head: Blob(b"{\"v\":2,\"x\":1".to_vec()), ..sound },
        ];
        for said in forged {
            assert!(said.read().is_err());
        }
    }
}
