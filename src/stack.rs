//! The store directory and its tiers, nearest first: loose files over the bundle.
//!
//! Knows: where things are, which tier to ask, that a failing tier is skipped (A17). Does not
//! know: freshness, upstream.
//!
//! ```text
//! <dir>/ .gitignore CACHEDIR.TAG lock cutoffs.lock cutoffs.json used.log fresh.log stats.log
//!        partitions.log latest.idx aliases.log bundle.tar.zst local.tar.zst local-fresh.log   partial/ files being written   turns/ locks   v1/ loose entries
//! ```

mod aliases;
mod clean;
mod exchange;

mod invalid;
mod inventory;
mod latest;
mod narrow;
pub mod ownership;
mod pack;
mod partitions;
mod resident;
mod shrink;
mod tally;
mod tracked;
mod turns;

pub use clean::Cleaned;
pub use inventory::Held;
pub use narrow::{BundleRules, Narrow};
pub use pack::{Saved, order};
pub use tally::{OnDisk, Tallied};
pub use turns::Turn;

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::entry::{Entry, is_redirect};
use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::key::{CacheKey, KeyParts};
use crate::partition::Partition;
use crate::tier::bundle::BundleTier;
use crate::tier::disk::{APART_BYTES, DiskTier};
use crate::tier::{Tier, TierName, WritableTier};
use ownership::Origin;

/// The bundle's file name within a store.
pub const BUNDLE_NAME: &str = "bundle.tar.zst";

/// The file name of the bundle that does not leave the machine.
const LOCAL_NAME: &str = "local.tar.zst";

/// The log of last uses is not grown beyond this; losing some makes eviction a little worse.
const MAX_USED_LOG_BYTES: u64 = 8 << 20;

/// The tag that keeps backups away; see <https://bford.info/cachedir/>.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory holds the cache of octocache; it can be deleted at any time.\n";

/// A store on this machine.
#[derive(Debug)]
pub struct Stack {
    dir: PathBuf,
    clock: Clock,
    disk: DiskTier,
    bundle: BundleTier,
    /// What a process that stays has folded: entries of all partitions, for this machine only.
    local: BundleTier,
    /// Further tiers, nearest first.
    added: Vec<Box<dyn Tier>>,
    invalid: invalid::Invalid,
    /// Of a process that stays.
    resident: Option<resident::Held>,
    /// First halves of the keys of bundled entries that answered, for `used.log`.
    used: Mutex<Vec<[u8; 16]>>,
    prepared: OnceLock<bool>,
    /// Whether look-ups count as uses.
    observing: bool,
    /// Partitions that are on the list by now.
    noted: Mutex<HashSet<Partition>>,
    aliases: Mutex<aliases::Known>,
    /// One thread at a time writes into the table of what came last.
    noting: Mutex<()>,
    broken_write_said: AtomicBool,
    tally: tally::Tally,
}

/// An entry and where it was.
#[derive(Debug, Clone)]
pub struct Found {
    /// The entry, verified.
    pub entry: Arc<Entry>,
    /// The tier that had it.
    pub tier: TierName,
}

impl Stack {
    /// A store in `dir`; nothing is touched before it is needed.
    pub fn new(dir: impl Into<PathBuf>, clock: Clock) -> Self {
        let dir = dir.into();
        Self {
            disk: DiskTier::new(dir.join("v1"), dir.join("partial"), clock.clone()),
            bundle: BundleTier::new(dir.join(BUNDLE_NAME), dir.join("fresh.log")),
            local: BundleTier::new(dir.join(LOCAL_NAME), dir.join("local-fresh.log")),
            added: Vec::new(),
            dir,
            clock,
            invalid: invalid::Invalid::default(),
            resident: None,
            used: Mutex::default(),
            prepared: OnceLock::new(),
            observing: true,
            noted: Mutex::default(),
            aliases: Mutex::default(),
            noting: Mutex::default(),
            broken_write_said: AtomicBool::new(false),
            tally: tally::Tally::default(),
        }
    }

    /// The same with a further tier, asked after all that are there. What it has is kept near, too.
    #[must_use]
    pub fn with_tier(mut self, tier: Box<dyn Tier>) -> Self {
        self.added.push(tier);
        self
    }

    /// The same for a worker: its look-ups are no uses, so that it can tell what others ask for.
    #[must_use]
    pub fn unobserved(mut self) -> Self {
        self.observing = false;
        self.disk.observing = false;
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bundle's path.
    pub fn bundle_path(&self) -> PathBuf {
        self.dir.join(BUNDLE_NAME)
    }

    /// The tier of loose files.
    pub fn disk(&self) -> &DiskTier {
        &self.disk
    }

    /// The tier of the bundle.
    pub fn bundle(&self) -> &BundleTier {
        &self.bundle
    }

    /// The entry of `parts`, whose key is `key`, in the nearest tier that has a usable one.
    pub fn find(&self, parts: &KeyParts, key: &CacheKey) -> Option<Found> {
        if let Some(entry) = self.in_memory(parts) {
            return Some(Found { entry, tier: TierName::Memory });
        }
        let mut found = self.look_up(key)?;
        if self.is_resident() {
            if found.tier == TierName::Bundle {
                // A body is a slice of its frame; held so, it would hold a mebibyte.
                let entry = Arc::make_mut(&mut found.entry);
                entry.body = bytes::Bytes::copy_from_slice(&entry.body);
            }
            self.keep_in_memory(key, &found.entry);
        }
        Some(found)
    }

    /// The entry under `key` in the nearest tier on disk that has a usable one.
    pub fn look_up(&self, key: &CacheKey) -> Option<Found> {
        self.look_into_tiers(key).or_else(|| {
            // What was loose a moment ago may have been folded into a bundle that is not open yet.
            if self.look_again_at_bundles() { self.look_into_tiers(key) } else { None }
        })
    }

    fn look_into_tiers(&self, key: &CacheKey) -> Option<Found> {
        let own = [&self.disk as &dyn Tier, &self.bundle, &self.local];
        for (at, tier) in own.into_iter().chain(self.added.iter().map(|tier| &**tier)).enumerate() {
            let is_of_this_machine = matches!(at, 0 | 2);
            match tier.look_up(key) {
                // Whatever a tier hands out, it must be what was asked for.
                Ok(Some(entry)) if matches!(tier.name(), TierName::Added(_)) && !is_sound(&entry, key) => {
                    tracing::warn!(tier = tier.name().as_str(), %key, "an entry is not what was asked for");
                }
                Ok(Some(entry)) if !is_of_this_machine && is_redirect(entry.status) => {}
                Ok(Some(entry)) => {
                    match tier.name() {
                        TierName::Disk | TierName::Memory | TierName::Redis | TierName::Peer | TierName::Ipfs => {}
                        TierName::Bundle if !self.observing => {}
                        TierName::Bundle => {
                            let mut lead = [0; 16];
                            lead.copy_from_slice(&key.as_bytes()[..16]);
                            lock(&self.used).push(lead);
                        }
                        TierName::Added(_) => {
                            self.put(&entry);
                        }
                    }
                    return Some(Found { entry: Arc::new(entry), tier: tier.name() });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(tier = tier.name().as_str(), %key, %error, "a stored entry is not usable; it is fetched again");
                }
            }
        }
        None
    }

    /// A copy in a deeper tier that was validated later than `found`: another process may have brought
    /// it, or a bundle that was restored over older entries. Worth asking only when `found` is not
    /// fresh.
    pub fn newer_than(&self, key: &CacheKey, found: &Found, now: Timestamp) -> Option<Found> {
        let known = found.entry.validated_at;
        let newer = |entry: &Entry| entry.validated_at > known;
        // Validated in this very second: nothing can have been written after that, and a server that is
        // asked for the same many times a second need not look at its file each time.
        if found.tier == TierName::Memory
            && now.since(known) > 0
            && self.disk.is_written_after(key, known)
            && let Some(entry) = self.disk.look_up(key).ok().flatten().filter(newer)
        {
            return Some(Found { entry: Arc::new(entry), tier: TierName::Disk });
        }
        let is_above = matches!(found.tier, TierName::Memory | TierName::Disk);
        [&self.bundle, &self.local].into_iter().filter(|_| is_above).find_map(|tier| {
            tier.validated_after(key, known)?;
            let entry = tier.look_up(key).ok().flatten().filter(newer).filter(|entry| !is_redirect(entry.status))?;
            Some(Found { entry: Arc::new(entry), tier: TierName::Bundle })
        })
    }

    /// A number by which keys sort into the order in which the store reads them fastest.
    pub fn place(&self, key: &CacheKey) -> (u32, u32) {
        let place = |tier: &BundleTier| tier.bundle().and_then(|bundle| bundle.place(key));
        place(&self.bundle).or_else(|| place(&self.local)).unwrap_or((u32::MAX, u32::MAX))
    }

    /// Stores an entry, best effort: the first failure is said once, the answer stands anyway.
    pub fn put(&self, entry: &Entry) -> bool {
        let put = self.write(|| {
            if entry.body.len() >= APART_BYTES
                && let Some(other) = self.latest(&entry.parts).filter(|other| *other != entry.key())
            {
                self.disk.share_body(entry, &other)?;
            }
            self.disk.put(entry)
        });
        if put {
            self.note_partition(&entry.parts.partition);
            self.note_latest(entry);
            self.learn_of(entry);
        }
        put
    }

    /// Records that `entry` is current, as the tier that had it does: a note beside the bundle,
    /// or the small file anew.
    pub fn freshen(&self, entry: &Entry, tier: TierName) -> bool {
        self.write(|| match tier {
            TierName::Bundle if self.bundle.freshen(entry)? || self.local.freshen(entry)? => Ok(()),
            // Whichever tier had it before memory did.
            TierName::Memory
                if !self.disk.has(&entry.key()) && (self.bundle.freshen(entry)? || self.local.freshen(entry)?) =>
            {
                Ok(())
            }
            _ => self.disk.put(entry),
        })
    }

    fn write(&self, attempt: impl FnOnce() -> Result<()>) -> bool {
        if !*self.prepared.get_or_init(|| self.said(self.prepare())) {
            return false;
        }
        let written = self.said(attempt());
        tally::count(&self.tally.written, u64::from(written));
        written
    }

    fn said(&self, result: Result<()>) -> bool {
        let Err(error) = result else { return true };
        tally::count(&self.tally.failed, 1);
        if !self.broken_write_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the store cannot be written; answers are still right, but not kept");
        }
        false
    }

    /// Makes the directory with what belongs into each: private, ignored by git and backups.
    pub fn prepare(&self) -> Result<()> {
        let failed = |cause| Error::io("create", &self.dir, cause);
        // A store may come with a checkout: a link in it would lead what is written elsewhere.
        for name in ["partial", "v1", "turns"] {
            files::refuse_link(&self.dir.join(name)).map_err(failed)?;
        }
        files::create_private_dir(&self.dir.join("partial")).map_err(failed)?;
        files::create_private_dir(&self.dir.join("v1")).map_err(failed)?;
        if let Err(unfit) = ownership::check(&self.dir, Origin::Own) {
            return Err(Error::usage(format!("the store {} is not used: {unfit}", self.dir.display())));
        }
        for (name, text) in [(".gitignore", "*\n"), ("CACHEDIR.TAG", CACHEDIR_TAG)] {
            let path = self.dir.join(name);
            files::create_once(&path, text.as_bytes()).map_err(|cause| Error::io("write", &path, cause))?;
        }
        Ok(())
    }

    fn used_log(&self) -> PathBuf {
        self.dir.join("used.log")
    }

    /// The store's advisory lock, for whoever rewrites what others share. The kernel releases it
    /// when its holder dies.
    fn lock(&self, wait: Wait) -> Result<Option<Lock>> {
        self.lock_by("lock", wait)
    }

    /// The lock of the invalidations alone: they do not wait for a pack, which may take seconds.
    fn lock_cutoffs(&self) -> Result<Option<Lock>> {
        self.lock_by("cutoffs.lock", Wait::Within(LONGEST_NOTE)).and_then(|lock| match lock {
            Some(lock) => Ok(Some(lock)),
            None => Err(held(&self.dir.join("cutoffs.lock"))),
        })
    }

    fn lock_by(&self, name: &str, wait: Wait) -> Result<Option<Lock>> {
        let path = self.dir.join(name);
        let lock = Lock::open(&path).map_err(|cause| Error::io("open", &path, cause))?;
        let longest = match wait {
            Wait::No => Duration::ZERO,
            Wait::Within(longest) => longest,
        };
        let is_ours = lock.take_within(longest).map_err(|cause| Error::io("lock", &path, cause))?;
        Ok(is_ours.then_some(lock))
    }

    /// Writes what was only noted in memory: freshenings, last uses. Best effort.
    pub fn flush(&self) {
        self.write_behind();
        let used = std::mem::take(&mut *lock(&self.used));
        if used.is_empty() {
            return;
        }
        let _best_effort = files::open_append(&self.used_log()).and_then(|mut log| {
            if log.metadata()?.len() < MAX_USED_LOG_BYTES { log.write_all(&used.concat()) } else { Ok(()) }
        });
    }

    /// Calls `each` with every stored entry and its tier; a loose one hides its bundled twin.
    /// Returns the number of broken ones.
    pub fn for_each(&self, mut each: impl FnMut(&Entry, TierName)) -> Result<u32> {
        let mut broken = 0;
        let loose = self.disk.keys();
        for key in &loose {
            match self.disk.look_up(key) {
                Ok(Some(entry)) => each(&entry, TierName::Disk),
                Ok(None) | Err(_) => broken += 1,
            }
        }
        let mut hidden: HashSet<[u8; 16]> =
            loose.iter().filter_map(|key| key.as_bytes().first_chunk().copied()).collect();
        for bundle in [&self.bundle, &self.local].into_iter().filter_map(BundleTier::bundle) {
            broken += bundle.for_each(|record, entry| {
                if hidden.insert(record.key) {
                    each(&entry, TierName::Bundle);
                }
            })?;
        }
        Ok(broken)
    }
}

fn is_sound(entry: &Entry, key: &CacheKey) -> bool {
    entry.key() == *key && crate::cid::Cid::of(&entry.body) == entry.cid
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Until the other is done, for so long at most: the change must not be lost.
    Within(Duration),
    /// Not at all: the other does the same work.
    No,
}

/// Invalidations are written in milliseconds.
const LONGEST_NOTE: Duration = Duration::from_secs(5);

/// A large store is packed in minutes.
const LONGEST_PACK: Duration = Duration::from_mins(5);

fn held(path: &Path) -> Error {
    Error::new(crate::error::Kind::Io, format!("another process holds {}", path.display()))
        .hint("let it end, or end it, and try again")
}

/// A panic elsewhere cannot leave these small collections half-changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
