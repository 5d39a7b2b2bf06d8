//! With whom answers are shared, from the plan and the environment.
//!
//! Knows: that the environment comes first, and that a variable that is not set turns sharing off rather
//! than failing: jobs of forks have no secrets. Does not know: how it is done (`share`).

use std::sync::Arc;
use std::time::Duration;

use super::Config;
use crate::clock::Clock;
use crate::error::Result;
use crate::plan::{Address, Plan, SharedRedis};
use crate::share::redis::{self, Redis, Settings};
use crate::share::{Place, Share};
use crate::token::Secret;

/// The variable that holds the address of Redis, where no plan says it.
const REDIS_URL: &str = "OCTOCACHE_REDIS_URL";

impl Config {
    /// The places beyond this machine; `None` when there are none.
    pub fn share(&self, plan: Option<&Plan>, clock: &Clock) -> Result<Option<Arc<Share>>> {
        let read;
        let plan = match (plan, &self.plan_path) {
            (None, Some(path)) if std::fs::read_to_string(path).is_ok_and(|text| text.contains("\nshare:")) => {
                read = Plan::load(path)?;
                Some(&read)
            }
            (plan, _) => plan,
        };
        let Some(settings) = self.redis(plan.and_then(|plan| plan.redis.as_ref())) else { return Ok(None) };
        let places: Vec<Arc<dyn Place>> = vec![Arc::new(Redis::new(&settings, clock.clone())?)];
        Ok(Some(Arc::new(Share::new(places, clock.clone()))))
    }

    fn redis(&self, planned: Option<&SharedRedis>) -> Option<Settings> {
        let url = match (self.environment.get(REDIS_URL), planned.map(|planned| &planned.url)) {
            (Some(url), _) => Some(url),
            (None, Some(Address::Literal(url))) => Some(url.as_str()),
            (None, Some(Address::Variable(name))) => {
                let url = self.environment.get(name);
                if url.is_none() {
                    tracing::info!("{name} is not set; nothing is shared by Redis");
                }
                url
            }
            (None, None) => None,
        };
        let timeout = planned.and_then(|planned| planned.timeout_ms).map(|ms| Duration::from_millis(ms.into()));
        Some(Settings {
            url: Secret::new(url?),
            timeout: timeout.unwrap_or(redis::TIMEOUT),
            read_only: planned.is_some_and(|planned| planned.read_only),
        })
    }

    /// What is shared, for `config show`; addresses may hold passwords.
    pub(super) fn shown_share(&self) -> String {
        let planned = self.plan_path.as_ref().and_then(|path| Plan::load(path).ok()).and_then(|plan| plan.redis);
        match (self.environment.get(REDIS_URL), planned.map(|planned| planned.url)) {
            (Some(_), _) => format!("Redis, from {REDIS_URL}"),
            (None, Some(Address::Literal(url))) => format!("Redis at {url}"),
            (None, Some(Address::Variable(name))) if self.environment.get(&name).is_some() => {
                format!("Redis, from {name}")
            }
            (None, Some(Address::Variable(name))) => format!("nothing: {name} is not set"),
            (None, None) => "nothing".to_owned(),
        }
    }
}
