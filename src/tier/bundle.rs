//! The bundle as a tier: read in place, freshened beside it.
//!
//! Knows: that a bundle that cannot be opened is an empty tier, and `fresh.log`. Does not know:
//! saving (`stack`).
//!
//! `fresh.log` holds what 304s said about bundled entries since the last save: records of 32
//! bytes, appended in one write each, so that many processes may add at once; a torn or foreign
//! record fails its checksum and counts for nothing.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use sha2::{Digest, Sha256};

use super::{Tier, TierName};
use crate::bundle::{Bundle, Record};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::files::{self, Stamp};
use crate::key::CacheKey;

const RECORD_BYTES: usize = 32;

/// Beyond this many bytes the log would slow look-ups down; a freshened entry is then stored
/// loose instead.
const MAX_LOG_BYTES: u64 = 1 << 20;

/// The read-only tier under the loose files.
#[derive(Debug)]
pub struct BundleTier {
    path: PathBuf,
    log: PathBuf,
    /// The file as it was when it was opened, and the bundle in it, if it is one.
    open: RwLock<Option<(Stamp, Option<Arc<Bundle>>)>>,
    /// The log as far as it was read: its length, and what it says.
    freshened: Mutex<Option<(u64, Freshened)>>,
}

/// What 304s said since the last save, by the first half of a key.
#[derive(Debug, Default, Clone)]
pub struct Freshened {
    notes: HashMap<[u8; 16], Note>,
    /// The latest time in any of them.
    newest: u32,
}

/// One freshening: about which body, and when it was said to be current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    stored_at: u32,
    cid: [u8; 2],
    validated_at: u32,
}

impl BundleTier {
    /// The tier of the bundle at `path` with its log at `log`; opened when first asked.
    pub fn new(path: PathBuf, log: PathBuf) -> Self {
        Self { path, log, open: RwLock::default(), freshened: Mutex::default() }
    }

    /// Where the bundle is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where freshenings are noted.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The open bundle; `None` when there is none or it is not usable, which is said once.
    pub fn bundle(&self) -> Option<Arc<Bundle>> {
        if let Some((_, bundle)) = &*self.open.read().unwrap_or_else(PoisonError::into_inner) {
            return bundle.clone();
        }
        self.reopen(Stamp::of(&self.path))
    }

    fn reopen(&self, stamp: Stamp) -> Option<Arc<Bundle>> {
        let bundle = Bundle::open(&self.path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the bundle is not usable; going on without it");
            None
        });
        let bundle = bundle.map(Arc::new);
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some((stamp, bundle.clone()));
        bundle
    }

    /// Notes that the bundled `entry` is current. `false` when the log is full, the bundle does not hold
    /// this body, or a later time stands there already (one that cannot be true): store the entry loose
    /// instead.
    pub fn freshen(&self, entry: &Entry) -> Result<bool> {
        let key = entry.key();
        let note = Note {
            stored_at: entry.fetched_at.secs() as u32,
            cid: Record::short_cid(&entry.cid),
            validated_at: entry.validated_at.secs() as u32,
        };
        let record = self.bundle().map(|bundle| bundle.find(&key)).transpose()?.flatten();
        let Some(record) = record.filter(|record| record.has_body(note.stored_at, note.cid)) else { return Ok(false) };
        let noted = self.known().as_ref().and_then(|(_, notes)| notes.validated_at(&record)).unwrap_or(0);
        if record.validated_at.max(noted) > note.validated_at {
            return Ok(false);
        }
        let failed = |cause| Error::io("append to", &self.log, cause);
        let mut log = files::open_append(&self.log).map_err(failed)?;
        if log.metadata().map_err(failed)?.len() > MAX_LOG_BYTES {
            return Ok(false);
        }
        log.write_all(&note.encode(&key)).map_err(failed)?;
        if let (Some((_, known)), Some(lead)) = (&mut *self.known(), key.as_bytes().first_chunk()) {
            known.add(*lead, note);
        }
        Ok(true)
    }

    /// Looks whether there is another bundle by now, or more was noted beside it.
    ///
    /// `true` when what was not found before may be there now.
    pub fn look_again(&self) -> bool {
        let stamp = Stamp::of(&self.path);
        let known = self.open.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(stamp, _)| *stamp);
        let is_another = known.is_some_and(|known| known != stamp);
        if is_another {
            self.reopen(stamp);
            *self.known() = None;
            return true;
        }
        let len = std::fs::metadata(&self.log).map_or(0, |meta| meta.len());
        let mut known = self.known();
        if known.as_ref().is_some_and(|(read, _)| *read != len) {
            *known = None;
        }
        false
    }

    /// When the entry under `key` was last said to be current, if that was after `than`; without
    /// reading the entry, and as a rule without reading anything.
    pub fn validated_after(&self, key: &CacheKey, than: Timestamp) -> Option<Timestamp> {
        let bundle = self.bundle()?;
        let newest = {
            let mut known = self.known();
            let noted = known.get_or_insert_with(|| Freshened::read_with_length(&self.log)).1.newest;
            u64::from(noted).max(bundle.created())
        };
        if newest <= than.secs().max(0) as u64 {
            return None;
        }
        let record = bundle.find(key).ok().flatten()?;
        let noted = self.known().as_ref().and_then(|(_, notes)| notes.validated_at(&record)).unwrap_or(0);
        Some(record.validated_at().max(Timestamp::from_secs(i64::from(noted)))).filter(|at| *at > than)
    }

    fn known(&self) -> MutexGuard<'_, Option<(u64, Freshened)>> {
        self.freshened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Freshened {
    /// Reads a log; what is torn or foreign is passed over.
    pub fn read(path: &Path) -> Self {
        Self::read_with_length(path).1
    }

    fn read_with_length(path: &Path) -> (u64, Self) {
        let bytes = files::read_bounded(path, MAX_LOG_BYTES * 2).ok().flatten().unwrap_or_default();
        let mut notes = Self::default();
        for (key, note) in bytes.chunks_exact(RECORD_BYTES).filter_map(Note::decode) {
            notes.add(key, note);
        }
        (bytes.len() as u64, notes)
    }

    /// The later of two notes counts.
    fn add(&mut self, key: [u8; 16], note: Note) {
        self.newest = self.newest.max(note.validated_at);
        let old = self.notes.entry(key).or_insert(note);
        if note.validated_at > old.validated_at {
            *old = note;
        }
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// The later time at which the body of `record` was said to be current, if one was noted.
    pub fn validated_at(&self, record: &Record) -> Option<u32> {
        let note = self.notes.get(&record.key)?;
        record.has_body(note.stored_at, note.cid).then_some(note.validated_at)
    }

    fn apply(&self, key: &CacheKey, entry: &mut Entry) {
        let Some(note) = key.as_bytes().first_chunk().and_then(|lead| self.notes.get(lead)) else { return };
        if note.stored_at == entry.fetched_at.secs() as u32 && note.cid == Record::short_cid(&entry.cid) {
            entry.validated_at = entry.validated_at.max(Timestamp::from_secs(i64::from(note.validated_at)));
        }
    }
}

impl Note {
    fn encode(self, key: &CacheKey) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..16].copy_from_slice(&key.as_bytes()[..16]);
        bytes[16..20].copy_from_slice(&self.validated_at.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.stored_at.to_le_bytes());
        bytes[24..26].copy_from_slice(&self.cid);
        let check = Sha256::digest(&bytes[..26]);
        bytes[26..].copy_from_slice(&check[..6]);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<([u8; 16], Self)> {
        if Sha256::digest(bytes.get(..26)?)[..6] != bytes[26..] {
            return None;
        }
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let note = Self { validated_at: number(16)?, stored_at: number(20)?, cid: bytes[24..26].try_into().ok()? };
        Some((bytes[..16].try_into().ok()?, note))
    }
}

impl Tier for BundleTier {
    fn name(&self) -> TierName {
        TierName::Bundle
    }

    fn look_up(&self, key: &CacheKey) -> Result<Option<Entry>> {
        let Some(bundle) = self.bundle() else { return Ok(None) };
        let mut entry = bundle.look_up(key)?;
        if let Some(entry) = &mut entry {
            let mut known = self.known();
            known.get_or_insert_with(|| Freshened::read_with_length(&self.log)).1.apply(key, entry);
        }
        Ok(entry)
    }
}
