//! Asking peers: for a copy, with a deadline and a second holder, and for who asks GitHub.
//!
//! Knows: whom to ask, how long. Does not know: connections; a question goes to the transport and comes
//! back answered or not.

use std::sync::atomic::Ordering;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::copy::{self, Name};
use super::index::{Known, Peer};
use super::message::{Blob, Question, Reply, Unanswered};
use super::shared::{Shared, count};
use super::{HEDGE, LOOK_AGAIN, MAX_ASKED, Peers, lock};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::partition::Partition;
use crate::share::patience::Patience;
use crate::share::{Claim, Copy, Faith, Guard, Wanted};
use crate::tier::TierName;

/// How a question to a peer ended.
enum Ended {
    /// It answered as it should.
    Well,
    /// It does not have what it was asked for.
    Empty,
    /// It could not be asked, or sent something else than it announced.
    Badly,
}

impl From<Unanswered> for Ended {
    fn from(why: Unanswered) -> Self {
        match why {
            // That is no fault of its.
            Unanswered::Unreached => Ended::Empty,
            Unanswered::Failed => Ended::Badly,
        }
    }
}

/// A peer is waited for; one that is not waited for any longer was too slow.
struct Waiting<'a> {
    shared: &'a Shared,
    peer: &'a Peer,
    since: Instant,
    ended: bool,
}

impl<'a> Waiting<'a> {
    fn for_peer(shared: &'a Shared, peer: &'a Peer) -> Self {
        Self { shared, peer, since: Instant::now(), ended: false }
    }

    fn ended(mut self, how: Ended) {
        self.ended = true;
        let (limits, took) = (self.shared.gate.limits(), self.since.elapsed());
        self.shared.waited_for(self.peer, |patience, now| match how {
            Ended::Well if patience.is_asking() => patience.answered(took, true, limits, now),
            Ended::Well => Patience::default(),
            Ended::Empty => patience.answered(took, false, limits, now),
            Ended::Badly => patience.failed(limits, now),
        });
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let (limits, took) = (self.shared.gate.limits(), self.since.elapsed());
        if !self.ended {
            self.shared.waited_for(self.peer, |patience, now| match patience {
                Patience::Asking { .. } => patience.answered(took, false, limits, now),
                Patience::Resting { .. } => patience.failed(limits, now),
            });
        }
    }
}

impl Peers {
    /// Waits until it is known what others have: the first ones do, and not for long.
    pub(super) async fn met(&self) {
        let Some(until) = *lock(&self.first_until) else { return };
        let mut around = self.around.clone();
        let met = tokio::time::timeout_at(until, around.wait_for(|around| around.is_synced));
        let _or_not = met.await;
        *lock(&self.first_until) = None;
    }

    async fn ask(&self, peer: &Peer, question: Question) -> Result<Reply, Unanswered> {
        self.net.ask(peer, question).await
    }

    pub(super) async fn look_up_one(&self, wanted: &Wanted) -> Option<(Entry, Faith)> {
        if !self.shared.partitions.contains(&wanted.parts.partition) {
            return None;
        }
        let name = self.shared.name(&wanted.key);
        let known = self.shared.index().get(&name).cloned()?;
        let is_news = wanted.known.is_none_or(|at| known.validated_at > at);
        let gate = &self.shared.gate;
        if !is_news || lock(&self.shared.own).contains_key(&name) && known.holders.is_empty() || !gate.is_open() {
            return None;
        }
        let (pulled, took) = gate.in_time(self.pull(&name, &known, wanted)).await;
        match pulled {
            Some(Some(entry)) => {
                gate.answered(took, true);
                count(&self.shared.tally.hits, 1);
                let faith = self.faith(&entry);
                Some((entry, faith))
            }
            // Whoever was asked is not asked for it again.
            Some(None) => {
                gate.answered(took, false);
                None
            }
            None => {
                count(&self.shared.tally.failed, 1);
                gate.failed();
                None
            }
        }
    }

    fn faith(&self, entry: &Entry) -> Faith {
        let age = self.shared.clock.now().since(entry.validated_at.min(self.shared.clock.now()));
        let is_public = entry.parts.partition == Partition::public();
        if self.trust_public && is_public && age <= entry.ttl_secs { Faith::Trusted } else { Faith::Unproven }
    }

    /// Whom to ask: those that announced it, if they are not slow, and those that may have it by now.
    fn holders(&self, known: &Known) -> Vec<Peer> {
        let around = self.around.borrow();
        let others = around.peers.iter().map(|one| &one.peer).filter(|peer| !known.holders.contains(peer));
        let all = known.holders.iter().chain(others).filter(|peer| !self.shared.rests(peer));
        all.take(MAX_ASKED).cloned().collect()
    }

    /// The body from one holder, and from others if that one takes long or does not have it.
    async fn pull(&self, name: &Name, known: &Known, wanted: &Wanted) -> Option<Entry> {
        let holders = self.holders(known);
        let mut holders = holders.iter().map(|holder| self.pull_from(holder, name, known, wanted));
        let mut asked = FuturesUnordered::new();
        loop {
            asked.extend(holders.next());
            match select(asked.next(), Box::pin(tokio::time::sleep(HEDGE))).await {
                Either::Left((Some(Some(entry)), _)) => return Some(entry),
                Either::Left((None, _)) => return None,
                Either::Left((Some(None), _)) | Either::Right(_) => {}
            }
        }
    }

    async fn pull_from(&self, holder: &Peer, name: &Name, known: &Known, wanted: &Wanted) -> Option<Entry> {
        let question = Question::Block { name: Blob(name.to_vec()), cid: Blob(known.cid.sha256().to_vec()) };
        let waiting = Waiting::for_peer(&self.shared, holder);
        let reply = self.ask(holder, question).await;
        let block = match reply {
            Ok(Reply::Block(Blob(block))) => block,
            Ok(_) => {
                waiting.ended(Ended::Empty);
                self.shared.index().has_not(name, holder);
                return None;
            }
            // It may have it still, and is left alone for a while.
            Err(why) => {
                waiting.ended(why.into());
                return None;
            }
        };
        count(&self.shared.tally.bytes_received, block.len() as u64);
        self.shared.exchanged(holder, |one| {
            one.received = (one.received.0 + 1, one.received.1 + block.len() as u64);
        });
        let partition = &wanted.parts.partition;
        match copy::join(&known.head, &block, &known.cid, &wanted.key, partition, &self.shared.group) {
            Ok(entry) => {
                waiting.ended(Ended::Well);
                Some(entry)
            }
            Err(error) => {
                waiting.ended(Ended::Badly);
                tracing::debug!(%error, %holder, key = %wanted.key, "what a peer sent is refused");
                count(&self.shared.tally.refused, 1);
                self.shared.index().has_not(name, holder);
                None
            }
        }
    }

    /// Who settles who asks GitHub for this: the same peer for everybody who knows the same peers; `None`
    /// where there is nobody.
    fn owner(&self, name: &Name, not: &[Peer]) -> Option<Peer> {
        let around = self.around.borrow();
        // Those that nobody can dial are not known to the others, and who has only just come knows too little.
        let is_one = !around.listening.is_empty() && self.shared.is_whole.load(Ordering::Relaxed);
        let stays = is_one.then_some(&self.shared.me);
        let others = around.peers.iter().filter(|one| one.is_reachable != Some(false) && !self.shared.rests(&one.peer));
        let others = others.filter(|one| !not.contains(&one.peer));
        let mut all = others.map(|one| &one.peer).peekable();
        all.peek()?;
        all.chain(stays)
            .max_by_key(|peer| {
                use sha2::Digest;
                sha2::Sha256::digest([&name[..], peer.as_bytes()].concat())
            })
            .cloned()
    }

    pub(super) async fn claim_or_wait(&self, wanted: &Wanted) -> Option<Claim> {
        let name = self.shared.name(&wanted.key);
        let (gate, started) = (&self.shared.gate, Instant::now());
        let mut not = Vec::new();
        loop {
            if let Some((entry, faith)) = self.look_up_one(wanted).await {
                return Some(Claim::Answered(Box::new(Copy { entry, tier: TierName::Peer, faith })));
            }
            let owner = self.owner(&name, &not).filter(|_| gate.is_open())?;
            let before = self.shared.heard_of(&name);
            let known = wanted.known.map(Timestamp::secs);
            let question = Question::Claim { name: Blob(name.to_vec()), known };
            let settled = if owner == self.shared.me {
                self.shared.answer(&self.shared.me, question)
            } else {
                let waiting = Waiting::for_peer(&self.shared, &owner);
                match gate.in_time(self.ask(&owner, question)).await {
                    // It is gone, or knows too little: somebody else does.
                    (Some(reply @ (Err(_) | Ok(Reply::No))), _) => {
                        tracing::debug!(%owner, key = %wanted.key, "a peer does not settle who asks GitHub");
                        waiting.ended(reply.err().map_or(Ended::Empty, Ended::from));
                        not.push(owner);
                        if not.len() == MAX_ASKED {
                            return Some(Claim::Ours(None));
                        }
                        continue;
                    }
                    (Some(Ok(settled)), took) => {
                        waiting.ended(Ended::Well);
                        gate.answered(took, matches!(settled, Reply::Said(_)));
                        settled
                    }
                    // Then nobody is waited for.
                    (None, _) => {
                        tracing::debug!(%owner, key = %wanted.key, "a peer does not settle in time who asks GitHub");
                        gate.failed();
                        return Some(Claim::Ours(None));
                    }
                }
            };
            match settled {
                Reply::Claimed(true) => {
                    let shared = self.shared.clone();
                    return Some(Claim::Ours(Some(Guard::new(move || shared.give_up(&name)))));
                }
                Reply::Said(said) if owner != self.shared.me && self.shared.is_writer(&owner) => {
                    said.into_iter().take(1).for_each(|said| {
                        self.shared.learn(said, &owner);
                    });
                }
                _ => {}
            }
            let left = self.longest_wait().saturating_sub(started.elapsed());
            if left.is_zero() {
                // Whoever claimed it has not announced it: for long this is not borne.
                tracing::debug!(key = %wanted.key, "whoever asks GitHub has announced nothing in time");
                gate.answered(started.elapsed(), false);
                return Some(Claim::Ours(None));
            }
            // Whoever asks GitHub announces it; should that be lost, it is asked for again.
            let news = self.shared.hears_of(&name, before.as_ref());
            let _or_not = tokio::time::timeout(LOOK_AGAIN.min(left), news).await;
        }
    }
}
