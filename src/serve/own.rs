//! Pages of the server itself: health, metrics, the dashboard.
//!
//! Knows: which there are, and who may see them. Does not know: what is on them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::stream;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;

use super::respond::{self, Body};
use super::{Door, metrics};
use crate::github::Stream;
use crate::metrics as text;

const PAGE: &str = include_str!("dashboard/index.html");
const SCRIPT: &str = include_str!("dashboard/app.js");
const STYLE: &str = include_str!("dashboard/app.css");

/// Nothing from elsewhere, nothing inline, in nobody's frame: what the API says is only ever text here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// People who look at once.
const MAX_WATCHERS: usize = 32;

/// They are told this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Which page a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Health,
    Ready,
    Metrics,
    Dashboard,
    Script,
    Style,
    Status,
    Events,
    /// One of ours that is none.
    Unknown,
}

impl Page {
    /// The page at `path`, if it is one of this server's own.
    pub(super) fn of(path: &str) -> Option<Self> {
        let own = match path.split('?').next().unwrap_or_default() {
            "/healthz" | "/_octocache/health" => Page::Health,
            "/readyz" => Page::Ready,
            "/metrics" => Page::Metrics,
            "/_octocache" | "/_octocache/" => Page::Dashboard,
            "/_octocache/app.js" => Page::Script,
            "/_octocache/app.css" => Page::Style,
            "/_octocache/status" => Page::Status,
            "/_octocache/events" => Page::Events,
            path if path.starts_with("/_octocache/") => Page::Unknown,
            _ => return None,
        };
        Some(own)
    }

    /// Whether it is for everybody who can reach the server: it says nothing of what is cached.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Page::Health | Page::Ready)
    }
}

/// Whether `headers` carry the secret as a password, which is how a browser or Prometheus can show one.
pub(super) fn password(headers: &HeaderMap) -> Option<Vec<u8>> {
    let basic = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let encoded = basic.strip_prefix("Basic ").filter(|text| text.len() < 8 << 10)?;
    let pair = BASE64.decode(encoded.trim().as_bytes()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Asks for the password.
pub(super) fn who_are_you() -> Response<Body> {
    let mut response =
        respond::refusal(StatusCode::UNAUTHORIZED, "octocache: this page asks for the server's secret as password");
    let challenge = HeaderValue::from_static("Basic realm=\"octocache\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

/// One of the server's own pages. Without `details` it names nothing of what clients ask for.
pub(super) fn show(door: &Arc<Door>, page: Page, details: bool) -> Response<Body> {
    match page {
        Page::Health => respond::json(&health(door)),
        Page::Ready => {
            let ending = door.ending.load(Ordering::Relaxed);
            let mut response = respond::json(&json!({ "status": if ending { "ending" } else { "ready" } }));
            if ending {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
        Page::Metrics => {
            let body = text::exposition(&metrics::families(door));
            with_type(Body::Whole(Some(body.into())), text::MEDIA_TYPE)
        }
        Page::Dashboard => asset(PAGE, "text/html; charset=utf-8"),
        Page::Script => asset(SCRIPT, "text/javascript; charset=utf-8"),
        Page::Style => asset(STYLE, "text/css; charset=utf-8"),
        Page::Status => respond::json(&door.status(0, true, details)),
        Page::Events => events(door, details),
        Page::Unknown => respond::refusal(StatusCode::NOT_FOUND, "octocache: there is no such page"),
    }
}

fn health(door: &Door) -> serde_json::Value {
    let (bytes, entries) = door.identities.common().stack.memory_size();
    let reload = door.reload_state();
    json!({
        "status": "ok", "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(),
        "started_at": door.started_at,
        "memory": { "entries": entries, "bytes": bytes },
        "warm": door.ticks.as_ref().map(|ticks| ticks.now()),
        "config": { "read_at": reload.at, "sound": reload.error.is_none() },
    })
}

fn with_type(body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn asset(text: &'static str, kind: &'static str) -> Response<Body> {
    let mut response = with_type(Body::Whole(Some(Bytes::from_static(text.as_bytes()))), kind);
    response.headers_mut().insert("content-security-policy", HeaderValue::from_static(POLICY));
    response.headers_mut().insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    response
}

/// Somebody who looks, and what they were told of.
struct Told {
    door: Arc<Door>,
    seq: Option<u64>,
    details: bool,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for Told {
    fn drop(&mut self) {
        if self.details {
            self.door.journal.unwatched();
        }
    }
}

/// What is new, again and again (HTML Standard, "Server-sent events"), until the server or the client
/// ends.
fn events(door: &Arc<Door>, details: bool) -> Response<Body> {
    let Ok(place) = door.watching.clone().try_acquire_owned() else {
        return respond::refusal(StatusCode::SERVICE_UNAVAILABLE, "octocache: too many people look at once");
    };
    if details {
        door.journal.watched();
    }
    let told = Told { door: door.clone(), seq: None, details, _place: place };
    let frames = stream::unfold(told, |mut told| async move {
        if told.seq.is_some() {
            tokio::time::sleep(TELL_EVERY).await;
        }
        if told.door.ending.load(Ordering::Relaxed) {
            return None;
        }
        let status = told.door.status(told.seq.unwrap_or(0), told.seq.is_none(), told.details);
        let last = status["lines"].as_array().and_then(|lines| lines.last()?["seq"].as_u64());
        told.seq = last.or(told.seq).or(Some(0));
        // Should the connection break, the browser comes again after so many milliseconds.
        let text = format!("retry: 2000\ndata: {status}\n\n");
        Some((Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(text))), told))
    });
    with_type(Body::Stream(Stream::new(StreamBody::new(frames).map_err(|never| match never {}))), "text/event-stream")
}

/// Places for people who look.
pub(super) fn places() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(MAX_WATCHERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_paths_are_ours() {
        for (path, page) in [
            ("/healthz", Some(Page::Health)),
            ("/_octocache/health", Some(Page::Health)),
            ("/_octocache?x=1", Some(Page::Dashboard)),
            ("/_octocache/nope", Some(Page::Unknown)),
            ("/_octocachex", None),
            ("/repos/o/r", None),
            ("/metrics/x", None),
        ] {
            assert_eq!(Page::of(path), page, "{path}");
        }
    }

    #[test]
    fn a_password_is_read_from_basic_credentials_alone() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            password(&headers)
        };
        assert_eq!(of("Basic OmE6Yg==").as_deref(), Some(&b"a:b"[..]));
        for wrong in ["Basic YQ==", "Basic !", "Bearer OmE6Yg==", "Basic"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
