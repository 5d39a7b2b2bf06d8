//! Names for everything that can happen to a request; they reach logs, reports and users as they
//! stand here.
//!
//! Knows: the words. Does not know: who prints them.

use serde::Serialize;

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache, fresh; nothing was sent.
    Hit(Proof),
    /// From the cache after GitHub said 304; free of the primary limit when authorised.
    Revalidated,
    /// From another partition's copy, or a guess, after GitHub said 304 to this very token.
    Confirmed,
    /// From GitHub.
    Fetched(Because),
    /// From the cache although stale.
    Stale(StaleReason),
    /// From GitHub, and not stored.
    NotStored(NoStore),
}

/// Why an entry counts as fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It is within its lifetime.
    Lifetime,
    /// The fields of its parent item that it follows from are unchanged (A11).
    Fields,
}

/// Why an entry did not answer by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// There is none (`uri-miss`).
    NotStored,
    /// It is past its lifetime.
    Stale,
    /// It will be before the next tick of a worker.
    SoonStale,
    /// A cutoff says so.
    Invalidated,
    /// The mode says so.
    Mode,
    /// GitHub sent `Cache-Control: no-cache`.
    NoCacheDirective,
    /// The fields of its parent item that it follows from have changed (A11).
    FieldsChanged,
}

/// Why a stale entry answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleReason {
    /// `only-if-cached`.
    Offline,
    /// `force-cache`.
    ForceCache,
    /// It is revalidated behind the answer.
    WhileRevalidate,
    /// A rate limit, or the run's own `max-requests`.
    Limited,
    /// GitHub answered 5xx, or with what is no response to the request.
    ServerError,
    /// No connection, a broken one or a time-out.
    Unreachable,
    /// GitHub is still computing the new one (202).
    NotReady,
}

/// Why an answer was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoStore {
    /// The endpoint describes the moment.
    Endpoint,
    /// GitHub sent `Cache-Control: no-store`.
    Directive,
    /// `no-store` was asked for.
    Mode,
    /// A refusal or an error describes the asker or the moment.
    Status(u16),
    /// 202: still being computed.
    NotReady,
    /// A redirect to another host or of a kind that expires.
    Redirect,
    /// It is a part of the whole, and says so: `X-GitHub-SSO: partial-results`, `incomplete_results`, `truncated`.
    PartialResults,
    /// GraphQL answered with errors.
    GraphqlErrors,
    /// Larger than an entry may be.
    TooLarge,
    /// The response to a token must not become an entry of the partition `public`.
    Identity,
    /// The query carries a credential.
    Credentials,
    /// Another cache between answered with what is stale there.
    StaleElsewhere,
}

impl Outcome {
    /// One word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Hit(_) => "hit",
            Outcome::Revalidated => "revalidated",
            Outcome::Confirmed => "confirmed",
            Outcome::Fetched(_) => "fetched",
            Outcome::Stale(_) => "stale",
            Outcome::NotStored(_) => "not-stored",
        }
    }

    /// How far an answer made of several is from being simply there: the greatest counts.
    pub fn weight(self) -> u8 {
        match self {
            Outcome::Hit(Proof::Lifetime) => 0,
            Outcome::Hit(Proof::Fields) => 1,
            Outcome::Revalidated => 2,
            Outcome::Confirmed => 3,
            Outcome::Fetched(_) => 4,
            Outcome::NotStored(_) => 5,
            Outcome::Stale(_) => 6,
        }
    }

    /// The reason behind the word, where there is one.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Outcome::Hit(Proof::Lifetime) | Outcome::Revalidated | Outcome::Confirmed => None,
            Outcome::Hit(Proof::Fields) => Some("fields-unchanged"),
            Outcome::Fetched(because) => Some(because.as_str()),
            Outcome::Stale(reason) => Some(reason.as_str()),
            Outcome::NotStored(reason) => Some(reason.as_str()),
        }
    }
}

impl Because {
    /// The word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Because::NotStored => "miss",
            Because::Stale => "stale",
            Because::SoonStale => "soon-stale",
            Because::Invalidated => "invalidated",
            Because::Mode => "mode",
            Because::NoCacheDirective => "no-cache",
            Because::FieldsChanged => "fields-changed",
        }
    }
}

impl StaleReason {
    /// The word for reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            StaleReason::Offline => "offline",
            StaleReason::ForceCache => "force-cache",
            StaleReason::WhileRevalidate => "while-revalidate",
            StaleReason::Limited => "limited",
            StaleReason::ServerError => "server-error",
            StaleReason::Unreachable => "unreachable",
            StaleReason::NotReady => "not-ready",
        }
    }
}

impl NoStore {
    /// The word for reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            NoStore::Endpoint => "endpoint",
            NoStore::Directive => "no-store",
            NoStore::Mode => "mode",
            NoStore::Status(_) => "status",
            NoStore::NotReady => "not-ready",
            NoStore::Redirect => "redirect",
            NoStore::PartialResults => "partial-results",
            NoStore::GraphqlErrors => "graphql-errors",
            NoStore::TooLarge => "too-large",
            NoStore::Identity => "identity",
            NoStore::Credentials => "credentials",
            NoStore::StaleElsewhere => "stale-elsewhere",
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
