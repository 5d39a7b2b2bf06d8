//! The plan's file: which one it is, and which of its settings count.
//!
//! Knows: a plan that was named is the user's word; one that was found upward from the working directory is not,
//! until the user trusts it, and is not used at all when it belongs to another user. Does not know: what the
//! settings do.

use std::path::{Component, Path, PathBuf};

use super::trust::TrustList;
use super::{Environment, Flags};
use crate::error::{Error, Kind, Result};
use crate::plan::{DEFAULT_PATH, Destinations, Evaluator, MAX_PLAN_BYTES, Plan};

/// A plan's file, read once: what was checked is what is used.
#[derive(Debug)]
pub(super) struct PlanFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its text; `None` when it could not be read, which is said when the plan is needed.
    text: Option<String>,
    /// Where it sends data, without what is ignored.
    destinations: Result<Destinations>,
    /// Settings that are ignored because the plan is not trusted.
    pub ignored: Vec<&'static str>,
}

/// What the search for a plan gave.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The plan, where there is one that may be used.
    pub file: Option<PlanFile>,
    /// What of it is not used, and why.
    pub warning: Option<String>,
}

impl Search {
    /// Looks for the plan: the one that `--plan` or `OCTOCACHE_PLAN` names, else one above `cwd`.
    pub(super) fn run(flags: &Flags, environment: &Environment, cwd: &Path) -> Self {
        let named = flags.plan.clone().or_else(|| environment.get("OCTOCACHE_PLAN").map(PathBuf::from));
        if let Some(path) = named {
            let text = read(&path);
            let destinations = destinations(text.as_deref(), &path);
            return Self { file: Some(PlanFile { path, text, destinations, ignored: Vec::new() }), warning: None };
        }
        find_upward(cwd).map_or_else(Self::default, |path| Self::found(path, environment))
    }

    fn found(path: PathBuf, environment: &Environment) -> Self {
        let text = read(&path);
        let is_trusted = || {
            let list = TrustList::read(environment);
            text.as_ref().is_some_and(|text| list.is_ok_and(|list| list.trusts(&path, text.as_bytes())))
        };
        if let Some(what) = foreign(&path, environment)
            && !is_trusted()
        {
            let warning = format!(
                "the plan {} is not used: {what} belongs to another user; \
                 run \"octocache trust {}\", or name it with --plan",
                path.display(),
                path.display()
            );
            return Self { file: None, warning: Some(warning) };
        }
        let mut found = destinations(text.as_deref(), &path);
        let mut ignored = Vec::new();
        if let Ok(found) = &mut found {
            let restricted = restricted(found, root_of(&path));
            if !restricted.is_empty() && !is_trusted() {
                ignored = restricted;
                found.share = crate::plan::Shared::default();
                found.cache_dir = found.cache_dir.take().filter(|_| !ignored.contains(&"cache.dir"));
            }
        }
        let warning = (!ignored.is_empty()).then(|| {
            format!(
                "the plan {} is not trusted, so its {} not used; run \"octocache trust\" once if it is yours",
                path.display(),
                match ignored.as_slice() {
                    [one] => format!("`{one}` is"),
                    many => format!("`{}` are", many.join("` and `")),
                }
            )
        });
        Self { file: Some(PlanFile { path, text, destinations: found, ignored }), warning }
    }
}

impl PlanFile {
    /// The plan, checked, without the settings that are ignored.
    pub(super) fn load(&self, evaluator: &Evaluator) -> Result<Plan> {
        let Some(text) = &self.text else { return Plan::load(&self.path) };
        let mut plan = Plan::parse_with(text, &self.path.display().to_string(), dir_of(&self.path), evaluator)?;
        // What was decided once is in force, however else the text may be read.
        plan.share = self.destinations()?.share.clone();
        Ok(plan)
    }

    /// Where it sends data, without the settings that are ignored.
    pub(super) fn destinations(&self) -> Result<&Destinations> {
        self.destinations.as_ref().map_err(Error::repeated)
    }

    /// The project that it belongs to: `.github/octocache.yml` to the one two levels up, any other to its directory.
    pub(super) fn root(&self) -> &Path {
        root_of(&self.path)
    }

    /// The store that it names, else the one beside it. `None` where nothing but a link in the project of a plan that
    /// is not trusted leads there.
    pub(super) fn store_dir(&self) -> Result<Option<PathBuf>> {
        let says_nothing = || !self.text.as_ref().is_some_and(|text| text.contains("cache"));
        let named = match self.destinations() {
            Ok(destinations) => destinations.cache_dir.clone(),
            // What is wrong with the plan is said by the commands that need it.
            Err(_) if says_nothing() => None,
            Err(error) => return Err(error),
        };
        if named.is_none() && self.ignored.contains(&DEFAULT_STORE) {
            return Ok(None);
        }
        Ok(Some(self.root().join(named.unwrap_or_else(|| PathBuf::from(DEFAULT_STORE)))))
    }
}

/// The store beside a plan, relative to the project.
const DEFAULT_STORE: &str = ".cache/github";

/// Settings that only a trusted plan may make: those that name who receives data.
fn restricted(found: &Destinations, root: &Path) -> Vec<&'static str> {
    let mut names = Vec::new();
    if found.share != crate::plan::Shared::default() {
        names.push("share");
    }
    match &found.cache_dir {
        Some(dir) if !is_inside(root, dir) => names.push("cache.dir"),
        // Where `cache.dir` is ignored, the default is what counts.
        Some(_) => return names,
        None => {}
    }
    if !is_inside(root, Path::new(DEFAULT_STORE)) {
        names.push(DEFAULT_STORE);
    }
    names
}

/// Whether `dir`, relative to `root`, stays below it: no way up, no symbolic link on the way, nothing of git's own.
pub(super) fn is_inside(root: &Path, dir: &Path) -> bool {
    let mut path = root.to_owned();
    dir.components().all(|part| match part {
        Component::CurDir => true,
        Component::Normal(name) if !name.eq_ignore_ascii_case(".git") => {
            path.push(name);
            !path.symlink_metadata().is_ok_and(|meta| meta.is_symlink())
        }
        Component::Normal(_) | Component::ParentDir | Component::RootDir | Component::Prefix(_) => false,
    })
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn root_of(path: &Path) -> &Path {
    let beside = dir_of(path);
    if beside.ends_with(".github") { beside.parent().unwrap_or(beside) } else { beside }
}

fn find_upward(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|dir| dir.join(DEFAULT_PATH)).find(|path| path.is_file())
}

fn read(path: &Path) -> Option<String> {
    let bytes = crate::files::read_bounded(path, MAX_PLAN_BYTES).ok().flatten()?;
    String::from_utf8(bytes.into()).ok()
}

/// Where a plan sends data. Most plans say nothing of it and are not parsed: every request would pay for that.
fn destinations(text: Option<&str>, path: &Path) -> Result<Destinations> {
    match text {
        // A key may be written with escapes, or in another form with a tag.
        Some(text) if ["share", "cache", "\\", "!"].iter().any(|word| text.contains(word)) => {
            Plan::destinations(text, &path.display().to_string(), dir_of(path))
        }
        _ => Ok(Destinations::default()),
    }
}

/// What of a found plan belongs to another user: the file, its directory or its project's. The rule is that of
/// git's `safe.directory`: the owner must be the effective user, or the one who called sudo.
#[cfg(unix)]
fn foreign(path: &Path, environment: &Environment) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let me = rustix::process::geteuid().as_raw();
    let caller = environment.get("SUDO_UID").filter(|_| me == 0).and_then(|uid| uid.parse::<u32>().ok());
    let is_foreign = |path: &Path| {
        let owners = [path.metadata(), path.symlink_metadata()].map(|meta| meta.map(|meta| meta.uid()));
        // What cannot be looked at is not known to be the user's.
        owners.iter().any(|owner| !matches!(owner, Ok(uid) if *uid == me || Some(*uid) == caller))
    };
    let named = [(path, "it"), (dir_of(path), "its directory"), (root_of(path), "its project's directory")];
    named.into_iter().find(|(path, _)| is_foreign(path)).map(|(_, what)| what.to_owned())
}

/// There is no such rule where owners are not numbers.
#[cfg(not(unix))]
fn foreign(_: &Path, _: &Environment) -> Option<String> {
    None
}

/// A plan to be trusted, and what it would be allowed.
#[derive(Debug)]
pub struct Candidate {
    /// Its canonical path.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Where it sends data.
    pub destinations: Destinations,
}

impl Candidate {
    /// Returns the plan at `given`, a file or a project's directory, else the one above the working directory.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        let path = plan_at(given)?;
        let name = path.display().to_string();
        let missing =
            || Error::usage(format!("there is no plan at {name}")).hint("name the file, or its project's directory");
        let canonical = path.canonicalize().map_err(|_| missing())?;
        let bytes = crate::files::read_bounded(&canonical, MAX_PLAN_BYTES)?.ok_or_else(missing)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::usage(format!("{name} is not UTF-8 text")))?;
        let destinations = Plan::destinations(text, &name, dir_of(&canonical))?;
        Ok(Self { path: canonical, bytes: bytes.to_vec(), destinations })
    }
}

/// The path of the plan that `given` means.
pub fn plan_at(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) if path.is_dir() => Ok(path.join(DEFAULT_PATH)),
        Some(path) => Ok(path.to_owned()),
        None => {
            let cwd = std::env::current_dir()
                .map_err(|cause| Error::new(Kind::Io, "cannot find the working directory").because(cause))?;
            find_upward(&cwd)
                .ok_or_else(|| Error::usage(format!("there is no {DEFAULT_PATH} here or above")).hint("name the plan"))
        }
    }
}
