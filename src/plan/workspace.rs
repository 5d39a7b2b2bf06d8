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
    /// Where the store lies in it, if it does: no result is written there, since it would be read back as an entry.
    store: Option<PathBuf>,
    previous: HashMap<String, QueryReport>,
}

impl Workspace {
    /// Opens or creates the directory, and proves that it can be written before anything is asked. `store` is the
    /// directory of the store, which is no place for results.
    pub fn open(dir: &Path, store: &Path) -> Result<Self> {
        let advise = |error: Error| error.hint("choose another directory with --output-dir");
        let (real_dir, real_store) = (real(dir), real(store));
        if below(&real_store, &real_dir).is_some() {
            return Err(advise(Error::usage(format!("{} is in the store", dir.display()))));
        }
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
        Ok(Self { tree, store: below(&real_dir, &real_store), previous })
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
        if self.is_of_store(file) {
            let text = format!("{} would lie in the store", self.dir().join(file).display());
            return Err(Error::usage(text).hint("name another `output`"));
        }
        self.tree.write(file, bytes).map_err(|cause| Error::io("write", &self.dir().join(file), cause))
    }

    /// Removes the result of an earlier run: without an answer there is no file that looks like one.
    pub fn remove(&self, file: &Path) {
        if !self.is_of_store(file) {
            let _absent_is_fine = self.tree.remove(file);
        }
    }

    fn is_of_store(&self, file: &Path) -> bool {
        self.store.as_ref().is_some_and(|store| below(store, file).is_some())
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

/// What of `path` is below `dir`; `None` if it does not lie there. Case makes no difference, since to some file
/// systems it makes none.
fn below(dir: &Path, path: &Path) -> Option<PathBuf> {
    let mut rest = path.components();
    let same =
        |a: std::path::Component<'_>, b: std::path::Component<'_>| a.as_os_str().eq_ignore_ascii_case(b.as_os_str());
    dir.components().all(|part| rest.next().is_some_and(|other| same(part, other))).then(|| rest.as_path().to_owned())
}

/// A path without links; what is not there yet is below the part that is.
fn real(path: &Path) -> PathBuf {
    let known = path.ancestors().find_map(|part| {
        let part_or_here = if part.as_os_str().is_empty() { Path::new(".") } else { part };
        Some((part, part_or_here.canonicalize().ok()?))
    });
    match known {
        Some((part, real)) => real.join(path.strip_prefix(part).unwrap_or(path)),
        None => path.to_owned(),
    }
}
