//! What does not belong into results (C10): chosen paths, and strings that look like credentials.
//!
//! Knows: finding and replacing. Does not know: files.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use bytes::Bytes;

use super::filter::Filter;

/// What a masked credential becomes; as long as no JSON string it stands in can break.
const MASK: &[u8] = b"***";

/// How credentials begin, and how many characters at least must follow. GitHub's formats are in
/// its docs, "About authentication to GitHub"; the others are their vendors' published prefixes.
const PREFIXES: &[(&str, usize)] = &[
    ("ghp_", 30),
    ("gho_", 30),
    ("ghu_", 30),
    ("ghs_", 30),
    ("ghr_", 30),
    ("github_pat_", 30),
    ("glpat-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("xoxa-", 20),
    ("AKIA", 16),
    ("npm_", 36),
    ("sk_live_", 20),
    ("AIza", 35),
    ("pypi-AgE", 40),
    ("-----BEGIN ", 0),
];

static FINDER: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::new(PREFIXES.iter().map(|(prefix, _)| prefix)).ok());

/// What is removed from results.
#[derive(Debug)]
pub struct Redaction {
    paths: Option<Filter>,
    keep_secrets_like: bool,
}

impl Redaction {
    /// Removes `paths` (in jq's notation), and masks what looks like a credential unless told not to.
    pub fn new(paths: &[String], keep_secrets_like: bool) -> Result<Self, String> {
        let paths = if paths.is_empty() {
            None
        } else {
            let each = paths.iter().map(|path| deletion(path)).collect::<Result<Vec<_>, _>>()?;
            Some(Filter::compile(&each.join(" | "))?)
        };
        Ok(Self { paths, keep_secrets_like })
    }

    /// The result without what does not belong into it; nothing is copied where nothing does.
    pub fn apply(&self, json: Bytes) -> Result<Bytes, String> {
        let json = match &self.paths {
            Some(paths) => paths.run_to_one(&json)?.into(),
            None => json,
        };
        if self.keep_secrets_like {
            return Ok(json);
        }
        Ok(mask(&json).map_or(json, Bytes::from))
    }
}

/// A filter that deletes a path wherever an answer has it, and is content where it does not. If
/// it fails all the same, the result is not written: nothing chosen slips through.
///
/// A path is `.name`, `."any name"`, `[]` (each) and `[0]` in a row; `..name` means anywhere.
fn deletion(path: &str) -> Result<String, String> {
    let bad = || {
        format!(
            "`{}` is no path to remove: write it like .[].author.email, or ..email for anywhere",
            path.escape_debug()
        )
    };
    let name = |rest: &str| -> Option<(String, usize)> {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"')?;
            return (end > 0 && !quoted[..end].contains('\\')).then(|| (quoted[..end].to_owned(), end + 2));
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c)).unwrap_or(rest.len());
        (end > 0).then(|| (rest[..end].to_owned(), end))
    };
    let (mut out, mut rest) = (String::new(), path.trim());
    if let Some(anywhere) = rest.strip_prefix("..") {
        let (field, used) = name(anywhere).ok_or_else(bad)?;
        out = format!(".. | objects | .\"{field}\"?");
        rest = &anywhere[used..];
    } else if !rest.starts_with('.') {
        return Err(bad());
    }
    while !rest.is_empty() {
        let after_dot = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(index) = after_dot.strip_prefix('[') {
            let (inside, after) = index.split_once(']').ok_or_else(bad)?;
            if !inside.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad());
            }
            out.push_str(&format!("{}[{inside}]?", if out.is_empty() { "." } else { "" }));
            rest = after;
        } else {
            let (field, used) = name(after_dot).filter(|_| rest.starts_with('.')).ok_or_else(bad)?;
            out.push_str(&format!(".\"{field}\"?"));
            rest = &after_dot[used..];
        }
    }
    Ok(format!("del({out})"))
}

/// The text with everything that looks like a credential masked.
pub(crate) fn mask_text(text: &str) -> String {
    mask(text.as_bytes()).map_or_else(|| text.to_owned(), |masked| String::from_utf8_lossy(&masked).into_owned())
}

/// The bytes with credentials masked; `None` when there are none.
fn mask(bytes: &[u8]) -> Option<Vec<u8>> {
    let finder = FINDER.as_ref()?;
    let mut out: Vec<u8> = Vec::new();
    let mut copied = 0;
    for found in finder.find_iter(bytes) {
        if found.start() < copied {
            continue;
        }
        let (prefix, at_least) = PREFIXES[found.pattern().as_usize()];
        let rest = &bytes[found.end()..];
        let end = if prefix.starts_with('-') {
            // A key in PEM: to its end, or to the end of the string that holds it.
            if !rest[..rest.len().min(40)].windows(11).any(|window| window == b"PRIVATE KEY") {
                continue;
            }
            rest.iter().position(|byte| *byte == b'"').unwrap_or(rest.len())
        } else {
            let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
            let len = rest.iter().position(|byte| !is_token(byte)).unwrap_or(rest.len());
            let begins = found.start() == 0 || !bytes[found.start() - 1].is_ascii_alphanumeric();
            if len < at_least || !begins {
                continue;
            }
            len
        };
        out.extend_from_slice(&bytes[copied..found.start()]);
        out.extend_from_slice(MASK);
        copied = found.end() + end;
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&bytes[copied..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_masked() {
        let secret = format!("ghp_{}", "a1B2".repeat(9));
        let text = format!("{{\"body\":\"use {secret}, ok\",\"key\":\"-----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n\"}}");
        let masked = mask_text(&text);
        assert_eq!(masked, "{\"body\":\"use ***, ok\",\"key\":\"***\"}");
        for plain in ["ghp_short", "https://github.com/ghs_x/y", "see AKIA docs", "-----BEGIN CERTIFICATE-----"] {
            assert_eq!(mask_text(plain), plain);
        }
    }

    #[test]
    fn chosen_paths_are_removed_and_missing_ones_are_no_error() {
        let json =
            br#"[{"author":null},{"author":{"id":12345678901234567890,"name":"A","email":"a@b.c"}},7,{"author":[1]}]"#;
        let without = r#"[{"author":null},{"author":{"id":12345678901234567890,"name":"A"}},7,{"author":[1]}]"#;
        for paths in [&[".[].author.email", ".nothing.here"][..], &["..email"], &[".[1].\"author\".email"]] {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            let out = Redaction::new(&paths, false).unwrap().apply(Bytes::from_static(json)).unwrap();
            assert_eq!(std::str::from_utf8(&out).unwrap(), without, "{paths:?}");
        }
        for bad in ["}", "author", ".a | .b", ".[", ".[x]", "..", ".a..b", ".\"a"] {
            assert!(Redaction::new(&[bad.into()], false).is_err(), "{bad}");
        }
    }
}
