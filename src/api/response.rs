//! What gh says of an answer: errors in its words, control characters made visible.
//!
//! Knows: the forms of GitHub's errors. Does not know: where they are printed.

use std::borrow::Cow;

use memchr::{memchr_iter, memmem};
use serde_json::Value;

/// Whether a media type is JSON.
pub fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    kind.ends_with("/json") || kind.ends_with("+json")
}

/// The error that an answer is, in one or more lines; `None` for none.
pub fn error(status: u16, is_graphql: bool, content_type: &str, body: &[u8]) -> Option<String> {
    let said = if is_json(content_type) && (is_graphql || status >= 400) { message(status, body) } else { None };
    said.or_else(|| (status > 299).then(|| format!("HTTP {status}")))
}

fn message(status: u16, body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let message = body["message"].as_str().filter(|message| !message.is_empty());
    match (&body["errors"], message) {
        (Value::String(error), Some(message)) if !error.is_empty() => Some(format!("{error} ({message})")),
        (Value::String(error), None) if !error.is_empty() => Some(error.clone()),
        (_, Some(message)) => Some(format!("{message} (HTTP {status})")),
        (Value::Array(errors), None) => {
            let text = |error: &Value| error.as_str().or(error["message"].as_str()).unwrap_or_default().to_owned();
            let all: Vec<String> = errors.iter().map(text).collect();
            Some(all.join("\n")).filter(|all| !all.is_empty())
        }
        _ => None,
    }
}

/// A hint about scopes that a token lacks, as GitHub's headers tell them.
pub fn scopes_hint(status: u16, needed: Option<&str>, granted: Option<&str>, host: &str) -> Option<String> {
    let (needed, granted) = (needed?, granted?);
    if !matches!(status, 401 | 403 | 404) || needed.is_empty() || granted.is_empty() {
        return None;
    }
    let all = |text: &str| text.split(',').map(|scope| scope.trim().to_owned()).collect::<Vec<_>>();
    let has = all(granted);
    let lacks = all(needed);
    // One of them would do.
    if lacks.iter().any(|scope| has.contains(scope)) {
        return None;
    }
    let scope = lacks.first()?;
    Some(format!(
        "This API operation needs the \"{scope}\" scope. To request it, run:  gh auth refresh -h {host} -s {scope}"
    ))
}

/// JSON whose control characters would drive a terminal, with those shown instead, as gh does before
/// anything else: `\u001b` as `^[`, U+009B too, escaped or not (go-gh, `asciisanitizer`).
pub fn visible(json: &[u8]) -> Cow<'_, [u8]> {
    let is_c1 = |at: usize| matches!(json.get(at + 1), Some(0x80..=0x9f));
    if memmem::find(json, b"\\u00").is_none() && !memchr_iter(0xc2, json).any(is_c1) {
        return Cow::Borrowed(json);
    }
    let mut out = Vec::with_capacity(json.len());
    let mut at = 0;
    while at < json.len() {
        let rest = &json[at..];
        if let Some(shown) = control(rest) {
            out.extend_from_slice(shown.as_bytes());
            at += 6;
        } else if let [0xc2, code @ 0x80..=0x9f, ..] = rest {
            out.extend_from_slice(caret(*code).as_bytes());
            at += 2;
        } else {
            // An escaped character is taken whole, so that `\\u001b` stays text.
            let len = if rest[0] == b'\\' && rest.len() > 1 { 2 } else { 1 };
            out.extend_from_slice(&rest[..len]);
            at += len;
        }
    }
    Cow::Owned(out)
}

/// `\u00XX` of a control character at the beginning of `text`, in caret notation.
fn control(text: &[u8]) -> Option<String> {
    let digits = std::str::from_utf8(text.get(..6)?.strip_prefix(b"\\u00")?).ok()?;
    let code = u8::from_str_radix(digits, 16).ok()?;
    match code {
        // Line ends and tabs move the cursor as they should.
        0x09 | 0x0a | 0x0d => None,
        0x00..=0x1f | 0x7f..=0x9f => Some(caret(code)),
        _ => None,
    }
}

/// A control character in caret notation, within a JSON string.
fn caret(code: u8) -> String {
    match code {
        0x7f => "^?".into(),
        0x1c | 0x9c => "^\\\\".into(),
        code => format!("^{}", char::from(0x40 | (code & 0x1f))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_ghs_words() {
        let json = "application/json; charset=utf-8";
        let said = |status, body: &str| error(status, false, json, body.as_bytes());
        assert_eq!(said(200, r#"{"message":"x"}"#), None);
        assert_eq!(said(404, r#"{"message":"Not Found"}"#).unwrap(), "Not Found (HTTP 404)");
        assert_eq!(said(422, r#"{"message":"Bad","errors":"why"}"#).unwrap(), "why (Bad)");
        assert_eq!(said(422, r#"{"message":"Bad","errors":[{"message":"a"}]}"#).unwrap(), "Bad (HTTP 422)");
        assert_eq!(said(400, r#"{"errors":["a",{"message":"b"}]}"#).unwrap(), "a\nb");
        assert_eq!(error(500, false, "text/html", b"<p>").unwrap(), "HTTP 500");
        assert_eq!(error(304, false, json, b"").unwrap(), "HTTP 304");
        assert_eq!(error(200, true, json, br#"{"data":null,"errors":[{"message":"no"}]}"#).unwrap(), "no");
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(
            &*visible(br#"{"a":"\u001b[31m\u0007\\u001b\n\u000a\u00e9"}"#),
            br#"{"a":"^[[31m^G\\u001b\n\u000a\u00e9"}"#
        );
        let c1 = "{\"a\":\"\\u009b\\u009C\\u007f\u{9b}\u{9c}\u{85}é\"}";
        assert_eq!(&*visible(c1.as_bytes()), "{\"a\":\"^[^\\\\^?^[^\\\\^Eé\"}".as_bytes());
    }

    #[test]
    fn a_scope_that_is_missing_is_named() {
        let hint = scopes_hint(404, Some("admin:org, read:org"), Some("repo"), "github.com").unwrap();
        assert!(hint.contains("gh auth refresh -h github.com -s admin:org"), "{hint}");
        assert_eq!(scopes_hint(404, Some("repo"), Some("gist, repo"), "github.com"), None);
        assert_eq!(scopes_hint(404, Some("repo"), None, "github.com"), None);
    }
}
