//! Entries to measure on: GitHub's recorded answers as they are, and organisations grown from them.
//!
//! For an organisation, every recorded answer is a template: names, numbers, digests, dates and all
//! prose are replaced, so that repeats of a template do not fake a better ratio.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each bench takes what it needs")]

use std::path::Path;

use octocache::cid::Cid;
use octocache::clock::Timestamp;
use octocache::entry::{Entry, EtagRule, StoredHeaders};
use octocache::key::KeyParts;
use octocache::partition::Partition;
use octocache::request::{Api, Request};
use serde_json::Value;

pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A small, repeatable source of randomness.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn hex(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from_digit(self.below(16) as u32, 16).unwrap_or('0')).collect()
    }

    /// Prose: words of a vocabulary, common ones more often.
    fn words(&mut self, count: u64) -> String {
        let mut text = String::new();
        for _ in 0..count {
            let rank = self.below(50) * self.below(50);
            let mut letters = Random::new(rank + 7);
            let len = 2 + letters.below(8);
            for _ in 0..len {
                text.push(char::from(b'a' + letters.below(26) as u8));
            }
            text.push(if self.below(12) == 0 { '\n' } else { ' ' });
        }
        text
    }
}

/// A recorded answer.
pub struct Template {
    pub path: String,
    pub body: Value,
}

/// GitHub's recorded answers and payloads, from the npm packages that `scripts/test` installs.
pub fn recorded() -> Vec<Template> {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules/@octokit");
    let mut found = Vec::new();
    let scenarios = node.join("fixtures/scenarios/api.github.com");
    for dir in std::fs::read_dir(scenarios).into_iter().flatten().flatten() {
        let Ok(text) = std::fs::read_to_string(dir.path().join("normalized-fixture.json")) else { continue };
        let exchanges: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
        for exchange in exchanges {
            if exchange["response"].is_object() || exchange["response"].is_array() {
                let path = exchange["path"].as_str().unwrap_or("/").to_owned();
                found.push(Template { path, body: exchange["response"].clone() });
            }
        }
    }
    let events = std::fs::read_to_string(node.join("webhooks-examples/api.github.com/index.json")).unwrap_or_default();
    let events: Vec<Value> = serde_json::from_str(&events).unwrap_or_default();
    for event in events {
        for (n, example) in event["examples"].as_array().into_iter().flatten().enumerate() {
            found.push(Template {
                path: format!("/events/{}/{n}", event["name"].as_str().unwrap_or("x")),
                body: example.clone(),
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The recorded answers as they are, each once.
pub fn distinct() -> Vec<Entry> {
    let mut seen = std::collections::BTreeSet::new();
    let mut random = Random::new(1);
    recorded()
        .into_iter()
        .enumerate()
        .filter(|(_, template)| seen.insert(template.body.to_string()))
        .map(|(n, template)| {
            entry(
                &format!("/distinct/{n}{}", template.path.split('?').next().unwrap_or("/")),
                &template.body,
                &mut random,
            )
        })
        .collect()
}

/// So many entries of an organisation: twelve families for each repository.
pub fn organisation(count: usize) -> Vec<Entry> {
    let recorded = recorded();
    let pick = |part: &str| {
        recorded.iter().find(|template| template.path.contains(part)).map(|template| template.body.clone())
    };
    let issue = pick("paginate-issues/issues").and_then(|list| list.get(0).cloned()).unwrap_or_default();
    let repository = pick("/repos/octokit-fixture-org/hello-world").unwrap_or_default();
    let release = pick("/releases/tags/").unwrap_or_default();
    let pull = pick("/events/pull_request/").map(|event| event["pull_request"].clone()).unwrap_or_default();
    let run = pick("/events/workflow_run/").map(|event| event["workflow_run"].clone()).unwrap_or_default();
    let commit = pick("/events/push/").map(|event| event["head_commit"].clone()).unwrap_or_default();
    let label = pick("/labels/labels").and_then(|list| list.get(0).cloned()).unwrap_or_default();
    let list =
        |one: &Value, most: u64, random: &mut Random| Value::Array(vec![one.clone(); random.below(most) as usize]);
    let mut random = Random::new(2);
    let mut entries = Vec::with_capacity(count);
    for n in 0.. {
        let name = format!("repo-{}-{}", random.below(90) + 10, random.hex(4));
        let at = |rest: &str| format!("/repos/acme{}/{name}{rest}", n / 100);
        let families = [
            (at(""), repository.clone()),
            (at("/languages"), serde_json::json!({ "Rust": 123_456, "Shell": 4_567, "Python": 98_765 })),
            (at("/releases"), list(&release, 6, &mut random)),
            (at("/releases/latest"), release.clone()),
            (at("/issues?per_page=100&state=open"), list(&issue, 12, &mut random)),
            (at("/issues/7"), issue.clone()),
            (at("/pulls?per_page=100"), list(&pull, 4, &mut random)),
            (at("/pulls/9"), pull.clone()),
            (
                at("/actions/runs?per_page=100"),
                serde_json::json!({ "total_count": 3, "workflow_runs": list(&run, 5, &mut random) }),
            ),
            (at("/commits?per_page=100"), list(&commit, 20, &mut random)),
            (at("/labels"), list(&label, 15, &mut random)),
            (at("/topics"), serde_json::json!({ "names": ["cache", "actions"] })),
        ];
        for (path, mut body) in families {
            vary(&mut body, "", &name, &mut random);
            entries.push(entry(&path, &body, &mut random));
            if entries.len() == count {
                return entries;
            }
        }
    }
    entries
}

/// Replaces whatever differs between two real answers of the same shape.
fn vary(value: &mut Value, key: &str, name: &str, random: &mut Random) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                vary(inner, key, name, random);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| vary(item, key, name, random)),
        Value::Number(number) if number.as_u64().is_some_and(|n| n > 999) || key == "id" || key == "number" => {
            *value = (random.below(900_000_000) + 1_000).into();
        }
        Value::String(text) => match key {
            "title" | "name" | "display_title" => *text = random.words(6),
            "body" | "description" | "message" => {
                let count = random.below(120) + 5;
                *text = random.words(count);
            }
            "node_id" => *text = random.hex(24),
            _ if text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit()) => *text = random.hex(40),
            _ if text.len() == 20 && text.ends_with('Z') => {
                *text = format!(
                    "20{:02}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                    10 + random.below(16),
                    1 + random.below(12),
                    1 + random.below(28),
                    random.below(24),
                    random.below(60),
                    random.below(60)
                );
            }
            _ => {
                *text = text.replace("hello-world", name).replace("Hello-World", name).replace("paginate-issues", name);
            }
        },
        _ => {}
    }
}

fn entry(path: &str, body: &Value, random: &mut Random) -> Entry {
    let path: String = path.chars().map(|c| if c.is_ascii_graphic() && !"{}".contains(c) { c } else { '-' }).collect();
    let mut headers = http::HeaderMap::new();
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    };
    put("etag", format!("W/\"{}\"", random.hex(64)));
    put("content-type", "application/json; charset=utf-8".into());
    put("vary", "Accept, Authorization, Cookie, X-GitHub-OTP,Accept-Encoding, Accept, X-Requested-With".into());
    put("cache-control", "private, max-age=60, s-maxage=60".into());
    put("x-github-media-type", "github.v3; format=json".into());
    let request = Request::get(&Api::github(), &path).unwrap_or_else(|error| panic!("{error}"));
    let body = body.to_string();
    let at = NOW.minus(random.below(50));
    Entry {
        parts: KeyParts::of(&request, &Partition::public()),
        listing: None,
        status: 200,
        headers: StoredHeaders::of(&headers),
        fetched_at: at,
        validated_at: at,
        class: "repo".into(),
        ttl_secs: 3_600,
        repeats: 0,
        token_digest: Some(random.hex(16)),
        etag_rule: Some(EtagRule::Github),
        fields_cid: None,
        expires_at: None,
        link_validated_at: None,
        cid: Cid::of(body.as_bytes()),
        body: body.into(),
    }
}
