//! Bodies of requests on their way in: one bound for the memory of all, taken as bytes come.
//!
//! Knows: how much is held, and how long bytes may take. Does not know: what the bytes say. What is only
//! announced takes nothing.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::respond::{self, Body};
use crate::connect::BoxError;

/// Memory is counted in pieces of this size.
const PIECE_BYTES: usize = 4 << 10;

/// A body of which nothing comes for this long is given up.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// A body waits for memory for this long.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Bodies of up to this size that come in one piece have memory of their own, an eighth: they are whole when they
/// take it, so a slow sender cannot hold it.
const SMALL_BYTES: usize = 64 << 10;

/// The memory for bodies of one kind.
#[derive(Debug)]
pub(super) struct Inflow {
    small: Semaphore,
    large: Semaphore,
}

/// A whole body, and the memory that it takes.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) bytes: Bytes,
    _room: Option<SemaphorePermit<'a>>,
}

/// Why a body did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It is larger than it may be.
    TooLarge,
    /// It breaks off.
    Broken,
    /// It takes too long.
    Slow,
    /// Others took the memory for all that time.
    Full,
}

impl Cut {
    /// What the client is told.
    pub(super) fn refusal(self) -> (StatusCode, &'static str) {
        match self {
            Cut::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "octocache: the body is too large"),
            Cut::Broken => (StatusCode::BAD_REQUEST, "octocache: the body breaks off"),
            Cut::Slow => (StatusCode::REQUEST_TIMEOUT, "octocache: the body did not come in time"),
            Cut::Full => {
                (StatusCode::SERVICE_UNAVAILABLE, "octocache: too many bodies are on their way; send it again")
            }
        }
    }

    /// The same as a response.
    pub(super) fn response(self) -> Response<Body> {
        let (status, why) = self.refusal();
        let mut response = respond::refusal(status, why);
        if self == Cut::Full {
            response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl Inflow {
    /// At most `bytes` for all.
    pub(super) fn new(bytes: usize) -> Self {
        let pieces = bytes / PIECE_BYTES;
        Self { small: Semaphore::new(pieces / 8), large: Semaphore::new(pieces - pieces / 8) }
    }

    /// Reads a body of at most `max` bytes within `longest`.
    pub(super) async fn read<B>(&self, mut body: B, max: usize, longest: Duration) -> Result<Held<'_>, Cut>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
    {
        let end = Instant::now() + longest;
        let mut room = None;
        let mut whole = Vec::new();
        loop {
            let frame = timeout_at(end.min(Instant::now() + LONGEST_SILENCE), body.frame()).await;
            let data = match frame.map_err(|_| Cut::Slow)? {
                None => return Ok(Held { bytes: whole.into(), _room: room }),
                Some(frame) => frame.map_err(|_| Cut::Broken)?.into_data().unwrap_or_default(),
            };
            let needed = whole.len() + data.len();
            if needed > max {
                return Err(Cut::TooLarge);
            }
            if room.is_none() && body.is_end_stream() {
                // Nearly all come in one piece.
                let memory = if needed <= SMALL_BYTES { &self.small } else { &self.large };
                take(memory, &mut room, needed, end).await?;
                return Ok(Held { bytes: data, _room: room });
            }
            if needed > whole.capacity() {
                let capacity = needed.max(whole.capacity() * 3 / 2).min(max);
                take(&self.large, &mut room, capacity, end).await?;
                whole.reserve_exact(capacity - whole.len());
            }
            whole.extend_from_slice(&data);
        }
    }
}

/// Makes `room` enough for `bytes`.
async fn take<'a>(
    memory: &'a Semaphore,
    room: &mut Option<SemaphorePermit<'a>>,
    bytes: usize,
    end: Instant,
) -> Result<(), Cut> {
    let held = room.as_ref().map_or(0, SemaphorePermit::num_permits);
    let more = u32::try_from(bytes.div_ceil(PIECE_BYTES).saturating_sub(held)).map_err(|_| Cut::TooLarge)?;
    let end = end.min(Instant::now() + LONGEST_WAIT);
    let taken = timeout_at(end, memory.acquire_many(more)).await.map_err(|_| Cut::Full)?;
    let taken = taken.map_err(|_| Cut::Full)?;
    match room {
        Some(room) => room.merge(taken),
        None => *room = Some(taken),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    /// A body of `pieces` pieces of `bytes` bytes each, `pause` apart; it never ends if `stalls`.
    fn body(
        pieces: usize,
        bytes: usize,
        pause: Duration,
        stalls: bool,
    ) -> impl http_body::Body<Data = Bytes, Error = std::io::Error> + Unpin {
        StreamBody::new(Box::pin(stream::unfold(0, move |at| async move {
            tokio::time::sleep(pause).await;
            match (at < pieces, stalls) {
                (true, _) => Some((Ok(Frame::data(Bytes::from(vec![b'x'; bytes]))), at + 1)),
                (false, false) => None,
                (false, true) => std::future::pending().await,
            }
        })))
    }

    const NONE: Duration = Duration::ZERO;
    const LONGEST: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn memory_is_taken_as_bytes_come_and_given_back() {
        let inflow = Inflow::new(2 << 20);
        let pieces = inflow.large.available_permits();
        let held = inflow.read(body(10, 10_000, NONE, false), 1 << 20, LONGEST).await.unwrap();
        assert_eq!(held.bytes.len(), 100_000);
        let taken = (pieces - inflow.large.available_permits()) * PIECE_BYTES;
        assert!((100_000..200_000).contains(&taken), "{taken}");
        drop(held);
        assert_eq!(inflow.large.available_permits(), pieces);
        // A hundred that announce much and send little leave room for one that sends all.
        let stalled: Vec<_> = (0..100).map(|_| inflow.read(body(1, 10, NONE, true), 1 << 20, LONGEST)).collect();
        let stalled = futures_util::future::join_all(stalled);
        let whole = inflow.read(body(50, 10_000, NONE, false), 1 << 20, LONGEST);
        let (stalled, whole) = tokio::join!(stalled, whole);
        assert!(whole.is_ok() && stalled.iter().all(|one| matches!(one, Err(Cut::Slow))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_much_too_slow_or_too_late_is_cut() {
        let inflow = Inflow::new(1_200_000);
        let read = |pieces, pause, stalls| inflow.read(body(pieces, 100_000, pause, stalls), 1 << 20, LONGEST);
        assert_eq!(read(11, NONE, false).await.unwrap_err(), Cut::TooLarge);
        assert_eq!(read(1, Duration::from_secs(11), false).await.unwrap_err(), Cut::Slow);
        assert_eq!(read(9, Duration::from_secs(4), false).await.unwrap_err(), Cut::Slow);
        let started = Instant::now();
        let held = read(10, NONE, false).await.unwrap();
        assert_eq!(read(2, NONE, false).await.unwrap_err(), Cut::Full);
        assert_eq!(started.elapsed(), LONGEST_WAIT);
        // A small one in one piece finds room all the same.
        let small = Bytes::from_static(b"{}");
        assert!(inflow.read(http_body_util::Full::new(small), 1 << 20, LONGEST).await.is_ok());
        let (response, retry) = (Cut::Full.response(), http::header::RETRY_AFTER);
        assert_eq!((response.status().as_u16(), response.headers()[retry].to_str().unwrap()), (503, "1"));
        drop(held);
        assert!(read(2, NONE, false).await.is_ok());
    }
}
