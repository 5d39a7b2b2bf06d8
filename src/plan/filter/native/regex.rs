//! Regular expressions as Go has them, with the flags that gojq takes.

use std::str::CharIndices;

use jaq_json::{Map, Num, Rc, Val};
use regex::{Captures, Regex, RegexBuilder};

use super::{Error, ValR, kind, text};

/// Compiled expressions are not larger than this.
const MAX_SIZE_BYTES: usize = 10 << 20;

fn compiled(pattern: &Val, flags: &Val) -> Result<(Regex, bool), Error> {
    let flags = match flags {
        Val::Null => String::new(),
        Val::TStr(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => return Err(Error::str(format_args!("flags of a regular expression are text, not {}", kind(other)))),
    };
    if let Some(flag) = flags.chars().find(|flag| !matches!(flag, 'g' | 'i')) {
        return Err(Error::str(format_args!("there is no flag `{flag}` for regular expressions")));
    }
    let Val::TStr(pattern) = pattern else {
        return Err(Error::str(format_args!("a regular expression is text, not {}", kind(pattern))));
    };
    let regex = RegexBuilder::new(&translated(&String::from_utf8_lossy(pattern)))
        .case_insensitive(flags.contains('i'))
        .size_limit(MAX_SIZE_BYTES)
        .build()
        .map_err(|error| Error::str(format_args!("the regular expression is wrong: {error}")))?;
    Ok((regex, flags.contains('g')))
}

/// The same expression in this library's syntax: to Go, `\w` and the like are ASCII, and a bracket within a class is itself.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.char_indices();
    // Where the class began that this is in: a bracket right there is no end.
    let mut class: Option<usize> = None;
    while let Some((at, c)) = chars.next() {
        let rest = &pattern[at..];
        match (c, class) {
            ('\\', _) => out.push_str(&escape(chars.next().map(|(_, c)| c), class.is_some())),
            ('[', None) => {
                let start = if rest.starts_with("[^") { "[^" } else { "[" };
                skip(&mut chars, start.len() - 1);
                out.push_str(start);
                class = Some(at + start.len());
            }
            ('[', Some(_)) if rest.starts_with("[:") && rest.contains(":]") => {
                let len = rest.find(":]").unwrap_or_default() + 2;
                out.push_str(&rest[..len]);
                skip(&mut chars, rest[1..len].chars().count());
            }
            (']', Some(start)) if at == start => out.push_str("\\]"),
            (']', Some(_)) => {
                out.push(']');
                class = None;
            }
            ('[' | '&' | '~', Some(_)) => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

fn skip(chars: &mut CharIndices<'_>, count: usize) {
    if let Some(last) = count.checked_sub(1) {
        let _skipped = chars.nth(last);
    }
}

fn escape(escaped: Option<char>, is_in_class: bool) -> String {
    let ascii = match escaped {
        Some('d') => "[0-9]",
        Some('D') => "[^0-9]",
        Some('w') => "[0-9A-Za-z_]",
        Some('W') => "[^0-9A-Za-z_]",
        Some('s') => r"[\t\n\f\r ]",
        Some('S') => r"[^\t\n\f\r ]",
        Some('b') if !is_in_class => r"(?-u:\b)",
        other => return std::iter::once('\\').chain(other).collect(),
    };
    ascii.to_owned()
}

fn subject(value: &Val) -> Result<String, Error> {
    match value {
        Val::TStr(bytes) | Val::BStr(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        other => Err(Error::str(format_args!("{} has no text to match", kind(other)))),
    }
}

/// How many characters lie before a byte, for bytes in order.
struct Characters<'a> {
    text: &'a str,
    at: usize,
    count: usize,
}

impl Characters<'_> {
    fn before(&mut self, byte: usize) -> usize {
        if byte < self.at {
            (self.at, self.count) = (0, 0);
        }
        self.count += self.text[self.at..byte].chars().count();
        self.at = byte;
        self.count
    }
}

fn int(number: usize) -> Val {
    Val::Num(Num::Int(isize::try_from(number).unwrap_or(isize::MAX)))
}

fn object(fields: impl IntoIterator<Item = (&'static str, Val)>) -> Val {
    let fields: Map = fields.into_iter().map(|(name, value)| (text(name), value)).collect();
    Val::Obj(Rc::new(fields))
}

fn described(found: &Captures<'_>, regex: &Regex, characters: &mut Characters<'_>) -> Val {
    let whole = found.get(0).map(|whole| (characters.before(whole.start()), whole.as_str())).unwrap_or_default();
    let captures: Vec<Val> = regex
        .capture_names()
        .enumerate()
        .skip(1)
        .map(|(at, name)| {
            let name = name.map_or(Val::Null, text);
            match found.get(at) {
                Some(group) => object([
                    ("offset", int(characters.before(group.start()))),
                    ("length", int(group.as_str().chars().count())),
                    ("string", text(group.as_str())),
                    ("name", name),
                ]),
                None => object([
                    ("offset", Val::Num(Num::Int(-1))),
                    ("length", int(0)),
                    ("string", Val::Null),
                    ("name", name),
                ]),
            }
        })
        .collect();
    object([
        ("offset", int(whole.0)),
        ("length", int(whole.1.chars().count())),
        ("string", text(whole.1)),
        ("captures", captures.into_iter().collect()),
    ])
}

/// All matches, or the first one without the flag `g`.
pub(super) fn matches(value: &Val, pattern: &Val, flags: &Val) -> ValR {
    let (subject, (regex, all)) = (subject(value)?, compiled(pattern, flags)?);
    let mut characters = Characters { text: &subject, at: 0, count: 0 };
    let most = if all { usize::MAX } else { 1 };
    Ok(regex.captures_iter(&subject).take(most).map(|found| described(&found, &regex, &mut characters)).collect())
}

/// The text in pieces: what lies before each match, with that match, and what is left, without one.
pub(super) fn pieces(value: &Val, pattern: &Val, flags: &Val) -> ValR {
    let (subject, (regex, all)) = (subject(value)?, compiled(pattern, flags)?);
    let mut characters = Characters { text: &subject, at: 0, count: 0 };
    let most = if all { usize::MAX } else { 1 };
    let (mut out, mut from) = (Vec::new(), 0);
    for found in regex.captures_iter(&subject).take(most) {
        let (start, end) = found.get(0).map_or((from, from), |whole| (whole.start(), whole.end()));
        let matched = described(&found, &regex, &mut characters);
        out.push(object([("before", text(&subject[from..start])), ("match", matched)]));
        from = end;
    }
    out.push(object([("before", text(&subject[from..])), ("match", Val::Null)]));
    Ok(out.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_go_reads_them() {
        for (pattern, text, matches) in [
            (r"^\w+$", "abc_1", true),
            (r"\w", "é", false),
            (r"^[\w-]+$", "a-b", true),
            (r"^[^:]+:", "ab:", true),
            (r"^[a:]$", ":", true),
            (r"[[]", "[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]]$", "]", false),
            (r"[[:alpha:]]", "x", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"\bx\b", "éx", true),
            (r"\p{Lu}", "É", true),
            (r"\\d", r"\d", true),
        ] {
            let regex = Regex::new(&translated(pattern)).unwrap();
            assert_eq!(regex.is_match(text), matches, "{pattern}");
        }
        for odd in ["[", "\\", "[[:", "(", "[^"] {
            assert!(Regex::new(&translated(odd)).is_err(), "{odd}");
        }
    }
}
