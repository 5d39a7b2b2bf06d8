//! Sending one request as `gh api` would: through the cache where it is a question, past it where it
//! changes something.
//!
//! Knows: which is which, and that a change outdates what it touches. Does not know: flags, output.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use http_body_util::BodyExt;

use crate::address::{self, HostPort};
use crate::cache::{Answer, Ask, Cache, Change, Ended};
use crate::error::{Error, Kind, Result};
use crate::event;
use crate::github::{AGENT, GitHub, Passing, Stream};
use crate::graphql::operation::{self, Operation};
use crate::request::{self, Request};

/// Answers larger than this are not taken.
const MAX_BODY_BYTES: usize = 1 << 30;

/// Who asks, and how.
#[derive(Debug)]
pub struct Caller {
    /// The cache.
    pub cache: Arc<Cache>,
    /// GitHub, for what is handed through.
    pub github: Arc<GitHub>,
    /// How questions are to be answered.
    pub ask: Ask,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    /// The HTTP method.
    pub method: Method,
    /// A path with or without its query, `graphql`, or a whole address.
    pub target: String,
    /// Headers that the user gave.
    pub headers: HeaderMap,
    /// The body, if there is one.
    pub body: Option<Bytes>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The status code.
    pub status: u16,
    /// Headers, as far as they are known: of a stored answer, those that are stored.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How the cache answered; nothing for what was handed through.
    pub answer: Option<Answer>,
}

impl Answered {
    /// A header's text; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// GitHub's own response to what failed is as good an answer as gh has: a limit, a 5xx.
    fn of_either(answer: Result<Answer>) -> Result<Self> {
        match answer {
            Ok(answer) => Ok(Self::of(answer)),
            Err(error) => match error.response() {
                Some(response) => Ok(Self {
                    status: response.status().as_u16(),
                    headers: response.headers().clone(),
                    body: response.body().clone(),
                    answer: None,
                }),
                None => Err(error),
            },
        }
    }

    fn of(answer: Answer) -> Self {
        let mut headers = answer.live.as_deref().cloned().unwrap_or_default();
        for (name, value) in &answer.entry.headers.to_http() {
            headers.insert(name, value.clone());
        }
        Self { status: answer.entry.status, headers, body: answer.entry.body.clone(), answer: Some(answer) }
    }
}

impl Call {
    /// Whether this is GraphQL: only under that very name, as with gh.
    pub fn is_graphql(&self) -> bool {
        self.target == "graphql"
    }

    /// The question that this is, if the cache knows everything that selects its answer.
    fn question(&self, cache: &Cache) -> Result<Option<Request>> {
        if self.method != Method::GET || self.body.is_some() || self.is_graphql() {
            return Ok(None);
        }
        let request = match Request::get(cache.api(), &self.target) {
            Ok(request) => request,
            Err(_) if self.target.contains("://") => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut request = request.accepting("*/*");
        for (name, value) in &self.headers {
            let value = value.to_str().unwrap_or_default();
            match name.as_str() {
                "accept" => request = request.accepting(value),
                "x-github-api-version" => request = request.version(value),
                "content-type" | "user-agent" | "time-zone" => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(request))
    }
}

impl Caller {
    /// Whether the pages of `call` are a listing that the cache can answer.
    pub fn listing(&self, call: &Call) -> Result<Option<Request>> {
        call.question(&self.cache)
    }

    /// All pages of a listing.
    pub async fn pages(&self, first: &Request) -> Result<Vec<Answered>> {
        let first = first.clone().with_default_param("per_page", "100");
        let pages = self.cache.get_pages(&first, &self.ask).await?;
        Ok(pages.into_iter().map(Answered::of).collect())
    }

    /// Sends a call.
    pub async fn send(&self, call: &Call) -> Result<Answered> {
        if let Some(request) = call.question(&self.cache)? {
            return match self.cache.get(&request, &self.ask).await {
                // Too large to be kept, and not too large to be given.
                Err(error) if error.kind() == Kind::TooLarge => self.pass(call, Some(request)).await,
                answer => Answered::of_either(answer),
            };
        }
        if call.is_graphql() && call.method == Method::POST {
            return self.graphql(call).await;
        }
        let counted = Request::get(self.cache.api(), &call.target).ok();
        if call.method.is_safe() {
            return self.pass(call, counted).await;
        }
        let (method, now) = (call.method.as_str(), self.cache.now());
        let outdates = match (&counted, self.elsewhere(call)) {
            (_, Some(url)) => event::outdated_by_upload(method, absolute(url)?.path(), now),
            // Tags and prefixes know the normal form alone.
            (Some(request), None) => event::outdated_by_write(method, &request.path, now),
            (None, None) => {
                let path = call.target.split('?').next().unwrap_or_default().trim_start_matches('/');
                event::outdated_by_write(method, &format!("/{path}"), now)
            }
        };
        let change = Change::begin(&self.cache, outdates).await;
        let answered = self.pass(call, counted).await;
        change.end(ended(answered.as_ref())).await;
        answered
    }

    async fn graphql(&self, call: &Call) -> Result<Answered> {
        let body = call.body.clone().unwrap_or_default();
        let counted = Request::graphql(self.cache.api(), body.clone());
        let plain =
            call.headers.keys().all(|name| matches!(name.as_str(), "accept" | "content-type" | "graphql-features"));
        match operation::read(&body) {
            Some(Operation::Query(query)) if plain && !query.live => {
                let text =
                    |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
                let request = Request::graphql(self.cache.api(), query.body)
                    .accepting(text("accept"))
                    .with_features(text("graphql-features"));
                let ask = self.cache.ask_by_class(&self.ask, query.class);
                Answered::of_either(
                    self.cache.get(&request, &ask).await.map(|answer| answer.with_client_locations(&body)),
                )
            }
            Some(Operation::Query(_)) => self.pass(call, Some(counted)).await,
            Some(Operation::Mutation(fields)) => self.mutate(call, counted, &fields).await,
            // What is not understood may be a change of anything, unless GitHub says that it executed nothing.
            Some(Operation::Subscription) | None => self.mutate(call, counted, &[]).await,
        }
    }

    async fn mutate(&self, call: &Call, counted: Request, fields: &[String]) -> Result<Answered> {
        let outdates = event::outdated_by_mutation(fields, self.cache.now());
        let change = Change::begin(&self.cache, outdates).await;
        let answered = self.pass(call, Some(counted)).await;
        let is_one = operation::is_one_request(call.body.as_deref().unwrap_or_default());
        let is_refused = answered.as_ref().is_ok_and(|answered| is_one && operation::was_not_executed(&answered.body));
        change.end(if is_refused { Ended::Refused } else { ended(answered.as_ref()) }).await;
        answered
    }

    /// The call for the page that `link` leads to from `call`.
    ///
    /// Errors when it leads to another origin: what the user's headers open is not meant for that one.
    pub fn next_page(&self, call: &Call, link: &str) -> Result<Call> {
        let api = self.cache.api();
        let elsewhere = self.elsewhere(call).map(|url| {
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            format!("{scheme}://{authority}")
        });
        let origin = elsewhere.as_deref().unwrap_or(api.origin());
        let target = address::on_origin(origin, link).map(|path| format!("{origin}{path}"));
        let target = target.ok_or_else(|| {
            let from = address::masked(&call.target).into_owned();
            Error::new(
                Kind::Transport,
                format!("the next page of {from} is said to be at {}; it is not followed", address::shown(link)),
            )
        })?;
        Ok(Call { target, ..call.clone() })
    }

    /// The address of a call that is not for the API.
    fn elsewhere<'a>(&self, call: &'a Call) -> Option<&'a str> {
        let is_absolute = call.target.contains("://") && !call.target.starts_with('/');
        (is_absolute && self.cache.api().own(&call.target).is_none()).then_some(&call.target)
    }

    async fn pass(&self, call: &Call, counted: Option<Request>) -> Result<Answered> {
        let api = self.cache.api();
        let elsewhere = self.elsewhere(call);
        let uri = match (&counted, elsewhere) {
            (Some(request), _) if call.is_graphql() => api.uri(request)?,
            (_, Some(url)) => absolute(url)?,
            (_, None) => match address::on_origin(api.origin(), &call.target).filter(|_| call.target.contains("://")) {
                Some(path) => api.beside(path)?,
                None => api.at(&format!("/{}", call.target.trim_start_matches('/')))?,
            },
        };
        let mut headers = call.headers.clone();
        let mut default = |name: HeaderName, value: &'static str| {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        };
        default(ACCEPT, "*/*");
        default(USER_AGENT, AGENT);
        default(CONTENT_TYPE, "application/json; charset=utf-8");
        if let Some(body) = &call.body {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        let body = http_body_util::Full::new(call.body.clone().unwrap_or_default());
        let passing = Passing {
            method: call.method.clone(),
            uri,
            signed: elsewhere.is_none() && !headers.contains_key("authorization"),
            headers,
            body: Stream::new(body.map_err(|never| match never {})),
            counted: counted.filter(|_| elsewhere.is_none()),
        };
        let (parts, mut stream) = self.github.pass(passing).await?.into_parts();
        let mut body = BytesMut::new();
        while let Some(frame) = stream.frame().await {
            let frame = frame.map_err(|cause| Error::new(Kind::Transport, "the answer breaks off").because(cause))?;
            body.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if body.len() > MAX_BODY_BYTES {
                return Err(Error::new(Kind::TooLarge, "the answer is larger than 1 GiB"));
            }
        }
        Ok(Answered { status: parts.status.as_u16(), headers: parts.headers, body: body.freeze(), answer: None })
    }
}

/// What a response says of a change, or that there is none.
fn ended(answered: std::result::Result<&Answered, &Error>) -> Ended {
    match answered.map(|answered| answered.status) {
        Ok(400..500) => Ended::Refused,
        Ok(500..) | Err(_) => Ended::Unknown,
        Ok(_) => Ended::Answered,
    }
}

/// The parts of an absolute address, put together anew.
fn absolute(url: &str) -> Result<Uri> {
    let bad = || Error::usage(format!("`{}` is no address", address::shown(url))).hint("write https://HOST/PATH");
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let (Some(scheme @ ("https" | "http")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(bad());
    };
    let site = HostPort::parse(authority.as_str()).ok_or_else(bad)?;
    request::uri(scheme, &site.to_string(), uri.path_and_query().map_or("/", |target| target.as_str()))
}
