//! One request of a client's, one answer.
//!
//! Knows: which requests are questions that the cache answers, and which are handed through. Does not
//! know: sockets, how answers are made.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, COOKIE, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, ORIGIN, PRAGMA, RANGE, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request as HttpRequest, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use super::Door;
use super::credentials::Credentials;
use super::hosts::{Hosts, Target};
use super::identities::Identity;
use super::respond::{self, Body, Manner};
use crate::cache::{Ask, Said};
use crate::cutoff::Cutoff;
use crate::error::Error;
use crate::event;
use crate::github::{Passing, Stream};
use crate::graphql::operation::{self, Operation};
use crate::policy::{Etag, Mode, Validators};
use crate::request::Request;
use crate::units::Span;

/// Header names of ours, and gh's for its own cache: nothing of GitHub's.
const NOT_FOR_GITHUB: &[&str] = &["x-octocache-secret", "x-gh-cache-ttl", "host", "content-length"];

/// Request headers under which an answer may be another one, in a way that no key knows of.
const UNKEYED: &[&str] = &["x-github-otp", "x-github-next-global-id"];

/// A GraphQL request's body comes within this time.
const LONGEST_QUESTION: std::time::Duration = std::time::Duration::from_secs(30);

/// What a request is to us.
struct Asked<'a> {
    door: &'a Door,
    /// What addresses in answers are to begin with, if not with the API's own.
    base: Option<String>,
    whose: Whose,
    headers: HeaderMap,
    method: Method,
    /// Path and query below the API's prefix.
    target: String,
}

/// Whose request it is.
#[derive(Debug, Clone)]
enum Whose {
    /// Somebody's with a view that lasts.
    Theirs(Arc<Identity>),
    /// Nobody's; they may be lent our view.
    Nobodys(Arc<Identity>),
    /// Somebody's, but not one whose answers can be kept.
    Other,
}

/// What a connection was found to be the last time: a client says the same with each request.
#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<Option<(HeaderValue, Whose)>>);

impl Memo {
    fn whose(&self, door: &Door, headers: &HeaderMap) -> Whose {
        let Some(said) = headers.get(AUTHORIZATION) else { return Whose::Nobodys(door.identities.nobody()) };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, whose)) = &*last
            && known == said
            && headers.get_all(AUTHORIZATION).iter().count() == 1
        {
            return whose.clone();
        }
        let whose = match Credentials::of(headers) {
            Credentials::Token(token) => Whose::Theirs(door.identities.of_token(&token)),
            Credentials::None => Whose::Nobodys(door.identities.nobody()),
            Credentials::Other => Whose::Other,
        };
        *last = Some((said.clone(), whose.clone()));
        whose
    }
}

/// Answers one request.
pub(super) async fn answer(door: &Door, memo: &Memo, request: HttpRequest<Incoming>) -> Response<Body> {
    door.asked();
    let (parts, body) = request.into_parts();
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    if Hosts::is_from_elsewhere(&parts.headers, host) {
        return respond::refusal(StatusCode::FORBIDDEN, "octocache: web pages may not ask here");
    }
    if !door.may_enter(&parts.headers) {
        return respond::refusal(
            StatusCode::UNAUTHORIZED,
            "octocache: this server asks for a secret in X-Octocache-Secret",
        );
    }
    if parts.method == Method::CONNECT || parts.headers.contains_key(UPGRADE) {
        return respond::refusal(
            StatusCode::NOT_IMPLEMENTED,
            "octocache: tunnels and upgrades are not offered; speak plain HTTP",
        );
    }
    let path_and_query = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    match door.hosts.target(&parts.uri, &parts.headers) {
        Target::Foreign(name) => {
            let message = format!(
                "octocache: requests for `{}` are not handed on; --allow-host adds a host",
                name.escape_debug()
            );
            respond::refusal(StatusCode::MISDIRECTED_REQUEST, &message)
        }
        Target::Other(host) => {
            let scheme = if door.hosts.api().is_plaintext() { "http" } else { "https" };
            let url = format!("{scheme}://{host}{path_and_query}");
            hand_on(door, url, parts.method, parts.headers, body).await
        }
        Target::Api(base) => {
            let local = path_and_query.strip_prefix("/_octocache").filter(|_| base.is_some());
            if let Some(own) = local {
                return door.own_page(own);
            }
            let api = door.hosts.api();
            if base.is_none() && is_beside(path_and_query, api.prefix()) {
                let url = format!("{}{path_and_query}", api.origin());
                return hand_on(door, url, parts.method, parts.headers, body).await;
            }
            let (target, prefix) = below_prefix(path_and_query);
            // Addresses keep the prefix that the client came with.
            let base = base.map(|base| if base.ends_with(prefix) { base } else { format!("{base}{prefix}") });
            let whose = memo.whose(door, &parts.headers);
            let asked =
                Asked { door, base, whose, headers: parts.headers, method: parts.method, target: target.to_owned() };
            asked.answer(body).await
        }
    }
}

/// A path without the prefix of GitHub Enterprise Server, which some clients put before any base.
fn below_prefix(path: &str) -> (&str, &'static str) {
    for prefix in ["/api/v3", "/api/graphql"] {
        if let Some(rest) = path.strip_prefix(prefix)
            && (rest.is_empty() || rest.starts_with(['/', '?']))
        {
            let target = if prefix == "/api/graphql" {
                "/graphql"
            } else if rest.is_empty() {
                "/"
            } else {
                rest
            };
            return (target, if prefix == "/api/v3" { prefix } else { "" });
        }
    }
    (path, "")
}

/// Whether a path of an Enterprise Server is none of its API: uploads, archives, raw files.
fn is_beside(path: &str, prefix: &str) -> bool {
    !prefix.is_empty()
        && !path.starts_with(prefix)
        && !path.starts_with("/api/graphql")
        && !path.starts_with("/graphql")
}

impl Asked<'_> {
    async fn answer(self, body: Incoming) -> Response<Body> {
        let (Whose::Theirs(identity) | Whose::Nobodys(identity)) = self.whose.clone() else {
            let nobody = self.door.identities.public();
            return self.pass(&nobody, Stream::new(body.map_err(Into::into)), None, "bypass").await;
        };
        match self.method {
            Method::GET if body.is_end_stream() => match self.question() {
                Some(request) => self.read(&identity, &request).await,
                None => self.pass_counted(&identity, body).await,
            },
            Method::POST if self.target == "/graphql" => self.graphql(&identity, body).await,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => self.pass_counted(&identity, body).await,
            _ => self.write(&identity, body).await,
        }
    }

    /// The question that a `GET` is, if the cache knows all that selects its answer.
    fn question(&self) -> Option<Request> {
        let unusual = [RANGE, IF_RANGE, IF_MATCH, IF_UNMODIFIED_SINCE, COOKIE];
        if unusual.iter().any(|name| self.headers.contains_key(name))
            || UNKEYED.iter().any(|name| self.headers.contains_key(*name))
        {
            return None;
        }
        let accept = self.text(ACCEPT.as_str());
        if accept.contains("octet-stream") {
            // Assets: large, and not the API's to give.
            return None;
        }
        let path = self.target.split('?').next().unwrap_or_default();
        if path == "/" {
            // gh reads a token's scopes off this answer's headers, which are not stored.
            return None;
        }
        let request = Request::get(self.door.hosts.api(), &self.target).ok()?.accepting(&accept);
        let version = self.text("x-github-api-version");
        Some(if version.is_empty() { request } else { request.version(&version) })
    }

    /// A header's values as one text; empty when there is none.
    fn text(&self, name: &str) -> Cow<'_, str> {
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

    /// How the client wants it answered: its `Cache-Control` (RFC 9111 section 5.2.1), gh's own hint.
    fn ask(&self, identity: &Identity, request: &Request) -> Ask {
        let base = Ask { unfollowed: true, ..self.door.ask };
        if base.mode != Mode::Default {
            return base;
        }
        let control = self.text(CACHE_CONTROL.as_str()).to_ascii_lowercase();
        let says = |wanted: &str| control.split(',').any(|one| one.trim() == wanted);
        let pragma = control.is_empty() && self.text(PRAGMA.as_str()).eq_ignore_ascii_case("no-cache");
        let mode = if says("no-store") {
            Mode::NoStore
        } else if says("only-if-cached") {
            Mode::OnlyIfCached
        } else if says("no-cache") || pragma {
            Mode::NoCache
        } else {
            Mode::Default
        };
        let hint = self.text("x-gh-cache-ttl").parse::<Span>().ok().map(|Span(secs)| secs);
        let max_age = control.split(',').find_map(|one| one.trim().strip_prefix("max-age=")?.parse::<u64>().ok());
        let ttl_secs = hint.or(base.ttl_secs);
        let ttl_secs = match max_age {
            Some(most) => {
                let usual = identity.cache.ttls().lifetime(&request.path, &request.query, ttl_secs, None);
                Some(most.min(usual.fresh_secs))
            }
            None => ttl_secs,
        };
        Ask { mode, ttl_secs, ..base }
    }

    async fn read(&self, identity: &Arc<Identity>, request: &Request) -> Response<Body> {
        let ask = self.ask(identity, request);
        let theirs = self.their_validators();
        if !theirs.is_empty() && ask.mode == Mode::Default && !identity.cache.has(request) {
            return match identity.cache.ask_with(request, &ask, theirs).await {
                Ok(Said::NotModified(live)) => {
                    self.with_manner(identity, request, |manner| respond::not_modified(&live, manner))
                }
                Ok(Said::Answer(answer)) => {
                    self.with_manner(identity, request, |manner| respond::answer(answer, manner))
                }
                Err(error) => failed(identity, request, &error),
            };
        }
        self.cached(identity, request, &ask).await
    }

    async fn cached(&self, identity: &Arc<Identity>, request: &Request, ask: &Ask) -> Response<Body> {
        match identity.cache.get_at_once(request, ask).await {
            Ok(answer) => {
                tracing::debug!(target = %request.target(), outcome = answer.outcome.as_str(), "answered");
                self.with_manner(identity, request, |manner| respond::answer(answer, manner))
            }
            Err(error) => failed(identity, request, &error),
        }
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
            bodies: self.door.rewrite_bodies.iter().any(|name| agent.contains(name.as_str())),
            limit: None,
            asked: &self.headers,
        }
    }

    fn their_validators(&self) -> Validators {
        let text = |name: &str| Some(self.text(name).into_owned()).filter(|text| !text.is_empty());
        Validators {
            etag: text(IF_NONE_MATCH.as_str()).map(Etag::Stored),
            last_modified: text(IF_MODIFIED_SINCE.as_str()),
        }
    }

    async fn graphql(&self, identity: &Arc<Identity>, body: Incoming) -> Response<Body> {
        let Some(body) = whole(body, self.door.max_graphql_bytes).await else {
            return respond::refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                "octocache: the GraphQL request is too large or breaks off",
            );
        };
        let request = Request::graphql(self.door.hosts.api(), body.clone());
        let query = match operation::read(&body) {
            Some(Operation::Query(query)) => query,
            Some(Operation::Mutation(fields)) => return self.mutate(identity, body, request, &fields).await,
            // What is not understood may be a change of anything.
            Some(Operation::Subscription) | None if memchr::memmem::find(&body, b"mutation").is_some() => {
                return self.mutate(identity, body, request, &[]).await;
            }
            Some(Operation::Subscription) | None => {
                return self.pass(identity, full(body), Some(request), "bypass").await;
            }
        };
        let unkeyed = UNKEYED.iter().any(|name| self.headers.contains_key(*name));
        if query.live || unkeyed || self.headers.contains_key(COOKIE) {
            return self.pass(identity, full(body), Some(request), "bypass").await;
        }
        let request = Request::graphql(self.door.hosts.api(), query.body)
            .accepting(&self.text(ACCEPT.as_str()))
            .with_features(&self.text("graphql-features"));
        let ask = identity.cache.ask_by_class(&self.ask(identity, &request), query.class);
        self.cached(identity, &request, &ask).await
    }

    /// Hands a mutation through; what it touches is outdated before the client hears of it.
    async fn mutate(
        &self,
        identity: &Arc<Identity>,
        body: Bytes,
        request: Request,
        fields: &[String],
    ) -> Response<Body> {
        let identity = self.who_changes(identity);
        let passed = self.pass(&identity, full(body), Some(request), "method").await;
        if may_have_changed(passed.status()) {
            let now = identity.cache.now();
            outdate(&identity, event::outdated_by_mutation(fields, now)).await;
        }
        passed
    }

    /// A lent token reads; who wants to change something needs one of their own.
    fn who_changes(&self, identity: &Arc<Identity>) -> Arc<Identity> {
        if matches!(self.whose, Whose::Nobodys(_)) { self.door.identities.public() } else { identity.clone() }
    }

    /// Hands a change through; what it touches is outdated before the client hears of it.
    async fn write(&self, identity: &Arc<Identity>, body: Incoming) -> Response<Body> {
        let path = self.target.split('?').next().unwrap_or_default().to_owned();
        let identity = &self.who_changes(identity);
        let passed = self.pass_counted(identity, body).await;
        if may_have_changed(passed.status()) {
            let now = identity.cache.now();
            outdate(identity, event::outdated_by_write(self.method.as_str(), &path, now)).await;
        }
        passed
    }

    async fn pass_counted(&self, identity: &Arc<Identity>, body: Incoming) -> Response<Body> {
        let counted = Request::get(self.door.hosts.api(), &self.target).ok();
        let why = if self.method == Method::GET { "bypass" } else { "method" };
        self.pass(identity, Stream::new(body.map_err(Into::into)), counted, why).await
    }

    /// Hands the request through as it is, signed if the client has no token and we lend ours.
    async fn pass(
        &self,
        identity: &Identity,
        body: Stream,
        counted: Option<Request>,
        why: &'static str,
    ) -> Response<Body> {
        let api = self.door.hosts.api();
        let url = match &counted {
            Some(request) if matches!(request.method, crate::request::Method::Graphql(_)) => api.url(request),
            _ => format!("{}{}", api.rest_base(), self.target),
        };
        let signed = !self.headers.contains_key(AUTHORIZATION);
        let headers = for_github(&self.headers);
        let probe = counted.clone();
        let passing = Passing { method: self.method.clone(), url, headers, body, counted, signed };
        match identity.github.pass(passing).await {
            Ok(response) => respond::passed(response, self.manner(), why),
            Err(error) => {
                tracing::warn!(target = %self.target, %error, "not handed through");
                let limit = probe.and_then(|request| identity.github.limit(&request));
                respond::error(&error, identity.cache.now(), limit.as_ref())
            }
        }
    }
}

fn failed(identity: &Identity, request: &Request, error: &Error) -> Response<Body> {
    tracing::warn!(target = %request.target(), %error, "not answered");
    respond::error(error, identity.cache.now(), identity.github.limit(request).as_ref())
}

/// Hands a request on to another host, as it is: no token is added, nothing is kept.
async fn hand_on(door: &Door, url: String, method: Method, headers: HeaderMap, body: Incoming) -> Response<Body> {
    let nobody = door.identities.public();
    let asked = HeaderMap::new();
    let manner = Manner { api: door.hosts.api(), base: None, bodies: false, limit: None, asked: &asked };
    let body = Stream::new(body.map_err(Into::into));
    let passing = Passing { method, url, headers: for_github(&headers), body, counted: None, signed: false };
    match nobody.github.pass(passing).await {
        Ok(response) => respond::passed(response, manner, "bypass"),
        Err(error) => respond::error(&error, nobody.cache.now(), None),
    }
}

/// Notes what a change outdates, durably: on another thread, since that waits for the disk.
async fn outdate(identity: &Identity, cutoffs: Vec<Cutoff>) {
    let cache = identity.cache.clone();
    if tokio::task::spawn_blocking(move || cache.outdate(&cutoffs)).await.is_err() {
        tracing::warn!("what a change outdates was not noted; answers may show the state before it");
    }
}

/// A refusal changes nothing; anything else may have.
fn may_have_changed(status: StatusCode) -> bool {
    !status.is_client_error()
}

fn for_github(headers: &HeaderMap) -> HeaderMap {
    let mut kept = respond::without_hops(headers);
    for name in NOT_FOR_GITHUB {
        kept.remove(*name);
    }
    kept.remove(ORIGIN);
    // The length is the body's to say; its coding is the client's.
    for name in [http::header::CONTENT_ENCODING, http::header::CONTENT_LENGTH] {
        kept.extend(headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
    }
    kept
}

fn full(body: Bytes) -> Stream {
    Stream::new(http_body_util::Full::new(body).map_err(|never| match never {}))
}

/// A body of at most `max` bytes.
async fn whole(body: Incoming, max: usize) -> Option<Bytes> {
    let collected = tokio::time::timeout(LONGEST_QUESTION, http_body_util::Limited::new(body, max).collect()).await;
    collected.ok()?.ok().map(http_body_util::Collected::to_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_enterprise_server_are_taken_off() {
        for (path, target, prefix) in [
            ("/repos/o/r?page=2", "/repos/o/r?page=2", ""),
            ("/api/v3/repos/o/r", "/repos/o/r", "/api/v3"),
            ("/api/v3", "/", "/api/v3"),
            ("/api/v3x", "/api/v3x", ""),
            ("/api/graphql", "/graphql", ""),
            ("/graphql", "/graphql", ""),
        ] {
            assert_eq!(below_prefix(path), (target, prefix), "{path}");
        }
        assert!(is_beside("/api/uploads/repos/o/r/releases/1/assets", "/api/v3") && is_beside("/raw/x", "/api/v3"));
        assert!(!is_beside("/api/v3/x", "/api/v3") && !is_beside("/api/graphql", "/api/v3") && !is_beside("/x", ""));
    }
}
