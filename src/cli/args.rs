//! Flags and their help.
//!
//! Knows: names, texts, environment variables. Does not know: what the values do.

#![allow(clippy::doc_markdown, rustdoc::bare_urls, reason = "these texts are read on terminals")]

mod api;
mod bundle;
mod serve;
mod start;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::cache::Ask;
use crate::config::Flags;
use crate::error::Error;
use crate::policy::Mode;
use crate::tag::Scope;
use crate::units::{Size, Span};
pub(crate) use api::ApiArgs;
pub(crate) use bundle::{BundleCommand, BundleFile};
pub(crate) use serve::{GhArgs, PORT, ServeArgs, SetupCommand};

/// One cache for GitHub API responses that every job, runner and developer of a project shares.
#[derive(Debug, Parser)]
#[command(name = "octocache", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    everywhere: Everywhere,
}

// What every command takes; as documentation this would be the program's description.
#[derive(Debug, ClapArgs)]
struct Everywhere {
    /// Directory of the store [default: the plan's, else .cache/github beside it, else the user's cache]
    #[arg(long, global = true, value_name = "DIR", env = "OCTOCACHE_CACHE_DIR", help_heading = "Everywhere")]
    cache_dir: Option<PathBuf>,

    /// Address of the API [default: $GITHUB_API_URL, else https://api.github.com]
    #[arg(long, global = true, value_name = "URL", env = "OCTOCACHE_API_URL", help_heading = "Everywhere")]
    api_url: Option<String>,

    /// File that holds the token [default: $GH_TOKEN, $GITHUB_TOKEN, then gh's own]
    #[arg(long, global = true, value_name = "FILE", env = "OCTOCACHE_TOKEN_FILE", help_heading = "Everywhere")]
    token_file: Option<PathBuf>,

    /// Name for whose view is cached [default: by token]
    #[arg(long, global = true, value_name = "NAME", env = "OCTOCACHE_PARTITION", help_heading = "Everywhere")]
    partition: Option<String>,

    /// How often a failed request is tried again; 0 for never [default: 4; for serve 1, and a broken connection only]
    #[arg(long, global = true, value_name = "N", env = "OCTOCACHE_RETRIES", help_heading = "Everywhere")]
    retries: Option<u32>,

    /// How long one request may wait for limits and retries, if there is no stale answer [default: 90s]
    #[arg(long, global = true, value_name = "DURATION", env = "OCTOCACHE_MAX_WAIT", help_heading = "Everywhere")]
    max_wait: Option<Span>,

    /// How log lines on stderr look
    #[arg(long, global = true, value_enum, default_value_t, env = "OCTOCACHE_LOG_FORMAT", help_heading = "Everywhere")]
    log_format: LogFormat,

    /// Say more; twice for every request
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Everywhere")]
    verbose: u8,

    /// Say only what went wrong
    // Not for every command by its short name: `api -q` is jq, as gh has it.
    #[arg(short, long)]
    quiet: bool,

    /// When to use colours; NO_COLOR is respected
    #[arg(long, global = true, value_enum, default_value_t, env = "OCTOCACHE_COLOR", help_heading = "Everywhere")]
    color: Color,
}

const EXAMPLES: &str = "\
Examples:
  octocache api /repos/cli/cli --jq .stargazers_count   ask once, then answer from the cache
  octocache explain /repos/cli/cli                      why a request hits or misses
  octocache run --dry-run                               what the plan would cost
  octocache run                                         answer the plan, write JSON files
  octocache warm                                        keep what is read fresh for the others
  octocache serve                                       answer gh, octokit, PyGithub, curl as they are
  octocache gh issue list                               gh itself, through the cache
  octocache cache stats                                 what the cache has saved

Exit codes: 0 done, 1 failed, 2 the input is at fault, 3 some queries had neither an
answer nor a stale copy, 4 a rate limit stopped it.";

impl Args {
    pub(crate) fn quiet(&self) -> bool {
        self.everywhere.quiet
    }

    pub(crate) fn verbose(&self) -> u8 {
        self.everywhere.verbose
    }

    pub(crate) fn color(&self) -> Color {
        self.everywhere.color
    }

    pub(crate) fn log_format(&self) -> LogFormat {
        self.everywhere.log_format
    }

    pub(crate) fn flags(&self) -> Flags {
        let Everywhere { cache_dir, api_url, token_file, partition, retries, max_wait, .. } = &self.everywhere;
        Flags {
            cache_dir: cache_dir.clone(),
            api_url: api_url.clone(),
            token_file: token_file.clone(),
            partition: partition.clone(),
            retries: *retries,
            max_wait: *max_wait,
            evaluator: super::evaluator(false),
            ..Flags::default()
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer the queries of a plan and write the results as JSON files
    Run(RunArgs),
    /// Refresh what would be stale before the next tick, and save the bundle
    Warm(WarmArgs),
    /// Answer one request, like `gh api`, through the cache
    Api(ApiArgs),
    /// Serve GitHub's API from the cache, for gh, octokit, PyGithub, curl as they are
    Serve(Box<ServeArgs>),
    /// Run gh, the real one, through the cache; its configuration stays as it is
    #[cfg(unix)]
    Gh(GhArgs),
    /// Send a program through the cache for good, or take it back
    #[cfg(unix)]
    #[command(subcommand)]
    Setup(SetupCommand),
    /// Save the store as one file, or put such a file in place
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Look into the store, invalidate and remove
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Say what would be done with a request, and why
    Explain(ExplainArgs),
    /// Check a plan, show the settings in force, print the plan's JSON Schema
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Let a plan that is found, not named by --plan, say where data goes
    Trust(TrustArgs),
    /// Make the secret of those who share sealed copies
    #[command(subcommand)]
    P2p(P2pCommand),
    /// Say what works and what does not: token, limits, store, bundle, plan, gh
    Doctor(DoctorArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory
    Man {
        /// The directory; it is made if it is not there
        dir: PathBuf,
    },
    /// A step of the GitHub Action
    #[command(hide = true)]
    Action(ActionArgs),
    /// Run filters for another process of this program
    #[command(hide = true)]
    FilterWorker,
}

/// What may be used and asked.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct ModeArgs {
    /// Answer from the cache only, stale answers too; send nothing
    #[arg(long, group = "mode", env = "OCTOCACHE_OFFLINE", help_heading = "Cache")]
    offline: bool,
    /// Neither read nor write the cache
    #[arg(long, group = "mode", env = "OCTOCACHE_NO_CACHE", help_heading = "Cache")]
    no_cache: bool,
    /// Fetch anew what is asked for, and store it
    #[arg(long, alias = "fresh", group = "mode", env = "OCTOCACHE_FORCE_REFRESH", help_heading = "Cache")]
    force_refresh: bool,
    /// Ask GitHub whether stored answers are current, however fresh they are
    #[arg(long, group = "mode", env = "OCTOCACHE_REVALIDATE", help_heading = "Cache")]
    revalidate: bool,
    /// Take any stored answer, however stale; fetch only what is missing
    #[arg(long, group = "mode", env = "OCTOCACHE_PREFER_CACHE", help_heading = "Cache")]
    prefer_cache: bool,
    /// Answers are fresh for so long (90s, 15m, 24h, 7d), instead of what their class says
    #[arg(long, alias = "cache-ttl", value_name = "DURATION", env = "OCTOCACHE_TTL", help_heading = "Cache")]
    ttl: Option<Span>,
    /// How long stale answers may stand in when GitHub cannot answer
    #[arg(long, value_name = "DURATION", env = "OCTOCACHE_STALE_IF_ERROR", help_heading = "Cache")]
    stale_if_error: Option<Span>,
}

impl ModeArgs {
    /// The mode, as the flags say, else as the environment does.
    pub(crate) fn ask(&self, environment: Option<Mode>) -> Ask {
        let flags = [
            (self.offline, Mode::OnlyIfCached),
            (self.no_cache, Mode::NoStore),
            (self.force_refresh, Mode::Reload),
            (self.revalidate, Mode::NoCache),
            (self.prefer_cache, Mode::ForceCache),
        ];
        let mode = flags.into_iter().find_map(|(given, mode)| given.then_some(mode));
        Ask::default().mode(mode.or(environment).unwrap_or_default())
    }

    pub(crate) fn lower_into(&self, flags: &mut Flags) {
        flags.ttl = self.ttl;
        flags.stale_if_error = self.stale_if_error;
    }
}

const PLAN_EXAMPLE: &str = "\
A small plan, .github/octocache.yml:

  version: 1
  queries:
    releases: { recipe: releases }
    latest:   { get: '/repos/{owner}/{repo}/releases/latest', jq: .tag_name }

Each query writes one file into the output directory; index.json says where each answer
came from, how old it is, and what it cost. `octocache config schema` has all keys.";

/// Answer the queries of a plan and write the results as JSON files
#[derive(Debug, ClapArgs)]
#[command(after_help = PLAN_EXAMPLE)]
pub(crate) struct RunArgs {
    /// The plan [default: .github/octocache.yml here or above]
    #[arg(long, value_name = "FILE", env = "OCTOCACHE_PLAN")]
    pub(crate) plan: Option<PathBuf>,
    /// A query instead of a plan: `name = GET /path`; may be given several times
    #[arg(long, value_name = "QUERY", conflicts_with = "plan")]
    pub(crate) query: Vec<String>,
    /// Only this query and what it needs; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Send and write nothing; say what would be asked and what it would cost
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Directory for the results [default: the plan's, else .octocache]
    #[arg(long, value_name = "DIR", env = "OCTOCACHE_OUTPUT_DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Send at most so many requests; what is left stays stale
    #[arg(long, value_name = "N", env = "OCTOCACHE_MAX_REQUESTS")]
    pub(crate) max_requests: Option<u32>,
    /// Requests under way at once
    #[arg(long, value_name = "N", default_value_t = crate::github::CONCURRENCY as u32, value_parser = clap::value_parser!(u32).range(1..=100), env = "OCTOCACHE_CONCURRENCY")]
    pub(crate) concurrency: u32,
    /// Ask no GraphQL batches; each resource by REST
    #[arg(long, env = "OCTOCACHE_REST_ONLY", conflicts_with = "graphql_only")]
    pub(crate) rest_only: bool,
    /// Ask GraphQL alone for what it can give in batches; no REST where it fails
    #[arg(long, env = "OCTOCACHE_GRAPHQL_ONLY")]
    pub(crate) graphql_only: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Say only what went wrong
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
}

const WARM_EXAMPLE: &str = "\
One tick, then it ends: for cron, systemd timers and scheduled workflows
  octocache warm

Resident, by the plan's `warm.schedule` or another one
  octocache warm --schedule
  octocache warm --schedule '17 */6 * * *' --timezone Europe/Berlin

A tick runs the plan, then refreshes what else is stored and was read of late. What stays fresh until the
next tick is left alone, and a tenth of the rate limit is left to everybody else (`budget.reserve`).";

/// Refresh what would be stale before the next tick, and save the bundle
#[derive(Debug, ClapArgs)]
#[command(after_help = WARM_EXAMPLE)]
pub(crate) struct WarmArgs {
    /// The plan [default: .github/octocache.yml here or above]
    #[arg(long, value_name = "FILE", env = "OCTOCACHE_PLAN")]
    pub(crate) plan: Option<PathBuf>,
    /// One tick, then end; the default
    #[arg(long, conflicts_with = "schedule")]
    pub(crate) once: bool,
    /// Stay and tick by this schedule, or by the plan's
    #[arg(long, value_name = "CRON", num_args = 0..=1, default_missing_value = "", env = "OCTOCACHE_SCHEDULE")]
    pub(crate) schedule: Option<String>,
    /// The schedule's time zone [default: the plan's, else UTC]
    #[arg(long, value_name = "ZONE", env = "OCTOCACHE_TIMEZONE")]
    pub(crate) timezone: Option<String>,
    /// How long after the next tick answers must still be fresh [default: the plan's, else 30m]
    #[arg(long, value_name = "DURATION", env = "OCTOCACHE_AHEAD")]
    pub(crate) ahead: Option<Span>,
    /// Leave out what the plan does not name and nobody has read for so long [default: the plan's, else 7d]
    #[arg(long, value_name = "DURATION", env = "OCTOCACHE_IDLE")]
    pub(crate) idle: Option<Span>,
    /// A tick comes up to so much later [default: the plan's, else 30s]
    #[arg(long, value_name = "DURATION", env = "OCTOCACHE_JITTER")]
    pub(crate) jitter: Option<Span>,
    /// Say what was decided about each entry that the plan does not name
    #[arg(long)]
    pub(crate) explain: bool,
    /// Send at most so many requests in a tick
    #[arg(long, value_name = "N", env = "OCTOCACHE_MAX_REQUESTS")]
    pub(crate) max_requests: Option<u32>,
    /// Print each tick's report as JSON, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

const TRUST_EXAMPLE: &str = "\
A plan that is found in the working directory or above answers queries. That it also says where data goes (`share`, a
`cache.dir` outside of the project) takes your word once: it may have come with a clone. The word is for this file
as it is now; when it changes, it is asked for again. A plan that is named by --plan or OCTOCACHE_PLAN needs no trust.";

/// Let a plan that is found, not named by --plan, say where data goes
#[derive(Debug, ClapArgs)]
#[command(after_help = TRUST_EXAMPLE)]
pub(crate) struct TrustArgs {
    /// The plan, or its project's directory [default: .github/octocache.yml here or above]
    pub(crate) plan: Option<PathBuf>,
    /// List the plans that are trusted
    #[arg(long, conflicts_with_all = ["plan", "revoke"])]
    pub(crate) list: bool,
    /// End the trust in the plan
    #[arg(long)]
    pub(crate) revoke: bool,
}

const DOCTOR_EXAMPLE: &str = "\
Each line begins with ok, note or bad; bad ones end with what to do about them. No secret is printed.
Exit code 1 when something is bad.";

/// Say what works and what does not
#[derive(Debug, ClapArgs)]
#[command(after_help = DOCTOR_EXAMPLE)]
pub(crate) struct DoctorArgs {
    /// Send nothing: look only at this machine
    #[arg(long, env = "OCTOCACHE_OFFLINE")]
    pub(crate) offline: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Say what would be done with a request, and why
#[derive(Debug, ClapArgs)]
pub(crate) struct ExplainArgs {
    /// Path such as /repos/OWNER/REPO
    pub(crate) endpoint: String,
    /// Media type asked for
    #[arg(long, value_name = "TYPE", default_value = "*/*")]
    pub(crate) accept: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum P2pCommand {
    /// Print a new secret; whoever has it can read what is shared, and share
    Keygen,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Who shares with the server that uses this store: addresses, roles, what went to and fro
    Peers {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Print it anew every other second, until it is interrupted
        #[arg(long, conflicts_with = "json")]
        watch: bool,
    },
    /// What the cache has answered and saved, over all runs
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List what is stored
    List {
        /// Only this scope (repo:O/R, org:O, user:U, family:CLASS, a key, /a/path)
        #[arg(default_value = "all")]
        scope: Scope,
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Print a stored entry: metadata, then the body
    Show {
        /// Its key (at least 4 digits), or a path
        entry: String,
        /// Print the body only, byte for byte
        #[arg(long)]
        body: bool,
    },
    /// Mark as to be revalidated before it answers again
    Invalidate {
        /// all, repo:O/R, org:O, user:U, family:CLASS, a key, /a/path; tags joined by +
        scope: Scope,
    },
    /// Remove entries, bodies too
    Clear {
        /// What to remove
        scope: Scope,
    },
    /// Remove what was not used for long, or the least recently used beyond a size
    Clean {
        /// Not used for so long; of what is in a bundle, the day is known
        #[arg(long, value_name = "DURATION")]
        older_than: Option<Span>,
        /// Keep at most so many bytes, loose files and bundles together [default: the plan's max-size]
        #[arg(long, value_name = "SIZE")]
        max_size: Option<Size>,
    },
    /// Read everything and check every digest
    Verify,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a plan without asking anything
    Check {
        /// The plan [default: .github/octocache.yml here or above]
        plan: Option<PathBuf>,
    },
    /// Show the settings in force and where they come from
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the plan's JSON Schema, for editors
    Schema,
    /// Print all keys of a plan, or all TTL classes, as Markdown
    Reference {
        /// Which of them
        #[arg(value_enum)]
        page: ReferencePage,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReferencePage {
    /// The keys of a plan.
    Plan,
    /// TTL classes.
    Ttl,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ActionArgs {
    /// Which step
    pub(crate) step: ActionStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActionStep {
    /// Check the inputs, name the keys
    Plan,
    /// Answer the plan
    Run,
    /// Fail the job where it should
    Verdict,
    /// Name the keys for a proxy's bundle
    Keys,
    /// Start a proxy for the steps to come
    Start,
    /// End it, and save
    Stop,
}

impl From<Error> for clap::Error {
    fn from(error: Error) -> Self {
        clap::Error::raw(clap::error::ErrorKind::ValueValidation, error)
    }
}
