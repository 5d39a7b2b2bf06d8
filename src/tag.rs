//! What a request is about: the scopes by which people invalidate (A15).
//!
//! Knows: repository, owner and family of a path. Does not know: cutoff times (`cutoff`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address;
use crate::error::{Error, Result};
use crate::key::{CacheKey, KeyParts};
use crate::policy::class;

/// What an invalidation or a listing covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everything.
    All,
    /// Keys that begin with these hex digits; 64 of them are one key.
    Key(String),
    /// Paths (or own names) that begin so.
    Prefix(String),
    /// Entries that carry all of these tags, written with `+` between.
    Tags(Vec<Tag>),
}

/// One tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    /// `repo:owner/name`.
    Repo(String),
    /// `repo-id:7`: the repository by its number, `/repositories/7`.
    RepoId(u64),
    /// `org:name`: the organisation and all its repositories.
    Org(String),
    /// `user:name`: the user and all their repositories.
    User(String),
    /// `family:class`, a TTL class by name.
    Family(String),
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Scope::All);
        }
        if let Some(prefix) = text.strip_prefix("prefix:").or_else(|| text.starts_with('/').then_some(text)) {
            return Ok(Scope::Prefix(prefix.into()));
        }
        let hex = text.strip_prefix("key:").unwrap_or(text);
        if (4..=64).contains(&hex.len()) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Scope::Key(hex.into()));
        }
        text.split('+').map(Tag::from_str).collect::<Result<Vec<_>>>().map(Scope::Tags)
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!("`{}` names nothing in the cache", text.escape_debug())).hint(
                "use all, a key (4 to 64 hex digits), /a/path/prefix, prefix:NAME, repo:OWNER/NAME, repo-id:NUMBER, org:NAME, user:NAME or family:CLASS",
            )
        };
        let (kind, name) = text.split_once(':').ok_or_else(bad)?;
        let name = name.to_ascii_lowercase();
        if name.is_empty() {
            return Err(bad());
        }
        match kind {
            "repo" if name.split('/').filter(|part| !part.is_empty()).count() == 2 => Ok(Tag::Repo(name)),
            "repo-id" => name.parse().map(Tag::RepoId).map_err(|_| bad()),
            "org" => Ok(Tag::Org(name)),
            "user" => Ok(Tag::User(name)),
            "family" if class::by_name(&name).is_some() => Ok(Tag::Family(name)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::All => f.write_str("all"),
            Scope::Key(hex) => write!(f, "key:{hex}"),
            Scope::Prefix(prefix) => write!(f, "prefix:{prefix}"),
            Scope::Tags(tags) => {
                for (i, tag) in tags.iter().enumerate() {
                    write!(f, "{}{tag}", if i > 0 { "+" } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tag::Repo(name) => write!(f, "repo:{name}"),
            Tag::RepoId(id) => write!(f, "repo-id:{id}"),
            Tag::Org(name) => write!(f, "org:{name}"),
            Tag::User(name) => write!(f, "user:{name}"),
            Tag::Family(name) => write!(f, "family:{name}"),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a scope is compared with: one entry or request.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its key.
    pub key: &'a CacheKey,
    /// The key's parts.
    pub parts: &'a KeyParts,
    /// The path that began its listing, for a later page.
    pub listing: Option<&'a str>,
}

impl Scope {
    /// Whether `subject` lies in this scope, by its own path or by that of its listing.
    pub fn covers(&self, subject: Subject<'_>) -> bool {
        let paths = [Some(subject.parts.path.as_str()), subject.listing];
        let mut paths = paths.into_iter().flatten();
        match self {
            Scope::All => true,
            Scope::Key(hex) => subject.key.to_string().starts_with(hex),
            Scope::Prefix(prefix) => paths.any(|path| begins(path, prefix)),
            Scope::Tags(tags) => {
                let query = &subject.parts.query;
                paths.any(|path| tags.iter().all(|tag| tag.fits(path, query)))
            }
        }
    }

    /// Whether `subject` may lie in this scope: it is found by a number (`/repositories/7/…`) whose name is not known, and
    /// would lie in it under some name.
    pub fn may_cover(&self, subject: Subject<'_>) -> bool {
        let path = subject.parts.path.as_str();
        let Some(named) = Numbered::of(path).filter(|_| subject.listing.is_none()) else { return false };
        match self {
            Scope::All | Scope::Key(_) => false,
            Scope::Prefix(prefix) => Numbered::of_named(prefix).is_some_and(|other| {
                other.kind == named.kind && (other.below.is_empty() || named.below.starts_with(other.below))
            }),
            Scope::Tags(tags) => tags.iter().all(|tag| match tag {
                Tag::Repo(_) => named.kind == Kind::Repository,
                Tag::Org(_) | Tag::User(_) => true,
                Tag::RepoId(_) | Tag::Family(_) => tag.fits(path, &subject.parts.query),
            }),
        }
    }
}

/// Whether a path is one that has a number in the place of a name.
pub fn is_by_number(path: &str) -> bool {
    Numbered::of(path).is_some()
}

/// Whether two paths are of one resource as far as they tell: the same one, or one by name and one by number.
pub fn is_same_resource(path: &str, other: &str) -> bool {
    let of = |path| Numbered::of(path).or_else(|| Numbered::of_named(path)).map(|of: Numbered<'_>| (of.kind, of.below));
    path == other || ((is_by_number(path) || is_by_number(other)) && of(path).is_some_and(|one| of(other) == Some(one)))
}

/// What a path with a number, or a name, is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Repository,
    Organization,
    User,
}

/// A path without its name or number.
struct Numbered<'a> {
    kind: Kind,
    below: &'a str,
}

impl<'a> Numbered<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let (kind, rest) = path.strip_prefix('/')?.split_once('/')?;
        let end = rest.find('/').unwrap_or(rest.len());
        let is_number = end > 0 && rest[..end].bytes().all(|b| b.is_ascii_digit());
        let kind = match kind {
            "repositories" => Kind::Repository,
            "organizations" => Kind::Organization,
            "user" => Kind::User,
            _ => return None,
        };
        is_number.then(|| Self { kind, below: &rest[end..] })
    }

    fn of_named(path: &'a str) -> Option<Self> {
        let (kind, names) = match path.split('/').nth(1)? {
            "repos" | "networks" => (Kind::Repository, 2),
            "orgs" => (Kind::Organization, 1),
            "users" => (Kind::User, 1),
            _ => return None,
        };
        let end = path.match_indices('/').nth(1 + names).map_or(path.len(), |(at, _)| at);
        Some(Self { kind, below: &path[end..] })
    }
}

/// Whether a path begins with `prefix`: names of owners and repositories in any case, as at GitHub.
fn begins(path: &str, prefix: &str) -> bool {
    if path.starts_with(prefix) {
        return true;
    }
    let end = address::named_part(path);
    if end == 0 {
        return false;
    }
    let (path, prefix) = (path.as_bytes(), prefix.as_bytes());
    let folded = end.min(prefix.len());
    path.len() >= prefix.len()
        && path[..folded].eq_ignore_ascii_case(&prefix[..folded])
        && path[folded..prefix.len()] == prefix[folded..]
}

impl Tag {
    fn fits(&self, path: &str, query: &str) -> bool {
        let mut segments = path.split('/').skip(1);
        let (kind, owner, name) = (segments.next(), segments.next(), segments.next());
        let owner_is = |wanted: &str| owner.is_some_and(|owner| owner.eq_ignore_ascii_case(wanted));
        match self {
            Tag::Repo(full) => {
                let (wanted_owner, wanted_name) = full.split_once('/').unwrap_or((full, ""));
                matches!(kind, Some("repos" | "networks"))
                    && owner_is(wanted_owner)
                    && name.is_some_and(|name| name.eq_ignore_ascii_case(wanted_name))
            }
            Tag::RepoId(id) => {
                kind == Some("repositories") && owner.is_some_and(|number| number.parse::<u64>() == Ok(*id))
            }
            Tag::Org(wanted) => matches!(kind, Some("orgs" | "repos" | "networks")) && owner_is(wanted),
            Tag::User(wanted) => matches!(kind, Some("users" | "repos" | "networks")) && owner_is(wanted),
            Tag::Family(wanted) => class::of(path, query).name == wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Partition;
    use crate::request::{Api, Request};

    fn covers(scope: &str, path: &str, listing: Option<&str>) -> bool {
        let request = Request::get(&Api::github(), path).unwrap();
        let parts = KeyParts::of(&request, &Partition::public());
        let key = parts.key();
        let scope: Scope = scope.parse().unwrap();
        assert_eq!(scope.to_string().parse::<Scope>().unwrap(), scope);
        scope.covers(Subject { key: &key, parts: &parts, listing })
    }

    #[test]
    fn scopes_cover_what_they_say() {
        assert!(covers("all", "/x", None));
        assert!(covers("repo:Acme/App", "/repos/acme/app/issues", None));
        assert!(!covers("repo:acme/app", "/repos/acme/app2/issues", None));
        assert!(covers("org:acme", "/repos/acme/app", None) && covers("org:acme", "/orgs/acme/repos", None));
        assert!(!covers("org:acme", "/users/acme", None));
        assert!(covers("repo:acme/app", "/repositories/1/issues?page=2", Some("/repos/acme/app/issues")));
        assert!(
            covers("repo-id:7", "/repositories/7", None) && covers("repo-id:7", "/repositories/7/issues?page=2", None)
        );
        assert!(!covers("repo-id:7", "/repositories/77/issues", None) && !covers("repo-id:7", "/repos/7/x", None));
        assert!(covers("repo-id:7+family:issues", "/repositories/7/issues?page=2", None));
        assert!(covers("repo:acme/app+family:issues", "/repos/acme/app/issues", None));
        assert!(!covers("repo:acme/app+family:releases", "/repos/acme/app/issues", None));
        assert!(covers("/repos/acme", "/repos/acme/app", None));
        assert!(covers("/repos/Acme/App/issues", "/repos/acme/APP/issues/7", None));
        assert!(!covers("/repos/acme/app/contents/A", "/repos/acme/app/contents/a", None));
        assert!(covers("/orgs/Acme/teams", "/orgs/acme/teams/x", None) && !covers("/x/A", "/x/a", None));
    }

    #[test]
    fn an_address_by_number_may_be_of_any_name_unless_that_is_known() {
        let may = |scope: &str, path: &str, listing: Option<&str>| {
            let parts = KeyParts::of(&Request::get(&Api::github(), path).unwrap(), &Partition::public());
            scope.parse::<Scope>().unwrap().may_cover(Subject { key: &parts.key(), parts: &parts, listing })
        };
        let page = "/repositories/7/issues?page=2";
        assert!(may("repo:o/r", page, None) && may("org:o", page, None) && may("repo:o/r+family:issues", page, None));
        assert!(may("/repos/o/r/issues", page, None) && may("/repos/o/r", page, None));
        assert!(!may("repo:o/r+family:releases", page, None) && !may("/repos/o/r/pulls", page, None));
        assert!(!may("repo:o/r", page, Some("/repos/o/x/issues")) && !may("repo:o/r", "/repos/o/x/issues", None));
        assert!(may("/orgs/o/repos", "/organizations/9/repos?page=2", None));
        assert!(may("org:o", "/organizations/9/repos", None) && !may("repo:o/r", "/organizations/9/repos", None));
        assert!(may("/users/u/repos", "/user/9/repos?page=2", None) && !may("/users/u/repos", "/user/repos", None));
        assert!(!may("repo-id:8", page, None) && may("repo-id:7", page, None));
        assert!(is_same_resource("/repos/o/r/issues", "/repositories/7/issues") && is_same_resource("/x", "/x"));
        for other in ["/repositories/7/hooks", "/repos/o/x/issues", "/organizations/7/issues", "/user"] {
            assert!(!is_same_resource("/repos/o/r/issues", other), "{other}");
        }
    }

    #[test]
    fn what_names_nothing_is_refused_with_advice() {
        for text in ["", "repo:acme", "repo-id:x", "family:nope", "abc", "tag", "org:"] {
            assert!(text.parse::<Scope>().unwrap_err().to_string().contains("repo:OWNER/NAME"), "{text}");
        }
    }
}
