//! Fetching: taking turns, asking GitHub, storing what it says.
//!
//! Knows: who asks for many, and what becomes of a reply. Does not know: whether anything must be asked.

use std::sync::Arc;

use super::Cache;
use super::answer::{Answer, Spent, stored};
use super::ask::Ask;
use super::explain::Explained;
use super::proof::LinkProof;
use crate::clock::Timestamp;
use crate::collapse::Role;
use crate::entry::{Entry, is_redirect};
use crate::error::{Error, Kind, Result};
use crate::key::{CacheKey, KeyParts};
use crate::outcome::{NoStore, Outcome};
use crate::policy::{self, After, Before, CutoffTimes, Mode, Validators};
use crate::request::Request;
use crate::stack::{Found, Turn};
use crate::tier::TierName;
use crate::upstream::Conditions;

impl Cache {
    /// One fetch of many who ask for the same, in this process and among those of this machine.
    pub(super) async fn take_turns(
        &self,
        request: &Request,
        ask: &Ask,
        explained: Explained,
        may_wait: bool,
    ) -> Result<(Answer, Role)> {
        let (key, cutoff) = (explained.key, explained.cutoff);
        // A server's revalidations are free, and too many for locks: processes take turns for what
        // costs something.
        let is_free = self.behind.is_some() && matches!(explained.decision, Before::Revalidate { .. });
        let mut at_once = Some(explained).filter(|_| is_free);
        let mut again = true;
        loop {
            let at_once = at_once.take();
            let lead = async {
                let (explained, mut turn) = if let Some(explained) = at_once {
                    (explained, None)
                } else {
                    let turn = if ask.in_turn { None } else { self.stack.turn(&key, may_wait).await };
                    // Another process, or a request that ended just now, may have brought it.
                    (self.explain(request, ask), turn)
                };
                let (explained, _others_wait) = self.look_beyond(request, ask, explained).await;
                if let Before::Fresh { proof, .. } = explained.decision {
                    return stored(explained.found, Outcome::Hit(proof), &explained.lifetime, explained.now);
                }
                if let Some(error) = turn.as_ref().and_then(Turn::failure) {
                    return Err(error);
                }
                let fetched = self.fetch(request, ask, explained, may_wait, &mut turn).await;
                if let (Err(error), Some(turn)) = (&fetched, &turn) {
                    turn.failed(error, self.clock.now());
                }
                fetched
            };
            match self.flights.join(key, lead).await {
                // It was under way when something changed that we must see.
                Ok((answer, Role::Follower)) if again && is_outdated(&answer.entry, cutoff) => again = false,
                other => return other,
            }
        }
    }

    /// Asks upstream, absorbs the reply and stores what is worth storing.
    /// The turn, if there is one, ends when the answer is where other processes find it.
    pub(super) async fn fetch(
        &self,
        request: &Request,
        ask: &Ask,
        explained: Explained,
        may_wait: bool,
        turn: &mut Option<Turn>,
    ) -> Result<Answer> {
        let Explained { key, parts, lifetime, found, candidate, cutoff, decision, .. } = explained;
        let (validators, because) = match decision {
            Before::Revalidate { validators, because } => (validators, because),
            Before::Fetch(because) => (Validators::default(), because),
            Before::Fresh { .. } | Before::AnswerStale { .. } | Before::NotCached => {
                return Err(Error::new(Kind::Internal, "a request is sent that need not be"));
            }
        };
        let (started, mut spent) = (self.clock.now(), Spent::default());
        let end_to_end = policy::is_end_to_end(ask.mode, cutoff);
        for validators in [validators, Validators::default()] {
            let conditional = !validators.is_empty();
            let reply = self.upstream.fetch(request, &Conditions { validators, may_wait, end_to_end }).await;
            let reply = reply.map_err(|error| spent.and_then(error))?;
            let signer = self.upstream.signer();
            spent.count(&reply, &signer);
            let confirmed = candidate.is_some() && reply.is_not_modified();
            self.stats.rule(reply.rule_held);
            // A 304 is about what was sent: the candidate, where there is one.
            let before = if confirmed { candidate.as_ref() } else { found.as_ref().map(|found| &*found.entry) };
            let before = before.filter(|_| conditional || !reply.is_not_modified()).cloned();
            let now = self.current_at(&key, &parts, request.listing.as_deref(), started);
            let terms = ask.terms(&lifetime, cutoff, &signer, now);
            let live = Some(Arc::new(reply.headers.clone()));
            let after = policy::after_reply(before, request, &parts, reply, &terms);
            let after = match after {
                After::Freshened(entry) => {
                    let (entry, link) = self.settle_link(request, *entry, ask, confirmed, &mut spent).await;
                    if link == LinkProof::Broken {
                        continue;
                    }
                    After::Freshened(Box::new(entry))
                }
                other => other,
            };
            let (entry, outcome) = match after {
                After::AskAgain => continue,
                After::Freshened(entry) if confirmed => (self.store(&key, *entry, turn.take()), Outcome::Confirmed),
                After::Freshened(entry) => (self.freshen(&key, *entry, found.as_ref()), Outcome::Revalidated),
                After::Replaced(entry) if ask.mode == Mode::NoStore => {
                    (Arc::from(entry), Outcome::NotStored(NoStore::Mode))
                }
                // Stored once it is known where it leads.
                After::Replaced(entry) if is_redirect(entry.status) && !ask.unfollowed => {
                    (Arc::from(entry), Outcome::Fetched(because))
                }
                After::Replaced(entry) => (self.store(&key, *entry, turn.take()), Outcome::Fetched(because)),
                After::DoNotStore(entry, reason) => (Arc::from(entry), Outcome::NotStored(reason)),
            };
            if is_redirect(entry.status) && matches!(outcome, Outcome::Fetched(_)) {
                self.outdate_redirect_back(request, &entry).await;
            }
            if matches!(outcome, Outcome::Revalidated | Outcome::Confirmed | Outcome::Fetched(_)) {
                self.note_pass(request, &entry);
            }
            if matches!(outcome, Outcome::Revalidated | Outcome::Fetched(_)) {
                self.superseded.note(found.as_ref().map(|found| &*found.entry), &entry);
            }
            let ttl_secs = policy::fresh_secs(&entry, &lifetime);
            let age_secs = now.since(entry.validated_at);
            let mut answer = Answer { age_secs, live, ..Answer::new(entry, outcome, ttl_secs) };
            answer.add(spent);
            return Ok(answer);
        }
        let text = format!("GitHub answers 304 to an unconditional request for {}", request.target());
        Err(spent.and_then(Error::new(Kind::Transport, text)))
    }

    /// Keeps what a 304 said of an entry of this partition.
    fn freshen(&self, key: &CacheKey, entry: Entry, found: Option<&Found>) -> Arc<Entry> {
        let entry = Arc::new(entry);
        // A note beside the bundle says when, and nothing else.
        let rest = |entry: &Entry| (entry.fields_cid, entry.expires_at, entry.link_validated_at);
        let noted = found.filter(|found| rest(&found.entry) == rest(&entry));
        self.stack.freshen_soon(key, &entry, noted.map_or(TierName::Disk, |found| found.tier));
        self.offer(&entry);
        entry
    }

    /// When a response was current, whose request was sent at `started`: what was invalidated meanwhile may have changed too
    /// late to show in it.
    pub(super) fn current_at(
        &self,
        key: &CacheKey,
        parts: &KeyParts,
        listing: Option<&str>,
        started: Timestamp,
    ) -> Timestamp {
        let meanwhile = self.cutoff(key, parts, listing).revalidate;
        if meanwhile >= Some(started) { started } else { self.clock.now() }
    }
}

fn is_outdated(entry: &Entry, cutoff: CutoffTimes) -> bool {
    cutoff.revalidate.is_some_and(|at| entry.validated_at <= at)
}
