//! What a plan says beside its queries: store, budget, warming, bundle, sharing.
//!
//! Knows: keys, types and their documentation. Does not know: what any of it means (`plan`).

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::{Site, Text};
use crate::units::{Size, Span};

/// The store.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CacheSpec {
    /// Its directory, relative to the project's root. Default: .cache/github
    #[serde(default)]
    pub dir: Option<String>,
    /// Bytes that the store may take, loose files and bundles together; the least recently used go first.
    #[serde(default)]
    pub max_size: Option<Size>,
}

/// Bounds on what is sent.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BudgetSpec {
    /// Requests that one run may send.
    #[serde(default)]
    pub max_requests: Option<u32>,
    /// What warming leaves of the rate limit to everybody else: requests, or a share such as `10%`.
    /// Default: 10%
    #[serde(default)]
    pub reserve: Option<Site<ReserveSpec>>,
}

/// What warming leaves to others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ReserveSpec(pub Text);

impl JsonSchema for ReserveSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Reserve".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "oneOf": [{ "type": "string", "pattern": "^\\s*([0-9]|[1-9][0-9]|100)\\s*%\\s*$" }, { "type": "integer", "minimum": 0 }],
            "examples": ["10%", 200]
        })
    }
}

/// What `octocache warm` does.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WarmSpec {
    /// When it ticks: minute, hour, day of month, month, day of week, or a name such as `@hourly`.
    #[serde(default)]
    pub schedule: Option<Site<String>>,
    /// The schedule's time zone. Default: UTC
    #[serde(default)]
    pub timezone: Option<String>,
    /// How long after the next tick answers must still be fresh. Default: 30m
    #[serde(default)]
    pub ahead: Option<Span>,
    /// What the plan does not name and nobody has read for so long is left out. Default: 7d
    #[serde(default)]
    pub idle: Option<Span>,
    /// A tick comes up to so much later, so that not everybody asks at the full minute. Default: 30s
    #[serde(default)]
    pub jitter: Option<Span>,
}

/// What may enter the bundle, as scopes: `repo:o/r`, `org:o`, `family:alerts`, `/a/path`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BundleSpec {
    /// Only entries in one of these.
    #[serde(default)]
    pub only: Vec<Site<String>>,
    /// Never entries in one of these.
    #[serde(default)]
    pub never: Vec<Site<String>>,
    /// Private TTL classes that may enter all the same: `alerts`, `runners`, `settings`, `events`. Anyone who can
    /// open a pull request can read a bundle of the default branch.
    #[serde(default)]
    pub private: Vec<Site<String>>,
}

/// Where answers are shared with other machines.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ShareSpec {
    /// A Redis that all of them reach.
    #[serde(default)]
    pub redis: Option<RedisSpec>,
    /// Other machines that take part, without a server between them.
    #[serde(default)]
    pub p2p: Option<P2pSpec>,
    /// An IPFS node that keeps copies for long, sealed with the secret.
    #[serde(default)]
    pub ipfs: Option<IpfsSpec>,
    /// The variable that holds the secret with which copies are sealed: `${OCTOCACHE_SHARE_SECRET}`, the
    /// default. `octocache p2p keygen` makes one.
    #[serde(default)]
    pub secret: Option<Site<String>>,
    /// Whether the token itself is that secret. Only those who have the very same token share then, and
    /// revoking it does not close what was sealed with it: a made secret is better. Default: false
    #[serde(default)]
    pub secret_from_token: Option<Site<bool>>,
}

/// Other machines that take part.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct P2pSpec {
    /// Where `serve --p2p` can be reached by others. Default: /ip4/0.0.0.0/tcp/9100
    #[serde(default)]
    pub listen: Option<Site<String>>,
    /// Peers that are dialled: `/ip4/10.0.0.5/tcp/9100`, `/dns4/cache.example.net/tcp/9100`.
    #[serde(default)]
    pub bootstrap: Vec<Site<String>>,
    /// Whether peers are looked for in the local network. Default: false
    #[serde(default)]
    pub mdns: bool,
    /// Whose answers are shared: `public`, `own` for this machine's own identity, `repo:OWNER/NAME`, a name
    /// given by `--partition`. Default: public
    #[serde(default)]
    pub partitions: Vec<Site<String>>,
    /// TTL classes that are shared. Default: all but alerts, runners and events
    #[serde(default)]
    pub families: Vec<Site<String>>,
    /// Whether public answers of peers are taken while their sender held them fresh, without asking GitHub.
    /// Everything else is asked for in any case, at no charge. Default: false
    #[serde(default)]
    pub trust_public: bool,
    /// Whether this machine announces nothing. Default: false
    #[serde(default)]
    pub read_only: bool,
    /// Peers, by name, whose announcements are taken. Default: all that have the secret
    #[serde(default)]
    pub writers: Vec<Site<String>>,
    /// No copy is waited for longer, in milliseconds. Default: 80
    #[serde(default)]
    pub timeout_ms: Option<Site<u32>>,
}

/// An IPFS node.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IpfsSpec {
    /// The address of its RPC API: `http://127.0.0.1:5001`.
    pub api: Site<String>,
    /// A variable that holds what the API wants to see in `Authorization`: `${OCTOCACHE_IPFS_AUTHORIZATION}`.
    /// It is sent to hosts alone that the environment names in `OCTOCACHE_IPFS_HOSTS`.
    #[serde(default)]
    pub authorization: Option<Site<String>>,
    /// No look-up is waited for longer, in milliseconds. Default: 80
    #[serde(default)]
    pub timeout_ms: Option<Site<u32>>,
}

/// A Redis, or a Redis Cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RedisSpec {
    /// Its address, `redis://host:6379` or `rediss://…` for TLS, or a variable that holds it:
    /// `${OCTOCACHE_REDIS_URL}`. A password belongs into a variable.
    pub url: Site<String>,
    /// No operation is waited for longer, in milliseconds. Default: 50
    #[serde(default)]
    pub timeout_ms: Option<Site<u32>>,
    /// Whether it is only read, never written. Default: false
    #[serde(default)]
    pub read_only: bool,
}
