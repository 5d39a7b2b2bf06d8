//! All pages of a listing (A7).
//!
//! Knows: following `Link`, and that pages belong together. Does not know: what is on them.
//!
//! A listing is one fact spread over several answers: when one page must be asked again, an item
//! may have moved to its neighbour. So the pages answer from the store only when all are fresh and
//! were validated in one pass; else every page is revalidated, which is free where nothing changed.

use super::{Answer, Ask, Cache};
use crate::error::{Error, Kind, Result};
use crate::link;
use crate::policy::Mode;
use crate::request::Request;

/// More pages than this are an error: at 100 items each, no listing of GitHub's is longer.
const MAX_PAGES: usize = 1_000;

/// Pages were validated in one pass if neighbours' times are at most so many seconds apart.
const ONE_PASS_SECS: u64 = 60;

impl Cache {
    /// All pages of the listing that begins with `first`, in order.
    pub async fn get_pages(&self, first: &Request, ask: &Ask) -> Result<Vec<Answer>> {
        let started = self.now();
        match self.walk(first, ask).await? {
            Walk::OnePass(pages) => Ok(pages),
            Walk::Mixed { requests, not_modified } => {
                // What was asked a moment ago counts as this pass; only older pages are asked.
                let ask = Ask { validated_since: Some(started), ..*ask };
                let mut pages = match self.walk(first, &ask).await? {
                    Walk::OnePass(pages) => pages,
                    Walk::Mixed { .. } => return Err(Error::new(Kind::Internal, "a second pass over pages was mixed")),
                };
                if let Some(page) = pages.first_mut() {
                    page.requests += requests;
                    page.not_modified += not_modified;
                }
                Ok(pages)
            }
        }
    }

    async fn walk(&self, first: &Request, ask: &Ask) -> Result<Walk> {
        let may_restart = ask.mode == Mode::Default && ask.validated_since.is_none();
        let mut pages: Vec<Answer> = Vec::new();
        let mut request = first.clone();
        loop {
            let page = self.get(&request, ask).await?;
            let mixed = may_restart && pages.last().is_some_and(|before| !same_pass(before, &page));
            let next = page
                .entry
                .headers
                .get("link")
                .and_then(link::next)
                .map(|next| request.follow(&self.api, next).ok_or_else(|| elsewhere(first)));
            pages.push(page);
            if mixed {
                return Ok(Walk::Mixed {
                    requests: pages.iter().map(|page| page.requests).sum(),
                    not_modified: pages.iter().map(|page| page.not_modified).sum(),
                });
            }
            request = match next {
                None => return Ok(Walk::OnePass(pages)),
                Some(next) => next?,
            };
            if pages.len() >= MAX_PAGES {
                return Err(Error::new(Kind::TooLarge, format!("{} has more than {MAX_PAGES} pages", first.target()))
                    .hint("narrow it with a filter"));
            }
        }
    }
}

enum Walk {
    /// All pages show one moment.
    OnePass(Vec<Answer>),
    /// Some do not; what it cost to find out.
    Mixed { requests: u32, not_modified: u32 },
}

fn elsewhere(first: &Request) -> Error {
    Error::new(
        Kind::Corrupt,
        format!("the next page of {} is said to be on another host; it is not followed", first.target()),
    )
}

/// Whether two neighbouring pages show the listing at one time.
fn same_pass(before: &Answer, after: &Answer) -> bool {
    let (a, b) = (before.entry.validated_at, after.entry.validated_at);
    a.since(b).max(b.since(a)) <= ONE_PASS_SECS
}
