//! `octocache explain`.

use serde_json::json;

use super::args::ExplainArgs;
use super::{Context, Exit, print, request_config};
use crate::cache::{Ask, Explained};
use crate::error::Result;
use crate::mask::Masker;
use crate::policy::{Before, Etag, LinkUse};
use crate::request::Request;
use crate::units::Span;

pub(super) fn main(context: &Context, args: &ExplainArgs) -> Result<Exit> {
    let mut flags = context.flags.clone();
    args.mode.lower_into(&mut flags);
    let config = request_config(&flags)?;
    let cache = config.cache(None, &context.clock)?;
    let request = Request::get(&config.api, &args.endpoint)?.accepting(&args.accept);
    // As `api` without --include.
    let explained = cache.explain(&request, &Ask { link: LinkUse::Unseen, ..args.mode.ask(config.mode) });
    if args.json {
        print::json(context.masker(), &as_json(&explained))?;
    } else {
        print::text(context.masker(), &as_text(context.masker(), &explained))?;
    }
    Ok(Exit::Done)
}

fn as_text(masker: &Masker, explained: &Explained) -> String {
    let Explained { key, parts, lifetime, found, candidate, cutoff, decision, signer, now } = explained;
    let mut rows = vec![
        ("key", key.to_string()),
        ("  method", parts.method.clone()),
        ("  host", parts.host.clone()),
        ("  path", parts.path.clone()),
        ("  query", parts.query.clone()),
        ("  accept", parts.accept.clone()),
        ("  api version", parts.api_version.clone()),
        ("  partition", parts.partition.to_string()),
        ("class", lifetime.class.to_owned()),
        ("fresh for", Span(lifetime.fresh_secs).to_string()),
        ("then stale for", format!("{}, when GitHub cannot answer", Span(lifetime.stale_secs))),
    ];
    match found {
        None => rows.push(("stored", "no".into())),
        Some(found) => {
            let entry = &found.entry;
            rows.push((
                "stored",
                format!("in {}, status {}, {} bytes", found.tier.as_str(), entry.status, entry.body.len()),
            ));
            rows.push(("fetched at", entry.fetched_at.to_string()));
            rows.push((
                "validated at",
                format!("{} ({} ago)", entry.validated_at, Span(now.since(entry.validated_at))),
            ));
            rows.push(("etag", entry.headers.get("etag").unwrap_or("none").to_owned()));
            rows.push(("last-modified", entry.headers.get("last-modified").unwrap_or("none").to_owned()));
            let by_rule = if entry.etag_rule.is_some() { "yes: it can be predicted for any token" } else { "no" };
            rows.push(("etag by rule", by_rule.to_owned()));
            if let Some(fields) = entry.fields_cid {
                let text =
                    "its item's fields; a run with `fresh-while` answers it, whatever its age, while their digest is";
                rows.push(("follows from", format!("{text} {fields}")));
            }
        }
    }
    if let Some(candidate) = candidate {
        rows.push(("candidate", format!("the copy of {}, if GitHub confirms it", candidate.parts.partition)));
    }
    if let Some(at) = cutoff.revalidate {
        rows.push(("invalidated at", at.to_string()));
    }
    rows.push(("decision", verdict(decision, signer.token_digest.is_some())));
    // Each by itself: a query at the beginning of a text is known as one.
    let row = |(name, value): (&str, String)| vec![name.to_owned(), masker.text(&value).into_owned()];
    print::table(&rows.into_iter().map(row).collect::<Vec<_>>())
}

fn verdict(decision: &Before, signed: bool) -> String {
    match decision {
        Before::Fresh { age_secs, .. } => format!("hit: it is {} old, so nothing is sent", Span(*age_secs)),
        Before::AnswerStale { age_secs, reason } => {
            format!("stale answer ({}): it is {} old", reason.as_str(), Span(*age_secs))
        }
        Before::Revalidate { because, validators } => {
            let with = match &validators.etag {
                Some(Etag::Stored(_)) => "If-None-Match",
                Some(Etag::Predicted { .. }) => "an If-None-Match predicted for this token",
                None => "If-Modified-Since",
            };
            let price = if signed { "a 304 is free" } else { "without a token, a 304 is charged as well" };
            format!("revalidate ({}): ask with {with}; {price}", because.as_str())
        }
        Before::Fetch(because) => format!("fetch ({}): one request is charged", because.as_str()),
        Before::NotCached => "no answer: it is not stored, and nothing may be sent".into(),
    }
}

fn as_json(explained: &Explained) -> serde_json::Value {
    let Explained { key, parts, lifetime, found, cutoff, decision, .. } = explained;
    let decision = match decision {
        Before::Fresh { age_secs, .. } => json!({ "do": "hit", "age_secs": age_secs }),
        Before::AnswerStale { age_secs, reason } => {
            json!({ "do": "stale", "age_secs": age_secs, "because": reason.as_str() })
        }
        Before::Revalidate { because, .. } => json!({ "do": "revalidate", "because": because.as_str() }),
        Before::Fetch(because) => json!({ "do": "fetch", "because": because.as_str() }),
        Before::NotCached => json!({ "do": "nothing" }),
    };
    json!({
        "key": key.to_string(), "parts": parts, "class": lifetime.class, "fresh_secs": lifetime.fresh_secs,
        "stale_secs": lifetime.stale_secs, "invalidated_at": cutoff.revalidate, "decision": decision,
        "stored": found.as_ref().map(|found| json!({
            "tier": found.tier, "status": found.entry.status, "fetched_at": found.entry.fetched_at,
            "validated_at": found.entry.validated_at, "bytes": found.entry.body.len(), "cid": found.entry.cid,
            "etag_by_rule": found.entry.etag_rule.is_some(), "fields_cid": found.entry.fields_cid,
        })),
    })
}
