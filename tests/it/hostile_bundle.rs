//! What a bundle's index says is checked before it is believed: damage never makes an entry fresh, and a
//! hostile index costs a bounded number of reads.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use octocache::bundle::Bundle;
use octocache::cache::{Ask, Cache};
use octocache::clock::{Clock, Timestamp};
use octocache::cutoff::{Cutoff, CutoffMode};
use octocache::key::{CacheKey, KeyParts};
use octocache::outcome::Outcome;
use octocache::partition::Partition;
use octocache::request::{Api, Request};
use octocache::stack::{Narrow, Stack};
use octocache::tier::TierName;
use octocache::token::Token;

use crate::attacks::{Parts, put_u32, sound, u32_at};
use crate::binary::{BINARY, TargetRun};
use crate::flow::{Fixture, HIT};
use crate::harness::world;

const VALIDATED: usize = 28;
const STORED: usize = 32;
/// When the entries of [`sound`] were stored and validated.
const SOUND_AT: i64 = 1_700_000_000;
const MONTH: u64 = 30 * 86_400;
const PATH: &str = "/repos/acme/repo-0001";
const TOKEN: &str = "ghp_one";

type Build = fn(&Parts) -> Vec<u8>;
/// Both versions of the index that are read.
const VERSIONS: [(&str, Build); 2] = [("1", Parts::build_version_1), ("2", |parts| parts.build())];

fn key_of(path: &str) -> CacheKey {
    KeyParts::of(&Request::get(&Api::github(), path).unwrap(), &Partition::public()).key()
}

fn open(path: &Path, bytes: &[u8]) -> Bundle {
    std::fs::write(path, bytes).unwrap();
    Bundle::open(path).unwrap().unwrap()
}

/// The parts of a bundle, and the number of the record of `key` among them.
fn parts_of(bundle: &Path, key: &CacheKey) -> (Parts, usize) {
    let parts = Parts::of(&std::fs::read(bundle).unwrap());
    let at = parts.entries.iter().position(|entry| entry[..16] == key.as_bytes()[..16]).unwrap();
    (parts, at)
}

/// Where the encoded record of `key` begins in a file, and its length.
fn record_in(file: &[u8], key: &CacheKey, version: &str) -> std::ops::Range<usize> {
    let index = file.len() - u32_at(file, file.len() - 8) as usize;
    let (at, _) = file[index..].windows(16).enumerate().find(|(_, bytes)| **bytes == key.as_bytes()[..16]).unwrap();
    index + at..index + at + if version == "1" { 40 } else { 44 }
}

#[test]
fn a_flipped_bit_in_a_record_never_makes_an_entry_younger() {
    let dir = tempfile::tempdir().unwrap();
    let (good, entries) = sound(dir.path());
    let (path, body) = &entries[7];
    let key = key_of(path);
    for (version, build) in VERSIONS {
        let (mut parts, at) = parts_of(&good, &key);
        // Validated by a 304 after it was stored, as honest indexes say of most entries.
        put_u32(&mut parts.entries[at], VALIDATED, SOUND_AT as u32 + 500);
        let file = build(&parts);
        let hostile = dir.path().join("hostile.tar.zst");
        let honest = open(&hostile, &file).look_up(&key).unwrap().unwrap();
        assert_eq!(honest.validated_at.secs(), SOUND_AT + 500, "version {version} is read, with its times");
        let mut missed = 0;
        for bit in record_in(&file, &key, version).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut flipped = file.clone();
            flipped[bit.0] ^= 1 << bit.1;
            match open(&hostile, &flipped).look_up(&key) {
                Ok(Some(entry)) => {
                    assert!(entry.validated_at.secs() <= SOUND_AT + 500, "version {version}, bit {bit:?}");
                    assert_eq!(entry.body, body.as_bytes());
                }
                Ok(None) | Err(_) => missed += 1,
            }
        }
        assert!(missed > 200 || version == "1", "version {version}: {missed}");
    }
}

#[test]
fn a_flipped_bit_in_the_invalidations_revalidates_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (good, entries) = sound(dir.path());
    let cutoff =
        Cutoff { scope: "repo:o/r7".parse().unwrap(), at: Timestamp::from_secs(SOUND_AT + 9), mode: CutoffMode::Gone };
    let stack = Stack::new(good.parent().unwrap(), Clock::System);
    stack.invalidate(&[cutoff]).unwrap();
    stack.pack(&Narrow::everything(), true).unwrap();
    std::fs::remove_file(stack.dir().join("cutoffs.json")).unwrap();
    let parts = Parts::of(&std::fs::read(&good).unwrap());
    assert!(!parts.cutoffs.is_empty());
    for (version, build) in VERSIONS {
        let mut parts = parts.clone();
        let len = parts.cutoffs.len() as u32 + 4;
        put_u32(&mut parts.head, 20, len);
        let file = build(&parts);
        let hostile = dir.path().join("hostile.tar.zst");
        assert_eq!(
            open(&hostile, &file).cutoffs().unwrap().as_of(Timestamp::from_secs(4_000_000_000)).iter().count(),
            1,
            "version {version}"
        );
        let end = file.len() - 40;
        for byte in end - parts.cutoffs.len()..end {
            let mut flipped = file.clone();
            flipped[byte] ^= 1;
            assert!(open(&hostile, &flipped).cutoffs().is_err(), "version {version}, byte {byte}");
        }
        // In a store, a list that cannot be read means that nothing stored is fresh.
        let mut flipped = file.clone();
        flipped[end - 20] ^= 1;
        std::fs::write(&good, &flipped).unwrap();
        let stack = Stack::new(good.parent().unwrap(), Clock::System);
        let all: Vec<String> = stack.all_cutoffs().iter().map(|cutoff| cutoff.scope.to_string()).collect();
        assert_eq!(all, ["all"], "version {version}");
    }
    assert_eq!(entries.len(), 160);
}

#[test]
fn an_index_of_version_1_is_read_and_saved_as_version_2() {
    let dir = tempfile::tempdir().unwrap();
    let (good, entries) = sound(dir.path());
    std::fs::write(&good, Parts::of(&std::fs::read(&good).unwrap()).build_version_1()).unwrap();
    let stack = Stack::new(good.parent().unwrap(), Clock::System);
    let mut found = stack.look_up(&key_of(&entries[3].0)).unwrap();
    assert_eq!(found.tier, TierName::Bundle);
    let later = Timestamp::from_secs(SOUND_AT + 7_700);
    std::sync::Arc::make_mut(&mut found.entry).validated_at = later;
    assert!(stack.freshen(&found.entry, found.tier));
    stack.pack(&Narrow::everything(), false).unwrap();
    let file = std::fs::read(&good).unwrap();
    assert!(file.windows(8).any(|bytes| bytes == b"OCTOIDX2"));
    let bundle = Bundle::open(&good).unwrap().unwrap();
    assert_eq!(bundle.verify().unwrap().entries, 160);
    assert_eq!(bundle.look_up(&key_of(&entries[3].0)).unwrap().unwrap().validated_at, later);
}

/// A store with one entry in its bundle, whose record is changed a month later.
async fn a_month_later(fx: &Fixture, change: impl Fn(&mut [u8], i64)) -> PathBuf {
    world::organisation(&fx.sim, 2);
    fx.cache(Some(TOKEN)).get(&fx.request(PATH), &Ask::default()).await.unwrap();
    let stack = Stack::new(fx.dir.path().join("store"), fx.clock.clone());
    stack.pack(&Narrow::everything(), true).unwrap();
    fx.clock.advance(MONTH);
    let partition = Partition::token(&Token::new(TOKEN).unwrap());
    let (mut parts, at) = parts_of(&stack.bundle_path(), &KeyParts::of(&fx.request(PATH), &partition).key());
    change(&mut parts.entries[at], fx.clock.now().secs());
    std::fs::write(stack.bundle_path(), parts.build()).unwrap();
    fx.sim.take_counts();
    stack.bundle_path()
}

async fn outcome_of(cache: &Cache, fx: &Fixture) -> Outcome {
    cache.get(&fx.request(PATH), &Ask::default()).await.unwrap().outcome
}

#[tokio::test]
async fn a_time_from_the_future_is_asked_about_once_and_then_put_right() {
    for far in [61, 86_400, u32::MAX] {
        let fx = Fixture::new();
        let bundle = a_month_later(&fx, |record, now| {
            put_u32(record, VALIDATED, if far == u32::MAX { far } else { now as u32 + far });
        })
        .await;
        assert_eq!(outcome_of(&fx.cache(Some(TOKEN)), &fx).await, Outcome::Revalidated, "{far} s ahead");
        assert_eq!(outcome_of(&fx.cache(Some(TOKEN)), &fx).await, HIT, "{far} s ahead");
        assert_eq!(fx.sim.take_counts(), (1, 0));
        // A save keeps what the 304 said, not the time from the future.
        let stack = Stack::new(fx.dir.path().join("store"), fx.clock.clone());
        stack.pack(&Narrow::everything(), false).unwrap();
        assert_eq!(outcome_of(&fx.cache(Some(TOKEN)), &fx).await, HIT, "{far} s ahead");
        fx.clock.advance(3_601);
        assert_eq!(outcome_of(&fx.cache(Some(TOKEN)), &fx).await, Outcome::Revalidated, "{far} s ahead");
        assert!(bundle.exists());
    }
}

#[tokio::test]
async fn what_a_clock_ahead_noted_is_asked_about_once_and_then_put_right() {
    let fx = Fixture::new();
    a_month_later(&fx, |record, now| put_u32(record, VALIDATED, now as u32 - 9_000)).await;
    // Another machine, a year ahead, revalidated the entry: the note beside the bundle says so.
    let ahead = Fixture { clock: Clock::manual(fx.clock.now().plus(365 * 86_400)), ..fx };
    assert_eq!(outcome_of(&ahead.cache(Some(TOKEN)), &ahead).await, Outcome::Revalidated);
    let fx = Fixture { clock: Clock::manual(ahead.clock.now().minus(365 * 86_400)), ..ahead };
    assert_eq!(outcome_of(&fx.cache(Some(TOKEN)), &fx).await, Outcome::Revalidated);
    fx.sim.take_counts();
    assert_eq!(outcome_of(&fx.cache(Some(TOKEN)), &fx).await, HIT);
    let stack = Stack::new(fx.dir.path().join("store"), fx.clock.clone());
    stack.pack(&Narrow::everything(), false).unwrap();
    assert_eq!(outcome_of(&fx.cache(Some(TOKEN)), &fx).await, HIT);
    assert_eq!(fx.sim.take_counts().0, 0);
}

#[tokio::test]
async fn an_honest_later_time_is_believed() {
    let fx = Fixture::new();
    a_month_later(&fx, |record, now| put_u32(record, VALIDATED, now as u32 - 60)).await;
    assert_eq!(outcome_of(&fx.cache(Some(TOKEN)), &fx).await, HIT);
    assert_eq!(fx.sim.take_counts().0, 0);
}

/// As many records as an index may hold: keys in the spread of digests, in or out of order, with the
/// sound entries of `parts` at their places.
fn huge(parts: &Parts, is_sorted: bool) -> Parts {
    const COUNT: u64 = 4 << 20;
    let mut huge = parts.clone();
    let mut records: Vec<[u8; 40]> = (0..COUNT - parts.entries.len() as u64)
        .map(|n| {
            let mut record = [0xFF; 40];
            if is_sorted {
                record[..8].copy_from_slice(&(n << 42).to_be_bytes());
            }
            record
        })
        .collect();
    records.extend(parts.entries.iter().map(|entry| <[u8; 40]>::try_from(&entry[..]).unwrap()));
    if is_sorted {
        records.sort_unstable();
    }
    put_u32(&mut huge.head, 8, records.len() as u32);
    huge.entries = vec![records.concat()];
    huge
}

/// The quickest of some tries: other tests share the machine.
fn quickest<T>(mut attempt: impl FnMut() -> T) -> (Duration, T) {
    let mut once = || {
        let started = Instant::now();
        let out = attempt();
        (started.elapsed(), out)
    };
    let mut best = once();
    for _ in 0..10 {
        let again = once();
        if again.0 < best.0 {
            best = again;
        }
    }
    best
}

#[test]
fn a_hostile_index_of_four_million_records_costs_milliseconds() {
    let dir = tempfile::tempdir().unwrap();
    let (good, entries) = sound(dir.path());
    let parts = Parts::of(&std::fs::read(&good).unwrap());
    let hostile = dir.path().join("bundle.tar.zst");
    for (name, is_sorted) in [("unsorted", false), ("sorted", true)] {
        let mut huge = huge(&parts, is_sorted);
        if is_sorted {
            // A record that makes its entry younger: in version 1 only the digest of 160 MiB could tell.
            let target = key_of(&entries[0].0);
            let at = huge.entries[0].chunks(40).position(|record| record[..16] == target.as_bytes()[..16]).unwrap();
            put_u32(&mut huge.entries[0], at * 40 + VALIDATED, SOUND_AT as u32 + 500);
        }
        std::fs::write(&hostile, huge.build_version_1()).unwrap();
        let (took, found) = quickest(|| {
            let bundle = Bundle::open(&hostile).unwrap().unwrap();
            let look_up = |(path, _): &(String, String)| bundle.look_up(&key_of(path)).ok().flatten();
            entries.iter().take(20).map(look_up).collect::<Vec<_>>()
        });
        assert!(took < Duration::from_millis(if is_sorted { 400 } else { 50 }), "{name}: {took:?} for 20 look-ups");
        if is_sorted {
            assert!(found.iter().all(|entry| entry.as_ref().unwrap().validated_at.secs() == SOUND_AT), "{name}");
        } else {
            assert!(found.iter().all(Option::is_none), "{name}");
        }
        let mut command = Command::new(BINARY);
        command.args(["api", &entries[0].0, "--offline"]).arg("--cache-dir").arg(dir.path());
        command.env_clear().env("HOME", dir.path()).current_dir(dir.path());
        let (_, cost) = TargetRun::measure(command);
        cost.assert_small(name);
    }
}

#[test]
fn a_restore_checks_four_million_records_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (good, _) = sound(dir.path());
    let hostile = dir.path().join("hostile.tar.zst");
    std::fs::write(&hostile, huge(&Parts::of(&std::fs::read(&good).unwrap()), false).build_version_1()).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["bundle", "restore"]).arg(&hostile).arg("--cache-dir").arg(dir.path().join("store"));
    command.env_clear().env("HOME", dir.path()).current_dir(dir.path());
    let (output, cost) = TargetRun::measure(command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("not in ascending order"), "{error}");
    cost.assert_small("restore");
}

#[test]
fn records_that_say_nothing_true_are_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let (good, entries) = sound(dir.path());
    let key = key_of(&entries[0].0);
    let (mut parts, at) = parts_of(&good, &key);
    // Last use, time of storing and short digest serve eviction and notes beside the bundle only.
    parts.entries[at][STORED..40].fill(0xFF);
    std::fs::write(&good, parts.build()).unwrap();
    let stack = Stack::new(good.parent().unwrap(), Clock::System);
    let found = stack.look_up(&key).unwrap();
    assert_eq!((found.entry.fetched_at.secs(), &found.entry.body[..]), (SOUND_AT, entries[0].1.as_bytes()));
    assert!(stack.freshen(&found.entry, found.tier));
    stack.pack(&Narrow::everything(), false).unwrap();
    stack.shrink(1 << 20).unwrap();
    assert_eq!(Bundle::open(&good).unwrap().unwrap().verify().unwrap().broken, 0);
}
