//! Makes the checksums of a damaged bundle fit again, so that fuzzing reaches what stands behind them.
//!
//! Knows: the layout. Does not know: what the bytes say. Built for tests and fuzzing alone.

use sha2::{Digest, Sha256};

use super::frame::Compressor;
use super::index::{self, FOOTER_BYTES, FRAME_BYTES, FrameRecord, HEAD_BYTES, RECORD_BYTES, SKIPPABLE_HEAD_BYTES};
use super::index::{UNCHECKED_RECORD_BYTES, check_of};
use super::{Record, Totals, ustar};
use crate::error::Result;
use crate::key::CacheKey;

/// Returns `file` with lengths, counts and checksums that fit its last index; as it is, if it has none.
pub(crate) fn with_checksums(mut file: Vec<u8>) -> Vec<u8> {
    let found = memchr::memmem::rfind(&file, b"OCTOIDX").filter(|at| {
        *at >= SKIPPABLE_HEAD_BYTES && file.len() - at >= HEAD_BYTES + FOOTER_BYTES && file.len() < u32::MAX as usize
    });
    let Some(index_at) = found else { return file };
    let len = (file.len() - index_at) as u32;
    file[index_at - 4..index_at].copy_from_slice(&len.to_le_bytes());
    let footer_at = file.len() - FOOTER_BYTES;
    let index = &mut file[index_at..footer_at];
    let is_checked = index[7] == b'2';
    let width = if is_checked { RECORD_BYTES } else { UNCHECKED_RECORD_BYTES };
    let count =
        |index: &[u8], at: usize| index[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
    let room = index.len() - HEAD_BYTES;
    let frames = count(index, 12).min(room / FRAME_BYTES);
    let room = room - frames * FRAME_BYTES;
    let entries = (room - count(index, 20).min(room)) / width;
    let cutoffs = room - entries * width;
    for (at, number) in [(8, entries), (12, frames), (20, cutoffs)] {
        index[at..at + 4].copy_from_slice(&(number as u32).to_le_bytes());
    }
    if is_checked {
        let (records, cutoffs) = index[HEAD_BYTES + frames * FRAME_BYTES..].split_at_mut(entries * width);
        records.chunks_exact_mut(width).chain([cutoffs]).for_each(fit);
    }
    let digest = Sha256::digest(&file[index_at..footer_at]);
    file[footer_at..footer_at + 32].copy_from_slice(&digest);
    file[footer_at + 32..footer_at + 36].copy_from_slice(&len.to_le_bytes());
    file[footer_at + 36..].copy_from_slice(b"OCT1");
    file
}

/// Gives bytes that end in a checksum the one that fits.
fn fit(bytes: &mut [u8]) {
    if let Some((content, check)) = bytes.split_last_chunk_mut::<4>() {
        *check = check_of(content);
    }
}

/// Returns a bundle of one frame with `raw` in it, as the member of `key`.
pub(crate) fn around(raw: &[u8], key: &CacheKey) -> Result<Vec<u8>> {
    let (compressed, end) = {
        let mut compressor = Compressor::new()?;
        (compressor.compress(raw)?, compressor.compress(&[0; 2 * ustar::BLOCK])?)
    };
    let sha256 = Sha256::digest(&compressed).into();
    let frame = FrameRecord { offset: 0, compressed: compressed.len() as u32, raw: raw.len() as u32, sha256 };
    let mut half = [0; 16];
    half.copy_from_slice(&key.as_bytes()[..16]);
    let len = raw.len().saturating_sub(ustar::BLOCK) as u32;
    let record =
        Record { key: half, frame: 0, offset: 0, len, validated_at: 9, stored_at: 9, used_day: 9, cid: [9, 9] };
    let totals = Totals { entries: 1, frames: 1, generation: 1, raw_live: raw.len() as u64, raw_dead: 0 };
    Ok([compressed, end, index::encode(totals, 9, &[frame], &[record], b"")?].concat())
}
