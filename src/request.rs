//! What is asked of GitHub, in one normal form.
//!
//! Knows: hosts, paths, query order and representations (A1). Does not know: identity
//! (`partition`), freshness (`policy`) or how anything is sent (`github`).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, PathAndQuery};

use crate::address;
use crate::error::{Error, Result};

/// The REST API version that is asked for unless a caller names another.
pub const API_VERSION: &str = "2022-11-28";

/// The one form in which GitHub's plain JSON is asked for.
pub const PLAIN_JSON: &str = "application/vnd.github+json";

/// Where an API lives: `https://api.github.com`, or `https://HOST/api/v3` for GHES.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Scheme and authority, no trailing slash.
    origin: String,
    /// `host` or `host:port`, lower case.
    host: Arc<str>,
    /// What stands for this API in keys.
    key_base: Arc<str>,
    /// `""` or the prefix of every REST path, such as `/api/v3`.
    prefix: String,
}

impl Api {
    /// The API of github.com.
    pub fn github() -> Self {
        let host: Arc<str> = "api.github.com".into();
        Self { origin: "https://api.github.com".into(), key_base: host.clone(), host, prefix: String::new() }
    }

    /// Reads a base address such as `$GITHUB_API_URL`.
    ///
    /// Errors unless it is an absolute `https` (or, for tests and local servers, `http`) address
    /// without user information or query.
    pub fn parse(url: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::usage(format!("`{}` is no API address: {why}", address::shown(url)))
                .hint("use https://api.github.com or, for GitHub Enterprise Server, https://HOST/api/v3")
        };
        let uri: Uri = url.parse().map_err(|_| bad("it does not parse"))?;
        let scheme = uri.scheme_str().ok_or_else(|| bad("it has no scheme"))?;
        if !matches!(scheme, "https" | "http") {
            return Err(bad("its scheme is neither https nor http"));
        }
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?.as_str().to_ascii_lowercase();
        if authority.contains('@') || uri.query().is_some() {
            return Err(bad("it carries more than a host and a path"));
        }
        let origin = format!("{scheme}://{authority}");
        let prefix = uri.path().trim_end_matches('/');
        let is_usual = scheme == "https" && prefix == usual_prefix(&authority);
        let key_base = if is_usual { authority.clone() } else { format!("{origin}{prefix}") };
        Ok(Self { origin, host: authority.into(), key_base: key_base.into(), prefix: prefix.into() })
    }

    /// Host and, where it is not the scheme's own, port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What stands for this API in keys: its host where scheme and prefix are the usual ones, so that keys of
    /// github.com are short and stable, else the whole base address. Two APIs never share it.
    pub fn key_base(&self) -> &str {
        &self.key_base
    }

    /// Scheme and authority.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// `""` or what every REST path begins with, such as `/api/v3`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What REST addresses in answers begin with.
    pub fn rest_base(&self) -> String {
        format!("{}{}", self.origin, self.prefix)
    }

    /// Whether the connection is plain HTTP.
    pub fn is_plaintext(&self) -> bool {
        self.origin.starts_with("http://")
    }

    /// The address of a request at this API. GHES serves GraphQL beside, not below, its REST prefix.
    pub fn url(&self, request: &Request) -> String {
        let prefix = match (&request.method, self.prefix.strip_suffix("/v3")) {
            (Method::Graphql(_), Some(ghes)) => ghes,
            _ => &self.prefix,
        };
        let mark = if request.query.is_empty() { "" } else { "?" };
        format!("{}{prefix}{}{mark}{}", self.origin, request.path, request.query)
    }

    /// The address of `target`, a path with or without its query below the API's prefix.
    ///
    /// Errors when it is no path: nothing in it can reach the host.
    pub fn at(&self, target: &str) -> Result<Uri> {
        self.beside(&format!("{}{}", self.prefix, checked_path(target)?))
    }

    /// The address of `target`, a path with or without its query at the API's host.
    pub fn beside(&self, target: &str) -> Result<Uri> {
        let (scheme, authority) = self.origin.split_once("://").unwrap_or(("https", &self.origin));
        uri(scheme, authority, target)
    }

    /// The address of a request at this API, as it is sent.
    pub fn uri(&self, request: &Request) -> Result<Uri> {
        let url = self.url(request);
        self.beside(address::on_origin(&self.origin, &url).unwrap_or_default())
    }

    /// Path and query of an address at this API; `None` when it leads to another host or scheme.
    pub fn own<'a>(&self, url: &'a str) -> Option<&'a str> {
        let local = address::on_origin(&self.origin, url)?;
        match local.strip_prefix(&self.prefix) {
            Some(path) if path.starts_with('/') => Some(path),
            _ => Some(local),
        }
    }
}

/// An address made of its parts: none of them can reach into another.
pub fn uri(scheme: &str, authority: &str, target: &str) -> Result<Uri> {
    let target = checked_path(target)?;
    let failed = |_| Error::usage(format!("`{}` cannot stand in a request", address::masked(target).escape_debug()));
    let authority = Authority::try_from(authority).map_err(failed)?;
    let target = PathAndQuery::try_from(target).map_err(failed)?;
    let built = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build();
    built.map_err(|cause| Error::usage("the address of a request cannot be built").because(cause))
}

fn checked_path(target: &str) -> Result<&str> {
    let fits = target.starts_with('/');
    fits.then_some(target).ok_or_else(|| {
        Error::usage(format!("`{}` is no path", address::masked(target).escape_debug())).hint("begin it with /")
    })
}

/// How something is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// A GraphQL query: `POST` with this JSON text.
    Graphql(Bytes),
    /// The resource of a `GET` as a GraphQL batch gives it, in the fields that both APIs have. It
    /// names an entry; it is never sent as it is.
    Projected,
}

impl Method {
    /// The HTTP method's name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Graphql(_) => "POST",
            Method::Projected => "GRAPHQL",
        }
    }
}

/// One request, in normal form: two requests for the same thing are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How it is asked.
    pub method: Method,
    /// [`Api::key_base`].
    pub host: Arc<str>,
    /// Path below the API's prefix, in normal percent-encoding: a trailing slash is another resource to GitHub.
    pub path: String,
    /// Query without `?`, in normal percent-encoding; parameters in order of name, repeated ones in the order given.
    pub query: String,
    /// Media type asked for, in the one form of its representation.
    pub accept: String,
    /// `X-GitHub-Api-Version`.
    pub api_version: String,
    /// `GraphQL-Features`, comma-separated, in order; empty for none.
    pub features: String,
    /// For a later page: the path that began its listing. Not part of the key; it says what the
    /// page is about where its own path is numeric (`/repositories/ID/…`).
    pub listing: Option<Arc<str>>,
}

impl Request {
    /// A `GET` of `path` (with or without query) as plain JSON. Names of owners and repositories are in lower case: GitHub
    /// takes them in any, and answers with the same bytes.
    ///
    /// Errors when the path cannot stand in a request line, or is absolute to another host.
    pub fn get(api: &Api, path: &str) -> Result<Self> {
        let local = if path.contains("://") {
            api.own(path).ok_or_else(|| {
                Error::usage(format!("`{}` leads to another host than {}", address::shown(path), api.host))
            })?
        } else {
            path
        };
        let local = local.split('#').next().unwrap_or_default();
        let shown = || address::masked(local).escape_debug().to_string();
        let (path, query) = local.split_once('?').unwrap_or((local, ""));
        let fits = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b));
        if !fits(path) || !fits(query) || path.len() + query.len() > 8_000 {
            return Err(Error::usage(format!("`{}` cannot stand in a request", shown()))
                .hint("percent-encode spaces and other characters that an address cannot hold"));
        }
        let (Some(path), Some(query)) = (address::normal_escapes(path), address::normal_escapes(query)) else {
            return Err(Error::usage(format!("`{}` has a percent sign that begins no escape", shown()))
                .hint("write a percent sign as %25"));
        };
        let mut path = if path.starts_with('/') { path.into_owned() } else { format!("/{path}") };
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(Error::usage(format!("`{}` climbs out of its path", shown())));
        }
        let named = address::named_part(&path);
        path[..named].make_ascii_lowercase();
        Ok(Self {
            method: Method::Get,
            host: api.key_base.clone(),
            path,
            query: normal_query(&query),
            accept: PLAIN_JSON.into(),
            api_version: API_VERSION.into(),
            features: String::new(),
            listing: None,
        })
    }

    /// A GraphQL query: `body` is the JSON object with `query` and `variables`.
    pub fn graphql(api: &Api, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::Graphql(body.into()),
            host: api.key_base.clone(),
            path: "/graphql".into(),
            query: String::new(),
            accept: PLAIN_JSON.into(),
            api_version: API_VERSION.into(),
            features: String::new(),
            listing: None,
        }
    }

    /// What a GraphQL batch gives of the same resource: all pages of it as one.
    #[must_use]
    pub fn projected(&self) -> Self {
        let pairs: Vec<&str> = self.query.split('&').filter(|pair| !pair.starts_with("per_page=")).collect();
        Self { method: Method::Projected, query: pairs.join("&"), ..self.clone() }
    }

    /// The same request for another representation.
    #[must_use]
    pub fn accepting(mut self, accept: &str) -> Self {
        self.accept = representation(accept);
        self
    }

    /// The same request under another API version.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.api_version);
        self
    }

    /// The same request with features of GraphQL's asked for, as `GraphQL-Features` names them.
    #[must_use]
    pub fn with_features(mut self, names: &str) -> Self {
        let mut names: Vec<&str> = names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        self.features = names.join(",");
        self
    }

    /// The same request with `name=value` added, unless the query names `name` already.
    #[must_use]
    pub fn with_default_param(mut self, name: &str, value: &str) -> Self {
        if !self.query.split('&').any(|pair| pair.split('=').next() == Some(name)) {
            let mark = if self.query.is_empty() { "" } else { "&" };
            self.query = normal_query(&format!("{}{mark}{name}={value}", self.query));
        }
        self
    }

    /// A parameter's value as it stands in the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// The same request with `name=value` instead of whatever it says of `name`, as a page of the
    /// same listing; `None` for a value that cannot stand in a query.
    pub fn with_param(&self, name: &str, value: &str) -> Option<Self> {
        if !value.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let others = self.query.split('&').filter(|pair| pair.split('=').next() != Some(name));
        let pair = format!("{name}={value}");
        let pairs: Vec<&str> = others.chain([pair.as_str()]).collect();
        let listing = Some(self.listing.clone().unwrap_or_else(|| self.path.as_str().into()));
        Some(Self { query: normal_query(&pairs.join("&")), listing, ..self.clone() })
    }

    /// The request that `link` (a `Link` or `Location` address) leads to from here: same
    /// representation, and it remembers what it belongs to. `None` when it leaves this API.
    pub fn follow(&self, api: &Api, link: &str) -> Option<Self> {
        let mut next = Request::get(api, api.own(link)?).ok()?;
        next.accept.clone_from(&self.accept);
        next.api_version.clone_from(&self.api_version);
        next.method = self.method.clone();
        next.listing = Some(self.listing.clone().unwrap_or_else(|| self.path.as_str().into()));
        Some(next)
    }

    /// Whether the query names a credential: such a request goes past every cache.
    pub fn has_credentials(&self) -> bool {
        !self.query.is_empty() && address::has_credentials(&self.query)
    }

    /// Path and query, for people: credentials are masked.
    pub fn target(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        let target = format!("{}{mark}{}", self.path, self.query);
        match address::masked(&target) {
            Cow::Borrowed(_) => target,
            Cow::Owned(masked) => masked,
        }
    }
}

/// Where the REST API lives below a host: GitHub, "Getting started with the REST API", and the same page for
/// GitHub Enterprise Server and for enterprises with data residency (`api.SUBDOMAIN.ghe.com`).
fn usual_prefix(host: &str) -> &'static str {
    let is_cloud = host == "api.github.com" || (host.starts_with("api.") && host.ends_with(".ghe.com"));
    if is_cloud { "" } else { "/api/v3" }
}

/// Parameters in order of name, whichever way that is encoded; a stable sort, so repeated ones keep theirs.
fn normal_query(query: &str) -> String {
    if !query.contains('&') {
        return query.to_owned();
    }
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    if query.contains(['%', '+']) {
        pairs.sort_by_cached_key(|pair| address::decoded(pair.split('=').next().unwrap_or_default()));
    } else {
        pairs.sort_by_key(|pair| pair.split('=').next());
    }
    pairs.join("&")
}

/// Previews that have become part of plain JSON ("graduated"), without `-preview`.
/// Source: GitHub's "API previews" page and its changelog.
const GRADUATED: &[&str] = &[
    "ant-man",
    "antiope",
    "baptiste",
    "barred-rock",
    "black-panther",
    "cloak",
    "corsair",
    "cryptographer",
    "dorian",
    "drax",
    "flash",
    "fury",
    "giant-sentry-fist",
    "groot",
    "hellcat",
    "inertia",
    "ironman",
    "jean-grey",
    "london",
    "luke-cage",
    "lydian",
    "machine-man",
    "mercy",
    "merge-info",
    "mockingbird",
    "nebula",
    "nightshade",
    "sailor-v",
    "scarlet-witch",
    "shadow-cat",
    "squirrel-girl",
    "starfox",
    "surtur",
    "switcheroo",
    "symmetra",
    "valkyrie",
    "wyandotte",
    "zzzax",
];

/// The normal form of an `Accept` value: everything that means GitHub's plain JSON is one
/// representation, so that every door shares its entries; any other media type is its own.
fn representation(accept: &str) -> String {
    if matches!(accept, PLAIN_JSON | "*/*" | "") {
        return PLAIN_JSON.into();
    }
    let plain = |part: &str| {
        let media = part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media.as_str() {
            ""
            | "*/*"
            | "application/*"
            | "application/json"
            | PLAIN_JSON
            | "application/vnd.github.v3+json"
            | "application/vnd.github"
            | "application/vnd.github.v3" => true,
            media => media.strip_prefix("application/vnd.github.").is_some_and(|rest| {
                let rest = rest.strip_suffix("+json").unwrap_or(rest);
                rest.strip_suffix("-preview").is_some_and(|name| GRADUATED.contains(&name))
            }),
        }
    };
    if accept.split(',').all(plain) { PLAIN_JSON.into() } else { accept.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Request {
        Request::get(&Api::github(), path).unwrap()
    }

    #[test]
    fn parameters_have_a_normal_order_and_repeated_ones_keep_theirs() {
        assert_eq!(get("/x?b=2&a=1"), get("x?a=1&b=2"));
        assert_eq!(get("/x?l=b&l=a&k=1").query, "k=1&l=b&l=a");
        assert_ne!(get("/x/"), get("/x"));
        assert_eq!(get("/x?page=2").with_default_param("per_page", "100").query, "page=2&per_page=100");
        assert_eq!(get("/x?per_page=7").with_default_param("per_page", "100").query, "per_page=7");
    }

    #[test]
    fn names_are_one_in_any_case() {
        for path in ["/repos/Octo/Hello/contents/Read.ME?ref=Main", "repos/octo/HELLO/contents/Read.ME?ref=Main"] {
            let request = get(path);
            assert_eq!(
                (request.path.as_str(), request.query.as_str()),
                ("/repos/octo/hello/contents/Read.ME", "ref=Main")
            );
        }
        assert_eq!(get("/repos/Octo/Hello"), get("/repos/octo/hello"));
        assert_eq!(get("/users/OctoCat/repos"), get("/users/octocat/repos"));
        assert_eq!(get("/orgs/Octo/teams/Core").path, "/orgs/octo/teams/Core");
        assert_eq!(get("/Zen/X").path, "/Zen/X");
    }

    #[test]
    fn plain_json_is_one_representation() {
        let gh = "application/vnd.github.merge-info-preview+json, application/vnd.github.nebula-preview";
        for accept in ["*/*", "", "application/json", "application/vnd.github.v3+json", gh] {
            assert_eq!(representation(accept), PLAIN_JSON, "{accept}");
        }
        for accept in ["application/vnd.github.raw", "application/vnd.github.v3.diff", "text/html, */*"] {
            assert_eq!(representation(accept), accept);
        }
    }

    #[test]
    fn enterprise_paths_and_links() {
        let ghes = Api::parse("https://GHE.example/api/v3/").unwrap();
        let request = Request::get(&ghes, "/repos/o/r?page=2").unwrap();
        assert_eq!(ghes.url(&request), "https://ghe.example/api/v3/repos/o/r?page=2");
        assert_eq!(ghes.url(&Request::graphql(&ghes, "{}")), "https://ghe.example/api/graphql");
        let next = request.follow(&ghes, "https://ghe.example/api/v3/repositories/1?page=3").unwrap();
        assert_eq!((next.path.as_str(), next.listing.as_deref()), ("/repositories/1", Some("/repos/o/r")));
        for elsewhere in
            ["https://evil.example/api/v3/x", "https://ghe.example.evil/x", "//evil.example/x", "http://ghe.example/x"]
        {
            assert_eq!(request.follow(&ghes, elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn the_key_tells_api_bases_apart() {
        let base = |url: &str| Api::parse(url).unwrap().key_base().to_owned();
        assert_eq!(base("https://api.github.com"), Api::github().key_base());
        assert_eq!(base("https://GHE.example/api/v3/"), "ghe.example");
        assert_eq!(base("https://api.acme.ghe.com"), "api.acme.ghe.com");
        let odd = [
            "http://api.github.com",
            "http://ghe.example/api/v3",
            "https://ghe.example",
            "https://gw.example/tenant-a",
            "https://gw.example/tenant-b",
            "https://gw.example:8443/api/v3x",
        ];
        let mut bases: Vec<String> = odd.iter().map(|url| base(url)).collect();
        assert_eq!(bases[3], "https://gw.example/tenant-a");
        bases.push("ghe.example".into());
        bases.push("api.github.com".into());
        bases.sort();
        bases.dedup();
        assert_eq!(bases.len(), odd.len() + 2);
    }

    #[test]
    fn percent_encoding_has_one_form() {
        assert_eq!(get("/repos/o/%72"), get("/repos/o/r"));
        assert_eq!(get("/x?%61=1&b=%7e"), get("/x?b=~&a=1"));
        assert_eq!(get("/x/a%2fb%c3%A9").path, "/x/a%2Fb%C3%A9");
        // Repeated parameters keep their order under every spelling of their name.
        for (one, two) in
            [("%61=1&a=2", "a=2&%61=1"), ("l%5b%5D=1&l[]=2", "l[]=2&l%5B%5D=1"), ("a+b=1&a%20b=2", "a%20b=2&a+b=1")]
        {
            assert_ne!(get(&format!("/x?{one}")), get(&format!("/x?{two}")), "{one}");
        }
        for path in ["/x/%2e%2e/y", "/x/%2E/y", "/x/.%2e", "/x%", "/x%4", "/x?a=%zz"] {
            assert!(Request::get(&Api::github(), path).is_err(), "{path}");
        }
        let api = Api::github();
        let once = get("/%72/%2f?%5b=%61&%41");
        assert_eq!(Request::get(&api, &format!("{}?{}", once.path, once.query)).unwrap(), once);
    }

    #[test]
    fn addresses_are_made_of_parts_that_cannot_reach_into_each_other() {
        let ghes = Api::parse("https://ghe.example/api/v3").unwrap();
        assert_eq!(ghes.at("/x?y=1").unwrap(), "https://ghe.example/api/v3/x?y=1");
        assert_eq!(ghes.beside("/raw/x").unwrap(), "https://ghe.example/raw/x");
        assert_eq!(ghes.at("//evil.example/x").unwrap().host(), Some("ghe.example"));
        assert_eq!(ghes.uri(&Request::graphql(&ghes, "{}")).unwrap(), "https://ghe.example/api/graphql");
        for bad in ["", "*", "@evil.example/x", ":1/x", ".evil.example/x", "?x", "#x"] {
            assert!(ghes.at(bad).is_err() && ghes.beside(bad).is_err(), "{bad}");
        }
        assert!(uri("https", "a@b/c", "/x").is_err());
    }

    #[test]
    fn errors_and_logs_repeat_no_credential() {
        for url in ["https://me:hunter2@ghe.example", "ftp://me:hunter2@x", "https://x/?token=hunter2", "me:hunter2@ x"]
        {
            let error = Api::parse(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let request = get("/x?access_token=hunter2&a=1");
        assert!(request.has_credentials() && !get("/x?client_id=1&a=2").has_credentials());
        assert_eq!(request.target(), "/x?a=1&access_token=***");
        for path in ["https://me:hunter2@evil.example/x", "/{x}?token=hunter2", "/../x?sig=hunter2"] {
            let error = Request::get(&Api::github(), path).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_request_is_refused() {
        for path in ["/a b", "/a\r\nHost: evil", "/ä", "/a/../b", "https://evil.example/x", "/{owner}"] {
            assert!(Request::get(&Api::github(), path).is_err(), "{path}");
        }
        for url in ["api.github.com", "ftp://x", "https://user@x", "https://x?y", ""] {
            assert!(Api::parse(url).is_err(), "{url}");
        }
    }
}
