//! The wire itself: TLS with HTTP/2 and HTTP/1.1, a proxy, silence, and connections that do not stand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use octocache::cache::{Ask, Cache};
use octocache::clock::{Clock, Timestamp};
use octocache::error::Kind;
use octocache::github::{GitHub, Options};
use octocache::partition::Partition;
use octocache::policy::TtlTable;
use octocache::request::{Api, Request};
use octocache::stack::Stack;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::binary::BINARY;

/// A request's head, to its empty line.
fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    head
}

/// A server with a certificate of its own authority; it tells which version each request came in.
struct Tls {
    address: SocketAddr,
    authority: tempfile::NamedTempFile,
    versions: Receiver<String>,
}

fn tls(protocols: &[&[u8]]) -> Tls {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (say, versions) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, say) = (acceptor.clone(), say.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let _nobody_listens = say.send(format!("{:?} {}", request.version(), request.uri().path()));
                        async {
                            Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(bytes::Bytes::from(
                                "{\"tls\":true}",
                            ))))
                        }
                    });
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _closed = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    Tls { address, authority, versions }
}

fn api(server: &Tls, environment: &[(&str, &str)]) -> std::process::Output {
    api_with("", server, environment)
}

/// The same where there is a plan.
fn api_with(plan: &str, server: &Tls, environment: &[(&str, &str)]) -> std::process::Output {
    let home = tempfile::tempdir().unwrap();
    if !plan.is_empty() {
        std::fs::create_dir(home.path().join(".github")).unwrap();
        std::fs::write(home.path().join(".github/octocache.yml"), plan).unwrap();
    }
    let mut command = Command::new(BINARY);
    let plan = if plan.is_empty() { None } else { Some(("OCTOCACHE_PLAN", ".github/octocache.yml")) };
    command.args(["api", "/x"]).env_clear().envs(plan).env("HOME", home.path()).current_dir(home.path());
    command.env("SSL_CERT_FILE", server.authority.path());
    command.env("OCTOCACHE_API_URL", format!("https://localhost:{}", server.address.port()));
    command.envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn tls_with_http_2_and_http_1() {
    for (protocols, wanted) in [(&[&b"h2"[..], b"http/1.1"][..], "HTTP/2.0 /x"), (&[b"http/1.1"], "HTTP/1.1 /x")] {
        let server = tls(protocols);
        let output = api(&server, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((&output.stdout[..], server.versions.recv().unwrap().as_str()), (&b"{\"tls\":true}"[..], wanted));
    }
}

#[test]
fn a_certificate_of_nobody_we_know_is_refused() {
    let (server, other) = (tls(&[b"http/1.1"]), tls(&[b"http/1.1"]));
    let output = api(&server, &[("SSL_CERT_FILE", other.authority.path().to_str().unwrap())]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("certificate") && error.lines().count() == 1, "{error}");
    assert!(server.versions.try_recv().is_err(), "nothing was asked");
}

#[test]
fn an_ipfs_node_is_asked_over_tls_and_only_where_its_certificate_is_known() {
    let secret = octocache::share::seal::Group::generate().unwrap();
    for is_known in [true, false] {
        let (github, unknown) = (tls(&[b"http/1.1"]), tls(&[b"http/1.1"]));
        let node = if is_known { &github } else { &unknown };
        let port = node.address.port();
        let plan = format!(
            "{{\"share\": {{ \"ipfs\": {{ \"api\": \"https://localhost:{port}\" }} }}, \"version\": 1, \
             \"queries\": {{ \"x\": {{ \"get\": \"/x\" }} }}}}"
        );
        let output = api_with(&plan, &github, &[("OCTOCACHE_SHARE_SECRET", &secret)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let asked: Vec<String> = node.versions.try_iter().collect();
        let is_asked = asked.iter().any(|one| one.contains("/api/v0/"));
        assert_eq!(is_asked, is_known, "{asked:?}");
    }
}

#[test]
fn a_proxy_sees_where_to_and_nothing_more() {
    let server = tls(&[b"http/1.1"]);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:pass@{}", proxy.local_addr().unwrap());
    let (target, to) = (server.address, channel());
    let heads = to.1;
    std::thread::spawn(move || {
        for mut client in proxy.incoming().flatten() {
            let head = read_head(&mut client);
            let _nobody_listens = to.0.send(String::from_utf8_lossy(&head).into_owned());
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            let upstream = TcpStream::connect(target).unwrap();
            let (mut from, mut into) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut into));
            let (mut from, mut into) = (upstream, client);
            std::thread::spawn(move || std::io::copy(&mut from, &mut into));
        }
    });
    let output = api(&server, &[("HTTPS_PROXY", &url), ("OCTOCACHE_TOKEN", "ghp_notfortheproxy")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let head = heads.recv().unwrap();
    assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", server.address.port())), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic") && !head.contains("ghp_"), "{head}");
    // NO_PROXY leads past it.
    let output = api(&server, &[("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "localhost")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A cache in front of `address` that waits so long for bytes and for the whole.
fn waiting(address: SocketAddr, dir: &std::path::Path, read_secs: u64, total_secs: u64) -> Cache {
    let api = Api::parse(&format!("http://{address}")).unwrap();
    let options = Options {
        read_timeout: Duration::from_secs(read_secs),
        total_timeout: Duration::from_secs(total_secs),
        ..Options::new(api.clone(), None)
    };
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let upstream = Arc::new(GitHub::new(options, clock.clone()));
    Cache::new(api, Partition::public(), Stack::new(dir, clock.clone()), upstream, TtlTable::default(), clock)
}

/// Time is paused: it moves on to the next time-out whenever nothing else can happen.
#[tokio::test(start_paused = true)]
async fn silence_slowness_and_refusal_end_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let unfinished = TcpListener::bind("127.0.0.1:0").unwrap();
    let (silent_at, unfinished_at) = (silent.local_addr().unwrap(), unfinished.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut streams = Vec::new();
        for mut stream in unfinished.incoming().flatten() {
            read_head(&mut stream);
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nbegun");
            streams.push(stream);
        }
    });
    let gone_at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, read_secs, total_secs, wanted) in [
        (silent_at, 1, 9, "said nothing for 1s"),
        (unfinished_at, 9, 3, "no complete answer within 3s"),
        (gone_at, 9, 9, "no answer from GitHub"),
    ] {
        let cache = waiting(address, dir.path(), read_secs, total_secs);
        let request = Request::get(cache.api(), "/x").unwrap();
        let error = cache.get(&request, &Ask::default()).await.unwrap_err();
        assert!(
            matches!(error.kind(), Kind::TimedOut | Kind::Transport) && error.to_string().contains(wanted),
            "{error}"
        );
    }
    drop(silent);
}
