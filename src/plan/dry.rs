//! A dry run (C4): what would happen, without network and without writes.
//!
//! Knows: deciding as a run would, from what is stored. Does not know: the future; a listing that
//! is not stored has at least one page.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::expand::{self, Results};
use super::{Plan, document, run};
use crate::cache::{Ask, Cache};
use crate::link;
use crate::policy::Before;
use crate::request::Request;

/// More pages than a run would follow.
const MAX_PAGES: usize = 1_000;

/// What a run would do.
#[derive(Debug, Serialize)]
pub struct Forecast {
    /// One per query or item.
    pub queries: Vec<QueryForecast>,
    /// Requests that would be sent, at least.
    pub requests: u32,
    /// How many of them would be charged if nothing has changed.
    pub charged: u32,
}

/// What would become of one query.
#[derive(Debug, Serialize)]
pub struct QueryForecast {
    /// The query's name.
    pub name: String,
    /// The item, for one of a `for-each`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// `hit`, `revalidate`, `miss`, `stale` (the mode says so), `unavailable` (offline), `unknown`.
    pub outcome: &'static str,
    /// Requests that it would send, at least.
    pub requests: u32,
    /// How many of them would be charged if nothing has changed.
    pub charged: u32,
    /// What there is to say besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Forecasts a run of `plan`.
pub fn forecast(plan: &Plan, cache: &Cache, vars: &BTreeMap<String, String>, ask: Ask) -> Forecast {
    let vars = run::merged(vars, &plan.vars);
    let mut results = Results::default();
    let mut queries = Vec::new();
    for query in &plan.queries {
        let unknown = |item: Option<String>, note: String| QueryForecast {
            name: query.name.clone(),
            item,
            outcome: "unknown",
            requests: 0,
            charged: 0,
            note: Some(note),
        };
        let items = match expand::items(query, &results, cache.now()) {
            Ok(items) => items,
            Err(error) => {
                queries.push(unknown(None, error.to_string()));
                continue;
            }
        };
        let ask = Ask { ttl_secs: query.ttl_secs, stale_secs: query.stale_secs, ..ask };
        for (number, item) in items.iter().enumerate() {
            match expand::unit(query, item.as_ref(), &vars, cache.api()) {
                Err(error) => queries.push(unknown(item.as_ref().map(|item| item.value.to_string()), error.to_string())),
                Ok(unit) => {
                    let ask = Ask { fields: unit.fields, ..ask };
                    let (forecast, document) = unit_forecast(&unit, cache, &ask);
                    let filtered = match (document, &query.filter) {
                        (Some(document), Some(filter)) => filter.run_to_one(&document).ok().map(Bytes::from),
                        (document, _) => document,
                    };
                    if let Some(document) = filtered {
                        results.add(query, number, document, false);
                    }
                    queries.push(forecast);
                }
            }
        }
    }
    Forecast {
        requests: queries.iter().map(|query| query.requests).sum(),
        charged: queries.iter().map(|query| query.charged).sum(),
        queries,
    }
}

fn unit_forecast(unit: &expand::Unit<'_>, cache: &Cache, ask: &Ask) -> (QueryForecast, Option<Bytes>) {
    let mut forecast = QueryForecast {
        name: unit.query.name.clone(),
        item: unit.item.clone(),
        outcome: "hit",
        requests: 0,
        charged: 0,
        note: None,
    };
    let mut documents = Vec::new();
    for request in &unit.requests {
        let pages = pages(request, cache, ask, unit.query.paginate);
        let hits = pages.iter().all(|page| page.step == Step::Hit);
        for page in &pages {
            // Once one page must be asked, all are: they belong together.
            let step = if hits || pages.len() == 1 || page.step != Step::Hit { page.step } else { Step::Revalidate };
            if step > step_of(forecast.outcome) {
                forecast.outcome = step.as_str();
            }
            forecast.requests += u32::from(matches!(step, Step::Revalidate | Step::Miss));
            forecast.charged += u32::from(step == Step::Miss);
        }
        let bodies: Option<Vec<Bytes>> = pages.into_iter().map(|page| page.body).collect();
        documents.push(bodies.and_then(|bodies| document::join(&bodies).ok()));
    }
    if unit.query.paginate && forecast.outcome == "miss" {
        forecast.note = Some("at least; the number of pages is not known".into());
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
    body: Option<Bytes>,
}

fn pages(first: &Request, cache: &Cache, ask: &Ask, paginate: bool) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut next = Some(first.clone());
    while let Some(request) = next.take() {
        let explained = cache.explain(&request, ask);
        let step = match explained.decision {
            Before::Fresh { .. } => Step::Hit,
            Before::AnswerStale { .. } => Step::Stale,
            Before::Revalidate { .. } => Step::Revalidate,
            Before::Fetch(_) => Step::Miss,
            Before::NotCached => Step::Unavailable,
        };
        let entry = explained.found.map(|found| found.entry);
        // A stored redirect leads on to where the answer is, as in a run.
        let redirect = entry
            .as_ref()
            .filter(|entry| matches!(entry.status, 301 | 307 | 308))
            .and_then(|entry| entry.headers.get("location"));
        let onward = redirect.or_else(|| entry.as_ref().filter(|_| paginate)?.headers.get("link").and_then(link::next));
        next = onward.filter(|_| pages.len() < MAX_PAGES).and_then(|to| request.follow(cache.api(), to));
        let body = if redirect.is_some() { Some(Bytes::new()) } else { entry.map(|entry| entry.body) };
        pages.push(Page { step, body });
    }
    pages.retain(|page| page.body.as_ref().is_none_or(|body| !body.is_empty()) || page.step != Step::Hit);
    if pages.is_empty() { vec![Page { step: Step::Hit, body: Some(Bytes::new()) }] } else { pages }
}
