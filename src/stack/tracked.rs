//! Whether git tracks files of a store: then they came with a checkout, and this program did not write them.
//!
//! Knows: where a working tree's index is, and that it lists paths in clear unless it is compressed or split.
//! Does not know: what becomes of such a store (`ownership`). git itself is started only where the index may
//! name the directory, so an ordinary store costs a read of the index.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::files;

/// A larger index is left to git.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The largest `.git` file of a worktree or submodule.
const MAX_POINTER_BYTES: u64 = 4 << 10;

/// Files that projects commit to keep a directory or its content out of git; none of them answers anything.
const HARMLESS: &[&str] = &[".gitignore", ".gitattributes", ".gitkeep", ".keep", "CACHEDIR.TAG", "README", "README.md"];

/// Returns whether a working tree around `dir` tracks files in it, other than placeholders.
///
/// Where the index may name the directory, git decides; where git cannot be asked then, it counts as tracked.
pub(super) fn is_tracked(dir: &Path) -> bool {
    let Ok(dir) = fs::canonicalize(dir) else { return false };
    dir.ancestors().any(|root| {
        let (Some(index), Ok(below)) = (index_of(root), dir.strip_prefix(root)) else { return false };
        match files::read_bounded(&index, MAX_INDEX_BYTES) {
            Ok(None) => false,
            Ok(Some(bytes)) if !may_name(&bytes, below) => false,
            Ok(Some(_)) | Err(_) => git_tracks(root, below),
        }
    })
}

/// Returns the path of the index of the working tree at `root`, if it is one. A pipe or a device is none.
fn index_of(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    let kind = fs::metadata(&git).ok()?;
    let index = if kind.is_file() {
        let pointer = files::read_bounded(&git, MAX_POINTER_BYTES).ok()??;
        let named = std::str::from_utf8(&pointer).ok()?.strip_prefix("gitdir:")?.trim();
        root.join(named).join("index")
    } else {
        git.join("index")
    };
    fs::metadata(&index).is_ok_and(|meta| meta.is_file()).then_some(index)
}

/// Returns whether an index may list a path below `below`. `false` is certain.
fn may_name(index: &[u8], below: &Path) -> bool {
    let version = index.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    // From version 4 on, a path is stored as its difference to the one before. The extension `link` names a
    // second file with further entries; its length takes less than four bytes.
    let is_plain = index.starts_with(b"DIRC") && matches!(version, 2 | 3);
    if !is_plain || below.as_os_str().is_empty() || memchr::memmem::find(index, b"link\0").is_some() {
        return true;
    }
    let Some(below) = below.to_str() else { return true };
    let prefix = format!("{}/", below.replace(std::path::MAIN_SEPARATOR, "/"));
    if cfg!(any(windows, target_os = "macos")) {
        // Names differ by case only, and are the same file.
        return memchr::memmem::find(&index.to_ascii_lowercase(), prefix.to_ascii_lowercase().as_bytes()).is_some();
    }
    memchr::memmem::find(index, prefix.as_bytes()).is_some()
}

fn git_tracks(root: &Path, below: &Path) -> bool {
    let magic = if cfg!(any(windows, target_os = "macos")) { ":(top,icase)" } else { ":(top,literal)" };
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["-c", "core.fsmonitor=false", "ls-files", "-z", "--"]);
    if !below.as_os_str().is_empty() {
        let mut within = OsString::from(magic);
        within.push(below);
        git.arg(within);
    }
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_LITERAL_PATHSPECS", "GIT_PREFIX"] {
        git.env_remove(name);
    }
    match git.stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            let depth = below.components().count();
            output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()).any(|path| {
                let path = String::from_utf8_lossy(path);
                let name: Vec<&str> = path.split('/').skip(depth).collect();
                !matches!(name[..], [one] if HARMLESS.contains(&one))
            })
        }
        Ok(_) | Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(dir: &Path, args: &[&str]) -> bool {
        let mut git = Command::new("git");
        git.arg("-C").arg(dir).args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"]);
        git.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        git.status().is_ok_and(|status| status.success())
    }

    fn checkout() -> Option<(tempfile::TempDir, PathBuf)> {
        let dir = tempfile::tempdir().unwrap();
        if !git(dir.path(), &["init", "-q"]) {
            eprintln!("SKIPPED: git is not installed");
            return None;
        }
        let store = dir.path().join(".cache/github");
        fs::create_dir_all(store.join("v1/ab")).unwrap();
        fs::write(dir.path().join("a.rs"), "").unwrap();
        assert!(git(dir.path(), &["add", "a.rs"]));
        Some((dir, store))
    }

    #[test]
    fn files_that_git_tracks_are_found_in_every_form_of_index() {
        let Some((dir, store)) = checkout() else { return };
        fs::write(store.join("v1/ab/x.json"), "{}").unwrap();
        assert!(!is_tracked(&store), "there, and not tracked");
        fs::write(store.join(".gitignore"), "*\n").unwrap();
        assert!(git(dir.path(), &["add", "-f", ".cache/github/.gitignore"]));
        assert!(!is_tracked(&store), "a placeholder answers nothing");
        assert!(git(dir.path(), &["add", "-f", ".cache/github/v1"]));
        assert!(is_tracked(&store));
        for version in ["4", "3", "2"] {
            assert!(git(dir.path(), &["update-index", "--index-version", version]) && is_tracked(&store), "{version}");
        }
        assert!(git(dir.path(), &["update-index", "--split-index"]) && is_tracked(&store), "split");
        assert!(git(dir.path(), &["rm", "-rq", "--cached", ".cache/github/v1"]) && !is_tracked(&store));
    }

    #[cfg(unix)]
    #[test]
    fn links_submodules_and_worktrees_hide_nothing() {
        let Some((dir, store)) = checkout() else { return };
        fs::write(store.join("v1/ab/x.json"), "{}").unwrap();
        assert!(git(dir.path(), &["add", "-f", ".cache"]) && git(dir.path(), &["commit", "-qm", "x"]));
        let other = tempfile::tempdir().unwrap();
        assert!(git(other.path(), &["init", "-q"]));
        std::os::unix::fs::symlink(store.parent().unwrap(), other.path().join(".cache")).unwrap();
        assert!(is_tracked(&other.path().join(".cache/github")), "by a symbolic link");
        let source = dir.path().display().to_string();
        let tree = other.path().join("tree").display().to_string();
        assert!(git(dir.path(), &["worktree", "add", "-q", &tree]));
        assert!(is_tracked(&other.path().join("tree/.cache/github")), "in a worktree");
        assert!(git(other.path(), &["submodule", "add", "-q", &source, "sub"]));
        assert!(is_tracked(&other.path().join("sub/.cache/github")), "in a submodule");
        assert!(is_tracked(&other.path().join("sub")), "a store that is a submodule itself");
    }

    #[test]
    fn the_index_of_an_ordinary_project_names_no_store() {
        let mut index = b"DIRC\0\0\0\x02\0\0\0\x01".to_vec();
        index.extend([0; 62]);
        index.extend(b"src/main.rs\0");
        assert!(!may_name(&index, Path::new(".cache/github")));
        assert!(may_name(&index, Path::new("src")) && may_name(&index, Path::new("")));
        assert!(may_name(&index[..3], Path::new("x")), "what is no index is left to git");
    }
}
