//! What the store holds, with its times and last use, for who decides about all of it.
//!
//! Knows: reading heads. Does not know: what is decided.

use std::collections::HashSet;
use std::time::SystemTime;

use super::Stack;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::key::KeyParts;
use crate::tier::disk::Peeked;

/// An entry, without its body.
#[derive(Debug, Clone)]
pub struct Held {
    /// What selects it.
    pub parts: KeyParts,
    /// For a later page: the path that began its listing.
    pub listing: Option<String>,
    /// When GitHub last said that it is current.
    pub validated_at: Timestamp,
    /// When it was last used, to the day; a new entry counts as used.
    pub used_at: Timestamp,
}

impl Stack {
    /// Everything that is stored; a loose entry hides its bundled twin.
    pub fn inventory(&self) -> Result<Vec<Held>> {
        let mut held = Vec::new();
        let mut hidden: HashSet<[u8; 16]> = HashSet::new();
        for key in self.disk.keys() {
            let Some(Peeked { head, modified, .. }) = self.disk.peek(&key) else { continue };
            hidden.extend(key.as_bytes().first_chunk());
            let used = modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            let used_at = used.map_or(head.fetched_at, |at| Timestamp::from_secs(at.as_secs() as i64));
            held.push(Held {
                parts: head.parts,
                listing: head.listing,
                validated_at: head.validated_at,
                used_at: used_at.max(head.fetched_at),
            });
        }
        let used_days = self.used_days();
        for tier in [&self.bundle, &self.local] {
            let Some(bundle) = tier.bundle() else { continue };
            let freshened = crate::tier::bundle::Freshened::read(tier.log());
            bundle.for_each(|record, entry| {
                if !hidden.insert(record.key) {
                    return;
                }
                let day = used_days.get(&record.key).copied().unwrap_or(0).max(record.used_day);
                let noted = freshened.validated_at(&record).map(|secs| Timestamp::from_secs(i64::from(secs)));
                held.push(Held {
                    parts: entry.parts,
                    listing: entry.listing,
                    validated_at: entry.validated_at.max(noted.unwrap_or_default()),
                    used_at: Timestamp::from_secs(i64::from(day) * 86_400).max(entry.fetched_at),
                });
            })?;
        }
        Ok(held)
    }
}
