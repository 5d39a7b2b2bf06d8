#![no_main]

use std::sync::LazyLock;

use tempfile::NamedTempFile;

static FILE: LazyLock<NamedTempFile> = LazyLock::new(|| NamedTempFile::new().expect("a temporary file"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| octocache::fuzzing::bundle(FILE.path(), data));
