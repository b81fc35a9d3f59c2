//! `store`: a storage node beside nginx (plain files, sendfile) and SeaweedFS's volume server.
//!
//! GET of 2 MiB chunks that are in memory, PUT of 2 MiB chunks with each side's durability said, then what a growing
//! number of chunks costs: memory a chunk, time to start, latency.

mod compare;
mod growth;
mod scrub;
mod slow;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use rand::RngCore as _;

use crate::output;
use crate::peers::Programs;
use crate::report::Report;

pub(crate) const CHUNK_BYTES: usize = 2 * 1024 * 1024;
const OURS: &str = "V-Stack";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The release binary.
    #[arg(long, value_name = "FILE")]
    vstack: PathBuf,
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    /// SeaweedFS.
    #[arg(long, value_name = "FILE")]
    weed: Option<PathBuf>,
    /// Folder for the servers' files, on the disk that is to be measured; emptied at the end.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The page to write; JSON lines go beside it.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// A minute instead of five: one round of short cells, fewer chunks. To see that it runs.
    #[arg(long)]
    quick: bool,
    /// Rounds in which the servers take turns: 3, or 1 with --quick.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Length of a cell (one server, one task, one number of connections): 2 s, or 1 s with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=60))]
    seconds: Option<u16>,
    /// Chunks that the readers share.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    chunks: u16,
    /// Connections of the readers.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,16,100")]
    readers: Vec<u16>,
    /// Connections of the writers.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,10")]
    writers: Vec<u16>,
    /// Most that a PUT cell writes.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    put_mib: u32,
    /// Numbers of chunks at which growth is measured: 1000 to 1000000 (100000 with --quick), which needs 6 GiB of disk; 0
    /// leaves it out.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    growth: Vec<u32>,
}

impl Options {
    fn rounds(&self) -> u16 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn limit(&self) -> Duration {
        let seconds = self.seconds.unwrap_or(if self.quick { 1 } else { 2 });
        Duration::from_secs(seconds.into())
    }

    fn growth(&self) -> &[u32] {
        const ALL: &[u32] = &[1_000, 10_000, 100_000, 1_000_000];
        match (self.growth.as_slice(), self.quick) {
            ([], true) => &ALL[..3],
            ([], false) => ALL,
            (said, _) => said,
        }
    }

    fn programs(&self) -> Programs {
        Programs {
            vstack: self.vstack.clone(),
            nginx: self.nginx.clone(),
            weed: self.weed.clone(),
            work: self.work.clone(),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.work)?;
    let mut report = Report::new("The storage node beside nginx and SeaweedFS", &options.work);
    let measured = measure(options, &mut report);
    // Gigabytes that nobody needs; what went wrong is said below.
    let _ = std::fs::remove_dir_all(&options.work);
    measured?;
    report.write(&options.report, OURS)?;
    output::text(&report.markdown(OURS));
    output::step(&format!("written to {}", options.report.display()));
    Ok(())
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let chunks = random_chunks(usize::from(options.chunks));
    compare::run(options, &chunks, report)?;
    scrub::run(options, &chunks, report)?;
    growth::run(options, report)
}

/// Bytes that no compression and no deduplication makes smaller.
fn random_chunks(count: usize) -> Vec<Vec<u8>> {
    let mut random = rand::rng();
    (0..count)
        .map(|_| {
            let mut chunk = vec![0; CHUNK_BYTES];
            random.fill_bytes(&mut chunk);
            chunk
        })
        .collect()
}
