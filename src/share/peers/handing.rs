//! Handing over: who comes and goes cannot be dialled, so those who stay take what it has.
//!
//! Knows: which bodies are taken from whom, how many are kept, how long one who leaves waits for the others.
//! Does not know: what a body is. It is kept sealed, by its address, and goes to whoever asks for it; whether
//! it is what it is said to be finds out who opens it.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::copy::{MAX_BLOCK_BYTES, Name};
use super::message::{Blob, Question, Reply};
use super::node::{Node, Waiting, named};
use crate::cid::Cid;

/// What is kept for others.
const MAX_KEPT_BYTES: u64 = 64 << 20;
const MEAN_BYTES: u64 = 4 << 10;

/// Bodies that wait to be taken, and that are taken at once.
const MAX_WANTED: usize = 4_096;
const MAX_AT_ONCE: usize = 16;

/// Who leaves waits for a quarter of a time-out when nobody takes anything, and for so many in all.
const LONGEST: u32 = 12;

/// Bodies of those that have left, or may.
pub(super) type Kept = Cache<Name, (Cid, Bytes), Bytewise>;

/// Kept bodies count by their bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytewise;

impl Weighter<Name, (Cid, Bytes)> for Bytewise {
    fn weight(&self, _: &Name, (_, block): &(Cid, Bytes)) -> u64 {
        block.len() as u64 + 128
    }
}

pub(super) fn kept() -> Kept {
    Cache::with_weighter((MAX_KEPT_BYTES / MEAN_BYTES) as usize, MAX_KEPT_BYTES, Bytewise)
}

/// What this node takes from others, and what others take from it.
#[derive(Debug)]
pub(super) struct Handing {
    /// Whether this node stays, and others find it.
    stays: bool,
    /// So long it is waited for somebody who takes the next one.
    quiet: Duration,
    wanted: VecDeque<(PeerId, Name)>,
    taking: usize,
    /// Announced, and nobody who stays has it so far.
    unheld: HashSet<Name>,
    leaving: Option<Leaving>,
}

#[derive(Debug)]
struct Leaving {
    done: oneshot::Sender<()>,
    latest: Instant,
    quiet: Instant,
}

impl Handing {
    pub(super) fn new(stays: bool, timeout: Duration) -> Self {
        Self { stays, quiet: timeout / 4, wanted: VecDeque::new(), taking: 0, unheld: HashSet::new(), leaving: None }
    }

    /// A peer has something that was not known.
    pub(super) fn wants(&mut self, peer: PeerId, name: Name) {
        if self.stays && self.wanted.len() < MAX_WANTED {
            self.wanted.push_back((peer, name));
        }
    }

    /// This node has announced something that nobody else has who stays.
    pub(super) fn said(&mut self, name: Name) {
        if !self.stays && self.unheld.len() < MAX_WANTED {
            self.unheld.insert(name);
        }
    }

    /// Somebody who stays says that he has it: not before that is it certain that it arrived.
    pub(super) fn is_held(&mut self, name: &Name) {
        if self.unheld.remove(name) {
            let quiet = Instant::now() + self.quiet;
            self.leaving.iter_mut().for_each(|leaving| leaving.quiet = quiet);
            if self.unheld.is_empty() {
                self.is_time();
            }
        }
    }

    /// The process ends, and so many stay who can be asked.
    pub(super) fn leave(&mut self, done: oneshot::Sender<()>, takers: usize) {
        let now = Instant::now();
        self.leaving = Some(Leaving { done, latest: now + self.quiet * LONGEST, quiet: now + self.quiet });
        if self.stays || takers == 0 || self.unheld.is_empty() {
            self.is_time();
        }
    }

    /// Until when the process waits for others, if it ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.leaving.as_ref().map(|leaving| leaving.latest.min(leaving.quiet))
    }

    /// The process may end.
    pub(super) fn is_time(&mut self) {
        if let Some(leaving) = self.leaving.take() {
            let _gone = leaving.done.send(());
        }
    }
}

impl Node {
    /// Takes bodies from those that cannot be dialled, some at a time.
    pub(super) fn adopt(&mut self) {
        while self.handing.taking < MAX_AT_ONCE {
            let Some((peer, name)) = self.handing.wanted.pop_front() else { return };
            let by = named(&peer);
            let comes_and_goes =
                self.around.borrow().peers.iter().any(|one| one.peer == by && one.is_reachable != Some(true));
            let cid = self.shared.index().get(&name).map(|known| known.cid);
            let is_new = |cid: &Cid| self.shared.kept.get(&name).is_none_or(|(kept, _)| kept != *cid);
            if let Some(cid) = cid.filter(|cid| comes_and_goes && is_new(cid)) {
                let question = Question::Block { name: Blob(name.to_vec()), cid: Blob(cid.sha256().to_vec()) };
                self.handing.taking += 1;
                self.ask(&peer, question, Waiting::Adopt(name));
            }
        }
    }

    /// Keeps a body that came, and says so.
    pub(super) fn adopted(&mut self, name: Name, reply: Reply) {
        self.handing.taking = self.handing.taking.saturating_sub(1);
        if let Reply::Block(Blob(block)) = reply
            && block.len() <= MAX_BLOCK_BYTES
        {
            let (shared, cid) = (self.shared.clone(), Cid::of(&block));
            let said = shared.index().get(&name).filter(|known| known.cid == cid).and_then(|known| {
                shared.kept.insert(name, (cid, block.into()));
                shared.said(&name, known)
            });
            if let Some(said) = said.filter(|_| self.says()) {
                self.say(said);
            }
        }
        self.adopt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(80);

    fn is_done(done: &mut oneshot::Receiver<()>) -> bool {
        done.try_recv().is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_stays_or_has_nothing_or_nobody_leaves_at_once() {
        for (stays, takers) in [(true, 3), (false, 3), (false, 0)] {
            let (done, mut left) = oneshot::channel();
            let mut handing = Handing::new(stays, TIMEOUT);
            handing.leave(done, takers);
            assert!(is_done(&mut left) && handing.until().is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_waits_for_a_moment_and_not_for_long() {
        let (done, mut left) = oneshot::channel();
        let mut handing = Handing::new(false, TIMEOUT);
        handing.unheld.extend([[1; 16], [2; 16]]);
        handing.leave(done, 1);
        tokio::time::advance(TIMEOUT / 8).await;
        handing.is_held(&[1; 16]);
        assert_eq!(handing.until(), Some(Instant::now() + TIMEOUT / 4));
        assert!(!is_done(&mut left));
        handing.is_held(&[2; 16]);
        assert!(is_done(&mut left) && handing.until().is_none());
        // Nobody takes anything.
        let (done, mut left) = oneshot::channel();
        handing.said([3; 16]);
        handing.leave(done, 1);
        assert_eq!(handing.until(), Some(Instant::now() + TIMEOUT / 4));
        handing.is_time();
        assert!(is_done(&mut left));
    }
}
