//! Network namespaces, where they are permitted.

use std::process::{Command, Stdio};

/// `ip` with these words; it must succeed.
pub(crate) fn ip(line: &str) {
    let output = Command::new("ip").args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// This very program, to be run in namespaces of its own; `None` where they are not permitted.
pub(crate) fn unshared() -> Option<Command> {
    let ways: [&[&str]; 2] = [&["--net", "--mount"], &["--user", "--map-root-user", "--net", "--mount"]];
    let works = |way: &&&[&str]| {
        let mut unshare = Command::new("unshare");
        let tried = unshare.args(**way).args(["sh", "-c", "mount -t tmpfs tmpfs /run && ip link add br0 type bridge"]);
        tried.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let way = ways.iter().find(works)?;
    let mut unshare = Command::new("unshare");
    unshare.args(*way).arg(std::env::current_exe().unwrap());
    Some(unshare)
}

/// Inside: a place of one's own for their names.
pub(crate) fn settle() {
    assert!(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status().unwrap().success());
    std::fs::create_dir_all("/run/netns").unwrap();
}
