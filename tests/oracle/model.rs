//! GitHub over a wire: the truth and its history, validators, limits, and what goes wrong on the way.
//!
//! Knows: every state that there was, and what was asked. Does not know: caches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use octocache::clock::{Clock, Timestamp};
use octocache::error::{Error, Kind, Result};
use octocache::github::Wire;
use octocache::reply::Reply;
use octocache::upstream::BoxFuture;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::change::{Change, Told};
use super::truth::{Rendered, Truth};

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No answer.
    Drop,
    /// 502.
    Broken,
    /// A 200 that is a page of HTML.
    Login,
    /// A 200 whose JSON is cut.
    Cut,
    /// A 304 without a tag: a cache in the middle has not understood.
    BareNotModified,
    /// A secondary limit.
    Secondary,
    /// Carried out, but the answer is lost.
    LostAnswer,
    /// The primary limit is used up, for a minute.
    Limited,
    /// A cache in the middle answers with what was true [`AGED`] seconds ago, and says so.
    Aged,
    /// The same from one that takes no heed of `no-cache`.
    Deaf,
    /// A part of the whole, and says so: a search that ran out of time, a list without what single sign-on hides.
    Part,
    /// 202 to what is computed on demand.
    NotReady,
}

/// How old what a cache in the middle has is, in seconds.
pub const AGED: u64 = 200;

#[derive(Debug)]
pub struct Model {
    /// Every state, and since when.
    pub history: Vec<(Timestamp, Arc<Truth>)>,
    pub clock: Clock,
    /// Requests so far, and those that count.
    pub requests: u64,
    pub charged: u64,
    pub troubles: VecDeque<Trouble>,
    /// Requests that something went wrong with.
    pub troubled: u64,
    /// Those that a cache in the middle answered.
    pub aged: u64,
    /// What the next change that comes over the wire is.
    pub expected: Option<(usize, Change)>,
    /// Versions that came about by changes over the wire.
    pub written: Vec<usize>,
}

impl Model {
    pub fn new(clock: Clock) -> Self {
        Self {
            history: vec![(clock.now(), Arc::new(Truth::new()))],
            clock,
            requests: 0,
            charged: 0,
            troubles: VecDeque::new(),
            troubled: 0,
            aged: 0,
            expected: None,
            written: Vec::new(),
        }
    }

    pub fn version(&self) -> usize {
        self.history.len() - 1
    }

    pub fn truth(&self) -> Arc<Truth> {
        self.history[self.version()].1.clone()
    }

    /// Carries a change out.
    pub fn apply(&mut self, at: usize, change: Change) -> Option<Told> {
        let mut truth = (*self.truth()).clone();
        let told = truth.apply(at, change)?;
        self.history.push((self.clock.now(), Arc::new(truth)));
        Some(told)
    }

    fn handle(&mut self, message: &Request<Bytes>) -> Result<Reply> {
        self.requests += 1;
        let trouble = self.troubles.pop_front();
        self.troubled += u64::from(trouble.is_some());
        let reads = message.method().is_safe() || message.uri().path().ends_with("/graphql");
        let has_body = message.method() != http::Method::HEAD;
        let lost = || Error::new(Kind::Transport, "no answer from GitHub");
        match trouble {
            Some(Trouble::Drop) => return Err(lost()),
            Some(Trouble::Broken) => return Ok(reply(502, json!({ "message": "Server Error" }).to_string().into())),
            Some(Trouble::Secondary) => {
                let body = json!({ "message": "You have exceeded a secondary rate limit." });
                let mut reply = reply(403, body.to_string().into());
                reply.headers.insert("retry-after", 1.into());
                return Ok(reply);
            }
            Some(Trouble::Login) if reads => {
                let mut reply = reply(200, "<!DOCTYPE html><html>log in</html>".into());
                reply.headers.insert("content-type", HeaderValue::from_static("text/html"));
                self.charged += 1;
                return Ok(reply);
            }
            Some(Trouble::BareNotModified) if reads => {
                let mut reply = reply(304, Bytes::new());
                reply.headers.clear();
                return Ok(reply);
            }
            Some(Trouble::Limited) => {
                let mut reply =
                    reply(403, json!({ "message": "API rate limit exceeded for user." }).to_string().into());
                limits(&mut reply, 0, self.clock.now().secs() + 60);
                return Ok(reply);
            }
            Some(Trouble::NotReady) if message.uri().path().contains("/stats/") => {
                self.charged += 1;
                return Ok(reply(202, "{}".into()));
            }
            _ => {}
        }
        let is_end_to_end = message.headers().get("cache-control").is_some_and(|value| value == "no-cache");
        let is_aged = reads && (trouble == Some(Trouble::Aged) && !is_end_to_end || trouble == Some(Trouble::Deaf));
        let at = self.clock.now().minus(if is_aged { AGED } else { 0 });
        let mut reply = if reads { Self::read(message, &self.truth_at(at)) } else { self.write() };
        if is_aged {
            self.aged += 1;
            reply.headers.insert("age", AGED.into());
        }
        self.charged += u64::from(reply.status != StatusCode::NOT_MODIFIED);
        limits(&mut reply, 90_000, self.clock.now().secs() + 3_000);
        match trouble {
            Some(Trouble::Part) if reply.status == 200 && has_body => {
                part(&mut reply);
                Ok(reply)
            }
            Some(Trouble::LostAnswer) => Err(lost()),
            Some(Trouble::Cut) if reply.body.len() > 2 && has_body => {
                reply.body = reply.body.slice(..reply.body.len() / 2);
                Ok(reply)
            }
            _ => Ok(reply),
        }
    }

    fn write(&mut self) -> Reply {
        let Some((at, change)) = self.expected.take() else { return reply(404, "{}".into()) };
        if self.apply(at, change).is_none() {
            return reply(404, "{}".into());
        }
        self.written.push(self.version());
        reply(200, json!({ "done": self.version() }).to_string().into())
    }

    /// What was true at `at`.
    fn truth_at(&self, at: Timestamp) -> Arc<Truth> {
        let found = self.history.iter().rev().find(|(since, _)| *since <= at);
        found.unwrap_or(&self.history[0]).1.clone()
    }

    fn read(message: &Request<Bytes>, truth: &Truth) -> Reply {
        let account = account(message.headers());
        if message.uri().path().ends_with("/graphql") {
            let body: Value = serde_json::from_slice(message.body()).unwrap_or_default();
            return reply(200, truth.graphql(&account, &body["variables"]).to_string().into());
        }
        let accept = message.headers().get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (path, query) = (message.uri().path(), message.uri().query().unwrap_or(""));
        let rendered = truth.get(&account, accept.contains("full"), path, query);
        let base = format!("https://{}", message.uri().authority().map_or("", |host| host.as_str()));
        conditional(rendered, message.headers(), &base)
    }
}

fn limits(reply: &mut Reply, remaining: i64, reset: i64) {
    for (name, value) in [("limit", 100_000), ("remaining", remaining), ("used", 10_000), ("reset", reset)] {
        reply.headers.insert(http::HeaderName::try_from(format!("x-ratelimit-{name}")).unwrap(), value.into());
    }
}

/// Leaves the last item out, and says so.
fn part(reply: &mut Reply) {
    match serde_json::from_slice(&reply.body) {
        Ok(Value::Array(mut items)) => {
            items.pop();
            reply.body = Value::Array(items).to_string().into();
            let sso = HeaderValue::from_static("partial-results; organizations=1");
            reply.headers.insert("x-github-sso", sso);
        }
        Ok(Value::Object(mut whole)) if whole.contains_key("incomplete_results") => {
            whole["incomplete_results"] = true.into();
            whole["items"].as_array_mut().unwrap().pop();
            reply.body = Value::Object(whole).to_string().into();
        }
        _ => return,
    }
    // GitHub's tag is of the bytes that it sends.
    reply.headers.insert("etag", format!("W/\"part-{}\"", reply.body.len()).parse().unwrap());
}

/// Who asks: tokens are `ghx_ACCOUNT_N`.
pub fn account(headers: &HeaderMap) -> String {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    token.split('_').nth(1).unwrap_or("anonymous").to_owned()
}

fn reply(status: u16, body: Bytes) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
    Reply { status: StatusCode::from_u16(status).unwrap(), headers, body, attempts: 1, refused: 0, rule_held: None }
}

/// With GitHub's entity tags: SHA-256 of `Accept` and `Authorization`, each followed by a colon, and the body.
fn conditional(rendered: Rendered, asked: &HeaderMap, base: &str) -> Reply {
    let mut answer = reply(rendered.status, rendered.body.clone());
    let mut hash = Sha256::new();
    for name in ["accept", "authorization"] {
        for value in asked.get_all(name) {
            hash.update(value.as_bytes());
            hash.update(b":");
        }
    }
    hash.update(&rendered.body);
    let hex = data_encoding::HEXLOWER.encode(&hash.finalize());
    let vary = if asked.contains_key("authorization") { "Accept, Authorization, Cookie" } else { "Accept" };
    answer.headers.insert("vary", HeaderValue::from_static(vary));
    answer.headers.insert("cache-control", HeaderValue::from_static("private, max-age=60, s-maxage=60"));
    if rendered.status == 200 {
        answer.headers.insert("etag", format!("W/\"{hex}\"").parse().unwrap());
        let sent = asked.get("if-none-match").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if sent.contains(&hex) {
            answer.status = StatusCode::NOT_MODIFIED;
            answer.body = Bytes::new();
            answer.headers.remove("content-type");
            return answer;
        }
    }
    for (name, value) in [("link", rendered.link), ("location", rendered.location)] {
        if let Some(value) = value {
            answer.headers.insert(name, value.replace("{base}", base).parse().unwrap());
        }
    }
    answer
}

/// The model as a way to GitHub.
#[derive(Debug, Clone)]
pub struct ModelWire(pub Arc<Mutex<Model>>);

impl ModelWire {
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap()
    }
}

impl Wire for ModelWire {
    fn exchange(&self, message: Request<Bytes>) -> BoxFuture<'_, Result<Reply>> {
        let handled = self.model().handle(&message);
        Box::pin(async move {
            tokio::task::yield_now().await;
            handled
        })
    }
}
