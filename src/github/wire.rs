//! The contract of the way to GitHub: one message out, one answer back.
//!
//! Knows: nothing but that. Over HTTP it is `transport`; whoever has another way (a recording, a
//! simulation, a socket of their own) passes it to [`GitHub::over`](super::GitHub::over).

use bytes::Bytes;

use crate::error::Result;
use crate::reply::Reply;
use crate::upstream::BoxFuture;

/// A way to GitHub.
pub trait Wire: Send + Sync + std::fmt::Debug {
    /// Sends `message` exactly as it is and gives the whole answer, its body decoded. Nothing is
    /// resent or followed.
    ///
    /// Errors: [`Kind::Transport`](crate::error::Kind::Transport) when there is no answer,
    /// [`Kind::TimedOut`](crate::error::Kind::TimedOut) when it did not come in time,
    /// [`Kind::TooLarge`](crate::error::Kind::TooLarge).
    fn exchange(&self, message: http::Request<Bytes>) -> BoxFuture<'_, Result<Reply>>;
}
