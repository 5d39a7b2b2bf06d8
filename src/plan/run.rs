//! Running a plan: ask, shape, write, report.
//!
//! Knows: the order of it all, and that one failing query leaves the others alone. Does not know:
//! terminals; whoever runs it passes a [`Progress`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};

use super::expand::{self, Results, Unit};
use super::filter::Wait;
use super::report::{Index, QueryReport, Totals};
use super::workspace::Workspace;
use super::{ForEach, Plan, Query, document, output, triage};
use crate::cache::batch::{Batching, Wanted};
use crate::cache::{Answer, Ask, Cache};
use crate::error::{Error, Kind, Result};
use crate::mask::Masker;
use crate::outcome::{NoStore, Outcome};

/// How a plan is run.
#[derive(Debug)]
pub struct Options<'a> {
    /// Where results go; `None` when only the cache is to be filled.
    pub output_dir: Option<&'a Path>,
    /// Values for placeholders; the plan's own `vars` come first.
    pub vars: BTreeMap<String, String>,
    /// The mode.
    pub ask: Ask,
    /// Requests under way at once, and which APIs batches may ask.
    pub batching: Batching,
}

/// Somebody who watches a run.
pub trait Progress {
    /// So many more things to do.
    fn more(&self, count: usize);
    /// One is done.
    fn done(&self, report: &QueryReport);
}

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    /// The report, as written to `index.json`.
    pub index: Index,
    /// The failure that matters most for the exit code, where one happened.
    pub worst: Option<Kind>,
}

/// Runs `plan` through `cache`.
///
/// Errors only when nothing could be done at all; a query that fails is reported in the index.
pub async fn run(plan: &Plan, cache: &Cache, options: &Options<'_>, progress: &dyn Progress) -> Result<Finished> {
    let (started_at, sent_before) = (cache.now(), cache.upstream().sent());
    cache.hear().await;
    let workspace = options.output_dir.map(|dir| Workspace::open(dir, cache.stack().dir())).transpose()?;
    let vars = merged(&options.vars, &plan.vars);
    let needed = plan.queries.iter().filter_map(|query| match &query.for_each {
        Some(ForEach::Query { query, .. }) => Some(query.as_str()),
        _ => None,
    });
    let needed = needed.collect();
    let mut runner = Runner {
        plan,
        cache,
        options,
        workspace,
        vars,
        needed,
        results: Results::default(),
        files: HashMap::new(),
        masker: cache.upstream().masker(),
        worst: None,
    };
    let mut reports: Vec<(usize, QueryReport)> = Vec::new();
    let mut rest: Vec<(usize, &Query)> = plan.queries.iter().enumerate().collect();
    while !rest.is_empty() {
        // A wave: everything whose items are known by now, in the order the store reads fastest.
        let (ready, later): (Vec<_>, Vec<_>) = rest.iter().partition(|(_, query)| !waits(query, &rest));
        rest = later;
        let units = runner.expand(&ready, &mut reports, progress).await;
        let done = runner.wave(units, progress).await;
        for (number, query, finished) in done {
            if let Some(kind) = finished.kind {
                runner.note(kind);
            }
            if let Some(result) = finished.result {
                let stale = finished.report.stale_reason.is_some();
                runner.results.add(query, number, result, stale);
            }
            reports.push((number, finished.report));
        }
    }
    // In the plan's order, items in theirs.
    reports.sort_by_key(|(number, _)| *number);
    let queries: Vec<QueryReport> = reports.into_iter().map(|(_, report)| report).collect();
    let mut totals = Totals::of(&queries);
    // Requests of queries that failed belong to no answer; GitHub charged them all the same.
    let sent = cache.upstream().sent() - sent_before;
    totals.charged += sent.saturating_sub(totals.requests);
    totals.requests = sent;
    let index =
        Index { v: 1, plan: plan.name.clone(), started_at, totals, queries, rate_limit: cache.upstream().rate_limit() };
    if let Some(workspace) = &runner.workspace {
        workspace.write_index(&index, &runner.masker)?;
    }
    cache.shared().await;
    cache.flush();
    Ok(Finished { index, worst: runner.worst })
}

/// `base` with what `stronger` says instead.
pub(super) fn merged(base: &BTreeMap<String, String>, stronger: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = base.clone();
    all.extend(stronger.clone());
    all
}

/// Whether the items of `query` come from one that is still in `rest`.
fn waits(query: &Query, rest: &[(usize, &Query)]) -> bool {
    matches!(&query.for_each, Some(ForEach::Query { query: needed, .. }) if rest.iter().any(|(_, other)| other.name == *needed))
}

struct Runner<'a> {
    plan: &'a Plan,
    cache: &'a Cache,
    options: &'a Options<'a>,
    workspace: Option<Workspace>,
    vars: BTreeMap<String, String>,
    /// Queries that others take their items from, and their results.
    needed: HashSet<&'a str>,
    results: Results,
    /// Who writes which file, in lower case: not every system tells cases apart.
    files: HashMap<String, String>,
    masker: Masker,
    worst: Option<Kind>,
}

struct UnitDone {
    report: QueryReport,
    kind: Option<Kind>,
    result: Option<Bytes>,
}

impl<'a> Runner<'a> {
    fn note(&mut self, kind: Kind) {
        if !matches!(self.worst, Some(Kind::Limited { .. })) {
            self.worst = Some(kind);
        }
    }

    /// What the ready queries ask. A query that cannot be expanded is reported as failed.
    async fn expand(
        &mut self,
        ready: &[(usize, &'a Query)],
        reports: &mut Vec<(usize, QueryReport)>,
        progress: &dyn Progress,
    ) -> Vec<(usize, Unit<'a>)> {
        let mut units: Vec<(usize, Unit<'a>)> = Vec::new();
        let masker = self.masker.clone();
        for (place, query) in ready {
            let number = |at: usize| place * expand::MAX_ITEMS + at;
            let fail = |at: usize, item: Option<String>, error: &Error| {
                let mut report = QueryReport {
                    name: query.name.clone(),
                    item,
                    outcome: "failed".into(),
                    error: Some(error.to_string()),
                    ..QueryReport::default()
                };
                report.mask(&masker);
                progress.more(1);
                progress.done(&report);
                (number(at), report)
            };
            let items = match expand::items(query, &self.results, self.cache.now(), Wait::Async).await {
                Ok(items) => items,
                Err(error) => {
                    reports.push(fail(0, None, &error));
                    self.note(error.kind());
                    continue;
                }
            };
            for (at, item) in items.iter().enumerate() {
                let (vars, api) = (&self.vars, self.cache.api());
                let made = expand::unit(query, item.as_ref(), vars, api).and_then(|unit| {
                    if output::is_report(&unit.file) {
                        let text = format!("query `{}`: {} is the report's own name", query.name, unit.file.display());
                        return Err(Error::usage(text).hint("put more than {item} into `output`"));
                    }
                    let file = unit.file.to_string_lossy().to_lowercase();
                    match self.files.insert(file, query.name.clone()) {
                        None => Ok(unit),
                        Some(other) => Err(Error::usage(format!(
                            "query `{}`: {} is written by `{other}` already",
                            query.name,
                            unit.file.display()
                        ))),
                    }
                });
                match made {
                    Ok(unit) => units.push((number(at), unit)),
                    Err(error) => {
                        reports.push(fail(at, item.as_ref().map(|item| item.value.to_string()), &error));
                        self.note(error.kind());
                    }
                }
            }
        }
        units.sort_by_cached_key(|(_, unit)| unit.requests.first().map(|request| self.cache.place(request)));
        triage::order(&mut units, self.cache, &self.options.ask, &self.options.batching);
        progress.more(units.len());
        units
    }

    async fn wave(&self, units: Vec<(usize, Unit<'a>)>, progress: &dyn Progress) -> Vec<(usize, &'a Query, UnitDone)> {
        if self.cache.share().is_some() {
            self.fetch_copies(&units).await;
        }
        let (batched, single): (Vec<_>, Vec<_>) = units.into_iter().partition(|(_, unit)| unit.is_batched());
        let mut done = self.batch(batched, progress).await;
        let singles = futures_util::stream::iter(single)
            .map(|(number, unit)| async move {
                let mut report = unit.report();
                let raw = self.ask(&unit, &mut report).await;
                let done = self.finish(&unit, report, raw).await;
                progress.done(&done.report);
                (number, unit.query, done)
            })
            .buffer_unordered(self.options.batching.concurrency.max(1));
        done.extend(singles.collect::<Vec<_>>().await);
        done
    }

    /// Whatever others have of all that is missing, in one round trip.
    async fn fetch_copies(&self, units: &[(usize, Unit<'a>)]) {
        let mut missing = Vec::new();
        for (_, unit) in units {
            if let Some(wanted) = unit.wanted(&self.options.ask) {
                missing.push((wanted.request.projected(), wanted.ask));
            } else {
                let ask = unit.ask(&self.options.ask);
                missing.extend(unit.requests.iter().map(|request| (request.clone(), ask)));
            }
        }
        self.cache.fetch_copies(&missing).await;
    }

    /// Units that GraphQL can answer many of at once.
    async fn batch(&self, units: Vec<(usize, Unit<'a>)>, progress: &dyn Progress) -> Vec<(usize, &'a Query, UnitDone)> {
        let wanted: Vec<Wanted> = units.iter().filter_map(|(_, unit)| unit.wanted(&self.options.ask)).collect();
        let answers =
            if wanted.is_empty() { Vec::new() } else { self.cache.get_batch(&wanted, &self.options.batching).await };
        let mut finished = Vec::with_capacity(units.len());
        for ((number, unit), answer) in units.into_iter().zip(answers) {
            let mut report = unit.report();
            let raw = answer.and_then(|answer| {
                add(&mut report, &answer);
                check(&answer)?;
                Ok(answer.entry.body.clone())
            });
            let done = self.finish(&unit, report, raw).await;
            progress.done(&done.report);
            finished.push((number, unit.query, done));
        }
        finished
    }

    async fn finish(&self, unit: &Unit<'_>, mut report: QueryReport, raw: Result<Bytes>) -> UnitDone {
        let file = unit.file.to_string_lossy().into_owned();
        let outcome = match raw {
            Ok(raw) => self.write(unit, &file, &raw, &mut report).await,
            Err(error) => Err(error),
        };
        report.mask(&self.masker);
        match outcome {
            Ok(result) => {
                let result = self.needed.contains(unit.query.name.as_str()).then_some(result);
                UnitDone { report, kind: None, result }
            }
            Err(error) => {
                if let Some(workspace) = &self.workspace {
                    workspace.remove(&unit.file);
                }
                report.outcome = "failed".into();
                report.error = Some(self.masker.text(&error.to_string()).into_owned());
                UnitDone { report, kind: Some(error.kind()), result: None }
            }
        }
    }

    /// The query's answer as one document, before filters.
    async fn ask(&self, unit: &Unit<'_>, report: &mut QueryReport) -> Result<Bytes> {
        let ask = unit.ask(&self.options.ask);
        let mut documents = Vec::with_capacity(unit.requests.len());
        for request in &unit.requests {
            let answers = if unit.query.paginate {
                self.cache.get_pages(request, &ask).await?
            } else {
                vec![self.cache.get(request, &ask).await?]
            };
            for answer in &answers {
                add(report, answer);
                check(answer)?;
            }
            let bodies: Vec<Bytes> = answers.into_iter().map(|answer| answer.entry.body.clone()).collect();
            documents.push(match bodies.as_slice() {
                [one] if !unit.query.paginate && one.is_empty() => Bytes::from_static(b"null"),
                bodies => document::join(bodies).map_err(|why| Error::new(Kind::Corrupt, why))?,
            });
        }
        Ok(match documents.len() {
            1 => documents.remove(0),
            _ => [&b"["[..], &documents.join(&b','), b"]"].concat().into(),
        })
    }

    /// Shapes, redacts and writes an answer; gives the result before redaction, for those who take
    /// their items from it.
    async fn write(&self, unit: &Unit<'_>, file: &str, raw: &Bytes, report: &mut QueryReport) -> Result<Bytes> {
        let failed = |why: String| Error::usage(format!("query `{}`: {why}", unit.query.name));
        let filtered = match &unit.query.filter {
            Some(filter) => Bytes::from(filter.run_to_one_by(raw, Wait::Async).await.map_err(failed)?),
            None => raw.clone(),
        };
        let Some(workspace) = &self.workspace else { return Ok(filtered) };
        let result = self.plan.redaction.apply(filtered.clone(), &self.masker).map_err(failed)?;
        let sha256 = HEXLOWER.encode(&Sha256::digest(&result));
        let previous = workspace.previous(file);
        report.changed = match &unit.query.watch {
            None => previous.is_none_or(|before| before.sha256.as_deref() != Some(&sha256)),
            Some(watch) => {
                let watched = watch.run_to_one_by(&result, Wait::Async).await.map_err(failed)?;
                let watched = HEXLOWER.encode(&Sha256::digest(watched));
                let same = previous.is_some_and(|before| before.watch_sha256.as_deref() == Some(&watched));
                report.watch_sha256 = Some(watched);
                !same
            }
        };
        // What is there already is not written again: it would cost more than looking.
        let same = previous.is_some_and(|before| before.sha256.as_deref() == Some(&sha256));
        if !(same && workspace.holds(&unit.file, &result)) {
            workspace.write(&unit.file, &result)?;
        }
        report.sha256 = Some(sha256);
        report.file = Some(file.to_owned());
        Ok(filtered)
    }
}

/// Adds one page's answer to the query's report: the weakest outcome, the oldest age, all requests.
fn add(report: &mut QueryReport, answer: &Answer) {
    let outcome = answer.outcome;
    if report.weight.is_none_or(|weight| outcome.weight() > weight) {
        report.weight = Some(outcome.weight());
        report.outcome = outcome.as_str().into();
        report.reason = outcome.reason().map(str::to_owned);
    }
    if let Outcome::Stale(reason) = answer.outcome {
        report.stale_reason = Some(reason.as_str().to_owned());
    }
    report.age_secs = report.age_secs.max(answer.age_secs);
    report.ttl_secs = answer.ttl_secs;
    report.status = Some(answer.entry.status);
    report.requests += answer.requests;
    report.not_modified += answer.not_modified;
    report.charged += answer.charged;
    report.pages += 1;
    report.keys.push(answer.entry.key());
}

/// An answer that says no is no result.
fn check(answer: &Answer) -> Result<()> {
    let status = answer.entry.status;
    if answer.outcome == Outcome::NotStored(NoStore::GraphqlErrors) {
        return Err(Error::new(
            Kind::Refused(status),
            format!("GraphQL answered with errors: {}", graphql_errors(&answer.entry.body)),
        ));
    }
    if matches!(status, 200 | 203 | 204) {
        return Ok(());
    }
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    let message = serde_json::from_slice::<Refusal>(&answer.entry.body)
        .map_or_else(|_| String::new(), |body| format!(" ({})", body.message));
    let error = Error::new(
        Kind::Refused(status),
        format!("GitHub answered {status}{message} to {}", answer.entry.parts.target()),
    );
    Err(match status {
        401 => error.hint("the token is not valid (any more)"),
        403 => error.hint("the token may lack a permission"),
        404 => error.hint("it does not exist, or this token may not see it"),
        202 => error.hint("GitHub is still computing it; ask again in a minute"),
        301..=308 => error.hint("it leads to another host, which is not followed"),
        _ => error,
    })
}

fn graphql_errors(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Answer {
        errors: Vec<Problem>,
    }
    #[derive(serde::Deserialize)]
    struct Problem {
        message: String,
    }
    let errors = serde_json::from_slice::<Answer>(body).map(|answer| answer.errors).unwrap_or_default();
    let texts: Vec<&str> = errors.iter().take(3).map(|problem| problem.message.as_str()).collect();
    if texts.is_empty() { "the answer is no JSON".to_owned() } else { texts.join("; ") }
}
