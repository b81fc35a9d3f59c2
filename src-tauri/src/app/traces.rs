//! The trace of the open video's session: written while it plays, so that it can be saved when something was odd.
//!
//! It goes to a file without a name in the app's cache folder, which is gone with the session or with the process. A trace
//! that is saved while its session goes on has no last line; `vstack trace replay` plays it as far as it goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use vstack_client::TraceSink;
use vstack_core::id::VideoId;

/// Longest trace: about six hours of 8 Mbit/s. What comes after is not written down.
const MAX_TRACE_BYTES: u64 = 256 * 1024 * 1024;
const COPY_BYTES: usize = 64 * 1024;
/// Traces saved in the same second.
const MOST_NAMES: u32 = 100;

/// What was written of a session's trace so far.
#[derive(Debug)]
pub(super) struct SessionTrace {
    file: File,
}

/// A file that takes no more than `left_bytes`.
struct Limited {
    file: File,
    left_bytes: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left_bytes) = self.left_bytes.checked_sub(bytes.len() as u64) else {
            return Err(io::Error::other("the trace is as long as it may be"));
        };
        self.left_bytes = left_bytes;
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl SessionTrace {
    /// The trace of a session that is about to be opened, and what that session writes to. Blocks.
    pub(super) fn begin(cache: &Path) -> io::Result<(TraceSink, Self)> {
        Self::limited(cache, MAX_TRACE_BYTES)
    }

    fn limited(cache: &Path, left_bytes: u64) -> io::Result<(TraceSink, Self)> {
        std::fs::create_dir_all(cache)?;
        let file = tempfile::tempfile_in(cache)?;
        let target = Limited {
            file: file.try_clone()?,
            left_bytes,
        };
        // Its end says nothing that the file does not: how far it goes.
        let (sink, _) = TraceSink::to(target);
        Ok((sink, Self { file }))
    }

    /// For a thread that may block.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
        })
    }

    /// Copies all whole lines that are there to a new file in `folder`; its path. Blocks.
    pub(super) fn save(&self, folder: &Path, video: VideoId) -> io::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let (path, target) = fresh(folder, video)?;
        let copied = self.copy_to(target);
        if copied.is_err() {
            // Half a trace would be taken for one.
            let _ = std::fs::remove_file(&path);
        }
        copied.map(|()| path)
    }

    fn copy_to(&self, target: File) -> io::Result<()> {
        let mut target = BufWriter::new(target);
        let (mut at, mut buffer) = (0, vec![0; COPY_BYTES]);
        // What follows the last line end so far.
        let mut open_line = Vec::new();
        loop {
            let count = self.file.read_at(&mut buffer, at)?;
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                return target.flush();
            }
            at += count as u64;
            let whole = bytes
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let (lines, rest) = bytes.split_at(whole);
            if !lines.is_empty() {
                target.write_all(&open_line)?;
                target.write_all(lines)?;
                open_line.clear();
            }
            open_line.extend_from_slice(rest);
        }
    }
}

/// A file that was not there before, named by the time and our own id of the video.
fn fresh(folder: &Path, video: VideoId) -> io::Result<(PathBuf, File)> {
    let now = Zoned::now().strftime("%Y-%m-%d-%H%M%S").to_string();
    let id = video.to_string();
    let id = id.get(..8).unwrap_or(&id);
    for number in 1..=MOST_NAMES {
        let more = if number == 1 {
            String::new()
        } else {
            format!("-{number}")
        };
        let path = folder.join(format!("vstack-trace-{now}-{id}{more}.jsonl"));
        match File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: &str = "3b241101-e2bb-4255-8caf-4136c566a962";

    fn saved(written: &[u8]) -> (PathBuf, Vec<u8>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (_sink, trace) = SessionTrace::begin(&folder.path().join("cache")).unwrap();
        (&trace.file).write_all(written).unwrap();
        let path = trace
            .save(&folder.path().join("saved"), VIDEO.parse().unwrap())
            .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes, folder)
    }

    #[test]
    fn all_whole_lines_are_saved_and_nothing_of_the_one_under_way() {
        let long = "x".repeat(3 * COPY_BYTES);
        for (written, whole) in [
            ("one\ntwo\nthr".to_owned(), "one\ntwo\n".to_owned()),
            (format!("one\n{long}\nrest"), format!("one\n{long}\n")),
            (format!("{long}{long}"), String::new()),
            (String::new(), String::new()),
        ] {
            let (path, bytes, _folder) = saved(written.as_bytes());
            assert!(bytes == whole.as_bytes(), "{} bytes", bytes.len());
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(
                name.starts_with("vstack-trace-") && name.ends_with("-3b241101.jsonl"),
                "{name}"
            );
        }
    }

    #[test]
    fn two_traces_of_the_same_second_are_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let (_sink, trace) = SessionTrace::begin(folder.path()).unwrap();
        let paths = [(); 5].map(|()| trace.save(folder.path(), VIDEO.parse().unwrap()).unwrap());
        assert_eq!(std::collections::BTreeSet::from(paths).len(), 5);
    }

    #[test]
    fn a_trace_ends_at_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile_in(folder.path()).unwrap();
        let mut limited = Limited {
            file: file.try_clone().unwrap(),
            left_bytes: 10,
        };
        limited.write_all(b"12345\n").unwrap();
        assert!(limited.write_all(b"67890\n").is_err());
        assert_eq!(file.metadata().unwrap().len(), 6);
    }
}
