//! Many resources by few GraphQL queries (B4), and by REST where that fails (B5).
//!
//! Knows: when a batch pays, how large it may be, what to do with half an answer. Does not know:
//! documents and fields (`graphql`), how anything is sent.
//!
//! GraphQL has no validators: what it gave is fresh for its lifetime, then fetched anew. A REST
//! entry that can be validated for nothing is better than that; where there is none, one batch is
//! better than fifty requests.

mod flight;
mod size;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use flight::{Flight, by_repository, group};
use size::Size;

use super::{Answer, Ask, Cache, Explained, stale_reason, stored};
use crate::cid::Cid;
use crate::error::{Error, Kind, Result};
use crate::graphql::document::{self, Part};
use crate::graphql::{Item, shape};
use crate::mask::Masker;
use crate::outcome::Outcome;
use crate::policy::{self, After, Before, LinkUse, Mode, class};
use crate::reply::Reply;
use crate::request::Request;
use crate::upstream::Conditions;

/// One resource.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// As REST is asked for it.
    pub request: Request,
    /// How it is to be answered.
    pub ask: Ask,
    /// Whether a REST entry that can be validated for nothing is better than a batch.
    pub rest_if_free: bool,
}

/// Which APIs may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// GraphQL; not with `--rest-only`.
    pub graphql: bool,
    /// REST, for what GraphQL fails to give, and for what REST can validate for nothing; not with
    /// `--graphql-only`.
    pub rest: bool,
    /// REST requests under way at once.
    pub concurrency: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self { graphql: true, rest: true, concurrency: crate::github::CONCURRENCY }
    }
}

/// What a batch would come to, if no connection is longer than one page.
#[derive(Debug)]
pub struct Foreseen {
    /// By place.
    pub ways: Vec<ForeseenWay>,
    /// GraphQL requests.
    pub documents: u32,
    /// What they would cost of the limit of GraphQL.
    pub points: u64,
}

/// How one of many would be answered.
#[derive(Debug)]
pub enum ForeseenWay {
    /// As it is stored.
    Stored(Box<Result<Answer>>),
    /// By a batch.
    Batch,
    /// By REST.
    Rest,
}

/// What became of a document.
enum Sent {
    /// Data, with errors by alias.
    Data { data: Value, failed: HashMap<String, Failure>, cost: u64 },
    /// Too much for GitHub: ask for less at a time.
    TooMuch(Error),
    /// Nothing of the kind will work now.
    Failed(Error),
}

enum Failure {
    NotFound,
    Other(String),
}

impl Cache {
    /// Answers many resources that batches can hold ([`Item::of`]), in their order. Lists come
    /// whole. Bodies hold what both APIs have, whichever was asked.
    pub async fn get_batch(&self, wanted: &[Wanted], how: &Batching) -> Vec<Result<Answer>> {
        let started = Instant::now();
        let mut answers: Vec<Option<Result<Answer>>> = (0..wanted.len()).map(|_| None).collect();
        let (mut flights, mut by_rest) = (VecDeque::new(), Vec::new());
        for (at, one) in wanted.iter().enumerate() {
            match self.way(at, one, how) {
                Way::Answer(answer) => answers[at] = Some((*answer).map(|answer| self.proven(answer))),
                Way::Rest => by_rest.push((at, None)),
                Way::HeldBack => by_rest.push((at, Some(super::held_back(&one.request)))),
                Way::Batch(flight) => flights.push_back(*flight),
            }
        }
        if !flights.is_empty() {
            // Another process may be at the same: then its answers are there when it is our turn.
            let key = crate::key::KeyParts::of(&wanted[flights[0].at].request.projected(), &self.partition).key();
            let _turn = self.stack.turn(&key, true).await;
            let mut rest = VecDeque::new();
            for flight in flights {
                match self.way(flight.at, &wanted[flight.at], how) {
                    Way::Answer(answer) => answers[flight.at] = Some(*answer),
                    _ => rest.push_back(flight),
                }
            }
            self.fly(wanted, rest, how, &mut answers, &mut by_rest).await;
        }
        // What is asked by REST is counted there.
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX) / (wanted.len() as u64).max(1);
        for (one, answer) in wanted.iter().zip(&answers) {
            if let Some(answer) = answer {
                let place = class::place(class::of(&one.request.path, &one.request.query).name);
                self.count(place, answer, micros);
            }
        }
        let asked = futures_util::stream::iter(by_rest)
            .map(|(at, error)| async move { (at, self.instead(&wanted[at], how, error).await) })
            .buffer_unordered(how.concurrency.max(1));
        for (at, answer) in asked.collect::<Vec<_>>().await {
            answers[at] = Some(answer);
        }
        let never = || Err(Error::new(Kind::Internal, "a batch left something out"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(never)).collect()
    }

    /// What [`get_batch`](Cache::get_batch) would do; looks but sends nothing.
    pub fn foresee_batch(&self, wanted: &[Wanted], how: &Batching) -> Foreseen {
        let (mut ways, mut flights) = (Vec::with_capacity(wanted.len()), VecDeque::new());
        for (at, one) in wanted.iter().enumerate() {
            ways.push(match self.way(at, one, how) {
                Way::Answer(answer) => ForeseenWay::Stored(answer),
                Way::Rest | Way::HeldBack => ForeseenWay::Rest,
                Way::Batch(flight) => {
                    flights.push_back(*flight);
                    ForeseenWay::Batch
                }
            });
        }
        by_repository(&mut flights);
        let (mut documents, mut points, mut size) = (0, 0, Size::default());
        while !flights.is_empty() {
            let groups = group(&mut flights, size.now);
            let requests: u64 = groups.iter().flatten().map(|flight| document::weight(&flight.parts).0).sum();
            points += (requests / 100).max(1);
            documents += 1;
            size.was_answered(groups.len(), 0);
        }
        Foreseen { ways, documents, points }
    }

    /// What to do about one of many, looking only.
    fn way(&self, at: usize, wanted: &Wanted, how: &Batching) -> Way {
        let Some(item) = Item::of(&wanted.request) else { return Way::Rest };
        let Explained { found, decision, lifetime, now, .. } = self.explain(&wanted.request.projected(), &wanted.ask);
        let because = match decision {
            Before::Fresh { proof, .. } => {
                return Way::Answer(Box::new(stored(found, Outcome::Hit(proof), &lifetime, now)));
            }
            Before::AnswerStale { reason, .. } => {
                return Way::Answer(Box::new(stored(found, Outcome::Stale(reason), &lifetime, now)));
            }
            Before::NotCached => return Way::Rest,
            Before::Fetch(because) | Before::Revalidate { because, .. } => because,
        };
        if wanted.ask.held_back {
            return Way::HeldBack;
        }
        let can_batch = how.graphql && self.upstream.signer().token_digest.is_some();
        if !can_batch || (how.rest && wanted.rest_if_free && found.is_none() && self.is_free_by_rest(wanted, &item)) {
            return Way::Rest;
        }
        Way::Batch(Box::new(Flight::new(at, item, because)))
    }

    /// Whether REST's answer is stored, so that it costs nothing to have it confirmed.
    fn is_free_by_rest(&self, wanted: &Wanted, item: &Item) -> bool {
        let Explained { found, decision, .. } = self.explain(&first_page(&wanted.request, item), &wanted.ask);
        found.is_some() && matches!(decision, Before::Fresh { .. } | Before::Revalidate { .. })
    }

    /// Another machine asks for the same: what it has by now need not be asked.
    async fn land(
        &self,
        wanted: &[Wanted],
        flights: &mut VecDeque<Flight>,
        how: &Batching,
        answers: &mut [Option<Result<Answer>>],
    ) {
        let requests: Vec<_> = flights.iter().map(|flight| &wanted[flight.at]).collect();
        let requests: Vec<_> = requests.iter().map(|one| (one.request.projected(), one.ask)).collect();
        self.fetch_copies(&requests).await;
        flights.retain(|flight| match self.way(flight.at, &wanted[flight.at], how) {
            Way::Answer(answer) => {
                answers[flight.at] = Some(*answer);
                false
            }
            _ => true,
        });
    }

    /// Sends documents until everything has its answer or an error.
    async fn fly(
        &self,
        wanted: &[Wanted],
        mut flights: VecDeque<Flight>,
        how: &Batching,
        answers: &mut [Option<Result<Answer>>],
        by_rest: &mut Vec<(usize, Option<Error>)>,
    ) {
        by_repository(&mut flights);
        let mut size = Size::default();
        while let Some(first) = flights.front() {
            let first = &wanted[first.at];
            let Ok(_others_wait) = self.claim_batch(&first.request.projected(), &first.ask).await else {
                self.land(wanted, &mut flights, how, answers).await;
                continue;
            };
            let groups = group(&mut flights, size.now);
            let sent = self.send(&groups).await;
            let aliases = groups.len();
            match sent {
                Sent::Failed(error) => {
                    let left = groups.into_iter().flatten().chain(std::mem::take(&mut flights));
                    by_rest.extend(left.map(|flight| (flight.at, Some(error.repeated()))));
                }
                Sent::TooMuch(error) if size.was_too_much(aliases) => {
                    tracing::debug!(%error, "GraphQL does not answer");
                    let left = groups.into_iter().flatten().chain(std::mem::take(&mut flights));
                    by_rest.extend(left.map(|flight| (flight.at, Some(error.repeated()))));
                }
                Sent::TooMuch(error) if aliases == 1 => {
                    let left = groups.into_iter().flatten();
                    by_rest.extend(left.map(|flight| (flight.at, Some(error.repeated()))));
                }
                Sent::TooMuch(error) => {
                    tracing::debug!(%error, aliases, "a batch was too large");
                    groups.into_iter().flatten().rev().for_each(|flight| flights.push_front(flight));
                }
                Sent::Data { mut data, mut failed, cost } => {
                    size.was_answered(aliases, cost);
                    let mut requests = 1;
                    for (place, group) in groups.into_iter().enumerate() {
                        let alias = format!("i{place}");
                        let node = data.get_mut(&alias).map(Value::take).unwrap_or_default();
                        let failure = failed.remove(&alias);
                        for mut flight in group {
                            let at = flight.at;
                            match &failure {
                                Some(Failure::NotFound) => {
                                    answers[at] = Some(self.absorb(&wanted[at], &flight, None, requests));
                                }
                                Some(Failure::Other(why)) => {
                                    let text = format!("GraphQL: {why} ({})", wanted[at].request.target());
                                    by_rest.push((at, Some(Error::new(Kind::Refused(200), text))));
                                }
                                // Half an answer without an error is no answer.
                                None if !flight.is_answered_by(&node) => {
                                    let text = format!("GraphQL left out {}", wanted[at].request.target());
                                    by_rest.push((at, Some(Error::new(Kind::Corrupt, text))));
                                }
                                None if flight.take(&node) => {
                                    let body = flight.body(&self.api.rest_base());
                                    answers[at] = Some(self.absorb(&wanted[at], &flight, Some(body), requests));
                                }
                                None => {
                                    flights.push_back(flight);
                                    continue;
                                }
                            }
                            // One of those that it was sent for carries what it cost.
                            requests = 0;
                        }
                    }
                }
            }
        }
    }

    async fn send(&self, groups: &[Vec<Flight>]) -> Sent {
        let parts: Vec<Vec<Part>> =
            groups.iter().map(|group| group.iter().flat_map(|flight| flight.parts.clone()).collect()).collect();
        let aliases: Vec<(&Item, &[Part])> =
            groups.iter().zip(&parts).map(|(group, parts)| (&group[0].item, parts.as_slice())).collect();
        let text = document::document(&aliases);
        let request = Request::graphql(&self.api, serde_json::json!({ "query": text }).to_string());
        let conditions = Conditions { may_wait: true, ..Conditions::default() };
        match self.upstream.fetch(&request, &conditions).await {
            Ok(reply) if reply.status == StatusCode::OK => read(&reply.body, &self.upstream().masker()),
            Ok(reply) => {
                let status = reply.status.as_u16();
                Sent::Failed(Error::new(Kind::Refused(status), format!("GitHub answered {status} to a GraphQL batch")))
            }
            Err(error) => match error.kind() {
                Kind::TimedOut | Kind::Server(502 | 504) => Sent::TooMuch(error),
                _ => Sent::Failed(error),
            },
        }
    }

    /// Stores what a batch gave, `None` for "there is no such thing", as if REST had said it.
    fn absorb(&self, wanted: &Wanted, flight: &Flight, body: Option<Vec<u8>>, requests: u32) -> Result<Answer> {
        let request = wanted.request.projected();
        let explained = self.explain(&request, &wanted.ask);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        let (status, body) = match body {
            Some(body) => (StatusCode::OK, Bytes::from(body)),
            None => (StatusCode::NOT_FOUND, Bytes::from_static(b"{\"message\":\"Not Found\"}")),
        };
        let reply = Reply { status, headers, body, attempts: requests, refused: 0, rule_held: None };
        let terms = wanted.ask.terms(&explained.lifetime, explained.cutoff, &explained.signer, self.clock.now());
        let before = explained.found.map(|found| Arc::unwrap_or_clone(found.entry));
        let (entry, outcome) = match policy::after_reply(before, &request, &explained.parts, reply, &terms) {
            After::Replaced(entry) if wanted.ask.mode != Mode::NoStore => {
                (self.store(&explained.key, *entry, None), Outcome::Fetched(flight.because))
            }
            After::Replaced(entry) => (Arc::from(entry), Outcome::NotStored(crate::outcome::NoStore::Mode)),
            After::DoNotStore(entry, reason) => (Arc::from(entry), Outcome::NotStored(reason)),
            After::Freshened(_) | After::AskAgain => {
                return Err(Error::new(Kind::Internal, "a batch was answered 304"));
            }
        };
        let ttl_secs = policy::fresh_secs(&entry, &explained.lifetime);
        Ok(Answer { requests, charged: requests, ..Answer::new(entry, outcome, ttl_secs) })
    }

    /// By REST, or from what is stored though stale, where GraphQL failed or was not asked.
    async fn instead(&self, wanted: &Wanted, how: &Batching, failed: Option<Error>) -> Result<Answer> {
        let stale = |error: &Error| {
            let explained = self.explain(&wanted.request.projected(), &wanted.ask);
            let usable = explained.found.filter(|found| {
                error.allows_stale()
                    && policy::may_answer_stale(
                        &found.entry,
                        &explained.lifetime,
                        explained.cutoff,
                        LinkUse::Unseen,
                        explained.now,
                    )
            });
            usable.and_then(|found| {
                let outcome = Outcome::Stale(stale_reason(error));
                stored(Some(found), outcome, &explained.lifetime, explained.now).ok()
            })
        };
        if let Some(error) = failed {
            // Fresh by another way that is free beats stale.
            let is_free = how.rest
                && !wanted.ask.held_back
                && Item::of(&wanted.request).is_some_and(|item| self.is_free_by_rest(wanted, &item));
            if let Some(answer) = stale(&error).filter(|_| !is_free) {
                return Ok(answer);
            }
            if !how.rest || wanted.ask.held_back {
                return Err(error);
            }
            tracing::debug!(%error, target = %wanted.request.target(), "asking by REST instead");
        } else if !how.rest && wanted.ask.mode != Mode::OnlyIfCached {
            return Err(Error::usage(format!("{} can only be asked by REST", wanted.request.target()))
                .hint("GraphQL needs a token; leave out --graphql-only"));
        }
        match self.by_rest(wanted).await {
            Err(error) => stale(&error).ok_or(error),
            answer => answer,
        }
    }

    /// All of it by REST, reduced to what GraphQL has as well.
    async fn by_rest(&self, wanted: &Wanted) -> Result<Answer> {
        let item = Item::of(&wanted.request).ok_or_else(|| Error::new(Kind::Internal, "no batch can hold this"))?;
        let request = first_page(&wanted.request, &item);
        let pages = if item.is_list() {
            self.get_pages(&request, &wanted.ask).await?
        } else {
            vec![self.get(&request, &wanted.ask).await?]
        };
        let weakest = pages.iter().map(|page| page.outcome).max_by_key(|outcome| outcome.weight());
        let mut pages = pages.into_iter();
        let mut whole = pages.next().ok_or_else(|| Error::new(Kind::Internal, "a listing has no page"))?;
        if whole.entry.status != 200 {
            return Ok(whole);
        }
        let broken = || Error::new(Kind::Corrupt, format!("{} is not what it should be", request.target()));
        let mut body = shape::reduce(item.facet, &whole.entry.body).ok_or_else(broken)?;
        for page in pages {
            let more = shape::reduce(item.facet, &page.entry.body).ok_or_else(broken)?;
            body = joined(body, &more).ok_or_else(broken)?;
            whole.add(page.spent());
            whole.age_secs = whole.age_secs.max(page.age_secs);
        }
        whole.outcome = weakest.unwrap_or(whole.outcome);
        let entry = Arc::make_mut(&mut whole.entry);
        entry.cid = Cid::of(&body);
        entry.body = body.into();
        Ok(whole)
    }
}

enum Way {
    Answer(Box<Result<Answer>>),
    Rest,
    Batch(Box<Flight>),
    HeldBack,
}

fn first_page(request: &Request, item: &Item) -> Request {
    if item.is_list() { request.clone().with_default_param("per_page", "100") } else { request.clone() }
}

fn joined(mut one: Vec<u8>, more: &[u8]) -> Option<Vec<u8>> {
    let inner = more.strip_prefix(b"[")?.strip_suffix(b"]")?;
    one.pop().filter(|end| *end == b']')?;
    if one.len() > 1 && !inner.is_empty() {
        one.push(b',');
    }
    one.extend_from_slice(inner);
    one.push(b']');
    Some(one)
}

fn read(body: &[u8], masker: &Masker) -> Sent {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        data: Value,
        #[serde(default)]
        errors: Vec<Problem>,
    }
    #[derive(serde::Deserialize)]
    struct Problem {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        message: String,
        #[serde(default)]
        path: Vec<Value>,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return Sent::Failed(Error::new(Kind::Corrupt, "a GraphQL answer is no JSON"));
    };
    let mut failed = HashMap::new();
    for Problem { kind, message, path } in answer.errors {
        let alias = path.first().and_then(Value::as_str).map(str::to_owned);
        // Masked before it is cut: a part of a credential no longer looks like one.
        let message: String = masker.text(&message).chars().take(200).collect();
        let said = format!("GraphQL: {message}");
        match (kind.as_str(), alias) {
            // What came with these may be half of the truth: nothing of it is kept.
            ("RESOURCE_LIMITS_EXCEEDED" | "MAX_NODE_LIMIT_EXCEEDED" | "EXCESSIVE_PAGINATION", _) => {
                return Sent::TooMuch(Error::new(Kind::Server(200), said));
            }
            ("NOT_FOUND", Some(alias)) if path.len() == 1 => {
                failed.insert(alias, Failure::NotFound);
            }
            (_, Some(alias)) => {
                failed.entry(alias).or_insert(Failure::Other(message));
            }
            // No place: a time-out, or something about the whole document.
            (_, None) => return Sent::TooMuch(Error::new(Kind::Server(200), said)),
        }
    }
    let cost = answer.data["rateLimit"]["cost"].as_u64().unwrap_or(1);
    Sent::Data { data: answer.data, failed, cost }
}
