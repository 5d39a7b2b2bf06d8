//! A directory below which no symbolic link is followed: what others put there leads nowhere.
//!
//! Knows: on Unix, each step is taken from the handle of the directory before, so the rule holds at the moment of
//! use; elsewhere, links are looked for right before, and one that is made in between is followed. Does not know:
//! what is in the files.

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::read_open_bounded;
use crate::error::{Error, Result};

#[cfg(not(unix))]
use paths::Dirs;
#[cfg(unix)]
use unix::Dirs;

/// A directory that is written below.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    dirs: Dirs,
}

impl Tree {
    /// Opens the directory `path`, wherever it leads: it is what the caller chose.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), dirs: Dirs::open(path)? })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Proves that a file can be made here.
    pub fn probe(&self) -> io::Result<()> {
        let (_, name) = self.dirs.create_temporary()?;
        self.dirs.remove_temporary(&name);
        Ok(())
    }

    /// Reads a file of at most `max` bytes; `None` when there is none, or a link in its place.
    pub fn read(&self, file: &Path, max: u64) -> Result<Option<Bytes>> {
        let opened = split(file).and_then(|(dirs, name)| self.dirs.open_file(&dirs, name));
        match opened {
            Ok(Some(open)) => read_open_bounded(open, &self.path.join(file), max).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(Error::io("read", &self.path.join(file), error)),
        }
    }

    /// Writes a file by way of a temporary one: readers see the old file or the new one, never half of one. A link in
    /// its place is replaced.
    pub fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let (dirs, name) = split(file)?;
        let (mut open, temporary) = self.dirs.create_temporary()?;
        let written = open.write_all(bytes);
        drop(open); // Windows renames closed files only
        written.and_then(|()| self.dirs.commit(&temporary, &dirs, name)).inspect_err(|_| {
            self.dirs.remove_temporary(&temporary);
        })
    }

    /// Removes a file, or a link in its place.
    pub fn remove(&self, file: &Path) -> io::Result<()> {
        let (dirs, name) = split(file)?;
        self.dirs.remove(&dirs, name)
    }
}

/// A relative path of plain names as its directories and its last name.
fn split(file: &Path) -> io::Result<(Vec<&std::ffi::OsStr>, &std::ffi::OsStr)> {
    let mut names = file
        .components()
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it leads out of the directory")),
        })
        .collect::<io::Result<Vec<_>>>()?;
    let last = names.pop().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    Ok((names, last))
}

/// A name that cannot be foreseen.
fn temporary_name() -> io::Result<String> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 12];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system gives no randomness"))?;
    Ok(format!(".octocache-{}", data_encoding::HEXLOWER.encode(&bytes)))
}

fn is_link(name: &std::ffi::OsStr) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotADirectory,
        format!("{} is a symbolic link, or no directory", name.to_string_lossy()),
    )
}

#[cfg(unix)]
mod unix {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::ffi::{OsStr, OsString};
    use std::fs::File;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::rc::Rc;

    use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
    use rustix::io::Errno;

    /// Directories that are held open at once.
    const MAX_OPEN: usize = 32;

    /// Handles of the directory and of some below it.
    #[derive(Debug)]
    pub(super) struct Dirs {
        top: Rc<OwnedFd>,
        below: RefCell<HashMap<Vec<OsString>, Rc<OwnedFd>>>,
    }

    impl Dirs {
        pub(super) fn open(path: &Path) -> io::Result<Self> {
            let top = rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Self { top: Rc::new(top), below: RefCell::default() })
        }

        /// The directory of these names, step by step; made where it is not there and `create` says so.
        fn at(&self, names: &[&OsStr], create: bool) -> io::Result<Rc<OwnedFd>> {
            let mut dir = self.top.clone();
            if names.is_empty() {
                return Ok(dir);
            }
            let key: Vec<OsString> = names.iter().map(|name| (*name).to_owned()).collect();
            if let Some(known) = self.below.borrow().get(&key) {
                return Ok(known.clone());
            }
            for name in names {
                dir = Rc::new(step(&dir, name, create)?);
            }
            let mut below = self.below.borrow_mut();
            if below.len() >= MAX_OPEN {
                below.clear();
            }
            below.insert(key, dir.clone());
            Ok(dir)
        }

        pub(super) fn open_file(&self, dirs: &[&OsStr], name: &OsStr) -> io::Result<Option<File>> {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = self
                .at(dirs, false)
                .and_then(|dir| rustix::fs::openat(&*dir, name, flags, Mode::empty()).map_err(not_followed(name)));
            let file = match opened {
                Ok(file) => file,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let is_file = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::RegularFile;
            Ok(is_file.then(|| File::from(file)))
        }

        pub(super) fn create_temporary(&self) -> io::Result<(File, String)> {
            let name = super::temporary_name()?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
            let file = rustix::fs::openat(&*self.top, name.as_str(), flags, mode)?;
            Ok((File::from(file), name))
        }

        pub(super) fn remove_temporary(&self, name: &str) {
            let _best_effort = rustix::fs::unlinkat(&*self.top, name, AtFlags::empty());
        }

        pub(super) fn commit(&self, temporary: &str, dirs: &[&OsStr], name: &OsStr) -> io::Result<()> {
            let rename = || {
                let dir = self.at(dirs, true)?;
                rustix::fs::renameat(&*self.top, temporary, &*dir, name).map_err(io::Error::from)
            };
            rename().or_else(|error| {
                if error.kind() != io::ErrorKind::NotFound || dirs.is_empty() {
                    return Err(error);
                }
                // A directory that was held open has been removed since.
                self.below.borrow_mut().clear();
                rename()
            })
        }

        pub(super) fn remove(&self, dirs: &[&OsStr], name: &OsStr) -> io::Result<()> {
            Ok(rustix::fs::unlinkat(&*self.at(dirs, false)?, name, AtFlags::empty())?)
        }
    }

    fn step(dir: &OwnedFd, name: &OsStr, create: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(dir, name, flags, Mode::empty());
        let opened = match open() {
            Err(Errno::NOENT) if create => match rustix::fs::mkdirat(dir, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(error) => Err(error),
            },
            other => other,
        };
        opened.map_err(not_followed(name))
    }

    fn not_followed(name: &OsStr) -> impl Fn(Errno) -> io::Error {
        move |error| if matches!(error, Errno::LOOP | Errno::NOTDIR) { super::is_link(name) } else { error.into() }
    }
}

#[cfg(any(not(unix), test))]
#[cfg_attr(unix, expect(dead_code, reason = "the other systems' way is compiled for its tests"))]
mod paths {
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::io;
    use std::path::{Path, PathBuf};

    /// The directory, by its path.
    #[derive(Debug)]
    pub(super) struct Dirs {
        top: PathBuf,
    }

    impl Dirs {
        pub(super) fn open(path: &Path) -> io::Result<Self> {
            fs::read_dir(path).map(|_| Self { top: path.to_owned() })
        }

        fn at(&self, names: &[&OsStr], create: bool) -> io::Result<PathBuf> {
            let mut dir = self.top.clone();
            for name in names {
                dir.push(name);
                match fs::symlink_metadata(&dir) {
                    Ok(meta) if meta.is_dir() && !meta.is_symlink() => {}
                    Ok(_) => return Err(super::is_link(name)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound && create => fs::create_dir(&dir)?,
                    Err(error) => return Err(error),
                }
            }
            Ok(dir)
        }

        pub(super) fn open_file(&self, dirs: &[&OsStr], name: &OsStr) -> io::Result<Option<File>> {
            let none =
                |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
            let path = match self.at(dirs, false) {
                Ok(dir) => dir.join(name),
                Err(error) if none(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_file() => File::open(&path).map(Some),
                Ok(_) => Ok(None),
                Err(error) if none(&error) => Ok(None),
                Err(error) => Err(error),
            }
        }

        pub(super) fn create_temporary(&self) -> io::Result<(File, String)> {
            let name = super::temporary_name()?;
            let file = File::options().write(true).create_new(true).open(self.top.join(&name))?;
            Ok((file, name))
        }

        pub(super) fn remove_temporary(&self, name: &str) {
            let _best_effort = fs::remove_file(self.top.join(name));
        }

        pub(super) fn commit(&self, temporary: &str, dirs: &[&OsStr], name: &OsStr) -> io::Result<()> {
            fs::rename(self.top.join(temporary), self.at(dirs, true)?.join(name))
        }

        pub(super) fn remove(&self, dirs: &[&OsStr], name: &OsStr) -> io::Result<()> {
            fs::remove_file(self.at(dirs, false)?.join(name))
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn nothing_is_written_read_or_removed_through_a_link() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        symlink(elsewhere.path(), dir.path().join("out")).unwrap();
        symlink(&victim, dir.path().join("file")).unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink(elsewhere.path(), dir.path().join("real/below")).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for file in ["out/victim", "out/new/a", "real/below/victim", "file/a"] {
            assert!(tree.write(Path::new(file), b"x").is_err(), "{file}");
            assert_eq!(tree.read(Path::new(file), 100).unwrap(), None, "{file}");
            assert!(tree.remove(Path::new(file)).is_err(), "{file}");
        }
        // A link in a file's own place is not read, and is replaced.
        assert_eq!(tree.read(Path::new("file"), 100).unwrap(), None);
        tree.write(Path::new("file"), b"new").unwrap();
        assert_eq!(tree.read(Path::new("file"), 100).unwrap().unwrap(), "new");
        assert!(!dir.path().join("file").is_symlink());
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
        for bad in ["../a", "/a", "a/../b", ""] {
            assert!(tree.write(Path::new(bad), b"x").is_err(), "{bad}");
        }
        assert!(
            fs::read_dir(dir.path())
                .unwrap()
                .flatten()
                .all(|file| !file.file_name().as_encoded_bytes().starts_with(b"."))
        );
    }

    #[test]
    fn directories_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for round in 0..2 {
            for n in 0..100 {
                tree.write(Path::new(&format!("a/{n}/b.json")), b"{}").unwrap();
            }
            assert!(dir.path().join("a/99/b.json").exists(), "{round}");
            fs::remove_dir_all(dir.path().join("a")).unwrap();
        }
        tree.write(Path::new("a/99/b.json"), b"{}").unwrap();
        assert_eq!(tree.read(Path::new("a/99/b.json"), 9).unwrap().unwrap(), "{}");
        assert!(tree.read(Path::new("a/99/b.json"), 1).is_err());
        let mode = fs::metadata(dir.path().join("a/99/b.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o600, 0o600);
        tree.remove(Path::new("a/99/b.json")).unwrap();
        assert_eq!(tree.read(Path::new("a/99/b.json"), 9).unwrap(), None);
    }

    #[test]
    fn by_paths_links_are_refused_too() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(elsewhere.path(), dir.path().join("out")).unwrap();
        let dirs = paths::Dirs::open(dir.path()).unwrap();
        let (mut file, name) = dirs.create_temporary().unwrap();
        file.write_all(b"x").unwrap();
        assert!(dirs.commit(&name, &["out".as_ref()], "a".as_ref()).is_err());
        dirs.commit(&name, &["in".as_ref()], "a".as_ref()).unwrap();
        assert!(dirs.open_file(&["in".as_ref()], "a".as_ref()).unwrap().is_some());
        assert!(dirs.open_file(&["out".as_ref()], "a".as_ref()).unwrap().is_none());
        dirs.remove(&["in".as_ref()], "a".as_ref()).unwrap();
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
