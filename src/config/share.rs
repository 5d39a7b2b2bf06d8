//! With whom answers are shared, from the plan and the environment.
//!
//! Knows: that the environment comes first, and that a variable that is not set turns sharing off rather
//! than failing: jobs of forks have no secrets. Does not know: how it is done (`share`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use crate::clock::Clock;
use crate::error::{Error, Result};
#[cfg(feature = "p2p")]
use crate::partition::Partition;
use crate::plan::check::is_token_variable;
use crate::plan::{Address, Plan, Shared, SharedIpfs, SharedRedis};
use crate::share::ipfs::{self, Ipfs};
#[cfg(feature = "p2p")]
use crate::share::peers::{self, Peers};
#[cfg(feature = "p2p")]
use crate::share::redis::board::Notes;
use crate::share::redis::{self, Redis};
use crate::share::seal::Group;
use crate::share::{Place, Share};
use crate::stack::Stack;
use crate::token::Secret;

/// The variable that holds the address of Redis, where no plan says it.
const REDIS_URL: &str = "OCTOCACHE_REDIS_URL";

/// The variable that holds the secret with which copies are sealed, where no plan names another.
const SECRET: &str = "OCTOCACHE_SHARE_SECRET";

/// Further variables that a plan may read, separated by commas.
const PLAN_VARS: &str = "OCTOCACHE_PLAN_VARS";

/// Hosts (`HOST:PORT`, separated by commas) to which a plan's `authorization` may be sent.
const IPFS_HOSTS: &str = "OCTOCACHE_IPFS_HOSTS";

/// Where a server is reached by other peers, unless somebody says otherwise.
#[cfg(feature = "p2p")]
const LISTEN: &str = "/ip4/0.0.0.0/tcp/9100";

/// Who was around, in the store's directory.
#[cfg(feature = "p2p")]
pub(crate) const PEERS: &str = "peers.json";

/// Whom earlier processes have met, in the same directory.
const MET: &str = "met.json";

/// The largest such file.
#[cfg(feature = "p2p")]
pub(crate) const MAX_PEERS_BYTES: u64 = 4 << 20;

impl Config {
    /// The places beyond this machine, nearest first; `None` when there are none.
    pub fn share(&self, plan: Option<&Plan>, clock: &Clock, stack: &Arc<Stack>) -> Result<Option<Arc<Share>>> {
        let shared = match plan {
            Some(plan) => plan.share.clone(),
            None => self.planned_share()?,
        };
        let mut places: Vec<Arc<dyn Place>> = Vec::new();
        let settings = self.redis(shared.redis.as_ref());
        let redis = settings.map(|settings| Redis::new(&settings, clock.clone()).map(Arc::new)).transpose()?;
        places.extend(redis.clone().map(|redis| redis as Arc<dyn Place>));
        self.add_peers(&shared, clock, stack, redis, &mut places)?;
        if let Some(settings) = self.ipfs(&shared)? {
            places.push(Arc::new(Ipfs::new(settings, clock.clone())?));
        }
        Ok((!places.is_empty()).then(|| Arc::new(Share::new(places, clock.clone()))))
    }

    /// The file beside a bundle that says whom a run has met, if the plan is to share with peers.
    pub(crate) fn met_beside(&self, plan: Option<&Plan>, bundle: &Path) -> Option<PathBuf> {
        let shared = plan.map_or_else(|| self.planned_share().unwrap_or_default(), |plan| plan.share.clone());
        shared.p2p.map(|_| bundle.with_file_name(MET))
    }

    /// What the plan says of sharing, where it was not loaded as a whole.
    fn planned_share(&self) -> Result<Shared> {
        self.plan_file.as_ref().map_or_else(|| Ok(Shared::default()), |file| Ok(file.destinations()?.share.clone()))
    }

    /// Why a plan may not read the variable `name`, if it may not: it has to be of this program's names, or listed.
    fn refused(&self, name: &str) -> Option<String> {
        let listed = self.environment.get(PLAN_VARS).unwrap_or_default();
        let is_listed = name.starts_with("OCTOCACHE_") || listed.split(',').any(|listed| listed.trim() == name);
        (!is_listed || is_token_variable(name)).then(|| {
            format!("a plan may not read {name}; set {PLAN_VARS}={name}, or use a name that begins with OCTOCACHE_")
        })
    }

    /// Whether the user allows that what the node at `api` wants to see is sent there.
    fn allows_node(&self, api: &str) -> bool {
        let authority = |uri: &http::Uri| {
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
            uri.host().map(|host| format!("{}:{port}", host.to_ascii_lowercase()))
        };
        let Some(node) = api.parse().ok().as_ref().and_then(authority) else { return false };
        let hosts = self.environment.get(IPFS_HOSTS).unwrap_or_default();
        hosts.split(',').any(|host| host.trim().to_ascii_lowercase() == node)
    }

    fn redis(&self, planned: Option<&SharedRedis>) -> Option<redis::Settings> {
        let url = match (self.environment.get(REDIS_URL), planned.map(|planned| &planned.url)) {
            (Some(url), _) => Some(url),
            (None, Some(Address::Literal(url))) => Some(url.as_str()),
            (None, Some(Address::Variable(name))) => self.set(name, "Redis"),
            (None, None) => None,
        };
        Some(redis::Settings {
            url: self.registered(url?),
            timeout: millis(planned.and_then(|planned| planned.timeout_ms)).unwrap_or(redis::TIMEOUT),
            read_only: planned.is_some_and(|planned| planned.read_only),
        })
    }

    fn ipfs(&self, shared: &Shared) -> Result<Option<ipfs::Settings>> {
        let Some(SharedIpfs { api, authorization, timeout_ms }) = &shared.ipfs else { return Ok(None) };
        let Some(group) = self.group(shared, "IPFS")? else { return Ok(None) };
        if authorization.is_some() && !self.allows_node(api) {
            tracing::warn!(
                "nothing is shared by IPFS: its authorization is sent to hosts alone that {IPFS_HOSTS} names, and {api} is \
                 none; set {IPFS_HOSTS}=HOST:PORT"
            );
            return Ok(None);
        }
        let authorization = match authorization {
            Some(name) => match self.set(name, "IPFS") {
                Some(value) => Some(self.registered(value)),
                None => return Ok(None),
            },
            None => None,
        };
        let timeout = millis(*timeout_ms).unwrap_or(ipfs::TIMEOUT);
        Ok(Some(ipfs::Settings { api: api.clone(), authorization, timeout, group: Arc::new(group) }))
    }

    /// A server takes part; a process that comes and goes reaches out to those that are known.
    #[cfg(feature = "p2p")]
    fn add_peers(
        &self,
        shared: &Shared,
        clock: &Clock,
        stack: &Arc<Stack>,
        redis: Option<Arc<Redis>>,
        places: &mut Vec<Arc<dyn Place>>,
    ) -> Result<()> {
        let (standing_file, met_file) = (stack.dir().join(PEERS), stack.dir().join(MET));
        let planned = match (&shared.p2p, &self.takes_part) {
            (None, None) => return Ok(()),
            (planned, _) => planned.clone().unwrap_or_default(),
        };
        let mut bootstrap = planned.bootstrap;
        bootstrap.extend(self.takes_part.iter().flat_map(|part| part.bootstrap.iter().cloned()));
        let mut remembered = remembered(&standing_file);
        remembered.extend(peers::read_met(&met_file));
        let is_alone = bootstrap.is_empty() && remembered.is_empty() && redis.is_none();
        if self.takes_part.is_none() && is_alone {
            return Ok(());
        }
        let Some(group) = self.group(shared, "peers")? else {
            if self.takes_part.is_some() {
                let missing = self.missing_secret(shared).unwrap_or_default();
                return Err(Error::usage(format!("--p2p needs a secret, and {missing}"))
                    .hint("make one with `octocache p2p keygen`, and give it to all who take part"));
            }
            return Ok(());
        };
        let own = |partition: Option<Partition>| partition.unwrap_or_else(|| self.partition.clone());
        let mut partitions: Vec<Partition> = planned.partitions.into_iter().map(own).collect();
        if partitions.is_empty() {
            partitions.push(Partition::public());
        }
        let listen = self
            .takes_part
            .as_ref()
            .map(|part| part.listen.clone().or(planned.listen).unwrap_or_else(|| LISTEN.to_owned()));
        let is_server = self.takes_part.is_some();
        let settings = peers::Settings {
            listen,
            bootstrap,
            remembered,
            mdns: planned.mdns && is_server,
            partitions,
            families: planned.families,
            trust_public: planned.trust_public,
            read_only: planned.read_only,
            writers: planned.writers,
            timeout: millis(planned.timeout_ms).unwrap_or(peers::TIMEOUT),
            board: redis.map(|redis| Arc::new(Notes::new(redis, group.id(), clock.clone())) as Arc<dyn peers::Board>),
            met_file: Some(met_file),
            group: Arc::new(group),
            key_file: is_server.then(|| stack.dir().join("peer.key")),
            standing_file: is_server.then_some(standing_file),
        };
        places.push(Arc::new(Peers::new(settings, stack.clone(), clock.clone())?));
        Ok(())
    }

    #[cfg(not(feature = "p2p"))]
    fn add_peers(
        &self,
        shared: &Shared,
        _: &Clock,
        _: &Arc<Stack>,
        _: Option<Arc<Redis>>,
        _: &mut Vec<Arc<dyn Place>>,
    ) -> Result<()> {
        if shared.p2p.is_none() && self.takes_part.is_none() {
            return Ok(());
        }
        Err(Error::usage("this program was built without peers").hint("build it with the feature `p2p`"))
    }

    /// Those who share what is sealed; `None` when there is no secret.
    fn group(&self, shared: &Shared, what: &str) -> Result<Option<Group>> {
        if shared.secret_from_token {
            return self.group_of_token(what);
        }
        let name = shared.secret.as_deref().unwrap_or(SECRET);
        let Some(secret) = self.set(name, what) else { return Ok(None) };
        Group::read(&self.registered(secret)).map(Some).map_err(|error: Error| error.within(name))
    }

    /// Those who have the same token; that must be asked for, and is told each time.
    fn group_of_token(&self, what: &str) -> Result<Option<Group>> {
        let Some((token, source)) = &self.token else {
            tracing::info!("there is no token to be the secret; nothing is shared by {what}");
            return Ok(None);
        };
        tracing::warn!(
            "the token from {source} is the shared secret (`secret-from-token`): only machines with the same token share, \
             a job's token is another in each job, and what was sealed can be opened with it even when it is revoked; \
             `octocache p2p keygen` makes a secret of its own"
        );
        Group::read(&token.as_passphrase()).map(Some).map_err(|error: Error| error.within("secret-from-token"))
    }

    /// A secret that no output repeats from now on.
    fn registered(&self, text: &str) -> Secret {
        let secret = Secret::new(text);
        secret.register(&self.options.masker);
        secret
    }

    /// The value of a variable that a plan names.
    fn set(&self, name: &str, what: &str) -> Option<&str> {
        if let Some(why) = self.refused(name) {
            tracing::warn!("nothing is shared by {what}: {why}");
            return None;
        }
        let value = self.environment.get(name);
        if value.is_none() {
            tracing::info!("{name} is not set; nothing is shared by {what}");
        }
        value
    }

    /// Why there is no secret, if there is none.
    fn missing_secret(&self, shared: &Shared) -> Option<String> {
        if shared.secret_from_token {
            return self.token.is_none().then(|| "there is no token to be it".to_owned());
        }
        let name = shared.secret.as_deref().unwrap_or(SECRET);
        self.refused(name).or_else(|| self.environment.get(name).is_none().then(|| format!("{name} is not set")))
    }

    /// What is shared, for `config show`; addresses may hold passwords.
    pub(super) fn shown_share(&self) -> String {
        let shared = self.planned_share().unwrap_or_default();
        let is_set = |name: &str| self.environment.get(name).is_some();
        let missing = self.missing_secret(&shared);
        let mut places = Vec::new();
        match (is_set(REDIS_URL), shared.redis.map(|planned| planned.url)) {
            (true, _) => places.push(format!("Redis, from {REDIS_URL}")),
            (false, Some(Address::Literal(url))) => places.push(format!("Redis at {url}")),
            (false, Some(Address::Variable(name))) if self.refused(&name).is_some() => {
                places.push(format!("no Redis: {}", self.refused(&name).unwrap_or_default()));
            }
            (false, Some(Address::Variable(name))) if is_set(&name) => places.push(format!("Redis, from {name}")),
            (false, Some(Address::Variable(name))) => places.push(format!("no Redis: {name} is not set")),
            (false, None) => {}
        }
        if shared.p2p.is_some() {
            places.push(missing.as_ref().map_or_else(|| "peers".to_owned(), |missing| format!("no peers: {missing}")));
        }
        if let Some(SharedIpfs { api, authorization, .. }) = shared.ipfs {
            let missing = missing.or_else(|| {
                let refused = authorization.is_some() && !self.allows_node(&api);
                refused.then(|| format!("{IPFS_HOSTS} does not name {api}"))
            });
            places.push(missing.map_or_else(|| format!("IPFS at {api}"), |missing| format!("no IPFS: {missing}")));
        }
        if places.is_empty() { "nothing".to_owned() } else { places.join("; ") }
    }
}

/// Where a server on this machine is, as far as it was written down.
#[cfg(feature = "p2p")]
fn remembered(file: &std::path::Path) -> Vec<String> {
    let read = crate::files::read_bounded(file, MAX_PEERS_BYTES).ok().flatten();
    let standing: Option<peers::Standing> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(standing) = standing else { return Vec::new() };
    standing.listening.iter().map(|address| format!("{address}/p2p/{}", standing.me)).take(64).collect()
}

fn millis(ms: Option<u32>) -> Option<Duration> {
    ms.map(|ms| Duration::from_millis(ms.into()))
}
