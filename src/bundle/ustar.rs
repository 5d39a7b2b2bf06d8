//! The one tar header that we write, and so the only one that we read.
//!
//! Knows: POSIX ustar for a regular file with fixed metadata. Does not know: any other kind of
//! member; links, devices, sparse files and extensions never equal what we would have written.

use crate::key::CacheKey;

/// A header and every member's padding are multiples of this.
pub(super) const BLOCK: usize = 512;

/// Digits of the key in a name: as many as the index holds. Digests do not compress, so each
/// digit costs; the whole key is in the envelope, from which it is derived again on each read.
const NAME_DIGITS: usize = 32;

/// The header of the envelope of `key`, `size` bytes long, written in `generation`.
pub(super) fn header(key: &CacheKey, generation: u32, size: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, format!("v1/{generation:04}/{}.json", &key.to_string()[..NAME_DIGITS]).as_bytes());
    put(&mut block, 100, b"0000644\0"); // mode
    put(&mut block, 108, b"0000000\0"); // uid
    put(&mut block, 116, b"0000000\0"); // gid
    put(&mut block, 124, format!("{size:011o}\0").as_bytes());
    put(&mut block, 136, b"00000000000\0"); // mtime
    put(&mut block, 148, b"        "); // checksum, counted as spaces
    block[156] = b'0'; // a regular file
    put(&mut block, 257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Whether `block` is exactly the header that we write for `key` and `size`, in any generation.
pub(super) fn is_ours(block: &[u8], key: &CacheKey, size: usize) -> bool {
    let generation = block.get(3..7).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    generation.is_some_and(|generation| block == header(key, generation, size))
}

/// What a member of `size` bytes takes: header, content, padding.
pub(super) fn member_len(size: usize) -> usize {
    BLOCK + size.next_multiple_of(BLOCK)
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_header_is_ours() {
        let key = CacheKey::parse(&"ab".repeat(32)).unwrap();
        let good = header(&key, 7, 1_234);
        assert!(is_ours(&good, &key, 1_234));
        assert!(!is_ours(&good, &key, 1_235));
        for at in 0..BLOCK {
            let mut bad = good;
            bad[at] ^= 1;
            // Another generation needs another checksum: one flipped bit is never enough.
            assert!(!is_ours(&bad, &key, 1_234), "byte {at}");
        }
        assert!(!is_ours(&good[..100], &key, 1_234));
    }
}
