//! Who runs the filters that may take more than in proportion to their input: another process of this program.
//!
//! Knows: starting it, asking it, ending it when it does not answer, and giving up for a while when that happens again
//! and again. Does not know: filters.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::process::{DEADLINE, DONE, FAILED, OUT_OF_TIME, OUTPUT, read_part, write_bytes};
use super::{MAX_OUTPUT_BYTES, MAX_OUTPUTS, Outputs};
use crate::json;

/// How much later than its own deadline the process is ended from here.
const GRACE: Duration = Duration::from_secs(2);

/// A filter whose runs have ended so often with their process, within the last [`REST`], is not tried for as long; and no
/// filter is, once such runs have taken [`MAX_WASTE`] in all.
const MAX_ENDED: usize = 2;
const REST: Duration = Duration::from_mins(1);
const MAX_WASTE: Duration = Duration::from_secs(30);

/// How a filter's end is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The thread blocks.
    Blocking,
    /// The task waits; others go on.
    Async,
}

/// Runs filters in another process; by default there is none, and such filters are refused.
#[derive(Clone, Default)]
pub struct Evaluator(Option<Arc<Workers>>);

struct Workers {
    program: PathBuf,
    args: Vec<String>,
    keep_environment: bool,
    process: Mutex<Option<Process>>,
    /// The process under way, so that it can be ended while it is waited for.
    child: Mutex<Option<Arc<Mutex<Child>>>>,
    ended: Mutex<VecDeque<Ended>>,
    /// One run after the other, so that the deadline is of each.
    turn: tokio::sync::Mutex<()>,
}

/// A run that ended with its process.
struct Ended {
    text: String,
    at: Instant,
    took: Duration,
}

struct Process {
    child: Arc<Mutex<Child>>,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Evaluator {
    /// Whether there is a program: a library may have none, and then runs nothing in a process of its own.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Runs filters in a process of `program`, which answers with [`super::serve`] when it is started with `args`. Its
    /// environment is empty, unless filters may see it.
    pub fn new(program: PathBuf, args: &[&str], keep_environment: bool) -> Self {
        Self(Some(Arc::new(Workers {
            program,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            keep_environment,
            process: Mutex::default(),
            child: Mutex::default(),
            ended: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })))
    }

    fn workers(&self) -> Result<&Arc<Workers>, String> {
        self.0.as_ref().ok_or_else(|| {
            "it may take more than in proportion to its input, so it takes a process of its own, and there is none here \
             (see `Evaluator`)"
                .to_owned()
        })
    }

    /// Runs a filter; the thread blocks until it ends.
    pub(super) fn run_blocking(&self, text: &str, with_environment: bool, json: &[u8]) -> Result<Outputs, String> {
        self.workers()?.run(text, with_environment, json)
    }

    /// Runs a filter; other tasks go on meanwhile.
    pub(super) async fn run(&self, text: &str, with_environment: bool, json: &[u8]) -> Result<Outputs, String> {
        let workers = self.workers()?;
        let _turn = workers.turn.lock().await;
        let (own, text, json) = (workers.clone(), text.to_owned(), json.to_vec());
        let mut run = tokio::task::spawn_blocking(move || own.run(&text, with_environment, &json));
        let ended = tokio::select! {
            ended = &mut run => ended,
            () = tokio::time::sleep(DEADLINE + GRACE) => {
                workers.end();
                run.await
            }
        };
        ended.map_err(|_| "its process cannot be asked".to_owned())?
    }
}

impl Workers {
    fn run(&self, text: &str, with_environment: bool, json: &[u8]) -> Result<Outputs, String> {
        let mut process = lock(&self.process);
        self.check_rest(text)?;
        let started = Instant::now();
        let mut asked = match process.take() {
            Some(running) => running,
            None => self.start().map_err(|error| format!("its process cannot be started: {error}"))?,
        };
        match asked.ask(text, with_environment, json) {
            Ok(outputs) => {
                *process = Some(asked);
                check(&outputs)?;
                Ok(outputs)
            }
            Err(error) => {
                lock(&self.child).take();
                let why = asked.reason(&error);
                let run = Ended { text: text.to_owned(), at: Instant::now(), took: started.elapsed() };
                lock(&self.ended).push_back(run);
                Err(why)
            }
        }
    }

    /// Refuses what would most likely end like those before.
    fn check_rest(&self, text: &str) -> Result<(), String> {
        let mut ended = lock(&self.ended);
        ended.retain(|run| run.at.elapsed() < REST);
        if ended.iter().filter(|run| run.text == text).count() >= MAX_ENDED {
            return Err(format!("it had to be ended {MAX_ENDED} times within a minute; it is not tried again"));
        }
        if ended.iter().map(|run| run.took).sum::<Duration>() >= MAX_WASTE {
            return Err("too many filters had to be ended within a minute; it is not tried".to_owned());
        }
        Ok(())
    }

    fn start(&self) -> io::Result<Process> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if !self.keep_environment && cfg!(unix) {
            command.env_clear();
        }
        let mut child = command.spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("it has no pipes"));
        };
        let child = Arc::new(Mutex::new(child));
        *lock(&self.child) = Some(child.clone());
        Ok(Process { child, input, output: BufReader::new(output) })
    }

    fn end(&self) {
        if let Some(child) = &*lock(&self.child) {
            let _ended_already = lock(child).kill();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(process) = lock(&self.process).take() {
            let mut child = lock(&process.child);
            let _ended_already = child.kill();
            let _ended_now = child.wait();
        }
    }
}

impl Process {
    fn ask(&mut self, text: &str, with_environment: bool, json: &[u8]) -> io::Result<Outputs> {
        self.input.write_all(&[u8::from(with_environment)])?;
        write_bytes(&mut self.input, text.as_bytes())?;
        write_bytes(&mut self.input, json)?;
        self.input.flush()?;
        let (mut outputs, mut bytes) = (Vec::new(), 0);
        loop {
            let mut tag = [0];
            self.output.read_exact(&mut tag)?;
            match tag[0] {
                OUTPUT => {
                    let output = read_part(&mut self.output, MAX_OUTPUT_BYTES)?;
                    bytes += output.len();
                    outputs.push(output);
                    if bytes > MAX_OUTPUT_BYTES || outputs.len() > MAX_OUTPUTS {
                        return Err(io::Error::other("it says too much"));
                    }
                }
                DONE => return Ok((outputs, None)),
                FAILED => {
                    let why = read_part(&mut self.output, 64 << 10)?;
                    return Ok((outputs, Some(String::from_utf8_lossy(&why).into_owned())));
                }
                _ => return Err(io::Error::other("it answers something else")),
            }
        }
    }

    /// Ends the process, and says why its run has no end of its own.
    fn reason(self, error: &io::Error) -> String {
        let mut child = lock(&self.child);
        // Without a pipe it ends by itself, unless it hangs.
        drop((self.input, self.output));
        if error.kind() != io::ErrorKind::UnexpectedEof && error.kind() != io::ErrorKind::BrokenPipe {
            let _ended_already = child.kill();
        }
        let status = child.wait();
        if status.as_ref().is_ok_and(|status| status.code() == Some(OUT_OF_TIME) || killed(*status)) {
            return format!("it takes longer than {} s", DEADLINE.as_secs());
        }
        match status {
            Ok(status) if status.code().is_none() => {
                "it takes more memory than 1 GiB, or recurses too deeply".to_owned()
            }
            Ok(status) => format!("its process has ended: {status}, {error}"),
            Err(cause) => format!("its process cannot be asked: {cause}"),
        }
    }
}

/// Whether it was ended from here.
#[cfg(unix)]
fn killed(status: std::process::ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

#[cfg(not(unix))]
fn killed(_: std::process::ExitStatus) -> bool {
    false
}

/// Outputs must be JSON that everything can read: jaq has bytes, numbers and keys that JSON has not.
fn check((outputs, _): &Outputs) -> Result<(), String> {
    for output in outputs {
        json::check_depth(output).map_err(|why| format!("an output of it is too deep: {why}"))?;
        serde_json::from_slice::<serde::de::IgnoredAny>(output).map_err(|_| "an output of it is no JSON".to_owned())?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.0.as_ref().map(|workers| &workers.program);
        f.debug_tuple("Evaluator").field(&program).finish()
    }
}
