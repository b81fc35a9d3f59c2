//! `vstack play`: playback through the smart client without a window.

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use vstack_api::ErrorCode;
use vstack_client::{ClientConfig, Cluster, HeadlessOptions, Pace, SessionEvent, SessionReport, headless};
use vstack_core::manifest::seconds_to_ms;

use crate::args::{Place, PlayOptions, Sink};
use crate::failure::Failure;
use crate::output::Output;
use crate::{cluster, table, trace};

pub(crate) async fn run(options: PlayOptions, place: &Place, output: &Output) -> Result<(), Failure> {
    let Sink::Null = options.sink;
    let pace = pace(options.speed)?;
    let config = ClientConfig {
        policy: options.policy,
        ..ClientConfig::new(cluster::metadata_url(place))
    };
    let client = Cluster::connect(config).await?;
    let video = cluster::find_video(client.catalogue(), &options.video).await?;
    let traced = options.trace.as_deref();
    let (sink, writing) = traced.map(trace::into_file).transpose()?.unzip();
    let session = match sink {
        None => client.open(video).await?,
        Some(sink) => client.open_traced(video, sink).await?,
    };
    let mut events = session.events();
    output.line(&format!("playing \"{}\"", session.manifest().title));
    let headless = HeadlessOptions {
        pace,
        start_ms: seconds_to_ms(options.from),
    };
    let mut playing = Box::pin(headless::play_session(&session, headless));
    let ended = loop {
        tokio::select! {
            biased;
            event = next_event(&mut events) => show(&event, output),
            ended = &mut playing => break ended,
        }
    };
    while let Ok(event) = events.try_recv() {
        show(&event, output);
    }
    let report = session.report();
    output.say(&report, || described(&report));
    drop(playing);
    drop(session);
    if let (Some(writing), Some(file)) = (writing, traced) {
        trace::written(writing, file).await?;
    }
    ended?;
    verdict(&report, headless.start_ms)
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
    let nodes = report
        .bytes_by_node
        .iter()
        .map(|(name, bytes)| format!("  {name}  {}", table::size(*bytes)));
    format!(
        "{} of {} chunks, {} verified, {} wasted\nstart-up {startup}, {} stalls ({} ms), buffer {:.1} s on average, {:.1} s at least\n\
         {} failovers, {} faults, {:.2} requests for each chunk\n{}",
        report.chunks,
        report.total_chunks,
        table::size(report.bytes),
        table::size(report.wasted_bytes),
        report.stalls,
        report.stall_ms,
        report.avg_buffer_s,
        report.min_buffer_s,
        report.failovers,
        report.faults.len(),
        report.requests_per_chunk,
        nodes.collect::<Vec<_>>().join("\n")
    )
}
