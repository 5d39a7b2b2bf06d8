//! The partitions that this store has seen, so that one's bodies can be tried for another (A20).
//!
//! Knows: a short list of names, for stores and bundles in which it is not noted who asked a question last (`latest`). Does not know: who may see what; GitHub says that.

use std::io::Write;

use super::{Stack, lock};
use crate::files::{self, Durability};
use crate::partition::Partition;

/// The largest list that is read.
const MAX_LIST_BYTES: u64 = 64 << 10;

/// Partitions that this process remembers to have noted.
const MAX_NOTED: usize = 4_096;

/// Partitions that are tried for another: the ones that came last.
const MAX_OTHERS: usize = 16;

impl Stack {
    /// Other partitions of this store, the latest first.
    pub fn others(&self, partition: &Partition) -> Vec<Partition> {
        let all = self.read_partitions();
        all.into_iter().rev().filter(|other| other != partition).take(MAX_OTHERS).collect()
    }

    /// Notes that `partition` has entries here. Best effort.
    pub(super) fn note_partition(&self, partition: &Partition) {
        let mut noted = lock(&self.noted);
        if noted.contains(partition) {
            return;
        }
        if noted.len() >= MAX_NOTED {
            noted.clear();
        }
        noted.insert(partition.clone());
        let mut known = self.read_partitions();
        if known.contains(partition) {
            return;
        }
        let line = format!("{partition}\n");
        let path = self.partitions_path();
        let is_full = std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= MAX_LIST_BYTES);
        let _best_effort = if is_full {
            // The oldest are tried least.
            known.drain(..known.len().saturating_sub(MAX_OTHERS));
            let lines = known.iter().map(|known| format!("{known}\n")).chain([line]).collect::<String>();
            files::write_atomic(&path, &self.dir.join("partial"), lines.as_bytes(), Durability::Rename)
                .map_err(std::io::Error::other)
        } else {
            files::open_append(&path).and_then(|mut list| list.write_all(line.as_bytes()))
        };
    }

    fn read_partitions(&self) -> Vec<Partition> {
        let bytes = files::read_bounded(&self.partitions_path(), MAX_LIST_BYTES * 2).ok().flatten().unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        lines.filter_map(Partition::read_back).collect()
    }

    pub(super) fn partitions_path(&self) -> std::path::PathBuf {
        self.dir.join("partitions.log")
    }
}
