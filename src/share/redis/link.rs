//! The connection to Redis: made and remade by a task of its own, never by a request.
//!
//! Knows: one server or a cluster, time-outs, when it is left alone. Does not know: keys, values.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, Pipeline, RedisError, RedisResult};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::share::patience::{Limits, Patience};

/// Making a connection may take so long, behind the requests.
const CONNECT: Duration = Duration::from_secs(3);

/// Waiting is measured in so many parts of a time-out, so that those can be left out in which this
/// process itself was busy; so many are borne in all.
const SLICES: u32 = 5;
const MOST_SLICES: u32 = 50;

/// A connection; clones speak over the same one.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Sends everything at once and reads all replies. Within a cluster all keys lie in one slot.
    pub(super) async fn send<T: FromRedisValue>(&mut self, pipe: &Pipeline) -> RedisResult<T> {
        match self {
            Connection::One(one) => pipe.query_async(one).await,
            Connection::Cluster(cluster) => pipe.query_async(cluster).await,
        }
    }
}

/// The connection, or the lack of it.
pub(super) struct Link {
    info: ConnectionInfo,
    limits: Limits,
    patience: Mutex<Patience>,
    connection: watch::Sender<Option<Connection>>,
    /// Rung when patience has ended.
    trouble: Notify,
    /// The first requests wait for the first connection until then.
    first_until: Mutex<Option<Instant>>,
    /// Replies so far.
    replies: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// How many wait, since when one does, and for how long one did.
#[derive(Debug, Default)]
struct Waiting {
    requests: u32,
    since: Option<Instant>,
    total: Duration,
}

/// Somebody waits for as long as this is kept.
struct Wait<'a>(&'a Mutex<Waiting>);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.requests -= 1;
        if waiting.requests == 0 {
            let waited = waiting.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            waiting.total += waited;
        }
    }
}

impl std::fmt::Debug for Link {
    /// The address may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(info: ConnectionInfo, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            info,
            limits,
            patience: Mutex::default(),
            connection: watch::Sender::new(None),
            trouble: Notify::new(),
            first_until: Mutex::default(),
            replies: AtomicU64::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Starts connecting.
    pub(super) fn start(self: &Arc<Self>) -> AbortHandle {
        *self.first_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + self.limits.first());
        tokio::spawn(keep(self.clone())).abort_handle()
    }

    fn patience<T>(&self, with: impl FnOnce(&mut Patience) -> T) -> T {
        with(&mut self.patience.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it is asked at the moment.
    pub(super) fn is_up(&self) -> bool {
        self.connection.borrow().is_some() && self.patience(|patience| patience.is_asking())
    }

    /// Sends a pipeline for somebody who waits, and waits for its replies as long as patience allows;
    /// `of_use` says whether they brought anything.
    pub(super) async fn ask<T: FromRedisValue>(&self, pipe: &Pipeline, of_use: impl Fn(&T) -> bool) -> Reply<T> {
        let _waiting = self.wait();
        let (reply, took) = self.send_measured(pipe).await;
        if let Reply::Some(reply) = &reply {
            let of_use = of_use(reply);
            self.answered(took, of_use);
        }
        reply
    }

    /// The same behind the answers, where nobody waits.
    pub(super) async fn send<T: FromRedisValue>(&self, pipe: &Pipeline) -> Reply<T> {
        self.send_measured(pipe).await.0
    }

    async fn send_measured<T: FromRedisValue>(&self, pipe: &Pipeline) -> (Reply<T>, Duration) {
        let Some(mut connection) = self.connection().await else { return (Reply::Down, Duration::ZERO) };
        let (reply, took) = self.in_time(connection.send::<T>(pipe)).await;
        let reply = self.judge(reply);
        (reply, took)
    }

    fn judge<T>(&self, reply: Option<RedisResult<T>>) -> Reply<T> {
        match reply {
            Some(Ok(reply)) => {
                self.replies.fetch_add(1, Ordering::Relaxed);
                Reply::Some(reply)
            }
            // The server is there and says no.
            Some(Err(error)) if !is_trouble(&error) => Reply::Refused(error),
            Some(Err(error)) => {
                self.note(|patience, now| patience.failed(&self.limits, now));
                tracing::debug!(%error, "Redis failed");
                Reply::Failed
            }
            None => {
                self.note(|patience, now| patience.failed(&self.limits, now));
                tracing::debug!("Redis did not answer in time");
                Reply::Failed
            }
        }
    }

    /// Waits as long as patience allows; the reply, and how long it was waited for. Time in which this
    /// process itself was too busy to look is no fault of Redis's and counts for nothing.
    async fn in_time<T>(&self, reply: impl Future<Output = T>) -> (Option<T>, Duration) {
        let mut reply = std::pin::pin!(reply);
        let slice = self.limits.timeout / SLICES;
        let mut waited = Duration::ZERO;
        for _ in 0..MOST_SLICES {
            let started = Instant::now();
            let came = timeout(slice, &mut reply).await;
            let took = started.elapsed();
            if let Ok(reply) = came {
                return (Some(reply), waited + took.min(slice));
            }
            if took <= slice * 2 {
                waited += slice;
            }
            if waited >= self.limits.timeout {
                break;
            }
        }
        (None, waited)
    }

    async fn connection(&self) -> Option<Connection> {
        if !self.patience(|patience| patience.is_asking()) {
            return None;
        }
        if let Some(connection) = &*self.connection.borrow() {
            return Some(connection.clone());
        }
        let until = (*self.first_until.lock().unwrap_or_else(PoisonError::into_inner))?;
        let mut made = self.connection.subscribe();
        let made = tokio::time::timeout_at(
            until,
            made.wait_for(|connection| connection.is_some() || !self.patience(|patience| patience.is_asking())),
        );
        let made = made.await.ok().and_then(|made| made.ok()?.clone());
        // Many wait for it at once, and it is counted once.
        if made.is_none() && self.first_until.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            self.answered(self.limits.first(), false);
        }
        made
    }

    /// Waits until `done`, as long as Redis goes on to reply; a part of a time-out in which it does not is
    /// waited in vain.
    pub(super) async fn while_it_replies(&self, done: impl Future) {
        let _waiting = self.wait();
        let mut done = std::pin::pin!(done);
        let slice = self.limits.timeout / SLICES;
        loop {
            let before = self.replies.load(Ordering::Relaxed);
            if timeout(slice, &mut done).await.is_ok() || !self.patience(|patience| patience.is_asking()) {
                return;
            }
            if self.replies.load(Ordering::Relaxed) == before {
                self.answered(slice + Duration::from_nanos(1), false);
            }
        }
    }

    fn answered(&self, took: Duration, of_use: bool) {
        self.note(|patience, now| patience.answered(took, of_use, &self.limits, now));
    }

    /// Time in which at least one request waited.
    pub(super) fn waited(&self) -> Duration {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    fn wait(&self) -> Wait<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.requests == 0 {
            waiting.since = Some(Instant::now());
        }
        waiting.requests += 1;
        Wait(&self.waiting)
    }

    fn note(&self, after: impl FnOnce(Patience, Instant) -> Patience) {
        let ended = self.patience(|patience| {
            let before = *patience;
            *patience = after(before, Instant::now());
            before.is_asking() && !patience.is_asking()
        });
        if ended {
            tracing::warn!("Redis does not answer in time; it is left alone for a while, and nothing waits for it");
            self.trouble.notify_one();
        }
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(None);
        let client = Client::open(self.info.clone())?;
        let mut one = client.get_multiplexed_async_connection_with_config(&config).await?;
        // A server that does not let us ask is taken for a single one.
        let about: String = redis::cmd("INFO").arg("cluster").query_async(&mut one).await.unwrap_or_default();
        if !about.contains("cluster_enabled:1") {
            return Ok(Connection::One(one));
        }
        let client = ClusterClientBuilder::new([self.info.clone()]).connection_timeout(CONNECT).retries(1).build()?;
        Ok(Connection::Cluster(client.get_async_connection().await?))
    }

    async fn probe(&self) -> Result<(Connection, Duration), String> {
        let made = async {
            let mut connection = self.connect().await?;
            let started = Instant::now();
            let mut ping = redis::pipe();
            ping.cmd("GET").arg("octocache:v1:ping").ignore();
            connection.send::<()>(&ping).await?;
            Ok((connection, started.elapsed()))
        };
        match timeout(CONNECT, made).await {
            Ok(made) => made.map_err(|error: RedisError| error.to_string()),
            Err(_) => Err("no connection within three seconds".to_owned()),
        }
    }
}

/// What came of a pipeline.
pub(super) enum Reply<T> {
    Some(T),
    /// The server said no: out of memory, another type of value, no permission.
    Refused(RedisError),
    /// It broke or did not come in time.
    Failed,
    /// Nothing was sent: it is left alone.
    Down,
}

/// Connects, waits for trouble, rests, connects anew.
async fn keep(link: Arc<Link>) {
    let mut said = false;
    loop {
        let probed = link.probe().await;
        let now = Instant::now();
        let took = probed.as_ref().ok().map(|(_, took)| *took);
        link.patience(|patience| *patience = patience.tried(took, &link.limits, now));
        match probed {
            Ok((connection, _)) if link.patience(|patience| patience.is_asking()) => {
                if said {
                    tracing::info!("Redis answers again");
                }
                said = true;
                link.connection.send_replace(Some(connection));
                link.trouble.notified().await;
            }
            Ok((_, took)) => tracing::debug!(?took, "Redis answers, but slowly"),
            Err(error) => {
                if said {
                    tracing::debug!(%error, "Redis is still not there");
                } else {
                    tracing::warn!(%error, "Redis cannot be reached; going on without it");
                }
                said = true;
            }
        }
        // Whoever waits for the first connection hears that there is none.
        link.connection.send_replace(None);
        let rest = link.patience(|patience| *patience);
        if let Patience::Resting { until, .. } = rest {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Whether an error means that the next request would fail as well.
fn is_trouble(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_connection_refusal()
        || error.is_unrecoverable_error()
}
