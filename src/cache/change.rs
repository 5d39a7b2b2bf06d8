//! A change that passes through on its way to GitHub: what it outdates is noted whatever becomes of the request.
//!
//! Knows: when to note it. Does not know: what a change outdates (`event`), or how it is sent.
//!
//! GitHub may carry a change out although its response never arrives: the client gives up, the connection breaks. So the
//! entries are outdated before the request is sent, and again when its end is known. An end that is not known leaves a
//! suspicion, as the delivery of a webhook does.

use std::sync::Arc;

use super::Cache;
use crate::clock::Timestamp;
use crate::cutoff::{Cutoff, SUSPECT_SECS};
use crate::tag::Scope;

/// What is known of a change at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// GitHub refused it: nothing has changed.
    Refused,
    /// GitHub answered.
    Answered,
    /// No response of GitHub's arrived.
    Unknown,
}

/// A change under way. Dropped before its end, it leaves the suspicion that it was carried out.
#[derive(Debug)]
pub struct Change {
    cache: Arc<Cache>,
    outdates: Option<Vec<Cutoff>>,
}

impl Change {
    /// Notes what a change outdates, durably, before it is sent; everything only at its end, since what is not understood
    /// is refused as a rule.
    pub async fn begin(cache: &Arc<Cache>, outdates: Vec<Cutoff>) -> Self {
        if !outdates.iter().any(|cutoff| cutoff.scope == Scope::All) {
            note(cache.clone(), outdates.clone()).await;
        }
        Self::watch(cache, outdates)
    }

    /// The same without a note before: for a request without a token, which GitHub refuses.
    pub fn watch(cache: &Arc<Cache>, outdates: Vec<Cutoff>) -> Self {
        Self { cache: cache.clone(), outdates: Some(outdates) }
    }

    /// Notes it again, as of now.
    pub async fn end(mut self, ended: Ended) {
        let Some(outdates) = self.outdates.take() else { return };
        let now = self.cache.now();
        match ended {
            Ended::Refused => {}
            Ended::Answered => note(self.cache.clone(), at(outdates, now)).await,
            Ended::Unknown => note(self.cache.clone(), suspected(outdates, now)).await,
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let Some(outdates) = self.outdates.take().filter(|outdates| !outdates.is_empty()) else { return };
        let (cache, now) = (self.cache.clone(), self.cache.now());
        let outdates = suspected(outdates, now);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || cache.outdate(&outdates))),
            Err(_) => cache.outdate(&outdates),
        }
    }
}

/// The same, and that it may happen within the next minute.
fn suspected(outdates: Vec<Cutoff>, now: Timestamp) -> Vec<Cutoff> {
    let later = at(outdates.clone(), now.plus(SUSPECT_SECS));
    at(outdates, now).into_iter().chain(later).collect()
}

fn at(outdates: Vec<Cutoff>, at: Timestamp) -> Vec<Cutoff> {
    outdates.into_iter().map(|cutoff| Cutoff { at, ..cutoff }).collect()
}

/// On another thread: it waits for the disk.
async fn note(cache: Arc<Cache>, outdates: Vec<Cutoff>) {
    if !outdates.is_empty() && tokio::task::spawn_blocking(move || cache.outdate(&outdates)).await.is_err() {
        tracing::warn!("what a change outdates was not noted; answers may show the state before it");
    }
}
