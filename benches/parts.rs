//! The parts of a hit and of a write, in process: `cargo bench --bench parts`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

mod corpus;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use octocache::clock::Clock;
use octocache::entry::Entry;
use octocache::stack::{Narrow, Stack};

fn parts(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(corpus::NOW);
    let entries = corpus::organisation(2_000);
    let five_kb = entries.iter().min_by_key(|entry| entry.body.len().abs_diff(5_000)).unwrap();
    let stack = Stack::new(dir.path().join("loose"), clock.clone());
    for entry in entries.iter().take(500) {
        assert!(stack.put(entry));
    }
    assert!(stack.put(five_kb));
    let (key, parts) = (five_kb.key(), &five_kb.parts);
    criterion.bench_function("key", |bench| bench.iter(|| black_box(parts).key()));
    criterion.bench_function("decode 5 KB", |bench| {
        let bytes = bytes::Bytes::from(five_kb.encode());
        bench.iter(|| Entry::decode(black_box(bytes.clone()), Some(&key)).unwrap());
    });
    // A store of its own for each look-up: what a one-shot process pays.
    criterion.bench_function("loose hit, 5 KB", |bench| {
        bench.iter(|| Stack::new(dir.path().join("loose"), clock.clone()).look_up(black_box(&key)).unwrap());
    });
    let packed = Stack::new(dir.path().join("packed"), clock.clone());
    for entry in &entries {
        assert!(packed.put(entry));
    }
    packed.pack(&Narrow::everything(), true).unwrap();
    criterion.bench_function("bundle hit, store opened", |bench| {
        let mut at = 0;
        bench.iter(|| {
            at = (at + 997) % entries.len();
            Stack::new(dir.path().join("packed"), clock.clone()).look_up(&entries[at].key()).unwrap()
        });
    });
}

criterion_group!(benches, parts);
criterion_main!(benches);
