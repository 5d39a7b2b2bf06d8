//! What does not belong into results: chosen paths, and credentials.
//!
//! Knows: paths as filters, whether credentials are masked. Does not know: what credentials look like
//! (`mask`), files.

use bytes::Bytes;

use super::filter::Filter;
use crate::mask::Masker;

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

    /// The result without what does not belong into it; nothing is copied where nothing does. The secrets
    /// of this process are masked in any case.
    pub fn apply(&self, json: Bytes, masker: &Masker) -> Result<Bytes, String> {
        let json = match &self.paths {
            Some(paths) => paths.run_to_one(&json)?.into(),
            None => json,
        };
        let masked = if self.keep_secrets_like { masker.document_of_own(&json) } else { masker.document(&json) };
        Ok(masked.map_or(json, Bytes::from))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_masked_unless_they_are_kept_and_own_ones_always() {
        let (looks_like, own) = (format!("ghp_{}", "a1B2".repeat(9)), "0123456789abcdef");
        let masker = Masker::default();
        masker.add(own);
        let json = Bytes::from(format!("[\"use {looks_like}\",\"{own}\"]"));
        let with = |keep| Redaction::new(&[], keep).unwrap().apply(json.clone(), &masker).unwrap();
        assert_eq!(with(false), "[\"use ***\",\"***\"]");
        assert_eq!(with(true), format!("[\"use {looks_like}\",\"***\"]"));
    }

    #[test]
    fn chosen_paths_are_removed_and_missing_ones_are_no_error() {
        let json =
            br#"[{"author":null},{"author":{"id":12345678901234567890,"name":"A","email":"a@b.c"}},7,{"author":[1]}]"#;
        let without = r#"[{"author":null},{"author":{"id":12345678901234567890,"name":"A"}},7,{"author":[1]}]"#;
        for paths in [&[".[].author.email", ".nothing.here"][..], &["..email"], &[".[1].\"author\".email"]] {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            let out =
                Redaction::new(&paths, false).unwrap().apply(Bytes::from_static(json), &Masker::default()).unwrap();
            assert_eq!(std::str::from_utf8(&out).unwrap(), without, "{paths:?}");
        }
        for bad in ["}", "author", ".a | .b", ".[", ".[x]", "..", ".a..b", ".\"a"] {
            assert!(Redaction::new(&[bad.into()], false).is_err(), "{bad}");
        }
    }
}
