//! JSON in colours and lines, for terminals, as gh shows it.
//!
//! Knows: gh's colours. Does not know: values; texts of numbers and strings stay as they are.

const DELIMITER: &str = "1;38";
const KEY: &str = "1;34";
const STRING: &str = "32";
const NULL: &str = "36";
const BOOL: &str = "33";

/// `json` with two spaces a level, in colours; what is no JSON stays as it is.
pub fn coloured(json: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(json) else { return json.to_vec() };
    // Each line of what nests deeply would be as long as that is deep.
    if crate::json::check_depth(json).is_err() || serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return json.to_vec();
    }
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut rest = text.trim();
    let paint = |out: &mut String, code: &str, text: &str| out.push_str(&format!("\u{1b}[{code}m{text}\u{1b}[m"));
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    while let Some(first) = rest.chars().next() {
        let mut used = first.len_utf8();
        match first {
            '{' | '[' => {
                let close = if first == '{' { "}" } else { "]" };
                let after = rest[1..].trim_start();
                if after.starts_with(close) {
                    paint(&mut out, DELIMITER, &format!("{first}{close}"));
                    used = rest.len() - after.len() + 1;
                } else {
                    depth += 1;
                    paint(&mut out, DELIMITER, &rest[..1]);
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                paint(&mut out, DELIMITER, &rest[..1]);
            }
            ',' => {
                paint(&mut out, DELIMITER, ",");
                line(&mut out, depth);
            }
            ':' => {
                paint(&mut out, DELIMITER, ":");
                out.push(' ');
            }
            '"' => {
                used = string_len(rest);
                let is_key = rest[used..].trim_start().starts_with(':');
                paint(&mut out, if is_key { KEY } else { STRING }, &rest[..used]);
            }
            c if c.is_whitespace() => {}
            _ => {
                used = rest.find([',', '}', ']', ' ', '\n', '\r', '\t']).unwrap_or(rest.len());
                match &rest[..used] {
                    word @ ("true" | "false") => paint(&mut out, BOOL, word),
                    "null" => paint(&mut out, NULL, "null"),
                    number => out.push_str(number),
                }
            }
        }
        rest = &rest[used..];
    }
    out.push('\n');
    out.into_bytes()
}

/// Bytes of the string that `text` begins with, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_colours() {
        let shown = coloured(br#"{"a":[1.0,true,"x\"y"],"b":{},"c":null}"#);
        let plain = String::from_utf8(shown).unwrap();
        assert!(
            plain.contains("\u{1b}[1;34m\"a\"\u{1b}[m") && plain.contains("\u{1b}[32m\"x\\\"y\"\u{1b}[m"),
            "{plain}"
        );
        let bare: String =
            plain.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |(_, text)| text)).collect();
        assert_eq!(bare, "{\n  \"a\": [\n    1.0,\n    true,\n    \"x\\\"y\"\n  ],\n  \"b\": {},\n  \"c\": null\n}\n");
        assert_eq!(coloured(b"not json"), b"not json");
        let deep = ["[".repeat(20_000), "]".repeat(20_000)].concat();
        assert_eq!(coloured(deep.as_bytes()), deep.as_bytes(), "stays as it is");
    }
}
