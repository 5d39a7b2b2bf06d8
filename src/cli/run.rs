//! `octocache run`.

use super::args::RunArgs;
use super::progress::Shown;
use super::{Context, Exit, block_on, event, plan_config, print};
use crate::error::{Kind, Result};
use crate::plan::report::{Index, Totals};
use crate::plan::run::{Finished, Options};
use crate::plan::{Plan, dry, run};

pub(super) fn main(context: &Context, args: &RunArgs) -> Result<Exit> {
    let mut flags = context.flags.clone();
    flags.plan.clone_from(&args.plan);
    flags.max_requests = args.max_requests;
    flags.concurrency = Some(args.concurrency as usize);
    flags.rest_only = args.rest_only;
    flags.graphql_only = args.graphql_only;
    args.mode.lower_into(&mut flags);
    let config = plan_config(&flags)?;
    let plan = if args.query.is_empty() { config.load_plan()? } else { Plan::inline(&args.query.join("\n"))? };
    let plan = plan.only(&args.only)?;
    let cache = config.cache(Some(&plan), &context.clock)?;
    let ask = args.mode.ask(config.mode);
    let vars = config.repository_vars();
    if args.dry_run {
        let forecast = dry::forecast(&plan, &cache, &vars, ask, &config.batching);
        if args.json {
            print::json(context.masker(), &forecast)?;
        } else {
            print::text(context.masker(), &forecast_table(&forecast))?;
        }
        return Ok(Exit::Done);
    }
    event::outdate(config.environment(), &cache)?;
    let output_dir = config.output_dir(args.output_dir.as_deref(), &plan)?;
    let options = Options { output_dir: Some(&output_dir), vars, ask, batching: config.batching };
    let quiet = context.quiet || args.quiet;
    let shown = Shown::new(quiet || args.json);
    let finished = block_on(run::run(&plan, &cache, &options, &shown))?;
    let finished = finished?;
    shown.end();
    if let Some(max) = plan.max_size {
        cache.stack().clean(None, Some(max))?;
    }
    if args.json {
        print::json(context.masker(), &finished.index)?;
    } else if !quiet {
        print::text(context.masker(), &summary(&finished.index))?;
        print::note(context.masker(), &format!("results and index.json are in {}", output_dir.display()));
    }
    Ok(exit(&finished))
}

/// The exit code of a run: a limit says more than a missing answer.
pub(crate) fn exit(finished: &Finished) -> Exit {
    match finished.worst {
        None => Exit::Done,
        Some(Kind::Limited { .. }) => Exit::Limited,
        Some(_) => Exit::Missing,
    }
}

/// The table at the end of a run.
fn summary(index: &Index) -> String {
    let Totals { queries, hits, revalidated, fetched, stale, failed, requests, charged, saved, .. } = index.totals;
    let mut rows = vec![
        ["queries", "hit", "revalidated", "fetched", "stale", "failed", "requests", "charged", "saved"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let numbers =
        [queries, hits, revalidated, fetched, stale, failed, requests as usize, charged as usize, saved as usize];
    rows.push(numbers.map(|number| number.to_string()).to_vec());
    let mut text = print::table(&rows);
    if let Some(limit) = &index.rate_limit {
        text.push_str(&format!("rate limit: {}\n", limit.describe(index.started_at)));
    }
    text
}

fn forecast_table(forecast: &dry::Forecast) -> String {
    let mut rows = vec![["query", "outcome", "requests", "charged", ""].map(str::to_owned).to_vec()];
    for query in &forecast.queries {
        let name = query.item.as_ref().map_or_else(|| query.name.clone(), |item| format!("{} {item}", query.name));
        let note = query.note.clone().or_else(|| query.reason.map(str::to_owned)).unwrap_or_default();
        rows.push(vec![name, query.outcome.to_owned(), query.requests.to_string(), query.charged.to_string(), note]);
    }
    let points = match forecast.points {
        0 => String::new(),
        points => format!(" Batches would cost {points} points of GraphQL's own limit."),
    };
    let sums = format!(
        "{} requests would be sent; {} of them would be charged if nothing has changed.{points} Nothing was sent or written.\n",
        forecast.requests, forecast.charged
    );
    print::table(&rows) + &sums
}
