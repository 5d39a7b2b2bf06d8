//! Addresses: which authorities are sound, what stays on an origin, and what of an address may be shown.
//!
//! Knows: hosts, ports, percent-encoding and credentials in addresses (RFC 3986, RFC 9110 section 4). Does
//! not know: requests, sockets, DNS.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest name that DNS has.
const MAX_HOST_BYTES: usize = 253;

/// The longest label of a name.
const MAX_LABEL_BYTES: usize = 63;

/// What stands for a secret.
const MASK: &str = "***";

/// Query parameters whose value is a credential, whatever GitHub makes of it.
const SECRET_NAMES: &[&str] = &["code", "jwt", "sig", "apikey", "api_key", "device_code"];

/// Endings of further names of such parameters: `access_token`, `client_secret`, `X-Amz-Signature` …
const SECRET_ENDINGS: &[&str] = &["token", "secret", "password", "passwd", "signature", "credential", "assertion"];

/// How GitHub's tokens begin (GitHub, "GitHub's token formats").
const TOKEN_PREFIXES: &[&str] = &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];

/// A host and a port, as `Host` and targets in absolute form have them (RFC 9110 section 7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// A DNS name or an IPv4 address in lower case, or an IPv6 address in brackets.
    host: Cow<'a, str>,
    port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Reads `HOST` or `HOST:PORT`. `None` for anything else: user information, percent-encoding, empty
    /// labels (a final dot, too), IPv6 zones, and numbers that only some programs take for an address
    /// (`127.1`, `0x7f.1`).
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            None => None,
            Some(digits) => Some(port_of(digits)?),
        };
        Some(Self { host: host_of(host)?, port })
    }

    /// The host, in its one form.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, where it is named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The same without the port that stands for none.
    #[must_use]
    pub fn without_port(self, default: u16) -> Self {
        Self { port: self.port.filter(|port| *port != default), ..self }
    }

    /// The same, for longer than the text it was read from.
    pub fn into_owned(self) -> HostPort<'static> {
        HostPort { host: Cow::Owned(self.host.into_owned()), port: self.port }
    }
}

impl fmt::Display for HostPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn port_of(digits: &str) -> Option<u16> {
    let sound = digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| sound)
}

fn host_of(text: &str) -> Option<Cow<'_, str>> {
    if let Some(inner) = text.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(Cow::Owned(format!("[{address}]")));
    }
    let sound = text.len() <= MAX_HOST_BYTES && text.split('.').all(is_label);
    let last = text.rsplit('.').next().unwrap_or_default();
    // A last label like a number makes the whole an IPv4 address (URL Standard, "ends in a number").
    let is_number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    if !sound || (is_number && text.parse::<Ipv4Addr>().is_err()) {
        return None;
    }
    Some(if text.bytes().any(|b| b.is_ascii_uppercase()) { text.to_ascii_lowercase().into() } else { text.into() })
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label.bytes().all(is_label_byte)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether a byte may stand in a DNS label.
pub fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// Path and query of `url` if it lies on `origin` (scheme and authority), else `None`. A path alone lies on
/// every origin. This decides for all front ends whether a `Link` or `Location` may be followed.
pub fn on_origin<'a>(origin: &str, url: &'a str) -> Option<&'a str> {
    if url.starts_with('/') {
        return (!url.starts_with("//")).then_some(url);
    }
    let (start, rest) = url.split_at_checked(origin.len())?;
    (start.eq_ignore_ascii_case(origin) && rest.starts_with('/')).then_some(rest)
}

/// The length of the beginning of an API path in which GitHub's names stand, of owners and repositories; 0 where there are
/// none. They are the same in any case.
pub fn named_part(path: &str) -> usize {
    let names = match path.split('/').nth(1) {
        Some("repos" | "networks") => 2,
        Some("orgs" | "users") => 1,
        _ => return 0,
    };
    path.match_indices('/').nth(1 + names).map_or(path.len(), |(at, _)| at)
}

/// An address as it may be shown: without user information, query and fragment.
pub fn shown(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (scheme, rest) = url[..end].split_once("://").map_or(("", &url[..end]), |(scheme, rest)| (scheme, rest));
    let mark = if scheme.is_empty() { "" } else { "://" };
    // Whatever stands before the last `@` may be part of a password.
    let rest = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, rest)| format!("{MASK}@{rest}"));
    let tail = if end < url.len() { "?…" } else { "" };
    format!("{scheme}{mark}{rest}{tail}").escape_debug().to_string()
}

/// Whether a query (without `?`) names a credential.
pub fn has_credentials(query: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        is_secret(name) || is_token(value)
    })
}

/// A path with its query as it may be shown: the values of credentials are masked.
pub fn masked(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?').filter(|(_, query)| has_credentials(query)) else {
        return Cow::Borrowed(target);
    };
    let mut out = format!("{path}?");
    for piece in query.split_inclusive(['&', ';']) {
        let pair = piece.trim_end_matches(['&', ';']);
        match pair.split_once('=').filter(|(name, value)| is_secret(name) || is_token(value)) {
            Some((name, _)) => out.extend([name, "=", MASK, &piece[pair.len()..]]),
            None => out.push_str(piece),
        }
    }
    Cow::Owned(out)
}

fn is_secret(name: &str) -> bool {
    let name = decoded(name);
    let is_one = |name: &str| {
        let name = name.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
        let ends = |ending: &&str| {
            let at = name.len().checked_sub(ending.len());
            at.and_then(|at| name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(ending))
        };
        SECRET_NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret)) || SECRET_ENDINGS.iter().any(ends)
    };
    // `name[]`, `name[key]` and `key[name]` are parameters of that name, too.
    name.split(['[', ']']).any(is_one)
}

/// Whether a value is a token of GitHub's, whatever its name.
fn is_token(value: &str) -> bool {
    looks_like_token(decoded(value).trim_start())
}

/// Whether a text begins as GitHub's tokens do.
pub fn looks_like_token(text: &str) -> bool {
    TOKEN_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

/// A text with its percent-encoding undone; `+` is a space, as in forms.
pub fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (*first, escaped(rest)) {
            (b'%', Some(byte)) => (byte, &rest[3..]),
            (b'+', _) => (b' ', after),
            (byte, _) => (byte, after),
        };
        out.push(byte);
        rest = after;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The one form of percent-encoding (RFC 3986 section 6.2.2): unreserved characters stand for themselves,
/// the digits of all others are upper case. `None` when a `%` begins no escape.
pub fn normal_escapes(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let byte = escaped(&rest.as_bytes()[at..])?;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&rest[at..at + 3].to_ascii_uppercase());
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

/// The byte that an escape at the start of `text` stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let byte = (digit(1)? << 4) | digit(2)?;
    u8::try_from(byte).ok().filter(|_| text.first() == Some(&b'%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_read_strictly() {
        let read = |text: &str| HostPort::parse(text).map(|site| site.to_string());
        for (text, form) in [
            ("API.github.com", "api.github.com"),
            ("localhost:8420", "localhost:8420"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:8420", "[::1]:8420"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("a:65535", "a:65535"),
        ] {
            assert_eq!(read(text).as_deref(), Some(form), "{text}");
        }
        for bad in [
            "",
            ".",
            "api.github.com.",
            "a..b",
            ".a",
            "user@host",
            "host:",
            "host:0",
            "host:080",
            "host:65536",
            "host:+80",
            "host:80:80",
            "host:8o",
            "host/x",
            "host?x",
            "host#x",
            "host x",
            "ho%73t",
            "-a.example",
            "a-.example",
            "a_b",
            "bücher.example",
            "::1",
            "[::1",
            "[::1%25lo]",
            "[::1%lo]",
            "[127.0.0.1]",
            "[::1]x",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "127.0.0.01",
            "1.2.3.4.5",
            "256.0.0.1",
            "127.0.0.1:1/.githubusercontent.com",
            "*.example",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read(&"a".repeat(64)), None);
        assert_eq!(read(&["a"; 128].join(".")), None);
        assert_eq!(HostPort::parse("a:443").unwrap().without_port(443).to_string(), "a");
    }

    #[test]
    fn an_address_is_followed_on_its_origin_only() {
        let own = |url| on_origin("https://api.github.com", url);
        assert_eq!(own("https://API.github.com/x?page=2"), Some("/x?page=2"));
        assert_eq!(own("/x?page=2"), Some("/x?page=2"));
        for away in [
            "https://api.github.com",
            "https://api.github.com.evil.example/x",
            "https://api.github.com@evil.example/x",
            "https://api.github.com:444/x",
            "http://api.github.com/x",
            "//evil.example/x",
            "x",
            "",
        ] {
            assert_eq!(own(away), None, "{away}");
        }
    }

    #[test]
    fn credentials_are_found_under_every_spelling_and_masked() {
        for query in [
            "access_token=1",
            "a=1&Access_Token=1",
            "access%5ftoken=1",
            "client_id=a&client_secret=b",
            "token=1",
            "sig=1",
            "jwt=1",
            "code=1",
            "password=1",
            "a=1;token=2",
            "token[]=1",
            "x%2Dgoog-signature=1",
        ] {
            assert!(has_credentials(query), "{query}");
        }
        for query in ["", "client_id=1", "q=token", "per_page=100", "token_id=1", "sigma=1", "q=access_token%3D1", "é"]
        {
            assert!(!has_credentials(query), "{query}");
        }
        assert_eq!(masked("/x?a=1&%74oken=s3&b=2;sig=s4"), "/x?a=1&%74oken=***&b=2;sig=***");
        assert_eq!(masked("/x?token&a=1"), "/x?token&a=1");
        assert_eq!(shown("https://me:pa/ss@host/x?token=1"), "https://***@host/x?…");
        assert_eq!(shown("me:secret@host"), "***@host");
        assert_eq!(shown("https://host/api/v3"), "https://host/api/v3");
    }

    #[test]
    fn escapes_have_one_form_that_is_its_own() {
        let normal = |text| normal_escapes(text).map(Cow::into_owned);
        assert_eq!(normal("%72%2d%7E%2f%2F%c3%a9%25%36%31").as_deref(), Some("r-~%2F%2F%C3%A9%2561"));
        assert_eq!(normal("r-~%2F%2F%C3%A9%2561").as_deref(), Some("r-~%2F%2F%C3%A9%2561"));
        for bad in ["%", "%6", "%zz", "100%", "%%36%31"] {
            assert_eq!(normal(bad), None, "{bad}");
        }
        assert_eq!(decoded("a%5B%5D+b%"), "a[] b%");
    }
}
