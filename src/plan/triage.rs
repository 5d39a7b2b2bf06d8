//! The order of a run whose budget does not cover it (B3): by what the user loses.
//!
//! Knows: what is missing, and how long the rest is overdue. Does not know: sending; what does not
//! fit is held back, and answered stale, or not at all.

use super::expand::Unit;
use crate::cache::batch::{Batching, ForeseenWay, Wanted};
use crate::cache::{Ask, Cache, Explained};
use crate::policy::{self, Before};

/// What an answer is worth asking for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Need {
    /// Nothing: it is there.
    None,
    /// It is there, but past its lifetime: age by lifetime.
    Overdue(f64),
    /// It is not there.
    Missing,
}

impl Need {
    /// What is missing comes before what is stale, long overdue before barely stale. What needs
    /// nothing comes first: it costs nothing.
    fn rank(self) -> (u8, f64) {
        match self {
            Need::None => (0, 0.0),
            Need::Missing => (1, 0.0),
            Need::Overdue(by) => (2, -by),
        }
    }
}

/// Puts `units` into the order in which they are worth their requests, if not all can be sent.
pub(super) fn order(units: &mut Vec<(usize, Unit<'_>)>, cache: &Cache, base: &Ask, batching: &Batching) {
    let Some(first) = units.iter().find_map(|(_, unit)| unit.requests.first()) else { return };
    // As long as nothing is known of a bound, nothing needs to be weighed.
    let Some(allowance) = cache.upstream().allowance(first) else { return };
    if units.len() as u64 * 2 <= allowance {
        return;
    }
    let needs: Vec<Need> = units.iter().map(|(_, unit)| need(unit, cache, base, batching)).collect();
    let batched: Vec<Wanted> = units.iter().filter_map(|(_, unit)| unit.wanted(base)).collect();
    let documents = u64::from(cache.foresee_batch(&batched, batching).documents);
    let single = units.iter().zip(&needs).filter(|((_, unit), need)| !unit.is_batched() && **need != Need::None);
    let requests = single.map(|((_, unit), _)| unit.requests.len() as u64).sum::<u64>() + documents;
    if requests <= allowance {
        return;
    }
    tracing::warn!(
        requests,
        allowance,
        "the budget does not cover the plan: what is missing comes first, then what is overdue for longest"
    );
    let mut ranked: Vec<_> = std::mem::take(units).into_iter().zip(needs).collect();
    ranked.sort_by(|(_, a), (_, b)| a.rank().partial_cmp(&b.rank()).unwrap_or(std::cmp::Ordering::Equal));
    // What does not fit is held back, so that it cannot get ahead of what is more urgent.
    let share = documents as f64 / (batched.len() as f64).max(1.0);
    let mut left = allowance as f64;
    units.extend(ranked.into_iter().map(|((number, mut unit), need)| {
        let cost = match need {
            Need::None => 0.0,
            _ if unit.is_batched() => share,
            _ => unit.requests.len() as f64,
        };
        unit.held_back = cost > left;
        left -= if unit.held_back { 0.0 } else { cost };
        (number, unit)
    }));
}

fn need(unit: &Unit<'_>, cache: &Cache, base: &Ask, batching: &Batching) -> Need {
    let ask = unit.ask(base);
    if let Some(wanted) = unit.wanted(base) {
        return match cache.foresee_batch(std::slice::from_ref(&wanted), batching).ways.pop() {
            Some(ForeseenWay::Stored(_)) => Need::None,
            _ => overdue(&cache.explain(&wanted.request.projected(), &ask)),
        };
    }
    let needs = unit.requests.iter().map(|request| overdue(&cache.explain(request, &ask)));
    let some = needs.filter(|need| *need != Need::None);
    some.min_by(|a, b| a.rank().partial_cmp(&b.rank()).unwrap_or(std::cmp::Ordering::Equal)).unwrap_or(Need::None)
}

fn overdue(explained: &Explained) -> Need {
    match (&explained.decision, &explained.found) {
        (Before::Fresh { .. } | Before::AnswerStale { .. } | Before::NotCached, _) => Need::None,
        (_, None) => Need::Missing,
        (_, Some(found)) => {
            let age = explained.now.since(found.entry.validated_at) as f64;
            Need::Overdue(age / policy::fresh_secs(&found.entry, &explained.lifetime).max(1) as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_before_stale_and_long_overdue_before_barely() {
        let mut needs =
            [Need::Overdue(1.1), Need::Missing, Need::None, Need::Overdue(40.0), Need::Missing, Need::Overdue(3.0)];
        needs.sort_by(|a, b| a.rank().partial_cmp(&b.rank()).unwrap());
        let expected =
            [Need::None, Need::Missing, Need::Missing, Need::Overdue(40.0), Need::Overdue(3.0), Need::Overdue(1.1)];
        assert_eq!(needs, expected);
    }
}
