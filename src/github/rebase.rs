//! An API under another name of it.
//!
//! Knows: how a server's addresses begin. Does not know: what is followed.

use http::header::{HeaderMap, HeaderValue, LINK};

use crate::alias::is_same_resource;
use crate::request::Api;

/// Where every path of a GitHub Enterprise Server begins.
const SERVER_PREFIX: &str = "/api/v3";

/// Gives the addresses in `Link` the base of the API that was asked, where they lead to the same listing under another
/// name of it: a GitHub Enterprise Server names itself by its own host and scheme, however it is reached. Nothing is ever
/// sent to that other host.
pub(super) fn link(api: &Api, path: &str, headers: &mut HeaderMap) {
    let Some(link) = headers.get(LINK).and_then(|value| value.to_str().ok()) else { return };
    let is_elsewhere = |target: &str| target.contains("://") && api.own(target).is_none();
    let targets = link.split('<').skip(1).filter_map(|rest| rest.split('>').next());
    let targets: Vec<&str> = targets.filter(|target| is_elsewhere(target)).collect();
    if targets.is_empty() {
        return;
    }
    let mut rebased = link.to_owned();
    for target in targets {
        let Some(local) = on_server(target) else { continue };
        if is_same_resource(path, local.split('?').next().unwrap_or(local)) {
            rebased = rebased.replace(&format!("<{target}>"), &format!("<{}{local}>", api.rest_base()));
        }
    }
    if let Ok(value) = HeaderValue::try_from(rebased) {
        headers.insert(LINK, value);
    }
}

/// Path and query below the API of a server.
fn on_server(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let local = rest.find('/').map(|at| &rest[at..])?.strip_prefix(SERVER_PREFIX)?;
    (matches!(scheme, "http" | "https") && local.starts_with('/')).then_some(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_under_another_name_is_the_same_one() {
        let rebased = |base: &str, path: &str, target: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::try_from(format!("<{target}>; rel=\"next\"")).unwrap());
            super::link(&Api::parse(base).unwrap(), path, &mut headers);
            crate::link::next(headers[LINK].to_str().unwrap()).unwrap().to_owned()
        };
        for (base, path, target, expected) in [
            (
                "http://proxy:8080/api/v3",
                "/a",
                "https://ghe.example/api/v3/a?page=2",
                "http://proxy:8080/api/v3/a?page=2",
            ),
            ("https://ghe.example/api/v3", "/a", "http://ghe.example/api/v3/a?b=1", "https://ghe.example/api/v3/a?b=1"),
            ("http://proxy", "/repos/o/r/x", "https://g/api/v3/repositories/7/x", "http://proxy/repositories/7/x"),
        ] {
            assert_eq!(rebased(base, path, target), expected);
        }
        for (base, path, target) in [
            ("https://api.github.com", "/a", "https://evil.example/a?page=2"),
            ("http://proxy/api/v3", "/a", "https://ghe.example/api/v3/b?page=2"),
            ("http://proxy/api/v3", "/a", "https://ghe.example/a?page=2"),
            ("http://proxy/api/v3", "/a", "ftp://ghe.example/api/v3/a"),
            ("http://proxy/api/v3", "/a", "//ghe.example/api/v3/a"),
        ] {
            assert_eq!(rebased(base, path, target), target);
        }
    }
}
