//! One request of a client's: which question it is to the cache, or how it is handed through.
//!
//! Knows: which requests are questions that the cache answers, and what a change outdates. Does not
//! know: who may ask, sockets, how answers are made.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, ORIGIN, PRAGMA, RANGE,
    TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;
use tracing::Instrument;

use super::Door;
use super::directives::directed;
use super::exchange::Whose;
use super::identities::Identity;
use super::inflow::Cut;
use super::journal::{Line, Weight};
use super::patience::Upload;
use super::respond::{self, Body, Manner};
use crate::address;
use crate::cache::{Answer, Ask, Change, Ended, Said};
use crate::cutoff::Cutoff;
use crate::error::{Error, Kind, Result};
use crate::event;
use crate::github::{Passing, Stream};
use crate::graphql::operation::{self, Operation};
use crate::outcome::Outcome;
use crate::policy::{Etag, Mode, Validators};
use crate::request::{self, Request};
use crate::units::Span;

/// Header names of ours, and gh's for its own cache: nothing of GitHub's.
const NOT_FOR_GITHUB: &[&str] = &["x-octocache-secret", "x-gh-cache-ttl", "host", "content-length"];

/// Request headers by which some servers take a request for one of another method.
const OTHER_METHODS: &[&str] = &["x-http-method-override", "x-http-method", "x-method-override"];

/// Request headers under which an answer may be another one, in a way that no key knows of.
static UNKEYED: [HeaderName; 2] =
    [HeaderName::from_static("x-github-otp"), HeaderName::from_static("x-github-next-global-id")];

// A name that is made once need not be hashed out of its text for each request.
const API_VERSION: HeaderName = HeaderName::from_static("x-github-api-version");
const GH_CACHE_TTL: HeaderName = HeaderName::from_static("x-gh-cache-ttl");
const GRAPHQL_FEATURES: HeaderName = HeaderName::from_static("graphql-features");

/// Answers of at most this size are looked into.
const MAX_LOOKED_AT_BYTES: u64 = 64 << 10;

/// A GraphQL request's body comes within this time.
const LONGEST_QUESTION: std::time::Duration = std::time::Duration::from_secs(30);

/// What a request is to us.
pub(super) struct Asked<'a> {
    pub(super) door: &'a Door,
    /// What addresses in answers are to begin with, if not with the API's own.
    pub(super) base: Option<String>,
    pub(super) whose: Whose,
    pub(super) headers: HeaderMap,
    pub(super) method: Method,
    /// Path and query below the API's prefix.
    pub(super) target: String,
    pub(super) started: Instant,
}

impl Asked<'_> {
    pub(super) async fn answer(self, body: Incoming) -> Response<Body> {
        let (identity, is_known) = match self.whose.clone() {
            Whose::Theirs(identity) | Whose::Nobodys(identity) => (identity, true),
            // What they send with it is theirs; nothing is signed, nothing is kept.
            Whose::Other => (self.door.identities.public(), false),
        };
        match self.method {
            Method::GET if body.is_end_stream() => match self.question().filter(|_| is_known) {
                Some(request) => self.read(&identity, &request).await,
                None => self.pass_counted(&identity, body).await,
            },
            Method::POST if self.target.split('?').next() == Some("/graphql") => self.graphql(&identity, body).await,
            Method::GET | Method::HEAD | Method::OPTIONS => self.pass_counted(&identity, body).await,
            _ => self.write(&identity, body).await,
        }
    }

    /// The question that a `GET` is, if the cache knows all that selects its answer.
    fn question(&self) -> Option<Request> {
        let unusual = [RANGE, IF_RANGE, IF_MATCH, IF_UNMODIFIED_SINCE, COOKIE];
        if unusual.iter().any(|name| self.headers.contains_key(name))
            || UNKEYED.iter().any(|name| self.headers.contains_key(name))
        {
            return None;
        }
        let accept = self.text(ACCEPT);
        if accept.contains("octet-stream") {
            // Assets: large, and not the API's to give.
            return None;
        }
        let request = Request::get(self.door.hosts.api(), &self.target).ok()?;
        if request.path == "/" || is_graphql(&request.path) {
            // gh reads a token's scopes off this answer's headers, which are not stored; what a GET of the
            // other gives is not documented.
            return None;
        }
        if request.has_credentials() {
            return None;
        }
        let request = request.accepting(&accept);
        let version = self.text(API_VERSION);
        Some(if version.is_empty() { request } else { request.version(&version) })
    }

    /// A header's values as one text; empty when there is none.
    fn text(&self, name: HeaderName) -> Cow<'_, str> {
        let mut values = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let first = values.next().unwrap_or_default();
        match values.next() {
            None => Cow::Borrowed(first),
            Some(second) => {
                let all: Vec<&str> = [first, second].into_iter().chain(values).collect();
                Cow::Owned(all.join(", "))
            }
        }
    }

    /// How the client wants it answered: its `Cache-Control`, gh's own hint.
    fn ask(&self) -> Ask {
        let base = Ask { unfollowed: true, ..self.door.live().ask };
        let hint = self.text(GH_CACHE_TTL).parse::<Span>().ok().map(|Span(secs)| secs);
        let control = self.text(CACHE_CONTROL);
        let pragma = control.is_empty() && self.text(PRAGMA).eq_ignore_ascii_case("no-cache");
        directed(base, if pragma { "no-cache" } else { &control }, hint)
    }

    async fn read(&self, identity: &Arc<Identity>, request: &Request) -> Response<Body> {
        let ask = self.ask();
        if self.door.is_large(&request.path) && !matches!(ask.mode, Mode::OnlyIfCached | Mode::OnlyIfFresh) {
            return self.pass_large(identity, request).await;
        }
        let theirs = self.their_validators();
        // Where we have nothing to ask with, or an older copy, their validators make it free.
        let prefers_client_validators = !theirs.is_empty()
            && match ask.mode {
                Mode::Default | Mode::NoCache => {
                    if let Some(response) = self.at_once(identity, request, &ask) {
                        return response;
                    }
                    identity.cache.prefers_client_validators(request, &ask, &theirs)
                }
                Mode::NoStore | Mode::Reload => true,
                Mode::ForceCache | Mode::OnlyIfCached | Mode::OnlyIfFresh => false,
            };
        if prefers_client_validators {
            let id = self.id();
            let span = tracing::info_span!("request", %id);
            return match identity.cache.ask_with(request, &ask, theirs).instrument(span).await {
                Ok(Said::NotModified(live)) => {
                    self.note(&id, "passed", "client-has-it", 304, 0, Weight::ONE);
                    self.with_manner(identity, request, |manner| respond::not_modified(&live, manner))
                }
                Ok(Said::Answer(answer)) => {
                    self.note_answer(&id, &answer, Weight::ONE);
                    self.with_manner(identity, request, |manner| respond::answer(answer, manner))
                }
                Err(error) => self.failed(&id, identity, request, &error),
            };
        }
        self.cached(identity, request, &ask, &[]).await
    }

    /// The answer that is fresh in memory.
    fn at_once(&self, identity: &Identity, request: &Request, ask: &Ask) -> Option<Response<Body>> {
        let answer = identity.cache.at_once(request, ask)?;
        if let Some(weight) = self.door.journal.weight_of_hit() {
            self.note_answer(&self.id(), &answer, weight);
        }
        Some(self.with_manner(identity, request, |manner| respond::answer(answer, manner)))
    }

    /// The answer to `request`, which stands for what the client posted.
    async fn cached(&self, identity: &Arc<Identity>, request: &Request, ask: &Ask, posted: &[u8]) -> Response<Body> {
        if let Some(response) = self.at_once(identity, request, ask) {
            return response;
        }
        let id = self.id();
        let span = tracing::info_span!("request", %id);
        // In a task of its own: what others wait for does not end with the client that asked first.
        let (cache, of_task, ask) = (identity.cache.clone(), request.clone(), *ask);
        let fetched = tokio::spawn(async move { cache.get_soon(&of_task, &ask).await }.instrument(span)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a request ended before its answer")));
        match fetched {
            Ok(answer) => {
                let weight = match answer.outcome {
                    Outcome::Revalidated => self.door.journal.weight_of_confirmed(),
                    _ => Some(Weight::ONE),
                };
                if let Some(weight) = weight {
                    self.note_answer(&id, &answer, weight);
                }
                let answer = answer.with_client_locations(posted);
                self.with_manner(identity, request, |manner| respond::answer(answer, manner))
            }
            Err(error) if error.kind() == Kind::TooLarge && request.method == request::Method::Get => {
                self.door.note_large(&request.path);
                self.pass_large(identity, request).await
            }
            Err(error) => self.failed(&id, identity, request, &error),
        }
    }

    /// Hands through as it comes what is too large to be kept.
    async fn pass_large(&self, identity: &Arc<Identity>, request: &Request) -> Response<Body> {
        let identity = self.signer(identity, true);
        let uri = self.door.hosts.api().at(&self.target);
        self.pass(&identity, uri, for_github(&self.headers), full(Bytes::new()), Some(request.clone()), "bypass").await
    }

    fn id(&self) -> String {
        self.door.request_id(&self.headers)
    }

    fn note_answer(&self, id: &str, answer: &Answer, weight: Weight) {
        let detail = match (answer.outcome, answer.tier) {
            (Outcome::Hit(_), Some(tier)) => tier.as_str(),
            (outcome, _) => outcome.reason().unwrap_or_default(),
        };
        let (outcome, status, bytes) = (answer.outcome.as_str(), answer.entry.status, answer.entry.body.len() as u64);
        self.note(id, outcome, detail, status, bytes, weight);
    }

    /// Writes an answer down: for who looks, and into the log.
    fn note(&self, id: &str, outcome: &'static str, detail: &'static str, status: u16, bytes: u64, weight: Weight) {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if weight.sampled {
            tracing::info!(
                id,
                method = %self.method,
                target = %address::masked(&self.target),
                outcome,
                detail,
                status,
                micros,
                bytes,
                stands_for = weight.stands_for,
                "answered"
            );
        }
        let line = Line {
            seq: 0,
            id: id.to_owned(),
            at: self.door.identities.common().clock.now(),
            method: self.method.to_string(),
            target: address::masked(&self.target).into_owned(),
            outcome,
            detail,
            status,
            micros,
            bytes,
        };
        self.door.journal.note(line, weight.stands_for, &self.door.identities.common().options.masker);
    }

    fn failed(&self, id: &str, identity: &Identity, request: &Request, error: &Error) -> Response<Body> {
        tracing::warn!(id, target = %request.target(), %error, "not answered");
        let limit = identity.github.limit(request);
        let is_graphql = matches!(request.method, request::Method::Graphql(_));
        let response = respond::error(error, identity.cache.now(), limit.as_ref(), is_graphql);
        self.note(id, "failed", "", response.status().as_u16(), 0, Weight::ONE);
        self.marked(id, response)
    }

    /// A failure says by which name it is in the log.
    fn marked(&self, id: &str, mut response: Response<Body>) -> Response<Body> {
        if let Ok(id) = HeaderValue::try_from(id) {
            response.headers_mut().insert("x-request-id", id);
        }
        if self.door.cache_mode {
            response.headers_mut().insert("x-cache-mode", HeaderValue::from_static("ERROR"));
        }
        response
    }

    fn with_manner<T>(&self, identity: &Identity, request: &Request, with: impl FnOnce(Manner<'_>) -> T) -> T {
        let limit = identity.github.limit(request);
        with(Manner { limit: limit.as_ref(), ..self.manner() })
    }

    fn manner(&self) -> Manner<'_> {
        let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Manner {
            api: self.door.hosts.api(),
            base: self.base.as_deref(),
            bodies: self.door.live().rewrite_bodies.iter().any(|name| agent.contains(name.as_str())),
            mode: self.door.cache_mode,
            limit: None,
            asked: &self.headers,
        }
    }

    fn their_validators(&self) -> Validators {
        let text = |name: HeaderName| Some(self.text(name).into_owned()).filter(|text| !text.is_empty());
        Validators { etag: text(IF_NONE_MATCH).map(Etag::Stored), last_modified: text(IF_MODIFIED_SINCE) }
    }

    async fn graphql(&self, identity: &Arc<Identity>, body: Incoming) -> Response<Body> {
        let held = match self.door.questions.read(body, self.door.max_graphql_bytes, LONGEST_QUESTION).await {
            Ok(held) => held,
            Err(cut) => return cut.response(),
        };
        let body = held.bytes.clone();
        let request = Request::graphql(self.door.hosts.api(), body.clone());
        // What is coded in another way is not read, so it is not understood.
        let operation = if self.headers.contains_key(CONTENT_ENCODING) { None } else { operation::read(&body) };
        let query = match operation {
            Some(Operation::Query(query)) => query,
            Some(Operation::Mutation(fields)) => return self.mutate(identity, body, request, &fields).await,
            // What is not understood may be a change of anything.
            Some(Operation::Subscription) | None => return self.perhaps_mutate(identity, body, request).await,
        };
        let unkeyed = UNKEYED.iter().any(|name| self.headers.contains_key(name));
        if query.live || unkeyed || matches!(self.whose, Whose::Other) || self.headers.contains_key(COOKIE) {
            return self.pass_query(identity, body, query.body, request).await;
        }
        let request = Request::graphql(self.door.hosts.api(), query.body)
            .accepting(&self.text(ACCEPT))
            .with_features(&self.text(GRAPHQL_FEATURES));
        let ask = identity.cache.ask_by_class(&self.ask(), query.class);
        self.cached(identity, &request, &ask, &body).await
    }

    /// Hands a query through. Where a lent token may sign it, it goes out in the form in which it was read, so
    /// that GitHub reads the same in it.
    async fn pass_query(&self, identity: &Identity, body: Bytes, normal: Bytes, request: Request) -> Response<Body> {
        let mut headers = for_github(&self.headers);
        let uri = self.door.hosts.api().uri(&request);
        if !matches!(self.whose, Whose::Nobodys(_)) {
            return self.pass(identity, uri, headers, full(body), Some(request), "bypass").await;
        }
        let others: Vec<_> = headers.keys().filter(|name| is_other_method(name.as_str())).cloned().collect();
        others.iter().chain([&COOKIE, &ACCEPT_ENCODING]).for_each(|name| drop(headers.remove(name)));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, normal.len().into());
        let passed = self.pass(identity, uri, headers, full(normal), Some(request), "bypass").await;
        respond::with_client_locations(passed, &body, MAX_LOOKED_AT_BYTES).await
    }

    /// Hands a mutation, or what may be one, through; what it touches is outdated before the client hears of it.
    async fn mutate(
        &self,
        identity: &Arc<Identity>,
        body: Bytes,
        request: Request,
        fields: &[String],
    ) -> Response<Body> {
        let identity = self.signer(identity, false);
        let uri = self.door.hosts.api().uri(&request);
        let outdates = event::outdated_by_mutation(fields, identity.cache.now());
        let change = self.change(&identity, outdates).await;
        let passed = self.pass(&identity, uri, for_github(&self.headers), full(body), Some(request), "method").await;
        change.end(ended(&passed)).await;
        passed
    }

    /// Hands through what is not understood: it may change anything, unless GitHub says that it executed nothing.
    async fn perhaps_mutate(&self, identity: &Arc<Identity>, body: Bytes, request: Request) -> Response<Body> {
        let identity = self.signer(identity, false);
        let uri = self.door.hosts.api().uri(&request);
        let is_one = operation::is_one_request(&body);
        let change = Change::watch(&identity.cache, event::outdated_by_mutation(&[], identity.cache.now()));
        let passed = self.pass(&identity, uri, for_github(&self.headers), full(body), Some(request), "method").await;
        let (passed, short) =
            if is_one { respond::short_body(passed, MAX_LOOKED_AT_BYTES).await } else { (passed, None) };
        let is_refused = short.is_some_and(|body| operation::was_not_executed(&body));
        change.end(if is_refused { Ended::Refused } else { ended(&passed) }).await;
        passed
    }

    /// Who signs what is handed through: a lent token only what was understood as reading. Who wants
    /// anything else needs a token of their own.
    fn signer(&self, identity: &Arc<Identity>, reads: bool) -> Arc<Identity> {
        match self.whose {
            Whose::Nobodys(_) if !reads => self.door.identities.public(),
            _ => identity.clone(),
        }
    }

    /// Notes what a change outdates, before it is sent if it has a token.
    async fn change(&self, identity: &Identity, outdates: Vec<Cutoff>) -> Change {
        match self.whose {
            Whose::Nobodys(_) => Change::watch(&identity.cache, outdates),
            Whose::Theirs(_) | Whose::Other => Change::begin(&identity.cache, outdates).await,
        }
    }

    /// Hands a change through; what it touches is outdated before the client hears of it.
    async fn write(&self, identity: &Arc<Identity>, body: Incoming) -> Response<Body> {
        // Tags and prefixes know the normal form alone.
        let path = match Request::get(self.door.hosts.api(), &self.target) {
            Ok(request) => request.path,
            Err(_) => self.target.split('?').next().unwrap_or_default().to_owned(),
        };
        let outdates = event::outdated_by_write(self.method.as_str(), &path, identity.cache.now());
        let change = self.change(identity, outdates).await;
        let passed = self.pass_counted(identity, body).await;
        change.end(ended(&passed)).await;
        passed
    }

    async fn pass_counted(&self, identity: &Arc<Identity>, body: Incoming) -> Response<Body> {
        let counted = Request::get(self.door.hosts.api(), &self.target).ok();
        let reads = matches!(self.method, Method::GET | Method::HEAD)
            && body.is_end_stream()
            && counted.as_ref().is_some_and(|request| !is_graphql(&request.path))
            && !self.headers.keys().any(|name| is_other_method(name.as_str()));
        let identity = self.signer(identity, reads);
        let why = if self.method == Method::GET { "bypass" } else { "method" };
        let uri = self.door.hosts.api().at(&self.target);
        let (upload, stalled) = Upload::of(body, self.door.idle);
        let headers = for_github(&self.headers);
        let passed = self.pass(&identity, uri, headers, Stream::new(upload), counted, why).await;
        if stalled.load(Ordering::Relaxed) { Cut::Slow.response() } else { passed }
    }

    /// Hands the request through, signed by `identity` unless the client signed it.
    async fn pass(
        &self,
        identity: &Identity,
        uri: Result<Uri>,
        headers: HeaderMap,
        body: Stream,
        counted: Option<Request>,
        why: &'static str,
    ) -> Response<Body> {
        let uri = match uri {
            Ok(uri) => uri,
            Err(error) => return self.marked(&self.id(), respond::error(&error, identity.cache.now(), None, false)),
        };
        // Of credentials that are not known, GitHub counts elsewhere.
        let counted = counted.filter(|_| !matches!(self.whose, Whose::Other));
        let signed = !self.headers.contains_key(AUTHORIZATION);
        let probe = counted.clone();
        let passing = Passing { method: self.method.clone(), uri, headers, body, counted, signed };
        let id = self.id();
        let span = tracing::info_span!("request", %id);
        self.door.counters.passed.fetch_add(1, Ordering::Relaxed);
        match identity.github.pass(passing).instrument(span).await {
            Ok(response) => {
                self.note(&id, "passed", why, response.status().as_u16(), 0, Weight::ONE);
                respond::passed(response, self.manner(), why)
            }
            Err(error) => {
                tracing::warn!(id, target = %address::masked(&self.target), %error, "not handed through");
                let limit = probe.as_ref().and_then(|request| identity.github.limit(request));
                let is_graphql = probe.is_some_and(|request| matches!(request.method, request::Method::Graphql(_)));
                let response = respond::error(&error, identity.cache.now(), limit.as_ref(), is_graphql);
                self.note(&id, "failed", why, response.status().as_u16(), 0, Weight::ONE);
                self.marked(&id, response)
            }
        }
    }
}

/// Whether a path is that of GraphQL to a server that leaves empty segments and dots out.
fn is_graphql(path: &str) -> bool {
    let mut segments = path.split('/').filter(|segment| !matches!(*segment, "" | "."));
    segments.next().is_some_and(|first| first.eq_ignore_ascii_case("graphql"))
}

/// Whether a header is one of [`OTHER_METHODS`]; many servers take `_` for `-`.
fn is_other_method(name: &str) -> bool {
    OTHER_METHODS.iter().any(|other| {
        other.len() == name.len() && name.bytes().zip(other.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    })
}

/// What a response says of a change: a refusal is that nothing has changed; a 5xx may be of a server between.
pub(super) fn ended(response: &Response<Body>) -> Ended {
    match response.status() {
        status if status.is_client_error() => Ended::Refused,
        status if status.is_server_error() => Ended::Unknown,
        _ => Ended::Answered,
    }
}

pub(super) fn for_github(headers: &HeaderMap) -> HeaderMap {
    let mut kept = respond::without_hops(headers);
    for name in NOT_FOR_GITHUB {
        kept.remove(*name);
    }
    kept.remove(ORIGIN);
    // The length is the body's to say, in one way; its coding is the client's.
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    for name in [CONTENT_ENCODING, CONTENT_LENGTH].into_iter().filter(|name| !is_chunked || name != CONTENT_LENGTH) {
        kept.extend(headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
    }
    kept
}

fn full(body: Bytes) -> Stream {
    Stream::new(http_body_util::Full::new(body).map_err(|never| match never {}))
}
