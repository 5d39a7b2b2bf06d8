//! Response bodies: which have to be JSON, and which say of themselves that they are a part of the whole.
//!
//! Knows: GitHub's media types, the fields that mark a partial body. Does not know: freshness, retries.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::reply::Reply;
use crate::request::{Method, PLAIN_JSON, Request};

/// Paths whose response is text whatever the `Accept` header names.
const TEXT_PATHS: &[&str] = &["/zen", "/octocat"];

/// Names of GitHub's media types that select JSON (GitHub, "Getting started with the REST API", "Media types"). Others, such
/// as `raw`, `html` and `diff`, select text for some resources.
const JSON_NAMES: &[&str] =
    &["v3", "star", "v3.star", "text-match", "v3.text-match", "object", "sarif", "full", "v3.full", "text", "v3.text"];

/// Longest media type that an error text repeats, in bytes.
const MAX_SHOWN_BYTES: usize = 60;

/// Returns what is wrong with a response that has to be one JSON document and is not: a text for people, without any of the
/// body. `None` for all other responses: other media types, `HEAD`, and other statuses than 200 and 203, unless their JSON breaks off.
///
/// Such a body comes from a login or maintenance page, a proxy, or a connection that ended early; it says nothing about the
/// resource. The scan does not recurse and keeps nothing.
pub fn json_fault(request: &Request, reply: &Reply) -> Option<String> {
    let body = &reply.body;
    if !matches!(reply.status.as_u16(), 200 | 203) {
        let breaks_off = body.starts_with(b"{") && is_no_json(request, body);
        return breaks_off.then(|| format!("it breaks off after {} bytes", body.len()));
    }
    let media = reply.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let is_said_to_be = may_be_json(request) && media.eq_ignore_ascii_case("application/json");
    if !is_said_to_be && !selects_json(request) {
        return None;
    }
    let fault = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str::<IgnoredAny>(text).err()?,
        Err(_) if body.starts_with(&[0x1f, 0x8b]) => return Some("it is compressed and not labelled so".into()),
        Err(_) => return Some("it is not UTF-8".into()),
    };
    let start = body.trim_ascii_start();
    Some(if start.is_empty() {
        "it is empty".into()
    } else if start.starts_with(b"<") {
        "it is a page of HTML or XML".into()
    } else if fault.is_eof() {
        format!("it breaks off after {} bytes", body.len())
    } else if !media.is_empty() && media.len() <= MAX_SHOWN_BYTES && media.bytes().all(|byte| byte.is_ascii_graphic()) {
        format!("{fault} ({media})")
    } else {
        fault.to_string()
    })
}

/// Whether a body, if there is one, is no JSON document although `request` asks for one: then it is not GitHub's own.
pub fn is_no_json(request: &Request, body: &[u8]) -> bool {
    selects_json(request) && !body.is_empty() && serde_json::from_slice::<IgnoredAny>(body).is_err()
}

/// Whether every response with a body to `request` is JSON by what the request says.
fn selects_json(request: &Request) -> bool {
    match request.method {
        Method::Graphql(_) => true,
        Method::Get => {
            !TEXT_PATHS.contains(&request.path.as_str())
                && (request.accept == PLAIN_JSON || request.accept.split(',').all(is_json))
        }
        Method::Head | Method::Projected => false,
    }
}

/// Whether responses to `request` are JSON for some resources and text for others, as with `raw` and `html`. What is meant to be
/// text has the media type that was asked for.
fn may_be_json(request: &Request) -> bool {
    let is_ours = |media: &str| {
        let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        media.starts_with("application/vnd.github.") && media.ends_with("+json")
    };
    request.method == Method::Get && request.accept.split(',').all(is_ours)
}

fn is_json(media: &str) -> bool {
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(media.as_str(), "application/json" | PLAIN_JSON) {
        return true;
    }
    let name = media.strip_prefix("application/vnd.github.").and_then(|rest| rest.strip_suffix("+json"));
    name.is_some_and(|name| name.ends_with("-preview") || JSON_NAMES.contains(&name))
}

/// Why a body is a part of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partial {
    /// GitHub ran out of time (`"incomplete_results": true`): the next response may be whole.
    TimedOut,
    /// The resource is larger than a response may be (`"truncated": true`): each response is a part.
    Truncated,
}

/// Returns what a JSON body says about its completeness. A body without one of the two field names costs two searches.
pub fn partial(body: &[u8]) -> Option<Partial> {
    #[derive(Deserialize)]
    struct Marks {
        #[serde(default)]
        incomplete_results: bool,
        #[serde(default)]
        truncated: bool,
    }
    let has = |name: &[u8]| memchr::memmem::find(body, name).is_some();
    if !has(b"\"incomplete_results\"") && !has(b"\"truncated\"") {
        return None;
    }
    let marks: Marks = serde_json::from_slice(body).ok()?;
    match marks {
        Marks { incomplete_results: true, .. } => Some(Partial::TimedOut),
        Marks { truncated: true, .. } => Some(Partial::Truncated),
        Marks { .. } => None,
    }
}

/// Whether a GraphQL response is a whole one: it has data, and no errors.
pub fn is_whole_graphql(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        data: Option<IgnoredAny>,
        errors: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Answer>(body).is_ok_and(|answer| answer.data.is_some() && answer.errors.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Api;
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    fn reply(status: u16, media: &str, body: &[u8]) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", media.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        Reply { status, headers, body: Bytes::copy_from_slice(body), attempts: 1, refused: 0, rule_held: None }
    }

    fn get(path: &str, accept: &str) -> Request {
        Request::get(&Api::github(), path).unwrap().accepting(accept)
    }

    #[test]
    fn what_has_to_be_json_is_one_document() {
        let fault = |body: &[u8]| json_fault(&get("/repos/o/r", ""), &reply(200, "text/plain; charset=utf-8", body));
        for good in [&b"{}"[..], b" [1, 2] \n", b"null", b"\"text\"", b"{\"a\":\"\\ud800\"}"] {
            assert_eq!(fault(good), None, "{}", String::from_utf8_lossy(good));
        }
        let deep = [b"[".repeat(50_000), b"]".repeat(50_000)].concat();
        assert_eq!(fault(&deep), None);
        for (bad, why) in [
            (&b""[..], "empty"),
            (b" \r\n ", "empty"),
            (b"<!DOCTYPE html><html></html>", "HTML"),
            (b"{\"a\":[1,2", "breaks off after 9 bytes"),
            (b"[{\"id\":1},", "breaks off"),
            (b"{}{}", "trailing characters"),
            (b"upstream connect error", "(text/plain)"),
            (b"\x1f\x8b\x08\x00", "compressed"),
            (b"\xef\xbb\xbf{}", "expected value"),
            (b"{\"a\":\"\xff\"}", "UTF-8"),
        ] {
            let fault = fault(bad).unwrap();
            assert!(fault.contains(why), "{fault} lacks {why}");
        }
        let long = json_fault(&get("/x", ""), &reply(200, &"x".repeat(5_000), b"nothing")).unwrap();
        assert!(long.len() < 200 && !long.contains("nothing"), "{long}");
    }

    #[test]
    fn other_media_types_statuses_and_methods_may_be_anything() {
        let fault = |request: &Request, status| json_fault(request, &reply(status, "text/html", b"<html>")).is_some();
        for accept in
            ["", "*/*", "application/json", "application/vnd.github.star+json", "application/vnd.github.x-preview+json"]
        {
            assert!(fault(&get("/repos/o/r", accept), 200), "{accept}");
        }
        for accept in
            ["application/vnd.github.raw+json", "application/vnd.github.html+json", "text/html, */*", "text/plain"]
        {
            assert!(!fault(&get("/repos/o/r", accept), 200), "{accept}");
        }
        for status in [202, 204, 206, 301, 304, 404, 410] {
            assert!(!fault(&get("/repos/o/r", ""), status), "{status}");
        }
        assert!(fault(&get("/repos/o/r", ""), 203) && !fault(&get("/zen", ""), 200));
        assert!(fault(&Request::graphql(&Api::github(), "{}"), 200));
    }

    #[test]
    fn partial_bodies_say_so_at_the_top() {
        assert_eq!(partial(br#"{"total_count":2,"incomplete_results" : true,"items":[]}"#), Some(Partial::TimedOut));
        assert_eq!(partial(br#"{"sha":"x","tree":[],"truncated":true}"#), Some(Partial::Truncated));
        for whole in [
            &br#"{"incomplete_results":false,"items":[]}"#[..],
            br#"{"files":{"a":{"truncated":true}}}"#,
            br#"[{"truncated":true}]"#,
            br#"{"body":"\"truncated\": true"}"#,
            b"\"truncated\"",
        ] {
            assert_eq!(partial(whole), None, "{}", String::from_utf8_lossy(whole));
        }
        assert!(is_whole_graphql(br#"{"data":{"viewer":{"login":"x"}}}"#));
        for part in [r#"{"data":{},"errors":[]}"#, r#"{"data":null}"#, "{}", "[]", "", r#"{"message":"x"}"#] {
            assert!(!is_whole_graphql(part.as_bytes()), "{part}");
        }
    }
}
