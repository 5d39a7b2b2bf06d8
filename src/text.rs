//! Text of others that is safe in a terminal and in a runner's log.
//!
//! Knows: control and bidirectional characters, workflow commands. Does not know: where text is printed.

use std::borrow::Cow;

/// What is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// No control character.
    Nothing,
    /// Line ends and tabs.
    Lines,
}

/// Returns one line. Control characters become visible: `^[` for ESC and `^J` for a line end, as gh shows
/// them, `\u{202e}` for those beyond ASCII and for bidirectional ones. What a runner would take for a
/// workflow command no longer is one.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, Keep::Nothing)
}

/// Returns the same for text of several lines, which stay lines; tabs stay, too.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, Keep::Lines)
}

/// Returns JSON text that means the same, with characters that [`line()`] shows as escapes written as
/// JSON's own.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !is_unsafe(c) || c.is_ascii_whitespace();
    if text.chars().all(is_plain) && !text.contains('#') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for (at, c) in text.char_indices() {
        if is_plain(c) && !begins(&text[at..], "##[") {
            out.push(c);
        } else {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    Cow::Owned(out)
}

/// Text with control characters made visible, for places that encode line ends themselves and begin with
/// something else; line ends and tabs stay.
pub fn without_controls(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && !"\n\r\t".contains(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| if "\n\r\t".contains(c) { out.push(c) } else { push(&mut out, c) });
    Cow::Owned(out)
}

/// Whether a character drives a terminal, ends a line or changes the order of others: control characters
/// (C0, DEL, C1), line and paragraph separators, and those with the property `Bidi_Control` (Unicode
/// Standard Annex #9).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, keep: Keep) -> Cow<'_, str> {
    if is_harmless(text, keep) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut at_start = true;
    for (at, c) in text.char_indices() {
        let rest = &text[at..];
        let is_command = (at_start && begins(rest, "::")) || begins(rest, "##[");
        if is_command {
            out.push_str(&c.escape_unicode().to_string());
        } else if keep == Keep::Lines && (c == '\n' || c == '\t') {
            out.push(c);
        } else {
            push(&mut out, c);
        }
        // A carriage return ends a line for a runner; it is escaped, so it does not get there.
        at_start =
            (at_start && !is_command && (c.is_whitespace() || is_ignorable(c))) || (keep == Keep::Lines && c == '\n');
    }
    Cow::Owned(out)
}

/// Whether nothing is to be done; most text is ASCII without commands.
fn is_harmless(text: &str, keep: Keep) -> bool {
    let is_kept = |byte: u8| matches!(byte, b' '..=b'~') || (keep == Keep::Lines && matches!(byte, b'\n' | b'\t'));
    text.bytes().all(is_kept) && !text.contains("##[") && !text.lines().any(|line| line.trim_start().starts_with("::"))
}

fn push(out: &mut String, c: char) {
    match c {
        '\u{7f}' => out.push_str("^?"),
        '\0'..='\u{1f}' => out.extend(['^', char::from(c as u8 + 0x40)]),
        c if is_unsafe(c) => out.extend(c.escape_unicode()),
        c => out.push(c),
    }
}

/// Whether a runner sees `mark` at the beginning of `text`. It compares by the rules of a language, for
/// which some characters do not count (actions/runner, `ActionCommand.cs`).
fn begins(text: &str, mark: &str) -> bool {
    let mut counting = text.chars().filter(|c| !is_ignorable(*c));
    // The first one is the character that would be escaped.
    text.starts_with(|c: char| !is_ignorable(c)) && mark.chars().all(|wanted| counting.next() == Some(wanted))
}

/// Characters that comparing by language ignores (`Default_Ignorable_Code_Point`, as far as assigned).
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    ) || (c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(line("a\u{1b}]52;c;x\u{7}\n\t\r\u{7f}b"), "a^[]52;c;x^G^J^I^M^?b");
        assert_eq!(
            line("\u{9b}31m\u{202e}x\u{2066}\u{200f}\u{2028}\u{61c}"),
            "\\u{9b}31m\\u{202e}x\\u{2066}\\u{200f}\\u{2028}\\u{61c}"
        );
        assert_eq!(lines("a\n\tb\r\n\u{1b}c"), "a\n\tb^M\n^[c");
        for plain in ["é 日本 😀 👩‍👩‍👧", "a::b ## c # [x]", "std::io", "^[ \\u{9b}"] {
            assert_eq!((line(plain), lines(plain)), (plain.into(), plain.into()));
        }
        assert_eq!(line(&line("\u{1b}\u{202e}::x")), line("\u{1b}\u{202e}::x"));
    }

    #[test]
    fn nothing_is_taken_for_a_command() {
        assert_eq!(line("::warning::x"), "\\u{3a}:warning::x");
        assert_eq!(line("  ::x"), "  \\u{3a}:x");
        assert_eq!(line("a ##[error]x"), "a \\u{23}#[error]x");
        assert_eq!(line("###[error]x"), "#\\u{23}#[error]x");
        assert_eq!(lines("a\n \u{3000}::stop-commands::t"), "a\n \u{3000}\\u{3a}:stop-commands::t");
        assert_eq!(lines("a\n\u{feff}:\u{200b}:x"), "a\n\u{feff}\\u{3a}\u{200b}:x");
        assert_eq!(line("#\u{ad}#[group]"), "\\u{23}\u{ad}#[group]");
        assert_eq!(json("{\"a\":\"##[x]\u{9b}\u{2028}é\"}\n"), "{\"a\":\"\\u0023#[x]\\u009b\\u2028é\"}\n");
    }
}
