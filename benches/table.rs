//! Rows of figures, each with its goal.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "benches print real time"
)]

use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Table {
    pub missed: usize,
}

impl Table {
    pub fn section(title: &str) {
        println!("\n{title}");
    }

    pub fn note(text: &str) {
        println!("      {text}");
    }

    pub fn at_most(&mut self, what: &str, value: f64, goal: f64, unit: &str) {
        self.row(what, value, goal, unit, value <= goal, "≤");
    }

    pub fn at_least(&mut self, what: &str, value: f64, goal: f64, unit: &str) {
        self.row(what, value, goal, unit, value >= goal, "≥");
    }

    fn row(&mut self, what: &str, value: f64, goal: f64, unit: &str, held: bool, sign: &str) {
        self.missed += usize::from(!held);
        println!("{} {what:<66} {value:>9.3} {unit:<3} (goal {sign} {goal})", if held { "  ok  " } else { " MISS " });
    }
}

/// The best of so many tries, in milliseconds: noise only ever adds.
pub fn best(tries: usize, mut run: impl FnMut()) -> f64 {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    ms((0..tries).map(|_| time(&mut run)).min().unwrap_or_default())
}

pub fn median(tries: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..tries)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    ms(times[times.len() / 2])
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
