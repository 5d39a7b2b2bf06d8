//! Deliveries of GitHub's webhooks (D4): checked, understood, and handed to whoever outdates.
//!
//! Knows: headers, signatures (GitHub, "Validating webhook deliveries"), bounds, what was delivered
//! before. Does not know: what an event outdates (`event`), how that is noted (`outdate`).

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use ring::hmac;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::inflow::{Cut, Held, Inflow};
use super::removals::Removals;
use super::respond::{self, Body};
use crate::alias::Alias;
use crate::clock::Timestamp;
use crate::cutoff::{Cutoff, CutoffMode};
use crate::event::{self, MAX_PAYLOAD_BYTES, Payload};

/// GitHub gives up after ten seconds; its payload comes within this time.
const LONGEST_DELIVERY: Duration = Duration::from_secs(8);

/// Memory for payloads that are being received, from all senders.
const INFLOW_BYTES: usize = 32 << 20;

/// Deliveries that wait to be applied.
const MAX_WAITING: usize = 20_000;

/// Deliveries that are remembered, so that one which comes again does nothing again.
const MAX_SEEN: usize = 20_000;

/// A payload above this size is checked and read on another thread.
const LARGE_BYTES: usize = 256 << 10;

/// Secrets that may be in force at once: the old one and the new one while it is changed, and some more.
const MAX_SECRETS: usize = 8;

/// One delivery, as far as it matters.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) id: String,
    /// SHA-256 of its body, where it removes something.
    pub(super) removes: Option<[u8; 32]>,
    pub(super) cutoffs: Vec<Cutoff>,
    /// Names and numbers of its repository.
    pub(super) aliases: Vec<Alias>,
}

/// The secrets, any of which may sign.
#[derive(Debug, Clone)]
pub struct Keys(Vec<hmac::Key>);

impl Keys {
    /// From a file's text: one secret a line. `None` when there is none, too many, or one is too short.
    pub fn read(text: &str) -> Option<Self> {
        let secrets: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let sound = (1..=MAX_SECRETS).contains(&secrets.len()) && secrets.iter().all(|secret| secret.len() >= 8);
        sound.then(|| Self(secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())).collect()))
    }

    /// Whether one of them signed `body`; compared in constant time.
    fn signed(&self, body: &[u8], signature: &[u8]) -> bool {
        self.0.iter().any(|key| hmac::verify(key, body, signature).is_ok())
    }
}

/// What became of deliveries.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) accepted: AtomicU64,
    pub(super) repeated: AtomicU64,
    /// Without a signature of ours, or no delivery at all.
    pub(super) refused: AtomicU64,
    /// Signed, and not to be understood or kept.
    pub(super) failed: AtomicU64,
    pub(super) applied: AtomicU64,
}

/// The door for deliveries.
#[derive(Debug)]
pub(super) struct Webhook {
    waiting: mpsc::Sender<Delivery>,
    inflow: Inflow,
    seen: Mutex<Seen>,
    removals: Removals,
    pub(super) received: Received,
    /// Accepted deliveries by event; names are those that the mapping knows, and `other`.
    by_event: Mutex<std::collections::BTreeMap<&'static str, u64>>,
}

/// What was delivered. Its id is a header that no signature covers; the body is what is signed.
#[derive(Debug, Default)]
struct Seen {
    ids: Recent<String>,
    /// Bodies that removed something: sent again under another id, they remove nothing.
    removals: Recent<[u8; 32]>,
}

/// The last ones of many.
#[derive(Debug)]
struct Recent<T> {
    all: HashSet<T>,
    order: VecDeque<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { all: HashSet::new(), order: VecDeque::new() }
    }
}

impl<T: Clone + Eq + Hash> Recent<T> {
    fn insert(&mut self, one: T) {
        if !self.all.insert(one.clone()) {
            return;
        }
        self.order.push_back(one);
        if self.order.len() > MAX_SEEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

/// What the headers of a delivery say.
struct Head {
    id: String,
    event: String,
    signature: Vec<u8>,
}

/// Why a request is no delivery.
enum Refusal {
    Unsigned,
    Malformed(&'static str),
}

impl Webhook {
    /// A door in front of the store in `store`, which says what has removed something before.
    pub(super) fn new(store: &Path) -> (Self, mpsc::Receiver<Delivery>) {
        let (waiting, deliveries) = mpsc::channel(MAX_WAITING);
        let removals = Removals::in_store(store);
        let mut seen = Seen::default();
        match removals.read() {
            Ok(digests) => digests.into_iter().for_each(|digest| seen.removals.insert(digest)),
            Err(error) => tracing::warn!(%error, "deliveries that removed something may do so again"),
        }
        let webhook = Self {
            waiting,
            inflow: Inflow::new(INFLOW_BYTES),
            seen: Mutex::new(seen),
            removals,
            received: Received::default(),
            by_event: Mutex::default(),
        };
        (webhook, deliveries)
    }

    /// Answers one delivery: what it outdates is noted soon after, not before.
    pub(super) async fn receive(
        &self,
        keys: &Keys,
        method: &Method,
        headers: &HeaderMap,
        body: Incoming,
        now: impl Fn() -> Timestamp,
    ) -> Response<Body> {
        if method != Method::POST {
            let mut response = respond::refusal(StatusCode::METHOD_NOT_ALLOWED, "octocache: deliveries are POSTed");
            response.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static("POST"));
            return response;
        }
        let head = match Head::of(headers) {
            Ok(head) => head,
            Err(Refusal::Unsigned) => return self.unsigned(),
            Err(Refusal::Malformed(why)) => return self.refused(StatusCode::BAD_REQUEST, why),
        };
        let body = match self.body(body).await {
            Ok(body) => body,
            Err(cut) => {
                add(&self.received.refused);
                tracing::debug!(?cut, "the payload of a delivery did not come");
                return cut.response();
            }
        };
        let check = {
            let (keys, signature, body) = (keys.clone(), head.signature, body.bytes.clone());
            move || keys.signed(&body, &signature).then(|| (read(&body), Sha256::digest(&body).into()))
        };
        let read =
            if body_is_large(headers) { tokio::task::spawn_blocking(check).await.unwrap_or(None) } else { check() };
        let Some((payload, digest)) = read else { return self.unsigned() };
        let Some(payload) = payload else {
            add(&self.received.failed);
            tracing::warn!(delivery = %head.id, event = %head.event.escape_debug(), "a signed delivery cannot be read");
            return respond::refusal(StatusCode::BAD_REQUEST, "octocache: the payload is no JSON object");
        };
        if self.seen(&head.id) {
            add(&self.received.repeated);
            return said(StatusCode::OK, "known already", &head.id, 0);
        }
        if !event::fits(&head.event, &payload) {
            // The event's name is not signed. Its repository is revalidated, and nothing more.
            tracing::warn!(delivery = %head.id, event = %head.event.escape_debug(), "a payload is of another event");
        }
        let mut cutoffs = event::outdated_on_delivery(&head.event, &payload, now());
        let removes = cutoffs.iter().any(|cutoff| cutoff.mode == CutoffMode::Gone).then_some(digest);
        if removes.is_some_and(|digest| self.has_removed(&digest)) {
            for cutoff in &mut cutoffs {
                cutoff.mode = CutoffMode::Revalidate;
            }
        }
        let scopes = cutoffs.len();
        let delivery = Delivery { id: head.id.clone(), removes, cutoffs, aliases: payload.aliases() };
        if scopes > 0 && self.waiting.try_send(delivery).is_err() {
            add(&self.received.failed);
            tracing::warn!(delivery = %head.id, "too many deliveries wait; this one is lost unless it is sent again");
            return respond::refusal(StatusCode::SERVICE_UNAVAILABLE, "octocache: too many deliveries; send it again");
        }
        add(&self.received.accepted);
        let name = event::known(&head.event).unwrap_or("other");
        *self.by_event.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        tracing::info!(delivery = %head.id, event = name, action = payload.action.as_deref(), scopes, "a delivery");
        said(StatusCode::ACCEPTED, "accepted", &head.id, scopes)
    }

    /// What a delivery outdates is noted: it need not be done again.
    pub(super) fn applied(&self, delivery: Delivery) {
        add(&self.received.applied);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.ids.insert(delivery.id);
        if let Some(digest) = delivery.removes {
            seen.removals.insert(digest);
        }
    }

    /// Writes down which bodies have removed something; waits for the disk.
    pub(super) fn write_down(&self, digests: &[[u8; 32]]) {
        if let Err(error) = self.removals.append(digests) {
            tracing::warn!(%error, "after a restart, a delivery that is sent again may remove again");
        }
    }

    /// Accepted deliveries by event.
    pub(super) fn by_event(&self) -> Vec<(&'static str, u64)> {
        let by_event = self.by_event.lock().unwrap_or_else(PoisonError::into_inner);
        by_event.iter().map(|(event, count)| (*event, *count)).collect()
    }

    fn seen(&self, id: &str) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).ids.all.contains(id)
    }

    fn has_removed(&self, digest: &[u8; 32]) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).removals.all.contains(digest)
    }

    fn unsigned(&self) -> Response<Body> {
        self.refused(StatusCode::UNAUTHORIZED, "octocache: X-Hub-Signature-256 is not one of ours")
    }

    fn refused(&self, status: StatusCode, why: &str) -> Response<Body> {
        add(&self.received.refused);
        tracing::debug!(%status, why, "a delivery is refused");
        respond::refusal(status, why)
    }

    async fn body(&self, body: Incoming) -> Result<Held<'_>, Cut> {
        if body.size_hint().exact().is_some_and(|bytes| bytes > MAX_PAYLOAD_BYTES as u64) {
            return Err(Cut::TooLarge);
        }
        self.inflow.read(body, MAX_PAYLOAD_BYTES, LONGEST_DELIVERY).await
    }
}

impl Head {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let one = |name: &str| {
            let mut values = headers.get_all(name).iter();
            let value = values.next()?.to_str().ok()?;
            values.next().is_none().then(|| value.trim())
        };
        // The signature first: who cannot sign is told nothing else.
        let signature = one("x-hub-signature-256").and_then(|text| {
            let hex = text.strip_prefix("sha256=").filter(|hex| hex.len() == 64)?;
            HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()
        });
        let signature = signature.ok_or(Refusal::Unsigned)?;
        let name = |name: &str| {
            let value = one(name).filter(|text| (1..=100).contains(&text.len()))?;
            value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)).then(|| value.to_owned())
        };
        let id = name("x-github-delivery").ok_or(Refusal::Malformed("octocache: X-GitHub-Delivery is missing"))?;
        let event = name("x-github-event").ok_or(Refusal::Malformed("octocache: X-GitHub-Event is missing"))?;
        Ok(Self { id, event, signature })
    }
}

fn body_is_large(headers: &HeaderMap) -> bool {
    let length = headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_none_or(|length: usize| length > LARGE_BYTES)
}

/// The payload: the body itself, or the one field `payload` of a form. The bytes say which, since they are what
/// is signed and `Content-Type` is not: JSON that holds `&payload=` somewhere is not to be read as a form.
pub(crate) fn read(body: &[u8]) -> Option<Payload> {
    match body.strip_prefix(b"payload=") {
        Some(field) if !field.contains(&b'&') => Payload::read(&form_decoded(field)?).ok(),
        Some(_) => None,
        None => Payload::read(body).ok(),
    }
}

/// `application/x-www-form-urlencoded`, undone (URL Standard, section 5.1).
fn form_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [*bytes.next()?, *bytes.next()?];
                HEXLOWER_PERMISSIVE.decode(&hex).ok()?[0]
            }
            other => *other,
        });
    }
    Some(out)
}

fn said(status: StatusCode, what: &str, delivery: &str, scopes: usize) -> Response<Body> {
    let text = serde_json::json!({ "message": what, "delivery": delivery, "scopes": scopes });
    let mut response = respond::json(&text);
    *response.status_mut() = status;
    response
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GitHub, "Validating webhook deliveries", section "Testing the webhook payload validation".
    #[test]
    fn the_published_vector_holds_and_a_changed_one_does_not() {
        let keys = Keys::read("another secret\nIt's a Secret to Everybody\n").unwrap();
        let hex = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let signature = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).unwrap();
        assert!(keys.signed(b"Hello, World!", &signature));
        assert!(!keys.signed(b"Hello, World?", &signature));
        assert!(!keys.signed(b"Hello, World!", &signature[..31]));
        assert!(Keys::read("\n  \n").is_none() && Keys::read("short").is_none());
    }

    #[test]
    fn the_signed_bytes_say_whether_they_are_a_form() {
        let payload = read(b"payload=%7B%22action%22%3A+%22opened%22%7D").unwrap();
        assert_eq!(payload.action.as_deref(), Some("opened"));
        let json = br#"{"action":"edited","body":"&payload=%7B%22action%22%3A%22deleted%22%7D&"}"#;
        assert_eq!(read(json).unwrap().action.as_deref(), Some("edited"));
        for broken in
            [&b"payload=%7"[..], b"payload=%zz", b"payload=", b"other=1", b"a=1&payload=%7B%7D", b"payload=%7B%7D&a=1"]
        {
            assert!(read(broken).is_none(), "{}", broken.escape_ascii());
        }
    }

    #[test]
    fn deliveries_are_remembered_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let (webhook, _deliveries) = Webhook::new(dir.path());
        for n in 0..MAX_SEEN + 10 {
            for _ in 0..2 {
                let removes = Some([u8::from(n % 2 == 0); 32]);
                webhook.applied(Delivery { id: n.to_string(), removes, cutoffs: Vec::new(), aliases: Vec::new() });
            }
        }
        assert!(!webhook.seen("9") && webhook.seen("10") && webhook.seen(&(MAX_SEEN + 9).to_string()));
        let seen = webhook.seen.lock().unwrap();
        assert_eq!((seen.ids.all.len(), seen.ids.order.len()), (MAX_SEEN, MAX_SEEN));
        assert_eq!(seen.removals.all.len(), 2);
        // The bodies, not the ids, are known after a restart.
        webhook.write_down(&[[7; 32]]);
        let (again, _deliveries) = Webhook::new(dir.path());
        assert!(again.has_removed(&[7; 32]) && !again.has_removed(&[1; 32]) && !again.seen("10"));
    }
}
