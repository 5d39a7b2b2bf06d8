//! Closing gaps: what was announced while nobody listened is found by comparing two indexes.
//!
//! Knows: with whom an index is compared, when, and what is passed on of what came of it. Does not know:
//! how two indexes find out in what they differ (`index`).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libp2p::PeerId;
use tokio::time::Instant;

use super::index::Learned;
use super::message::{Blob, MAX_SAID, Question, Reply, names};
use super::node::{Node, Waiting, named};
use super::shared::count;

/// With those that come, it is compared one by one in this distance.
pub(super) const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// With one of all, it is compared after this.
const AGAIN: Duration = Duration::from_secs(15);

/// After so many rounds without anybody to compare with, there is nobody.
const ROUNDS: u32 = 3;

/// Those that came and wait; more will be met another time.
const MAX_WAITING: usize = 64;

/// Of what comparing brought, so much is passed on at once: those who do not compare with the same peer
/// hear of it within a moment after a net was in two. What is more comes to them by comparing, too.
const MAX_PASSED_ON: usize = 1_024;

/// Whom this node has compared with, and will.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    at: Option<Instant>,
    with: VecDeque<PeerId>,
    passed_on: usize,
    rounds: u32,
}

impl Node {
    /// A peer that was not connected before has come.
    pub(super) fn compare_soon(&mut self, peer: PeerId) {
        if self.comparing.at.is_none_or(|at| at.elapsed() > COMPARE_EVERY) {
            self.compare_with(peer);
        } else if self.comparing.with.len() < MAX_WAITING {
            self.comparing.with.push_back(peer);
        }
    }

    /// Compares with the next one that came, or now and then with anybody.
    pub(super) fn compare(&mut self) {
        self.comparing.passed_on = 0;
        // Whoever meets nobody knows all there is.
        self.comparing.rounds = self.comparing.rounds.saturating_add(1);
        if self.comparing.rounds > ROUNDS || self.meets_nobody() {
            self.shared.is_whole.store(true, Ordering::Relaxed);
        }
        while let Some(peer) = self.comparing.with.pop_front() {
            if self.swarm.is_connected(&peer) {
                return self.compare_with(peer);
            }
        }
        // Not all at the same time.
        let again = AGAIN + COMPARE_EVERY * crate::share::random(3) as u32;
        if self.comparing.at.is_none_or(|at| at.elapsed() > again) {
            let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
            if let Some(peer) = peers.get(crate::share::random(peers.len())) {
                self.ask_who(*peer);
                self.compare_with(*peer);
            }
            self.meet_another();
        }
    }

    fn compare_with(&mut self, peer: PeerId) {
        self.comparing.at = Some(Instant::now());
        let prints = self.shared.index().prints().to_vec();
        self.ask(&peer, Question::Names(prints), Waiting::Sync(peer));
    }

    /// Takes what a peer answered to one of the questions above.
    pub(super) fn go_on_comparing(&mut self, peer: PeerId, reply: Reply) {
        match reply {
            Reply::Names(said) => {
                let lacking = self.shared.index().lacking(&names(said));
                for some in lacking.chunks(MAX_SAID) {
                    let some = some.iter().map(|name| Blob(name.to_vec())).collect();
                    self.ask(&peer, Question::Said(some), Waiting::Sync(peer));
                }
                if lacking.is_empty() {
                    self.around.send_modify(|around| around.is_synced = true);
                    self.shared.is_whole.store(true, Ordering::Relaxed);
                }
            }
            Reply::Said(said) => {
                let from = named(&peer);
                if !self.shared.is_writer(&from) {
                    return;
                }
                // Whoever always has more could keep this going for ever.
                if !self.allows(peer, said.len()) {
                    count(&self.shared.tally.refused, said.len() as u64);
                    return;
                }
                let mut news = Vec::new();
                for said in said.into_iter().take(MAX_SAID) {
                    if let Some((name, Learned::News)) = self.shared.learn(said, &from) {
                        news.push(name);
                    }
                }
                self.pass_on(&news);
                for name in &news {
                    self.handing.wants(peer, *name);
                }
                self.adopt();
                if !self.waits(|waiting| matches!(waiting, Waiting::Sync(one) if *one == peer)) {
                    self.around.send_modify(|around| around.is_synced = true);
                    // There may be more than one answer held.
                    if !news.is_empty() {
                        self.compare_with(peer);
                    }
                }
            }
            Reply::Who(who) => self.note_addresses(peer, who),
            Reply::Block(_) | Reply::Claimed(_) | Reply::No => {}
        }
    }

    /// Passes on what comparing brought, unless this peer has only just come and lacked everything.
    fn pass_on(&mut self, news: &[super::copy::Name]) {
        if !self.shared.is_whole.load(Ordering::Relaxed) || !self.says() {
            return;
        }
        for name in news.iter().take(MAX_PASSED_ON - self.comparing.passed_on.min(MAX_PASSED_ON)) {
            self.comparing.passed_on += 1;
            let shared = self.shared.clone();
            let said = shared.index().get(name).and_then(|known| shared.said(name, known));
            if let Some(said) = said {
                self.say(said);
            }
        }
    }
}
