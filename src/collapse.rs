//! One fetch for equal requests that are under way at the same time (A12).
//!
//! Knows: whose turn it is, and what the one before brought. Does not know: requests, answers,
//! other processes (those take turns by the store's locks).
//!
//! Whoever comes first leads, the others wait for its answer. If it fails, one of them tries
//! again; if that fails too, all get the error. A leader that is dropped counts as none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::key::CacheKey;

/// Attempts that may fail before those who wait get the error instead of a turn.
const MAX_FAILURES: u32 = 2;

/// Requests under way, by key.
#[derive(Debug)]
pub struct Collapse<T>(Mutex<HashMap<CacheKey, Arc<Flight<T>>>>);

#[derive(Debug)]
struct Flight<T>(tokio::sync::Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    answer: Option<T>,
    failures: u32,
    error: Option<Error>,
}

/// How an answer came to the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It fetched the answer.
    Leader,
    /// It waited for another's.
    Follower,
}

impl<T> Default for Collapse<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Takes the flight off the list when the last one who had to do with it leaves.
struct Seat<'a, T> {
    all: &'a Collapse<T>,
    key: CacheKey,
    flight: Arc<Flight<T>>,
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        let mut flights = self.all.lock();
        // The list's and ours.
        if Arc::strong_count(&self.flight) <= 2 {
            self.all.forget(&mut flights, &self.key, &self.flight);
        }
    }
}

impl<T: Clone> Collapse<T> {
    /// Runs `lead` unless the same is under way, in which case its answer is shared.
    pub async fn join(&self, key: CacheKey, lead: impl Future<Output = Result<T>>) -> Result<(T, Role)> {
        let flight = self.lock().entry(key).or_insert_with(Flight::new).clone();
        let seat = Seat { all: self, key, flight };
        let mut state = seat.flight.0.lock().await;
        if let Some(answer) = &state.answer {
            return Ok((answer.clone(), Role::Follower));
        }
        if let Some(error) = state.error.as_ref().filter(|_| state.failures >= MAX_FAILURES) {
            return Err(error.repeated());
        }
        match lead.await {
            Ok(answer) => {
                state.answer = Some(answer.clone());
                // Who comes from now on finds it in the store.
                self.forget(&mut self.lock(), &key, &seat.flight);
                Ok((answer, Role::Leader))
            }
            Err(error) => {
                state.failures += 1;
                state.error = Some(error.repeated());
                Err(error)
            }
        }
    }
}

type Flights<T> = HashMap<CacheKey, Arc<Flight<T>>>;

impl<T> Collapse<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Flights<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A newer flight of the same key stays.
    #[allow(clippy::unused_self, reason = "it is about this list")]
    fn forget(&self, flights: &mut Flights<T>, key: &CacheKey, flight: &Arc<Flight<T>>) {
        if flights.get(key).is_some_and(|listed| Arc::ptr_eq(listed, flight)) {
            flights.remove(key);
        }
    }
}

impl<T> Flight<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self(tokio::sync::Mutex::new(State { answer: None, failures: 0, error: None })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;
    use crate::error::Kind;
    use std::cell::Cell;
    use std::time::Duration;

    fn key() -> CacheKey {
        entry("/repos/o/r", b"{}").key()
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_share_one_fetch() {
        let collapse = Collapse::<u32>::default();
        let fetches = Cell::new(0);
        let ask = || {
            collapse.join(key(), async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                fetches.set(fetches.get() + 1);
                Ok(fetches.get())
            })
        };
        let answers = futures_util::future::join_all((0..100).map(|_| ask())).await;
        assert_eq!(fetches.get(), 1);
        let leaders = answers.iter().filter(|answer| matches!(answer, Ok((1, Role::Leader)))).count();
        let followers = answers.iter().filter(|answer| matches!(answer, Ok((1, Role::Follower)))).count();
        assert_eq!((leaders, followers), (1, 99));
        assert!(collapse.lock().is_empty());
        assert_eq!(ask().await.unwrap(), (2, Role::Leader), "later ones ask anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_leader_wakes_one_and_two_failures_are_everybodys() {
        let collapse = Collapse::<u32>::default();
        let attempts = Cell::new(0);
        let ask = |fails: u32| {
            let (collapse, attempts) = (&collapse, &attempts);
            collapse.join(key(), async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                attempts.set(attempts.get() + 1);
                if attempts.get() <= fails { Err(Error::new(Kind::Transport, "down")) } else { Ok(7) }
            })
        };
        let answers = futures_util::future::join_all((0..10).map(|_| ask(1))).await;
        assert_eq!((attempts.get(), answers.iter().filter(|answer| answer.is_ok()).count()), (2, 9));
        attempts.set(0);
        let answers = futures_util::future::join_all((0..10).map(|_| ask(99))).await;
        assert_eq!((attempts.get(), answers.iter().filter(|answer| answer.is_err()).count()), (2, 10));
        assert!(collapse.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_dropped_blocks_nobody_and_each_keeps_its_deadline() {
        let collapse = Collapse::<u32>::default();
        let forever = || collapse.join(key(), std::future::pending());
        let second = Duration::from_secs(1);
        let (leader, follower, other) = tokio::join!(
            tokio::time::timeout(second, forever()),
            collapse.join(key(), async { Ok(1) }),
            tokio::time::timeout(second / 2, forever()),
        );
        assert!(leader.is_err() && other.is_err());
        assert_eq!(follower.unwrap(), (1, Role::Leader));
        assert!(collapse.lock().is_empty());
    }
}
