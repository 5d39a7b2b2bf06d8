//! What RFC 9111 asks of a cache, section by section, at the door that clients meet. What the server does otherwise is in
//! docs/proxy.md; here it is, too, so that it does not change unseen.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use octocache::clock::{Clock, Timestamp};
use octocache::error::{Error, Kind, Result};
use octocache::github::Wire;
use octocache::policy::TtlTable;
use octocache::reply::Reply;
use octocache::upstream::BoxFuture;

use crate::oracle::machine::{Machine, Seen};

const PATH: &str = "/repos/o/r";
const TOKEN: &str = "ghx_alice_0";
const OTHER: &str = "ghx_bob_0";
const TAG: &str = "\"one\"";

/// What the origin says, and what it was asked.
#[derive(Debug)]
struct State {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: &'static str,
    /// Of a 304, besides its entity tag.
    of_304: Vec<(&'static str, String)>,
    fails: bool,
    asked: Vec<Request<Bytes>>,
}

#[derive(Debug, Clone)]
struct Origin(Arc<Mutex<State>>);

impl Wire for Origin {
    fn exchange(&self, message: Request<Bytes>) -> BoxFuture<'_, Result<Reply>> {
        let mut state = self.0.lock().unwrap();
        let header = |name: &str| message.headers().get(name).and_then(|value| value.to_str().ok());
        let tag = state.headers.iter().find(|(name, _)| *name == "etag").map(|(_, tag)| tag.clone());
        let has_it = state.status == 200 && tag.is_some() && header("if-none-match") == tag.as_deref();
        let (status, headers) = if has_it {
            let own = tag.map(|tag| ("etag", tag));
            (304, own.into_iter().filter(|_| state.of_304.is_empty()).chain(state.of_304.clone()).collect())
        } else {
            (state.status, state.headers.clone())
        };
        let mut all = HeaderMap::new();
        all.insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
        for (name, value) in headers {
            all.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let body = if has_it || message.method() == Method::HEAD { "" } else { state.body };
        let status = StatusCode::from_u16(status).unwrap();
        let reply = Reply { status, headers: all, body: body.into(), attempts: 1, refused: 0, rule_held: None };
        state.asked.push(message);
        let answer = if state.fails { Err(Error::new(Kind::Transport, "no answer")) } else { Ok(reply) };
        Box::pin(async move { answer })
    }
}

/// A server before an origin that says what it is told to.
struct Door {
    origin: Origin,
    machine: Machine,
    clock: Clock,
}

impl Door {
    fn new() -> Self {
        let state = State {
            status: 200,
            headers: vec![("etag", TAG.into())],
            body: "{\"id\":1}",
            of_304: Vec::new(),
            fails: false,
            asked: Vec::new(),
        };
        let origin = Origin(Arc::new(Mutex::new(state)));
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let machine = Machine::new(Arc::new(origin.clone()), clock.clone());
        Self { origin, machine, clock }
    }

    fn says(&self, status: u16, headers: &[(&'static str, &str)], body: &'static str) {
        let mut state = self.origin.0.lock().unwrap();
        state.status = status;
        state.headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        state.body = body;
    }

    fn says_at_304(&self, headers: &[(&'static str, &str)]) {
        let of_304 = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.origin.0.lock().unwrap().of_304 = of_304;
    }

    fn fails(&self, fails: bool) {
        self.origin.0.lock().unwrap().fails = fails;
    }

    /// What was asked since this was called last.
    fn asked(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut self.origin.0.lock().unwrap().asked)
    }

    async fn ask(&mut self, method: Method, path: &str, headers: &[(&str, &str)]) -> Seen {
        self.clock.advance_millis(10);
        let body = if method == Method::POST || method == Method::PATCH { "{}" } else { "" };
        self.machine.ask(method, path, Some(TOKEN), headers, body.into()).await
    }

    async fn get(&mut self, headers: &[(&str, &str)]) -> Seen {
        self.ask(Method::GET, PATH, headers).await
    }

    /// Whether a `GET` is answered without a request.
    async fn is_stored(&mut self, headers: &[(&str, &str)]) -> bool {
        self.asked();
        self.get(headers).await;
        self.asked().is_empty()
    }
}

fn lifetime() -> u64 {
    TtlTable::default().lifetime(PATH, "", None, None).fresh_secs
}

#[tokio::test]
async fn section_3_storing_responses() {
    for (status, headers, stored) in [
        (200, &[][..], true),
        (200, &[("cache-control", "private, max-age=60, s-maxage=60")], true),
        (200, &[("cache-control", "max-age=0")], true),
        (200, &[("cache-control", "no-store")], false),
        (200, &[("cache-control", "private, No-Store")], false),
        (200, &[("set-cookie", "a=b")], true),
        (203, &[], true),
        (301, &[("location", "https://api.github.com/repositories/7")], true),
        (308, &[("location", "https://api.github.com/repositories/7")], true),
        (307, &[("location", "https://api.github.com/repositories/7")], true),
        (302, &[("location", "https://api.github.com/repositories/7")], false),
        (301, &[("location", "https://elsewhere.example/7")], false),
        (404, &[], true),
        (410, &[], true),
        (202, &[], false),
        (403, &[], false),
        (418, &[], false),
    ] {
        let mut door = Door::new();
        door.says(status, headers, "{\"id\":1}");
        let first = door.get(&[]).await;
        assert_eq!(first.status, status);
        assert_eq!(door.is_stored(&[]).await, stored, "{status} {headers:?}");
    }
    // 5.2.1.5: what a client wants to leave no trace leaves none; what is stored is not used for it.
    let mut door = Door::new();
    door.get(&[("cache-control", "no-store")]).await;
    assert!(!door.is_stored(&[]).await);
    assert!(door.is_stored(&[]).await);
    assert!(!door.is_stored(&[("cache-control", "no-store")]).await);
}

#[tokio::test]
async fn section_3_1_headers_of_the_connection_are_not_stored() {
    let mut door = Door::new();
    door.says(
        200,
        &[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("keep-alive", "3"),
            ("x-github-media-type", "v"),
        ],
        "{}",
    );
    door.get(&[]).await;
    let stored = door.get(&[]).await;
    for gone in ["x-hop", "set-cookie", "keep-alive"] {
        assert!(!stored.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(stored.header("x-github-media-type"), "v");
}

#[tokio::test]
async fn section_3_5_an_authenticated_response_answers_nobody_else() {
    let mut door = Door::new();
    door.get(&[]).await;
    door.asked();
    for token in [Some(OTHER), None] {
        door.machine.ask(Method::GET, PATH, token, &[], Bytes::new()).await;
        assert_eq!(door.asked().len(), 1, "{token:?}");
    }
    assert!(door.is_stored(&[]).await);
}

#[tokio::test]
async fn section_4_1_another_representation_is_another_response() {
    let mut door = Door::new();
    door.get(&[]).await;
    for (accept, stored) in [
        ("application/vnd.github+json", true),
        ("application/json", true),
        ("*/*", true),
        ("application/vnd.github.raw+json", false),
        ("application/vnd.github.full+json", false),
    ] {
        assert_eq!(door.is_stored(&[("accept", accept)]).await, stored, "{accept}");
    }
}

#[tokio::test]
async fn section_4_2_1_lifetimes_are_those_of_classes() {
    // What the origin says of lifetimes is not obeyed: GitHub says 60 seconds of everything.
    for said in ["max-age=1", "s-maxage=1, max-age=1", "max-age=999999"] {
        let mut door = Door::new();
        door.says(200, &[("etag", TAG), ("cache-control", said), ("expires", "Thu, 01 Jan 1970 00:00:00 GMT")], "{}");
        door.get(&[]).await;
        door.clock.advance(lifetime() - 2);
        assert!(door.is_stored(&[]).await, "{said}");
        door.clock.advance(3);
        assert!(!door.is_stored(&[]).await, "{said}");
    }
    // 5.2.2.4: but `no-cache` is, each time.
    let mut door = Door::new();
    door.says(200, &[("etag", TAG), ("cache-control", "private, no-cache")], "{}");
    door.get(&[]).await;
    assert!(!door.is_stored(&[]).await && !door.is_stored(&[]).await);
}

#[tokio::test]
async fn section_4_2_3_age_adds_up() {
    for (said, secs) in [
        ("100", 100),
        ("0", 0),
        (" 100 ", 100),
        ("7, 100", 7),
        ("-100", 0),
        ("1.5", 0),
        ("old", 0),
        ("", 0),
        ("2147483648", 2_147_483_648),
        ("99999999999999999999999", 2_147_483_648),
    ] {
        let mut door = Door::new();
        door.says(200, &[("etag", TAG), ("age", said)], "{}");
        door.get(&[]).await;
        door.clock.advance(5);
        let is_fresh = secs + 6 < lifetime();
        assert_eq!(door.is_stored(&[]).await, is_fresh, "{said}");
        if is_fresh {
            // 5.1: what is not new says how old it is.
            let age: u64 = door.get(&[]).await.header("age").parse().unwrap();
            assert!((secs + 5..=secs + 6).contains(&age), "{said}: {age}");
            door.clock.advance(lifetime() - secs - 5);
            assert!(!door.is_stored(&[]).await, "{said}");
        }
    }
    // Of several fields the first counts, and what is new has none.
    let mut door = Door::new();
    door.says(200, &[("etag", TAG), ("age", "3"), ("age", "999999")], "{}");
    assert_eq!(door.get(&[]).await.header("age"), "3");
    assert!(door.is_stored(&[]).await);
    assert!(!Door::new().get(&[]).await.headers.contains_key("age"));
}

#[tokio::test]
async fn section_4_2_4_stale_responses_stand_in_for_failures_and_say_so() {
    let mut door = Door::new();
    door.get(&[]).await;
    door.clock.advance(lifetime() + 1);
    door.fails(true);
    let stale = door.get(&[]).await;
    assert_eq!((stale.status, &stale.body[..]), (200, &b"{\"id\":1}"[..]));
    assert!(stale.header("cache-status").contains("detail=stale-"), "{}", stale.header("cache-status"));
    assert!(stale.header("age").parse::<u64>().unwrap() > lifetime());
    // 5.2.1.4 asks for a successful validation, and there is none.
    for control in ["no-store", "max-age=1"] {
        let seen = door.get(&[("cache-control", control)]).await;
        let is_honest = seen.status >= 500 || seen.header("cache-status").contains("detail=stale-");
        assert!(is_honest, "{control}: {seen:?}");
    }
    // With nothing stored, a failure is one.
    let mut door = Door::new();
    door.fails(true);
    assert!(door.get(&[]).await.status >= 500);
}

#[tokio::test]
async fn section_4_3_1_what_is_stale_is_validated() {
    for (headers, name, value) in [
        (&[("etag", TAG)][..], "if-none-match", TAG),
        (&[("etag", "W/\"weak\"")], "if-none-match", "W/\"weak\""),
        (&[("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT")], "if-modified-since", "Tue, 14 Nov 2023 22:13:20 GMT"),
    ] {
        let mut door = Door::new();
        door.says(200, headers, "{}");
        door.get(&[]).await;
        door.clock.advance(lifetime() + 1);
        door.asked();
        door.get(&[]).await;
        let asked = door.asked();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].headers()[name], value);
    }
}

#[tokio::test]
async fn section_4_3_2_clients_preconditions_are_answered_from_the_store() {
    let date = "Tue, 14 Nov 2023 22:13:20 GMT";
    let (before, after) = ("Mon, 13 Nov 2023 22:13:20 GMT", "Wed, 15 Nov 2023 22:13:20 GMT");
    let mut door = Door::new();
    door.says(200, &[("etag", TAG), ("last-modified", date)], "{\"id\":1}");
    door.get(&[]).await;
    for (headers, status) in [
        (&[("if-none-match", TAG)][..], 304),
        (&[("if-none-match", "W/\"one\"")], 304),
        (&[("if-none-match", "\"zero\", \"one\"")], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"zero\"")], 200),
        (&[("if-modified-since", date)], 304),
        (&[("if-modified-since", after)], 304),
        (&[("if-modified-since", before)], 200),
        (&[("if-modified-since", "yesterday")], 200),
        // RFC 9110 section 13.1.3: the date counts only where there is no tag.
        (&[("if-none-match", "\"zero\""), ("if-modified-since", after)], 200),
        (&[("if-none-match", TAG), ("if-modified-since", before)], 304),
    ] {
        let seen = door.get(headers).await;
        assert_eq!(seen.status, status, "{headers:?}");
        assert_eq!(seen.header("etag"), TAG, "RFC 9110 section 15.4.5");
        assert_eq!(seen.body.is_empty(), status == 304);
    }
}

#[tokio::test]
async fn section_4_3_3_what_a_validation_may_bring() {
    // 200: in place of what is stored.
    let mut door = Door::new();
    door.get(&[]).await;
    door.clock.advance(lifetime() + 1);
    door.says(200, &[("etag", "\"two\"")], "{\"id\":2}");
    assert_eq!(&door.get(&[]).await.body[..], b"{\"id\":2}");
    assert_eq!(&door.get(&[]).await.body[..], b"{\"id\":2}");
    // 5xx: what is stored stands in, or the failure is handed on with its status and headers.
    door.clock.advance(lifetime() + 1);
    door.says(503, &[("retry-after", "17")], "{\"message\":\"down\"}");
    let stale = door.get(&[]).await;
    assert_eq!((stale.status, &stale.body[..]), (200, &b"{\"id\":2}"[..]));
    let failed = door.ask(Method::GET, "/repos/o/other", &[]).await;
    assert_eq!((failed.status, failed.header("retry-after")), (503, "17"));
    assert_eq!(&failed.body[..], b"{\"message\":\"down\"}");
}

#[tokio::test]
async fn section_4_3_4_a_304_freshens_what_it_is_about() {
    let mut door = Door::new();
    door.get(&[]).await;
    door.clock.advance(lifetime() + 1);
    door.says_at_304(&[
        ("etag", TAG),
        ("x-github-media-type", "new"),
        ("content-type", "text/html"),
        ("content-length", "3"),
    ]);
    let seen = door.get(&[]).await;
    assert_eq!((seen.status, &seen.body[..]), (200, &b"{\"id\":1}"[..]));
    let fresh = door.get(&[]).await;
    assert!(door.is_stored(&[]).await);
    // 3.2: its headers take the place of the stored ones, but for those that are about a body.
    assert_eq!(fresh.header("x-github-media-type"), "new");
    assert_eq!(fresh.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(fresh.header("content-length"), "8");
    // One about another response confirms nothing: the whole is asked for.
    door.clock.advance(lifetime() + 1);
    door.says_at_304(&[("etag", "\"two\"")]);
    door.asked();
    door.get(&[]).await;
    let asked = door.asked();
    assert_eq!(asked.len(), 2);
    assert!(!asked[1].headers().contains_key("if-none-match"));
}

#[tokio::test]
async fn section_4_3_5_head_is_answered_by_github() {
    let mut door = Door::new();
    door.get(&[]).await;
    door.asked();
    let seen = door.ask(Method::HEAD, PATH, &[]).await;
    assert_eq!((seen.status, seen.body.len(), door.asked().len()), (200, 0, 1));
    // It takes the place of nothing.
    let stored = door.get(&[]).await;
    assert_eq!((&stored.body[..], door.asked().len()), (&b"{\"id\":1}"[..], 0));
}

#[tokio::test]
async fn section_4_4_changes_outdate() {
    let target = "/repos/o/r/issues/5";
    for (method, path, status, headers, outdates) in [
        (Method::PATCH, target, 200, &[][..], true),
        (Method::DELETE, target, 204, &[], true),
        (Method::PUT, "/repos/o/r/issues/5/lock", 204, &[], true),
        (Method::POST, "/repos/o/r/issues/5/comments", 201, &[], true),
        // What only the response names.
        (
            Method::POST,
            "/repos/o/r/transfer-of",
            201,
            &[("location", "https://api.github.com/repos/o/r/issues/5")],
            true,
        ),
        // It is outdated before the request is sent, so what is refused has outdated it, too.
        (Method::PATCH, target, 422, &[], true),
        // What is safe changes nothing.
        (Method::HEAD, target, 200, &[], false),
        (Method::OPTIONS, target, 204, &[], false),
    ] {
        let mut door = Door::new();
        door.ask(Method::GET, target, &[]).await;
        door.says(status, headers, "{}");
        let name = format!("{method} {path} {status}");
        assert_eq!(door.ask(method, path, &[]).await.status, status, "{name}");
        door.says(200, &[("etag", TAG)], "{\"id\":1}");
        door.asked();
        door.ask(Method::GET, target, &[]).await;
        assert_eq!(!door.asked().is_empty(), outdates, "{name}");
    }
}

#[tokio::test]
async fn section_5_2_1_clients_directives() {
    // Stored for 100 seconds, and confirmed by nobody since.
    for (control, status, sent) in [
        ("", 200, false),
        ("max-age=1000", 200, false),
        ("max-age=50", 200, true),
        ("max-age=0", 200, true),
        ("Max-Age=\"50\"", 200, true),
        ("max-age=1000, max-age=50", 200, true),
        ("max-age=99999999999999999999999", 200, false),
        ("min-fresh=10", 200, false),
        ("min-fresh=100000", 200, true),
        ("min-fresh=99999999999999999999999", 200, true),
        ("no-cache", 200, true),
        ("no-store", 200, true),
        ("only-if-cached", 200, false),
        ("only-if-cached, max-age=50", 504, false),
        ("only-if-cached, min-fresh=100000", 504, false),
        ("only-if-cached, max-age=50, max-stale=100", 200, false),
        ("no-transform", 200, false),
        ("unknown, max-age", 200, false),
    ] {
        let mut door = Door::new();
        door.get(&[]).await;
        door.clock.advance(100);
        door.asked();
        let seen = door.get(&[("cache-control", control)]).await;
        assert_eq!((seen.status, !door.asked().is_empty()), (status, sent), "{control}");
    }
    // What is stale, and how much so.
    for (control, status, sent) in [
        ("max-stale", 200, true),
        ("only-if-cached", 504, false),
        ("only-if-cached, max-stale", 200, false),
        ("only-if-cached, max-stale=20", 200, false),
        ("only-if-cached, max-stale=5", 504, false),
    ] {
        let mut door = Door::new();
        door.get(&[]).await;
        door.clock.advance(lifetime() + 10);
        door.asked();
        let seen = door.get(&[("cache-control", control)]).await;
        assert_eq!((seen.status, !door.asked().is_empty()), (status, sent), "{control}");
        // 5.2.1.2: what is stale says so.
        assert_eq!(seen.header("cache-status").contains("detail=stale-"), status == 200 && !sent, "{control}");
    }
}

#[tokio::test]
async fn sections_5_2_1_4_and_5_4_end_to_end() {
    let mut door = Door::new();
    door.get(&[]).await;
    door.asked();
    // A cache in the middle hears of it, too.
    door.get(&[("cache-control", "no-cache")]).await;
    assert_eq!(door.asked()[0].headers()["cache-control"], "no-cache");
    // `Pragma` counts where there is no `Cache-Control`.
    assert!(!door.is_stored(&[("pragma", "no-cache")]).await);
    assert!(door.is_stored(&[("pragma", "no-cache"), ("cache-control", "max-age=1000")]).await);
}
