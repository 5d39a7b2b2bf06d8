//! `octocache bundle …`.

use std::path::PathBuf;

use serde_json::json;

use super::args::{BundleCommand, BundleFile};
use super::{Context, Exit, plan_config, print};
use crate::bundle::{Bundle, Totals};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::mask::Masker;
use crate::stack::{BundleRules, Narrow, Saved, Stack};
use crate::tag::Scope;
use crate::text;
use crate::units::Size;

pub(super) fn main(context: &Context, command: &BundleCommand) -> Result<Exit> {
    let config = plan_config(&context.flags)?;
    let stack = Stack::new(&config.cache_dir, context.clock.clone());
    let masker = context.masker();
    match command {
        BundleCommand::Pack { full, everything, only, never, output, json } => {
            let narrow = narrow(&config, *everything, only, never)?;
            let saved = stack.pack(&narrow, *full)?;
            if let Some(output) = output {
                if matches!(saved, Saved::Busy) {
                    return Err(Error::usage("another process is saving").hint("try again when it has ended"));
                }
                stack.export(&narrow, output)?;
            }
            if *json { print::json(masker, &saved)? } else { print::line(&saved_line(&saved))? }
        }
        BundleCommand::Restore { file, json } => {
            let totals = stack.restore(file)?;
            if *json {
                print::json(masker, &totals)?;
            } else {
                print::line(&format!("{} entries are in place", totals.entries))?;
            }
        }
        BundleCommand::List(file) => list(masker, &stack, file)?,
        BundleCommand::Verify(file) => {
            let verified = open(&stack, file)?.1.verify()?;
            if file.json {
                print::json(masker, &verified)?;
            } else {
                print::line(&format!("{} entries are sound, {} are broken", verified.entries, verified.broken))?;
            }
            if verified.broken > 0 {
                return Ok(Exit::Failed);
            }
        }
        BundleCommand::Info(file) => info(masker, &stack, file, context.clock.now())?,
    }
    Ok(Exit::Done)
}

/// What may enter the bundle: what this identity may see, as flags or else the plan say.
fn narrow(config: &Config, everything: bool, only: &[Scope], never: &[Scope]) -> Result<Narrow> {
    let rules = if only.is_empty() && never.is_empty() && config.plan_path.is_some() {
        config.load_plan()?.narrow
    } else {
        BundleRules { only: only.to_vec(), never: never.to_vec(), private: Vec::new() }
    };
    let narrow = if everything { Narrow::everything() } else { Narrow::of(config.partition.clone()) };
    Ok(narrow.with(rules))
}

fn saved_line(saved: &Saved) -> String {
    match saved {
        Saved::Unchanged => "nothing worth saving changed".into(),
        Saved::Busy => "another process is saving".into(),
        Saved::Written { how, absorbed, totals, bytes } => {
            format!("{how}: {absorbed} entries absorbed, {} in all, {}", totals.entries, Size(*bytes))
        }
    }
}

fn open(stack: &Stack, file: &BundleFile) -> Result<(PathBuf, Bundle)> {
    let path = file.file.clone().unwrap_or_else(|| stack.bundle_path());
    let bundle =
        Bundle::open(&path)?.ok_or_else(|| Error::usage(format!("there is no bundle at {}", path.display())))?;
    Ok((path, bundle))
}

fn list(masker: &Masker, stack: &Stack, file: &BundleFile) -> Result<()> {
    let (_, bundle) = open(stack, file)?;
    let mut lines = Vec::new();
    bundle.for_each(|_, entry| {
        let line = if file.json {
            let Ok(text) = serde_json::to_string(&json!({
                "key": entry.key().to_string(), "target": entry.parts.target(), "partition": entry.parts.partition,
                "status": entry.status, "class": entry.class, "fetched_at": entry.fetched_at,
                "validated_at": entry.validated_at, "bytes": entry.body.len(), "cid": entry.cid,
            })) else {
                return;
            };
            text
        } else {
            format!(
                "{}  {}  {}  {}",
                &entry.key().to_string()[..12],
                entry.validated_at,
                entry.status,
                text::line(&entry.parts.target())
            )
        };
        lines.push(line + "\n");
    })?;
    let lines = lines.concat();
    if file.json { print::json_text(masker, &lines) } else { print::text(masker, &lines) }
}

fn info(masker: &Masker, stack: &Stack, file: &BundleFile, now: Timestamp) -> Result<()> {
    let (path, bundle) = open(stack, file)?;
    let cutoffs = bundle.check()?.as_of(now);
    let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    let Totals { entries, frames, generation, raw_live, raw_dead } = bundle.totals();
    if file.json {
        let value = json!({
            "path": path, "bytes": bytes, "entries": entries, "frames": frames, "generation": generation,
            "raw_live": raw_live, "raw_dead": raw_dead, "cutoffs": cutoffs.iter().count(),
        });
        return print::json(masker, &value);
    }
    let rows = [
        ("file", path.display().to_string()),
        ("size", Size(bytes).to_string()),
        ("entries", entries.to_string()),
        ("frames", frames.to_string()),
        ("generation", generation.to_string()),
        ("uncompressed", format!("{} ({} superseded)", Size(raw_live + raw_dead), Size(raw_dead))),
        ("invalidations", cutoffs.iter().count().to_string()),
    ];
    print::text(masker, &print::table(&rows.map(|(name, value)| vec![name.to_owned(), value])))
}
