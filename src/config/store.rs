//! The store that is used: the directory that settings name, or another one where that is unfit.
//!
//! Knows: how the directory came to be chosen, and where a store is instead. Does not know: what makes a
//! directory unfit (`stack::ownership`).

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{Environment, Flags, user_cache_dir};
use crate::error::{Error, Result};
use crate::stack::ownership::{self, Origin, Unfit};

/// Variables that name the store.
pub(super) const VARIABLES: &[&str] = &["OCTOCACHE_DIR", "GITHUB_CACHE_DIR", "CACHE_DIR"];

/// Returns `dir` if it is fit to be the store, else a directory that is, and says so.
pub(super) fn usable(dir: PathBuf, flags: &Flags, environment: &Environment, plan: Option<&Path>) -> Result<PathBuf> {
    let origin = match plan {
        _ if flags.cache_dir.is_some() || environment.first(VARIABLES).is_some() => Origin::Named,
        Some(_) => Origin::Found,
        None => Origin::Own,
    };
    let Err(unfit) = ownership::check(&dir, origin) else { return Ok(dir) };
    let refused = |unfit: Unfit| {
        let error = Error::usage(format!("the store {} is not used: {unfit}", dir.display()));
        error.hint("name a directory that only you write to, with --cache-dir")
    };
    let instead = instead_of(&dir, origin, unfit, environment).ok_or_else(|| refused(unfit))?;
    ownership::check(&instead, Origin::Found).map_err(|unfit| refused(unfit).within(instead.display()))?;
    tracing::warn!(
        "the store {} is not used: {unfit}; using {}; remove the former, make it private (chmod 700), or name another with \
         --cache-dir",
        dir.display(),
        instead.display()
    );
    Ok(instead)
}

/// Returns where the store is instead. Of a shared directory that was named, a private one within; else one
/// in the user's cache directory, by the name of the directory that it stands for.
fn instead_of(dir: &Path, origin: Origin, unfit: Unfit, environment: &Environment) -> Option<PathBuf> {
    #[cfg(unix)]
    if unfit == Unfit::Shared && origin != Origin::Found {
        return Some(dir.join(format!("octocache-{}", rustix::process::geteuid().as_raw())));
    }
    #[cfg(not(unix))]
    let _ = (origin, unfit);
    let full = std::path::absolute(dir).ok()?;
    let name = HEXLOWER.encode(&Sha256::digest(full.as_os_str().as_encoded_bytes()))[..16].to_owned();
    Some(user_cache_dir(environment)?.join("octocache/instead").join(name))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_unfit_directory_has_one_instead_and_a_fit_one_stays() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment::of(&[("HOME", home.path().to_str().unwrap())]);
        let dir = home.path().join("store");
        std::fs::create_dir(&dir).unwrap();
        let chmod = |mode| std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
        let named = Flags { cache_dir: Some(dir.clone()), ..Flags::default() };
        let usable = |flags: &Flags, plan| usable(dir.clone(), flags, &environment, plan).unwrap();
        chmod(0o755);
        assert_eq!((usable(&named, None), usable(&Flags::default(), Some(Path::new("p")))), (dir.clone(), dir.clone()));
        chmod(0o777);
        let within = usable(&named, None);
        assert!(within.starts_with(&dir) && within != dir, "{within:?}");
        let own = usable(&Flags::default(), Some(Path::new("p")));
        assert!(!own.starts_with(&dir) && own.starts_with(home.path()), "{own:?}");
        // Nothing to go to: said, not guessed.
        let nowhere = Environment::of(&[]);
        let error = super::usable(dir.clone(), &Flags::default(), &nowhere, Some(Path::new("p"))).unwrap_err();
        assert!(error.to_string().contains("other users can write to it"), "{error}");
        // Another user was there first.
        std::fs::create_dir(&within).unwrap();
        std::fs::set_permissions(&within, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(super::usable(dir.clone(), &named, &environment, None).is_err());
    }
}
