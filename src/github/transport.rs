//! Bytes to GitHub and back: our own HTTP service under octocrab's raw level.
//!
//! Knows: which way leads to the API, how long its silence may last, content coding, the bound of a body. Does
//! not know: tokens, retries, redirects; nothing is resent or followed here.

use std::fmt;
use std::io::Read;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Uri};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioExecutor;
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use tower::Service;

use super::wire::{Stream, Wire};
use super::{Identity, Options};
use crate::connect::{self, BoxError, Connector};
use crate::error::{Error, Kind, Result};
use crate::reply::Reply;
use crate::upstream::BoxFuture;

/// Answers larger than this are an error: nothing that is asked for here comes near.
const MAX_BODY_BYTES: usize = 100 << 20;

/// Proxy settings, as the usual environment variables spell them.
#[derive(Debug, Clone, Default)]
pub struct Proxy {
    /// `HTTPS_PROXY`, else `ALL_PROXY`: the proxy for requests to `https` addresses.
    pub https: Option<String>,
    /// `NO_PROXY`: hosts that are reached directly.
    pub no_proxy: Option<String>,
}

/// HTTP, set up by the first message.
pub(super) struct Http {
    options: Options,
    client: OnceLock<Octocrab>,
}

impl Http {
    /// As `options` say; their identity is not looked at.
    pub(super) fn new(options: &Options) -> Self {
        Self { options: Options { identity: Identity::Public, ..options.clone() }, client: OnceLock::new() }
    }

    fn client(&self) -> Result<&Octocrab> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let built = connect(&self.options)?;
        Ok(self.client.get_or_init(|| built))
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("api", &self.options.api.host()).finish_non_exhaustive()
    }
}

impl Wire for Http {
    fn exchange(&self, message: http::Request<Bytes>) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(async move {
            let message = message.map(|body| if body.is_empty() { OctoBody::empty() } else { body.to_vec().into() });
            exchange(self.client()?, message, self.options.read_timeout).await
        })
    }

    fn open(&self, message: http::Request<Stream>) -> BoxFuture<'_, Result<http::Response<Stream>>> {
        Box::pin(async move {
            let message = message.map(OctoBody::new);
            let response = self.client()?.send(message).await.map_err(broken)?;
            let silence = self.options.read_timeout;
            Ok(response.map(|body| Hearing { body, silence, until: Box::pin(tokio::time::sleep(silence)) }.boxed()))
        })
    }
}

/// Fields of a response; gateways add theirs to GitHub's forty.
const MAX_HEADERS: usize = 1_000;

/// Builds the client. No connection is made yet.
fn connect(options: &Options) -> Result<Octocrab> {
    if options.api.is_plaintext() {
        return Ok(over(connect::plain(options.connect_timeout)));
    }
    let uri: Uri = options
        .api
        .origin()
        .parse()
        .map_err(|cause| Error::usage("the API's address does not parse").because(cause))?;
    let proxy = proxy_for(&options.proxy, &uri)?;
    Ok(over(connect::tls(proxy.as_ref(), options.connect_timeout)?))
}

/// The proxy for requests to `uri`, unless they go there directly.
///
/// Errors when the setting is no address: a request must not go another way than the user says. It may hold
/// a password, so it is not repeated.
fn proxy_for(proxy: &Proxy, uri: &Uri) -> Result<Option<Intercept>> {
    let Some(text) = proxy.https.as_deref().map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let found = |https: &str| {
        let no_proxy = proxy.no_proxy.clone().unwrap_or_default();
        Matcher::builder().https(https.to_owned()).no(no_proxy).build().intercept(uri)
    };
    if found("http://proxy.invalid:3128").is_none() {
        return Ok(None);
    }
    let is_sound = |found: &Intercept| {
        let authority = found.uri().authority().map_or("", |authority| authority.as_str());
        let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        found.uri().host().is_some_and(|host| !host.is_empty())
            && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    let Some(found) = found(text).filter(is_sound) else {
        return Err(Error::usage("HTTPS_PROXY (or ALL_PROXY) is no address of a proxy").hint(
            "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with special characters percent-encoded",
        ));
    };
    if found.uri().scheme_str() != Some("http") {
        return Err(Error::usage("HTTPS_PROXY has another scheme than http")
            .hint("use a proxy at http://HOST:PORT; what goes through it to GitHub is TLS all the same"));
    }
    Ok(Some(found))
}

/// Our client, as octocrab calls it.
struct Below(Client<Connector, connect::Body>);

impl Service<http::Request<OctoBody>> for Below {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper_util::client::legacy::Error;
    type Future = hyper_util::client::legacy::ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<OctoBody>) -> Self::Future {
        self.0.request(request.map(connect::body))
    }
}

fn over(connector: Connector) -> Octocrab {
    let client = Client::builder(TokioExecutor::new())
        .http1_max_headers(MAX_HEADERS)
        .pool_idle_timeout(Duration::from_mins(1))
        .retry_canceled_requests(false)
        .build(connector);
    let Ok(octocrab) = OctocrabBuilder::new_empty().with_service(Below(client)).with_auth(AuthState::None).build();
    octocrab
}

fn broken(cause: octocrab::Error) -> Error {
    // octocrab's own words around the cause say nothing more.
    let cause = match cause {
        octocrab::Error::Service { source, .. } | octocrab::Error::Other { source, .. } => source,
        other => other.into(),
    };
    Error::new(Kind::Transport, "no answer from GitHub").because(cause)
}

/// A body that must not be silent for too long, however long it is.
struct Hearing<B> {
    body: B,
    silence: Duration,
    until: Pin<Box<tokio::time::Sleep>>,
}

impl<B> http_body::Body for Hearing<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            let next = tokio::time::Instant::now() + self.silence;
            self.until.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(format!("GitHub said nothing for {:?}", self.silence).into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Sends `message` exactly as it is and reads the whole answer.
async fn exchange(client: &Octocrab, message: http::Request<OctoBody>, read_timeout: Duration) -> Result<Reply> {
    let silent = |_| Error::new(Kind::TimedOut, format!("GitHub said nothing for {read_timeout:?}"));
    let response = tokio::time::timeout(read_timeout, client.send(message)).await.map_err(silent)?.map_err(broken)?;
    let (parts, mut body) = response.into_parts();
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = tokio::time::timeout(read_timeout, body.frame()).await.map_err(silent)? {
        let frame = frame.map_err(broken)?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > MAX_BODY_BYTES {
                return Err(too_large());
            }
            bytes.extend_from_slice(data);
        }
    }
    let mut headers = parts.headers;
    let coding = headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    Ok(Reply {
        status: parts.status,
        headers,
        body: decode(bytes.freeze(), coding.as_ref())?,
        attempts: 1,
        refused: 0,
        rule_held: None,
    })
}

fn decode(bytes: Bytes, coding: Option<&HeaderValue>) -> Result<Bytes> {
    // Names of codings know no case (RFC 9110 section 8.4.1).
    let coding = coding.map(|coding| coding.as_bytes().trim_ascii().to_ascii_lowercase());
    match coding.as_deref() {
        None | Some(b"identity") => Ok(bytes),
        Some(_) if bytes.is_empty() => Ok(bytes),
        Some(b"gzip" | b"x-gzip") => {
            let mut raw = Vec::with_capacity(bytes.len() * 6);
            MultiGzDecoder::new(&bytes[..]).take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut raw).map_err(|cause| {
                Error::new(Kind::Transport, "a compressed answer is truncated or broken").because(cause)
            })?;
            if raw.len() > MAX_BODY_BYTES { Err(too_large()) } else { Ok(raw.into()) }
        }
        Some(other) => {
            let name = String::from_utf8_lossy(other).into_owned();
            Err(Error::new(
                Kind::Malformed,
                format!("GitHub answered in the coding `{}`, which was not asked for", name.escape_debug()),
            ))
        }
    }
}

fn too_large() -> Error {
    Error::new(Kind::TooLarge, format!("GitHub's answer is larger than {} MiB", MAX_BODY_BYTES >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_proxy_that_is_none_is_an_error_and_not_a_direct_connection() {
        let uri: Uri = "https://api.github.com".parse().unwrap();
        let of = |https: &str, no_proxy: &str| {
            let proxy = Proxy { https: Some(https.into()), no_proxy: Some(no_proxy.into()) };
            proxy_for(&proxy, &uri).map(|found| found.map(|found| found.uri().to_string()))
        };
        assert_eq!(of("http://me:pass@proxy.example:3128", "").unwrap().as_deref(), Some("http://proxy.example:3128/"));
        assert_eq!(of("proxy.example:3128", "").unwrap().as_deref(), Some("http://proxy.example:3128/"));
        assert_eq!((of("", "").unwrap(), of("http://p:1", "github.com").unwrap()), (None, None));
        assert_eq!(of("not a proxy", "*").unwrap(), None);
        for bad in [
            "http://",
            "http://me:hunter2@",
            "http://me:hunter2@proxy:99999",
            "http://me:hunter2@proxy:port",
            "http://me:hunter2@pro xy:1",
            "not a proxy",
            "://",
            "socks5://me:hunter2@proxy:1",
            "https://me:hunter2@proxy:1",
        ] {
            let error = of(bad, "").expect_err(bad);
            assert!(error.is_usage() && !error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn codings_are_undone_within_bounds() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"{\"a\":1}").unwrap();
        let gzip = gzip.finish().unwrap();
        let named = |name| Some(HeaderValue::from_static(name));
        assert_eq!(decode(gzip.clone().into(), named("gzip").as_ref()).unwrap(), "{\"a\":1}");
        let cut = decode(gzip[..gzip.len() - 4].to_vec().into(), named("gzip").as_ref()).unwrap_err();
        assert!(cut.is_transient(), "{cut}");
        assert!(decode(gzip.into(), named("br").as_ref()).is_err());
    }
}
