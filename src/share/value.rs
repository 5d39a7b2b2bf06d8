//! How an entry travels: its envelope, compressed when it is large.
//!
//! Knows: both forms and their bounds. Does not know: places. What comes back may have been written by
//! anybody.

use bytes::Bytes;
use zstd::zstd_safe;

use crate::entry::{Entry, MAX_BYTES};
use crate::error::{Error, Result};
use crate::key::CacheKey;

/// Envelopes above this are compressed.
const PLAIN_BYTES: usize = 32 << 10;

/// What is larger even so is not shared.
pub(super) const MAX_VALUE_BYTES: usize = 8 << 20;

/// The first bytes of a zstd frame (RFC 8878 section 3.1.1).
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The value of an entry; `None` when it is too large to be shared.
pub(super) fn encode(entry: &Entry) -> Option<Vec<u8>> {
    let plain = entry.encode();
    let value = if plain.len() <= PLAIN_BYTES { plain } else { zstd::bulk::compress(&plain, 3).ok()? };
    (value.len() <= MAX_VALUE_BYTES).then_some(value)
}

/// Reads a value back. Errors when it is anything but an entry, whole and sound, and this key's where
/// one is expected.
pub(crate) fn decode(value: Bytes, expected: Option<&CacheKey>) -> Result<Entry> {
    if !value.starts_with(ZSTD) {
        return Entry::decode(value, expected);
    }
    // One frame that says its size, so that a bomb ends as an error, not as memory.
    let size = zstd_safe::get_frame_content_size(&value).ok().flatten().unwrap_or(u64::MAX);
    if size > MAX_BYTES as u64 {
        return Err(Error::corrupt("it is too large, or does not say how large it is"));
    }
    let plain = zstd::bulk::decompress(&value, size as usize)
        .map_err(|cause| Error::corrupt("it does not decompress").because(cause))?;
    Entry::decode(plain.into(), expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    #[test]
    fn small_ones_are_plain_json_and_large_ones_compressed() {
        let (small, large) = (entry("/small", b"{\"a\":1}"), entry("/large", &vec![b'7'; 100_000]));
        let values = [&small, &large].map(|entry| encode(entry).unwrap());
        assert!(values[0].starts_with(b"{\"v\":1,") && values[1].starts_with(ZSTD) && values[1].len() < 1_000);
        for (value, entry) in values.iter().zip([&small, &large]) {
            assert_eq!(&decode(value.clone().into(), Some(&entry.key())).unwrap(), entry);
        }
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..12_000_000).map(|_| next()).collect();
        assert!(encode(&entry("/noise", &noise)).is_none());
    }

    #[test]
    fn anything_else_is_an_error() {
        let (one, other) = (entry("/one", &vec![b'7'; 100_000]), entry("/other", b"{}"));
        let value = encode(&one).unwrap();
        assert!(decode(value.clone().into(), Some(&other.key())).is_err(), "another key's");
        let newer = other.encode();
        let newer = [b"{\"v\":2,", &newer[7..]].concat();
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        let mut flipped = value.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let undeclared = zstd::stream::encode_all(&b"{}"[..], 3).unwrap();
        for (what, value, key) in [
            ("cut short", value[..value.len() - 9].to_vec(), one.key()),
            ("flipped", flipped, one.key()),
            ("of a newer version", newer, other.key()),
            ("a bomb", bomb, one.key()),
            ("of unknown size", undeclared, one.key()),
            ("a counter", b"41".to_vec(), one.key()),
            ("nothing", Vec::new(), one.key()),
        ] {
            assert!(decode(value.into(), Some(&key)).is_err(), "{what}");
        }
    }
}
