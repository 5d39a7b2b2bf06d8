//! Responses that depend on what a token may do, where one partition stands for several tokens.
//!
//! Knows: which requests a job's `permissions:` select the response of. Does not know: what a token may do;
//! GitHub's 304 to that token says so.
//!
//! All job tokens of a repository share its partition, and workflows give them different permissions (GitHub,
//! "Controlling permissions for `GITHUB_TOKEN`"). A release is a draft that only `contents: write` sees, the
//! repository's own object lists `permissions`, and a 404 may stand for "not with this token".

use crate::entry::Entry;
use crate::request::{Method, Request};

use super::Signer;
use super::class::{ByPermission, Class};

/// Words of GraphQL documents that ask for what depends on permissions: drafts, alerts, who may do what.
const BOUND_FIELDS: &[&str] = &[
    "elease",
    "viewerCan",
    "viewerPermission",
    "ollaborator",
    "lert",
    "dvisor",
    "branchProtection",
    "uleset",
    "eployKeys",
    "nvironment",
    "ermission",
    "viewerAllowed",
    "interactionAbility",
    // Anything, by its address or its ID.
    "resource",
    "node(",
    "node (",
    "nodes(",
    "nodes (",
];

/// Words of GraphQL documents that ask for security alerts and advisories, which stay out of bundles.
const ALERT_FIELDS: &[&str] = &["lert", "dvisor"];

/// Whether a GraphQL document asks for what the class `alerts` is for.
pub fn asks_for_alerts(body: &[u8]) -> bool {
    holds_one(body, ALERT_FIELDS)
}

fn holds_one(body: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| memchr::memmem::find(body, word.as_bytes()).is_some())
}

/// Whether `entry`, stored under the requester's partition, may answer without a word of GitHub's: the tokens
/// are the same, or they make no difference.
pub fn may_answer(entry: &Entry, request: &Request, class: &Class, requester: &Signer) -> bool {
    !depend_on_permissions(entry, request, class) || entry.token_digest == requester.token_digest
}

/// Whether tokens of one partition may get different responses. Only a job's own repository can make a
/// difference: elsewhere all of its tokens read what is public.
pub fn depend_on_permissions(entry: &Entry, request: &Request, class: &Class) -> bool {
    let Some(own) = entry.parts.partition.job_repository() else { return false };
    match &request.method {
        Method::Graphql(body) => holds_one(body, BOUND_FIELDS),
        // Made of fields that every reader of a repository sees.
        Method::Projected => false,
        Method::Get | Method::Head => {
            let is_negative = matches!(entry.status, 404 | 410 | 451);
            let by_content = match class.by_permission {
                ByPermission::Never => false,
                ByPermission::OwnRepository => names_repository(&entry.body, own),
                ByPermission::Always => true,
            };
            (is_negative || by_content) && !is_of_another_repository(&request.path, own)
        }
    }
}

/// Whether a path names a repository, and not `own` (`owner/name`). A path by number may be of any: the listing
/// that led to it may have begun at an old name of `own`.
fn is_of_another_repository(path: &str, own: &str) -> bool {
    let mut names = path.split('/').skip(1);
    if !names.next().is_some_and(|kind| matches!(kind, "repos" | "networks")) {
        return false;
    }
    let (owner, name) = own.split_once('/').unwrap_or((own, ""));
    let same = |segment: Option<&str>, wanted: &str| segment.is_some_and(|text| text.eq_ignore_ascii_case(wanted));
    let of_owner = same(names.next(), owner);
    let named = names.next();
    // GitHub takes `name.git` for `name`.
    let bare = named.and_then(|text| text.len().checked_sub(4).and_then(|at| text.split_at_checked(at)));
    let is_git = bare.is_some_and(|(_, end)| end.eq_ignore_ascii_case(".git"));
    !(of_owner && (same(named, name) || (is_git && same(bare.map(|(start, _)| start), name))))
}

/// Whether a body holds the name of a repository (`owner/name`) as the end of a string.
fn names_repository(body: &[u8], own: &str) -> bool {
    let (owner, name) = own.split_once('/').unwrap_or((own, ""));
    memchr::memchr_iter(b'/', body).any(|at| {
        let (before, after) = (&body[..at], &body[at + 1..]);
        let same =
            |text: Option<&[u8]>, wanted: &str| text.is_some_and(|text| text.eq_ignore_ascii_case(wanted.as_bytes()));
        same(at.checked_sub(owner.len()).map(|start| &before[start..]), owner)
            && same(after.get(..name.len()), name)
            && after.get(name.len()) == Some(&b'"')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;
    use crate::partition::Partition;
    use crate::policy::class;
    use crate::request::Api;

    fn depends(partition: &Partition, path: &str, status: u16) -> bool {
        let request = Request::get(&Api::github(), path).unwrap();
        let mut entry = entry(path, br#"[{"full_name":"O/R","url":"https://api.github.com/repos/O/R"}]"#);
        entry.status = status;
        entry.parts.partition = partition.clone();
        depend_on_permissions(&entry, &request, class::of(&request.path, &request.query))
    }

    #[test]
    fn only_a_jobs_own_repository_makes_a_difference() {
        let job = Partition::repository("o/r").unwrap();
        for path in [
            "/repos/o/r",
            "/repos/O/R/releases",
            "/repos/o/r/releases/2",
            "/repositories/7/releases?page=2",
            "/repos/o/r/collaborators",
            "/repos/o/r/actions/variables",
            "/orgs/o/repos",
            "/installation/repositories",
            "/search/repositories?q=x",
        ] {
            assert!(depends(&job, path, 200), "{path}");
            assert!(!depends(&Partition::named("x").unwrap(), path, 200), "{path}");
        }
        for path in ["/repos/o/r/issues", "/repos/o/r2/releases", "/repos/x/r", "/users/o", "/repos/o/r/languages"] {
            assert!(!depends(&job, path, 200), "{path}");
        }
        // A list without the job's own repository is the same for all of its tokens.
        let other = Partition::repository("o/other").unwrap();
        assert!(!depends(&other, "/orgs/o/repos", 200) && !depends(&other, "/search/repositories?q=x", 200));
        assert!(depends(&job, "/repos/o/r/issues/7", 404) && !depends(&job, "/repos/x/r/issues/7", 404));
    }

    #[test]
    fn a_listing_that_began_at_an_old_name_makes_no_difference_less() {
        let job = Partition::repository("o/r").unwrap();
        let mut entry = entry("/repositories/7/releases", b"[]");
        entry.parts.partition = job.clone();
        entry.listing = Some("/repos/o/old/releases".into());
        let mut request = Request::get(&Api::github(), "/repositories/7/releases").unwrap();
        let class = class::of(&request.path, &request.query);
        assert!(depend_on_permissions(&entry, &request, class));
        request.listing = Some("/repos/o/old/releases".into());
        assert!(depend_on_permissions(&entry, &request, class));
        assert!(depends(&job, "/repos/o/r.git/releases", 200) && !depends(&job, "/repos/o/s.git/releases", 200));
    }

    #[test]
    fn documents_that_ask_for_it_depend_on_permissions() {
        let mut entry = entry("/graphql", b"{}");
        entry.parts.partition = Partition::repository("o/r").unwrap();
        let class = class::of("/graphql", "");
        let of = |text: &'static str| {
            depend_on_permissions(&entry, &Request::graphql(&Api::github(), text.as_bytes()), class)
        };
        assert!(of("{ repository { releases(first: 9) { nodes { isDraft } } } }"));
        assert!(of("{ repository { viewerPermission } }") && of("{ repository { latestRelease { name } } }"));
        assert!(!of("{ repository { issues { totalCount } } }"));
    }
}
