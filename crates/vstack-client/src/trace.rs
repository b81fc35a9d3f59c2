//! Where a session's trace goes: to a thread that writes lines, so that the session never waits for a disk.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use vstack_core::manifest::Manifest;

use crate::cluster;
use crate::config::PolicyName;
use crate::policy::ChunkSpec;
use crate::policy::trace::{Head, Recorder, TRACE_VERSION};

/// Takes the trace of one session ([`crate::Cluster::open_traced`]).
#[derive(Debug)]
pub struct TraceSink {
    lines: Sender<String>,
}

/// The writing of a trace, to be waited for when its session is over.
#[derive(Debug)]
pub struct TraceWriting {
    thread: JoinHandle<io::Result<u64>>,
}

impl TraceSink {
    /// Lines go to `target`, one after another, from a thread of their own.
    #[must_use]
    pub fn to(target: impl Write + Send + 'static) -> (Self, TraceWriting) {
        let (lines, arriving) = channel::<String>();
        let thread = std::thread::spawn(move || {
            let (mut target, mut count) = (BufWriter::new(target), 0);
            while let Ok(first) = arriving.recv() {
                for line in std::iter::once(first).chain(arriving.try_iter()) {
                    target.write_all(line.as_bytes())?;
                    target.write_all(b"\n")?;
                    count += 1;
                }
                // All that has come so far: the target may be read before the session is over, or outlive its process.
                target.flush()?;
            }
            Ok(count)
        });
        (Self { lines }, TraceWriting { thread })
    }

    pub(crate) fn recorder(
        self,
        cluster: &cluster::Shared,
        policy: PolicyName,
        manifest: &Manifest,
        chunks: &[ChunkSpec],
    ) -> Recorder {
        let known = cluster.nodes().views(&cluster.clock).into_iter();
        let (nodes, node_names) = known.map(|node| (node.node_url, node.name)).unzip();
        let head = Head {
            version: TRACE_VERSION,
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            video_id: manifest.video_id,
            zero_at: cluster.clock.unix(crate::policy::Micros(0)),
            nodes,
            node_names,
            policy: cluster.config.policy_config_of(policy),
            chunks: chunks.to_vec(),
        };
        Recorder::new(&head, move |line| {
            // The writer has gone when it could not write, which its end says.
            let _ = self.lines.send(line);
        })
    }
}

impl TraceWriting {
    /// Waits until the session is over and all of its trace is written; the number of lines. Not for a thread that
    /// serves other tasks.
    ///
    /// # Errors
    /// A line could not be written; the trace ends before it.
    pub fn wait(self) -> io::Result<u64> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the writer of the trace ended early")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Hands on what is written to it.
    struct Told(Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_has_come_is_written_while_the_session_goes_on() {
        let (tell, told) = channel();
        let (sink, writing) = TraceSink::to(Told(tell));
        for line in ["one", "two"] {
            sink.lines.send(line.to_owned()).unwrap();
            let written = told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(written, format!("{line}\n").into_bytes());
        }
        drop(sink);
        assert_eq!(writing.wait().unwrap(), 2);
    }
}
