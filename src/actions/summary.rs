//! The job summary: what was asked, from where it came, what it cost and saved.
//!
//! Knows: Markdown that no answer of GitHub's can break. Does not know: runs.

use crate::plan::report::{Index, QueryReport};
use crate::units::Span;

/// Rows beyond this many are summed up.
const MAX_ROWS: usize = 50;

/// The summary of a run in Markdown; one line when there is little to say.
pub fn summary(index: &Index) -> String {
    let totals = &index.totals;
    let mut text = format!(
        "### octocache: {} of {} from the cache, {} requests charged, {} saved\n\n",
        totals.hits + totals.revalidated + totals.stale,
        totals.queries,
        totals.charged,
        totals.saved
    );
    if let Some(limit) = &index.rate_limit {
        text.push_str(&format!("Rate limit: {}.\n\n", limit.describe(index.started_at)));
    }
    // What went wrong comes first; when everything was a hit, there is nothing to list.
    let mut rows: Vec<&QueryReport> = index.queries.iter().filter(|query| query.outcome != "hit").collect();
    rows.sort_by_key(|query| match query.outcome.as_str() {
        "failed" => 0,
        "stale" => 1,
        _ => 2,
    });
    if rows.is_empty() {
        return text;
    }
    text.push_str("| query | outcome | age | requests | note |\n|---|---|--:|--:|---|\n");
    for query in rows.iter().take(MAX_ROWS) {
        let name = query.item.as_ref().map_or_else(|| query.name.clone(), |item| format!("{} {item}", query.name));
        let note = query.error.as_ref().or(query.reason.as_ref()).map_or("", String::as_str);
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            cell(&name),
            query.outcome,
            Span(query.age_secs),
            query.requests,
            cell(note)
        ));
    }
    if rows.len() > MAX_ROWS {
        text.push_str(&format!("\n… and {} more; all are in `index.json`.\n", rows.len() - MAX_ROWS));
    }
    text.push('\n');
    text
}

/// Text in a table's cell: no markup, no mention, no line end.
fn cell(text: &str) -> String {
    let masked = crate::plan::redact::mask_text(text);
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
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::plan::report::Totals;

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
        let text = summary(&index);
        assert!(!text.contains("<img") && !text.contains("@all") && !text.contains("ghp_a"), "{text}");
        assert_eq!(
            text.trim_end().lines().last(),
            Some("| a | failed | 0s | 0 | GitHub said &lt;img src=x&gt; \\| &#64;all \\`x\\` \\*\\*\\* |")
        );
    }
}
