//! The index: fixed-width records, little-endian, sorted by key, and the footer that ends the file.
//!
//! ```text
//! head    "OCTOIDX2" ‖ u32 entries ‖ u32 frames ‖ u32 generation ‖ u32 cutoffs length
//!         ‖ u64 created ‖ u64 raw live ‖ u64 raw dead                                   48 bytes
//! frames  u64 offset ‖ u32 compressed ‖ u32 raw ‖ sha256 of the compressed bytes        48 each
//! entries key[0..16] ‖ u32 frame ‖ u32 offset ‖ u32 len ‖ u32 validated ‖ u32 stored
//!         ‖ u16 used day ‖ u16 cid[0..2] ‖ sha256(record so far)[0..4]                  44 each
//! cutoffs JSON ‖ sha256(JSON)[0..4], or nothing
//! footer  sha256(index so far) ‖ u32 index length ‖ "OCT1"                              40 bytes
//! ```
//!
//! A look-up reads a few records of many, so each record and the cutoffs carry a checksum of their
//! own: what they say is believed at a cost that does not depend on the number of entries. Version 1
//! ("OCTOIDX1") is read, too: it has neither checksum, so the digest of the whole index is needed.
//!
//! Knows: the layout and its arithmetic. Does not know: files or zstd.

use sha2::{Digest, Sha256};

use crate::cid::Cid;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::key::CacheKey;

pub(super) const HEAD_BYTES: usize = 48;
pub(super) const FRAME_BYTES: usize = 48;
/// A record of version 1, and the part of a record that its checksum covers.
pub(super) const UNCHECKED_RECORD_BYTES: usize = 40;
pub(super) const RECORD_BYTES: usize = UNCHECKED_RECORD_BYTES + CHECK_BYTES;
/// Leading bytes of a SHA-256: against bit rot, not against forgery.
const CHECK_BYTES: usize = 4;
pub(super) const FOOTER_BYTES: usize = 40;
/// Magic and length of a skippable frame.
pub(super) const SKIPPABLE_HEAD_BYTES: usize = 8;

const MAGIC: &[u8; 8] = b"OCTOIDX2";
const MAGIC_1: &[u8; 8] = b"OCTOIDX1";
const FOOTER_MAGIC: &[u8; 4] = b"OCT1";
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5A;

const MAX_INDEX_BYTES: u64 = 256 << 20;
const MAX_ENTRIES: u32 = 4 << 20;
const MAX_CUTOFF_BYTES: u32 = 1 << 20;

/// Sums over a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Totals {
    /// Entries that the index names.
    pub entries: u32,
    /// Data frames.
    pub frames: u32,
    /// Appends since the last full pack, and one.
    pub generation: u32,
    /// Uncompressed bytes of members that the index names.
    pub raw_live: u64,
    /// Uncompressed bytes of members that were superseded.
    pub raw_dead: u64,
}

/// The layout of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Only the digest of the whole index tells whether a record is intact.
    One,
    /// Records and cutoffs carry checksums.
    Two,
}

impl Version {
    pub(super) fn record_bytes(self) -> usize {
        match self {
            Self::One => UNCHECKED_RECORD_BYTES,
            Self::Two => RECORD_BYTES,
        }
    }
}

/// The index's fixed head, checked against the index's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: Version,
    pub(super) totals: Totals,
    pub(super) created: u64,
    pub(super) cutoffs_len: u32,
}

/// Where one frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameRecord {
    pub(super) offset: u64,
    pub(super) compressed: u32,
    pub(super) raw: u32,
    pub(super) sha256: [u8; 32],
}

/// Where one entry is, and what may change about it without rewriting its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub(crate) key: [u8; 16],
    pub(crate) frame: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) validated_at: u32,
    pub(crate) stored_at: u32,
    pub(crate) used_day: u16,
    pub(crate) cid: [u8; 2],
}

impl Record {
    /// Whether it is about this key, as far as 16 bytes tell.
    pub fn is_of(&self, key: &CacheKey) -> bool {
        key.as_bytes().starts_with(&self.key)
    }

    /// When the body was last said to be current.
    pub fn validated_at(&self) -> Timestamp {
        Timestamp::from_secs(i64::from(self.validated_at))
    }

    /// The same without a time after `latest`, which cannot be true: as if not validated since it was
    /// stored.
    #[must_use]
    pub fn without_times_after(self, latest: Timestamp) -> Self {
        let known = |at: u32| if i64::from(at) > latest.secs() { 0 } else { at };
        let validated_at = if known(self.validated_at) == 0 { known(self.stored_at) } else { self.validated_at };
        Self { validated_at, ..self }
    }

    /// Uncompressed bytes of its member.
    pub fn member_len(&self) -> u64 {
        super::ustar::member_len(self.len as usize) as u64
    }

    /// When the body came from GitHub.
    pub fn stored_at(&self) -> Timestamp {
        Timestamp::from_secs(i64::from(self.stored_at))
    }

    /// Whether a freshening noted for a body stored at `stored_at` with this address is about it.
    pub fn has_body(&self, stored_at: u32, cid: [u8; 2]) -> bool {
        self.stored_at == stored_at && self.cid == cid
    }

    /// The first bytes of an address, as the record holds them.
    pub fn short_cid(cid: &Cid) -> [u8; 2] {
        [cid.sha256()[0], cid.sha256()[1]]
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
        for number in [self.frame, self.offset, self.len, self.validated_at, self.stored_at] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.used_day.to_le_bytes());
        out.extend_from_slice(&self.cid);
        let check = check_of(&out[out.len() - UNCHECKED_RECORD_BYTES..]);
        out.extend_from_slice(&check);
    }

    /// Returns the record in `bytes`; of version 2 only if it has its checksum.
    pub(super) fn decode_checked(bytes: &[u8], version: Version) -> Result<Self> {
        match version {
            Version::One => Self::decode(bytes),
            Version::Two => Self::decode(checked(bytes, "a record of the index does not have its checksum")?),
        }
    }

    /// Returns the record in `bytes`, whose digest is checked elsewhere.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut rest = Reader(bytes);
        Ok(Self {
            key: rest.take()?,
            frame: rest.u32()?,
            offset: rest.u32()?,
            len: rest.u32()?,
            validated_at: rest.u32()?,
            stored_at: rest.u32()?,
            used_day: u16::from_le_bytes(rest.take()?),
            cid: rest.take()?,
        })
    }
}

impl FrameRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.compressed.to_le_bytes());
        out.extend_from_slice(&self.raw.to_le_bytes());
        out.extend_from_slice(&self.sha256);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut rest = Reader(bytes);
        Ok(Self { offset: rest.u64()?, compressed: rest.u32()?, raw: rest.u32()?, sha256: rest.take()? })
    }
}

impl Head {
    pub(super) fn decode(bytes: &[u8], index_len: u64) -> Result<Self> {
        let mut rest = Reader(bytes);
        let version = match &rest.take::<8>()? {
            MAGIC => Version::Two,
            MAGIC_1 => Version::One,
            _ => return Err(Error::corrupt("the index has another version than this program knows")),
        };
        let (entries, frames, generation) = (rest.u32()?, rest.u32()?, rest.u32()?);
        let cutoffs_len = rest.u32()?;
        let created = rest.u64()?;
        let totals = Totals { entries, frames, generation, raw_live: rest.u64()?, raw_dead: rest.u64()? };
        let head = Self { version, totals, created, cutoffs_len };
        // Counts are bounded, so nothing here overflows; and they must fill the index exactly.
        let counts_fit = entries <= MAX_ENTRIES && frames <= MAX_ENTRIES && cutoffs_len <= MAX_CUTOFF_BYTES;
        let want = head.cutoffs_at() + u64::from(cutoffs_len) + FOOTER_BYTES as u64;
        if !counts_fit || want != index_len {
            return Err(Error::corrupt("the index's counts do not add up to its length"));
        }
        Ok(head)
    }

    /// Offset of the first entry record within the index.
    pub(super) fn entries_at(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.totals.frames) * FRAME_BYTES as u64
    }

    /// Offset of the cutoffs within the index.
    pub(super) fn cutoffs_at(&self) -> u64 {
        self.entries_at() + u64::from(self.totals.entries) * self.version.record_bytes() as u64
    }
}

/// What a run of records tells about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search<'a> {
    /// The encoded record of the key.
    Found(&'a [u8]),
    /// The key lies between two records of the run, or beyond the first or last of all.
    Absent,
    /// The key lies before or behind the run.
    Outside,
}

/// Searches a run of encoded records for the first half of a key; `is_first` and `is_last` say
/// whether the run begins and ends the list.
pub(super) fn search<'a>(
    run: &'a [u8],
    version: Version,
    key: &[u8; 16],
    (is_first, is_last): (bool, bool),
) -> Search<'a> {
    match version {
        Version::One => search_run::<UNCHECKED_RECORD_BYTES>(run, key, is_first, is_last),
        Version::Two => search_run::<RECORD_BYTES>(run, key, is_first, is_last),
    }
}

fn search_run<'a, const N: usize>(run: &'a [u8], key: &[u8; 16], is_first: bool, is_last: bool) -> Search<'a> {
    let (records, _) = run.as_chunks::<N>();
    match records.binary_search_by(|record| record[..16].cmp(&key[..])) {
        Ok(at) => Search::Found(&records[at]),
        Err(0) if !is_first => Search::Outside,
        Err(at) if at == records.len() && !is_last => Search::Outside,
        Err(_) => Search::Absent,
    }
}

/// Returns `cutoffs` as the index holds them.
fn with_check(cutoffs: &[u8]) -> Vec<u8> {
    if cutoffs.is_empty() { Vec::new() } else { [cutoffs, &check_of(cutoffs)].concat() }
}

/// Returns the cutoffs' JSON without its checksum, if it has that of version 2.
pub(super) fn checked_cutoffs(bytes: &[u8]) -> Result<&[u8]> {
    if bytes.is_empty() { Ok(bytes) } else { checked(bytes, "the invalidations do not have their checksum") }
}

pub(super) fn check_of(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::digest(bytes);
    std::array::from_fn(|at| digest[at])
}

fn checked<'a>(bytes: &'a [u8], otherwise: &str) -> Result<&'a [u8]> {
    match bytes.split_last_chunk() {
        Some((content, check)) if check_of(content) == *check => Ok(content),
        _ => Err(Error::corrupt(otherwise)),
    }
}

/// The footer's claim: length of the index and its digest.
pub(super) fn decode_footer(bytes: &[u8; FOOTER_BYTES], file_len: u64) -> Result<(u64, [u8; 32])> {
    let mut rest = Reader(bytes);
    let sha256 = rest.take()?;
    let index_len = u64::from(rest.u32()?);
    if rest.take::<4>()? != *FOOTER_MAGIC {
        return Err(Error::corrupt("it does not end in an index: truncated, or no bundle of this program"));
    }
    let smallest = (HEAD_BYTES + FOOTER_BYTES) as u64;
    if index_len < smallest || index_len > MAX_INDEX_BYTES || index_len + SKIPPABLE_HEAD_BYTES as u64 > file_len {
        return Err(Error::corrupt("the index's length is impossible"));
    }
    Ok((index_len, sha256))
}

/// The skippable frame's head must agree with the footer.
pub(super) fn check_skippable(bytes: &[u8], index_len: u64) -> Result<()> {
    let mut rest = Reader(bytes);
    if rest.u32()? == SKIPPABLE_MAGIC && u64::from(rest.u32()?) == index_len {
        Ok(())
    } else {
        Err(Error::corrupt("the index is not the one frame that the footer names"))
    }
}

/// The whole index frame for these records; `records` must be sorted by key.
pub(super) fn encode(
    totals: Totals,
    created: u64,
    frames: &[FrameRecord],
    records: &[Record],
    cutoffs: &[u8],
) -> Result<Vec<u8>> {
    let cutoffs = with_check(cutoffs);
    let len = HEAD_BYTES + frames.len() * FRAME_BYTES + records.len() * RECORD_BYTES + cutoffs.len() + FOOTER_BYTES;
    if len as u64 > MAX_INDEX_BYTES || records.len() > MAX_ENTRIES as usize {
        return Err(Error::new(
            crate::error::Kind::TooLarge,
            format!("{} entries do not fit into a bundle", records.len()),
        ));
    }
    let mut out = Vec::with_capacity(len + SKIPPABLE_HEAD_BYTES);
    out.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(MAGIC);
    for number in [totals.entries, totals.frames, totals.generation, cutoffs.len() as u32] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [created, totals.raw_live, totals.raw_dead] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for frame in frames {
        frame.encode(&mut out);
    }
    for record in records {
        record.encode(&mut out);
    }
    out.extend_from_slice(&cutoffs);
    let digest = Sha256::digest(&out[SKIPPABLE_HEAD_BYTES..]);
    out.extend_from_slice(&digest);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(FOOTER_MAGIC);
    Ok(out)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(|| Error::corrupt("the index is cut short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
