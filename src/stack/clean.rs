//! Making room (A14) and emptying (A15, `clear`).
//!
//! Knows: what was not used for long, how a bundle forgets. Does not know: when it is called.

use std::collections::HashSet;
use std::fs;
use std::time::SystemTime;

use serde::Serialize;

use super::tally::count;
use super::{Saved, Stack, Wait};
use crate::bundle::{Bundle, Record};
use crate::clock::Timestamp;
use crate::cutoff::{Cutoff, CutoffMode};
use crate::error::Result;
use crate::tag::{Scope, Subject};
use crate::tier::{Tier, WritableTier};

/// What cleaning did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// Loose entries that were removed.
    pub removed: usize,
    /// Bytes that were freed, where they are known.
    pub bytes: u64,
    /// What became of the bundle, where it had to be rewritten.
    pub bundle: Option<Saved>,
}

impl Stack {
    /// Removes entries of `scope`, their bodies too: from loose files at once, from the bundle by
    /// repacking it.
    pub fn clear(&self, scope: &Scope) -> Result<Cleaned> {
        self.invalidate(&[Cutoff { scope: scope.clone(), at: self.clock.now(), mode: CutoffMode::Gone }])?;
        let mut cleaned = Cleaned::default();
        let scopes = self.by_all_names(scope);
        for key in self.disk.keys() {
            let path = self.disk.path(&key);
            let doomed = match self.disk.look_up(&key) {
                Ok(Some(entry)) => {
                    let subject = Subject { key: &key, parts: &entry.parts, listing: entry.listing.as_deref() };
                    scopes.iter().any(|scope| scope.covers(subject))
                }
                // A broken entry is no use to anybody.
                Ok(None) | Err(_) => true,
            };
            if doomed {
                cleaned.bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
                self.disk.remove(&key)?;
                cleaned.removed += 1;
                count(&self.tally.removed, 1);
            }
        }
        self.disk.sweep();
        if *scope == Scope::All {
            for path in [self.bundle.path(), self.local.path()] {
                cleaned.bytes += fs::metadata(path).map_or(0, |meta| meta.len());
                let _absent_is_fine = fs::remove_file(path);
            }
            let logs = [self.bundle.log().to_owned(), self.local.log().to_owned(), self.used_log()];
            for path in logs.into_iter().chain([self.partitions_path(), self.latest_path(), self.aliases_path()]) {
                let _absent_is_fine = fs::remove_file(path);
            }
            return Ok(cleaned);
        }
        for tier in [&self.bundle, &self.local] {
            if tier.bundle().is_some() {
                cleaned.bundle = Some(self.repack_without(tier, &HashSet::new())?);
            }
        }
        Ok(cleaned)
    }

    /// Removes entries that were not used for `older_than_secs`, then brings the store to at most `max_bytes`, loose files
    /// and bundles alike. Uses of bundled entries are known to the day. Does nothing while another process saves
    /// ([`Saved::Busy`]).
    pub fn clean(&self, older_than_secs: Option<u64>, max_bytes: Option<u64>) -> Result<Cleaned> {
        self.prepare()?;
        let mut cleaned = match older_than_secs {
            Some(secs) => self.clean_older_than(self.clock.now().minus(secs))?,
            None => Cleaned::default(),
        };
        if let Some(max) = max_bytes.filter(|_| cleaned.bundle != Some(Saved::Busy)) {
            let more = self.shrink(max)?;
            cleaned.removed += more.removed;
            cleaned.bytes += more.bytes;
            cleaned.bundle = more.bundle.or(cleaned.bundle);
        }
        Ok(cleaned)
    }

    fn clean_older_than(&self, at: Timestamp) -> Result<Cleaned> {
        let mut cleaned = Cleaned::default();
        let before = self.bytes_on_disk();
        {
            let Some(_lock) = self.lock(Wait::No)? else {
                return Ok(Cleaned { bundle: Some(Saved::Busy), ..cleaned });
            };
            self.drop_old_partials();
            for key in self.disk.keys() {
                let used = fs::metadata(self.disk.path(&key)).and_then(|meta| meta.modified()).ok();
                let used = used.and_then(|used| used.duration_since(SystemTime::UNIX_EPOCH).ok());
                if used.is_some_and(|used| (used.as_secs() as i64) < at.secs()) {
                    self.disk.remove(&key)?;
                    cleaned.removed += 1;
                }
            }
            self.disk.sweep();
        }
        let used = self.used_days();
        for tier in [&self.bundle, &self.local] {
            let Some(bundle) = Bundle::open(tier.path())? else { continue };
            let (records, _) = bundle.check_index()?;
            let is_old = |record: &Record| {
                let day = used.get(&record.key).copied().unwrap_or(0).max(record.used_day);
                let end_of_day = Timestamp::from_secs((i64::from(day) + 1) * 86_400);
                end_of_day <= at && record.validated_at() < at
            };
            let doomed: HashSet<[u8; 16]> = records.iter().filter(|record| is_old(record)).map(|one| one.key).collect();
            if !doomed.is_empty() {
                cleaned.removed += doomed.len();
                cleaned.bundle = Some(self.repack_without(tier, &doomed)?);
            }
        }
        count(&self.tally.removed, cleaned.removed as u64);
        cleaned.bytes = before.saturating_sub(self.bytes_on_disk());
        Ok(cleaned)
    }
}
