//! Plans that the user trusts: a list in the user's configuration directory.
//!
//! Knows: the list's file and its form; a plan is named by its path and the digest of its bytes, so trust ends
//! when the plan changes. Does not know: what trust allows (`plan_file`).

use std::fs::File;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Environment, user_config_dir};
use crate::error::{Error, Kind, Result};
use crate::files::{self, Durability};

/// The largest list that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Plans that are trusted at once; the oldest makes room for the next.
const MAX_PLANS: usize = 1_000;

/// The list's version.
const VERSION: u32 = 1;

/// Plans that the user trusts.
#[derive(Debug)]
pub struct TrustList {
    file: PathBuf,
    plans: Vec<TrustedPlan>,
}

/// One trusted plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedPlan {
    /// Its canonical path.
    pub path: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    v: u32,
    plans: Vec<TrustedPlan>,
}

impl TrustList {
    /// Returns the user's list. A file that is broken, of a newer version, or that another user owns or may
    /// write, trusts nothing.
    pub fn read(environment: &Environment) -> Result<Self> {
        let dir = user_config_dir(environment).ok_or_else(|| {
            Error::usage("there is no directory for the list of trusted plans: neither HOME nor XDG_CONFIG_HOME is set")
                .hint("name the plan with --plan instead")
        })?;
        let file = dir.join("octocache/trusted.json");
        let plans = read(&file).unwrap_or_else(|error| {
            tracing::warn!(%error, "the list of trusted plans cannot be used; no plan is trusted");
            Vec::new()
        });
        Ok(Self { file, plans })
    }

    /// Whether the plan at `path` with the content `bytes` is trusted.
    pub fn trusts(&self, path: &Path, bytes: &[u8]) -> bool {
        let Some(path) = path.canonicalize().ok().and_then(|path| path.to_str().map(str::to_owned)) else {
            return false;
        };
        let Some(plan) = self.plans.iter().find(|plan| plan.path == path) else { return false };
        plan.sha256 == HEXLOWER.encode(&Sha256::digest(bytes))
    }

    /// All trusted plans, the latest last.
    pub fn plans(&self) -> &[TrustedPlan] {
        &self.plans
    }

    /// Trusts the plan at the canonical `path` as long as its content is `bytes`.
    pub fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let name = text(path)?;
        self.plans.retain(|plan| plan.path != name);
        if self.plans.len() >= MAX_PLANS {
            self.plans.remove(0);
        }
        self.plans.push(TrustedPlan { path: name.to_owned(), sha256: HEXLOWER.encode(&Sha256::digest(bytes)) });
        self.write()
    }

    /// Ends the trust in the plan at `path`; returns whether there was any.
    pub fn remove(&mut self, path: &Path) -> Result<bool> {
        let name = text(path)?;
        let before = self.plans.len();
        self.plans.retain(|plan| plan.path != name);
        if self.plans.len() == before {
            return Ok(false);
        }
        self.write().map(|()| true)
    }

    fn write(&self) -> Result<()> {
        let dir = self.file.parent().unwrap_or(Path::new("."));
        files::create_private_dir(dir).map_err(|cause| Error::io("create", dir, cause))?;
        let mut bytes =
            serde_json::to_vec_pretty(&Stored { v: VERSION, plans: self.plans.clone() }).map_err(|cause| {
                Error::new(Kind::Internal, "the list of trusted plans does not serialise").because(cause)
            })?;
        bytes.push(b'\n');
        files::write_atomic(&self.file, dir, &bytes, Durability::Rename)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::usage(format!("the path {} is not UTF-8 text, so it cannot be written down", path.display()))
            .hint("name the plan with --plan instead")
    })
}

fn read(path: &Path) -> Result<Vec<TrustedPlan>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("read", path, error)),
    };
    check_owner(&file, path)?;
    let bytes = files::read_open_bounded(file, path, MAX_BYTES)?;
    let broken = |why: String| Error::corrupt(format!("{} {why}", path.display())).hint("remove it, and trust again");
    let stored: Stored =
        serde_json::from_slice(&bytes).map_err(|cause| broken("does not parse".into()).because(cause))?;
    if stored.v != VERSION {
        return Err(broken(format!("has version {}; this program knows version {VERSION}", stored.v)));
    }
    if stored.plans.len() > MAX_PLANS {
        return Err(broken(format!("names more than {MAX_PLANS} plans")));
    }
    Ok(stored.plans)
}

/// Refuses a list that another user owns or may write.
#[cfg(unix)]
fn check_owner(file: &File, path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = file.metadata().map_err(|cause| Error::io("read", path, cause))?;
    let refused = |why: &str| Err(Error::new(Kind::Corrupt, format!("{} {why}", path.display())));
    match () {
        () if !meta.is_file() => refused("is no file"),
        () if meta.uid() != rustix::process::geteuid().as_raw() => refused("belongs to another user"),
        () if meta.mode() & 0o022 != 0 => refused("can be written by other users"),
        () => Ok(()),
    }
}

#[cfg(not(unix))]
fn check_owner(_: &File, _: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(home: &Path) -> TrustList {
        TrustList::read(&Environment::of(&[("XDG_CONFIG_HOME", home.to_str().unwrap())])).unwrap()
    }

    #[test]
    fn trust_is_for_one_path_and_one_content() {
        let home = tempfile::tempdir().unwrap();
        let (plan, other) = (home.path().join("plan.yml"), home.path().join("other.yml"));
        for file in [&plan, &other] {
            std::fs::write(file, "a").unwrap();
        }
        let canonical = plan.canonicalize().unwrap();
        assert!(!list(home.path()).trusts(&plan, b"a"));
        list(home.path()).add(&canonical, b"a").unwrap();
        let now = list(home.path());
        assert!(now.trusts(&plan, b"a") && !now.trusts(&plan, b"b") && !now.trusts(&other, b"a"));
        list(home.path()).add(&canonical, b"b").unwrap();
        assert!(!list(home.path()).trusts(&plan, b"a") && list(home.path()).plans().len() == 1);
        assert!(list(home.path()).remove(&canonical).unwrap() && !list(home.path()).remove(&canonical).unwrap());
        assert!(!list(home.path()).trusts(&plan, b"b"));
    }

    #[test]
    fn a_list_that_is_broken_newer_or_open_to_others_trusts_nothing() {
        let home = tempfile::tempdir().unwrap();
        let plan = home.path().join("plan.yml");
        std::fs::write(&plan, "a").unwrap();
        list(home.path()).add(&plan.canonicalize().unwrap(), b"a").unwrap();
        let file = home.path().join("octocache/trusted.json");
        let good = std::fs::read_to_string(&file).unwrap();
        let many = format!(r#"{{"v":1,"plans":[{}]}}"#, vec![r#"{"path":"/a","sha256":""}"#; MAX_PLANS + 1].join(","));
        let bad = ["", "{", "\0", "[]", &good.replace("\"v\": 1", "\"v\": 2"), &many, &"[".repeat(100_000)];
        for text in bad {
            std::fs::write(&file, text).unwrap();
            assert!(!list(home.path()).trusts(&plan, b"a"), "{}", &text[..text.len().min(80)]);
        }
        std::fs::write(&file, &good).unwrap();
        assert!(list(home.path()).trusts(&plan, b"a"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o622)).unwrap();
            assert!(!list(home.path()).trusts(&plan, b"a"));
        }
    }
}
