//! What every source file must keep: its size, a header that says what it is for, no leftovers.
//!
//! The length of functions is clippy's to check (`too_many_lines`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// Lines of a Rust file without its tests. More than that is more than one subject.
const MAX_RUST_LINES: usize = 600;
/// Lines of a TypeScript file.
const MAX_TYPESCRIPT_LINES: usize = 300;
/// A Rust file longer than this says in its header what it is for.
const HEADER_FROM_LINES: usize = 50;

/// One line for each file that is too long, has no header or holds a leftover.
pub(crate) fn complaints(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in files(root)? {
        // A file that was just deleted is still listed.
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else {
            continue;
        };
        found.extend(
            judge(&file, &text)
                .into_iter()
                .map(|what| format!("{}: {what}", file.display())),
        );
    }
    Ok(found)
}

/// Everything that git knows or would add.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root)
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--",
            "*.rs",
            "*.ts",
            "*.svelte",
        ])
        .output()
        .context("cannot run git")?;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(listing
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect())
}

fn judge(file: &Path, text: &str) -> Vec<String> {
    let kind = file
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    let generated = file.components().any(|part| part.as_os_str() == "generated");
    let mut found = Vec::new();
    match kind {
        "rs" => {
            let lines = lines_without_tests(text);
            if lines > MAX_RUST_LINES && !is_test_file(file) {
                found.push(format!("{lines} lines without tests, {MAX_RUST_LINES} at most"));
            }
            if text.lines().count() > HEADER_FROM_LINES && !has_header(text) {
                found.push(format!("more than {HEADER_FROM_LINES} lines and no `//!` header"));
            }
        }
        "ts" if !generated => {
            let lines = text.lines().count();
            if lines > MAX_TYPESCRIPT_LINES {
                found.push(format!("{lines} lines, {MAX_TYPESCRIPT_LINES} at most"));
            }
        }
        _ => {}
    }
    found.extend(leftovers(text));
    found
}

fn is_test_file(file: &Path) -> bool {
    let in_tests = file.components().any(|part| part.as_os_str() == "tests");
    in_tests
        || file
            .file_stem()
            .is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
}

/// Tests stand last in a file.
fn lines_without_tests(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

/// In front of the first item; an attribute of the crate may come before it.
fn has_header(text: &str) -> bool {
    text.lines()
        .take_while(|line| line.is_empty() || line.starts_with("//!") || line.starts_with("#!"))
        .any(|line| line.starts_with("//!"))
}

fn leftovers(text: &str) -> Vec<String> {
    // In two parts, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("dbg", "!("),
        concat!("debug", "ger;"),
    ];
    let numbered = text.lines().enumerate();
    let hits = numbered.filter_map(|(index, line)| {
        let mark = marks.iter().find(|mark| line.contains(**mark))?;
        Some(format!("line {}: a leftover ({mark})", index + 1))
    });
    hits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, text: &str, expected: usize) {
        let found = judge(Path::new(file), text);
        assert_eq!(found.len(), expected, "{file}: {found:?}");
    }

    #[test]
    fn a_long_file_without_header_is_told_both() {
        check("a/src/lib.rs", &"fn a() {}\n".repeat(601), 2);
        check(
            "a/src/lib.rs",
            &format!("//! Why.\n{}", "fn a() {}\n".repeat(100)),
            0,
        );
        check(
            "a/src/lib.rs",
            &format!("#![cfg(unix)]\n//! Why.\n{}", "fn a() {}\n".repeat(100)),
            0,
        );
    }

    #[test]
    fn tests_do_not_count_as_length() {
        let tested = format!(
            "//! Why.\nfn a() {{}}\n#[cfg(test)]\n{}",
            "fn t() {}\n".repeat(900)
        );
        check("a/src/lib.rs", &tested, 0);
        check(
            "a/tests/all.rs",
            &format!("//! Why.\n{}", "fn t() {}\n".repeat(900)),
            0,
        );
    }

    #[test]
    fn leftovers_are_found_in_any_language() {
        check("a.svelte", concat!("<!-- TO", "DO: later -->"), 1);
        check("a.ts", concat!("debug", "ger;\n"), 1);
    }
}
