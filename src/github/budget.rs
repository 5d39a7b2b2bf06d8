//! What may be sent, and when (B3): the ledger of primary limits per bucket, the governor that
//! stays inside the secondary ones, and the stop while a limit holds.
//!
//! Knows: GitHub's published bounds, what live headers said, what is under way. Does not know:
//! HTTP, retries, files; other processes of the same identity come in as numbers ([`Others`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::limit::{Limit, reset_at};
use crate::clock::Timestamp;
use crate::reply::Reply;
use crate::request::{Method, Request};
use crate::upstream::RateLimit;

/// Buckets that are remembered; GitHub has about a dozen.
const MAX_BUCKETS: usize = 64;

/// Points a minute to REST endpoints, of GitHub's 900.
const REST_POINTS: u32 = 800;

/// Points a minute to GraphQL, of GitHub's 2,000.
const GRAPHQL_POINTS: u32 = 1_800;

/// The window of points.
const MINUTE: Duration = Duration::from_mins(1);

/// A secondary limit that names no wait: so long, doubled with each further one in a row.
const SECONDARY_WAIT_SECS: u64 = 60;

/// A wait of ours never grows beyond this.
const LONGEST_SECONDARY_WAIT_SECS: u64 = 16 * 60;

/// Answers in a row after which one more request may be under way again.
const CALM_ANSWERS: u32 = 50;

/// Answers in a row without a word of limits, after which a host is taken to have none.
const SILENT_ANSWERS: u32 = 3;

/// What warming leaves to everybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// So many requests or points.
    Count(u64),
    /// This share of the bucket's limit, in percent.
    Percent(u8),
}

impl Reserve {
    fn of(self, limit: u64) -> u64 {
        match self {
            Reserve::Count(count) => count,
            Reserve::Percent(percent) => limit * u64::from(percent.min(100)) / 100,
        }
    }
}

/// What other processes of the same identity are known to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// Points that they sent to REST endpoints within the last minute.
    pub(super) rest_points: u32,
    /// The same, to GraphQL.
    pub(super) graphql_points: u32,
}

/// Whether a request may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admit {
    /// Now; it counts as under way until [`Budget::ended`].
    Go,
    /// When one that is under way has ended.
    AfterAnother,
    /// When the minute's points allow it.
    After(Duration),
    /// Not before this time: a limit holds.
    Limited(Timestamp),
    /// Not before this time: what is left is reserved for others.
    Reserved(Timestamp),
}

/// The state of one identity's budget.
#[derive(Debug)]
pub(super) struct Budget {
    buckets: BTreeMap<String, RateLimit>,
    /// Buckets that GitHub said are empty, and until when.
    empty_until: BTreeMap<String, Timestamp>,
    /// A secondary limit stops everything.
    stopped_until: Option<Timestamp>,
    /// Secondary limits in a row.
    strikes: u32,
    rest: Points,
    graphql: Points,
    pub(super) others: Others,
    under_way: BTreeMap<&'static str, u64>,
    /// Requests that may be under way at once, by now.
    allowed: usize,
    most: usize,
    calm: u32,
    /// Answers in a row that said nothing of limits.
    silent: u32,
}

/// Points sent within the last minute.
#[derive(Debug, Default)]
struct Points {
    sent: VecDeque<(Instant, u32)>,
    sum: u32,
}

impl Points {
    fn within_minute(&mut self, at: Instant) -> u32 {
        while let Some((sent, points)) = self.sent.front().copied() {
            if at.duration_since(sent) < MINUTE {
                break;
            }
            self.sum -= points;
            self.sent.pop_front();
        }
        self.sum
    }

    fn add(&mut self, at: Instant, points: u32) {
        self.sent.push_back((at, points));
        self.sum += points;
    }

    /// How long until the oldest has left the window.
    fn next_leaves(&self, at: Instant) -> Duration {
        self.sent.front().map_or(MINUTE, |(sent, _)| MINUTE.saturating_sub(at.duration_since(*sent)))
    }
}

/// The bucket that a request is expected to be counted in.
pub(super) fn bucket_of(request: &Request) -> &'static str {
    match &request.method {
        Method::Graphql(_) => "graphql",
        _ if request.path == "/search/code" => "code_search",
        _ if request.path.starts_with("/search/") => "search",
        _ => "core",
    }
}

impl Budget {
    /// A fresh budget with at most `concurrency` requests under way.
    pub(super) fn new(concurrency: usize) -> Self {
        let most = concurrency.clamp(1, super::MAX_CONCURRENCY);
        Self {
            buckets: BTreeMap::new(),
            empty_until: BTreeMap::new(),
            stopped_until: None,
            strikes: 0,
            rest: Points::default(),
            graphql: Points::default(),
            others: Others::default(),
            under_way: BTreeMap::new(),
            allowed: most,
            most,
            calm: 0,
            silent: 0,
        }
    }

    /// Whether a request to `bucket` of `cost` points may go out now.
    pub(super) fn admit(
        &mut self,
        bucket: &'static str,
        cost: u32,
        reserve: Option<Reserve>,
        now: Timestamp,
        at: Instant,
    ) -> Admit {
        if let Some(until) = self.blocked_until(bucket, now) {
            return Admit::Limited(until);
        }
        let busy: u64 = self.under_way.values().sum();
        if busy >= self.allowed as u64 {
            return Admit::AfterAnother;
        }
        if let Some(limit) = self.buckets.get(bucket).filter(|limit| limit.reset_at > now) {
            let kept = reserve.map_or(0, |reserve| reserve.of(limit.limit));
            let under_way = self.under_way.get(bucket).copied().unwrap_or(0);
            if limit.remaining <= kept {
                return if kept == 0 { Admit::Limited(limit.reset_at) } else { Admit::Reserved(limit.reset_at) };
            }
            // What is under way may be charged as well: the last ones go out one by one.
            if limit.remaining - kept <= under_way {
                return Admit::AfterAnother;
            }
        }
        let unlimited = self.is_unlimited();
        let (points, others, bound) = match bucket {
            "graphql" => (&mut self.graphql, self.others.graphql_points, GRAPHQL_POINTS),
            _ => (&mut self.rest, self.others.rest_points, REST_POINTS),
        };
        if !unlimited && points.within_minute(at).saturating_add(others) >= bound {
            return Admit::After(points.next_leaves(at).max(Duration::from_millis(50)));
        }
        points.add(at, cost);
        *self.under_way.entry(bucket).or_default() += 1;
        Admit::Go
    }

    /// Whether this host has no limits, as GitHub Enterprise Server has none unless told to: then
    /// there is nothing to stay inside of but how much is under way.
    pub(super) fn is_unlimited(&self) -> bool {
        self.silent >= SILENT_ANSWERS && self.buckets.is_empty()
    }

    /// A request that was admitted has ended, however.
    pub(super) fn ended(&mut self, bucket: &'static str) {
        if let Some(count) = self.under_way.get_mut(bucket) {
            *count = count.saturating_sub(1);
        }
    }

    /// Takes over what a live answer says.
    pub(super) fn observe(&mut self, reply: &Reply, now: Timestamp) {
        let seen = read(reply, now);
        self.silent = if seen.is_some() { 0 } else { self.silent.saturating_add(1) };
        if let Some(seen) = seen {
            self.learn(seen);
        }
        self.calm += 1;
        if self.calm >= CALM_ANSWERS {
            self.calm = 0;
            self.strikes = 0;
            self.allowed = (self.allowed + 1).min(self.most);
        }
    }

    /// Replicas disagree: within a window the smallest remainder counts, and a newer window
    /// replaces an older one. By our clock a window's end is known to a second or two.
    pub(super) fn learn(&mut self, seen: RateLimit) {
        let has_room = self.buckets.len() < MAX_BUCKETS;
        match self.buckets.get_mut(&seen.resource) {
            Some(old) if old.reset_at.since(seen.reset_at) > 2 => {}
            Some(old) if seen.reset_at.since(old.reset_at) <= 2 => old.remaining = old.remaining.min(seen.remaining),
            Some(old) => *old = seen,
            None if has_room => {
                self.buckets.insert(seen.resource.clone(), seen);
            }
            None => {}
        }
    }

    /// A limit bit. Gives the time until which nothing of its kind is sent.
    pub(super) fn limited(&mut self, limit: Limit, bucket: &str, now: Timestamp) -> Timestamp {
        match limit {
            Limit::Primary { until } => {
                self.block(bucket, until);
                until
            }
            Limit::Secondary { wait_secs } => {
                let own = (SECONDARY_WAIT_SECS << self.strikes.min(4)).min(LONGEST_SECONDARY_WAIT_SECS);
                let until = now.plus(wait_secs.unwrap_or(own));
                self.strikes = self.strikes.saturating_add(1);
                self.allowed = (self.allowed / 2).max(1);
                self.calm = 0;
                self.stop(until);
                until
            }
        }
    }

    /// Nothing goes to `bucket` before `until`.
    pub(super) fn block(&mut self, bucket: &str, until: Timestamp) {
        if self.empty_until.len() < MAX_BUCKETS || self.empty_until.contains_key(bucket) {
            let slot = self.empty_until.entry(bucket.to_owned()).or_insert(until);
            *slot = (*slot).max(until);
        }
    }

    /// Nothing is sent at all before `until`.
    pub(super) fn stop(&mut self, until: Timestamp) {
        self.stopped_until = self.stopped_until.max(Some(until));
    }

    /// Whether nothing at all may be sent, since a secondary limit holds.
    pub(super) fn is_stopped(&self, now: Timestamp) -> bool {
        self.stopped_until.is_some_and(|until| until > now)
    }

    /// Until when nothing may go to `bucket`, if so.
    pub(super) fn blocked_until(&self, bucket: &str, now: Timestamp) -> Option<Timestamp> {
        let empty = self.empty_until.get(bucket).copied();
        empty.max(self.stopped_until).filter(|until| *until > now)
    }

    /// Everything that other processes should know.
    pub(super) fn limits(&self, now: Timestamp) -> (Vec<RateLimit>, BTreeMap<String, Timestamp>, Option<Timestamp>) {
        let buckets = self.buckets.values().filter(|limit| limit.reset_at > now).cloned().collect();
        let empty = self.empty_until.iter().filter(|(_, until)| **until > now);
        let empty = empty.map(|(bucket, until)| (bucket.clone(), *until)).collect();
        (buckets, empty, self.stopped_until.filter(|until| *until > now))
    }

    /// Points sent within the last minute, to REST endpoints and GraphQL.
    pub(super) fn points(&mut self, at: Instant) -> (u32, u32) {
        (self.rest.within_minute(at), self.graphql.within_minute(at))
    }

    /// What is left in `bucket`, where a live answer has told.
    pub(super) fn remaining(&self, bucket: &str, now: Timestamp) -> Option<u64> {
        let limit = self.buckets.get(bucket).filter(|limit| limit.reset_at > now)?;
        Some(if self.blocked_until(bucket, now).is_some() { 0 } else { limit.remaining })
    }

    /// What live answers said of `bucket`, while its window lasts.
    pub(super) fn limit(&self, bucket: &str, now: Timestamp) -> Option<RateLimit> {
        self.buckets.get(bucket).filter(|limit| limit.reset_at > now).cloned()
    }

    /// The bucket with the smallest share left.
    pub(super) fn scarcest(&self) -> Option<RateLimit> {
        self.buckets
            .values()
            .min_by(|a, b| (a.remaining * b.limit.max(1)).cmp(&(b.remaining * a.limit.max(1))))
            .cloned()
    }
}

fn read(reply: &Reply, now: Timestamp) -> Option<RateLimit> {
    let number = |name: &str| reply.header(name)?.parse::<u32>().ok().map(u64::from);
    Some(RateLimit {
        resource: reply.header("x-ratelimit-resource").filter(|name| name.len() <= 64).unwrap_or("core").to_owned(),
        limit: number("x-ratelimit-limit")?,
        remaining: number("x-ratelimit-remaining")?,
        reset_at: reset_at(reply, now)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn bucket(resource: &str, remaining: u64, reset_in: u64) -> RateLimit {
        RateLimit { resource: resource.into(), limit: 1_000, remaining, reset_at: NOW.plus(reset_in) }
    }

    fn admit(budget: &mut Budget, reserve: Option<Reserve>) -> Admit {
        budget.admit("core", 1, reserve, NOW, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_requests_go_out_one_by_one_and_none_beyond() {
        let mut budget = Budget::new(8);
        budget.learn(bucket("core", 2, 600));
        assert_eq!(admit(&mut budget, None), Admit::Go);
        assert_eq!(admit(&mut budget, None), Admit::Go);
        assert_eq!(admit(&mut budget, None), Admit::AfterAnother);
        budget.learn(bucket("core", 0, 601));
        budget.ended("core");
        budget.ended("core");
        assert_eq!(admit(&mut budget, None), Admit::Limited(NOW.plus(600)));
        assert_eq!(budget.admit("search", 1, None, NOW, Instant::now()), Admit::Go, "buckets are apart");
        assert_eq!(budget.admit("core", 1, None, NOW.plus(601), Instant::now()), Admit::Go, "a new window");
    }

    #[tokio::test(start_paused = true)]
    async fn the_reserve_is_left_to_others() {
        let mut budget = Budget::new(8);
        budget.learn(bucket("core", 101, 600));
        let reserve = Some(Reserve::Percent(10));
        assert_eq!(admit(&mut budget, reserve), Admit::Go);
        budget.ended("core");
        budget.learn(bucket("core", 100, 600));
        assert_eq!(admit(&mut budget, reserve), Admit::Reserved(NOW.plus(600)));
        assert_eq!(admit(&mut budget, Some(Reserve::Count(99))), Admit::Go);
    }

    #[tokio::test(start_paused = true)]
    async fn points_of_a_minute_are_bounded_with_those_of_others() {
        let mut budget = Budget::new(100);
        budget.others.rest_points = 700;
        let mut sent = 0;
        let wait = loop {
            match admit(&mut budget, None) {
                Admit::Go => sent += 1,
                Admit::AfterAnother => (0..sent).for_each(|_| budget.ended("core")),
                Admit::After(wait) => break wait,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((sent, wait), (100, MINUTE));
        tokio::time::advance(MINUTE).await;
        assert_eq!(admit(&mut budget, None), Admit::Go);
    }

    #[tokio::test(start_paused = true)]
    async fn secondary_limits_stop_everything_for_longer_each_time_and_halve_concurrency() {
        let mut budget = Budget::new(8);
        let unnamed = Limit::Secondary { wait_secs: None };
        let waits: Vec<u64> = (0..6).map(|_| budget.limited(unnamed, "core", NOW).since(NOW)).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 960]);
        assert_eq!(budget.admit("graphql", 1, None, NOW, Instant::now()), Admit::Limited(NOW.plus(960)));
        let later = NOW.plus(961);
        assert_eq!(budget.admit("core", 1, None, later, Instant::now()), Admit::Go);
        assert_eq!(budget.admit("core", 1, None, later, Instant::now()), Admit::AfterAnother, "one at a time by now");
        let calm = Reply {
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            attempts: 1,
            refused: 0,
            rule_held: None,
        };
        (0..CALM_ANSWERS * 20).for_each(|_| budget.observe(&calm, later));
        assert_eq!(budget.allowed, 8, "it recovers, and no further");
        assert_eq!(budget.limited(unnamed, "core", later).since(later), 60);
    }

    #[test]
    fn replicas_that_disagree_and_older_windows() {
        let mut budget = Budget::new(8);
        for seen in [bucket("core", 50, 600), bucket("core", 60, 601), bucket("core", 900, 10)] {
            budget.learn(seen);
        }
        assert_eq!(budget.remaining("core", NOW), Some(50));
        budget.learn(bucket("core", 999, 4_000));
        assert_eq!(budget.remaining("core", NOW), Some(999));
        assert_eq!(budget.remaining("core", NOW.plus(5_000)), None, "the window is over");
    }
}
