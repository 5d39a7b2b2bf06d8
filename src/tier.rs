//! The contract of a place that keeps stored responses on this machine.
//!
//! Knows: look up, put, remove. Does not know: freshness; that is decided once, above all
//! tiers, so that no tier can make stale look fresh. A tier hands out only what passed
//! [`Entry::decode`]: key and digests verified.

mod bodies;
pub mod bundle;
pub mod disk;
pub mod memory;

use crate::entry::Entry;
use crate::error::Result;
use crate::key::CacheKey;

/// Which tier answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierName {
    /// This process's memory.
    Memory,
    /// Loose files.
    Disk,
    /// The bundle, read in place.
    Bundle,
    /// One that a library caller added.
    Added(&'static str),
    /// Redis, shared by many machines.
    Redis,
    /// Another machine that takes part.
    Peer,
    /// Blocks that an IPFS node keeps.
    Ipfs,
}

impl TierName {
    /// The word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            TierName::Memory => "memory",
            TierName::Disk => "disk",
            TierName::Bundle => "bundle",
            TierName::Added(name) => name,
            TierName::Redis => "redis",
            TierName::Peer => "peer",
            TierName::Ipfs => "ipfs",
        }
    }
}

impl serde::Serialize for TierName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A tier that can be read. Errors mean "skip this tier for this request"; the caller logs them.
pub trait Tier: Send + Sync + std::fmt::Debug {
    /// Its name.
    fn name(&self) -> TierName;

    /// The entry under `key`, verified; never touches the network.
    fn look_up(&self, key: &CacheKey) -> Result<Option<Entry>>;
}

/// A tier that can be written.
pub trait WritableTier: Tier {
    /// Stores an entry under its own key, replacing what was there.
    fn put(&self, entry: &Entry) -> Result<()>;

    /// Removes the entry under `key`, if any.
    fn remove(&self, key: &CacheKey) -> Result<()>;
}
