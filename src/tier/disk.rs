//! Loose entries: one file each, `v1/<2 hex>/<64 hex>.json`, and large bodies beside them, equal ones once.
//!
//! Knows: where files are and how they are healed. Does not know: the bundle beside them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::bodies::Bodies;
use super::{Tier, TierName, WritableTier};
use crate::clock::{Clock, Timestamp};
use crate::entry::{Entry, Head, MAX_BYTES};
use crate::error::{Error, Result};
use crate::files::{self, Durability};
use crate::key::CacheKey;

/// Last use is the file's mtime, renewed at most this often.
const USED_AGAIN_AFTER_SECS: u64 = 3_600;

/// Equal bodies from this size on are kept once, apart from what is said about them. Below, a file of its own would take more
/// room than it saves.
pub const APART_BYTES: usize = 16 << 10;

/// The tier of loose files.
#[derive(Debug)]
pub struct DiskTier {
    root: PathBuf,
    partial: PathBuf,
    bodies: Bodies,
    clock: Clock,
    /// Whether look-ups count as uses.
    pub(crate) observing: bool,
}

/// What [`DiskTier::peek`] tells.
#[derive(Debug)]
pub struct Peeked {
    /// The metadata.
    pub head: Head,
    /// Bytes of the whole envelope.
    pub envelope_len: u64,
    /// Bytes of the file.
    pub file_len: u64,
    /// The file's time: the last use.
    pub modified: Option<SystemTime>,
}

impl DiskTier {
    /// The tier below `root` (the store's `v1`); temporary files go to `partial`.
    pub fn new(root: PathBuf, partial: PathBuf, clock: Clock) -> Self {
        let bodies = Bodies::new(root.join("bodies"), partial.clone());
        Self { root, partial, bodies, clock, observing: true }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let len = |path| fs::metadata(path).map_or(0, |meta| meta.len());
        self.keys().iter().map(|key| len(self.path(key))).sum::<u64>() + self.bodies.bytes()
    }

    /// Keeps the body of `entry` apart from now on, if the entry under `other` has an equal one.
    pub fn share_body(&self, entry: &Entry, other: &CacheKey) -> Result<()> {
        if entry.body.len() < APART_BYTES
            || self.is_shared(entry)
            || self.peek(other).is_none_or(|other| other.head.cid != entry.cid)
        {
            return Ok(());
        }
        self.bodies.put(&entry.cid, &entry.halves().1)
    }

    fn is_shared(&self, entry: &Entry) -> bool {
        entry.body.len() >= APART_BYTES && self.bodies.len(&entry.cid).is_some()
    }

    /// Removes bodies that no entry has any more.
    pub fn sweep(&self) {
        // First the bodies, then who has them: one that comes meanwhile is no leftover.
        let files = self.bodies.files();
        if !files.is_empty() {
            let used = self.keys().iter().filter_map(|key| Some(self.peek(key)?.head.cid)).collect();
            self.bodies.sweep(&files, &used);
        }
    }

    /// The metadata of the entry under `key`, without its body.
    pub fn peek(&self, key: &CacheKey) -> Option<Peeked> {
        let file = File::open(self.path(key)).ok()?;
        let meta = file.metadata().ok()?;
        let mut bytes = Vec::with_capacity(2_048);
        let mut file = file.take(2_048);
        file.read_to_end(&mut bytes).ok()?;
        let parsed = Entry::peek(&bytes).or_else(|error| {
            file.set_limit(14 << 10);
            file.read_to_end(&mut bytes).map_err(|_| error)?;
            Entry::peek(&bytes)
        });
        let head = parsed.ok()?;
        let envelope_len = match Entry::apart(&bytes) {
            Some((cid, half)) => half.len() as u64 + self.bodies.len(&cid)?,
            None => meta.len(),
        };
        Some(Peeked { head, envelope_len, file_len: meta.len(), modified: meta.modified().ok() })
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
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    /// The whole envelope of what a file holds.
    fn whole(&self, bytes: Bytes) -> Result<Bytes> {
        match Entry::apart(&bytes) {
            Some((cid, half)) => self.bodies.read_behind(half, &cid),
            None => Ok(bytes),
        }
    }

    /// Broken, truncated, foreign or of a newer version: a miss, replaced by the next fetch.
    fn decode(&self, key: &CacheKey, file: File) -> Option<(Entry, Bytes)> {
        let path = self.path(key);
        let read = files::read_open_bounded(file, &path, MAX_BYTES as u64).and_then(|bytes| self.whole(bytes));
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
            files::refuse_link(shard).map_err(|cause| Error::io("write", &path, cause))?;
        }
        let written = if self.is_shared(entry) {
            let (half, body) = entry.halves();
            self.bodies.put(&entry.cid, &body)?;
            Entry::without_body(&half)
        } else {
            entry.encode()
        };
        files::write_atomic(&path, &self.partial, &written, Durability::Rename)
    }

    fn remove(&self, key: &CacheKey) -> Result<()> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path, error)),
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
    fn large_bodies_are_there_once_and_go_with_the_last_entry() {
        let (dir, tier) = tier();
        let body = format!("[\"{}\"]", "x".repeat(200_000));
        let raw = vec![0xff; 20_000];
        let all: Vec<Entry> = (0..50).map(|n| entry(&format!("/repos/o/r{n}"), body.as_bytes())).collect();
        let odd = [entry("/raw/1", &raw), entry("/raw/2", &raw)];
        for (one, before) in
            all.iter().zip([&all[0]].into_iter().chain(&all)).chain([(&odd[0], &all[0]), (&odd[1], &odd[0])])
        {
            tier.share_body(one, &before.key()).unwrap();
            tier.put(one).unwrap();
            assert_eq!(tier.look_up(&one.key()).unwrap().as_ref(), Some(one));
            let (read, bytes) = tier.read(&one.key()).unwrap().unwrap();
            assert_eq!((&read, &bytes[..]), (one, &one.encode()[..]));
            assert_eq!(tier.peek(&one.key()).unwrap().envelope_len, bytes.len() as u64);
        }
        assert!(tier.bytes() < 600_000, "{}", tier.bytes());
        // What is said of the first again is said without it.
        tier.put(&all[0]).unwrap();
        tier.put(&odd[0]).unwrap();
        assert!(tier.bytes() < 300_000, "{}", tier.bytes());
        let bodies = || fs::read_dir(dir.path().join("v1/bodies")).unwrap().count();
        // A body that was damaged is a miss for all, and healed by the next one that comes.
        let file = dir.path().join(format!("v1/bodies/{}.body", all[0].cid));
        fs::write(&file, b",\"body\":[]}\n").unwrap();
        assert_eq!(tier.look_up(&all[3].key()).unwrap(), None);
        tier.put(&all[3]).unwrap();
        assert_eq!(tier.look_up(&all[0].key()).unwrap().as_ref(), Some(&all[0]));
        for one in &all[1..] {
            tier.remove(&one.key()).unwrap();
        }
        tier.sweep();
        assert_eq!((bodies(), tier.look_up(&all[0].key()).unwrap().as_ref()), (2, Some(&all[0])));
        // Without its body an entry is a miss.
        fs::remove_file(file).unwrap();
        assert_eq!(tier.look_up(&all[0].key()).unwrap(), None);
        tier.remove(&odd[0].key()).unwrap();
        tier.remove(&odd[1].key()).unwrap();
        tier.sweep();
        assert_eq!(bodies(), 0);
    }

    #[test]
    fn envelopes_of_before_are_read_whole() {
        let (_dir, tier) = tier();
        let one = entry("/repos/o/r", format!("[\"{}\"]", "x".repeat(200_000)).as_bytes());
        let path = tier.path(&one.key());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, one.encode()).unwrap();
        assert_eq!(tier.look_up(&one.key()).unwrap().as_ref(), Some(&one));
        assert_eq!(tier.peek(&one.key()).unwrap().envelope_len, one.encode().len() as u64);
        tier.share_body(&one, &one.key()).unwrap();
        tier.put(&one).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 2_000);
        // What says that its body is elsewhere is none where bodies are not kept apart.
        assert!(Entry::decode(Bytes::from(fs::read(&path).unwrap()), None).is_err());
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
