//! `vstack play`: playback through the smart client without a window.

use std::path::Path;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use vstack_api::ErrorCode;
use vstack_client::{
    ClientConfig, Cluster, Fault, FaultSummary, HeadlessOptions, NodeView, Pace, SessionEvent, SessionReport,
    headless,
};
use vstack_core::id::VideoId;
use vstack_core::manifest::seconds_to_ms;

use crate::args::{Place, PlayOptions, Sink};
use crate::failure::Failure;
use crate::output::Output;
use crate::{cluster, table, trace};

/// How often the line at the bottom of a terminal is drawn anew.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Nodes of which it tells: a line of 80 letters.
const SHARES_SHOWN: usize = 4;

pub(crate) async fn run(options: PlayOptions, place: &Place, output: &Output) -> Result<(), Failure> {
    let Sink::Null = options.sink;
    let pace = pace(options.speed)?;
    let config = ClientConfig {
        policy: options.policy,
        history_file: cluster::history_file(),
        ..ClientConfig::new(cluster::metadata_url(place))
    };
    let client = Cluster::connect(config).await?;
    let video = cluster::find_video(client.catalogue(), &options.video).await?;
    let next = match &options.next {
        Some(next) => Some(cluster::find_video(client.catalogue(), next).await?),
        None => None,
    };
    let from = HeadlessOptions {
        pace,
        start_ms: seconds_to_ms(options.from),
    };
    watch(&client, video, from, next, options.trace.as_deref(), output).await?;
    match next {
        Some(next) => {
            watch(
                &client,
                next,
                HeadlessOptions { pace, start_ms: 0 },
                None,
                None,
                output,
            )
            .await
        }
        None => Ok(()),
    }
}

/// Plays one video to its end; `next` is what comes after it.
async fn watch(
    client: &Cluster,
    video: VideoId,
    options: HeadlessOptions,
    next: Option<VideoId>,
    traced: Option<&Path>,
    output: &Output,
) -> Result<(), Failure> {
    let (sink, writing) = traced.map(trace::into_file).transpose()?.unzip();
    let session = match sink {
        None => client.open(video).await?,
        Some(sink) => client.open_traced(video, sink).await?,
    };
    let mut events = session.events();
    session.hint_next(next.map(|next| (next, 0)));
    output.line(&format!("playing \"{}\"", session.manifest().title));
    let mut playing = Box::pin(headless::play_session(&session, options));
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            biased;
            event = next_event(&mut events) => show(&event, output),
            ended = &mut playing => break ended,
            _ = ticks.tick(), if output.has_bar() => {
                let snapshot = session.snapshot();
                output.bar(&progress(snapshot.position_ms, snapshot.buffer_ms, &shares(&session.report())));
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        show(&event, output);
    }
    client.save_history().await;
    let report = session.report();
    output.say(&report, || described(&report));
    drop(playing);
    drop(session);
    if let (Some(writing), Some(file)) = (writing, traced) {
        trace::written(writing, file).await?;
    }
    ended?;
    verdict(&report, options.start_ms)
}

fn pace(speed: f64) -> Result<Pace, Failure> {
    if !speed.is_finite() || speed < 0.0 {
        return Err(Failure::Usage(
            "--speed is a number of times real time, or 0".to_owned(),
        ));
    }
    Ok(if speed == 0.0 {
        Pace::AsFastAsPossible
    } else {
        Pace::Times(speed)
    })
}

/// Where playback is and who brings it, for a terminal: as much as one line of it holds.
fn progress(position_ms: u64, buffer_ms: u64, shares: &[(&str, u64, f64)]) -> String {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let (position, buffer) = (seconds(position_ms), seconds(buffer_ms));
    let mut text = format!("{position:>8.1} s  buffer {buffer:.1} s");
    for (name, _, percent) in shares.iter().take(SHARES_SHOWN) {
        text.push_str(&format!("  {name} {percent:.0} %"));
    }
    if shares.len() > SHARES_SHOWN {
        text.push_str("  …");
    }
    text
}

/// Names, bytes and shares of all in percent, in the order of the nodes.
fn shares(report: &SessionReport) -> Vec<(&str, u64, f64)> {
    let share = |node: &'_ NodeView| {
        let (name, bytes) = report.bytes_by_node.get_key_value(&node.name)?;
        let percent = report.share_percent_by_node.get(&node.name)?;
        Some((name.as_str(), *bytes, *percent))
    };
    report.nodes.iter().filter_map(share).collect()
}

/// Missed events are only missing from the output; the report counts them all.
async fn next_event(events: &mut Receiver<SessionEvent>) -> SessionEvent {
    loop {
        match events.recv().await {
            Ok(event) => return event,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

fn show(event: &SessionEvent, output: &Output) {
    output.json_line(event);
    if event.kind.is_notable() {
        output.line(&format!(
            "{:>8.1} s  {}",
            event.session_ms as f64 / 1000.0,
            event.text
        ));
    }
}

/// From the beginning, every chunk has to have come; from elsewhere, the session itself says so by not failing.
fn verdict(report: &SessionReport, start_ms: u64) -> Result<(), Failure> {
    if report.complete || start_ms > 0 {
        return Ok(());
    }
    let detail = format!(
        "{} of {} chunks were delivered and verified",
        report.chunks, report.total_chunks
    );
    Err(Failure::problem(ErrorCode::Unavailable, detail))
}

fn described(report: &SessionReport) -> String {
    let startup = report
        .startup_ms
        .map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms"));
    let mut lines = vec![
        format!(
            "{} of {} chunks, {} verified, {} wasted, {} asked for twice",
            report.chunks,
            report.total_chunks,
            table::size(report.bytes),
            table::size(report.wasted_bytes),
            table::size(report.hedged_bytes)
        ),
        format!(
            "start-up {startup}, {} stalls ({} ms), buffer {:.1} s on average, above {:.1} s for 95 % of the time, {:.1} s at least",
            report.stalls, report.stall_ms, report.avg_buffer_s, report.p5_buffer_s, report.min_buffer_s
        ),
        format!(
            "policy {}, {:.2} requests for each chunk, {} failovers, {} faults",
            report.policy,
            report.requests_per_chunk,
            report.failovers,
            report.faults.len()
        ),
    ];
    let shares = shares(report).into_iter();
    lines.extend(
        shares.map(|(name, bytes, percent)| format!("  {name}  {}  {percent:.1} %", table::size(bytes))),
    );
    lines.extend(faults_described(&report.faults));
    let ahead = &report.prefetch;
    if ahead.requests > 0 || ahead.used_bytes > 0 {
        lines.push(format!(
            "in advance: {} fetched in {} requests, {} used, {} wasted",
            table::size(ahead.bytes),
            ahead.requests,
            table::size(ahead.used_bytes),
            table::size(ahead.wasted_bytes)
        ));
    }
    lines.join("\n")
}

/// A line for each node and kind of fault.
fn faults_described(faults: &[Fault]) -> Vec<String> {
    let line = |faults: &FaultSummary| {
        format!(
            "  {} {}: {} times, noticed after {} ms (median), {} ms at most; {} wasted",
            faults.node.name,
            faults.failure,
            faults.times,
            faults.detect_p50_ms,
            faults.detect_max_ms,
            table::size(faults.wasted_bytes)
        )
    };
    FaultSummary::of(faults).iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vstack_client::NodeRef;
    use vstack_client::policy::Failure;

    const NODE: &str = "3b241101-e2bb-4255-8caf-4136c566a962";

    fn fault(index: u16, failure: Failure, detect_ms: u64) -> Fault {
        let node = NodeRef {
            index,
            name: format!("node-{}", index + 1),
            node_id: NODE.parse().unwrap(),
        };
        Fault {
            at_ms: 0,
            node,
            seq: 0,
            failure,
            detect_ms,
            wasted_bytes: 1_000,
            recovered_ms: None,
            recovered_by: None,
        }
    }

    #[test]
    fn the_line_on_a_terminal_tells_who_brings_what_and_stays_one_line() {
        let few = [("node-1", 250, 25.0), ("nas", 750, 75.0)];
        assert_eq!(
            progress(12_340, 8_000, &few),
            "    12.3 s  buffer 8.0 s  node-1 25 %  nas 75 %"
        );
        let many = vec![("node-10", 1, 100.0 / 64.0); 64];
        let line = progress(12_345_678, 30_000, &many);
        assert!(line.chars().count() <= 80 && line.ends_with('…'), "{line}");
    }

    #[test]
    fn faults_are_told_by_node_and_kind_with_the_time_it_took_to_notice() {
        let silent = |after_ms| Failure::Silent { after_ms };
        let faults = [
            fault(1, silent(700), 700),
            fault(0, Failure::WrongBytes, 0),
            fault(1, silent(900), 900),
            fault(1, silent(800), 800),
        ];
        let lines = faults_described(&faults);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("  node-1 sent wrong bytes: 1 times, noticed after 0 ms"));
        let expected = "node-2 silent for 0.8 s: 3 times, noticed after 800 ms (median), 900 ms at most; ";
        assert!(lines[1].contains(expected), "{lines:?}");
    }
}
