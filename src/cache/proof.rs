//! Whether the `Link` of a page still holds after a 304.
//!
//! Knows: what `Link` says of other pages, and which requests prove it. Does not know: how one request is answered.
//!
//! GitHub's entity tags are made of bodies alone and its 304s carry no `Link`: a page goes on being "not modified" when
//! another page has come behind it, or has gone. A body of another partition says nothing of how many pages this requester
//! may see. So where somebody sees `Link` after a 304, the pages that it speaks of are asked for: with the tag that they have, or
//! with that of an empty list, which is free as long as it is so. Where they contradict it, the page is fetched anew. Whoever
//! walks a listing (`pages.rs`) finds its end by himself, and whoever takes the body alone needs no proof: for those the entry
//! notes that its `Link` is older than its body.

use std::sync::Arc;

use super::pages::{is_page_behind, item_count, proves, request_behind};
use super::passes::is_later_page;
use super::{Answer, Ask, Cache, Spent};
use crate::alias::is_same_resource;
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::link;
use crate::outcome::Outcome;
use crate::policy::LinkUse;
use crate::request::{Method, Request};
use crate::upstream::BoxFuture;

/// Pages that were validated at most so many seconds before count as of this moment, so that a client that walks a listing
/// does not have its last page asked for with each of the others.
const SAME_MOMENT_SECS: u64 = 60;

/// What the other pages say of a `Link`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkProof {
    /// It holds.
    Holds,
    /// It does not, or cannot be proven: the page is to be fetched.
    Broken,
}

impl Cache {
    /// Proves the `Link` of an entry that a 304 has just confirmed, or notes that it is not proven; `is_borrowed` for a body
    /// of another partition or token. What that costs is added to `spent`.
    pub(super) async fn settle_link(
        &self,
        request: &Request,
        mut entry: Entry,
        ask: &Ask,
        is_borrowed: bool,
        spent: &mut Spent,
    ) -> (Entry, LinkProof) {
        let proven = match entry.link_validated_at {
            _ if is_borrowed => Timestamp::default(),
            Some(at) => at,
            None => entry.fetched_at,
        };
        let is_known = proven != Timestamp::default();
        match ask.link {
            LinkUse::Unseen => {
                entry.link_validated_at = says_of_others(request, &entry).then_some(proven);
                if is_borrowed {
                    entry.headers.remove("link");
                }
            }
            LinkUse::Followed if is_known => {
                entry.link_validated_at = says_of_others(request, &entry).then_some(proven);
            }
            LinkUse::Followed if is_unprovable(request, &entry) => {
                entry.link_validated_at = Some(Timestamp::default());
            }
            LinkUse::Given | LinkUse::Followed if !is_known && !is_borrowed => return (entry, LinkProof::Broken),
            LinkUse::Given if is_borrowed && is_unprovable(request, &entry) => return (entry, LinkProof::Broken),
            LinkUse::Given | LinkUse::Followed => {
                let mut page = Answer::new(Arc::new(entry), Outcome::Revalidated, 0);
                let proof = self.prove_link(request, &mut page, ask, is_borrowed).await;
                spent.add(page.spent());
                let mut entry = Arc::unwrap_or_clone(page.entry);
                entry.link_validated_at = None;
                return (entry, proof);
            }
        }
        (entry, LinkProof::Holds)
    }

    async fn prove_link(&self, request: &Request, page: &mut Answer, ask: &Ask, is_borrowed: bool) -> LinkProof {
        if !says_of_others(request, &page.entry) {
            return LinkProof::Holds;
        }
        if is_borrowed && !self.are_pages_of(request, &page.entry) {
            return LinkProof::Broken;
        }
        let since = self.clock.now().minus(SAME_MOMENT_SECS);
        let link = page.entry.headers.get("link").unwrap_or_default().to_owned();
        let next = link::next(&link).map(str::to_owned);
        let Some(last) = link::last(&link).map(str::to_owned) else {
            return match next {
                None => match request_behind(request, &page.entry) {
                    Some(behind) => self.is_empty(&behind, page, ask, since).await,
                    None => LinkProof::Holds,
                },
                // A cursor of another's leads nowhere for this one.
                Some(next) if is_borrowed => self.has_items(&next, request, page, ask, since).await,
                Some(_) => LinkProof::Holds,
            };
        };
        let proof = self.has_items(&last, request, page, ask, since).await;
        if proof == LinkProof::Broken {
            return proof;
        }
        let behind = request.follow(&self.api, &last).and_then(|last| {
            let number: u64 = last.param("page")?.parse().ok()?;
            last.with_param("page", &(number + 1).to_string())
        });
        match behind {
            Some(behind) => self.is_empty(&behind, page, ask, since).await,
            None => LinkProof::Broken,
        }
    }

    /// Whether the `Link` of another partition's body leads to pages of this listing. One that was planted must not make this
    /// token read something else.
    fn are_pages_of(&self, request: &Request, page: &Entry) -> bool {
        let link = page.headers.get("link").unwrap_or_default();
        let without_page = |query: &str| {
            query.split('&').filter(|pair| !pair.starts_with("page=")).map(str::to_owned).collect::<Vec<_>>()
        };
        [link::next(link), link::last(link)].into_iter().flatten().all(|to| {
            request.follow(&self.api, to).is_some_and(|to| {
                is_same_resource(&request.path, &to.path) && without_page(&request.query) == without_page(&to.query)
            })
        })
    }

    async fn has_items(&self, link: &str, from: &Request, page: &mut Answer, ask: &Ask, since: Timestamp) -> LinkProof {
        let Some(request) = from.follow(&self.api, link) else { return LinkProof::Broken };
        if (&request.path, &request.query) == (&from.path, &from.query) {
            return LinkProof::Broken;
        }
        let other = self.other_page(&request, page, ask, since, false).await;
        match other.and_then(|other| item_count(&other.body)) {
            Some(count) if count > 0 => LinkProof::Holds,
            _ => LinkProof::Broken,
        }
    }

    /// That a page is empty, or refused: GitHub has a last page for some listings (events, releases). Where that cannot be known,
    /// nothing is proven.
    async fn is_empty(&self, request: &Request, page: &mut Answer, ask: &Ask, since: Timestamp) -> LinkProof {
        match self.other_page(request, page, ask, since, true).await {
            Some(other) if !is_page_behind(&page.entry, &other) => LinkProof::Holds,
            _ => LinkProof::Broken,
        }
    }

    async fn other_page(
        &self,
        request: &Request,
        page: &mut Answer,
        ask: &Ask,
        since: Timestamp,
        maybe_empty: bool,
    ) -> Option<Arc<Entry>> {
        let ask = Ask { maybe_empty, validated_since: Some(since), link: LinkUse::Followed, in_turn: true, ..*ask };
        match self.get_boxed(request, &ask).await {
            Ok(other) => {
                page.add(other.spent());
                Some(other.entry).filter(|_| proves(other.outcome))
            }
            Err(error) => {
                page.add(Spent::before(&error));
                tracing::debug!(%error, target = %request.target(), "whether a page is the last is not known");
                None
            }
        }
    }

    /// [`Cache::get`], which may be asked within itself.
    fn get_boxed<'a>(&'a self, request: &'a Request, ask: &'a Ask) -> BoxFuture<'a, crate::error::Result<Answer>> {
        Box::pin(self.get(request, ask))
    }
}

/// Whether `Link` of this response, or that it has none, says something of other pages. What is no list says itself how many
/// there are (`total_count`), so its tag does.
fn says_of_others(request: &Request, entry: &Entry) -> bool {
    request.method == Method::Get
        && is_list(&entry.body)
        && (entry.headers.get("link").is_some()
            || request_behind(request, entry).is_some()
            || is_unprovable(request, entry))
}

/// Whether it is a later page that is empty, or that has no `Link`. Each that GitHub sends has one, so a body without it was
/// guessed, or another's; and `[]` is the same for every repository that a name may belong to. Of its own a requester keeps
/// it, as a client does that gets a 304 from GitHub.
fn is_unprovable(request: &Request, entry: &Entry) -> bool {
    is_later_page(request)
        && is_list(&entry.body)
        && (entry.headers.get("link").is_none() || item_count(&entry.body) == Some(0))
}

fn is_list(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"[")
}
