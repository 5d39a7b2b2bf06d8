//! The forms of credentials: one row for each, with the page or RFC that documents it.
//!
//! Knows: how each form begins and where it ends. Does not know: JSON, the secrets of this process.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::{memchr_iter, memmem};

use super::search::Search;

/// Bytes before and behind an `@` that are searched for the ends of a URL's authority.
const MAX_AUTHORITY: usize = 1024;

/// Bytes of a percent-encoded value, and of any parameter's value that decide whether it is one.
const MAX_ENCODED: usize = 4096;

/// Bytes of a parameter's name.
const MAX_NAME: usize = 64;

/// The form of what stands behind an anchor.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// At least so many characters of a set; all of them belong to the credential.
    Token(fn(u8) -> bool, usize),
    /// Three base64url parts; the first two begin with `{"`.
    Jwt,
    /// A private key, up to its END line or the end of the text.
    Pem,
    /// The value of a URL's parameter; elsewhere a value of 40 hexadecimal digits.
    Parameter,
    /// A value behind `=` or `:` of at least so many base64 characters.
    Named(usize),
    /// The credentials in an `Authorization` field.
    Authorization,
    /// The credentials behind the scheme `Bearer`, where no field name is beside it.
    Bearer,
    /// The value of a JSON member.
    Member,
}

/// Anchor, form, source. An anchor has at least three bytes, so that the search can skip.
const PATTERNS: &[(&str, Shape, &str)] = &[
    ("ghp_", Shape::Token(is_word, 30), GITHUB),
    ("gho_", Shape::Token(is_word, 30), GITHUB),
    ("ghu_", Shape::Token(is_word, 30), GITHUB),
    ("ghr_", Shape::Token(is_word, 30), GITHUB),
    ("github_pat_", Shape::Token(is_word, 30), GITHUB),
    ("ghs_", Shape::Token(is_dotted, 30), GITHUB_JOB),
    ("GHSAT0", Shape::Token(is_word, 20), GITHUB_RAW),
    ("eyJ", Shape::Jwt, "RFC 7519, section 3"),
    ("-----BEGIN ", Shape::Pem, "RFC 7468; OpenSSH PROTOCOL.key; RFC 9580, section 6.2"),
    ("AKIA", Shape::Token(is_upper, 16), AWS),
    ("ASIA", Shape::Token(is_upper, 16), AWS),
    ("ecret_access_key", Shape::Named(30), AWS),
    ("ECRET_ACCESS_KEY", Shape::Named(30), AWS),
    ("ecretAccessKey", Shape::Named(30), AWS),
    ("xoxa-", Shape::Token(is_word, 20), SLACK),
    ("xoxb-", Shape::Token(is_word, 20), SLACK),
    ("xoxe-", Shape::Token(is_word, 20), SLACK),
    ("xoxe.", Shape::Token(is_dotted, 20), SLACK),
    ("xoxp-", Shape::Token(is_word, 20), SLACK),
    ("xoxr-", Shape::Token(is_word, 20), SLACK),
    ("xoxs-", Shape::Token(is_word, 20), SLACK),
    ("xapp-", Shape::Token(is_word, 20), SLACK),
    ("glpat-", Shape::Token(is_dotted, 20), "https://docs.gitlab.com/security/tokens/#token-prefixes"),
    (
        "npm_",
        Shape::Token(is_alphanumeric, 36),
        "https://github.blog/changelog/2021-09-23-npm-has-a-new-access-token-format/",
    ),
    ("pypi-", Shape::Token(is_word, 40), "https://pypi.org/help/#apitoken"),
    ("sk_live_", Shape::Token(is_alphanumeric, 20), STRIPE),
    ("rk_live_", Shape::Token(is_alphanumeric, 20), STRIPE),
    ("sk-", Shape::Token(is_alphanumeric, 20), OPENAI),
    ("sk-proj-", Shape::Token(is_word, 20), OPENAI),
    ("sk-svcacct-", Shape::Token(is_word, 20), OPENAI),
    ("sk-admin-", Shape::Token(is_word, 20), OPENAI),
    ("sk-ant-", Shape::Token(is_word, 20), "https://docs.anthropic.com/en/api/overview"),
    ("AIza", Shape::Token(is_word, 35), "https://cloud.google.com/docs/authentication/api-keys"),
    ("hf_", Shape::Token(is_alphanumeric, 30), "https://huggingface.co/docs/hub/security-tokens"),
    (
        "dop_v1_",
        Shape::Token(is_alphanumeric, 64),
        "https://docs.digitalocean.com/reference/api/create-personal-access-token/",
    ),
    ("uthorization", Shape::Authorization, HEADER),
    ("UTHORIZATION", Shape::Authorization, HEADER),
    ("Bearer ", Shape::Bearer, "RFC 6750, section 2.1"),
    ("bearer ", Shape::Bearer, "RFC 6750, section 2.1"),
    ("token=", Shape::Parameter, PARAMETER),
    ("Token=", Shape::Parameter, PARAMETER),
    ("TOKEN=", Shape::Parameter, PARAMETER),
    ("token: ", Shape::Parameter, PARAMETER),
    ("token%3D", Shape::Parameter, PARAMETER),
    ("token%3d", Shape::Parameter, PARAMETER),
    ("secret=", Shape::Parameter, PARAMETER),
    ("secret%3D", Shape::Parameter, PARAMETER),
    ("secret%3d", Shape::Parameter, PARAMETER),
    ("sig=", Shape::Parameter, "https://learn.microsoft.com/rest/api/storageservices/create-service-sas"),
    ("sig%3D", Shape::Parameter, "https://learn.microsoft.com/rest/api/storageservices/create-service-sas"),
    ("ignature=", Shape::Parameter, "https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html"),
    ("jwt=", Shape::Parameter, PARAMETER),
    ("jwt%3D", Shape::Parameter, PARAMETER),
    ("token\"", Shape::Member, MEMBER),
    ("_secret\"", Shape::Member, MEMBER),
    ("_access_key\"", Shape::Member, AWS),
    ("AccessKey\"", Shape::Member, AWS),
    ("uthorization\"", Shape::Member, HEADER),
];

const GITHUB: &str =
    "https://docs.github.com/authentication/keeping-your-account-and-data-secure/about-authentication-to-github";
const GITHUB_JOB: &str = "https://github.blog/changelog/, the format of installation tokens: ghs_[A-Za-z0-9._-]{36,}";
const GITHUB_RAW: &str = "https://docs.github.com/rest/repos/contents: download_url of private repositories";
const AWS: &str = "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html";
const SLACK: &str = "https://docs.slack.dev/authentication/tokens";
const STRIPE: &str = "https://docs.stripe.com/keys";
const OPENAI: &str = "https://platform.openai.com/docs/api-reference/authentication";
const HEADER: &str = "RFC 9110, section 11.6.2";
const PARAMETER: &str = "RFC 6750, section 2.3; RFC 6749, sections 2.3.1 and 5.1";
const MEMBER: &str = "https://docs.github.com/rest/repos/repos: temp_clone_token; RFC 6749, section 5.1";

/// Names of URL parameters with a credential as their value, in lower case.
const PARAMETERS: &[&str] = &[
    "access_token",
    "auth_token",
    "client_secret",
    "id_token",
    "job_token",
    "jwt",
    "oauth_token",
    "private_token",
    "refresh_token",
    "sig",
    "signature",
    "token",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-signature",
];

/// Names of JSON members with a credential as their value, in lower case.
const MEMBERS: &[&str] = &[
    "access_token",
    "authorization",
    "aws_secret_access_key",
    "client_secret",
    "refresh_token",
    "secret_access_key",
    "secretaccesskey",
    "temp_clone_token",
];

/// Rows that are searched at once: for more, vector instructions take four times as long.
const ROWS: usize = 30;

static ANCHORS: LazyLock<Vec<Option<Search>>> = LazyLock::new(|| {
    let of = |rows: &[(&str, Shape, &str)]| Search::of(rows.iter().map(|(anchor, _, _)| anchor.as_bytes()));
    PATTERNS.chunks(ROWS).map(of).collect()
});

/// Calls `found` with the place of each credential, until it returns false. Places may overlap. The time is
/// linear in the text's length, whatever is in it.
pub(super) fn find(text: &[u8], mut found: impl FnMut(Range<usize>) -> bool) {
    for (anchors, rows) in ANCHORS.iter().zip(PATTERNS.chunks(ROWS)) {
        let (mut from, mut without_jwt) = (0, 0);
        while let Some((number, hit)) = anchors.as_ref().and_then(|anchors| anchors.next(text, from)) {
            let (_anchor, shape, _source) = rows[number];
            from = hit.start + 1;
            let place = match shape {
                Shape::Jwt if hit.start < without_jwt || !begins(text, hit.start) => None,
                Shape::Jwt => jwt(text, hit.start).map_err(|end| without_jwt = end).ok(),
                shape => place(shape, text, hit.start, hit.len()),
            };
            if let Some(place) = place {
                from = place.end.max(from);
                if !found(place) {
                    return;
                }
            }
        }
    }
    let mut past = 0;
    for at in memchr_iter(b'@', text) {
        if at >= past
            && let Some(place) = userinfo(text, &mut past, at)
            && !found(place)
        {
            return;
        }
    }
}

/// Whether a JSON member of this name has a credential as its value.
pub(super) fn is_secret_member(name: &[u8], value: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    !value.is_empty()
        && (MEMBERS.iter().any(|known| known.as_bytes() == name) || (name.ends_with(b"token") && is_forty_hex(value)))
}

/// The longest name in [`is_secret_member`] decides how long a name may be to be looked up.
pub(super) fn may_be_secret_member(name: &[u8]) -> bool {
    name.len() <= MAX_NAME
        && [&b"token"[..], b"secret", b"key", b"authorization"]
            .iter()
            .any(|end| name.len() >= end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end))
}

fn place(shape: Shape, text: &[u8], start: usize, anchor: usize) -> Option<Range<usize>> {
    let end = start + anchor;
    match shape {
        Shape::Token(..) if !begins(text, start) => None,
        Shape::Token(is_of, at_least) => {
            let mut len = run(&text[end..], is_of);
            while len > 0 && text[end + len - 1] == b'.' {
                len -= 1;
            }
            let ends = text.get(end + len).is_none_or(|byte| !byte.is_ascii_alphanumeric());
            (len >= at_least && ends).then(|| start..end + len)
        }
        Shape::Jwt => jwt(text, start).ok(),
        Shape::Pem => pem(text, end).map(|end| start..end),
        Shape::Parameter => parameter(text, start, end),
        Shape::Named(at_least) => {
            let value = end + assignment(&text[end..])?;
            let len = run(&text[value..], is_base64);
            (len >= at_least).then(|| value..value + len)
        }
        Shape::Authorization => {
            let value = end + assignment(&text[end..])?;
            credentials(text, value)
        }
        Shape::Bearer => {
            let len = run(&text[end..], is_token68);
            let value = &text[end..end + len];
            (len >= 16 && value.iter().any(u8::is_ascii_digit) && begins(text, start)).then(|| end..end + len)
        }
        Shape::Member => member(text, end),
    }
}

/// A JWT that begins at `start`; else the end of what was looked at, before which none begins.
fn jwt(text: &[u8], start: usize) -> Result<Range<usize>, usize> {
    let mut at = start;
    for part in 0..3 {
        if part > 0 && text.get(at) != Some(&b'.') {
            return Err(at);
        }
        at += usize::from(part > 0);
        if part == 1 && !text[at..].starts_with(b"eyJ") {
            return Err(at);
        }
        let len = run(&text[at..], is_word);
        if len < 10 {
            return Err(at);
        }
        at += len;
    }
    Ok(start..at)
}

/// The end of a private key whose label begins at `label`.
fn pem(text: &[u8], label: usize) -> Option<usize> {
    const KEY: &[u8] = b"PRIVATE KEY";
    let is_key = |rest: &[u8]| memmem::find(&rest[..rest.len().min(40)], KEY);
    is_key(&text[label..])?;
    for end in memmem::find_iter(&text[label..], b"-----END ") {
        let rest = &text[label + end + 9..];
        if let Some(key) = is_key(rest) {
            let tail = &rest[key + KEY.len()..];
            let tail = memmem::find(&tail[..tail.len().min(16)], b"-----").map_or(0, |at| at + 5);
            return Some(label + end + 9 + key + KEY.len() + tail);
        }
    }
    Some(text.len())
}

/// The value of a parameter; its name ends somewhere in `start..end`, which is an anchor like `token=`.
fn parameter(text: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    let before = &text[start.saturating_sub(MAX_NAME)..start];
    let back = before.iter().rev().position(|byte| !is_name(byte)).unwrap_or(before.len());
    let mut name_start = start - back;
    let name_end = start + text[start..end].iter().position(|byte| b"=:%".contains(byte))?;
    let is_encoded = text[name_end] == b'%';
    // A query may stand alone, as a text or a quoted one.
    let mut in_url = name_start == 0 || b"?&;#\"".contains(&text[name_start - 1]);
    // `&` and `?` as escapes of JSON, or percent-encoded.
    for (mark, escapes) in [(b'\\', &[&b"u0026"[..], b"u003f", b"u003F", b"u003d"][..]), (b'%', &[b"26", b"3F", b"3f"])]
    {
        if name_start > 0
            && text[name_start - 1] == mark
            && let Some(escape) = escapes.iter().find(|escape| text[name_start..name_end].starts_with(escape))
        {
            name_start += escape.len();
            in_url = true;
        }
    }
    let name = text[name_start..name_end].to_ascii_lowercase();
    let mut value = &text[end..];
    if is_encoded {
        value = &value[..value.len().min(MAX_ENCODED)];
        value = &value[..memmem::find(value, b"%26").unwrap_or(value.len())];
    }
    let may_be_clear = name.contains(&b'_');
    if (in_url || may_be_clear) && PARAMETERS.iter().any(|known| known.as_bytes() == name) {
        let is_value = |byte| is_token68(byte) || byte == b'%' || byte == b':';
        let is_placeholder = value.first() == Some(&b':');
        // Elsewhere, code may assign a variable to an argument of that name.
        let near = run(&value[..value.len().min(MAX_ENCODED)], is_value);
        let is_clear = may_be_clear && near >= 16 && is_no_word(&value[..near]);
        if near > 0 && !is_placeholder && (in_url || is_clear) {
            return Some(end..end + run(value, is_value));
        }
    }
    let quotes = run(value, |byte| b"\"' \\".contains(&byte)).min(3);
    let len = run(&value[quotes..], is_word);
    is_forty_hex(&value[quotes..quotes + len]).then(|| end + quotes..end + quotes + len)
}

/// The credentials behind a scheme, or 40 hexadecimal digits without one.
fn credentials(text: &[u8], at: usize) -> Option<Range<usize>> {
    let len = run(&text[at..], |byte| byte.is_ascii_alphabetic());
    let scheme = &text[at..at + len];
    if ![&b"bearer"[..], b"token", b"basic"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        let len = run(&text[at..], is_word);
        return is_forty_hex(&text[at..at + len]).then(|| at..at + len);
    }
    let gap = match &text[at + len..] {
        rest if rest.starts_with(b"%20") => 3,
        rest => run(rest, |byte| byte == b' '),
    };
    let value = at + len + gap;
    let len = run(&text[value..], is_token68);
    (gap > 0 && is_no_word(&text[value..value + len])).then(|| value..value + len)
}

/// The value of a JSON member in text; `end` is behind the quote that ends its name.
fn member(text: &[u8], end: usize) -> Option<Range<usize>> {
    let name = &text[..end - 1];
    let name = &name[name.len().saturating_sub(MAX_NAME)..];
    let name = &name[memchr::memrchr(b'"', name)? + 1..];
    let colon = end + run(&text[end..], |byte| byte.is_ascii_whitespace());
    if text.get(colon) != Some(&b':') {
        return None;
    }
    let quote = colon + 1 + run(&text[colon + 1..], |byte| byte.is_ascii_whitespace());
    if text.get(quote) != Some(&b'"') {
        return None;
    }
    let value = quote + 1;
    let len = run(&text[value..], |byte| byte != b'"' && byte != b'\\');
    is_secret_member(name, &text[value..value + len]).then(|| value..value + len)
}

/// The password in the authority around the `@` at `at`, or 40 hexadecimal digits in the place of a user.
/// `past` is where the search goes on: no byte is looked at more than twice.
fn userinfo(text: &[u8], past: &mut usize, at: usize) -> Option<Range<usize>> {
    let stops = |byte: &u8| byte.is_ascii_whitespace() || b"/?#\"'<>\\`".contains(byte);
    let from = at.saturating_sub(MAX_AUTHORITY).max(*past);
    *past = at + 1;
    let slash = from + text[from..at].iter().rposition(stops)?;
    if slash < 3 || !text[..=slash].ends_with(b"://") || !text[slash - 3].is_ascii_alphanumeric() {
        return None;
    }
    let start = slash + 1;
    let rest = &text[at..text.len().min(at + MAX_AUTHORITY)];
    *past = at + rest.iter().position(stops).unwrap_or(rest.len());
    // A password may hold another `@` that is not encoded.
    let end = at + text[at..*past].iter().rposition(|byte| *byte == b'@')?;
    match text[start..end].iter().position(|byte| *byte == b':') {
        Some(colon) => {
            let password = start + colon + 1..end;
            let is_masked = &text[password.clone()] == super::MASK;
            (!password.is_empty() && !is_masked).then_some(password)
        }
        None => is_forty_hex(&text[start..end]).then_some(start..end),
    }
}

/// Bytes from the end of a name to its value: quotes, white space, and `=`, `:` or `=>` among them.
fn assignment(text: &[u8]) -> Option<usize> {
    let quotes = run(text, |byte| b"\"'\\ \t".contains(&byte)).min(4);
    let sign = quotes + run(&text[quotes..], |byte| b"=:>".contains(&byte)).min(2);
    let gap = run(&text[sign..], |byte| b"\"'\\ \t".contains(&byte)).min(4);
    (sign > quotes).then_some(sign + gap)
}

/// Whether a word may begin at `at`: behind anything but a letter or digit, or behind an escape that
/// stands for another character (`\n`, `\u00e9`, `%20`, `^J`).
fn begins(text: &[u8], at: usize) -> bool {
    let before = &text[at.saturating_sub(6)..at];
    let Some(last) = before.last().filter(|last| last.is_ascii_alphanumeric()) else { return true };
    let n = before.len();
    let is_hex = |digits: usize| n > digits && before[n - digits..].iter().all(u8::is_ascii_hexdigit);
    (n >= 2 && before[n - 2] == b'\\' && b"abefnrtv0".contains(last))
        || (n >= 2 && before[n - 2] == b'^' && last.is_ascii_uppercase())
        || (is_hex(2) && before[n - 3] == b'%')
        || (n >= 4 && is_hex(2) && before[n - 4..n - 2] == *b"\\x")
        || (n >= 6 && is_hex(4) && before[n - 6..n - 4] == *b"\\u")
}

fn run(text: &[u8], is_of: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !is_of(*byte)).unwrap_or(text.len())
}

/// Whether credentials are more than a word that may follow in prose ("Bearer authentication").
fn is_no_word(text: &[u8]) -> bool {
    let has = |is_of: fn(&u8) -> bool| text.iter().any(is_of);
    let is_mixed = has(u8::is_ascii_digit) || (has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase));
    (text.len() >= 8 && is_mixed) || text.len() >= 20
}

fn is_forty_hex(text: &[u8]) -> bool {
    text.len() == 40 && text.iter().all(u8::is_ascii_hexdigit)
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn is_upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_dotted(byte: u8) -> bool {
    is_word(byte) || byte == b'.'
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)
}

/// The characters of credentials in a header (RFC 9110, section 11.2).
fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}
