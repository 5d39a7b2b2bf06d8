//! `octocache gh ARGS…`: the real gh, through the cache, its own configuration untouched (D9).
//!
//! Knows: where gh is, how it is pointed at a socket, how the process behind the socket is started. Does
//! not know: what gh asks. Whatever goes wrong here, gh runs as if we were not there.

use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::args::GhArgs;
use super::{Context, Exit, block_on, print};
use crate::config::{Environment, GhConfig, Places};
use crate::error::{Error, Kind, Result};
use crate::files::{self, Durability};
use crate::mask::Masker;

/// A line of a script that stands in for gh, so that it is not taken for the real one.
pub(super) const SHIM_MARK: &str = "octocache gh";

/// The process behind the socket is waited for so long; then gh runs without it.
const START_WAIT: Duration = Duration::from_secs(5);

/// One that ends at once is started again after this.
const START_AGAIN: Duration = Duration::from_millis(300);

/// One that does not answer within this time is none.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// It ends after so long without a request.
const IDLE: &str = "30m";

/// Commands that change gh's configuration, or need none of GitHub: they see the real one.
const PLAIN: &[&str] = &["auth", "config", "alias", "extension", "extensions", "ext", "completion", "help", "version"];

/// What is the first caller's own and not of all who share the process: it asks for github.com, whoever started it.
const FIRST_CALLERS: &[&str] = &[
    "GH_TOKEN",
    "GITHUB_TOKEN",
    "GH_ENTERPRISE_TOKEN",
    "GITHUB_ENTERPRISE_TOKEN",
    "OCTOCACHE_TOKEN",
    "GH_REPO",
    "GH_HOST",
    "GITHUB_API_URL",
    "GITHUB_REPOSITORY",
];

pub(super) fn main(context: &Context, args: &GhArgs) -> Result<Exit> {
    let environment = Environment::of_process();
    let gh = find_gh(&environment).ok_or_else(|| {
        Error::usage("gh is not on the PATH").hint("install it (https://cli.github.com), or use `octocache api`")
    })?;
    let mut command = Command::new(&gh);
    command.args(&args.args);
    match prepared(context, args, &environment) {
        Ok(Some(config)) => {
            command.env("GH_CONFIG_DIR", config);
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "gh runs without the cache"),
    }
    // This process becomes gh: nothing stands between it and its terminal.
    let cause = command.exec();
    Err(Error::new(Kind::Io, format!("cannot run {}", gh.display())).because(cause))
}

/// A configuration for gh that leads to the socket; `None` where gh is better off without.
fn prepared(context: &Context, args: &GhArgs, environment: &Environment) -> Result<Option<PathBuf>> {
    let first = args.args.iter().find(|arg| !arg.starts_with('-'));
    if first.is_none_or(|command| PLAIN.contains(&command.as_str())) {
        return Ok(None);
    }
    let gh_config = GhConfig::find(environment)?;
    if gh_config.has_socket() {
        // Somebody has said already where gh is to go.
        return Ok(None);
    }
    let places = Places::of(environment)?;
    let hosts = gh_config.other_hosts(environment);
    let api = context.flags.api_url.clone();
    // Another set of hosts is another process: the one that runs knows only its own.
    let name = HEXLOWER.encode(&Sha256::digest(format!("{hosts:?}{api:?}"))[..6]);
    let socket = places.runtime.join(format!("gh-{name}.sock"));
    if !is_served(&socket) {
        start(&places, &socket, &hosts, api.as_deref())?;
    }
    overlay(&places, &gh_config, &socket).map(Some)
}

/// The first gh on the PATH that is not a script of ours.
pub(super) fn find_gh(environment: &Environment) -> Option<PathBuf> {
    let path = environment.get("PATH")?;
    std::env::split_paths(path).map(|dir| dir.join("gh")).find(|gh| is_executable(gh) && !is_shim(gh))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 != 0)
}

pub(super) fn is_shim(path: &Path) -> bool {
    use std::io::Read;
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(256).read_to_end(&mut head));
    read.is_ok() && head.starts_with(b"#!") && head.windows(SHIM_MARK.len()).any(|part| part == SHIM_MARK.as_bytes())
}

/// Whether somebody answers there: a connection alone may be one to a process that ends or hangs.
fn is_served(socket: &Path) -> bool {
    use std::io::{Read, Write};
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        stream.write_all(b"GET /_octocache/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// Starts the process behind the socket and waits until it listens. If several do so at once, one of
/// them gets to listen, and all go on.
fn start(places: &Places, socket: &Path, hosts: &[String], api: Option<&str>) -> Result<()> {
    let own =
        std::env::current_exe().map_err(|cause| Error::new(Kind::Io, "cannot find this program").because(cause))?;
    files::create_private_dir(&places.runtime).map_err(|cause| Error::io("create", &places.runtime, cause))?;
    let mut command = Command::new(own);
    command.arg("--quiet").arg("--cache-dir").arg(&places.cache).arg("serve").arg("--unix").arg(socket);
    command.args(["--exit-when-idle", IDLE]);
    if let Some(api) = api {
        command.args(["--api-url", api, "--name", "api.github.com"]);
    }
    for host in hosts {
        command.args(["--allow-host", host]);
    }
    // It serves whoever comes with a token of their own; it has none itself. And it belongs to no
    // directory, terminal or job.
    for name in FIRST_CALLERS {
        command.env_remove(name);
    }
    command.env("GH_CONFIG_DIR", &places.runtime).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|cause| Error::new(Kind::Io, "cannot start the cache").because(cause))?;
    let comes = async {
        let started = Instant::now();
        let mut ended = started;
        while started.elapsed() < START_WAIT {
            if is_served(socket) {
                return true;
            }
            // One that another has overtaken ends; the other's socket is as good. But the other may be one that was
            // killed and is not quite gone. Where each ends, gh is not kept waiting for the rest of the time.
            if matches!(child.try_wait(), Ok(Some(_))) && ended.elapsed() > START_AGAIN {
                if started.elapsed() > START_WAIT / 2 {
                    break;
                }
                ended = Instant::now();
                if let Ok(another) = command.spawn() {
                    child = another;
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        false
    };
    if block_on(comes)? {
        return Ok(());
    }
    Err(Error::new(Kind::TimedOut, format!("nothing serves at {}", socket.display())))
}

/// A directory with gh's own configuration and the socket in it.
fn overlay(places: &Places, gh: &GhConfig, socket: &Path) -> Result<PathBuf> {
    overlay_in(&places.runtime, gh, socket)
}

/// The same, below a directory.
pub(super) fn overlay_in(below: &Path, gh: &GhConfig, socket: &Path) -> Result<PathBuf> {
    let name = HEXLOWER.encode(&Sha256::digest(format!("{}\0{}", gh.dir.display(), socket.display()))[..6]);
    let dir = below.join(format!("gh-config-{name}"));
    files::create_private_dir(&dir).map_err(|cause| Error::io("create", &dir, cause))?;
    let config = dir.join("config.yml");
    let text = gh.with_socket(socket);
    if fs::read(&config).ok().as_deref() != Some(text.as_bytes()) {
        files::write_atomic(&config, &dir, text.as_bytes(), Durability::Rename)?;
    }
    // Hosts and their tokens stay where they are.
    let (hosts, real) = (dir.join("hosts.yml"), gh.dir.join("hosts.yml"));
    if fs::read_link(&hosts).ok().as_ref() != Some(&real) {
        let _not_there = fs::remove_file(&hosts);
        std::os::unix::fs::symlink(&real, &hosts).or_else(|cause| {
            // Another call has made it meanwhile.
            if cause.kind() == std::io::ErrorKind::AlreadyExists {
                Ok(())
            } else {
                Err(Error::io("link", &hosts, cause))
            }
        })?;
    }
    Ok(dir)
}

/// What `setup gh` says at the end.
pub(super) fn say(text: &str) {
    print::note(&Masker::default(), text);
}
