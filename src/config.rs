//! Configuration, lowered once: flags, environment and files become the values that the rest of
//! the program takes.
//!
//! Knows: every environment variable that is read. Does not know: what is done with the values.

mod environment;
mod gh;
mod git;
mod host;
mod plan_file;
pub(crate) mod share;
mod store;
mod token;
mod trust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::batch::Batching;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::github::{App, Backoff, GitHub, Identity, Options, Proxy, Reserve};
use crate::mask::Masker;
use crate::partition::Partition;
use crate::plan::{DEFAULT_PATH, Evaluator, Plan};
use crate::policy::TtlTable;
use crate::request::Api;
use crate::serve::Common;
use crate::stack::Stack;
use crate::token::Token;
use crate::units::Span;
pub use environment::{ACCEPTED, Environment};
pub use gh::{GhConfig, Places};
pub use plan_file::{Candidate, plan_at};
use plan_file::{PlanFile, Search};
pub use trust::{TrustList, TrustedPlan};

/// Where results go unless the plan or the user says otherwise.
pub const OUTPUT_DIR: &str = ".octocache";

/// What the user typed, as far as it is for every command.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--cache-dir`.
    pub cache_dir: Option<PathBuf>,
    /// `--api-url`.
    pub api_url: Option<String>,
    /// `--token-file`.
    pub token_file: Option<PathBuf>,
    /// `--partition`.
    pub partition: Option<String>,
    /// `--plan`.
    pub plan: Option<PathBuf>,
    /// `--ttl`.
    pub ttl: Option<Span>,
    /// `--stale-if-error`.
    pub stale_if_error: Option<Span>,
    /// `--max-requests`.
    pub max_requests: Option<u32>,
    /// `--concurrency`.
    pub concurrency: Option<usize>,
    /// `--rest-only`.
    pub rest_only: bool,
    /// `--graphql-only`.
    pub graphql_only: bool,
    /// `--retries`.
    pub retries: Option<u32>,
    /// `--max-wait`.
    pub max_wait: Option<Span>,
    /// Where secrets are registered as they are found, so that no output repeats them.
    pub masker: Masker,
    /// What runs the plan's filters, where they need a process of their own.
    pub evaluator: Evaluator,
}

/// The values in force. Nothing here can print a token.
#[derive(Debug)]
pub struct Config {
    /// The API.
    pub api: Api,
    /// The token and where it was found.
    pub token: Option<(Token, String)>,
    /// Whose view is cached.
    pub partition: Partition,
    /// The store.
    pub cache_dir: PathBuf,
    /// The plan's file, where there is one.
    pub plan_path: Option<PathBuf>,
    /// What of a plan is not used, and why.
    pub plan_warning: Option<String>,
    /// How GitHub is reached.
    pub options: Options,
    /// TTLs from flags and environment; a plan's come on top.
    pub ttls: TtlTable,
    /// Whether the environment turns the cache off or asks for fresh answers only.
    pub mode: Option<crate::policy::Mode>,
    /// Which APIs batches may ask, and how much at once.
    pub batching: Batching,
    /// How a server takes part among peers; a process that comes and goes only reaches out.
    pub takes_part: Option<TakesPart>,
    plan_file: Option<PlanFile>,
    evaluator: Evaluator,
    environment: Environment,
}

/// How a server takes part among peers.
#[derive(Debug, Clone, Default)]
pub struct TakesPart {
    /// Where others reach it.
    pub listen: Option<String>,
    /// Peers that are dialled, beside the plan's.
    pub bootstrap: Vec<String>,
}

impl Config {
    /// Lowers flags over the environment over files. `default_ttl_secs` is for what no class
    /// knows: a day in a plan, minutes for single requests.
    pub fn lower(flags: &Flags, environment: Environment, default_ttl_secs: u64) -> Result<Self> {
        let cwd = std::env::current_dir().map_err(|cause| Error::io("find", Path::new("."), cause))?;
        let api = match flags.api_url.as_deref().or_else(|| environment.get("GITHUB_API_URL")) {
            Some(url) => Api::parse(url)?,
            None => match (environment.get("GH_HOST"), token::only_host(&environment)) {
                (Some(host), _) => host::api(host).map_err(|error| error.within("GH_HOST"))?,
                (None, Some(host)) => host::api(&host)?,
                (None, None) => Api::github(),
            },
        };
        let token = token::find(flags.token_file.as_deref(), &environment, &api)?;
        let app = if flags.token_file.is_some() { None } else { token::app(&environment)? };
        let partition = match (&flags.partition, &token) {
            (Some(name), _) => named_partition(name, token.is_some() || app.is_some())?,
            (None, _) if app.is_some() => {
                app.as_ref().map_or_else(Partition::public, |app| Partition::installation(app.installation))
            }
            (None, None) => Partition::public(),
            (None, Some(_)) if environment.is_true("OCTOCACHE_JOB_TOKEN") => {
                let repository = environment.get("GITHUB_REPOSITORY").ok_or_else(|| {
                    Error::usage("OCTOCACHE_JOB_TOKEN is set, but GITHUB_REPOSITORY is not")
                        .hint("a job's token stands for its repository, so its name is needed")
                })?;
                Partition::repository(repository)?
            }
            (None, Some((token, _))) => Partition::token(token),
        };
        let Search { file: plan_file, warning: plan_warning } = Search::run(flags, &environment, &cwd);
        let cache_dir = cache_dir(flags, &environment, plan_file.as_ref())?;
        let found = plan_file.as_ref().map(|file| file.path.as_path());
        let cache_dir = store::usable(cache_dir, flags, &environment, found)?;
        let mut options = Options::new(api.clone(), token.as_ref().map(|(token, _)| token.clone()));
        options.masker = flags.masker.clone();
        if let Some((token, _)) = &token {
            token.register(&options.masker);
        }
        if let Some(app) = &app {
            options.identity = Identity::Installation(app.clone());
        }
        options.max_requests = flags.max_requests;
        if environment.is_true("OCTOCACHE_JOB_TOKEN") {
            // All jobs of a repository share one limit, whatever their tokens.
            options.entity = Some(partition.as_str().to_owned());
        }
        options.limits_dir = Some(
            user_cache_dir(&environment).map_or_else(|| cache_dir.clone(), |dir| dir.join("octocache")).join("limits"),
        );
        lower_backoff(flags, &environment, &mut options.backoff);
        options.proxy = Proxy {
            https: environment.first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]).map(str::to_owned),
            no_proxy: environment.first(&["NO_PROXY", "no_proxy"]).map(str::to_owned),
        };
        if let Some(address) = &options.proxy.https {
            options.masker.add_password_of(address);
        }
        let ttls = environment.ttls(flags, default_ttl_secs)?;
        let mode = environment.mode();
        options.concurrency = flags.concurrency.unwrap_or(options.concurrency);
        let batching = Batching {
            graphql: !flags.rest_only && (flags.graphql_only || !environment.is_false("GITHUB_GRAPHQL_ENABLED")),
            rest: !flags.graphql_only && (flags.rest_only || !environment.is_false("GITHUB_REST_FALLBACK_ENABLED")),
            concurrency: options.concurrency,
        };
        Ok(Self {
            api,
            token,
            partition,
            cache_dir,
            plan_path: plan_file.as_ref().map(|file| file.path.clone()),
            plan_warning,
            options,
            ttls,
            mode,
            batching,
            takes_part: None,
            plan_file,
            evaluator: flags.evaluator.clone(),
            environment,
        })
    }

    /// The plan that `--plan` names or that was found upward from here.
    pub fn load_plan(&self) -> Result<Plan> {
        match &self.plan_file {
            Some(file) => file.load(&self.evaluator),
            None => Err(Error::usage(format!("there is no {DEFAULT_PATH} here or above")).hint(
                "write one, name another with --plan, or try a single request with `octocache api /repos/OWNER/REPO`",
            )),
        }
    }

    /// The API of a host that somebody named, as gh's `--hostname`.
    pub fn api_of_host(host: &str) -> Result<Api> {
        host::api(host)
    }

    /// A cache over the store and GitHub; `plan`'s TTLs and bounds hold where flags say nothing.
    pub fn cache(&self, plan: Option<&Plan>, clock: &Clock) -> Result<Cache> {
        self.make_cache(plan, clock, None, Stack::new(&self.cache_dir, clock.clone()))
    }

    /// The same for single requests, and GitHub for what goes past the cache.
    pub fn cache_and_github(&self, clock: &Clock) -> Result<(Arc<Cache>, Arc<GitHub>)> {
        let github = Arc::new(GitHub::new(self.options.clone(), clock.clone()));
        let stack = Arc::new(Stack::new(&self.cache_dir, clock.clone()));
        let (api, partition) = (self.api.clone(), self.partition.clone());
        let share = self.share(None, clock, &stack)?;
        let cache = Cache::new(api, partition, stack, github.clone(), self.ttls.clone(), clock.clone());
        Ok((Arc::new(cache.with_share(share)), github))
    }

    /// The branch that is checked out here.
    pub fn branch(&self) -> Option<String> {
        if self.environment.get("GH_REPO").is_some() {
            return None;
        }
        git::branch()
    }

    /// The same for a worker that keeps it warm: it leaves a reserve, and its look-ups are no uses.
    pub fn warming_cache(&self, plan: &Plan, clock: &Clock) -> Result<Cache> {
        let reserve = plan.reserve.unwrap_or(Reserve::Percent(10));
        let stack = Stack::new(&self.cache_dir, clock.clone()).unobserved();
        self.make_cache(Some(plan), clock, Some(reserve), stack)
    }

    /// What the identities of a server share; `plan`'s TTLs hold where flags say nothing. `lend`: requests
    /// without a token are signed with ours.
    pub fn common(&self, plan: Option<&Plan>, stack: Arc<Stack>, clock: Clock, lend: bool) -> Result<Common> {
        Ok(Common {
            share: self.share(plan, &clock, &stack)?,
            api: self.api.clone(),
            options: self.options.clone(),
            partition: self.partition.clone(),
            ttls: self.ttls_with(plan).into(),
            stack,
            clock,
            lend,
        })
    }

    /// The table of lifetimes; `plan`'s hold where flags say nothing.
    pub fn ttls_with(&self, plan: Option<&Plan>) -> TtlTable {
        let mut ttls = self.ttls.clone();
        if let Some(plan) = plan {
            ttls.default_secs = plan.ttls.default_secs.or(ttls.default_secs);
            ttls.stale_secs = ttls.stale_secs.or(plan.ttls.stale_secs);
            ttls.classes.extend(plan.ttls.classes.iter().map(|(name, secs)| (*name, *secs)));
        }
        ttls
    }

    fn make_cache(&self, plan: Option<&Plan>, clock: &Clock, reserve: Option<Reserve>, stack: Stack) -> Result<Cache> {
        let ttls = self.ttls_with(plan);
        let mut options = self.options.clone();
        if let Some(plan) = plan {
            options.max_requests = options.max_requests.or(plan.max_requests);
        }
        options.reserve = reserve;
        let upstream = Arc::new(GitHub::new(options, clock.clone()));
        let stack = Arc::new(stack);
        let share = self.share(plan, clock, &stack)?;
        let cache = Cache::new(self.api.clone(), self.partition.clone(), stack, upstream, ttls, clock.clone());
        Ok(cache.with_share(share))
    }

    /// `owner` and `repo` of this repository, where it can be told.
    pub fn repository_vars(&self) -> BTreeMap<String, String> {
        let pair = |full: &str| full.split_once('/').map(|(owner, repo)| (owner.to_owned(), repo.to_owned()));
        let mut vars = BTreeMap::new();
        if let Some((owner, repo)) = self.repository().and_then(|(full, _)| pair(&full)) {
            vars.insert("owner".to_owned(), owner);
            vars.insert("repo".to_owned(), repo);
        }
        vars
    }

    /// This repository as `owner/name`, and where that is said: `GH_REPO`, else the clone that one stands in, as gh takes
    /// it, else what a workflow is told.
    pub fn repository(&self) -> Option<(String, String)> {
        let named = |name: &str| Some((git::full_name(self.environment.get(name)?)?, name.to_owned()));
        let cloned = || git::repository(&host::of(&self.api)).map(|found| (found.repository, found.source));
        named("GH_REPO").or_else(cloned).or_else(|| named("GITHUB_REPOSITORY"))
    }

    /// The plan's file, and what of it does not count.
    fn shown_plan(&self) -> String {
        let Some(file) = &self.plan_file else {
            return self.plan_warning.as_ref().map_or_else(|| "none".to_owned(), |why| format!("none: {why}"));
        };
        let path = file.path.display();
        if file.ignored.is_empty() { path.to_string() } else { format!("{path} (not trusted)") }
    }

    /// Where results go: where the user says, else where `plan` says, else `.octocache` here. A plan's word does not
    /// lead out of its project, and no link in it leads anywhere.
    pub fn output_dir(&self, given: Option<&Path>, plan: &Plan) -> Result<PathBuf> {
        if let Some(dir) = given {
            return Ok(dir.to_owned());
        }
        let (dir, what) = match &plan.output_dir {
            Some(dir) => (dir.as_path(), format!("{}: `output-dir`", plan.name)),
            None => (Path::new(OUTPUT_DIR), "the output directory".to_owned()),
        };
        // A plan from elsewhere says nothing of where one stands.
        let root = self.plan_file.as_ref().filter(|_| plan.output_dir.is_some()).map(PlanFile::root);
        let root = root.filter(|root| !root.as_os_str().is_empty());
        let is_here = |root: &Path| {
            let cwd = std::env::current_dir().and_then(|cwd| cwd.canonicalize());
            matches!((root.canonicalize(), cwd), (Ok(root), Ok(cwd)) if cwd.starts_with(&root))
        };
        let base = root.filter(|root| !is_here(root)).unwrap_or(Path::new(""));
        if plan_file::is_inside(if base.as_os_str().is_empty() { Path::new(".") } else { base }, dir) {
            return Ok(base.join(dir));
        }
        let text = format!("{what} {} leads through a symbolic link", base.join(dir).display());
        Err(Error::usage(text).hint("give it by --output-dir, if it shall lead there"))
    }

    /// The environment.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Every value in force, for `config show`; the token only by name and digest.
    pub fn show(&self) -> Vec<(&'static str, String)> {
        let secs = |secs: Option<u64>| secs.map_or_else(|| "by class".to_owned(), |secs| Span(secs).to_string());
        let token = match (&self.options.identity, &self.token) {
            (Identity::Installation(App { installation, .. }), _) => format!("minted for installation {installation}"),
            (_, Some((token, source))) => format!("from {source}, digest {}", token.digest()),
            (_, None) => "none: 60 requests an hour for this address".to_owned(),
        };
        vec![
            ("api", self.api.origin().to_owned()),
            ("token", token),
            ("partition", self.partition.to_string()),
            ("cache-dir", self.cache_dir.display().to_string()),
            ("plan", self.shown_plan()),
            ("ttl", secs(self.ttls.everything_secs)),
            ("default ttl", secs(self.ttls.default_secs)),
            ("stale-if-error", secs(self.ttls.stale_secs)),
            ("max-requests", self.options.max_requests.map_or_else(|| "none".to_owned(), |max| max.to_string())),
            ("retries", self.options.backoff.retries.to_string()),
            ("max-wait", Span(self.options.backoff.max_wait.as_secs()).to_string()),
            (
                "limits-dir",
                self.options.limits_dir.as_ref().map_or_else(|| "none".to_owned(), |dir| dir.display().to_string()),
            ),
            ("shared with others", self.shown_share()),
            ("https-proxy", if self.options.proxy.https.is_some() { "set" } else { "none" }.to_owned()),
        ]
    }
}

/// The partition that the user names. `public` answers everybody, so no token may fill it.
fn named_partition(name: &str, signs: bool) -> Result<Partition> {
    let partition = Partition::named(name)?;
    if signs && partition == Partition::public() {
        return Err(Error::usage("the partition `public` is for requests without a token, and there is one")
            .hint("name another partition, or unset the token (GH_TOKEN, GITHUB_TOKEN, OCTOCACHE_TOKEN)"));
    }
    Ok(partition)
}

fn cache_dir(flags: &Flags, environment: &Environment, plan: Option<&PlanFile>) -> Result<PathBuf> {
    if let Some(dir) = &flags.cache_dir {
        return Ok(dir.clone());
    }
    if let Some(dir) = environment.first(store::VARIABLES) {
        return Ok(dir.into());
    }
    if let Some(dir) = plan.map(PlanFile::store_dir).transpose()?.flatten() {
        return Ok(dir);
    }
    user_cache_dir(environment).map(|base| base.join("octocache")).ok_or_else(|| {
        Error::usage("there is no place for the cache: neither HOME nor XDG_CACHE_HOME is set")
            .hint("name one with --cache-dir")
    })
}

/// The user's directory for caches, where there is one.
fn user_cache_dir(environment: &Environment) -> Option<PathBuf> {
    let base = match environment.get("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None if cfg!(windows) => PathBuf::from(environment.get("LOCALAPPDATA")?),
        None => {
            let home = PathBuf::from(environment.get("HOME")?);
            home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" })
        }
    };
    base.is_absolute().then_some(base)
}

/// The user's directory for configuration, where there is one.
fn user_config_dir(environment: &Environment) -> Option<PathBuf> {
    let base = match environment.get("XDG_CONFIG_HOME") {
        Some(dir) => PathBuf::from(dir),
        None if cfg!(windows) => PathBuf::from(environment.get("APPDATA")?),
        None => PathBuf::from(environment.get("HOME")?).join(".config"),
    };
    base.is_absolute().then_some(base)
}

/// Flags over the environment: how failures and limits are waited out.
fn lower_backoff(flags: &Flags, environment: &Environment, backoff: &mut Backoff) {
    if environment.is_false("GITHUB_BACKOFF_ENABLED") {
        *backoff = Backoff::off();
    }
    if let Some(retries) = flags.retries {
        backoff.retries = retries;
    }
    if let Some(Span(secs)) = flags.max_wait {
        backoff.max_wait = Duration::from_secs(secs);
    }
}
