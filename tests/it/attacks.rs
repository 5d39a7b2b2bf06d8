//! Hostile bundles: each way in which a bundle can lie is refused or costs a miss, quickly and in
//! little memory, with nothing written.
//!
//! The bundles are built here from the format's description, not with the program's own writer.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

use crate::binary::{BINARY, TargetRun};

const SKIPPABLE: [u8; 4] = [0x5A, 0x2A, 0x4D, 0x18];

/// A bundle taken apart.
#[derive(Clone)]
pub struct Parts {
    pub frames: Vec<Vec<u8>>,
    end: Vec<u8>,
    pub head: Vec<u8>,
    frame_records: Vec<Vec<u8>>,
    /// Records without their checksums.
    pub entries: Vec<Vec<u8>>,
    pub cutoffs: Vec<u8>,
}

/// Its bytes, and the beginning of their digest.
fn with_check(bytes: &[u8]) -> Vec<u8> {
    [bytes, &Sha256::digest(bytes)[..4]].concat()
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

impl Parts {
    pub fn of(file: &[u8]) -> Self {
        let index_len = u32_at(file, file.len() - 8) as usize;
        let index = &file[file.len() - index_len..];
        let (entries, frames, cutoffs) =
            (u32_at(index, 8) as usize, u32_at(index, 12) as usize, u32_at(index, 20) as usize);
        let frame_records: Vec<Vec<u8>> = (0..frames).map(|n| index[48 + n * 48..][..48].to_vec()).collect();
        let at = 48 + frames * 48;
        let frame = |record: &Vec<u8>| file[u64_at(record, 0) as usize..][..u32_at(record, 8) as usize].to_vec();
        let data: Vec<Vec<u8>> = frame_records.iter().map(frame).collect();
        let data_len: usize = data.iter().map(Vec::len).sum();
        Self {
            end: file[data_len..file.len() - index_len - 8].to_vec(),
            head: index[..48].to_vec(),
            entries: (0..entries).map(|n| index[at + n * 44..][..40].to_vec()).collect(),
            cutoffs: index[at + entries * 44..][..cutoffs.saturating_sub(4)].to_vec(),
            frames: data,
            frame_records,
        }
    }

    /// Puts frames where they are, with sizes and digests that fit, and signs the index.
    pub fn build(&self) -> Vec<u8> {
        let mut parts = self.clone();
        let mut offset = 0_u64;
        for (frame, record) in parts.frames.iter().zip(&mut parts.frame_records) {
            record[..8].copy_from_slice(&offset.to_le_bytes());
            put_u32(record, 8, frame.len() as u32);
            record[16..48].copy_from_slice(&Sha256::digest(frame));
            offset += frame.len() as u64;
        }
        parts.build_as_is()
    }

    fn build_as_is(&self) -> Vec<u8> {
        let entries: Vec<Vec<u8>> = self.entries.iter().map(|entry| with_check(entry)).collect();
        let cutoffs = if self.cutoffs.is_empty() { Vec::new() } else { with_check(&self.cutoffs) };
        self.with_index([self.head.clone(), self.frame_records.concat(), entries.concat(), cutoffs].concat())
    }

    /// The same in version 1 of the index, in which records and invalidations have no checksum.
    pub fn build_version_1(&self) -> Vec<u8> {
        let mut head = self.head.clone();
        head[..8].copy_from_slice(b"OCTOIDX1");
        put_u32(&mut head, 20, self.cutoffs.len() as u32);
        self.with_index([head, self.frame_records.concat(), self.entries.concat(), self.cutoffs.clone()].concat())
    }

    fn with_index(&self, index: Vec<u8>) -> Vec<u8> {
        let mut file: Vec<u8> = [self.frames.concat(), self.end.clone()].concat();
        let len = (index.len() + 40) as u32;
        file.extend_from_slice(&SKIPPABLE);
        file.extend_from_slice(&len.to_le_bytes());
        file.extend_from_slice(&index);
        file.extend_from_slice(&Sha256::digest(&index));
        file.extend_from_slice(&len.to_le_bytes());
        file.extend_from_slice(b"OCT1");
        file
    }

    fn raw(&self, n: usize) -> Vec<u8> {
        zstd::bulk::decompress(&self.frames[n], 64 << 20).unwrap()
    }

    /// Replaces a frame's content; its declared size follows.
    fn set_raw(&mut self, n: usize, raw: &[u8]) {
        self.frames[n] = zstd::bulk::compress(raw, 3).unwrap();
        put_u32(&mut self.frame_records[n], 12, raw.len() as u32);
    }
}

fn checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// `bundle restore` says why, and writes nothing.
    Refused,
    /// Put in place it answers nothing wrong: a miss, and `bundle verify` finds it.
    Missed,
}

type Attack = (&'static str, Expected, fn(Parts) -> Vec<u8>);

fn with_header(mut parts: Parts, change: fn(&mut [u8])) -> Vec<u8> {
    for n in 0..parts.frames.len() {
        let mut raw = parts.raw(n);
        let mut at = 0;
        while at + 512 <= raw.len() {
            let size = usize::from_str_radix(std::str::from_utf8(&raw[at + 124..at + 135]).unwrap(), 8).unwrap();
            change(&mut raw[at..at + 512]);
            checksum(&mut raw[at..at + 512]);
            at += 512 + size.next_multiple_of(512);
        }
        parts.set_raw(n, &raw);
    }
    parts.build()
}

fn with_envelope(mut parts: Parts, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "tar sizes stay");
    for n in 0..parts.frames.len() {
        let raw = parts.raw(n);
        let text = String::from_utf8_lossy(&raw).replace(from, to);
        parts.set_raw(n, text.as_bytes());
    }
    parts.build()
}

const ATTACKS: &[Attack] = &[
    ("traversal in names", Expected::Missed, |parts| {
        with_header(parts, |header| header[..16].copy_from_slice(b"../../etc/passwd"))
    }),
    ("absolute names", Expected::Missed, |parts| with_header(parts, |header| header[0] = b'/')),
    ("symbolic links", Expected::Missed, |parts| with_header(parts, |header| header[156] = b'2')),
    ("hard links", Expected::Missed, |parts| with_header(parts, |header| header[156] = b'1')),
    ("devices", Expected::Missed, |parts| with_header(parts, |header| header[156] = b'3')),
    ("GNU long names", Expected::Missed, |parts| with_header(parts, |header| header[156] = b'L')),
    ("PAX records", Expected::Missed, |parts| with_header(parts, |header| header[156] = b'x')),
    ("set-uid files", Expected::Missed, |parts| {
        with_header(parts, |header| header[100..107].copy_from_slice(b"0006755"))
    }),
    ("a bomb behind an honest size", Expected::Missed, |mut parts| {
        parts.frames[0] = zstd::bulk::compress(&vec![0; 256 << 20], 3).unwrap();
        parts.build()
    }),
    ("a bomb without a size", Expected::Missed, |mut parts| {
        parts.frames[0] = zstd::stream::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
        parts.build()
    }),
    ("a bomb that says so", Expected::Refused, |mut parts| {
        parts.frames[0] = zstd::bulk::compress(&vec![0; 256 << 20], 3).unwrap();
        put_u32(&mut parts.frame_records[0], 12, 256 << 20);
        parts.build()
    }),
    ("many frames that decode to much", Expected::Refused, |mut parts| {
        let bomb = zstd::bulk::compress(&vec![0; 30 << 20], 3).unwrap();
        for _ in 0..200 {
            parts.frames.push(bomb.clone());
            let mut record = vec![0; 48];
            put_u32(&mut record, 12, 30 << 20);
            parts.frame_records.push(record);
        }
        let count = parts.frames.len() as u32;
        put_u32(&mut parts.head, 12, count);
        parts.build()
    }),
    ("a shared frame that claims to be large", Expected::Missed, |mut parts| {
        let mut raw = parts.raw(0);
        raw.resize(30 << 20, 0);
        parts.set_raw(0, &raw);
        parts.build()
    }),
    ("a frame that wants a dictionary", Expected::Missed, |mut parts| {
        let raw = parts.raw(0);
        let samples: Vec<Vec<u8>> = (0..2_000)
            .map(|n| format!("{{\"id\":{n},\"name\":\"sample {n}\",\"more\":{}}}", n * 7).into_bytes())
            .collect();
        let dictionary = zstd::dict::from_samples(&samples, 4_096).unwrap();
        parts.frames[0] = zstd::bulk::Compressor::with_dictionary(3, &dictionary).unwrap().compress(&raw).unwrap();
        parts.build()
    }),
    ("a huge window", Expected::Missed, |mut parts| {
        let raw = parts.raw(0);
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.long_distance_matching(true).unwrap();
        std::io::Write::write_all(&mut encoder, &raw).unwrap();
        parts.frames[0] = encoder.finish().unwrap();
        parts.build()
    }),
    ("more entries than there is room for", Expected::Refused, |mut parts| {
        put_u32(&mut parts.head, 8, u32::MAX);
        parts.build()
    }),
    ("more frames than there is room for", Expected::Refused, |mut parts| {
        put_u32(&mut parts.head, 12, u32::MAX);
        parts.build()
    }),
    ("an index longer than the file", Expected::Refused, |parts| {
        let mut file = parts.build();
        let at = file.len() - 8;
        put_u32(&mut file, at, u32::MAX);
        file
    }),
    ("a frame outside of the file", Expected::Refused, |mut parts| {
        parts.frame_records[0][..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        parts.build_as_is()
    }),
    ("frames that overlap", Expected::Refused, |mut parts| {
        parts.frame_records[1][..8].copy_from_slice(&0_u64.to_le_bytes());
        parts.build_as_is()
    }),
    ("members outside of their frame", Expected::Missed, |mut parts| {
        parts.entries.iter_mut().for_each(|entry| put_u32(entry, 20, u32::MAX - 100));
        parts.build()
    }),
    ("entries in a frame that is not there", Expected::Missed, |mut parts| {
        parts.entries.iter_mut().for_each(|entry| put_u32(entry, 16, 999));
        parts.build()
    }),
    ("all entries at one member", Expected::Missed, |mut parts| {
        let place = parts.entries[0][16..28].to_vec();
        parts.entries.iter_mut().skip(1).for_each(|entry| entry[16..28].copy_from_slice(&place));
        let first = parts.entries[0].clone();
        // The one honest record goes, too: nothing may answer.
        parts.entries[0] = first;
        parts.entries[0][20] ^= 1;
        parts.build()
    }),
    ("keys exchanged in the index", Expected::Missed, |mut parts| {
        let count = parts.entries.len();
        let places: Vec<Vec<u8>> = parts.entries.iter().map(|entry| entry[16..28].to_vec()).collect();
        for (n, entry) in parts.entries.iter_mut().enumerate() {
            entry[16..28].copy_from_slice(&places[(n + 1) % count]);
        }
        parts.build()
    }),
    ("one key twice", Expected::Refused, |mut parts| {
        let first = parts.entries[0].clone();
        parts.entries[1].clone_from(&first);
        parts.build()
    }),
    ("keys out of order", Expected::Refused, |mut parts| {
        parts.entries.swap(0, 1);
        parts.build()
    }),
    ("garbage behind the footer", Expected::Refused, |parts| [parts.build(), b"garbage".to_vec()].concat()),
    ("a second index behind the first", Expected::Refused, |parts| {
        let file = parts.build();
        let index_len = u32_at(&file, file.len() - 8) as usize + 8;
        let index = file[file.len() - index_len..].to_vec();
        [file, index].concat()
    }),
    ("data hidden between frames", Expected::Refused, |mut parts| {
        let hidden = [&SKIPPABLE[..], &4_u32.to_le_bytes(), b"evil"].concat();
        parts.end = [hidden, parts.end].concat();
        parts.build()
    }),
    ("an archive that does not end", Expected::Refused, |mut parts| {
        parts.end = zstd::bulk::compress(b"not zeros at all", 3).unwrap();
        parts.build()
    }),
    ("half a file", Expected::Refused, |parts| {
        let file = parts.build();
        file[..file.len() / 2].to_vec()
    }),
    ("all but the last byte", Expected::Refused, |parts| {
        let mut file = parts.build();
        file.pop();
        file
    }),
    ("an empty file", Expected::Refused, |_| Vec::new()),
    ("no bundle at all", Expected::Refused, |_| {
        b"PK\x03\x04 something else entirely, longer than any footer would be".to_vec()
    }),
    ("a flipped bit in the index", Expected::Refused, |parts| {
        let mut file = parts.build();
        let at = file.len() - 100;
        file[at] ^= 1;
        file
    }),
    ("flipped bits in the frames", Expected::Missed, |mut parts| {
        for frame in &mut parts.frames {
            let middle = frame.len() / 2;
            frame[middle] ^= 1;
        }
        parts.build_as_is()
    }),
    ("another body under the same digest", Expected::Missed, |parts| with_envelope(parts, "\"id\":", "\"iq\":")),
    ("another partition's entry", Expected::Missed, |parts| {
        with_envelope(parts, "\"partition\":\"public\"", "\"partition\":\"publik\"")
    }),
    ("headers that are never stored", Expected::Missed, |parts| with_envelope(parts, "\"etag\"", "\"host\"")),
    ("metadata of another shape", Expected::Missed, |parts| with_envelope(parts, "\"class\":", "\"glass\":")),
    ("a newer index", Expected::Refused, |mut parts| {
        parts.head[..8].copy_from_slice(b"OCTOIDX3");
        parts.build()
    }),
    ("a newer envelope", Expected::Missed, |parts| with_envelope(parts, "{\"v\":1,", "{\"v\":9,")),
    ("cutoffs that do not parse", Expected::Refused, |mut parts| {
        parts.cutoffs = b"{\"v\":1,\"cutoffs\":[[[[[[".to_vec();
        let len = parts.cutoffs.len() as u32 + 4;
        put_u32(&mut parts.head, 20, len);
        parts.build()
    }),
];

/// A sound bundle of several frames, written by the program itself.
pub fn sound(dir: &Path) -> (PathBuf, Vec<(String, String)>) {
    use octocache::cid::Cid;
    use octocache::clock::{Clock, Timestamp};
    use octocache::entry::{Entry, StoredHeaders};
    use octocache::key::KeyParts;
    use octocache::partition::Partition;
    use octocache::request::{Api, Request};
    use octocache::stack::{Narrow, Stack};
    let stack = Stack::new(dir.join("sound"), Clock::System);
    let mut entries = Vec::new();
    for n in 0..160 {
        let path = format!("/repos/o/r{n}");
        // Bodies that do not compress, so that there are several frames.
        let mut state = n as u64 + 1;
        let noise: String = (0..20_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'a' + (state >> 59) as u8 % 26)
            })
            .collect();
        let body = format!("{{\"id\":{n},\"noise\":\"{noise}\"}}");
        let mut headers = http::HeaderMap::new();
        headers.insert("etag", "\"x\"".parse().unwrap());
        let at = Timestamp::from_secs(1_700_000_000);
        let entry = Entry {
            parts: KeyParts::of(&Request::get(&Api::github(), &path).unwrap(), &Partition::public()),
            listing: None,
            status: 200,
            headers: StoredHeaders::of(&headers),
            fetched_at: at,
            validated_at: at,
            class: "repo".into(),
            ttl_secs: 3_600,
            repeats: 0,
            token_digest: None,
            etag_rule: None,
            fields_cid: None,
            expires_at: None,
            link_validated_at: None,
            cid: Cid::of(body.as_bytes()),
            body: body.clone().into(),
        };
        assert!(stack.put(&entry));
        entries.push((path, body));
    }
    stack.pack(&Narrow::everything(), true).unwrap();
    (stack.bundle_path(), entries)
}

/// Runs the program bounded: within 16 MB, or it is told in the assertion.
fn bounded(dir: &Path, args: &[&str]) -> (Output, TargetRun) {
    let mut command = Command::new(BINARY);
    command.args(args).arg("--cache-dir").arg(dir).env_clear().env("HOME", dir).current_dir(dir);
    TargetRun::measure(command)
}

#[test]
fn every_attack_is_refused_or_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (good, entries) = sound(dir.path());
    let file = std::fs::read(&good).unwrap();
    let parts = Parts::of(&file);
    assert!(parts.frames.len() >= 3);
    assert!(parts.build() == file, "the description of the format is the format");
    for (name, expected, attack) in ATTACKS {
        let store = dir.path().join(name.replace(' ', "-"));
        std::fs::create_dir_all(&store).unwrap();
        let hostile = dir.path().join("hostile.tar.zst");
        std::fs::write(&hostile, attack(parts.clone())).unwrap();
        let (output, cost) = bounded(&store, &["bundle", "restore", hostile.to_str().unwrap()]);
        cost.assert_small(name);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if *expected == Expected::Refused {
            assert_eq!(output.status.code(), Some(1), "{name}: {error}");
            assert!(error.starts_with("error: ") && error.lines().count() == 1, "{name}: {error}");
            assert_eq!(std::fs::read_dir(&store).unwrap().count(), 0, "{name}: something was written");
            // Put in place by other hands, it is an empty tier all the same.
            std::fs::copy(&hostile, store.join("bundle.tar.zst")).unwrap();
        } else {
            assert!(output.status.success(), "{name}: {error}");
            let (verify, _) = bounded(&store, &["bundle", "verify"]);
            let said = String::from_utf8_lossy(&verify.stdout);
            assert_eq!(verify.status.code(), Some(1), "{name}: {said}");
            assert!(!said.contains(" 0 are broken"), "{name}: {said}");
        }
        for (path, body) in entries.iter().step_by(41) {
            let (output, cost) = bounded(&store, &["api", path, "--offline"]);
            cost.assert_small(name);
            // Where only one frame or the index lies, what passes every check is GitHub's own.
            let right = output.status.success() && output.stdout == body.as_bytes();
            let missed = output.status.code() == Some(3) && output.stdout.is_empty();
            assert!(right || missed, "{name}: {path}: {:?}", output.status);
        }
    }
}

#[test]
fn a_bundle_that_is_replaced_while_it_is_read_stays_the_one_that_was_opened() {
    use octocache::bundle::Bundle;
    let dir = tempfile::tempdir().unwrap();
    let (good, _) = sound(dir.path());
    let bundle = Bundle::open(&good).unwrap().unwrap();
    let other = dir.path().join("other");
    std::fs::write(&other, b"something else").unwrap();
    std::fs::rename(&other, &good).unwrap();
    assert_eq!(bundle.verify().unwrap().entries, 160);
}
