//! A worker that stays: it waits for each tick of its schedule.
//!
//! Knows: that ticks do not overlap, that a missed one comes once, and that clocks are set. Does
//! not know: what a tick does.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::schedule::Schedule;

/// Nobody sleeps longer at a stretch: the clock may be set, or the machine suspended, meanwhile.
const LONGEST_NAP: Duration = Duration::from_mins(1);

/// A worker that stays.
#[derive(Debug)]
pub struct Resident<'a, J> {
    /// When it ticks.
    pub schedule: &'a Schedule,
    /// The time.
    pub clock: &'a Clock,
    /// By how much the next tick comes later.
    pub jitter_secs: J,
}

impl<J: FnMut() -> u64> Resident<'_, J> {
    /// Ticks until `ended`, which also ends a tick that is under way. Ticks that pass while one is
    /// under way, or while the machine sleeps, are one that comes at once. Returns as well when the
    /// schedule has no next tick.
    pub async fn stay(
        mut self,
        mut announce: impl FnMut(Timestamp),
        mut tick: impl AsyncFnMut(),
        ended: impl Future<Output = ()>,
    ) {
        let mut ended = std::pin::pin!(ended);
        let mut from = self.clock.now();
        while let Some(next) = self.schedule.next_after(from) {
            tracing::info!(next = %next, schedule = %self.schedule, "waiting for the next tick");
            announce(next);
            let at = next.plus((self.jitter_secs)());
            tokio::select! {
                () = self.sleep_until(at) => {}
                () = &mut ended => return,
            }
            from = self.clock.now().max(next);
            tokio::select! {
                () = tick() => {}
                () = &mut ended => return,
            }
        }
    }

    async fn sleep_until(&self, at: Timestamp) {
        loop {
            let left = at.since(self.clock.now());
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(left).min(LONGEST_NAP)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const NOON: Timestamp = Timestamp::from_secs(1_800_014_400);

    /// Minutes after noon at which a worker by `schedule` ticks, each tick taking so many minutes,
    /// until it is told to end.
    async fn ticks(schedule: &str, takes: u64, jitter: u64, end: u64) -> (Vec<u64>, Vec<String>) {
        let clock = Clock::following_tokio(NOON);
        let schedule = Schedule::parse(schedule, "UTC").unwrap();
        let resident = Resident { schedule: &schedule, clock: &clock, jitter_secs: || jitter * 60 };
        let (at, said) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let minutes = |mins: u64| tokio::time::sleep(Duration::from_secs(mins * 60));
        let tick = async || {
            at.borrow_mut().push(clock.now().since(NOON) / 60);
            minutes(takes).await;
        };
        resident.stay(|next| said.borrow_mut().push(next.to_string()), tick, minutes(end)).await;
        assert_eq!(clock.now().since(NOON) / 60, end, "it ends when it is told to");
        (at.take(), said.take())
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_come_by_the_schedule_with_jitter_and_are_announced() {
        let (at, said) = ticks("*/15 * * * *", 1, 0, 50).await;
        assert_eq!((at, said[0].as_str(), said.len()), (vec![15, 30, 45], "2027-01-15T12:15:00Z", 4));
        assert_eq!(ticks("*/15 * * * *", 1, 2, 50).await.0, [17, 32, 47]);
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_that_are_missed_come_once_and_never_at_the_same_time() {
        // Each takes 40 minutes: those at 30 and 45 are one, which comes when the first is done.
        assert_eq!(ticks("*/15 * * * *", 40, 0, 130).await.0, [15, 55, 95]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_in_the_middle_of_a_tick() {
        assert_eq!(ticks("*/15 * * * *", 1_000, 0, 20).await.0, [15]);
    }
}
