//! One zstd frame: compressing it, and decoding it without trusting it.
//!
//! Knows: zstd's frame header and its bounds. Does not know: what is inside.

use zstd::zstd_safe::{self, CParameter};

use super::LEVEL;
use crate::error::{Error, Result};

/// A compressor that is used for many frames.
pub(super) struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    pub(super) fn new() -> Result<Self> {
        let fail = |cause| Error::new(crate::error::Kind::Internal, "zstd does not start").because(cause);
        let mut inner = zstd::bulk::Compressor::new(LEVEL).map_err(fail)?;
        inner.set_parameter(CParameter::ChecksumFlag(true)).map_err(fail)?;
        inner.set_parameter(CParameter::ContentSizeFlag(true)).map_err(fail)?;
        Ok(Self(inner))
    }

    pub(super) fn compress(&mut self, raw: &[u8]) -> Result<Vec<u8>> {
        self.0
            .compress(raw)
            .map_err(|cause| Error::new(crate::error::Kind::Internal, "zstd does not compress").because(cause))
    }
}

/// Decodes `bytes`, which must be exactly one frame of exactly `raw_len` bytes without dictionary.
/// The output buffer has that size and no more, so a bomb ends as an error, not as memory.
pub(super) fn decode(bytes: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    let size = zstd_safe::get_frame_content_size(bytes).ok().flatten();
    if size != Some(raw_len as u64) {
        return Err(Error::corrupt("a frame does not declare the size that the index gives it"));
    }
    if zstd_safe::get_dict_id_from_frame(bytes).is_some() {
        return Err(Error::corrupt("a frame wants a dictionary"));
    }
    if zstd_safe::find_frame_compressed_size(bytes).ok() != Some(bytes.len()) {
        return Err(Error::corrupt("a frame does not end where the index says"));
    }
    let raw = zstd::bulk::decompress(bytes, raw_len)
        .map_err(|cause| Error::corrupt("a frame does not decode").because(cause))?;
    if raw.len() == raw_len { Ok(raw) } else { Err(Error::corrupt("a frame decodes to another size")) }
}
