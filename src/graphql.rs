//! REST resources that GraphQL can give for many repositories at once (B4).
//!
//! Knows: which resources, the documents that ask for them, and how answers become what REST would
//! have said. Does not know: caches, requests on the wire, when batching pays.

pub mod document;
pub mod locations;
pub mod operation;
pub mod project;
pub mod shape;

use crate::request::{Method, Request};

/// A resource of an owner's or a repository's that a batch can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Facet {
    /// `/orgs/ORG/repos`.
    OrgRepos,
    /// `/repos/OWNER/NAME`.
    Repo,
    /// `/repos/OWNER/NAME/languages`.
    Languages,
    /// `/repos/OWNER/NAME/issues`: issues and pull requests, newest first.
    Issues(State),
}

/// Which issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Open ones.
    Open,
    /// Closed (and merged) ones.
    Closed,
    /// All of them.
    All,
}

/// What a batch is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What of it.
    pub facet: Facet,
    /// The organisation, or the repository's owner.
    pub owner: String,
    /// The repository; empty for an organisation.
    pub name: String,
}

impl Item {
    /// The item that a REST request is about, if a batch can hold it: a plain `GET` without
    /// parameters that GraphQL would not understand.
    pub fn of(request: &Request) -> Option<Self> {
        if !matches!(request.method, Method::Get | Method::Projected) || request.accept != crate::request::PLAIN_JSON {
            return None;
        }
        let segments: Vec<&str> = request.path.split('/').skip(1).collect();
        let (facet, owner, name) = match segments.as_slice() {
            ["orgs", org, "repos"] => (Facet::OrgRepos, *org, ""),
            ["repos", owner, name] => (Facet::Repo, *owner, *name),
            ["repos", owner, name, "languages"] => (Facet::Languages, *owner, *name),
            ["repos", owner, name, "issues"] => {
                let state = match request.param("state") {
                    None | Some("open") => State::Open,
                    Some("closed") => State::Closed,
                    Some("all") => State::All,
                    Some(_) => return None,
                };
                (Facet::Issues(state), *owner, *name)
            }
            _ => return None,
        };
        let known = |pair: &str| match pair.split('=').next() {
            None | Some("") => true,
            Some("per_page") => facet != Facet::Repo && facet != Facet::Languages,
            Some("state") => matches!(facet, Facet::Issues(_)),
            Some(_) => false,
        };
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let fits = request.query.split('&').all(known) && plain(owner) && plain(name) && !owner.is_empty();
        fits.then(|| Self { facet, owner: owner.to_owned(), name: name.to_owned() })
    }

    /// Whether its pages make a list.
    pub fn is_list(&self) -> bool {
        matches!(self.facet, Facet::OrgRepos | Facet::Issues(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Api;

    #[test]
    fn only_what_graphql_understands() {
        let item = |path: &str| Item::of(&Request::get(&Api::github(), path).unwrap()).map(|item| item.facet);
        assert_eq!(item("/repos/o/r"), Some(Facet::Repo));
        assert_eq!(item("/repos/o/r/languages"), Some(Facet::Languages));
        assert_eq!(item("/repos/o/r/issues?state=all&per_page=100"), Some(Facet::Issues(State::All)));
        assert_eq!(item("/repos/o/r/issues"), Some(Facet::Issues(State::Open)));
        assert_eq!(item("/orgs/o/repos?per_page=50"), Some(Facet::OrgRepos));
        for other in ["/repos/o/r/issues?labels=x", "/repos/o/r?x=1", "/repos/o/r/issues/1", "/repos/o/r%20", "/orgs/o"]
        {
            assert_eq!(item(other), None, "{other}");
        }
    }
}
