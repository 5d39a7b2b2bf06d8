//! Which entries may enter a bundle that leaves the machine.
//!
//! Knows: partitions, scopes and private TTL classes. Does not know: saving (`pack`).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::alias::Aliases;
use crate::bundle::Bundle;
use crate::error::Result;
use crate::partition::Partition;
use crate::policy::class::{self, Class};
use crate::tag::{Scope, Subject};

/// What a plan says of the entries that may enter its bundle.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BundleRules {
    /// Only entries in one of these scopes; empty: all.
    pub only: Vec<Scope>,
    /// Never entries in one of these.
    pub never: Vec<Scope>,
    /// Private TTL classes that may enter all the same, by name; see [`Class::private`](class::Class::private).
    pub private: Vec<String>,
}

/// What may enter a bundle. There is no default: a bundle leaves the machine, so each save names the partition
/// whose entries it may carry, or wishes for everything.
#[derive(Debug, Clone)]
pub struct Narrow {
    rules: BundleRules,
    /// `None`: entries of all partitions and classes.
    partition: Option<Partition>,
}

impl Narrow {
    /// Entries of `partition` and of requests without a token, but for private TTL classes.
    pub fn of(partition: Partition) -> Self {
        Self { rules: BundleRules::default(), partition: Some(partition) }
    }

    /// Entries of all partitions and classes: for a bundle that stays where all of them may be read.
    pub fn everything() -> Self {
        Self { rules: BundleRules::default(), partition: None }
    }

    /// The same with a plan's rules.
    #[must_use]
    pub fn with(self, rules: BundleRules) -> Self {
        Self { rules, ..self }
    }

    /// The same rules for what they name under other names and numbers.
    #[must_use]
    pub(super) fn with_twins(&self, aliases: &Aliases) -> Self {
        let widened = |scopes: &[Scope]| {
            let twins = scopes.iter().flat_map(|scope| scope.twins(aliases));
            scopes.iter().cloned().chain(twins).collect()
        };
        let BundleRules { only, never, private } = &self.rules;
        let rules = BundleRules { only: widened(only), never: widened(never), private: private.clone() };
        Self { rules, partition: self.partition.clone() }
    }

    /// Whether an entry may enter; `stored_as` is the class that it was stored with, which knows more than its
    /// path where that is `/graphql`.
    pub(super) fn admits(&self, subject: Subject<'_>, stored_as: &str) -> bool {
        let BundleRules { only, never, private } = &self.rules;
        let within = |scopes: &[Scope]| scopes.iter().any(|scope| scope.covers(subject));
        let theirs = &subject.parts.partition;
        let is_ours = self.partition.as_ref().is_none_or(|own| own == theirs || *theirs == Partition::public());
        let is_private = |class: &Class| class.private && !private.iter().any(|name| name == class.name);
        // A later page is about what its listing is about.
        let by_path = |path: &str| is_private(class::of(path, &subject.parts.query));
        let is_open = self.partition.is_none()
            || !(by_path(&subject.parts.path)
                || subject.listing.is_some_and(by_path)
                || class::by_name(stored_as).is_some_and(is_private));
        // Whose number it is may not be known.
        let may_be_within = |scopes: &[Scope]| scopes.iter().any(|scope| scope.may_cover(subject));
        is_ours && is_open && (only.is_empty() || within(only)) && !within(never) && !may_be_within(never)
    }

    /// Whether it admits every entry.
    pub(super) fn is_everything(&self) -> bool {
        self.partition.is_none() && self.rules.only.is_empty() && self.rules.never.is_empty()
    }
}

/// Entries of `base` that `narrow` does not admit, by the first half of their keys. Those whose metadata cannot be
/// read are among them.
pub(super) fn inadmissible(base: &Bundle, narrow: &Narrow) -> Result<HashSet<[u8; 16]>> {
    let (records, _) = base.check_index()?;
    let mut refused: HashSet<[u8; 16]> = records.iter().map(|record| record.key).collect();
    base.for_each_head(|record, head| {
        let key = head.parts.key();
        let subject = Subject { key: &key, parts: &head.parts, listing: head.listing.as_deref() };
        if narrow.admits(subject, &head.class) {
            refused.remove(&record.key);
        }
    })?;
    Ok(refused)
}
