//! Files as the store needs them: private, atomic, bounded.
//!
//! Knows: temporary file and rename, modes, size bounds. Does not know: what is in them.

mod tree;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
pub use tree::Tree;

/// Whether a written file must survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Its loss is a miss: no fsync.
    Rename,
    /// Its loss would cost the whole cache or give a wrong answer: fsync file and directory.
    Synced,
}

/// Which file stands at a path, and in which state: another stamp means that it is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp(Option<(u64, u64, Option<std::time::SystemTime>)>);

impl Stamp {
    /// What is there now; a file that is not there has a stamp, too.
    pub fn of(path: &Path) -> Self {
        let meta = fs::metadata(path).ok();
        #[cfg(unix)]
        let number = |meta: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(meta);
        #[cfg(not(unix))]
        let number = |_: &fs::Metadata| 0;
        Self(meta.map(|meta| (number(&meta), meta.len(), meta.modified().ok())))
    }
}

/// Creates a directory and its parents, readable by this user only.
pub fn create_private_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Opens a new temporary file in `dir`, readable by this user only; its path comes with it.
pub fn new_partial(dir: &Path) -> std::io::Result<(File, std::path::PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    loop {
        let path = dir.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        match options.open(&path) {
            // A file of a killed process that had our number: take the next.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => return other.map(|file| (file, path)),
        }
    }
}

/// Writes `bytes` to `target` by way of a temporary file in `partial`: readers see the old file
/// or the new one, never half of one.
pub fn write_atomic(target: &Path, partial: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let attempt = || -> std::io::Result<()> {
        let (mut file, path) = new_partial(partial)?;
        let written = file.write_all(bytes).and_then(|()| commit(file, &path, target, durability));
        if written.is_err() {
            let _best_effort = fs::remove_file(&path);
        }
        written
    };
    attempt().map_err(|cause| Error::io("write", target, cause))
}

/// Moves a complete temporary file to its place.
pub fn commit(file: File, partial: &Path, target: &Path, durability: Durability) -> std::io::Result<()> {
    if durability == Durability::Synced {
        file.sync_all()?;
    }
    drop(file); // Windows renames closed files only
    if let Err(error) = fs::rename(partial, target) {
        if error.kind() != std::io::ErrorKind::NotFound {
            return Err(error);
        }
        create_private_dir(target.parent().unwrap_or(target))?;
        fs::rename(partial, target)?;
    }
    #[cfg(unix)]
    if durability == Durability::Synced {
        File::open(target.parent().unwrap_or(target))?.sync_all()?;
    }
    Ok(())
}

/// A file that at most one process locks; in it, a holder may leave a note for the next one. The kernel unlocks it when its
/// holder dies.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Opens it, readable by this user only, and not locked yet.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        open_own(OpenOptions::new().read(true).write(true).create(true).truncate(false), path).map(Self)
    }

    /// Leaves a note for whoever locks it next; only the holder does.
    pub fn note(&self, text: &[u8]) -> std::io::Result<()> {
        self.0.set_len(0)?;
        let mut file = &self.0;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text)
    }

    /// The note that an earlier holder left, of at most `max` bytes.
    pub fn noted(&self, max: u64) -> std::io::Result<Vec<u8>> {
        let mut file = &self.0;
        file.seek(SeekFrom::Start(0))?;
        let mut text = Vec::new();
        file.take(max).read_to_end(&mut text)?;
        Ok(text)
    }

    /// Locks it, if no other process has.
    pub fn take(&self) -> std::io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// The same, and waits as long as another one has it, which may be stopped: no longer than `longest`. The thread waits.
    #[allow(clippy::disallowed_methods, reason = "a lock of another process gives no sign")]
    pub fn take_within(&self, longest: Duration) -> std::io::Result<bool> {
        let mut left = longest;
        let mut pause = Duration::from_micros(200);
        loop {
            if self.take()? {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            std::thread::sleep(pause.min(left));
            left = left.saturating_sub(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Lock {
    /// A child that has just been forked holds the same lock until it becomes another program: closing alone would not end it.
    fn drop(&mut self) {
        let _ended_by_closing = self.0.unlock();
    }
}

/// Opens a table that is read and written in place, readable by this user only.
pub fn open_table(path: &Path) -> std::io::Result<File> {
    open_own(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)
}

/// Opens a log that lines are appended to, readable by this user only.
pub fn open_append(path: &Path) -> std::io::Result<File> {
    open_own(OpenOptions::new().append(true).create(true), path)
}

/// Makes a file that is not there, readable by this user only; whatever has its name stays as it is.
pub fn create_once(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    match open_own(OpenOptions::new().write(true).create_new(true), path) {
        Ok(mut file) => file.write_all(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens a file of the program's own. A symbolic link in its place is refused: it would lead to a file of others.
fn open_own(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    }
    #[cfg(not(unix))]
    refuse_link(path)?;
    options.open(path)
}

/// Refuses a symbolic link at `path`; what is not there is fine.
pub fn refuse_link(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
        let text = format!("{} is a symbolic link", path.display());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

/// Reads a file of at most `max` bytes; `None` when there is none.
pub fn read_bounded(path: &Path, max: u64) -> Result<Option<Bytes>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    read_open_bounded(file, path, max).map(Some)
}

/// Reads an open file of at most `max` bytes.
pub fn read_open_bounded(file: File, path: &Path, max: u64) -> Result<Bytes> {
    let len = file.metadata().map_err(|cause| Error::io("read", path, cause))?.len();
    if len > max {
        return Err(Error::new(Kind::TooLarge, format!("{} has {len} bytes, more than {max}", path.display())));
    }
    let mut bytes = Vec::with_capacity(len as usize + 1);
    file.take(max + 1).read_to_end(&mut bytes).map_err(|cause| Error::io("read", path, cause))?;
    Ok(bytes.into())
}
