//! Writing a bundle: frames of an earlier one copied as they are, new members appended, a new end
//! and index.
//!
//! Knows: order, frames, threads. Does not know: which entries are worth saving (`stack`).
//! Same entries and history give the same bytes: fixed metadata, sorted members, one frame per
//! thread at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::frame::Compressor;
use super::index::{self, FrameRecord};
use super::{Bundle, FRAME_RAW_BYTES, MAX_SHARED_RAW, Record, Totals, ustar};
use crate::cid::Cid;
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::key::CacheKey;

/// A member to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its key.
    pub key: CacheKey,
    /// Where it stands: family, then path and query, so that like-shaped bodies share frames.
    pub order: String,
    /// Bytes of its envelope.
    pub len: usize,
    /// Day of last use since 1970.
    pub used_day: u16,
    /// Beginning of the digest of its body.
    pub cid: [u8; 2],
}

/// What to write.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The bundle whose frames are kept, for an append.
    pub base: Option<&'a Bundle>,
    /// Records of `base` that stay alive.
    pub carried: Vec<Record>,
    /// New members, in any order.
    pub members: Vec<Planned>,
    /// Encoded cutoffs.
    pub cutoffs: Vec<u8>,
}

struct Packed {
    compressed: Vec<u8>,
    sha256: [u8; 32],
    raw: usize,
    records: Vec<Record>,
}

/// Gives the envelope of a key; `None` when it is gone or broken by now (it is left out then).
pub type ReadEnvelope<'a> = dyn Fn(&CacheKey) -> Option<Envelope> + Sync + 'a;

/// An entry in its encoding, and what the index tells of it.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// [`Entry::encode`]d bytes, verified.
    pub bytes: Bytes,
    /// When its body came from GitHub.
    pub fetched_at: Timestamp,
    /// When it was last said to be current.
    pub validated_at: Timestamp,
    /// Address of its body.
    pub cid: Cid,
}

impl Envelope {
    /// The envelope `bytes` of `entry`.
    pub fn of(bytes: Bytes, entry: &Entry) -> Self {
        Self { bytes, fetched_at: entry.fetched_at, validated_at: entry.validated_at, cid: entry.cid }
    }
}

/// Writes the bundle to `out`.
pub fn write(out: &mut File, plan: Plan<'_>, read: &ReadEnvelope<'_>) -> Result<Totals> {
    let failed = |cause: io::Error| Error::new(crate::error::Kind::Io, "cannot write the bundle").because(cause);
    let generation = plan.base.map_or(1, |base| base.totals().generation + 1);
    let mut frames = Vec::new();
    let mut offset = 0;
    let mut total_raw = 0;
    if let Some(base) = plan.base {
        for number in 0..base.totals().frames {
            let frame = base.frame_record(number)?;
            total_raw += u64::from(frame.raw);
            frames.push(frame);
        }
        offset = base.data_end()?;
        copy(base.file(), offset, out).map_err(failed)?;
    }
    let mut records = plan.carried;
    let mut members = plan.members;
    members.sort_by(|a, b| (&a.order, &a.key).cmp(&(&b.order, &b.key)));
    let groups = groups(&members);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    for batch in groups.chunks(threads * 8) {
        for packed in pack_batch(batch, threads, generation, read)? {
            if packed.records.is_empty() {
                continue;
            }
            out.write_all(&packed.compressed).map_err(failed)?;
            let frame = frames.len() as u32;
            frames.push(FrameRecord {
                offset,
                compressed: packed.compressed.len() as u32,
                raw: packed.raw as u32,
                sha256: packed.sha256,
            });
            records.extend(packed.records.into_iter().map(|record| Record { frame, ..record }));
            offset += packed.compressed.len() as u64;
            total_raw += packed.raw as u64;
        }
    }
    records.sort_unstable_by_key(|record| record.key);
    if records.windows(2).any(|pair| pair[0].key == pair[1].key) {
        return Err(Error::corrupt("two entries have one key"));
    }
    let end = Compressor::new()?.compress(&[0; 2 * ustar::BLOCK])?;
    let live: u64 = records.iter().map(Record::member_len).sum();
    let totals = Totals {
        entries: records.len() as u32,
        frames: frames.len() as u32,
        generation,
        raw_live: live,
        raw_dead: total_raw.saturating_sub(live),
    };
    let created = records.iter().map(|record| record.validated_at.max(record.stored_at)).max().unwrap_or(0);
    let index = index::encode(totals, u64::from(created), &frames, &records, &plan.cutoffs)?;
    out.write_all(&end).and_then(|()| out.write_all(&index)).map_err(failed)?;
    Ok(totals)
}

fn copy(from: &File, len: u64, out: &mut File) -> io::Result<()> {
    let mut from = from;
    from.seek(SeekFrom::Start(0))?;
    let copied = io::copy(&mut io::Read::take(from, len), out)?;
    if copied == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Members that share a frame: whole ones up to the frame size; a large one alone. Equal bodies side by side stay together as far
/// as a frame may go: of each that follows, next to nothing is left.
fn groups(members: &[Planned]) -> Vec<&[Planned]> {
    let mut groups = Vec::new();
    let (mut start, mut raw) = (0, 0);
    for (at, member) in members.iter().enumerate() {
        let len = ustar::member_len(member.len);
        let equals_last =
            at > 0 && member.cid == members[at - 1].cid && member.len.abs_diff(members[at - 1].len) < 1_024;
        let most = if equals_last { MAX_SHARED_RAW } else { FRAME_RAW_BYTES };
        if at > start && raw + len > most {
            groups.push(&members[start..at]);
            (start, raw) = (at, 0);
        }
        raw += len;
    }
    if start < members.len() {
        groups.push(&members[start..]);
    }
    groups
}

fn pack_batch(batch: &[&[Planned]], threads: usize, generation: u32, read: &ReadEnvelope<'_>) -> Result<Vec<Packed>> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<HashMap<usize, Packed>> {
        let mut compressor = Compressor::new()?;
        let mut done = HashMap::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(group) = batch.get(at) else { return Ok(done) };
            done.insert(at, pack(&mut compressor, group, generation, read)?);
        }
    };
    let mut done = HashMap::new();
    std::thread::scope(|scope| -> Result<()> {
        let helpers: Vec<_> = (1..threads.min(batch.len())).map(|_| scope.spawn(worker)).collect();
        done.extend(worker()?);
        for helper in helpers {
            let packed =
                helper.join().map_err(|_| Error::new(crate::error::Kind::Internal, "a packing thread died"))?;
            done.extend(packed?);
        }
        Ok(())
    })?;
    Ok((0..batch.len()).filter_map(|at| done.remove(&at)).collect())
}

fn pack(compressor: &mut Compressor, group: &[Planned], generation: u32, read: &ReadEnvelope<'_>) -> Result<Packed> {
    let mut raw = Vec::with_capacity(FRAME_RAW_BYTES + 65_536);
    let mut records = Vec::with_capacity(group.len());
    for planned in group {
        let Some(envelope) = read(&planned.key) else { continue };
        let grown = raw.len() + ustar::member_len(envelope.bytes.len());
        // An entry that was replaced by a far larger one since it was planned waits for the next save.
        if !raw.is_empty() && grown > MAX_SHARED_RAW {
            continue;
        }
        let mut key = [0; 16];
        key.copy_from_slice(&planned.key.as_bytes()[..16]);
        records.push(Record {
            key,
            frame: 0,
            offset: raw.len() as u32,
            len: envelope.bytes.len() as u32,
            validated_at: seconds(envelope.validated_at),
            stored_at: seconds(envelope.fetched_at),
            used_day: planned.used_day,
            cid: Record::short_cid(&envelope.cid),
        });
        raw.extend_from_slice(&ustar::header(&planned.key, generation, envelope.bytes.len()));
        raw.extend_from_slice(&envelope.bytes);
        raw.resize(raw.len().next_multiple_of(ustar::BLOCK), 0);
    }
    let compressed = compressor.compress(&raw)?;
    let sha256 = Sha256::digest(&compressed).into();
    Ok(Packed { compressed, sha256, raw: raw.len(), records })
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.secs().max(0)).unwrap_or(u32::MAX)
}
