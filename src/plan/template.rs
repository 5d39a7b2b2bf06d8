//! Texts with `{placeholders}`.
//!
//! Knows: splitting and filling in. Does not know: where values come from.

use std::fmt;

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

/// How values are written into a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// As they are.
    None,
    /// For a URL's path or query: everything but unreserved characters and `/` is
    /// percent-encoded (RFC 3986 section 2.3).
    Url,
    /// For a file name: everything that some file system refuses is percent-encoded.
    File,
}

impl Template {
    /// Splits a text; `{{` is no escape, since no address or file needs a brace.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close =
                rest[open..].find('}').ok_or_else(|| format!("`{}` has a {{ without }}", text.escape_debug()))? + open;
            let name = &rest[open + 1..close];
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                return Err(format!("`{{{}}}` is no placeholder", name.escape_debug()));
            }
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// A text that is known to be sound.
    pub fn literal(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|_| Self(vec![Part::Text(text.to_owned())]))
    }

    /// The placeholders' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text, if it has no placeholders.
    pub fn as_literal(&self) -> Option<String> {
        self.0.iter().all(|part| matches!(part, Part::Text(_))).then(|| self.to_string())
    }

    /// The text with values in place; the name of the first placeholder without a value else.
    pub fn fill(&self, escape: Escape, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name(name) => escape.write(&value(name).ok_or_else(|| name.clone())?, &mut out),
            }
        }
        Ok(out)
    }
}

impl Escape {
    fn write(self, value: &str, out: &mut String) {
        use std::fmt::Write;
        for char in value.chars() {
            let plain = match self {
                Escape::None => true,
                Escape::Url => char.is_ascii_alphanumeric() || "-._~/@:,".contains(char),
                Escape::File => !char.is_control() && !"\\:*?\"<>|%".contains(char),
            };
            if plain {
                out.push(char);
            } else {
                let mut bytes = [0; 4];
                for byte in char.encode_utf8(&mut bytes).bytes() {
                    let _infallible = write!(out, "%{byte:02X}");
                }
            }
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Name(name) => write!(f, "{{{name}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_for_where_they_go() {
        let template = Template::parse("/repos/{item}/x?q={q}").unwrap();
        let value = |name: &str| Some(if name == "item" { "o/r" } else { "a b&c#d\u{e9}" }.to_owned());
        assert_eq!(template.fill(Escape::Url, value).unwrap(), "/repos/o/r/x?q=a%20b%26c%23d%C3%A9");
        assert_eq!(template.fill(Escape::File, |_| Some("a:b\n".into())).unwrap(), "/repos/a%3Ab%0A/x?q=a%3Ab%0A");
        assert_eq!(template.fill(Escape::None, |_| None), Err("item".into()));
        assert_eq!(template.to_string(), "/repos/{item}/x?q={q}");
        for bad in ["{", "{}", "{a b}", "x{y"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
