//! Hosts of GitHub, as gh takes them (its `--hostname`, `GH_HOST` and `hosts.yml`).
//!
//! Knows: one form of a host, and which API belongs to it. Does not know: tokens, files.

use crate::address::HostPort;
use crate::error::{Error, Result};
use crate::request::Api;

/// The host of github.com.
pub(super) const GITHUB: &str = "github.com";

/// GitHub on a developer's own machine, as gh knows it.
const LOCAL: &str = "github.localhost";

/// Enterprises with data residency: `SUBDOMAIN.ghe.com`, their API at `api.SUBDOMAIN.ghe.com`.
const TENANCY: &str = ".ghe.com";

/// The one form of a host: lower case, without what stands before `github.com` or a tenant's name.
///
/// Errors for what is no `HOST` or `HOST:PORT`.
pub(super) fn normal(host: &str) -> Result<String> {
    let sound = HostPort::parse(host.trim()).ok_or_else(|| {
        Error::usage(format!("invalid hostname `{}`", host.escape_debug()))
            .hint("use a host alone, such as github.com or ghe.example; for an address there is --api-url")
    })?;
    let host = sound.to_string();
    if host == GITHUB || host.ends_with(".github.com") {
        return Ok(GITHUB.to_owned());
    }
    if host == LOCAL || host.ends_with(".github.localhost") {
        return Ok(LOCAL.to_owned());
    }
    Ok(match host.strip_suffix(TENANCY) {
        Some(tenant) => format!("{}{TENANCY}", tenant.rsplit('.').next().unwrap_or(tenant)),
        None => host,
    })
}

/// The API of a host.
pub(super) fn api(host: &str) -> Result<Api> {
    let host = normal(host)?;
    match host.as_str() {
        GITHUB => Ok(Api::github()),
        LOCAL => Api::parse("http://api.github.localhost"),
        tenant if tenant.ends_with(TENANCY) => Api::parse(&format!("https://api.{tenant}")),
        server => Api::parse(&format!("https://{server}/api/v3")),
    }
}

/// The host of the web pages and of git that belongs to an API.
pub(super) fn of(api: &Api) -> String {
    normal(api.host()).unwrap_or_else(|_| api.host().to_owned())
}

/// Whether the token of github.com is the one for this host: gh has one set of variables for GitHub's own cloud, and
/// another for servers.
pub(super) fn is_cloud(host: &str) -> bool {
    host == GITHUB || host == LOCAL || host.ends_with(TENANCY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_one_form_and_its_api() {
        for (host, base) in [
            ("GitHub.com", "https://api.github.com"),
            ("api.github.com", "https://api.github.com"),
            ("www.github.com", "https://api.github.com"),
            ("acme.ghe.com", "https://api.acme.ghe.com"),
            ("API.Acme.GHE.com", "https://api.acme.ghe.com"),
            ("GHE.example", "https://ghe.example/api/v3"),
            ("ghe.example:8443", "https://ghe.example:8443/api/v3"),
            ("notgithub.com", "https://notgithub.com/api/v3"),
            ("github.localhost", "http://api.github.localhost"),
        ] {
            assert_eq!(api(host).unwrap().rest_base(), base, "{host}");
        }
        for (base, host) in [
            ("https://api.github.com", "github.com"),
            ("https://api.acme.ghe.com", "acme.ghe.com"),
            ("https://ghe.example/api/v3", "ghe.example"),
        ] {
            assert_eq!(of(&Api::parse(base).unwrap()), host);
        }
        for bad in ["", "other.example/x", "https://github.com", "me@github.com", "a b", "github.com/"] {
            assert!(api(bad).unwrap_err().to_string().contains("invalid hostname"), "{bad}");
        }
    }
}
