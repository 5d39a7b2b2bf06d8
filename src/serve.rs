//! A door for clients that speak GitHub's own API: a caching proxy on TCP and Unix sockets (D2).
//!
//! Knows: connections, who may enter, when to end. Does not know: how a request is answered
//! (`exchange`), files.

mod credentials;
mod exchange;
mod hosts;
mod identities;
mod listener;
mod patience;
mod respond;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::cache::Ask;
use crate::error::{Error, Kind, Result};
use crate::github::Wire;
pub use hosts::Hosts;
pub use identities::Common;
use identities::Identities;
pub use listener::{Listener, Listeners};
use respond::Body;
pub use upkeep::Room;

/// What is served, and to whom.
#[derive(Debug)]
pub struct Settings {
    /// What all identities share.
    pub common: Common,
    /// Which hosts requests may be for.
    pub hosts: Hosts,
    /// How questions are answered unless the client says otherwise.
    pub ask: Ask,
    /// Parts of the `User-Agent` of clients for which addresses in bodies lead back, too.
    pub rewrite_bodies: Vec<String>,
    /// What a client must show in `X-Octocache-Secret`, if anything.
    pub secret: Option<String>,
    /// Connections at once; more wait to be let in.
    pub max_connections: usize,
    /// A client that says or takes nothing for so long is let go.
    pub idle: Duration,
    /// How long requests under way may take to end when the server does.
    pub grace: Duration,
    /// End after so long without a request.
    pub exit_when_idle: Option<Duration>,
    /// How much the store may hold.
    pub room: Room,
    /// Another way to GitHub than HTTP.
    pub wire: Option<Arc<dyn Wire>>,
}

/// Everything that answering a request needs.
#[derive(Debug)]
pub(crate) struct Door {
    hosts: Hosts,
    identities: Identities,
    ask: Ask,
    rewrite_bodies: Vec<String>,
    /// The digest of the secret: comparing digests tells nothing by the time it takes.
    secret: Option<[u8; 32]>,
    max_graphql_bytes: usize,
    /// Seconds from `started` to the last request.
    last_request: AtomicU64,
    started: Instant,
}

impl Door {
    fn may_enter(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = self.secret else { return true };
        headers
            .get("x-octocache-secret")
            .is_some_and(|shown| <[u8; 32]>::from(Sha256::digest(shown.as_bytes())) == secret)
    }

    /// Notes that somebody asks.
    fn asked(&self) {
        self.last_request.store(self.started.elapsed().as_secs(), Ordering::Relaxed);
    }

    /// Resolves when nobody has asked for so long; never without a bound.
    async fn rested(&self, after: Option<Duration>) {
        let Some(after) = after else { return std::future::pending().await };
        loop {
            let last = Duration::from_secs(self.last_request.load(Ordering::Relaxed));
            let rest = self.started.elapsed().saturating_sub(last);
            let Some(left) = after.checked_sub(rest).filter(|left| !left.is_zero()) else { return };
            tokio::time::sleep(left.max(Duration::from_millis(100))).await;
        }
    }

    /// Pages of this server itself, below `/_octocache`.
    fn own_page(&self, path: &str) -> Response<Body> {
        match path {
            "/health" => {
                let (bytes, entries) = self.identities.common().stack.memory_size();
                let text = serde_json::json!({
                    "status": "ok", "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(),
                    "memory": { "entries": entries, "bytes": bytes },
                });
                let mut response = Response::new(Body::Whole(Some(text.to_string().into())));
                let json = http::HeaderValue::from_static("application/json; charset=utf-8");
                response.headers_mut().insert(http::header::CONTENT_TYPE, json);
                response
            }
            _ => respond::refusal(StatusCode::NOT_FOUND, "octocache: there is no such page"),
        }
    }
}

/// Serves on `listeners` until `ended` is ready; then takes no more, lets what is under way end, and
/// writes what is still to be written.
pub async fn serve(settings: Settings, listeners: Listeners, ended: impl Future<Output = ()>) -> Result<()> {
    let Settings {
        common,
        hosts,
        ask,
        rewrite_bodies,
        secret,
        max_connections,
        idle,
        grace,
        exit_when_idle,
        room,
        wire,
    } = settings;
    let door = Arc::new(Door {
        hosts,
        identities: Identities::new(common, wire),
        ask,
        rewrite_bodies,
        secret: secret.map(|secret| Sha256::digest(secret.as_bytes()).into()),
        max_graphql_bytes: 4 << 20,
        last_request: AtomicU64::new(0),
        started: Instant::now(),
    });
    let (running, ended_upkeep) = std::sync::mpsc::channel();
    let upkeep = {
        let door = door.clone();
        std::thread::Builder::new()
            .name("upkeep".into())
            .spawn(move || upkeep::run(door, room, ended_upkeep))
            .map_err(|cause| Error::new(Kind::Internal, "cannot start a thread").because(cause))?
    };
    let ended = async {
        tokio::select! {
            () = ended => {}
            () = door.rested(exit_when_idle) => tracing::info!("nobody asks any more"),
        }
    };
    listener::accept(&door, listeners, max_connections, idle, grace, ended).await;
    drop(running);
    let _panicked = upkeep.join();
    door.identities.drained().await;
    Ok(())
}
