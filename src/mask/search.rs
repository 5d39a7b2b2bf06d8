//! Where one of several words stands in a text: by vector instructions where the machine has them, else
//! by an automaton.
//!
//! Knows: the two ways to search. Does not know: words.

use std::ops::Range;

use aho_corasick::{AhoCorasick, Input, MatchKind, packed};

/// A search for one of several words.
pub(super) enum Search {
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

impl Search {
    /// A search for these words; `None` for none.
    pub(super) fn of<'a>(words: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        let mut builder = packed::Config::new().match_kind(packed::MatchKind::LeftmostLongest).builder();
        builder.extend(words.clone());
        if let Some(searcher) = builder.build() {
            return Some(Search::Packed(searcher));
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(words);
        automaton.ok().filter(|automaton| automaton.patterns_len() > 0).map(Search::Automaton)
    }

    /// The first word at `from` or behind it, the longest of those that begin there: its number, its place.
    pub(super) fn next(&self, text: &[u8], from: usize) -> Option<(usize, Range<usize>)> {
        let hit = match self {
            Search::Packed(searcher) => searcher.find_in(text, (from..text.len()).into()),
            Search::Automaton(automaton) => automaton.find(Input::new(text).range(from..)),
        }?;
        Some((hit.pattern().as_usize(), hit.range()))
    }
}
