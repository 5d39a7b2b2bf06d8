//! Which repository this is, by asking git.
//!
//! Knows: the forms of a remote's address. Does not know: GitHub.

use std::process::Command;

/// `owner/name` of the remote `origin`, if it is on the host that `api_host` serves.
pub(super) fn origin_repository(api_host: &str) -> Option<String> {
    let output = Command::new("git").args(["remote", "get-url", "origin"]).output().ok()?;
    repository_of(std::str::from_utf8(&output.stdout).ok()?.trim(), api_host)
}

/// The branch that is checked out.
pub(super) fn branch() -> Option<String> {
    let output = Command::new("git").args(["symbolic-ref", "--quiet", "--short", "HEAD"]).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|branch| !branch.is_empty())
}

fn repository_of(url: &str, api_host: &str) -> Option<String> {
    let host = if api_host == "api.github.com" { "github.com" } else { api_host };
    let path = if let Some((_, rest)) = url.split_once("://") {
        let (authority, path) = rest.split_once('/')?;
        let named = authority.rsplit('@').next()?.split(':').next()?;
        (named == host).then_some(path)?
    } else {
        let (authority, path) = url.split_once(':')?;
        (authority.rsplit('@').next()? == host).then_some(path)?
    };
    let path = path.trim_matches('/').trim_end_matches(".git");
    (path.split('/').filter(|part| !part.is_empty()).count() == 2).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_addresses() {
        for url in [
            "https://github.com/o/r.git",
            "git@github.com:o/r.git",
            "ssh://git@github.com:22/o/r",
            "https://x@github.com/o/r/",
        ] {
            assert_eq!(repository_of(url, "api.github.com").as_deref(), Some("o/r"), "{url}");
        }
        for url in ["https://gitlab.com/o/r", "/srv/git/r", "https://github.com/o", ""] {
            assert_eq!(repository_of(url, "api.github.com"), None, "{url}");
        }
    }
}
