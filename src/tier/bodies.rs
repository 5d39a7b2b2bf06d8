//! Bodies that are kept apart from what is said about them: one file for equal ones, by content address.
//!
//! Knows: the second halves of envelopes ([`Entry::halves`](crate::entry::Entry::halves)). Does not know: which entries have them.
//! Nothing here is believed: a body is compared with its digest when its entry is read.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;

use crate::cid::Cid;
use crate::entry::MAX_BYTES;
use crate::error::{Error, Kind, Result};
use crate::files::{self, Durability};

#[derive(Debug)]
pub(super) struct Bodies {
    dir: PathBuf,
    partial: PathBuf,
}

impl Bodies {
    pub(super) fn new(dir: PathBuf, partial: PathBuf) -> Self {
        Self { dir, partial }
    }

    fn path(&self, cid: &Cid) -> PathBuf {
        self.dir.join(format!("{cid}.body"))
    }

    /// Keeps `half`, unless the same bytes are there.
    pub(super) fn put(&self, cid: &Cid, half: &[u8]) -> Result<()> {
        let path = self.path(cid);
        files::refuse_link(&self.dir).map_err(|cause| Error::io("write", &path, cause))?;
        // One that was damaged is replaced.
        if files::read_bounded(&path, half.len() as u64).is_ok_and(|there| there.is_some_and(|there| there == half)) {
            return Ok(());
        }
        files::write_atomic(&path, &self.partial, half, Durability::Rename)
    }

    /// The half of `cid` behind the first one.
    pub(super) fn read_behind(&self, first: &[u8], cid: &Cid) -> Result<Bytes> {
        let path = self.path(cid);
        let failed = |cause| Error::io("read", &path, cause);
        let file = fs::File::open(&path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        if len > MAX_BYTES as u64 {
            return Err(Error::new(Kind::TooLarge, format!("{} has {len} bytes", path.display())));
        }
        let mut all = Vec::with_capacity(first.len() + len as usize);
        all.extend_from_slice(first);
        file.take(MAX_BYTES as u64).read_to_end(&mut all).map_err(failed)?;
        Ok(all.into())
    }

    /// Bytes of a half; `None` when it is not there.
    pub(super) fn len(&self, cid: &Cid) -> Option<u64> {
        fs::metadata(self.path(cid)).ok().map(|meta| meta.len())
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| file.metadata().ok())
            .map(|m| m.len())
            .sum()
    }

    /// The files that are there.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|file| file.path()).collect()
    }

    /// Removes those of `files` that are not `used`.
    pub(super) fn sweep(&self, files: &[PathBuf], used: &HashSet<Cid>) {
        let used: HashSet<PathBuf> = used.iter().map(|cid| self.path(cid)).collect();
        for file in files.iter().filter(|file| !used.contains(*file)) {
            let _best_effort = fs::remove_file(file);
        }
    }
}
