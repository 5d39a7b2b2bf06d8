//! A dry run (C4): what would happen, without network and without writes.
//!
//! Knows: deciding as a run would, from what is stored. Does not know: the future; a listing that
//! is not stored has at least one page.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::FutureExt;
use serde::Serialize;

use super::expand::{self, Results};
use super::filter::Wait;
use super::lineage::Item;
use super::{ForEach, Plan, Query, document, run};
use crate::cache::batch::{Batching, ForeseenWay, Wanted};
use crate::cache::pages::{MAX_PAGES, request_behind};
use crate::cache::{Ask, Cache};
use crate::error::{Error, Kind, Result};
use crate::graphql;
use crate::link;
use crate::outcome::Outcome;
use crate::policy::Before;
use crate::request::Request;

/// What a run would do.
#[derive(Debug, Serialize)]
pub struct Forecast {
    /// One per query or item.
    pub queries: Vec<QueryForecast>,
    /// Requests that would be sent, at least.
    pub requests: u32,
    /// How many of them would be charged if nothing has changed.
    pub charged: u32,
    /// Points of GraphQL's own limit that batches would cost.
    pub points: u64,
}

/// What would become of one query.
#[derive(Debug, Serialize)]
pub struct QueryForecast {
    /// The query's name.
    pub name: String,
    /// The item, for one of a `for-each`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// `hit`, `revalidate`, `miss`, `batch` (one of many in a GraphQL request, which is counted with
    /// the first of them), `stale` (the mode says so), `unavailable` (offline), `unknown`.
    pub outcome: &'static str,
    /// Requests that it would send, at least.
    pub requests: u32,
    /// How many of them would be charged if nothing has changed.
    pub charged: u32,
    /// Why a hit is one, where that is not its lifetime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What there is to say besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Forecasts a run of `plan`.
pub fn forecast(plan: &Plan, cache: &Cache, vars: &BTreeMap<String, String>, ask: Ask, how: &Batching) -> Forecast {
    let vars = run::merged(vars, &plan.vars);
    let mut results = Results::default();
    let mut forecast = Forecast { queries: Vec::new(), requests: 0, charged: 0, points: 0 };
    let mut at = 0;
    while at < plan.queries.len() {
        // Queries of one wave share batches, as in a run.
        let wave = plan.queries[at..].iter().take_while(|query| !waits_for(query, &plan.queries[at..])).count().max(1);
        let queries = &plan.queries[at..at + wave];
        at += wave;
        let mut units: Vec<(usize, expand::Unit<'_>)> = Vec::new();
        for query in queries {
            let unknown = |item: Option<String>, note: String| QueryForecast {
                name: query.name.clone(),
                item,
                outcome: "unknown",
                requests: 0,
                charged: 0,
                reason: None,
                note: Some(note),
            };
            match items(query, &results, cache) {
                Err(error) => forecast.queries.push(unknown(None, error.to_string())),
                Ok(items) => {
                    for (number, item) in items.iter().enumerate() {
                        match expand::unit(query, item.as_ref(), &vars, cache.api()) {
                            Ok(unit) => units.push((number, unit)),
                            Err(error) => {
                                let item = item.as_ref().map(|item| item.value.to_string());
                                forecast.queries.push(unknown(item, error.to_string()));
                            }
                        }
                    }
                }
            }
        }
        forecast_wave(&units, cache, &ask, how, &mut results, &mut forecast);
    }
    forecast.requests = forecast.queries.iter().map(|query| query.requests).sum();
    forecast.charged = forecast.queries.iter().map(|query| query.charged).sum();
    forecast
}

/// The items of a query. Filters are waited for: nothing else goes on meanwhile.
fn items(query: &Query, results: &Results, cache: &Cache) -> Result<Vec<Option<Item>>> {
    expand::items(query, results, cache.now(), Wait::Blocking)
        .now_or_never()
        .unwrap_or_else(|| Err(Error::new(Kind::Internal, "a filter that is waited for has not ended")))
}

fn waits_for(query: &Query, others: &[Query]) -> bool {
    matches!(&query.for_each, Some(ForEach::Query { query: needed, .. }) if others.iter().any(|other| other.name == *needed))
}

fn forecast_wave(
    units: &[(usize, expand::Unit<'_>)],
    cache: &Cache,
    ask: &Ask,
    how: &Batching,
    results: &mut Results,
    forecast: &mut Forecast,
) {
    let wanted: Vec<Wanted> = units.iter().filter_map(|(_, unit)| unit.wanted(ask)).collect();
    let foreseen = cache.foresee_batch(&wanted, how);
    forecast.points += foreseen.points;
    let mut documents = foreseen.documents;
    let mut ways = foreseen.ways.into_iter();
    for (number, unit) in units {
        let way = if unit.is_batched() { ways.next() } else { None };
        let (mut query, document) = match way {
            Some(ForeseenWay::Stored(answer)) => {
                let answer = answer.ok();
                let outcome = answer.as_ref().map(|answer| answer.outcome);
                let mut query = blank(unit, if matches!(outcome, Some(Outcome::Hit(_))) { "hit" } else { "stale" });
                query.reason = outcome.and_then(Outcome::reason);
                (query, answer.map(|answer| answer.entry.body.clone()))
            }
            Some(ForeseenWay::Batch) => {
                let mut query = blank(unit, "batch");
                // All documents stand with the first that needs one.
                (query.requests, query.charged) = (documents, documents);
                documents = 0;
                (query, None)
            }
            Some(ForeseenWay::Rest) | None => unit_forecast(unit, cache, &unit.ask(ask)),
        };
        if unit.query.paginate && query.outcome == "miss" {
            query.note = Some("at least; the number of pages is not known".into());
        }
        let filtered = match (document, &unit.query.filter) {
            (Some(document), Some(filter)) => filter.run_to_one(&document).ok().map(Bytes::from),
            (document, _) => document,
        };
        if let Some(document) = filtered {
            results.add(unit.query, *number, document, false);
        }
        forecast.queries.push(query);
    }
}

fn blank(unit: &expand::Unit<'_>, outcome: &'static str) -> QueryForecast {
    QueryForecast {
        name: unit.query.name.clone(),
        item: unit.item.clone(),
        outcome,
        requests: 0,
        charged: 0,
        reason: None,
        note: None,
    }
}

fn unit_forecast(unit: &expand::Unit<'_>, cache: &Cache, ask: &Ask) -> (QueryForecast, Option<Bytes>) {
    let mut forecast = blank(unit, "hit");
    let signed = cache.upstream().signer().token_digest.is_some();
    let paginate = unit.query.paginate
        || unit.is_batched() && graphql::Item::of(&unit.requests[0]).is_some_and(|item| item.is_list());
    let mut documents = Vec::new();
    for request in &unit.requests {
        let request = if paginate { request.clone().with_default_param("per_page", "100") } else { request.clone() };
        let pages = pages(&request, cache, ask, paginate);
        let hits = pages.iter().all(|page| page.step == Step::Hit);
        for page in &pages {
            // Once one page must be asked, all are: they belong together.
            let step = if hits || pages.len() == 1 || page.step != Step::Hit { page.step } else { Step::Revalidate };
            if step > step_of(forecast.outcome) {
                forecast.outcome = step.as_str();
            }
            if step == Step::Hit {
                forecast.reason = forecast.reason.or(page.reason);
            }
            let asked = u32::from(matches!(step, Step::Revalidate | Step::Miss));
            // Behind a full last page, the next one is looked for.
            let behind = u32::from(step == Step::Revalidate && page.full_and_last);
            forecast.requests += asked + behind;
            forecast.charged += if signed && step == Step::Revalidate { 0 } else { asked + behind };
        }
        let bodies: Option<Vec<Bytes>> = pages.into_iter().map(|page| page.body).collect();
        documents.push(bodies.and_then(|bodies| document::join(&bodies).ok()));
    }
    let document = if documents.len() == 1 { documents.remove(0) } else { None };
    (forecast, document)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Hit,
    Stale,
    Revalidate,
    Miss,
    Unavailable,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Step::Hit => "hit",
            Step::Stale => "stale",
            Step::Revalidate => "revalidate",
            Step::Miss => "miss",
            Step::Unavailable => "unavailable",
        }
    }
}

fn step_of(word: &str) -> Step {
    [Step::Stale, Step::Revalidate, Step::Miss, Step::Unavailable]
        .into_iter()
        .find(|step| step.as_str() == word)
        .unwrap_or(Step::Hit)
}

struct Page {
    step: Step,
    reason: Option<&'static str>,
    full_and_last: bool,
    body: Option<Bytes>,
}

fn pages(first: &Request, cache: &Cache, ask: &Ask, paginate: bool) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut next = Some(first.clone());
    while let Some(request) = next.take() {
        let explained = cache.explain(&request, ask);
        let mut reason = None;
        let step = match explained.decision {
            Before::Fresh { proof, .. } => {
                reason = Outcome::Hit(proof).reason();
                Step::Hit
            }
            Before::AnswerStale { .. } => Step::Stale,
            Before::Revalidate { .. } => Step::Revalidate,
            Before::Fetch(_) => Step::Miss,
            Before::NotCached => Step::Unavailable,
        };
        let entry = explained.found.map(|found| found.entry);
        let behind = entry.as_ref().filter(|_| paginate).and_then(|entry| request_behind(&request, entry));
        // A stored redirect leads on to where the answer is, as in a run.
        let redirect = entry
            .as_ref()
            .filter(|entry| matches!(entry.status, 301 | 307 | 308))
            .and_then(|entry| entry.headers.get("location"));
        let onward = redirect.or_else(|| entry.as_ref().filter(|_| paginate)?.headers.get("link").and_then(link::next));
        next = onward.filter(|_| pages.len() < MAX_PAGES).and_then(|to| request.follow(cache.api(), to));
        let body = if redirect.is_some() { Some(Bytes::new()) } else { entry.map(|entry| entry.body.clone()) };
        pages.push(Page { step, reason, full_and_last: behind.is_some(), body });
    }
    pages.retain(|page| page.body.as_ref().is_none_or(|body| !body.is_empty()) || page.step != Step::Hit);
    if pages.is_empty() {
        vec![Page { step: Step::Hit, reason: None, full_and_last: false, body: Some(Bytes::new()) }]
    } else {
        pages
    }
}
