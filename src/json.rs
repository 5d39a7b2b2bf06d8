//! Bounds of JSON texts.
//!
//! Knows: how deep a text nests and how long its numbers are, without parsing it. Does not know: whether it is JSON.

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
