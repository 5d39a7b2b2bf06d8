//! What was asked of late, for people who look: the last answers one by one, and the busiest endpoints.
//!
//! Knows: that hits are too many to be written down each. Does not know: who looks.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::clock::Timestamp;
use crate::mask::Masker;

/// Answers that are kept.
const MAX_LINES: usize = 200;

/// Endpoints that are counted; beyond that the least busy one makes room (Metwally and others,
/// "Efficient computation of frequent and top-k elements in data streams").
const MAX_ENDPOINTS: usize = 100;

/// Of hits, one in so many is counted for the busiest endpoints, as so many, while nobody looks.
const SAMPLE: u64 = 64;

/// So many are counted each, to begin with.
const ALL_OF_THE_FIRST: u64 = 10 * SAMPLE;

/// The longest text of a target that is kept.
const MAX_TARGET_BYTES: usize = 300;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// Counts answers of this process that were written down.
    pub(super) seq: u64,
    pub(super) id: String,
    pub(super) at: Timestamp,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) outcome: &'static str,
    /// The reason behind the outcome, or the tier of a hit.
    pub(super) detail: &'static str,
    pub(super) status: u16,
    pub(super) micros: u64,
    pub(super) bytes: u64,
}

/// An endpoint and how busy it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Endpoint {
    pub(super) target: String,
    /// Answers; estimated from a sample of hits.
    pub(super) answers: u64,
    /// Answers that took a request to GitHub.
    pub(super) asked: u64,
}

#[derive(Debug, Default)]
pub(super) struct Journal {
    hits: AtomicU64,
    confirmed: AtomicU64,
    watchers: AtomicU32,
    seq: AtomicU64,
    lines: Mutex<VecDeque<Line>>,
    endpoints: Mutex<HashMap<String, (u64, u64)>>,
}

/// Why a hit is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// How many hits it stands for.
    pub(super) stands_for: u64,
    /// Whether it is one of the sample that the log shows, too.
    pub(super) sampled: bool,
}

impl Weight {
    /// Of everything that is no hit.
    pub(super) const ONE: Weight = Weight { stands_for: 1, sampled: true };
}

impl Journal {
    /// Whether a hit is to be written down; the hot path asks this alone.
    pub(super) fn weight_of_hit(&self) -> Option<Weight> {
        let before = self.hits.fetch_add(1, Ordering::Relaxed);
        let sampled = before.is_multiple_of(SAMPLE);
        // The first ones are counted each, too: small numbers should be right.
        if before < ALL_OF_THE_FIRST || self.watchers.load(Ordering::Relaxed) > 0 {
            return Some(Weight { stands_for: 1, sampled });
        }
        sampled.then_some(Weight { stands_for: SAMPLE, sampled })
    }

    /// The same for an answer that GitHub confirmed: there may be as many, but not as many as hits.
    pub(super) fn weight_of_confirmed(&self) -> Option<Weight> {
        let before = self.confirmed.fetch_add(1, Ordering::Relaxed);
        if before < ALL_OF_THE_FIRST || self.watchers.load(Ordering::Relaxed) > 0 {
            return Some(Weight::ONE);
        }
        before.is_multiple_of(SAMPLE).then_some(Weight { stands_for: SAMPLE, sampled: true })
    }

    /// Writes an answer down, its target with credentials masked; `stands_for` as [`Journal::weight_of_hit`] said, 1 for anything else.
    pub(super) fn note(&self, mut line: Line, stands_for: u64, masker: &Masker) {
        if let Cow::Owned(masked) = masker.text(&line.target) {
            line.target = masked;
        }
        line.seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        if line.target.len() > MAX_TARGET_BYTES {
            line.target.truncate(line.target.floor_char_boundary(MAX_TARGET_BYTES));
            line.target.push('…');
        }
        let path = line.target.split('?').next().unwrap_or_default();
        self.count(path, stands_for, u64::from(line.outcome != "hit" && line.outcome != "stale"));
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn count(&self, path: &str, answers: u64, asked: u64) {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = endpoints.get_mut(path) {
            *count = (count.0 + answers, count.1 + asked);
            return;
        }
        let mut inherited = (0, 0);
        if endpoints.len() >= MAX_ENDPOINTS {
            let least = endpoints.iter().min_by_key(|(_, count)| count.0).map(|(path, count)| (path.clone(), *count));
            if let Some((least, count)) = least {
                endpoints.remove(&least);
                // It may have come as often before.
                inherited = (count.0, 0);
            }
        }
        endpoints.insert(path.to_owned(), (inherited.0 + answers, inherited.1 + asked));
    }

    /// Somebody begins to look: hits are written down each, until all have [left](Journal::unwatched).
    pub(super) fn watched(&self) {
        self.watchers.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody has left.
    pub(super) fn unwatched(&self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Answers after the one with this number, oldest first, at most so many of the last.
    pub(super) fn since(&self, seq: u64, most: usize) -> Vec<Line> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<Line> = lines.iter().rev().take_while(|line| line.seq > seq).take(most).cloned().collect();
        new.reverse();
        new
    }

    /// The last stale answers, newest first.
    pub(super) fn stale(&self, most: usize) -> Vec<Line> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().filter(|line| line.outcome == "stale").take(most).cloned().collect()
    }

    /// The busiest endpoints, the busiest first.
    pub(super) fn busiest(&self, most: usize) -> Vec<Endpoint> {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let all = endpoints.iter();
        let mut all: Vec<Endpoint> = all
            .map(|(target, (answers, asked))| Endpoint { target: target.clone(), answers: *answers, asked: *asked })
            .collect();
        drop(endpoints);
        all.sort_by(|a, b| (b.answers, &a.target).cmp(&(a.answers, &b.target)));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str, outcome: &'static str) -> Line {
        Line {
            seq: 0,
            id: "1".into(),
            at: Timestamp::default(),
            method: "GET".into(),
            target: target.into(),
            outcome,
            detail: "",
            status: 200,
            micros: 1,
            bytes: 1,
        }
    }

    #[test]
    fn hits_are_sampled_until_somebody_looks() {
        let journal = Journal::default();
        let noted: u64 = (0..640).filter_map(|_| journal.weight_of_hit()).map(|weight| weight.stands_for).sum();
        assert_eq!(noted, 640);
        let weight = |stands_for, sampled| Some(Weight { stands_for, sampled });
        assert_eq!((journal.weight_of_hit(), journal.weight_of_hit()), (weight(SAMPLE, true), None));
        let sampled = (0..640).filter_map(|_| journal.weight_of_hit()).filter(|weight| weight.sampled).count();
        assert_eq!(sampled, 10);
        journal.watched();
        assert_eq!((journal.weight_of_hit(), journal.weight_of_hit()), (weight(1, false), weight(1, false)));
        journal.unwatched();
        assert_eq!(journal.weight_of_hit(), None);
        let confirmed: u64 = (0..1_280).filter_map(|_| journal.weight_of_confirmed()).map(|one| one.stands_for).sum();
        assert_eq!(confirmed, 1_280);
        assert_eq!((journal.weight_of_confirmed(), journal.weight_of_confirmed()), (weight(SAMPLE, true), None));
    }

    #[test]
    fn lines_and_endpoints_are_bounded_and_the_busiest_stay() {
        let (journal, masker) = (Journal::default(), Masker::default());
        for n in 0..1_000 {
            journal.note(line(&format!("/x{n}"), "fetched"), 1, &masker);
            journal.note(line("/busy?page=2", "hit"), 64, &masker);
        }
        assert_eq!(journal.since(0, 10_000).len(), MAX_LINES);
        let last = journal.since(1_998, 10);
        assert_eq!(last.iter().map(|line| line.seq).collect::<Vec<_>>(), [1_999, 2_000]);
        let busiest = journal.busiest(3);
        assert_eq!((busiest[0].target.as_str(), busiest[0].answers, busiest[0].asked), ("/busy", 64_000, 0));
        assert!(journal.endpoints.lock().unwrap().len() <= MAX_ENDPOINTS);
        journal.note(line(&"é".repeat(400), "stale"), 1, &masker);
        assert!(journal.stale(5)[0].target.len() <= MAX_TARGET_BYTES + 3);
        // Masked before it is cut: the beginning of a token is part of it.
        let token = format!("/{}?token=abc&a=ghp_{}", "x".repeat(270), "a1".repeat(18));
        journal.note(line(&token, "stale"), 1, &masker);
        assert!(journal.stale(1)[0].target.ends_with("?token=***&a=***"), "{}", journal.stale(1)[0].target);
    }
}
