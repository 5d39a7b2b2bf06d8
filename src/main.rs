//! The binary: parse, run, exit.

use std::process::ExitCode;

/// musl's own is slow where threads share it.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    octocache::cli::main()
}
