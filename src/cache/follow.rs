//! Redirects of renamed and moved resources.
//!
//! Knows: how far they are followed, and when they are worth storing. Does not know: how one request is answered.

use std::sync::Arc;

use super::{Answer, Ask, Cache};
use crate::alias::is_by_number;
use crate::cutoff::{Cutoff, CutoffMode};
use crate::entry::{Entry, is_redirect};
use crate::error::{Error, Kind, Result};
use crate::key::KeyParts;
use crate::outcome::Outcome;
use crate::request::Request;
use crate::tag::Scope;

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;

impl Cache {
    /// Follows redirects on the API's own host. They are stored once they have led to a response: a circle, or a redirect
    /// to what cannot be reached, takes the place of nothing.
    pub(super) async fn follow(&self, request: &Request, ask: &Ask, mut answer: Answer) -> Result<Answer> {
        let mut followed = None;
        let mut redirects: Vec<(Arc<Entry>, Outcome)> = Vec::new();
        while !ask.unfollowed && is_redirect(answer.entry.status) {
            let from = followed.as_ref().unwrap_or(request);
            let to = answer.entry.headers.get("location").and_then(|to| from.follow(&self.api, to)).map(nameless);
            redirects.push((answer.entry.clone(), answer.outcome));
            // To another host, for which our token is not meant: the redirect is the answer.
            let Some(next) = to else { break };
            if redirects.len() > MAX_REDIRECTS {
                let text = format!("{} leads through more than {MAX_REDIRECTS} redirects", request.target());
                return Err(Error::new(Kind::Transport, text));
            }
            let spent = answer.spent();
            answer = self.get_one(&next, ask).await.map_err(|error| spent.and_then(error))?;
            answer.add(spent);
            followed = Some(next);
        }
        // What leads to an answer is a part of it.
        let outcomes = redirects.iter().map(|(_, outcome)| *outcome).chain([answer.outcome]);
        answer.outcome = outcomes.max_by_key(|outcome| outcome.weight()).unwrap_or(answer.outcome);
        for (entry, outcome) in redirects {
            if matches!(outcome, Outcome::Fetched(_)) {
                self.store(&entry.key(), Arc::unwrap_or_clone(entry), None);
            }
        }
        Ok(answer)
    }

    /// Outdates a stored redirect that leads back to `request`, which redirects to it now: a repository has its old name
    /// again, and the two would send a client to and fro.
    pub(super) async fn outdate_redirect_back(&self, request: &Request, redirect: &Entry) {
        let follow = |from: &Request, entry: &Entry| from.follow(&self.api, entry.headers.get("location")?);
        let Some(next) = follow(request, redirect) else { return };
        let key = KeyParts::of(&next, &self.partition).key();
        let Some(back) = self.stack.look_up(&key).filter(|found| is_redirect(found.entry.status)) else { return };
        let leads_back =
            follow(&next, &back.entry).is_some_and(|last| KeyParts::of(&last, &self.partition).key() == redirect.key());
        if leads_back {
            let scope = Scope::Key(key.to_string());
            let cutoff = Cutoff { scope, at: self.clock.now(), mode: CutoffMode::Revalidate };
            // On another thread: it waits for the disk.
            let stack = self.stack.clone();
            let noted = tokio::task::spawn_blocking(move || stack.invalidate(&[cutoff])).await;
            if let Ok(Err(error)) = noted {
                tracing::debug!(%error, target = %next.target(), "an outdated redirect is not noted");
            }
        }
    }
}

/// What leads on from a name to a number shows that the name is an old one: the new name is not known, and what changes under it
/// is about this number, too.
fn nameless(next: Request) -> Request {
    let listing = is_by_number(&next.path).then(|| next.path.as_str().into()).or(next.listing);
    Request { listing, ..next }
}
