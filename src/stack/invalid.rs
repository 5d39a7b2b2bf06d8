//! Invalidations in force, and how they are added (A15).
//!
//! Knows: the store's own list and the bundle's, that another process may add to them. Does not
//! know: what is invalidated, or why.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::{Stack, lock};
use crate::alias::Aliases;
use crate::bundle::Bundle;
use crate::clock::Timestamp;
use crate::cutoff::{Cutoff, Cutoffs, Unchecked};
use crate::error::Result;
use crate::files::{self, Durability, Stamp};
use crate::policy::CutoffTimes;
use crate::tag::Subject;
use crate::tier::bundle::BundleTier;

/// The list as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Invalid {
    list: Mutex<Option<(Stamp, Cutoffs)>>,
    /// Counts changes of the list, from 1, so that a look-up need not go through it again.
    version: AtomicU64,
    /// What is in force in this process and could not be written yet.
    unwritten: Mutex<Cutoffs>,
}

impl Stack {
    /// What invalidations say about `subject`.
    pub fn cutoff_times(&self, subject: Subject<'_>) -> CutoffTimes {
        self.with_cutoffs(|cutoffs| {
            if cutoffs.is_empty() { CutoffTimes::default() } else { cutoffs.times(subject, self.clock.now()) }
        })
    }

    /// Adds invalidations: in this process at once, then durably, since their loss would give wrong answers.
    ///
    /// Errors when they cannot be written. They stay in force in this process all the same, and are written when that is
    /// possible again: see [`Stack::look_again`].
    pub fn invalidate(&self, new: &[Cutoff]) -> Result<()> {
        self.put_in_force(new);
        self.write_cutoffs()?;
        super::tally::count(&self.tally.invalidated, new.len() as u64);
        Ok(())
    }

    /// The same, and what each covers under other names and numbers, as far as any process has learned them.
    pub fn with_twins(&self, cutoffs: &[Cutoff]) -> Vec<Cutoff> {
        self.forget_old_aliases(false);
        self.with_aliases(|aliases| cutoffs.iter().flat_map(|cutoff| cutoff.with_twins(aliases)).collect())
    }

    /// Widens the list by names and numbers that have become known, and writes what that adds: who reads the list need not know
    /// them.
    pub(super) fn widen_cutoffs(&self) {
        // Whoever was writing the list before it could know the new pairs has written it by now; whoever writes it from here
        // on knows them.
        if let Ok(lock) = self.lock_cutoffs() {
            self.look_again_at_cutoffs(false);
            drop(lock);
        }
        let known = self.all_cutoffs();
        if known.is_empty() {
            return;
        }
        let listed: Vec<&Cutoff> = known.iter().collect();
        let twins_of = |aliases: &Aliases| {
            listed.iter().flat_map(|cutoff| cutoff.with_twins(aliases).into_iter().skip(1)).collect::<Vec<_>>()
        };
        let new: Vec<Cutoff> = self.with_aliases(twins_of).into_iter().filter(|twin| !listed.contains(&twin)).collect();
        if !new.is_empty()
            && let Err(error) = self.invalidate(&new)
        {
            tracing::debug!(%error, "what is outdated under other names is in force here, and not written yet");
        }
    }

    fn put_in_force(&self, new: &[Cutoff]) {
        let now = self.clock.now();
        let new = self.with_twins(new);
        let add = |all: &mut Cutoffs| new.iter().for_each(|cutoff| all.add(cutoff.clone().believed_at(now), now));
        add(&mut lock(&self.invalid.unwritten));
        let mut list = lock(&self.invalid.list);
        let (stamp, mut all) = list.take().unwrap_or_else(|| (Stamp::of(&self.cutoffs_path()), self.read_cutoffs()));
        add(&mut all);
        self.know(&mut list, stamp, all);
        drop(list);
        self.forget_gone(&new);
    }

    /// Writes what is not written yet.
    fn write_cutoffs(&self) -> Result<()> {
        self.prepare()?;
        let _lock = self.lock_cutoffs()?;
        let unwritten = self.widen_unwritten();
        // With what another process has added since we looked.
        let all = self.read_cutoffs();
        files::write_atomic(&self.cutoffs_path(), &self.dir.join("partial"), &all.encode_file(), Durability::Synced)?;
        // No other process writes while we hold the lock.
        let mut list = lock(&self.invalid.list);
        let mut left = lock(&self.invalid.unwritten);
        if *left == unwritten {
            *left = Cutoffs::default();
        }
        let mut known = all;
        known.merge(&left, self.clock.now());
        drop(left);
        self.know(&mut list, Stamp::of(&self.cutoffs_path()), known);
        Ok(())
    }

    /// What is not written yet, with the names that other processes have learned meanwhile.
    fn widen_unwritten(&self) -> Cutoffs {
        let mut unwritten = lock(&self.invalid.unwritten);
        if !unwritten.is_empty() && self.forget_old_aliases(false) {
            self.with_aliases(|aliases| unwritten.add_twins(aliases, self.clock.now()));
        }
        unwritten.clone()
    }

    /// Tries again to write what could not be written.
    pub(super) fn write_waiting_cutoffs(&self) {
        if lock(&self.invalid.unwritten).is_empty() {
            return;
        }
        if let Err(error) = self.write_cutoffs() {
            tracing::debug!(%error, "invalidations are not written yet");
        }
    }

    /// All invalidations in force.
    pub fn all_cutoffs(&self) -> Cutoffs {
        self.with_cutoffs(Cutoffs::clone)
    }

    /// The version of the list that is known; see [`Stack::look_again`].
    pub(super) fn cutoff_version(&self) -> u64 {
        match self.invalid.version.load(Ordering::Acquire) {
            0 => {
                self.with_cutoffs(|_| ());
                self.invalid.version.load(Ordering::Acquire)
            }
            version => version,
        }
    }

    /// Reads the list again if another process has changed it, or another bundle brought its own, or if this machine's clock
    /// was ahead when it was written.
    pub(super) fn look_again_at_cutoffs(&self, is_another_bundle: bool) {
        let mut list = lock(&self.invalid.list);
        let (stamp, now) = (Stamp::of(&self.cutoffs_path()), self.clock.now());
        let is_ahead = |cutoffs: &Cutoffs| cutoffs.iter().any(|cutoff| cutoff.is_from_the_future(now));
        if list.as_ref().is_some_and(|(old, cutoffs)| is_another_bundle || *old != stamp || is_ahead(cutoffs)) {
            let all = self.read_and_correct_cutoffs();
            self.know(&mut list, Stamp::of(&self.cutoffs_path()), all);
        }
    }

    /// How many invalidations of the store's own list and of the bundle's are from beyond the suspicion window;
    /// they are corrected when they are read.
    pub fn cutoffs_from_the_future(&self) -> usize {
        let now = self.clock.now();
        let own = self.own_cutoffs().map_or(0, |list| list.from_the_future(now));
        let bundle = self.bundle.bundle().and_then(|bundle| bundle.cutoffs().ok());
        own + bundle.map_or(0, |list| list.from_the_future(now))
    }

    /// Reads the list. One with times from the future is written anew, so that each process to come does not
    /// take them for the present again.
    fn read_and_correct_cutoffs(&self) -> Cutoffs {
        let now = self.clock.now();
        if self.own_cutoffs().is_ok_and(|list| list.from_the_future(now) == 0) {
            return self.read_cutoffs();
        }
        let _lock = self.lock_cutoffs();
        let all = self.read_cutoffs();
        let written = files::write_atomic(
            &self.cutoffs_path(),
            &self.dir.join("partial"),
            &all.encode_file(),
            Durability::Synced,
        );
        if let Err(error) = written {
            tracing::debug!(%error, "invalidations not corrected");
        }
        all
    }

    fn own_cutoffs(&self) -> Result<Unchecked> {
        let bytes = files::read_bounded(&self.cutoffs_path(), crate::cutoff::MAX_BYTES as u64)?;
        bytes.map_or_else(|| Ok(Unchecked::default()), |bytes| Cutoffs::decode_file(&bytes))
    }

    fn with_cutoffs<T>(&self, with: impl FnOnce(&Cutoffs) -> T) -> T {
        let mut list = lock(&self.invalid.list);
        if list.is_none() {
            let all = self.read_and_correct_cutoffs();
            self.know(&mut list, Stamp::of(&self.cutoffs_path()), all);
        }
        with(list.as_ref().map_or(&Cutoffs::default(), |(_, cutoffs)| cutoffs))
    }

    fn know(&self, list: &mut MutexGuard<'_, Option<(Stamp, Cutoffs)>>, stamp: Stamp, cutoffs: Cutoffs) {
        **list = Some((stamp, cutoffs));
        self.invalid.version.fetch_add(1, Ordering::Release);
    }

    fn cutoffs_path(&self) -> std::path::PathBuf {
        self.dir.join("cutoffs.json")
    }

    /// The directory's own and those that came with the bundle; the later time wins, so that an
    /// old bundle cannot roll one back.
    fn read_cutoffs(&self) -> Cutoffs {
        let now = self.clock.now();
        let read = || -> Result<Cutoffs> {
            let mut brought = Cutoffs::default();
            for bundle in [&self.bundle, &self.local].into_iter().filter_map(BundleTier::bundle) {
                brought.merge(&bundle.cutoffs()?.of_bundle(now, newest(&bundle)), now);
            }
            // Another machine may not have known all names. The list of this one is written with them.
            if !brought.is_empty() {
                self.with_aliases(|aliases| brought.add_twins(aliases, now));
            }
            brought.merge(&self.own_cutoffs()?.as_of(now), now);
            Ok(brought)
        };
        let mut all = read().unwrap_or_else(|error| {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot read the invalidations; everything is revalidated");
            Cutoffs::everything(now)
        });
        all.merge(&lock(&self.invalid.unwritten), now);
        all
    }
}

/// The time of a bundle's newest entry, of which the bundle knows the second.
pub(super) fn newest(bundle: &Bundle) -> Timestamp {
    Timestamp::from_secs(i64::try_from(bundle.created()).unwrap_or(i64::MAX)).plus(1).before()
}
