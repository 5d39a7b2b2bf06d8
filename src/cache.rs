//! The cache: the one path from a request to an answer.
//!
//! Knows: the order of look up, decide, fetch, absorb, store. Does not know: files, HTTP, plans;
//! each step is a file of its own.
//!
//! ```text
//! 1 key        KeyParts::of(&request, &partition)
//! 2 look up    stack.look_up(&key)
//! 3 decide     policy::before_request(entry, terms)
//! 4 take turns collapse.join(&key), stack.turn(&key); look again
//! 5 fetch      upstream.fetch(&request, &conditions)
//! 6 absorb     policy::after_reply(entry, reply, terms)
//! 7 store      stack.put / stack.freshen, best effort
//! ```

mod answer;
mod ask;
pub mod batch;
mod behind;
mod beyond;
mod candidate;
mod change;
mod explain;
mod fetch;
mod follow;
mod holder;
mod own;
pub mod pages;
mod passes;
mod proof;
mod superseded;
mod twin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;

pub use answer::Answer;
use answer::{Spent, stored};
pub use ask::Ask;
pub use behind::Behind;
pub use change::{Change, Ended};
pub use explain::Explained;
pub use holder::Said;
use passes::Passes;
use superseded::Superseded;

use crate::clock::{Clock, Timestamp};
use crate::collapse::{Collapse, Role};
use crate::error::{Error, Kind, Result};
use crate::key::{CacheKey, KeyParts};
use crate::outcome::{NoStore, Outcome, Proof, StaleReason};
use crate::partition::Partition;
use crate::policy::class::{self, Place};
use crate::policy::permissions;
use crate::policy::{self, Before, CutoffTimes, Mode, Signer, Ttls};
use crate::request::{Api, Request};
use crate::share::Share;
use crate::stack::Stack;
use crate::stats::Stats;
use crate::tag::Subject;
use crate::tier::TierName;
use crate::upstream::Upstream;

/// Stale answers that the log names one by one.
const MAX_STALE_SAID: u32 = 5;

/// The cache. Cheap to share by reference; every method takes `&self`.
#[derive(Debug)]
pub struct Cache {
    api: Api,
    partition: Partition,
    stack: Arc<Stack>,
    upstream: Arc<dyn Upstream>,
    ttls: Ttls,
    clock: Clock,
    stats: Arc<Stats>,
    /// Of a process that stays: writing goes on behind the answers.
    behind: Option<Behind>,
    /// What lies beyond this machine.
    share: Option<Arc<Share>>,
    flights: Collapse<Answer>,
    /// For clients that walk through listings themselves.
    passes: Passes,
    superseded: Superseded,
    /// Stale answers that the log has been told of.
    stale_said: AtomicU32,
}

impl Cache {
    /// A cache for one API and identity.
    pub fn new(
        api: Api,
        partition: Partition,
        stack: impl Into<Arc<Stack>>,
        upstream: Arc<dyn Upstream>,
        ttls: impl Into<Ttls>,
        clock: Clock,
    ) -> Self {
        Self {
            api,
            partition,
            stack: stack.into(),
            upstream,
            ttls: ttls.into(),
            clock,
            stats: Arc::default(),
            behind: None,
            share: None,
            flights: Collapse::default(),
            passes: Passes::default(),
            superseded: Superseded::default(),
            stale_said: AtomicU32::new(0),
        }
    }

    /// The same for a process that stays and serves several identities: they share statistics, and
    /// writing goes on behind the answers.
    #[must_use]
    pub fn resident(self, stats: Arc<Stats>, behind: Behind) -> Self {
        Self { stats, behind: Some(behind), ..self }
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
        let answer = self.get_one(request, ask).await?;
        self.follow(request, ask, answer).await
    }

    /// What this process has in memory and is fresh, without waiting for anything; the hot path of a
    /// resident process.
    pub fn at_once(&self, request: &Request, ask: &Ask) -> Option<Answer> {
        let started = Instant::now();
        let (answer, place) = self.at_hand(request, ask)?;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.answered(place, answer.outcome, answer.tier, answer.entry.body.len(), micros);
        Some(answer)
    }

    /// What [`Cache::at_once`] does not have, for a resident process: what is stale for no longer than
    /// [`Ask::while_revalidate_secs`] answers without waiting and is revalidated behind the answer, in a
    /// task of its own. Many who ask meanwhile share that one revalidation.
    pub async fn get_soon(self: &Arc<Self>, request: &Request, ask: &Ask) -> Result<Answer> {
        let answer = self.look_and_ask(request, ask).await?;
        let answer = self.follow(request, ask, answer).await?;
        if answer.outcome == Outcome::Stale(StaleReason::WhileRevalidate) {
            let (cache, request) = (self.clone(), request.clone());
            let ask = Ask { while_revalidate_secs: 0, ..*ask };
            tokio::spawn(async move {
                if let Err(error) = cache.get(&request, &ask).await {
                    tracing::debug!(%error, target = %request.target(), "not revalidated behind the answer");
                }
            });
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
        match self.at_once(request, ask).filter(|_| !request.has_credentials()) {
            Some(answer) => Ok(answer),
            None => self.look_and_ask(request, ask).await,
        }
    }

    async fn look_and_ask(&self, request: &Request, ask: &Ask) -> Result<Answer> {
        let started = Instant::now();
        // A query with a credential in it is neither looked for nor left anywhere.
        let past = request.has_credentials() && !matches!(ask.mode, Mode::OnlyIfCached | Mode::OnlyIfFresh);
        let ask = if past { &ask.mode(Mode::NoStore) } else { ask };
        let explained = self.explain(request, ask);
        let place = class::place(explained.lifetime.class);
        let result = self.answer(request, ask, explained).await;
        self.count(place, &result, u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        result
    }

    fn count(&self, place: Place, result: &Result<Answer>, micros: u64) {
        match result {
            Ok(answer) => self.stats.answered(place, answer.outcome, answer.tier, answer.entry.body.len(), micros),
            Err(_) => self.stats.failed(place, micros),
        }
    }

    /// What this process has in memory, if it is fresh: no key, no file, no lock but the table's.
    fn at_hand(&self, request: &Request, ask: &Ask) -> Option<(Answer, Place)> {
        let (resident, cutoff) = self.stack.at_hand(request, &self.partition)?;
        if permissions::depend_on_permissions(&resident.entry, request, resident.class)
            && resident.entry.token_digest != self.upstream.signer().token_digest
        {
            return None;
        }
        let lifetime = self.ttls.load().lifetime_of(resident.class, ask.ttl_secs, ask.stale_secs);
        let lifetime = lifetime.at_most(ask.max_age_secs);
        let (now, cutoff) = (self.clock.now(), self.within_pass_of(request, cutoff));
        // Who asks matters only for what is sent.
        let signer = Signer::default();
        let terms = ask.terms(&lifetime, cutoff.not_before(ask.validated_since), &signer, now);
        let Before::Fresh { age_secs, proof: Proof::Lifetime } = policy::before_request(Some(&resident.entry), &terms)
        else {
            return None;
        };
        if resident.is_first_hit() {
            self.note_hit(request, &resident.entry);
        }
        let ttl_secs = policy::fresh_secs(&resident.entry, &lifetime);
        let entry = resident.entry.clone();
        let answer = Answer::new(entry, Outcome::Hit(Proof::Lifetime), ttl_secs);
        let answer = Answer { tier: Some(TierName::Memory), age_secs, head: Some(resident.head()), ..answer };
        Some((answer, resident.place))
    }

    async fn answer(&self, request: &Request, ask: &Ask, explained: Explained) -> Result<Answer> {
        let Explained { lifetime, cutoff, now, .. } = explained;
        match explained.decision {
            Before::Fresh { proof, .. } => {
                if let Some(found) = &explained.found {
                    self.note_hit(request, &found.entry);
                }
                return stored(explained.found, Outcome::Hit(proof), &lifetime, now).map(|answer| self.proven(answer));
            }
            Before::AnswerStale { reason, .. } => {
                return stored(explained.found, Outcome::Stale(reason), &lifetime, now);
            }
            Before::NotCached => return Err(not_cached(request)),
            Before::Revalidate { .. } | Before::Fetch(_) => {}
        }
        let fallback = explained.found.clone().filter(|_| ask.mode != Mode::Reload);
        let may_stand_in = || {
            let now = self.clock.now();
            let may = |entry| policy::may_answer_stale(entry, &lifetime, cutoff, ask.link, now);
            fallback.as_ref().is_some_and(|found| may(&found.entry))
        };
        if ask.held_back {
            if may_stand_in() {
                return stored(fallback, Outcome::Stale(StaleReason::Limited), &lifetime, now);
            }
            return Err(held_back(request));
        }
        // Only who has nothing to show waits for a limit to end.
        let may_wait = !may_stand_in();
        let shared = match ask.mode {
            Mode::Default | Mode::ForceCache => Box::pin(self.take_turns(request, ask, explained, may_wait)).await,
            // Whoever wants it from GitHub himself gets it from there.
            Mode::NoStore | Mode::Reload | Mode::NoCache | Mode::OnlyIfCached | Mode::OnlyIfFresh => {
                self.fetch(request, ask, explained, may_wait, &mut None).await.map(|answer| (answer, Role::Leader))
            }
        };
        let shared = shared.map(|(answer, role)| match role {
            Role::Leader => answer,
            Role::Follower => {
                self.stats.collapsed();
                Answer { requests: 0, not_modified: 0, charged: 0, collapsed: true, ..answer }
            }
        });
        match shared {
            Ok(answer) if answer.outcome == Outcome::NotStored(NoStore::NotReady) && may_stand_in() => {
                let stale = stored(fallback, Outcome::Stale(StaleReason::NotReady), &lifetime, now)?;
                Ok(answer.replaced_by(stale))
            }
            Ok(answer) => Ok(answer),
            Err(error) if error.allows_stale() && may_stand_in() => {
                self.say_stale(request, &error);
                let mut stale = stored(fallback, Outcome::Stale(stale_reason(&error)), &lifetime, now)?;
                stale.add(Spent::before(&error));
                Ok(stale)
            }
            Err(error) => Err(error),
        }
    }

    /// An answer that unchanged fields prove current beyond its lifetime was as good as validated:
    /// that is noted, once per lifetime.
    fn proven(&self, mut answer: Answer) -> Answer {
        if let (Outcome::Hit(Proof::Fields), Some(tier)) = (answer.outcome, answer.tier)
            && answer.age_secs >= answer.ttl_secs
        {
            Arc::make_mut(&mut answer.entry).validated_at = self.clock.now();
            answer.age_secs = 0;
            self.stack.freshen_soon(&answer.entry.key(), &answer.entry, tier);
        }
        answer
    }

    /// A limit makes many answers stale at once: the log names the first, reports and summaries all.
    fn say_stale(&self, request: &Request, error: &Error) {
        let target = request.target();
        match self.stale_said.fetch_add(1, Ordering::Relaxed) {
            before if before < MAX_STALE_SAID => tracing::warn!(%target, %error, "answering stale"),
            MAX_STALE_SAID => tracing::warn!("more stale answers follow; the report names each"),
            _ => tracing::debug!(%target, %error, "answering stale"),
        }
    }

    fn cutoff(&self, key: &CacheKey, parts: &KeyParts, listing: Option<&str>) -> CutoffTimes {
        self.stack.cutoff_times(Subject { key, parts, listing })
    }

    /// Writes what was only noted in memory: statistics and last uses. Call it before the end.
    pub fn flush(&self) {
        self.stack.flush();
        self.stats.flush(self.stack.dir(), self.upstream.sent());
    }
}

fn not_cached(request: &Request) -> Error {
    Error::new(Kind::NotCached, format!("{} is not in the cache", request.target())).hint("run once without --offline")
}

fn held_back(request: &Request) -> Error {
    let text = format!("{} is not asked for: the budget is needed for what is more urgent", request.target());
    Error::new(Kind::Limited { until: None, secondary: false }, text)
        .hint("raise max-requests, or run again when the limit is reset")
}

fn stale_reason(error: &Error) -> StaleReason {
    match error.kind() {
        Kind::Limited { .. } => StaleReason::Limited,
        Kind::Server(_) | Kind::Malformed | Kind::TooLarge => StaleReason::ServerError,
        _ => StaleReason::Unreachable,
    }
}
