//! The event that started a workflow, and what it outdates (C8).
//!
//! Knows: where Actions puts it. Does not know: what it means (`event`).

use crate::cache::Cache;
use crate::config::Environment;
use crate::error::{Error, Result};
use crate::event::{self, MAX_PAYLOAD_BYTES, Payload};
use crate::files;

/// Outdates what the workflow's event touched, before anything is asked. An event that cannot be
/// read outdates its whole repository: requests are lost then, never truth.
pub(super) fn outdate(environment: &Environment, cache: &Cache) -> Result<()> {
    let (Some(name), Some(path)) = (environment.get("GITHUB_EVENT_NAME"), environment.get("GITHUB_EVENT_PATH")) else {
        return Ok(());
    };
    let read = files::read_bounded(path.as_ref(), MAX_PAYLOAD_BYTES as u64).and_then(|bytes| {
        let bytes = bytes.ok_or_else(|| Error::corrupt("there is no such file"))?;
        Payload::read(&bytes)
    });
    let (cutoffs, aliases) = match read {
        Ok(payload) => (event::outdated(name, &payload, cache.now()), payload.aliases()),
        Err(error) => {
            let Some(repository) = environment.get("GITHUB_REPOSITORY") else { return Ok(()) };
            tracing::warn!(%error, path, "the workflow's event cannot be read; all of {repository} is validated anew");
            (event::outdated("unknown", &Payload::of_repository(repository), cache.now()), Vec::new())
        }
    };
    // A store that is not there yet has nothing to outdate; copies of others' may have.
    if cutoffs.is_empty() || (!cache.stack().dir().exists() && cache.share().is_none()) {
        return Ok(());
    }
    tracing::info!(event = name, scopes = cutoffs.len(), "what the workflow's event touched is validated anew");
    cache.stack().learn(aliases);
    cache.invalidate_all(&cutoffs)
}
