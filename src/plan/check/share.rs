//! Checking what a plan says of sharing.
//!
//! Knows: addresses, and which variables a plan may name for what. Does not know: values of variables.

use super::Checker;
use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::plan::spec::{IpfsSpec, P2pSpec, PlanSpec, RedisSpec, Site};
use crate::plan::{Address, Shared, SharedIpfs, SharedPeers, SharedRedis};
use crate::policy::class;

impl Checker<'_> {
    pub(super) fn share(&self, spec: &PlanSpec) -> Result<Shared> {
        let Some(share) = &spec.share else { return Ok(Shared::default()) };
        let redis = share.redis.as_ref().map(|redis| self.redis(redis)).transpose()?;
        let p2p = share.p2p.as_ref().map(|p2p| self.p2p(p2p)).transpose()?;
        let ipfs = share.ipfs.as_ref().map(|ipfs| self.ipfs(ipfs)).transpose()?;
        let secret = share.secret.as_ref().map(|site| self.variable(site, "secret")).transpose()?;
        if let Some((site, name)) = share
            .ipfs
            .as_ref()
            .and_then(|ipfs| ipfs.authorization.as_ref())
            .zip(ipfs.as_ref().and_then(|ipfs| ipfs.authorization.as_deref()))
            && (secret.as_deref() == Some(name) || NOT_FOR_NODES.contains(&name))
        {
            return Err(self
                .fault(site, format!("`{name}` opens more than this node's API"))
                .hint("use a variable of its own"));
        }
        let from_token = share.secret_from_token.as_ref().filter(|site| site.value);
        match (from_token, &secret) {
            (Some(site), Some(_)) => Err(self
                .fault(site, "the secret comes from a variable and from the token".to_owned())
                .hint("leave out `secret-from-token`; a secret of its own is better")),
            _ => Ok(Shared { redis, p2p, ipfs, secret, secret_from_token: from_token.is_some() }),
        }
    }

    fn redis(&self, redis: &RedisSpec) -> Result<SharedRedis> {
        let url = address(&redis.url.value).map_err(|why| {
            self.fault(&redis.url, why.to_owned())
                .hint("write redis://HOST:6379, or ${OCTOCACHE_REDIS_URL} and set that variable")
        })?;
        if let Address::Variable(name) = &url
            && is_token_variable(name)
        {
            return Err(self.token_variable(&redis.url, name));
        }
        let timeout_ms = self.timeout_ms(redis.timeout_ms.as_ref())?;
        Ok(SharedRedis { url, timeout_ms, read_only: redis.read_only })
    }

    fn p2p(&self, p2p: &P2pSpec) -> Result<SharedPeers> {
        let address = |site: &Site<String>| {
            let text = &site.value;
            if text.starts_with('/') && text.split('/').count() >= 5 {
                return Ok(text.clone());
            }
            Err(self
                .fault(site, format!("`{}` is no address of a peer", text.escape_debug()))
                .hint("it looks like /ip4/10.0.0.5/tcp/9100"))
        };
        let partition = |site: &Site<String>| match site.value.as_str() {
            "own" => Ok(None),
            name => Partition::read_back(name).or_else(|| Partition::named(name).ok()).map(Some).ok_or_else(|| {
                self.fault(site, format!("`{}` is no partition", name.escape_debug()))
                    .hint("write public, own, repo:OWNER/NAME, or the name given by --partition")
            }),
        };
        let family = |site: &Site<String>| {
            class::by_name(&site.value).map(|class| class.name.to_owned()).ok_or_else(|| {
                self.fault(site, format!("`{}` is no TTL class", site.value.escape_debug()))
                    .hint("see docs/ttl.md for all of them")
            })
        };
        Ok(SharedPeers {
            listen: p2p.listen.as_ref().map(address).transpose()?,
            bootstrap: p2p.bootstrap.iter().map(address).collect::<Result<_>>()?,
            mdns: p2p.mdns,
            partitions: p2p.partitions.iter().map(partition).collect::<Result<_>>()?,
            families: p2p.families.iter().map(family).collect::<Result<_>>()?,
            trust_public: p2p.trust_public,
            read_only: p2p.read_only,
            writers: p2p.writers.iter().map(|site| site.value.clone()).collect(),
            timeout_ms: self.timeout_ms(p2p.timeout_ms.as_ref())?,
        })
    }

    fn ipfs(&self, ipfs: &IpfsSpec) -> Result<SharedIpfs> {
        let api = &ipfs.api.value;
        if !(api.starts_with("http://") || api.starts_with("https://")) || api.contains('@') {
            return Err(self
                .fault(&ipfs.api, "the address is none of an IPFS node's API".to_owned())
                .hint("write http://127.0.0.1:5001; what it wants to see in `Authorization` stands apart"));
        }
        let authorization = ipfs.authorization.as_ref().map(|site| self.variable(site, "authorization")).transpose()?;
        Ok(SharedIpfs { api: api.clone(), authorization, timeout_ms: self.timeout_ms(ipfs.timeout_ms.as_ref())? })
    }

    fn timeout_ms(&self, site: Option<&Site<u32>>) -> Result<Option<u32>> {
        match site {
            Some(site) if !(1..=10_000).contains(&site.value) => {
                Err(self.fault(site, format!("{} ms is no time-out from 1 to 10,000 ms", site.value)))
            }
            site => Ok(site.map(|site| site.value)),
        }
    }

    /// The name in `${NAME}`. Anything else may be the secret itself, and is not repeated.
    fn variable(&self, site: &Site<String>, what: &str) -> Result<String> {
        let name = variable(&site.value).ok_or_else(|| {
            self.fault(site, format!("the {what} does not belong into a plan"))
                .hint("write ${OCTOCACHE_NAME} and set that variable")
        })?;
        if is_token_variable(name) { Err(self.token_variable(site, name)) } else { Ok(name.to_owned()) }
    }

    /// No plan reads the variables that hold tokens.
    fn token_variable(&self, site: &Site<String>, name: &str) -> Error {
        self.fault(site, format!("a plan cannot read `{name}`: it holds a token for GitHub"))
            .hint("use a variable of its own, such as ${OCTOCACHE_SHARE_SECRET}")
    }
}

/// Variables that hold tokens, or lead to them.
const TOKEN_VARIABLES: &[&str] = &[
    "GH_TOKEN",
    "GITHUB_TOKEN",
    "GH_ENTERPRISE_TOKEN",
    "GITHUB_ENTERPRISE_TOKEN",
    "OCTOCACHE_TOKEN",
    "OCTOCACHE_TOKEN_FILE",
    "ACTIONS_RUNTIME_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
];

/// What is never told to an IPFS node: it opens what the node keeps, or another place.
const NOT_FOR_NODES: &[&str] = &["OCTOCACHE_SHARE_SECRET", "OCTOCACHE_REDIS_URL"];

/// Whether the variable `name` holds a token. Some systems do not tell the case of variables apart.
pub(crate) fn is_token_variable(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    TOKEN_VARIABLES.contains(&name.as_str()) || name.starts_with("OCTOCACHE_APP_")
}

/// The name in `${NAME}`.
fn variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    fits.then_some(name)
}

/// Reads `${NAME}`, or an address without a password. Errors do not repeat it.
fn address(text: &str) -> Result<Address, &'static str> {
    if text.starts_with("${") {
        let name = variable(text).ok_or("the address names no variable")?;
        return Ok(Address::Variable(name.to_owned()));
    }
    if !(text.starts_with("redis://") || text.starts_with("rediss://")) {
        return Err("the address is none of Redis's");
    }
    if text.contains('@') {
        return Err("an address with a user or a password does not belong into a plan");
    }
    Ok(Address::Literal(text.to_owned()))
}
