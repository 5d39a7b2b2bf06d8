//! Connections out: one kind of client for all that is asked over HTTP.
//!
//! Knows: TCP, TLS with this machine's authorities, the tunnel through a proxy, how long a connection
//! may take to stand. Does not know: who is asked, what, or how long an answer may take. It is one
//! type whatever the way is, so that HTTP/1.1 and HTTP/2 stand in the program once.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use crate::error::{Error, Kind, Result};

/// What goes wrong below HTTP, and in bodies.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// `body` as a client takes it.
pub(crate) fn body<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// The way to addresses of plain HTTP.
pub(crate) fn plain(within: Duration) -> Connector {
    Connector { way: Way::Plain(tcp(within)), within }
}

/// A way that is TLS and nothing else, through `proxy`, itself reached over plain HTTP, where there is one.
///
/// Errors: this machine has no certificates of authorities.
pub(crate) fn tls(proxy: Option<&Intercept>, within: Duration) -> Result<Connector> {
    let line = match proxy {
        None => Line::Direct(tcp(within)),
        Some(proxy) => {
            let tunnel = Tunnel::new(proxy.uri().clone(), tcp(within));
            Line::Tunnel(match proxy.basic_auth() {
                Some(credentials) => tunnel.with_auth(credentials.clone()),
                None => tunnel,
            })
        }
    };
    let builder = HttpsConnectorBuilder::new().with_native_roots().map_err(|cause| {
        Error::new(Kind::Transport, "there are no certificates of authorities on this machine")
            .because(cause)
            .hint("install ca-certificates, or name a file in SSL_CERT_FILE")
    })?;
    let way = Way::Tls(Box::new(builder.https_only().enable_all_versions().wrap_connector(line)));
    Ok(Connector { way, within })
}

fn tcp(within: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(within));
    tcp
}

/// Makes connections that stand within a time, the proxy's answer and TLS included.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    way: Way,
    within: Duration,
}

#[derive(Debug, Clone)]
enum Way {
    Plain(HttpConnector),
    Tls(Box<HttpsConnector<Line>>),
}

/// How bytes get to where TLS is spoken.
#[derive(Debug, Clone)]
enum Line {
    Direct(HttpConnector),
    Tunnel(Tunnel<HttpConnector>),
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl Service<Uri> for Line {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Line::Direct(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Line::Tunnel(tunnel) => tunnel.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self {
            Line::Direct(tcp) => {
                let connecting = tcp.call(uri);
                Box::pin(async move { Ok(connecting.await?) })
            }
            Line::Tunnel(tunnel) => {
                let connecting = tunnel.call(uri);
                Box::pin(async move { Ok(connecting.await?) })
            }
        }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.way {
            Way::Plain(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Way::Tls(tls) => tls.poll_ready(context),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let within = self.within;
        let connecting: Self::Future = match &mut self.way {
            Way::Plain(tcp) => {
                let connecting = tcp.call(uri);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Way::Tls(tls) => Box::pin(tls.call(uri)),
        };
        Box::pin(async move {
            let stands = tokio::time::timeout(within, connecting).await;
            stands.unwrap_or_else(|_| Err(format!("no connection within {within:?}").into()))
        })
    }
}
