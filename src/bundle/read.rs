//! Reading a bundle in place: positioned reads through one open file, no mapping, no unpacking.
//!
//! Knows: finding, decoding and checking one entry, or all of them. Does not know: who asks.
//! Through one file descriptor the bytes stay the same even when the file is replaced meanwhile.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use bytes::Bytes;

use super::index::{
    self, FOOTER_BYTES, FRAME_BYTES, FrameRecord, HEAD_BYTES, Head, SKIPPABLE_HEAD_BYTES, Search, Version,
};
use super::{MAX_SHARED_RAW, MAX_SINGLE_RAW, Record, Totals, frame, ustar};
use crate::cutoff::{Cutoffs, Unchecked};
use crate::entry::{self, Entry};
use crate::error::{Error, Result};
use crate::key::CacheKey;

/// Records read on each side of the place where a key should be, one after the other until the key is
/// found or ruled out. Keys are uniform digests: the last reach is eight standard deviations in the
/// largest index, so an index that needs more is none that this program wrote.
const REACHES: [u64; 3] = [128, 1_024, 8_192];

/// An index of version 1 above this is not hashed on a look-up: its times do not count.
const MAX_WHOLE_BYTES: u64 = 8 << 20;

/// Decoded frames that are held, and their bytes together.
const HELD_FRAMES: usize = 8;
const MAX_HELD_BYTES: usize = HELD_FRAMES * MAX_SHARED_RAW;

/// An open bundle.
#[derive(Debug)]
pub struct Bundle {
    pub(super) file: File,
    pub(super) head: Head,
    /// Offset of the index within the file.
    pub(super) index_at: u64,
    pub(super) index_len: u64,
    pub(super) index_sha256: [u8; 32],
    /// Whether the whole index has its digest, once that is known.
    pub(super) is_whole: OnceLock<bool>,
    /// Whether a look-up has shown that the index is not sorted.
    is_disordered: AtomicBool,
    held: Mutex<VecDeque<(u32, Bytes)>>,
}

impl Bundle {
    /// Opens a bundle and checks what every look-up relies on: footer, lengths and counts. Neither this
    /// nor a look-up has a cost that depends on the number of entries. `None` when there is no such file.
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
        let head = Head::decode(&heads[SKIPPABLE_HEAD_BYTES..], index_len)?;
        let (is_whole, is_disordered, held) = (OnceLock::new(), AtomicBool::new(false), Mutex::default());
        Ok(Self { file, head, index_at, index_len, index_sha256, is_whole, is_disordered, held })
    }

    /// Sums.
    pub fn totals(&self) -> Totals {
        self.head.totals
    }

    /// The newest time among its entries, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.head.created
    }

    /// Returns the record of `key`, by interpolation in a few reads, each wider.
    pub fn find(&self, key: &CacheKey) -> Result<Option<Record>> {
        if self.is_disordered.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (count, version) = (u64::from(self.head.totals.entries), self.head.version);
        let (mut half, mut lead) = ([0; 16], [0; 8]);
        half.copy_from_slice(&key.as_bytes()[..16]);
        lead.copy_from_slice(&half[..8]);
        let guess = ((u128::from(u64::from_be_bytes(lead)) * u128::from(count)) >> 64) as u64;
        for reach in REACHES {
            let (from, to) = (guess.saturating_sub(reach), (guess + reach).min(count));
            let run = self.records(from, to)?;
            match index::search(&run, version, &half, (from == 0, to == count)) {
                Search::Found(record) => return Record::decode_checked(record, version).map(Some),
                Search::Absent => return Ok(None),
                Search::Outside => {}
            }
        }
        // Reported once; from now on the bundle answers nothing, at no cost.
        self.is_disordered.store(true, Ordering::Relaxed);
        Err(Error::corrupt("the index's keys are not in the order and spread of digests"))
    }

    /// Returns the encoded records from one number up to another.
    fn records(&self, from: u64, to: u64) -> Result<Vec<u8>> {
        let width = self.head.version.record_bytes() as u64;
        let mut bytes = vec![0; (to.saturating_sub(from) * width) as usize];
        self.read_index(&mut bytes, self.head.entries_at() + from * width)?;
        Ok(bytes)
    }

    /// Reads from the index at an offset within it.
    pub(super) fn read_index(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        read_at(&self.file, buffer, self.index_at + at)
    }

    /// Whether an index of version 1 has its digest, which its times need to count. Computed once, and
    /// on a look-up only for an index of at most [`MAX_WHOLE_BYTES`].
    fn is_whole(&self) -> bool {
        let is_small = self.index_len <= MAX_WHOLE_BYTES;
        self.is_whole
            .get()
            .copied()
            .unwrap_or_else(|| is_small && *self.is_whole.get_or_init(|| self.check_digest().is_ok()))
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
        check_header(&member, key)?;
        let envelope = member.slice(ustar::BLOCK..);
        let entry = self.with_time(Entry::decode(envelope.clone(), Some(key))?, record);
        Ok((entry, envelope))
    }

    /// Gives an entry the time of validation that its record holds, as far as that is known to be intact.
    fn with_time(&self, entry: Entry, record: &Record) -> Entry {
        let is_later = record.validated_at() > entry.validated_at;
        if self.head.version == Version::Two || (is_later && self.is_whole()) {
            return Entry { validated_at: record.validated_at(), ..entry };
        }
        entry
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
            while held.len() > HELD_FRAMES || held.iter().map(|(_, raw)| raw.len()).sum::<usize>() > MAX_HELD_BYTES {
                held.pop_back();
            }
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
        self.read_index(&mut bytes, HEAD_BYTES as u64 + u64::from(number) * FRAME_BYTES as u64)?;
        self.checked_frame(FrameRecord::decode(&bytes)?)
    }

    /// Returns a frame record that lies within the file.
    pub(super) fn checked_frame(&self, record: FrameRecord) -> Result<FrameRecord> {
        let end = record.offset.checked_add(u64::from(record.compressed));
        if record.compressed as usize > MAX_SINGLE_RAW + 65_536 || end.is_none_or(|end| end > self.index_at) {
            return Err(Error::corrupt("a frame lies outside of the file"));
        }
        Ok(record)
    }

    pub(super) fn compressed(&self, record: &FrameRecord) -> Result<Vec<u8>> {
        let mut bytes = vec![0; record.compressed as usize];
        read_at(&self.file, &mut bytes, record.offset)?;
        Ok(bytes)
    }

    /// Where an entry lies: asking in this order decodes each frame once.
    pub fn place(&self, key: &CacheKey) -> Option<(u32, u32)> {
        self.find(key).ok().flatten().map(|record| (record.frame, record.offset))
    }

    /// The invalidations that came with it.
    pub fn cutoffs(&self) -> Result<Unchecked> {
        let mut cutoffs = vec![0; self.head.cutoffs_len as usize];
        self.read_index(&mut cutoffs, self.head.cutoffs_at())?;
        match self.head.version {
            Version::Two => Cutoffs::decode(index::checked_cutoffs(&cutoffs)?),
            Version::One if cutoffs.is_empty() || self.is_whole() => Cutoffs::decode(&cutoffs),
            Version::One => Err(Error::corrupt("the index is too large to check its invalidations, or damaged")),
        }
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
    pub(crate) fn for_each_head(&self, mut each: impl FnMut(Record, entry::Head)) -> Result<()> {
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
        let member = self.member(record)?;
        let entry = Entry::decode(member.slice(ustar::BLOCK..), None)?;
        let key = entry.key();
        if !record.is_of(&key) {
            return Err(Error::corrupt("the index names another key than the entry has"));
        }
        check_header(&member, &key)?;
        Ok(self.with_time(entry, record))
    }
}

/// A member must begin with exactly the header that is written for its key and size.
fn check_header(member: &[u8], key: &CacheKey) -> Result<()> {
    let (header, rest) = member.split_at(ustar::BLOCK);
    if ustar::is_ours(header, key, rest.len()) {
        Ok(())
    } else {
        Err(Error::corrupt("a member has another header than we write"))
    }
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::entry::tests::entry;
    use crate::stack::{Narrow, Stack};

    #[test]
    fn held_frames_are_bounded_by_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let stack = Stack::new(dir.path(), Clock::System);
        let body = format!("{{\"id\":\"{}\"}}", "x".repeat(12 << 20));
        let entries: Vec<Entry> = (0..3).map(|n| entry(&format!("/repos/o/r{n}"), body.as_bytes())).collect();
        assert!(entries.iter().all(|entry| stack.put(entry)));
        stack.pack(&Narrow::everything(), true).unwrap();
        let bundle = Bundle::open(&stack.bundle_path()).unwrap().unwrap();
        for entry in &entries {
            assert!(bundle.look_up(&entry.key()).unwrap().is_some());
            let held: usize = bundle.held(|held| held.iter().map(|(_, raw)| raw.len()).sum());
            assert!((1..=MAX_HELD_BYTES).contains(&held), "{held}");
        }
    }
}
