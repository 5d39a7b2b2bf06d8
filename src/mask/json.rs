//! The strings of a JSON document, one by one, with everything between them left as it is.
//!
//! Knows: where strings begin and end, escapes. Does not know: what is replaced in them.

use memchr::memchr2;

/// A string of a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// Where it begins in the document, behind its quote.
    pub(super) start: usize,
    /// Between the quotes, as written.
    pub(super) raw: &'a [u8],
    /// Whether an escape is in it.
    pub(super) is_escaped: bool,
    /// Whether it is the name of a member.
    pub(super) is_name: bool,
}

/// The strings of a document, in order. It ends with `None` in the place of a string where the document
/// cannot be JSON. No value is held, so neither size nor nesting has a bound. What it does not check,
/// syntax between strings, cannot hide text: only letters of `true`, `false` and `null`, digits and
/// punctuation may stand there.
pub(super) struct Strings<'a> {
    document: &'a [u8],
    at: usize,
}

impl<'a> Strings<'a> {
    pub(super) fn of(document: &'a [u8]) -> Self {
        Self { document, at: 0 }
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = Option<Text<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(byte) = self.document.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => {
                    let text = string(self.document, self.at);
                    self.at = text.map_or(self.document.len(), |text| text.start + text.raw.len() + 1);
                    return Some(text);
                }
                byte if byte.is_ascii_digit() || b" \t\r\n{}[],:+-.eEtrufalsn".contains(byte) => {}
                _ => {
                    self.at = self.document.len();
                    return Some(None);
                }
            }
        }
        None
    }
}

fn string(document: &[u8], start: usize) -> Option<Text<'_>> {
    let (mut at, mut is_escaped) = (start, false);
    loop {
        at += memchr2(b'"', b'\\', &document[at..])?;
        if document[at] == b'"' {
            let raw = &document[start..at];
            let is_sound = !raw.iter().any(|byte| *byte < 0x20);
            let after = document[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace());
            return is_sound.then_some(Text { start, raw, is_escaped, is_name: after == Some(&b':') });
        }
        is_escaped = true;
        at += 2;
        if at > document.len() {
            return None;
        }
    }
}

/// A string without its escapes, and where each byte of it stands in the string as written. The last
/// place is that of the end.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) text: Vec<u8>,
    pub(super) places: Vec<usize>,
}

impl Decoded {
    /// Takes in another string. Halves of surrogate pairs that stand alone become U+FFFD.
    pub(super) fn read(&mut self, raw: &[u8]) {
        self.text.clear();
        self.places.clear();
        let mut at = 0;
        while at < raw.len() {
            let from = at;
            if raw[at] == b'\\' {
                let (char, len) = escape(&raw[at..]);
                let mut bytes = [0; 4];
                self.text.extend_from_slice(char.encode_utf8(&mut bytes).as_bytes());
                at += len;
            } else {
                self.text.push(raw[at]);
                at += 1;
            }
            self.places.resize(self.text.len(), from);
        }
        self.places.push(raw.len());
    }
}

/// The character of the escape at the beginning of `raw`, and the escape's length.
fn escape(raw: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = raw.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let plain = match raw.get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'u') => {
            let Some(first) = unit(0) else { return ('u', 2) };
            if let (0xd800..=0xdbff, Some(second @ 0xdc00..=0xdfff)) = (first, unit(6)) {
                let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return (char::from_u32(code).unwrap_or('\u{fffd}'), 12);
            }
            return (char::from_u32(first).unwrap_or('\u{fffd}'), 6);
        }
        Some(other) => return (char::from(*other), raw.len().min(2)),
        None => return ('\\', 1),
    };
    (plain, 2)
}
