//! Redirects of renamed and moved resources.
//!
//! Knows: how far they are followed, and when they are worth storing. Does not know: how one request is answered.

use std::sync::Arc;

use super::{Answer, Ask, Cache};
use crate::entry::{Entry, is_redirect};
use crate::error::{Error, Kind, Result};
use crate::outcome::Outcome;
use crate::request::Request;

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
            let to = answer.entry.headers.get("location").and_then(|to| from.follow(&self.api, to));
            redirects.push((answer.entry.clone(), answer.outcome));
            // To another host, for which our token is not meant: the redirect is the answer.
            let Some(next) = to else { break };
            if redirects.len() > MAX_REDIRECTS {
                let text = format!("{} leads through more than {MAX_REDIRECTS} redirects", request.target());
                return Err(Error::new(Kind::Transport, text));
            }
            let spent = answer.spent();
            answer = self.get_one(&next, ask).await?;
            answer.add(spent);
            followed = Some(next);
        }
        for (entry, outcome) in redirects {
            if matches!(outcome, Outcome::Fetched(_)) {
                self.store(&entry.key(), Arc::unwrap_or_clone(entry), None);
            }
        }
        Ok(answer)
    }
}
