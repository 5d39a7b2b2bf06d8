//! The connection to Redis: made and remade by a task of its own, never by a request.
//!
//! Knows: one server or a cluster, time-outs, when it is left alone. Does not know: keys, values.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, Pipeline, RedisError, RedisResult};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::share::gate::Gate;
use crate::share::patience::Limits;

/// Making a connection may take so long, behind the requests.
const CONNECT: Duration = Duration::from_secs(3);

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
    gate: Gate,
    connection: watch::Sender<Option<Connection>>,
    /// The first requests wait for the first connection until then.
    first_until: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Link {
    /// The address may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(info: ConnectionInfo, limits: Limits) -> Arc<Self> {
        let gate = Gate::new("Redis", limits);
        Arc::new(Self { info, gate, connection: watch::Sender::new(None), first_until: Mutex::default() })
    }

    /// Starts connecting.
    pub(super) fn start(self: &Arc<Self>) -> AbortHandle {
        *self.first_until() = Some(Instant::now() + self.gate.limits().first());
        tokio::spawn(keep(self.clone())).abort_handle()
    }

    fn first_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.first_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is waited for.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether it is asked at the moment.
    pub(super) fn is_up(&self) -> bool {
        self.connection.borrow().is_some() && self.gate.is_open()
    }

    /// Sends a pipeline for somebody who waits, and waits for its replies as long as patience allows;
    /// `of_use` says whether they brought anything.
    pub(super) async fn ask<T: FromRedisValue>(&self, pipe: &Pipeline, of_use: impl Fn(&T) -> bool) -> Reply<T> {
        let _waiting = self.gate.wait();
        let (reply, took) = self.send_measured(pipe).await;
        if let Reply::Some(reply) = &reply {
            self.gate.answered(took, of_use(reply));
        }
        reply
    }

    /// The same behind the answers, where nobody waits.
    pub(super) async fn send<T: FromRedisValue>(&self, pipe: &Pipeline) -> Reply<T> {
        self.send_measured(pipe).await.0
    }

    async fn send_measured<T: FromRedisValue>(&self, pipe: &Pipeline) -> (Reply<T>, Duration) {
        let Some(mut connection) = self.connection().await else { return (Reply::Down, Duration::ZERO) };
        let (reply, took) = self.gate.in_time(connection.send::<T>(pipe)).await;
        (self.judge(reply), took)
    }

    fn judge<T>(&self, reply: Option<RedisResult<T>>) -> Reply<T> {
        match reply {
            Some(Ok(reply)) => {
                self.gate.replied();
                Reply::Some(reply)
            }
            // The server is there and says no.
            Some(Err(error)) if !is_trouble(&error) => Reply::Refused(error),
            Some(Err(error)) => {
                self.gate.failed();
                tracing::debug!(%error, "Redis failed");
                Reply::Failed
            }
            None => {
                self.gate.failed();
                tracing::debug!("Redis did not answer in time");
                Reply::Failed
            }
        }
    }

    async fn connection(&self) -> Option<Connection> {
        if !self.gate.is_open() {
            return None;
        }
        if let Some(connection) = &*self.connection.borrow() {
            return Some(connection.clone());
        }
        let until = (*self.first_until())?;
        let mut made = self.connection.subscribe();
        let made =
            tokio::time::timeout_at(until, made.wait_for(|connection| connection.is_some() || !self.gate.is_open()));
        let made = made.await.ok().and_then(|made| made.ok()?.clone());
        // Many wait for it at once, and it is counted once.
        if made.is_none() && self.first_until().take().is_some() {
            self.gate.answered(self.gate.limits().first(), false);
        }
        made
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
        link.gate.tried(probed.as_ref().ok().map(|(_, took)| *took));
        match probed {
            Ok((connection, _)) if link.gate.is_open() => {
                if said {
                    tracing::info!("Redis answers again");
                }
                said = true;
                link.connection.send_replace(Some(connection));
                link.gate.trouble().await;
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
        if let Some(until) = link.gate.rests_until() {
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
