//! `octocache cache peers`: who shares with the server that uses this store.
//!
//! Knows: the file in which a server writes that down. Does not know: the network.

#[cfg(feature = "p2p")]
pub(super) use with_peers::main;

#[cfg(not(feature = "p2p"))]
pub(super) fn main(_: &super::Context, _: &crate::stack::Stack, _: bool, _: bool) -> crate::error::Result<()> {
    Err(crate::error::Error::usage("this program was built without peers").hint("build it with the feature `p2p`"))
}

#[cfg(feature = "p2p")]
mod with_peers {
    use std::time::Duration;

    use crate::cli::{Context, block_on, print};
    use crate::config::share::{MAX_PEERS_BYTES, PEERS};
    use crate::error::{Error, Result};
    use crate::files;
    use crate::share::peers::Standing;
    use crate::stack::Stack;
    use crate::units::{Size, Span};

    /// How often it is printed anew.
    const EVERY: Duration = Duration::from_secs(2);

    pub(in crate::cli) fn main(context: &Context, stack: &Stack, json: bool, watch: bool) -> Result<()> {
        loop {
            let (standing, age) = read(context, stack)?;
            if json {
                return print::json(context.masker(), &standing);
            }
            print::text(context.masker(), &table(&standing, age))?;
            if !watch {
                return Ok(());
            }
            block_on(tokio::time::sleep(EVERY))?;
        }
    }

    fn read(context: &Context, stack: &Stack) -> Result<(Standing, u64)> {
        let file = stack.dir().join(PEERS);
        let bytes = files::read_bounded(&file, MAX_PEERS_BYTES)?.ok_or_else(|| {
            Error::usage(format!("there is no {}: no server has taken part with this store", file.display()))
                .hint("start one with `octocache serve --p2p`, or name its store with --cache-dir")
        })?;
        let standing = serde_json::from_slice(&bytes)
            .map_err(|cause| Error::corrupt(format!("{} cannot be read", file.display())).because(cause))?;
        let written = std::fs::metadata(&file).and_then(|meta| meta.modified()).ok();
        let written = written.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |at| at.as_secs());
        Ok((standing, (context.clock.now().secs().max(0) as u64).saturating_sub(written)))
    }

    fn role(is_writer: bool) -> &'static str {
        if is_writer { "writer" } else { "reader" }
    }

    fn table(standing: &Standing, age: u64) -> String {
        let Standing { me, listening, is_writer, peers, known, own, served, received_bytes, said_bytes, .. } = standing;
        let heading = ["peer", "role", "address", "announced", "given", "taken"].map(str::to_owned).to_vec();
        let mut rows = vec![heading];
        rows.extend(peers.iter().map(|other| {
            let bodies = |(count, bytes): (u64, u64)| format!("{count} ({})", Size(bytes));
            vec![
                other.peer.clone(),
                role(other.is_writer).to_owned(),
                other.address.clone(),
                other.exchange.announced.to_string(),
                bodies(other.exchange.served),
                bodies(other.exchange.received),
            ]
        }));
        let reached = if listening.is_empty() { "nowhere".to_owned() } else { listening.join(", ") };
        format!(
            "{}this is {me}, a {}, reached at {reached}\n{known} entries are known, {own} of them here; given {} ({}), taken {}, announced {}; {} ago\n",
            print::table(&rows),
            role(*is_writer),
            served.0,
            Size(served.1),
            Size(*received_bytes),
            Size(*said_bytes),
            Span(age),
        )
    }
}
