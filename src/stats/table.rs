//! Answers by class and by what became of them, and how long they took.
//!
//! Knows: which combinations there are; each is one atomic number. Does not know: requests, files.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::{NoStore, Outcome, StaleReason};
use crate::policy::class::{self, Place};
use crate::tier::TierName;

/// What can become of a request: the outcome, and what stands behind it.
const WAYS: &[(&str, &str)] = &[
    ("hit", "memory"),
    ("hit", "disk"),
    ("hit", "bundle"),
    ("hit", "added"),
    ("hit", "redis"),
    ("hit", "peer"),
    ("hit", "ipfs"),
    ("revalidated", ""),
    ("confirmed", ""),
    ("fetched", ""),
    ("failed", ""),
    ("stale", StaleReason::Offline.as_str()),
    ("stale", StaleReason::ForceCache.as_str()),
    ("stale", StaleReason::WhileRevalidate.as_str()),
    ("stale", StaleReason::Limited.as_str()),
    ("stale", StaleReason::ServerError.as_str()),
    ("stale", StaleReason::Unreachable.as_str()),
    ("stale", StaleReason::NotReady.as_str()),
    ("not-stored", NoStore::Endpoint.as_str()),
    ("not-stored", NoStore::Directive.as_str()),
    ("not-stored", NoStore::Mode.as_str()),
    ("not-stored", NoStore::Status(0).as_str()),
    ("not-stored", NoStore::NotReady.as_str()),
    ("not-stored", NoStore::Redirect.as_str()),
    ("not-stored", NoStore::PartialResults.as_str()),
    ("not-stored", NoStore::GraphqlErrors.as_str()),
    ("not-stored", NoStore::TooLarge.as_str()),
    ("not-stored", NoStore::Identity.as_str()),
    ("not-stored", NoStore::Credentials.as_str()),
    ("not-stored", NoStore::StaleElsewhere.as_str()),
];

/// Upper bounds of the latency histogram, in microseconds; what takes longer is in one more.
pub const LATENCY_BOUNDS_MICROS: &[u64] = &[
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000, 30_000_000,
];

/// Outcomes whose latencies are told apart.
const KINDS: &[&str] = &["hit", "revalidated", "fetched", "stale", "failed"];

/// One of [`WAYS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way(usize);

impl Way {
    pub(super) const FAILED: Way = Way(10);

    /// The hot path: no text is compared.
    pub(super) fn of(outcome: Outcome, tier: Option<TierName>) -> Self {
        Way(match outcome {
            Outcome::Hit(_) => match tier {
                None | Some(TierName::Memory) => 0,
                Some(TierName::Disk) => 1,
                Some(TierName::Bundle) => 2,
                Some(TierName::Added(_)) => 3,
                Some(TierName::Redis) => 4,
                Some(TierName::Peer) => 5,
                Some(TierName::Ipfs) => 6,
            },
            Outcome::Revalidated => 7,
            Outcome::Confirmed => 8,
            Outcome::Fetched(_) => 9,
            Outcome::Stale(reason) => {
                11 + match reason {
                    StaleReason::Offline => 0,
                    StaleReason::ForceCache => 1,
                    StaleReason::WhileRevalidate => 2,
                    StaleReason::Limited => 3,
                    StaleReason::ServerError => 4,
                    StaleReason::Unreachable => 5,
                    StaleReason::NotReady => 6,
                }
            }
            Outcome::NotStored(reason) => {
                18 + match reason {
                    NoStore::Endpoint => 0,
                    NoStore::Directive => 1,
                    NoStore::Mode => 2,
                    NoStore::Status(_) => 3,
                    NoStore::NotReady => 4,
                    NoStore::Redirect => 5,
                    NoStore::PartialResults => 6,
                    NoStore::GraphqlErrors => 7,
                    NoStore::TooLarge => 8,
                    NoStore::Identity => 9,
                    NoStore::Credentials => 10,
                    NoStore::StaleElsewhere => 11,
                }
            }
        })
    }

    fn kind(self) -> usize {
        match self.0 {
            0..=6 => 0,
            7 | 8 => 1,
            10 => 4,
            11..=17 => 3,
            _ => 2,
        }
    }
}

/// How many answers of a class came about in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The class's name.
    pub class: &'static str,
    /// The outcome's word.
    pub outcome: &'static str,
    /// The tier of a hit, the reason of a stale answer or of one that was not stored; else empty.
    pub detail: &'static str,
    /// How many.
    pub count: u64,
}

/// How long answers with one outcome took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    /// The outcome's word.
    pub outcome: &'static str,
    /// How many took at most as long as each of [`LATENCY_BOUNDS_MICROS`] and longer than the one
    /// before; the last number is of those that took longer than all.
    pub counts: Vec<u64>,
    /// All together, in microseconds.
    pub micros: u64,
}

/// The numbers.
#[derive(Debug)]
pub(super) struct Table {
    ways: Box<[AtomicU64]>,
    times: Box<[AtomicU64]>,
    micros: [AtomicU64; KINDS.len()],
}

fn zeros(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

const BUCKETS: usize = LATENCY_BOUNDS_MICROS.len() + 1;

impl Default for Table {
    fn default() -> Self {
        Self { ways: zeros(Place::COUNT * WAYS.len()), times: zeros(KINDS.len() * BUCKETS), micros: Default::default() }
    }
}

impl Table {
    pub(super) fn count(&self, class: Place, Way(way): Way, micros: u64) {
        let kind = Way(way).kind();
        let bucket = LATENCY_BOUNDS_MICROS.iter().take_while(|bound| micros > **bound).count();
        self.ways[class.index() * WAYS.len() + way].fetch_add(1, Ordering::Relaxed);
        self.times[kind * BUCKETS + bucket].fetch_add(1, Ordering::Relaxed);
        self.micros[kind].fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn micros(&self) -> u64 {
        self.micros.iter().map(|micros| micros.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn counts(&self) -> Vec<Count> {
        let all = self.ways.iter().enumerate().filter_map(|(at, count)| {
            let count = count.load(Ordering::Relaxed);
            let (outcome, detail) = WAYS[at % WAYS.len()];
            let class = class::CLASSES[at / WAYS.len()].name;
            (count > 0).then_some(Count { class, outcome, detail, count })
        });
        all.collect()
    }

    pub(super) fn latencies(&self) -> Vec<Latency> {
        let of = |(kind, outcome): (usize, &&'static str)| Latency {
            outcome,
            counts: self.times[kind * BUCKETS..(kind + 1) * BUCKETS]
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            micros: self.micros[kind].load(Ordering::Relaxed),
        };
        KINDS.iter().enumerate().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Because, Proof};

    #[test]
    fn every_outcome_has_a_place_that_says_what_it_is() {
        let tiers = [
            TierName::Memory,
            TierName::Disk,
            TierName::Bundle,
            TierName::Added("other"),
            TierName::Redis,
            TierName::Peer,
            TierName::Ipfs,
        ];
        let mut all: Vec<(Outcome, Option<TierName>)> =
            tiers.into_iter().map(|tier| (Outcome::Hit(Proof::Lifetime), Some(tier))).collect();
        all.extend([Outcome::Revalidated, Outcome::Confirmed, Outcome::Fetched(Because::Stale)].map(|one| (one, None)));
        for reason in [
            StaleReason::Offline,
            StaleReason::ForceCache,
            StaleReason::WhileRevalidate,
            StaleReason::Limited,
            StaleReason::ServerError,
            StaleReason::Unreachable,
            StaleReason::NotReady,
        ] {
            all.push((Outcome::Stale(reason), Some(TierName::Disk)));
        }
        for reason in [
            NoStore::Endpoint,
            NoStore::Directive,
            NoStore::Mode,
            NoStore::Status(500),
            NoStore::NotReady,
            NoStore::Redirect,
            NoStore::PartialResults,
            NoStore::GraphqlErrors,
            NoStore::TooLarge,
            NoStore::Identity,
            NoStore::Credentials,
            NoStore::StaleElsewhere,
        ] {
            all.push((Outcome::NotStored(reason), None));
        }
        let mut seen: Vec<usize> = vec![Way::FAILED.0];
        for (outcome, tier) in all {
            let way = Way::of(outcome, tier);
            let (word, detail) = WAYS[way.0];
            assert_eq!(word, outcome.as_str());
            match outcome {
                Outcome::Stale(_) | Outcome::NotStored(_) => assert_eq!(Some(detail), outcome.reason()),
                Outcome::Hit(_) => assert!(detail == "added" || detail == tier.unwrap().as_str()),
                _ => assert_eq!(detail, ""),
            }
            seen.push(way.0);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..WAYS.len()).collect::<Vec<_>>());
    }

    #[test]
    fn times_fall_into_their_buckets() {
        let table = Table::default();
        for micros in [0, 10, 11, 40_000_000] {
            table.count(class::place("repo"), Way(0), micros);
        }
        let hits = &table.latencies()[0];
        assert_eq!((hits.counts[0], hits.counts[1], hits.counts.last(), hits.micros), (2, 1, Some(&1), 40_000_021));
        assert_eq!(table.counts(), [Count { class: "repo", outcome: "hit", detail: "memory", count: 4 }]);
    }
}
