//! The secrets that this process holds, in the forms in which they may come back.
//!
//! Knows: base64, percent-encoding, hexadecimal digits, JSON's escapes. Does not know: JSON documents.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::OnceLock;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

use super::search::Search;

/// Shorter secrets stand in too many harmless texts.
const MIN_BYTES: usize = 8;

/// Secrets of the configuration that are kept; beyond that the oldest makes room.
const MAX_LASTING: usize = 1024;

/// Secrets with an end, of which the last are kept.
const MAX_PASSING: usize = 8;

/// Bytes of a form by which it is searched; the rest is compared.
const ANCHOR_BYTES: usize = 8;

/// Secrets and, once something is searched, how to find them.
#[derive(Default)]
pub(super) struct Values {
    lasting: Vec<String>,
    passing: Vec<String>,
    finder: OnceLock<Option<Finder>>,
}

struct Finder {
    anchors: Search,
    /// For each anchor, the forms that begin with it, the longest first.
    forms: Vec<Vec<Vec<u8>>>,
}

impl Values {
    /// Returns these secrets and one more; one that passes is dropped once eight others have come.
    pub(super) fn with(&self, secret: &str, passes: bool) -> Self {
        let (mut lasting, mut passing) = (self.lasting.clone(), self.passing.clone());
        let (known, max) = if passes { (&mut passing, MAX_PASSING) } else { (&mut lasting, MAX_LASTING) };
        let secret = secret.trim();
        if secret.len() >= MIN_BYTES && !known.iter().any(|known| known == secret) {
            if known.len() >= max {
                known.remove(0);
            }
            known.push(secret.to_owned());
        }
        Self { lasting, passing, finder: OnceLock::new() }
    }

    /// Whether every secret looks the same within JSON, whatever writes it.
    pub(super) fn are_plain(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\<>&'".contains(&byte);
        self.lasting.iter().chain(&self.passing).all(|secret| secret.bytes().all(is_plain))
    }

    /// Calls `found` with the place of each form of a secret, until it returns false.
    pub(super) fn find(&self, text: &[u8], mut found: impl FnMut(Range<usize>) -> bool) {
        if self.lasting.is_empty() && self.passing.is_empty() {
            return;
        }
        let Some(finder) = self.finder.get_or_init(|| Finder::of(self.lasting.iter().chain(&self.passing))) else {
            return;
        };
        let mut from = 0;
        while let Some((number, hit)) = finder.anchors.next(text, from) {
            from = hit.start + 1;
            let rest = &text[hit.start..];
            if let Some(form) = finder.forms[number].iter().find(|form| rest.starts_with(form)) {
                from = hit.start + form.len();
                if !found(hit.start..from) {
                    return;
                }
            }
        }
    }
}

impl Finder {
    fn of<'a>(secrets: impl Iterator<Item = &'a String>) -> Option<Self> {
        let mut all: Vec<Vec<u8>> = secrets.flat_map(|secret| forms(secret)).collect();
        all.retain(|form| form.len() >= ANCHOR_BYTES);
        all.sort_by(|a, b| a[..ANCHOR_BYTES].cmp(&b[..ANCHOR_BYTES]).then(b.len().cmp(&a.len())));
        all.dedup();
        let mut forms: Vec<Vec<Vec<u8>>> = Vec::new();
        for form in all {
            match forms.last_mut() {
                Some(same) if same[0][..ANCHOR_BYTES] == form[..ANCHOR_BYTES] => same.push(form),
                _ => forms.push(vec![form]),
            }
        }
        let anchors = Search::of(forms.iter().map(|same| &same[0][..ANCHOR_BYTES]))?;
        Some(Self { anchors, forms })
    }
}

/// The forms in which a secret may come back.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let mut forms = vec![bytes.to_vec(), HEXLOWER.encode(bytes).into_bytes(), HEXUPPER.encode(bytes).into_bytes()];
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        // In longer text, the secret begins at any of three places of a group of four characters. What
        // depends on its neighbours is left out.
        for (lead, skip) in [(0, 0), (1, 2), (2, 3)] {
            let text = encoding.encode(&[&[0; 2][..lead], bytes].concat());
            let whole = (lead + bytes.len()) * 8 / 6;
            forms.push(text.as_bytes()[skip..whole].to_vec());
        }
    }
    let escaped = serde_json::to_string(secret).unwrap_or_default();
    let escaped = &escaped[1..escaped.len().max(2) - 1];
    let mut html = String::new();
    for char in escaped.chars() {
        let _into_a_string = match char {
            '&' | '<' | '>' | '\'' => write!(html, "\\u{:04x}", u32::from(char)),
            char => write!(html, "{char}"),
        };
    }
    forms.extend([escaped.as_bytes().to_vec(), html.into_bytes(), percent(bytes, true), percent(bytes, false)]);
    forms
}

fn percent(bytes: &[u8], upper: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            let encoding = if upper { &HEXUPPER } else { &HEXLOWER };
            out.push(b'%');
            out.extend_from_slice(encoding.encode(&[*byte]).as_bytes());
        }
    }
    out
}
