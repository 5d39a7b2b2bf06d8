//! `timeago` and `timefmt`.
//!
//! Knows: Go's layouts, gh's words. Does not know: the time; it is given.

use chrono::{DateTime, Datelike, FixedOffset, Timelike};

use crate::clock::Timestamp;

fn read(at: &str) -> Result<DateTime<FixedOffset>, String> {
    DateTime::parse_from_rfc3339(at).map_err(|_| format!("parsing time {at:?}: cannot parse it as RFC 3339"))
}

/// How long ago, in gh's words.
pub(super) fn ago(at: &str, now: Timestamp) -> Result<String, String> {
    let secs = now.secs() - read(at)?.timestamp();
    let (minute, hour, day) = (60, 3_600, 86_400);
    let many = |count: i64, unit: &str| format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" });
    Ok(if secs < minute {
        "just now".into()
    } else if secs < hour {
        many(secs / minute, "minute")
    } else if secs < day {
        many(secs / hour, "hour")
    } else if secs < 30 * day {
        many(secs / day, "day")
    } else if secs < 365 * day {
        many(secs / day / 30, "month")
    } else {
        many(secs / day / 365, "year")
    })
}

/// A time in one of Go's layouts, which show how the second of January 2006 would be written.
pub(super) fn formatted(layout: &str, at: &str) -> Result<String, String> {
    let at = read(at)?;
    let mut out = String::new();
    let mut rest = layout;
    while !rest.is_empty() {
        let found = PARTS.iter().find(|(part, _)| rest.starts_with(part));
        if let Some((part, write)) = found {
            out.push_str(&write(&at));
            rest = &rest[part.len()..];
        } else {
            let c = rest.chars().next().unwrap_or_default();
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(out)
}

type Part = (&'static str, fn(&DateTime<FixedOffset>) -> String);

/// The parts of layouts; longer ones before those that they begin with.
const PARTS: &[Part] = &[
    ("January", |at| at.format("%B").to_string()),
    ("Jan", |at| at.format("%b").to_string()),
    ("Monday", |at| at.format("%A").to_string()),
    ("Mon", |at| at.format("%a").to_string()),
    ("MST", |at| if at.offset().local_minus_utc() == 0 { "UTC".into() } else { at.format("%z").to_string() }),
    ("2006", |at| format!("{:04}", at.year())),
    ("-07:00", |at| at.format("%:z").to_string()),
    ("-0700", |at| at.format("%z").to_string()),
    ("Z07:00", |at| if at.offset().local_minus_utc() == 0 { "Z".into() } else { at.format("%:z").to_string() }),
    ("Z0700", |at| if at.offset().local_minus_utc() == 0 { "Z".into() } else { at.format("%z").to_string() }),
    (".000", |at| format!(".{:03}", at.nanosecond() / 1_000_000)),
    ("01", |at| format!("{:02}", at.month())),
    ("02", |at| format!("{:02}", at.day())),
    ("03", |at| format!("{:02}", at.hour12().1)),
    ("04", |at| format!("{:02}", at.minute())),
    ("05", |at| format!("{:02}", at.second())),
    ("06", |at| format!("{:02}", at.year() % 100)),
    ("_2", |at| format!("{:2}", at.day())),
    ("15", |at| format!("{:02}", at.hour())),
    ("PM", |at| if at.hour12().0 { "PM".into() } else { "AM".into() }),
    ("pm", |at| if at.hour12().0 { "pm".into() } else { "am".into() }),
    ("1", |at| at.month().to_string()),
    ("2", |at| at.day().to_string()),
    ("3", |at| at.hour12().1.to_string()),
    ("4", |at| at.minute().to_string()),
    ("5", |at| at.second().to_string()),
];
