//! Saving: folding loose entries, freshenings, last uses and invalidations into the bundle.
//!
//! Knows: when to append, when to repack, what may be deleted afterwards. Does not know: the
//! bytes (`bundle`).
//! Order: write, sync, rename, sync the directory; only then delete what was absorbed, and only
//! if it is still the file that was packed. A kill in between leaves duplicates, never a loss.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::narrow::{Narrow, inadmissible};
use super::{Stack, Wait};
use crate::alias::Alias;
use crate::bundle::{Bundle, Envelope, MAX_DEAD_SHARE, MAX_GENERATIONS, Plan, Planned, Record, Totals, write};
use crate::cid::Cid;
use crate::clock::Timestamp;
use crate::cutoff::{CutoffMode, Cutoffs, IN_THE_END};
use crate::entry::is_redirect;
use crate::error::{Error, Result};
use crate::files::{self, Durability};
use crate::key::{CacheKey, KeyParts};
use crate::policy::{self, class};
use crate::tag::Subject;
use crate::tier::WritableTier;
use crate::tier::bundle::{BundleTier, Freshened};
use crate::tier::disk::Peeked;

/// What a save did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "saved")]
pub enum Saved {
    /// Nothing worth saving changed.
    Unchanged,
    /// Another process is saving.
    Busy,
    /// A new bundle is in place.
    Written {
        /// `append`, `repack` or `index` (only times changed).
        how: &'static str,
        /// Entries that were absorbed.
        absorbed: usize,
        /// The bundle's sums.
        totals: Totals,
        /// The file's size in bytes.
        bytes: u64,
    },
}

/// A loose entry that a save absorbs.
struct Loose {
    planned: Planned,
    path: PathBuf,
    fetched_at: Timestamp,
    validated_at: Timestamp,
    cid: Cid,
    /// How much later than its bundled twin it must have been validated to be worth saving, in seconds.
    worth_secs: u64,
    seen: (Option<SystemTime>, u64),
}

/// What a save writes, decided.
struct Decided<'a> {
    base: Option<&'a Bundle>,
    carried: Vec<Record>,
    loose: &'a [Loose],
    imported: Imported,
    cutoffs: Cutoffs,
    repack: bool,
}

/// Entries that come from the local bundle.
#[derive(Default)]
struct Imported {
    local: Option<Bundle>,
    /// Where each is, with its latest time, and where it is to stand.
    records: HashMap<CacheKey, (Record, String)>,
    /// When the oldest of them came from GitHub.
    oldest: Option<Timestamp>,
}

impl Imported {
    fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// One save: where it goes, and what may go there.
struct Save<'a> {
    tier: &'a BundleTier,
    narrow: &'a Narrow,
    /// Whether loose entries are absorbed.
    absorb: bool,
    /// Repacks whatever the policy says.
    full: bool,
    /// Entries to leave out, by the first half of their keys.
    doomed: &'a HashSet<[u8; 16]>,
}

impl Stack {
    /// Folds what `narrow` admits into the bundle. Entries that the bundle holds and `narrow` does not admit go
    /// back to loose files, so nothing stored is lost. `full` repacks whatever the policy says.
    pub fn pack(&self, narrow: &Narrow, full: bool) -> Result<Saved> {
        let narrow = self.with_aliases(|aliases| narrow.with_twins(aliases));
        self.save(&Save { tier: &self.bundle, narrow: &narrow, absorb: true, full, doomed: &HashSet::new() })
    }

    /// Folds all loose entries, of every partition, into the local bundle, which stays on this machine.
    pub fn fold(&self) -> Result<Saved> {
        let narrow = Narrow::everything();
        self.save(&Save { tier: &self.local, narrow: &narrow, absorb: true, full: false, doomed: &HashSet::new() })
    }

    /// Packs one of the bundles anew without the entries whose keys begin so, and without what is gone.
    pub(super) fn repack_without(&self, tier: &BundleTier, doomed: &HashSet<[u8; 16]>) -> Result<Saved> {
        self.save(&Save { tier, narrow: &Narrow::everything(), absorb: false, full: true, doomed })
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        let Save { tier, narrow, absorb, full, doomed } = *save;
        self.prepare()?;
        let Some(_lock) = self.lock(Wait::No)? else { return Ok(Saved::Busy) };
        self.drop_old_partials();
        let (base, records, mut old_cutoffs) = match self.checked_bundle(tier) {
            Some((base, records, cutoffs)) => (Some(base), records, cutoffs),
            None => (None, Vec::new(), Cutoffs::default()),
        };
        let latest = self.clock.now().plus(policy::MAX_CLOCK_SKEW_SECS);
        let records: Vec<Record> = records.into_iter().map(|record| record.without_times_after(latest)).collect();
        let mut cutoffs = self.all_cutoffs();
        let freshened = Freshened::read(tier.log());
        let mut loose = if absorb { self.loose(narrow, &cutoffs) } else { Vec::new() };
        drop_outdated(&mut loose, &records);
        let imported = if absorb { self.importable(tier, narrow, &records, &loose)? } else { Imported::default() };
        let refused = match &base {
            Some(base) if !narrow.is_everything() => inadmissible(base, narrow)?,
            _ => HashSet::new(),
        };
        // What is older than every entry can touch none of them, and is no news.
        let stored = records.iter().map(Record::stored_at).chain(loose.iter().map(|loose| loose.fetched_at));
        let oldest = stored.chain(imported.oldest).min().unwrap_or_else(|| self.clock.now());
        for list in [&mut cutoffs, &mut old_cutoffs] {
            list.forget_before(oldest);
        }
        let is_same = imported.is_empty() && freshened.is_empty() && refused.is_empty() && !full;
        let has_news = !is_same || has_news(&loose, &records);
        let mut unchanged = !has_news;
        if unchanged && cutoffs != old_cutoffs {
            unchanged = !base.as_ref().is_some_and(|base| touches(base, &cutoffs, &old_cutoffs));
        }
        if unchanged && base.is_some() || (base.is_none() && loose.is_empty() && imported.is_empty()) {
            return Ok(Saved::Unchanged);
        }
        if let Some(base) = &base {
            self.put_back(base, &records, &refused, &freshened)?;
        }
        let used = self.used_days();
        let leads = loose.iter().map(|loose| &loose.planned.key).chain(imported.records.keys());
        let superseded: HashSet<[u8; 16]> = leads.filter_map(lead).collect();
        let stays = |key: &[u8; 16]| !superseded.contains(key) && !doomed.contains(key) && !refused.contains(key);
        let alive = records.into_iter().filter(|record| stays(&record.key));
        let carried = with_latest_times(alive, &freshened, &used, latest);
        let is_new_gone = |cutoff: &crate::cutoff::Cutoff| {
            cutoff.mode == CutoffMode::Gone && !old_cutoffs.iter().any(|old| old == cutoff)
        };
        let worn = base.as_ref().is_none_or(|base| is_worn(base.totals(), &carried));
        // Frames hold whole entries: those of what is not admitted must not be copied.
        let repack = full || worn || !refused.is_empty() || cutoffs.iter().any(is_new_gone);
        let how = match (repack, loose.is_empty() && imported.is_empty()) {
            (true, _) => "repack",
            (false, true) => "index",
            (false, false) => "append",
        };
        let absorbed = loose.len() + imported.records.len();
        let decided = Decided { base: base.as_ref(), carried, loose: &loose, imported, cutoffs, repack };
        let (totals, bytes) = self.write_bundle(tier.path(), decided)?;
        super::tally::count(&self.tally.packed, 1);
        drop_absorbed(&loose);
        self.disk.sweep();
        let _best_effort = fs::remove_file(tier.log());
        if std::ptr::eq(tier, &raw const self.local) || !self.local.path().exists() {
            let _best_effort = fs::remove_file(self.used_log());
        }
        Ok(Saved::Written { how, absorbed, totals, bytes })
    }

    /// What the local bundle holds, `narrow` admits and `tier` does not have yet.
    fn importable(&self, tier: &BundleTier, narrow: &Narrow, records: &[Record], loose: &[Loose]) -> Result<Imported> {
        let mut imported = Imported::default();
        if std::ptr::eq(tier, &raw const self.local) {
            return Ok(imported);
        }
        // Not as the tier has it open: another process may have written it anew.
        let Some(local) = Bundle::open(self.local.path()).unwrap_or_default() else { return Ok(imported) };
        let freshened = Freshened::read(self.local.log());
        let known: HashMap<[u8; 16], u32> = records.iter().map(|record| (record.key, record.validated_at)).collect();
        let hidden: HashSet<[u8; 16]> = loose.iter().filter_map(|loose| lead(&loose.planned.key)).collect();
        local.for_each_head(|record, head| {
            let key = head.parts.key();
            let subject = Subject { key: &key, parts: &head.parts, listing: head.listing.as_deref() };
            let validated_at = freshened.validated_at(&record).unwrap_or(0).max(record.validated_at);
            let is_newer = known.get(&record.key).is_none_or(|at| *at < validated_at);
            if is_newer
                && !hidden.contains(&record.key)
                && !is_redirect(head.status)
                && narrow.admits(subject, &head.class)
            {
                imported.oldest = imported.oldest.into_iter().chain([head.fetched_at]).min();
                imported.records.insert(key, (Record { validated_at, ..record }, order(&head.parts)));
            }
        })?;
        imported.local = (!imported.is_empty()).then_some(local);
        Ok(imported)
    }

    /// Writes entries that leave the bundle to loose files, unless a loose one is there already.
    fn put_back(
        &self,
        base: &Bundle,
        records: &[Record],
        refused: &HashSet<[u8; 16]>,
        freshened: &Freshened,
    ) -> Result<()> {
        for record in records.iter().filter(|record| refused.contains(&record.key)) {
            // What cannot be read is lost already.
            let Ok(mut entry) = base.read_unasked(record) else { continue };
            let noted = freshened.validated_at(record).map(|secs| Timestamp::from_secs(i64::from(secs)));
            entry.validated_at = entry.validated_at.max(noted.unwrap_or_default());
            if !self.disk.has(&entry.key()) {
                self.disk.put(&entry)?;
            }
        }
        Ok(())
    }

    /// The bundle with its whole index, checked; `None` when there is none or it is not usable.
    fn checked_bundle(&self, tier: &BundleTier) -> Option<(Bundle, Vec<Record>, Cutoffs)> {
        let open = || -> Result<Option<(Bundle, Vec<Record>, Cutoffs)>> {
            let Some(bundle) = Bundle::open(tier.path())? else { return Ok(None) };
            let (records, cutoffs) = bundle.check_index()?;
            let cutoffs = cutoffs.of_bundle(self.clock.now(), super::invalid::newest(&bundle));
            Ok(Some((bundle, records, cutoffs)))
        };
        open().unwrap_or_else(|error| {
            tracing::warn!(%error, "the bundle is not usable; it is written anew");
            None
        })
    }

    fn write_bundle(&self, target: &Path, decided: Decided<'_>) -> Result<(Totals, u64)> {
        let Decided { base, carried, loose, imported, cutoffs, repack } = decided;
        let mut members: Vec<Planned> = loose.iter().map(|loose| loose.planned.clone()).collect();
        members.extend(imported.records.iter().map(|(key, (record, order))| Planned {
            key: *key,
            order: order.clone(),
            len: record.len as usize,
            used_day: record.used_day,
            cid: record.cid,
        }));
        // On a repack, bundled entries become members again: key and the record that stays true.
        let mut moved: HashMap<CacheKey, Record> = HashMap::new();
        let mut plan = Plan { base, carried, members: Vec::new(), cutoffs: Vec::new() };
        if repack {
            plan.base = None;
            let alive: HashMap<[u8; 16], Record> =
                std::mem::take(&mut plan.carried).into_iter().map(|record| (record.key, record)).collect();
            if let Some(base) = base {
                base.for_each(|record, entry| {
                    let Some(record) = alive.get(&record.key) else { return };
                    let key = entry.key();
                    if is_gone(&cutoffs, &key, &entry.parts, entry.listing.as_deref(), entry.fetched_at) {
                        return;
                    }
                    members.push(Planned {
                        key,
                        order: order(&entry.parts),
                        len: record.len as usize,
                        used_day: record.used_day,
                        cid: record.cid,
                    });
                    moved.insert(key, *record);
                })?;
            }
        }
        plan.cutoffs = cutoffs.encode_with(self.aliases_of(plan.base, &members));
        plan.members = members;
        let read = |key: &CacheKey| -> Option<Envelope> {
            let local = imported.records.get(key).map(|(record, _)| record).zip(imported.local.as_ref());
            let Some((record, base)) = local.or_else(|| moved.get(key).zip(base)) else {
                let (entry, bytes) = self.disk.read(key).ok().flatten()?;
                return Some(Envelope::of(bytes, &entry));
            };
            let (mut entry, bytes) = base.read_with_envelope(key, record).ok()?;
            entry.validated_at = entry.validated_at.max(record.validated_at());
            Some(Envelope::of(bytes, &entry))
        };
        let failed = |cause| Error::io("write", target, cause);
        let (mut file, partial) = files::new_partial(&self.dir.join("partial")).map_err(failed)?;
        let written = write(&mut file, plan, &read).and_then(|totals| {
            let bytes = file.metadata().map_err(failed)?.len();
            files::commit(file, &partial, target, Durability::Synced).map_err(failed)?;
            Ok((totals, bytes))
        });
        written.inspect_err(|_| {
            let _best_effort = fs::remove_file(&partial);
        })
    }

    /// What is known of names and numbers of what the bundle is to hold, and of nothing else: it may be for others.
    fn aliases_of(&self, base: Option<&Bundle>, members: &[Planned]) -> Vec<Alias> {
        let carried = base.and_then(|base| base.cutoffs().ok()).unwrap_or_default();
        let paths: HashSet<&str> = members.iter().filter_map(|member| member.order.split('\0').nth(2)).collect();
        carried.aliases().iter().cloned().chain(self.aliases_about(paths)).collect()
    }

    /// Loose entries worth absorbing. Those that an invalidation says are gone are deleted here.
    fn loose(&self, narrow: &Narrow, cutoffs: &Cutoffs) -> Vec<Loose> {
        let mut found = Vec::new();
        for key in self.disk.keys() {
            let path = self.disk.path(&key);
            let Some(Peeked { head, envelope_len, file_len, modified }) = self.disk.peek(&key) else { continue };
            if is_gone(cutoffs, &key, &head.parts, head.listing.as_deref(), head.fetched_at) {
                let _best_effort = fs::remove_file(&path);
                continue;
            }
            let subject = Subject { key: &key, parts: &head.parts, listing: head.listing.as_deref() };
            // A redirect answers only on the machine that got it from GitHub.
            if !narrow.admits(subject, &head.class) || (is_redirect(head.status) && !narrow.is_everything()) {
                continue;
            }
            let used = modified
                .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
                .map_or(0, |at| at.as_secs() / 86_400);
            let planned = Planned {
                key,
                order: order(&head.parts),
                len: envelope_len as usize,
                used_day: used as u16,
                cid: Record::short_cid(&head.cid),
            };
            found.push(Loose {
                planned,
                path,
                fetched_at: head.fetched_at,
                validated_at: head.validated_at,
                cid: head.cid,
                worth_secs: class::of(&head.parts.path, &head.parts.query).fresh_secs / 2,
                seen: (modified, file_len),
            });
        }
        found
    }

    pub(super) fn used_days(&self) -> HashMap<[u8; 16], u16> {
        let today = (self.clock.now().secs() / 86_400) as u16;
        let bytes =
            files::read_bounded(&self.used_log(), super::MAX_USED_LOG_BYTES * 2).ok().flatten().unwrap_or_default();
        bytes.chunks_exact(16).filter_map(|lead| Some((lead.try_into().ok()?, today))).collect()
    }

    /// Temporary files that a kill left behind.
    pub(super) fn drop_old_partials(&self) {
        let Ok(files) = fs::read_dir(self.dir.join("partial")) else { return };
        let now = self.clock.now();
        for file in files.flatten() {
            let modified = file.metadata().and_then(|meta| meta.modified()).ok();
            let written = modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            if written.is_some_and(|at| now.since(Timestamp::from_secs(at.as_secs() as i64)) > 3_600) {
                let _best_effort = fs::remove_file(file.path());
            }
        }
    }
}

/// Records with what was noted beside the bundle since it was written.
fn with_latest_times(
    records: impl Iterator<Item = Record>,
    freshened: &Freshened,
    used: &HashMap<[u8; 16], u16>,
    latest: Timestamp,
) -> Vec<Record> {
    let latest_of = |record: Record| {
        let noted = freshened.validated_at(&record).filter(|at| i64::from(*at) <= latest.secs());
        Record {
            validated_at: noted.unwrap_or(0).max(record.validated_at),
            used_day: used.get(&record.key).copied().unwrap_or(0).max(record.used_day),
            ..record
        }
    };
    records.map(latest_of).collect()
}

/// Whether a loose entry is worth saving: another body than the bundled one, or a confirmation that keeps it fresh
/// for long. Each job confirms what depends on its permissions; that alone is no reason to save.
fn has_news(loose: &[Loose], records: &[Record]) -> bool {
    let bundled: HashMap<[u8; 16], &Record> = records.iter().map(|record| (record.key, record)).collect();
    loose.iter().any(|one| {
        let twin = lead(&one.planned.key).and_then(|lead| bundled.get(&lead));
        twin.is_none_or(|record| {
            !record.has_body(one.fetched_at.secs() as u32, Record::short_cid(&one.cid))
                || one.validated_at.since(record.validated_at()) >= one.worth_secs
        })
    })
}

/// Deletes and forgets loose entries that are older than their bundled twins, as after a newer bundle
/// was restored over them.
fn drop_outdated(loose: &mut Vec<Loose>, records: &[Record]) {
    let bundled: HashMap<[u8; 16], Timestamp> =
        records.iter().map(|record| (record.key, record.validated_at())).collect();
    loose.retain(|one| {
        let newer = lead(&one.planned.key).and_then(|lead| bundled.get(&lead)).is_some_and(|at| *at > one.validated_at);
        if newer {
            let _best_effort = fs::remove_file(&one.path);
        }
        !newer
    });
}

/// Deletes what was absorbed, unless another process has replaced it since.
fn drop_absorbed(loose: &[Loose]) {
    for one in loose {
        let now = fs::metadata(&one.path).ok().map(|meta| (meta.modified().ok(), meta.len()));
        if now == Some(one.seen) {
            let _best_effort = fs::remove_file(&one.path);
        }
    }
}

/// Whether invalidations say of any bundled entry what those before did not. This reads all of
/// them, but only when nothing else has changed; a bundle that is saved in vain costs more.
fn touches(base: &Bundle, cutoffs: &Cutoffs, old: &Cutoffs) -> bool {
    let mut touched = false;
    let read = base.for_each(|record, entry| {
        let key = entry.key();
        let subject = Subject { key: &key, parts: &entry.parts, listing: entry.listing.as_deref() };
        let (new, old) = (cutoffs.times(subject, IN_THE_END), old.times(subject, IN_THE_END));
        let stale = |at: Option<Timestamp>| at.is_some_and(|at| record.validated_at() <= at);
        let gone = |at: Option<Timestamp>| at.is_some_and(|at| entry.fetched_at <= at);
        touched |= (stale(new.revalidate) && !stale(old.revalidate)) || (gone(new.gone) && !gone(old.gone));
    });
    // What cannot be read is best written anew.
    touched || read.is_err()
}

/// Whether dead bytes or appends are too many.
fn is_worn(totals: Totals, carried: &[Record]) -> bool {
    let all = totals.raw_live + totals.raw_dead;
    let live: u64 = carried.iter().map(Record::member_len).sum();
    totals.generation >= MAX_GENERATIONS || all.saturating_sub(live) > all / MAX_DEAD_SHARE
}

/// Where an entry stands in a bundle: family, then the fixed words of the path (they say more about a body's shape than its owner
/// does), then path and query: like-shaped bodies stand together.
pub fn order(parts: &KeyParts) -> String {
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let shape: Vec<&str> = parts.path.split('/').skip(4).filter(is_word).collect();
    let class = class::of(&parts.path, &parts.query).name;
    format!("{class}\0{}\0{}\0{}", shape.join("/"), parts.path, parts.query)
}

fn is_gone(cutoffs: &Cutoffs, key: &CacheKey, parts: &KeyParts, listing: Option<&str>, fetched_at: Timestamp) -> bool {
    cutoffs.times(Subject { key, parts, listing }, IN_THE_END).gone.is_some_and(|at| fetched_at <= at)
}

fn lead(key: &CacheKey) -> Option<[u8; 16]> {
    key.as_bytes().first_chunk().copied()
}
