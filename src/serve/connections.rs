//! How many connections a listener has at once, and what becomes of one more.
//!
//! Knows: places, and who leaves when there are none. Does not know: sockets, requests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The bound of one listener.
#[derive(Debug)]
pub(super) enum Bound {
    /// One more waits until another has ended: for clients that are trusted to end.
    Waiting(Arc<Semaphore>),
    /// For one more the oldest ends: where strangers come in, who could hold all places forever.
    Evicting(Arc<Evicting>),
}

/// Connections by age.
#[derive(Debug)]
pub(super) struct Evicting {
    max: usize,
    number: AtomicU64,
    /// The oldest first.
    all: Mutex<VecDeque<(u64, oneshot::Sender<()>)>>,
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) enum Place {
    /// Among a number of them.
    Held { _permit: Option<OwnedSemaphorePermit> },
    /// One that a newer connection may take.
    Evictable { of: Arc<Evicting>, number: u64, told: oneshot::Receiver<()> },
}

impl Bound {
    /// At most `max`, and more wait.
    pub(super) fn waiting(max: usize) -> Self {
        Bound::Waiting(Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// At most `max`, and the oldest makes room.
    pub(super) fn evicting(max: usize) -> Self {
        Bound::Evicting(Arc::new(Evicting { max: max.max(1), number: AtomicU64::new(0), all: Mutex::default() }))
    }

    /// Waits until one more may be let in.
    pub(super) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        match self {
            Bound::Waiting(places) => places.clone().acquire_owned().await.ok(),
            Bound::Evicting(_) => None,
        }
    }

    /// The place of one that was let in.
    pub(super) fn place(&self, free: Option<OwnedSemaphorePermit>) -> Place {
        match self {
            Bound::Waiting(_) => Place::Held { _permit: free },
            Bound::Evicting(evicting) => evicting.enter(),
        }
    }
}

impl Evicting {
    fn enter(self: &Arc<Self>) -> Place {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back((number, tell));
        if all.len() > self.max
            && let Some((_, oldest)) = all.pop_front()
        {
            let _it_has_just_ended = oldest.send(());
        }
        Place::Evictable { of: self.clone(), number, told }
    }
}

impl Place {
    /// Resolves when a newer connection takes this place; never for one that is held.
    pub(super) async fn evicted(&mut self) {
        match self {
            Place::Held { .. } => std::future::pending().await,
            Place::Evictable { told, .. } => {
                let _told_or_gone = told.await;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Place::Evictable { of, number, .. } = self {
            of.all.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| other != number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn the_oldest_makes_room_and_who_left_is_not_counted() {
        let bound = Bound::evicting(2);
        let mut places: Vec<Place> = (0..3).map(|_| bound.place(None)).collect();
        let gone: Vec<bool> = places.iter_mut().map(|place| place.evicted().now_or_never().is_some()).collect();
        assert_eq!(gone, [true, false, false]);
        places.remove(2);
        let mut another = bound.place(None);
        assert!(places[1].evicted().now_or_never().is_none() && another.evicted().now_or_never().is_none());
    }

    #[tokio::test]
    async fn where_clients_wait_nobody_is_told_to_go() {
        let bound = Bound::waiting(1);
        let mut place = bound.place(bound.free().await);
        assert!(bound.free().now_or_never().is_none() && place.evicted().now_or_never().is_none());
        drop(place);
        assert!(bound.free().now_or_never().is_some());
    }
}
