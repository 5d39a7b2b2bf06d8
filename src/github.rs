//! GitHub as an upstream: signing, sending, bounded retries, and knowing a limit when it bites.
//!
//! Knows: the order budget ▸ limit ▸ attempt ▸ retry. Does not know: caches, entries.

mod app;
mod ledger;
mod limit;
mod transport;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use octocrab::{OctoBody, Octocrab};

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::policy::Validators;
use crate::reply::Reply;
use crate::request::{Api, Method, Request};
use crate::token::Token;
use crate::upstream::{BoxFuture, RateLimit, Upstream};
pub use app::App;
pub use transport::Proxy;

use app::Minted;
use ledger::Ledger;
use limit::Limit;

/// `User-Agent` of every request. GitHub refuses requests without one, and pretty-prints bodies
/// for some tools' names, so it is never the caller's.
pub const AGENT: &str = concat!("octocache/", env!("CARGO_PKG_VERSION"));

const API_VERSION: HeaderName = HeaderName::from_static("x-github-api-version");

/// As whom GitHub is asked.
#[derive(Debug, Clone)]
pub enum Identity {
    /// As nobody: 60 requests an hour for this address.
    Public,
    /// With a token.
    Token(Token),
    /// As an App's installation, with tokens that are minted and renewed on the way.
    Installation(App),
}

/// How GitHub is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where.
    pub api: Api,
    /// As whom.
    pub identity: Identity,
    /// Through what.
    pub proxy: Proxy,
    /// Until a connection stands, TLS included.
    pub connect_timeout: Duration,
    /// Until the first or next bytes of an answer.
    pub read_timeout: Duration,
    /// Until an answer is complete.
    pub total_timeout: Duration,
    /// Requests that may go out in the life of this value.
    pub max_requests: Option<u32>,
    /// Pauses before each further attempt after a transport failure or 5xx.
    pub retry_pauses: Vec<Duration>,
    /// Pauses before each further attempt while GitHub is still computing (202).
    pub not_ready_pauses: Vec<Duration>,
}

impl Options {
    /// Usual time-outs and pauses, no proxy, no bound.
    pub fn new(api: Api, token: Option<Token>) -> Self {
        Self {
            api,
            identity: token.map_or(Identity::Public, Identity::Token),
            proxy: Proxy::default(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_mins(2),
            max_requests: None,
            retry_pauses: [500, 1_000].map(Duration::from_millis).to_vec(),
            not_ready_pauses: [1, 2, 4].map(Duration::from_secs).to_vec(),
        }
    }
}

/// GitHub. The connection pool, TLS and certificates are set up by the first request, so a run
/// that is answered from the cache opens nothing.
pub struct GitHub {
    options: Options,
    /// The installation's token.
    minted: Mutex<Option<Minted>>,
    /// Held while a token is minted, so that requests which need one wait for it instead of each
    /// minting their own.
    minting: tokio::sync::Mutex<()>,
    clock: Clock,
    client: OnceLock<Octocrab>,
    sent: AtomicU32,
    ledger: Ledger,
    /// A limit that bit: nothing is sent before this time.
    limited_until: Mutex<Option<Timestamp>>,
}

impl GitHub {
    /// GitHub as `options` say.
    pub fn new(options: Options, clock: Clock) -> Self {
        Self {
            minted: Mutex::default(),
            minting: tokio::sync::Mutex::default(),
            options,
            clock,
            client: OnceLock::new(),
            sent: AtomicU32::new(0),
            ledger: Ledger::default(),
            limited_until: Mutex::default(),
        }
    }

    fn client(&self) -> Result<&Octocrab> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let built = transport::connect(&self.options)?;
        Ok(self.client.get_or_init(|| built))
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
        let headers = headers(&request, &Validators::default(), Some(&app.claim(self.clock.now())?))?;
        let reply = self.exchange("POST", &request, &headers).await?;
        if !reply.status.is_success() {
            let status = reply.status.as_u16();
            return Err(Error::new(
                Kind::Refused(status),
                format!("GitHub answered {status} to installation {}", app.installation),
            )
            .hint("check the App's ID, its key and the installation"));
        }
        let new = Minted::read(&reply.body)?;
        *self.minted.lock().unwrap_or_else(PoisonError::into_inner) = Some(new.clone());
        Ok(Some(new.token))
    }

    fn usable_minted(&self) -> Option<Minted> {
        let minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        minted.as_ref().filter(|minted| minted.is_usable(self.clock.now())).cloned()
    }

    /// One request on the wire, one answer.
    async fn attempt(&self, request: &Request, headers: &HeaderMap) -> Result<Reply> {
        let reply = self.exchange(request.method.as_str(), request, headers).await?;
        self.ledger.observe(&reply);
        if let Some(limit) = limit::of(&reply, self.clock.now()) {
            return Err(self.limited(&limit));
        }
        if reply.status.is_server_error() {
            let status = reply.status.as_u16();
            return Err(Error::new(Kind::Server(status), format!("GitHub answered {status} to {}", request.target())));
        }
        Ok(reply)
    }

    async fn exchange(&self, method: &str, request: &Request, headers: &HeaderMap) -> Result<Reply> {
        self.check_limits()?;
        let client = self.client()?;
        let body = match &request.method {
            Method::Graphql(json) => OctoBody::from(json.to_vec()),
            Method::Get | Method::Head => OctoBody::empty(),
        };
        let mut message = http::Request::builder()
            .method(method)
            .uri(self.options.api.url(request))
            .body(body)
            .map_err(|cause| Error::usage(format!("`{}` makes no request", request.target())).because(cause))?;
        *message.headers_mut() = headers.clone();
        self.sent.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target = %request.target(), "asking GitHub");
        let total = self.options.total_timeout;
        tokio::time::timeout(total, transport::exchange(client, message, self.options.read_timeout))
            .await
            .map_err(|_| Error::new(Kind::Transport, format!("no complete answer within {total:?}")))
            .and_then(|reply| reply)
            .map_err(|error| error.within(format_args!("{}{}", request.host, request.path)))
    }

    fn check_limits(&self) -> Result<()> {
        if let Some(max) = self.options.max_requests
            && self.sent.load(Ordering::Relaxed) >= max
        {
            return Err(Error::new(
                Kind::Limited { until: None },
                format!("the run's own limit of {max} requests is used up"),
            ));
        }
        match *self.lock_limited() {
            Some(until) if until > self.clock.now() => Err(limit_error(Some(until), self.is_anonymous())),
            _ => Ok(()),
        }
    }

    fn limited(&self, limit: &Limit) -> Error {
        *self.lock_limited() = Some(limit.until);
        limit_error(Some(limit.until), self.is_anonymous()).because(limit.name())
    }

    fn is_anonymous(&self) -> bool {
        matches!(self.options.identity, Identity::Public)
    }

    fn lock_limited(&self) -> std::sync::MutexGuard<'_, Option<Timestamp>> {
        self.limited_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch_with_retries(&self, request: &Request, validators: &Validators) -> Result<Reply> {
        let headers = headers(request, validators, self.token().await?.as_ref())?;
        let (mut failures, mut not_ready) = (self.options.retry_pauses.iter(), self.options.not_ready_pauses.iter());
        let mut attempts = 0;
        loop {
            attempts += 1;
            let pause = match self.attempt(request, &headers).await {
                Ok(reply) if reply.status.as_u16() == 202 => match not_ready.next() {
                    Some(pause) => pause,
                    None => return Ok(Reply { attempts, ..reply }),
                },
                Ok(reply) => return Ok(Reply { attempts, ..reply }),
                Err(error) if error.is_transient() => match failures.next() {
                    Some(pause) => {
                        tracing::debug!(%error, ?pause, "asking again");
                        pause
                    }
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            };
            tokio::time::sleep(*pause).await;
        }
    }
}

/// Exactly the headers that go out.
fn headers(request: &Request, validators: &Validators, token: Option<&Token>) -> Result<HeaderMap> {
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
    if let Method::Graphql(_) = request.method {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    validators.apply(&mut headers);
    Ok(headers)
}

fn limit_error(until: Option<Timestamp>, anonymous: bool) -> Error {
    let when = until.map_or_else(String::new, |at| format!(" until {at}"));
    let error =
        Error::new(Kind::Limited { until }, format!("GitHub's rate limit is used up{when}; nothing is sent before"));
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
    fn fetch<'a>(&'a self, request: &'a Request, validators: &'a Validators) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(self.fetch_with_retries(request, validators))
    }

    fn token_digest(&self) -> Option<String> {
        match &self.options.identity {
            Identity::Public => None,
            Identity::Token(token) => Some(token.digest()),
            // Between tokens nobody knows the next one's: no stored validator came to it.
            Identity::Installation(_) => {
                Some(self.usable_minted().map_or_else(String::new, |minted| minted.token.digest()))
            }
        }
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.ledger.scarcest()
    }

    fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }
}
