//! Reading a bundle in place: positioned reads through one open file, no mapping, no unpacking.
//!
//! Knows: finding, decoding and checking one entry, or all of them. Does not know: who asks.
//! Through one file descriptor the bytes stay the same even when the file is replaced meanwhile.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::index::{
    self, FOOTER_BYTES, FRAME_BYTES, FrameRecord, HEAD_BYTES, Head as IndexHead, RECORD_BYTES, SKIPPABLE_HEAD_BYTES,
};
use super::{MAX_SHARED_RAW, MAX_SINGLE_RAW, MAX_TOTAL_RAW, Record, Totals, frame, ustar};
use crate::cutoff::{Cutoffs, Unchecked};
use crate::entry::{Entry, Head};
use crate::error::{Error, Result};
use crate::key::CacheKey;

/// Records read at once around the place where a key should be; keys are uniform digests, so
/// this nearly always holds it.
const WINDOW: u64 = 256;

/// Decoded frames that are held.
const HELD_FRAMES: usize = 8;

/// An open bundle.
#[derive(Debug)]
pub struct Bundle {
    file: File,
    head: IndexHead,
    /// Offset of the index within the file.
    index_at: u64,
    index_len: u64,
    index_sha256: [u8; 32],
    held: Mutex<VecDeque<(u32, Bytes)>>,
}

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

impl Bundle {
    /// Opens a bundle and checks what every look-up relies on: footer, lengths and counts. The
    /// cost does not depend on the number of entries. `None` when there is no such file.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path, error)),
        };
        Self::open_file(file).map(Some).map_err(|error| error.within(path.display()))
    }

    fn open_file(file: File) -> Result<Self> {
        let file_len = file.metadata().map_err(|cause| Error::corrupt("it cannot be read").because(cause))?.len();
        let footer_at = file_len
            .checked_sub(FOOTER_BYTES as u64)
            .ok_or_else(|| Error::corrupt("it is too short to be a bundle"))?;
        let mut footer = [0; FOOTER_BYTES];
        read_at(&file, &mut footer, footer_at)?;
        let (index_len, index_sha256) = index::decode_footer(&footer, file_len)?;
        let index_at = file_len - index_len;
        let mut heads = [0; SKIPPABLE_HEAD_BYTES + HEAD_BYTES];
        read_at(&file, &mut heads, index_at - SKIPPABLE_HEAD_BYTES as u64)?;
        index::check_skippable(&heads, index_len)?;
        let head = IndexHead::decode(&heads[SKIPPABLE_HEAD_BYTES..], index_len)?;
        Ok(Self { file, head, index_at, index_len, index_sha256, held: Mutex::default() })
    }

    /// Sums.
    pub fn totals(&self) -> Totals {
        self.head.totals
    }

    /// The newest time among its entries, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.head.created
    }

    /// The record of `key`, by interpolation.
    pub fn find(&self, key: &CacheKey) -> Result<Option<Record>> {
        let count = u64::from(self.head.totals.entries);
        let mut lead = [0; 8];
        lead.copy_from_slice(&key.as_bytes()[..8]);
        let guess = (u128::from(u64::from_be_bytes(lead)) * u128::from(count)) >> 64;
        let mut reach = WINDOW / 2;
        loop {
            let from = (guess as u64).saturating_sub(reach);
            let to = (guess as u64 + reach).min(count);
            let records = self.records(from, to)?;
            let below = records.first().is_some_and(|first| key.as_bytes()[..16] < first.key[..]) && from > 0;
            let above = records.last().is_some_and(|last| key.as_bytes()[..16] > last.key[..]) && to < count;
            if !below && !above {
                return Ok(records
                    .binary_search_by(|record| record.key[..].cmp(&key.as_bytes()[..16]))
                    .ok()
                    .map(|at| records[at]));
            }
            reach *= 8;
        }
    }

    fn records(&self, from: u64, to: u64) -> Result<Vec<Record>> {
        let mut bytes = vec![0; (to - from) as usize * RECORD_BYTES];
        read_at(&self.file, &mut bytes, self.index_at + self.head.entries_at() + from * RECORD_BYTES as u64)?;
        bytes.chunks_exact(RECORD_BYTES).map(Record::decode).collect()
    }

    /// The entry under `key`: found, decoded and verified, with the times that the index holds.
    pub fn look_up(&self, key: &CacheKey) -> Result<Option<Entry>> {
        self.find(key)?.map(|record| self.read(key, &record)).transpose()
    }

    /// The entry of a record.
    pub fn read(&self, key: &CacheKey, record: &Record) -> Result<Entry> {
        self.read_with_envelope(key, record).map(|(entry, _)| entry)
    }

    /// The entry of a record, and its encoding.
    pub fn read_with_envelope(&self, key: &CacheKey, record: &Record) -> Result<(Entry, Bytes)> {
        let member = self.member(record)?;
        let (header, rest) = member.split_at(ustar::BLOCK);
        if !ustar::is_ours(header, key, rest.len()) {
            return Err(Error::corrupt("a member has another header than we write"));
        }
        let envelope = member.slice(ustar::BLOCK..);
        let mut entry = Entry::decode(envelope.clone(), Some(key))?;
        entry.validated_at = entry.validated_at.max(record.validated_at());
        Ok((entry, envelope))
    }

    /// Header and envelope of a record, without padding.
    fn member(&self, record: &Record) -> Result<Bytes> {
        let raw = self.frame(record.frame, Some(record))?;
        let start = record.offset as usize;
        let end = start.checked_add(ustar::BLOCK + record.len as usize).filter(|end| *end <= raw.len());
        let end = end.ok_or_else(|| Error::corrupt("the index points outside of its frame"))?;
        Ok(raw.slice(start..end))
    }

    /// A decoded frame; `alone` is the record on whose behalf, for the bound of single members.
    fn frame(&self, number: u32, alone: Option<&Record>) -> Result<Bytes> {
        if let Some(raw) = self.held(|held| held.iter().find(|(n, _)| *n == number).map(|(_, raw)| raw.clone())) {
            return Ok(raw);
        }
        let record = self.frame_record(number)?;
        let raw_len = record.raw as usize;
        let fills = |one: &Record| one.offset == 0 && ustar::member_len(one.len as usize) == raw_len;
        if raw_len > MAX_SHARED_RAW && !(alone.is_some_and(fills) && raw_len <= MAX_SINGLE_RAW) {
            return Err(Error::corrupt("a frame claims more than a frame may hold"));
        }
        let raw = Bytes::from(frame::decode(&self.compressed(&record)?, raw_len)?);
        self.held(|held| {
            held.push_front((number, raw.clone()));
            held.truncate(HELD_FRAMES);
        });
        Ok(raw)
    }

    fn held<T>(&self, with: impl FnOnce(&mut VecDeque<(u32, Bytes)>) -> T) -> T {
        // A panic while the lock was held cannot leave the queue half-changed.
        with(&mut self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(super) fn frame_record(&self, number: u32) -> Result<FrameRecord> {
        if number >= self.head.totals.frames {
            return Err(Error::corrupt("the index names a frame that is not there"));
        }
        let mut bytes = [0; FRAME_BYTES];
        read_at(&self.file, &mut bytes, self.index_at + HEAD_BYTES as u64 + u64::from(number) * FRAME_BYTES as u64)?;
        let record = FrameRecord::decode(&bytes)?;
        let end = record.offset.checked_add(u64::from(record.compressed));
        if record.compressed as usize > MAX_SINGLE_RAW + 65_536 || end.is_none_or(|end| end > self.index_at) {
            return Err(Error::corrupt("a frame lies outside of the file"));
        }
        Ok(record)
    }

    fn compressed(&self, record: &FrameRecord) -> Result<Vec<u8>> {
        let mut bytes = vec![0; record.compressed as usize];
        read_at(&self.file, &mut bytes, record.offset)?;
        Ok(bytes)
    }

    /// Where an entry lies: asking in this order decodes each frame once.
    pub fn place(&self, key: &CacheKey) -> Option<(u32, u32)> {
        self.find(key).ok().flatten().map(|record| (record.frame, record.offset))
    }

    /// Reads and checks the whole index: its digest, ascending keys, frames that tile the file up
    /// to the end-of-archive frame, and the sum of what they decode to.
    pub fn check_index(&self) -> Result<(Vec<Record>, Unchecked)> {
        let mut hash = Sha256::new();
        let mut chunk = vec![0; 64 << 10];
        let (mut at, end) = (self.index_at, self.index_at + self.index_len - FOOTER_BYTES as u64);
        while at < end {
            let len = (end - at).min(chunk.len() as u64) as usize;
            read_at(&self.file, &mut chunk[..len], at)?;
            hash.update(&chunk[..len]);
            at += len as u64;
        }
        if <[u8; 32]>::from(hash.finalize()) != self.index_sha256 {
            return Err(Error::corrupt("the index does not have its digest"));
        }
        let (mut tiled, mut total) = (0, 0_u64);
        for number in 0..self.head.totals.frames {
            let record = self.frame_record(number)?;
            total += u64::from(record.raw);
            if record.offset != tiled || record.raw as usize > MAX_SINGLE_RAW || total > MAX_TOTAL_RAW {
                return Err(Error::corrupt("the frames do not tile the file, or decode to too much"));
            }
            tiled += u64::from(record.compressed);
        }
        let mut end_frame =
            vec![0; usize::try_from(self.index_at - SKIPPABLE_HEAD_BYTES as u64 - tiled).unwrap_or(0).min(64)];
        read_at(&self.file, &mut end_frame, tiled)?;
        let is_end = frame::decode(&end_frame, 2 * ustar::BLOCK).is_ok_and(|raw| raw.iter().all(|byte| *byte == 0));
        if !is_end || tiled + end_frame.len() as u64 + SKIPPABLE_HEAD_BYTES as u64 != self.index_at {
            return Err(Error::corrupt("something else than the archive's end stands before the index"));
        }
        let records = self.records(0, u64::from(self.head.totals.entries))?;
        if !records.is_sorted_by(|a, b| a.key < b.key) {
            return Err(Error::corrupt("the index is not in ascending order of keys"));
        }
        Ok((records, self.cutoffs()?))
    }

    /// The invalidations that came with it.
    pub fn cutoffs(&self) -> Result<Unchecked> {
        let mut cutoffs = vec![0; self.head.cutoffs_len as usize];
        read_at(&self.file, &mut cutoffs, self.index_at + self.head.cutoffs_at())?;
        Cutoffs::decode(&cutoffs)
    }

    /// Copies the whole file as it is.
    pub(crate) fn copy_to(&self, out: &mut File) -> std::io::Result<()> {
        use std::io::{Seek, SeekFrom, copy};
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        copy(&mut file, out).map(|_| ())
    }

    /// End of the data frames within the file.
    pub(super) fn data_end(&self) -> Result<u64> {
        match self.head.totals.frames {
            0 => Ok(0),
            n => self.frame_record(n - 1).map(|last| last.offset + u64::from(last.compressed)),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Calls `each` with every sound entry that the index names, in the order of the file, one
    /// frame in memory at a time; returns the number of broken ones.
    pub fn for_each(&self, mut each: impl FnMut(Record, Entry)) -> Result<u32> {
        let (mut records, _) = self.check_index()?;
        records.sort_by_key(|record| (record.frame, record.offset));
        let mut broken = 0;
        for record in records {
            match self.read_unasked(&record) {
                Ok(entry) => each(record, entry),
                Err(error) => {
                    tracing::warn!(%error, "a bundled entry is not usable");
                    broken += 1;
                }
            }
        }
        Ok(broken)
    }

    /// Calls `each` with the metadata of every entry that the index names, in the order of the file. Bodies are
    /// not looked at; entries whose metadata do not have their checksum, or another key, are left out.
    pub(crate) fn for_each_head(&self, mut each: impl FnMut(Record, Head)) -> Result<()> {
        let (mut records, _) = self.check_index()?;
        records.sort_by_key(|record| (record.frame, record.offset));
        for record in records {
            let head = self.member(&record).and_then(|member| Entry::peek(&member[ustar::BLOCK..]));
            if let Ok(head) = head
                && record.is_of(&head.parts.key())
            {
                each(record, head);
            }
        }
        Ok(())
    }

    /// The entry of a record whose full key is not known beforehand.
    pub(crate) fn read_unasked(&self, record: &Record) -> Result<Entry> {
        let envelope = self.member(record)?.slice(ustar::BLOCK..);
        let key = Entry::decode(envelope, None)?.key();
        if !record.is_of(&key) {
            return Err(Error::corrupt("the index names another key than the entry has"));
        }
        self.read(&key, record)
    }

    /// Checks everything: the index, each frame's digest, each member.
    pub fn verify(&self) -> Result<Verified> {
        self.check_index()?;
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

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<()> {
    #[cfg(unix)]
    let read = std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset);
    #[cfg(windows)]
    let read = {
        let mut filled = 0;
        loop {
            if filled == buffer.len() {
                break Ok(());
            }
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => filled += n,
                Err(error) => break Err(error),
            }
        }
    };
    read.map_err(|cause: std::io::Error| Error::corrupt("the bundle cannot be read").because(cause))
}
