//! The output directory: result files and the report of the run before.
//!
//! Knows: writing atomically and only inside. Does not know: what results mean.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::output::INDEX_NAME;
use super::report::{Index, QueryReport};
use crate::error::{Error, Result};
use crate::files;
use crate::mask::Masker;

/// The largest report that is read back.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Where results go.
#[derive(Debug)]
pub struct Workspace {
    dir: PathBuf,
    previous: HashMap<String, QueryReport>,
}

impl Workspace {
    /// Opens or creates the directory, and proves that it can be written before anything is asked.
    pub fn open(dir: &Path) -> Result<Self> {
        let advise = |error: Error| error.hint("choose another directory with --output-dir");
        fs::create_dir_all(dir).map_err(|cause| advise(Error::io("create", dir, cause)))?;
        let probe = temporary(dir, 0);
        fs::write(&probe, b"").map_err(|cause| advise(Error::io("write to", dir, cause)))?;
        let _best_effort = fs::remove_file(&probe);
        let bytes = files::read_bounded(&dir.join(INDEX_NAME), MAX_INDEX_BYTES).ok().flatten().unwrap_or_default();
        // Without a readable report of the run before, everything counts as changed.
        let index: Option<Index> = serde_json::from_slice(&bytes).ok().filter(|index: &Index| index.v == 1);
        let previous = index
            .into_iter()
            .flat_map(|index| index.queries)
            .filter_map(|query| Some((query.file.clone()?, query)))
            .collect();
        Ok(Self { dir: dir.to_owned(), previous })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the run before said of a file.
    pub fn previous(&self, file: &str) -> Option<&QueryReport> {
        self.previous.get(file)
    }

    /// Whether a file is there with exactly these bytes.
    pub fn holds(&self, file: &Path, bytes: &[u8]) -> bool {
        let there = files::read_bounded(&self.dir.join(file), bytes.len() as u64);
        matches!(there, Ok(Some(there)) if there == bytes)
    }

    /// Writes a result: the old file or the new one is there at any time, never half of one.
    pub fn write(&self, file: &Path, bytes: &[u8], number: usize) -> Result<()> {
        let target = self.dir.join(file);
        let partial = temporary(&self.dir, number);
        let failed = |cause| Error::io("write", &target, cause);
        fs::write(&partial, bytes).map_err(failed)?;
        let moved = fs::rename(&partial, &target).or_else(|error| {
            if error.kind() != std::io::ErrorKind::NotFound {
                return Err(error);
            }
            fs::create_dir_all(target.parent().unwrap_or(&self.dir))?;
            fs::rename(&partial, &target)
        });
        moved.map_err(|cause| {
            let _best_effort = fs::remove_file(&partial);
            failed(cause)
        })
    }

    /// Removes the result of an earlier run: without an answer there is no file that looks like one.
    pub fn remove(&self, file: &Path) {
        let _absent_is_fine = fs::remove_file(self.dir.join(file));
    }

    /// Writes the report, with credentials masked.
    pub fn write_index(&self, index: &Index, masker: &Masker) -> Result<PathBuf> {
        let mut bytes = serde_json::to_vec_pretty(index).map_err(|cause| {
            Error::new(crate::error::Kind::Internal, "the report does not serialise").because(cause)
        })?;
        bytes.push(b'\n');
        let bytes = masker.document(&bytes).unwrap_or(bytes);
        self.write(Path::new(INDEX_NAME), &bytes, usize::MAX)?;
        Ok(self.dir.join(INDEX_NAME))
    }
}

fn temporary(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!(".octocache-{}-{number}", std::process::id()))
}
