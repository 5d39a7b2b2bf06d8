//! Samples, and how Prometheus and StatsD are told of them (D5).
//!
//! Knows: the text formats (Prometheus, "Exposition formats"; StatsD, "Metric types"). Does not know:
//! what is measured.

use std::collections::HashMap;
use std::fmt::Write as _;

/// What the numbers of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds, in seconds.
    Histogram,
}

/// One number and what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Label names and values; from small, fixed sets.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: Value,
}

/// A number, or those of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A counter's or a gauge's.
    Number(f64),
    /// A histogram's.
    Histogram {
        /// Upper bounds in seconds, and how many were at most that and more than the one before.
        buckets: Vec<(f64, u64)>,
        /// How many were more than the last bound.
        above: u64,
        /// All together, in seconds.
        sum: f64,
    },
}

/// Samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The name, with its unit.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// The numbers.
    pub samples: Vec<Sample>,
}

impl Family {
    /// A family without samples yet.
    pub fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, help, kind, samples: Vec::new() }
    }

    /// The same with one more number.
    #[must_use]
    pub fn with(mut self, labels: &[(&'static str, &str)], value: f64) -> Self {
        self.add(labels, value);
        self
    }

    /// Adds a number.
    pub fn add(&mut self, labels: &[(&'static str, &str)], value: f64) {
        self.samples.push(Sample { labels: owned(labels), value: Value::Number(value) });
    }

    /// Adds a histogram's numbers.
    pub fn add_histogram(&mut self, labels: &[(&'static str, &str)], buckets: Vec<(f64, u64)>, above: u64, sum: f64) {
        self.samples.push(Sample { labels: owned(labels), value: Value::Histogram { buckets, above, sum } });
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// The media type of [`exposition`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text that Prometheus scrapes. Families without samples are named, so that people find them.
pub fn exposition(families: &[Family]) -> String {
    let mut text = String::with_capacity(16 << 10);
    for family in families {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _infallible = writeln!(text, "# HELP {} {}\n# TYPE {0} {kind}", family.name, family.help);
        for sample in &family.samples {
            match &sample.value {
                Value::Number(value) => line(&mut text, family.name, "", &sample.labels, None, *value),
                Value::Histogram { buckets, above, sum } => {
                    let mut count = 0;
                    for (bound, more) in buckets {
                        count += more;
                        line(&mut text, family.name, "_bucket", &sample.labels, Some(&bound.to_string()), count as f64);
                    }
                    count += above;
                    line(&mut text, family.name, "_bucket", &sample.labels, Some("+Inf"), count as f64);
                    line(&mut text, family.name, "_sum", &sample.labels, None, *sum);
                    line(&mut text, family.name, "_count", &sample.labels, None, count as f64);
                }
            }
        }
    }
    text
}

fn line(text: &mut String, name: &str, suffix: &str, labels: &[(&str, String)], le: Option<&str>, value: f64) {
    text.push_str(name);
    text.push_str(suffix);
    let all = labels.iter().map(|(name, value)| (*name, value.as_str())).chain(le.map(|le| ("le", le)));
    let mut open = '{';
    for (name, value) in all {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _infallible = write!(text, "{open}{name}=\"{value}\"");
        open = ',';
    }
    if open == ',' {
        text.push('}');
    }
    let _infallible = writeln!(text, " {value}");
}

/// The largest datagram that is sent; larger ones are broken up on the way, or lost.
const MAX_DATAGRAM_BYTES: usize = 1_400;

/// What StatsD is told: counters as what they grew by since the last time, gauges as they are. Of
/// histograms it is told the count and the sum; its own timers want each value.
#[derive(Debug, Default)]
pub struct Statsd {
    told: HashMap<String, f64>,
}

impl Statsd {
    /// Datagrams of lines for `families`. Labels are parts of the name, in their order.
    pub fn datagrams(&mut self, families: &[Family]) -> Vec<String> {
        let mut lines = Vec::new();
        for family in families {
            for sample in &family.samples {
                let mut name = family.name.trim_end_matches("_total").replacen('_', ".", 1);
                for (_, value) in sample.labels.iter().filter(|(_, value)| !value.is_empty()) {
                    name.push('.');
                    name.extend(value.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }));
                }
                match &sample.value {
                    Value::Number(value) if family.kind == Kind::Gauge => lines.push(format!("{name}:{value}|g")),
                    Value::Number(value) => lines.extend(self.grown(name, *value)),
                    Value::Histogram { buckets, above, sum } => {
                        let count = buckets.iter().map(|(_, count)| count).sum::<u64>() + above;
                        lines.extend(self.grown(format!("{name}.count"), count as f64));
                        lines.extend(self.grown(format!("{name}.sum"), *sum));
                    }
                }
            }
        }
        let mut datagrams: Vec<String> = Vec::new();
        for line in lines {
            match datagrams.last_mut() {
                Some(last) if last.len() + line.len() < MAX_DATAGRAM_BYTES => {
                    last.push('\n');
                    last.push_str(&line);
                }
                _ => datagrams.push(line),
            }
        }
        datagrams
    }

    fn grown(&mut self, name: String, value: f64) -> Option<String> {
        let by = value - self.told.get(&name).copied().unwrap_or(0.0);
        if by <= 0.0 {
            return None;
        }
        let line = format!("{name}:{by}|c");
        self.told.insert(name, value);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<Family> {
        let mut times = Family::new("octocache_request_duration_seconds", Kind::Histogram, "Time.");
        times.add_histogram(&[("outcome", "hit")], vec![(0.001, 3), (0.5, 1)], 1, 2.25);
        vec![
            Family::new("octocache_requests_total", Kind::Counter, "Requests.")
                .with(&[("class", "repo"), ("outcome", "hit")], 7.0)
                .with(&[("class", "a\"b\\c\nd"), ("outcome", "")], 1.0),
            Family::new("octocache_entries", Kind::Gauge, "Entries.").with(&[], 12.5),
            Family::new("octocache_nothing", Kind::Gauge, "Nothing."),
            times,
        ]
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let want = "\
# HELP octocache_requests_total Requests.
# TYPE octocache_requests_total counter
octocache_requests_total{class=\"repo\",outcome=\"hit\"} 7
octocache_requests_total{class=\"a\\\"b\\\\c\\nd\",outcome=\"\"} 1
# HELP octocache_entries Entries.
# TYPE octocache_entries gauge
octocache_entries 12.5
# HELP octocache_nothing Nothing.
# TYPE octocache_nothing gauge
# HELP octocache_request_duration_seconds Time.
# TYPE octocache_request_duration_seconds histogram
octocache_request_duration_seconds_bucket{outcome=\"hit\",le=\"0.001\"} 3
octocache_request_duration_seconds_bucket{outcome=\"hit\",le=\"0.5\"} 4
octocache_request_duration_seconds_bucket{outcome=\"hit\",le=\"+Inf\"} 5
octocache_request_duration_seconds_sum{outcome=\"hit\"} 2.25
octocache_request_duration_seconds_count{outcome=\"hit\"} 5
";
        assert_eq!(exposition(&families()), want);
    }

    #[test]
    fn statsd_is_told_what_counters_grew_by_and_what_gauges_are() {
        let mut statsd = Statsd::default();
        let first = statsd.datagrams(&families()).join("\n");
        assert_eq!(
            first,
            "octocache.requests.repo.hit:7|c\noctocache.requests.a_b_c_d:1|c\noctocache.entries:12.5|g\n\
             octocache.request_duration_seconds.hit.count:5|c\noctocache.request_duration_seconds.hit.sum:2.25|c"
        );
        assert_eq!(statsd.datagrams(&families()), ["octocache.entries:12.5|g"]);
        let many: Vec<Family> = (0..200).flat_map(|_| families()).collect();
        let datagrams = statsd.datagrams(&many);
        assert!(datagrams.len() > 1 && datagrams.iter().all(|one| one.len() <= MAX_DATAGRAM_BYTES));
    }
}
