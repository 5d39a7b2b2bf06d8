//! Keeping the whole store within a size: bundle and loose files together (A14).
//!
//! Knows: which entries were not used for longest. Does not know: when it is called.

use std::collections::HashSet;
use std::fs;

use super::{Cleaned, Saved, Stack};
use crate::bundle::{Bundle, Record};
use crate::error::Result;
use crate::tier::bundle::BundleTier;

/// A store that is too large is brought to this share of its bound, in percent, so that it is not
/// rewritten again soon.
const FILL_PERCENT: u128 = 90;

impl Stack {
    /// Brings the store to at most `max_bytes` if it is larger: everything is folded into the local
    /// bundle, and the bundles lose what was not used for longest. Does nothing while another process saves.
    pub fn shrink(&self, max_bytes: u64) -> Result<Cleaned> {
        let mut cleaned = Cleaned::default();
        let before = self.bytes_on_disk();
        if before <= max_bytes {
            return Ok(cleaned);
        }
        if self.fold()? == Saved::Busy {
            return Ok(Cleaned { bundle: Some(Saved::Busy), ..cleaned });
        }
        let folded = self.bytes_on_disk();
        if folded > max_bytes {
            for tier in [&self.bundle, &self.local] {
                // Each of the two keeps its share.
                let size = u128::from(fs::metadata(tier.path()).map_or(0, |meta| meta.len()));
                let most = size * u128::from(max_bytes) * FILL_PERCENT / 100 / u128::from(folded.max(1));
                let doomed = self.least_used(tier, most as u64)?;
                if !doomed.is_empty() {
                    cleaned.removed += doomed.len();
                    super::tally::count(&self.tally.removed, doomed.len() as u64);
                    cleaned.bundle = Some(self.repack_without(tier, &doomed)?);
                }
            }
        }
        cleaned.bytes = before.saturating_sub(self.bytes_on_disk());
        Ok(cleaned)
    }

    /// What loose files and bundles take.
    pub fn bytes_on_disk(&self) -> u64 {
        let len = |path| fs::metadata(path).map_or(0, |meta| meta.len());
        self.disk.bytes() + len(self.bundle_path()) + len(self.local.path().to_owned())
    }

    /// The bundled entries that were not used for longest, so many that the others take `max_bytes`.
    fn least_used(&self, tier: &BundleTier, max_bytes: u64) -> Result<HashSet<[u8; 16]>> {
        let path = tier.path();
        let Some(bundle) = Bundle::open(path)? else { return Ok(HashSet::new()) };
        let (mut records, _) = bundle.check_index()?;
        let size = fs::metadata(path).map_or(0, |meta| meta.len()).max(1);
        let used = self.used_days();
        let last_use =
            |record: &Record| (used.get(&record.key).copied().unwrap_or(0).max(record.used_day), record.validated_at);
        records.sort_by_key(last_use);
        // How well each compresses is not known; all of them together is.
        let mut raw: u64 = records.iter().map(Record::member_len).sum();
        let most = (u128::from(raw) * u128::from(max_bytes) / u128::from(size)) as u64;
        let mut doomed = HashSet::new();
        for record in records {
            if raw <= most {
                break;
            }
            raw -= record.member_len();
            doomed.insert(record.key);
        }
        Ok(doomed)
    }
}
