//! The plan: which queries to answer, checked before any request.
//!
//! Knows: what a plan means and every way in which it can be wrong, with line and column. Does
//! not know: caches, files written, terminals (`run`).

pub(crate) mod check;
pub mod document;
pub mod expand;
pub mod filter;
mod graph;
pub mod lineage;
pub mod output;
pub mod recipe;
pub(crate) mod redact;
pub mod spec;
pub mod template;
mod triage;

pub mod dry;
pub mod report;
pub mod run;
pub mod workspace;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::error::{Error, Kind, Result};
use crate::github::Reserve;
use crate::partition::Partition;
use crate::policy::TtlTable;
use crate::schedule::Schedule;
use crate::stack::BundleRules;
pub use filter::Evaluator;
use filter::Filter;
use lineage::Lineage;
use recipe::Recipe;
pub use redact::Redaction;
use spec::{PlanSpec, QuerySpec, Site, Via};
use template::Template;

/// The largest plan that is read.
pub const MAX_PLAN_BYTES: u64 = 1 << 20;

/// Where a plan is looked for, below the project's root.
pub const DEFAULT_PATH: &str = ".github/octocache.yml";

/// A plan, checked: running it can fail only at GitHub or at the disk.
#[derive(Debug)]
pub struct Plan {
    /// The file's name, for messages and reports.
    pub name: String,
    /// Where results go, as written: below the project or the working directory.
    pub output_dir: Option<PathBuf>,
    /// The store, as written.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that the store's loose files may take.
    pub max_size: Option<u64>,
    /// Requests that one run may send.
    pub max_requests: Option<u32>,
    /// What warming leaves to everybody else.
    pub reserve: Option<Reserve>,
    /// How it is kept warm.
    pub warm: Warm,
    /// Names for placeholders.
    pub vars: BTreeMap<String, String>,
    /// TTLs.
    pub ttls: TtlTable,
    /// What is removed from results, and whether credentials are masked.
    pub redaction: Rc<Redaction>,
    /// What may enter the bundle.
    pub narrow: BundleRules,
    /// Where answers are shared.
    pub share: Shared,
    /// The queries, each after those whose results it needs.
    pub queries: Vec<Query>,
}

/// How a plan is kept warm.
#[derive(Debug, Clone, Default)]
pub struct Warm {
    /// When.
    pub schedule: Option<Schedule>,
    /// How long after the next tick answers must still be fresh.
    pub ahead_secs: Option<u64>,
    /// What nobody has read for so long is left out.
    pub idle_secs: Option<u64>,
    /// A tick comes up to so much later.
    pub jitter_secs: Option<u64>,
}

/// Where a plan sends data: its store, and the places it shares with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destinations {
    /// The store, as written.
    pub cache_dir: Option<PathBuf>,
    /// Where answers are shared.
    pub share: Shared,
}

/// Where answers are shared, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// A Redis.
    pub redis: Option<SharedRedis>,
    /// Peers.
    pub p2p: Option<SharedPeers>,
    /// An IPFS node.
    pub ipfs: Option<SharedIpfs>,
    /// The variable that holds the secret.
    pub secret: Option<String>,
    /// Whether the token is the secret.
    pub secret_from_token: bool,
}

/// Peers, as written; see `spec::P2pSpec`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedPeers {
    /// Where a server can be reached.
    pub listen: Option<String>,
    /// Peers that are dialled.
    pub bootstrap: Vec<String>,
    /// Whether peers are looked for in the local network.
    pub mdns: bool,
    /// Whose answers are shared; `None` stands for this machine's own identity.
    pub partitions: Vec<Option<Partition>>,
    /// TTL classes that are shared.
    pub families: Vec<String>,
    /// Whether public answers are taken without asking GitHub.
    pub trust_public: bool,
    /// Whether this machine announces nothing.
    pub read_only: bool,
    /// Peers whose announcements are taken.
    pub writers: Vec<String>,
    /// No copy is waited for longer, in milliseconds.
    pub timeout_ms: Option<u32>,
}

/// An IPFS node, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedIpfs {
    /// The address of its API.
    pub api: String,
    /// The variable that holds what the API wants to see in `Authorization`.
    pub authorization: Option<String>,
    /// No look-up is waited for longer, in milliseconds.
    pub timeout_ms: Option<u32>,
}

/// A Redis, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRedis {
    /// Where its address is.
    pub url: Address,
    /// No operation is waited for longer, in milliseconds.
    pub timeout_ms: Option<u32>,
    /// Whether it is only read.
    pub read_only: bool,
}

/// An address that may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// It holds none, and is written down.
    Literal(String),
    /// It is in a variable of this name.
    Variable(String),
}

/// One query.
#[derive(Debug)]
pub struct Query {
    /// Its name.
    pub name: String,
    /// What it asks.
    pub source: Source,
    /// Once per item of this.
    pub for_each: Option<ForEach>,
    /// Which API is asked.
    pub via: Via,
    /// Whether all pages are fetched and joined.
    pub paginate: bool,
    /// Fresh for so long.
    pub ttl_secs: Option<u64>,
    /// Stale answers may stand in for so long.
    pub stale_secs: Option<u64>,
    /// Representation.
    pub accept: Option<String>,
    /// API version.
    pub api_version: Option<String>,
    /// What is made of the result.
    pub filter: Option<Rc<Filter>>,
    /// Which part of the result counts as news.
    pub watch: Option<Rc<Filter>>,
    /// The result's file.
    pub output: Template,
    /// Names for this query's placeholders.
    pub vars: BTreeMap<String, Template>,
}

/// What a query asks.
#[derive(Debug)]
pub enum Source {
    /// A REST path.
    Get(Template),
    /// A named recipe.
    Recipe(&'static Recipe),
    /// A GraphQL document with variables.
    Graphql {
        /// The document.
        document: String,
        /// Variables; strings may hold placeholders.
        variables: serde_json::Map<String, serde_json::Value>,
    },
}

/// Where items come from.
#[derive(Debug)]
pub enum ForEach {
    /// They are written down.
    List(Vec<String>),
    /// From another query's result.
    Query {
        /// The other query.
        query: String,
        /// What of its result.
        items: Rc<Filter>,
        /// Which fields of the items prove unchanged what follows from them.
        fresh_while: Option<Rc<Lineage>>,
    },
}

impl Plan {
    /// Reads and checks the plan at `path`.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = crate::files::read_bounded(path, MAX_PLAN_BYTES).map_err(|error| match error.kind() {
            Kind::TooLarge => Error::usage(format!("{name} is larger than {} MiB", MAX_PLAN_BYTES >> 20))
                .hint("a plan holds queries, not data"),
            _ => error,
        })?;
        let bytes = bytes.ok_or_else(|| {
            Error::usage(format!("there is no plan at {name}"))
                .hint("write one (see `octocache run --help`), or name another with --plan")
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::usage(format!("{name} is not UTF-8 text")))?;
        Self::parse(text, &name, path.parent().unwrap_or(Path::new(".")))
    }

    /// Checks a plan's text. `name` is for messages; GraphQL documents are found beside `dir`. Filters that need a
    /// process of their own fail when they are run: see [`Plan::parse_with`].
    pub fn parse(text: &str, name: &str, dir: &Path) -> Result<Self> {
        Self::parse_with(text, name, dir, &Evaluator::default())
    }

    /// The same with filters run by `evaluator`, where they may take more than in proportion to their input.
    pub fn parse_with(text: &str, name: &str, dir: &Path, evaluator: &Evaluator) -> Result<Self> {
        let spec = PlanSpec::parse(text).map_err(|error| error.within_file(name))?;
        check::check(&spec, name, dir, evaluator)
    }

    /// Where a plan's text sends data, without a look at its queries. `name` is for messages.
    pub fn destinations(text: &str, name: &str, dir: &Path) -> Result<Destinations> {
        let spec = PlanSpec::parse(text).map_err(|error| error.within_file(name))?;
        check::destinations(&spec, name, dir)
    }

    /// A plan of inline lines `name = GET /path`, as the Action's `query` input takes them.
    pub fn inline(lines: &str) -> Result<Self> {
        let mut spec = PlanSpec::default();
        for (at, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bad = || {
                Error::usage(format!("query:{}: `{}` is no query", at + 1, line.escape_debug()))
                    .hint("write lines like `releases = GET /repos/{owner}/{repo}/releases`")
            };
            let (name, path) = line.split_once('=').ok_or_else(bad)?;
            let path = path.trim().strip_prefix("GET ").ok_or_else(bad)?.trim();
            let query = QuerySpec { get: Some(Site::at(path.to_owned(), at + 1)), ..QuerySpec::default() };
            if spec.queries.insert(name.trim().to_owned(), Site::at(query, at + 1)).is_some() {
                return Err(bad().within("the name is taken"));
            }
        }
        check::check(&spec, "query", Path::new("."), &Evaluator::default())
    }

    /// Only the queries called so, and those that they need.
    pub fn only(mut self, names: &[String]) -> Result<Self> {
        if names.is_empty() {
            return Ok(self);
        }
        let mut wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        for name in names {
            if !self.queries.iter().any(|query| query.name == *name) {
                let known = self.queries.iter().map(|query| query.name.as_str());
                return Err(
                    Error::usage(format!("there is no query `{}`", name.escape_debug())).hint(nearest(name, known))
                );
            }
        }
        // Needed queries stand before those that need them.
        for query in self.queries.iter().rev() {
            if let (true, Some(ForEach::Query { query: needed, .. })) =
                (wanted.contains(&query.name.as_str()), &query.for_each)
            {
                wanted.push(needed);
            }
        }
        let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
        self.queries.retain(|query| wanted.contains(&query.name));
        Ok(self)
    }
}

/// "did you mean" for a word, or what there is.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let distance = |a: &str, b: &str| -> usize {
        let mut row: Vec<usize> = (0..=b.chars().count()).collect();
        for (i, x) in a.chars().enumerate() {
            let mut corner = std::mem::replace(&mut row[0], i + 1);
            for (j, y) in b.chars().enumerate() {
                let step = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
                corner = std::mem::replace(&mut row[j + 1], step);
            }
        }
        row.pop().unwrap_or(0)
    };
    let word: String = word.chars().take(64).collect();
    match known.iter().map(|name| (distance(&word, name), *name)).min() {
        Some((far, name)) if far <= (word.len() / 2).max(2) => format!("did you mean `{name}`?"),
        _ => format!("known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
