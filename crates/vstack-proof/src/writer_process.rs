//! A real process that writes to a real folder until it is killed, and what it said it had stored.
//!
//! Each answer is one line in one write, so a line that was begun is whole. A line says what was acknowledged, or that
//! a delete is about to be asked for.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_store::disk::RealDisk;
use vstack_store::sim::{bytes_of, chunk};
use vstack_store::{DeleteReason, ErrorKind, ObjectState, PutRequest, Reserve, Store, StoreOptions};

use crate::meddling::Meddling;

/// The word on the command line that makes a process this writer.
pub const WRITER: &str = "writer";
/// After it: syncs do nothing.
const WITHOUT_SYNCS: &str = "--without-syncs";
/// Several, so that batches hold more than one request.
const WRITERS: u32 = 4;
/// Names that one process may use.
pub(crate) const NAMES_PER_PROCESS: u32 = 1_000_000;

pub(crate) fn options() -> StoreOptions {
    // Small superblocks, so that cuts also hit their creation and sealing.
    StoreOptions {
        superblock_bytes: 512 * 1024,
        reserve: Reserve::Bytes(0),
        ..StoreOptions::default()
    }
}

fn size_of(seq: u32) -> usize {
    let sizes: [usize; 5] = [1, 700, 4096, 20_000, 90_000];
    sizes.get(seq as usize % sizes.len()).copied().unwrap_or(1) + seq as usize % 300
}

fn content(seq: u32) -> Vec<u8> {
    bytes_of(seq, size_of(seq))
}

/// The child: writes for ever. `arguments` are what [`start`] put behind [`WRITER`].
///
/// # Errors
/// Why it cannot begin or go on.
pub fn write_until_killed(arguments: &[String]) -> Result<(), String> {
    let (Some(folder), Some(Ok(first))) = (
        arguments.first(),
        arguments.get(1).map(|first| first.parse::<u32>()),
    ) else {
        return Err("a writer needs a folder and its first number".to_owned());
    };
    let mut options = options();
    if arguments.get(2).is_some_and(|word| word == WITHOUT_SYNCS) {
        options.disk = Arc::new(Meddling::without_syncs(Arc::new(RealDisk)));
    }
    let (store, _) = Store::open(Path::new(folder), options).map_err(|error| error.to_string())?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    (first + writer..)
                        .step_by(WRITERS as usize)
                        .try_for_each(|seq| write_one(store, seq))
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| {
            writer
                .join()
                .unwrap_or_else(|_| Err("a writer panicked".to_owned()))
        })
    })
}

fn write_one(store: &Store, seq: u32) -> Result<(), String> {
    let say = |text: String| {
        std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| error.to_string())
    };
    store
        .put_blocking(PutRequest::new(
            chunk(seq),
            Ballot::PLAIN,
            Bytes::from(content(seq)),
        ))
        .map_err(|error| error.to_string())?;
    say(format!("put {seq}\n"))?;
    if seq.is_multiple_of(7) {
        say(format!("deleting {seq}\n"))?;
        store
            .delete_blocking(chunk(seq), Ballot::PLAIN, DeleteReason::Client)
            .map_err(|error| error.to_string())?;
        say(format!("deleted {seq}\n"))?;
    }
    Ok(())
}

/// What the processes of one folder have said.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    stored: BTreeSet<u32>,
    /// A delete was begun: it may have happened or not.
    deleting: BTreeSet<u32>,
    deleted: BTreeSet<u32>,
    /// Numbers that a process began with: only names from there may exist.
    begun: BTreeSet<u32>,
}

impl Acknowledged {
    fn note(&mut self, line: &str) -> Result<(), String> {
        let parsed = line
            .trim_end()
            .split_once(' ')
            .and_then(|(what, seq)| Some((what, seq.parse().ok()?)));
        match parsed {
            Some(("put", seq)) => self.stored.insert(seq),
            Some(("deleting", seq)) => self.deleting.insert(seq),
            Some(("deleted", seq)) => self.deleted.insert(seq),
            _ => return Err(format!("the writer said {line:?}")),
        };
        Ok(())
    }

    pub(crate) fn answers(&self) -> u64 {
        (self.stored.len() + self.deleted.len()) as u64
    }

    /// Compares everything that was said with an opened store.
    pub(crate) fn check(&self, store: &Store) -> Result<(), String> {
        for seq in &self.stored {
            let found = store.get(chunk(*seq), None).map_err(|error| error.kind());
            let gone = found == Err(ErrorKind::NotFound);
            let fits = if self.deleted.contains(seq) {
                gone
            } else {
                found.as_deref() == Ok(&content(*seq)[..]) || (gone && self.deleting.contains(seq))
            };
            if !fits {
                let deleted = self.deleted.contains(seq);
                let found = found.map(|data| data.len());
                return Err(format!(
                    "object {seq} was acknowledged (deleted: {deleted}), found {found:?}"
                ));
            }
        }
        store.objects(None, usize::MAX).iter().try_for_each(|object| {
            let seq = object.chunk.seq();
            let ours = self
                .begun
                .iter()
                .any(|first| (*first..*first + NAMES_PER_PROCESS).contains(&seq));
            let whole = object.state == ObjectState::Deleted
                || object.state == ObjectState::Corrupt && !self.stored.contains(&seq)
                || store
                    .get(object.chunk, None)
                    .is_ok_and(|data| data == content(seq));
            if ours && whole {
                Ok(())
            } else {
                Err(format!("object {seq} is neither whole nor absent: {object:?}"))
            }
        })
    }
}

/// A running writer.
#[derive(Debug)]
pub(crate) struct WriterProcess {
    pub(crate) child: Child,
    said: BufReader<ChildStdout>,
}

impl WriterProcess {
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        first: u32,
        syncs: bool,
        acknowledged: &mut Acknowledged,
    ) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.arg(WRITER).arg(folder).arg(first.to_string());
        if !syncs {
            command.arg(WITHOUT_SYNCS);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        acknowledged.begun.insert(first);
        let pipe = child.stdout.take().ok_or("the writer has no pipe")?;
        Ok(Self {
            child,
            said: BufReader::new(pipe),
        })
    }

    /// Waits for `lines` answers.
    pub(crate) fn hear(&mut self, lines: u64, acknowledged: &mut Acknowledged) -> Result<(), String> {
        for _ in 0..lines {
            let mut line = String::new();
            self.said
                .read_line(&mut line)
                .map_err(|error| error.to_string())?;
            if !line.ends_with('\n') {
                return Err("the writer ended by itself".to_owned());
            }
            acknowledged.note(&line)?;
        }
        Ok(())
    }

    /// Hears what is still in the pipe, while the process is stopped or gone.
    pub(crate) fn drain(&mut self, acknowledged: &mut Acknowledged) -> Result<(), String> {
        let mut rest = self.said.buffer().to_vec();
        self.said.consume(rest.len());
        let pipe = self.said.get_mut();
        let flags = rustix::fs::fcntl_getfl(&*pipe).map_err(|error| error.to_string())?;
        rustix::fs::fcntl_setfl(&*pipe, flags | rustix::fs::OFlags::NONBLOCK)
            .map_err(|error| error.to_string())?;
        match pipe.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
        String::from_utf8_lossy(&rest)
            .lines()
            .try_for_each(|line| acknowledged.note(line))
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

impl Drop for WriterProcess {
    fn drop(&mut self) {
        // Already gone, unless the run failed in between.
        drop(self.kill());
    }
}
