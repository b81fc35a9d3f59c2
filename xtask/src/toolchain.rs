//! What a machine needs before anything can be installed for it: git, a C compiler, Rust, Node.js.

use std::process::Command;

use anyhow::{Result, bail};

/// A tool, the oldest version that works, and what to do without it.
struct Tool {
    command: &'static str,
    name: &'static str,
    least: Option<(u32, u32)>,
    remedy: &'static str,
}

const TOOLS: [Tool; 5] = [
    Tool {
        command: "git",
        name: "git",
        least: None,
        remedy: "apt-get install git",
    },
    Tool {
        command: "cc",
        name: "a C compiler",
        least: None,
        remedy: "apt-get install build-essential",
    },
    // `rust-version` of the workspace.
    Tool {
        command: "rustc",
        name: "Rust",
        least: Some((1, 95)),
        remedy: "rustup update stable (https://rustup.rs)",
    },
    // What Vite 7 runs on.
    Tool {
        command: "node",
        name: "Node.js",
        least: Some((20, 19)),
        remedy: "install Node.js 20.19 or newer (https://nodejs.org)",
    },
    Tool {
        command: "npm",
        name: "npm",
        least: None,
        remedy: "install npm; it comes with Node.js",
    },
];

/// Checks all of them, so that one run names everything that is missing.
pub(crate) fn require() -> Result<()> {
    let complaints: Vec<String> = TOOLS.iter().filter_map(complaint).collect();
    if !complaints.is_empty() {
        bail!("this machine is not ready:\n  {}", complaints.join("\n  "));
    }
    Ok(())
}

fn complaint(tool: &Tool) -> Option<String> {
    let Some(answer) = version_text(tool.command) else {
        return Some(format!("{} is missing: {}", tool.name, tool.remedy));
    };
    let least = tool.least?;
    match version(&answer) {
        Some(found) if found >= least => None,
        _ => Some(format!(
            "{} is too old ({}), {}.{} is needed: {}",
            tool.name,
            answer.trim(),
            least.0,
            least.1,
            tool.remedy
        )),
    }
}

fn version_text(command: &str) -> Option<String> {
    let output = Command::new(command).arg("--version").output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Major and minor of the first word that looks like a version: `rustc 1.95.0 (…)`, `v20.19.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.trim_start_matches('v').split('.').map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        assert_eq!(version("rustc 1.95.0 (59807616e 2026-04-14)"), Some((1, 95)));
        assert_eq!(version("v20.20.2\n"), Some((20, 20)));
        assert_eq!(version("git version 2.39.5"), Some((2, 39)));
        assert_eq!(version("no number here"), None);
    }
}
