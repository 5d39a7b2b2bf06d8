//! The process that runs filters for another one, and the messages between them.
//!
//! Knows: its own bounds, which it sets before it reads anything; it ends itself when a filter takes too long. Does not
//! know: plans; who started it decides what its end means.
//!
//! A request: a byte (1: with `env`), then filter and input, each as its length (8 bytes, little endian) and its bytes.
//! The answer: for each output a byte `o`, length and bytes; at the end `d`, or `e`, length and text.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use super::{MAX_TEXT_BYTES, STACK_BYTES, compile_here, run_compiled};

/// One run of a filter may take so long.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How the process ends when a run takes longer.
pub(super) const OUT_OF_TIME: i32 = 124;

/// What it may hold beside the stack.
#[cfg(unix)]
pub(super) const MAX_MEMORY_BYTES: u64 = 1 << 30;

/// The largest input.
const MAX_INPUT_BYTES: usize = 512 << 20;

/// Compiled filters that are kept.
const MAX_COMPILED: usize = 64;

pub(super) const OUTPUT: u8 = b'o';
pub(super) const DONE: u8 = b'd';
pub(super) const FAILED: u8 = b'e';

/// Answers requests from standard input until it ends.
pub fn serve() -> io::Result<()> {
    bound()?;
    let (watch, watched) = mpsc::channel();
    // It ends the process from outside of the filter, which cannot be interrupted.
    std::thread::Builder::new().spawn(move || watch_out(&watched))?;
    let worker = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || answer(&watch))?;
    worker.join().unwrap_or_else(|_| Err(io::Error::other("a filter has failed")))
}

/// Whether a run has begun, or ended.
#[derive(PartialEq, Eq)]
enum Event {
    Begun,
    Ended,
}

#[expect(clippy::exit, reason = "a filter that takes too long can only be ended with its process")]
fn watch_out(events: &mpsc::Receiver<Event>) {
    while let Ok(event) = events.recv() {
        if event == Event::Begun && events.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
            std::process::exit(OUT_OF_TIME);
        }
    }
}

fn answer(watch: &mpsc::Sender<Event>) -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::BufWriter::with_capacity(64 << 10, io::stdout().lock()));
    let mut compiled = HashMap::new();
    let mut flag = [0];
    while input.read(&mut flag)? == 1 {
        let text = read_part(&mut input, MAX_TEXT_BYTES)?;
        let json = read_part(&mut input, MAX_INPUT_BYTES)?;
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        let _there_is_a_watch = watch.send(Event::Begun);
        if compiled.len() >= MAX_COMPILED {
            compiled.clear();
        }
        let key = (flag[0] == 1, text);
        if !compiled.contains_key(&key) {
            let filter = compile_here(&key.1, key.0).map_err(io::Error::other)?;
            compiled.insert(key.clone(), filter);
        }
        let mut written = Ok(());
        let result = run_compiled(&compiled[&key].0, &json, |bytes| {
            written = write_part(&mut output, OUTPUT, bytes);
            written.is_ok()
        });
        written?;
        match result {
            Ok(()) => output.write_all(&[DONE])?,
            Err(super::Failure::Input(why) | super::Failure::Filter(why)) => {
                write_part(&mut output, FAILED, why.as_bytes())?;
            }
        }
        output.flush()?;
        let _there_is_a_watch = watch.send(Event::Ended);
    }
    Ok(())
}

pub(super) fn write_part(out: &mut impl Write, tag: u8, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&[tag])?;
    write_bytes(out, bytes)
}

pub(super) fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(bytes)
}

pub(super) fn read_part(from: &mut impl Read, max: usize) -> io::Result<Vec<u8>> {
    let mut len = [0; 8];
    from.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    if len > max as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too large"));
    }
    let mut bytes = Vec::new();
    if from.take(len).read_to_end(&mut bytes)? as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Bounds the memory of this process, and writes no core.
#[cfg(unix)]
fn bound() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = |resource, most: u64| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(io::Error::from)
    };
    limit(Resource::Core, 0)?;
    let memory = MAX_MEMORY_BYTES + STACK_BYTES as u64;
    // Not every system counts all of it under one of them.
    let _not_everywhere = limit(Resource::Data, memory);
    let _not_everywhere = limit(Resource::As, 4 * memory);
    Ok(())
}

#[cfg(not(unix))]
fn bound() -> io::Result<()> {
    Ok(())
}
