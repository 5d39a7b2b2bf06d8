//! Reading the configuration again while it is served (D7): when a file has changed, or on SIGHUP.
//!
//! Knows: that a sound configuration takes the place of the old one at once, and a bad one never does.
//! Does not know: where it stands, or how it is written.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use sha2::{Digest, Sha256};

use super::webhook::Keys;
use super::{Door, Room};
use crate::cache::Ask;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::files::Stamp;
use crate::policy::TtlTable;

/// What clients must show; only its digest is held, and it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// From its text.
    pub fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What may change while it is served.
#[derive(Debug)]
pub struct Live {
    /// How questions are answered unless the client says otherwise.
    pub ask: Ask,
    /// Parts of the `User-Agent` of clients for which addresses in bodies lead back, too.
    pub rewrite_bodies: Vec<String>,
    /// What a client must show in `X-Octocache-Secret`, if anything.
    pub secret: Option<Secret>,
    /// What deliveries are signed with; there is no door for them without.
    pub webhook_keys: Option<Keys>,
    /// How much the store may hold.
    pub room: Room,
}

/// How it is read.
type Read = dyn Fn() -> Result<(Live, TtlTable)> + Send + Sync;

/// Where it is read again.
pub struct Reload {
    /// Reads all of it.
    pub read: Box<Read>,
    /// It is read again when one of these has changed.
    pub files: Vec<PathBuf>,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("files", &self.files).finish_non_exhaustive()
    }
}

/// How reading it went.
#[derive(Debug, Clone)]
pub(super) struct State {
    stamps: Vec<Stamp>,
    /// When what is in force was read.
    pub(super) at: Timestamp,
    /// Why what is there now is not in force.
    pub(super) error: Option<String>,
    pub(super) taken: u64,
    pub(super) refused: u64,
}

impl State {
    pub(super) fn new(at: Timestamp, reload: Option<&Reload>) -> Self {
        Self { stamps: stamps(reload), at, error: None, taken: 0, refused: 0 }
    }
}

fn stamps(reload: Option<&Reload>) -> Vec<Stamp> {
    reload.map_or_else(Vec::new, |reload| reload.files.iter().map(|file| Stamp::of(file)).collect())
}

impl Door {
    /// How reading it went.
    pub(super) fn reload_state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the configuration again if a file of it has changed, or somebody wants it to be read.
    pub(super) fn reload_if_changed(&self) {
        let Some(reload) = &self.reload else { return };
        let now = stamps(Some(reload));
        let wanted = self.reload_wanted.swap(false, Ordering::Relaxed);
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !wanted && state.stamps == now {
                return;
            }
            state.stamps = now;
        }
        let read = (reload.read)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            // A door for deliveries is made when the server starts, or never.
            Ok((live, ttls)) => {
                self.live.store(Arc::new(live));
                self.identities.common().ttls.exchange(ttls);
                state.at = self.identities.common().clock.now();
                state.error = None;
                state.taken += 1;
                tracing::info!("the configuration was read again and is in force");
            }
            Err(error) => {
                tracing::error!(%error, "the new configuration is not sound; the old one stays in force");
                state.error = Some(error.to_string());
                state.refused += 1;
            }
        }
    }
}

/// Asks for the configuration to be read again on each SIGHUP; never ends.
#[cfg_attr(not(unix), expect(unused_variables, reason = "there are no signals"))]
pub(super) async fn on_hangup(door: &Door) {
    #[cfg(unix)]
    if let Ok(mut hangup) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        while hangup.recv().await.is_some() {
            door.reload_wanted.store(true, Ordering::Relaxed);
        }
    }
    std::future::pending::<()>().await;
}
