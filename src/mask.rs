//! Masking of credentials in everything that is written for others: results, reports, logs, errors.
//!
//! Knows: what looks like a credential, and the secrets that were registered. Does not know: files,
//! terminals, what is shown otherwise.

mod json;
mod patterns;
mod search;
mod values;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use memchr::memmem;

use json::{Decoded, Strings, Text};
use values::Values;

/// What a masked credential becomes; no JSON string and no URL breaks by it.
const MASK: &[u8] = b"***";

/// Masks what looks like a credential, and the secrets of this process by value. Clones share the secrets,
/// so one that is found later is masked everywhere.
#[derive(Clone, Default)]
pub struct Masker(Arc<ArcSwap<Values>>);

/// What is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Registered secrets and what looks like a credential.
    Everything,
    /// Registered secrets alone.
    OwnSecrets,
}

impl Masker {
    /// Registers a secret. In whatever form it comes back (plain, base64, percent-encoded, hexadecimal),
    /// it is masked. Secrets of less than eight bytes are not: they stand in too many harmless texts.
    pub fn add(&self, secret: &str) {
        self.0.rcu(|values| values.with(secret, false));
    }

    /// Registers a secret that has an end, as minted tokens have: the last eight of them are masked.
    pub fn add_passing(&self, secret: &str) {
        self.0.rcu(|values| values.with(secret, true));
    }

    /// Registers the password of an address, as written and decoded.
    pub fn add_password_of(&self, address: &str) {
        let Some((_, rest)) = address.split_once("://") else { return };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let Some((userinfo, _)) = authority.rsplit_once('@') else { return };
        let password = userinfo.split_once(':').map_or(userinfo, |(_, password)| password);
        self.add(password);
        self.add(&percent_decoded(password));
    }

    /// A text with credentials masked; a copy only where there are some.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.masked_text(text.as_bytes(), Scope::Everything) {
            Some(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
            None => Cow::Borrowed(text),
        }
    }

    /// A document with credentials masked; `None` when there are none. In JSON, strings and names are searched
    /// as they are decoded, and everything else stays byte for byte; anything else is searched as text.
    pub fn document(&self, document: &[u8]) -> Option<Vec<u8>> {
        self.masked_document(document, Scope::Everything)
    }

    /// The same for the secrets of this process alone.
    pub fn document_of_own(&self, document: &[u8]) -> Option<Vec<u8>> {
        self.masked_document(document, Scope::OwnSecrets)
    }

    fn masked_document(&self, document: &[u8], scope: Scope) -> Option<Vec<u8>> {
        if !self.may_hold(document, scope) {
            return None;
        }
        if Strings::of(document).all(|string| string.is_some()) {
            return replaced(document, &self.in_json(document, scope));
        }
        self.masked_text(document, scope)
    }

    fn masked_text(&self, text: &[u8], scope: Scope) -> Option<Vec<u8>> {
        let mut places = Vec::new();
        self.find(text, scope, |place| {
            places.push(place);
            true
        });
        replaced(text, &merged(places))
    }

    /// Whether anything is found, or an escape could hide it.
    fn may_hold(&self, raw: &[u8], scope: Scope) -> bool {
        let mut found = false;
        self.find(raw, scope, |_| {
            found = true;
            false
        });
        found || hides(raw) || (memchr::memchr(b'\\', raw).is_some() && !self.0.load().are_plain())
    }

    fn find(&self, text: &[u8], scope: Scope, mut found: impl FnMut(Range<usize>) -> bool) {
        let mut goes_on = true;
        self.0.load().find(text, |place| {
            goes_on = found(place);
            goes_on
        });
        if goes_on && scope == Scope::Everything {
            patterns::find(text, found);
        }
    }

    /// The places of credentials in a document's strings.
    fn in_json(&self, document: &[u8], scope: Scope) -> Vec<Range<usize>> {
        let (mut all, mut decoded) = (Vec::new(), Decoded::default());
        let mut name: Option<Text<'_>> = None;
        for string in Strings::of(document).flatten() {
            let before = std::mem::replace(&mut name, string.is_name.then_some(string));
            if scope == Scope::Everything
                && !string.is_name
                && before.is_some_and(|name| is_secret(name, string, &mut decoded))
            {
                all.push(string.start..string.start + string.raw.len());
                continue;
            }
            let mut places = Vec::new();
            let mut found = |place: Range<usize>| {
                places.push(place);
                true
            };
            if !string.is_escaped {
                self.find(string.raw, scope, found);
            } else if self.may_hold(string.raw, scope) {
                decoded.read(string.raw);
                self.find(&decoded.text, scope, |place| found(decoded.places[place.start]..decoded.places[place.end]));
            }
            let moved = |place: Range<usize>| string.start + place.start..string.start + place.end;
            all.extend(merged(places).into_iter().map(moved));
        }
        all
    }
}

/// Whether a string is the value of a member that is named as a secret.
fn is_secret(name: Text<'_>, value: Text<'_>, decoded: &mut Decoded) -> bool {
    let name = if name.is_escaped {
        decoded.read(name.raw);
        &decoded.text
    } else {
        name.raw
    };
    patterns::may_be_secret_member(name) && patterns::is_secret_member(name, value.raw)
}

/// Whether an escape stands for a character of which credentials are made: `\u0067` for `g`, `\/` for `/`.
/// `\u003c`, `\u003e`, `\u0026`, `\u0027` and `\u0022`, which encoders write, are none.
fn hides(raw: &[u8]) -> bool {
    let is_hidden = |at: usize| {
        let code = raw.get(at + 4..at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default();
        code.is_ascii_alphanumeric() || b"_-.:/@=?+%~ ".contains(&code)
    };
    memmem::find_iter(raw, b"\\u00").any(is_hidden) || memmem::find(raw, b"\\/").is_some()
}

/// Places in order, those that overlap as one.
fn merged(mut places: Vec<Range<usize>>) -> Vec<Range<usize>> {
    places.sort_unstable_by_key(|place| place.start);
    let mut out: Vec<Range<usize>> = Vec::with_capacity(places.len());
    for place in places {
        match out.last_mut() {
            Some(last) if place.start <= last.end => last.end = last.end.max(place.end),
            _ => out.push(place),
        }
    }
    out
}

fn replaced(text: &[u8], places: &[Range<usize>]) -> Option<Vec<u8>> {
    if places.is_empty() {
        return None;
    }
    let (mut out, mut copied) = (Vec::with_capacity(text.len()), 0);
    for place in places {
        out.extend_from_slice(&text[copied..place.start]);
        out.extend_from_slice(MASK);
        copied = place.end;
    }
    out.extend_from_slice(&text[copied..]);
    Some(out)
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masker(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: &str = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8";

    fn token(prefix: &str) -> String {
        format!("{prefix}{WORD}")
    }

    fn masked(text: &str) -> String {
        Masker::default().text(text).into_owned()
    }

    fn document(json: &str) -> String {
        let masked = Masker::default().document(json.as_bytes());
        masked.map_or_else(|| json.to_owned(), |masked| String::from_utf8(masked).unwrap())
    }

    #[test]
    fn each_form_is_masked_whole() {
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIn0xyz.c2lnbmF0dXJlLXNpZ25hdHVyZQ";
        let hex = "0123456789abcdef0123456789abcdef01234567";
        let cases = [
            (token("ghp_"), "***"),
            (token("gho_"), "***"),
            (token("ghu_"), "***"),
            (token("ghr_"), "***"),
            (token("ghs_"), "***"),
            (token("github_pat_"), "***"),
            (format!("ghs_15368_{jwt}"), "***"),
            (format!("ghs_15368_{jwt}. Next"), "***. Next"),
            (format!("a {jwt} b"), "a *** b"),
            (format!("Authorization: Bearer {WORD}"), "Authorization: Bearer ***"),
            (format!("authorization: token {hex}"), "authorization: token ***"),
            ("-H 'Authorization: Basic dXNlcjpwYXNzd29yZA=='".into(), "-H 'Authorization: Basic ***'"),
            (format!("https://h/x?a=1&access_token={hex}&b=2"), "https://h/x?a=1&access_token=***&b=2"),
            ("https://h/x?a=1&amp;token=abc".into(), "https://h/x?a=1&amp;token=***"),
            ("https://h/x?a=1\\u0026token=abc".into(), "https://h/x?a=1\\u0026token=***"),
            ("u=https%3A%2F%2Fh%3Ftoken%3Dabc%26x%3D1".into(), "u=https%3A%2F%2Fh%3Ftoken%3D***%26x%3D1"),
            ("https://h/c?sv=1&sig=ab%2Bc%3D".into(), "https://h/c?sv=1&sig=***"),
            ("https://h?client_secret=s3cr".into(), "https://h?client_secret=***"),
            ("https://h?jwt=abc".into(), "https://h?jwt=***"),
            ("token=abc&x=1".into(), "token=***&x=1"),
            (format!("post access_token={WORD}"), "post access_token=***"),
            ("redis://:hunter2@host/0".into(), "redis://:***@host/0"),
            ("git clone https://u:p@ss@h/x.git".into(), "git clone https://u:***@h/x.git"),
            (format!("https://{hex}@github.com/o/r"), "https://***@github.com/o/r"),
            ("AKIAIOSFODNN7EXAMPLE".into(), "***"),
            ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(), "aws_secret_access_key = ***"),
            ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(), "AWS_SECRET_ACCESS_KEY=***"),
            (token("xoxb-123456789012-"), "***"),
            (token("xapp-1-A0-"), "***"),
            (token("glpat-"), "***"),
            (token("npm_"), "***"),
            (format!("pypi-AgEIcHlwaS5vcmc{WORD}"), "***"),
            (token("sk_live_"), "***"),
            (token("rk_live_"), "***"),
            (token("sk-"), "***"),
            (token("sk-proj-"), "***"),
            (token("sk-ant-api03-"), "***"),
            (format!("AIza{}", &WORD[..35]), "***"),
            (token("hf_"), "***"),
            (format!("dop_v1_{}", "0a".repeat(32)), "***"),
            ("https://raw/x?token=GHSAT0AAAAAACABCDEFGHIJKLMNOP".into(), "https://raw/x?token=***"),
            (format!("GITHUB_TOKEN={hex}"), "GITHUB_TOKEN=***"),
            (format!("{{\"oauth_token\": \"{hex}\"}}"), "{\"oauth_token\": \"***\"}"),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(&text), expected, "{text}");
            assert_eq!(masked(&format!("{text}\n")), format!("{expected}\n"), "{text}");
        }
    }

    #[test]
    fn what_is_no_credential_stays() {
        let hex = "0123456789abcdef0123456789abcdef01234567";
        for plain in [
            "ghp_short",
            "https://github.com/ghs_x/y",
            "see AKIA docs",
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
            "task-aaaaaaaaaaaaaaaaaaaaaaaa disk-bbbbbbbbbbbbbbbbbbbbbbbb",
            "Y3Vyc29yOnYyOpHOABCDEFG=",
            "MDEwOlJlcG9zaXRvcnkxMjk2MjY5 R_kgDOABCD PR_kwDOAHz1OX4uYAah",
            "authorization: Bearer authentication is needed",
            "The token is required; token: none",
            "Client(access_token=os.environ, token=CancellationToken.None, id_token=token)",
            "https://example.com/?next_page_token=2&tokens=3",
            "https://h?token=$TOKEN https://h?token={token} https://h?access_token=<token>",
            "mail someone@example.com or see https://medium.com/@user and https://h:80/a@b",
            "W/\"5f4dcc3b5aa765d61d8327deb882cf99\"",
            "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "npm_package_config_node_gyp_signature_something_long",
            hex,
            &format!("commit {hex}"),
        ] {
            assert_eq!(masked(plain), plain);
        }
    }

    #[test]
    fn words_begin_behind_escapes_and_letters_of_other_scripts() {
        let secret = token("ghp_");
        for before in ["\n", "\t", "é", "\"", "'", "(", "=", "_", "\\n", "\\t", "\\u00e9", "%20", "%3D", "^J", "\\x1b"]
        {
            assert_eq!(masked(&format!("log:{before}{secret}")), format!("log:{before}***"));
        }
        assert_eq!(masked(&format!("x{secret}")), format!("x{secret}"));
    }

    #[test]
    fn json_is_masked_as_it_is_decoded_and_stays_as_it_is_between() {
        let secret = token("ghp_");
        let hidden = secret.replace('g', "\\u0067").replace('_', "\\u005f");
        let json = format!(
            "{{ \"n\":1.50e+3 ,\"log\":\"a:\\n{secret}\\u00e9\",\t\"{secret}\":[\"\\/{hidden}\\\\\", null],\"u\":\"\\ud83d\\ude00{secret}\"}}\r\n"
        );
        let expected = "{ \"n\":1.50e+3 ,\"log\":\"a:\\n***\\u00e9\",\t\"***\":[\"\\/***\\\\\", null],\"u\":\"\\ud83d\\ude00***\"}\r\n";
        assert_eq!(document(&json), expected);
        let members = r#"{"temp_clone_token":"ABCD","a":{"temp_clone_token":""},"t\u0065mp_clone_token":"x","b":{"temp_clone_token":null,"c":"d"}}"#;
        let expected = r#"{"temp_clone_token":"***","a":{"temp_clone_token":""},"t\u0065mp_clone_token":"***","b":{"temp_clone_token":null,"c":"d"}}"#;
        assert_eq!(document(members), expected);
        let key = r#"{"a":"x\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nafter","b":"-----BEGIN OPENSSH PRIVATE KEY-----\nb3B","c":"d"}"#;
        assert_eq!(document(key), r#"{"a":"x\n***\nafter","b":"***","c":"d"}"#);
        let deep = format!("{}\"{secret}\"{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(document(&deep), format!("{}\"***\"{}", "[".repeat(100_000), "]".repeat(100_000)));
    }

    #[test]
    fn what_is_no_json_is_masked_as_text() {
        let secret = token("ghp_");
        for (text, expected) in [
            (format!("[section]\nkey = {secret}\n"), "[section]\nkey = ***\n".to_owned()),
            (format!("\"open {secret}"), "\"open ***".to_owned()),
            (format!("{{\"a\":\"b\"}} {secret}"), "{\"a\":\"b\"} ***".to_owned()),
        ] {
            assert_eq!(document(&text), expected);
        }
        let bytes = [&b"\xff\xfe "[..], secret.as_bytes(), b" \xff"].concat();
        assert_eq!(Masker::default().document(&bytes).unwrap(), b"\xff\xfe *** \xff");
    }

    /// Quadratic time would take minutes.
    #[test]
    fn the_time_is_linear_in_the_length() {
        const BYTES: usize = 256 << 10;
        for part in [
            "eyJ-",
            "eyJaaaaaaaaaa.",
            "eyJaaaaaaaaaa.eyJaaaaaaaaaa ",
            "AKIA",
            "AKIAa",
            "ghp_",
            "=token=",
            "token%3D",
            "access_token=",
            "access_token=:",
            "access_token=a",
            "?access_token=:",
            "\"access_token=:",
            "token: ",
            "jwt%3D",
            "secret_access_key=:",
            "ecretAccessKey=",
            "\"token\"",
            "\"token\":",
            "Bearer ",
            "authorization: basic ",
            "x://@",
            "@",
            "x://u:p@@@",
            "a@",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY",
            "-----END ",
            "uthorization",
            "\"\\u00",
            "{\"token\":\"",
            "authorization: bearer ",
            "secret_access_key=",
            "sig=",
            "\\",
            "\"a\"  ",
        ] {
            let text = part.repeat(BYTES / part.len());
            let masker = Masker::default();
            masker.add("secret-secret-secret");
            let _masked_or_not = (masker.text(&text).len(), masker.document(text.as_bytes()));
            let json = serde_json::to_string(&[&text]).unwrap();
            let _masked_or_not = masker.document(json.as_bytes());
            let _safe =
                (crate::text::line(&text).len(), crate::text::lines(&text).len(), crate::text::json(&text).len());
        }
    }

    #[test]
    fn own_secrets_are_masked_in_each_form() {
        use data_encoding::{BASE64, BASE64URL, HEXLOWER};
        let own = "0123456789abcdef0123456789abcdef01234567";
        let other = "p<w&\"d/?ü+=é";
        let masker = Masker::default();
        let clone = masker.clone();
        masker.add(own);
        masker.add(other);
        masker.add("short");
        let forms = [
            own.to_owned(),
            format!("commit{own}x"),
            BASE64.encode(format!("x-access-token:{own}").as_bytes()),
            BASE64.encode(format!("{own}:x-oauth-basic").as_bytes()),
            BASE64URL.encode(format!("ab{other}c").as_bytes()),
            HEXLOWER.encode(own.as_bytes()),
            serde_json::to_string(other).unwrap(),
            "p%3Cw%26%22d%2F%3F%C3%BC%2B%3D%C3%A9".to_owned(),
            own.bytes().fold(String::new(), |all, byte| format!("{all}%{byte:02x}")),
        ];
        for form in forms {
            assert!(clone.text(&format!("GitHub says {form}!")).contains("***"), "{form}");
            let json = serde_json::to_vec(&serde_json::json!([1, form])).unwrap();
            let masked = clone.document_of_own(&json).unwrap_or_else(|| panic!("{form}"));
            assert!(serde_json::from_slice::<serde_json::Value>(&masked).is_ok());
        }
        // As GitHub's contents API gives a file: lines of sixty characters.
        for lead in 0..60 {
            let coded = BASE64.encode(format!("{}{own}{}", "x".repeat(lead), "y".repeat(30)).as_bytes());
            let lines: String = coded.as_bytes().chunks(60).map(|line| String::from_utf8_lossy(line) + "\n").collect();
            let json = serde_json::to_vec(&serde_json::json!({ "content": lines })).unwrap();
            for masked in
                [clone.text(&lines).into_owned(), String::from_utf8(clone.document_of_own(&json).unwrap()).unwrap()]
            {
                let joined = masked.replace("\\n", "").replace('\n', "");
                assert!(
                    joined.contains("***") && !joined.contains(&coded[lead * 4 / 3 + 14..][..20]),
                    "{lead}: {masked}"
                );
            }
        }
        let number = Masker::default();
        number.add("12345678");
        assert_eq!(number.document(br#"{"id":12345678,"s":"12345678"}"#).unwrap(), br#"{"id":12345678,"s":"***"}"#);
        assert_eq!(masker.text("short"), "short");
        assert_eq!(clone.document_of_own(format!("[\"{}\"]", token("ghp_")).as_bytes()), None);
        assert!(!format!("{masker:?}").contains("0123"));
    }

    #[test]
    fn passwords_of_addresses_are_secrets() {
        let masker = Masker::default();
        masker.add_password_of("redis://user:hunter%2F2222@host:6379/0");
        assert_eq!(masker.text("hunter/2222 and hunter%2F2222"), "*** and ***");
    }
}
