//! Invalidation (A15): times before which entries of a scope must be revalidated, or are gone.
//!
//! Knows: the list, and how it is compared with a request. Does not know: entries.
//! Nothing is hunted down: whoever asks compares, so it works for loose files, bundles and
//! remote tiers alike.
//!
//! A time that lies ahead is a suspicion: GitHub announces a change before all of its answers show
//! it, so a 304 of the next minute proves little. Until then, what the scope covers counts as fresh
//! from one look to the next (`LOOKS_SECS`), and is looked at for good when the time has come.

mod written;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::alias::Aliases;
use crate::clock::Timestamp;
use crate::policy::CutoffTimes;
use crate::tag::{Scope, Subject, Tag};
pub use written::Unchecked;

/// GitHub's own answers may lag behind its events by so much; what changed is suspect for as long.
pub const SUSPECT_SECS: u64 = 60;

/// When what is suspect is looked at again, in seconds after the change; the last time is when the
/// suspicion ends.
const LOOKS_SECS: [u64; 3] = [0, 2, 10];

/// More scopes than this are widened: to repositories, to owners, to everything.
pub const MAX_CUTOFFS: usize = 1_000;

/// The largest list that is read.
pub const MAX_BYTES: usize = 1 << 20;

/// What a cutoff means for an entry before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutoffMode {
    /// Validated at or before: revalidate.
    Revalidate,
    /// Fetched at or before: absent, and dropped by the next pack.
    Gone,
}

/// When no suspicion is left: for who asks what a list means in the end.
pub const IN_THE_END: Timestamp = Timestamp::from_secs(i64::MAX);

/// One invalidation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cutoff {
    /// What it covers.
    pub scope: Scope,
    /// From when.
    pub at: Timestamp,
    /// What it means.
    pub mode: CutoffMode,
}

impl Cutoff {
    /// Whether its time is later than any clock that is right could have written by `now`.
    pub fn is_from_the_future(&self, now: Timestamp) -> bool {
        self.at > now.plus(SUSPECT_SECS)
    }

    /// The same, no later than that.
    #[must_use]
    pub fn believed_at(self, now: Timestamp) -> Self {
        if self.is_from_the_future(now) { Self { at: now, ..self } } else { self }
    }

    /// The same, and what it covers under other names; of what is gone, by number, too. To revalidate, pages by number need
    /// no twin: they may be of any name.
    pub fn with_twins(&self, aliases: &Aliases) -> Vec<Self> {
        let twins = self.scope.twins(aliases).into_iter();
        let needed = twins.filter(|twin| self.mode == CutoffMode::Gone || !twin.is_by_number());
        std::iter::once(self.clone()).chain(needed.map(|scope| Self { scope, ..*self })).collect()
    }

    /// The time before which an entry is outdated as of `now`: its own, or the last look before it.
    pub fn effective(&self, now: Timestamp) -> Timestamp {
        if self.at <= now {
            return self.at;
        }
        let changed = self.at.minus(SUSPECT_SECS);
        let looks = LOOKS_SECS.map(|secs| changed.plus(secs));
        // One that lies further ahead comes from a clock ahead of ours: nothing is fresh.
        looks.into_iter().rfind(|look| *look <= now).unwrap_or(now)
    }
}

/// All invalidations of a store or bundle: those about one repository by its name in lower case or its number,
/// since a look-up is about one, and the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cutoffs {
    by_repo: BTreeMap<String, Vec<Cutoff>>,
    others: Vec<Cutoff>,
}

impl Cutoffs {
    /// What the list says about `subject` at `now`.
    pub fn times(&self, subject: Subject<'_>, now: Timestamp) -> CutoffTimes {
        let mut times = CutoffTimes::default();
        // A number whose name is not known may be of any: what would have to be gone is asked for again.
        let is_by_number = subject.is_nameless();
        let mut consider = |cutoffs: &[Cutoff]| {
            for cutoff in cutoffs {
                let covers = cutoff.scope.covers(subject);
                let may_cover = covers || (is_by_number && cutoff.scope.may_cover(subject));
                if !may_cover {
                    continue;
                }
                let time = match cutoff.mode {
                    CutoffMode::Gone if covers => &mut times.gone,
                    CutoffMode::Gone | CutoffMode::Revalidate => &mut times.revalidate,
                };
                *time = (*time).max(Some(cutoff.effective(now)));
                if cutoff.at > now {
                    times.suspect_until = times.suspect_until.max(Some(cutoff.at));
                }
            }
        };
        consider(&self.others);
        if is_by_number {
            self.by_repo.values().for_each(|cutoffs| consider(cutoffs));
        } else if !self.by_repo.is_empty() {
            let paths = [Some(subject.parts.path.as_str()), subject.listing];
            for repo in paths.into_iter().flatten().filter_map(repo_of_path) {
                consider(self.by_repo.get(&repo).map_or(&[], Vec::as_slice));
            }
        }
        times
    }

    /// Adds one at `now`. Per scope and mode two times are kept: the latest that has come, and the latest that lies ahead. The
    /// second is a suspicion, and says nothing of what happens before it comes.
    pub fn add(&mut self, cutoff: Cutoff, now: Timestamp) {
        self.add_one(cutoff, now);
        if self.len() > MAX_CUTOFFS {
            self.widen(now);
        }
    }

    fn add_one(&mut self, cutoff: Cutoff, now: Timestamp) {
        if cutoff.scope == Scope::All && cutoff.mode == CutoffMode::Gone && cutoff.at <= now {
            // What is absent need not be revalidated.
            self.others.retain(|old| old.at > cutoff.at);
            self.by_repo.values_mut().for_each(|list| list.retain(|old| old.at > cutoff.at));
            self.by_repo.retain(|_, list| !list.is_empty());
        }
        let list = match repo_of(&cutoff.scope) {
            Some(repo) => self.by_repo.entry(repo).or_default(),
            None => &mut self.others,
        };
        let is_ahead = |one: &Cutoff| one.at > now;
        let is_same = |old: &Cutoff| old.scope == cutoff.scope && old.mode == cutoff.mode;
        let mut newest = cutoff.clone();
        // Suspicions whose time has come are among those that have come, too.
        list.retain(|old| {
            let is_joined = is_same(old) && is_ahead(old) == is_ahead(&cutoff);
            if is_joined {
                newest.at = newest.at.max(old.at);
            }
            !is_joined
        });
        list.push(newest);
    }

    /// Too many to keep: the safe direction is to revalidate more than was touched, first all of the
    /// repositories, then all of their owners', then everything. What is gone stays as it is for as
    /// long as there is room.
    fn widen(&mut self, now: Timestamp) {
        let wider: [fn(&Cutoff) -> Option<Scope>; 3] = [
            |cutoff| repo_of(&cutoff.scope).map(|repo| Scope::Tags(vec![tag_of(repo)])),
            |cutoff| match repo_of(&cutoff.scope)?.split_once('/') {
                Some((owner, _)) => Some(Scope::Tags(vec![Tag::Org(owner.into())])),
                None => Some(Scope::All),
            },
            |_| Some(Scope::All),
        ];
        for wider in wider {
            let mut widened = Self::default();
            for cutoff in self.iter() {
                let scope = (cutoff.mode == CutoffMode::Revalidate).then(|| wider(cutoff)).flatten();
                widened.add_one(scope.map_or_else(|| cutoff.clone(), |scope| Cutoff { scope, ..*cutoff }), now);
            }
            *self = widened;
            // Room for more, or the next one would widen again.
            if self.len() <= MAX_CUTOFFS / 2 {
                return;
            }
        }
        let newest = self.iter().map(|cutoff| cutoff.at).max().unwrap_or_default();
        let fold = |mode| Cutoff { scope: Scope::All, at: newest, mode };
        *self = Self { by_repo: BTreeMap::new(), others: vec![fold(CutoffMode::Revalidate), fold(CutoffMode::Gone)] };
    }

    fn len(&self) -> usize {
        self.others.len() + self.by_repo.values().map(Vec::len).sum::<usize>()
    }

    /// Adds all of another list at `now`; the later times win, so an old bundle cannot roll one back.
    pub fn merge(&mut self, other: &Cutoffs, now: Timestamp) {
        for cutoff in other.iter() {
            self.add(cutoff.clone(), now);
        }
    }

    /// Adds what each covers under other names and numbers.
    pub fn add_twins(&mut self, aliases: &Aliases, now: Timestamp) {
        let twins: Vec<Cutoff> =
            self.iter().flat_map(|cutoff| cutoff.with_twins(aliases).into_iter().skip(1)).collect();
        for twin in twins {
            self.add(twin, now);
        }
    }

    /// Forgets what no entry fetched after `oldest` could be touched by.
    pub fn forget_before(&mut self, oldest: Timestamp) {
        self.others.retain(|cutoff| cutoff.at >= oldest);
        self.by_repo.values_mut().for_each(|list| list.retain(|cutoff| cutoff.at >= oldest));
        self.by_repo.retain(|_, list| !list.is_empty());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.others.is_empty() && self.by_repo.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Cutoff> {
        self.others.iter().chain(self.by_repo.values().flatten())
    }

    /// The safe reading of a list that cannot be read: revalidate everything until now.
    pub fn everything(at: Timestamp) -> Self {
        Self::of(vec![Cutoff { scope: Scope::All, at, mode: CutoffMode::Revalidate }], at)
    }

    pub(crate) fn of(cutoffs: impl IntoIterator<Item = Cutoff>, now: Timestamp) -> Self {
        let mut all = Self::default();
        for cutoff in cutoffs {
            all.add(cutoff, now);
        }
        all
    }
}

/// The tag of a repository as [`repo_of`] names it.
fn tag_of(repo: String) -> Tag {
    repo.parse().map_or(Tag::Repo(repo), Tag::RepoId)
}

/// The one repository that a scope is about: its name in lower case, or its number.
fn repo_of(scope: &Scope) -> Option<String> {
    match scope {
        Scope::Tags(tags) => tags.iter().find_map(|tag| match tag {
            Tag::Repo(name) => Some(name.to_ascii_lowercase()),
            Tag::RepoId(id) => Some(id.to_string()),
            Tag::Org(_) | Tag::User(_) | Tag::Family(_) => None,
        }),
        // Only with something behind it: `/repos/o/r` is the beginning of `/repos/o/r2`, too.
        Scope::Prefix(prefix) => {
            let deep = if prefix.starts_with("/repos/") { 3 } else { 2 };
            repo_of_path(prefix).filter(|_| !prefix.starts_with("/networks/") && prefix.matches('/').count() > deep)
        }
        Scope::All | Scope::Key(_) => None,
    }
}

/// The repository whose path it is: its name in lower case, or its number.
fn repo_of_path(path: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("/repositories/") {
        return rest.split('/').next()?.parse::<u64>().ok().map(|id| id.to_string());
    }
    let rest = path.strip_prefix("/repos/").or_else(|| path.strip_prefix("/networks/"))?;
    let mut names = rest.splitn(3, '/');
    let (owner, name) = (names.next()?, names.next()?);
    Some(format!("{owner}/{name}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn cutoff(scope: &str, at: i64, mode: CutoffMode) -> Cutoff {
        Cutoff { scope: scope.parse().unwrap(), at: Timestamp::from_secs(at), mode }
    }

    #[test]
    fn the_latest_time_of_a_scope_counts_and_old_lists_roll_nothing_back() {
        let entry = entry("/repos/O/r", b"{}");
        let (key, parts) = (entry.key(), &entry.parts);
        let (subject, now) = (Subject { key: &key, parts, listing: None }, Timestamp::from_secs(1_000));
        let mut list = Cutoffs::default();
        assert_eq!(list.times(subject, now), CutoffTimes::default());
        list.add(cutoff("repo:o/r", 20, CutoffMode::Revalidate), NOW);
        list.add(cutoff("repo:o/r", 10, CutoffMode::Revalidate), NOW);
        list.add(cutoff("repo:o/x", 90, CutoffMode::Revalidate), NOW);
        list.add(cutoff("/repos/O", 5, CutoffMode::Revalidate), NOW);
        let mut old = Cutoffs::default();
        old.add(cutoff("all", 15, CutoffMode::Gone), NOW);
        list.merge(&old, NOW);
        let secs = |secs| Some(Timestamp::from_secs(secs));
        let want = CutoffTimes { revalidate: secs(20), gone: secs(15), suspect_until: None };
        assert_eq!(list.times(subject, now), want);
        assert_eq!(Cutoffs::decode(&list.encode()).unwrap().as_of(now).encode(), list.encode());
    }

    #[test]
    fn times_from_the_future_are_not_believed() {
        let now = Timestamp::from_secs(1_000_000);
        let mut list = Cutoffs::default();
        list.add(cutoff("all", 253_000_000_000, CutoffMode::Gone), NOW);
        list.add(cutoff("repo:o/r", 1_000_060, CutoffMode::Revalidate), NOW);
        let read = || Cutoffs::decode(&list.encode()).unwrap();
        assert_eq!(read().from_the_future(now), 1);
        let times = |list: &Cutoffs| {
            let mut times: Vec<i64> = list.iter().map(|cutoff| cutoff.at.secs()).collect();
            times.sort_unstable();
            times
        };
        assert_eq!(times(&read().as_of(now)), [1_000_000, 1_000_060]);
        assert_eq!(times(&read().of_bundle(now, Timestamp::from_secs(900_000))), [900_000, 1_000_060]);
        assert_eq!(times(&read().of_bundle(now, Timestamp::from_secs(9_000_000))), [1_000_060]);
        let honest = vec![cutoff("repo:o/r", 5, CutoffMode::Gone)];
        let list = Cutoffs::of(honest, now);
        assert_eq!(Cutoffs::decode(&list.encode()).unwrap().as_of(now), list);
    }

    #[test]
    fn all_that_is_gone_makes_earlier_ones_superfluous() {
        let mut list = Cutoffs::default();
        for (scope, at) in [("repo:o/r", 5), ("family:issues", 10), ("repo:o/x", 11)] {
            list.add(cutoff(scope, at, CutoffMode::Revalidate), NOW);
        }
        list.add(cutoff("all", 10, CutoffMode::Gone), NOW);
        let left: Vec<String> = list.iter().map(|cutoff| cutoff.scope.to_string()).collect();
        assert_eq!(left, ["all", "repo:o/x"]);
    }

    #[test]
    fn what_is_suspect_is_looked_at_again_until_the_time_has_come() {
        let suspect = cutoff("repo:o/r", 1_060, CutoffMode::Revalidate);
        let effective = |now| suspect.effective(Timestamp::from_secs(now)).secs();
        let seen: Vec<i64> = [1_000, 1_001, 1_002, 1_009, 1_010, 1_059, 1_060, 5_000].map(effective).into();
        assert_eq!(seen, [1_000, 1_000, 1_002, 1_002, 1_010, 1_010, 1_060, 1_060]);
        assert_eq!(effective(900), 900, "from a clock ahead of ours: nothing is fresh");
    }

    #[test]
    fn scopes_of_a_repository_are_found_by_its_paths_and_by_no_others() {
        let mut list = Cutoffs::default();
        for scope in ["repo:o/r+family:issues", "/repos/o/r/issues/7", "/repos/o/r"] {
            list.add(cutoff(scope, 20, CutoffMode::Revalidate), NOW);
        }
        let touched = |path: &str, listing: Option<&str>| {
            let entry = entry(path, b"{}");
            let subject = Subject { key: &entry.key(), parts: &entry.parts, listing };
            list.times(subject, Timestamp::from_secs(1_000)).revalidate.is_some()
        };
        assert!(touched("/repos/o/r/issues/7/comments", None) && touched("/repos/o/r2", None));
        assert!(touched("/repositories/9/issues?page=2", Some("/repos/o/r/issues")));
        assert!(
            !touched("/repos/o/x/issues", None) && !touched("/repositories/9/releases", Some("/repos/o/x/releases"))
        );
        // Whose number that is is not known.
        assert!(touched("/repositories/9/issues?page=2", Some("/repositories/9/issues")));
        assert!(touched("/repositories/9/issues?page=2", None) && touched("/repos/O/R/issues", None));
    }

    #[test]
    fn too_many_are_widened_step_by_step_and_what_is_gone_stays() {
        let mut list = Cutoffs::default();
        list.add(cutoff("repo:o/gone", 1, CutoffMode::Gone), NOW);
        for n in 0..MAX_CUTOFFS {
            list.add(cutoff(&format!("/repos/o/r{}/issues/{n}", n % 7), n as i64, CutoffMode::Revalidate), NOW);
        }
        let scopes = |list: &Cutoffs| list.iter().map(|cutoff| cutoff.scope.to_string()).collect::<Vec<_>>();
        assert_eq!(list.len(), 8);
        assert!(scopes(&list).contains(&"repo:o/r6".to_owned()) && scopes(&list).contains(&"repo:o/gone".to_owned()));
        for n in 0..=MAX_CUTOFFS {
            list.add(cutoff(&format!("repo:p{}/r{n}", n % 3), 5, CutoffMode::Revalidate), NOW);
        }
        assert!(list.len() < MAX_CUTOFFS && scopes(&list).contains(&"org:p2".to_owned()), "{:?}", scopes(&list));
        for n in 0..=2 * MAX_CUTOFFS {
            list.add(cutoff(&format!("/p{n}"), 9_000, CutoffMode::Revalidate), NOW);
        }
        assert!(scopes(&list).contains(&"all".to_owned()) && scopes(&list).contains(&"repo:o/gone".to_owned()));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error() {
        for bytes in [&b"{"[..], b"{\"v\":2,\"cutoffs\":[]}", b"{\"v\":1,\"cutoffs\":[{\"scope\":\"?\"}]}"] {
            assert!(Cutoffs::decode(bytes).is_err());
        }
    }

    #[test]
    fn a_suspicion_hides_no_change_that_is_known() {
        let entry = entry("/repos/o/r", b"{}");
        let (key, parts) = (entry.key(), &entry.parts);
        let subject = Subject { key: &key, parts, listing: None };
        let at = |secs: i64| Timestamp::from_secs(secs);
        let mut list = Cutoffs::default();
        // A delivery at 1,000, an own write at 1,013.
        list.add(cutoff("repo:o/r", 1_060, CutoffMode::Revalidate), at(1_000));
        list.add(cutoff("repo:o/r", 1_013, CutoffMode::Revalidate), at(1_013));
        let seen = |list: &Cutoffs, now| list.times(subject, at(now)).revalidate.map(Timestamp::secs);
        let check = |list: &Cutoffs| {
            assert_eq!(list.len(), 2);
            assert_eq!([1_013, 1_059, 1_060].map(|now| seen(list, now)), [Some(1_013), Some(1_013), Some(1_060)]);
        };
        check(&list);
        check(&Cutoffs::decode(&list.encode()).unwrap().as_of(at(1_014)));
        // A later one joins what has come; a reader of one time per scope takes the later, as before.
        list.add(cutoff("repo:o/r", 1_100, CutoffMode::Revalidate), at(1_100));
        assert_eq!((list.len(), seen(&list, 1_100)), (1, Some(1_100)));
    }

    proptest::proptest! {
        /// Whatever comes, in whatever order and by whatever way: at any time later, what each says is in force.
        #[test]
        fn a_list_is_a_join(facts in proptest::collection::vec((0..40_i64, proptest::bool::ANY), 1..12), split in 0..12_usize) {
            let now = Timestamp::from_secs(1_040);
            let of = |(at, is_suspect): &(i64, bool)| {
                cutoff("repo:o/r", 1_000 + at + if *is_suspect { 60 } else { 0 }, CutoffMode::Revalidate)
            };
            let all: Vec<Cutoff> = facts.iter().map(of).collect();
            let (one, other) = all.split_at(split.min(all.len()));
            let mut joined = Cutoffs::of(one.iter().rev().cloned(), now);
            joined.merge(&Cutoffs::of(other.iter().cloned(), now), now);
            let list = Cutoffs::of(all.iter().cloned(), now);
            proptest::prop_assert_eq!(&list.encode(), &joined.encode());
            proptest::prop_assert!(list.len() <= 2);
            let plain = all.iter().map(|cutoff| cutoff.at).filter(|at| *at <= now).max();
            let ahead = all.iter().map(|cutoff| cutoff.at).filter(|at| *at > now).max();
            let kept = |wanted: Option<Timestamp>| wanted.is_none_or(|at| list.iter().any(|cutoff| cutoff.at == at));
            proptest::prop_assert!(kept(plain) && kept(ahead));
        }
    }
}
