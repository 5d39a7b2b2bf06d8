//! `octocache setup gh`: gh through the cache for good, and back.
//!
//! Knows: units of systemd, gh's setting, a script that stands in for gh. Does not know: serving.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::args::SetupCommand;
use super::{Context, Exit, gh};
use crate::config::{Environment, GhConfig, Places};
use crate::error::{Error, Kind, Result};
use crate::files::{self, Durability};

const SOCKET_UNIT: &str = "octocache.socket";
const SERVICE_UNIT: &str = "octocache.service";

pub(super) fn main(_: &Context, command: &SetupCommand) -> Result<Exit> {
    let SetupCommand::Gh { undo, shim } = command;
    let environment = Environment::of_process();
    match (shim, undo) {
        (Some(dir), false) => write_shim(dir)?,
        (Some(dir), true) => remove_shim(dir)?,
        (None, false) => install(&environment)?,
        (None, true) => remove(&environment)?,
    }
    Ok(Exit::Done)
}

/// A script called gh that runs `octocache gh`; for whoever has its directory first on the PATH.
fn write_shim(dir: &Path) -> Result<()> {
    let path = dir.join("gh");
    if path.exists() && !gh::is_shim(&path) {
        return Err(Error::usage(format!("{} is something else", path.display()))
            .hint("name a directory of its own, and put it first on the PATH"));
    }
    let own = own_path()?;
    let text = format!("#!/bin/sh\n# Runs gh through the cache: {}\nexec '{own}' gh \"$@\"\n", gh::SHIM_MARK);
    fs::create_dir_all(dir).map_err(|cause| Error::io("create", dir, cause))?;
    files::write_atomic(&path, dir, text.as_bytes(), Durability::Rename)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(|cause| Error::io("make executable", &path, cause))?;
    gh::say(&format!(
        "wrote {}; with {} first on the PATH, `gh` is answered from the cache",
        path.display(),
        dir.display()
    ));
    Ok(())
}

fn remove_shim(dir: &Path) -> Result<()> {
    let path = dir.join("gh");
    if gh::is_shim(&path) {
        fs::remove_file(&path).map_err(|cause| Error::io("remove", &path, cause))?;
        gh::say(&format!("removed {}", path.display()));
    }
    Ok(())
}

fn own_path() -> Result<String> {
    let own =
        std::env::current_exe().map_err(|cause| Error::new(Kind::Io, "cannot find this program").because(cause))?;
    let own = own.display().to_string();
    if own.contains(['\'', '\n', '%']) {
        return Err(Error::usage(format!("the path {own:?} of this program cannot stand in a unit")));
    }
    Ok(own)
}

/// A socket that systemd holds: whatever becomes of the process behind it, a connection starts it anew.
fn install(environment: &Environment) -> Result<()> {
    let gh = gh::find_gh(environment).ok_or_else(|| Error::usage("gh is not on the PATH"))?;
    let config = GhConfig::find(environment)?;
    if config.has_socket() {
        return Err(
            Error::usage("gh has a socket already").hint("see `gh config get http_unix_socket`; --undo takes ours out")
        );
    }
    if !systemctl(&["show-environment"]) {
        return Err(Error::usage("there is no service manager of systemd's for this user")
            .hint("use `octocache gh …`, or `octocache setup gh --shim DIR` with DIR first on the PATH"));
    }
    let places = Places::of(environment)?;
    let (own, cache) = (own_path()?, places.cache.display());
    let mut hosts = config.other_hosts(environment).join("' --allow-host '");
    if !hosts.is_empty() {
        hosts = format!(" --allow-host '{hosts}'");
    }
    let socket = "[Unit]\nDescription=GitHub API, cached (octocache)\n\n[Socket]\nListenStream=%t/octocache/gh.sock\n\
                  SocketMode=0600\nDirectoryMode=0700\n\n[Install]\nWantedBy=sockets.target\n";
    let service = format!(
        "[Unit]\nDescription=GitHub API, cached (octocache)\n\n[Service]\n\
         ExecStart='{own}' --cache-dir '{cache}' serve{hosts} --exit-when-idle 30m\nUMask=0077\n"
    );
    files::create_private_dir(&places.units).map_err(|cause| Error::io("create", &places.units, cause))?;
    for (name, text) in [(SOCKET_UNIT, socket), (SERVICE_UNIT, &service)] {
        files::write_atomic(&places.units.join(name), &places.units, text.as_bytes(), Durability::Rename)?;
    }
    let started = systemctl(&["daemon-reload"]) && systemctl(&["enable", "--now", SOCKET_UNIT]);
    if !started {
        return Err(Error::new(Kind::Io, format!("systemd does not start {SOCKET_UNIT}"))
            .hint(format!("see `systemctl --user status {SOCKET_UNIT}`")));
    }
    let runtime = environment.get("XDG_RUNTIME_DIR").ok_or_else(|| Error::usage("XDG_RUNTIME_DIR is not set"))?;
    set_socket(&gh, &format!("{runtime}/octocache/gh.sock"))?;
    gh::say("gh goes through the cache now; `octocache setup gh --undo` takes it back");
    Ok(())
}

fn remove(environment: &Environment) -> Result<()> {
    let config = GhConfig::find(environment)?;
    if config.has_socket()
        && let Some(gh) = gh::find_gh(environment)
    {
        set_socket(&gh, "")?;
    }
    let places = Places::of(environment)?;
    systemctl(&["disable", "--now", SOCKET_UNIT]);
    systemctl(&["stop", SERVICE_UNIT]);
    for name in [SOCKET_UNIT, SERVICE_UNIT] {
        let _not_there = fs::remove_file(places.units.join(name));
    }
    systemctl(&["daemon-reload"]);
    gh::say("gh asks GitHub itself again");
    Ok(())
}

fn set_socket(gh: &Path, path: &str) -> Result<()> {
    let done = Command::new(gh).args(["config", "set", "http_unix_socket", path]).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Error::new(Kind::Io, "gh does not take the setting http_unix_socket")),
    }
}

fn systemctl(args: &[&str]) -> bool {
    let command = Command::new("systemctl")
        .arg("--user")
        .args(args)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    command.is_ok_and(|status| status.success())
}
