//! The job summary: what was asked, from where it came, what it cost and saved.
//!
//! Knows: Markdown that no answer of GitHub's can break. Does not know: runs.

use crate::clock::Timestamp;
use crate::mask::Masker;
use crate::plan::report::{Index, QueryReport};
use crate::text::is_unsafe;
use crate::units::Span;

/// Rows beyond this many are summed up.
const MAX_ROWS: usize = 50;

/// The summary of a run in Markdown: what was asked, from where it came, what it cost and saved;
/// one line when there is little to say. `next_warm` is when a worker looks at it again.
pub fn summary(index: &Index, next_warm: Option<Timestamp>) -> String {
    let totals = &index.totals;
    let mut text = format!(
        "### octocache: {} of {} from the cache, {} requests charged, {} saved\n\n",
        totals.hits + totals.revalidated + totals.stale,
        totals.queries,
        totals.charged,
        totals.saved
    );
    let mut facts = Vec::new();
    if let Some(limit) = &index.rate_limit {
        facts.push(format!("Rate limit: {}.", limit.describe(index.started_at)));
    }
    if let Some(next) = next_warm {
        facts.push(format!("Next warming: {next}."));
    }
    if !facts.is_empty() {
        text.push_str(&format!("{}\n\n", facts.join(" ")));
    }
    // When everything was a hit, there is nothing to list.
    if index.queries.iter().all(|query| query.outcome == "hit") {
        return text;
    }
    text.push_str("| query | outcome | oldest | requests | charged | note |\n|---|---|--:|--:|--:|---|\n");
    let lines = lines(&index.queries);
    for line in lines.iter().take(MAX_ROWS) {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            cell(&line.name),
            line.outcome,
            Span(line.age_secs),
            line.requests,
            line.charged,
            cell(&line.note)
        ));
    }
    if lines.len() > MAX_ROWS {
        text.push_str(&format!("\n… and {} more; all are in `index.json`.\n", lines.len() - MAX_ROWS));
    }
    text.push('\n');
    text
}

/// A line of the table: one query, or all items of one that came about in the same way.
struct Line {
    rank: u8,
    name: String,
    outcome: String,
    age_secs: u64,
    requests: u32,
    charged: u32,
    note: String,
}

/// What went wrong comes first and one by one; items that simply worked share a line.
fn lines(queries: &[QueryReport]) -> Vec<Line> {
    let mut lines: Vec<(Line, usize)> = Vec::new();
    for query in queries {
        let rank = match query.outcome.as_str() {
            "failed" => 0,
            "stale" => 1,
            "hit" => 3,
            _ => 2,
        };
        let note = query.error.as_ref().or(query.reason.as_ref()).cloned().unwrap_or_default();
        let same =
            |line: &Line| rank > 1 && line.name == query.name && line.outcome == query.outcome && line.note == note;
        if let Some((line, count)) = lines.iter_mut().rev().find(|(line, _)| same(line)) {
            *count += 1;
            line.age_secs = line.age_secs.max(query.age_secs);
            line.requests += query.requests;
            line.charged += query.charged;
            continue;
        }
        let name = match &query.item {
            Some(item) if rank <= 1 => format!("{} {item}", query.name),
            _ => query.name.clone(),
        };
        let QueryReport { age_secs, requests, charged, .. } = *query;
        lines.push((Line { rank, name, outcome: query.outcome.clone(), age_secs, requests, charged, note }, 1));
    }
    lines.sort_by_key(|(line, _)| line.rank);
    let counted = lines.into_iter().map(|(line, count)| match count {
        1 => line,
        many => Line { name: format!("{} ({many} items)", line.name), ..line },
    });
    counted.collect()
}

/// Text in a table's cell: no markup, no mention, no line end.
fn cell(text: &str) -> String {
    let masked = Masker::default().text(text).into_owned();
    let mut out = String::with_capacity(masked.len());
    for char in masked.chars().take(300) {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("&#64;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '!' | '#' => {
                out.push('\\');
                out.push(char);
            }
            c if is_unsafe(c) => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::report::Totals;

    #[test]
    fn items_that_worked_share_a_line_and_trouble_has_its_own() {
        let query = |item: &str, outcome: &str, age_secs| QueryReport {
            name: "langs".into(),
            item: Some(item.into()),
            outcome: outcome.into(),
            reason: (outcome == "stale").then(|| "limited".into()),
            age_secs,
            requests: 1,
            ..QueryReport::default()
        };
        let queries = vec![
            query("a", "revalidated", 0),
            query("b", "stale", 90),
            query("c", "revalidated", 7),
            query("d", "hit", 3),
        ];
        let totals = Totals::of(&queries);
        let index =
            Index { v: 1, plan: "p".into(), started_at: Timestamp::from_secs(0), totals, queries, rate_limit: None };
        let text = summary(&index, Some(Timestamp::from_secs(1_800_000_000)));
        assert!(text.contains("Next warming: 2027-01-15T08:00:00Z."), "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| langs")).collect();
        let expected = [
            "| langs b | stale | 1m 30s | 1 | 0 | limited |",
            "| langs (2 items) | revalidated | 7s | 2 | 0 |  |",
            "| langs | hit | 3s | 1 | 0 |  |",
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn answers_cannot_break_the_table() {
        let failed = QueryReport {
            name: "a".into(),
            outcome: "failed".into(),
            error: Some("GitHub said <img src=x> | @all `x`\nghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".into()),
            ..QueryReport::default()
        };
        let queries = vec![failed];
        let index = Index {
            v: 1,
            plan: "p".into(),
            started_at: Timestamp::from_secs(0),
            totals: Totals::of(&queries),
            queries,
            rate_limit: None,
        };
        let text = summary(&index, None);
        assert!(!text.contains("<img") && !text.contains("@all") && !text.contains("ghp_a"), "{text}");
        assert_eq!(
            text.trim_end().lines().last(),
            Some("| a | failed | 0s | 0 | 0 | GitHub said &lt;img src=x&gt; \\| &#64;all \\`x\\` \\*\\*\\* |")
        );
    }
}
