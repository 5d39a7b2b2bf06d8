//! Names of result files: never outside of the output directory, on any system.
//!
//! Knows: which names are safe. Does not know: what is written.

use std::path::{Path, PathBuf};

/// The report's file.
pub const INDEX_NAME: &str = "index.json";

/// Names that Windows keeps for devices, whatever their ending.
const DEVICES: &[&str] = &["con", "prn", "aux", "nul"];

/// The path of a result below the output directory, or why it cannot be one.
pub fn safe_path(name: &str) -> Result<PathBuf, String> {
    let bad = |why: &str| Err(format!("`{}` cannot be a result's name: {why}", name.escape_debug()));
    if name.is_empty() || name.len() > 512 {
        return bad("it is empty or too long");
    }
    if name.starts_with('/') || name.starts_with('~') {
        return bad("it leads out of the output directory");
    }
    let mut path = PathBuf::new();
    for segment in name.split('/') {
        if matches!(segment, "." | "..") {
            return bad("it leads out of the output directory");
        }
        if segment.trim_end_matches([' ', '.']).eq_ignore_ascii_case(".git")
            || segment.to_ascii_lowercase().starts_with("git~")
        {
            return bad("it is git's own");
        }
        if segment.is_empty() || segment.len() > 200 {
            return bad("a part of it is empty or too long");
        }
        if segment.chars().any(|c| c.is_control() || "\\:*?\"<>|".contains(c))
            || segment.ends_with([' ', '.'])
            || segment.starts_with(' ')
        {
            return bad("it holds characters that not every system can store");
        }
        let stem = segment.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let port = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
        if DEVICES.contains(&stem.as_str())
            || port.is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()))
        {
            return bad("Windows keeps that name for a device");
        }
        path.push(segment);
    }
    Ok(path)
}

/// Whether a result at `path` would stand in the place of the report.
pub fn is_report(path: &Path) -> bool {
    path.iter().next().is_some_and(|first| first.eq_ignore_ascii_case(INDEX_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for good in ["a.json", "a/b/c.json", "acme/api.json", "ünïcode.json", ".hidden"] {
            assert!(safe_path(good).is_ok(), "{good}");
        }
        let long = "x".repeat(300);
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a/.",
            "~/x",
            "C:\\x",
            "C:x",
            "a\\b",
            "a\0b",
            "NUL",
            "con.json",
            "com1.txt",
            "a/lpt9",
            "x.",
            "x ",
            "a\nb",
            ".git/config",
            "a/.GIT/hooks/x",
            &long,
        ] {
            assert!(safe_path(bad).is_err(), "{bad:?}");
        }
    }
}
