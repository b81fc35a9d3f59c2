//! `erasure`: our coding of 3+2 shards beside Intel's ISA-L and a plain copy of the same bytes.
//!
//! One thread, buffers that are there already, contents in no cache longer than their size allows. The three take turns
//! within a round. Ours is what the roles call: it also lays a chunk out in cells and copies it into the shards, which
//! ISA-L's callers have to do themselves; a copy of the chunk beside it says what that costs.

mod isal;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use vstack_erasure::{Layout, SHARDS, Shards, decode_into, encode_into};

use crate::output;
use crate::report::{Report, median};
use isal::Isal;

/// Bytes that one measurement handles; large enough for the clock, small enough to take turns often.
const BYTES_A_CELL: usize = 256 << 20;
const OURS: &str = "V-Stack";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Taken for the sake of the other benches; nothing is started.
    #[arg(long, value_name = "FILE", hide = true)]
    vstack: Option<PathBuf>,
    /// The program that was built on ISA-L.
    #[arg(long, value_name = "FILE")]
    isal: Option<PathBuf>,
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The page to write.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Rounds in which the sides take turns.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Sizes of chunks.
    #[arg(
        long,
        value_name = "KIB,...",
        value_delimiter = ',',
        default_value = "256,2048,16384"
    )]
    chunk_kib: Vec<usize>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Encode,
    /// Out of three shards, one of them a parity shard.
    Rebuild1,
    /// Out of three shards, two of them parity shards.
    Rebuild2,
}

impl Task {
    const ALL: [Self; 3] = [Self::Encode, Self::Rebuild1, Self::Rebuild2];

    const fn word(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Rebuild1 => "rebuild1",
            Self::Rebuild2 => "rebuild2",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Rebuild1 => "rebuild, 1 data shard lost",
            Self::Rebuild2 => "rebuild, 2 data shards lost",
        }
    }

    const fn lost(self) -> usize {
        match self {
            Self::Encode => 0,
            Self::Rebuild1 => 1,
            Self::Rebuild2 => 2,
        }
    }
}

/// One task on chunks of one size, all rounds; GB/s of chunk bytes.
#[derive(Debug, Default)]
struct Row {
    ours: Vec<f64>,
    isal: Vec<f64>,
    copy: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.work)?;
    ensure!(vstack_erasure::is_supported(), "this processor lacks AVX2");
    let mut report = Report::new("Erasure coding beside ISA-L and memcpy", &options.work);
    let mut isal = options.isal.as_deref().map(Isal::start).transpose()?;
    report.notes = notes(isal.is_some());
    let mut table = String::from(
        "| chunk | task | V-Stack GB/s | ISA-L GB/s | memcpy GB/s | of ISA-L | of memcpy |\n|---|---|---|---|---|---|---|\n",
    );
    for &kib in &options.chunk_kib {
        for task in Task::ALL {
            output::step(&format!("{} of {kib} KiB", task.title()));
            let row = measure(task, kib * 1024, options.rounds, isal.as_mut())?;
            table.push_str(&line(task, kib, &row));
        }
    }
    report.tables.push(table);
    let page = report.markdown(OURS);
    std::fs::write(&options.report, &page)
        .with_context(|| format!("cannot write {}", options.report.display()))?;
    output::text(&page);
    Ok(())
}

fn notes(has_isal: bool) -> Vec<String> {
    let mut notes = vec![
        "GB/s of chunk bytes by the processor time of one thread, buffers reused; ratios are medians of the ratios within each round.".to_owned(),
        "V-Stack: `encode_into` and `decode_into` of `vstack-erasure`, that is `reed-solomon-erasure` with AVX2, one cell \
         of 64 KiB after another in blocks of 4 KiB, with the copy between chunk and shards."
            .to_owned(),
        "ISA-L: `ec_encode_data` on three whole shards, without any copy; its rebuilds were compared with the lost shards."
            .to_owned(),
    ];
    if !has_isal {
        notes.push("ISA-L could not be fetched on this machine.".to_owned());
    }
    notes
}

fn measure(task: Task, chunk_bytes: usize, rounds: u16, mut isal: Option<&mut Isal>) -> Result<Row> {
    let times = (BYTES_A_CELL / chunk_bytes).max(1);
    let bytes = (times * chunk_bytes) as f64;
    let mut ours = Ours::new(task, chunk_bytes)?;
    let mut row = Row::default();
    for _ in 0..rounds {
        row.ours.push(bytes / ours.seconds(times)? / 1e9);
        if let Some(isal) = isal.as_mut() {
            row.isal
                .push(bytes / isal.seconds(task.word(), chunk_bytes, times)? / 1e9);
        }
        row.copy.push(bytes / ours.copy_seconds(times) / 1e9);
    }
    Ok(row)
}

/// Our side's buffers.
struct Ours {
    task: Task,
    chunk: Vec<u8>,
    shards: Shards,
    out: Vec<u8>,
}

impl Ours {
    fn new(task: Task, chunk_bytes: usize) -> Result<Self> {
        let mut chunk = vec![0; chunk_bytes];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut chunk);
        let mut ours = Self {
            task,
            shards: vstack_erasure::encode(&chunk)?,
            out: Vec::new(),
            chunk,
        };
        ours.once()?;
        ensure!(
            task == Task::Encode || ours.out == ours.chunk,
            "a rebuild gave other bytes"
        );
        Ok(ours)
    }

    fn once(&mut self) -> Result<()> {
        if self.task == Task::Encode {
            encode_into(&self.chunk, &mut self.shards)?;
            return Ok(());
        }
        // The first data shards are lost; three are left.
        let lost = self.task.lost();
        let kept = lost..lost + vstack_erasure::DATA_SHARDS;
        let shards: [Option<&[u8]>; SHARDS] = std::array::from_fn(|shard| {
            kept.contains(&shard)
                .then(|| self.shards.get(shard))
                .flatten()
                .map(Vec::as_slice)
        });
        decode_into(Layout::new(self.chunk.len()), shards, &mut self.out)?;
        Ok(())
    }

    fn seconds(&mut self, times: usize) -> Result<f64> {
        let started = cpu_seconds();
        for _ in 0..times {
            self.once()?;
        }
        Ok(cpu_seconds() - started)
    }

    fn copy_seconds(&mut self, times: usize) -> f64 {
        self.out.resize(self.chunk.len(), 0);
        let started = cpu_seconds();
        for _ in 0..times {
            self.out.copy_from_slice(std::hint::black_box(&self.chunk));
            std::hint::black_box(&self.out);
        }
        cpu_seconds() - started
    }
}

/// Processor time of this thread: on a shared machine the clock on the wall measures the others.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn line(task: Task, kib: usize, row: &Row) -> String {
    let ratio = |theirs: &[f64]| {
        let ratios = row.ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        median(ratios.collect())
    };
    let mut line = String::new();
    let _ = writeln!(
        line,
        "| {kib} KiB | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
        task.title(),
        median(row.ours.clone()),
        median(row.isal.clone()),
        median(row.copy.clone()),
        ratio(&row.isal),
        ratio(&row.copy)
    );
    line
}
