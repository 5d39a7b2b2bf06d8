//! Freshness: may this entry answer, and what becomes of a reply (RFC 9111, with GitHub's rules).
//!
//! Knows: modes, lifetimes, statuses. Does not know: I/O, async or the clock; `now` is an
//! argument everywhere.

pub mod class;
pub mod content;
mod lifetime;
pub mod permissions;
pub mod validator;

pub use lifetime::{Lifetime, TtlTable, Ttls};
pub use validator::{Etag, Signer, Validators};

use http::header::ETAG;

use crate::cid::Cid;
use crate::clock::Timestamp;
use crate::entry::{Entry, EtagRule, StoredHeaders};
use crate::key::KeyParts;
use crate::outcome::{Because, NoStore, Proof, StaleReason};
use crate::partition::Partition;
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

/// What an invalidation says about one entry (A15).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CutoffTimes {
    /// Validated at or before this: stale, whatever its TTL.
    pub revalidate: Option<Timestamp>,
    /// Fetched at or before this: absent.
    pub gone: Option<Timestamp>,
    /// Until then more may have changed than GitHub shows: these times will be later ones.
    pub suspect_until: Option<Timestamp>,
}

impl CutoffTimes {
    /// The same, and what was validated before `since` is to be revalidated.
    #[must_use]
    pub fn not_before(self, since: Option<Timestamp>) -> Self {
        Self { revalidate: self.revalidate.max(since.map(|at| at.minus(1))), ..self }
    }
}

/// How far a stored time may lie ahead of the clock, in seconds.
pub const MAX_CLOCK_SKEW_SECS: u64 = 60;

/// Returns a stored time as far as it tells anything at `now`: a little ahead of the clock, it counts as
/// now; further ahead it cannot be true, and counts as 1970.
fn plausible(at: Timestamp, now: Timestamp) -> Timestamp {
    if at > now.plus(MAX_CLOCK_SKEW_SECS) { Timestamp::default() } else { at.min(now) }
}

/// Whether `entry` is one that `cutoff` purges.
fn is_purged(entry: &Entry, cutoff: CutoffTimes, now: Timestamp) -> bool {
    cutoff.gone.is_some_and(|at| plausible(entry.fetched_at, now) <= at)
}

/// The decision before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// The entry answers.
    Fresh {
        /// Seconds since it was last validated.
        age_secs: u64,
        /// Why it may.
        proof: Proof,
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

/// Looking ahead (warming): what is fresh now is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Fresh for so many seconds more.
    pub secs: u64,
    /// What was validated at this time or later has had its turn, however short its lifetime.
    pub since: Timestamp,
}

/// What is wanted and known when a request comes in.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// What may be used and asked.
    pub mode: Mode,
    /// How long answers live.
    pub lifetime: &'a Lifetime,
    /// What invalidations say.
    pub cutoff: CutoffTimes,
    /// Who asks.
    pub signer: &'a Signer,
    /// Digest of those fields of the parent item that the answer follows from (A11).
    pub fields: Option<Cid>,
    /// A stale entry answers for so many seconds more, while it is revalidated behind the answer.
    pub while_revalidate_secs: u64,
    /// For who looks ahead: what is fresh must stay so for longer.
    pub ahead: Option<Ahead>,
    /// The time.
    pub now: Timestamp,
}

/// Decides before a request: a pure function of what is stored, wanted and known.
pub fn before_request(entry: Option<&Entry>, terms: &Terms<'_>) -> Before {
    let Terms { mode, lifetime, cutoff, signer, fields, while_revalidate_secs, ahead, now } = *terms;
    if matches!(mode, Mode::NoStore | Mode::Reload) {
        return Before::Fetch(Because::Mode);
    }
    let Some(entry) = entry.filter(|entry| !is_purged(entry, cutoff, now)) else {
        return match mode {
            Mode::OnlyIfCached => Before::NotCached,
            _ => Before::Fetch(Because::NotStored),
        };
    };
    // A clock ahead of ours must not make an entry fresh for longer.
    let validated_at = plausible(entry.validated_at, now);
    let age_secs = now.since(validated_at);
    let because = if cutoff.revalidate.is_some_and(|at| validated_at <= at) {
        Because::Invalidated
    } else if mode == Mode::NoCache {
        Because::Mode
    } else if must_always_revalidate(entry) {
        Because::NoCacheDirective
    } else {
        match (fields, entry.fields_cid) {
            (Some(now), Some(then)) if now == then => return Before::Fresh { age_secs, proof: Proof::Fields },
            (Some(_), Some(_)) => Because::FieldsChanged,
            _ if age_secs < fresh_secs(entry, lifetime) => {
                let lasts = |ahead: Ahead| {
                    entry.validated_at >= ahead.since || age_secs + ahead.secs < fresh_secs(entry, lifetime)
                };
                if ahead.is_none_or(lasts) {
                    return Before::Fresh { age_secs, proof: Proof::Lifetime };
                }
                Because::SoonStale
            }
            _ => Because::Stale,
        }
    };
    let behind = fresh_secs(entry, lifetime).saturating_add(while_revalidate_secs);
    match mode {
        Mode::Default if because == Because::Stale && age_secs < behind => {
            Before::AnswerStale { age_secs, reason: StaleReason::WhileRevalidate }
        }
        Mode::OnlyIfCached => Before::AnswerStale { age_secs, reason: StaleReason::Offline },
        Mode::ForceCache => Before::AnswerStale { age_secs, reason: StaleReason::ForceCache },
        _ => match Validators::of(entry, signer) {
            validators if validators.is_empty() => Before::Fetch(because),
            validators => Before::Revalidate { validators, because },
        },
    }
}

/// Whether `candidate`, a body of another partition or one that is only guessed, may be tried:
/// its tag is sent, and only GitHub's own 304 to the asker releases its bytes (A20). Never
/// offline, never as a stale answer, not for what its class keeps private.
pub fn may_try(candidate: &Entry, terms: &Terms<'_>) -> Option<Validators> {
    let may = matches!(terms.mode, Mode::Default | Mode::NoCache | Mode::ForceCache)
        && terms.signer.predicts
        && candidate.status == 200
        && candidate.etag_rule == Some(EtagRule::Github)
        && !terms.lifetime.private
        && !is_purged(candidate, terms.cutoff, terms.now);
    may.then(|| Validators::of_candidate(candidate, terms.signer))
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
    let age = now.since(plausible(entry.validated_at, now));
    !is_purged(entry, cutoff, now) && age < fresh_secs(entry, lifetime).saturating_add(lifetime.stale_secs)
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

/// Decides after a reply; `stored` is the entry whose validators were sent, `terms` are those of the
/// time when it came.
pub fn after_reply(
    stored: Option<Entry>,
    request: &Request,
    parts: &KeyParts,
    reply: Reply,
    terms: &Terms<'_>,
) -> After {
    let Terms { lifetime, signer, fields, now, .. } = *terms;
    let token_digest = signer.token_digest.as_deref();
    let headers = StoredHeaders::of(&reply.headers);
    if reply.is_not_modified() {
        let Some(mut entry) = stored.filter(|entry| is_confirmed(entry, parts, &reply)) else {
            return After::AskAgain;
        };
        entry.headers.freshen(&headers);
        entry.validated_at = now;
        entry.fetched_at = entry.fetched_at.min(now);
        entry.fields_cid = fields.or(entry.fields_cid);
        if entry.parts != *parts {
            // Another partition's bytes, of which GitHub has just said that the asker may have them.
            entry.parts.clone_from(parts);
            entry.listing = request.listing.as_deref().map(str::to_owned);
            entry.fetched_at = now;
        }
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
        class: stored_class(request, lifetime.class).into(),
        ttl_secs: lifetime.fresh_secs,
        repeats,
        token_digest: token_digest.map(str::to_owned),
        etag_rule: reply.rule_held.filter(|held| *held).map(|_| EtagRule::Github),
        fields_cid: fields,
        cid: Cid::of(&reply.body),
        body: reply.body.clone(),
    });
    entry.ttl_secs = fresh_secs(&entry, lifetime);
    match no_store(request, &parts.partition, signer, &reply) {
        Some(reason) => After::DoNotStore(entry, reason),
        None if !entry.fits() => After::DoNotStore(entry, NoStore::TooLarge),
        None => After::Replaced(entry),
    }
}

/// The class that an entry is stored with: a document that asks for alerts is not known by its path.
fn stored_class<'a>(request: &Request, by_path: &'a str) -> &'a str {
    match &request.method {
        Method::Graphql(body) if permissions::asks_for_alerts(body) => "alerts",
        _ => by_path,
    }
}

/// Whether a 304 is about `entry`. Bytes of another partition are released only by the tag that was predicted
/// for this requester; a prediction for the requester's own bytes must not be contradicted.
fn is_confirmed(entry: &Entry, parts: &KeyParts, reply: &Reply) -> bool {
    match reply.rule_held {
        Some(confirmed) => confirmed,
        None => entry.parts == *parts,
    }
}

/// Why a reply is not stored, if so; the statuses are those of reference table "answers other
/// than 200" in docs: errors and refusals describe the moment or the asker, not the resource.
fn no_store(request: &Request, partition: &Partition, signer: &Signer, reply: &Reply) -> Option<NoStore> {
    if request.has_credentials() {
        return Some(NoStore::Credentials);
    }
    if class::is_never_stored(&request.path) {
        return Some(NoStore::Endpoint);
    }
    if directive(reply.header("cache-control"), "no-store") {
        return Some(NoStore::Directive);
    }
    if *partition == Partition::public() && signer.token_digest.is_some() {
        return Some(NoStore::Identity);
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

/// Whether a redirect stays on the host of an API, given by what stands for it in keys.
fn stays_on(location: &str, base: &str) -> bool {
    let host = base.split_once("://").map_or(base, |(_, rest)| rest.split('/').next().unwrap_or_default());
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
