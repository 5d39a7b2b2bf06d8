//! A copy as it travels between peers: what is said about it, small enough to be announced, and its
//! body as a sealed block that is asked for by its address.
//!
//! Knows: both forms, and that they must fit each other. Does not know: who sends them.

use bytes::Bytes;
use zstd::zstd_safe;

use crate::cid::Cid;
use crate::entry::{Entry, MAX_BYTES};
use crate::error::{Error, Result};
use crate::key::CacheKey;
use crate::partition::Partition;
use crate::share::seal::Group;

/// Blocks above this are not shared.
pub(super) const MAX_BLOCK_BYTES: usize = 4 << 20;

/// The largest that is said about a body.
pub(super) const MAX_HEAD_BYTES: usize = 8 << 10;

/// A name that only members can make of a key.
pub(super) type Name = [u8; 16];

/// An entry, ready to travel.
#[derive(Debug, Clone)]
pub(super) struct Parted {
    /// The first half of its envelope.
    pub(super) head: Bytes,
    /// The second half, compressed and sealed.
    pub(super) block: Bytes,
    /// The block's address.
    pub(super) cid: Cid,
}

/// Parts an entry; `None` when it is too large to be shared.
pub(super) fn part(entry: &Entry, group: &Group) -> Option<Parted> {
    let (head, tail) = entry.halves();
    let packed = zstd::bulk::compress(&tail, 3).ok()?;
    let block = Bytes::from(group.seal(entry.parts.partition.as_str(), &packed).ok()?);
    let fits = head.len() <= MAX_HEAD_BYTES && block.len() <= MAX_BLOCK_BYTES;
    fits.then(|| Parted { head, cid: Cid::of(&block), block })
}

/// Puts an entry together again. Errors unless block and head are this key's, whole and sound.
pub(super) fn join(
    head: &[u8],
    block: &[u8],
    cid: &Cid,
    key: &CacheKey,
    partition: &Partition,
    group: &Group,
) -> Result<Entry> {
    if Cid::of(block) != *cid {
        return Err(Error::corrupt("a block does not have its digest"));
    }
    let packed = group.open(partition.as_str(), block)?;
    let size = zstd_safe::get_frame_content_size(&packed).ok().flatten().unwrap_or(u64::MAX);
    if size > MAX_BYTES as u64 {
        return Err(Error::corrupt("a block is too large, or does not say how large it is"));
    }
    let tail = zstd::bulk::decompress(&packed, size as usize)
        .map_err(|cause| Error::corrupt("a block does not decompress").because(cause))?;
    Entry::decode(Bytes::from([head, &tail].concat()), Some(key))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::entry::tests::entry;
    use crate::token::Secret;

    pub(in crate::share) fn group() -> Group {
        Group::read(&Secret::new(Group::generate().unwrap())).unwrap()
    }

    #[test]
    fn an_entry_is_parted_and_joined_and_its_body_is_one_block_however_often_it_is_confirmed() {
        let group = group();
        for body in [&b"{\"a\":1}"[..], b"\x00\xff not json", &vec![b'7'; 100_000]] {
            let one = entry("/repos/o/r", body);
            let parted = part(&one, &group).unwrap();
            let join = |head: &[u8], block: &[u8], cid: &Cid, key: &CacheKey| {
                join(head, block, cid, key, &one.parts.partition, &group)
            };
            assert_eq!(join(&parted.head, &parted.block, &parted.cid, &one.key()).unwrap(), one);
            let later = Entry { validated_at: one.validated_at.plus(60), ..one.clone() };
            let confirmed = part(&later, &group).unwrap();
            assert_eq!(confirmed.cid, parted.cid);
            assert_eq!(join(&confirmed.head, &parted.block, &parted.cid, &one.key()).unwrap(), later);
            assert_eq!(Entry::peek_half(&confirmed.head).unwrap().validated_at, later.validated_at);
            // Nothing else fits.
            let other = entry("/repos/o/other", b"{\"b\":2}");
            let others = part(&other, &group).unwrap();
            assert!(join(&parted.head, &others.block, &others.cid, &one.key()).is_err(), "another body");
            assert!(join(&parted.head, &others.block, &parted.cid, &one.key()).is_err(), "another block");
            assert!(join(&others.head, &parted.block, &parted.cid, &one.key()).is_err(), "another head");
            let text = String::from_utf8(parted.head.to_vec()).unwrap();
            for forged in [text.replace("\"status\":200", "\"status\":404"), text.replace("2023", "2033")] {
                assert!(join(forged.as_bytes(), &parted.block, &parted.cid, &one.key()).is_err());
            }
        }
        let noise: Vec<u8> = (0..8_000_000_u64).map(|n| (n.wrapping_mul(n) >> 7) as u8 ^ (n >> 3) as u8).collect();
        let large = part(&entry("/large", &noise), &group);
        assert!(large.is_none_or(|parted| parted.block.len() <= MAX_BLOCK_BYTES));
    }
}
