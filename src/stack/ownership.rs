//! Whether a directory may be used as a store: what stands in it answers requests and gets into bundles.
//!
//! Knows: who owns it, who else can write to it, and whether a checkout brought it. Does not know: where a
//! store is instead (`config`).

use std::fmt;
use std::fs;
use std::path::Path;

use super::tracked;

/// How a directory came to be the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It stands beside a plan, or others may have prepared it; no setting names it.
    Found,
    /// A flag or a variable names it.
    Named,
    /// It is the user's own cache directory.
    Own,
}

/// Why a directory is not used as a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// git tracks files in it.
    Tracked,
    /// Another user owns it.
    ForeignOwner(u32),
    /// Other users can write to it.
    Shared,
    /// What it holds is readable by others, or a link, as no version of this program writes it.
    NotPrivate,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracked => f.write_str("git tracks files in it, so they came with the checkout"),
            Self::ForeignOwner(uid) => write!(f, "it belongs to another user (uid {uid})"),
            Self::Shared => f.write_str("other users can write to it"),
            Self::NotPrivate => f.write_str("what it holds is not private, so this program did not write it"),
        }
    }
}

/// Checks a directory before anything is read from it. One that does not exist is fit: it is created private.
///
/// Costs a few system calls, and for a directory within a checkout a read of git's index.
pub fn check(dir: &Path, origin: Origin) -> Result<(), Unfit> {
    let Ok(meta) = fs::metadata(dir) else { return Ok(()) };
    #[cfg(unix)]
    unix::check(dir, &meta, origin)?;
    #[cfg(not(unix))]
    let _by_access_lists = meta;
    if origin != Origin::Own && tracked::is_tracked(dir) {
        return Err(Unfit::Tracked);
    }
    Ok(())
}

#[cfg(unix)]
mod unix {
    use std::fs::{self, Metadata};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::super::{BUNDLE_NAME, LOCAL_NAME};
    use super::{Origin, Unfit};
    use crate::files;

    const OTHERS_WRITE: u32 = 0o002;
    const GROUP_WRITES: u32 = 0o020;
    const NOT_PRIVATE: u32 = 0o077;

    pub(super) fn check(dir: &Path, meta: &Metadata, origin: Origin) -> Result<(), Unfit> {
        if origin == Origin::Found {
            check_owner(meta)?;
        }
        // A group of the user's own has the user's number, and its members are the user (pam_umask's rule).
        let by_group = meta.mode() & GROUP_WRITES != 0 && meta.gid() != meta.uid() && origin == Origin::Found;
        if (meta.mode() & OTHERS_WRITE != 0 || by_group) && keeps_modes(dir) {
            return Err(Unfit::Shared);
        }
        if origin != Origin::Found {
            return Ok(());
        }
        // Each version has created these private, which git and archives of a repository cannot.
        for name in ["v1", BUNDLE_NAME, LOCAL_NAME] {
            let Ok(meta) = fs::symlink_metadata(dir.join(name)) else { continue };
            check_owner(&meta)?;
            let is_right = if name == "v1" { meta.is_dir() } else { meta.is_file() };
            if !is_right || (meta.mode() & NOT_PRIVATE != 0 && keeps_modes(dir)) {
                return Err(Unfit::NotPrivate);
            }
        }
        Ok(())
    }

    /// The user may own it, and root, who reads and writes everything anyway.
    fn check_owner(meta: &Metadata) -> Result<(), Unfit> {
        let own = rustix::process::geteuid().as_raw();
        if meta.uid() == own || meta.uid() == 0 { Ok(()) } else { Err(Unfit::ForeignOwner(meta.uid())) }
    }

    /// Whether the file system keeps modes: some of them show all files as writable by all users.
    fn keeps_modes(dir: &Path) -> bool {
        let Ok((file, path)) = files::new_partial(dir) else { return true };
        let kept = file.metadata().is_ok_and(|meta| meta.mode() & NOT_PRIVATE == 0);
        let _best_effort = fs::remove_file(path);
        kept
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::BUNDLE_NAME;
    use super::*;

    fn store(mode: u32, loose: Option<u32>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        if let Some(loose) = loose {
            fs::create_dir(dir.path().join("v1")).unwrap();
            chmod(&dir.path().join("v1"), loose);
        }
        chmod(dir.path(), mode);
        dir
    }

    #[test]
    fn a_directory_that_other_users_write_to_is_unfit_even_if_named() {
        for origin in [Origin::Found, Origin::Named, Origin::Own] {
            assert_eq!(check(store(0o777, None).path(), origin), Err(Unfit::Shared), "{origin:?}");
            assert_eq!(check(store(0o1777, None).path(), origin), Err(Unfit::Shared), "{origin:?}");
            assert_eq!(check(store(0o755, Some(0o700)).path(), origin), Ok(()), "{origin:?}");
            assert_eq!(check(Path::new("/nowhere/at/all"), origin), Ok(()));
        }
        let dir = store(0o777, None);
        assert!(check(dir.path(), Origin::Found).is_err() && fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn entries_that_are_not_private_came_from_elsewhere() {
        assert_eq!(check(store(0o755, Some(0o755)).path(), Origin::Found), Err(Unfit::NotPrivate));
        assert_eq!(check(store(0o755, Some(0o755)).path(), Origin::Named), Ok(()));
        let (dir, elsewhere) = (store(0o700, None), store(0o700, Some(0o700)));
        std::os::unix::fs::symlink(elsewhere.path().join("v1"), dir.path().join("v1")).unwrap();
        assert_eq!(check(dir.path(), Origin::Found), Err(Unfit::NotPrivate));
        let dir = store(0o700, Some(0o700));
        fs::write(dir.path().join(BUNDLE_NAME), "").unwrap();
        fs::set_permissions(dir.path().join(BUNDLE_NAME), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(check(dir.path(), Origin::Found), Err(Unfit::NotPrivate));
        assert_eq!(check(dir.path(), Origin::Named), Ok(()));
    }

    #[test]
    fn a_directory_of_another_user_is_unfit_unless_it_is_named() {
        let dir = store(0o755, None);
        if std::os::unix::fs::chown(dir.path(), Some(65_534), None).is_err() {
            return eprintln!("SKIPPED: only root gives files away");
        }
        assert_eq!(check(dir.path(), Origin::Found), Err(Unfit::ForeignOwner(65_534)));
        assert_eq!(check(dir.path(), Origin::Named), Ok(()));
    }
}
