//! Invalidations as they are written: in a file of their own, in bundles, on other machines.
//!
//! Knows: the form, its checksum, and how far its times are believed. Does not know: what they mean.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Cutoff, Cutoffs, MAX_BYTES, MAX_CUTOFFS};
use crate::alias::Alias;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};

/// The file's version.
const VERSION: u32 = 1;

/// Names and numbers that a bundle carries at most; the list stays below [`MAX_BYTES`].
const MAX_WRITTEN_ALIASES: usize = 2_000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    v: u32,
    cutoffs: Vec<Cutoff>,
    /// A checksum of `cutoffs`: a bit that flips in a time or a name must make nothing fresh. Lists of before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<String>,
    /// Names and numbers of what a bundle holds. Readers of before take a list with them for one that they cannot read, which
    /// is safe: they revalidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<Alias>,
}

impl File {
    fn of(cutoffs: Vec<Cutoff>, aliases: Vec<Alias>) -> Self {
        let check = Some(check_of(&cutoffs));
        Self { v: VERSION, cutoffs, check, aliases }
    }
}

fn check_of(cutoffs: &[Cutoff]) -> String {
    let text = serde_json::to_vec(cutoffs).unwrap_or_default();
    HEXLOWER.encode(&Sha256::digest(&text)[..8])
}

impl Cutoffs {
    /// The form between machines: the file's, but nothing for an empty list.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(Vec::new())
    }

    /// The form in bundles, with names and numbers of what is in them.
    pub fn encode_with(&self, aliases: Vec<Alias>) -> Vec<u8> {
        if self.is_empty() && aliases.is_empty() { Vec::new() } else { self.written(aliases) }
    }

    /// The file form.
    pub fn encode_file(&self) -> Vec<u8> {
        self.written(Vec::new())
    }

    fn written(&self, mut aliases: Vec<Alias>) -> Vec<u8> {
        let mut sorted: Vec<Cutoff> = self.iter().cloned().collect();
        sorted.sort_by(|a, b| (&a.scope, a.mode, a.at).cmp(&(&b.scope, b.mode, b.at)));
        aliases.sort_unstable();
        aliases.dedup();
        aliases.truncate(MAX_WRITTEN_ALIASES);
        let named = serde_json::to_vec(&File::of(sorted.clone(), aliases)).unwrap_or_default();
        // Names must not make a list that nobody reads.
        if named.len() <= MAX_BYTES {
            named
        } else {
            serde_json::to_vec(&File::of(sorted, Vec::new())).unwrap_or_default()
        }
    }

    /// Reads the file form. What it says counts only as of a time: see [`Unchecked`].
    pub fn decode(bytes: &[u8]) -> Result<Unchecked> {
        if bytes.is_empty() {
            return Ok(Unchecked::default());
        }
        if bytes.len() > MAX_BYTES {
            return Err(Error::new(Kind::TooLarge, "the list of invalidations is too large"));
        }
        let file: File = serde_json::from_slice(bytes)
            .map_err(|cause| Error::corrupt("the list of invalidations does not parse").because(cause))?;
        if file.v != VERSION || file.cutoffs.len() > MAX_CUTOFFS {
            return Err(Error::corrupt("the list of invalidations has another version or is too long"));
        }
        if file.check.is_some_and(|check| check != check_of(&file.cutoffs)) {
            return Err(Error::corrupt("the list of invalidations does not have its checksum"));
        }
        let read = |alias: &Alias| Alias::read(alias.roots().0, alias.roots().1);
        let aliases = file.aliases.iter().take(MAX_WRITTEN_ALIASES).filter_map(read).collect();
        Ok(Unchecked { cutoffs: file.cutoffs, aliases })
    }

    /// The same for a file of its own, which says something even if the list is empty: one that was cut off does not.
    pub fn decode_file(bytes: &[u8]) -> Result<Unchecked> {
        if bytes.is_empty() {
            return Err(Error::corrupt("the list of invalidations is cut off"));
        }
        Self::decode(bytes)
    }
}

/// A list as it was written somewhere: by another machine, by this one under another clock, or by an attacker.
/// Its times are believed only up to the end of the suspicion window ([`SUSPECT_SECS`](super::SUSPECT_SECS) from now): one from the
/// far future would outdate everything for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unchecked {
    pub(super) cutoffs: Vec<Cutoff>,
    aliases: Vec<Alias>,
}

impl Unchecked {
    /// The list at `now`. An invalidation from beyond the window happened by now at the latest.
    pub fn as_of(self, now: Timestamp) -> Cutoffs {
        self.corrected(now, Some(now))
    }

    /// The list of a bundle at `now`, whose newest entry is of the time `newest`. An invalidation from beyond
    /// the window outdates the entries that came with it, and not those of later runs: a bundle is read again
    /// and again.
    pub fn of_bundle(self, now: Timestamp, newest: Timestamp) -> Cutoffs {
        self.corrected(now, Some(newest).filter(|newest| *newest <= now))
    }

    /// The names and numbers that came with it.
    pub fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// How many of its invalidations are from beyond the window.
    pub fn from_the_future(&self, now: Timestamp) -> usize {
        self.cutoffs.iter().filter(|cutoff| cutoff.is_from_the_future(now)).count()
    }

    fn corrected(self, now: Timestamp, instead: Option<Timestamp>) -> Cutoffs {
        let correct = |cutoff: Cutoff| match (cutoff.is_from_the_future(now), instead) {
            (false, _) => Some(cutoff),
            (true, at) => at.map(|at| Cutoff { at, ..cutoff }),
        };
        Cutoffs::of(self.cutoffs.into_iter().filter_map(correct), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cutoff::CutoffMode;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn a_flipped_bit_is_noticed_and_a_list_of_before_is_read() {
        let cutoff = |scope: &str, mode| Cutoff { scope: scope.parse().unwrap(), at: NOW.before(), mode };
        let list = Cutoffs::of(
            [cutoff("repo:o/r", CutoffMode::Revalidate), cutoff("org:acme+family:issues", CutoffMode::Gone)],
            NOW,
        );
        let file = list.encode_file();
        assert_eq!(Cutoffs::decode_file(&file).unwrap().as_of(NOW), list);
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[at] ^= 1 << bit;
                let same = Cutoffs::decode_file(&flipped).map_or(true, |read| read.as_of(NOW) == list);
                assert!(same, "byte {at}, bit {bit}");
            }
            assert!(Cutoffs::decode_file(&file[..at]).is_err());
        }
        // With names and numbers: those that are none are left out, and readers of before revalidate everything.
        let pairs: Vec<Alias> = (0..3_000).filter_map(|id| Alias::of_repository(id, &format!("o/r{id:04}"))).collect();
        let with_names = list.encode_with(pairs.clone());
        assert!(with_names.len() < MAX_BYTES);
        let read = Cutoffs::decode(&with_names).unwrap();
        assert_eq!((read.aliases(), read.clone().as_of(NOW)), (&pairs[..MAX_WRITTEN_ALIASES], list));
        let planted = br#"{"v":1,"cutoffs":[],"aliases":[["/repos/a/b","/organizations/7"],["","x"]]}"#;
        assert!(Cutoffs::decode(planted).unwrap().aliases().is_empty());
        let empty = Cutoffs::default();
        assert_eq!(Cutoffs::decode_file(&empty.encode_file()).unwrap().as_of(NOW), empty);
        let before = br#"{"v":1,"cutoffs":[{"scope":"repo:o/r","at":"2023-11-14T22:13:19Z","mode":"gone"}]}"#;
        assert_eq!(Cutoffs::decode_file(before).unwrap().as_of(NOW).iter().count(), 1);
    }
}
