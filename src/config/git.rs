//! Which repository this is, as gh finds it in a clone.
//!
//! Knows: git's remotes, and the forms of their addresses. Does not know: GitHub.
//!
//! gh's order: a remote that `gh repo set-default` has marked (`remote.NAME.gh-resolved`), else the first one on a host
//! that it knows, of `upstream`, `github`, `origin` and all others. Where gh would ask on a terminal, it takes the first
//! one elsewhere; so is it here.

use std::cell::Cell;
use std::process::{Command, Stdio};

use super::host;

/// Remotes that are looked at.
const MAX_REMOTES: usize = 100;

/// Short names of hosts that ssh is asked for.
const MAX_ALIASES: usize = 5;

/// A repository, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// `owner/name`.
    pub repository: String,
    /// What it was taken from, for people.
    pub source: String,
}

/// The repository of the clone that one stands in, where `host` is the host that is asked.
pub(super) fn repository(host: &str) -> Option<Found> {
    let remotes = git(&["remote", "-v"])?;
    let marks = git(&["config", "--get-regexp", r"^remote\..*\.gh-resolved$"]).unwrap_or_default();
    // Each asks a program: one in whose clone there are many such remotes must not wait for all of them.
    let left = Cell::new(MAX_ALIASES);
    let by_ssh = |name: &str| {
        left.set(left.get().checked_sub(1)?);
        host_by_ssh(name)
    };
    choose(&remotes, &marks, host, &by_ssh)
}

/// The branch that is checked out.
pub(super) fn branch() -> Option<String> {
    git(&["symbolic-ref", "--quiet", "--short", "HEAD"]).map(|text| text.trim().to_owned()).filter(|it| !it.is_empty())
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).stdin(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok().filter(|_| output.status.success())
}

/// What ssh makes of a host's short name (`Host work` in its configuration).
fn host_by_ssh(name: &str) -> Option<String> {
    let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if !sound || name.starts_with('-') {
        return None;
    }
    let output = Command::new("ssh").args(["-G", name]).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("hostname ")).map(str::to_owned)
}

/// The choice among the lines of `git remote -v` and of `git config`.
fn choose(remotes: &str, marks: &str, host: &str, by_ssh: &dyn Fn(&str) -> Option<String>) -> Option<Found> {
    let mut known: Vec<(&str, String)> = Vec::new();
    for line in remotes.lines().take(2 * MAX_REMOTES) {
        let Some((name, rest)) = line.split_once('\t') else { continue };
        // What is fetched from says what it is; an address that is only pushed to may be a fork's.
        let Some(url) =
            rest.strip_suffix(" (fetch)").or_else(|| rest.split(" (fetch) ").next().filter(|it| *it != rest))
        else {
            continue;
        };
        if let Some(repository) = repository_of(url, host, by_ssh) {
            known.push((name, repository));
        }
    }
    let rank = |name: &str| match name.to_ascii_lowercase().as_str() {
        "upstream" => 0,
        "github" => 1,
        "origin" => 2,
        _ => 3,
    };
    known.sort_by_key(|(name, _)| rank(name));
    let mark = |name: &str| {
        let key = format!("remote.{name}.gh-resolved ");
        marks.lines().find_map(|line| line.strip_prefix(&key))
    };
    let marked = known.iter().find_map(|(name, repository)| {
        let repository = match mark(name)? {
            "base" => repository.clone(),
            other => full_name(other)?,
        };
        Some(Found { repository, source: format!("git's remote `{name}`, which `gh repo set-default` chose") })
    });
    let others = known.len().saturating_sub(1);
    marked.or_else(|| {
        let (name, repository) = known.into_iter().next()?;
        let among = if others == 0 { String::new() } else { format!(", the first of {}", others + 1) };
        Some(Found { repository, source: format!("git's remote `{name}`{among}") })
    })
}

/// `OWNER/NAME` or `HOST/OWNER/NAME` as `OWNER/NAME`.
pub(super) fn full_name(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.trim().split('/').collect();
    let [.., owner, name] = parts.as_slice() else { return None };
    (parts.len() <= 3 && parts.iter().all(|part| !part.is_empty())).then(|| format!("{owner}/{name}"))
}

fn repository_of(url: &str, wanted: &str, by_ssh: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (scheme, authority, path) = if let Some((scheme, rest)) = url.split_once("://") {
        let (authority, path) = rest.split_once('/')?;
        (scheme.trim_start_matches("git+"), authority, path)
    } else {
        // `git@github.com:o/r`, as scp writes it; a path is none.
        let (authority, path) = url.split_once(':').filter(|(host, _)| !host.contains('/'))?;
        ("ssh", authority, path)
    };
    if !matches!(scheme, "ssh" | "git" | "http" | "https") {
        return None;
    }
    let named = authority.rsplit('@').next()?.split(':').next()?;
    let is_wanted =
        |host: &str| host::normal(host).is_ok_and(|host| host == wanted.split(':').next().unwrap_or(wanted));
    let is_alias = || scheme == "ssh" && by_ssh(named).is_some_and(|host| is_wanted(&host));
    if !is_wanted(named) && !is_alias() {
        return None;
    }
    let path = path.split(['?', '#']).next()?.trim_matches('/');
    let (owner, name) = path.split_once('/')?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    let sound = |part: &str| !part.is_empty() && !part.contains(['/', ' ']);
    (sound(owner) && sound(name)).then(|| format!("{owner}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_ssh(name: &str) -> Option<String> {
        (name == "work").then(|| "ssh.github.com".to_owned())
    }

    fn of(url: &str) -> Option<String> {
        repository_of(url, "github.com", &by_ssh)
    }

    #[test]
    fn forms_of_addresses() {
        for url in [
            "https://github.com/o/r.git",
            "https://GitHub.com/o/r",
            "https://www.github.com/o/r",
            "git@github.com:o/r.git",
            "git@github.com:/o/r.git",
            "ssh://git@github.com:22/o/r",
            "ssh://git@ssh.github.com:443/o/r.git",
            "git+ssh://git@github.com/o/r",
            "git://github.com/o/r.git",
            "https://x:secret@github.com/o/r/",
            "git@work:o/r.git",
        ] {
            assert_eq!(of(url).as_deref(), Some("o/r"), "{url}");
        }
        for url in [
            "https://gitlab.com/o/r",
            "/srv/git/r",
            "../o/r:x",
            "file:///github.com/o/r",
            "https://github.com/o",
            "https://github.com/o/r/tree/main",
            "https://work/o/r",
            "ext::sh -c x",
            "",
        ] {
            assert_eq!(of(url), None, "{url}");
        }
        assert_eq!(repository_of("https://acme.ghe.com/o/r", "acme.ghe.com", &by_ssh).as_deref(), Some("o/r"));
        assert_eq!(repository_of("https://ghe.example:8443/o/r", "ghe.example:8443", &by_ssh).as_deref(), Some("o/r"));
    }

    #[test]
    fn the_order_is_ghs() {
        let line = |name: &str, repository: &str| {
            let url = format!("https://github.com/{repository}.git");
            format!("{name}\t{url} (fetch)\n{name}\t{url} (push)\n")
        };
        let choose = |remotes: &[String], marks: &str| {
            choose(&remotes.concat(), marks, "github.com", &by_ssh).map(|found| found.repository)
        };
        let (origin, upstream) = (line("origin", "me/app"), line("upstream", "acme/app"));
        let (github, mine) = (line("github", "hub/app"), line("a", "zzz/app"));
        assert_eq!(choose(&[mine.clone(), origin.clone()], "").as_deref(), Some("me/app"));
        assert_eq!(choose(&[github.clone(), origin.clone()], "").as_deref(), Some("hub/app"));
        assert_eq!(choose(&[origin.clone(), upstream.clone(), github], "").as_deref(), Some("acme/app"));
        assert_eq!(choose(std::slice::from_ref(&mine), "").as_deref(), Some("zzz/app"));
        let both = [origin.clone(), upstream];
        assert_eq!(choose(&both, "remote.origin.gh-resolved base\n").as_deref(), Some("me/app"));
        assert_eq!(choose(&both, "remote.origin.gh-resolved other/thing\n").as_deref(), Some("other/thing"));
        assert_eq!(choose(&both, "remote.gone.gh-resolved base\n").as_deref(), Some("acme/app"));
        // Another host's remote is none, and a partial clone's line ends otherwise.
        let elsewhere = "upstream\thttps://gitlab.com/acme/app (fetch)\n".to_owned();
        assert_eq!(choose(&[elsewhere, origin], "").as_deref(), Some("me/app"));
        let partial = "origin\thttps://github.com/o/r (fetch) [blob:none]\n".to_owned();
        assert_eq!(choose(&[partial], "").as_deref(), Some("o/r"));
        assert_eq!(choose(&[], ""), None);
    }
}
