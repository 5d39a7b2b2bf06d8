//! `octocache serve`: flags become settings, signals become an end.
//!
//! Knows: what is refused before a socket is opened. Does not know: HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::args::ServeArgs;
use super::{Context, Exit, print, request_config};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::serve::{self, Hosts, Listener, Listeners, Room, Settings};
use crate::stack::Stack;

/// Requests under way to GitHub at once, for all clients of one token.
const CONCURRENCY: usize = 50;

/// A client rather hears of a limit than waits for long; it has time-outs of its own.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Threads that write behind the answers; each has memory of its own in the allocator.
const WRITERS: usize = 8;

/// The largest secret.
const MAX_SECRET_BYTES: u64 = 4 << 10;

pub(super) fn main(context: &Context, args: &ServeArgs) -> Result<Exit> {
    let mut flags = context.flags.clone();
    args.mode.lower_into(&mut flags);
    let mut config = request_config(&flags)?;
    let plan = config.plan_path.is_some().then(|| config.load_plan()).transpose()?;
    if flags.max_wait.is_none() {
        config.options.backoff.max_wait = MAX_WAIT;
    }
    config.options.concurrency = CONCURRENCY;
    let secret = args.secret_file.as_deref().map(secret).transpose()?;
    for address in &args.listen {
        may_listen(*address, args, secret.is_some())?;
    }
    let stack = Stack::new(&config.cache_dir, context.clock.clone()).with_memory(args.max_memory.0);
    let room = Room {
        max_loose: args.max_loose,
        max_bytes: args.max_size.map(|size| size.0).or(plan.as_ref().and_then(|plan| plan.max_size)),
    };
    let settings = Settings {
        hosts: Hosts::new(config.api.clone(), &args.name, &args.allow_host)?,
        ask: crate::cache::Ask { while_revalidate_secs: args.while_revalidate.0, ..args.mode.ask(config.mode) },
        common: config.common(plan.as_ref(), Arc::new(stack), context.clock.clone(), args.lend_token),
        rewrite_bodies: args.rewrite_bodies.iter().filter(|name| !name.is_empty()).cloned().collect(),
        secret,
        max_connections: args.max_connections,
        idle: Duration::from_secs(args.idle_timeout.0.max(1)),
        grace: Duration::from_secs(args.grace.0),
        exit_when_idle: args.exit_when_idle.map(|span| Duration::from_secs(span.0)),
        room,
        wire: None,
    };
    let workers = args.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
    runtime(workers)?.block_on(run(context, &config, args, settings))?;
    Ok(Exit::Done)
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

fn secret(path: &std::path::Path) -> Result<String> {
    let bytes = crate::files::read_bounded(path, MAX_SECRET_BYTES)?
        .ok_or_else(|| Error::usage(format!("there is no file {}", path.display())))?;
    let text = String::from_utf8(bytes.to_vec()).unwrap_or_default().trim().to_owned();
    if text.len() < 16 {
        return Err(Error::usage(format!("the secret in {} is shorter than 16 bytes", path.display())));
    }
    Ok(text)
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
    if !context.quiet {
        for listener in &listeners {
            print::note(&format!("serving {} at {}", config.api.origin(), listener.address()));
        }
    }
    serve::serve(settings, listeners, super::told_to_end()).await
}

async fn open(args: &ServeArgs) -> Result<Listeners> {
    let mut listeners = Listeners::new();
    #[cfg(unix)]
    if let Some(path) = &args.unix {
        listeners.push(Listener::unix(path)?);
    }
    let by_default = [SocketAddr::from(([127, 0, 0, 1], super::args::PORT))];
    let addresses = if args.listen.is_empty() && listeners.is_empty() { &by_default[..] } else { &args.listen };
    for address in addresses {
        listeners.push(Listener::tcp(*address).await?);
    }
    Ok(listeners)
}
