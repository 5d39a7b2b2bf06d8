//! Removing what processes told each other of identities that are used no more: job tokens change with every job.
//!
//! Knows: which directories are whose, and that nothing goes that a process holds. Does not know: what the
//! files say (`shared`). Best effort.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Timestamp;
use crate::files::Lock;

/// Whose file was not written for so long goes.
const KEPT_SECS: u64 = 2 * 24 * 3_600;

/// All processes together look this often.
const EVERY_SECS: u64 = 6 * 3_600;

/// Directories that are looked at in one go.
const MAX_LOOKED_AT: usize = 20_000;

/// Files that one of them has at most: a place for each request under way, and some more.
const MAX_FILES: usize = 200;

/// Tells when processes looked last.
const STAMP: &str = ".swept";

/// Whether it is time to look through `dir`.
pub(super) fn is_due(dir: &Path, now: Timestamp) -> bool {
    dir.is_dir() && changed_at(&dir.join(STAMP)).is_none_or(|at| at <= now.minus(EVERY_SECS).secs())
}

/// Removes what was not used for two days from `dir`, if it is time.
pub fn sweep(dir: &Path, now: Timestamp) {
    if !is_due(dir, now) {
        return;
    }
    // By the clock that the files' times come from, too: one that is ahead would remove what is in use.
    let Some(written_at) = stamp(&dir.join(STAMP), now) else { return };
    let now = now.min(written_at);
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut removed = 0_u32;
    for entry in entries.flatten().take(MAX_LOOKED_AT) {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit()));
        let path = entry.path();
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_unused(&path, now) {
            removed += u32::from(remove(&path).is_some());
        }
    }
    tracing::debug!(removed, "removed limits of identities that are used no more");
}

fn is_unused(dir: &Path, now: Timestamp) -> bool {
    let at = changed_at(&dir.join("limits.json")).or_else(|| changed_at(dir));
    at.is_some_and(|at| at <= now.minus(KEPT_SECS).secs())
}

/// Removes a directory unless a process holds one of its locks. Who begins to use it now finds it gone, and
/// makes it anew the next time.
fn remove(dir: &Path) -> Option<()> {
    let taken = |path: &Path| Lock::open(path).ok().filter(|lock| lock.take().unwrap_or(false));
    let lock = taken(&dir.join("lock"))?;
    let files: Vec<fs::DirEntry> = fs::read_dir(dir).ok()?.flatten().take(MAX_FILES).collect();
    let mut held = vec![lock];
    for file in &files {
        if !file.file_type().ok()?.is_file() {
            return None;
        }
        if file.path().extension().is_some_and(|ending| ending == "slot") {
            held.push(taken(&file.path())?);
        }
    }
    for file in &files {
        fs::remove_file(file.path()).ok()?;
    }
    fs::remove_dir(dir).ok()
}

/// Records a sweep at `now`. Returns the time of it by the file system's clock.
fn stamp(path: &Path, now: Timestamp) -> Option<Timestamp> {
    let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(now.secs()).ok()?);
    let mut file = File::create(path).ok()?;
    file.write_all(b"\n").ok()?;
    let written = file.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    file.set_modified(at).ok()?;
    Some(Timestamp::from_secs(i64::try_from(written.as_secs()).ok()?))
}

fn changed_at(path: &Path) -> Option<i64> {
    let at: SystemTime = fs::symlink_metadata(path).ok()?.modified().ok()?;
    i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn used(dir: &Path, name: &str, at: Timestamp) -> std::path::PathBuf {
        let own = dir.join(name);
        fs::create_dir(&own).unwrap();
        for file in ["lock", "07.slot", "limits.json"] {
            stamp(&own.join(file), at).unwrap();
        }
        own
    }

    #[test]
    fn what_was_not_used_for_days_goes_and_what_is_held_stays() {
        let dir = tempfile::tempdir().unwrap();
        let old = NOW.minus(3 * 24 * 3_600);
        let names = ["0123456789abcde0", "0123456789abcde1", "0123456789abcde2", "0123456789abcde3", "else"];
        let [gone, fresh, locked, busy, other] = names.map(|name| used(dir.path(), name, old));
        stamp(&fresh.join("limits.json"), NOW.minus(3_600)).unwrap();
        let holds = [locked.join("lock"), busy.join("07.slot")].map(|path| Lock::open(&path).unwrap());
        for file in &holds {
            assert!(file.take().unwrap());
        }
        sweep(dir.path(), NOW);
        let there = |path: &Path| path.join("limits.json").exists();
        assert!(!gone.exists() && [&fresh, &locked, &busy, &other].into_iter().all(|path| there(path)));
        drop(holds);
        // No second sweep before it is due.
        sweep(dir.path(), NOW.plus(EVERY_SECS - 1));
        assert!(there(&locked));
        sweep(dir.path(), NOW.plus(EVERY_SECS));
        assert!(!locked.exists() && !busy.exists() && there(&fresh) && there(&other));
        sweep(&dir.path().join("none"), NOW);
    }

    #[test]
    fn a_clock_that_is_ahead_removes_nothing_that_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("0123456789abcdef");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("limits.json"), "{}").unwrap();
        sweep(dir.path(), Timestamp::from_secs(4_000_000_000));
        assert!(own.exists() && dir.path().join(STAMP).exists());
    }
}
