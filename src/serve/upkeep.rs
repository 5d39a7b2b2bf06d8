//! What a server does beside answering: looks what other processes changed, writes what was only noted,
//! keeps the store within its bounds (A14).
//!
//! Knows: how often, and that answers come first. Does not know: how any of it is done (`stack`).

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::status::HISTORY_EVERY_SECS;
use super::{Door, metrics};
use crate::github;
use crate::metrics::Statsd;
use crate::stack::Saved;

/// Other processes' changes are seen within this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Notes are written every so many looks.
const FLUSH_EVERY: u32 = 10;

/// StatsD is told every so many looks.
const STATSD_EVERY: u32 = 10;

/// The store is tidied every so many looks.
const TIDY_EVERY: u32 = 60;

/// How much less this thread matters than those that answer, in steps of nice(2).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 15;

/// How much the store may hold.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Loose files beyond this number are folded into the local bundle.
    pub max_loose: usize,
    /// Bytes on disk, bundle and loose files together; what was not used for longest goes first.
    pub max_bytes: u64,
}

/// Runs on a thread of its own until the other end of `ended` is dropped.
pub(super) fn run(door: Arc<Door>, statsd: Option<SocketAddr>, ended: Receiver<()>) {
    // On Linux, priorities are the threads'. Where it cannot be lowered, it stays.
    #[cfg(target_os = "linux")]
    let _best_effort = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
    let mut statsd = Teller::new(statsd);
    door.look_at_disk();
    for tick in 1_u32.. {
        match ended.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        door.identities.common().stack.look_again();
        door.reload_if_changed();
        if u64::from(tick) % HISTORY_EVERY_SECS == 0 {
            door.remember();
        }
        statsd.tell(&door, tick);
        if tick % FLUSH_EVERY == 0 {
            door.identities.flush();
        }
        if tick % TIDY_EVERY == 0 {
            tidy(&door, door.live().room);
            door.look_at_disk();
            door.identities.expire();
            let common = door.identities.common();
            if let Some(dir) = &common.options.limits_dir {
                github::sweep(dir, common.clock.now());
            }
        }
    }
}

/// Tells StatsD, if there is one: best effort, as is its way.
struct Teller {
    to: Option<(UdpSocket, SocketAddr)>,
    statsd: Statsd,
}

impl Teller {
    fn new(to: Option<SocketAddr>) -> Self {
        let any = |to: &SocketAddr| if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let open = |to: SocketAddr| match UdpSocket::bind(any(&to)) {
            Ok(socket) => Some((socket, to)),
            Err(error) => {
                tracing::warn!(%error, "StatsD is not told: no socket");
                None
            }
        };
        Self { to: to.and_then(open), statsd: Statsd::default() }
    }

    fn tell(&mut self, door: &Door, tick: u32) {
        if let Some((socket, to)) = self.to.as_ref().filter(|_| tick.is_multiple_of(STATSD_EVERY)) {
            for datagram in self.statsd.datagrams(&metrics::families(door)) {
                let _best_effort = socket.send_to(datagram.as_bytes(), to);
            }
        }
    }
}

fn tidy(door: &Door, room: Room) {
    let stack = &door.identities.common().stack;
    let loose = stack.disk().keys().len();
    if loose > room.max_loose {
        match stack.fold() {
            Ok(Saved::Written { absorbed, .. }) => {
                tracing::info!(absorbed, "folded loose entries into the local bundle");
            }
            Ok(Saved::Unchanged | Saved::Busy) => {}
            Err(error) => tracing::warn!(%error, "loose entries not folded into the local bundle"),
        }
    }
    match stack.shrink(room.max_bytes) {
        Ok(cleaned) if cleaned.removed > 0 => {
            tracing::info!(removed = cleaned.removed, "removed what was not used for longest");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the store cannot be kept within its size"),
    }
}
