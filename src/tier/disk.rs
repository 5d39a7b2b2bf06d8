//! Loose entries: one file each, `v1/<2 hex>/<64 hex>.json`.
//!
//! Knows: where files are and how they are healed. Does not know: the bundle beside them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::{Tier, TierName, WritableTier};
use crate::clock::{Clock, Timestamp};
use crate::entry::{Entry, MAX_BYTES};
use crate::error::Result;
use crate::files::{self, Durability};
use crate::key::CacheKey;

/// Last use is the file's mtime, renewed at most this often.
const USED_AGAIN_AFTER_SECS: u64 = 3_600;

/// The tier of loose files.
#[derive(Debug)]
pub struct DiskTier {
    root: PathBuf,
    partial: PathBuf,
    clock: Clock,
    /// Whether look-ups count as uses.
    pub(crate) observing: bool,
}

impl DiskTier {
    /// The tier below `root` (the store's `v1`); temporary files go to `partial`.
    pub fn new(root: PathBuf, partial: PathBuf, clock: Clock) -> Self {
        Self { root, partial, clock, observing: true }
    }

    /// Where the envelope of `key` is or would be.
    pub fn path(&self, key: &CacheKey) -> PathBuf {
        let hex = key.to_string();
        let mut path = self.root.join(&hex[..2]);
        path.push(format!("{hex}.json"));
        path
    }

    /// All loose envelopes, in order of key.
    pub fn keys(&self) -> Vec<CacheKey> {
        let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
        let mut keys: Vec<CacheKey> = entries(&self.root)
            .flat_map(|shard| entries(&shard.path()))
            .filter_map(|file| {
                let name = file.file_name();
                CacheKey::parse(name.to_str()?.strip_suffix(".json")?)
            })
            .collect();
        keys.sort_unstable();
        keys
    }

    fn renew_last_use(&self, file: &File) {
        let Ok(modified) = file.metadata().and_then(|meta| meta.modified()) else { return };
        let seen = modified.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = self.clock.now();
        if now.since(Timestamp::from_secs(seen as i64)) > USED_AGAIN_AFTER_SECS {
            let time = std::time::UNIX_EPOCH + Duration::from_secs(now.secs().max(0) as u64);
            let _best_effort = file.set_modified(time);
        }
    }
}

impl DiskTier {
    /// The entry under `key` and its encoding, for packing: reading it so is no use of it.
    pub fn read(&self, key: &CacheKey) -> Result<Option<(Entry, Bytes)>> {
        match self.open(key)? {
            Some(file) => Ok(self.decode(key, file)),
            None => Ok(None),
        }
    }

    /// Whether the file under `key` was written after `at`; then it may say something newer.
    pub fn is_written_after(&self, key: &CacheKey, at: Timestamp) -> bool {
        let modified = fs::metadata(self.path(key)).and_then(|meta| meta.modified()).ok();
        let written = modified.and_then(|modified| modified.duration_since(std::time::UNIX_EPOCH).ok());
        written.is_some_and(|since| since.as_secs() as i64 > at.secs())
    }

    /// Whether there is a file under `key`.
    pub fn has(&self, key: &CacheKey) -> bool {
        self.path(key).exists()
    }

    /// Notes that the entry under `key` is in use. Best effort.
    pub fn note_use(&self, key: &CacheKey) -> bool {
        let file = File::options().append(true).open(self.path(key));
        file.is_ok_and(|file| {
            self.renew_last_use(&file);
            true
        })
    }

    fn open(&self, key: &CacheKey) -> Result<Option<File>> {
        let path = self.path(key);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(crate::error::Error::io("read", &path, error)),
        }
    }

    /// Broken, truncated, foreign or of a newer version: a miss, replaced by the next fetch.
    fn decode(&self, key: &CacheKey, file: File) -> Option<(Entry, Bytes)> {
        let path = self.path(key);
        let read = files::read_open_bounded(file, &path, MAX_BYTES as u64);
        match read.and_then(|bytes| Ok((Entry::decode(bytes.clone(), Some(key))?, bytes))) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a stored entry is not usable; it is fetched again");
                None
            }
        }
    }
}

impl Tier for DiskTier {
    fn name(&self) -> TierName {
        TierName::Disk
    }

    fn look_up(&self, key: &CacheKey) -> Result<Option<Entry>> {
        let Some(file) = self.open(key)? else { return Ok(None) };
        if self.observing {
            self.renew_last_use(&file);
        }
        Ok(self.decode(key, file).map(|(entry, _)| entry))
    }
}

impl WritableTier for DiskTier {
    fn put(&self, entry: &Entry) -> Result<()> {
        let key = entry.key();
        let path = self.path(&key);
        if let Some(shard) = path.parent() {
            files::refuse_link(shard).map_err(|cause| crate::error::Error::io("write", &path, cause))?;
        }
        files::write_atomic(&path, &self.partial, &entry.encode(), Durability::Rename)
    }

    fn remove(&self, key: &CacheKey) -> Result<()> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(crate::error::Error::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    fn tier() -> (tempfile::TempDir, DiskTier) {
        let dir = tempfile::tempdir().unwrap();
        let partial = dir.path().join("partial");
        fs::create_dir(&partial).unwrap();
        let tier = DiskTier::new(dir.path().join("v1"), partial, Clock::manual(Timestamp::from_secs(1_700_000_000)));
        (dir, tier)
    }

    #[test]
    fn what_is_put_is_found_replaced_and_removed() {
        let (_dir, tier) = tier();
        let first = entry("/repos/o/r", b"{\"a\": 1}\n");
        let key = first.key();
        assert_eq!(tier.look_up(&key).unwrap(), None);
        tier.put(&first).unwrap();
        assert_eq!(tier.look_up(&key).unwrap().as_ref(), Some(&first));
        assert_eq!(tier.keys(), [key]);
        let other = entry("/repos/o/r", b"{\"a\": 2}\n");
        tier.put(&other).unwrap();
        assert_eq!(tier.look_up(&key).unwrap(), Some(other));
        tier.remove(&key).unwrap();
        tier.remove(&key).unwrap();
        assert_eq!(tier.look_up(&key).unwrap(), None);
    }

    #[test]
    fn broken_files_are_misses_that_heal() {
        let (_dir, tier) = tier();
        let entry = entry("/repos/o/r", b"{}");
        let key = entry.key();
        tier.put(&entry).unwrap();
        let good = fs::read(tier.path(&key)).unwrap();
        for bad in [&b""[..], &good[..good.len() / 2], b"{\"v\":2,\"x\":1}\n", b"\0\0\0\0"] {
            fs::write(tier.path(&key), bad).unwrap();
            assert_eq!(tier.look_up(&key).unwrap(), None);
        }
        tier.put(&entry).unwrap();
        assert_eq!(tier.look_up(&key).unwrap(), Some(entry));
    }

    #[cfg(unix)]
    #[test]
    fn files_are_for_this_user_only() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, tier) = tier();
        let entry = entry("/repos/o/r", b"{}");
        tier.put(&entry).unwrap();
        let path = tier.path(&entry.key());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
