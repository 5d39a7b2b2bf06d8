//! `octocache serve`: flags become settings, signals become an end.
//!
//! Knows: what is refused before a socket is opened, what is read again while it is served. Does not
//! know: HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::args::ServeArgs;
use super::warm::Worker;
use super::{Context, Exit, plan_config_again, print, request_config};
use crate::cache::Ask;
use crate::config::{Config, Environment, Flags, TakesPart};
use crate::error::{Error, Kind, Result};
use crate::files::{self, Durability, Lock};
use crate::mask::Masker;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::serve::{self, Entrance, Hosts, Keys, Listener, Listeners, Live, Reload, Room, Secret, Settings};
use crate::stack::Stack;
use crate::stats::Ticks;
use crate::units::Size;

/// Requests under way to GitHub at once, for all clients of one token.
const CONCURRENCY: usize = 50;

/// A client rather hears of a limit than waits for long; it has time-outs of its own.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Threads that write behind the answers; each has memory of its own in the allocator.
const WRITERS: usize = 8;

/// Whether the ready file is still there is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The largest secret.
const MAX_SECRET_BYTES: u64 = 4 << 10;

pub(super) fn main(context: &Context, args: &ServeArgs) -> Result<Exit> {
    let mut flags = context.flags.clone();
    args.mode.lower_into(&mut flags);
    flags.plan.clone_from(&args.plan);
    let Read { mut config, plan, live } = read(&flags, args)?;
    if flags.max_wait.is_none() {
        config.options.backoff.max_wait = MAX_WAIT;
    }
    if flags.retries.is_none() {
        // Clients try again themselves.
        let backoff = &mut config.options.backoff;
        (backoff.retries, backoff.only_broken) = (backoff.retries.min(1), true);
    }
    config.options.concurrency = CONCURRENCY;
    config.takes_part = takes_part(args, config.environment());
    for address in &args.listen {
        may_listen(*address, args, live.secret.is_some())?;
    }
    if args.webhook_listen.is_some() && live.webhook_keys.is_none() {
        return Err(Error::usage("--webhook-listen needs a --webhook-secret-file"));
    }
    let stack = Stack::new(&config.cache_dir, context.clock.clone()).with_memory(args.max_memory.0);
    let (changed, changes) = watch::channel(());
    let is_warming = args.schedule.is_some();
    if is_warming {
        config.load_plan()?;
        if schedule(args, plan.as_ref())?.is_none() {
            return Err(Error::usage("there is no schedule")
                .hint("give one: --schedule '17 */6 * * *', or write `warm: { schedule: … }` into the plan"));
        }
    }
    let ticks = is_warming.then(Arc::<Ticks>::default);
    let settings = Settings {
        hosts: Hosts::new(config.api.clone(), &args.name, &args.allow_host)?,
        common: config.common(plan.as_ref(), Arc::new(stack), context.clock.clone(), args.lend_token)?,
        live,
        reload: Some(reload(&flags, args, &config, changed)),
        max_connections: args.max_connections,
        idle: Duration::from_secs(args.idle_timeout.0.max(1)),
        grace: Duration::from_secs(args.grace.0),
        exit_when_idle: args.exit_when_idle.map(|span| Duration::from_secs(span.0)),
        refetch: args.webhook_refetch,
        cache_mode: args.cache_mode,
        ticks: ticks.clone(),
        statsd: args.statsd,
        wire: None,
    };
    let workers = args.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
    let warmer = ticks.map(|ticks| Warmer { context, args, flags: &flags, changes, ticks });
    runtime(workers)?.block_on(async {
        let serving = run(context, &config, args, settings);
        match warmer {
            // The warmer ends with the server.
            Some(warmer) => tokio::select! {
                served = serving => served,
                failed = warmer.stay(&config) => failed.and(Ok(())),
            },
            None => serving.await,
        }
    })?;
    Ok(Exit::Done)
}

/// Whether and how this server takes part among peers: by flags, or by names that people used before.
fn takes_part(args: &ServeArgs, environment: &Environment) -> Option<TakesPart> {
    if !args.p2p && !environment.is_true("CACHE_ENABLE_P2P") {
        return None;
    }
    let by_port = environment.get("CACHE_LISTEN_PORT").map(|port| format!("/ip4/0.0.0.0/tcp/{port}"));
    let named = environment.get("CACHE_BOOTSTRAP_PEERS").unwrap_or_default();
    let named = named.split(',').map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned);
    let bootstrap = args.p2p_bootstrap.iter().cloned().chain(named).collect();
    Some(TakesPart { listen: args.p2p_listen.clone().or(by_port), bootstrap })
}

/// The store on disk where nobody says how large it may grow.
const MAX_STORE_BYTES: u64 = 2 << 30;

/// What stands in files and the environment.
struct Read {
    config: Config,
    plan: Option<Plan>,
    live: Live,
}

fn read(flags: &Flags, args: &ServeArgs) -> Result<Read> {
    let config = request_config(flags)?;
    let plan = config.plan_path.is_some().then(|| config.load_plan()).transpose()?;
    schedule(args, plan.as_ref())?;
    let live = Live {
        ask: Ask { while_revalidate_secs: args.while_revalidate.0, ..args.mode.ask(config.mode) },
        rewrite_bodies: args.rewrite_bodies.iter().filter(|name| !name.is_empty()).cloned().collect(),
        secret: args.secret_file.as_deref().map(|path| secret(path, &flags.masker)).transpose()?,
        webhook_keys: args.webhook_secret_file.as_deref().map(|path| webhook_keys(path, &flags.masker)).transpose()?,
        room: Room { max_loose: args.max_loose, max_bytes: max_store_bytes(args, plan.as_ref()) },
    };
    Ok(Read { config, plan, live })
}

/// How large the store may grow: as the flag says, else the plan, else a bound that fits a disk.
fn max_store_bytes(args: &ServeArgs, plan: Option<&Plan>) -> u64 {
    let by_plan = plan.and_then(|plan| plan.max_size);
    args.max_size.map(|size| size.0).or(by_plan).unwrap_or(MAX_STORE_BYTES)
}

/// By which schedule it warms: the flag's, else the plan's.
fn schedule(args: &ServeArgs, plan: Option<&Plan>) -> Result<Option<Schedule>> {
    match args.schedule.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Schedule::parse(text, args.timezone.as_deref().unwrap_or("UTC")).map(Some),
        None => Ok(plan.and_then(|plan| plan.warm.schedule.clone())),
    }
}

/// Reads all of it again: the plan's lifetimes and bounds, its schedule, the secrets.
fn reload(flags: &Flags, args: &ServeArgs, config: &Config, changed: watch::Sender<()>) -> Reload {
    let files = [&config.plan_path, &args.secret_file, &args.webhook_secret_file];
    let files = files.into_iter().flatten().cloned().collect();
    let (flags, args) = (flags.clone(), args.clone());
    let read = move || {
        let Read { config, plan, live } = read(&flags, &args)?;
        let ttls = config.ttls_with(plan.as_ref());
        changed.send_replace(());
        Ok((live, ttls))
    };
    Reload { read: Box::new(read), files }
}

/// A listener beyond this machine is asked for twice, and asks each client for a secret.
fn may_listen(address: SocketAddr, args: &ServeArgs, has_secret: bool) -> Result<()> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    if !args.allow_remote {
        return Err(Error::usage(format!("{address} can be reached from other machines"))
            .hint("listen on 127.0.0.1, or say --allow-remote and name a --secret-file"));
    }
    if !has_secret {
        return Err(Error::usage(format!("{address} can be reached from other machines, and there is no secret"))
            .hint("write one into a file and name it with --secret-file; clients send it as X-Octocache-Secret"));
    }
    Ok(())
}

fn text(path: &Path) -> Result<String> {
    let bytes = crate::files::read_bounded(path, MAX_SECRET_BYTES)?
        .ok_or_else(|| Error::usage(format!("there is no file {}", path.display())))?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap_or_default())
}

fn secret(path: &Path, masker: &Masker) -> Result<Secret> {
    let text = text(path)?.trim().to_owned();
    if text.len() < 16 {
        return Err(Error::usage(format!("the secret in {} is shorter than 16 bytes", path.display())));
    }
    masker.add(&text);
    Ok(Secret::of(text.as_bytes()))
}

fn webhook_keys(path: &Path, masker: &Masker) -> Result<Keys> {
    let text = text(path)?;
    text.lines().for_each(|line| masker.add(line));
    Keys::read(&text).ok_or_else(|| {
        Error::usage(format!("{} holds no secrets for webhooks", path.display()))
            .hint("write one to eight of them, one a line, each at least eight bytes long")
    })
}

fn runtime(workers: usize) -> Result<tokio::runtime::Runtime> {
    let mut builder = match workers {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    let built = builder.enable_all().max_blocking_threads(WRITERS).build();
    built.map_err(|cause| Error::new(Kind::Internal, "cannot start the runtime").because(cause))
}

async fn run(context: &Context, config: &Config, args: &ServeArgs, settings: Settings) -> Result<()> {
    let mut listeners = Listener::inherited()?;
    if listeners.is_empty() {
        listeners = open(args).await?;
    }
    if let Some(address) = args.webhook_listen {
        listeners.push((Listener::tcp(address).await?, Entrance::Deliveries));
    }
    let told_to_end = super::told_to_end();
    let serving = listeners.iter().map(|(listener, entrance)| match entrance {
        Entrance::All => format!("serving {} at {}", config.api.origin(), listener.address()),
        Entrance::Deliveries => format!("taking deliveries at {}/webhook", listener.address()),
    });
    let store = (config.cache_dir.display(), Size(settings.live.room.max_bytes));
    let bound = format!("the store {} takes at most {} (--max-size)", store.0, store.1);
    for text in serving.chain([bound]) {
        if context.log_is_json {
            tracing::info!("{text}");
        } else if !context.quiet {
            print::note(context.masker(), &text);
        }
    }
    let ready = args.ready_file.as_deref().map(|path| Ready::say(path, &listeners)).transpose()?;
    let ended = async {
        tokio::select! {
            () = told_to_end => {}
            () = Ready::removed(ready.as_ref()) => tracing::info!("the file that said it is ready is gone"),
        }
    };
    serve::serve(settings, listeners, ended).await
}

/// The file that says where it listens, and the lock beside it, which lasts as long as the process:
/// whoever removes the one and gets the other knows that everything is written.
struct Ready {
    path: PathBuf,
    _lock: Lock,
}

impl Ready {
    fn say(path: &Path, listeners: &Listeners) -> Result<Self> {
        let lock_path = lock_of(path);
        let failed = |cause| Error::io("lock", &lock_path, cause);
        let lock = Lock::open(&lock_path).map_err(failed)?;
        if !lock.take().unwrap_or(false) {
            return Err(Error::usage(format!("another process serves by {}", path.display())));
        }
        let addresses: Vec<String> = listeners.iter().map(|(listener, _)| listener.address()).collect();
        let text = serde_json::json!({ "pid": std::process::id(), "addresses": addresses }).to_string();
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        files::write_atomic(path, dir, text.as_bytes(), Durability::Rename)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    async fn removed(ready: Option<&Self>) {
        let Some(ready) = ready else { return std::future::pending().await };
        while ready.path.exists() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The lock beside a ready file.
pub(super) fn lock_of(ready_file: &Path) -> PathBuf {
    let mut name = ready_file.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

async fn open(args: &ServeArgs) -> Result<Listeners> {
    let mut listeners = Listeners::new();
    #[cfg(unix)]
    if let Some(path) = &args.unix {
        listeners.push((Listener::unix(path)?, Entrance::All));
    }
    let by_default = [SocketAddr::from(([127, 0, 0, 1], super::args::PORT))];
    let addresses = if args.listen.is_empty() && listeners.is_empty() { &by_default[..] } else { &args.listen };
    for address in addresses {
        listeners.push((Listener::tcp(*address).await?, Entrance::All));
    }
    Ok(listeners)
}

/// A worker that warms by a schedule beside the clients.
struct Warmer<'a> {
    context: &'a Context,
    args: &'a ServeArgs,
    flags: &'a Flags,
    changes: watch::Receiver<()>,
    ticks: Arc<Ticks>,
}

impl Warmer<'_> {
    /// Ticks by the schedule in force; never ends by itself.
    async fn stay(&self, serving: &Config) -> Result<std::convert::Infallible> {
        let mut changes = self.changes.clone();
        loop {
            changes.borrow_and_update();
            let mut config = plan_config_again(self.flags)?;
            // What is sent is counted with what clients cause.
            config.options.tally = serving.options.tally.clone();
            match self.plan(&config) {
                Ok(plan) if plan.warm.schedule.is_some() => {
                    let worker = Worker { context: self.context, config: &config, plan: &plan };
                    let tick = async || self.tick(&worker).await;
                    let mut changes = changes.clone();
                    let another_plan = async {
                        let _or_the_end = changes.changed().await;
                    };
                    worker.stay(|next| self.ticks.announce(next), tick, another_plan).await?;
                }
                Ok(_) => tracing::info!("there is no schedule any more; nothing is warmed"),
                // It was sound a moment ago; the next change is looked at again.
                Err(error) => tracing::warn!(%error, "nothing is warmed until the plan changes"),
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn plan(&self, config: &Config) -> Result<Plan> {
        let mut plan = config.load_plan()?;
        plan.warm.schedule = schedule(self.args, Some(&plan))?;
        Ok(plan)
    }

    async fn tick(&self, worker: &Worker<'_>) {
        let now = || self.context.clock.now();
        match worker.tick(true).await {
            Ok(Some((tick, _))) => {
                let totals = &tick.index.totals;
                let refreshed = tick.refreshed as u64 + totals.revalidated as u64 + totals.fetched as u64;
                tracing::info!(refreshed, left = tick.left, requests = totals.requests, "a tick has ended");
                self.ticks.done(now(), refreshed, tick.left as u64);
            }
            Ok(None) => tracing::info!("another worker is at it; this tick is left to that one"),
            Err(error) => {
                // The next tick may find GitHub, the plan or the disk in a better state.
                tracing::warn!(%error, "a tick has failed");
                self.ticks.failed(now());
            }
        }
    }
}
