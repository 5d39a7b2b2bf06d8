//! The cache: the one path from a request to an answer.
//!
//! Knows: the order of look up, decide, fetch, absorb, store. Does not know: files, HTTP, plans;
//! each step is a file of its own.
//!
//! ```text
//! 1 key        KeyParts::of(&request, &partition)
//! 2 look up    stack.look_up(&key)
//! 3 decide     policy::before_request(entry, mode, lifetime, cutoff, now)
//! 4 fetch      upstream.fetch(&request, &validators)
//! 5 absorb     policy::after_reply(entry, reply, now)
//! 6 store      stack.put / stack.freshen, best effort
//! ```

mod own;
mod pages;

use std::sync::Arc;

use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::key::{CacheKey, KeyParts};
use crate::outcome::{Because, NoStore, Outcome, StaleReason};
use crate::partition::Partition;
use crate::policy::{self, After, Before, CutoffTimes, Lifetime, Mode, TtlTable, Validators};
use crate::request::{Api, Request};
use crate::stack::{Found, Stack};
use crate::stats::Stats;
use crate::tag::Subject;
use crate::tier::TierName;
use crate::upstream::Upstream;

/// Redirects that are followed for one request.
const MAX_REDIRECTS: u32 = 5;

/// How a request is to be answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// What may be used and asked.
    pub mode: Mode,
    /// Fresh for so many seconds, instead of what the table says.
    pub ttl_secs: Option<u64>,
    /// Stale answers may stand in for so many seconds after that.
    pub stale_secs: Option<u64>,
    /// Only what GitHub confirmed at this time or later is fresh; for answers that must show one
    /// moment, such as the pages of a listing.
    pub validated_since: Option<Timestamp>,
}

/// An answer and how it came about.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status, headers, times and the body.
    pub entry: Entry,
    /// How it was answered.
    pub outcome: Outcome,
    /// The tier that had it, where one did.
    pub tier: Option<TierName>,
    /// Seconds since GitHub last said that it is current.
    pub age_secs: u64,
    /// Its freshness lifetime in force.
    pub ttl_secs: u64,
    /// Requests that were sent for it, retries and redirects included.
    pub requests: u32,
    /// How many of them were answered 304.
    pub not_modified: u32,
}

/// The cache. Cheap to share by reference; every method takes `&self`.
#[derive(Debug)]
pub struct Cache {
    api: Api,
    partition: Partition,
    stack: Stack,
    upstream: Arc<dyn Upstream>,
    ttls: TtlTable,
    clock: Clock,
    stats: Stats,
}

/// What [`Cache::explain`] finds; nothing is sent.
#[derive(Debug)]
pub struct Explained {
    /// The key.
    pub key: CacheKey,
    /// What went into it.
    pub parts: KeyParts,
    /// The lifetime in force.
    pub lifetime: Lifetime,
    /// What is stored, and where.
    pub found: Option<Found>,
    /// What invalidations say.
    pub cutoff: CutoffTimes,
    /// What would be done.
    pub decision: Before,
    /// The time of the decision.
    pub now: Timestamp,
}

impl Cache {
    /// A cache for one API and identity.
    pub fn new(
        api: Api,
        partition: Partition,
        stack: Stack,
        upstream: Arc<dyn Upstream>,
        ttls: TtlTable,
        clock: Clock,
    ) -> Self {
        Self { api, partition, stack, upstream, ttls, clock, stats: Stats::default() }
    }

    /// The API that is asked.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Whose view the answers show.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The store.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Where answers come from that the store does not have.
    pub fn upstream(&self) -> &dyn Upstream {
        &*self.upstream
    }

    /// Counters of this process.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Answers a request: from the store while it is fresh, else by asking GitHub, following
    /// redirects of renamed repositories, else from the store if it is stale but within its
    /// stale-if-error window.
    pub async fn get(&self, request: &Request, ask: &Ask) -> Result<Answer> {
        let mut answer = self.get_one(request, ask).await?;
        let mut followed = None;
        let mut redirects = 0;
        while is_redirect(&answer.entry) {
            let from = followed.as_ref().unwrap_or(request);
            let Some(next) = answer.entry.headers.get("location").and_then(|to| from.follow(&self.api, to)) else {
                // To another host, for which our token is not meant: the redirect is the answer.
                return Ok(answer);
            };
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                let text = format!("{} leads through more than {MAX_REDIRECTS} redirects", request.target());
                return Err(Error::new(Kind::Transport, text));
            }
            let (requests, not_modified) = (answer.requests, answer.not_modified);
            answer = self.get_one(&next, ask).await?;
            answer.requests += requests;
            answer.not_modified += not_modified;
            followed = Some(next);
        }
        Ok(answer)
    }

    /// Answers many requests, in their order. Look-ups come first and in the order in which the
    /// store reads them fastest; what is left is asked with at most `concurrency` at a time.
    pub async fn get_many(&self, requests: &[Request], ask: &Ask, concurrency: usize) -> Vec<Result<Answer>> {
        use futures_util::StreamExt;
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_cached_key(|at| self.place(&requests[*at]));
        let mut answers: Vec<(usize, Result<Answer>)> = futures_util::stream::iter(order)
            .map(|at| async move { (at, self.get(&requests[at], ask).await) })
            .buffer_unordered(concurrency.max(1))
            .collect()
            .await;
        answers.sort_unstable_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// A number by which requests sort into the order in which the store answers them fastest.
    pub fn place(&self, request: &Request) -> (u32, u32) {
        self.stack.place(&KeyParts::of(request, &self.partition).key())
    }

    async fn get_one(&self, request: &Request, ask: &Ask) -> Result<Answer> {
        let started = Instant::now();
        let result = self.answer(request, ask).await;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        match &result {
            Ok(answer) => self.stats.answered(answer.outcome, answer.tier, answer.entry.body.len(), micros),
            Err(_) => self.stats.failed(micros),
        }
        result
    }

    async fn answer(&self, request: &Request, ask: &Ask) -> Result<Answer> {
        let Explained { parts, lifetime, found, cutoff, decision, now, .. } = self.explain(request, ask);
        let (validators, because) = match decision {
            Before::Fresh { .. } => return stored(found, Outcome::Hit, &lifetime, now),
            Before::AnswerStale { reason, .. } => return stored(found, Outcome::Stale(reason), &lifetime, now),
            Before::NotCached => return Err(not_cached(request)),
            Before::Revalidate { validators, because } => (validators, because),
            Before::Fetch(because) => (Validators::default(), because),
        };
        match self.fetch(request, &parts, found.as_ref(), &validators, because, &lifetime, ask.mode).await {
            Err(error) if error.allows_stale() => {
                let usable = found
                    .filter(|_| ask.mode != Mode::Reload)
                    .filter(|found| policy::may_answer_stale(&found.entry, &lifetime, cutoff, self.clock.now()));
                if usable.is_none() {
                    return Err(error);
                }
                tracing::warn!(target = %request.target(), %error, "answering stale");
                stored(usable, Outcome::Stale(stale_reason(&error)), &lifetime, now)
            }
            other => other,
        }
    }

    /// Asks upstream, absorbs the reply and stores what is worth storing.
    #[allow(clippy::too_many_arguments, reason = "the second half of `answer`, which owns them all")]
    async fn fetch(
        &self,
        request: &Request,
        parts: &KeyParts,
        found: Option<&Found>,
        validators: &Validators,
        because: Because,
        lifetime: &Lifetime,
        mode: Mode,
    ) -> Result<Answer> {
        let unconditional = Validators::default();
        let mut requests = 0;
        for validators in [validators, &unconditional] {
            let reply = self.upstream.fetch(request, validators).await?;
            requests += reply.attempts;
            let digest = self.upstream.token_digest();
            let now = self.clock.now();
            let stored =
                found.filter(|_| !validators.is_empty() || !reply.is_not_modified()).map(|found| found.entry.clone());
            let (entry, outcome) =
                match policy::after_reply(stored, request, parts, reply, lifetime, digest.as_deref(), now) {
                    After::AskAgain => continue,
                    After::Freshened(entry) => {
                        self.stack.freshen(&entry, found.map_or(TierName::Disk, |found| found.tier));
                        (entry, Outcome::Revalidated)
                    }
                    After::Replaced(entry) if mode == Mode::NoStore => (entry, Outcome::NotStored(NoStore::Mode)),
                    After::Replaced(entry) => {
                        self.stack.put(&entry);
                        (entry, Outcome::Fetched(because))
                    }
                    After::DoNotStore(entry, reason) => (entry, Outcome::NotStored(reason)),
                };
            return Ok(Answer {
                ttl_secs: policy::fresh_secs(&entry, lifetime),
                entry: *entry,
                outcome,
                tier: None,
                age_secs: 0,
                requests,
                not_modified: u32::from(outcome == Outcome::Revalidated),
            });
        }
        Err(Error::new(
            Kind::Transport,
            format!("GitHub answers 304 to an unconditional request for {}", request.target()),
        ))
    }

    fn cutoff(&self, key: &CacheKey, parts: &KeyParts, listing: Option<&str>) -> CutoffTimes {
        self.stack.cutoff_times(Subject { key, parts, listing })
    }

    /// What is to be done with a request, and why; looks but sends nothing.
    pub fn explain(&self, request: &Request, ask: &Ask) -> Explained {
        let parts = KeyParts::of(request, &self.partition);
        let key = parts.key();
        let lifetime = self.ttls.lifetime(&request.path, &request.query, ask.ttl_secs, ask.stale_secs);
        let mut found = if ask.mode == Mode::NoStore { None } else { self.stack.look_up(&key) };
        let cutoff = self.cutoff(&key, &parts, request.listing.as_deref()).not_before(ask.validated_since);
        let now = self.clock.now();
        let digest = self.upstream.token_digest();
        let decide = |found: Option<&Found>| {
            let entry = found.map(|found| &found.entry);
            policy::before_request(entry, ask.mode, &lifetime, cutoff, digest.as_deref(), now)
        };
        let mut decision = decide(found.as_ref());
        // What is stale near may be fresh farther: look on once before anything is sent.
        if !matches!(decision, Before::Fresh { .. })
            && let Some(newer) = found.as_ref().and_then(|found| self.stack.newer_than(&key, found))
        {
            decision = decide(Some(&newer));
            found = Some(newer);
        }
        Explained { key, parts, lifetime, found, cutoff, decision, now }
    }

    /// Writes what was only noted in memory: statistics and last uses. Call it before the end.
    pub fn flush(&self) {
        self.stack.flush();
        self.stats.flush(self.stack.dir(), self.upstream.sent());
    }
}

/// What is stored, as an answer.
fn stored(found: Option<Found>, outcome: Outcome, lifetime: &Lifetime, now: Timestamp) -> Result<Answer> {
    let found = found.ok_or_else(|| Error::new(Kind::Internal, "an answer was promised that is not there"))?;
    Ok(Answer {
        age_secs: now.since(found.entry.validated_at.min(now)),
        ttl_secs: policy::fresh_secs(&found.entry, lifetime),
        entry: found.entry,
        outcome,
        tier: Some(found.tier),
        requests: 0,
        not_modified: 0,
    })
}

fn is_redirect(entry: &Entry) -> bool {
    matches!(entry.status, 301 | 302 | 307 | 308)
}

fn not_cached(request: &Request) -> Error {
    Error::new(Kind::NotCached, format!("{} is not in the cache", request.target())).hint("run once without --offline")
}

fn stale_reason(error: &Error) -> StaleReason {
    match error.kind() {
        Kind::Limited { .. } => StaleReason::Limited,
        Kind::Server(_) => StaleReason::ServerError,
        _ => StaleReason::Unreachable,
    }
}
