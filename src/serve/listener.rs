//! Sockets: letting clients in, bounded in number and time, and out again.
//!
//! Knows: TCP, Unix sockets, how many and how long. Does not know: what is said on them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use super::connections::{Bound, Place};
use super::exchange::Visitor;
use super::patience::Patience;
use super::{Door, exchange};
use crate::error::{Error, Result};
use crate::files::{self, Lock};

/// The largest head of a request.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Connections at once where deliveries come in.
const MAX_DELIVERING: usize = 256;

/// There, a client that says nothing for this long is let go.
const DELIVERIES_IDLE: Duration = Duration::from_secs(10);

/// Bits of a file's mode that are for anybody but its owner.
#[cfg(unix)]
const GROUP_AND_OTHERS: u32 = 6;

/// After a failure to let somebody in, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// Everything.
    All,
    /// Deliveries of webhooks, and nothing else: for a socket that the internet can reach.
    Deliveries,
}

/// A socket that clients come to.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; its file goes when this does, if it is ours.
    #[cfg(unix)]
    Unix(UnixListener, Option<SocketFile>),
}

/// All of them.
pub type Listeners = Vec<(Listener, Entrance)>;

/// The file of a socket that we made. A lock beside it is held as long: whoever has it serves there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    _lock: Lock,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_file(&self.path);
    }
}

impl Listener {
    /// Binds a TCP address.
    pub async fn tcp(address: SocketAddr) -> Result<Self> {
        TcpListener::bind(address).await.map(Listener::Tcp).map_err(|cause| {
            let error = Error::usage(format!("cannot listen on {address}")).because(cause);
            error.hint("is another octocache serving there? choose another with --listen")
        })
    }

    /// Binds a Unix socket for this user alone. A socket that nobody serves any more is replaced.
    #[cfg(unix)]
    pub fn unix(path: &Path) -> Result<Self> {
        let failed = |cause: io::Error| Error::usage(format!("cannot listen on {}", path.display())).because(cause);
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            files::create_private_dir(dir).map_err(failed)?;
        }
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let lock = Lock::open(Path::new(&lock)).map_err(failed)?;
        if !lock.take().unwrap_or(false) {
            return Err(Error::usage(format!("another process serves on {}", path.display()))
                .hint("stop it, or choose another path with --unix"));
        }
        let is_socket = std::fs::symlink_metadata(path)
            .is_ok_and(|meta| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()));
        if is_socket {
            std::fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
        Ok(Listener::Unix(listener, Some(SocketFile { path: path.to_owned(), _lock: lock })))
    }

    /// What a service manager has opened for us (`sd_listen_fds`), if it has.
    pub fn inherited() -> Result<Listeners> {
        let failed =
            |cause: io::Error| Error::usage("a socket that the service manager opened is not usable").because(cause);
        let mut sockets = listenfd::ListenFd::from_env();
        let mut listeners = Listeners::new();
        for at in 0..sockets.len() {
            #[cfg(unix)]
            if let Ok(Some(unix)) = sockets.take_unix_listener(at) {
                unix.set_nonblocking(true).map_err(failed)?;
                listeners.push((Listener::Unix(UnixListener::from_std(unix).map_err(failed)?, None), Entrance::All));
                continue;
            }
            if let Some(tcp) = sockets.take_tcp_listener(at).map_err(failed)? {
                tcp.set_nonblocking(true).map_err(failed)?;
                listeners.push((Listener::Tcp(TcpListener::from_std(tcp).map_err(failed)?), Entrance::All));
            }
        }
        Ok(listeners)
    }

    /// Where clients find it.
    pub fn address(&self) -> String {
        match self {
            Listener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| format!("http://{address}"))
            }
            #[cfg(unix)]
            Listener::Unix(listener, _) => {
                let address = listener.local_addr().ok();
                address
                    .and_then(|address| address.as_pathname().map(|path| path.display().to_string()))
                    .unwrap_or_default()
            }
        }
    }
}

impl Listener {
    /// Whether the socket's file lets only the user connect whose server this is.
    fn is_same_user(&self) -> bool {
        match self {
            Listener::Tcp(_) => false,
            #[cfg(unix)]
            Listener::Unix(_, Some(_)) => true,
            #[cfg(unix)]
            Listener::Unix(listener, None) => {
                use std::os::unix::fs::MetadataExt;
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                let meta = path.and_then(|path| std::fs::symlink_metadata(path).ok());
                meta.is_some_and(|meta| meta.mode().trailing_zeros() >= GROUP_AND_OTHERS)
            }
        }
    }
}

/// Lets clients in until `ended`, then waits for what is under way, at most `grace`.
pub(super) async fn accept(
    door: &Arc<Door>,
    listeners: Listeners,
    max_connections: usize,
    idle: Duration,
    grace: Duration,
    ended: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    {
        // Each listener has a bound of its own: a full one blocks no other.
        let loops = listeners.into_iter().map(|(listener, entrance)| {
            let bound = match entrance {
                Entrance::All => Bound::waiting(max_connections),
                Entrance::Deliveries => Bound::evicting(max_connections.min(MAX_DELIVERING)),
            };
            let idle = match entrance {
                Entrance::All => idle,
                Entrance::Deliveries => idle.min(DELIVERIES_IDLE),
            };
            accept_on(door, listener, entrance, bound, idle, &graceful)
        });
        tokio::select! {
            _ = futures_util::future::join_all(loops) => {}
            () = ended => {}
        }
    }
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(grace) => tracing::warn!(?grace, "some requests did not end in time"),
    }
}

async fn accept_on(
    door: &Arc<Door>,
    listener: Listener,
    entrance: Entrance,
    bound: Bound,
    idle: Duration,
    graceful: &GracefulShutdown,
) {
    let visitor = Visitor { entrance, is_same_user: listener.is_same_user() };
    loop {
        let free = bound.free().await;
        let failed = |error: io::Error| tracing::warn!(%error, "a connection cannot be taken");
        match &listener {
            Listener::Tcp(tcp) => match tcp.accept().await {
                Ok((stream, _)) => {
                    let _best_effort = stream.set_nodelay(true);
                    talk(door, visitor, stream, idle, graceful, bound.place(free));
                }
                Err(error) => {
                    failed(error);
                    tokio::time::sleep(PAUSE).await;
                }
            },
            #[cfg(unix)]
            Listener::Unix(unix, _) => match unix.accept().await {
                Ok((stream, _)) => talk(door, visitor, stream, idle, graceful, bound.place(free)),
                Err(error) => {
                    failed(error);
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

fn talk<S>(door: &Arc<Door>, visitor: Visitor, stream: S, idle: Duration, graceful: &GracefulShutdown, mut place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = (door.clone(), Arc::<exchange::Memo>::default());
    let service = service_fn(move |request| {
        let (door, memo) = shared.clone();
        async move { Ok::<_, std::convert::Infallible>(exchange::answer(&door, visitor, &memo, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Patience::new(stream, idle)), service);
    let watched = graceful.watch(connection);
    door.counters.connections.fetch_add(1, Ordering::Relaxed);
    let door = door.clone();
    tokio::spawn(async move {
        tokio::select! {
            ended = watched => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
            }
            () = place.evicted() => tracing::debug!("a connection makes room for a new one"),
        }
        door.counters.connections.fetch_sub(1, Ordering::Relaxed);
        drop(place);
    });
}
