//! How GitHub is reached, and as whom.
//!
//! Knows: values and their defaults. Does not know: where they were configured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{App, Backoff, Proxy, Reserve, Tally};
use crate::mask::Masker;
use crate::request::Api;
use crate::token::Token;

/// As whom GitHub is asked.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Without a token: 60 requests an hour for this address.
    Public,
    /// With a token.
    Token(Token),
    /// As an App's installation, with tokens that are minted and renewed on the way.
    Installation(App),
}

impl Identity {
    /// Whether tokens are minted for an installation.
    pub fn is_installation(&self) -> bool {
        matches!(self, Identity::Installation(_))
    }
}

/// How GitHub is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where.
    pub api: Api,
    /// As whom.
    pub identity: Identity,
    /// Through what.
    pub proxy: Proxy,
    /// Until a connection stands, TLS included.
    pub connect_timeout: Duration,
    /// Until the first or next bytes of an answer.
    pub read_timeout: Duration,
    /// Until an answer is complete.
    pub total_timeout: Duration,
    /// Requests that may go out in the life of this value.
    pub max_requests: Option<u32>,
    /// Requests under way at once; at most [`MAX_CONCURRENCY`](super::MAX_CONCURRENCY).
    pub concurrency: usize,
    /// The share of the limit that warming leaves to others.
    pub reserve: Option<Reserve>,
    /// How failures and limits are waited out.
    pub backoff: Backoff,
    /// Where processes of this machine tell each other of limits; each for itself without it.
    pub limits_dir: Option<PathBuf>,
    /// What GitHub counts as one: a repository for its jobs' tokens. By default the token or
    /// installation itself.
    pub entity: Option<String>,
    /// Pauses before each further attempt while GitHub is still computing (202), as far as `backoff` allows; none for clients
    /// that poll themselves.
    pub not_ready_pauses: Vec<Duration>,
    /// Where it is counted what is sent and waited for; clones of these options share it.
    pub tally: Arc<Tally>,
    /// Where tokens are registered, minted ones included; clones of these options share it.
    pub masker: Masker,
}

impl Options {
    /// Usual time-outs and pauses, no proxy, no bound.
    pub fn new(api: Api, token: Option<Token>) -> Self {
        let masker = Masker::default();
        if let Some(token) = &token {
            token.register(&masker);
        }
        Self {
            api,
            identity: token.map_or(Identity::Public, Identity::Token),
            proxy: Proxy::default(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_mins(2),
            max_requests: None,
            concurrency: super::CONCURRENCY,
            reserve: None,
            backoff: Backoff::default(),
            limits_dir: None,
            entity: None,
            not_ready_pauses: [1, 2, 4].map(Duration::from_secs).to_vec(),
            tally: Arc::default(),
            masker,
        }
    }
}

impl Options {
    /// What GitHub counts as one, by name.
    pub(super) fn entity(&self) -> String {
        match (&self.entity, &self.identity) {
            (Some(entity), _) => entity.clone(),
            (None, Identity::Public) => "public".to_owned(),
            (None, Identity::Token(token)) => token.digest(),
            (None, Identity::Installation(app)) => format!("installation:{}", app.installation),
        }
    }
}
