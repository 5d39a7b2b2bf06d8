//! Freshness: may this entry answer, and what becomes of a reply (RFC 9111, with GitHub's rules).
//!
//! Knows: modes, lifetimes, statuses. Does not know: I/O, async or the clock; `now` is an
//! argument everywhere.

pub mod class;
mod lifetime;

pub use lifetime::{Lifetime, TtlTable};

use http::HeaderMap;
use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};

use crate::cid::Cid;
use crate::clock::Timestamp;
use crate::entry::{Entry, StoredHeaders};
use crate::key::KeyParts;
use crate::outcome::{Because, NoStore, StaleReason};
use crate::reply::Reply;
use crate::request::{Method, Request};

/// What may be used and asked (A8); the names are those of the Fetch standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Fresh entries answer, stale ones are revalidated.
    #[default]
    Default,
    /// Neither look nor store (`--no-cache`).
    NoStore,
    /// Do not look, but store (`--force-refresh`).
    Reload,
    /// Always revalidate (`--revalidate`).
    NoCache,
    /// Any entry answers, fresh or stale; only what is missing is fetched.
    ForceCache,
    /// Any entry answers; nothing is ever fetched (`--offline`).
    OnlyIfCached,
}

/// Preconditions that make a request conditional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// For `If-None-Match`.
    pub etag: Option<String>,
    /// For `If-Modified-Since`.
    pub last_modified: Option<String>,
}

impl Validators {
    /// What `entry` offers to the holder of the token with `token_digest`.
    ///
    /// GitHub's `ETag` depends on the token, so one that came to another token never matches and
    /// would even outrank a `Last-Modified` that does (RFC 9110 section 13.1.3): leave it out then.
    pub fn of(entry: &Entry, token_digest: Option<&str>) -> Self {
        let last_modified = entry.headers.get(LAST_MODIFIED.as_str()).map(str::to_owned);
        let same_token = entry.token_digest.as_deref() == token_digest;
        let etag = entry.headers.get(ETAG.as_str()).filter(|_| same_token || last_modified.is_none());
        Self { etag: etag.map(str::to_owned), last_modified }
    }

    /// Whether there is nothing to be conditional on.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// Writes the preconditions; a value that no header can carry is left out.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let pairs = [(IF_NONE_MATCH, &self.etag), (IF_MODIFIED_SINCE, &self.last_modified)];
        for (name, value) in pairs {
            if let Some(value) = value.as_deref().and_then(|value| value.parse().ok()) {
                headers.insert(name, value);
            }
        }
    }
}

/// What an invalidation says about one entry (A15).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CutoffTimes {
    /// Validated at or before this: stale, whatever its TTL.
    pub revalidate: Option<Timestamp>,
    /// Fetched at or before this: absent.
    pub gone: Option<Timestamp>,
}

impl CutoffTimes {
    /// The same, and what was validated before `since` is to be revalidated.
    #[must_use]
    pub fn not_before(self, since: Option<Timestamp>) -> Self {
        Self { revalidate: self.revalidate.max(since.map(|at| at.minus(1))), ..self }
    }
}

/// The decision before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// The entry answers.
    Fresh {
        /// Seconds since it was last validated.
        age_secs: u64,
    },
    /// The entry answers although it is stale, because the mode says so.
    AnswerStale {
        /// Seconds since it was last validated.
        age_secs: u64,
        /// Why it may.
        reason: StaleReason,
    },
    /// Ask conditionally.
    Revalidate {
        /// The preconditions to send.
        validators: Validators,
        /// Why the entry does not answer by itself.
        because: Because,
    },
    /// Ask without conditions.
    Fetch(Because),
    /// Nothing stored, and nothing may be asked.
    NotCached,
}

/// Decides before a request: a pure function of what is stored, wanted and known.
pub fn before_request(
    entry: Option<&Entry>,
    mode: Mode,
    lifetime: &Lifetime,
    cutoff: CutoffTimes,
    token_digest: Option<&str>,
    now: Timestamp,
) -> Before {
    if matches!(mode, Mode::NoStore | Mode::Reload) {
        return Before::Fetch(Because::Mode);
    }
    let Some(entry) = entry.filter(|entry| cutoff.gone.is_none_or(|at| entry.fetched_at > at)) else {
        return match mode {
            Mode::OnlyIfCached => Before::NotCached,
            _ => Before::Fetch(Because::NotStored),
        };
    };
    // A clock ahead of ours must not make an entry fresh for longer.
    let validated_at = entry.validated_at.min(now);
    let age_secs = now.since(validated_at);
    let because = if cutoff.revalidate.is_some_and(|at| validated_at <= at) {
        Because::Invalidated
    } else if mode == Mode::NoCache {
        Because::Mode
    } else if must_always_revalidate(entry) {
        Because::NoCacheDirective
    } else if age_secs < fresh_secs(entry, lifetime) {
        return Before::Fresh { age_secs };
    } else {
        Because::Stale
    };
    match mode {
        Mode::OnlyIfCached => Before::AnswerStale { age_secs, reason: StaleReason::Offline },
        Mode::ForceCache => Before::AnswerStale { age_secs, reason: StaleReason::ForceCache },
        _ => match Validators::of(entry, token_digest) {
            validators if validators.is_empty() => Before::Fetch(because),
            validators => Before::Revalidate { validators, because },
        },
    }
}

/// How long `entry` is fresh for an asker with `lifetime`: negative answers briefly, growing
/// while they repeat, since each repeat wastes the limit; `X-Poll-Interval` is a floor.
pub fn fresh_secs(entry: &Entry, lifetime: &Lifetime) -> u64 {
    match entry.status {
        404 | 409 => (60_u64 << entry.repeats.min(6)).min(3_600).min(lifetime.fresh_secs.max(60)),
        410 | 451 => 3_600.min(lifetime.fresh_secs),
        _ => {
            let floor = entry.headers.get("x-poll-interval").and_then(|value| value.parse().ok()).unwrap_or(0);
            lifetime.fresh_secs.max(u64::min(floor, 3_600))
        }
    }
}

/// Whether a stale `entry` may stand in for a failure at `now` (A9, RFC 5861 section 4).
pub fn may_answer_stale(entry: &Entry, lifetime: &Lifetime, cutoff: CutoffTimes, now: Timestamp) -> bool {
    let age = now.since(entry.validated_at.min(now));
    cutoff.gone.is_none_or(|at| entry.fetched_at > at)
        && age < fresh_secs(entry, lifetime).saturating_add(lifetime.stale_secs)
}

fn directive(entry_or_reply: Option<&str>, wanted: &str) -> bool {
    entry_or_reply.is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted)))
}

fn must_always_revalidate(entry: &Entry) -> bool {
    directive(entry.headers.get("cache-control"), "no-cache")
}

/// What becomes of a reply.
#[derive(Debug)]
pub enum After {
    /// 304: the stored entry is current; its metadata changed.
    Freshened(Box<Entry>),
    /// A new answer to store.
    Replaced(Box<Entry>),
    /// An answer, but not one to store; what is stored stays as it is.
    DoNotStore(Box<Entry>, NoStore),
    /// 304 to conditions whose entry is not there (any more): ask again without conditions (A5).
    AskAgain,
}

/// Decides after a reply; `stored` is the entry whose validators were sent.
pub fn after_reply(
    stored: Option<Entry>,
    request: &Request,
    parts: &KeyParts,
    reply: Reply,
    lifetime: &Lifetime,
    token_digest: Option<&str>,
    now: Timestamp,
) -> After {
    let headers = StoredHeaders::of(&reply.headers);
    if reply.is_not_modified() {
        let Some(mut entry) = stored else { return After::AskAgain };
        entry.headers.freshen(&headers);
        entry.validated_at = now;
        if headers.get(ETAG.as_str()).is_some() {
            entry.token_digest = token_digest.map(str::to_owned);
        }
        return After::Freshened(Box::new(entry));
    }
    let status = reply.status.as_u16();
    let repeats = match &stored {
        Some(before) if matches!(status, 404 | 409) && before.status == status => before.repeats.saturating_add(1),
        _ => 0,
    };
    let mut entry = Box::new(Entry {
        parts: parts.clone(),
        listing: request.listing.as_deref().map(str::to_owned),
        status,
        headers,
        fetched_at: now,
        validated_at: now,
        class: lifetime.class.into(),
        ttl_secs: lifetime.fresh_secs,
        repeats,
        token_digest: token_digest.map(str::to_owned),
        cid: Cid::of(&reply.body),
        body: reply.body.clone(),
    });
    entry.ttl_secs = fresh_secs(&entry, lifetime);
    match no_store(request, &reply) {
        Some(reason) => After::DoNotStore(entry, reason),
        None if !entry.fits() => After::DoNotStore(entry, NoStore::TooLarge),
        None => After::Replaced(entry),
    }
}

/// Why a reply is not stored, if so; the statuses are those of reference table "answers other
/// than 200" in docs: errors and refusals describe the moment or the asker, not the resource.
fn no_store(request: &Request, reply: &Reply) -> Option<NoStore> {
    if class::is_never_stored(&request.path) {
        return Some(NoStore::Endpoint);
    }
    if directive(reply.header("cache-control"), "no-store") {
        return Some(NoStore::Directive);
    }
    if reply.header("x-github-sso").is_some_and(|value| value.contains("partial-results")) {
        return Some(NoStore::PartialResults);
    }
    match reply.status.as_u16() {
        200 if matches!(request.method, Method::Graphql(_)) && has_graphql_errors(&reply.body) => {
            Some(NoStore::GraphqlErrors)
        }
        200 | 203 | 204 | 404 | 409 | 410 | 451 => None,
        301 | 307 | 308 if reply.header("location").is_some_and(|to| stays_on(to, &request.host)) => None,
        202 => Some(NoStore::NotReady),
        300..400 => Some(NoStore::Redirect),
        status => Some(NoStore::Status(status)),
    }
}

fn stays_on(location: &str, host: &str) -> bool {
    let Some((_, rest)) = location.split_once("://") else {
        return location.starts_with('/') && !location.starts_with("//");
    };
    rest.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'))
}

fn has_graphql_errors(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Errors>(body).map_or(true, |body| body.errors.is_some())
}

#[cfg(test)]
mod tests;
