//! `octocache trust`: lets a plan that is found, not named, say where data goes.

use super::args::TrustArgs;
use super::{Context, Exit, print};
use crate::config::{Candidate, Environment, TrustList, plan_at};
use crate::error::Result;
use crate::plan::{Address, Destinations};

pub(super) fn main(context: &Context, args: &TrustArgs) -> Result<Exit> {
    let mut list = TrustList::read(&Environment::of_process())?;
    if args.list {
        let rows = list.plans().iter().map(|plan| format!("{}  {}\n", plan.sha256, plan.path.escape_debug()));
        print::out(rows.collect::<String>().as_bytes())?;
        return Ok(Exit::Done);
    }
    if args.revoke {
        let path = plan_at(args.plan.as_deref())?;
        // A plan that is gone can still stand in the list.
        let path = path.canonicalize().or_else(|_| std::path::absolute(&path)).unwrap_or(path);
        let was_trusted = list.remove(&path)?;
        let text = if was_trusted { "is not trusted any more" } else { "was not trusted" };
        print::line(&format!("{} {text}", path.display()))?;
        return Ok(Exit::Done);
    }
    let plan = Candidate::find(args.plan.as_deref())?;
    list.add(&plan.path, &plan.bytes)?;
    print::line(&format!("{} is trusted until it changes", plan.path.display()))?;
    if !context.quiet {
        for line in described(&plan.destinations) {
            print::line(&format!("  {line}"))?;
        }
    }
    Ok(Exit::Done)
}

/// What the trust allows, one thing a line.
fn described(destinations: &Destinations) -> Vec<String> {
    let Destinations { cache_dir, share } = destinations;
    let mut lines = Vec::new();
    if let Some(dir) = cache_dir {
        lines.push(format!("the store is in {}", dir.display().to_string().escape_debug()));
    }
    if let Some(redis) = &share.redis {
        let at = match &redis.url {
            Address::Literal(url) => url.escape_debug().to_string(),
            Address::Variable(name) => format!("the address in {name}"),
        };
        lines.push(format!("answers are shared with Redis at {at}"));
    }
    if let Some(p2p) = &share.p2p {
        let known = p2p.bootstrap.join(", ");
        let known = if known.is_empty() { String::new() } else { format!(" at {}", known.escape_debug()) };
        lines.push(format!("answers are shared with peers{known}"));
    }
    if let Some(ipfs) = &share.ipfs {
        let shown = ipfs.authorization.as_ref().map_or_else(String::new, |name| format!(", which is shown {name}"));
        lines.push(format!("answers are kept in the IPFS node at {}{shown}", ipfs.api.escape_debug()));
    }
    if share.secret_from_token {
        lines.push("the token is the secret with which they are sealed".to_owned());
    }
    if lines.is_empty() {
        lines.push("it names no place that receives data, so it needs no trust".to_owned());
    }
    lines
}
