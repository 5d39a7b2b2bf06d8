//! Freshness: may this entry answer, and what becomes of a reply (RFC 9111, with GitHub's rules).
//!
//! Knows: modes, lifetimes, statuses. Does not know: I/O, async or the clock; `now` is an
//! argument everywhere.

pub mod class;
pub mod content;
mod elsewhere;
mod lifetime;
pub mod permissions;
mod short_lived;
pub mod validator;

pub use elsewhere::{delta_seconds, is_about, is_end_to_end, is_outdated_elsewhere};
pub use lifetime::{Lifetime, TtlTable, Ttls};
pub use validator::{Etag, Signer, Validators};

use content::Partial;
use elsewhere::{age_secs, is_stale_elsewhere};

use http::header::{ETAG, LAST_MODIFIED};

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
    /// A fresh entry answers; nothing is ever fetched (a client's `only-if-cached`, RFC 9111 section 5.2.1.7).
    OnlyIfFresh,
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
        Self { revalidate: self.revalidate.max(since.map(Timestamp::before)), ..self }
    }

    /// What both say: the later of each.
    #[must_use]
    pub fn later_of(self, other: Self) -> Self {
        Self {
            revalidate: self.revalidate.max(other.revalidate),
            gone: self.gone.max(other.gone),
            suspect_until: self.suspect_until.max(other.suspect_until),
        }
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

/// What becomes of an answer's `Link`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkUse {
    /// It is given to the asker: all that it says must hold.
    #[default]
    Given,
    /// It leads on to the next page, which is asked for, too, so that the end is found.
    Followed,
    /// Nobody sees it.
    Unseen,
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
    /// What becomes of the answer's `Link`.
    pub link: LinkUse,
    /// The time.
    pub now: Timestamp,
}

/// Decides before a request: a pure function of what is stored, wanted and known.
pub fn before_request(entry: Option<&Entry>, terms: &Terms<'_>) -> Before {
    let Terms { mode, lifetime, cutoff, signer, while_revalidate_secs, now, .. } = *terms;
    if matches!(mode, Mode::NoStore | Mode::Reload) {
        return Before::Fetch(Because::Mode);
    }
    let Some(entry) = entry.filter(|entry| !is_purged(entry, cutoff, now)) else {
        return match mode {
            Mode::OnlyIfCached | Mode::OnlyIfFresh => Before::NotCached,
            _ => Before::Fetch(Because::NotStored),
        };
    };
    // A clock ahead of ours must not make an entry fresh for longer.
    let validated_at = plausible(validated_at(entry, terms.link), now);
    let age_secs = now.since(validated_at);
    let because = match proof_of_freshness(entry, terms, validated_at) {
        Ok(proof) => return Before::Fresh { age_secs, proof },
        Err(because) => because,
    };
    let behind = fresh_secs(entry, lifetime).saturating_add(while_revalidate_secs);
    let is_soon_enough = because == Because::Stale && age_secs < behind;
    match mode {
        Mode::Default if is_soon_enough => Before::AnswerStale { age_secs, reason: StaleReason::WhileRevalidate },
        Mode::OnlyIfFresh if !is_soon_enough => Before::NotCached,
        Mode::OnlyIfCached | Mode::OnlyIfFresh => Before::AnswerStale { age_secs, reason: StaleReason::Offline },
        Mode::ForceCache => Before::AnswerStale { age_secs, reason: StaleReason::ForceCache },
        _ => match Validators::of(entry, signer) {
            validators if validators.is_empty() => Before::Fetch(because),
            validators => Before::Revalidate { validators, because },
        },
    }
}

/// When what is wanted of `entry` was validated: one whose `Link` was not proven then is older to who needs that.
fn validated_at(entry: &Entry, link: LinkUse) -> Timestamp {
    match (link, entry.link_validated_at) {
        (LinkUse::Given, Some(at)) => at.min(entry.validated_at),
        (LinkUse::Followed, Some(at)) if at == Timestamp::default() => at,
        _ => entry.validated_at,
    }
}

/// Returns why `entry` answers by itself, or why it does not.
fn proof_of_freshness(entry: &Entry, terms: &Terms<'_>, validated_at: Timestamp) -> Result<Proof, Because> {
    let Terms { mode, lifetime, cutoff, fields, ahead, now, .. } = *terms;
    let age_secs = now.since(validated_at);
    if cutoff.revalidate.is_some_and(|at| validated_at <= at) {
        return Err(Because::Invalidated);
    }
    if mode == Mode::NoCache {
        return Err(Because::Mode);
    }
    if must_always_revalidate(entry) {
        return Err(Because::NoCacheDirective);
    }
    if let (Some(current), Some(then)) = (fields, entry.fields_cid) {
        let has_ended = entry.expires_at.is_some_and(|at| at <= now);
        return match current == then {
            true if has_ended => Err(Because::Stale),
            true => Ok(Proof::Fields),
            false => Err(Because::FieldsChanged),
        };
    }
    let fresh_secs = fresh_secs(entry, lifetime);
    if age_secs >= fresh_secs {
        return Err(Because::Stale);
    }
    let lasts = |ahead: Ahead| entry.validated_at >= ahead.since || age_secs + ahead.secs < fresh_secs;
    if ahead.is_none_or(lasts) { Ok(Proof::Lifetime) } else { Err(Because::SoonStale) }
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

/// Longest time that a 404 or 409 is fresh where nobody set one, in seconds.
const MAX_NEGATIVE_SECS: u64 = 600;

/// That GitHub refuses a page, since it has no more of this listing than those before, is kept for so long, in seconds.
const BEYOND_PAGES_SECS: u64 = 86_400;

/// How long `entry` is fresh for a requester with `lifetime`, in seconds after its validation: the strictest of all
/// bounds. What somebody set holds; where nobody did, a 404 or 409 is fresh for a minute, and longer while it repeats,
/// since each repeat wastes the limit, and `X-Poll-Interval` is a floor.
pub fn fresh_secs(entry: &Entry, lifetime: &Lifetime) -> u64 {
    let secs = match entry.status {
        // How far pages go is no matter of the listing's items, for which a lifetime was set.
        400 | 422 if lifetime.fresh_secs > 0 => BEYOND_PAGES_SECS,
        _ if lifetime.is_set => lifetime.fresh_secs,
        404 | 409 => (60_u64 << entry.repeats.min(6)).min(MAX_NEGATIVE_SECS).min(lifetime.fresh_secs),
        410 | 451 => 3_600.min(lifetime.fresh_secs),
        _ => {
            let floor = entry.headers.get("x-poll-interval").and_then(|value| value.parse().ok()).unwrap_or(0);
            lifetime.fresh_secs.max(u64::min(floor, 3_600))
        }
    };
    let ends = entry.expires_at.map_or(u64::MAX, |at| at.since(entry.validated_at));
    secs.min(ends).min(lifetime.max_age_secs.unwrap_or(u64::MAX))
}

/// Whether a stale `entry` may stand in for a failure at `now` (A9, RFC 5861 section 4). Where its `Link` is wanted, that must not be
/// too old, either; one that is not known may have led to many pages.
pub fn may_answer_stale(
    entry: &Entry,
    lifetime: &Lifetime,
    cutoff: CutoffTimes,
    link: LinkUse,
    now: Timestamp,
) -> bool {
    let of_link = entry.link_validated_at.filter(|_| link != LinkUse::Unseen).unwrap_or(entry.validated_at);
    let age = now.since(plausible(entry.validated_at.min(of_link), now));
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
    let Terms { lifetime, signer, fields, cutoff, now, .. } = *terms;
    if reply.is_not_modified() {
        return after_not_modified(stored, request, parts, &reply, terms);
    }
    let status = reply.status.as_u16();
    let repeats = match &stored {
        Some(before) if matches!(status, 404 | 409) && before.status == status => before.repeats.saturating_add(1),
        _ => 0,
    };
    let current_at = now.minus(age_secs(&reply));
    let mut entry = Box::new(Entry {
        parts: parts.clone(),
        listing: request.listing.as_deref().map(str::to_owned),
        status,
        headers: StoredHeaders::of(&reply.headers),
        fetched_at: current_at,
        validated_at: current_at,
        class: stored_class(request, lifetime.class).into(),
        ttl_secs: lifetime.fresh_secs,
        repeats,
        token_digest: signer.token_digest.clone(),
        etag_rule: reply.rule_held.filter(|held| *held).map(|_| EtagRule::Github),
        fields_cid: fields,
        expires_at: None,
        link_validated_at: None,
        cid: Cid::of(&reply.body),
        body: reply.body.clone(),
    });
    let no_store = if is_outdated_elsewhere(&reply, cutoff, now) {
        Some(NoStore::StaleElsewhere)
    } else {
        no_store(request, &entry, signer, &reply, stored.as_ref())
    };
    if no_store.is_none() && entry.fits() {
        entry.expires_at = short_lived::until(&entry.body, current_at, current_at);
    }
    entry.ttl_secs = fresh_secs(&entry, lifetime);
    match no_store {
        Some(reason) => After::DoNotStore(entry, reason),
        None if !entry.fits() => After::DoNotStore(entry, NoStore::TooLarge),
        None => After::Replaced(entry),
    }
}

/// The same for a 304: it makes the stored entry current, if it is about that one (RFC 9111 section 4.3.4).
fn after_not_modified(
    stored: Option<Entry>,
    request: &Request,
    parts: &KeyParts,
    reply: &Reply,
    terms: &Terms<'_>,
) -> After {
    let Terms { signer, fields, cutoff, now, .. } = *terms;
    let headers = StoredHeaders::of(&reply.headers);
    let Some(mut entry) = stored.filter(|entry| is_confirmed(entry, parts, reply, &headers)) else {
        return After::AskAgain;
    };
    let current_at = now.minus(age_secs(reply)).max(plausible(entry.validated_at, now));
    entry.expires_at = entry.expires_at.map(|end| {
        let came_at = plausible(entry.fetched_at, now);
        short_lived::until(&entry.body, came_at, current_at).unwrap_or(end)
    });
    if entry.parts != *parts || entry.token_digest != signer.token_digest {
        entry.headers.forget_requester();
    }
    entry.headers.freshen(&headers);
    entry.validated_at = current_at;
    entry.fetched_at = entry.fetched_at.min(current_at);
    entry.fields_cid = fields.or(entry.fields_cid);
    if entry.parts != *parts {
        // Another partition's bytes, of which GitHub has just said that the requester may have them.
        entry.parts.clone_from(parts);
        entry.listing = request.listing.as_deref().map(str::to_owned);
        entry.fetched_at = current_at;
    }
    if headers.get(ETAG.as_str()).is_some() {
        entry.token_digest.clone_from(&signer.token_digest);
    }
    if is_stale_elsewhere(reply) || is_outdated_elsewhere(reply, cutoff, now) {
        return After::DoNotStore(Box::new(entry), NoStore::StaleElsewhere);
    }
    After::Freshened(Box::new(entry))
}

/// The class that an entry is stored with: a document that asks for alerts is not known by its path.
fn stored_class<'a>(request: &Request, by_path: &'a str) -> &'a str {
    match &request.method {
        Method::Graphql(body) if permissions::asks_for_alerts(body) => "alerts",
        _ => by_path,
    }
}

/// Whether a 304 is about `entry`. Bytes of another partition are released only by the tag that was predicted for this
/// requester; a prediction for the requester's own bytes must not be contradicted. Without a prediction, a 304 has to carry
/// the validator that is stored, the tag before the date: one without it comes from an intermediary, and one with another is
/// about other bytes (RFC 9111 section 4.3.4).
fn is_confirmed(entry: &Entry, parts: &KeyParts, reply: &Reply, headers: &StoredHeaders) -> bool {
    let tag = |headers: &StoredHeaders| headers.get(ETAG.as_str()).map(|tag| tag.trim_start_matches("W/").to_owned());
    let date = |headers: &StoredHeaders| headers.get(LAST_MODIFIED.as_str()).map(str::to_owned);
    let has_the_validator = || match tag(headers) {
        Some(said) => tag(&entry.headers) == Some(said),
        None if tag(&entry.headers).is_some() => date(headers).is_some() && date(headers) == date(&entry.headers),
        // Of a date alone a 304 need not say anything (RFC 9110 section 15.4.5).
        None => date(headers).is_none() || date(headers) == date(&entry.headers),
    };
    match reply.rule_held {
        Some(confirmed) => confirmed,
        None => entry.parts == *parts && has_the_validator(),
    }
}

/// Why a reply is not stored, if so; the statuses are those of reference table "answers other
/// than 200" in docs: errors and refusals describe the moment or the asker, not the resource. `entry` is what would be
/// stored in place of `stored`.
fn no_store(
    request: &Request,
    entry: &Entry,
    signer: &Signer,
    reply: &Reply,
    stored: Option<&Entry>,
) -> Option<NoStore> {
    if request.has_credentials() {
        return Some(NoStore::Credentials);
    }
    if class::is_never_stored(&request.path) {
        return Some(NoStore::Endpoint);
    }
    if directive(entry.headers.get("cache-control"), "no-store") {
        return Some(NoStore::Directive);
    }
    if entry.parts.partition == Partition::public() && signer.token_digest.is_some() {
        return Some(NoStore::Identity);
    }
    if is_stale_elsewhere(reply) {
        return Some(NoStore::StaleElsewhere);
    }
    let sso = reply.headers.get_all("x-github-sso").iter();
    if sso.filter_map(|value| value.to_str().ok()).any(|value| value.contains("partial-results")) {
        return Some(NoStore::PartialResults);
    }
    match reply.status.as_u16() {
        200 if matches!(request.method, Method::Graphql(_)) => {
            (!content::is_whole_graphql(&reply.body)).then_some(NoStore::GraphqlErrors)
        }
        200 => is_less_than(&reply.body, stored).then_some(NoStore::PartialResults),
        // A page of a proxy's says nothing of the resource.
        status @ (404 | 409 | 410 | 451) if content::is_no_json(request, &reply.body) => Some(NoStore::Status(status)),
        203 | 204 | 404 | 409 | 410 | 451 => None,
        400 | 422 if is_later_page(request) => None,
        301 | 307 | 308 if entry.headers.get("location").is_some_and(|to| leads_on(to, request)) => None,
        202 => Some(NoStore::NotReady),
        300..400 => Some(NoStore::Redirect),
        status => Some(NoStore::Status(status)),
    }
}

/// Whether a page after the first is asked for, by its number. GitHub refuses those beyond a bound that listings of some kinds
/// have (events, releases, search, alerts); whoever looks behind a last page would pay for that each time.
fn is_later_page(request: &Request) -> bool {
    request.method == Method::Get
        && request.param("page").is_some_and(|page| page.parse::<u64>().is_ok_and(|number| number > 1))
}

/// Whether a body is a part that must not take the place of what is stored. One that is always a part may, unless a whole
/// one is there.
fn is_less_than(body: &[u8], stored: Option<&Entry>) -> bool {
    let is_whole = |entry: &Entry| entry.status == 200 && content::partial(&entry.body).is_none();
    match content::partial(body) {
        None => false,
        Some(Partial::TimedOut) => true,
        Some(Partial::Truncated) => stored.is_some_and(is_whole),
    }
}

/// Whether a redirect stays on the API's host, and leads to another address than the one that was asked.
fn leads_on(location: &str, request: &Request) -> bool {
    let mark = if request.query.is_empty() { "" } else { "?" };
    let itself = format!("{}{mark}{}", request.path, request.query);
    let path = location.split_once("://").map_or(location, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    stays_on(location, &request.host) && path != itself && path.strip_prefix("/api/v3") != Some(itself.as_str())
}

/// Whether a redirect stays on the host of an API, given by what stands for it in keys.
fn stays_on(location: &str, base: &str) -> bool {
    let host = base.split_once("://").map_or(base, |(_, rest)| rest.split('/').next().unwrap_or_default());
    let Some((_, rest)) = location.split_once("://") else {
        return location.starts_with('/') && !location.starts_with("//");
    };
    rest.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
