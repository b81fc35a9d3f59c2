//! What an upload looks like while it runs: a bar on a terminal, lines elsewhere.

use std::time::{Duration, Instant};

use serde::Serialize;
use vstack_api::wire::{Job, JobState};

use crate::output::Output;
use crate::table;

/// A bar that moves more often than this only costs time.
const BAR_PERIOD: Duration = Duration::from_millis(100);
/// JSON lines while bytes are sent.
const LINE_PERIOD: Duration = Duration::from_millis(500);
const BAR_CELLS: usize = 24;

/// The first phase: bytes on their way to the uploader.
pub(crate) struct Sending {
    total_bytes: u64,
    sent_bytes: u64,
    title: String,
    output: Output,
    started: Instant,
    shown: Option<Instant>,
}

#[derive(Debug, Serialize)]
struct SendingLine {
    event: &'static str,
    sent_bytes: u64,
    total_bytes: u64,
    speed_bytes_per_sec: f64,
}

impl Sending {
    pub(crate) fn new(total_bytes: u64, title: &str, output: Output) -> Self {
        output.line(&format!("{title}: sending {}", table::size(total_bytes)));
        Self {
            total_bytes,
            sent_bytes: 0,
            title: title.to_owned(),
            output,
            started: Instant::now(),
            shown: None,
        }
    }

    /// More bytes have been handed to the connection.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
        let period = if self.output.is_json() {
            LINE_PERIOD
        } else {
            BAR_PERIOD
        };
        if self.shown.is_none_or(|at| at.elapsed() >= period) || self.sent_bytes == self.total_bytes {
            self.shown = Some(Instant::now());
            self.show();
        }
    }

    fn show(&self) {
        let speed = self.sent_bytes as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        self.output.json_line(&SendingLine {
            event: "sending",
            sent_bytes: self.sent_bytes,
            total_bytes: self.total_bytes,
            speed_bytes_per_sec: speed,
        });
        let percent = self.sent_bytes as f64 * 100.0 / self.total_bytes.max(1) as f64;
        let left_sec = (self.total_bytes.saturating_sub(self.sent_bytes)) as f64 / speed.max(1.0);
        self.output
            .bar(&bar(&self.title, "sending", percent, speed, Some(left_sec)));
    }
}

/// One line that shows how far a job is.
pub(crate) fn job_bar(job: &Job) -> String {
    bar(
        &job.title,
        phase_word(job.state),
        job.percent,
        job.speed_bytes_per_sec,
        job.eta_sec,
    )
}

/// One line for a phase that has begun.
pub(crate) fn phase_line(job: &Job) -> String {
    format!("{}: {}", job.title, phase_word(job.state))
}

const fn phase_word(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "waiting",
        JobState::Receiving => "receiving",
        JobState::Splitting => "splitting",
        JobState::Storing => "storing",
        JobState::Finalizing => "finalizing",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

fn bar(title: &str, phase: &str, percent: f64, speed: f64, eta_sec: Option<f64>) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped; the casts saturate"
    )]
    let (filled, speed) = (
        (percent.clamp(0.0, 100.0) / 100.0 * BAR_CELLS as f64) as usize,
        speed.max(0.0) as u64,
    );
    let cells = format!("{}{}", "#".repeat(filled), "-".repeat(BAR_CELLS - filled));
    let left = eta_sec.map_or_else(String::new, |seconds| format!(", {seconds:.0} s left"));
    let title: String = title.chars().take(30).collect();
    format!(
        "{title} [{cells}] {percent:3.0} % {phase}, {}/s{left}",
        table::size(speed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_at_the_end_and_survives_odd_figures() {
        let full = bar("clip", "storing", 100.0, 1_500_000.0, Some(0.4));
        assert_eq!(
            full,
            "clip [########################] 100 % storing, 1.5 MB/s, 0 s left"
        );
        for percent in [-1.0, 101.0, f64::NAN] {
            assert!(bar("clip", "storing", percent, f64::NAN, None).contains('['));
        }
    }
}
