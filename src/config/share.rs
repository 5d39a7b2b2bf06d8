//! With whom answers are shared, from the plan and the environment.
//!
//! Knows: that the environment comes first, and that a variable that is not set turns sharing off rather
//! than failing: jobs of forks have no secrets. Does not know: how it is done (`share`).

use std::sync::Arc;
use std::time::Duration;

use super::Config;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::plan::{Address, Plan, Shared, SharedIpfs, SharedRedis};
use crate::share::ipfs::{self, Ipfs};
use crate::share::redis::{self, Redis};
use crate::share::seal::Group;
use crate::share::{Place, Share};
use crate::token::Secret;

/// The variable that holds the address of Redis, where no plan says it.
const REDIS_URL: &str = "OCTOCACHE_REDIS_URL";

/// The variable that holds the secret with which copies are sealed, where no plan names another.
const SECRET: &str = "OCTOCACHE_SHARE_SECRET";

impl Config {
    /// The places beyond this machine, nearest first; `None` when there are none.
    pub fn share(&self, plan: Option<&Plan>, clock: &Clock) -> Result<Option<Arc<Share>>> {
        let shared = match plan {
            Some(plan) => plan.share.clone(),
            None => self.planned_share()?,
        };
        let mut places: Vec<Arc<dyn Place>> = Vec::new();
        if let Some(settings) = self.redis(shared.redis.as_ref()) {
            places.push(Arc::new(Redis::new(&settings, clock.clone())?));
        }
        if let Some(settings) = self.ipfs(&shared)? {
            places.push(Arc::new(Ipfs::new(settings, clock.clone())?));
        }
        Ok((!places.is_empty()).then(|| Arc::new(Share::new(places, clock.clone()))))
    }

    /// What a plan says that nobody has read yet.
    fn planned_share(&self) -> Result<Shared> {
        match &self.plan_path {
            Some(path) if std::fs::read_to_string(path).is_ok_and(|text| text.contains("\nshare:")) => {
                Ok(Plan::load(path)?.share)
            }
            _ => Ok(Shared::default()),
        }
    }

    fn redis(&self, planned: Option<&SharedRedis>) -> Option<redis::Settings> {
        let url = match (self.environment.get(REDIS_URL), planned.map(|planned| &planned.url)) {
            (Some(url), _) => Some(url),
            (None, Some(Address::Literal(url))) => Some(url.as_str()),
            (None, Some(Address::Variable(name))) => self.set(name, "Redis"),
            (None, None) => None,
        };
        Some(redis::Settings {
            url: Secret::new(url?),
            timeout: millis(planned.and_then(|planned| planned.timeout_ms)).unwrap_or(redis::TIMEOUT),
            read_only: planned.is_some_and(|planned| planned.read_only),
        })
    }

    fn ipfs(&self, shared: &Shared) -> Result<Option<ipfs::Settings>> {
        let Some(SharedIpfs { api, authorization, timeout_ms }) = &shared.ipfs else { return Ok(None) };
        let Some(group) = self.group(shared)? else { return Ok(None) };
        let authorization = match authorization {
            Some(name) => match self.set(name, "IPFS") {
                Some(value) => Some(Secret::new(value)),
                None => return Ok(None),
            },
            None => None,
        };
        let timeout = millis(*timeout_ms).unwrap_or(ipfs::TIMEOUT);
        Ok(Some(ipfs::Settings { api: api.clone(), authorization, timeout, group: Arc::new(group) }))
    }

    /// Those who share what is sealed; `None` when there is no secret.
    fn group(&self, shared: &Shared) -> Result<Option<Group>> {
        let name = shared.secret.as_deref().unwrap_or(SECRET);
        let Some(secret) = self.set(name, "IPFS") else { return Ok(None) };
        Group::read(&Secret::new(secret)).map(Some).map_err(|error: Error| error.within(name))
    }

    fn set(&self, name: &str, what: &str) -> Option<&str> {
        let value = self.environment.get(name);
        if value.is_none() {
            tracing::info!("{name} is not set; nothing is shared by {what}");
        }
        value
    }

    /// What is shared, for `config show`; addresses may hold passwords.
    pub(super) fn shown_share(&self) -> String {
        let shared = self.planned_share().unwrap_or_default();
        let is_set = |name: &str| self.environment.get(name).is_some();
        let mut places = Vec::new();
        match (is_set(REDIS_URL), shared.redis.map(|planned| planned.url)) {
            (true, _) => places.push(format!("Redis, from {REDIS_URL}")),
            (false, Some(Address::Literal(url))) => places.push(format!("Redis at {url}")),
            (false, Some(Address::Variable(name))) if is_set(&name) => places.push(format!("Redis, from {name}")),
            (false, Some(Address::Variable(name))) => places.push(format!("no Redis: {name} is not set")),
            (false, None) => {}
        }
        if let Some(SharedIpfs { api, .. }) = shared.ipfs {
            let secret = shared.secret.as_deref().unwrap_or(SECRET);
            places.push(if is_set(secret) {
                format!("IPFS at {api}")
            } else {
                format!("no IPFS: {secret} is not set")
            });
        }
        if places.is_empty() { "nothing".to_owned() } else { places.join("; ") }
    }
}

fn millis(ms: Option<u32>) -> Option<Duration> {
    ms.map(|ms| Duration::from_millis(ms.into()))
}
