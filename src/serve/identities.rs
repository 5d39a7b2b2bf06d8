//! Whom clients are: each token has a cache and a budget of its own, over one store and one pool of
//! connections.
//!
//! Knows: which token gets which partition, and how many identities are kept. Does not know: HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use quick_cache::sync::Cache as Table;
use serde::Serialize;

use crate::cache::{Behind, Cache};
use crate::clock::{Clock, Timestamp};
use crate::github::{GitHub, Identity as As, Options, Wire, over_http};
use crate::partition::Partition;
use crate::policy::Ttls;
use crate::request::Api;
use crate::share::Share;
use crate::stack::Stack;
use crate::stats::Stats;
use crate::token::Token;
use crate::upstream::RateLimit;

/// Identities that are kept; who was not seen for longest goes.
const MAX_IDENTITIES: usize = 1_000;

/// An identity that was not used for this long goes, too: job tokens end within a day, limits within an hour.
const KEPT_UNUSED_SECS: i64 = 2 * 3_600;

/// One identity: its view of the store, and its account at GitHub.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) cache: Arc<Cache>,
    pub(super) github: Arc<GitHub>,
    /// When a connection was last found to be theirs, in seconds since 1970.
    used_at: AtomicI64,
}

/// What identities are made of.
#[derive(Debug)]
pub struct Common {
    /// The API.
    pub api: Api,
    /// How GitHub is reached; the identity in it is this server's own.
    pub options: Options,
    /// The partition of that identity.
    pub partition: Partition,
    /// Lifetimes.
    pub ttls: Ttls,
    /// The store, with memory over it.
    pub stack: Arc<Stack>,
    /// The time.
    pub clock: Clock,
    /// What lies beyond this machine.
    pub share: Option<Arc<Share>>,
    /// Whether requests without a token are signed with this server's own.
    pub lend: bool,
}

/// What is left of a limit, and whose it is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Account {
    /// `own`, `public`, or `client` for the one of them that has least left.
    pub(super) kind: &'static str,
    #[serde(flatten)]
    pub(super) limit: RateLimit,
    /// Nothing is sent before this time.
    pub(super) blocked_until: Option<Timestamp>,
}

/// All identities.
#[derive(Debug)]
pub(super) struct Identities {
    common: Common,
    wire: Arc<dyn Wire>,
    stats: Arc<Stats>,
    behind: Behind,
    own: Arc<Identity>,
    public: Arc<Identity>,
    known: Table<String, Arc<Identity>>,
}

impl Identities {
    /// Over HTTP, or over another wire.
    pub(super) fn new(mut common: Common, wire: Option<Arc<dyn Wire>>) -> Self {
        // Clients poll themselves while GitHub is still computing (202).
        common.options.not_ready_pauses.clear();
        let wire = wire.unwrap_or_else(|| over_http(&common.options));
        let (stats, behind) = (Arc::<Stats>::default(), Behind::default());
        let make = |options: Options, partition| Self::make(&common, &wire, &stats, &behind, options, partition);
        let own = make(common.options.clone(), common.partition.clone());
        let public =
            make(Options { identity: As::Public, entity: None, ..common.options.clone() }, Partition::public());
        Self { known: Table::new(MAX_IDENTITIES), own, public, wire, stats, behind, common }
    }

    fn make(
        common: &Common,
        wire: &Arc<dyn Wire>,
        stats: &Arc<Stats>,
        behind: &Behind,
        options: Options,
        partition: Partition,
    ) -> Arc<Identity> {
        let github = Arc::new(GitHub::over(wire.clone(), options, common.clock.clone()));
        let cache = Cache::new(
            common.api.clone(),
            partition,
            common.stack.clone(),
            github.clone(),
            common.ttls.clone(),
            common.clock.clone(),
        );
        let cache = cache.resident(stats.clone(), behind.clone()).with_share(common.share.clone());
        let used_at = AtomicI64::new(common.clock.now().secs());
        Arc::new(Identity { cache: Arc::new(cache), github, used_at })
    }

    /// Who has no token: nobody, or us.
    pub(super) fn nobody(&self) -> Arc<Identity> {
        if self.common.lend { self.own.clone() } else { self.public.clone() }
    }

    /// This server's own identity.
    pub(super) fn own(&self) -> &Cache {
        &self.own.cache
    }

    /// Nobody, whoever we are.
    pub(super) fn public(&self) -> Arc<Identity> {
        self.public.clone()
    }

    /// Whose view a token gives.
    pub(super) fn of_token(&self, token: &Token) -> Arc<Identity> {
        let digest = token.digest();
        if let As::Token(own) = &self.common.options.identity
            && own.digest() == digest
        {
            return self.own.clone();
        }
        if let Some(known) = self.known.get(&digest) {
            known.used_at.store(self.common.clock.now().secs(), Ordering::Relaxed);
            return known;
        }
        let options = Options { identity: As::Token(token.clone()), entity: None, ..self.common.options.clone() };
        let made = Self::make(&self.common, &self.wire, &self.stats, &self.behind, options, Partition::token(token));
        self.known.insert(digest, made.clone());
        made
    }

    /// What all of them share.
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// Waits for everything that is still to be written, and writes what was only noted.
    pub(super) async fn drained(&self) {
        self.behind.drained().await;
        self.own.cache.shared().await;
        self.flush();
    }

    /// Counters of all of them.
    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// All that are known.
    pub(super) fn all(&self) -> Vec<Arc<Identity>> {
        let known = self.known.iter().map(|(_, identity)| identity);
        known.chain([self.own.clone(), self.public.clone()]).collect()
    }

    /// Lets go of those whom no connection has been for long.
    pub(super) fn expire(&self) {
        let since = self.common.clock.now().secs() - KEPT_UNUSED_SECS;
        let stays = |one: &Arc<Identity>| one.used_at.load(Ordering::Relaxed) >= since || Arc::strong_count(one) > 1;
        self.known.retain(|_, identity| stays(identity));
    }

    /// Tokens of clients that are known.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// What is left of all limits that live answers told of.
    pub(super) fn accounts(&self) -> Vec<Account> {
        let of = |kind, identity: &Identity| {
            let limits = identity.github.limits().into_iter();
            limits.map(move |(limit, blocked_until)| Account { kind, limit, blocked_until })
        };
        let mut accounts: Vec<Account> = of("own", &self.own).chain(of("public", &self.public)).collect();
        let mut clients: BTreeMap<String, Account> = BTreeMap::new();
        for account in self.known.iter().flat_map(|(_, identity)| of("client", &identity).collect::<Vec<_>>()) {
            match clients.get(&account.limit.resource) {
                Some(least) if least.limit.remaining <= account.limit.remaining => {}
                _ => drop(clients.insert(account.limit.resource.clone(), account)),
            }
        }
        accounts.extend(clients.into_values());
        accounts
    }

    /// Writes what was only noted in memory: statistics, freshenings, last uses.
    pub(super) fn flush(&self) {
        self.common.stack.flush();
        let sent = self.common.options.tally.now().sent;
        self.stats.flush(self.common.stack.dir(), u32::try_from(sent).unwrap_or(u32::MAX));
    }
}
