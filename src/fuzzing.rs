//! What reads bytes from elsewhere, one function each: the targets in `fuzz/` and the tests below call them.
//!
//! Knows: which reader takes bytes, and what must hold of its results. Does not know: where bytes come from.
//! A function returns if the reader refuses; it panics if a reader breaks its promise.

#![allow(missing_docs, reason = "each function is named for the reader that it calls")]

use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri};
use sha2::{Digest, Sha256};

use crate::api::template::{Surroundings, Template};
use crate::bundle::{Bundle, repair};
use crate::clock::Timestamp;
use crate::cutoff::Cutoffs;
use crate::entry::Entry;
use crate::graphql::operation::{self, Operation};
use crate::key::{CacheKey, KeyParts};
use crate::mask::Masker;
use crate::partition::Partition;
use crate::plan::filter::Filter;
use crate::plan::{Plan, Redaction};
use crate::request::{Api, Request};
use crate::schedule::Schedule;
use crate::{event, link, serve, share};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// The request whose entry the seeds hold.
pub const PATH: &str = "/repos/o/r";

fn seed_key() -> Option<CacheKey> {
    let request = Request::get(&Api::github(), PATH).ok()?;
    Some(KeyParts::of(&request, &Partition::public()).key())
}

/// Splits the input at its first NUL, for readers that take two texts.
fn two(data: &[u8]) -> Option<(&str, &[u8])> {
    let at = data.iter().position(|byte| *byte == 0)?;
    Some((std::str::from_utf8(&data[..at]).ok()?, &data[at + 1..]))
}

/// An envelope whose metadata have the checksum that fits.
fn with_checksum(mut envelope: Vec<u8>) -> Vec<u8> {
    const CHECK: &[u8] = b",\"check\":\"";
    if let Some(at) = memchr::memmem::find(&envelope, CHECK) {
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&envelope[..at])[..8]);
        if let Some(digits) = envelope.get_mut(at + CHECK.len()..at + CHECK.len() + 16) {
            digits.copy_from_slice(digest.as_bytes());
        }
    }
    envelope
}

fn is_the_same_read_again(entry: &Entry) {
    let again = Entry::decode(entry.encode().into(), Some(&entry.key()));
    assert_eq!(again.as_ref().ok(), Some(entry), "an entry is not what was written");
}

pub fn envelope(data: &[u8]) {
    let _as_it_is = Entry::decode(Bytes::copy_from_slice(data), None);
    let bytes = Bytes::from(with_checksum(data.to_vec()));
    let _head = Entry::peek(&bytes);
    if let Ok(entry) = Entry::decode(bytes, None) {
        is_the_same_read_again(&entry);
    }
}

/// `file` is a place to write a bundle to. An input without an index is taken for the content of a frame.
pub fn bundle(file: &Path, data: &[u8]) {
    let Some(key) = seed_key() else { return };
    let has_index = memchr::memmem::find(data, b"OCTOIDX").is_some();
    let made = if has_index { Ok(repair::with_checksums(data.to_vec())) } else { repair::around(data, &key) };
    let (Ok(made), Ok(())) = (&made, &made.as_ref().map_or(Ok(()), |bytes| std::fs::write(file, bytes))) else {
        return;
    };
    let Ok(Some(bundle)) = Bundle::open(file) else { return };
    let _cutoffs = bundle.cutoffs();
    let halves = made.chunks(44).take(64).filter_map(|bytes| bytes.first_chunk::<16>());
    let keys = halves.filter_map(|half| CacheKey::parse(&data_encoding::HEXLOWER.encode(&[*half, [0; 16]].concat())));
    for key in keys.chain([key]) {
        if let Ok(Some(entry)) = bundle.look_up(&key) {
            assert_eq!(entry.key(), key, "a look-up gives another key's entry");
        }
    }
    if let Ok((records, _)) = bundle.check_index() {
        assert_eq!(records.len(), bundle.totals().entries as usize);
    }
    let _counted = bundle.for_each(|record, entry| assert!(record.is_of(&entry.key())));
    let _verified = bundle.verify();
}

pub fn cutoffs(data: &[u8]) {
    if let Ok(list) = Cutoffs::decode(data) {
        let list = list.as_of(NOW);
        assert!(list.iter().all(|cutoff| !cutoff.is_from_the_future(NOW)));
        let again = Cutoffs::decode(&list.encode());
        assert_eq!(
            again.ok().map(|again| again.as_of(NOW).encode()),
            Some(list.encode()),
            "a list is not what was written"
        );
    }
}

pub fn plan(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _plan = Plan::parse(text, "plan.yml", Path::new("/nonexistent"));
        let _inline = Plan::inline(text);
    }
}

/// The first part is `Host`, the second the request's target.
pub fn host(data: &[u8]) {
    let Some((host, target)) = two(data) else { return };
    let Ok(hosts) = serve::Hosts::new(Api::github(), &["cache.example".to_owned()], &["*.internal.example".to_owned()])
    else {
        return;
    };
    let Ok(uri) = std::str::from_utf8(target).unwrap_or("/").parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(host) {
        headers.insert(http::header::HOST, value);
    }
    if let Some(other) = hosts.other(&uri, &headers) {
        let authority = other.parse::<http::uri::Authority>().ok().filter(|authority| authority.as_str() == other);
        let name = authority.as_ref().map(|authority| authority.host().to_owned()).unwrap_or_default();
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        let ends = ["github.com", ".githubusercontent.com", ".blob.core.windows.net", ".internal.example"];
        assert!(is_name && ends.iter().any(|end| name.ends_with(end)), "a request is handed on to {other:?}");
    }
}

pub fn graphql(data: &[u8]) {
    let asked = std::str::from_utf8(data).map(|query| serde_json::json!({ "query": query }).to_string());
    for body in [Some(data), asked.as_ref().ok().map(String::as_bytes)].into_iter().flatten() {
        if let Some(Operation::Query(query)) = operation::read(body) {
            let again = operation::read(&query.body);
            assert_eq!(again, Some(Operation::Query(query)), "the normal form has another normal form");
        }
    }
}

/// The first part is a template, the second its input.
pub fn template(data: &[u8]) {
    let Some((text, json)) = two(data) else { return };
    if let Ok(mut template) = Template::parse(text, Surroundings { now: NOW, colour: false }) {
        let _text = template.run(json);
        template.finish();
    }
}

/// The first part is a jq filter, the second its input.
pub fn filter(data: &[u8]) {
    let Some((text, json)) = two(data) else { return };
    if let Ok(filter) = Filter::compile(text) {
        let mut outputs = 0;
        let _stopped = filter.run_each(json, |_| {
            outputs += 1;
            outputs < 1_000
        });
    }
}

/// What Redis or an IPFS node gives for a key.
pub fn value(data: &[u8]) {
    let bytes = Bytes::from(with_checksum(data.to_vec()));
    let Some(key) = seed_key() else { return };
    if let Ok(entry) = share::read_value(bytes, Some(&key)) {
        assert_eq!(entry.key(), key);
        is_the_same_read_again(&entry);
    }
}

/// The first part is the event's name, the second its payload.
pub fn payload(data: &[u8]) {
    let Some((event, body)) = two(data) else { return };
    if let Some(payload) = serve::read_delivery(body) {
        let _run = event::outdated(event, &payload, NOW);
        event::outdated_on_delivery(event, &payload, NOW);
    }
}

/// What a peer of the same group says.
#[cfg(feature = "p2p")]
pub fn message(data: &[u8]) {
    use share::seal::Group;
    static GROUP: LazyLock<Option<Group>> =
        LazyLock::new(|| Group::read(&crate::token::Secret::new(Group::generate().ok()?)).ok());
    if let Some(group) = &*GROUP {
        share::peers::read_any(data, group);
    }
}

pub fn link(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(next) = link::next(text) {
        assert!(text.contains(&format!("<{next}>")) && !next.contains('>'));
    }
}

/// The first part is a schedule, the second its time zone.
pub fn schedule(data: &[u8]) {
    let Some((text, zone)) = two(data) else { return };
    let Ok(schedule) = Schedule::parse(text, std::str::from_utf8(zone).unwrap_or("UTC")) else { return };
    if let Some(next) = schedule.next_after(NOW) {
        assert!(next > NOW);
    }
}

pub fn mask(data: &[u8]) {
    let masker = Masker::default();
    let _lossy = masker.text(&String::from_utf8_lossy(data));
    let Ok(redaction) = Redaction::new(&[], false) else { return };
    let is_json = |bytes: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    if let Ok(masked) = redaction.apply(Bytes::copy_from_slice(data), &masker) {
        assert!(!is_json(data) || is_json(&masked), "masking breaks JSON");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Target = fn(&[u8]);

    /// Seeds, and inputs that once broke something.
    #[test]
    fn all_seeds_are_read_without_a_panic() {
        let targets: &[(&str, Target)] = &[
            ("envelope", envelope),
            ("cutoffs", cutoffs),
            ("plan", plan),
            ("host", host),
            ("graphql", graphql),
            ("template", template),
            ("filter", filter),
            ("value", value),
            ("payload", payload),
            #[cfg(feature = "p2p")]
            ("message", message),
            ("link", link),
            ("schedule", schedule),
            ("mask", mask),
            ("bundle", |data| {
                let file = tempfile::NamedTempFile::new().unwrap();
                bundle(file.path(), data);
            }),
        ];
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, target) in targets {
            let files: Vec<_> = std::fs::read_dir(seeds.join(name)).unwrap().flatten().collect();
            assert!(!files.is_empty(), "{name} has no seeds");
            for file in files {
                target(&std::fs::read(file.path()).unwrap());
            }
        }
    }
}
