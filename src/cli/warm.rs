//! `octocache warm`: one tick, or a resident worker that ticks by a schedule.
//!
//! Knows: signals, one tick at a time on a machine, what is said of a tick. Does not know: when to
//! tick, and what a tick refreshes (`warm`).

use serde_json::json;

use super::args::WarmArgs;
use super::progress::Shown;
use super::{Context, Exit, block_on, plan_config, print};
use crate::cache::{Ask, Cache};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::files::Lock;
use crate::plan::{Plan, run};
use crate::schedule::Schedule;
use crate::stack::{Narrow, Saved};
use crate::units::Span;
use crate::warm::{self, IDLE_SECS, Options, Resident, Tick, Verdict};

/// A tick comes up to so much later, unless somebody says otherwise.
const JITTER_SECS: u64 = 30;

pub(super) fn main(context: &Context, args: &WarmArgs) -> Result<Exit> {
    let mut flags = context.flags.clone();
    flags.plan.clone_from(&args.plan);
    flags.max_requests = args.max_requests;
    let config = plan_config(&flags)?;
    let mut plan = config.load_plan()?;
    plan.warm.ahead_secs = args.ahead.map(|span| span.0).or(plan.warm.ahead_secs);
    plan.warm.idle_secs = args.idle.map(|span| span.0).or(plan.warm.idle_secs);
    plan.warm.jitter_secs = args.jitter.map(|span| span.0).or(plan.warm.jitter_secs);
    match args.schedule.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => plan.warm.schedule = Some(Schedule::parse(text, args.timezone.as_deref().unwrap_or("UTC"))?),
        None if args.schedule.is_some() && plan.warm.schedule.is_none() => {
            return Err(Error::usage("there is no schedule")
                .hint("give one: --schedule '17 */6 * * *', or write `warm: { schedule: … }` into the plan"));
        }
        None => {}
    }
    let resident = args.schedule.is_some();
    let worker = Worker { context, config: &config, plan: &plan };
    let command = Command { worker, args };
    block_on(async { if resident { command.stay().await } else { command.tick().await } })?
}

/// Who ticks: `octocache warm`, or a server beside its clients.
pub(super) struct Worker<'a> {
    pub(super) context: &'a Context,
    pub(super) config: &'a Config,
    pub(super) plan: &'a Plan,
}

struct Command<'a> {
    worker: Worker<'a>,
    args: &'a WarmArgs,
}

impl Worker<'_> {
    /// Ticks by the plan's schedule until `ended`, or until there is no further tick.
    pub(super) async fn stay(
        &self,
        announce: impl FnMut(Timestamp),
        tick: impl AsyncFnMut(),
        ended: impl Future<Output = ()>,
    ) -> Result<()> {
        let Some(schedule) = &self.plan.warm.schedule else {
            return Err(Error::new(Kind::Internal, "a worker stays without a schedule"));
        };
        let most = self.plan.warm.jitter_secs.unwrap_or(JITTER_SECS);
        let resident = Resident { schedule, clock: &self.context.clock, jitter_secs: || jitter(most) };
        resident.stay(announce, tick, ended).await;
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// One tick, and the bundle saved; `None` where another worker of this machine is at it.
    pub(super) async fn tick(&self, quiet: bool) -> Result<Option<(Tick, Saved)>> {
        let cache = self.config.warming_cache(self.plan, &self.context.clock)?;
        cache.stack().prepare()?;
        let Some(_only) = only_one(&cache)? else { return Ok(None) };
        let ask = Ask::default().mode(self.config.mode.unwrap_or_default());
        let options = Options {
            run: run::Options {
                output_dir: None,
                vars: self.config.repository_vars(),
                ask,
                batching: self.config.batching,
            },
            horizon_secs: warm::horizon_secs(self.plan, self.now()),
            idle_secs: self.plan.warm.idle_secs.unwrap_or(IDLE_SECS),
        };
        let shown = Shown::new(quiet);
        let tick = warm::tick(self.plan, &cache, options, &shown).await?;
        shown.end();
        let saved = cache.stack().pack(&self.narrow(), false)?;
        Ok(Some((tick, saved)))
    }

    /// The bundle carries what this worker's identity may see.
    fn narrow(&self) -> Narrow {
        Narrow::of(self.config.partition.clone()).with(self.plan.narrow.clone())
    }
}

impl Command<'_> {
    /// Ticks by the schedule until it is told to end.
    async fn stay(&self) -> Result<Exit> {
        let announce = |next| self.note(&format!("next tick at {next}"));
        let tick = async || {
            if let Err(error) = self.tick().await {
                // The next tick may find GitHub, the plan or the disk in a better state.
                print::error(self.worker.context.masker(), &error);
            }
        };
        self.worker.stay(announce, tick, super::told_to_end()).await?;
        Ok(self.leave())
    }

    /// Ends cleanly: what was answered is stored already, and is saved with the bundle.
    fn leave(&self) -> Exit {
        let cache = self.worker.config.warming_cache(self.worker.plan, &self.worker.context.clock);
        match cache.and_then(|cache| cache.stack().pack(&self.worker.narrow(), false)) {
            Ok(_) => self.note("told to end; the bundle is saved"),
            Err(error) => print::error(self.worker.context.masker(), &error),
        }
        Exit::Done
    }

    async fn tick(&self) -> Result<Exit> {
        let Some((tick, saved)) = self.worker.tick(self.worker.context.quiet || self.args.json).await? else {
            self.note("another worker is at it; this tick is left to that one");
            return Ok(Exit::Done);
        };
        self.report(&tick, &saved)?;
        Ok(match tick.worst {
            // What the budget did not allow is for the next tick.
            None | Some(Kind::Limited { .. }) => Exit::Done,
            Some(_) => Exit::Missing,
        })
    }

    fn report(&self, tick: &Tick, saved: &Saved) -> Result<()> {
        let masker = self.worker.context.masker();
        let count = |verdict| tick.decisions.iter().filter(|decision| decision.verdict == verdict).count();
        let totals = &tick.index.totals;
        let next = self.worker.plan.warm.schedule.as_ref().and_then(|schedule| schedule.next_after(self.worker.now()));
        if self.args.json {
            let decisions = if self.args.explain { json!(tick.decisions) } else { json!(null) };
            let line = json!({
                "at": tick.index.started_at, "totals": totals, "refreshed": tick.refreshed, "left": tick.left,
                "fresh": count(Verdict::Fresh), "unread": count(Verdict::Unread), "unknown": count(Verdict::Unknown),
                "saved": matches!(saved, Saved::Written { .. }), "next": next, "rate_limit": tick.index.rate_limit,
                "decisions": decisions,
            });
            return print::json(masker, &line);
        }
        if self.args.explain {
            let mut rows = vec![["entry", "decision", "age", "unread for"].map(str::to_owned).to_vec()];
            rows.extend(tick.decisions.iter().map(|decision| {
                let verdict = match decision.verdict {
                    Verdict::Refresh => "refresh: it would be stale before the next tick",
                    Verdict::Fresh => "leave: it stays fresh until then",
                    Verdict::Unread => "leave: nobody reads it",
                    Verdict::Unknown => "leave: it cannot be asked for from what is stored",
                };
                let (age, unread) = (Span(decision.age_secs).to_string(), Span(decision.unread_secs).to_string());
                vec![decision.target.clone(), verdict.to_owned(), age, unread]
            }));
            print::text(masker, &print::table(&rows))?;
        }
        if self.worker.context.quiet {
            return Ok(());
        }
        let mut text = format!(
            "the plan: {} fresh, {} validated, {} fetched, {} stale, {} failed\n",
            totals.hits, totals.revalidated, totals.fetched, totals.stale, totals.failed
        );
        text.push_str(&format!(
            "beside it: {} refreshed, {} fresh, {} unread and left out, {} left for want of budget or an answer\n",
            tick.refreshed,
            count(Verdict::Fresh),
            count(Verdict::Unread),
            tick.left
        ));
        if let Some(limit) = &tick.index.rate_limit {
            text.push_str(&format!("rate limit: {}\n", limit.describe(tick.index.started_at)));
        }
        text.push_str(match saved {
            Saved::Written { .. } => "the bundle is saved\n",
            Saved::Unchanged => "the bundle is as it was\n",
            Saved::Busy => "another process saves the bundle\n",
        });
        print::text(masker, &text)
    }

    fn note(&self, text: &str) {
        if !self.worker.context.quiet {
            print::note(self.worker.context.masker(), text);
        }
    }
}

/// The lock of the one worker that ticks on this machine.
fn only_one(cache: &Cache) -> Result<Option<Lock>> {
    let path = cache.stack().dir().join("warm.lock");
    let failed = |cause| Error::io("lock", &path, cause);
    let lock = Lock::open(&path).map_err(failed)?;
    Ok(lock.take().map_err(failed)?.then_some(lock))
}

/// Uniform in 0 to `most` seconds.
fn jitter(most: u64) -> u64 {
    if most == 0 { 0 } else { crate::github::random() % (most + 1) }
}
