//! A request at the door: who may ask, and whether it is for us, for GitHub, or for nobody.
//!
//! Knows: the order entrance ▸ origin ▸ secret ▸ host. Does not know: sockets, what a question is
//! (`asked`), how answers are made.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{AUTHORIZATION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request as HttpRequest, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::asked::{Asked, ended, for_github};
use super::credentials::Credentials;
use super::hosts::{Hosts, Target, host_of};
use super::identities::Identity;
use super::inflow::Cut;
use super::own::{self, Page};
use super::patience::Upload;
use super::respond::{self, Body, Manner};
use super::{Door, Entrance};
use crate::cache::Change;
use crate::error::Result;
use crate::event;
use crate::github::{Passing, Stream};
use crate::request;

/// Whose request it is.
#[derive(Debug, Clone)]
pub(super) enum Whose {
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

/// Where a connection comes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor {
    /// What the socket is for.
    pub(super) entrance: Entrance,
    /// Whether only the user whose server this is can reach the socket.
    pub(super) is_same_user: bool,
}

/// Answers one request.
pub(super) async fn answer(
    door: &Arc<Door>,
    visitor: Visitor,
    memo: &Memo,
    request: HttpRequest<Incoming>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::TRACE {
        // It would show what is added on the way, tokens too (RFC 9110 section 9.3.8).
        return refused(door, StatusCode::NOT_IMPLEMENTED, "octocache: TRACE is not offered");
    }
    match (parts.uri.path(), visitor.entrance) {
        ("/webhook", _) => delivered(door, &parts, body).await,
        ("/healthz", Entrance::Deliveries) => own::show(door, Page::Ready, false),
        (_, Entrance::Deliveries) => {
            let message = "octocache: this address takes deliveries at /webhook, and nothing else";
            refused(door, StatusCode::NOT_FOUND, message)
        }
        (_, Entrance::All) => proxied(door, visitor, memo, parts, body).await,
    }
}

/// Deliveries say who they are by their signature: neither host nor secret matter.
async fn delivered(door: &Arc<Door>, parts: &http::request::Parts, body: Incoming) -> Response<Body> {
    if let Err(why) = host_of(parts.version, &parts.uri, &parts.headers) {
        return refused(door, StatusCode::BAD_REQUEST, why);
    }
    let keys = door.live().webhook_keys.clone();
    let (Some(webhook), Some(keys)) = (&door.webhook, keys) else {
        return refused(door, StatusCode::NOT_FOUND, "octocache: deliveries need a --webhook-secret-file");
    };
    let clock = &door.identities.common().clock;
    webhook.receive(&keys, &parts.method, &parts.headers, body, || clock.now()).await
}

fn refused(door: &Door, status: StatusCode, message: &str) -> Response<Body> {
    door.counters.refused.fetch_add(1, Ordering::Relaxed);
    respond::refusal(status, message)
}

async fn proxied(
    door: &Arc<Door>,
    visitor: Visitor,
    memo: &Memo,
    parts: http::request::Parts,
    body: Incoming,
) -> Response<Body> {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    if Hosts::is_from_elsewhere(&parts.headers, host) {
        return refused(door, StatusCode::FORBIDDEN, "octocache: web pages may not ask here");
    }
    let path_and_query = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let target = door.hosts.target(parts.version, &parts.uri, &parts.headers);
    if let Target::Malformed(why) = target {
        return refused(door, StatusCode::BAD_REQUEST, why);
    }
    // Who comes by GitHub's own name asks GitHub.
    let page = matches!(target, Target::Api(Some(_))).then(|| Page::of(path_and_query)).flatten();
    if !page.is_some_and(Page::is_open) {
        // Health is looked at by machines that want nothing.
        door.asked();
        if !door.may_enter(&parts.headers, page.is_some()) {
            return match page {
                Some(_) => own::who_are_you(),
                None => refused(
                    door,
                    StatusCode::UNAUTHORIZED,
                    "octocache: this server asks for a secret in X-Octocache-Secret",
                ),
            };
        }
    }
    if let Some(page) = page {
        // Which paths clients ask for is for this user, and for those who know the secret.
        let details = visitor.is_same_user || door.live().secret.is_some();
        return own::show(door, page, details);
    }
    if parts.method == Method::CONNECT || parts.headers.contains_key(UPGRADE) {
        return refused(
            door,
            StatusCode::NOT_IMPLEMENTED,
            "octocache: tunnels and upgrades are not offered; speak plain HTTP",
        );
    }
    if !path_and_query.starts_with('/') {
        // `OPTIONS *` is about a server, not about the API.
        return refused(door, StatusCode::BAD_REQUEST, "octocache: the request's target has no path");
    }
    match target {
        Target::Malformed(why) => refused(door, StatusCode::BAD_REQUEST, why),
        Target::Foreign(name) => {
            let message = format!(
                "octocache: requests for `{}` are not handed on; --allow-host adds a host",
                name.escape_debug()
            );
            refused(door, StatusCode::MISDIRECTED_REQUEST, &message)
        }
        Target::Other(host) => {
            let scheme = if door.hosts.api().is_plaintext() { "http" } else { "https" };
            let uri = request::uri(scheme, host.as_str(), path_and_query);
            hand_on(door, uri, parts.method, parts.headers, body).await
        }
        Target::Api(base) => {
            let api = door.hosts.api();
            if base.is_none() && is_beside(path_and_query, api.prefix()) {
                return hand_on(door, api.beside(path_and_query), parts.method, parts.headers, body).await;
            }
            let (target, prefix) = below_prefix(path_and_query);
            // Addresses keep the prefix that the client came with.
            let base = base.map(|base| if base.ends_with(prefix) { base } else { format!("{base}{prefix}") });
            let whose = memo.whose(door, &parts.headers);
            let asked = Asked {
                door,
                base,
                whose,
                headers: parts.headers,
                method: parts.method,
                target: target.into_owned(),
                started: Instant::now(),
            };
            asked.answer(body).await
        }
    }
}

/// A path without the prefix of GitHub Enterprise Server, which some clients put before any base.
fn below_prefix(path: &str) -> (Cow<'_, str>, &'static str) {
    for prefix in ["/api/v3", "/api/graphql"] {
        if let Some(rest) = path.strip_prefix(prefix)
            && (rest.is_empty() || rest.starts_with(['/', '?']))
        {
            let target = if prefix == "/api/graphql" {
                Cow::Borrowed("/graphql")
            } else if rest.starts_with('/') {
                Cow::Borrowed(rest)
            } else {
                Cow::Owned(format!("/{rest}"))
            };
            return (target, if prefix == "/api/v3" { prefix } else { "" });
        }
    }
    (Cow::Borrowed(path), "")
}

/// Whether a path of an Enterprise Server is none of its API: uploads, archives, raw files.
fn is_beside(path: &str, prefix: &str) -> bool {
    !prefix.is_empty()
        && !path.starts_with(prefix)
        && !path.starts_with("/api/graphql")
        && !path.starts_with("/graphql")
}

/// Hands a request on to another host, as it is: no token is added, nothing is kept.
async fn hand_on(door: &Door, uri: Result<Uri>, method: Method, headers: HeaderMap, body: Incoming) -> Response<Body> {
    let nobody = door.identities.public();
    let uri = match uri {
        Ok(uri) => uri,
        Err(error) => return respond::error(&error, nobody.cache.now(), None, false),
    };
    let change = if method.is_safe() {
        Change::watch(&nobody.cache, Vec::new())
    } else {
        let outdates = event::outdated_by_upload(method.as_str(), uri.path(), nobody.cache.now());
        // Without a token GitHub refuses it.
        if headers.contains_key(AUTHORIZATION) {
            Change::begin(&nobody.cache, outdates).await
        } else {
            Change::watch(&nobody.cache, outdates)
        }
    };
    let asked = HeaderMap::new();
    let manner =
        Manner { api: door.hosts.api(), base: None, bodies: false, mode: door.cache_mode, limit: None, asked: &asked };
    let (upload, stalled) = Upload::of(body, door.idle);
    let body = Stream::new(upload);
    let passing = Passing { method, uri, headers: for_github(&headers), body, counted: None, signed: false };
    let response = match nobody.github.pass(passing).await {
        Ok(response) => respond::passed(response, manner, "bypass"),
        Err(_) if stalled.load(Ordering::Relaxed) => Cut::Slow.response(),
        Err(error) => respond::error(&error, nobody.cache.now(), None, false),
    };
    change.end(ended(&response)).await;
    response
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
            ("/api/v3?x", "/?x", "/api/v3"),
            ("/api/v3x", "/api/v3x", ""),
            ("/api/graphql", "/graphql", ""),
            ("/graphql", "/graphql", ""),
        ] {
            assert_eq!(below_prefix(path), (target.into(), prefix), "{path}");
        }
        assert!(is_beside("/api/uploads/repos/o/r/releases/1/assets", "/api/v3") && is_beside("/raw/x", "/api/v3"));
        assert!(!is_beside("/api/v3/x", "/api/v3") && !is_beside("/api/graphql", "/api/v3") && !is_beside("/x", ""));
    }
}
