//! Invalidation (A15): times before which entries of a scope must be revalidated, or are gone.
//!
//! Knows: the list, its file form and how it is compared with a request. Does not know: entries.
//! Nothing is hunted down: whoever asks compares, so it works for loose files, bundles and
//! remote tiers alike.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::policy::CutoffTimes;
use crate::tag::{Scope, Subject};

/// The file's version.
const VERSION: u32 = 1;

/// More scopes than this are folded into one that covers everything.
pub const MAX_CUTOFFS: usize = 1_000;

/// The largest list that is read.
const MAX_BYTES: usize = 1 << 20;

/// What a cutoff means for an entry before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutoffMode {
    /// Validated at or before: revalidate.
    Revalidate,
    /// Fetched at or before: absent, and dropped by the next pack.
    Gone,
}

/// One invalidation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cutoff {
    /// What it covers.
    pub scope: Scope,
    /// From when.
    pub at: Timestamp,
    /// What it means.
    pub mode: CutoffMode,
}

/// All invalidations of a store or bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cutoffs(Vec<Cutoff>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    v: u32,
    cutoffs: Vec<Cutoff>,
}

impl Cutoffs {
    /// What the list says about `subject`.
    pub fn times(&self, subject: Subject<'_>) -> CutoffTimes {
        let mut times = CutoffTimes::default();
        for cutoff in self.0.iter().filter(|cutoff| cutoff.scope.covers(subject)) {
            let time = match cutoff.mode {
                CutoffMode::Revalidate => &mut times.revalidate,
                CutoffMode::Gone => &mut times.gone,
            };
            *time = (*time).max(Some(cutoff.at));
        }
        times
    }

    /// Adds one, keeping the latest time per scope and mode.
    pub fn add(&mut self, cutoff: Cutoff) {
        match self.0.iter_mut().find(|old| old.scope == cutoff.scope && old.mode == cutoff.mode) {
            Some(old) => old.at = old.at.max(cutoff.at),
            None => self.0.push(cutoff),
        }
        if self.0.len() > MAX_CUTOFFS {
            // Too many to compare with each request: the safe direction is to revalidate all.
            // What is gone stays gone, as one time for everything only if there is no room left.
            let newest = self.0.iter().map(|cutoff| cutoff.at).max().unwrap_or_default();
            let fold = |mode| Cutoff { scope: Scope::All, at: newest, mode };
            let gone = self.0.iter().any(|cutoff| cutoff.mode == CutoffMode::Gone);
            self.0 = vec![fold(CutoffMode::Revalidate)];
            if gone {
                self.0.push(fold(CutoffMode::Gone));
            }
        }
    }

    /// Adds all of another list; the later time wins, so an old bundle cannot roll one back.
    pub fn merge(&mut self, other: &Cutoffs) {
        for cutoff in &other.0 {
            self.add(cutoff.clone());
        }
    }

    /// Forgets what no entry fetched after `oldest` could be touched by.
    pub fn forget_before(&mut self, oldest: Timestamp) {
        self.0.retain(|cutoff| cutoff.at >= oldest);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Cutoff> {
        self.0.iter()
    }

    /// The file form; empty for an empty list.
    pub fn encode(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut sorted = self.0.clone();
        sorted.sort_by(|a, b| (&a.scope, a.mode).cmp(&(&b.scope, b.mode)));
        serde_json::to_vec(&File { v: VERSION, cutoffs: sorted }).unwrap_or_default()
    }

    /// Reads the file form.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        if bytes.len() > MAX_BYTES {
            return Err(Error::new(crate::error::Kind::TooLarge, "the list of invalidations is too large"));
        }
        let file: File = serde_json::from_slice(bytes)
            .map_err(|cause| Error::corrupt("the list of invalidations does not parse").because(cause))?;
        if file.v != VERSION || file.cutoffs.len() > MAX_CUTOFFS {
            return Err(Error::corrupt("the list of invalidations has another version or is too long"));
        }
        Ok(Self(file.cutoffs))
    }

    /// The safe reading of a list that cannot be read: revalidate everything until now.
    pub fn everything(at: Timestamp) -> Self {
        Self(vec![Cutoff { scope: Scope::All, at, mode: CutoffMode::Revalidate }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    fn cutoff(scope: &str, at: i64, mode: CutoffMode) -> Cutoff {
        Cutoff { scope: scope.parse().unwrap(), at: Timestamp::from_secs(at), mode }
    }

    #[test]
    fn the_latest_time_of_a_scope_counts_and_old_lists_roll_nothing_back() {
        let entry = entry("/repos/o/r", b"{}");
        let (key, parts) = (entry.key(), &entry.parts);
        let subject = Subject { key: &key, parts, listing: None };
        let mut list = Cutoffs::default();
        assert_eq!(list.times(subject), CutoffTimes::default());
        list.add(cutoff("repo:o/r", 20, CutoffMode::Revalidate));
        list.add(cutoff("repo:o/r", 10, CutoffMode::Revalidate));
        list.add(cutoff("repo:o/x", 90, CutoffMode::Revalidate));
        let mut old = Cutoffs::default();
        old.add(cutoff("all", 15, CutoffMode::Gone));
        list.merge(&old);
        let want = CutoffTimes { revalidate: Some(Timestamp::from_secs(20)), gone: Some(Timestamp::from_secs(15)) };
        assert_eq!(list.times(subject), want);
        assert_eq!(Cutoffs::decode(&list.encode()).unwrap().encode(), list.encode());
    }

    #[test]
    fn too_many_fold_into_one_that_covers_all() {
        let mut list = Cutoffs::default();
        for n in 0..=MAX_CUTOFFS {
            list.add(cutoff(&format!("/p{n}"), n as i64, CutoffMode::Revalidate));
        }
        assert_eq!(list.iter().count(), 1);
        assert_eq!(list.iter().next().unwrap().at, Timestamp::from_secs(MAX_CUTOFFS as i64));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error() {
        for bytes in [&b"{"[..], b"{\"v\":2,\"cutoffs\":[]}", b"{\"v\":1,\"cutoffs\":[{\"scope\":\"?\"}]}"] {
            assert!(Cutoffs::decode(bytes).is_err());
        }
    }
}
