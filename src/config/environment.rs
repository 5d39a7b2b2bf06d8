//! The environment: the only file that reads it.
//!
//! Knows: names and their meaning, also those that people used before. Does not know: flags' names
//! for `OCTOCACHE_…` variables; those are declared beside the flags.

use std::collections::BTreeMap;

use super::Flags;
use crate::error::{Error, Result};
use crate::policy::{Mode, TtlTable, class};
use crate::units::Span;

/// Names that other tools and hand-written caches use, and what they mean here.
pub static ACCEPTED: &[(&str, &str)] = &[
    ("GH_TOKEN, GITHUB_TOKEN", "the token for github.com"),
    ("GH_ENTERPRISE_TOKEN, GITHUB_ENTERPRISE_TOKEN", "the token for another host"),
    ("OCTOCACHE_APP_ID, OCTOCACHE_APP_INSTALLATION_ID, OCTOCACHE_APP_PRIVATE_KEY_FILE", "an App's installation"),
    ("GITHUB_API_URL", "--api-url"),
    ("GH_HOST", "the API of that host"),
    ("GH_REPO, GITHUB_REPOSITORY", "{owner} and {repo}"),
    ("OCTOCACHE_DIR, GITHUB_CACHE_DIR, CACHE_DIR", "--cache-dir"),
    ("OCTOCACHE_REDIS_URL", "the Redis with which answers are shared, where no plan says it"),
    ("OCTOCACHE_SHARE_SECRET", "the secret with which shared copies are sealed, where no plan names another"),
    ("OCTOCACHE_PLAN_VARS", "further variables that a plan may read as ${NAME}, separated by commas"),
    ("OCTOCACHE_IPFS_HOSTS", "the hosts (HOST:PORT, separated by commas) to which a plan's `authorization` may go"),
    (
        "CACHE_ENABLE_P2P, CACHE_LISTEN_PORT, CACHE_BOOTSTRAP_PEERS",
        "`serve`'s --p2p, the port of --p2p-listen, --p2p-bootstrap",
    ),
    ("GITHUB_CACHE_TTL, CACHE_DEFAULT_TTL", "TTL of what no class knows: a duration, or seconds"),
    ("GITHUB_TTL_ORG_REPOS, GITHUB_TTL_LANGUAGES, GITHUB_TTL_ISSUES", "TTL of that class"),
    ("GITHUB_NO_CACHE", "--no-cache, when true"),
    ("GITHUB_FORCE_REFRESH", "--force-refresh, when true"),
    ("GITHUB_CACHE_ENABLED", "--no-cache, when false"),
    ("GITHUB_GRAPHQL_ENABLED", "--rest-only, when false"),
    ("GITHUB_REST_FALLBACK_ENABLED", "--graphql-only, when false"),
    ("GITHUB_BACKOFF_ENABLED", "--retries 0, when false"),
    ("GITHUB_EVENT_NAME, GITHUB_EVENT_PATH", "the event that started a workflow; what it touched is validated anew"),
    ("HTTPS_PROXY, ALL_PROXY, NO_PROXY", "the proxy to GitHub"),
];

/// A snapshot of the environment; tests bring their own.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's. Variables that are no text are passed over.
    pub fn of_process() -> Self {
        #[allow(clippy::disallowed_methods, reason = "this is the one place that reads it")]
        let all =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self(all.filter(|(_, value)| !value.is_empty()).collect())
    }

    /// One made of pairs.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The first of these that is set.
    pub fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Whether a switch is on.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    }

    /// Whether a switch is off.
    pub fn is_false(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off"))
    }

    /// The mode that the environment asks for.
    pub(super) fn mode(&self) -> Option<Mode> {
        if self.is_true("GITHUB_NO_CACHE") || self.is_false("GITHUB_CACHE_ENABLED") {
            Some(Mode::NoStore)
        } else if self.is_true("GITHUB_FORCE_REFRESH") {
            Some(Mode::Reload)
        } else {
            None
        }
    }

    pub(super) fn ttls(&self, flags: &Flags, default_ttl_secs: u64) -> Result<TtlTable> {
        let mut table = TtlTable {
            everything_secs: flags.ttl.map(|span| span.0),
            stale_secs: flags.stale_if_error.map(|span| span.0),
            default_secs: Some(default_ttl_secs),
            ..TtlTable::default()
        };
        for name in ["GITHUB_CACHE_TTL", "CACHE_DEFAULT_TTL"] {
            if let Some(secs) = self.secs(name)? {
                table.default_secs = Some(secs);
                break;
            }
        }
        for class in class::CLASSES {
            let upper = class.name.to_ascii_uppercase().replace('-', "_");
            for name in [format!("GITHUB_TTL_{upper}"), format!("OCTOCACHE_TTL_{upper}")] {
                if let Some(secs) = self.secs(&name)? {
                    table.classes.insert(class.name, secs);
                }
            }
        }
        Ok(table)
    }

    fn secs(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(secs) => Ok(Some(secs)),
            Err(_) => text.parse::<Span>().map(|span| Some(span.0)).map_err(|error: Error| error.within(name)),
        }
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ttls(pairs: &[(&str, &str)]) -> Result<TtlTable> {
        Environment::of(pairs).ttls(&Flags::default(), 300)
    }

    #[test]
    fn ttls_by_the_names_that_people_use() {
        assert_eq!(ttls(&[]).unwrap().default_secs, Some(300));
        let table = ttls(&[
            ("GITHUB_CACHE_TTL", "3600"),
            ("CACHE_DEFAULT_TTL", "9"),
            ("GITHUB_TTL_ORG_REPOS", "2h"),
            ("OCTOCACHE_TTL_ISSUES", "60"),
        ])
        .unwrap();
        assert_eq!(table.default_secs, Some(3_600));
        assert_eq!((table.classes["org-repos"], table.classes["issues"]), (7_200, 60));
        let error = ttls(&[("GITHUB_TTL_LANGUAGES", "soon")]).unwrap_err().to_string();
        assert!(error.starts_with("GITHUB_TTL_LANGUAGES: `soon`"), "{error}");
    }

    #[test]
    fn switches() {
        let mode = |name, value| Environment::of(&[(name, value)]).mode();
        assert_eq!(mode("GITHUB_NO_CACHE", "true"), Some(Mode::NoStore));
        assert_eq!(mode("GITHUB_CACHE_ENABLED", "0"), Some(Mode::NoStore));
        assert_eq!(mode("GITHUB_FORCE_REFRESH", "1"), Some(Mode::Reload));
        assert_eq!(mode("GITHUB_NO_CACHE", "false"), None);
    }

    #[test]
    fn the_readme_explains_every_name() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        for name in ACCEPTED.iter().flat_map(|(names, _)| names.split(", ")) {
            assert!(readme.contains(&format!("`{name}`")), "{name}");
        }
    }
}
