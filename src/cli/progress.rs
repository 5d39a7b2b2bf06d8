//! Showing how a run goes: a bar on a terminal, plain lines elsewhere.
//!
//! Knows: how much is worth saying. Does not know: plans.

#![allow(clippy::print_stderr, reason = "this is where people are told")]

use std::cell::Cell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::plan::report::QueryReport;
use crate::plan::run::Progress;
use crate::text;
use crate::units::Span;

/// Plain lines beyond this many would bury what matters; the table at the end has the sums.
const MAX_LINES: usize = 40;

pub(super) enum Shown {
    Bar(ProgressBar),
    Lines(Cell<usize>),
    Nothing,
}

impl Shown {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet {
            return Shown::Nothing;
        }
        if !std::io::stderr().is_terminal() {
            return Shown::Lines(Cell::new(0));
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        Shown::Bar(bar)
    }

    pub(super) fn end(&self) {
        if let Shown::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Shown {
    fn more(&self, count: usize) {
        if let Shown::Bar(bar) = self {
            bar.inc_length(count as u64);
        }
    }

    fn done(&self, report: &QueryReport) {
        match self {
            Shown::Bar(bar) => {
                bar.set_message(text::line(&report.name).into_owned());
                bar.inc(1);
                if let Some(error) = &report.error {
                    bar.println(text::line(&format!("{}: {error}", label(report))));
                }
            }
            Shown::Lines(said) => {
                said.set(said.get() + 1);
                match said.get() {
                    n if n <= MAX_LINES || report.error.is_some() => eprintln!("{}", text::line(&describe(report))),
                    n if n == MAX_LINES + 1 => eprintln!("… further answers are summed up below"),
                    _ => {}
                }
            }
            Shown::Nothing => {}
        }
    }
}

fn label(report: &QueryReport) -> String {
    match &report.item {
        Some(item) => format!("{} {item}", report.name),
        None => report.name.clone(),
    }
}

fn describe(report: &QueryReport) -> String {
    if let Some(error) = &report.error {
        return format!("{}: failed: {error}", label(report));
    }
    let reason = report.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let pages = if report.pages > 1 { format!(", {} pages", report.pages) } else { String::new() };
    let age = if report.age_secs > 0 { format!(", {} old", Span(report.age_secs)) } else { String::new() };
    format!("{}: {}{reason}{pages}{age}", label(report), report.outcome)
}
