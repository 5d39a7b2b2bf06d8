//! When a worker ticks: POSIX cron expressions (five fields) in a time zone.
//!
//! Knows: the five fields as crontab(5) has them, and what daylight saving does to them. Does not
//! know: waiting, or what a tick does. Times are found by the crate `cron`, whose own expressions
//! differ (seconds, other numbers for days, both day fields at once): each field is translated into
//! the list of its values, so that nothing is left to interpret.

use std::fmt;

use chrono::{DateTime, Utc};
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// A schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    zone: TimeZone,
    zone_name: String,
    /// One, or two that are both meant: when day of month and day of week are restricted, either
    /// suffices.
    parts: Vec<cron::Schedule>,
    /// Whether it fires every hour: then the hour that comes twice has its ticks twice.
    hourly: bool,
}

/// Local time is set back or forward by no more than this.
const LARGEST_SHIFT_SECS: i64 = 3 * 3_600;

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Names for whole expressions, as crontab(5) has them.
const NAMES: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Schedule {
    /// Reads an expression; `zone` is a name such as `UTC` or `Europe/Berlin`.
    pub fn parse(text: &str, zone: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::usage(format!("`{}` is no schedule: {why}", text.escape_debug()))
                .hint("write minute, hour, day of month, month and day of week: `17 */6 * * *`")
        };
        let zone_name = zone.to_owned();
        // From the program's own table, so that it is the same on every machine.
        let zone = TimeZone::get(zone).map_err(|_| {
            Error::usage(format!("there is no time zone `{}`", zone.escape_debug())).hint("use UTC or Europe/Berlin")
        })?;
        let lower = text.trim().to_ascii_lowercase();
        let known = NAMES.iter().find(|(name, _)| *name == lower);
        let expression = known.map_or(lower.as_str(), |(_, expression)| expression);
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(bad(format!("it has {} fields, not five", fields.len())));
        };
        let values = |field, low, high, names| Field { low, high, names }.values(field).map_err(&bad);
        let minutes = values(minute, 0, 59, &[])?;
        let hours = values(hour, 0, 23, &[])?;
        let days = values(day, 1, 31, &[])?;
        let months = values(month, 1, 12, MONTHS)?;
        // Sunday is 0 and 7.
        let mut weekdays: Vec<u32> = values(weekday, 0, 7, DAYS)?.into_iter().map(|day| day % 7).collect();
        weekdays.sort_unstable();
        weekdays.dedup();
        let list = |values: &[u32]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let by_name = weekdays.iter().map(|day| DAYS[*day as usize]).collect::<Vec<_>>().join(",");
        let make = |days: &str, weekdays: &str| {
            format!("0 {} {} {days} {} {weekdays}", list(&minutes), list(&hours), list(&months))
                .parse::<cron::Schedule>()
                .map_err(|error| bad(error.to_string()))
        };
        // A field that begins with `*` restricts nothing by itself.
        let (any_day, any_weekday) = (day.starts_with('*'), weekday.starts_with('*'));
        let parts = if any_day || any_weekday {
            vec![make(&list(&days), &by_name)?]
        } else {
            vec![make(&list(&days), "*")?, make("*", &by_name)?]
        };
        let schedule = Self { text: text.trim().to_owned(), zone, zone_name, parts, hourly: hours.len() == 24 };
        if schedule.next_after(Timestamp::from_secs(1_704_067_200)).is_none() {
            return Err(bad("there is no such day".into()));
        }
        Ok(schedule)
    }

    /// The first tick after `at`. A local time that daylight saving skips ticks when the gap is
    /// over; one that comes twice ticks the first time, unless the schedule is for every hour.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let offset = self.zone.to_offset(jiff::Timestamp::from_second(at.secs()).ok()?);
        // Local times are seconds as if there were no zones.
        let local = at.secs() + i64::from(offset.seconds());
        let from = DateTime::<Utc>::from_timestamp(local - LARGEST_SHIFT_SECS, 0)?;
        let mut best: Option<i64> = None;
        for part in &self.parts {
            for tick in part.after(&from).map(|tick| tick.timestamp()) {
                for instant in self.instants(tick).into_iter().filter(|instant| *instant > at.secs()) {
                    best = Some(best.map_or(instant, |best| best.min(instant)));
                }
                if tick > local + LARGEST_SHIFT_SECS && best.is_some() {
                    break;
                }
            }
        }
        best.map(Timestamp::from_secs)
    }

    /// When a local time is.
    fn instants(&self, local: i64) -> Vec<i64> {
        let Ok(civil) = jiff::Timestamp::from_second(local) else { return Vec::new() };
        let civil = jiff::tz::Offset::UTC.to_datetime(civil);
        let at = |offset: jiff::tz::Offset| local - i64::from(offset.seconds());
        match self.zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => vec![at(offset)],
            AmbiguousOffset::Fold { before, after } if self.hourly => vec![at(before), at(after)],
            AmbiguousOffset::Fold { before, .. } => vec![at(before)],
            AmbiguousOffset::Gap { after, .. } => {
                // By the later offset it would be before the change: the next one is the gap's end.
                let earlier = jiff::Timestamp::from_second(at(after)).ok();
                let change = earlier.and_then(|earlier| self.zone.following(earlier).next());
                change.into_iter().map(|change| change.timestamp().as_second()).collect()
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.zone_name)
    }
}

/// One field's bounds.
struct Field {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

impl Field {
    /// All values of a field: `*`, numbers, names, ranges and steps, in lists.
    fn values(&self, text: &str) -> std::result::Result<Vec<u32>, String> {
        let mut values = Vec::new();
        for item in text.split(',') {
            let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
            let step = match step {
                None => 1,
                Some(step) => step.parse().ok().filter(|step| *step > 0).ok_or(format!("`{item}` has no step"))?,
            };
            let (first, last) = match (range, range.split_once('-')) {
                ("*", _) => (self.low, self.high),
                (_, Some((first, last))) => (self.value(first)?, self.value(last)?),
                // As crontab(5) has it: from there to the end.
                (one, None) if item.contains('/') => (self.value(one)?, self.high),
                (one, None) => (self.value(one)?, self.value(one)?),
            };
            if first > last {
                return Err(format!("`{item}` ends before it begins"));
            }
            values.extend((first..=last).step_by(step));
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    fn value(&self, text: &str) -> std::result::Result<u32, String> {
        let named = self.names.iter().position(|name| *name == text).map(|at| at as u32);
        // Months begin with 1, days with 0.
        let first = u32::from(self.names.len() == MONTHS.len());
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let value = named.map(|at| at + first).or_else(|| text.parse().ok().filter(|_| digits));
        value
            .filter(|value| (self.low..=self.high).contains(value))
            .ok_or_else(|| format!("`{}` is not within {} to {}", text.escape_debug(), self.low, self.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(text: &str, zone: &str, after: &str) -> String {
        let after: Timestamp = serde_json::from_value(after.into()).unwrap();
        Schedule::parse(text, zone).unwrap().next_after(after).unwrap().to_string()
    }

    #[test]
    fn fields_as_crontab_has_them() {
        for (text, after, expected) in [
            ("17 */6 * * *", "2026-11-20T06:17:00Z", "2026-11-20T12:17:00Z"),
            ("@hourly", "2026-11-20T06:17:00Z", "2026-11-20T07:00:00Z"),
            ("@midnight", "2026-11-20T06:17:00Z", "2026-11-21T00:00:00Z"),
            ("0 0 * * 7", "2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z"),
            ("0 0 * * 0", "2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z"),
            ("0 0 * * MON-fri", "2026-11-20T12:00:00Z", "2026-11-23T00:00:00Z"),
            ("0 0 * * 5-7", "2026-11-21T12:00:00Z", "2026-11-22T00:00:00Z"),
            // Both days restricted: either suffices.
            ("0 0 13 * 5", "2026-11-14T00:00:00Z", "2026-11-20T00:00:00Z"),
            ("0 0 13 * 5", "2026-12-12T00:00:00Z", "2026-12-13T00:00:00Z"),
            ("5/20 * * * *", "2026-11-20T06:26:00Z", "2026-11-20T06:45:00Z"),
            ("0 0 29 feb *", "2026-11-20T00:00:00Z", "2028-02-29T00:00:00Z"),
        ] {
            assert_eq!(next(text, "UTC", after), expected, "{text}");
        }
    }

    #[test]
    fn daylight_saving_skips_no_day_and_repeats_none() {
        // On 2026-03-29 Berlin's clocks go from 02:00 to 03:00, on 2026-10-25 from 03:00 back to 02:00.
        for (text, after, expected) in [
            ("30 2 * * *", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),
            ("30 2 * * *", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"),
            ("30 2 * * *", "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
            ("30 * * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
            ("30 * * * *", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"),
        ] {
            assert_eq!(next(text, "Europe/Berlin", after), expected, "{text} after {after}");
        }
        assert_eq!(next("0 9 * * *", "America/New_York", "2026-11-20T00:00:00Z"), "2026-11-20T14:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        for (text, why) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 * * * * *", "6 fields"),
            ("60 * * * *", "`60` is not within 0 to 59"),
            ("*/0 * * * *", "no step"),
            ("5-1 * * * *", "ends before"),
            ("0 0 0 * *", "within 1 to 31"),
            ("0 0 * 13 *", "within 1 to 12"),
            ("0 0 * * 8", "within 0 to 7"),
            ("0 0 30 2 *", "no such day"),
            ("x * * * *", "`x`"),
            ("+5 * * * *", "`+5`"),
            ("@reboot", "1 fields"),
        ] {
            let error = Schedule::parse(text, "UTC").unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(Schedule::parse("@daily", "Mars/Olympus").unwrap_err().to_string().contains("time zone"));
    }

    fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
        let number = low..=high;
        prop_oneof![
            3 => Just("*".to_owned()),
            2 => number.clone().prop_map(|n| n.to_string()),
            1 => (number.clone(), number.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (number.clone(), number.clone(), 1..9_u32)
                .prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
            1 => proptest::collection::vec(number, 1..4)
                .prop_map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn another_reader_of_crontabs_agrees(
            minute in prop_oneof![field(0, 59), (1..30_u32).prop_map(|n| format!("*/{n}"))],
            hour in prop_oneof![field(0, 23), (1..12_u32).prop_map(|n| format!("*/{n}"))],
            day in field(1, 28), month in field(1, 12), weekday in field(0, 7),
            at in 1_600_000_000..2_000_000_000_i64,
        ) {
            let text = format!("{minute} {hour} {day} {month} {weekday}");
            let ours = Schedule::parse(&text, "UTC").unwrap();
            let theirs: croner::Cron = text.parse().unwrap();
            let mut when = Timestamp::from_secs(at);
            let mut their_when = DateTime::<Utc>::from_timestamp(at, 0).unwrap();
            for _ in 0..4 {
                when = ours.next_after(when).unwrap();
                their_when = theirs.find_next_occurrence(&their_when, false).unwrap();
                prop_assert_eq!(when.secs(), their_when.timestamp(), "{}", &text);
            }
        }

        #[test]
        fn in_any_zone_ticks_go_forward_and_no_day_is_left_out(
            hour in 0..24_u32, minute in 0..60_u32, at in 1_600_000_000..2_000_000_000_i64,
            zone in prop_oneof![Just("Europe/Berlin"), Just("America/New_York"), Just("Australia/Lord_Howe"), Just("Asia/Kathmandu")],
        ) {
            let daily = Schedule::parse(&format!("{minute} {hour} * * *"), zone).unwrap();
            let mut when = Timestamp::from_secs(at);
            for _ in 0..400 {
                let next = daily.next_after(when).unwrap();
                let apart = next.secs() - when.secs();
                prop_assert!(apart > 0 && apart <= 26 * 3_600, "{apart} s after {when}");
                when = next;
            }
        }
    }
}
