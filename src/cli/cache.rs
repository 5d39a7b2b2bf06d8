//! `octocache cache …`.

use serde_json::json;

use super::args::CacheCommand;
use super::{Context, Exit, block_on, plan_config, print};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::mask::Masker;
use crate::stack::{Saved, Stack};
use crate::stats::Stats;
use crate::tag::{Scope, Subject};
use crate::text;
use crate::tier::TierName;
use crate::units::{Size, Span};

pub(super) fn main(context: &Context, command: &CacheCommand) -> Result<Exit> {
    let config = plan_config(&context.flags)?;
    let stack = Stack::new(&config.cache_dir, context.clock.clone());
    let masker = context.masker();
    match command {
        CacheCommand::Stats { json } => stats(masker, &stack, *json)?,
        CacheCommand::Peers { json, watch } => super::peers::main(context, &stack, *json, *watch)?,
        CacheCommand::List { scope, json } => list(masker, &stack, scope, *json, context.clock.now())?,
        CacheCommand::Show { entry, body } => show(masker, &stack, entry, *body)?,
        CacheCommand::Invalidate { scope } => {
            let cache = config.cache(None, &context.clock)?;
            block_on(async {
                cache.invalidate(scope.clone())?;
                cache.shared().await;
                Ok::<_, Error>(())
            })??;
            print::text(masker, &format!("{scope}: asked again before it answers"))?;
        }
        CacheCommand::Clear { scope } => {
            let cache = config.cache(None, &context.clock)?;
            let cleaned = block_on(async {
                let cleaned = cache.clear(scope)?;
                cache.shared().await;
                Ok::<_, Error>(cleaned)
            })??;
            print::text(
                masker,
                &format!(
                    "{scope}: removed {} loose entries, {}; the bundle is without them",
                    cleaned.removed,
                    Size(cleaned.bytes)
                ),
            )?;
        }
        CacheCommand::Clean { older_than, max_size } => {
            let max = max_size.map(|size| size.0).or(match &config.plan_path {
                Some(_) => config.load_plan()?.max_size,
                None => None,
            });
            if older_than.is_none() && max.is_none() {
                return Err(
                    Error::usage("nothing says what to remove").hint("give --older-than 7d or --max-size 512MiB")
                );
            }
            let cleaned = stack.clean(older_than.map(|span| span.0), max)?;
            if cleaned.bundle == Some(Saved::Busy) {
                return Err(Error::new(Kind::Io, "another process saves the store, so it was not cleaned")
                    .hint("run it again in a moment"));
            }
            let left = Size(stack.bytes_on_disk());
            print::text(
                masker,
                &format!("removed {} entries, {}; the store takes {left}", cleaned.removed, Size(cleaned.bytes)),
            )?;
        }
        CacheCommand::Verify => {
            let mut sound = 0_u64;
            let broken = stack.for_each(|_, _| sound += 1)?;
            print::text(masker, &format!("{sound} entries are sound, {broken} are broken"))?;
            if broken > 0 {
                return Ok(Exit::Failed);
            }
        }
    }
    Ok(Exit::Done)
}

fn stats(masker: &Masker, stack: &Stack, as_json: bool) -> Result<()> {
    let counts = Stats::read(stack.dir());
    if as_json {
        return print::json(
            masker,
            &json!({ "counts": counts, "hit_rate": counts.hit_rate(), "calls_saved": counts.calls_saved() }),
        );
    }
    let mean = counts.micros.checked_div(counts.asked).unwrap_or(0);
    let by = |map: &std::collections::BTreeMap<String, u64>| {
        let parts: Vec<String> = map.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    };
    let rows = [
        ("requests", counts.asked.to_string()),
        ("hits", format!("{}{}", counts.all_hits(), by(&counts.hits))),
        ("revalidated", counts.revalidated.to_string()),
        ("confirmed for another token", counts.confirmed.to_string()),
        ("collapsed", counts.collapsed.to_string()),
        ("fetched", counts.fetched.to_string()),
        ("stale", format!("{}{}", counts.stale.values().sum::<u64>(), by(&counts.stale))),
        ("not stored", format!("{}{}", counts.not_stored.values().sum::<u64>(), by(&counts.not_stored))),
        ("failed", counts.failed.to_string()),
        ("hit rate", format!("{:.1} %", counts.hit_rate())),
        ("API calls saved", counts.calls_saved().to_string()),
        ("bytes saved", Size(counts.bytes_saved).to_string()),
        ("entity tags by the rule", format!("{} held, {} failed", counts.rule_held, counts.rule_failed)),
        ("mean time", format!("{mean} µs")),
    ];
    print::text(masker, &print::table(&rows.map(|(name, value)| vec![name.to_owned(), value])))
}

fn list(masker: &Masker, stack: &Stack, scope: &Scope, as_json: bool, now: Timestamp) -> Result<()> {
    let mut lines = Vec::new();
    let scopes = stack.by_all_names(scope);
    stack.for_each(|entry, tier| {
        let key = entry.key();
        let subject = Subject { key: &key, parts: &entry.parts, listing: entry.listing.as_deref() };
        if !scopes.iter().any(|scope| scope.covers(subject)) {
            return;
        }
        lines.push(if as_json {
            metadata(entry, tier).to_string() + "\n"
        } else {
            let age = Span(now.since(entry.validated_at));
            format!(
                "{}  {:>8}  {}  {:<6}  {}\n",
                &key.to_string()[..12],
                age.to_string(),
                entry.status,
                tier.as_str(),
                text::line(&entry.parts.target())
            )
        });
    })?;
    let lines = lines.concat();
    if as_json { print::json_text(masker, &lines) } else { print::text(masker, &lines) }
}

fn show(masker: &Masker, stack: &Stack, wanted: &str, body_only: bool) -> Result<()> {
    let scope: Scope = wanted.parse()?;
    let mut found: Vec<(Entry, TierName)> = Vec::new();
    stack.for_each(|entry, tier| {
        let key = entry.key();
        let exact = !wanted.starts_with('/') || entry.parts.target() == wanted;
        if exact && scope.covers(Subject { key: &key, parts: &entry.parts, listing: None }) {
            found.push((entry.clone(), tier));
        }
    })?;
    match found.as_slice() {
        [] => Err(Error::new(Kind::NotCached, format!("{} is not stored", wanted.escape_debug()))
            .hint("see `octocache cache list`")),
        [(entry, tier)] => {
            if body_only {
                return print::body(&entry.body);
            }
            let mut head = serde_json::to_string_pretty(&metadata(entry, *tier)).unwrap_or_default();
            head.push_str("\n\n");
            print::json_text(masker, &head)?;
            print::out(text::lines(&String::from_utf8_lossy(&entry.body)).as_bytes())
        }
        many => Err(Error::usage(format!("{} entries are called so", many.len())).hint("name one by its key")),
    }
}

fn metadata(entry: &Entry, tier: TierName) -> serde_json::Value {
    json!({
        "key": entry.key().to_string(), "parts": entry.parts, "tier": tier, "status": entry.status, "headers": entry.headers,
        "fetched_at": entry.fetched_at, "validated_at": entry.validated_at, "class": entry.class, "ttl_secs": entry.ttl_secs,
        "bytes": entry.body.len(), "cid": entry.cid, "etag_rule": entry.etag_rule, "fields_cid": entry.fields_cid,
    })
}
