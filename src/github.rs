//! GitHub as an upstream: signing, budget, sending, retries, and knowing a limit when it bites.
//!
//! Knows: the order sign ▸ admit ▸ send ▸ observe ▸ wait and ask again; nobody else retries. Does
//! not know: caches, entries.

mod admission;
mod app;
mod backoff;
mod budget;
mod limit;
mod options;
mod outage;
mod pass;
mod rebase;
mod shared;
mod sweep;
mod tally;
mod transport;
mod wire;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::graphql::operation::{self, Operation};
use crate::mask::Masker;
use crate::policy::{Signer, Validators, content, validator};
use crate::reply::Reply;
use crate::request::{Method, Request};
use crate::token::Token;
use crate::upstream::{BoxFuture, Conditions, RateLimit, Upstream};
pub use app::App;
pub use backoff::Backoff;
pub use budget::Reserve;
pub use options::{Identity, Options};
pub use pass::Passing;
pub use sweep::sweep;
pub use tally::{ANSWERS, Tallied, Tally};
pub use transport::Proxy;
pub use wire::{Stream, Wire};

use app::Minted;
use backoff::Spent;
use budget::{Budget, bucket_of};
use outage::Outage;
use shared::Shared;

/// `User-Agent` of every request. GitHub refuses requests without one, and pretty-prints bodies
/// for some tools' names, so it is never the caller's.
pub const AGENT: &str = concat!("octocache/", env!("CARGO_PKG_VERSION"));

/// Requests under way at once, unless told otherwise; GitHub asks for few.
pub const CONCURRENCY: usize = 8;

/// GitHub's bound for one identity, everything counted.
pub const MAX_CONCURRENCY: usize = 100;

/// How long a response may take while a stale one is at hand.
const STALE_AT_HAND: Duration = Duration::from_secs(8);

/// For how long a failed request is tried again while a stale answer is at hand.
const RETRIES_AT_HAND: Duration = Duration::from_secs(3);

/// Predictions in a row that failed although nothing had changed, after which none is sent.
const MAX_BROKEN_PREDICTIONS: u32 = 3;

const API_VERSION: HeaderName = HeaderName::from_static("x-github-api-version");

/// The way to GitHub over HTTP, for several identities to share; that of `options` is not looked at.
pub fn over_http(options: &Options) -> Arc<dyn Wire> {
    Arc::new(transport::Http::new(options))
}

/// GitHub. The connection pool, TLS and certificates are set up by the first request, so a run
/// that is answered from the cache opens nothing.
pub struct GitHub {
    options: Options,
    wire: Arc<dyn Wire>,
    /// The installation's token.
    minted: Mutex<Option<Minted>>,
    /// Held while a token is minted, so that requests which need one wait for it instead of each
    /// minting their own.
    minting: tokio::sync::Mutex<()>,
    clock: Clock,
    /// Of a token that stays.
    token_digest: Option<String>,
    sent: AtomicU32,
    budget: Mutex<Budget>,
    /// Told whenever a request has ended.
    ended: Notify,
    outage: Mutex<Outage>,
    shared: Option<Shared>,
    synced: Mutex<Option<Instant>>,
    /// Predictions in a row that failed on equal bytes.
    broken_predictions: AtomicU32,
}

impl GitHub {
    /// GitHub over HTTP, as `options` say.
    pub fn new(options: Options, clock: Clock) -> Self {
        Self::over(over_http(&options), options, clock)
    }

    /// GitHub over another wire.
    pub fn over(wire: Arc<dyn Wire>, options: Options, clock: Clock) -> Self {
        let shared = options.limits_dir.as_ref().map(|dir| {
            let entity = format!("{}\0{}", options.api.host(), options.entity());
            let name = HEXLOWER.encode(&Sha256::digest(entity)[..8]);
            Shared::new(dir.join(name), format!("{}-{:04x}", std::process::id(), (luck() * 65_536.0) as u32))
        });
        Self {
            minted: Mutex::default(),
            minting: tokio::sync::Mutex::default(),
            budget: Mutex::new(Budget::new(options.concurrency)),
            token_digest: match &options.identity {
                Identity::Token(token) => Some(token.digest()),
                Identity::Public | Identity::Installation(_) => None,
            },
            options,
            wire,
            clock,
            sent: AtomicU32::new(0),
            ended: Notify::new(),
            outage: Mutex::default(),
            shared,
            synced: Mutex::default(),
            broken_predictions: AtomicU32::new(0),
        }
    }

    /// The token to sign with; an installation's is minted when there is none or it ends soon.
    async fn token(&self) -> Result<Option<Token>> {
        let app = match &self.options.identity {
            Identity::Public => return Ok(None),
            Identity::Token(token) => return Ok(Some(token.clone())),
            Identity::Installation(app) => app,
        };
        if let Some(minted) = self.usable_minted() {
            return Ok(Some(minted.token));
        }
        let _minting = self.minting.lock().await;
        // Who waited finds what the one before has minted.
        if let Some(minted) = self.usable_minted() {
            return Ok(Some(minted.token));
        }
        let request = Request::get(&self.options.api, &app.path())?;
        let headers = headers(&request, &Conditions::default(), Some(&app.claim(self.clock.now())?))?;
        let reply = self.exchange("POST", &request, headers, Duration::MAX).await?;
        if !reply.status.is_success() {
            let status = reply.status.as_u16();
            return Err(Error::new(
                Kind::Refused(status),
                format!("GitHub answered {status} to installation {}", app.installation),
            )
            .hint("check the App's ID, its key and the installation"));
        }
        let new = Minted::read(&reply.body)?;
        new.token.register_passing(&self.options.masker);
        *lock(&self.minted) = Some(new.clone());
        Ok(Some(new.token))
    }

    fn usable_minted(&self) -> Option<Minted> {
        lock(&self.minted).as_ref().filter(|minted| minted.is_usable(self.clock.now())).cloned()
    }

    /// One request on the wire, one answer. A limit, 5xx and everything that is no answer is an error.
    async fn attempt(&self, request: &Request, headers: HeaderMap, may_wait: bool) -> Result<Reply> {
        let bucket = bucket_of(request);
        let _under_way = self.admitted(bucket, 1).await?;
        let longest = if may_wait { Duration::MAX } else { STALE_AT_HAND };
        let reply = self.exchange(request.method.as_str(), request, headers, longest).await?;
        let now = self.clock.now();
        lock(&self.budget).observe(&reply, now);
        let graphql = matches!(request.method, Method::Graphql(_));
        if let Some(limit) = limit::of(&reply, graphql, now) {
            let bucket = reply.header("x-ratelimit-resource").unwrap_or(bucket);
            let until = lock(&self.budget).limited(limit, bucket, now);
            self.options.tally.limited(limit);
            self.sync(true);
            let secondary = matches!(limit, limit::Limit::Secondary { .. });
            let error = limit_error(until, secondary, self.is_anonymous()).with_response(reply.into());
            return Err(error.with_requests(1, 0));
        }
        if reply.status.is_server_error() {
            let status = reply.status.as_u16();
            let text = format!("GitHub answered {status} to {}", request.target());
            return Err(Error::new(Kind::Server(status), text).with_response(reply.into()).with_requests(1, 0));
        }
        if let Some(fault) = content::json_fault(request, &reply) {
            let text = format!("GitHub's response to {} should be JSON: {fault}", request.target());
            return Err(Error::new(Kind::Malformed, text).within(&request.host).with_requests(1, 0));
        }
        Ok(reply)
    }

    /// Sends a request; the response arrives within `longest` at most.
    async fn exchange(&self, method: &str, request: &Request, headers: HeaderMap, longest: Duration) -> Result<Reply> {
        let body = match &request.method {
            Method::Graphql(json) => json.clone(),
            Method::Get | Method::Head => Bytes::new(),
            Method::Projected => return Err(Error::new(Kind::Internal, "what a batch gives is not asked for singly")),
        };
        let mut message = http::Request::builder()
            .method(method)
            .uri(self.options.api.uri(request)?)
            .body(body)
            .map_err(|cause| Error::usage(format!("`{}` makes no request", request.target())).because(cause))?;
        *message.headers_mut() = headers;
        let max = self.options.max_requests.unwrap_or(u32::MAX);
        let room = |sent: u32| (sent < max).then_some(sent + 1);
        if self.sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            let text = format!("the run's own limit of {max} requests is used up");
            return Err(Error::new(Kind::Limited { until: None, secondary: false }, text));
        }
        tracing::debug!(target = %request.target(), "asking GitHub");
        let total = self.options.total_timeout.min(longest);
        self.options.tally.sent();
        let reply = tokio::time::timeout(total, self.wire.exchange(message))
            .await
            .map_err(|_| Error::new(Kind::TimedOut, format!("no complete answer within {total:?}")))
            .and_then(|reply| reply);
        self.options.tally.answered(reply.as_ref().ok().map(|reply| reply.status), !self.is_anonymous());
        let mut reply = reply
            .map_err(|error| error.within(format_args!("{}{}", request.host, request.path)).with_requests(1, 0))?;
        rebase::link(&self.options.api, &request.path, &mut reply.headers);
        Ok(reply)
    }

    fn is_anonymous(&self) -> bool {
        matches!(self.options.identity, Identity::Public)
    }

    async fn fetch_with_retries(&self, request: &Request, conditions: &Conditions) -> Result<Reply> {
        let token = self.token().await?;
        let headers = headers(request, conditions, token.as_ref())?;
        let mut not_ready = self.options.not_ready_pauses.iter();
        let (mut sent, mut refused, mut spent, started) = (0, 0, Spent::default(), Instant::now());
        loop {
            let error = match self.attempt(request, headers.clone(), conditions.may_wait).await {
                Ok(mut reply) => {
                    sent += 1;
                    lock(&self.outage).answered();
                    // Only who has nothing to show waits until it is computed.
                    if reply.status == http::StatusCode::ACCEPTED
                        && conditions.may_wait
                        && let Some(pause) = not_ready.next().copied()
                        && self.options.backoff.allows(pause, spent)
                    {
                        spent = Spent { retries: spent.retries + 1, waited: spent.waited + pause };
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                    self.check_rule(request, &conditions.validators, token.as_ref(), &mut reply);
                    return Ok(Reply { attempts: sent, refused, ..reply });
                }
                Err(error) => error,
            };
            sent += error.requests();
            // A GraphQL query that took too long is charged for it, and would take as long again.
            let in_vain = matches!(request.method, Method::Graphql(_))
                && matches!(error.kind(), Kind::TimedOut | Kind::Server(502 | 504));
            let pause = self.pause(&error, spent);
            let limited = matches!(error.kind(), Kind::Limited { .. });
            refused += u32::from(limited && error.response().is_some());
            // Attempts and pauses have a bound together; with a stale answer at hand (RFC 5861 section 4) a short one.
            let bound = if conditions.may_wait { self.options.backoff.max_wait } else { RETRIES_AT_HAND };
            let is_in_time = |pause: &Duration| started.elapsed() + *pause <= bound;
            let may_wait = conditions.may_wait || !limited;
            match pause.filter(|pause| !in_vain && may_wait && is_in_time(pause) && is_read(request)) {
                Some(pause) if !lock(&self.outage).is_likely() => {
                    tracing::debug!(%error, ?pause, "asking again");
                    self.options.tally.retried(pause);
                    spent = Spent { retries: spent.retries + 1, waited: spent.waited + pause };
                    tokio::time::sleep(pause).await;
                }
                _ => {
                    match error.kind() {
                        Kind::Server(_) | Kind::Malformed if !in_vain => {
                            lock(&self.outage).failed(&request.path, Instant::now());
                        }
                        _ if error.is_transient() && !in_vain => lock(&self.outage).gave_up(Instant::now()),
                        _ => {}
                    }
                    // At the end of the limit nothing is left that a refusal would not count against.
                    let spared = refused
                        - u32::from(matches!(error.kind(), Kind::Limited { secondary: false, .. })).min(refused);
                    return Err(error.with_requests(sent, spared));
                }
            }
        }
    }

    /// How long to wait before asking again: no shorter than a 503 says (RFC 9110 section 10.2.3).
    fn pause(&self, error: &Error, spent: Spent) -> Option<Duration> {
        let now = self.clock.now();
        let pause = self.options.backoff.pause(error, spent, luck(), now)?;
        let after = match error.kind() {
            Kind::Server(_) => error.response().and_then(|response| limit::retry_after(response.headers(), now)),
            _ => None,
        };
        let pause = pause.max(Duration::from_secs(after.unwrap_or_default()));
        self.options.backoff.allows(pause, spent).then_some(pause)
    }

    /// Compares the answer's entity tag with the rule, and notices when predictions stop to hold.
    fn check_rule(&self, request: &Request, validators: &Validators, token: Option<&Token>, reply: &mut Reply) {
        if request.method != Method::Get {
            return;
        }
        let Some((vary, predicted)) = validators.prediction() else {
            if reply.status == http::StatusCode::OK {
                reply.rule_held = validator::rule_holds(&reply.headers, &request.accept, token, &reply.body);
            }
            return;
        };
        if reply.is_not_modified() {
            let confirmed = validator::confirms(&reply.headers, &request.accept, token, vary, predicted);
            if confirmed {
                self.broken_predictions.store(0, Ordering::Relaxed);
            } else {
                tracing::warn!(host = %request.host, target = %request.target(), "304 without the predicted tag ignored");
            }
            reply.rule_held = Some(confirmed);
        } else if reply.status == http::StatusCode::OK {
            reply.rule_held = validator::rule_holds(&reply.headers, &request.accept, token, &reply.body);
            let broken = reply.body == *predicted;
            if broken && self.broken_predictions.fetch_add(1, Ordering::Relaxed) + 1 == MAX_BROKEN_PREDICTIONS {
                tracing::warn!(
                    host = %request.host,
                    "GitHub's entity tags no longer follow the rule by which they are predicted; \
                     revalidation under another token is a full request"
                );
            }
        }
    }
}

impl GitHub {
    /// What live answers said of the bucket that `request` is counted in, while its window lasts.
    pub fn limit(&self, request: &Request) -> Option<RateLimit> {
        lock(&self.budget).limit(bucket_of(request), self.clock.now())
    }

    /// What live answers said of all buckets whose window lasts, and until when nothing is sent to
    /// those that GitHub said are empty.
    pub fn limits(&self) -> Vec<(RateLimit, Option<Timestamp>)> {
        let (budget, now) = (lock(&self.budget), self.clock.now());
        let (limits, ..) = budget.limits(now);
        limits
            .into_iter()
            .map(|limit| {
                let until = budget.blocked_until(&limit.resource, now);
                (limit, until)
            })
            .collect()
    }
}

/// Uniform in 0 to 1, for jitter and for spreading; nothing secret depends on it.
fn luck() -> f64 {
    (random() >> 11) as f64 / (1_u64 << 53) as f64
}

/// 64 random bits; always the same where the system has none.
pub fn random() -> u64 {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 8];
    let drawn = ring::rand::SystemRandom::new().fill(&mut bytes);
    drawn.map_or(1 << 63, |()| u64::from_le_bytes(bytes))
}

/// Whether a request changes nothing for sure, so that it may be sent twice.
fn is_read(request: &Request) -> bool {
    match &request.method {
        Method::Graphql(body) => matches!(operation::read(body), Some(Operation::Query(_))),
        Method::Get | Method::Head | Method::Projected => true,
    }
}

/// A panic elsewhere cannot leave these small states half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exactly the headers that go out.
fn headers(request: &Request, conditions: &Conditions, token: Option<&Token>) -> Result<HeaderMap> {
    let text = |value: &str| {
        HeaderValue::from_str(value)
            .map_err(|_| Error::usage(format!("`{}` cannot stand in a header", value.escape_debug())))
    };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, text(&request.accept)?);
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(API_VERSION, text(&request.api_version)?);
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&token.authorization())
            .map_err(|_| Error::usage("the token cannot stand in a header"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if !request.features.is_empty() {
        headers.insert(HeaderName::from_static("graphql-features"), text(&request.features)?);
    }
    if let Method::Graphql(_) = request.method {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if conditions.end_to_end {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    conditions.validators.apply(&mut headers, &request.accept, token);
    Ok(headers)
}

fn limit_error(until: Timestamp, secondary: bool, anonymous: bool) -> Error {
    let which = if secondary { "secondary rate limit holds" } else { "primary rate limit is used up" };
    let text = format!("GitHub's {which} until {until}; nothing is sent before");
    let error = Error::new(Kind::Limited { until: Some(until), secondary }, text);
    if anonymous {
        error.hint("without a token there are 60 requests an hour: set GH_TOKEN or GITHUB_TOKEN")
    } else {
        error
    }
}

impl fmt::Debug for GitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHub").field("api", &self.options.api.host()).finish_non_exhaustive()
    }
}

impl Upstream for GitHub {
    fn fetch<'a>(&'a self, request: &'a Request, conditions: &'a Conditions) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(self.fetch_with_retries(request, conditions))
    }

    fn signer(&self) -> Signer {
        let token_digest = match &self.options.identity {
            Identity::Public | Identity::Token(_) => self.token_digest.clone(),
            // Between tokens nobody knows the next one's: no stored validator came to it.
            Identity::Installation(_) => {
                Some(self.usable_minted().map_or_else(String::new, |minted| minted.token.digest()))
            }
        };
        let predicts = self.broken_predictions.load(Ordering::Relaxed) < MAX_BROKEN_PREDICTIONS;
        Signer { token_digest, predicts }
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        // What others told is no news of this run's.
        if self.sent() == 0 { None } else { lock(&self.budget).scarcest() }
    }

    fn allowance(&self, request: &Request) -> Option<u64> {
        self.peek();
        let own = self.options.max_requests.map(|max| u64::from(max.saturating_sub(self.sent())));
        let left = lock(&self.budget).remaining(bucket_of(request), self.clock.now());
        match (own, left) {
            (Some(own), Some(left)) => Some(own.min(left)),
            (own, left) => own.or(left),
        }
    }

    fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    fn masker(&self) -> Masker {
        self.options.masker.clone()
    }
}

impl Drop for GitHub {
    /// What is left is news for the next process.
    fn drop(&mut self) {
        if self.sent() > 0 {
            self.sync(true);
        }
    }
}
