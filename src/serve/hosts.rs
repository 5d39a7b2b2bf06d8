//! Which hosts a request may be for, and how addresses in answers lead back to the door it came
//! through.
//!
//! Knows: names. Does not know: sockets, DNS; a name is compared, never resolved, so that an address
//! that is made to point here (DNS rebinding) opens nothing.

use http::uri::Authority;
use http::{HeaderMap, Uri};

use crate::error::{Error, Result};
use crate::request::Api;

/// Hosts beside GitHub's API that its own clients go on to: uploads, archives, assets, logs.
const GITHUBS: &[&str] = &[
    "uploads.github.com",
    "codeload.github.com",
    "github.com",
    "*.githubusercontent.com",
    "productionresultssa*.blob.core.windows.net",
];

/// Names of this machine by which a local client may come.
const LOOPBACK: &[&str] = &["localhost", "127.0.0.1", "[::1]"];

/// The hosts that are served.
#[derive(Debug, Clone)]
pub struct Hosts {
    api: Api,
    /// Further names of this server itself.
    names: Vec<String>,
    /// Other hosts that requests are handed on to; `*` stands for any part of a name.
    others: Vec<String>,
}

/// What a request's host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The API. The text is what addresses in answers are to begin with instead of the API's own, if
    /// the client came by another name.
    Api(Option<String>),
    /// Another host, to which a request is handed on.
    Other(String),
    /// None of ours.
    Foreign(String),
}

impl Hosts {
    /// The API, its own kind of further hosts, and what the user adds: `names` of this server,
    /// `others` to hand on to.
    pub fn new(api: Api, names: &[String], others: &[String]) -> Result<Self> {
        let checked = |text: &String, star: bool| {
            let fits = !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b) || (star && b == b'*'))
                && !text.trim_matches(['*', '.']).is_empty();
            if fits {
                Ok(text.to_ascii_lowercase())
            } else {
                Err(Error::usage(format!("`{}` is no host", text.escape_debug())).hint("write HOST or HOST:PORT"))
            }
        };
        let names = names.iter().map(|name| checked(name, false)).collect::<Result<_>>()?;
        let mut others = others.iter().map(|name| checked(name, true)).collect::<Result<Vec<_>>>()?;
        if api.host() == "api.github.com" {
            others.extend(GITHUBS.iter().map(|name| (*name).to_owned()));
        }
        Ok(Self { api, names, others })
    }

    /// The API that is served.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What a request is for, by its target in absolute form, else by `Host`.
    pub(super) fn target(&self, uri: &Uri, headers: &HeaderMap) -> Target {
        let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let Some(authority) = uri.authority().map(Authority::as_str).or(host) else {
            return Target::Foreign("none".to_owned());
        };
        let authority = authority.to_ascii_lowercase();
        let asked_through = uri.authority().is_some();
        if authority == self.api.host() {
            // A client that speaks to a proxy in plain HTTP cannot follow addresses in TLS.
            let plain = asked_through && uri.scheme_str() == Some("http") && !self.api.is_plaintext();
            return Target::Api(plain.then(|| format!("http://{authority}{}", self.api.prefix())));
        }
        if authority.contains('@') {
            return Target::Foreign(authority);
        }
        let name = without_port(&authority);
        let is_ours = LOOPBACK.contains(&name)
            || name.strip_prefix("127.").is_some_and(is_numbers)
            || self.names.iter().any(|own| own == name || *own == authority);
        // Where the API itself is on this machine, its port tells them apart; see above.
        if is_ours && !self.others.contains(&authority) {
            return Target::Api(Some(format!("http://{authority}")));
        }
        if self.others.iter().any(|pattern| fits(pattern, &authority) || fits(pattern, name)) {
            return Target::Other(authority);
        }
        Target::Foreign(authority)
    }

    /// Whether a page from elsewhere made a browser send this.
    pub(super) fn is_from_elsewhere(headers: &HeaderMap, host: Option<&str>) -> bool {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
            return true;
        }
        text("origin").is_some_and(|origin| {
            let authority = origin.split_once("://").map(|(_, authority)| authority.to_ascii_lowercase());
            authority.is_none() || authority.as_deref() != host.map(str::to_ascii_lowercase).as_deref()
        })
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Hosts {
    /// The host to which a request would be handed on.
    pub(crate) fn other(&self, uri: &Uri, headers: &HeaderMap) -> Option<String> {
        match self.target(uri, headers) {
            Target::Other(authority) => Some(authority),
            Target::Api(_) | Target::Foreign(_) => None,
        }
    }
}

fn is_numbers(rest: &str) -> bool {
    rest.split('.').count() == 3 && rest.split('.').all(|part| part.parse::<u8>().is_ok())
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(hosts: &Hosts, uri: &str, host: &str) -> Target {
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        hosts.target(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn each_name_leads_where_it_should() {
        let names = ["cache.internal:8420".to_owned()];
        let hosts = Hosts::new(Api::github(), &names, &["mirror.example".to_owned()]).unwrap();
        let back = |text: &str| Target::Api(Some(text.to_owned()));
        assert_eq!(target(&hosts, "/x", "api.github.com"), Target::Api(None));
        assert_eq!(target(&hosts, "/x", "API.github.com"), Target::Api(None));
        assert_eq!(target(&hosts, "http://api.github.com/x", "api.github.com"), back("http://api.github.com"));
        assert_eq!(target(&hosts, "/x", "127.0.0.1:8420"), back("http://127.0.0.1:8420"));
        assert_eq!(target(&hosts, "/x", "127.1.2.3:1"), back("http://127.1.2.3:1"));
        assert_eq!(target(&hosts, "/x", "[::1]:8420"), back("http://[::1]:8420"));
        assert_eq!(target(&hosts, "/x", "cache.internal:8420"), back("http://cache.internal:8420"));
        for other in [
            "uploads.github.com",
            "objects.githubusercontent.com",
            "productionresultssa7.blob.core.windows.net",
            "mirror.example",
        ] {
            assert_eq!(target(&hosts, "/x", other), Target::Other(other.to_owned()));
        }
        for foreign in [
            "evil.example",
            "evil.example:8420",
            "api.github.com.evil.example",
            "127.0.0.1.evil.example",
            "127.evil",
            "evil@127.0.0.1",
            "xgithubusercontent.com",
            "evil.blob.core.windows.net",
            "cache.internal",
        ] {
            assert_eq!(target(&hosts, "/x", foreign), Target::Foreign(foreign.to_owned()));
        }
        for bad in ["", "*", "*.", "a b", "x/y"] {
            assert!(Hosts::new(Api::github(), &[], &[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_told() {
        let from = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            Hosts::is_from_elsewhere(&headers, Some("localhost:8420"))
        };
        assert!(
            from("origin", "https://evil.example") && from("origin", "null") && from("sec-fetch-site", "cross-site")
        );
        assert!(!from("origin", "http://localhost:8420") && !from("sec-fetch-site", "none") && !from("accept", "*/*"));
    }
}
