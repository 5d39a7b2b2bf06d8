//! Answers as HTTP: what the store has, what an error is to a client of GitHub's.
//!
//! Knows: which headers a client gets, `Cache-Status` (RFC 9211), `Age`, 304s to the client's own
//! validators. Does not know: how an answer came about.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    AGE, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, LINK, LOCATION, RETRY_AFTER, SET_COOKIE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::cache::Answer;
use crate::clock::Timestamp;
use crate::error::{Error, Kind};
use crate::github::Stream;
use crate::graphql::locations;
use crate::outcome::{Because, Outcome, StaleReason};
use crate::request::Api;
use crate::upstream::RateLimit;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

const X_CACHE_MODE: HeaderName = HeaderName::from_static("x-cache-mode");

/// Headers of a connection, not of an answer (RFC 9110 section 7.6.1).
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A body: whole, or on its way.
#[derive(Debug)]
pub(super) enum Body {
    /// Whole.
    Whole(Option<Bytes>),
    /// In pieces, as they come.
    Stream(Stream),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(http_body::Frame::data(bytes)))),
            Body::Stream(stream) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_none(),
            Body::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Body::Whole(bytes) => http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Stream(stream) => stream.size_hint(),
        }
    }
}

/// How a client gets its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner<'a> {
    /// The API, whose addresses stand in answers.
    pub(super) api: &'a Api,
    /// What they are to begin with instead.
    pub(super) base: Option<&'a str>,
    /// Whether bodies lead back, too: for clients that refuse addresses of another host.
    pub(super) bodies: bool,
    /// Whether ghproxy's `X-Cache-Mode` is told, too.
    pub(super) mode: bool,
    /// What is left of the limit that the request counts in, as of now.
    pub(super) limit: Option<&'a RateLimit>,
    /// The client's request headers.
    pub(super) asked: &'a HeaderMap,
}

/// An answer of the cache's, or 304 if the client has it.
pub(super) fn answer(answer: Answer, manner: Manner<'_>) -> Response<Body> {
    let entry = &answer.entry;
    let mut headers = match (&answer.live, &answer.head) {
        (Some(live), _) => {
            let mut headers = without_hops(live);
            for (name, value) in &entry.headers.to_http() {
                headers.insert(name, value.clone());
            }
            headers
        }
        (None, Some(head)) => HeaderMap::clone(head),
        (None, None) => entry.headers.to_http(),
    };
    lead_back(&mut headers, manner);
    tell_limit(&mut headers, manner.limit);
    if answer.requests == 0 || answer.age_secs > 0 {
        headers.insert(AGE, answer.age_secs.into());
    }
    headers.insert(CACHE_STATUS, cache_status(&answer));
    if manner.mode {
        headers.insert(X_CACHE_MODE, HeaderValue::from_static(cache_mode(&answer)));
    }
    let status = StatusCode::from_u16(entry.status).unwrap_or(StatusCode::OK);
    let (status, body) = if status == StatusCode::OK && client_has_it(manner.asked, &headers) {
        headers.remove(CONTENT_TYPE);
        // A list that has shrunk to one page has no `Link` any more, and a 304 can only replace the one of the client's copy
        // (RFC 9111 section 3.2): by an empty list (RFC 9110 section 5.6.1).
        if !headers.contains_key(LINK) && entry.body.starts_with(b"[") {
            headers.insert(LINK, HeaderValue::from_static(""));
        }
        (StatusCode::NOT_MODIFIED, None)
    } else {
        (status, Some(led_back(&entry.body, &headers, manner)).filter(|body| !body.is_empty()))
    };
    build(status, headers, Body::Whole(body))
}

/// What GitHub sends, as it comes.
pub(super) fn passed(response: Response<Stream>, manner: Manner<'_>, why: &'static str) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let mut headers = without_hops(&parts.headers);
    for name in [CONTENT_LENGTH, CONTENT_ENCODING, SET_COOKIE] {
        headers.extend(parts.headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
    }
    lead_back(&mut headers, manner);
    let status = format!("octocache; fwd={why}; fwd-status={}", parts.status.as_u16());
    set(&mut headers, CACHE_STATUS, &status);
    if manner.mode {
        headers.insert(X_CACHE_MODE, HeaderValue::from_static("SKIP"));
    }
    build(parts.status, headers, Body::Stream(body))
}

/// A response, and its whole body if that is of a known length of at most `max` bytes.
pub(super) async fn short_body(response: Response<Body>, max: u64) -> (Response<Body>, Option<Bytes>) {
    use http_body_util::BodyExt;
    if http_body::Body::size_hint(response.body()).exact().is_none_or(|bytes| bytes > max) {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            (Response::from_parts(parts, Body::Whole(Some(body.clone()).filter(|body| !body.is_empty()))), Some(body))
        }
        Err(_) => (refusal(StatusCode::BAD_GATEWAY, "octocache: GitHub's answer breaks off"), None),
    }
}

/// A response to the normal form of what a client posted: short ones say where errors lie in the client's own text.
pub(super) async fn with_client_locations(response: Response<Body>, posted: &[u8], max: u64) -> Response<Body> {
    let (mut response, body) = short_body(response, max).await;
    if let Some(restored) = body.and_then(|body| locations::restored(&body, posted)) {
        response.headers_mut().insert(CONTENT_LENGTH, restored.len().into());
        *response.body_mut() = Body::Whole(Some(restored));
    }
    response
}

/// An error in the form in which GitHub's clients expect one; GitHub's own response where there was one.
pub(super) fn error(error: &Error, now: Timestamp, limit: Option<&RateLimit>, is_graphql: bool) -> Response<Body> {
    if let Some(theirs) = error.response() {
        let mut headers = without_hops(theirs.headers());
        let status = format!("octocache; fwd=miss; fwd-status={}; detail=error", theirs.status().as_u16());
        set(&mut headers, CACHE_STATUS, &status);
        let body = Some(theirs.body().clone()).filter(|body| !body.is_empty());
        return build(theirs.status(), headers, Body::Whole(body));
    }
    let status = match error.kind() {
        Kind::Limited { until, secondary } => return limited(error, until, secondary, limit, is_graphql, now),
        Kind::Usage => StatusCode::BAD_REQUEST,
        Kind::NotCached | Kind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Kind::Server(status) | Kind::Refused(status) => StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
        Kind::Internal | Kind::Io => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Transport | Kind::Malformed | Kind::Corrupt | Kind::TooLarge => StatusCode::BAD_GATEWAY,
    };
    refusal(status, &format!("octocache: {error}"))
}

/// A limit that is known to hold, so that nothing was sent: by what GitHub's clients know each kind by (GitHub, "Rate
/// limits for the REST API" and "Rate limits and query limits for the GraphQL API").
fn limited(
    error: &Error,
    until: Option<Timestamp>,
    secondary: bool,
    limit: Option<&RateLimit>,
    is_graphql: bool,
    now: Timestamp,
) -> Response<Body> {
    let about = "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api";
    let (status, body) = if secondary {
        let message = format!("You have exceeded a secondary rate limit (octocache: {error})");
        let about = format!("{about}#about-secondary-rate-limits");
        (StatusCode::FORBIDDEN, serde_json::json!({ "message": message, "documentation_url": about }))
    } else {
        let message = format!("API rate limit exceeded (octocache: {error})");
        if is_graphql {
            let errors =
                serde_json::json!([{ "type": "RATE_LIMIT", "code": "graphql_rate_limit", "message": message }]);
            (StatusCode::OK, serde_json::json!({ "errors": errors }))
        } else {
            let about = format!("{about}#about-primary-rate-limits");
            (StatusCode::FORBIDDEN, serde_json::json!({ "message": message, "documentation_url": about }))
        }
    };
    let mut headers = of_ours();
    tell_limit(&mut headers, limit);
    if !secondary {
        headers.insert("x-ratelimit-remaining", HeaderValue::from_static("0"));
    }
    if let Some(until) = until {
        if !secondary {
            headers.insert("x-ratelimit-reset", until.secs().into());
        }
        headers.insert(RETRY_AFTER, until.since(now).max(1).into());
    }
    build(status, headers, Body::Whole(Some(body.to_string().into())))
}

fn of_ours() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_STATUS, HeaderValue::from_static("octocache; detail=error"));
    headers
}

/// A page of ours.
pub(super) fn json(value: &serde_json::Value) -> Response<Body> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    build(StatusCode::OK, headers, Body::Whole(Some(value.to_string().into())))
}

/// A refusal of ours.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    let body = serde_json::json!({ "message": message }).to_string();
    build(status, of_ours(), Body::Whole(Some(body.into())))
}

/// A 304 of GitHub's to the client's own validators.
pub(super) fn not_modified(live: &HeaderMap, manner: Manner<'_>) -> Response<Body> {
    let mut headers = without_hops(live);
    lead_back(&mut headers, manner);
    headers.insert(CACHE_STATUS, HeaderValue::from_static("octocache; fwd=uri-miss; fwd-status=304"));
    build(StatusCode::NOT_MODIFIED, headers, Body::Whole(None))
}

fn build(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// All headers but those of the connection, of a coding that is undone by now, and what is personal.
pub(super) fn without_hops(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    for name in HOP_BY_HOP.iter().copied().chain(named.iter().map(String::as_str)) {
        kept.remove(name);
    }
    for name in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING, SET_COOKIE, DATE] {
        kept.remove(name);
    }
    kept
}

/// In place of what is there; text that cannot stand in a header leaves it as it is.
fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

fn lead_back(headers: &mut HeaderMap, manner: Manner<'_>) {
    let Some(base) = manner.base else { return };
    let own = manner.api.rest_base();
    if let Some(link) = headers.get(LINK).and_then(|link| link.to_str().ok()) {
        let link = link.replace(&format!("<{own}/"), &format!("<{base}/"));
        set(headers, LINK, &link);
    }
    let to = headers.get(LOCATION).and_then(|to| to.to_str().ok());
    if let Some(rest) = to.and_then(|to| to.strip_prefix(&own)).filter(|rest| rest.starts_with('/')) {
        let to = format!("{base}{rest}");
        set(headers, LOCATION, &to);
    }
}

/// A JSON body whose addresses of the API begin as the client's do. Everybody else gets GitHub's bytes.
fn led_back(body: &Bytes, headers: &HeaderMap, manner: Manner<'_>) -> Bytes {
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let Some(base) = manner.base.filter(|_| manner.bodies && is_json) else { return body.clone() };
    let own = format!("\"{}/", manner.api.rest_base());
    let mut out = Vec::with_capacity(body.len() + body.len() / 8);
    let mut at = 0;
    for found in memchr::memmem::find_iter(body, &own) {
        out.extend_from_slice(&body[at..found]);
        out.extend_from_slice(format!("\"{base}/").as_bytes());
        at = found + own.len();
    }
    out.extend_from_slice(&body[at..]);
    out.into()
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const USED: HeaderName = HeaderName::from_static("x-ratelimit-used");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RESOURCE: HeaderName = HeaderName::from_static("x-ratelimit-resource");

fn tell_limit(headers: &mut HeaderMap, limit: Option<&RateLimit>) {
    let Some(limit) = limit else { return };
    headers.insert(LIMIT, limit.limit.into());
    headers.insert(REMAINING, limit.remaining.into());
    headers.insert(USED, limit.limit.saturating_sub(limit.remaining).into());
    headers.insert(RESET, limit.reset_at.secs().into());
    set(headers, RESOURCE, &limit.resource);
}

/// Whether the client's validators say that it has these bytes (RFC 9110 section 13.2.2).
fn client_has_it(asked: &HeaderMap, answer: &HeaderMap) -> bool {
    let text = |headers: &HeaderMap, name: HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok().map(str::to_owned))
    };
    if asked.contains_key(IF_NONE_MATCH) {
        let Some(tag) = text(answer, ETAG) else { return false };
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let tags = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        return tags.flat_map(|tags| tags.split(',')).any(|one| one.trim() == "*" || opaque(one) == opaque(&tag));
    }
    let since = text(asked, IF_MODIFIED_SINCE).and_then(|since| httpdate::parse_http_date(&since).ok());
    let modified = text(answer, LAST_MODIFIED).and_then(|at| httpdate::parse_http_date(&at).ok());
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
}

/// How the cache handled it, in the words of RFC 9211.
fn cache_status(answer: &Answer) -> HeaderValue {
    let left = answer.ttl_secs as i64 - answer.age_secs as i64;
    let text = match answer.outcome {
        Outcome::Hit(_) => format!("octocache; hit; ttl={left}"),
        Outcome::Stale(reason) => format!("octocache; hit; ttl={}; detail={}", left.min(-1), stale_detail(reason)),
        Outcome::Revalidated => format!("octocache; fwd=stale; fwd-status=304; ttl={left}"),
        Outcome::Confirmed => format!("octocache; fwd=uri-miss; fwd-status=304; stored; ttl={left}; detail=confirmed"),
        Outcome::Fetched(because) => {
            format!("octocache; fwd={}; fwd-status={}; stored; ttl={left}", forward(because), answer.entry.status)
        }
        Outcome::NotStored(reason) => {
            format!("octocache; fwd=miss; fwd-status={}; detail={}", answer.entry.status, reason.as_str())
        }
    };
    let collapsed = if answer.collapsed { "; collapsed" } else { "" };
    HeaderValue::try_from(format!("{text}{collapsed}")).unwrap_or(HeaderValue::from_static("octocache"))
}

/// The same in ghproxy's words; its clients take `COALESCED` and `REVALIDATED` for free.
fn cache_mode(answer: &Answer) -> &'static str {
    match answer.outcome {
        _ if answer.collapsed => "COALESCED",
        Outcome::Hit(_) | Outcome::Stale(_) | Outcome::Revalidated | Outcome::Confirmed => "REVALIDATED",
        Outcome::Fetched(Because::NotStored) => "MISS",
        Outcome::Fetched(_) => "CHANGED",
        Outcome::NotStored(_) => "NO-STORE",
    }
}

fn stale_detail(reason: StaleReason) -> String {
    format!("stale-{}", reason.as_str())
}

fn forward(because: Because) -> &'static str {
    match because {
        Because::NotStored => "uri-miss",
        Because::Mode => "request",
        Because::Stale
        | Because::SoonStale
        | Because::Invalidated
        | Because::NoCacheDirective
        | Because::FieldsChanged => "stale",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_client_that_has_it_is_told_so() {
        let ours = map(&[("etag", "W/\"a\""), ("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT")]);
        for asked in [
            &[("if-none-match", "\"a\"")][..],
            &[("if-none-match", "W/\"b\", W/\"a\"")],
            &[("if-none-match", "*")],
            &[("if-modified-since", "Tue, 14 Nov 2023 22:13:20 GMT")],
            &[("if-modified-since", "Wed, 15 Nov 2023 00:00:00 GMT")],
        ] {
            assert!(client_has_it(&map(asked), &ours), "{asked:?}");
        }
        for asked in [
            &[][..],
            &[("if-none-match", "\"b\"")],
            // The tag outranks the date.
            &[("if-none-match", "\"b\""), ("if-modified-since", "Wed, 15 Nov 2023 00:00:00 GMT")],
            &[("if-modified-since", "Mon, 13 Nov 2023 00:00:00 GMT")],
            &[("if-modified-since", "yesterday")],
        ] {
            assert!(!client_has_it(&map(asked), &ours), "{asked:?}");
        }
    }

    #[test]
    fn addresses_lead_back_and_others_stay() {
        let api = Api::parse("https://ghe.example/api/v3").unwrap();
        let asked = HeaderMap::new();
        let manner = Manner {
            api: &api,
            base: Some("http://127.0.0.1:1/api/v3"),
            bodies: true,
            mode: false,
            limit: None,
            asked: &asked,
        };
        let mut headers = map(&[
            (
                "link",
                "<https://ghe.example/api/v3/x?page=2>; rel=\"next\", <https://evil.example/api/v3/x>; rel=\"last\"",
            ),
            ("location", "https://ghe.example/api/v3/repositories/1"),
        ]);
        lead_back(&mut headers, manner);
        assert_eq!(
            headers["link"],
            "<http://127.0.0.1:1/api/v3/x?page=2>; rel=\"next\", <https://evil.example/api/v3/x>; rel=\"last\""
        );
        assert_eq!(headers["location"], "http://127.0.0.1:1/api/v3/repositories/1");
        let body = Bytes::from_static(
            br#"{"url":"https://ge","u":"https://ghe.example/api/v3/x{/y}","h":"https://ghe.example/x"}"#,
        );
        let json = map(&[("content-type", "application/json; charset=utf-8")]);
        assert_eq!(
            led_back(&body, &json, manner),
            r#"{"url":"https://ge","u":"http://127.0.0.1:1/api/v3/x{/y}","h":"https://ghe.example/x"}"#
        );
        assert_eq!(led_back(&body, &asked, manner), body);
        assert_eq!(led_back(&body, &json, Manner { bodies: false, ..manner }), body);
        let mut away = map(&[("location", "https://ghe.example.evil/x")]);
        lead_back(&mut away, manner);
        assert_eq!(away["location"], "https://ghe.example.evil/x");
    }

    #[test]
    fn headers_of_the_connection_and_cookies_stay_behind() {
        let kept = without_hops(&map(&[
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("set-cookie", "a=b"),
            ("transfer-encoding", "chunked"),
            ("x-github-request-id", "1"),
        ]));
        assert_eq!(kept, map(&[("x-github-request-id", "1")]));
    }
}
