//! Entries in this process's memory, bounded by bytes.
//!
//! Knows: finding an entry by the parts of its key without making the key, and what eviction
//! weighs. Does not know: freshness, files. An entry that is here was verified on its way in.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use http::HeaderMap;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};

use crate::cid::Cid;
use crate::entry::Entry;
use crate::key::{CacheKey, KeyParts};
use crate::partition::Partition;
use crate::policy::class::{self, Class, Place};
use crate::request::{Method, Request};

/// What an entry takes beside its body and texts.
const OVERHEAD_BYTES: u64 = 900;

/// The size of an entry by which room for the first ones is made.
const USUAL_BYTES: u64 = 8 << 10;

/// Smaller bodies are not worth looking for equal ones.
const SHARED_BYTES: usize = 4 << 10;

/// The tier. What was not asked for of late goes first; bodies that many ask for stay.
pub struct MemoryTier {
    /// By a keyed hash of the parts: who finds something compares the parts themselves.
    entries: Cache<u64, Arc<Resident>, Weight, DefaultHashBuilder, Left>,
    hasher: RandomState,
    /// Who has which body: equal ones are held once.
    bodies: Mutex<HashMap<Cid, Weak<Entry>>>,
    puts: AtomicU64,
    replaced: AtomicU64,
    left: Left,
}

/// How many entries went: to make room, or for a newer copy.
#[derive(Debug, Clone, Default)]
struct Left(Arc<AtomicU64>);

impl Lifecycle<u64, Arc<Resident>> for Left {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: u64, _: Arc<Resident>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An entry in memory, with what each look-up would have to find out again.
#[derive(Debug)]
pub struct Resident {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Its key.
    pub key: CacheKey,
    /// Its TTL class.
    pub class: &'static Class,
    /// The class's place among all.
    pub place: Place,
    /// The version of the invalidations that were found not to touch it.
    pub(crate) untouched_by: AtomicU64,
    /// When its last use was noted, in seconds since 1970.
    used_at: AtomicI64,
    /// Whether it has answered since it is here.
    has_answered: AtomicBool,
    /// Its headers as HTTP has them, once somebody wanted them so.
    head: OnceLock<Arc<HeaderMap>>,
}

/// What is looked for: all parts of a key, borrowed.
#[derive(Debug, Hash, PartialEq, Eq)]
pub struct Wanted<'a> {
    method: &'a str,
    host: &'a str,
    path: &'a str,
    query: &'a str,
    accept: &'a str,
    api_version: &'a str,
    body_sha256: Option<Cow<'a, str>>,
    features: &'a str,
    partition: &'a str,
}

impl<'a> Wanted<'a> {
    /// The parts of a request under an identity.
    pub fn of(request: &'a Request, partition: &'a Partition) -> Self {
        Self {
            method: request.method.as_str(),
            host: &request.host,
            path: &request.path,
            query: &request.query,
            accept: &request.accept,
            api_version: &request.api_version,
            body_sha256: match &request.method {
                Method::Graphql(body) => Some(KeyParts::body_digest(body).into()),
                Method::Get | Method::Head | Method::Projected => None,
            },
            features: &request.features,
            partition: partition.as_str(),
        }
    }

    fn of_parts(parts: &'a KeyParts) -> Self {
        Self {
            method: &parts.method,
            host: &parts.host,
            path: &parts.path,
            query: &parts.query,
            accept: &parts.accept,
            api_version: &parts.api_version,
            body_sha256: parts.body_sha256.as_deref().map(Into::into),
            features: &parts.features,
            partition: parts.partition.as_str(),
        }
    }
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<u64, Arc<Resident>> for Weight {
    fn weight(&self, _: &u64, resident: &Arc<Resident>) -> u64 {
        let Entry { parts, headers, body, .. } = &*resident.entry;
        let texts: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        let parts = parts.path.len() + parts.query.len() + parts.accept.len();
        OVERHEAD_BYTES + (body.len() + texts + parts) as u64
    }
}

impl std::fmt::Debug for MemoryTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryTier").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl MemoryTier {
    /// A tier of at most `max_bytes`, the entries' own overhead included.
    pub fn new(max_bytes: u64) -> Self {
        let entries = (max_bytes / USUAL_BYTES).clamp(64, 65_536) as usize;
        let left = Left::default();
        let entries = Cache::with(entries, max_bytes, Weight, DefaultHashBuilder::default(), left.clone());
        let bodies = Mutex::default();
        Self { entries, hasher: RandomState::new(), bodies, puts: AtomicU64::new(0), replaced: AtomicU64::new(0), left }
    }

    /// What is held for `wanted`. This is the hot path: one hash, one comparison, no allocation.
    pub fn get(&self, wanted: &Wanted<'_>) -> Option<Arc<Resident>> {
        let resident = self.entries.get(&self.hash(wanted))?;
        (Wanted::of_parts(&resident.entry.parts) == *wanted).then_some(resident)
    }

    /// The same, for parts.
    pub fn get_by_parts(&self, parts: &KeyParts) -> Option<Arc<Resident>> {
        self.get(&Wanted::of_parts(parts))
    }

    /// Holds `entry`, whose key is `key` and whose last use was noted at `now`.
    pub fn put(&self, key: CacheKey, entry: Arc<Entry>, now: i64) {
        let hash = self.hash(&Wanted::of_parts(&entry.parts));
        let before = self.entries.peek(&hash);
        let replaced = before.is_some();
        let (class, place) = before.filter(|before| before.key == key).map_or_else(
            || {
                let class = class::of(&entry.parts.path, &entry.parts.query);
                (class, class::place(class.name))
            },
            |before| (before.class, before.place),
        );
        let (untouched_by, used_at) = (AtomicU64::new(0), AtomicI64::new(now));
        let has_answered = AtomicBool::new(false);
        let entry = self.with_one_body(entry);
        let resident =
            Resident { entry, key, class, place, untouched_by, used_at, has_answered, head: OnceLock::new() };
        self.entries.insert(hash, Arc::new(resident));
        self.replaced.fetch_add(u64::from(replaced), Ordering::Relaxed);
        self.puts.fetch_add(1, Ordering::Relaxed);
    }

    /// The entry with the body of another one that is held, if that is the same. The bound counts each as if it had its own.
    fn with_one_body(&self, mut entry: Arc<Entry>) -> Arc<Entry> {
        if entry.body.len() < SHARED_BYTES {
            return entry;
        }
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = bodies.get(&entry.cid).and_then(Weak::upgrade)
            && other.body.as_ptr() != entry.body.as_ptr()
            && other.body == entry.body
        {
            Arc::make_mut(&mut entry).body = other.body.clone();
        }
        if bodies.len() >= 2 * self.entries.len() + 64 {
            bodies.retain(|_, entry| entry.strong_count() > 0);
        }
        bodies.insert(entry.cid, Arc::downgrade(&entry));
        entry
    }

    /// Entries that were put in so far, and that went to make room.
    pub fn turnover(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.puts), load(&self.left.0).saturating_sub(load(&self.replaced)))
    }

    /// Drops everything that `doomed` says.
    pub fn forget(&self, doomed: impl Fn(&Resident) -> bool) {
        self.entries.retain(|_, resident| !doomed(resident));
    }

    /// At most `most` of those that are `wanted`.
    pub fn some(&self, most: usize, wanted: impl Fn(&Resident) -> bool) -> Vec<Arc<Resident>> {
        self.entries.iter().map(|(_, resident)| resident).filter(|resident| wanted(resident)).take(most).collect()
    }

    /// Bytes in use, by weight, and entries.
    pub fn size(&self) -> (u64, usize) {
        (self.entries.weight(), self.entries.len())
    }

    fn hash(&self, wanted: &Wanted<'_>) -> u64 {
        self.hasher.hash_one(wanted)
    }
}

impl Resident {
    /// The entry's headers as HTTP has them.
    pub fn head(&self) -> Arc<HeaderMap> {
        self.head.get_or_init(|| Arc::new(self.entry.headers.to_http())).clone()
    }

    /// Whether this is the first time that it answers since it is here.
    pub fn is_first_hit(&self) -> bool {
        !self.has_answered.load(Ordering::Relaxed) && !self.has_answered.swap(true, Ordering::Relaxed)
    }

    /// Whether its last use is to be noted, since `after_secs` have gone by; then it counts as noted.
    pub fn is_used_again(&self, now: i64, after_secs: i64) -> bool {
        let used = self.used_at.load(Ordering::Relaxed);
        now - used > after_secs
            && self.used_at.compare_exchange(used, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;
    use crate::request::Api;

    fn wanted<'a>(request: &'a Request, partition: &'a Partition) -> Wanted<'a> {
        Wanted::of(request, partition)
    }

    #[test]
    fn what_is_put_is_found_by_its_request_and_by_no_other() {
        let memory = MemoryTier::new(1 << 20);
        let one = Arc::new(entry("/repos/o/r?b=1&a=2", b"{}"));
        memory.put(one.key(), one.clone(), 0);
        let api = Api::github();
        let request = Request::get(&api, "/repos/o/r?a=2&b=1").unwrap();
        let public = Partition::public();
        let found = memory.get(&wanted(&request, &public)).unwrap();
        assert_eq!((&found.entry, found.key, found.class.name), (&one, one.key(), "repo"));
        assert!(memory.get_by_parts(&one.parts).is_some());
        let others = [
            (request.clone().accepting("text/html"), public.clone()),
            (request.clone().version("2099-01-01"), public.clone()),
            (Request::get(&api, "/repos/o/r?a=2").unwrap(), public.clone()),
            (request.projected(), public),
            (request, Partition::named("other").unwrap()),
        ];
        for (request, partition) in &others {
            assert!(memory.get(&wanted(request, partition)).is_none(), "{request:?} {partition}");
        }
        memory.forget(|resident| resident.class.name == "repo");
        assert_eq!(memory.size(), (0, 0));
    }

    #[test]
    fn it_is_bounded_by_bytes() {
        let memory = MemoryTier::new(4 << 20);
        let body = vec![b'1'; 10_000];
        for n in 0..2_000 {
            let one = entry(&format!("/repos/o/r{n}"), &body);
            memory.put(one.key(), Arc::new(one), 0);
        }
        let (bytes, entries) = memory.size();
        assert!((2 << 20..=4 << 20).contains(&bytes) && (180..400).contains(&entries), "{bytes} {entries}");
        // What is larger than its share is not held, and nothing else goes for it.
        let large = entry("/large", &vec![b'1'; 5 << 20]);
        memory.put(large.key(), Arc::new(large), 0);
        assert!(memory.get_by_parts(&entry("/large", b"").parts).is_none());
        assert_eq!(memory.size().1, entries);
    }

    #[test]
    fn equal_bodies_are_held_once() {
        let memory = MemoryTier::new(4 << 20);
        let body = vec![b'1'; 10_000];
        let put = |path: &str, body: &[u8]| {
            let one = Arc::new(entry(path, body));
            memory.put(one.key(), one.clone(), 0);
            memory.get_by_parts(&one.parts).unwrap().entry.clone()
        };
        let first = put("/repos/o/r0", &body);
        for n in 1..500 {
            let other = put(&format!("/repos/o/r{n}"), &body);
            assert_eq!((other.body.as_ptr(), &other.parts.path[..9]), (first.body.as_ptr(), "/repos/o/"));
        }
        assert_ne!(put("/small/1", b"[]").body.as_ptr(), put("/small/2", b"[]").body.as_ptr());
        for n in 0..3_000 {
            put(&format!("/others/{n}"), format!("{n:09999}").as_bytes());
        }
        assert!(memory.bodies.lock().unwrap().len() < 2_000, "bodies of evicted entries are forgotten");
    }

    #[test]
    fn a_last_use_is_noted_once_in_a_while() {
        let memory = MemoryTier::new(1 << 20);
        let one = Arc::new(entry("/x", b"{}"));
        memory.put(one.key(), one.clone(), 1_000);
        let resident = memory.get_by_parts(&one.parts).unwrap();
        let noted: Vec<bool> = [1_500, 4_601, 4_602, 9_000].map(|now| resident.is_used_again(now, 3_600)).to_vec();
        assert_eq!(noted, [false, true, false, true]);
    }
}
