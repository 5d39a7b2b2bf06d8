//! Which TTL applies: the class table, and what the user says instead (A4).
//!
//! Knows: the order of overrides. Does not know: where they were written.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::class::{self, Class};

/// How long an answer is fresh, and how long a stale one may stand in for GitHub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The TTL class's name.
    pub class: &'static str,
    /// Fresh for so many seconds after the last validation.
    pub fresh_secs: u64,
    /// Usable for so many seconds more when GitHub cannot answer.
    pub stale_secs: u64,
    /// Whether answers are for the asker's eyes only; see [`Class::private`].
    pub private: bool,
    /// Whether the user or the client set `fresh_secs` for this request, rather than for a class of them: it then holds for
    /// every status.
    pub is_set: bool,
    /// What the client takes at most, in seconds after the last validation (RFC 9111 section 5.2.1.1); a bound, whatever
    /// else is set.
    pub max_age_secs: Option<u64>,
}

impl Lifetime {
    /// The same within a bound of the client's.
    #[must_use]
    pub fn at_most(self, max_age_secs: Option<u64>) -> Self {
        Self { max_age_secs, ..self }
    }
}

/// The table of TTLs in force. Strongest first: `everything` (a flag), the query's own, `classes`,
/// `default` (for what no class knows), the built-in table.
#[derive(Debug, Clone, Default)]
pub struct TtlTable {
    /// Instead of everything else: `--ttl`.
    pub everything_secs: Option<u64>,
    /// By class.
    pub classes: BTreeMap<&'static str, u64>,
    /// For the class `other`.
    pub default_secs: Option<u64>,
    /// How long stale answers may stand in, instead of the class's window.
    pub stale_secs: Option<u64>,
}

impl TtlTable {
    /// The lifetime of answers to `path` and `query`; `own_*` are the query's.
    pub fn lifetime(&self, path: &str, query: &str, own_ttl: Option<u64>, own_stale: Option<u64>) -> Lifetime {
        self.lifetime_of(class::of(path, query), own_ttl, own_stale)
    }

    /// The same for a class that is known.
    pub fn lifetime_of(&self, class: &'static Class, own_ttl: Option<u64>, own_stale: Option<u64>) -> Lifetime {
        let Class { name, fresh_secs, stale_secs, private, .. } = *class;
        let by_table = || {
            let by_default = self.default_secs.filter(|_| name == "other");
            self.classes.get(name).copied().or(by_default).unwrap_or(fresh_secs)
        };
        let set_secs = self.everything_secs.or(own_ttl);
        Lifetime {
            class: name,
            fresh_secs: set_secs.unwrap_or_else(by_table),
            stale_secs: own_stale.or(self.stale_secs).unwrap_or(stale_secs),
            private,
            is_set: set_secs.is_some(),
            max_age_secs: None,
        }
    }
}

/// The table in force, which a process that stays may exchange for another; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ttls(Arc<ArcSwap<TtlTable>>);

impl Ttls {
    /// The table as of now.
    pub fn load(&self) -> impl std::ops::Deref<Target = Arc<TtlTable>> {
        self.0.load()
    }

    /// Puts `table` in force, for all who share it.
    pub fn exchange(&self, table: TtlTable) {
        self.0.store(Arc::new(table));
    }
}

impl From<TtlTable> for Ttls {
    fn from(table: TtlTable) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(table)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_particular_wins() {
        let mut table = TtlTable { default_secs: Some(7), ..TtlTable::default() };
        table.classes.insert("issues", 120);
        let fresh = |table: &TtlTable, path, own| table.lifetime(path, "", own, None).fresh_secs;
        assert_eq!(fresh(&table, "/repos/o/r", None), 3_600);
        assert_eq!(fresh(&table, "/nobody/knows", None), 7);
        assert_eq!(fresh(&table, "/repos/o/r/issues", None), 120);
        assert_eq!(fresh(&table, "/repos/o/r/issues", Some(9)), 9);
        table.everything_secs = Some(0);
        assert_eq!(fresh(&table, "/repos/o/r/issues", Some(9)), 0);
    }
}
