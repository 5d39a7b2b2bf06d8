//! Which entry came last of each question, whoever asked (A20): its body is tried for the next identity.
//!
//! Knows: a table of fixed size, `latest.idx`, in which a question has one of four places. Does not know: who may see what;
//! GitHub says that. What the table says is a guess: the entry is looked up and compared, so a damaged or planted table costs
//! a look-up.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Stack, lock};
use crate::entry::{Entry, EtagRule};
use crate::files;
use crate::key::{CacheKey, KeyParts};
use crate::partition::Partition;

/// Groups of places; 4 MiB with all of them in use.
const SETS: u32 = 16_384;

/// Places of a group. The newest is the first.
const WAYS: usize = 4;

/// A place: the question's tag, the entry's key, and what is left of 64 bytes.
const PLACE_BYTES: usize = 64;
const TAG_BYTES: usize = 16;
const SET_BYTES: usize = PLACE_BYTES * WAYS;

/// A question: where its group is, and what tells it from others there.
struct Question {
    set: u32,
    tag: [u8; TAG_BYTES],
}

impl Question {
    fn of(parts: &KeyParts) -> Self {
        let digest = Sha256::digest(KeyParts { partition: Partition::public(), ..parts.clone() }.key().as_bytes());
        let (mut tag, mut set) = ([0; TAG_BYTES], [0; 4]);
        tag.copy_from_slice(&digest[..TAG_BYTES]);
        set.copy_from_slice(&digest[TAG_BYTES..TAG_BYTES + 4]);
        Self { set: u32::from_le_bytes(set) % SETS, tag }
    }

    fn at(&self) -> SeekFrom {
        SeekFrom::Start(u64::from(self.set) * SET_BYTES as u64)
    }

    fn key_in(&self, set: &[u8; SET_BYTES]) -> Option<CacheKey> {
        let place = set.chunks_exact(PLACE_BYTES).find(|place| place.starts_with(&self.tag))?;
        CacheKey::read(&place[TAG_BYTES..TAG_BYTES + 32])
    }

    /// The group with this question at its first place, in place of itself or of the oldest.
    fn put_into(&self, set: &mut [u8; SET_BYTES], key: &CacheKey) {
        let old = set.chunks_exact(PLACE_BYTES).position(|place| place.starts_with(&self.tag)).unwrap_or(WAYS - 1);
        set.copy_within(..old * PLACE_BYTES, PLACE_BYTES);
        let place = &mut set[..PLACE_BYTES];
        place.fill(0);
        place[..TAG_BYTES].copy_from_slice(&self.tag);
        place[TAG_BYTES..TAG_BYTES + 32].copy_from_slice(key.as_bytes());
    }
}

impl Stack {
    /// The key of the entry that came last to the question of `parts`.
    pub(super) fn latest(&self, parts: &KeyParts) -> Option<CacheKey> {
        let mut set = [0; SET_BYTES];
        let question = Question::of(parts);
        let mut file = File::open(self.latest_path()).ok()?;
        file.seek(question.at()).ok()?;
        file.read_exact(&mut set).ok()?;
        question.key_in(&set)
    }

    /// The entry of another partition that came last to the question of `parts`.
    pub fn latest_of_another(&self, parts: &KeyParts) -> Option<Entry> {
        let entry = self.look_up(&self.latest(parts)?)?.entry;
        let same = KeyParts { partition: entry.parts.partition.clone(), ..parts.clone() };
        (entry.parts == same && entry.parts.partition != parts.partition)
            .then(|| std::sync::Arc::unwrap_or_clone(entry))
    }

    /// Notes that `entry` came last, if it is one that may be tried for others. Best effort.
    pub(super) fn note_latest(&self, entry: &Entry) {
        if entry.etag_rule != Some(EtagRule::Github) || entry.status != 200 {
            return;
        }
        let _one_at_a_time = lock(&self.noting);
        if let Err(error) = write(&self.latest_path(), &Question::of(&entry.parts), &entry.key()) {
            tracing::debug!(%error, "which entry came last is not noted");
        }
    }

    pub(super) fn latest_path(&self) -> std::path::PathBuf {
        self.dir.join("latest.idx")
    }
}

/// Groups of other processes may be lost where both write at once: then a body is fetched that might have been tried.
fn write(path: &Path, question: &Question, key: &CacheKey) -> std::io::Result<()> {
    let mut file = files::open_table(path)?;
    let mut set = [0; SET_BYTES];
    file.seek(question.at())?;
    // Beyond the end there is nothing yet.
    let mut filled = 0;
    while filled < SET_BYTES {
        match file.read(&mut set[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    if question.key_in(&set).as_ref() == Some(key) {
        return Ok(());
    }
    question.put_into(&mut set, key);
    file.seek(question.at())?;
    file.write_all(&set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::entry::tests::entry;

    fn of(partition: usize, path: &str) -> Entry {
        let mut entry = entry(path, b"[1]");
        entry.parts.partition = Partition::named(&format!("p{partition}")).unwrap();
        entry.etag_rule = Some(EtagRule::Github);
        entry
    }

    #[test]
    fn the_last_of_any_number_of_partitions_is_found_by_what_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let stack = Stack::new(dir.path(), Clock::manual(Timestamp::from_secs(1_700_000_100)));
        let paths: Vec<String> = (0..50).map(|n| format!("/repos/o/r{n}")).collect();
        for path in &paths {
            for partition in 0..3 {
                assert!(stack.put(&of(partition, path)));
            }
        }
        // As many that have not asked for the first one, and more.
        (3..700).for_each(|partition| assert!(stack.put(&of(partition, "/other"))));
        let asked = |partition, path: &str| stack.latest_of_another(&of(partition, path).parts);
        for path in &paths {
            assert_eq!(asked(5_000, path).unwrap().parts.partition.as_str(), "name:p2");
        }
        assert!(asked(2, &paths[0]).is_none(), "its own is no other's");
        assert!(asked(1, "/repos/o/unknown").is_none());
        // What is not what the table says it is, is none; the table itself may hold anything.
        let table = stack.latest_path();
        let size = std::fs::metadata(&table).unwrap().len();
        assert!(size <= u64::from(SETS) * SET_BYTES as u64);
        std::fs::write(&table, vec![0xab; size as usize]).unwrap();
        assert!(asked(5_000, &paths[0]).is_none());
        std::fs::write(&table, b"cut").unwrap();
        assert!(asked(5_000, &paths[0]).is_none());
        stack.put(&of(9, &paths[0]));
        assert_eq!(asked(5_000, &paths[0]).unwrap().parts.partition.as_str(), "name:p9");
    }

    #[test]
    fn a_group_keeps_the_newest_questions() {
        let mut set = [0; SET_BYTES];
        let question = |n: u8| Question { set: 0, tag: [n; TAG_BYTES] };
        let key = |n: u8| CacheKey::read(&[n; 32]).unwrap();
        for n in 1..=6 {
            question(n).put_into(&mut set, &key(n));
        }
        question(4).put_into(&mut set, &key(40));
        question(7).put_into(&mut set, &key(7));
        let found: Vec<u8> = (1..=7).filter(|n| question(*n).key_in(&set).is_some()).collect();
        assert_eq!((found, question(4).key_in(&set)), (vec![4, 5, 6, 7], Some(key(40))));
    }
}
