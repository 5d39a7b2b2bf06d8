//! The contract of the way to GitHub: one message out, one answer back.
//!
//! Knows: nothing but that. Over HTTP it is `transport`; whoever has another way (a recording, a
//! simulation, a socket of their own) passes it to [`GitHub::over`](super::GitHub::over).

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};

use crate::error::{Error, Kind, Result};
use crate::reply::Reply;
use crate::upstream::BoxFuture;

/// A body on its way, in pieces.
pub type Stream = http_body_util::combinators::BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A wire that does not stream takes bodies up to this size.
const MAX_WHOLE_BYTES: usize = 16 << 20;

/// A way to GitHub.
pub trait Wire: Send + Sync + std::fmt::Debug {
    /// Sends `message` exactly as it is and gives the whole answer, its body decoded. Nothing is
    /// resent or followed.
    ///
    /// Errors: [`Kind::Transport`](crate::error::Kind::Transport) when there is no answer,
    /// [`Kind::TimedOut`](crate::error::Kind::TimedOut) when it did not come in time,
    /// [`Kind::TooLarge`](crate::error::Kind::TooLarge).
    fn exchange(&self, message: http::Request<Bytes>) -> BoxFuture<'_, Result<Reply>>;

    /// Sends `message` and gives the answer as it comes, its body as it is: neither decoded nor
    /// bounded in size or time, but for silence.
    ///
    /// A wire that does not stream takes and gives whole bodies instead.
    fn open(&self, message: http::Request<Stream>) -> BoxFuture<'_, Result<http::Response<Stream>>> {
        Box::pin(async move {
            let (parts, mut body) = message.into_parts();
            let mut whole = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame
                    .map_err(|cause| Error::new(Kind::Transport, "the request's body breaks off").because(cause))?;
                whole.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                if whole.len() > MAX_WHOLE_BYTES {
                    return Err(Error::new(Kind::TooLarge, "the request's body is too large for this wire"));
                }
            }
            let reply = self.exchange(http::Request::from_parts(parts, whole.freeze())).await?;
            let mut response = http::Response::new(Full::new(reply.body).map_err(|never| match never {}).boxed());
            *response.status_mut() = reply.status;
            *response.headers_mut() = reply.headers;
            Ok(response)
        })
    }
}
