//! Which bodies of deliveries have removed something, across restarts.
//!
//! Knows: the file, one SHA-256 a line. Does not know: deliveries.

use std::io::Write;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use crate::error::{Error, Result};
use crate::files::{self, Durability};

/// The file in the store.
const NAME: &str = "removals.log";

/// Digests that are kept; with twice as many, the file is written anew.
const MAX_KEPT: usize = 20_000;

/// A line: 64 digits and its end.
const LINE_BYTES: u64 = 65;

/// The file never has more than this: twice what is kept, and what one note adds.
const MAX_BYTES: u64 = 4 * MAX_KEPT as u64 * LINE_BYTES;

/// Digests of bodies that removed something, oldest first.
#[derive(Debug)]
pub(super) struct Removals {
    path: PathBuf,
}

impl Removals {
    pub(super) fn in_store(store: &Path) -> Self {
        Self { path: store.join(NAME) }
    }

    /// Those of earlier runs. Lines that are none are left out.
    pub(super) fn read(&self) -> Result<Vec<[u8; 32]>> {
        let text = files::read_bounded(&self.path, MAX_BYTES)?.unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        let mut all: Vec<[u8; 32]> = lines.filter_map(|line| HEXLOWER.decode(line).ok()?.try_into().ok()).collect();
        if all.len() > MAX_KEPT {
            all.drain(..all.len() - MAX_KEPT);
            let dir = self.path.parent().unwrap_or(Path::new("."));
            files::write_atomic(&self.path, dir, lines_of(&all).as_bytes(), Durability::Synced)?;
        }
        Ok(all)
    }

    /// Adds some, durably. They begin with a line end: a kill may have left half a line.
    pub(super) fn append(&self, digests: &[[u8; 32]]) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        let failed = |cause| Error::io("write", &self.path, cause);
        let mut file = files::open_append(&self.path).map_err(failed)?;
        let text = format!("\n{}", lines_of(digests));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > 2 * MAX_KEPT as u64 * LINE_BYTES {
            self.read()?;
        }
        Ok(())
    }
}

fn lines_of(digests: &[[u8; 32]]) -> String {
    digests.iter().map(|digest| HEXLOWER.encode(digest) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_outlive_the_process_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let removals = Removals::in_store(dir.path());
        assert!(removals.read().unwrap().is_empty());
        removals.append(&[[1; 32], [2; 32]]).unwrap();
        std::fs::OpenOptions::new().append(true).open(&removals.path).unwrap().write_all(b"half a li").unwrap();
        removals.append(&[[3; 32]]).unwrap();
        assert_eq!(removals.read().unwrap(), [[1; 32], [2; 32], [3; 32]]);
        let many: Vec<[u8; 32]> = (0..MAX_KEPT).map(|n| [n as u8; 32]).collect();
        removals.append(&many).unwrap();
        assert_eq!(removals.read().unwrap(), many);
        assert_eq!(removals.path.metadata().unwrap().len(), MAX_KEPT as u64 * LINE_BYTES);
        // A process that is never started anew keeps the bound, too.
        for _ in 0..3 {
            removals.append(&many).unwrap();
            assert!(removals.path.metadata().unwrap().len() <= 2 * MAX_KEPT as u64 * LINE_BYTES);
        }
        assert_eq!(removals.read().unwrap(), many);
    }
}
