//! Bounds of JSON texts.
//!
//! Knows: how deep a text nests and how long its numbers are, without parsing it. Does not know: whether it is JSON.

use std::borrow::Cow;

/// Levels that a text may nest. GitHub's answers stay below 50; most readers of JSON recurse, and `serde_json`, which
/// bounds that, stops at 128.
pub const MAX_DEPTH: usize = 100;

/// Refuses a text that nests deeper than [`MAX_DEPTH`]; what reads it recurses for each level.
pub fn check_depth(json: &[u8]) -> Result<(), String> {
    // As a rule there are too few brackets for that, which is seen at the speed of memory.
    if memchr::memchr2_iter(b'[', b'{', json).take(MAX_DEPTH + 1).count() <= MAX_DEPTH || depth(json) <= MAX_DEPTH {
        return Ok(());
    }
    Err(format!("the JSON nests deeper than {MAX_DEPTH} levels"))
}

/// Digits that a number may have; readers of longer ones take time in proportion to the square of that.
const MAX_NUMBER_BYTES: usize = 1_000;

/// Refuses a text that nests deeper than [`MAX_DEPTH`], or holds a number of more than a thousand characters.
pub fn check(json: &[u8]) -> Result<(), String> {
    check_depth(json)?;
    let is_digit = |at: usize| json.get(at).is_some_and(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte));
    // Every number that is too long covers one of these places.
    let may_be = (0..json.len()).step_by(MAX_NUMBER_BYTES).any(|at| {
        let before = (0..at).rev().take_while(|at| is_digit(*at)).take(MAX_NUMBER_BYTES).count();
        let after = (at..json.len()).take_while(|at| is_digit(*at)).take(MAX_NUMBER_BYTES + 1).count();
        after > 0 && before + after > MAX_NUMBER_BYTES
    });
    if may_be && longest_number(json) > MAX_NUMBER_BYTES {
        return Err(format!("the JSON holds a number of more than {MAX_NUMBER_BYTES} characters"));
    }
    Ok(())
}

/// The length of the longest number outside of strings.
fn longest_number(json: &[u8]) -> usize {
    let (mut longest, mut len, mut at) = (0, 0_usize, 0);
    while let Some(byte) = json.get(at) {
        len = if byte.is_ascii_digit() || b"+-.eE".contains(byte) { len + 1 } else { 0 };
        longest = longest.max(len);
        if *byte == b'"' {
            at = end_of_string(json, at);
        }
        at += 1;
    }
    longest
}

/// The deepest level, or the first one beyond the bound.
fn depth(json: &[u8]) -> usize {
    let (mut level, mut deepest, mut at) = (0_usize, 0, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'[' | b'{' => {
                level += 1;
                deepest = deepest.max(level);
                if deepest > MAX_DEPTH {
                    return deepest;
                }
            }
            b']' | b'}' => level = level.saturating_sub(1),
            b'"' => at = end_of_string(json, at),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// The place of the quote that ends the string which begins at `at`.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(found) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if json[at] == b'"' {
            return at;
        }
        at += 2;
    }
    json.len()
}

/// A text with its escapes of surrogates (`\ud83d\ude00`) replaced by the characters that they mean; one without its other
/// half is U+FFFD, as in Go and JavaScript's decoders. JSON of GitHub's has such halves where a text was cut.
pub fn without_surrogates(text: &[u8]) -> Cow<'_, [u8]> {
    let is_surrogate = |at: usize| {
        matches!(text.get(at..at + 4), Some([b'\\', b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F']))
    };
    let Some(first) = memchr::memchr_iter(b'\\', text).find(|at| is_surrogate(*at)) else { return Cow::Borrowed(text) };
    let unit = |at: usize| {
        let digits = text.get(at + 2..at + 6).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut out = Vec::with_capacity(text.len());
    // A backslash before may escape this one: from the beginning of its row.
    let row = text[..first].iter().rev().take_while(|byte| **byte == b'\\').count();
    let mut at = first - row;
    out.extend_from_slice(&text[..at]);
    while at < text.len() {
        if text[at] != b'\\' {
            out.push(text[at]);
            at += 1;
        } else if let Some(high) = unit(at).filter(|_| is_surrogate(at)) {
            let low = if is_surrogate(at + 6) { unit(at + 6) } else { None };
            let units = [high, low.unwrap_or_default()];
            let pair = char::decode_utf16(units).next().and_then(std::result::Result::ok);
            let (c, len) = pair.map_or((char::REPLACEMENT_CHARACTER, 6), |c| (c, 12));
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            at += len;
        } else {
            out.extend_from_slice(&text[at..(at + 2).min(text.len())]);
            at += 2;
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_of_brackets_outside_of_strings() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(check_depth(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(check_depth(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(check_depth(format!("[{}]", vec!["[[1]]"; 1_000].join(",")).as_bytes()).is_ok());
        assert!(check_depth(r#"{"a":"#.repeat(30_000).as_bytes()).is_err());
        for inside in ["[".repeat(500), "{\\\"[".repeat(500), "\\\\".repeat(5) + &"[".repeat(500)] {
            assert!(check_depth(format!("[\"{inside}\",\"[\"]").as_bytes()).is_ok());
        }
        // A string that ends with a backslash, or never.
        assert!(check_depth(format!("[\"\\\\\",{}", "[".repeat(200)).as_bytes()).is_err());
        for odd in ["", "\"", "\"\\", "[\"[[[", "]]]]"] {
            assert!(check_depth(odd.as_bytes()).is_ok(), "{odd}");
        }
    }

    #[test]
    fn surrogates_become_characters() {
        let of = |text: &str| String::from_utf8(without_surrogates(text.as_bytes()).into_owned()).unwrap();
        for (text, plain) in [
            (r#""a\ud83d\ude00b""#, "\"a😀b\""),
            (r#""\uD83D""#, "\"\u{fffd}\""),
            (r#""\ude00\ud83d""#, "\"\u{fffd}\u{fffd}\""),
            (r#""\ud83d\u0041""#, "\"\u{fffd}\\u0041\""),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d\ude00""#, "\"\\\\😀\""),
            (r#""\ud83""#, r#""\ud83""#),
            (r"\ud83d\ude0", "\u{fffd}\\ude0"),
            (r#""\u00e9""#, r#""\u00e9""#),
        ] {
            assert_eq!(of(text), plain, "{text}");
        }
        assert!(matches!(without_surrogates(b"{}"), Cow::Borrowed(_)));
    }

    #[test]
    fn long_numbers_are_refused_and_long_texts_of_digits_are_not() {
        for (before, digits, after) in
            [("", 1_000, ""), ("[1,", 1_000, "]"), ("[\"", 5_000, "\"]"), ("{\"\\\"", 3_000, "\":1}")]
        {
            assert!(check(format!("{before}{}{after}", "7".repeat(digits)).as_bytes()).is_ok(), "{before}");
        }
        for lead in [0, 1, 500, 998, 999, 1_000, 1_001, 2_500] {
            let text = format!("[{}{}]", " ".repeat(lead), "7".repeat(1_001));
            assert!(check(text.as_bytes()).is_err(), "{lead}");
        }
        assert!(check(format!("{{\"a\":\"x\",\"n\":-1.{}e5}}", "0".repeat(1_000)).as_bytes()).is_err());
        assert!(check(&b"[".repeat(500)).is_err());
    }
}
