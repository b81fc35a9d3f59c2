//! `cargo xtask prove mutants`: do the store's tests notice a store that is wrong?
//!
//! Each mutant is a small bug, put into a copy of the project (`target/mutants/tree`) by replacing a piece of source that
//! must be there exactly once. The store's suite runs on it, and at least one test must fail. All mutants share one
//! target folder, so that each costs one small build. Killing a process finds none of these bugs that others do not find,
//! and takes long: those tests are left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::mutant_list::{MUTANTS, Mutant};
use crate::project::Project;
use crate::say;

/// Tests that start and kill processes.
const LEFT_OUT: &str = "not (binary(kill) or test(no_kill_loses))";

enum Outcome {
    /// By the first test that failed.
    Caught(String),
    Survived,
    /// The mutant is no program, so it says nothing.
    NoBuild(String),
}

/// Runs the mutants of these names, or all; whether each was caught.
pub(super) fn run(project: &Project, names: &[&str]) -> Result<bool> {
    let mutants = chosen(names)?;
    let tree = Tree::copy(project)?;
    say::step("the suite on the store as it is");
    match tree.judge()? {
        Outcome::Survived => {}
        Outcome::Caught(test) => bail!("{test} fails without any mutant, so mutants prove nothing"),
        Outcome::NoBuild(said) => bail!("the copy in {} does not build:\n{said}", tree.root.display()),
    }
    let mut table = String::new();
    let mut caught = 0;
    for mutant in &mutants {
        say::step(&format!("mutant {}: {}", mutant.name, mutant.what));
        let started = Instant::now();
        let outcome = tree.with(mutant, Tree::judge)?;
        let verdict = match outcome {
            Outcome::Caught(test) => {
                caught += 1;
                format!("caught by {test}")
            }
            Outcome::Survived => "SURVIVED".to_owned(),
            Outcome::NoBuild(said) => format!("DOES NOT BUILD\n{said}"),
        };
        say::note(&format!("{verdict} ({} s)", started.elapsed().as_secs()));
        table.push_str(&format!("| {} | {} | {verdict} |\n", mutant.name, mutant.what));
    }
    say::text("\n| mutant | the bug | verdict |\n|---|---|---|\n");
    say::text(&table);
    say::text(&format!("mutants: {caught} of {} caught\n", mutants.len()));
    Ok(caught == mutants.len())
}

fn chosen(names: &[&str]) -> Result<Vec<&'static Mutant>> {
    if names.is_empty() {
        return Ok(MUTANTS.iter().collect());
    }
    let of_name = |name: &&str| {
        let found = MUTANTS.iter().find(|mutant| mutant.name == *name);
        found.with_context(|| {
            let known: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
            format!("there is no mutant \"{name}\"; there are {}", known.join(", "))
        })
    };
    names.iter().map(of_name).collect()
}

/// A copy of the project's sources.
struct Tree {
    root: PathBuf,
    target: PathBuf,
    cargo: PathBuf,
    nextest: bool,
}

impl Tree {
    /// Brings the copy up to date. A file that has not changed is not written, so that cargo need not build it again.
    fn copy(project: &Project) -> Result<Self> {
        let root = project.target.join("mutants/tree");
        let files = sources(&project.root)?;
        remove_others(&root, Path::new(""), &files)?;
        for file in files {
            let (from, to) = (project.root.join(&file), root.join(&file));
            // A file that was just deleted is still listed.
            let Ok(bytes) = fs::read(&from) else { continue };
            if fs::read(&to).is_ok_and(|old| old == bytes) {
                continue;
            }
            let folder = to.parent().context("every file is in a folder")?;
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
        }
        let cargo = PathBuf::from(project.cargo().get_program());
        Ok(Self {
            target: project.target.join("mutants/build"),
            nextest: crate::test::has_nextest(project),
            root,
            cargo,
        })
    }

    /// Puts the mutant in, judges, and takes it out again.
    fn with(&self, mutant: &Mutant, judge: impl FnOnce(&Self) -> Result<Outcome>) -> Result<Outcome> {
        let mut originals = Vec::new();
        for edit in mutant.edits {
            let path = self.root.join(edit.file);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if text.matches(edit.from).count() != 1 {
                bail!(
                    "mutant {}: its place in {} is not there once",
                    mutant.name,
                    edit.file
                );
            }
            fs::write(&path, text.replacen(edit.from, edit.to, 1))?;
            originals.push((path, text));
        }
        let outcome = judge(self);
        // In reverse, so that two edits of one file end with the first text.
        for (path, text) in originals.into_iter().rev() {
            fs::write(path, text)?;
        }
        outcome
    }

    fn judge(&self) -> Result<Outcome> {
        let mut build = self.tests(&["--no-run"], &[]);
        let built = build.output().context("cannot run cargo")?;
        if !built.status.success() {
            return Ok(Outcome::NoBuild(
                String::from_utf8_lossy(&built.stderr).into_owned(),
            ));
        }
        let mut run = if self.nextest {
            self.tests(&["--filterset", LEFT_OUT], &[])
        } else {
            self.tests(&[], &["--skip", "kill"])
        };
        let ran = run.output().context("cannot run cargo")?;
        if ran.status.success() {
            return Ok(Outcome::Survived);
        }
        let said = [ran.stdout, ran.stderr].concat();
        Ok(Outcome::Caught(first_failure(&String::from_utf8_lossy(&said))))
    }

    fn tests(&self, arguments: &[&str], of_the_tests: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root);
        if self.nextest {
            command.args(["nextest", "run", "--profile", "mutants"]);
        } else {
            command.arg("test");
        }
        command.args([
            "--locked",
            "--package",
            "vstack-store",
            "--package",
            "vstack-proof",
        ]);
        command.args(arguments);
        if !of_the_tests.is_empty() {
            command.arg("--").args(of_the_tests);
        }
        command
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null());
        command
    }
}

/// Removes what an earlier copy had below `folder` and this one has not.
fn remove_others(root: &Path, folder: &Path, files: &[PathBuf]) -> Result<()> {
    // There is no earlier copy.
    let Ok(entries) = fs::read_dir(root.join(folder)) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(root, &name, files)?;
        } else if !files.contains(&name) {
            fs::remove_file(entry.path()).with_context(|| format!("cannot remove {}", name.display()))?;
        }
    }
    Ok(())
}

/// Everything that git knows or would add.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot run git")?;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = listing.split('\0').filter(|name| !name.is_empty());
    Ok(names.map(PathBuf::from).collect())
}

/// The test that failed first, in what nextest (`FAIL [ 0.2s] (1/9) crate::binary test`) or the plain harness prints.
fn first_failure(said: &str) -> String {
    let of_nextest = said.lines().find_map(|line| {
        let line = line.trim_start();
        let failed = ["FAIL [", "TIMEOUT [", "SIGABRT ["]
            .iter()
            .any(|mark| line.starts_with(mark));
        failed.then(|| line.rsplit(' ').next().unwrap_or(line).to_owned())
    });
    let of_harness = || {
        said.lines()
            .find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
            .map(str::to_owned)
    };
    of_nextest
        .or_else(of_harness)
        .unwrap_or_else(|| "a test".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_finds_its_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for mutant in MUTANTS {
            for edit in mutant.edits {
                let text = fs::read_to_string(root.join(edit.file)).unwrap_or_default();
                assert_eq!(
                    text.matches(edit.from).count(),
                    1,
                    "mutant {} in {}: the source has changed, so change the mutant (xtask/src/prove/mutant_list.rs):\n{}",
                    mutant.name,
                    edit.file,
                    edit.from
                );
            }
        }
    }

    #[test]
    fn the_first_failure_is_named_whoever_ran_the_tests() {
        let nextest = "        PASS [ 0.1s] (1/9) a::b one\n        FAIL [ 0.2s] (2/9) a::b two\n";
        assert_eq!(first_failure(nextest), "two");
        assert_eq!(first_failure("test x::three ... FAILED\n"), "x::three");
    }
}
