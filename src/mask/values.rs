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
    forms: Vec<Vec<Form>>,
}

/// One way in which a secret may be written.
#[derive(Debug, PartialEq, Eq)]
struct Form {
    bytes: Vec<u8>,
    /// Whether lines may end within it, as in the base64 of MIME and of GitHub's contents API.
    has_lines: bool,
}

impl Form {
    fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), has_lines: false }
    }

    /// How many bytes of `text` it takes, which begins with its anchor, if it stands there.
    fn len_in(&self, text: &[u8]) -> Option<usize> {
        if !self.has_lines {
            return text.starts_with(&self.bytes).then_some(self.bytes.len());
        }
        let mut at = 0;
        for byte in &self.bytes {
            loop {
                at += match text.get(at..)? {
                    [b'\n' | b'\r', ..] => 1,
                    // As JSON writes them.
                    [b'\\', b'n' | b'r', ..] => 2,
                    _ => break,
                };
            }
            if text.get(at) != Some(byte) {
                return None;
            }
            at += 1;
        }
        Some(at)
    }
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
            if let Some(len) = finder.forms[number].iter().find_map(|form| form.len_in(rest)) {
                from = hit.start + len;
                if !found(hit.start..from) {
                    return;
                }
            }
        }
    }
}

impl Finder {
    fn of<'a>(secrets: impl Iterator<Item = &'a String>) -> Option<Self> {
        let anchor = |form: &Form| form.bytes[..ANCHOR_BYTES].to_vec();
        let mut all: Vec<Form> = secrets.flat_map(|secret| forms(secret)).collect();
        all.retain(|form| form.bytes.len() >= ANCHOR_BYTES);
        all.sort_by(|a, b| anchor(a).cmp(&anchor(b)).then(b.bytes.len().cmp(&a.bytes.len())));
        all.dedup();
        let mut forms: Vec<Vec<Form>> = Vec::new();
        for form in all {
            match forms.last_mut() {
                Some(same) if anchor(&same[0]) == anchor(&form) => same.push(form),
                _ => forms.push(vec![form]),
            }
        }
        let anchors = Search::of(forms.iter().map(|same| &same[0].bytes[..ANCHOR_BYTES]))?;
        Some(Self { anchors, forms })
    }
}

/// The forms in which a secret may come back.
fn forms(secret: &str) -> Vec<Form> {
    let bytes = secret.as_bytes();
    let mut forms = vec![Form::plain(bytes), Form::plain(HEXLOWER.encode(bytes)), Form::plain(HEXUPPER.encode(bytes))];
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        // In longer text, the secret begins at any of three places of a group of four characters. What
        // depends on its neighbours is left out.
        for (lead, skip) in [(0, 0), (1, 2), (2, 3)] {
            let text = encoding.encode(&[&[0; 2][..lead], bytes].concat());
            let whole = (lead + bytes.len()) * 8 / 6;
            let coded = &text.as_bytes()[skip..whole];
            forms.push(Form { bytes: coded.to_vec(), has_lines: true });
            // A line may end within the anchor, but seldom within what follows, too.
            let rest = coded.get(ANCHOR_BYTES..).filter(|rest| rest.len() >= 2 * ANCHOR_BYTES);
            forms.extend(rest.map(|rest| Form { bytes: rest.to_vec(), has_lines: true }));
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
    forms.extend([Form::plain(escaped), Form::plain(html)]);
    // Unreserved characters need not be encoded, and may be.
    let as_they_are: [fn(&u8) -> bool; 3] =
        [|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte), u8::is_ascii_alphanumeric, |_| false];
    for is_kept in as_they_are {
        forms.extend([true, false].map(|upper| Form::plain(percent(bytes, upper, is_kept))));
    }
    forms
}

fn percent(bytes: &[u8], upper: bool, is_kept: impl Fn(&u8) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes {
        if is_kept(byte) {
            out.push(*byte);
        } else {
            let encoding = if upper { &HEXUPPER } else { &HEXLOWER };
            out.push(b'%');
            out.extend_from_slice(encoding.encode(&[*byte]).as_bytes());
        }
    }
    out
}
