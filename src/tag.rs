//! What a request is about: the scopes by which people invalidate (A15).
//!
//! Knows: repository, owner and family of a path. Does not know: cutoff times (`cutoff`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address;
use crate::alias::{self, Aliases, Kind, Split};
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

impl Subject<'_> {
    /// Whether it is found by a number, and no name of it is known: a listing may begin with a number, too.
    pub fn is_nameless(&self) -> bool {
        alias::is_by_number(&self.parts.path) && self.listing.is_none_or(alias::is_by_number)
    }
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
        let Some(named) = Split::by_number(path).filter(|_| subject.is_nameless()) else { return false };
        match self {
            Scope::All | Scope::Key(_) => false,
            Scope::Prefix(prefix) => Split::by_name(prefix).is_some_and(|other| {
                other.kind == named.kind && (other.below.is_empty() || named.below.starts_with(other.below))
            }),
            Scope::Tags(tags) => tags.iter().all(|tag| match tag {
                Tag::Repo(_) => named.kind == Kind::Repository,
                Tag::Org(_) | Tag::User(_) => true,
                Tag::RepoId(_) | Tag::Family(_) => tag.fits(path, &subject.parts.query),
            }),
        }
    }

    /// Whether it names what it covers by number.
    pub fn is_by_number(&self) -> bool {
        match self {
            Scope::All | Scope::Key(_) => false,
            Scope::Prefix(prefix) => alias::is_by_number(prefix),
            Scope::Tags(tags) => tags.iter().any(|tag| matches!(tag, Tag::RepoId(_))),
        }
    }

    /// The same scope of the same resources by their other names, and by their numbers.
    pub fn twins(&self, aliases: &Aliases) -> Vec<Self> {
        match self {
            Scope::All | Scope::Key(_) => Vec::new(),
            Scope::Prefix(prefix) => {
                let Some(split) = Split::by_number(prefix).or_else(|| Split::by_name(prefix)) else {
                    return Vec::new();
                };
                // `/repositories/7` is the beginning of `/repositories/77`, too.
                let twin = |root: &str| match (Tag::of_repository(root), split.below) {
                    (Some(tag), "") => Scope::Tags(vec![tag]),
                    (None, "") => Scope::Prefix(format!("{root}/")),
                    (_, below) => Scope::Prefix(format!("{root}{below}")),
                };
                aliases.others(split.root).into_iter().map(twin).collect()
            }
            Scope::Tags(tags) => {
                let twin = |at: usize, root: &str| {
                    let mut tags = tags.clone();
                    tags[at] = match &tags[at] {
                        Tag::Repo(_) | Tag::RepoId(_) => Tag::of_repository(root)?,
                        Tag::Org(_) => Tag::Org(root.strip_prefix("/orgs/")?.to_owned()),
                        Tag::User(_) => Tag::User(root.strip_prefix("/users/")?.to_owned()),
                        Tag::Family(_) => return None,
                    };
                    Some(Scope::Tags(tags))
                };
                let named = tags.iter().enumerate().filter_map(|(at, tag)| Some((at, tag.root()?)));
                let of = |(at, root): (usize, String)| {
                    aliases.others(&root).into_iter().filter_map(|root| twin(at, root)).collect::<Vec<_>>()
                };
                named.flat_map(of).collect()
            }
        }
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
    /// The tag of a repository whose paths begin so.
    fn of_repository(root: &str) -> Option<Self> {
        let name = root.strip_prefix("/repos/").map(|name| Tag::Repo(name.to_owned()));
        name.or_else(|| root.strip_prefix("/repositories/")?.parse().ok().map(Tag::RepoId))
    }

    /// What the paths of its resource begin with.
    fn root(&self) -> Option<String> {
        match self {
            Tag::Repo(name) => Some(format!("/repos/{name}")),
            Tag::RepoId(id) => Some(format!("/repositories/{id}")),
            Tag::Org(name) => Some(format!("/orgs/{name}")),
            Tag::User(name) => Some(format!("/users/{name}")),
            Tag::Family(_) => None,
        }
    }

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
    use crate::alias::Alias;
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
    }

    #[test]
    fn scopes_have_twins_under_every_name_and_number() {
        let pairs =
            [("/repos/old/r", "/repositories/7"), ("/repos/o/r", "/repositories/7"), ("/orgs/o", "/organizations/9")];
        let aliases: Aliases = pairs.iter().filter_map(|(name, number)| Alias::read(name, number)).collect();
        let twins = |scope: &str| {
            let twins = scope.parse::<Scope>().unwrap().twins(&aliases);
            twins.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(twins("repo:O/R+family:issues"), ["repo-id:7+family:issues", "repo:old/r+family:issues"]);
        assert_eq!(twins("repo-id:7"), ["repo:old/r", "repo:o/r"]);
        assert_eq!(twins("/repos/O/r/issues/5"), ["prefix:/repositories/7/issues/5", "prefix:/repos/old/r/issues/5"]);
        assert_eq!(twins("/repos/o/r"), ["repo-id:7", "repo:old/r"]);
        assert_eq!(twins("/orgs/o/teams"), ["prefix:/organizations/9/teams"]);
        assert_eq!(twins("/orgs/o"), ["prefix:/organizations/9/"]);
        for none in ["all", "abcd", "repo:o/other", "org:o", "family:issues", "/user/repos"] {
            assert!(twins(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn what_names_nothing_is_refused_with_advice() {
        for text in ["", "repo:acme", "repo-id:x", "family:nope", "abc", "tag", "org:"] {
            assert!(text.parse::<Scope>().unwrap_err().to_string().contains("repo:OWNER/NAME"), "{text}");
        }
    }
}
