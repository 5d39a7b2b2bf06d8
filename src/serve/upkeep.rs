//! What a server does beside answering: looks what other processes changed, writes what was only noted,
//! keeps the store within its bounds (A14).
//!
//! Knows: how often. Does not know: how any of it is done (`stack`).

use std::sync::Arc;
use std::time::Duration;

use super::Door;
use crate::stack::{Narrow, Saved};

/// Other processes' changes are seen within this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Notes are written every so many looks.
const FLUSH_EVERY: u32 = 10;

/// The store is tidied every so many looks.
const TIDY_EVERY: u32 = 60;

/// How much the store may hold.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Loose files beyond this number are folded into the bundle.
    pub max_loose: usize,
    /// Bytes on disk, bundle and loose files together; what was not used for longest goes first.
    pub max_bytes: Option<u64>,
}

/// Runs until it is dropped. Everything that reads or writes files is done on another thread.
pub(super) async fn run(door: Arc<Door>, room: Room) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for tick in 1_u32.. {
        ticks.tick().await;
        let door = door.clone();
        let done = tokio::task::spawn_blocking(move || {
            door.identities.common().stack.look_again();
            if tick % FLUSH_EVERY == 0 {
                door.identities.flush();
            }
            if tick % TIDY_EVERY == 0 {
                tidy(&door, room);
            }
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "upkeep failed");
        }
    }
}

fn tidy(door: &Door, room: Room) {
    let stack = &door.identities.common().stack;
    let loose = stack.disk().keys().len();
    if loose > room.max_loose {
        match stack.pack(&Narrow::default(), false) {
            Ok(Saved::Written { absorbed, .. }) => tracing::info!(absorbed, "folded loose entries into the bundle"),
            Ok(Saved::Unchanged | Saved::Busy) => {}
            Err(error) => tracing::warn!(%error, "loose entries cannot be folded into the bundle"),
        }
    }
    if let Some(max) = room.max_bytes {
        match stack.shrink(max) {
            Ok(cleaned) if cleaned.removed > 0 => {
                tracing::info!(removed = cleaned.removed, "removed what was not used for longest");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the store cannot be kept within its size"),
        }
    }
}
