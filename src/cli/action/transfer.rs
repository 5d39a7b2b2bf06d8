//! The bundle on its way between the workspace and the store.
//!
//! actions/cache restores and saves a file of the workspace: its path is part of what an entry is found by, and
//! only a path relative to the workspace is the same on every runner. The store itself lies in `RUNNER_TEMP`,
//! since a checkout can bring any file: what stands in the workspace is read only if actions/cache has just
//! restored it.
//!
//! Knows: both places, and which file may be read. Does not know: what is in a bundle.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Step, announce};
use crate::actions::annotation;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::{self, Durability};
use crate::plan::Plan;
use crate::stack::ownership::{self, Origin};
use crate::stack::{BUNDLE_NAME, Saved, Stack};

/// The stores of a job, in `RUNNER_TEMP`.
const STORES: &str = "octocache-store";

/// Where the files of a store are in the workspace, the bundle first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Transfer {
    pub(super) store: PathBuf,
    files: Vec<PathBuf>,
}

impl Step<'_> {
    /// Returns the directory of this job's stores, outside the workspace.
    pub(super) fn stores(&self) -> Result<PathBuf> {
        let temp = self.environment.get("RUNNER_TEMP").ok_or_else(|| Error::usage("RUNNER_TEMP is not set"))?;
        Ok(Path::new(temp).join(STORES))
    }

    /// Puts the store of this view in force: one for each prefix and bundle, so that a later use in the job finds what an
    /// earlier one stored, and no use finds what another identity stored.
    pub(super) fn locate(&self, mut config: Config) -> Result<Config> {
        let name = Sha256::new()
            .chain_update(self.prefix(&config))
            .chain_update(self.bundle()?.as_os_str().as_encoded_bytes());
        config.cache_dir = self.stores()?.join(&HEXLOWER.encode(&name.finalize())[..16]);
        Ok(config)
    }

    /// Returns the input `bundle`, checked.
    pub(super) fn bundle(&self) -> Result<&Path> {
        let bundle = &self.inputs.bundle;
        let refused = || Error::usage(format!("input `bundle`: {} cannot be used", bundle.display()));
        let dir = bundle.parent().filter(|dir| !dir.as_os_str().is_empty());
        if bundle.file_name().is_none_or(|name| name != BUNDLE_NAME) || dir.is_none() {
            return Err(refused().hint(format!(
                "name a file called {BUNDLE_NAME} in a directory of its own, such as .cache/github/{BUNDLE_NAME}"
            )));
        }
        if bundle.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(refused().hint("name a path without `..`; actions/cache takes no other"));
        }
        match self.link_in(bundle) {
            Some(link) => Err(refused().because(format!("{} is a symbolic link", link.display()))),
            None => Ok(bundle),
        }
    }

    /// Returns what a path within the workspace goes through that is a symbolic link: a checkout can bring those.
    fn link_in(&self, path: &Path) -> Option<PathBuf> {
        let within = self.within_workspace(path)?;
        let all: Vec<&Path> = within.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
        let root = path.ancestors().nth(all.len())?;
        let is_link = |part: &PathBuf| fs::symlink_metadata(part).is_ok_and(|meta| meta.is_symlink());
        all.into_iter().rev().map(|part| root.join(part)).find(is_link)
    }

    fn within_workspace<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        match self.environment.get("GITHUB_WORKSPACE") {
            _ if path.is_relative() => Some(path),
            Some(workspace) => path.strip_prefix(workspace).ok(),
            None => None,
        }
    }

    /// Whether a checkout brings nothing to `dir`: the workflow names a place outside the workspace.
    fn is_outside(&self, dir: &Path) -> bool {
        let workspace = Path::new(self.environment.get("GITHUB_WORKSPACE").unwrap_or("."));
        match (fs::canonicalize(dir), fs::canonicalize(workspace)) {
            (Ok(dir), Ok(workspace)) => !dir.starts_with(workspace),
            _ => false,
        }
    }

    /// Returns the files of this view: the bundle and, where peers share, whom a run has met.
    pub(super) fn transfer(&self, config: &Config, plan: Option<&Plan>) -> Result<Transfer> {
        let bundle = self.bundle()?;
        let met = config.met_beside(plan, bundle);
        Ok(Transfer { store: config.cache_dir.clone(), files: std::iter::once(bundle.to_owned()).chain(met).collect() })
    }

    /// Takes what actions/cache has restored into the store, unless an earlier use in this job has filled it.
    pub(super) fn take_in(&self, transfer: &Transfer) -> Result<()> {
        let store = &transfer.store;
        files::create_private_dir(store).map_err(|cause| Error::io("create", store, cause))?;
        for dir in [store.parent().unwrap_or(store), store] {
            ownership::check(dir, Origin::Found)
                .map_err(|unfit| Error::usage(format!("the store {} is not used: {unfit}", dir.display())))?;
        }
        let Some(bundle) = transfer.files.first().filter(|_| !transfer.has_bundle()) else { return Ok(()) };
        let dir = bundle.parent().unwrap_or(bundle);
        let is_restored = if self.is_outside(dir) {
            ownership::check(dir, Origin::Named).is_ok()
        } else {
            self.environment.get("OCTOCACHE_RESTORED").is_some()
        };
        if dir.join("v1").exists() || (!is_restored && bundle.exists()) {
            let text = format!("what {} holds is not used: the store is in RUNNER_TEMP", dir.display());
            announce(&annotation("notice", "octocache", &text));
        }
        if !is_restored || self.link_in(bundle).is_some() {
            return Ok(());
        }
        let adopted =
            if bundle.exists() { Stack::new(store, self.context.clock.clone()).adopt(bundle) } else { Ok(()) };
        adopted.unwrap_or_else(|error| {
            announce(&annotation("warning", "octocache", &format!("the restored bundle is not usable: {error}")));
        });
        for file in transfer.files.iter().skip(1).filter(|file| file.exists()) {
            copy(file, &transfer.in_store(file))?;
        }
        Ok(())
    }

    /// Puts a bundle that was written where actions/cache saves it; without that, nothing is to be saved.
    pub(super) fn hand_out(&self, transfer: &Transfer, saved: Saved) -> Saved {
        if !matches!(saved, Saved::Written { .. }) {
            return saved;
        }
        let put = transfer.files.iter().try_for_each(|file| {
            if let Some(link) = self.link_in(file) {
                return Err(Error::usage(format!("{} is a symbolic link", link.display())));
            }
            if !transfer.in_store(file).exists() {
                // One that the checkout brought is not to be saved in its place.
                let _absent_is_fine = fs::remove_file(file);
                return Ok(());
            }
            let dir = file.parent().unwrap_or(file);
            let made =
                files::create_private_dir(dir).and_then(|()| files::create_once(&dir.join(".gitignore"), b"*\n"));
            made.map_err(|cause| Error::io("create", dir, cause))?;
            copy(&transfer.in_store(file), file)
        });
        match put {
            Ok(()) => saved,
            Err(error) => {
                announce(&annotation("warning", "octocache", &format!("the bundle is not saved: {error}")));
                Saved::Unchanged
            }
        }
    }
}

impl Transfer {
    /// The paths that actions/cache restores and saves, one a line.
    pub(super) fn paths(&self) -> String {
        let paths: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        paths.join("\n")
    }

    /// Whether an earlier use in this job has left a bundle; it stays, since it holds what that use stored.
    pub(super) fn has_bundle(&self) -> bool {
        self.store.join(BUNDLE_NAME).exists()
    }

    fn in_store(&self, file: &Path) -> PathBuf {
        self.store.join(file.file_name().unwrap_or_default())
    }
}

/// Copies a file by way of a temporary one beside the target; a link in its place is replaced, not followed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |cause| Error::io("write", to, cause);
    let mut source = File::open(from).map_err(|cause| Error::io("read", from, cause))?;
    let (mut file, partial) = files::new_partial(to.parent().unwrap_or(to)).map_err(failed)?;
    let copied = std::io::copy(&mut source, &mut file);
    copied.and_then(|_| files::commit(file, &partial, to, Durability::Rename)).map_err(|cause| {
        let _best_effort = fs::remove_file(&partial);
        failed(cause)
    })
}
