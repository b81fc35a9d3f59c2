//! `store`: a storage node beside nginx (plain files, sendfile) and SeaweedFS's volume server.
//!
//! GET of 2 MiB chunks that are in memory, PUT of 2 MiB chunks with each side's durability said, then what a growing
//! number of chunks costs: memory a chunk, time to start, latency.

mod compare;
mod growth;
mod slow;

use std::path::PathBuf;

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
    /// Rounds in which the servers take turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Length of a cell: one server, one task, one number of connections.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=60))]
    seconds: u16,
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
    /// Numbers of chunks at which growth is measured; 0 leaves it out. A million needs 6 GiB of disk.
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1000,10000,100000,1000000"
    )]
    growth: Vec<u32>,
}

impl Options {
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
    compare::run(options, report)?;
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
