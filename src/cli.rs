//! The command line: what there is, and what each exit code means.
//!
//! Knows: commands, exit codes, where output goes. Does not know: how anything works.

mod action;
mod api;
mod args;
mod bundle;
mod cache;
mod config;
mod doctor;
mod event;
mod explain;
#[cfg(unix)]
mod gh;
mod log;
mod pages;
mod peers;
mod print;
mod progress;
mod reference;
mod run;
mod serve;
#[cfg(unix)]
mod setup;
mod trust;
mod warm;

use std::process::ExitCode;

use crate::clock::Clock;
use crate::config::{Config, Environment, Flags};
use crate::error::{Error, Kind, Result};
use crate::mask::Masker;
use crate::plan::{Evaluator, filter};
use crate::share::seal::Group;
use args::{Args, Command, LogFormat, P2pCommand};

/// How a command ended. `api` follows gh's codes: 0 and 1, 4 without a needed token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 1: failed.
    Failed,
    /// 2: the input is at fault.
    Usage,
    /// 3: some queries had neither an answer nor a stale copy.
    Missing,
    /// 4: a rate limit stopped it.
    Limited,
}

impl Exit {
    fn of(error: &Error) -> Self {
        match error.kind() {
            Kind::Usage => Exit::Usage,
            Kind::NotCached => Exit::Missing,
            Kind::Limited { .. } => Exit::Limited,
            _ => Exit::Failed,
        }
    }

    fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Missing => 3,
            Exit::Limited => 4,
        })
    }
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(error) => {
            print::usage(&error);
            // Help is no failure.
            let failed = if api::is_called() { Exit::Failed } else { Exit::Usage };
            return if error.use_stderr() { failed } else { Exit::Done }.code();
        }
    };
    let masker = Masker::default();
    start_log(&args, &masker);
    match dispatch(args, &masker) {
        Ok(exit) => exit.code(),
        Err(error) => {
            print::error(&masker, &error);
            Exit::of(&error).code()
        }
    }
}

fn dispatch(args: Args, masker: &Masker) -> Result<Exit> {
    let context = Context {
        flags: Flags { masker: masker.clone(), ..args.flags() },
        quiet: args.quiet(),
        verbose: args.verbose(),
        color: args.color(),
        log_is_json: args.log_format() == LogFormat::Json,
        clock: Clock::System,
    };
    match args.command {
        Command::Run(run) => run::main(&context, &run),
        Command::Warm(warm) => warm::main(&context, &warm),
        Command::Api(api) => api::main(&context, &api),
        Command::Serve(serve) => serve::main(&context, &serve),
        #[cfg(unix)]
        Command::Gh(gh) => gh::main(&context, &gh),
        #[cfg(unix)]
        Command::Setup(setup) => setup::main(&context, &setup),
        Command::Bundle(bundle) => bundle::main(&context, &bundle),
        Command::Cache(cache) => cache::main(&context, &cache),
        Command::Explain(explain) => explain::main(&context, &explain),
        Command::Config(config) => config::main(&context, &config),
        Command::Trust(trust) => trust::main(&context, &trust),
        Command::P2p(P2pCommand::Keygen) => {
            print::line(&Group::generate()?)?;
            Ok(Exit::Done)
        }
        Command::Doctor(doctor) => doctor::main(&context, &doctor),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { dir } => pages::man(&dir),
        Command::Action(action) => action::main(&context, &action),
        Command::FilterWorker => filter::serve()
            .map(|()| Exit::Done)
            .map_err(|cause| Error::new(Kind::Io, "cannot run filters").because(cause)),
    }
}

/// What every command is given.
pub(crate) struct Context {
    flags: Flags,
    quiet: bool,
    verbose: u8,
    color: args::Color,
    /// Whether machines read standard error.
    log_is_json: bool,
    clock: Clock,
}

impl Context {
    /// Masks what is written; secrets are registered as the configuration finds them.
    fn masker(&self) -> &Masker {
        &self.flags.masker
    }
}

/// What runs filters in a process of their own: this program again. They see an empty environment, or ours.
pub(crate) fn evaluator(keep_environment: bool) -> Evaluator {
    // The program may have been replaced since it was started.
    let own = std::path::PathBuf::from("/proc/self/exe");
    let program = if own.exists() { Some(own) } else { std::env::current_exe().ok() };
    program.map_or_else(Evaluator::default, |program| Evaluator::new(program, &["filter-worker"], keep_environment))
}

/// The configuration for a plan.
pub(crate) fn plan_config(flags: &Flags) -> Result<Config> {
    plan_config_again(flags).inspect(warn)
}

/// The same for a process that has told of the plan's state already.
pub(crate) fn plan_config_again(flags: &Flags) -> Result<Config> {
    Config::lower(flags, Environment::of_process(), 86_400)
}

/// Says what of a plan is not used.
fn warn(config: &Config) {
    if let Some(warning) = &config.plan_warning {
        tracing::warn!("{warning}");
    }
}

/// The configuration for single requests: what no class knows is fresh for minutes.
pub(crate) fn request_config(flags: &Flags) -> Result<Config> {
    Config::lower(flags, Environment::of_process(), 300).inspect(warn)
}

/// One thread is enough: waiting dominates, and starting threads would cost every hit.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Kind::Internal, "cannot start the runtime").because(cause))?;
    Ok(runtime.block_on(future))
}

/// Resolves when the process is told to end. From the call on, not from the first poll, a signal ends nothing by itself: whoever
/// says that it is ready has to be.
pub(crate) fn told_to_end() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        [SignalKind::terminate(), SignalKind::interrupt()].map(|kind| signal(kind).ok())
    };
    async move {
        #[cfg(unix)]
        if let [Some(mut terminate), Some(mut interrupt)] = signals {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            return;
        }
        let _whatever_it_says = tokio::signal::ctrl_c().await;
    }
}

fn start_log(args: &Args, masker: &Masker) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match (args.quiet(), args.verbose()) {
        (true, _) => LevelFilter::ERROR,
        // There, --verbose is gh's.
        (false, _) if matches!(args.command, Command::Api(_)) => LevelFilter::WARN,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let is_json = args.log_format() == LogFormat::Json;
    let colour = !is_json && print::stderr_has_colour(args.color());
    let writer = log::Writer::new(masker.clone(), is_json, colour);
    // Colours are the writer's: what comes to it has no escape sequence of our own.
    let builder =
        tracing_subscriber::fmt().with_max_level(level).with_writer(writer).with_target(false).with_ansi(false);
    // A second initialisation can only happen in tests, where the first one stands.
    let _already_there = if is_json { builder.json().try_init() } else { builder.without_time().try_init() };
}
