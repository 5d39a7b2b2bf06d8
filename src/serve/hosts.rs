//! Which hosts a request may be for, and how addresses in answers lead back to the door it came
//! through.
//!
//! Knows: names. Does not know: sockets, DNS; a name is compared, never resolved, so that an address
//! that is made to point here (DNS rebinding) opens nothing.

use http::uri::Authority;
use http::{HeaderMap, Uri, Version};

use crate::address::{HostPort, is_label_byte};
use crate::error::{Error, Result};
use crate::request::Api;

/// Hosts beside GitHub's API that its own clients go on to: uploads, archives, assets, logs.
const GITHUBS: &[&str] = &["uploads.github.com", "codeload.github.com", "github.com", "*.githubusercontent.com"];

/// GitHub's accounts for logs and artifacts are `productionresultssa0` to `productionresultssa19`: any other
/// account of that beginning may be a stranger's (GitHub, "Self-hosted runners reference").
const RESULT_ACCOUNTS: u32 = 20;

/// Names of this machine by which a local client may come.
const LOOPBACK: &[&str] = &["localhost", "127.0.0.1", "[::1]"];

/// The hosts that are served.
#[derive(Debug, Clone)]
pub struct Hosts {
    api: Api,
    /// Further names of this server itself.
    names: Vec<HostPort<'static>>,
    /// Other hosts that requests are handed on to.
    others: Vec<Pattern>,
}

/// A host whose name may hold one `*`: as a whole label it stands for one or more labels, within a label for
/// characters of that label.
#[derive(Debug, Clone)]
struct Pattern {
    before: String,
    /// What follows the `*`, if there is one.
    after: Option<String>,
    /// The port; without one, the scheme's own.
    port: Option<u16>,
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        // With a letter for the `*` it must be a host.
        let sample = text.replacen('*', "a", 1);
        let (host, port) = {
            let sample = HostPort::parse(&sample)?;
            (&text[..sample.host().len()], sample.port())
        };
        let (before, after) = match host.split_once('*') {
            Some((before, after)) => (before, Some(after)),
            None => (host, None),
        };
        let names_something = !host.trim_matches(['*', '.']).is_empty();
        names_something.then(|| Self { before: before.into(), after: after.map(str::to_owned), port })
    }

    fn fits(&self, site: &HostPort<'_>) -> bool {
        self.port == site.port() && self.fits_host(site.host())
    }

    fn fits_host(&self, host: &str) -> bool {
        let Some(after) = &self.after else { return self.before == host };
        let rest = host.strip_prefix(&self.before).and_then(|rest| rest.strip_suffix(after.as_str()));
        let Some(rest) = rest else { return false };
        let is_label = (self.before.is_empty() || self.before.ends_with('.')) && after.starts_with('.');
        if is_label {
            !rest.is_empty() && rest.bytes().all(|byte| is_label_byte(byte) || byte == b'.')
        } else {
            rest.bytes().all(is_label_byte)
        }
    }

    /// Whether this is that very host, without any `*`.
    fn is(&self, site: &HostPort<'_>) -> bool {
        self.after.is_none() && self.fits(site)
    }
}

/// What a request's host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The API. The text is what addresses in answers are to begin with instead of the API's own, if
    /// the client came by another name.
    Api(Option<String>),
    /// Another host, to which a request is handed on.
    Other(Authority),
    /// None of ours.
    Foreign(String),
    /// No host at all, or none that can be told for sure: why.
    Malformed(&'static str),
}

/// The host of a request: of its target in absolute form, else of `Host` (RFC 9112 section 3.2). Nothing for
/// a request of HTTP/1.0 that names none.
///
/// Errors say why the request is malformed: `Host` is missing, twice there or no authority.
pub(super) fn host_of<'a>(
    version: Version,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<Option<HostPort<'a>>, &'static str> {
    let mut values = headers.get_all(http::header::HOST).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err("octocache: there is more than one Host header");
    }
    let named = match first {
        Some(value) => {
            let site = value.to_str().ok().and_then(HostPort::parse);
            Some(site.ok_or("octocache: the Host header is no HOST or HOST:PORT")?)
        }
        None if version >= Version::HTTP_11 => return Err("octocache: there is no Host header"),
        None => None,
    };
    match uri.authority() {
        Some(authority) => HostPort::parse(authority.as_str())
            .map(Some)
            .ok_or("octocache: the request's target is for no HOST or HOST:PORT"),
        None => Ok(named),
    }
}

impl Hosts {
    /// The API, its own kind of further hosts, and what the user adds: `names` of this server,
    /// `others` to hand on to.
    pub fn new(api: Api, names: &[String], others: &[String]) -> Result<Self> {
        let bad = |text: &str| Error::usage(format!("`{}` is no host", text.escape_debug()));
        let name = |text: &String| {
            let name = HostPort::parse(text).map(HostPort::into_owned);
            name.ok_or_else(|| bad(text).hint("write HOST or HOST:PORT"))
        };
        let pattern = |text: &String| {
            let hint = "write HOST or HOST:PORT, with one `*` in the name at most";
            let pattern = Pattern::parse(text).ok_or_else(|| bad(text).hint(hint))?;
            let port = pattern.port.filter(|port| *port != default_port(&api));
            Ok::<_, Error>(Pattern { port, ..pattern })
        };
        let names = names.iter().map(name).collect::<Result<_>>()?;
        let mut others = others.iter().map(pattern).collect::<Result<Vec<_>>>()?;
        if api.host() == "api.github.com" {
            others.extend(GITHUBS.iter().filter_map(|host| Pattern::parse(host)));
            let account = |n| Pattern::parse(&format!("productionresultssa{n}.blob.core.windows.net"));
            others.extend((0..RESULT_ACCOUNTS).filter_map(account));
        }
        Ok(Self { api, names, others })
    }

    /// The API that is served.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What a request is for, by its target in absolute form, else by `Host`.
    pub(super) fn target(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Target {
        let site = match host_of(version, uri, headers) {
            Ok(Some(site)) => site,
            Ok(None) => return Target::Foreign("none".to_owned()),
            Err(why) => return Target::Malformed(why),
        };
        // A client that speaks to a proxy in plain HTTP means its port when it names none.
        let asked_through = uri.scheme_str() == Some("http");
        let site = site.without_port(if asked_through { 80 } else { default_port(&self.api) });
        if self.is_api(&site) {
            // Nor can it follow addresses in TLS.
            let plain = asked_through && !self.api.is_plaintext();
            return Target::Api(plain.then(|| format!("http://{}{}", self.api.host(), self.api.prefix())));
        }
        let host = site.host();
        let is_ours = LOOPBACK.contains(&host)
            || host.strip_prefix("127.").is_some_and(is_numbers)
            || self.names.iter().any(|own| own.host() == host && (own.port().is_none() || own.port() == site.port()));
        // Where the API itself is on this machine, its port tells them apart; see above.
        if is_ours && !self.others.iter().any(|other| other.is(&site)) {
            return Target::Api(Some(format!("http://{site}")));
        }
        let text = site.to_string();
        if self.others.iter().any(|pattern| pattern.fits(&site))
            && let Ok(authority) = Authority::try_from(text.as_str())
        {
            return Target::Other(authority);
        }
        Target::Foreign(text)
    }

    fn is_api(&self, site: &HostPort<'_>) -> bool {
        let api = self.api.host();
        match api.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => {
                site.host() == host && port.parse().ok() == site.port().or(Some(default_port(&self.api)))
            }
            None => site.host() == api && site.port().is_none(),
        }
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
        match self.target(Version::HTTP_11, uri, headers) {
            Target::Other(authority) => Some(authority.to_string()),
            _ => None,
        }
    }
}

fn is_numbers(rest: &str) -> bool {
    rest.split('.').count() == 3 && rest.split('.').all(|part| part.parse::<u8>().is_ok())
}

/// The port of an address at the API's scheme that names none.
fn default_port(api: &Api) -> u16 {
    if api.is_plaintext() { 80 } else { 443 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(hosts: &Hosts, uri: &str, host: &str) -> Target {
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        hosts.target(Version::HTTP_11, &uri.parse().unwrap(), &headers)
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
            "a.b.githubusercontent.com",
            "productionresultssa0.blob.core.windows.net",
            "productionresultssa19.blob.core.windows.net",
            "mirror.example",
        ] {
            assert_eq!(target(&hosts, "/x", other), Target::Other(Authority::from_static(other)));
        }
        assert_eq!(target(&hosts, "/x", "Mirror.example:443"), Target::Other(Authority::from_static("mirror.example")));
        assert_eq!(target(&hosts, "/x", "api.github.com:443"), Target::Api(None));
        // The target in absolute form decides.
        assert_eq!(target(&hosts, "http://api.github.com:80/x", "evil.example"), back("http://api.github.com"));
        assert_eq!(target(&hosts, "http://evil.example/x", "api.github.com"), Target::Foreign("evil.example".into()));
        for foreign in [
            "evil.example",
            "evil.example:8420",
            "api.github.com.evil.example",
            "127.0.0.1.evil.example",
            "127.evil",
            "api.github.com:80",
            "api.github.com:444",
            "[::ffff:127.0.0.1]",
            "githubusercontent.com",
            "xgithubusercontent.com",
            "x.githubusercontent.com:8443",
            "evil.blob.core.windows.net",
            "productionresultssa.blob.core.windows.net",
            "productionresultssa20.blob.core.windows.net",
            "productionresultssa007.blob.core.windows.net",
            "productionresultssa1.evil.blob.core.windows.net",
            "cache.internal",
        ] {
            assert_eq!(target(&hosts, "/x", foreign), Target::Foreign(foreign.to_owned()));
        }
        for bad in ["", "*", "*.", "a b", "x/y", "*.*.example", "*:8080", "*.1"] {
            assert!(Hosts::new(Api::github(), &[], &[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_authority_is_malformed() {
        let hosts = Hosts::new(Api::github(), &[], &["*.x.example".to_owned()]).unwrap();
        for bad in [
            "",
            "evil@127.0.0.1",
            "127.0.0.1:1/.githubusercontent.com",
            "127.0.0.1:1?.githubusercontent.com",
            "127.0.0.1:1#.githubusercontent.com",
            "127.0.0.1:1/latest/meta-data?.x.example",
            "127.0.0.1%2f.githubusercontent.com",
            "api.github.com.",
            "127.1",
            "0x7f.1",
            "[::1%25lo]",
            "a..githubusercontent.com",
            "api.github.com, localhost",
        ] {
            assert!(matches!(target(&hosts, "/x", bad), Target::Malformed(_)), "{bad}");
        }
        let uri: Uri = "/x".parse().unwrap();
        let mut headers = HeaderMap::new();
        let of = |version, headers: &HeaderMap| hosts.target(version, &uri, headers);
        assert!(matches!(of(Version::HTTP_11, &headers), Target::Malformed(_)));
        assert_eq!(of(Version::HTTP_10, &headers), Target::Foreign("none".into()));
        headers.append("host", "localhost".parse().unwrap());
        headers.append("host", "localhost".parse().unwrap());
        assert!(matches!(of(Version::HTTP_11, &headers), Target::Malformed(_)));
        let through: Uri = "http://user@api.github.com/x".parse().unwrap();
        headers.insert("host", "localhost".parse().unwrap());
        assert!(matches!(hosts.target(Version::HTTP_11, &through, &headers), Target::Malformed(_)));
    }

    #[test]
    fn a_star_stands_for_characters_of_labels_and_for_nothing_else() {
        let fits = |pattern: &str, host: &str| Pattern::parse(pattern).unwrap().fits(&HostPort::parse(host).unwrap());
        assert!(fits("*.example", "a.example") && fits("*.example", "a.b.example") && !fits("*.example", "example"));
        assert!(fits("cache*.example", "cache7.example") && !fits("cache*.example", "cache.evil.example"));
        assert!(fits("a.*.example", "a.b.c.example") && fits("*.example:8080", "a.example:8080"));
        assert!(!fits("*.example", "a.example:8080") && !fits("*.example:8080", "a.example"));
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
