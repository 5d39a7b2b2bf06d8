//! The output directory: result files and the report of the run before.
//!
//! Knows: writing atomically and only inside, through no link. Does not know: what results mean.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::output::INDEX_NAME;
use super::report::{Index, QueryReport};
use crate::error::{Error, Result};
use crate::files::Tree;
use crate::mask::Masker;

/// The largest report that is read back.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Where results go.
#[derive(Debug)]
pub struct Workspace {
    tree: Tree,
    previous: HashMap<String, QueryReport>,
}

impl Workspace {
    /// Opens or creates the directory, and proves that it can be written before anything is asked.
    pub fn open(dir: &Path) -> Result<Self> {
        let advise = |error: Error| error.hint("choose another directory with --output-dir");
        fs::create_dir_all(dir).map_err(|cause| advise(Error::io("create", dir, cause)))?;
        let tree = Tree::open(dir).map_err(|cause| advise(Error::io("open", dir, cause)))?;
        tree.probe().map_err(|cause| advise(Error::io("write to", dir, cause)))?;
        let bytes = tree.read(Path::new(INDEX_NAME), MAX_INDEX_BYTES).ok().flatten().unwrap_or_default();
        // Without a readable report of the run before, everything counts as changed.
        let index: Option<Index> = serde_json::from_slice(&bytes).ok().filter(|index: &Index| index.v == 1);
        let previous = index
            .into_iter()
            .flat_map(|index| index.queries)
            .filter_map(|query| Some((query.file.clone()?, query)))
            .collect();
        Ok(Self { tree, previous })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.tree.path()
    }

    /// What the run before said of a file.
    pub fn previous(&self, file: &str) -> Option<&QueryReport> {
        self.previous.get(file)
    }

    /// Whether a file is there with exactly these bytes.
    pub fn holds(&self, file: &Path, bytes: &[u8]) -> bool {
        let there = self.tree.read(file, bytes.len() as u64);
        matches!(there, Ok(Some(there)) if there == bytes)
    }

    /// Writes a result: the old file or the new one is there at any time, never half of one.
    pub fn write(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        self.tree.write(file, bytes).map_err(|cause| Error::io("write", &self.dir().join(file), cause))
    }

    /// Removes the result of an earlier run: without an answer there is no file that looks like one.
    pub fn remove(&self, file: &Path) {
        let _absent_is_fine = self.tree.remove(file);
    }

    /// Writes the report, with credentials masked.
    pub fn write_index(&self, index: &Index, masker: &Masker) -> Result<PathBuf> {
        let mut bytes = serde_json::to_vec_pretty(index).map_err(|cause| {
            Error::new(crate::error::Kind::Internal, "the report does not serialise").because(cause)
        })?;
        bytes.push(b'\n');
        let bytes = masker.document(&bytes).unwrap_or(bytes);
        self.write(Path::new(INDEX_NAME), &bytes)?;
        Ok(self.dir().join(INDEX_NAME))
    }
}
