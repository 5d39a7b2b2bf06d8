//! The names of keys in Redis.
//!
//! Knows: that what is used together lies in one hash slot, and that no name is long. Does not know:
//! values.
//!
//! ```text
//! octocache:v1:{<partition>}:e:<key>    an entry, as in `value`; expires
//! octocache:v1:{<partition>}:c:<key>    who asks GitHub for it just now; expires in seconds
//! octocache:v1:{<partition>}:t:<tag>    keys of the entries about a repository, an owner, anything else
//! octocache:v1:{<partition>}:tags       all such tags
//! octocache:v1:partitions               all partitions' digests
//! octocache:v1:cutoffs                  what is outdated: a hash of `rev` and `list`
//! octocache:v1:{peers:<group>}:<hour>   where peers are; expires
//! ```

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::key::CacheKey;
use crate::partition::Partition;

/// What all names begin with; another version of any format begins otherwise.
const PREFIX: &str = "octocache:v1";

/// A tag longer than this stands there by its digest.
const MAX_TAG_BYTES: usize = 200;

/// The set of partitions.
pub(super) const PARTITIONS: &str = "octocache:v1:partitions";

/// The hash of what is outdated.
pub(super) const CUTOFFS: &str = "octocache:v1:cutoffs";

/// Of entries that are about no repository and no owner.
pub(super) const OTHER: &str = "other";

/// The addresses that peers of a group left in one hour, a line each.
#[cfg(feature = "p2p")]
pub(super) fn peers(group: &str, hour: i64) -> String {
    format!("{PREFIX}:{{peers:{group}}}:{hour}")
}

/// The names of one partition: all in one hash slot of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Space {
    digest: String,
}

impl Space {
    pub(super) fn of(partition: &Partition) -> Self {
        Self { digest: HEXLOWER.encode(&Sha256::digest(partition.as_str())[..8]) }
    }

    /// The space of a partition whose digest is known; `None` when it cannot be one.
    pub(super) fn read_back(digest: &str) -> Option<Self> {
        let fits = digest.len() == 16 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Self { digest: digest.to_owned() })
    }

    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    pub(super) fn entry(&self, key: &CacheKey) -> String {
        format!("{PREFIX}:{{{}}}:e:{key}", self.digest)
    }

    /// The same for a key that stands in an index.
    pub(super) fn entry_named(&self, member: &str) -> Option<String> {
        CacheKey::parse(member).map(|key| self.entry(&key))
    }

    pub(super) fn claim(&self, key: &CacheKey) -> String {
        format!("{PREFIX}:{{{}}}:c:{key}", self.digest)
    }

    pub(super) fn tag(&self, tag: &str) -> String {
        let short = if tag.len() > MAX_TAG_BYTES { &HEXLOWER.encode(&Sha256::digest(tag)) } else { tag };
        format!("{PREFIX}:{{{}}}:t:{short}", self.digest)
    }

    pub(super) fn tags(&self) -> String {
        format!("{PREFIX}:{{{}}}:tags", self.digest)
    }
}

/// The tags of an entry at `path`: its repository and owner, or [`OTHER`].
pub(super) fn tags_of(path: &str) -> Vec<String> {
    let segments: Vec<String> = path.split('/').skip(1).take(3).map(str::to_ascii_lowercase).collect();
    match segments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["repos" | "networks", owner, name] => vec![format!("repo:{owner}/{name}"), format!("owner:{owner}")],
        ["orgs" | "users", owner, ..] => vec![format!("owner:{owner}")],
        _ => vec![OTHER.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    #[test]
    fn names_are_short_and_share_a_slot() {
        let space = Space::of(&Partition::public());
        let key = entry("/x", b"{}").key();
        let long = format!("repo:{}/{}", "o".repeat(400), "r".repeat(400));
        for name in [space.entry(&key), space.claim(&key), space.tag("repo:o/r"), space.tag(&long), space.tags()] {
            assert!(name.len() < 512 && name.starts_with(&format!("octocache:v1:{{{}}}:", space.digest())), "{name}");
        }
        assert_eq!(Space::read_back(space.digest()), Some(space.clone()));
        assert!(Space::read_back("../../../../etc").is_none() && space.entry_named("*").is_none());
    }

    #[test]
    fn entries_are_listed_by_repository_and_owner() {
        assert_eq!(tags_of("/repos/Acme/App/issues/7"), ["repo:acme/app", "owner:acme"]);
        assert_eq!(tags_of("/orgs/Acme/repos"), ["owner:acme"]);
        assert_eq!(tags_of("/search/issues"), [OTHER]);
    }
}
