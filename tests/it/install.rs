//! The install scripts against a local file server: what is right, what is wrong, what is cut short.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

/// Serves files; a path may be cut short so many times.
struct Releases {
    address: std::net::SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: Vec<(String, Vec<u8>)>,
    cut_short: usize,
    asked: Vec<String>,
}

impl Releases {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                }
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut state = shared.lock().unwrap();
                state.asked.push(target.clone());
                // A proxy is asked with the whole address.
                let path = target.strip_prefix("http://releases.invalid").unwrap_or(&target).to_owned();
                let found = state.files.iter().find(|(name, _)| *name == path).map(|(_, bytes)| bytes.clone());
                let answer = match found {
                    None => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
                    Some(bytes) => {
                        let head =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
                        let sent = if state.cut_short > 0 && path.ends_with(".tar.gz") {
                            state.cut_short -= 1;
                            &bytes[..bytes.len() / 2]
                        } else {
                            &bytes[..]
                        };
                        [head.as_bytes(), sent].concat()
                    }
                };
                drop(state);
                let _gone = stream.write_all(&answer);
            }
        });
        Self { address, state }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }
}

const ARCHIVE: &str = "octocache-x86_64-unknown-linux-musl.tar.gz";

struct Setup {
    dir: tempfile::TempDir,
    releases: Releases,
    sha256: String,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let releases = Releases::start();
        // A program that can say its version.
        let stage = dir.path().join("stage");
        std::fs::create_dir(&stage).unwrap();
        std::fs::write(stage.join("octocache"), "#!/bin/sh\necho octocache 9.9.9\n").unwrap();
        Command::new("chmod").args(["755", "octocache"]).current_dir(&stage).status().unwrap();
        Command::new("tar").args(["-czf", "../a.tar.gz", "octocache"]).current_dir(&stage).status().unwrap();
        let archive = std::fs::read(dir.path().join("a.tar.gz")).unwrap();
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&archive));
        let sums = format!("{sha256}  {ARCHIVE}\n").into_bytes();
        releases.with(|state| {
            for place in ["/latest/download", "/download/v9.9.9"] {
                state.files.push((format!("{place}/{ARCHIVE}"), archive.clone()));
                state.files.push((format!("{place}/SHA256SUMS"), sums.clone()));
            }
        });
        Self { dir, releases, sha256 }
    }

    fn bin(&self) -> PathBuf {
        self.dir.path().join("bin/octocache")
    }

    fn script(&self, script: &Path, args: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(script);
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.dir.path());
        command.env("RUNNER_OS", "Linux").env("RUNNER_ARCH", "X64").env("OCTOCACHE_RELEASES_URL", self.releases.url());
        command.envs(environment.iter().copied()).current_dir(self.dir.path()).output().unwrap()
    }

    fn install(&self, args: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install");
        let to = self.dir.path().join("bin");
        let all = [&["--to", to.to_str().unwrap()], args].concat();
        let output = self.script(&script, &all, environment);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn the_right_archive_is_installed_and_a_wrong_one_is_not() {
    let setup = Setup::new();
    assert_eq!(setup.install(&[], &[]), (true, String::new()));
    let said = Command::new(setup.bin()).output().unwrap().stdout;
    assert_eq!(said, b"octocache 9.9.9\n");
    std::fs::remove_file(setup.bin()).unwrap();
    assert!(setup.install(&["--version", "v9.9.9"], &[]).0 && setup.bin().exists());
    std::fs::remove_file(setup.bin()).unwrap();
    // Another digest, another version, a platform without a release.
    let (done, why) = setup.install(&["--sha256", &"0".repeat(64)], &[]);
    assert!(!done && why.contains("nothing is installed") && !setup.bin().exists(), "{why}");
    let (done, why) = setup.install(&["--version", "8.0.0"], &[]);
    assert!(!done && why.contains("cannot fetch") && why.contains("v8.0.0"), "{why}");
    let (done, why) = setup.install(&[], &[("RUNNER_ARCH", "RISCV64")]);
    assert!(!done && why.contains("no release for Linux on RISCV64"), "{why}");
    assert!(!setup.install(&["--nonsense", "x"], &[]).0);
}

#[test]
fn a_transfer_that_ends_early_is_tried_again_and_never_installed() {
    let setup = Setup::new();
    setup.releases.with(|state| state.cut_short = 1);
    assert!(setup.install(&[], &[]).0 && setup.bin().exists());
    std::fs::remove_file(setup.bin()).unwrap();
    setup.releases.with(|state| state.cut_short = 100);
    let (done, why) = setup.install(&[], &[]);
    assert!(!done && why.contains("cannot fetch") && !setup.bin().exists(), "{why}");
}

#[test]
fn a_proxy_is_used_and_a_kept_archive_needs_no_network() {
    let setup = Setup::new();
    let keep = setup.dir.path().join("keep");
    let args = ["--version", "9.9.9", "--sha256", &setup.sha256, "--keep", keep.to_str().unwrap()];
    let proxy = setup.releases.url();
    let through = [("http_proxy", proxy.as_str()), ("OCTOCACHE_RELEASES_URL", "http://releases.invalid")];
    let (done, why) = setup.install(&args, &through);
    assert!(done, "{why}");
    let asked = setup.releases.with(|state| std::mem::take(&mut state.asked));
    assert_eq!(asked, [format!("http://releases.invalid/download/v9.9.9/{ARCHIVE}")]);
    // Kept, it is used without a network; damaged, it is not.
    std::fs::remove_file(setup.bin()).unwrap();
    let nowhere = [("OCTOCACHE_RELEASES_URL", "http://127.0.0.1:1")];
    assert!(setup.install(&args, &nowhere).0 && setup.bin().exists());
    std::fs::write(keep.join(ARCHIVE), b"damaged").unwrap();
    assert!(!setup.install(&args, &nowhere).0);
    assert!(setup.install(&args, &[]).0, "and is fetched anew");
}

#[cfg(unix)]
#[test]
fn a_kept_archive_that_is_replaced_after_the_check_is_not_unpacked() {
    let setup = Setup::new();
    let path = |name: &str| setup.dir.path().join(name).display().to_string();
    let args = ["--version", "9.9.9", "--sha256", &setup.sha256, "--keep", &path("keep")];
    assert!(setup.install(&args, &[]).0);
    std::fs::remove_file(setup.bin()).unwrap();
    // Another program under the same name, put in place as soon as any digest was computed.
    std::fs::write(path("stage/octocache"), "#!/bin/sh\necho another\n").unwrap();
    Command::new("tar").args(["-czf", "../b.tar.gz", "octocache"]).current_dir(path("stage")).status().unwrap();
    let search = std::env::var("PATH").unwrap();
    let replace = format!(
        "#!/bin/sh\nPATH='{search}' sha256sum \"$@\"\ncp '{}' '{}/{ARCHIVE}'\n",
        path("b.tar.gz"),
        path("keep")
    );
    std::fs::create_dir(path("shim")).unwrap();
    std::fs::write(path("shim/sha256sum"), replace).unwrap();
    Command::new("chmod").args(["755", &path("shim/sha256sum")]).status().unwrap();
    let search = format!("{}:{search}", path("shim"));
    let (done, why) = setup.install(&args, &[("PATH", &search), ("OCTOCACHE_RELEASES_URL", "http://127.0.0.1:1")]);
    assert!(done, "{why}");
    assert_eq!(Command::new(setup.bin()).output().unwrap().stdout, b"octocache 9.9.9\n");
}

#[test]
fn the_action_installs_the_release_that_its_own_tree_names() {
    let setup = Setup::new();
    let (root, temp) = (setup.dir.path().join("action/scripts"), setup.dir.path().join("temp"));
    std::fs::create_dir_all(root.join("action")).unwrap();
    std::fs::create_dir(&temp).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    std::fs::copy(source.join("install"), root.join("install")).unwrap();
    std::fs::copy(source.join("action/install"), root.join("action/install")).unwrap();
    let digests = format!("# comment\n9.9.9 x86_64-unknown-linux-musl {}\n", setup.sha256);
    std::fs::write(root.join("action/digests"), digests).unwrap();
    let output = setup.dir.path().join("output");
    let run = |environment: &[(&str, &str)]| {
        std::fs::write(&output, "").unwrap();
        let (temp, output) = (temp.to_str().unwrap(), output.to_str().unwrap());
        let usual = [("RUNNER_TEMP", temp), ("RUNNER_TOOL_CACHE", temp), ("GITHUB_OUTPUT", output)];
        let done = setup.script(&root.join("action/install"), &[], &[&usual[..], environment].concat());
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        (done.status.success(), said, std::fs::read_to_string(output).unwrap())
    };
    let (done, said, output) = run(&[]);
    assert!(done && said.contains("octocache 9.9.9") && output.starts_with("binary=/"), "{said}{output}");
    // The next job on this machine needs no network.
    assert!(run(&[("OCTOCACHE_RELEASES_URL", "http://127.0.0.1:1")]).0);
    let (done, said, _) = run(&[("INPUT_VERSION", "7.0.0")]);
    assert!(!done && said.contains("::error") && said.contains("pin another commit"), "{said}");
    let (done, said, _) = run(&[("RUNNER_ARCH", "RISCV64")]);
    assert!(!done && said.contains("no release for Linux on RISCV64"), "{said}");
    let wrong = format!("9.9.9 x86_64-unknown-linux-musl {}\n", "0".repeat(64));
    std::fs::write(root.join("action/digests"), wrong).unwrap();
    let (done, said, _) = run(&[]);
    assert!(!done && said.contains("nothing is installed"), "{said}");
}

/// What builds nothing: a program that names the tree it is told to build.
const CARGO: &str = r#"#!/bin/sh
echo "$PWD $*" >>"$CARGO_LOG"
while [ $# -gt 1 ]; do
  case $1 in --path) tree=$2 ;; --root) to=$2 ;; esac
  shift
done
mkdir -p "$to/bin"
printf '#!/bin/sh\necho octocache of %s\n' "$(cat "$tree/src.rs")" >"$to/bin/octocache"
chmod 755 "$to/bin/octocache"
"#;

#[cfg(unix)]
#[test]
fn a_program_is_built_from_the_pinned_tree_in_each_job_and_none_is_kept() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let executable = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    executable(&path("fake/cargo"), CARGO);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    for tree in ["a", "b", "work/action"] {
        std::fs::create_dir_all(path(tree).join("scripts/action")).unwrap();
        std::fs::copy(source.join("action/install"), path(tree).join("scripts/action/install")).unwrap();
        std::fs::write(path(tree).join("scripts/action/digests"), "# none\n").unwrap();
        std::fs::write(path(tree).join("src.rs"), format!("commit {tree}\n")).unwrap();
    }
    // Earlier jobs can write to the tool cache.
    let planted = "#!/bin/sh\necho planted\n";
    executable(&path("tools/octocache/bin/octocache"), planted);
    executable(&path("tools/octocache/octocache"), planted);
    let install = |tree: &str, temp: &str| {
        std::fs::create_dir_all(path(temp)).unwrap();
        let search = format!("{}:{}", path("fake").display(), std::env::var("PATH").unwrap());
        let done = Command::new("bash")
            .arg(path(tree).join("scripts/action/install"))
            .env_clear()
            .envs([("PATH", search.as_str()), ("RUNNER_OS", "Linux"), ("RUNNER_ARCH", "X64")])
            .env("RUNNER_TEMP", path(temp))
            .env("RUNNER_TOOL_CACHE", path("tools"))
            .env("GITHUB_OUTPUT", path("output"))
            .env("GITHUB_WORKSPACE", path("work"))
            .env("CARGO_LOG", path("log"))
            .current_dir(path("work"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let builds = || std::fs::read_to_string(path("log")).unwrap().lines().count();
    assert_eq!(install("a", "job-1"), "octocache of commit a\n");
    assert_eq!((install("a", "job-1").as_str(), builds()), ("octocache of commit a\n", 1), "two uses in one job");
    assert_eq!(install("b", "job-1"), "octocache of commit b\n", "two pins in one job");
    std::fs::write(path("a/src.rs"), "commit c\n").unwrap();
    assert_eq!(install("a", "job-1"), "octocache of commit c\n", "the tree of a path changed");
    // The runner empties its temporary directory: the next job builds anew.
    assert_eq!((install("b", "job-2").as_str(), builds()), ("octocache of commit b\n", 4));
    // Beside a stranger's checkout: neither its toolchain nor its .cargo/config.toml is looked at.
    assert_eq!(install("work/action", "job-2"), "octocache of commit work/action\n");
    let log = std::fs::read_to_string(path("log")).unwrap();
    let work = path("work").display().to_string();
    assert!(log.lines().all(|line| line.starts_with("/ ") && !line.contains(&work)), "{log}");
    assert_eq!(std::fs::read_to_string(path("tools/octocache/bin/octocache")).unwrap(), planted);
}

#[test]
fn the_bill_of_materials_names_what_is_in_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root)
        .output()
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), metadata.stdout).unwrap();
    let made = Command::new("python3")
        .arg(root.join("scripts/release/bill"))
        .stdin(std::fs::File::open(file.path()).unwrap())
        .output()
        .unwrap();
    let bill: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let names: Vec<&str> =
        bill["components"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert!(names.contains(&"octocrab") && names.contains(&"zstd") && !names.contains(&"proptest"), "{names:?}");
    assert_eq!(bill["metadata"]["component"]["name"], "octocache");
}
