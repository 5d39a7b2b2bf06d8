//! What is known of copies elsewhere: announced, not asked for.
//!
//! Knows: which of two announcements holds, who has a copy, how two indexes find out in what they differ.
//! Does not know: sealing, the network. Everything is decided with `now` as an argument.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use super::copy::Name;
use crate::cid::Cid;
use crate::clock::Timestamp;

/// Announcements that are kept; beyond that those that were validated longest ago go.
pub(super) const MAX_KNOWN: usize = 20_000;

/// So many go at once, so that room is not made one by one.
const GO_AT_ONCE: usize = MAX_KNOWN / 50;

/// Holders of a copy that are remembered.
const MAX_HOLDERS: usize = 4;

/// An announcement from further ahead comes from a clock that is wrong.
const FUTURE_SECS: u64 = 30;

/// Two indexes compare so many parts of all names.
pub(super) const BUCKETS: usize = 256;

/// A peer, by name.
pub(super) type Peer = Arc<str>;

/// What is said of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// The first half of its envelope.
    pub(super) head: Bytes,
    /// The address of its body.
    pub(super) cid: Cid,
    pub(super) fetched_at: Timestamp,
    pub(super) validated_at: Timestamp,
    /// Who has it, the latest first; empty for our own.
    pub(super) holders: Vec<Peer>,
}

/// What became of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// It was not known, or is later than what was.
    News,
    /// Known already.
    Known,
    /// Known already, and one more has it; of few that is news, too.
    Holder,
    /// There is a later one.
    Older,
    /// Its time has not come.
    FromTheFuture,
}

/// A part of all names: how many, and a sum over them and their times.
pub(super) type Print = (u32, u64);

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    known: HashMap<Name, Known>,
    prints: Vec<Print>,
}

impl Default for Index {
    fn default() -> Self {
        Self { known: HashMap::new(), prints: vec![(0, 0); BUCKETS] }
    }
}

fn bucket(name: &Name) -> usize {
    usize::from(name[0])
}

/// A number for a name and its time. Names cannot be chosen from outside the group, so no key is needed.
fn number(name: &Name, at: Timestamp) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name);
    hasher.write_i64(at.secs());
    hasher.finish()
}

impl Index {
    /// Takes an announcement by `from`, or our own.
    pub(super) fn learn(&mut self, name: Name, new: Known, from: Option<&Peer>, now: Timestamp) -> Learned {
        if new.validated_at > now.plus(FUTURE_SECS) {
            return Learned::FromTheFuture;
        }
        if let Some(old) = self.known.get_mut(&name) {
            if new.validated_at < old.validated_at {
                return Learned::Older;
            }
            if new.validated_at == old.validated_at {
                if old.cid == new.cid
                    && let Some(from) = from
                    && !old.holders.contains(from)
                {
                    let is_news = old.holders.len() < MAX_HOLDERS;
                    old.holders.insert(0, from.clone());
                    old.holders.truncate(MAX_HOLDERS);
                    return if is_news { Learned::Holder } else { Learned::Known };
                }
                return Learned::Known;
            }
        }
        // Whoever had the same bytes has them still.
        let before = self.remove(&name).filter(|old| old.cid == new.cid).map(|old| old.holders).unwrap_or_default();
        let mut holders: Vec<Peer> = from.into_iter().cloned().collect();
        holders.extend(before.into_iter().filter(|peer| Some(peer) != from));
        holders.truncate(MAX_HOLDERS);
        self.add(name, Known { holders, ..new });
        if self.known.len() > MAX_KNOWN {
            self.make_room();
        }
        Learned::News
    }

    fn add(&mut self, name: Name, known: Known) {
        let (count, sum) = &mut self.prints[bucket(&name)];
        *count += 1;
        *sum = sum.wrapping_add(number(&name, known.validated_at));
        self.known.insert(name, known);
    }

    pub(super) fn remove(&mut self, name: &Name) -> Option<Known> {
        let known = self.known.remove(name)?;
        let (count, sum) = &mut self.prints[bucket(name)];
        *count -= 1;
        *sum = sum.wrapping_sub(number(name, known.validated_at));
        Some(known)
    }

    fn make_room(&mut self) {
        let mut by_age: Vec<(Timestamp, Name)> =
            self.known.iter().map(|(name, known)| (known.validated_at, *name)).collect();
        by_age.sort_unstable();
        for (_, name) in by_age.into_iter().take(GO_AT_ONCE) {
            self.remove(&name);
        }
    }

    pub(super) fn get(&self, name: &Name) -> Option<&Known> {
        self.known.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// A peer does not have what it is said to have.
    pub(super) fn has_not(&mut self, name: &Name, peer: &Peer) {
        if let Some(known) = self.known.get_mut(name) {
            known.holders.retain(|holder| holder != peer);
        }
    }

    /// Drops everything that `doomed` says; its names.
    pub(super) fn forget(&mut self, doomed: impl Fn(&Known) -> bool) -> Vec<Name> {
        let names: Vec<Name> = self.known.iter().filter(|(_, known)| doomed(known)).map(|(name, _)| *name).collect();
        for name in &names {
            self.remove(name);
        }
        names
    }

    /// What another index compares with its own.
    pub(super) fn prints(&self) -> &[Print] {
        &self.prints
    }

    /// The parts in which another index differs.
    pub(super) fn differing(&self, others: &[Print]) -> Vec<usize> {
        let pairs = self.prints.iter().zip(others).enumerate();
        pairs.filter(|(_, (ours, theirs))| ours != theirs).map(|(at, _)| at).collect()
    }

    /// Names and times of some parts: as many whole ones as hold no more than `most`, from `start` on, so
    /// that who asks again learns of others.
    pub(super) fn names(&self, buckets: &[usize], most: usize, start: usize) -> Vec<(Name, Timestamp)> {
        let mut wanted = [false; BUCKETS];
        let mut held = 0;
        let from = buckets.iter().position(|at| *at >= start).unwrap_or(0);
        let (before, after) = buckets.split_at(from);
        for at in after.iter().chain(before).filter(|at| **at < BUCKETS) {
            held += self.prints[*at].0 as usize;
            if held > most && wanted.contains(&true) {
                break;
            }
            wanted[*at] = true;
        }
        let names = self.known.iter().filter(|(name, _)| wanted[bucket(name)]);
        names.map(|(name, known)| (*name, known.validated_at)).take(most).collect()
    }

    /// Of another's names, those of which we know nothing or something older.
    pub(super) fn lacking(&self, theirs: &[(Name, Timestamp)]) -> Vec<Name> {
        let lacks = |(name, at): &&(Name, Timestamp)| self.known.get(name).is_none_or(|known| known.validated_at < *at);
        theirs.iter().filter(lacks).map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn known(body: &str, validated_at: i64) -> Known {
        Known {
            head: Bytes::from_static(b"{}"),
            cid: Cid::of(body.as_bytes()),
            fetched_at: Timestamp::from_secs(0),
            validated_at: Timestamp::from_secs(validated_at),
            holders: Vec::new(),
        }
    }

    fn name(n: u32) -> Name {
        let mut name = [0; 16];
        name[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_le_bytes());
        name
    }

    #[test]
    fn later_ones_hold_and_holders_are_remembered() {
        let (mut index, peers) = (Index::default(), ["a", "b", "c", "d", "e"].map(Peer::from));
        let [a, b, ..] = &peers;
        assert_eq!(index.learn(name(1), known("x", 100), Some(a), NOW), Learned::News);
        assert_eq!(index.learn(name(1), known("x", 100), Some(b), NOW), Learned::Holder);
        assert_eq!(index.learn(name(1), known("x", 100), Some(b), NOW), Learned::Known);
        assert_eq!(index.get(&name(1)).unwrap().holders, [b.clone(), a.clone()]);
        // Confirmed: the same bytes, and whoever had them has them.
        assert_eq!(index.learn(name(1), known("x", 200), Some(a), NOW), Learned::News);
        assert_eq!(index.get(&name(1)).unwrap().holders, [a.clone(), b.clone()]);
        assert_eq!(index.learn(name(1), known("x", 150), Some(b), NOW), Learned::Older);
        // Other bytes: nobody else has them.
        assert_eq!(index.learn(name(1), known("y", 300), Some(b), NOW), Learned::News);
        assert_eq!(index.get(&name(1)).unwrap().holders, std::slice::from_ref(b));
        assert_eq!(index.learn(name(1), known("z", NOW.secs() + 31), Some(b), NOW), Learned::FromTheFuture);
        for peer in &peers {
            index.learn(name(1), known("y", 300), Some(peer), NOW);
        }
        assert_eq!(index.get(&name(1)).unwrap().holders.len(), MAX_HOLDERS);
        index.has_not(&name(1), &peers[4]);
        assert!(!index.get(&name(1)).unwrap().holders.contains(&peers[4]));
    }

    #[test]
    fn it_is_bounded_and_the_oldest_go() {
        let mut index = Index::default();
        for n in 0..=(MAX_KNOWN as u32) {
            index.learn(name(n), known("x", i64::from(n)), None, NOW);
        }
        assert_eq!(index.len(), MAX_KNOWN + 1 - GO_AT_ONCE);
        assert!(index.get(&name(0)).is_none() && index.get(&name(MAX_KNOWN as u32)).is_some());
    }

    /// One round of what two nodes do to become equal; whether anything was learned.
    fn sync(ours: &mut Index, theirs: &Index) -> bool {
        let buckets = theirs.differing(ours.prints());
        let lacking = ours.lacking(&theirs.names(&buckets, usize::MAX, 0));
        for name in &lacking {
            ours.learn(*name, theirs.get(name).unwrap().clone(), None, NOW);
        }
        !lacking.is_empty()
    }

    #[test]
    fn a_large_difference_closes_in_some_rounds() {
        let (mut ours, mut theirs) = (Index::default(), Index::default());
        for n in 0..10_000 {
            theirs.learn(name(n), known("x", 5), None, NOW);
            if n % 10 != 0 {
                ours.learn(name(n), known("x", 5), None, NOW);
            }
        }
        for round in 0..12 {
            let buckets = theirs.differing(ours.prints());
            let names = theirs.names(&buckets, 2_048, round * 97 % BUCKETS);
            assert!(names.len() <= 2_048 && (!names.is_empty() || buckets.is_empty()));
            for name in ours.lacking(&names) {
                ours.learn(name, theirs.get(&name).unwrap().clone(), None, NOW);
            }
        }
        assert_eq!(ours.len(), 10_000);
    }

    proptest! {
        #[test]
        fn two_become_equal_in_one_round_each_way(
            ours in prop::collection::vec((0_u32..300, 0_i64..50), 0..400),
            theirs in prop::collection::vec((0_u32..300, 0_i64..50), 0..400),
        ) {
            let fill = |said: &[(u32, i64)]| {
                let mut index = Index::default();
                for (n, at) in said {
                    index.learn(name(*n), known(&format!("{n} {at}"), *at), None, NOW);
                }
                index
            };
            let (mut ours, mut theirs) = (fill(&ours), fill(&theirs));
            sync(&mut ours, &theirs);
            sync(&mut theirs, &ours);
            prop_assert_eq!(&ours.known, &theirs.known);
            prop_assert_eq!(ours.prints(), theirs.prints());
            prop_assert!(ours.differing(theirs.prints()).is_empty() && !sync(&mut ours, &theirs));
            // The sums are those of what is there, however it came about.
            let mut again = Index::default();
            ours.known.iter().for_each(|(name, known)| again.add(*name, known.clone()));
            prop_assert_eq!(again.prints(), ours.prints());
        }
    }
}
