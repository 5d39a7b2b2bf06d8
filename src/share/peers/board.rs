//! Where machines leave a note of where they are, so that nobody has to be told: a place that they share
//! already, or a file.
//!
//! Knows: when notes are read and left, which are worth leaving. Does not know: what the place is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use serde::Serialize;

use super::node::{Node, failed};
use super::transport::Transport;
use crate::error::Result;
use crate::files::{self, Durability};

/// Notes are read, and left anew, so often.
const EVERY: Duration = Duration::from_mins(10);

/// Addresses that are taken from a board or a file.
const MAX_TAKEN: usize = 64;

/// The longest address, and the largest file of them.
const MAX_ADDRESS_BYTES: usize = 256;
const MAX_FILE_BYTES: u64 = 64 << 10;

/// A place where machines leave a note of where they are. Whatever goes wrong there is no note.
pub trait Board: Send + Sync + std::fmt::Debug {
    /// Addresses that were left in the last hours, with names of peers; some of them, if there are many.
    fn read(&self) -> BoxFuture<'_, Vec<String>>;

    /// Leaves these.
    fn leave(&self, addresses: Vec<String>) -> BoxFuture<'_, ()>;
}

/// Of a peer's addresses, those that lead to it from elsewhere, if any do.
fn worth_leaving(me: &str, listening: &[String]) -> Vec<String> {
    let is_near = |at: &&String| at.contains("/127.") || at.contains("/::1/");
    let (near, far): (Vec<&String>, Vec<&String>) = listening.iter().partition(is_near);
    let chosen = if far.is_empty() { near } else { far };
    chosen.into_iter().map(|at| format!("{at}/p2p/{me}")).take(MAX_TAKEN).collect()
}

fn fits(address: &str) -> bool {
    address.len() <= MAX_ADDRESS_BYTES
}

/// Reads notes and, where others can reach this peer, leaves its own; for as long as it takes part.
pub(super) async fn keep(board: Arc<dyn Board>, net: Arc<dyn Transport>, stays: Option<String>) {
    loop {
        let found = board.read().await.into_iter().filter(|address| fits(address)).take(MAX_TAKEN).collect();
        net.meet(found);
        let Some(me) = &stays else { return };
        let mut around = net.around();
        let listening = around.wait_for(|around| !around.listening.is_empty()).await.map(|now| now.listening.clone());
        let Ok(listening) = listening else { return };
        board.leave(worth_leaving(me, &listening)).await;
        tokio::time::sleep(EVERY).await;
    }
}

/// Whom an earlier process met.
pub(crate) fn read_met(file: &Path) -> Vec<String> {
    let bytes = files::read_bounded(file, MAX_FILE_BYTES).ok().flatten();
    let all: Option<Vec<String>> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    all.unwrap_or_default().into_iter().filter(|address| fits(address)).take(MAX_TAKEN).collect()
}

/// Whom this process has met: those that were met last are the last ones.
fn met(book: &[String]) -> Vec<&String> {
    book.iter().rev().take(MAX_TAKEN).collect()
}

fn write(file: &Path, what: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(what).map_err(failed)?;
    files::write_atomic(file, file.parent().unwrap_or(Path::new(".")), &text, Durability::Rename)
}

impl Node {
    /// Writes down who is around and who was met, on another thread. Best effort.
    pub(super) fn write_down(&self) {
        let (standing_file, met_file) = (self.standing.clone(), self.met.clone());
        let around = self.around.borrow().clone();
        let standing = self.shared.standing(&around, self.says());
        tokio::task::spawn_blocking(move || {
            let met_file = met_file.filter(|_| !around.book.is_empty());
            let written = standing_file
                .map_or(Ok(()), |file| write(&file, &standing))
                .and_then(|()| met_file.map_or(Ok(()), |file| write(&file, &met(&around.book))));
            if let Err(error) = written {
                tracing::debug!(%error, "who is around is not written down");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_nowhere_from_elsewhere_is_left_only_where_there_is_nothing_else() {
        let [near, far] = ["/ip4/127.0.0.1/tcp/9", "/ip4/10.0.0.5/tcp/9"].map(str::to_owned);
        assert_eq!(worth_leaving("X", &[near.clone(), far]), ["/ip4/10.0.0.5/tcp/9/p2p/X"]);
        assert_eq!(worth_leaving("X", &[near, "/ip6/::1/tcp/9".to_owned()]).len(), 2);
    }

    #[test]
    fn whom_one_process_met_the_next_one_knows_and_nonsense_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("met.json");
        assert!(read_met(&file).is_empty());
        let book: Vec<String> = (0..100).map(|n| format!("/ip4/10.0.0.5/tcp/{n}/p2p/X")).collect();
        write(&file, &met(&book)).unwrap();
        let met = read_met(&file);
        assert_eq!((met.len(), met[0].as_str()), (MAX_TAKEN, "/ip4/10.0.0.5/tcp/99/p2p/X"));
        for nonsense in ["", "{", "[1]", &format!("[\"{}\"]", "x".repeat(300)), &"[".repeat(100_000)] {
            std::fs::write(&file, nonsense).unwrap();
            assert!(read_met(&file).is_empty());
        }
    }
}
