//! Flags of `octocache serve`, `gh` and `setup`, and their help.
//!
//! Knows: names and texts. Does not know: what the values do.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::ModeArgs;
use crate::units::{Size, Span};

/// Where `serve` listens unless told otherwise.
pub(crate) const PORT: u16 = 8420;

const SERVE_EXAMPLE: &str = "\
gh, all of it, through a Unix socket
  octocache serve --unix ~/.octocache.sock &
  gh config set http_unix_socket ~/.octocache.sock

Everything that takes a base address
  octocache serve &
  new Octokit({ baseUrl: 'http://127.0.0.1:8420' })        # octokit.js
  Github(base_url='http://127.0.0.1:8420')                 # PyGithub
  curl -H \"Authorization: Bearer $GH_TOKEN\" http://127.0.0.1:8420/repos/cli/cli

Each client sends its own token, and sees what that token may see. Changes pass through, and what they
touch is asked for again. `Cache-Status` says how each answer came about.";

/// Serve GitHub's API from the cache, for gh, octokit, PyGithub, curl as they are
#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = SERVE_EXAMPLE)]
pub(crate) struct ServeArgs {
    /// Address to listen on; may be given several times [default: 127.0.0.1:8420, unless --unix is given]
    #[arg(long, value_name = "ADDRESS:PORT", env = "OCTOCACHE_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<std::net::SocketAddr>,
    /// Unix socket to listen on, for this user alone
    #[arg(long, value_name = "PATH", env = "OCTOCACHE_UNIX")]
    pub(crate) unix: Option<PathBuf>,
    /// Listen beyond this machine, too; needs --secret-file
    #[arg(long, requires = "secret_file", env = "OCTOCACHE_ALLOW_REMOTE", help_heading = "Access")]
    pub(crate) allow_remote: bool,
    /// File with a secret that each client must send as X-Octocache-Secret
    #[arg(long, value_name = "FILE", env = "OCTOCACHE_SECRET_FILE", help_heading = "Access")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Sign reads of clients that have no token with ours: who may enter may then read what we may
    #[arg(long, env = "OCTOCACHE_LEND_TOKEN", help_heading = "Access")]
    pub(crate) lend_token: bool,
    /// The plan, whose lifetimes, bounds and schedule hold where flags say nothing [default: .github/octocache.yml here or above]
    #[arg(long, value_name = "FILE", env = "OCTOCACHE_PLAN", help_heading = "Cache")]
    pub(crate) plan: Option<PathBuf>,
    /// A name by which clients may come, beside localhost and loopback addresses
    #[arg(long, value_name = "HOST", env = "OCTOCACHE_NAME", value_delimiter = ',', help_heading = "Access")]
    pub(crate) name: Vec<String>,
    /// Hand requests for this host on, too; `*` stands for labels of the name, or for characters of one
    #[arg(long, value_name = "HOST", env = "OCTOCACHE_ALLOW_HOST", value_delimiter = ',', help_heading = "Access")]
    pub(crate) allow_host: Vec<String>,
    /// Bytes of entries held in memory
    #[arg(long, value_name = "SIZE", default_value = "64MiB", env = "OCTOCACHE_MAX_MEMORY", help_heading = "Bounds")]
    pub(crate) max_memory: Size,
    /// Bytes of the store on disk; what was not used for longest goes first [default: the plan's max-size, else 2GiB]
    #[arg(long, value_name = "SIZE", env = "OCTOCACHE_MAX_SIZE", help_heading = "Bounds")]
    pub(crate) max_size: Option<Size>,
    /// Loose files beyond this number are folded into local.tar.zst, which stays on this machine
    #[arg(long, value_name = "N", default_value_t = 5_000, env = "OCTOCACHE_MAX_LOOSE", help_heading = "Bounds")]
    pub(crate) max_loose: usize,
    /// Connections at once on each listener; more wait
    #[arg(long, value_name = "N", default_value_t = 4_096, env = "OCTOCACHE_MAX_CONNECTIONS", help_heading = "Bounds")]
    pub(crate) max_connections: usize,
    /// A client that says or takes nothing for so long is let go
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "75s",
        env = "OCTOCACHE_IDLE_TIMEOUT",
        help_heading = "Bounds"
    )]
    pub(crate) idle_timeout: Span,
    /// How long requests under way may take to end after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "10s", env = "OCTOCACHE_GRACE", help_heading = "Bounds")]
    pub(crate) grace: Span,
    /// End after so long without a request [default: never]
    #[arg(long, value_name = "DURATION", env = "OCTOCACHE_EXIT_WHEN_IDLE", help_heading = "Bounds")]
    pub(crate) exit_when_idle: Option<Span>,
    /// Write where it listens into this file, as JSON, once it does; end when somebody removes it
    #[arg(long, value_name = "FILE", env = "OCTOCACHE_READY_FILE", help_heading = "Bounds")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Threads that serve [default: one per core]
    #[arg(long, value_name = "N", env = "OCTOCACHE_WORKERS", help_heading = "Bounds")]
    pub(crate) workers: Option<usize>,
    /// Answer for so long after its lifetime with what is stale, and revalidate behind the answer
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        env = "OCTOCACHE_WHILE_REVALIDATE",
        help_heading = "Cache"
    )]
    pub(crate) while_revalidate: Span,
    /// Clients, by a part of their User-Agent, for which addresses within JSON bodies lead back here, too, since
    /// they refuse those of another host; all others get GitHub's bytes
    #[arg(
        long,
        value_name = "NAME",
        default_value = "PyGithub",
        env = "OCTOCACHE_REWRITE_BODIES",
        value_delimiter = ','
    )]
    pub(crate) rewrite_bodies: Vec<String>,
    /// File with the secrets of webhooks, one a line; deliveries to /webhook outdate what they are about
    #[arg(long, value_name = "FILE", env = "OCTOCACHE_WEBHOOK_SECRET_FILE", help_heading = "Webhooks")]
    pub(crate) webhook_secret_file: Option<PathBuf>,
    /// Address for deliveries alone; it may be one that the internet reaches
    #[arg(long, value_name = "ADDRESS:PORT", env = "OCTOCACHE_WEBHOOK_LISTEN", help_heading = "Webhooks")]
    pub(crate) webhook_listen: Option<std::net::SocketAddr>,
    /// Fetch what a delivery outdates again at once, as far as memory holds it and the budget allows
    #[arg(long, requires = "webhook_secret_file", env = "OCTOCACHE_WEBHOOK_REFETCH", help_heading = "Webhooks")]
    pub(crate) webhook_refetch: bool,
    /// Warm the plan's queries and what is read by this schedule, or by the plan's, as `octocache warm` does
    #[arg(
        long,
        value_name = "CRON",
        num_args = 0..=1,
        default_missing_value = "",
        env = "OCTOCACHE_SCHEDULE",
        help_heading = "Warming"
    )]
    pub(crate) schedule: Option<String>,
    /// The schedule's time zone [default: the plan's, else UTC]
    #[arg(long, value_name = "ZONE", env = "OCTOCACHE_TIMEZONE", help_heading = "Warming")]
    pub(crate) timezone: Option<String>,
    /// Take part among peers that have the same secret: what one has, the others answer
    #[arg(long, env = "OCTOCACHE_P2P", help_heading = "Peers")]
    pub(crate) p2p: bool,
    /// Where other peers reach this one [default: the plan's, else /ip4/0.0.0.0/tcp/9100]
    #[arg(long, value_name = "ADDRESS", requires = "p2p", env = "OCTOCACHE_P2P_LISTEN", help_heading = "Peers")]
    pub(crate) p2p_listen: Option<String>,
    /// A peer to dial, as in /ip4/10.0.0.5/tcp/9100; may be given several times
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "p2p",
        env = "OCTOCACHE_P2P_BOOTSTRAP",
        value_delimiter = ',',
        help_heading = "Peers"
    )]
    pub(crate) p2p_bootstrap: Vec<String>,
    /// Tell StatsD of the numbers that /metrics shows, every ten seconds
    #[arg(long, value_name = "ADDRESS:PORT", env = "OCTOCACHE_STATSD", help_heading = "Numbers")]
    pub(crate) statsd: Option<std::net::SocketAddr>,
    /// Say X-Cache-Mode, too, for clients of ghproxy
    #[arg(long, env = "OCTOCACHE_CACHE_MODE", help_heading = "Numbers")]
    pub(crate) cache_mode: bool,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
}

const GH_EXAMPLE: &str = "\
  octocache gh issue list -R cli/cli
  octocache gh pr view 123
  octocache gh api repos/cli/cli/releases --jq '.[].tag_name'

A process that all calls of this user share is started on demand and ends after half an hour of rest. What it
asks of GitHub is signed with gh's own token. If it cannot be reached, gh runs as if it were called itself.
`octocache setup gh` does the same for every call of gh.";

/// Run gh, the real one, through the cache; its configuration stays as it is
#[derive(Debug, ClapArgs)]
#[command(after_help = GH_EXAMPLE, disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct GhArgs {
    /// What gh is called with
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

const SETUP_EXAMPLE: &str = "\
With systemd: a socket that the service manager holds for this user, and gh's setting http_unix_socket.
Whatever becomes of the process behind the socket, the next call starts it anew.
Without: --shim DIR writes a script called gh into DIR, which runs `octocache gh`; put DIR first on the PATH.";

/// Send a program through the cache for good, or take it back
#[derive(Debug, Subcommand)]
pub(crate) enum SetupCommand {
    /// gh, all of it
    #[command(after_help = SETUP_EXAMPLE)]
    Gh {
        /// Take it back
        #[arg(long)]
        undo: bool,
        /// Write a script that stands in for gh into this directory, instead
        #[arg(long, value_name = "DIR")]
        shim: Option<PathBuf>,
    },
}
