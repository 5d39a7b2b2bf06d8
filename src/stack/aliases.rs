//! Names and numbers of one resource, as far as this store was told ([`Alias`]).
//!
//! Knows: the log of pairs, and those that came with bundles. Does not know: how a pair is told.
//!
//! They only widen: an invalidation covers what it names under all names and numbers of it, and a body that is stored under one
//! of them is tried for another. So a pair that is missing costs a lifetime at most, and a wrong one a request.

use std::io::Write;

use sha2::{Digest, Sha256};

use super::{Stack, lock};
use crate::alias::{Alias, Aliases, MAX_ALIASES};
use crate::entry::Entry;
use crate::files::{self, Durability, Stamp};
use crate::tag::Scope;
use crate::tier::bundle::BundleTier;

/// The log is written anew above this.
const MAX_LOG_BYTES: u64 = 2 << 20;

/// The pairs as far as they were read.
pub(super) type Known = Option<(Stamp, Aliases)>;

impl Stack {
    /// Takes up what an entry tells of names and numbers.
    pub(super) fn learn_of(&self, entry: &Entry) {
        if entry.parts.method == "GET" {
            self.learn(Alias::taught_by(entry));
        }
    }

    /// Remembers pairs, best effort: what was outdated under one name is so under the others from now on.
    pub fn learn(&self, pairs: Vec<Alias>) {
        if pairs.is_empty() {
            return;
        }
        let mut known = lock(&self.aliases);
        let (stamp, aliases) = known.get_or_insert_with(|| self.read_aliases());
        if pairs.iter().all(|alias| aliases.has(alias)) {
            return;
        }
        // What another process has added meanwhile must not be taken for our own line.
        if *stamp != Stamp::of(&self.aliases_path()) {
            (*stamp, *aliases) = self.read_aliases();
        }
        let new: Vec<Alias> = pairs.into_iter().filter(|alias| aliases.add(alias.clone())).collect();
        if let Err(error) = self.prepare().and_then(|()| self.log_aliases(&new, aliases)) {
            tracing::debug!(%error, "names and numbers are not noted");
        }
        *stamp = Stamp::of(&self.aliases_path());
        drop(known);
        self.widen_cutoffs();
    }

    /// Other paths of the resource at `path`.
    pub fn other_paths(&self, path: &str) -> Vec<String> {
        self.with_aliases(|aliases| aliases.paths(path))
    }

    /// A scope, and the same under other names and numbers.
    pub fn by_all_names(&self, scope: &Scope) -> Vec<Scope> {
        self.with_aliases(|aliases| [vec![scope.clone()], scope.twins(aliases)].concat())
    }

    pub(super) fn aliases_about<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Vec<Alias> {
        self.with_aliases(|aliases| paths.into_iter().flat_map(|path| aliases.about(path)).collect())
    }

    pub(super) fn with_aliases<T>(&self, with: impl FnOnce(&Aliases) -> T) -> T {
        let mut known = lock(&self.aliases);
        with(&known.get_or_insert_with(|| self.read_aliases()).1)
    }

    /// Reads the pairs again if another process has added to them, or another bundle brought its own.
    pub(super) fn look_again_at_aliases(&self, is_another_bundle: bool) {
        if self.forget_old_aliases(is_another_bundle) {
            self.widen_cutoffs();
        }
    }

    /// Whether there were pairs that others have added to; they are read again when they are needed.
    pub(super) fn forget_old_aliases(&self, is_another_bundle: bool) -> bool {
        let mut known = lock(&self.aliases);
        let is_old = |stamp: &Stamp| is_another_bundle || *stamp != Stamp::of(&self.aliases_path());
        let was_old = known.as_ref().is_some_and(|(stamp, _)| is_old(stamp));
        if was_old {
            *known = None;
        }
        was_old
    }

    fn read_aliases(&self) -> (Stamp, Aliases) {
        let stamp = Stamp::of(&self.aliases_path());
        let log = files::read_bounded(&self.aliases_path(), 2 * MAX_LOG_BYTES).ok().flatten().unwrap_or_default();
        let lines = log.split(|byte| *byte == b'\n').filter_map(|line| read_line(std::str::from_utf8(line).ok()?));
        let mut all = Aliases::default();
        for bundle in [&self.bundle, &self.local].into_iter().filter_map(BundleTier::bundle) {
            let brought = bundle.cutoffs().unwrap_or_default();
            brought.aliases().iter().for_each(|alias| _ = all.add(alias.clone()));
        }
        lines.for_each(|alias| _ = all.add(alias));
        (stamp, all)
    }

    fn log_aliases(&self, new: &[Alias], all: &Aliases) -> crate::error::Result<()> {
        let path = self.aliases_path();
        let text = |pairs: &mut dyn Iterator<Item = &Alias>| pairs.map(line).collect::<String>();
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES) {
            let newest = text(&mut all.iter().skip(all.iter().count().saturating_sub(MAX_ALIASES / 2)));
            return files::write_atomic(&path, &self.dir.join("partial"), newest.as_bytes(), Durability::Rename);
        }
        let failed = |cause| crate::error::Error::io("write", &path, cause);
        let mut log = files::open_append(&path).map_err(failed)?;
        log.write_all(text(&mut new.iter()).as_bytes()).map_err(failed)
    }

    pub(super) fn aliases_path(&self) -> std::path::PathBuf {
        self.dir.join("aliases.log")
    }
}

fn line(alias: &Alias) -> String {
    let (name, number) = alias.roots();
    let pair = format!("{name} {number}");
    format!("{pair} {}\n", check_of(&pair))
}

fn read_line(line: &str) -> Option<Alias> {
    let (pair, check) = line.rsplit_once(' ')?;
    let (name, number) = pair.split_once(' ')?;
    (check == check_of(pair)).then(|| Alias::read(name, number)).flatten()
}

/// Against bits that flip and lines that are cut off.
fn check_of(pair: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(pair.as_bytes())[..4])
}
