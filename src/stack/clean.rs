//! Making room (A14) and emptying (A15, `clear`).
//!
//! Knows: which loose files are oldest, how the bundle forgets. Does not know: when it is called.

use std::collections::HashSet;
use std::fs;
use std::time::SystemTime;

use serde::Serialize;

use super::tally::count;
use super::{Saved, Stack, Wait};
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
        for key in self.disk.keys() {
            let path = self.disk.path(&key);
            let doomed = match self.disk.look_up(&key) {
                Ok(Some(entry)) => {
                    scope.covers(Subject { key: &key, parts: &entry.parts, listing: entry.listing.as_deref() })
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
        if *scope == Scope::All {
            for path in [self.bundle.path(), self.local.path()] {
                cleaned.bytes += fs::metadata(path).map_or(0, |meta| meta.len());
                let _absent_is_fine = fs::remove_file(path);
            }
            let logs = [self.bundle.log().to_owned(), self.local.log().to_owned(), self.used_log()];
            for path in logs.into_iter().chain([self.partitions_path(), self.latest_path()]) {
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

    /// Removes loose entries that were not used for `older_than_secs`, then the least recently
    /// used ones until the rest fits into `max_bytes`. Does nothing while another process saves.
    pub fn clean(&self, older_than_secs: Option<u64>, max_bytes: Option<u64>) -> Result<Cleaned> {
        self.prepare()?;
        let mut cleaned = Cleaned::default();
        let Some(_lock) = self.lock(Wait::No)? else { return Ok(cleaned) };
        self.drop_old_partials();
        let mut files: Vec<_> = self
            .disk
            .keys()
            .into_iter()
            .filter_map(|key| {
                let meta = fs::metadata(self.disk.path(&key)).ok()?;
                let used = meta.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
                Some((used, meta.len(), key))
            })
            .collect();
        files.sort_unstable();
        let mut kept: u64 = files.iter().map(|(_, len, _)| len).sum();
        let too_old = older_than_secs.map(|secs| self.clock.now().minus(secs).secs().max(0) as u64);
        for (used, len, key) in files {
            if too_old.is_none_or(|at| used >= at) && max_bytes.is_none_or(|max| kept <= max) {
                break;
            }
            self.disk.remove(&key)?;
            kept -= len;
            cleaned.removed += 1;
            count(&self.tally.removed, 1);
            cleaned.bytes += len;
        }
        Ok(cleaned)
    }
}
