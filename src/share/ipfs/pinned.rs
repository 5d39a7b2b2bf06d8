//! What a node keeps for us, as the names of its pins tell.
//!
//! Knows: how a pin is named, which copy of a key is the latest, what is to be let go. Does not know:
//! calls. The node's own list is the index: nothing else has to be kept, and whoever has the secret and
//! reaches the node finds the same.
//!
//! ```text
//! octocache-1-<secret's id>-<name of the key>-<validated at>-<kept until>      times in seconds since 1970
//! ```

use std::collections::HashMap;

use crate::cid::Cid;
use crate::clock::Timestamp;

/// What all names begin with; another version begins otherwise.
pub(super) const PREFIX: &str = "octocache-1-";

/// Copies that are kept; beyond that the one that was validated longest ago goes.
pub(super) const MAX_PINS: usize = 10_000;

/// One copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) cid: Cid,
    pub(super) validated_at: Timestamp,
    pub(super) until: Timestamp,
}

/// All copies, by the secret's id and the key's name: `<id>-<name>`.
#[derive(Debug, Default)]
pub(super) struct Pinned(HashMap<String, Pin>);

/// The name of a pin.
pub(super) fn name(of: &str, pin: &Pin) -> String {
    format!("{PREFIX}{of}-{}-{}", pin.validated_at.secs(), pin.until.secs())
}

/// What a name says; `None` for names that are not ours.
fn read(cid: Cid, name: &str) -> Option<(String, Pin)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (id, key) = (parts.next()?, parts.next()?);
    let fits = |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !fits(id, 8) || !fits(key, 32) {
        return None;
    }
    let mut time = || Some(Timestamp::from_secs(parts.next()?.parse::<u32>().ok()?.into()));
    let (validated_at, until) = (time()?, time()?);
    parts.next().is_none().then(|| (format!("{id}-{key}"), Pin { cid, validated_at, until }))
}

impl Pinned {
    /// What a node's list says, and what of it can go: older copies, and those whose time is over.
    pub(super) fn of(list: Vec<(Cid, String)>, now: Timestamp) -> (Self, Vec<Cid>) {
        let (mut pinned, mut gone) = (Self::default(), Vec::new());
        for (cid, name) in list {
            let Some((of, pin)) = read(cid, &name) else { continue };
            if pin.until <= now {
                gone.push(pin.cid);
            } else {
                gone.extend(pinned.add(of, pin));
            }
        }
        (pinned, gone)
    }

    /// The copy of a key.
    pub(super) fn get(&self, of: &str) -> Option<&Pin> {
        self.0.get(of)
    }

    /// Adds a copy; what it makes superfluous is given back.
    pub(super) fn add(&mut self, of: String, pin: Pin) -> Option<Cid> {
        if let Some(old) = self.0.get_mut(&of) {
            let older = if old.validated_at <= pin.validated_at { std::mem::replace(old, pin) } else { pin };
            return (older.cid != self.0.get(&of)?.cid).then_some(older.cid);
        }
        self.0.insert(of, pin);
        if self.0.len() <= MAX_PINS {
            return None;
        }
        let oldest = self.0.iter().min_by_key(|(_, pin)| pin.validated_at).map(|(of, _)| of.clone())?;
        self.0.remove(&oldest).map(|pin| pin.cid)
    }

    /// All copies.
    pub(super) fn all(&self) -> Vec<(String, Pin)> {
        self.0.iter().map(|(of, pin)| (of.clone(), pin.clone())).collect()
    }

    /// Forgets a copy.
    pub(super) fn remove(&mut self, of: &str) -> Option<Pin> {
        self.0.remove(of)
    }

    /// Takes out what is kept no longer.
    pub(super) fn take_expired(&mut self, now: Timestamp) -> Vec<Cid> {
        let gone = self.0.values().filter(|pin| pin.until <= now).map(|pin| pin.cid).collect();
        self.0.retain(|_, pin| pin.until > now);
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(n: u8, validated_at: i64, until: i64) -> Pin {
        Pin { cid: Cid::of(&[n]), validated_at: Timestamp::from_secs(validated_at), until: Timestamp::from_secs(until) }
    }

    #[test]
    fn the_nodes_list_is_the_index() {
        let of = format!("0a1b2c3d-{}", "e".repeat(32));
        let other = format!("0a1b2c3d-{}", "f".repeat(32));
        let list = [(&of, pin(1, 100, 900)), (&of, pin(2, 200, 900)), (&of, pin(3, 150, 900)), (&other, pin(4, 1, 50))];
        let list: Vec<(Cid, String)> = list.iter().map(|(of, pin)| (pin.cid, name(of, pin))).collect();
        let foreign =
            ["", "octocache-1-", "octocache-2-x", "mine", "octocache-1-0a1b2c3d-zz-1-2", "octocache-1-0a1b2c3d"];
        let foreign = foreign.map(|name| (Cid::of(b"x"), name.to_owned()));
        let (pinned, mut gone) = Pinned::of(list.into_iter().chain(foreign).collect(), Timestamp::from_secs(60));
        gone.sort();
        let mut expected = [1, 3, 4].map(|n| Cid::of(&[n])).to_vec();
        expected.sort();
        assert_eq!((pinned.get(&of), gone), (Some(&pin(2, 200, 900)), expected));
        assert!(pinned.get(&other).is_none());
    }

    #[test]
    fn what_is_too_much_or_too_old_goes() {
        let mut pinned = Pinned::default();
        for n in 0..MAX_PINS {
            assert!(pinned.add(format!("{n:041}"), pin(0, n as i64, 1_000_000)).is_none());
        }
        assert_eq!(pinned.add("new".into(), pin(9, 5_000, 2_000_000)), Some(Cid::of(&[0])));
        assert!(pinned.get(&format!("{:041}", 0)).is_none() && pinned.get("new").is_some());
        // The same bytes under a new name are not let go.
        assert_eq!(pinned.add("new".into(), pin(9, 6_000, 2_000_000)), None);
        assert_eq!(pinned.take_expired(Timestamp::from_secs(1_000_000)).len(), MAX_PINS - 1);
        assert_eq!(pinned.all().len(), 1);
    }
}
