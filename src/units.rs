//! Durations and sizes as people write them: `90s`, `24h`, `7d`, `512MiB`.
//!
//! Knows: parsing and printing. Does not know: what any duration is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A span of time in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub u64);

/// Ten years: longer than that is a typing error.
const LONGEST_SECS: u64 = 10 * 365 * 86_400;

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!("`{}` is no duration", text.escape_debug()))
                .hint("write it like 90s, 15m, 24h, 7d, 2w or 1h30m, ten years at most")
        };
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Span(0));
        }
        let mut total: u64 = 0;
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit = match rest[..letters].trim() {
                "s" | "sec" | "secs" | "second" | "seconds" => 1,
                "m" | "min" | "mins" | "minute" | "minutes" => 60,
                "h" | "hour" | "hours" => 3_600,
                "d" | "day" | "days" => 86_400,
                "w" | "week" | "weeks" => 7 * 86_400,
                _ => return Err(bad()),
            };
            rest = &rest[letters..];
            total = number.checked_mul(unit).and_then(|secs| total.checked_add(secs)).ok_or_else(bad)?;
        }
        if total > LONGEST_SECS { Err(bad()) } else { Ok(Span(total)) }
    }
}

impl fmt::Display for Span {
    /// The two largest units that say something: `1d 2h`, `24h` prints as `1d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
        let mut rest = self.0;
        let mut shown = 0;
        for (size, name) in units {
            if rest >= size && shown < 2 {
                write!(f, "{}{}{name}", if shown > 0 { " " } else { "" }, rest / size)?;
                shown += 1;
            } else if shown > 0 {
                break;
            }
            rest %= size;
        }
        if shown == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.to_string().replace(' ', ""))
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!("`{}` is no size", text.escape_debug()))
                .hint("write it like 512MiB, 1GiB, 200MB or 65536")
        };
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return Err(bad()),
        };
        number.checked_mul(unit).map(Size).ok_or_else(bad)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1_024 => write!(f, "{bytes} B"),
            bytes if bytes < 1 << 20 => write!(f, "{:.1} KiB", bytes as f64 / 1_024.0),
            bytes if bytes < 1 << 30 => write!(f, "{:.1} MiB", bytes as f64 / 1_048_576.0),
            bytes => write!(f, "{:.2} GiB", bytes as f64 / 1_073_741_824.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, secs) in [("90s", 90), ("24h", 86_400), ("1h30m", 5_400), ("7d", 604_800), ("0", 0), ("0s", 0)] {
            assert_eq!(text.parse::<Span>().unwrap().0, secs, "{text}");
        }
        for text in ["", "24", "h", "-1h", "1.5h", "99999999999999999999d", "20000d", "5m3"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert_eq!(Span(93_784).to_string(), "1d 2h");
        assert_eq!(Span(0).to_string(), "0s");
    }

    #[test]
    fn sizes_as_people_write_them() {
        assert_eq!("512MiB".parse::<Size>().unwrap().0, 512 << 20);
        assert_eq!("65536".parse::<Size>().unwrap().0, 65_536);
        assert!("12 parsecs".parse::<Size>().is_err());
        assert_eq!(Size(1_536).to_string(), "1.5 KiB");
    }
}
