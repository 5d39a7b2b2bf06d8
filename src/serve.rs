//! A door for clients that speak GitHub's own API: a caching proxy on TCP and Unix sockets (D2), with
//! what belongs to running one (D4, D5, D7, D8).
//!
//! Knows: connections, who may enter, when to end. Does not know: how a request is answered
//! (`exchange`), files.

mod asked;
mod connections;
mod credentials;
mod directives;
mod exchange;
mod hosts;
mod identities;
mod inflow;
mod journal;
mod listener;
mod metrics;
mod outdate;
mod own;
mod patience;
mod reload;
mod removals;
mod respond;
mod status;
mod upkeep;
mod webhook;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::github::Wire;
use crate::stack::OnDisk;
use crate::stats::Ticks;
pub use hosts::Hosts;
pub use identities::Common;
use identities::Identities;
use inflow::Inflow;
use journal::Journal;
pub use listener::{Entrance, Listener, Listeners};
use reload::State;
pub use reload::{Live, Reload, Secret};
use status::History;
pub use upkeep::Room;
pub use webhook::Keys;
use webhook::Webhook;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use webhook::read as read_delivery;

/// Invalidations of other machines are heard of within this time.
const HEAR_EVERY: Duration = Duration::from_secs(1);

/// Memory for bodies of GraphQL requests that are under way; deliveries have as much (`webhook`).
const QUESTIONS_BYTES: usize = 32 << 20;

/// What is served, and to whom.
#[derive(Debug)]
pub struct Settings {
    /// What all identities share.
    pub common: Common,
    /// Which hosts requests may be for.
    pub hosts: Hosts,
    /// What may change while it is served.
    pub live: Live,
    /// Where that is read again; it stays as it is without.
    pub reload: Option<Reload>,
    /// Connections at once on each listener; more wait to be let in.
    pub max_connections: usize,
    /// A client that says or takes nothing for so long is let go.
    pub idle: Duration,
    /// How long requests under way may take to end when the server does.
    pub grace: Duration,
    /// End after so long without a request.
    pub exit_when_idle: Option<Duration>,
    /// Whether what a delivery outdates is fetched again at once.
    pub refetch: bool,
    /// Whether answers carry `X-Cache-Mode`, as ghproxy's do.
    pub cache_mode: bool,
    /// What a resident warmer in the same process did.
    pub ticks: Option<Arc<Ticks>>,
    /// Who is told of the numbers.
    pub statsd: Option<SocketAddr>,
    /// Another way to GitHub than HTTP.
    pub wire: Option<Arc<dyn Wire>>,
}

/// Addresses that are remembered for their size.
const MAX_LARGE: usize = 1_000;

/// Everything that answering a request needs.
#[derive(Debug)]
pub(crate) struct Door {
    hosts: Hosts,
    identities: Identities,
    live: ArcSwap<Live>,
    reload: Option<Reload>,
    state: Mutex<State>,
    reload_wanted: AtomicBool,
    max_graphql_bytes: usize,
    /// Memory for the bodies of GraphQL requests.
    questions: Inflow,
    cache_mode: bool,
    webhook: Option<Webhook>,
    ticks: Option<Arc<Ticks>>,
    journal: Journal,
    history: History,
    counters: Counters,
    /// A client that says or takes nothing for so long is let go.
    idle: Duration,
    /// Addresses whose bodies are too large to be kept: they are handed through from the second request on.
    large: Mutex<HashSet<String>>,
    on_disk: Mutex<OnDisk>,
    /// Places for people who look at the dashboard.
    watching: Arc<Semaphore>,
    /// Told to end: no more questions, please.
    ending: AtomicBool,
    /// Seconds from `started` to the last request.
    last_request: AtomicU64,
    started: Instant,
    started_at: Timestamp,
    /// Tells this process's request ids from another's.
    run: u32,
    requests: AtomicU64,
}

/// What is counted at the door itself.
#[derive(Debug, Default)]
struct Counters {
    passed: AtomicU64,
    refused: AtomicU64,
    connections: AtomicU64,
}

impl Door {
    fn is_large(&self, path: &str) -> bool {
        let large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        !large.is_empty() && large.contains(path)
    }

    fn note_large(&self, path: &str) {
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        if large.len() >= MAX_LARGE {
            large.clear();
        }
        large.insert(path.to_owned());
    }

    /// What may change while it is served.
    fn live(&self) -> arc_swap::Guard<Arc<Live>> {
        self.live.load()
    }

    /// Whether the secret was shown, if there is one; `page`: one of our own, to which it may be shown as
    /// a password.
    fn may_enter(&self, headers: &HeaderMap, page: bool) -> bool {
        let live = self.live();
        let Some(secret) = &live.secret else { return true };
        // Comparing digests tells nothing by the time it takes.
        let is_it = |shown: &[u8]| Secret::of(shown) == *secret;
        headers.get("x-octocache-secret").is_some_and(|shown| is_it(shown.as_bytes()))
            || (page && own::password(headers).is_some_and(|shown| is_it(&shown)))
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

    /// What is on disk, as of the last look.
    fn on_disk(&self) -> OnDisk {
        *self.on_disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_at_disk(&self) {
        let now = self.identities.common().stack.on_disk();
        *self.on_disk.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// A name for a request: the client's own if it is one, else ours.
    fn request_id(&self, headers: &HeaderMap) -> String {
        let theirs = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let is_id = |id: &&str| {
            (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match theirs.filter(is_id) {
            Some(id) => id.to_owned(),
            None => format!("{:08x}-{:x}", self.run, self.requests.fetch_add(1, Ordering::Relaxed) + 1),
        }
    }
}

/// Serves on `listeners` until `ended` is ready; then takes no more, lets what is under way end, and
/// writes what is still to be written.
pub async fn serve(settings: Settings, listeners: Listeners, ended: impl Future<Output = ()>) -> Result<()> {
    let Settings { common, hosts, live, reload, max_connections, idle, grace, exit_when_idle, .. } = settings;
    let started_at = common.clock.now();
    let (webhook, deliveries) = live.webhook_keys.is_some().then(|| Webhook::new(common.stack.dir())).unzip();
    let door = Arc::new(Door {
        hosts,
        identities: Identities::new(common, settings.wire),
        live: ArcSwap::from_pointee(live),
        state: Mutex::new(State::new(started_at, reload.as_ref())),
        reload,
        reload_wanted: AtomicBool::new(false),
        max_graphql_bytes: 4 << 20,
        questions: Inflow::new(QUESTIONS_BYTES),
        cache_mode: settings.cache_mode,
        webhook,
        ticks: settings.ticks,
        journal: Journal::default(),
        history: History::default(),
        counters: Counters::default(),
        idle,
        large: Mutex::default(),
        on_disk: Mutex::default(),
        watching: own::places(),
        ending: AtomicBool::new(false),
        last_request: AtomicU64::new(0),
        started: Instant::now(),
        started_at,
        run: crate::github::random() as u32,
        requests: AtomicU64::new(0),
    });
    let (running, ended_upkeep) = std::sync::mpsc::channel();
    let upkeep = {
        let door = door.clone();
        std::thread::Builder::new()
            .name("upkeep".into())
            .spawn(move || upkeep::run(door, settings.statsd, ended_upkeep))
            .map_err(|cause| Error::new(Kind::Internal, "cannot start a thread").because(cause))?
    };
    let (end_deliveries, no_more_deliveries) = tokio::sync::oneshot::channel();
    let outdating = deliveries
        .map(|deliveries| tokio::spawn(outdate::run(door.clone(), deliveries, no_more_deliveries, settings.refetch)));
    let hearing = tokio::spawn(hear(door.clone()));
    let ended = async {
        tokio::select! {
            () = ended => {}
            () = door.rested(exit_when_idle) => tracing::info!("nobody asks any more"),
            () = reload::on_hangup(&door) => {}
        }
        door.ending.store(true, Ordering::Relaxed);
    };
    listener::accept(&door, listeners, max_connections, idle, grace, ended).await;
    hearing.abort();
    drop((running, end_deliveries));
    if let Some(outdating) = outdating {
        let _panicked = outdating.await;
    }
    let _panicked = upkeep.join();
    door.identities.drained().await;
    Ok(())
}

/// Hears within a second what others have outdated.
async fn hear(door: Arc<Door>) {
    if door.identities.common().share.is_none() {
        return;
    }
    let mut ticks = tokio::time::interval(HEAR_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        door.identities.own().hear().await;
    }
}
