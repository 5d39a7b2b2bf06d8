//! gh's own configuration, as far as it decides where gh goes.
//!
//! Knows: the files and their form. Does not know: tokens; `hosts.yml` is read for names only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use super::{Environment, host, user_cache_dir};
use crate::error::{Error, Result};
use crate::files;

/// The largest configuration that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The setting that leads gh to a socket.
const KEY: &str = "http_unix_socket";

/// gh's configuration.
#[derive(Debug)]
pub struct GhConfig {
    /// Its directory.
    pub dir: PathBuf,
    /// The text of `config.yml`; empty if there is none.
    text: String,
}

impl GhConfig {
    /// Finds it as gh does.
    pub fn find(environment: &Environment) -> Result<Self> {
        let named = environment.get("GH_CONFIG_DIR").map(PathBuf::from);
        let xdg = || environment.get("XDG_CONFIG_HOME").map(|dir| PathBuf::from(dir).join("gh"));
        let home = || environment.get("HOME").map(|home| PathBuf::from(home).join(".config/gh"));
        let dir = named.or_else(xdg).or_else(home).ok_or_else(|| Error::usage("HOME is not set"))?;
        let read = files::read_bounded(&dir.join("config.yml"), MAX_BYTES)?.unwrap_or_default();
        let text = String::from_utf8(read.to_vec()).unwrap_or_default();
        Ok(Self { dir, text })
    }

    /// Whether it leads to a socket already.
    pub fn has_socket(&self) -> bool {
        self.text.lines().filter_map(|line| line.strip_prefix(KEY)?.trim_start().strip_prefix(':')).any(|value| {
            let value = value.trim();
            !value.is_empty() && !value.starts_with('#') && !matches!(value, "\"\"" | "''")
        })
    }

    /// The same text with the socket in it.
    pub fn with_socket(&self, socket: &Path) -> String {
        let path = serde_json::Value::from(socket.display().to_string());
        let setting = format!("{KEY}: {path}\n");
        let lines = self.text.lines().filter(|line| !line.starts_with(KEY)).chain([setting.as_str()]);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Hosts of APIs other than github.com's that gh knows of, or is told of.
    pub fn other_hosts(&self, environment: &Environment) -> Vec<String> {
        let read = files::read_bounded(&self.dir.join("hosts.yml"), MAX_BYTES).ok().flatten().unwrap_or_default();
        #[allow(clippy::zero_sized_map_values, reason = "the names are wanted, and nothing below them is kept")]
        let hosts: BTreeMap<String, IgnoredAny> = serde_saphyr::from_slice(&read).unwrap_or_default();
        let hosts = hosts.into_keys().chain(environment.get("GH_HOST").map(str::to_owned));
        let apis = hosts.filter_map(|name| Some(host::api(&name).ok()?.host().to_owned()));
        let mut hosts: Vec<String> = apis.filter(|host| host != "api.github.com").collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

/// Places of this user's, whatever the project.
#[derive(Debug)]
pub struct Places {
    /// For sockets and what goes with them; gone after a restart, or not.
    pub runtime: PathBuf,
    /// The store that all projects share.
    pub cache: PathBuf,
    /// Units of the user's service manager.
    pub units: PathBuf,
}

impl Places {
    /// As the XDG base directories say.
    pub fn of(environment: &Environment) -> Result<Self> {
        let missing = || Error::usage("neither HOME nor XDG_CACHE_HOME is set");
        let cache = match environment.first(&["OCTOCACHE_CACHE_DIR", "OCTOCACHE_DIR"]) {
            Some(dir) => PathBuf::from(dir),
            None => user_cache_dir(environment).ok_or_else(missing)?.join("octocache"),
        };
        let runtime = match environment.get("XDG_RUNTIME_DIR") {
            Some(dir) => PathBuf::from(dir).join("octocache"),
            None => user_cache_dir(environment).ok_or_else(missing)?.join("octocache/run"),
        };
        let config = environment.get("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| environment.get("HOME").map(|home| PathBuf::from(home).join(".config")));
        Ok(Self { runtime, cache, units: config.ok_or_else(missing)?.join("systemd/user") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_added_and_nothing_else_changes() {
        let config = |text: &str| GhConfig { dir: PathBuf::new(), text: text.to_owned() };
        let plain = config("version: \"1\"\ngit_protocol: ssh\nhttp_unix_socket:\naliases:\n    co: pr checkout\n");
        assert!(!plain.has_socket() && !config("http_unix_socket: \"\"\n").has_socket() && !config("").has_socket());
        let with = plain.with_socket(Path::new("/run/a b.sock"));
        assert!(with.contains("aliases:\n    co: pr checkout\nhttp_unix_socket: \"/run/a b.sock\"\n"), "{with}");
        assert_eq!(with.matches(KEY).count(), 1);
        assert!(config(&with).has_socket());
    }
}
