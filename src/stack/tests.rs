//! Saving, reading back and making room.

use std::fs;
use std::time::{Duration, SystemTime};

use super::*;
use crate::bundle::Bundle;
use crate::clock::Timestamp;
use crate::cutoff::{Cutoff, CutoffMode};
use crate::entry::tests::entry;
use crate::policy::CutoffTimes;
use crate::tag::{Scope, Subject};

fn store() -> (tempfile::TempDir, Stack) {
    let dir = tempfile::tempdir().unwrap();
    let stack = at(dir.path());
    (dir, stack)
}

fn at(dir: &Path) -> Stack {
    Stack::new(dir, Clock::manual(Timestamp::from_secs(1_700_000_100)))
}

fn body(n: usize) -> Vec<u8> {
    format!("{{\"id\":{n},\"text\":\"{}\"}}", "lorem ipsum ".repeat(n % 50)).into_bytes()
}

fn fill(stack: &Stack, range: std::ops::Range<usize>) {
    for n in range {
        assert!(stack.put(&entry(&format!("/repos/o/r{n}"), &body(n))));
    }
}

fn written(saved: Saved) -> (&'static str, usize, crate::bundle::Totals) {
    match saved {
        Saved::Written { how, absorbed, totals, .. } => (how, absorbed, totals),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pack_absorbs_and_answers_in_place() {
    let (dir, stack) = store();
    fill(&stack, 0..500);
    let (how, absorbed, totals) = written(stack.pack(&Narrow::everything(), false).unwrap());
    assert_eq!((how, absorbed, totals.entries, totals.generation), ("repack", 500, 500, 1));
    assert!(stack.disk().keys().is_empty());
    let reader = at(dir.path());
    for n in 0..500 {
        let wanted = entry(&format!("/repos/o/r{n}"), &body(n));
        let found = reader.look_up(&wanted.key()).unwrap();
        assert_eq!((&*found.entry, found.tier), (&wanted, TierName::Bundle));
    }
    assert!(reader.look_up(&entry("/repos/o/none", b"{}").key()).is_none());
    assert_eq!(reader.pack(&Narrow::everything(), false).unwrap(), Saved::Unchanged);
    let verified = Bundle::open(&reader.bundle_path()).unwrap().unwrap().verify().unwrap();
    assert_eq!((verified.entries, verified.broken), (500, 0));
}

#[test]
fn packing_is_no_use_and_leaves_no_loose_twin() {
    let dir = tempfile::tempdir().unwrap();
    // Long after the files were written, so that a look-up would renew their last use.
    let later = Stack::new(dir.path(), Clock::manual(Timestamp::from_secs(4_000_000_000)));
    fill(&later, 0..20);
    assert_eq!(written(later.pack(&Narrow::everything(), false).unwrap()).1, 20);
    assert!(later.disk().keys().is_empty());
}

#[test]
fn the_same_entries_and_history_give_the_same_bytes() {
    let pack = || {
        let (_dir, stack) = store();
        fill(&stack, 0..300);
        stack.pack(&Narrow::everything(), false).unwrap();
        fill(&stack, 300..310);
        stack.pack(&Narrow::everything(), false).unwrap();
        fs::read(stack.bundle_path()).unwrap()
    };
    assert!(pack() == pack());
}

#[test]
fn appends_keep_frames_and_supersede_members() {
    let (dir, stack) = store();
    fill(&stack, 0..200);
    stack.pack(&Narrow::everything(), false).unwrap();
    let before = fs::read(stack.bundle_path()).unwrap();
    let again = at(dir.path());
    let mut newer = entry("/repos/o/r7", b"{\"new\":true}");
    newer.fetched_at = newer.fetched_at.plus(90);
    newer.validated_at = newer.fetched_at;
    again.put(&newer);
    let (how, absorbed, totals) = written(again.pack(&Narrow::everything(), false).unwrap());
    assert_eq!((how, absorbed, totals.entries, totals.generation), ("append", 1, 200, 2));
    assert!(totals.raw_dead > 0);
    let after = fs::read(again.bundle_path()).unwrap();
    assert_eq!(before[..4_096], after[..4_096]);
    let reader = at(dir.path());
    assert_eq!(*reader.look_up(&newer.key()).unwrap().entry, newer);
    assert_eq!(Bundle::open(&reader.bundle_path()).unwrap().unwrap().verify().unwrap().broken, 0);
}

#[test]
fn a_304_changes_times_and_no_frame() {
    let (dir, stack) = store();
    fill(&stack, 0..100);
    stack.pack(&Narrow::everything(), false).unwrap();
    let size = fs::metadata(stack.bundle_path()).unwrap().len();
    let reader = at(dir.path());
    let mut found = reader.look_up(&entry("/repos/o/r3", b"").key()).unwrap();
    let entry_now = Arc::make_mut(&mut found.entry);
    entry_now.validated_at = entry_now.validated_at.plus(30);
    assert!(reader.freshen(&found.entry, found.tier));
    let other = at(dir.path());
    assert_eq!(other.look_up(&found.entry.key()).unwrap().entry, found.entry);
    let (how, absorbed, _) = written(other.pack(&Narrow::everything(), false).unwrap());
    assert_eq!((how, absorbed), ("index", 0));
    assert_eq!(fs::metadata(other.bundle_path()).unwrap().len(), size);
    assert_eq!(at(dir.path()).look_up(&found.entry.key()).unwrap().entry, found.entry);
    // A torn or foreign record counts for nothing.
    fs::write(dir.path().join("fresh.log"), [7; 100]).unwrap();
    assert_eq!(at(dir.path()).look_up(&found.entry.key()).unwrap().entry, found.entry);
}

#[test]
fn a_freshened_body_that_the_bundle_does_not_hold_is_stored_loose() {
    let (dir, stack) = store();
    fill(&stack, 0..10);
    stack.pack(&Narrow::everything(), false).unwrap();
    let reader = at(dir.path());
    let other = entry("/repos/o/r3", b"{\"another\":\"body\"}");
    assert!(reader.freshen(&other, TierName::Bundle));
    assert_eq!(reader.disk().keys(), [other.key()]);
}

#[test]
fn many_appends_end_in_a_repack() {
    let (dir, stack) = store();
    fill(&stack, 0..100);
    stack.pack(&Narrow::everything(), false).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..70 {
        let stack = at(dir.path());
        let mut changed = entry("/repos/o/r1", format!("{{\"round\":{round}}}").as_bytes());
        changed.fetched_at = changed.fetched_at.plus(round);
        stack.put(&changed);
        // A child that a test beside this one starts has our lock, too, until it runs its program (flock(2)).
        let mut attempts = (0..1_000).map(|_| stack.pack(&Narrow::everything(), false).unwrap());
        let (how, _, totals) = written(attempts.find(|saved| *saved != Saved::Busy).unwrap());
        assert!(totals.generation <= crate::bundle::MAX_GENERATIONS && totals.entries == 100);
        seen.insert(how);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["append", "repack"]);
}

#[test]
fn cleared_bodies_leave_the_bundle_too() {
    let (dir, stack) = store();
    fill(&stack, 0..50);
    stack.put(&entry("/repos/secret/r", b"{\"body\":\"must go\"}"));
    stack.pack(&Narrow::everything(), false).unwrap();
    let stack = at(dir.path());
    stack.clear(&"repo:secret/r".parse().unwrap()).unwrap();
    let bundle = Bundle::open(&stack.bundle_path()).unwrap().unwrap();
    assert_eq!(bundle.totals().entries, 50);
    assert!(bundle.look_up(&entry("/repos/secret/r", b"").key()).unwrap().is_none());
    stack.clear(&Scope::All).unwrap();
    assert!(!stack.bundle_path().exists() && stack.disk().keys().is_empty());
}

/// A tier that answers everything with one entry.
#[derive(Debug)]
struct One(crate::entry::Entry);

impl Tier for One {
    fn name(&self) -> TierName {
        TierName::Added("one")
    }

    fn look_up(&self, _: &CacheKey) -> Result<Option<crate::entry::Entry>> {
        Ok(Some(self.0.clone()))
    }
}

#[test]
fn an_added_tier_is_asked_last_checked_and_kept_near() {
    let (dir, _) = store();
    let far = entry("/repos/o/far", b"{}");
    let stack = at(dir.path()).with_tier(Box::new(One(far.clone())));
    assert!(stack.look_up(&entry("/repos/o/other", b"{}").key()).is_none(), "another entry than was asked for");
    assert_eq!(stack.look_up(&far.key()).unwrap().tier, TierName::Added("one"));
    assert_eq!(stack.look_up(&far.key()).unwrap().tier, TierName::Disk);
    let mut forged = far;
    forged.body = "{\"forged\":true}".into();
    let elsewhere = tempfile::tempdir().unwrap();
    let stack = at(elsewhere.path()).with_tier(Box::new(One(forged.clone())));
    assert!(stack.look_up(&forged.key()).is_none(), "a body without its digest");
}

#[test]
fn an_invalidation_that_touches_nothing_any_more_is_no_reason_to_save() {
    let (dir, stack) = store();
    fill(&stack, 0..5);
    stack.pack(&Narrow::everything(), false).unwrap();
    let stack = at(dir.path());
    // Everything stored was fetched after this.
    let old = Timestamp::from_secs(1_600_000_000);
    stack.invalidate(&[Cutoff { scope: Scope::All, at: old, mode: CutoffMode::Gone }]).unwrap();
    for _ in 0..2 {
        assert_eq!(at(dir.path()).pack(&Narrow::everything(), false).unwrap(), Saved::Unchanged);
    }
    // One that does is written once.
    stack.clear(&"/repos/o/r1".parse().unwrap()).unwrap();
    assert_eq!(at(dir.path()).pack(&Narrow::everything(), false).unwrap(), Saved::Unchanged);
}

#[test]
fn narrowed_entries_stay_out_of_the_bundle() {
    let (_dir, stack) = store();
    stack.put(&entry("/repos/o/r", b"{}"));
    stack.put(&entry("/orgs/o/audit-log", b"[]"));
    let rules = BundleRules { never: vec!["family:alerts".parse().unwrap()], ..BundleRules::default() };
    let narrow = Narrow::everything().with(rules);
    let (_, absorbed, _) = written(stack.pack(&narrow, false).unwrap());
    assert_eq!((absorbed, stack.disk().keys().len()), (1, 1));
}

#[test]
fn a_broken_bundle_or_cutoff_file_costs_requests_not_truth() {
    let (dir, stack) = store();
    fill(&stack, 0..10);
    stack.pack(&Narrow::everything(), false).unwrap();
    fs::write(stack.bundle_path(), b"not a bundle").unwrap();
    let reader = at(dir.path());
    assert!(reader.look_up(&entry("/repos/o/r1", b"").key()).is_none());
    fill(&reader, 0..5);
    assert_eq!(written(reader.pack(&Narrow::everything(), false).unwrap()).2.entries, 5);
    fs::write(dir.path().join("cutoffs.json"), b"{broken").unwrap();
    let reader = at(dir.path());
    let one = entry("/repos/o/r1", b"");
    let (key, parts) = (one.key(), &one.parts);
    let times = reader.cutoff_times(Subject { key: &key, parts, listing: None });
    assert_eq!(times.revalidate, Some(reader.clock.now()));
}

#[test]
fn cleaning_removes_the_least_recently_used_first() {
    let (_dir, stack) = store();
    fill(&stack, 0..10);
    for (n, key) in stack.disk().keys().into_iter().enumerate() {
        let file = fs::File::options().write(true).open(stack.disk().path(&key)).unwrap();
        let used = 1_600_000_000 + n as u64 * 10_000_000;
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(used)).unwrap();
    }
    let keys = stack.disk().keys();
    let cleaned = stack.clean(Some(1_700_000_100 - 1_635_000_000), None).unwrap();
    assert_eq!(cleaned.removed, 4);
    assert_eq!(stack.disk().keys(), keys[4..]);
    assert_eq!(stack.clean(None, Some(0)).unwrap().removed, 6);
}

#[test]
fn cleaning_reaches_what_is_bundled() {
    for local in [false, true] {
        let (dir, stack) = store();
        fill(&stack, 0..20);
        if local {
            stack.fold().unwrap()
        } else {
            stack.pack(&Narrow::everything(), false).unwrap()
        };
        assert!(stack.disk().keys().is_empty());
        let in_bundles = || -> u32 {
            let now = at(dir.path());
            let tiers = [&now.bundle, &now.local];
            tiers.iter().filter_map(|tier| tier.bundle()).map(|bundle| bundle.totals().entries).sum()
        };
        assert_eq!(in_bundles(), 20);
        // Much later, when one of them is used again; a file's last use is by the machine's clock.
        let later = Stack::new(dir.path(), Clock::manual(Clock::System.now().plus(30 * 86_400)));
        let key = entry("/repos/o/r3", b"").key();
        assert!(later.look_up(&key).is_some());
        later.flush();
        fill(&later, 30..31);
        let cleaned = later.clean(Some(7 * 86_400), None).unwrap();
        assert_eq!((cleaned.removed, in_bundles()), (20, 1), "local: {local}");
        assert!(later.look_up(&key).is_some());
        let cleaned = later.clean(None, Some(0)).unwrap();
        assert_eq!((cleaned.removed, in_bundles()), (1, 0), "local: {local}");
        // While another process saves, it says so.
        let held = later.lock(Wait::No).unwrap();
        assert_eq!(stack.clean(Some(0), None).unwrap().bundle, Some(Saved::Busy));
        drop(held);
    }
}

#[test]
fn invalidations_survive_the_process_the_save_and_the_journey() {
    let (dir, stack) = store();
    fill(&stack, 0..3);
    let at_time = Timestamp::from_secs(1_700_000_050);
    let cutoff = Cutoff { scope: "org:o".parse().unwrap(), at: at_time, mode: CutoffMode::Revalidate };
    stack.invalidate(&[cutoff]).unwrap();
    stack.pack(&Narrow::everything(), false).unwrap();
    assert_eq!(at(dir.path()).all_cutoffs().iter().count(), 1);
    let elsewhere = tempfile::tempdir().unwrap();
    at(elsewhere.path()).restore(&stack.bundle_path()).unwrap();
    assert_eq!(at(elsewhere.path()).all_cutoffs().iter().count(), 1);
}

#[test]
fn a_process_that_stays_sees_what_others_do() {
    let (dir, other) = store();
    let resident = at(dir.path()).with_memory(1 << 20);
    let one = entry("/repos/o/one", b"{\"n\":1}");
    assert!(other.put(&one));
    let find = |entry: &Entry| resident.find(&entry.parts, &entry.key());
    assert_eq!(find(&one).unwrap().tier, TierName::Disk);
    assert_eq!(find(&one).unwrap().tier, TierName::Memory);
    // Folded by another, then found in its bundle, which was not open before.
    let two = entry("/repos/o/two", b"{\"n\":2}");
    other.put(&two);
    other.pack(&Narrow::everything(), false).unwrap();
    assert_eq!(find(&two).unwrap().tier, TierName::Bundle);
    // A later copy of what is in memory is found once memory's is not fresh.
    let newer = Entry { validated_at: one.validated_at.plus(500), ..one.clone() };
    other.put(&newer);
    let held = find(&one).unwrap();
    let found = resident.newer_than(&one.key(), &held, newer.validated_at).unwrap();
    assert_eq!((found.tier, found.entry.validated_at), (TierName::Disk, newer.validated_at));
    // Invalidations of others hold as soon as it has looked again.
    let request = crate::request::Request::get(&crate::request::Api::github(), "/repos/o/one").unwrap();
    let times = |stack: &Stack| stack.at_hand(&request, &Partition::public()).unwrap().1;
    assert_eq!(times(&resident), CutoffTimes::default());
    let cutoff = Cutoff { scope: "repo:o/one".parse().unwrap(), at: one.validated_at, mode: CutoffMode::Revalidate };
    other.invalidate(&[cutoff]).unwrap();
    resident.look_again();
    assert_eq!(times(&resident).revalidate, Some(one.validated_at));
    // What is gone leaves memory at once, and is not written back by what waited to be.
    resident.freshen_soon(&one.key(), &Arc::new(newer), TierName::Memory);
    resident.clear(&Scope::All).unwrap();
    resident.flush();
    assert_eq!(resident.memory_size().1, 0);
    assert!(at(dir.path()).look_up(&one.key()).is_none());
}

#[test]
fn freshenings_wait_in_memory_and_are_written_at_the_next_flush() {
    let (dir, other) = store();
    let (loose, bundled) = (entry("/repos/o/loose", b"{}"), entry("/repos/o/bundled", b"[]"));
    other.put(&bundled);
    other.pack(&Narrow::everything(), false).unwrap();
    other.put(&loose);
    let resident = at(dir.path()).with_memory(1 << 20);
    for entry in [&loose, &bundled] {
        let mut found = resident.find(&entry.parts, &entry.key()).unwrap();
        let fresher = Arc::make_mut(&mut found.entry);
        fresher.validated_at = fresher.validated_at.plus(77);
        resident.freshen_soon(&entry.key(), &found.entry, found.tier);
        assert_eq!(resident.find(&entry.parts, &entry.key()).unwrap().entry, found.entry);
        assert_eq!(at(dir.path()).look_up(&entry.key()).unwrap().entry.validated_at, entry.validated_at);
    }
    resident.flush();
    for entry in [&loose, &bundled] {
        let later = at(dir.path()).look_up(&entry.key()).unwrap();
        assert_eq!(later.entry.validated_at, entry.validated_at.plus(77), "{:?}", later.tier);
    }
    assert!(!at(dir.path()).disk().has(&bundled.key()), "a bundled entry gets a note, not a file");
}

#[test]
fn a_store_that_is_too_large_loses_what_was_not_used_for_longest() {
    let (dir, stack) = store();
    // Bodies that do not compress, so that sizes add up.
    let noise = |n: u64| {
        let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..2_000).flat_map(next).collect::<Vec<u8>>()
    };
    let entries: Vec<Entry> = (0..40).map(|n| entry(&format!("/repos/o/r{n}"), &noise(n))).collect();
    for (n, entry) in entries.iter().enumerate() {
        stack.put(entry);
        let day = Duration::from_secs(86_400 * (10_000 + n as u64 % 20));
        let file = fs::File::options().write(true).open(stack.disk().path(&entry.key())).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + day).unwrap();
    }
    let before = stack.bytes_on_disk();
    assert_eq!(stack.shrink(before).unwrap(), Cleaned::default(), "it fits");
    let max = before / 3;
    let cleaned = stack.shrink(max).unwrap();
    assert!(cleaned.removed > 20 && stack.bytes_on_disk() <= max, "{cleaned:?} {} {max}", stack.bytes_on_disk());
    let reader = at(dir.path()).unobserved();
    let kept: Vec<usize> = (0..40).filter(|n| reader.look_up(&entries[*n].key()).is_some()).collect();
    assert_eq!(kept.len(), 40 - cleaned.removed);
    let oldest_kept = kept.iter().map(|n| n % 20).min().unwrap();
    let youngest_lost = (0..40).filter(|n| !kept.contains(n)).map(|n| n % 20).max().unwrap();
    assert!(oldest_kept >= youngest_lost, "{kept:?}");
}

#[test]
fn a_removal_under_a_clock_that_was_ahead_is_over_once_the_clock_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let right = Timestamp::from_secs(1_700_000_100);
    let ahead = Clock::manual(right.plus(3 * 86_400));
    let stack = Stack::new(dir.path(), ahead.clone()).with_memory(1 << 20);
    stack.clear(&Scope::All).unwrap();
    ahead.advance_millis(-3 * 86_400_000);
    stack.look_again();
    ahead.advance(60);
    let entry = entry("/repos/o/r", b"{}");
    let gone = |stack: &Stack| {
        let subject = Subject { key: &entry.key(), parts: &entry.parts, listing: None };
        stack.cutoff_times(subject).gone
    };
    assert_eq!((gone(&stack), gone(&at(dir.path()))), (Some(right), Some(right)));
}

#[test]
fn equal_bodies_of_many_partitions_are_stored_once() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(Timestamp::from_secs(1_700_000_100)));
    let stack = Stack::new(dir.path(), clock.clone());
    // Nothing in it repeats, as in what is compressed already.
    let digests = (0..3_600_u32).map(|n| crate::cid::Cid::of(&n.to_le_bytes()).to_string());
    let body = format!("[\"{}\"]", digests.collect::<String>());
    let of = |n: usize| {
        let mut one = entry("/repos/o/r/contents", body.as_bytes());
        one.parts.partition = Partition::named(&format!("p{n}")).unwrap();
        one.etag_rule = Some(crate::entry::EtagRule::Github);
        one
    };
    assert!(stack.put(&of(0)));
    let first = stack.bytes_on_disk();
    (1..50).for_each(|n| assert!(stack.put(&of(n))));
    let grown = stack.bytes_on_disk() - first;
    assert!(grown < body.len() as u64 * 3 / 2, "{grown} more than {first}");
    stack.fold().unwrap();
    let bundled = stack.bytes_on_disk();
    assert!(bundled < body.len() as u64 * 4, "{bundled} for 50 of {}", body.len());
    assert_eq!(std::fs::read_dir(dir.path().join("v1/bodies")).unwrap().count(), 0);
    let reader = Stack::new(dir.path(), clock);
    for n in 0..50 {
        let found = reader.look_up(&of(n).key()).unwrap();
        assert!(found.entry.body == body.as_bytes() && found.tier == TierName::Bundle);
    }
}
