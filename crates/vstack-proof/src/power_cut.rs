//! Real power cuts of a real file system: ext4 in a file, loop-mounted, shut down by the `GOINGDOWN` ioctl.
//!
//! The ioctl (with its flag "do not flush the log") makes the mounted file system forget everything that was not synced:
//! data, sizes, names. At the next mount the journal is replayed as after a real cut. Two traps, each of which costs a
//! day:
//! - An `fdatasync` that overlaps the shutdown may return 0, and a machine without power cannot say so. So the process
//!   is stopped first (SIGSTOP; a sync under way ends before it stops), its answers are read, and then the power goes.
//! - Another mount namespace can pin a file system that was shut down. So everything happens in a private one
//!   (`unshare -m`), and needs root.
//!
//! Is the harness sharp? The same store with syncs that say yes and do nothing must be found out: [`Harness::syncs`].
//! What it leaves out: a drive that lies about its own cache, and tearing within a sector; [`crate::crash_points`] has
//! both.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use vstack_store::Store;
use vstack_store::sim::Random;

use crate::report::{Report, Settings};
use crate::writer_process::{Acknowledged, NAMES_PER_PROCESS, WriterProcess, options};

/// A new folder after so many cuts, since each start checks everything in it.
const CUTS_PER_FOLDER: u64 = 20;
/// Room for what [`CUTS_PER_FOLDER`] processes write, many times over; the file is sparse.
const DISK_BYTES: u64 = 1 << 30;
/// A file system that was shut down may stay busy for a moment.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(20);
/// `ioctl(fd, _IOR('X', 125, __u32), &2)`: shut down without flushing the log. In Perl, which every Debian has, since a
/// call like this is unsafe in Rust and this project has no unsafe code for it.
const GOING_DOWN: &str = r#"open(my $fs, "<", $ARGV[0]) or die "$!\n"; my $how = pack("L", 2); ioctl($fs, 0x8004587d, $how) or die "$!\n";"#;

/// Where and with what the power is cut.
#[derive(Debug)]
pub struct Harness<'a> {
    /// This crate's binary: the process that writes.
    pub program: &'a Path,
    /// An empty folder on a disk with room; the file system's file and its mount point go there.
    pub scratch: &'a Path,
    /// Whether the store syncs. Without, most cuts must be found out, or the harness is blunt.
    pub syncs: bool,
}

/// Why no power can be cut on this machine; `None` if it can.
#[must_use]
pub fn obstacle() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root, to mount");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("this machine has no loop devices");
    }
    let tools = ["mkfs.ext4", "mount", "umount", "unshare", "perl"];
    let missing = |tool: &&&str| {
        !["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(tool).exists())
    };
    tools
        .iter()
        .find(missing)
        .map(|_| "it needs mkfs.ext4, mount, umount, unshare and perl")
}

/// Whether a file system can be made and mounted in `scratch`; if not, why.
///
/// # Errors
/// What the tool that failed has said: a container without the right to mount, for instance.
pub fn try_mount(scratch: &Path) -> Result<(), String> {
    FileSystem::make(scratch).map(drop)
}

/// Cuts the power `settings.count` times. Call it in a mount namespace of its own.
///
/// Without syncs every failure of the report is a cut that was found out.
pub fn run(settings: Settings, harness: &Harness<'_>, mut progress: impl FnMut(u64) -> bool) -> Report {
    let started = Instant::now();
    let mut report = Report::new("power-cut", "power cuts");
    let mut totals = Totals::default();
    match FileSystem::make(harness.scratch) {
        Ok(file_system) => {
            for cycle in 0..settings.count {
                let seed = settings.seed + cycle;
                if let Err(what) = totals.cut_once(harness, &file_system, seed, cycle) {
                    report.fail(seed, format!("power cut {cycle}: {what}"));
                    // What comes after a real loss on the same folder says nothing new.
                    totals.start_folder(&file_system, cycle + 1);
                }
                report.count += 1;
                if !progress(report.count) {
                    break;
                }
            }
            totals.answers += totals.acknowledged.answers();
        }
        Err(what) => report.fail(settings.seed, what),
    }
    report.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.facts = vec![
        ("puts and deletes acknowledged before a cut", totals.answers),
        ("torn tails cut off", totals.torn),
        ("superblocks opened", totals.superblocks),
    ];
    report
}

#[derive(Debug, Default)]
struct Totals {
    answers: u64,
    torn: u64,
    superblocks: u64,
    acknowledged: Acknowledged,
    folder: PathBuf,
}

impl Totals {
    fn start_folder(&mut self, file_system: &FileSystem, number: u64) {
        self.answers += self.acknowledged.answers();
        self.acknowledged = Acknowledged::default();
        // The first one is not there, and one that the cut took neither.
        drop(std::fs::remove_dir_all(&self.folder));
        self.folder = file_system.mount_point.join(format!("node-{number}"));
    }

    fn cut_once(
        &mut self,
        harness: &Harness<'_>,
        file_system: &FileSystem,
        seed: u64,
        cycle: u64,
    ) -> Result<(), String> {
        if cycle.is_multiple_of(CUTS_PER_FOLDER) || !harness.syncs {
            self.start_folder(file_system, cycle);
        }
        let mut random = Random::new(seed);
        random.next_u64();
        let first = u32::try_from(cycle % CUTS_PER_FOLDER).unwrap_or(0) * NAMES_PER_PROCESS;
        let acknowledged = &mut self.acknowledged;
        let mut writer =
            WriterProcess::start(harness.program, &self.folder, first, harness.syncs, acknowledged)?;
        writer.hear(1 + random.below(60), acknowledged)?;
        stop(&writer)?;
        writer.drain(acknowledged)?;
        file_system.cut_power()?;
        writer.kill()?;
        file_system.remount()?;
        let (store, report) = Store::open(&self.folder, options()).map_err(|error| error.to_string())?;
        if !report.is_clean() {
            return Err(format!("a power cut looks like damage: {report:?}"));
        }
        self.torn += report.torn.len() as u64;
        self.superblocks += report.superblocks as u64;
        self.acknowledged.check(&store)
    }
}

/// SIGSTOP, and waits until every thread has stopped.
fn stop(writer: &WriterProcess) -> Result<(), String> {
    let pid = i32::try_from(writer.child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or("the writer has no pid")?;
    kill_process(pid, Signal::STOP).map_err(|error| error.to_string())?;
    let waited = waitpid(Some(pid), WaitOptions::UNTRACED).map_err(|error| error.to_string())?;
    match waited {
        Some((_, status)) if status.stopped() => Ok(()),
        other => Err(format!("the writer did not stop: {other:?}")),
    }
}

/// A mounted ext4 in a file.
#[derive(Debug)]
struct FileSystem {
    image: PathBuf,
    mount_point: PathBuf,
}

impl FileSystem {
    fn make(scratch: &Path) -> Result<Self, String> {
        let (image, mount_point) = (scratch.join("disk.img"), scratch.join("mnt"));
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(DISK_BYTES).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&mount_point).map_err(|error| error.to_string())?;
        tool(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let made = Self { image, mount_point };
        made.mount()?;
        Ok(made)
    }

    fn mount(&self) -> Result<(), String> {
        tool(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&self.image)
                .arg(&self.mount_point),
        )
    }

    fn cut_power(&self) -> Result<(), String> {
        tool(
            Command::new("perl")
                .args(["-e", GOING_DOWN])
                .arg(&self.mount_point),
        )
    }

    fn unmount(&self) -> Result<(), String> {
        let deadline = Instant::now() + UNMOUNT_DEADLINE;
        loop {
            match tool(Command::new("umount").arg(&self.mount_point)) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                other => return other,
            }
        }
    }

    fn remount(&self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // It goes with the mount namespace at the latest.
        drop(self.unmount());
    }
}

fn tool(command: &mut Command) -> Result<(), String> {
    let output = command
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{:?} failed: {}", command.get_program(), said.trim()))
}
