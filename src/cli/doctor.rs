//! `octocache doctor`: what works, what does not, and what to do about it.
//!
//! Knows: which questions to ask of this machine and of GitHub. Does not know: secrets; a token is
//! named by where it was found and by its digest.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::args::DoctorArgs;
use super::{Context, Exit, block_on, plan_config, print};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::error::{Kind, Result};
use crate::github::GitHub;
use crate::request::Request;
use crate::stack::Stack;
use crate::stats::Stats;
use crate::tier::TierName;
use crate::units::Size;
use crate::upstream::{Conditions, Upstream};

/// A finding's weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    /// Good to know; nothing is broken.
    Note,
    Bad,
}

#[derive(Debug, Serialize)]
struct Finding {
    about: &'static str,
    grade: Grade,
    text: String,
}

pub(super) fn main(context: &Context, args: &DoctorArgs) -> Result<Exit> {
    let config = plan_config(&context.flags)?;
    let mut findings = vec![plan(&config), token(&config), repository(&config)];
    if args.offline {
        findings.push(note("limits", "not asked: --offline".into()));
    } else {
        findings.extend(block_on(limits(context, &config))?);
        findings.extend(block_on(sharing(context, &config))?);
    }
    let stack = Stack::new(&config.cache_dir, context.clock.clone());
    findings.push(store(&stack));
    findings.push(bundle(&stack));
    findings.push(rule(&stack));
    findings.push(invalidations(&stack));
    findings.push(gh(&config));
    if args.json {
        print::json(context.masker(), &findings)?;
    } else {
        let word = |grade| match grade {
            Grade::Ok => "ok",
            Grade::Note => "note",
            Grade::Bad => "bad",
        };
        let rows = findings.iter().map(|found| vec![word(found.grade).into(), found.about.into(), found.text.clone()]);
        print::text(context.masker(), &print::table(&rows.collect::<Vec<_>>()))?;
    }
    let bad = findings.iter().any(|found| found.grade == Grade::Bad);
    Ok(if bad { Exit::Failed } else { Exit::Done })
}

/// What `{owner}/{repo}` and a plan's `${owner}`, `${repo}` stand for here.
fn repository(config: &Config) -> Finding {
    match config.repository() {
        Some((full, source)) => ok("repository", format!("{full}, from {source}")),
        None => {
            note("repository", format!("none: no git remote here is on {}, and GH_REPO is not set", config.api.host()))
        }
    }
}

fn ok(about: &'static str, text: String) -> Finding {
    Finding { about, grade: Grade::Ok, text }
}

fn note(about: &'static str, text: String) -> Finding {
    Finding { about, grade: Grade::Note, text }
}

fn bad(about: &'static str, text: impl ToString) -> Finding {
    Finding { about, grade: Grade::Bad, text: text.to_string() }
}

fn plan(config: &Config) -> Finding {
    match (&config.plan_path, config.load_plan()) {
        (Some(_), Ok(_)) | (None, _) if config.plan_warning.is_some() => {
            note("plan", config.plan_warning.clone().unwrap_or_default())
        }
        (None, _) => note("plan", "none here or above; `octocache run --help` shows one".into()),
        (Some(_), Ok(plan)) => ok("plan", format!("{}: {} queries", plan.name, plan.queries.len())),
        (Some(_), Err(error)) => bad("plan", error),
    }
}

fn token(config: &Config) -> Finding {
    match &config.token {
        Some((token, source)) => {
            ok("token", format!("from {source}, digest {}; partition {}", token.digest(), config.partition))
        }
        None if config.options.identity.is_installation() => ok("token", "minted for an installation".into()),
        None => note("token", "none: 60 requests an hour for this address, and 304s are charged; set GH_TOKEN".into()),
    }
}

/// Asks GitHub, which costs nothing of the limit: `/rate_limit` is free.
async fn limits(context: &Context, config: &Config) -> Vec<Finding> {
    let github = GitHub::new(config.options.clone(), context.clock.clone());
    let Ok(request) = Request::get(&config.api, "/rate_limit") else { return Vec::new() };
    let reply = match github.fetch(&request, &Conditions::default()).await {
        Ok(reply) => reply,
        Err(error) => {
            let advice = match error.kind() {
                Kind::Limited { .. } => "wait, or answer from the cache with --offline",
                Kind::TimedOut | Kind::Transport | Kind::Malformed => "check the network, HTTPS_PROXY and --api-url",
                _ => "see https://www.githubstatus.com",
            };
            return vec![bad("github", format!("{error}; {advice}"))];
        }
    };
    match reply.status.as_u16() {
        200 => {}
        // A server of one's own may have no limits.
        404 => return vec![ok("github", format!("{} answers and has no rate limits", config.api.host()))],
        401 => return vec![bad("github", "the token is not valid (any more): get another one")],
        status => return vec![bad("github", format!("{} answers {status} to /rate_limit", config.api.host()))],
    }
    let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let mut findings = vec![ok("github", format!("{} answers", config.api.host()))];
    for bucket in ["core", "graphql", "search"] {
        let left = &json["resources"][bucket];
        let (Some(remaining), Some(limit)) = (left["remaining"].as_u64(), left["limit"].as_u64()) else { continue };
        let text = format!("{bucket}: {remaining} of {limit} left");
        findings.push(match remaining {
            0 if limit > 0 => bad("limits", format!("{text}; until the reset, only stored answers come")),
            _ => ok("limits", text),
        });
    }
    findings
}

/// Whether the places beyond this machine answer.
async fn sharing(context: &Context, config: &Config) -> Vec<Finding> {
    let share =
        match config.share(None, &context.clock, &Arc::new(Stack::new(&config.cache_dir, context.clock.clone()))) {
            Ok(Some(share)) => share,
            Ok(None) => return Vec::new(),
            Err(error) => return vec![bad("sharing", error)],
        };
    let of = |(tier, answers): (TierName, bool)| match (tier, answers) {
        (TierName::Peer, true) => ok("sharing", "peers: at least one is reached".into()),
        (TierName::Peer, false) => {
            bad("sharing", "no peer is reached: check bootstrap, that all have the same secret, and firewalls")
        }
        (tier, true) => ok("sharing", format!("{} answers", tier.as_str())),
        (tier, false) => {
            let tier = tier.as_str();
            bad("sharing", format!("{tier} does not answer in time; check its address, or raise its timeout-ms"))
        }
    };
    share.answer().await.into_iter().map(of).collect()
}

fn store(stack: &Stack) -> Finding {
    let dir = stack.dir();
    if !dir.join("v1").exists() {
        return note("store", format!("{} is not there yet; the first answer makes it", dir.display()));
    }
    match stack.prepare() {
        Ok(()) => {
            let held = stack.disk().keys().len();
            let private = is_private(dir);
            let text = format!("{} can be written; {held} loose entries", dir.display());
            if private {
                ok("store", text)
            } else {
                bad("store", format!("{text}; others of this machine can read it: chmod 700 {}", dir.display()))
            }
        }
        Err(error) => bad("store", format!("{error}; answers are right, but not kept: choose --cache-dir")),
    }
}

#[cfg(unix)]
fn is_private(dir: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    dir.join("v1").metadata().is_ok_and(|meta| meta.permissions().mode().is_multiple_of(0o100))
}

#[cfg(not(unix))]
fn is_private(_: &Path) -> bool {
    true
}

fn bundle(stack: &Stack) -> Finding {
    let path = stack.bundle_path();
    match Bundle::open(&path).and_then(|bundle| bundle.map(|bundle| bundle.check().map(|_| bundle)).transpose()) {
        Ok(None) => note("bundle", "none yet; `octocache bundle pack` or the Action saves one".into()),
        Ok(Some(bundle)) => {
            let bytes = path.metadata().map_or(0, |meta| meta.len());
            ok("bundle", format!("{} entries, {}, index sound", bundle.totals().entries, Size(bytes)))
        }
        Err(error) => bad("bundle", format!("{error}; it counts as absent, and the next save writes it anew")),
    }
}

/// Whether invalidations have times that no clock can have written by now.
fn invalidations(stack: &Stack) -> Finding {
    let count = stack.all_cutoffs().iter().count();
    match stack.cutoffs_from_the_future() {
        0 => ok("invalidations", format!("{count} in force")),
        future => bad(
            "invalidations",
            format!(
                "{future} of {count} are from the future, as after a wrong clock; they count as of now \
                 (`octocache cache clear all` resets the list)"
            ),
        ),
    }
}

/// Whether predictions of entity tags hold, over all runs of this store.
fn rule(stack: &Stack) -> Finding {
    let counts = Stats::read(stack.dir());
    let (held, failed) = (counts.rule_held, counts.rule_failed);
    let text = format!("the rule of GitHub's entity tags: {held} answers held to it, {failed} did not");
    if failed * 10 > held + failed {
        bad("validators", format!("{text}; another token's revalidations are full requests"))
    } else {
        ok("validators", text)
    }
}

fn gh(config: &Config) -> Finding {
    let found = std::process::Command::new("gh").arg("--version").output();
    match found.ok().filter(|output| output.status.success()) {
        Some(output) => {
            let version = String::from_utf8_lossy(&output.stdout);
            ok("gh", version.lines().next().unwrap_or_default().to_owned())
        }
        None if config.token.is_some() => note("gh", "not installed; nothing here needs it".into()),
        None => note("gh", "not installed; with it, `gh auth login` gives a token".into()),
    }
}
