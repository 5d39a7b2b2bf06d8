//! Asking peers: for a copy, with a deadline and a second holder, and for who asks GitHub.
//!
//! Knows: whom to ask, how long. Does not know: connections; a question goes to the node and comes back
//! answered or not.

use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::copy::{self, Name};
use super::index::{Known, Peer};
use super::message::{Blob, Question, Reply};
use super::node::Order;
use super::shared::count;
use super::{HEDGE, LONGEST_WAIT, LOOK_EVERY, MAX_ASKED, Peers, lock};
use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::partition::Partition;
use crate::share::{Claim, Copy, Faith, Guard, Wanted};
use crate::tier::TierName;

impl Peers {
    /// Waits until it is known what others have: the first ones do, and not for long.
    pub(super) async fn met(&self) {
        let Some(until) = *lock(&self.first_until) else { return };
        let mut around = self.around.clone();
        let met = tokio::time::timeout_at(until, around.wait_for(|around| around.is_synced));
        let _or_not = met.await;
        *lock(&self.first_until) = None;
    }

    async fn ask(&self, peer: &Peer, question: Question) -> Option<Reply> {
        let (answer, answered) = oneshot::channel();
        self.orders.try_send(Order::Ask(peer.clone(), question, answer)).ok()?;
        answered.await.ok()?
    }

    pub(super) async fn look_up_one(&self, wanted: &Wanted) -> Option<(Entry, Faith)> {
        if !self.shared.partitions.contains(&wanted.parts.partition) {
            return None;
        }
        let name = self.shared.name(&wanted.key);
        let known = self.shared.index().get(&name).cloned()?;
        let is_news = wanted.known.is_none_or(|at| known.validated_at > at);
        if !is_news || lock(&self.shared.own).contains_key(&name) && known.holders.is_empty() || !self.gate.is_open() {
            return None;
        }
        let (pulled, took) = self.gate.in_time(self.pull(&name, &known, wanted)).await;
        match pulled {
            Some(Some(entry)) => {
                self.gate.answered(took, true);
                count(&self.shared.tally.hits, 1);
                let faith = self.faith(&entry);
                Some((entry, faith))
            }
            // Whoever was asked is not asked for it again.
            Some(None) => {
                self.gate.answered(took, false);
                None
            }
            None => {
                count(&self.shared.tally.failed, 1);
                self.gate.failed();
                known.holders.iter().for_each(|holder| self.shared.index().has_not(&name, holder));
                None
            }
        }
    }

    fn faith(&self, entry: &Entry) -> Faith {
        let age = self.shared.clock.now().since(entry.validated_at.min(self.shared.clock.now()));
        let is_public = entry.parts.partition == Partition::public();
        if self.trust_public && is_public && age <= entry.ttl_secs { Faith::Trusted } else { Faith::Unproven }
    }

    /// The body from one holder, and from a second one if the first takes long.
    async fn pull(&self, name: &Name, known: &Known, wanted: &Wanted) -> Option<Entry> {
        // Whoever announced it may be gone; others may have it by now.
        let around = self.around.borrow().peers.clone();
        let others = around.iter().map(|(peer, _)| peer).filter(|peer| !known.holders.contains(peer));
        let others = others.take(MAX_ASKED.saturating_sub(known.holders.len()));
        let mut holders = known.holders.iter().chain(others);
        let first = Box::pin(self.pull_from(holders.next()?, name, known, wanted));
        let first = match select(first, Box::pin(tokio::time::sleep(HEDGE))).await {
            Either::Left((Some(entry), _)) => return Some(entry),
            Either::Left((None, _)) => None,
            Either::Right(((), first)) => Some(first),
        };
        let Some(second) = holders.next() else { return first?.await };
        let second = Box::pin(self.pull_from(second, name, known, wanted));
        let Some(first) = first else { return second.await };
        match select(first, second).await {
            Either::Left((Some(entry), _)) | Either::Right((Some(entry), _)) => Some(entry),
            Either::Left((None, rest)) | Either::Right((None, rest)) => rest.await,
        }
    }

    async fn pull_from(&self, holder: &Peer, name: &Name, known: &Known, wanted: &Wanted) -> Option<Entry> {
        let question = Question::Block { name: Blob(name.to_vec()), cid: Blob(known.cid.sha256().to_vec()) };
        let reply = self.ask(holder, question).await;
        let Some(Reply::Block(Blob(block))) = reply else {
            self.shared.index().has_not(name, holder);
            return None;
        };
        count(&self.shared.tally.bytes_received, block.len() as u64);
        self.shared.exchanged(holder, |one| {
            one.received = (one.received.0 + 1, one.received.1 + block.len() as u64);
        });
        let partition = &wanted.parts.partition;
        match copy::join(&known.head, &block, &known.cid, &wanted.key, partition, &self.shared.group) {
            Ok(entry) => Some(entry),
            Err(error) => {
                tracing::debug!(%error, %holder, key = %wanted.key, "what a peer sent is refused");
                count(&self.shared.tally.refused, 1);
                self.shared.index().has_not(name, holder);
                None
            }
        }
    }

    /// Who settles who asks GitHub for this: the same peer for everybody who knows the same peers.
    fn owner(&self, name: &Name) -> Option<Peer> {
        let around = self.around.borrow();
        if around.peers.is_empty() {
            return None;
        }
        let all = around.peers.iter().map(|(peer, _)| peer).chain([&self.shared.me]);
        all.max_by_key(|peer| {
            use sha2::Digest;
            sha2::Sha256::digest([&name[..], peer.as_bytes()].concat())
        })
        .cloned()
    }

    pub(super) async fn claim_or_wait(&self, wanted: &Wanted) -> Option<Claim> {
        let name = self.shared.name(&wanted.key);
        let give_up = Instant::now() + LONGEST_WAIT;
        loop {
            if let Some((entry, faith)) = self.look_up_one(wanted).await {
                return Some(Claim::Answered(Box::new(Copy { entry, tier: TierName::Peer, faith })));
            }
            let owner = self.owner(&name)?;
            let known = wanted.known.map(Timestamp::secs);
            let question = Question::Claim { name: Blob(name.to_vec()), known };
            let settled = if owner == self.shared.me {
                self.shared.answer(&self.shared.me, question)
            } else {
                match self.gate.in_time(self.ask(&owner, question)).await {
                    (Some(Some(settled)), _) => settled,
                    // Nobody settles it: then nobody is waited for.
                    _ => return Some(Claim::Ours(None)),
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
            if Instant::now() + LOOK_EVERY > give_up {
                return Some(Claim::Ours(None));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
