//! A proxy for the later steps of a job: started, waited for, ended, its bundle saved.
//!
//! Knows: what is handed from one step to the other, and where. Does not know: how it serves.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::serve::lock_of;
use super::transfer::Transfer;
use super::{Step, announce, block_on, event, warn};
use crate::actions::annotation;
use crate::cli::{Exit, request_config};
use crate::config::{Config, Flags};
use crate::error::{Error, Kind, Result};
use crate::files::{self, Durability, Lock};
use crate::mask::Masker;
use crate::partition::Partition;
use crate::stack::{BundleRules, Narrow, Saved, Stack};
use crate::stats::{Counts, Stats};

/// It listens within this time, or has failed.
const START_WAIT: Duration = Duration::from_secs(20);

/// It has ended within this time: requests under way have ten seconds.
const END_WAIT: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The largest files that the steps hand to each other.
const MAX_BYTES: u64 = 1 << 20;

/// Lines of the log that are shown when something is wrong.
const LOG_LINES: usize = 40;

/// What the step that starts it tells the one that ends it.
#[derive(Debug, Serialize, Deserialize)]
struct Started {
    transfer: Transfer,
    prefix: String,
    partition: Partition,
    /// What the plan says of its bundle, where there is one.
    rules: BundleRules,
    save: bool,
    summary: bool,
    /// What the store had counted before.
    before: Counts,
}

/// What the server itself says.
#[derive(Debug, Deserialize)]
struct Listening {
    addresses: Vec<String>,
}

/// Where the steps meet.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>> {
        let path = self.file(name);
        let Some(bytes) = files::read_bounded(&path, MAX_BYTES)? else { return Ok(None) };
        let broken = |cause| Error::corrupt(format!("{} does not parse", path.display())).because(cause);
        serde_json::from_slice(&bytes).map(Some).map_err(broken)
    }

    /// The end of what the server said.
    fn log(&self, masker: &Masker) -> String {
        let bytes = fs::read(self.file("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        masker.text(&lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")).into_owned()
    }

    /// The lock that the server holds for as long as it lives.
    fn lock(&self) -> Result<Lock> {
        let path = lock_of(&self.file("ready.json"));
        Lock::open(&path).map_err(|cause| Error::io("open", &path, cause))
    }
}

impl Step<'_> {
    fn place(&self) -> Result<Place> {
        let temp = self.environment.get("RUNNER_TEMP").ok_or_else(|| Error::usage("RUNNER_TEMP is not set"))?;
        Ok(Place { dir: Path::new(temp).join("octocache-proxy") })
    }

    /// As single requests have it: there need be no plan.
    pub(super) fn proxy_config(&self) -> Result<Config> {
        let flags = Flags {
            cache_dir: Some(self.stores()?),
            api_url: self.inputs.api_url.clone(),
            plan: self.inputs.plan.exists().then(|| self.inputs.plan.clone()),
            ..self.context.flags.clone()
        };
        self.locate(request_config(&flags)?)
    }

    /// Starts the proxy for the steps to come.
    pub(super) fn start(&self) -> Result<Exit> {
        let place = self.place()?;
        files::create_private_dir(&place.dir).map_err(|cause| Error::io("create", &place.dir, cause))?;
        if !place.lock()?.take().unwrap_or(false) {
            return Err(
                Error::usage("a proxy runs already in this job").hint("end it first: octocache/octocache/proxy/stop")
            );
        }
        let config = self.proxy_config()?;
        let rules = match &config.plan_path {
            Some(_) => config.load_plan()?.narrow,
            None => BundleRules::default(),
        };
        let transfer = self.transfer(&config, None)?;
        self.take_in(&transfer)?;
        let cache = config.cache(None, &self.context.clock)?;
        event::outdate(&self.environment, &cache).unwrap_or_else(|error| {
            warn(self.context.masker(), &format!("the event outdates nothing: {error}"));
        });
        let started = Started {
            before: Stats::read(&transfer.store),
            transfer,
            prefix: self.prefix(&config),
            partition: config.partition.clone(),
            rules,
            save: self.environment.is_true("OCTOCACHE_MAY_SAVE"),
            summary: self.inputs.summary,
        };
        let text = serde_json::to_vec(&started).unwrap_or_default();
        files::write_atomic(&place.file("started.json"), &place.dir, &text, Durability::Rename)?;
        let own =
            std::env::current_exe().map_err(|cause| Error::new(Kind::Io, "cannot find this program").because(cause))?;
        files::write_atomic(
            &place.file("binary"),
            &place.dir,
            own.display().to_string().as_bytes(),
            Durability::Rename,
        )?;
        let listening = self.spawn(&place, &own, &started.transfer.store)?;
        let (mut tcp, mut socket) = (String::new(), String::new());
        for address in listening.addresses {
            let is_tcp = address.starts_with("http://");
            *(if is_tcp { &mut tcp } else { &mut socket }) = address;
        }
        let beside = if socket.is_empty() { "" } else { " and at a socket for gh" };
        announce(&format!("octocache serves {} at {tcp}{beside}", config.api.origin()));
        self.commands.set_outputs(&[("api-url", tcp), ("socket", socket.clone())])?;
        #[cfg(unix)]
        if self.environment.is_true("INPUT_GH") && !socket.is_empty() {
            let gh = crate::config::GhConfig::find(&self.environment)?;
            let dir = super::super::gh::overlay_in(&place.dir, &gh, Path::new(&socket))?;
            self.commands.set_env(&[("GH_CONFIG_DIR", dir.display().to_string())])?;
        }
        Ok(Exit::Done)
    }

    /// Starts the server and waits until it listens.
    fn spawn(&self, place: &Place, own: &Path, store: &Path) -> Result<Listening> {
        let ready = place.file("ready.json");
        let _not_there = fs::remove_file(&ready);
        let log_path = place.file("log");
        let log = File::create(&log_path).map_err(|cause| Error::io("write", &log_path, cause))?;
        let mut command = Command::new(own);
        command.args(["-v", "serve", "--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready);
        // Folding is left to the end: what other tokens saw does not get into the bundle.
        command.arg("--cache-dir").arg(store).args(["--max-loose", "1000000000"]);
        #[cfg(unix)]
        command.arg("--unix").arg(place.file("gh.sock"));
        let plan = &self.inputs.plan;
        if plan.exists() {
            command.arg("--plan").arg(plan);
        }
        if let Some(url) = &self.inputs.api_url {
            command.args(["--api-url", url]);
        }
        for (flag, span) in [("--ttl", self.inputs.ttl), ("--stale-if-error", self.inputs.stale_if_error)] {
            if let Some(span) = span {
                command.arg(flag).arg(span.to_string());
            }
        }
        if self.environment.is_true("INPUT_LEND_TOKEN") {
            command.arg("--lend-token");
        }
        // Files of this step's are none of its.
        for name in ["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY", "GITHUB_PATH", "GITHUB_STATE"] {
            command.env_remove(name);
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let failed = |cause| Error::new(Kind::Io, "cannot start the proxy").because(cause);
        let mut child = command.spawn().map_err(failed)?;
        let ready = async {
            let started = Instant::now();
            loop {
                if let Some(listening) = place.read::<Listening>("ready.json")? {
                    return Ok(listening);
                }
                let ended = child.try_wait().ok().flatten();
                if let Some(status) = ended {
                    return Err(Error::new(
                        Kind::Internal,
                        format!("the proxy ended at once: {status}\n{}", place.log(self.context.masker())),
                    ));
                }
                if started.elapsed() > START_WAIT {
                    let _ended = child.kill();
                    return Err(Error::new(
                        Kind::TimedOut,
                        format!("the proxy does not listen\n{}", place.log(self.context.masker())),
                    ));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        block_on(ready)?
    }

    /// Ends the proxy, folds what the job's own token saw into the bundle, and says what it did.
    pub(super) fn stop(&self) -> Result<Exit> {
        let place = self.place()?;
        let Some(started) = place.read::<Started>("started.json")? else {
            announce(&annotation("warning", "octocache", "there is no proxy to end"));
            return Ok(Exit::Done);
        };
        let ready = place.file("ready.json");
        let was_serving = ready.exists() && !place.lock()?.take().unwrap_or(false);
        let _not_there = fs::remove_file(&ready);
        if !was_serving {
            let text = format!("the proxy had ended before it was told to\n{}", place.log(self.context.masker()));
            announce(&annotation("error", "octocache", &text));
        } else if !block_on(ended(&place))?? {
            let text = format!("the proxy does not end\n{}", place.log(self.context.masker()));
            announce(&annotation("error", "octocache", &text));
        }
        let _done_with = fs::remove_file(place.file("started.json"));
        let stack = Stack::new(&started.transfer.store, self.context.clock.clone());
        let narrow = Narrow::of(started.partition).with(started.rules);
        let saved = stack.pack(&narrow, false).unwrap_or_else(|error| {
            warn(self.context.masker(), &format!("the bundle is not saved: {error}"));
            Saved::Unchanged
        });
        let saved = self.hand_out(&started.transfer, saved);
        let key = self.save_key(&started.prefix, &saved, &stack)?;
        let counts = Stats::read(&started.transfer.store).since(&started.before);
        announce(&in_a_line(&counts));
        if started.summary {
            self.commands.add_summary(&format!("### octocache proxy: {}\n", in_a_line(&counts)))?;
        }
        let changed = matches!(saved, Saved::Written { .. });
        self.commands.set_outputs(&[
            ("bundle", started.transfer.paths()),
            ("changed", changed.to_string()),
            ("cache-key", key),
            ("save", (changed && started.save).to_string()),
            ("requests", counts.upstream_requests.to_string()),
            ("saved", counts.calls_saved().to_string()),
        ])?;
        Ok(Exit::Done)
    }
}

/// Whether it ends in time.
async fn ended(place: &Place) -> Result<bool> {
    let (lock, told) = (place.lock()?, Instant::now());
    while !lock.take().unwrap_or(false) {
        if told.elapsed() > END_WAIT {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(true)
}

fn in_a_line(counts: &Counts) -> String {
    format!(
        "{} questions, {} answered without a charged request, {} requests sent, {} failed",
        counts.asked,
        counts.calls_saved(),
        counts.upstream_requests,
        counts.failed
    )
}
