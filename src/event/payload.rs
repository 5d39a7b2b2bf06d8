//! A payload, as far as it says what it is about. Everything else in it is passed over unread.
//!
//! Knows: where names, numbers and times stand. Does not know: events' meanings.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use crate::alias::Alias;
use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// GitHub sends at most 25 MB.
pub const MAX_PAYLOAD_BYTES: usize = 26 << 20;

/// What a payload is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Payload {
    /// What happened, where the event has several actions.
    #[serde(deserialize_with = "lenient")]
    pub action: Option<String>,
    /// The repository.
    #[serde(deserialize_with = "lenient")]
    pub repository: Option<Repository>,
    #[serde(deserialize_with = "lenient")]
    organization: Option<Account>,
    #[serde(deserialize_with = "lenient")]
    sender: Option<Account>,
    #[serde(deserialize_with = "lenient")]
    number: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    issue: Option<Object>,
    #[serde(deserialize_with = "lenient")]
    pull_request: Option<Object>,
    #[serde(deserialize_with = "lenient")]
    comment: Option<Object>,
    #[serde(deserialize_with = "lenient")]
    review: Option<Object>,
    #[serde(deserialize_with = "lenient")]
    workflow_run: Option<Object>,
    #[serde(deserialize_with = "lenient")]
    deployment_status: Option<Object>,
    #[serde(deserialize_with = "lenient")]
    changes: Option<Changes>,
    /// Names of all members, as far as the payload was read.
    #[serde(skip)]
    pub(super) members: BTreeSet<String>,
}

/// Names of members that are looked at; no payload of GitHub's has as many.
const MAX_MEMBERS: usize = 100;

/// The names of an object's members.
struct Members(BTreeSet<String>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut names = BTreeSet::new();
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    if names.len() < MAX_MEMBERS {
                        names.insert(name);
                    }
                }
                Ok(Members(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Repository {
    #[serde(deserialize_with = "lenient")]
    id: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    full_name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    owner: Option<Account>,
    #[serde(deserialize_with = "lenient")]
    pushed_at: Option<Time>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Account {
    #[serde(deserialize_with = "lenient")]
    login: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Object {
    #[serde(deserialize_with = "lenient")]
    number: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    updated_at: Option<Time>,
    #[serde(deserialize_with = "lenient")]
    submitted_at: Option<Time>,
}

/// What was before: of a rename, a transfer, a moved issue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Changes {
    #[serde(deserialize_with = "lenient")]
    repository: Option<Renamed>,
    #[serde(deserialize_with = "lenient")]
    owner: Option<Transferred>,
    #[serde(deserialize_with = "lenient")]
    new_repository: Option<Repository>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Renamed {
    #[serde(deserialize_with = "lenient")]
    name: Option<From>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct From {
    #[serde(deserialize_with = "lenient")]
    from: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Transferred {
    #[serde(deserialize_with = "lenient")]
    from: Option<Owner>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Owner {
    #[serde(deserialize_with = "lenient")]
    user: Option<Account>,
    #[serde(deserialize_with = "lenient")]
    organization: Option<Account>,
}

/// A time as text or as seconds; `push` has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Time {
    Secs(i64),
    Text(Timestamp),
}

impl Time {
    fn at(self) -> Timestamp {
        match self {
            Time::Secs(secs) => Timestamp::from_secs(secs),
            Time::Text(at) => at,
        }
    }
}

/// A field of another kind than expected counts as missing: payloads change, and are not ours.
fn lenient<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        As(T),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Either::<T>::deserialize(deserializer)? {
        Either::As(value) => Some(value),
        Either::Other(_) => None,
    })
}

impl Payload {
    /// Reads a payload.
    pub fn read(json: &[u8]) -> Result<Self> {
        if json.len() > MAX_PAYLOAD_BYTES {
            return Err(Error::corrupt("the event's payload is larger than GitHub sends"));
        }
        // A list would pass for an object's fields in their order.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(Error::corrupt("the event's payload is no JSON object"));
        }
        let broken = |cause| Error::corrupt("the event's payload does not parse").because(cause);
        let payload: Self = serde_json::from_slice(json).map_err(broken)?;
        let Members(members) = serde_json::from_slice(json).map_err(broken)?;
        Ok(Self { members, ..payload })
    }

    /// What is known when nothing can be read: the repository.
    pub fn of_repository(full_name: &str) -> Self {
        let repository = Repository { full_name: Some(full_name.to_owned()), ..Repository::default() };
        Self { repository: Some(repository), ..Self::default() }
    }

    /// What is known of a change that somebody asks for.
    pub(super) fn of_change(full_name: &str, action: &str, number: Option<u64>) -> Self {
        Self { action: Some(action.to_owned()), number, ..Self::of_repository(full_name) }
    }

    /// The repository's number with its name, and with the one before a rename or transfer.
    pub fn aliases(&self) -> Vec<Alias> {
        let Some(id) = self.repository.as_ref().and_then(|repository| repository.id) else { return Vec::new() };
        let is_moved = self.changes.as_ref().is_some_and(|changes| changes.new_repository.is_some());
        // A moved issue names another repository.
        let names = ["repo", "other"].into_iter().filter(|name| !is_moved || *name == "repo");
        names.filter_map(|name| Alias::of_repository(id, &self.value(name)?)).collect()
    }

    /// The value of a placeholder.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let login = |account: &Option<Account>| account.as_ref()?.login.clone();
        let repository = self.repository.as_ref();
        let full = || repository?.full_name.clone();
        let before = || {
            let (owner, name) = full()?.split_once('/').map(|(owner, name)| (owner.to_owned(), name.to_owned()))?;
            let changes = self.changes.as_ref()?;
            if let Some(moved) = &changes.new_repository {
                return moved.full_name.clone();
            }
            let from = changes.owner.as_ref().and_then(|owner| owner.from.as_ref());
            let old_owner = from.and_then(|from| login(&from.user).or_else(|| login(&from.organization)));
            let old_name = changes.repository.as_ref().and_then(|renamed| renamed.name.as_ref()?.from.clone());
            (old_owner.is_some() || old_name.is_some())
                .then(|| format!("{}/{}", old_owner.unwrap_or(owner), old_name.unwrap_or(name)))
        };
        match name {
            "repo" => full(),
            "repo-id" => repository?.id.map(|id| id.to_string()),
            "owner" => {
                let of_name = || full()?.split_once('/').map(|(owner, _)| owner.to_owned());
                login(&repository.and_then(|repository| repository.owner.clone()))
                    .or_else(|| login(&self.organization))
                    .or_else(of_name)
            }
            "other" => before(),
            "other-owner" => before()?.split_once('/').map(|(owner, _)| owner.to_owned()),
            "sender" => login(&self.sender),
            "number" => {
                let of = |object: &Option<Object>| object.as_ref()?.number;
                of(&self.issue).or_else(|| of(&self.pull_request)).or(self.number).map(|number| number.to_string())
            }
            _ => None,
        }
    }

    /// When it happened, where a field that GitHub sets at that moment says so.
    pub(super) fn changed_at(&self, event: &str) -> Option<Timestamp> {
        let updated = |object: &Option<Object>| object.as_ref()?.updated_at;
        let time = match event {
            "push" => self.repository.as_ref()?.pushed_at,
            "issues" => updated(&self.issue),
            "issue_comment" | "commit_comment" | "pull_request_review_comment" => updated(&self.comment),
            "pull_request" => updated(&self.pull_request),
            "pull_request_review" => self.review.as_ref()?.submitted_at,
            "workflow_run" => updated(&self.workflow_run),
            "deployment_status" => updated(&self.deployment_status),
            _ => None,
        };
        time.map(Time::at)
    }
}
