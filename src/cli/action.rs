//! `octocache action …`: the steps of the composite Action and of those for a proxy.
//!
//! Knows: which step does what, and what it hands to the next through outputs. Does not know:
//! actions/cache, which stands between the steps.

#![allow(clippy::print_stdout, reason = "workflow commands are read from stdout")]

mod proxy;
mod transfer;

use super::args::{ActionArgs, ActionStep};
use super::progress::Shown;
use super::{Context, Exit, block_on, event, plan_config};
use crate::actions::{Commands, FailOn, Inputs, annotation, key_prefix, summary};
use crate::cache::Ask;
use crate::config::{Config, Environment, Flags};
use crate::error::{Error, Result};
use crate::mask::Masker;
use crate::plan::Plan;
use crate::plan::report::Index;
use crate::plan::run::{self, Options};
use crate::stack::{Narrow, Saved, Stack};
use crate::warm;

/// Annotations beyond this many would bury the rest; GitHub shows ten per step.
const MAX_ANNOTATIONS: usize = 10;

pub(super) fn main(context: &Context, args: &ActionArgs) -> Result<Exit> {
    let environment = Environment::of_process();
    let input = |name: &str| environment.get(&format!("INPUT_{}", name.to_ascii_uppercase().replace('-', "_")));
    let say = |error: &Error| say(context.masker(), error);
    let inputs = Inputs::read(input).inspect_err(say)?;
    let commands = Commands {
        output: environment.get("GITHUB_OUTPUT").map(Into::into),
        summary: environment.get("GITHUB_STEP_SUMMARY").map(Into::into),
        env: environment.get("GITHUB_ENV").map(Into::into),
    };
    let step = Step { context, inputs, commands, environment };
    let done = match args.step {
        ActionStep::Plan => step.plan(),
        ActionStep::Run => step.run(),
        ActionStep::Verdict => step.verdict(),
        ActionStep::Keys => step.name_keys(&step.proxy_config()?, None).map(|()| Exit::Done),
        ActionStep::Start => step.start(),
        ActionStep::Stop => step.stop(),
    };
    done.inspect_err(say)
}

struct Step<'a> {
    context: &'a Context,
    inputs: Inputs,
    commands: Commands,
    environment: Environment,
}

impl Step<'_> {
    fn config(&self) -> Result<Config> {
        let inputs = &self.inputs;
        let flags = Flags {
            cache_dir: Some(self.stores()?),
            api_url: inputs.api_url.clone(),
            plan: inputs.query.is_empty().then(|| inputs.plan.clone()),
            ttl: inputs.ttl,
            stale_if_error: inputs.stale_if_error,
            max_requests: inputs.max_requests,
            ..self.context.flags.clone()
        };
        self.locate(plan_config(&flags)?)
    }

    fn load(&self, config: &Config) -> Result<Plan> {
        if self.inputs.query.trim().is_empty() { config.load_plan() } else { Plan::inline(&self.inputs.query) }
    }

    /// Checks everything that can be checked, and says under which keys the bundle is kept.
    fn plan(&self) -> Result<Exit> {
        let config = self.config()?;
        let plan = self.load(&config)?;
        self.name_keys(&config, Some(&plan))?;
        Ok(Exit::Done)
    }

    /// The prefix of the keys under which actions/cache keeps what this view stores.
    fn prefix(&self, config: &Config) -> String {
        key_prefix(config.api.key_base(), config.partition.as_str(), &self.inputs.cache_key)
    }

    /// Says under which keys the bundle is kept, and whether this run may save it.
    fn name_keys(&self, config: &Config, plan: Option<&Plan>) -> Result<()> {
        let transfer = self.transfer(config, plan)?;
        let own_token = self.environment.is_true("OCTOCACHE_JOB_TOKEN");
        // The runner knows the job's own token and its secrets; a token minted by a step before, it
        // may not know.
        if let (false, true, Some((token, _))) = (own_token, self.environment.is_true("GITHUB_ACTIONS"), &config.token)
        {
            token
                .write_mask_command(&mut std::io::stdout())
                .map_err(|cause| Error::new(crate::error::Kind::Io, "cannot speak to the runner").because(cause))?;
        }
        let prefix = self.prefix(config);
        let event = self.environment.get("GITHUB_EVENT_NAME").unwrap_or_default();
        let save = self.inputs.save.allows(event, self.environment.is_true("OCTOCACHE_ON_DEFAULT_BRANCH"), own_token);
        self.commands.set_outputs(&[
            ("prefix", prefix.clone()),
            ("restore-key", format!("{prefix}none")),
            ("bundle", transfer.paths()),
            ("restore", (self.inputs.restore && !transfer.has_bundle()).to_string()),
            ("save", save.to_string()),
        ])
    }

    /// Answers the plan, folds what is new into the bundle, and reports.
    fn run(&self) -> Result<Exit> {
        let config = self.config()?;
        let plan = self.load(&config)?;
        let clock = &self.context.clock;
        let transfer = self.transfer(&config, Some(&plan))?;
        self.take_in(&transfer)?;
        let warm = self.inputs.warm;
        let cache = if warm { config.warming_cache(&plan, clock)? } else { config.cache(Some(&plan), clock)? };
        event::outdate(&self.environment, &cache).unwrap_or_else(|error| {
            warn(self.context.masker(), &format!("the event outdates nothing: {error}"));
        });
        let output_dir = config.output_dir(self.inputs.output_dir.as_deref(), &plan)?;
        let ask = Ask::default().mode(self.inputs.mode);
        let options =
            Options { output_dir: Some(&output_dir), vars: config.repository_vars(), ask, batching: config.batching };
        let shown = Shown::new(self.context.quiet);
        let index = if warm {
            let horizon_secs = warm::horizon_secs(&plan, clock.now());
            let idle_secs = plan.warm.idle_secs.unwrap_or(warm::IDLE_SECS);
            let options = warm::Options { run: options, horizon_secs, idle_secs };
            block_on(warm::tick(&plan, &cache, options, &shown))??.index
        } else {
            block_on(run::run(&plan, &cache, &options, &shown))??.index
        };
        let index = &index;
        let narrow = Narrow::of(config.partition.clone()).with(plan.narrow.clone());
        let saved = cache.stack().pack(&narrow, false).unwrap_or_else(|error| {
            warn(self.context.masker(), &format!("the bundle is not saved: {error}"));
            Saved::Unchanged
        });
        let saved = self.hand_out(&transfer, saved);
        let prefix = self.prefix(&config);
        let key = self.save_key(&prefix, &saved, cache.stack())?;
        if self.inputs.summary {
            let next_warm = plan.warm.schedule.as_ref().and_then(|schedule| schedule.next_after(clock.now()));
            self.commands.add_summary(&summary(index, next_warm))?;
        }
        annotate(self.context.masker(), index);
        let totals = &index.totals;
        let changed = serde_json::to_string(&index.changed_queries()).unwrap_or_default();
        let left = index.rate_limit.as_ref().map_or_else(String::new, |limit| limit.remaining.to_string());
        self.commands.set_outputs(&[
            ("cache-hit", (totals.requests == 0 && totals.failed == 0).to_string()),
            ("cache-key", key),
            ("changed", matches!(saved, Saved::Written { .. }).to_string()),
            ("changed-queries", changed),
            ("output-dir", output_dir.display().to_string()),
            ("index", output_dir.join("index.json").display().to_string()),
            ("requests", totals.requests.to_string()),
            ("not-modified", totals.not_modified.to_string()),
            ("served-from-cache", (totals.hits + totals.revalidated + totals.stale).to_string()),
            ("stale", totals.stale.to_string()),
            ("failed", totals.failed.to_string()),
            ("rate-limit-remaining", left),
        ])?;
        // Whether this fails the job is decided last, after the bundle is saved.
        Ok(Exit::Done)
    }

    /// The key to save under: time, so that the newest wins, and digest, so that it says what it is.
    fn save_key(&self, prefix: &str, saved: &Saved, stack: &Stack) -> Result<String> {
        use sha2::Digest;
        if !matches!(saved, Saved::Written { .. }) {
            return Ok(String::new());
        }
        let path = stack.bundle_path();
        let mut hash = sha2::Sha256::new();
        let mut file = std::fs::File::open(&path).map_err(|cause| Error::io("read", &path, cause))?;
        std::io::copy(&mut file, &mut hash).map_err(|cause| Error::io("read", &path, cause))?;
        let digest = data_encoding::HEXLOWER.encode(&hash.finalize());
        Ok(format!("{prefix}{}-{}", self.context.clock.now().secs(), &digest[..12]))
    }

    /// Fails the job where the user wants it to.
    fn verdict(&self) -> Result<Exit> {
        let count = |name: &str| self.environment.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (failed, stale) = (count("OCTOCACHE_FAILED"), count("OCTOCACHE_STALE"));
        let bad = match self.inputs.fail_on {
            FailOn::Never => false,
            FailOn::Miss => failed > 0,
            FailOn::Stale => failed + stale > 0,
        };
        if bad {
            return Err(Error::new(
                crate::error::Kind::NotCached,
                format!("{failed} queries have no answer, {stale} are stale"),
            )
            .hint("see the summary; `fail-on: never` lets the job go on"));
        }
        Ok(Exit::Done)
    }
}

/// What the runner reads, or people in the step's log.
fn announce(line: &str) {
    println!("{line}");
}

/// An error where people look for it: at the run, not only in the step's log.
fn say(masker: &Masker, error: &Error) {
    println!("{}", annotation("error", "octocache", &masker.text(&error.to_string())));
}

/// A warning in the same place.
fn warn(masker: &Masker, text: &str) {
    println!("{}", annotation("warning", "octocache", &masker.text(text)));
}

fn annotate(masker: &Masker, index: &Index) {
    let failed = index.queries.iter().filter_map(|query| Some((query, query.error.as_ref()?)));
    for (query, error) in failed.take(MAX_ANNOTATIONS) {
        println!("{}", annotation("error", &format!("octocache: {}", query.name), &masker.text(error)));
    }
    if index.totals.failed > MAX_ANNOTATIONS {
        let more = index.totals.failed - MAX_ANNOTATIONS;
        println!("{}", annotation("error", "octocache", &format!("{more} more queries failed; see the summary")));
    }
}
