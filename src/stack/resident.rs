//! What a process that stays holds in memory over the files: entries, and what is still to be written.
//!
//! Knows: the memory tier, and that a freshening or a last use is written after a while, many at
//! once. Does not know: when that is (`serve` ticks), freshness.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{Stack, lock};
use crate::cutoff::{Cutoff, CutoffMode};
use crate::entry::Entry;
use crate::key::{CacheKey, KeyParts};
use crate::partition::Partition;
use crate::policy::CutoffTimes;
use crate::request::Request;
use crate::tag::Subject;
use crate::tier::TierName;
use crate::tier::memory::{MemoryTier, Resident, Wanted};

/// A last use is noted on disk at most this often.
const USED_AGAIN_AFTER_SECS: i64 = 3_600;

/// Freshenings that wait to be written; beyond that they are written at once.
const MAX_WAITING: usize = 4_096;

/// What is held.
#[derive(Debug)]
pub(super) struct Held {
    memory: MemoryTier,
    /// Entries that were freshened since the last writing.
    freshened: Mutex<HashMap<CacheKey, Arc<Entry>>>,
    /// Entries whose last use is to be noted.
    used: Mutex<Vec<CacheKey>>,
}

impl Stack {
    /// The same with entries in memory, at most `max_bytes` of them, for a process that stays: it
    /// calls [`Stack::look_again`] and [`Stack::flush`] now and then.
    #[must_use]
    pub fn with_memory(mut self, max_bytes: u64) -> Self {
        self.resident =
            Some(Held { memory: MemoryTier::new(max_bytes), freshened: Mutex::default(), used: Mutex::default() });
        self
    }

    /// Bytes in memory, and entries.
    pub fn memory_size(&self) -> (u64, usize) {
        self.resident.as_ref().map_or((0, 0), |held| held.memory.size())
    }

    /// Entries that were put into memory, and that left it to make room.
    pub(super) fn memory_turnover(&self) -> (u64, u64) {
        self.resident.as_ref().map_or((0, 0), |held| held.memory.turnover())
    }

    /// What memory holds for a request, and what invalidations say about it. The hot path: no key is
    /// made, nothing is allocated, and the list of invalidations is gone through once per change of it.
    pub fn at_hand(&self, request: &Request, partition: &Partition) -> Option<(Arc<Resident>, CutoffTimes)> {
        let held = self.resident.as_ref()?;
        let resident = held.memory.get(&Wanted::of(request, partition))?;
        let now = self.clock.now().secs();
        if self.observing && resident.is_used_again(now, USED_AGAIN_AFTER_SECS) {
            lock(&held.used).push(resident.key);
        }
        let version = self.cutoff_version();
        if resident.untouched_by.load(Ordering::Relaxed) == version {
            return Some((resident, CutoffTimes::default()));
        }
        let Entry { parts, listing, validated_at, fetched_at, .. } = &*resident.entry;
        let times = self.cutoff_times(Subject { key: &resident.key, parts, listing: listing.as_deref() });
        let before = |at: Option<_>, entry: &_| at.is_none_or(|at| at < *entry);
        if times.suspect_until.is_none() && before(times.revalidate, validated_at) && before(times.gone, fetched_at) {
            resident.untouched_by.store(version, Ordering::Relaxed);
        }
        Some((resident, times))
    }

    pub(super) fn in_memory(&self, parts: &KeyParts) -> Option<Arc<Entry>> {
        let held = self.resident.as_ref()?;
        held.memory.get_by_parts(parts).map(|resident| resident.entry.clone())
    }

    /// Holds an entry in memory, if this process does so: it answers from there at once, whether or not
    /// it can be written.
    pub fn keep_in_memory(&self, key: &CacheKey, entry: &Arc<Entry>) {
        if let Some(held) = &self.resident {
            held.memory.put(*key, entry.clone(), self.clock.now().secs());
        }
    }

    /// Whether memory holds a later copy than `entry`, so that this one need not be written any more.
    pub fn is_superseded(&self, entry: &Arc<Entry>) -> bool {
        self.in_memory(&entry.parts).is_some_and(|now| now.validated_at > entry.validated_at)
    }

    /// Records that `entry` is current: in memory now and on disk soon, else as [`Stack::freshen`] does.
    pub fn freshen_soon(&self, key: &CacheKey, entry: &Arc<Entry>, tier: TierName) {
        let Some(held) = &self.resident else {
            self.freshen(entry, tier);
            return;
        };
        self.keep_in_memory(key, entry);
        let mut freshened = lock(&held.freshened);
        if freshened.len() < MAX_WAITING {
            freshened.insert(*key, entry.clone());
        } else {
            drop(freshened);
            self.freshen(entry, tier);
        }
    }

    /// Writes the freshenings and last uses that wait. Best effort.
    pub(super) fn write_behind(&self) {
        let Some(held) = &self.resident else { return };
        let freshened = std::mem::take(&mut *lock(&held.freshened));
        for (key, entry) in &freshened {
            let subject = Subject { key, parts: &entry.parts, listing: entry.listing.as_deref() };
            if self.cutoff_times(subject).gone.is_none_or(|at| at < entry.fetched_at) {
                self.freshen(entry, TierName::Memory);
            }
        }
        let used = std::mem::take(&mut *lock(&held.used));
        for key in used {
            if !self.disk.note_use(&key) {
                lock(&self.used).extend(key.as_bytes().first_chunk::<16>());
            }
        }
    }

    /// Whether this process stays, and has asked what is in the store a moment ago.
    pub(super) fn is_resident(&self) -> bool {
        self.resident.is_some()
    }

    /// Looks whether other processes have changed the store: another bundle, freshenings beside it,
    /// invalidations. Cheap enough for every second.
    pub fn look_again(&self) {
        let is_another_bundle = self.look_again_at_bundles();
        self.look_again_at_aliases(is_another_bundle);
        self.look_again_at_cutoffs(is_another_bundle);
        self.write_waiting_cutoffs();
    }

    pub(super) fn look_again_at_bundles(&self) -> bool {
        let (bundle, local) = (self.bundle.look_again(), self.local.look_again());
        bundle || local
    }

    /// At most `most` of the entries in memory that `cutoffs` are about.
    pub fn in_memory_of(&self, cutoffs: &[Cutoff], most: usize) -> Vec<Arc<Entry>> {
        let Some(held) = &self.resident else { return Vec::new() };
        let all = crate::cutoff::Cutoffs::of(cutoffs.iter().cloned(), self.clock.now());
        let is_touched = |resident: &Resident| {
            let Entry { parts, listing, .. } = &*resident.entry;
            let subject = Subject { key: &resident.key, parts, listing: listing.as_deref() };
            all.times(subject, crate::cutoff::IN_THE_END) != CutoffTimes::default()
        };
        held.memory.some(most, is_touched).iter().map(|resident| resident.entry.clone()).collect()
    }

    /// What must not be held any longer leaves memory.
    pub(super) fn forget_gone(&self, new: &[Cutoff]) {
        let gone: Vec<&Cutoff> = new.iter().filter(|cutoff| cutoff.mode == CutoffMode::Gone).collect();
        if let (Some(held), false) = (&self.resident, gone.is_empty()) {
            held.memory.forget(|resident| {
                let Entry { parts, listing, .. } = &*resident.entry;
                let subject = Subject { key: &resident.key, parts, listing: listing.as_deref() };
                gone.iter().any(|cutoff| cutoff.scope.covers(subject))
            });
        }
    }
}
