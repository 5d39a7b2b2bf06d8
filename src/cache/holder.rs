//! Asking on behalf of somebody who has a copy of their own while we have none.
//!
//! Knows: that a 304 to their validators is for them alone. Does not know: what they have.

use std::sync::Arc;

use http::HeaderMap;

use super::{Answer, Ask, Cache, Spent};
use crate::error::{Error, Kind, Result};
use crate::key::KeyParts;
use crate::outcome::{Because, NoStore, Outcome};
use crate::policy::{self, After, Mode, Validators};
use crate::request::Request;
use crate::upstream::Conditions;

/// What GitHub says to somebody's own validators.
#[derive(Debug)]
pub enum Said {
    /// Their copy is current. There is no body that could be stored.
    NotModified(Arc<HeaderMap>),
    /// Theirs is not; here is the answer, stored like any other.
    Answer(Answer),
}

impl Cache {
    /// Asks GitHub with validators that are not ours. A 304 of another cache's, to which something has changed since or which
    /// does not say what it is about, confirms nothing: then the response is asked for without them.
    pub async fn ask_with(&self, request: &Request, ask: &Ask, theirs: Validators) -> Result<Said> {
        let parts = KeyParts::of(request, &self.partition);
        let lifetime = self.ttls.load().lifetime(&request.path, &request.query, ask.ttl_secs, ask.stale_secs);
        let lifetime = lifetime.at_most(ask.max_age_secs);
        let key = parts.key();
        let cutoff = self.cutoff(&key, &parts, request.listing.as_deref());
        let started = self.clock.now();
        let mut conditions =
            Conditions { validators: theirs, may_wait: true, end_to_end: policy::is_end_to_end(ask.mode, cutoff) };
        let mut reply = self.upstream.fetch(request, &conditions).await?;
        let signer = self.upstream.signer();
        let mut spent = Spent::default();
        spent.count(&reply, &signer);
        let is_outdated = policy::is_outdated_elsewhere(&reply, cutoff, self.clock.now());
        if reply.is_not_modified() && (is_outdated || !policy::is_about(&reply, &conditions.validators)) {
            conditions.validators = Validators::default();
            reply = self.upstream.fetch(request, &conditions).await.map_err(|error| spent.and_then(error))?;
            spent.count(&reply, &signer);
        }
        let live = Arc::new(reply.headers.clone());
        if reply.is_not_modified() && !conditions.validators.is_empty() {
            return Ok(Said::NotModified(live));
        }
        self.stats.rule(reply.rule_held);
        let now = self.current_at(&key, &parts, request.listing.as_deref(), started);
        let terms = ask.terms(&lifetime, cutoff, &signer, now);
        let (entry, outcome) = match policy::after_reply(None, request, &parts, reply, &terms) {
            After::Replaced(entry) if ask.mode == Mode::NoStore => {
                (Arc::from(entry), Outcome::NotStored(NoStore::Mode))
            }
            After::Replaced(entry) => (self.store(&key, *entry, None), Outcome::Fetched(Because::NotStored)),
            After::DoNotStore(entry, reason) => (Arc::from(entry), Outcome::NotStored(reason)),
            After::Freshened(_) | After::AskAgain => return Err(Error::new(Kind::Internal, "a 304 came as an answer")),
        };
        if matches!(outcome, Outcome::Fetched(_)) {
            self.note_pass(request, &entry);
        }
        let ttl_secs = policy::fresh_secs(&entry, &lifetime);
        let mut answer = Answer { live: Some(live), ..Answer::new(entry, outcome, ttl_secs) };
        answer.add(spent);
        Ok(Said::Answer(answer))
    }

    /// The table of lifetimes.
    pub fn ttls(&self) -> &policy::Ttls {
        &self.ttls
    }
}
