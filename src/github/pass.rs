//! What is handed through to GitHub as it is: writes, uploads, downloads, everything that is no
//! question a cache could answer.
//!
//! Knows: that these requests count as others do, and are never sent twice. Does not know: what is
//! in them.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Uri};

use super::budget::bucket_of;
use super::wire::Stream;
use super::{GitHub, limit, lock, rebase};
use crate::error::{Error, Kind, Result};
use crate::reply::Reply;
use crate::request::Request;

/// Points of a request that changes something (GitHub, "Rate limits for the REST API").
const WRITE_COST: u32 = 5;

/// The longest time for a request body and the answer to it.
const LONGEST_UPLOAD: Duration = Duration::from_hours(1);

/// A request to hand through.
#[derive(Debug)]
pub struct Passing {
    /// The HTTP method.
    pub method: HttpMethod,
    /// The whole address, made of parts.
    pub uri: Uri,
    /// Headers as they go out, but for `Authorization` where it is added.
    pub headers: HeaderMap,
    /// The body as it comes.
    pub body: Stream,
    /// The request that tells which bucket it counts in; `None` for what is no API request, or is
    /// counted for somebody else.
    pub counted: Option<Request>,
    /// Whether this identity's token signs it.
    pub signed: bool,
}

impl GitHub {
    /// Hands a request through, once, and gives the answer as it comes. Limits are observed both ways.
    pub async fn pass(&self, passing: Passing) -> Result<http::Response<Stream>> {
        let Passing { method, uri, mut headers, body, counted, signed } = passing;
        let token = if signed { self.token().await? } else { None };
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&token.authorization())
                .map_err(|_| Error::usage("the token cannot stand in a header"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let bucket = counted.as_ref().map(bucket_of);
        let cost = if method.is_safe() { 1 } else { WRITE_COST };
        let under_way = match bucket {
            Some(bucket) => Some(self.admitted(bucket, cost).await?),
            None => None,
        };
        let mut message = http::Request::builder()
            .method(method)
            .uri(uri)
            .body(body)
            .map_err(|cause| Error::usage("what is handed through makes no request").because(cause))?;
        *message.headers_mut() = headers;
        if bucket.is_some() {
            self.sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.options.tally.sent();
        }
        let with_token = message.headers().contains_key(AUTHORIZATION);
        // An upload takes as long as it takes.
        let within = if message.method().is_safe() { self.options.total_timeout } else { LONGEST_UPLOAD };
        let opened = tokio::time::timeout(within, self.wire.open(message)).await;
        let response =
            opened.map_err(|_| Error::new(Kind::TimedOut, format!("no answer within {within:?}"))).and_then(|it| it);
        if bucket.is_some() {
            self.options.tally.answered(response.as_ref().ok().map(http::Response::status), with_token);
        }
        let mut response = response?;
        drop(under_way);
        if let Some(request) = &counted {
            rebase::link(&self.options.api, &request.path, response.headers_mut());
        }
        if let Some(bucket) = bucket {
            self.observe_head(&response, bucket);
        }
        Ok(response)
    }

    /// Limits by status and headers alone: the body is on its way to somebody else.
    fn observe_head(&self, response: &http::Response<Stream>, bucket: &'static str) {
        let now = self.clock.now();
        let head = Reply {
            status: response.status(),
            headers: response.headers().clone(),
            body: bytes::Bytes::new(),
            attempts: 1,
            refused: 0,
            rule_held: None,
        };
        let mut budget = lock(&self.budget);
        budget.observe(&head, now);
        if let Some(limit) = limit::of(&head, bucket == "graphql", now) {
            budget.limited(limit, head.header("x-ratelimit-resource").unwrap_or(bucket), now);
            drop(budget);
            self.options.tally.limited(limit);
            self.sync(true);
        }
    }
}
