//! `octocache config …`.

use super::args::{ConfigCommand, ReferencePage};
use super::{Context, Exit, plan_config, print, reference};
use crate::error::Result;
use crate::plan::spec::PlanSpec;

pub(super) fn main(context: &Context, command: &ConfigCommand) -> Result<Exit> {
    match command {
        ConfigCommand::Schema => print::out(PlanSpec::schema().as_bytes())?,
        ConfigCommand::Reference { page } => print::out(
            match page {
                ReferencePage::Plan => reference::plan(),
                ReferencePage::Ttl => reference::ttl(),
            }
            .as_bytes(),
        )?,
        ConfigCommand::Check { plan } => {
            let mut flags = context.flags.clone();
            flags.plan.clone_from(plan);
            let plan = plan_config(&flags)?.load_plan()?;
            let text = format!("{}: {} queries, nothing wrong", plan.name, plan.queries.len());
            print::text(context.masker(), &text)?;
        }
        ConfigCommand::Show { json } => {
            let shown = plan_config(&context.flags)?.show();
            if *json {
                print::json(context.masker(), &shown.into_iter().collect::<std::collections::BTreeMap<_, _>>())?;
            } else {
                let rows: Vec<_> = shown.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
                print::text(context.masker(), &print::table(&rows))?;
            }
        }
    }
    Ok(Exit::Done)
}
