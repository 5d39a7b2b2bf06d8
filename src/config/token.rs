//! Finding the token: a file, the environment, or what gh has stored.
//!
//! Knows: which name is for which host. Does not know: what the token may do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Environment, host};
use crate::error::{Error, Result};
use crate::github::App;
use crate::request::Api;
use crate::token::Token;

/// The largest file that holds a token.
const MAX_BYTES: u64 = 64 << 10;

/// The token for `api` and the name of where it was found. A token for github.com is never sent
/// to another host.
pub(super) fn find(file: Option<&Path>, environment: &Environment, api: &Api) -> Result<Option<(Token, String)>> {
    if let Some(path) = file {
        let bytes = crate::files::read_bounded(path, MAX_BYTES)?
            .ok_or_else(|| Error::usage(format!("there is no token file {}", path.display())))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::usage(format!("{} is not text", path.display())))?;
        return Token::new(text)
            .map(|token| Some((token, path.display().to_string())))
            .map_err(|error| error.within(path.display()));
    }
    // In a job, GITHUB_TOKEN is for the host that GITHUB_API_URL names, whichever it is.
    let is_jobs_host = environment
        .get("GITHUB_API_URL")
        .and_then(|url| Api::parse(url).ok())
        .is_some_and(|job| job.host() == api.host());
    let names: &[&str] = if host::is_cloud(&host::of(api)) || is_jobs_host {
        &["OCTOCACHE_TOKEN", "GH_TOKEN", "GITHUB_TOKEN"]
    } else {
        &["OCTOCACHE_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"]
    };
    for name in names {
        if let Some(text) = environment.get(name) {
            return Token::new(text)
                .map(|token| Some((token, (*name).to_owned())))
                .map_err(|error| error.within(*name));
        }
    }
    Ok(from_gh(environment, api))
}

/// What `gh auth login` left in gh's own file; a token in the system's keyring is not read.
fn from_gh(environment: &Environment, api: &Api) -> Option<(Token, String)> {
    let (hosts, path) = hosts(environment)?;
    let wanted = host::of(api);
    let (_, host) = hosts.iter().find(|(name, _)| host::normal(name).is_ok_and(|name| name == wanted))?;
    let token = Token::new(host.oauth_token.as_deref()?).ok()?;
    Some((token, path.display().to_string()))
}

/// The host that gh is logged in to, where it is the only one: gh asks there unless told otherwise.
pub(super) fn only_host(environment: &Environment) -> Option<String> {
    let (hosts, _) = hosts(environment)?;
    let mut names = hosts.into_keys().filter(|name| host::normal(name).is_ok());
    let only = names.next()?;
    names.next().is_none().then_some(only)
}

#[derive(Deserialize)]
struct Host {
    oauth_token: Option<String>,
}

/// gh's `hosts.yml`, and where it is.
fn hosts(environment: &Environment) -> Option<(BTreeMap<String, Host>, PathBuf)> {
    let dir = environment.get("GH_CONFIG_DIR").map(PathBuf::from).or_else(|| {
        let base = environment.get("XDG_CONFIG_HOME").map(PathBuf::from);
        let base =
            base.or_else(|| environment.get(if cfg!(windows) { "AppData" } else { "HOME" }).map(PathBuf::from))?;
        let below_home = environment.get("XDG_CONFIG_HOME").is_none() && !cfg!(windows);
        Some(if below_home {
            base.join(".config/gh")
        } else {
            base.join(if cfg!(windows) { "GitHub CLI" } else { "gh" })
        })
    })?;
    let path = dir.join("hosts.yml");
    let bytes = crate::files::read_bounded(&path, MAX_BYTES).ok().flatten()?;
    Some((serde_saphyr::from_slice(&bytes).ok()?, path))
}

/// The App's installation that the environment names, by all of its three variables.
pub(super) fn app(environment: &Environment) -> Result<Option<App>> {
    let names = ["OCTOCACHE_APP_ID", "OCTOCACHE_APP_INSTALLATION_ID", "OCTOCACHE_APP_PRIVATE_KEY_FILE"];
    let [id, installation, file] = match names.map(|name| environment.get(name)) {
        [None, None, None] => return Ok(None),
        [Some(id), Some(installation), Some(file)] => [id, installation, file],
        _ => {
            return Err(Error::usage(format!("only some of {} are set", names.join(", ")))
                .hint("an installation needs all three"));
        }
    };
    let installation = installation.parse().map_err(|_| Error::usage("OCTOCACHE_APP_INSTALLATION_ID is no number"))?;
    let path = Path::new(file);
    let pem = crate::files::read_bounded(path, MAX_BYTES)?
        .ok_or_else(|| Error::usage(format!("there is no private key at {}", path.display())))?;
    App::new(id, installation, &pem).map(Some).map_err(|error| error.within(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(pairs: &[(&str, &str)], url: &str) -> Option<String> {
        find(None, &Environment::of(pairs), &Api::parse(url).unwrap()).unwrap().map(|(_, source)| source)
    }

    #[test]
    fn a_token_goes_only_to_its_host() {
        let both = [("GITHUB_TOKEN", "ghs_a"), ("GH_TOKEN", "ghp_b")];
        assert_eq!(source(&both, "https://api.github.com").as_deref(), Some("GH_TOKEN"));
        assert_eq!(source(&both, "https://ghe.example/api/v3"), None);
        assert_eq!(
            source(&[("GH_ENTERPRISE_TOKEN", "x")], "https://ghe.example/api/v3").as_deref(),
            Some("GH_ENTERPRISE_TOKEN")
        );
        let job = [("GITHUB_TOKEN", "ghs_a"), ("GITHUB_API_URL", "https://ghe.example/api/v3")];
        assert_eq!(source(&job, "https://ghe.example/api/v3").as_deref(), Some("GITHUB_TOKEN"));
        assert_eq!(source(&job, "https://evil.example"), None);
    }

    #[test]
    fn what_gh_stored_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("hosts.yml"), "github.com:\n    user: o\n    oauth_token: gho_x\n").unwrap();
        let dir = dir.path().to_str().unwrap();
        assert!(source(&[("GH_CONFIG_DIR", dir)], "https://api.github.com").unwrap().ends_with("hosts.yml"));
        assert_eq!(source(&[("GH_CONFIG_DIR", dir)], "https://ghe.example/api/v3"), None);
        let gh = Environment::of(&[("GH_CONFIG_DIR", dir)]);
        assert_eq!(only_host(&gh).as_deref(), Some("github.com"));
        std::fs::write(Path::new(dir).join("hosts.yml"), "ACME.ghe.com: { oauth_token: gho_y }\ngithub.com: {}\n")
            .unwrap();
        assert!(source(&[("GH_CONFIG_DIR", dir)], "https://api.acme.ghe.com").unwrap().ends_with("hosts.yml"));
        assert_eq!(source(&[("GH_TOKEN", "x")], "https://api.acme.ghe.com").as_deref(), Some("GH_TOKEN"));
        assert_eq!(only_host(&gh), None);
    }
}
