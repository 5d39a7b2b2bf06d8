//! A simulated GitHub on loopback: `ETags` that depend on the token, budgets in which only an
//! authorised 304 is free, `Link` pages, redirects, limits, failures, and a log of every request.
//!
//! Facts are those of GitHub's documentation and of recorded exchanges; what is asserted on is
//! the log: how many requests came, and how many were charged.

mod graphql;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use octocache::clock::{Clock, Timestamp};
use octocache::reply::Reply;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What is found at a path.
#[derive(Debug, Clone)]
pub enum Doc {
    /// One JSON value.
    Json { body: Value, last_modified: Option<String> },
    /// A list in pages; with a name, wrapped as `{"total_count":…, NAME:[…]}`.
    List { items: Vec<Value>, wrapped_in: Option<&'static str>, numeric: Option<String> },
    /// Moved for good.
    Redirect(String),
    /// 302 to another host.
    Elsewhere(String),
    /// 202 so many times, then this.
    NotReady { left: u32, then: Value },
    /// A fixed status with a body.
    Status(u16, String),
    /// Anything else, byte for byte.
    Raw { content_type: &'static str, body: Bytes },
}

impl Doc {
    pub fn json(body: Value) -> Self {
        Doc::Json { body, last_modified: None }
    }

    pub fn dated(body: Value) -> Self {
        Doc::Json { body, last_modified: Some("Tue, 14 Nov 2023 22:13:20 GMT".into()) }
    }

    pub fn list(items: Vec<Value>) -> Self {
        Doc::List { items, wrapped_in: None, numeric: None }
    }
}

/// What goes wrong with the next request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An answer with this status.
    Status(u16),
    /// The connection is closed without an answer.
    Drop,
    /// No answer ever comes.
    Hang,
    /// The body ends early.
    Truncate,
    /// A secondary limit, with this `Retry-After`.
    Secondary(Option<u64>),
    /// 304 without an entity tag, whatever the precondition: an intermediary's, not GitHub's.
    BareNotModified,
}

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Logged {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub status: u16,
    pub charged: bool,
    /// What it cost of its bucket: requests, or points of GraphQL.
    pub points: u64,
}

#[derive(Debug)]
pub struct State {
    pub docs: BTreeMap<String, Doc>,
    pub log: Vec<Logged>,
    pub faults: Vec<Fault>,
    /// Requests an hour of each account.
    pub limit: u64,
    pub clock: Clock,
    /// Token text to account; unknown tokens are 401.
    pub tokens: HashMap<String, String>,
    /// Paths that only some accounts may see; others get 404.
    pub visible_to: HashMap<String, Vec<String>>,
    /// Tokens that see other documents than the rest: by token and path.
    pub seen_by: HashMap<(String, String), Doc>,
    /// Goes into entity tags: not empty, the rule by which they are made is another one.
    pub tag_salt: String,
    /// How long each answer takes.
    pub latency: std::time::Duration,
    /// By how much GitHub's clock, as it shows in headers, is ahead of `clock`.
    pub clock_ahead_secs: i64,
    /// Aliases that time out when a document has more of them.
    pub graphql_max_aliases: usize,
    /// The same, for `RESOURCE_LIMITS_EXCEEDED` with partial data.
    pub graphql_max_nodes_aliases: usize,
    /// What addresses in `Link` begin with, where that is not the host that was asked.
    pub named: Option<String>,
    /// A target that is refused, and with which status.
    pub refused: Option<(String, u16)>,
    used: HashMap<(String, &'static str), (Timestamp, u64)>,
}

/// A running simulation; it ends with the last clone of the value.
#[derive(Debug, Clone)]
pub struct Sim {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// The thread's accept loop ends when this is dropped.
    _running: Arc<tokio::sync::oneshot::Sender<()>>,
}

impl Sim {
    /// Starts on a free port of loopback, in a thread of its own.
    pub fn start(clock: Clock) -> Self {
        let state = Arc::new(Mutex::new(State {
            docs: BTreeMap::new(),
            log: Vec::new(),
            faults: Vec::new(),
            limit: 1_000,
            clock,
            tokens: HashMap::new(),
            visible_to: HashMap::new(),
            seen_by: HashMap::new(),
            tag_salt: String::new(),
            latency: std::time::Duration::ZERO,
            clock_ahead_secs: 0,
            graphql_max_aliases: usize::MAX,
            graphql_max_nodes_aliases: usize::MAX,
            named: None,
            refused: None,
            used: HashMap::new(),
        }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        let (running, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, shared) => {}
                    _ = ended => {}
                }
            });
        });
        Self { address, state, _running: Arc::new(running) }
    }

    /// Listens on a Unix socket, too, for clients that come by one.
    #[cfg(unix)]
    pub fn listen_unix(&self, path: &std::path::Path) {
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let state = self.state.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    talk(stream, state.clone());
                }
            });
        });
    }

    /// A way to it without sockets, for tests whose time stands still between answers.
    pub fn wire(&self) -> Arc<dyn octocache::github::Wire> {
        Arc::new(SimWire(self.state.clone()))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the world; also forgets nothing.
    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub fn put(&self, path: &str, doc: Doc) {
        self.with(|state| state.docs.insert(path.to_owned(), doc));
    }

    /// Puts the simulation's own address in place of `base` in all documents.
    pub fn rebase(&self, base: &str) {
        fn rebase(value: &mut Value, base: &str, url: &str) {
            match value {
                Value::String(text) if text.starts_with(base) => *text = text.replacen(base, url, 1),
                Value::Array(items) => items.iter_mut().for_each(|item| rebase(item, base, url)),
                Value::Object(fields) => fields.values_mut().for_each(|field| rebase(field, base, url)),
                _ => {}
            }
        }
        let url = self.url();
        self.with(|state| {
            for doc in state.docs.values_mut() {
                match doc {
                    Doc::Json { body, .. } => rebase(body, base, &url),
                    Doc::List { items, .. } => items.iter_mut().for_each(|item| rebase(item, base, &url)),
                    _ => {}
                }
            }
        });
    }

    /// A token of an account.
    pub fn token(&self, token: &str, account: &str) {
        self.with(|state| state.tokens.insert(token.to_owned(), account.to_owned()));
    }

    pub fn fail_next(&self, faults: &[Fault]) {
        self.with(|state| state.faults.extend_from_slice(faults));
    }

    /// Requests so far, and how many were charged; counts from zero again afterwards.
    pub fn take_counts(&self) -> (usize, usize) {
        self.with(|state| {
            let counts = (state.log.len(), state.log.iter().filter(|logged| logged.charged).count());
            state.log.clear();
            counts
        })
    }

    pub fn log(&self) -> Vec<Logged> {
        self.with(|state| state.log.clone())
    }
}

#[derive(Debug)]
struct SimWire(Arc<Mutex<State>>);

impl octocache::github::Wire for SimWire {
    fn exchange(
        &self,
        mut message: Request<Bytes>,
    ) -> octocache::upstream::BoxFuture<'_, octocache::error::Result<Reply>> {
        let host = message.uri().authority().map(|host| host.as_str().parse().unwrap());
        message.headers_mut().insert("host", host.unwrap());
        message.headers_mut().remove(ACCEPT_ENCODING);
        let handled = self.0.lock().unwrap().handle(&message);
        Box::pin(async move {
            // Others get a turn, as they would while an answer is on its way.
            tokio::task::yield_now().await;
            match handled {
                Handled::Answer(answer) => {
                    let (parts, body) = answer.into_parts();
                    let (status, headers) = (parts.status, parts.headers);
                    Ok(Reply { status, headers, body: whole(body), attempts: 1, refused: 0, rule_held: None })
                }
                Handled::Hanging => std::future::pending().await,
                Handled::Dropped | Handled::Truncated(_) => {
                    Err(octocache::error::Error::new(octocache::error::Kind::Transport, "no answer from GitHub"))
                }
            }
        })
    }
}

async fn serve(listener: tokio::net::TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _best_effort = stream.set_nodelay(true);
        talk(stream, state.clone());
    }
}

fn talk<S>(stream: S, state: Arc<Mutex<State>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let service = hyper::service::service_fn(|request| answer(state.clone(), request));
        let _closed = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
}

pub type Answer = Response<Full<Bytes>>;

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let (handled, latency) = {
        let mut state = state.lock().unwrap();
        (state.handle(&Request::from_parts(parts, body)), state.latency)
    };
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match handled {
        Handled::Answer(answer) => Ok(answer),
        Handled::Dropped => Err("dropped".into()),
        Handled::Hanging => std::future::pending().await,
        Handled::Truncated(answer) => {
            // Half of a compressed body: the connection ends in the middle of it.
            let (mut head, body) = answer.into_parts();
            let bytes = whole(body);
            head.headers.insert("content-encoding", "gzip".parse()?);
            Ok(Response::from_parts(head, Full::new(bytes.slice(..bytes.len() / 2))))
        }
    }
}

/// What becomes of a request.
pub enum Handled {
    Answer(Answer),
    /// No answer.
    Dropped,
    /// None, and the connection stays.
    Hanging,
    /// Only the beginning of this one.
    Truncated(Answer),
}

impl State {
    /// One request, one answer, one line in the log.
    pub fn handle(&mut self, request: &Request<Bytes>) -> Handled {
        if request.uri().path() == "/simulator/ledger" {
            // For people who try things: nothing of GitHub's, and in no log.
            let charged = self.log.iter().filter(|logged| logged.charged).count();
            return Handled::Answer(plain(200, &json!({ "requests": self.log.len(), "charged": charged })));
        }
        let fault = if self.faults.is_empty() { None } else { Some(self.faults.remove(0)) };
        let headers = request.headers();
        let target = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        let mut logged = Logged {
            method: request.method().to_string(),
            target,
            headers: headers.clone(),
            body: request.body().clone(),
            status: 0,
            charged: true,
            points: 0,
        };
        if matches!(fault, Some(Fault::Drop | Fault::Hang)) {
            logged.charged = false;
            self.log.push(logged);
            return if matches!(fault, Some(Fault::Drop)) { Handled::Dropped } else { Handled::Hanging };
        }
        let mut seen = headers.clone();
        if matches!(fault, Some(Fault::Truncate)) {
            seen.remove(IF_NONE_MATCH);
            seen.remove(IF_MODIFIED_SINCE);
        }
        // A document put there by hand stands in for the executor.
        if request.uri().path() == "/rate_limit"
            && let Ok(account) = self.account(headers)
        {
            // Free of the primary limit.
            let bucket = |state: &mut Self, name| {
                let (limit, used, reset) = state.used(&account, name);
                json!({ "limit": limit, "remaining": limit - used, "used": used, "reset": reset.secs() })
            };
            let resources = json!({
                "core": bucket(self, "core"), "graphql": bucket(self, "graphql"), "search": bucket(self, "search")
            });
            (logged.status, logged.charged) = (200, false);
            self.log.push(logged);
            return Handled::Answer(plain(200, &json!({ "resources": resources })));
        }
        let graphql = request.uri().path() == "/graphql" && !self.docs.contains_key("/graphql");
        let (mut answer, cost) = match &fault {
            Some(Fault::Status(status)) => (plain(*status, &json!({ "message": "Server Error" })), 0),
            Some(Fault::Secondary(retry_after)) => (secondary(*retry_after), 0),
            Some(Fault::BareNotModified) => (bare_not_modified(), 1),
            _ if graphql => self.graphql(&seen, request.body()),
            _ if request.uri().path().starts_with("/echo") => (echo(request), 1),
            _ if self.is_change(request) => (self.write(request), 1),
            _ => (self.respond(request.uri().path(), request.uri().query().unwrap_or(""), &seen), 1),
        };
        let authorised = headers.contains_key(AUTHORIZATION);
        logged.status = answer.status().as_u16();
        let is_refused = matches!(fault, Some(Fault::Secondary(_)));
        logged.charged = !(is_refused || (answer.status() == StatusCode::NOT_MODIFIED && authorised));
        logged.points = if graphql { cost } else { u64::from(logged.charged) };
        if let (Ok(account), false) =
            (self.account(headers), matches!(fault, Some(Fault::Status(_) | Fault::Secondary(_))))
        {
            let bucket = bucket(request.uri().path());
            self.charge(&account, bucket, logged.points, &mut answer);
        }
        let date = self.clock.now().secs() + self.clock_ahead_secs;
        let date = chrono::DateTime::from_timestamp(date, 0).unwrap().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        answer.headers_mut().insert("date", date.parse().unwrap());
        self.log.push(logged);
        if matches!(fault, Some(Fault::Truncate)) { Handled::Truncated(answer) } else { Handled::Answer(answer) }
    }
}

/// What came is told: for whoever wants to see what a client sends.
fn echo(request: &Request<Bytes>) -> Answer {
    let text = String::from_utf8_lossy(request.body()).into_owned();
    let target = request.uri().path_and_query().map(ToString::to_string);
    let seen: BTreeMap<&str, &str> = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-test") || *name == "content-type")
        .filter(|_| !request.method().is_safe())
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    plain(200, &json!({ "method": request.method().as_str(), "target": target, "body": text, "headers": seen }))
}

fn bare_not_modified() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    answer
}

fn secondary(retry_after: Option<u64>) -> Answer {
    let mut answer = plain(
        403,
        &json!({
            "message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
            "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits",
        }),
    );
    answer.headers_mut().insert("x-ratelimit-remaining", "100".parse().unwrap());
    if let Some(secs) = retry_after {
        answer.headers_mut().insert("retry-after", secs.into());
    }
    answer
}

fn bucket(path: &str) -> &'static str {
    match path {
        "/graphql" => "graphql",
        path if path.starts_with("/search/") => "search",
        _ => "core",
    }
}

pub(super) fn plain(status: u16, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer.headers_mut().insert("content-type", "application/json; charset=utf-8".parse().unwrap());
    answer
}

impl State {
    pub(super) fn account(&self, headers: &HeaderMap) -> Result<String, ()> {
        let Some(value) = headers.get(AUTHORIZATION) else { return Ok("anonymous".into()) };
        let text = value.to_str().unwrap_or_default();
        let token = text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("token ")).unwrap_or(text);
        // A signed claim: the App itself, which may mint tokens of its installations.
        if token.starts_with("eyJ") {
            return Ok("app".into());
        }
        self.tokens.get(token).cloned().ok_or(())
    }

    /// The bound of a bucket, what is used of it, and when it is filled again.
    pub(super) fn used(&mut self, account: &str, bucket: &'static str) -> (u64, u64, Timestamp) {
        let now = self.clock.now();
        let limit = match (account, bucket) {
            ("anonymous", "graphql") => 0,
            ("anonymous", _) => 60.min(self.limit),
            (_, "search") => 30,
            _ => self.limit,
        };
        let window = if bucket == "search" { 60 } else { 3_600 };
        let entry = self.used.entry((account.to_owned(), bucket)).or_insert((now.plus(window), 0));
        if entry.0 <= now {
            *entry = (now.plus(window), 0);
        }
        (limit, entry.1, entry.0)
    }

    /// Books the request and writes the rate-limit headers.
    fn charge(&mut self, account: &str, bucket: &'static str, points: u64, answer: &mut Answer) {
        let (limit, used, reset) = self.used(account, bucket);
        let used = (used + points).min(limit);
        if let Some(entry) = self.used.get_mut(&(account.to_owned(), bucket)) {
            entry.1 = used;
        }
        let headers = answer.headers_mut();
        headers.insert("x-ratelimit-limit", limit.into());
        headers.insert("x-ratelimit-remaining", (limit - used).into());
        headers.insert("x-ratelimit-used", used.into());
        headers.insert("x-ratelimit-reset", (reset.secs() + self.clock_ahead_secs).into());
        headers.insert("x-ratelimit-resource", bucket.parse().unwrap());
    }

    /// A `POST` to anything but a list is a question of its own kind.
    fn is_change(&self, request: &Request<Bytes>) -> bool {
        let list = matches!(self.docs.get(request.uri().path()), Some(Doc::List { .. }) | None);
        !request.method().is_safe() && (request.method() != http::Method::POST || list)
    }

    /// A change: `POST` to a list adds to it, `PATCH` changes fields, `DELETE` removes.
    fn write(&mut self, request: &Request<Bytes>) -> Answer {
        let path = request.uri().path();
        if self.account(request.headers()).is_err() {
            return plain(401, &json!({ "message": "Bad credentials" }));
        }
        let sent: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        let not_found =
            plain(404, &json!({ "message": "Not Found", "documentation_url": "https://docs.github.com/rest" }));
        match (request.method().as_str(), self.docs.get_mut(path)) {
            ("POST", Some(Doc::List { items, .. })) => {
                let number = items.len() + 1;
                let mut item =
                    json!({ "number": number, "state": "open", "comments": 0, "url": format!("{path}/{number}") });
                for (name, value) in sent.as_object().cloned().unwrap_or_default() {
                    item[name] = value;
                }
                items.insert(0, item.clone());
                plain(201, &item)
            }
            ("PATCH" | "PUT", Some(Doc::Json { body, .. })) => {
                for (name, value) in sent.as_object().cloned().unwrap_or_default() {
                    body[name] = value;
                }
                plain(200, body)
            }
            ("DELETE", Some(_)) => {
                self.docs.remove(path);
                let mut answer = plain(204, &Value::Null);
                *answer.body_mut() = Full::default();
                answer
            }
            _ => not_found,
        }
    }

    fn respond(&mut self, path: &str, query: &str, headers: &HeaderMap) -> Answer {
        let Ok(account) = self.account(headers) else {
            return plain(401, &json!({ "message": "Bad credentials" }));
        };
        if headers.get("user-agent").is_none() {
            return plain(403, &json!({ "message": "Request forbidden by administrative rules." }));
        }
        let (limit, used, _) = self.used(&account, bucket(path));
        if used >= limit {
            return plain(403, &json!({ "message": format!("API rate limit exceeded for {account}.") }));
        }
        if let Some((_, status)) = self.refused.as_ref().filter(|(target, _)| *target == format!("{path}?{query}")) {
            return plain(*status, &json!({ "message": "pagination is limited for this resource" }));
        }
        let not_found =
            || plain(404, &json!({ "message": "Not Found", "documentation_url": "https://docs.github.com/rest" }));
        let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
        let salt = self.tag_salt.clone();
        if self.visible_to.get(path).is_some_and(|accounts| !accounts.contains(&account)) {
            return conditional(not_found(), headers, None, &salt);
        }
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let own = token.and_then(|token| self.seen_by.get_mut(&(token.to_owned(), path.to_owned())));
        let Some(doc) = own.or_else(|| self.docs.get_mut(path)) else {
            return conditional(not_found(), headers, None, &salt);
        };
        let mut modified = None;
        let base = self.named.clone().unwrap_or_else(|| format!("http://{host}"));
        let answer = match doc {
            Doc::Json { body, last_modified } => {
                modified.clone_from(last_modified);
                plain(200, body)
            }
            Doc::List { items, wrapped_in, numeric } => {
                page(items, *wrapped_in, numeric.as_deref().unwrap_or(path), query, &base)
            }
            Doc::Redirect(to) => {
                let mut answer =
                    plain(301, &json!({ "message": "Moved Permanently", "url": format!("http://{host}{to}") }));
                answer.headers_mut().insert("location", format!("http://{host}{to}").parse().unwrap());
                answer
            }
            Doc::Elsewhere(to) => {
                let mut answer = plain(302, &json!({}));
                answer.headers_mut().insert("location", to.parse().unwrap());
                answer
            }
            Doc::NotReady { left, then } if *left == 0 => plain(200, then),
            Doc::NotReady { left, .. } => {
                *left -= 1;
                return plain(202, &json!({}));
            }
            Doc::Status(204, _) => {
                let mut answer = plain(204, &Value::Null);
                *answer.body_mut() = Full::default();
                answer
            }
            Doc::Status(status, body) => {
                let mut answer = plain(*status, &Value::Null);
                *answer.body_mut() = Full::new(body.clone().into());
                answer
            }
            Doc::Raw { content_type, body } => {
                let mut answer = plain(200, &Value::Null);
                *answer.body_mut() = Full::new(body.clone());
                answer.headers_mut().insert("content-type", content_type.parse().unwrap());
                answer
            }
        };
        conditional(answer, headers, modified, &salt)
    }
}

/// Adds validators and answers preconditions. GitHub's `ETag` is the SHA-256 of the values of
/// `Accept` and `Authorization`, each followed by a colon, and of the body.
fn conditional(answer: Answer, headers: &HeaderMap, modified: Option<String>, salt: &str) -> Answer {
    let (mut head, body) = answer.into_parts();
    let bytes = whole(body);
    let mut hash = Sha256::new();
    hash.update(salt);
    for name in [ACCEPT, AUTHORIZATION] {
        for value in headers.get_all(&name) {
            hash.update(value.as_bytes());
            hash.update(b":");
        }
    }
    hash.update(&bytes);
    let hex = data_encoding::HEXLOWER.encode(&hash.finalize());
    let gzip = headers.get(ACCEPT_ENCODING).is_some_and(|value| value.as_bytes() == b"gzip") && bytes.len() > 860;
    let etag = if gzip { format!("W/\"{hex}\"") } else { format!("\"{hex}\"") };
    let authorised = headers.contains_key(AUTHORIZATION);
    let vary = if authorised {
        "Accept, Authorization, Cookie, X-GitHub-OTP,Accept-Encoding, Accept, X-Requested-With"
    } else {
        "Accept,Accept-Encoding, Accept, X-Requested-With"
    };
    head.headers.insert("vary", vary.parse().unwrap());
    let control = if authorised { "private, max-age=60, s-maxage=60" } else { "public, max-age=60, s-maxage=60" };
    head.headers.insert("cache-control", control.parse().unwrap());
    if head.status == StatusCode::OK {
        head.headers.insert("etag", etag.parse().unwrap());
    }
    if let Some(modified) = &modified {
        head.headers.insert("last-modified", modified.parse().unwrap());
    }
    let matches = match headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()) {
        Some(sent) => sent.split(',').any(|tag| tag.trim().trim_start_matches("W/").trim_matches('"') == hex),
        None => {
            modified.is_some()
                && headers.get(IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok()) == modified.as_deref()
        }
    };
    if head.status == StatusCode::OK && matches {
        head.status = StatusCode::NOT_MODIFIED;
        for name in ["content-type", "link"] {
            head.headers.remove(name);
        }
        return Response::from_parts(head, Full::default());
    }
    if !gzip {
        return Response::from_parts(head, Full::new(bytes));
    }
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    coder.write_all(&bytes).unwrap();
    head.headers.insert("content-encoding", "gzip".parse().unwrap());
    Response::from_parts(head, Full::new(coder.finish().unwrap().into()))
}

/// The bytes of a body that holds them all.
pub(super) fn whole(body: Full<Bytes>) -> Bytes {
    futures_util::FutureExt::now_or_never(body.collect())
        .and_then(Result::ok)
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default()
}

fn page(items: &[Value], wrapped_in: Option<&str>, path: &str, query: &str, base: &str) -> Answer {
    let param = |name: &str, default: usize| {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok()).unwrap_or(default)
    };
    let per_page = param("per_page", 30).clamp(1, 100);
    let number = param("page", 1).max(1);
    let pages = items.len().div_ceil(per_page).max(1);
    let slice: Vec<Value> = items.iter().skip((number - 1) * per_page).take(per_page).cloned().collect();
    let body = match wrapped_in {
        Some(name) => json!({ "total_count": items.len(), name: slice }),
        None => Value::Array(slice),
    };
    let mut answer = plain(200, &body);
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("page=")).collect();
    let link = |page: usize, rel: &str| {
        let mut query = rest.clone();
        let page = format!("page={page}");
        query.push(&page);
        format!("<{base}{path}?{}>; rel=\"{rel}\"", query.join("&"))
    };
    let mut links = Vec::new();
    if number > 1 {
        links.push(link(number - 1, "prev"));
    }
    if number < pages {
        links.push(link(number + 1, "next"));
        links.push(link(pages, "last"));
    }
    if !links.is_empty() {
        answer.headers_mut().insert("link", links.join(", ").parse().unwrap());
    }
    answer
}
