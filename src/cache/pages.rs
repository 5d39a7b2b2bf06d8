//! All pages of a listing (A7).
//!
//! Knows: following `Link`, and that pages belong together. Does not know: what is on them.
//!
//! A listing is one fact spread over several answers: when one page must be asked again, an item
//! may have moved to its neighbour. So the pages answer from the store only when all are fresh and
//! were validated in one pass; else every page is revalidated, which is free where nothing changed.
//!
//! GitHub's entity tags are made of bodies alone: a last page that is full may go on being "not
//! modified" when another page has come after it. So behind a full last page that was confirmed, now or by a reader of its
//! body alone, the page after is asked for, with the tag of an empty list; that is free while there is none.

use std::sync::Arc;

use super::{Answer, Ask, Cache, Spent, stale_reason};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::link;
use crate::outcome::{NoStore, Outcome};
use crate::policy::{LinkUse, Mode};
use crate::request::Request;

/// More pages than this are an error, and it is told before they are asked for: a million items at 100 each.
pub const MAX_PAGES: usize = 10_000;

/// GitHub gives no more items on a page, whatever is asked for.
const MAX_PER_PAGE: usize = 100;

/// Pages were validated in one pass if neighbours' times are at most so many seconds apart.
const ONE_PASS_SECS: u64 = 60;

/// From one page to the next a walk takes no longer, else its pages are confirmed once more; in seconds.
const NEXT_PAGE_SECS: u64 = 10;

impl Cache {
    /// All pages of the listing that begins with `first`, in order.
    pub async fn get_pages(&self, first: &Request, ask: &Ask) -> Result<Vec<Answer>> {
        let started = self.now();
        match self.walk(first, ask).await? {
            Walk::OnePass(pages) => Ok(pages),
            Walk::Mixed(spent) => {
                // What was asked a moment ago counts as this pass; only older pages are asked.
                let ask = Ask { validated_since: Some(started), ..*ask };
                let mut pages = match self.walk(first, &ask).await? {
                    Walk::OnePass(pages) => pages,
                    Walk::Mixed(_) => return Err(Error::new(Kind::Internal, "a second pass over pages was mixed")),
                };
                if let Some(page) = pages.first_mut() {
                    page.add(spent);
                }
                Ok(pages)
            }
        }
    }

    async fn walk(&self, first: &Request, ask: &Ask) -> Result<Walk> {
        let may_restart = ask.mode == Mode::Default && ask.validated_since.is_none();
        let mut pages: Vec<Answer> = Vec::new();
        let mut request = first.clone();
        // A listing may have no items at all; pages after the first are there for a reason.
        let mut ask = Ask { maybe_empty: true, link: LinkUse::Followed, ..*ask };
        loop {
            let mut page = self.get(&request, &ask).await?;
            ask.maybe_empty = false;
            let mut mixed = may_restart && !is_one_pass(&pages, &page);
            if !mixed && let Some(after) = page_after(&request, &page, ask.mode) {
                let was_stored = matches!(page.outcome, Outcome::Hit(_));
                // What has come behind may have moved something out of a page from the store.
                if let Some(is_there) = self.look_behind(&after, &mut page, &ask).await {
                    mixed = is_there && was_stored && may_restart;
                } else {
                    page = self.by_own_link(&request, page, &ask).await?;
                }
            }
            if pages.is_empty() && last_page(&page.entry).is_some_and(|last| last > MAX_PAGES as u64) {
                return Err(too_many(first));
            }
            let next = page
                .entry
                .headers
                .get("link")
                .and_then(link::next)
                .map(|next| request.follow(&self.api, next).ok_or_else(|| elsewhere(first)));
            pages.push(page);
            if mixed {
                let mut spent = Spent::default();
                for page in &pages {
                    spent.add(page.spent());
                }
                return Ok(Walk::Mixed(spent));
            }
            request = match next {
                None => return Ok(Walk::OnePass(pages)),
                Some(next) => next?,
            };
            if pages.len() >= MAX_PAGES {
                return Err(too_many(first));
            }
        }
    }

    /// A last page of which it cannot be known whether there is one behind it: its own `Link` has to say, sent anew. Without that
    /// it is a stale answer, and says so.
    async fn by_own_link(&self, request: &Request, page: Answer, ask: &Ask) -> Result<Answer> {
        let spent = page.spent();
        match self.get(request, &Ask { mode: Mode::Reload, ..*ask }).await {
            Ok(mut again) => {
                again.add(spent);
                Ok(again)
            }
            Err(error) if error.allows_stale() => {
                self.say_stale(request, &error);
                let mut stale = Answer { outcome: Outcome::Stale(stale_reason(&error)), ..page };
                stale.add(Spent::before(&error));
                Ok(stale)
            }
            Err(error) => Err(spent.and_then(error)),
        }
    }

    /// Asks for the page after a full last one, and says whether there is one by now, if that can be known. Then the link to
    /// it is added to what is stored, so that later readers find it, too.
    async fn look_behind(&self, after: &Request, last: &mut Answer, ask: &Ask) -> Option<bool> {
        let behind = match self.get(after, &Ask { maybe_empty: true, ..*ask }).await {
            Ok(behind) => behind,
            Err(error) => {
                last.add(Spent::before(&error));
                tracing::debug!(%error, target = %after.target(), "whether there is one more page is not known");
                return None;
            }
        };
        last.add(behind.spent());
        if !proves(behind.outcome) {
            return None;
        }
        if behind.outcome.weight() > last.outcome.weight() && matches!(last.outcome, Outcome::Hit(_)) {
            last.outcome = behind.outcome;
        }
        let is_there = is_page_behind(&last.entry, &behind.entry);
        if is_there {
            let link = format!("<{}>; rel=\"next\"", self.api.url(after));
            let links = last.entry.headers.get("link").map_or_else(|| link.clone(), |old| format!("{old}, {link}"));
            Arc::make_mut(&mut last.entry).headers.set("link", links);
            self.stack.keep_in_memory(&last.entry.key(), &last.entry);
            self.stack.put(&last.entry);
        }
        Some(is_there)
    }
}

/// Whether an answer shows what a page is: not one that was so once, or a part.
pub(super) fn proves(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Stale(_) | Outcome::NotStored(NoStore::PartialResults | NoStore::StaleElsewhere))
}

/// The request for the page after `page`, if that was confirmed rather than sent anew, just now or since its `Link` was seen.
/// Who wants nothing to be sent takes what is stored.
fn page_after(request: &Request, page: &Answer, mode: Mode) -> Option<Request> {
    let may_ask = matches!(mode, Mode::Default | Mode::NoCache);
    let confirmed = match page.outcome {
        Outcome::Revalidated | Outcome::Confirmed => true,
        Outcome::Hit(_) => may_ask && page.entry.link_validated_at.is_some(),
        _ => false,
    };
    if confirmed { request_behind(request, &page.entry) } else { None }
}

/// The request for the page after the one that `entry` is, if that is full and has no successor;
/// only of listings whose pages have numbers.
pub fn request_behind(request: &Request, entry: &Entry) -> Option<Request> {
    if entry.headers.get("link").and_then(link::next).is_some() || has_cursor(request) {
        return None;
    }
    let number = |name: &str, default: usize| request.param(name).map_or(Some(default), |text| text.parse().ok());
    let full = item_count(&entry.body)? >= number("per_page", 30)?.clamp(1, MAX_PER_PAGE);
    full.then(|| request.with_param("page", &(number("page", 1)? + 1).to_string())).flatten()
}

/// Whether what came for the page behind a full one is such a page: it has items, and leads back, as far as its `Link` is known. A
/// listing by cursors takes no heed of numbers, and answers with its first page again.
pub(super) fn is_page_behind(page: &Entry, behind: &Entry) -> bool {
    let leads_back = behind.headers.get("link").is_some_and(|link| link::prev(link).is_some());
    let may_lead_back = leads_back || behind.link_validated_at == Some(Timestamp::default());
    may_lead_back && behind.cid != page.cid && item_count(&behind.body).is_some_and(|count| count > 0)
}

/// Whether pages of this listing are found by cursors: `after` and the like, and `since` where that is a number of the listing's
/// items (GitHub, "List users", "List organizations", "List public repositories"). Elsewhere `since` is a filter by time.
fn has_cursor(request: &Request) -> bool {
    let is_by_id = matches!(request.path.as_str(), "/users" | "/organizations" | "/repositories");
    ["after", "before", "cursor"].iter().any(|name| request.param(name).is_some())
        || (is_by_id && request.param("since").is_some())
}

/// Items of a body that is a list.
pub(super) fn item_count(body: &[u8]) -> Option<usize> {
    if !body.trim_ascii_start().starts_with(b"[") {
        return None;
    }
    serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(body).ok().map(|items| items.len())
}

enum Walk {
    /// All pages show one moment.
    OnePass(Vec<Answer>),
    /// Some do not; what it cost to find out.
    Mixed(Spent),
}

/// The number of the last page, where `Link` tells it.
fn last_page(page: &Entry) -> Option<u64> {
    let last = page.headers.get("link").and_then(link::last)?;
    let (_, query) = last.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("page=")?.parse().ok())
}

fn too_many(first: &Request) -> Error {
    let text = format!("{} has more than {MAX_PAGES} pages", first.target());
    Error::new(Kind::TooLarge, text).hint("narrow it with a filter")
}

fn elsewhere(first: &Request) -> Error {
    Error::new(
        Kind::Corrupt,
        format!("the next page of {} is said to be on another host; it is not followed", first.target()),
    )
}

/// Whether a page shows the listing at the time of the one before it. Each body was current from when it came until it was
/// last confirmed: there must be a moment when both were, but for the time that a walk takes from one to the next. What has
/// just been asked for may have moved on, and back, since a page from the store was validated, however short ago that is.
fn is_one_pass(pages: &[Answer], page: &Answer) -> bool {
    let Some(before) = pages.last() else { return true };
    let (one, other) = (&before.entry, &page.entry);
    let is_new = !matches!(page.outcome, Outcome::Hit(_) | Outcome::Stale(_));
    let is_mixed = is_new && pages.iter().any(|page| matches!(page.outcome, Outcome::Hit(_)));
    let apart_secs = one.validated_at.since(other.validated_at).max(other.validated_at.since(one.validated_at));
    let is_later = other.validated_at >= one.fetched_at;
    let is_near = other.fetched_at <= one.validated_at.plus(NEXT_PAGE_SECS);
    !is_mixed && apart_secs <= ONE_PASS_SECS && is_later && is_near
}
