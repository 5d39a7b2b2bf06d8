//! Keeping a cache warm: one tick refreshes what would be stale before the next one.
//!
//! Knows: what is worth refreshing, in which order, and when the next tick is. Does not know:
//! signals, terminals, how the bundle travels.

use std::collections::HashSet;

use futures_util::StreamExt;
use serde::Serialize;

use crate::cache::batch::{Batching, Wanted};
use crate::cache::{Ask, Cache};
use crate::clock::Timestamp;
use crate::error::{Kind, Result};
use crate::key::CacheKey;
use crate::plan::Plan;
use crate::plan::report::Index;
use crate::plan::run::{self, Progress};
use crate::policy::{Ahead, Before};
use crate::request::{Method, Request};
use crate::stack::Held;

mod resident;

pub use resident::Resident;

/// Fresh for so long after the next tick, unless the plan says otherwise.
pub const AHEAD_SECS: u64 = 1_800;

/// Left out when nobody has read it for so long, unless the plan says otherwise.
pub const IDLE_SECS: u64 = 7 * 86_400;

/// A tick's settings.
#[derive(Debug)]
pub struct Options<'a> {
    /// The run of the plan: where results go (if they do), placeholders, which APIs may be asked.
    pub run: run::Options<'a>,
    /// Seconds from now for which answers must stay fresh: until the next tick and then some.
    pub horizon_secs: u64,
    /// What the plan does not name and nobody has read for so long is left out.
    pub idle_secs: u64,
}

/// What became of one entry that the plan does not name.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// What it is.
    pub target: String,
    /// What was decided.
    pub verdict: Verdict,
    /// Seconds since GitHub last confirmed it.
    pub age_secs: u64,
    /// Seconds since somebody last read it, to the day.
    pub unread_secs: u64,
}

/// What a tick does with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It would be stale before the next tick.
    Refresh,
    /// It lasts until then.
    Fresh,
    /// Nobody reads it.
    Unread,
    /// It cannot be asked for again from what is stored.
    Unknown,
}

/// A finished tick.
#[derive(Debug)]
pub struct Tick {
    /// The plan's report.
    pub index: Index,
    /// The failure of the plan that matters most, where one happened.
    pub worst: Option<Kind>,
    /// What was decided about entries that the plan does not name.
    pub decisions: Vec<Decision>,
    /// How many of those were refreshed.
    pub refreshed: usize,
    /// How many of those could not be, for want of budget or an answer.
    pub left: usize,
}

/// One tick: the plan's queries, then what else is read, the most read and oldest first.
pub async fn tick(plan: &Plan, cache: &Cache, options: Options<'_>, progress: &dyn Progress) -> Result<Tick> {
    let started = cache.now();
    let ahead = Some(Ahead { secs: options.horizon_secs, since: started });
    let held = cache.stack().inventory()?;
    let run = run::Options { ask: Ask { ahead, ..options.run.ask }, ..options.run };
    let finished = run::run(plan, cache, &run, progress).await?;
    // Whatever the plan has just looked at is done.
    let done: HashSet<CacheKey> = finished.index.queries.iter().flat_map(|query| query.keys.iter().copied()).collect();
    let others = decide(cache, held, &done, &run.ask, options.idle_secs);
    let mut tick = Tick { index: finished.index, worst: finished.worst, decisions: Vec::new(), refreshed: 0, left: 0 };
    let (mut single, mut batched) = (Vec::new(), Vec::new());
    for (decision, request) in others {
        if let (Verdict::Refresh, Some(request)) = (decision.verdict, request) {
            match request.method {
                // As REST would be asked for it.
                Method::Projected => batched.push(Request { method: Method::Get, ..request }),
                _ => single.push(request),
            }
        }
        tick.decisions.push(decision);
    }
    let (refreshed, left) = refresh(cache, &run.ask, &run.batching, single, batched).await;
    (tick.refreshed, tick.left) = (refreshed, left);
    cache.flush();
    Ok(tick)
}

/// What to do about each entry that is not `done`, in the order in which it is worth a request.
fn decide(
    cache: &Cache,
    held: Vec<Held>,
    done: &HashSet<CacheKey>,
    ask: &Ask,
    idle_secs: u64,
) -> Vec<(Decision, Option<Request>)> {
    let now = cache.now();
    let ours = held.into_iter().filter(|held| {
        held.parts.partition == *cache.partition()
            && held.parts.host == cache.api().key_base()
            && !done.contains(&held.parts.key())
    });
    let mut ours: Vec<Held> = ours.collect();
    // Read most lately first; of those, the oldest.
    ours.sort_by_key(|held| (std::cmp::Reverse(held.used_at.secs() / 86_400), held.validated_at));
    let decided = ours.into_iter().map(|held| {
        let request = held.parts.request(cache.api(), held.listing.as_deref());
        let unread_secs = now.since(held.used_at);
        let verdict = match &request {
            None => Verdict::Unknown,
            Some(_) if unread_secs > idle_secs => Verdict::Unread,
            Some(request) => match cache.explain(request, ask).decision {
                Before::Fresh { .. } | Before::AnswerStale { .. } | Before::NotCached => Verdict::Fresh,
                Before::Revalidate { .. } | Before::Fetch(_) => Verdict::Refresh,
            },
        };
        let decision =
            Decision { target: held.parts.target(), verdict, age_secs: now.since(held.validated_at), unread_secs };
        (decision, request)
    });
    decided.collect()
}

/// Asks for what is to be refreshed; how many were, and how many were left.
async fn refresh(
    cache: &Cache,
    ask: &Ask,
    batching: &Batching,
    single: Vec<Request>,
    batched: Vec<Request>,
) -> (usize, usize) {
    let mut answers = Vec::new();
    let wanted: Vec<Wanted> =
        batched.into_iter().map(|request| Wanted { request, ask: *ask, rest_if_free: true }).collect();
    if !wanted.is_empty() {
        answers.extend(cache.get_batch(&wanted, batching).await);
    }
    let singles = futures_util::stream::iter(&single)
        .map(|request| cache.get(request, ask))
        .buffer_unordered(batching.concurrency.max(1));
    answers.extend(singles.collect::<Vec<_>>().await);
    let is_refreshed = |answer: &Result<crate::cache::Answer>| {
        answer.as_ref().is_ok_and(|answer| !matches!(answer.outcome, crate::outcome::Outcome::Stale(_)))
    };
    let refreshed = answers.iter().filter(|answer| is_refreshed(answer)).count();
    (refreshed, answers.len() - refreshed)
}

/// How long answers must stay fresh from `now`: until the tick after this one and `ahead`; only
/// `ahead` where no schedule is known.
pub fn horizon_secs(plan: &Plan, now: Timestamp) -> u64 {
    let next = plan.warm.schedule.as_ref().and_then(|schedule| schedule.next_after(now));
    next.map_or(0, |next| next.since(now)) + plan.warm.ahead_secs.unwrap_or(AHEAD_SECS)
}
