//! What a server measures, as families of numbers (D5).
//!
//! Knows: names, helps and where each number is kept. Does not know: text formats (`metrics`). No label
//! carries an address, a token or anything else of which there are many.

use std::sync::atomic::Ordering;

use super::Door;
use crate::github::{ANSWERS, Tallied};
use crate::metrics::{Family, Kind};
use crate::policy::class;
use crate::stats::{Count, LATENCY_BOUNDS_MICROS};

/// Seconds of so many microseconds.
fn secs(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn counter(name: &'static str, help: &'static str) -> Family {
    Family::new(name, Kind::Counter, help)
}

fn gauge(name: &'static str, help: &'static str) -> Family {
    Family::new(name, Kind::Gauge, help)
}

fn one(family: Family, value: f64) -> Family {
    family.with(&[], value)
}

/// All families, at this moment.
pub(super) fn families(door: &Door) -> Vec<Family> {
    let mut all = answers(door);
    all.extend(tiers(door));
    all.extend(shared(door));
    all.extend(upstream(door));
    all.extend(limits(door));
    all.extend(webhook(door));
    all.extend(warming(door));
    all.extend(process(door));
    all
}

/// What lies beyond this machine, where something does.
fn shared(door: &Door) -> Vec<Family> {
    let Some(share) = &door.identities.common().share else { return Vec::new() };
    let mut up = gauge("octocache_shared_up", "Whether a place beyond this machine is asked at the moment.");
    let mut events = counter(
        "octocache_shared_total",
        "Entries that places beyond this machine were asked for, had, took, had wrong, failed or dropped.",
    );
    let mut waited = counter(
        "octocache_shared_waited_seconds_total",
        "Time in which at least one request waited for a place beyond this machine.",
    );
    let mut peers = gauge("octocache_peers", "Other machines that are connected and share.");
    for (tier, tallied) in share.tallied() {
        let tier = tier.as_str();
        tallied.connected.into_iter().for_each(|connected| peers.add(&[], connected as f64));
        up.add(&[("tier", tier)], f64::from(u8::from(tallied.up)));
        waited.add(&[("tier", tier)], secs(tallied.waited_micros));
        for (event, count) in [
            ("looked-up", tallied.looked_up),
            ("hit", tallied.hits),
            ("written", tallied.written),
            ("refused", tallied.refused),
            ("failed", tallied.failed),
            ("dropped", tallied.dropped),
        ] {
            events.add(&[("tier", tier), ("event", event)], count as f64);
        }
    }
    vec![up, events, waited, peers]
}

fn answers(door: &Door) -> Vec<Family> {
    let stats = door.identities.stats();
    let mut requests =
        counter("octocache_requests_total", "Questions that the cache answered, by TTL class and outcome.");
    let mut hits = counter("octocache_hits_total", "Fresh answers, by TTL class and the tier that had them.");
    let mut stale =
        counter("octocache_stale_total", "Stale answers, by TTL class and the reason for which they had to do.");
    let mut kept = counter("octocache_not_stored_total", "Answers that were not stored, by TTL class and reason.");
    let by_class = stats.by_class();
    let mut at = 0;
    while let Some(Count { class, outcome, .. }) = by_class.get(at).copied() {
        let same = by_class[at..].iter().take_while(|count| (count.class, count.outcome) == (class, outcome));
        let (mut sum, mut seen) = (0, 0);
        for Count { detail, count, .. } in same {
            sum += count;
            seen += 1;
            match outcome {
                "hit" => hits.add(&[("class", class), ("tier", detail)], *count as f64),
                "stale" => stale.add(&[("class", class), ("reason", detail)], *count as f64),
                "not-stored" => kept.add(&[("class", class), ("reason", detail)], *count as f64),
                _ => {}
            }
        }
        requests.add(&[("class", class), ("outcome", outcome)], sum as f64);
        at += seen;
    }
    let mut times = Family::new(
        "octocache_request_duration_seconds",
        Kind::Histogram,
        "Time from a question to its answer, by outcome; sending the answer is not in it.",
    );
    for latency in stats.latencies() {
        let (above, counts) = latency.counts.split_last().map_or((0, &[][..]), |(above, counts)| (*above, counts));
        let buckets = LATENCY_BOUNDS_MICROS.iter().map(|bound| secs(*bound)).zip(counts.iter().copied()).collect();
        times.add_histogram(&[("outcome", latency.outcome)], buckets, above, secs(latency.micros));
    }
    let counts = stats.counts();
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as f64;
    vec![
        requests,
        hits,
        stale,
        kept,
        times,
        one(
            counter("octocache_collapsed_total", "Answers that another request's fetch brought."),
            counts.collapsed as f64,
        ),
        one(
            counter(
                "octocache_saved_total",
                "Questions answered without a request that counts against the primary limit.",
            ),
            counts.calls_saved() as f64,
        ),
        counter("octocache_body_bytes_total", "Bytes of bodies, by where they came from.")
            .with(&[("from", "cache")], counts.bytes_saved as f64)
            .with(&[("from", "github")], stats.bytes_fetched() as f64),
        counter(
            "octocache_entity_tags_total",
            "Entity tags of GitHub's, by whether the rule explained or predicted them.",
        )
        .with(&[("rule", "held")], counts.rule_held as f64)
        .with(&[("rule", "failed")], counts.rule_failed as f64),
        one(
            counter(
                "octocache_passed_total",
                "Requests that were handed through: changes, downloads, what no cache could answer.",
            ),
            load(&door.counters.passed),
        ),
        one(
            counter("octocache_refused_total", "Requests that were refused: by host, origin, secret or size."),
            load(&door.counters.refused),
        ),
        ttls(door),
    ]
}

fn ttls(door: &Door) -> Family {
    let table = door.identities.common().ttls.load();
    let mut ttls = gauge("octocache_ttl_seconds", "Freshness lifetime in force, by TTL class.");
    for class in class::CLASSES {
        ttls.add(&[("class", class.name)], table.lifetime_of(class, door.live().ask.ttl_secs, None).fresh_secs as f64);
    }
    ttls
}

fn tiers(door: &Door) -> Vec<Family> {
    let stack = &door.identities.common().stack;
    let (tallied, disk) = (stack.tallied(), door.on_disk());
    let (memory_bytes, memory_entries) = stack.memory_size();
    let counts = door.identities.stats().counts();
    let mut lookups = counter(
        "octocache_tier_lookups_total",
        "Questions that came to a tier, by whether it had a fresh answer; those it had none for go on to the next.",
    );
    let mut left = counts.asked;
    for tier in ["memory", "disk", "bundle"] {
        let hits = counts.hits.get(tier).copied().unwrap_or(0).min(left);
        left -= hits;
        lookups.add(&[("tier", tier), ("result", "hit")], hits as f64);
        lookups.add(&[("tier", tier), ("result", "miss")], left as f64);
    }
    vec![
        lookups,
        counter("octocache_tier_operations_total", "What tiers did beside looking up.")
            .with(&[("tier", "memory"), ("operation", "set")], tallied.held as f64)
            .with(&[("tier", "memory"), ("operation", "evict")], tallied.evicted as f64)
            .with(&[("tier", "disk"), ("operation", "set")], tallied.written as f64)
            .with(&[("tier", "disk"), ("operation", "set-failed")], tallied.failed as f64)
            .with(&[("tier", "disk"), ("operation", "del")], tallied.removed as f64)
            .with(&[("tier", "bundle"), ("operation", "set")], tallied.packed as f64),
        gauge("octocache_tier_entries", "Entries held; of disk and bundle as of the last look, at most a minute ago.")
            .with(&[("tier", "memory")], memory_entries as f64)
            .with(&[("tier", "disk")], disk.loose as f64)
            .with(&[("tier", "bundle")], disk.bundled as f64),
        gauge("octocache_tier_bytes", "Bytes held; of disk and bundle as of the last look, at most a minute ago.")
            .with(&[("tier", "memory")], memory_bytes as f64)
            .with(&[("tier", "disk")], disk.loose_bytes as f64)
            .with(&[("tier", "bundle")], disk.bundle_bytes as f64),
        one(
            counter("octocache_invalidations_total", "Scopes that were outdated: by deliveries, changes and people."),
            tallied.invalidated as f64,
        ),
    ]
}

fn upstream(door: &Door) -> Vec<Family> {
    let Tallied { sent, free, answers, retries, backoff_micros, primary_limits, secondary_limits, waits, wait_micros } =
        door.identities.common().options.tally.now();
    let mut by_answer =
        counter("octocache_upstream_answers_total", "What GitHub answered, by status; `none` where nothing came.");
    for (status, count) in ANSWERS.iter().zip(answers) {
        by_answer.add(&[("status", status)], count as f64);
    }
    vec![
        one(
            counter("octocache_upstream_requests_total", "Requests that went out to GitHub, retries included."),
            sent as f64,
        ),
        one(
            counter(
                "octocache_upstream_charged_total",
                "Of those, the ones that count against a primary limit: all but 304s to a token.",
            ),
            sent.saturating_sub(free) as f64,
        ),
        by_answer,
        one(counter("octocache_backoff_attempts_total", "Attempts after the first."), retries as f64),
        one(counter("octocache_backoff_seconds_total", "Time slept before them."), secs(backoff_micros)),
        counter("octocache_limits_hit_total", "Refusals of GitHub's for a rate limit.")
            .with(&[("limit", "primary")], primary_limits as f64)
            .with(&[("limit", "secondary")], secondary_limits as f64),
        one(
            counter("octocache_limit_waits_total", "Requests that waited so as to stay inside the secondary limits."),
            waits as f64,
        ),
        one(counter("octocache_limit_wait_seconds_total", "Time that they waited."), secs(wait_micros)),
    ]
}

fn limits(door: &Door) -> Vec<Family> {
    let mut remaining =
        gauge("octocache_rate_limit_remaining", "What is left of the primary limit; of clients, with the least.");
    let mut limit = gauge("octocache_rate_limit", "The primary limit.");
    let mut reset = gauge("octocache_rate_limit_reset_timestamp_seconds", "When its window ends.");
    for account in door.identities.accounts() {
        let labels = [("account", account.kind), ("resource", account.limit.resource.as_str())];
        remaining.add(&labels, account.limit.remaining as f64);
        limit.add(&labels, account.limit.limit as f64);
        reset.add(&labels, account.limit.reset_at.secs() as f64);
    }
    vec![limit, remaining, reset]
}

fn webhook(door: &Door) -> Vec<Family> {
    let Some(webhook) = &door.webhook else { return Vec::new() };
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as f64;
    let received = &webhook.received;
    let mut events = counter("octocache_webhook_events_total", "Accepted deliveries, by event.");
    for (event, count) in webhook.by_event() {
        events.add(&[("event", event)], count as f64);
    }
    vec![
        counter("octocache_webhook_deliveries_total", "Deliveries, by what became of them.")
            .with(&[("result", "accepted")], load(&received.accepted))
            .with(&[("result", "repeated")], load(&received.repeated))
            .with(&[("result", "refused")], load(&received.refused))
            .with(&[("result", "failed")], load(&received.failed)),
        one(
            counter("octocache_webhook_applied_total", "Deliveries whose scopes are outdated by now."),
            load(&received.applied),
        ),
        events,
    ]
}

fn warming(door: &Door) -> Vec<Family> {
    let Some(ticks) = door.ticks.as_ref().map(|ticks| ticks.now()) else { return Vec::new() };
    let mut all = vec![
        counter("octocache_warm_ticks_total", "Ticks of the schedule, by result.")
            .with(&[("result", "done")], ticks.done as f64)
            .with(&[("result", "failed")], ticks.failed as f64),
        one(
            counter("octocache_warm_refreshed_total", "Answers that ticks brought up to date."),
            ticks.refreshed as f64,
        ),
        one(counter("octocache_warm_left_total", "Answers that ticks left for want of budget."), ticks.left as f64),
    ];
    if let Some(next) = ticks.next {
        all.push(one(gauge("octocache_warm_next_timestamp_seconds", "When the next tick comes."), next.secs() as f64));
    }
    if let Some(last) = ticks.last {
        all.push(one(gauge("octocache_warm_last_timestamp_seconds", "When the last tick ended."), last.secs() as f64));
    }
    all
}

fn process(door: &Door) -> Vec<Family> {
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as f64;
    let state = door.reload_state();
    let mut all = vec![
        gauge("octocache_build_info", "Always 1; the version is a label.")
            .with(&[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        one(gauge("octocache_start_time_seconds", "When the process began."), door.started_at.secs() as f64),
        one(gauge("octocache_connections", "Connections of clients."), load(&door.counters.connections)),
        one(gauge("octocache_identities", "Tokens of clients that are known."), door.identities.count() as f64),
        counter("octocache_config_reloads_total", "Times the configuration was read again, by result.")
            .with(&[("result", "taken")], state.taken as f64)
            .with(&[("result", "refused")], state.refused as f64),
        one(
            gauge(
                "octocache_config_last_reload_successful",
                "Whether the configuration was sound when it was last read.",
            ),
            f64::from(u8::from(state.error.is_none())),
        ),
    ];
    if let Some(bytes) = resident_bytes() {
        all.push(one(gauge("octocache_resident_memory_bytes", "Memory of the process."), bytes as f64));
    }
    all
}

/// Linux tells it in a file.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.trim();
    kib.parse::<u64>().ok().map(|kib| kib << 10)
}
