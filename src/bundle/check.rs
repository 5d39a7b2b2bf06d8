//! Checking a bundle as a whole: for a restore, a save, a listing and `bundle verify`.
//!
//! Knows: one pass over the index, in little memory, and what must hold in it. Does not know: look-ups,
//! which check only what they read.

use sha2::{Digest, Sha256};

use super::index::{FOOTER_BYTES, FRAME_BYTES, FrameRecord, HEAD_BYTES, SKIPPABLE_HEAD_BYTES};
use super::read::read_at;
use super::{Bundle, MAX_SINGLE_RAW, MAX_TOTAL_RAW, Record, frame, ustar};
use crate::cutoff::Unchecked;
use crate::error::{Error, Result};

/// Bytes of the index that are read and hashed at once.
const CHUNK_BYTES: u64 = 64 << 10;

/// What [`Bundle::verify`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Entries that passed every check.
    pub entries: u32,
    /// Entries, or members of broken frames, that did not.
    pub broken: u32,
    /// Bytes of bodies behind the sound entries.
    pub body_bytes: u64,
}

/// The index from its head to its cutoffs, read once and hashed on the way.
struct Pass<'a> {
    bundle: &'a Bundle,
    at: u64,
    hash: Sha256,
}

impl<'a> Pass<'a> {
    fn new(bundle: &'a Bundle) -> Self {
        Self { bundle, at: 0, hash: Sha256::new() }
    }

    /// Reads the next `len` bytes in chunks of whole units, and hands out each unit.
    fn units(&mut self, len: u64, unit: usize, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let most = CHUNK_BYTES / unit as u64 * unit as u64;
        let end = self.at + len;
        let mut chunk = vec![0; most.min(len) as usize];
        while self.at < end {
            let now = &mut chunk[..most.min(end - self.at) as usize];
            self.bundle.read_index(now, self.at)?;
            self.hash.update(&now);
            self.at += now.len() as u64;
            now.chunks(unit).try_for_each(&mut each)?;
        }
        Ok(())
    }

    /// Reads what is left before the footer, and compares the digest.
    fn finish(mut self) -> Result<()> {
        self.units(self.bundle.index_len - FOOTER_BYTES as u64 - self.at, 1 << 10, |_| Ok(()))?;
        let has_digest = <[u8; 32]>::from(self.hash.finalize()) == self.bundle.index_sha256;
        has_digest.then_some(()).ok_or_else(|| Error::corrupt("the index does not have its digest"))
    }
}

impl Bundle {
    /// Checks the digest of the whole index and nothing else.
    pub(super) fn check_digest(&self) -> Result<()> {
        Pass::new(self).finish()
    }

    /// Reads and checks the whole index: its digest, ascending keys, frames that tile the file up to the
    /// end-of-archive frame, and the sum of what they decode to. The memory is that of the records.
    pub fn check_index(&self) -> Result<(Vec<Record>, Unchecked)> {
        let mut records = Vec::new();
        let cutoffs = self.pass(|record| records.push(record))?;
        Ok((records, cutoffs))
    }

    /// The same for a caller that wants no records; in constant memory.
    pub fn check(&self) -> Result<Unchecked> {
        self.pass(|_| ())
    }

    fn pass(&self, mut each: impl FnMut(Record)) -> Result<Unchecked> {
        let (totals, version) = (self.head.totals, self.head.version);
        let mut pass = Pass::new(self);
        pass.units(HEAD_BYTES as u64, HEAD_BYTES, |_| Ok(()))?;
        let (mut tiled, mut total) = (0, 0_u64);
        pass.units(u64::from(totals.frames) * FRAME_BYTES as u64, FRAME_BYTES, |bytes| {
            let record = self.checked_frame(FrameRecord::decode(bytes)?)?;
            total += u64::from(record.raw);
            if record.offset != tiled || record.raw as usize > MAX_SINGLE_RAW || total > MAX_TOTAL_RAW {
                return Err(Error::corrupt("the frames do not tile the file, or decode to too much"));
            }
            tiled += u64::from(record.compressed);
            Ok(())
        })?;
        self.check_end(tiled)?;
        let width = version.record_bytes();
        let mut last: Option<[u8; 16]> = None;
        pass.units(u64::from(totals.entries) * width as u64, width, |bytes| {
            // The digest of the whole covers each: its own checksum adds nothing.
            let record = Record::decode(bytes)?;
            if last.is_some_and(|last| last >= record.key) {
                return Err(Error::corrupt("the index is not in ascending order of keys"));
            }
            last = Some(record.key);
            each(record);
            Ok(())
        })?;
        pass.finish()?;
        let _known_before = self.is_whole.set(true);
        self.cutoffs()
    }

    /// Checks that nothing but the archive's end stands between the frames and the index.
    fn check_end(&self, tiled: u64) -> Result<()> {
        let len = (self.index_at - SKIPPABLE_HEAD_BYTES as u64).checked_sub(tiled).filter(|len| *len <= 64);
        let is_end = |len: u64| -> Result<bool> {
            let mut end = vec![0; len as usize];
            read_at(&self.file, &mut end, tiled)?;
            Ok(frame::decode(&end, 2 * ustar::BLOCK).is_ok_and(|raw| raw.iter().all(|byte| *byte == 0)))
        };
        if len.map(is_end).transpose()? == Some(true) {
            Ok(())
        } else {
            Err(Error::corrupt("something else than the archive's end stands before the index"))
        }
    }

    /// Checks everything: the index, each frame's digest, each member.
    pub fn verify(&self) -> Result<Verified> {
        self.check()?;
        for number in 0..self.head.totals.frames {
            let record = self.frame_record(number)?;
            if <[u8; 32]>::from(Sha256::digest(self.compressed(&record)?)) != record.sha256 {
                return Err(Error::corrupt(format!("frame {number} does not have its digest")));
            }
        }
        let mut found = Verified::default();
        found.broken = self.for_each(|_, entry| {
            found.entries += 1;
            found.body_bytes += entry.body.len() as u64;
        })?;
        Ok(found)
    }
}
