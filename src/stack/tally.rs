//! What the tiers did and hold, as numbers (D5).
//!
//! Knows: counting. Does not know: who asks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Stack;
use crate::tier::bundle::BundleTier;

/// Counters of this process.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) written: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) removed: AtomicU64,
    pub(super) packed: AtomicU64,
    pub(super) invalidated: AtomicU64,
}

/// What the tiers did since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Entries that were put into memory.
    pub held: u64,
    /// Entries that left memory to make room.
    pub evicted: u64,
    /// Loose files that were written, for new bodies and for freshened ones.
    pub written: u64,
    /// Writes that failed.
    pub failed: u64,
    /// Entries that were removed from disk, to make room or for good.
    pub removed: u64,
    /// Times that the bundle was written.
    pub packed: u64,
    /// Invalidations that were noted.
    pub invalidated: u64,
}

/// What is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// Loose files.
    pub loose: u64,
    /// Bytes of loose files.
    pub loose_bytes: u64,
    /// Entries in the bundles.
    pub bundled: u64,
    /// Bytes of the bundles.
    pub bundle_bytes: u64,
}

pub(super) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Stack {
    /// What the tiers did since the process began.
    pub fn tallied(&self) -> Tallied {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (held, evicted) = self.memory_turnover();
        Tallied {
            held,
            evicted,
            written: load(&self.tally.written),
            failed: load(&self.tally.failed),
            removed: load(&self.tally.removed),
            packed: load(&self.tally.packed),
            invalidated: load(&self.tally.invalidated),
        }
    }

    /// What is on disk. This looks at every loose file.
    pub fn on_disk(&self) -> OnDisk {
        let keys = self.disk.keys();
        let len = |path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        OnDisk {
            loose: keys.len() as u64,
            loose_bytes: self.disk.bytes(),
            bundled: [&self.bundle, &self.local]
                .into_iter()
                .filter_map(BundleTier::bundle)
                .map(|bundle| u64::from(bundle.totals().entries))
                .sum(),
            bundle_bytes: len(self.bundle_path()) + len(self.local.path().to_owned()),
        }
    }
}
