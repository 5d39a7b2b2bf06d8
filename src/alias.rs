//! Names and numbers of one resource: `/repos/o/r` and `/repositories/7` are the same repository, and so is the name that it
//! had before it was renamed.
//!
//! GitHub leads from names to numbers in `Link` and `Location`, and names both in the objects themselves ("Using pagination in
//! the REST API", "Best practices: Follow redirects").
//!
//! Knows: which paths are of one resource, and which answers tell it. Does not know: files, invalidations.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address;
use crate::entry::Entry;
use crate::link;

/// More pairs than this are not remembered: the first that were learned are forgotten.
pub const MAX_ALIASES: usize = 10_000;

/// Names of GitHub's are much shorter (100 characters for a repository, 39 for its owner).
const MAX_ROOT_BYTES: usize = 200;

/// Larger bodies are not searched for names and numbers.
const MAX_SEARCHED_BYTES: usize = 4 << 20;

/// What a path with a number, or a name, is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/repos/OWNER/NAME`, `/repositories/ID`.
    Repository,
    /// `/orgs/NAME`, `/organizations/ID`.
    Organization,
    /// `/users/NAME`, `/user/ID`.
    User,
}

/// A path, split behind the name or number that it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split<'a> {
    /// What the name or number is of.
    pub kind: Kind,
    /// The beginning, such as `/repos/o/r`.
    pub root: &'a str,
    /// The rest: empty, or from a slash on.
    pub below: &'a str,
}

impl<'a> Split<'a> {
    /// A path that has a number in the place of a name.
    pub fn by_number(path: &'a str) -> Option<Self> {
        let (kind, rest) = path.strip_prefix('/')?.split_once('/')?;
        let len = rest.find('/').unwrap_or(rest.len());
        let is_number = len > 0 && rest[..len].bytes().all(|b| b.is_ascii_digit());
        let of_kind = match kind {
            "repositories" => Kind::Repository,
            "organizations" => Kind::Organization,
            "user" => Kind::User,
            _ => return None,
        };
        let (root, below) = path.split_at(kind.len() + 2 + len);
        is_number.then_some(Self { kind: of_kind, root, below })
    }

    /// A path that has a name.
    pub fn by_name(path: &'a str) -> Option<Self> {
        let kind = match path.split('/').nth(1)? {
            "repos" | "networks" => Kind::Repository,
            "orgs" => Kind::Organization,
            "users" => Kind::User,
            _ => return None,
        };
        let (root, below) = path.split_at(address::named_part(path));
        Some(Self { kind, root, below })
    }

    fn of(path: &'a str) -> Option<Self> {
        Self::by_number(path).or_else(|| Self::by_name(path))
    }
}

/// Whether a path is one that has a number in the place of a name.
pub fn is_by_number(path: &str) -> bool {
    Split::by_number(path).is_some()
}

/// Whether two paths are of one resource as far as they tell: the same one, or one by name and one by number.
pub fn is_same_resource(path: &str, other: &str) -> bool {
    let of = |path| Split::of(path).map(|split: Split<'_>| (split.kind, split.below));
    path == other || ((is_by_number(path) || is_by_number(other)) && of(path).is_some_and(|one| of(other) == Some(one)))
}

/// A name and the number of the same resource, as beginnings of paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alias(String, String);

impl Alias {
    /// What two paths tell, one by name and one by number.
    pub fn between(path: &str, other: &str) -> Option<Self> {
        let (name, number) = if is_by_number(path) { (other, path) } else { (path, other) };
        let (name, number) = (Split::by_name(name)?, Split::by_number(number)?);
        let is_one = name.kind == number.kind && name.below == number.below && !name.root.starts_with("/networks/");
        if is_one { Self::read(name.root, number.root) } else { None }
    }

    /// A repository by its number and `owner/name`.
    pub fn of_repository(id: u64, full_name: &str) -> Option<Self> {
        Self::read(&format!("/repos/{full_name}"), &format!("/repositories/{id}"))
    }

    /// A pair as it was written somewhere; `None` when it is none.
    pub fn read(name: &str, number: &str) -> Option<Self> {
        let (by_name, by_number) = (Split::by_name(name)?, Split::by_number(number)?);
        let fits = |root: &str| {
            root.len() <= MAX_ROOT_BYTES && root.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./[]".contains(&b))
        };
        let parts = if by_name.kind == Kind::Repository { 4 } else { 3 };
        let is_part = |part: &str| !matches!(part, "" | "." | "..");
        let is_whole = name.split('/').count() == parts && name.split('/').skip(1).all(is_part);
        let is_pair = by_name.kind == by_number.kind
            && by_name.below.is_empty()
            && by_number.below.is_empty()
            && !name.starts_with("/networks/")
            && is_whole
            && fits(name)
            && fits(number);
        is_pair.then(|| Self(name.to_ascii_lowercase(), number.to_owned()))
    }

    /// Both, the name first.
    pub fn roots(&self) -> (&str, &str) {
        (&self.0, &self.1)
    }

    /// What an entry tells by its `Link`, its `Location`, the listing that it belongs to, and its body where that is a
    /// repository, organisation or user, or a list of repositories.
    pub fn taught_by(entry: &Entry) -> Vec<Self> {
        let path = entry.parts.path.as_str();
        let Some(split) = Split::of(path) else { return of_repositories_of(path, &entry.body) };
        let location = entry.headers.get("location").and_then(|url| leads_to(entry, url));
        let listing = entry.listing.as_deref().and_then(|listing| Self::between(listing, path));
        let mut taught: Vec<Self> = Self::by_link(entry).into_iter().chain(location).chain(listing).collect();
        if entry.status == 200 {
            match split.below {
                "" => taught.extend(of_object(split, &entry.body)),
                "/repos" => taught.extend(of_repositories(&entry.body)),
                _ => {}
            }
        }
        taught
    }

    /// What an entry tells by its `Link`.
    pub fn by_link(entry: &Entry) -> Option<Self> {
        link::targets(entry.headers.get("link")?).find_map(|url| leads_to(entry, url))
    }
}

/// What it tells that an entry leads to an address.
fn leads_to(entry: &Entry, url: &str) -> Option<Alias> {
    let target = local(&entry.parts.host, url)?;
    Alias::between(&entry.parts.path, target.split(['?', '#']).next().unwrap_or(target))
}

/// The path of an address at the API for which `key_base` stands ([`Api::key_base`](crate::request::Api::key_base)).
fn local<'a>(key_base: &str, url: &'a str) -> Option<&'a str> {
    if url.starts_with('/') {
        return Some(url);
    }
    let rest = if key_base.contains("://") {
        url.strip_prefix(key_base)?
    } else {
        let rest = url.strip_prefix("https://")?.strip_prefix(key_base)?;
        rest.strip_prefix("/api/v3").unwrap_or(rest)
    };
    rest.starts_with('/').then_some(rest)
}

#[derive(Deserialize)]
struct Object {
    id: u64,
    full_name: Option<String>,
    login: Option<String>,
}

fn of_object(split: Split<'_>, body: &Bytes) -> Option<Alias> {
    // A list would pass for an object's fields in their order.
    let object: Object = searched(body).filter(|_| body.trim_ascii_start().first() == Some(&b'{'))?;
    match split.kind {
        Kind::Repository => Alias::of_repository(object.id, object.full_name.as_deref()?),
        Kind::Organization => {
            Alias::read(&format!("/orgs/{}", object.login?), &format!("/organizations/{}", object.id))
        }
        Kind::User => Alias::read(&format!("/users/{}", object.login?), &format!("/user/{}", object.id)),
    }
}

/// Paths without a name whose lists are of repositories.
fn of_repositories_of(path: &str, body: &Bytes) -> Vec<Alias> {
    if matches!(path, "/user/repos" | "/repositories" | "/user/starred") { of_repositories(body) } else { Vec::new() }
}

fn of_repositories(body: &Bytes) -> Vec<Alias> {
    let objects: Vec<Object> = searched(body).unwrap_or_default();
    objects.iter().filter_map(|object| Alias::of_repository(object.id, object.full_name.as_deref()?)).collect()
}

fn searched<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Option<T> {
    (body.len() <= MAX_SEARCHED_BYTES).then(|| serde_json::from_slice(body).ok()).flatten()
}

/// Pairs that are known. A name that was given away has several numbers, a renamed resource several names.
#[derive(Debug, Clone, Default)]
pub struct Aliases {
    /// In the order in which they were learned.
    all: VecDeque<Alias>,
    known: HashSet<Alias>,
    others: HashMap<String, Vec<String>>,
}

impl Aliases {
    /// Adds a pair. `false` when it is known.
    pub fn add(&mut self, alias: Alias) -> bool {
        if !self.known.insert(alias.clone()) {
            return false;
        }
        if self.all.len() >= MAX_ALIASES
            && let Some(first) = self.all.pop_front()
        {
            self.forget(&first);
        }
        self.others.entry(alias.0.clone()).or_default().push(alias.1.clone());
        self.others.entry(alias.1.clone()).or_default().push(alias.0.clone());
        self.all.push_back(alias);
        true
    }

    /// Whether a pair is known.
    pub fn has(&self, alias: &Alias) -> bool {
        self.known.contains(alias)
    }

    fn forget(&mut self, alias: &Alias) {
        self.known.remove(alias);
        for (one, other) in [(&alias.0, &alias.1), (&alias.1, &alias.0)] {
            if let Some(list) = self.others.get_mut(one) {
                list.retain(|known| known != other);
                if list.is_empty() {
                    self.others.remove(one);
                }
            }
        }
    }

    /// All pairs, in the order in which they were learned.
    pub fn iter(&self) -> impl Iterator<Item = &Alias> {
        self.all.iter()
    }

    /// The pairs about the resource that `path` begins with.
    pub fn about(&self, path: &str) -> impl Iterator<Item = Alias> + '_ {
        let root = Split::of(path).map(|split| split.root.to_ascii_lowercase());
        let others = root.as_ref().and_then(|root| self.others.get(root));
        others.into_iter().flatten().filter_map(move |other| Alias::between(root.as_deref()?, other))
    }

    /// Other beginnings of paths of the same resource: its numbers, and all names of those.
    pub fn others(&self, root: &str) -> Vec<&str> {
        let root = root.to_ascii_lowercase();
        let first = self.others.get(&root).into_iter().flatten();
        let second = first.clone().filter_map(|one| self.others.get(one)).flatten();
        let mut found: Vec<&str> = Vec::new();
        for one in first.chain(second) {
            if *one != root && !found.contains(&one.as_str()) {
                found.push(one);
            }
        }
        found
    }

    /// Other paths of the same resource.
    pub fn paths(&self, path: &str) -> Vec<String> {
        let Some(split) = Split::of(path) else { return Vec::new() };
        self.others(split.root).into_iter().map(|root| format!("{root}{}", split.below)).collect()
    }
}

impl FromIterator<Alias> for Aliases {
    fn from_iter<T: IntoIterator<Item = Alias>>(pairs: T) -> Self {
        let mut all = Self::default();
        for alias in pairs {
            all.add(alias);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    fn alias(name: &str, number: &str) -> Alias {
        Alias::read(name, number).unwrap()
    }

    #[test]
    fn answers_tell_names_and_numbers() {
        let repo = [alias("/repos/o/r", "/repositories/7")];
        let mut page = entry("/repos/o/r/issues", b"[]");
        assert!(Alias::taught_by(&page).is_empty());
        let next = r#"<https://api.github.com/repositories/7/issues?page=2>; rel="next""#;
        page.headers.set("link", next.to_owned());
        assert_eq!(Alias::taught_by(&page), repo);
        for other in ["https://evil.example/repositories/7/issues", "https://api.github.com/repositories/7/pulls", "x"]
        {
            page.headers.set("link", format!(r#"<{other}>; rel="next""#));
            assert!(Alias::taught_by(&page).is_empty(), "{other}");
        }
        let mut moved = entry("/repos/old/r/issues", b"");
        moved.status = 301;
        moved.headers.set("location", "https://api.github.com/repositories/7/issues".into());
        assert_eq!(Alias::taught_by(&moved), [alias("/repos/old/r", "/repositories/7")]);
        let body = br#"{"id":7,"node_id":"x","full_name":"O/R","owner":{"id":1}}"#;
        assert_eq!(Alias::taught_by(&entry("/repos/o/r", body)), repo);
        assert_eq!(Alias::taught_by(&entry("/repositories/7", body)), repo);
        let list = br#"[{"id":7,"full_name":"o/r"},{"id":8,"full_name":"o/s"}]"#;
        assert_eq!(Alias::taught_by(&entry("/orgs/o/repos", list)).len(), 2);
        let account = br#"{"login":"Acme","id":9}"#;
        assert_eq!(Alias::taught_by(&entry("/orgs/acme", account)), [alias("/orgs/acme", "/organizations/9")]);
        assert_eq!(Alias::taught_by(&entry("/users/acme", account)), [alias("/users/acme", "/user/9")]);
        for hostile in
            [&b"{"[..], b"[1]", br#"{"id":-1}"#, br#"{"id":7,"full_name":"../x"}"#, br#"{"id":7,"full_name":"a b/c"}"#]
        {
            assert!(Alias::taught_by(&entry("/repos/o/r", hostile)).is_empty());
        }
    }

    #[test]
    fn a_resource_is_found_by_all_its_names() {
        let mut known = Aliases::default();
        assert!(
            known.add(alias("/repos/Old/r", "/repositories/7")) && known.add(alias("/repos/new/r", "/repositories/7"))
        );
        assert!(!known.add(alias("/repos/old/r", "/repositories/7")));
        assert_eq!(known.paths("/repos/NEW/r/issues/5"), ["/repositories/7/issues/5", "/repos/old/r/issues/5"]);
        assert_eq!(known.paths("/repositories/7"), ["/repos/old/r", "/repos/new/r"]);
        assert!(known.paths("/repos/other/r").is_empty() && known.paths("/user").is_empty());
        assert_eq!(known.about("/repos/old/r/pulls").collect::<Vec<_>>(), [alias("/repos/old/r", "/repositories/7")]);
        for id in 0..=MAX_ALIASES {
            known.add(Alias::of_repository(100 + id as u64, &format!("many/r{id}")).unwrap());
        }
        assert_eq!(known.iter().count(), MAX_ALIASES);
        assert!(known.paths("/repositories/7").is_empty(), "the first are forgotten");
    }

    #[test]
    fn numbers_and_names_of_one_kind_are_one_resource() {
        assert!(is_same_resource("/repos/o/r/issues", "/repositories/7/issues") && is_same_resource("/x", "/x"));
        for other in ["/repositories/7/hooks", "/repos/o/x/issues", "/organizations/7/issues", "/user"] {
            assert!(!is_same_resource("/repos/o/r/issues", other), "{other}");
        }
        for (name, number) in [
            ("/repos/o", "/repositories/7"),
            ("/orgs/o", "/user/7"),
            ("/repos/o/r/x", "/repositories/7"),
            ("/repos//r", "/repositories/7"),
        ] {
            assert_eq!(Alias::read(name, number), None, "{name}");
        }
    }
}
