//! The only reader of GStreamer's messages: it makes [`BusEvent`]s of those that matter and drops the rest.
//!
//! Messages are read on the threads that post them and go into the worker's one inbox, so the worker waits in one
//! place. Each carries the number of the worker's last seek or load; the worker drops those of an older one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use gstreamer as gst;

use super::worker::Input;

/// What the pipeline has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BusEvent {
    /// A load or a seek is done: the picture of its time is there.
    Prerolled,
    EndOfStream,
    /// The clock went away with its device.
    ClockLost,
    LatencyChanged,
    Failed(PipelineFailure),
}

/// GStreamer's account of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PipelineFailure {
    pub(super) message: String,
    /// For the log only.
    pub(super) debug: String,
    pub(super) kind: FailureKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// A decoder or demuxer is missing.
    MissingPlugin,
    /// The bytes did not make sense to a demuxer or decoder.
    Decode,
    /// The feed gave up.
    Read,
    Other,
}

/// Sends the messages of `bus` to `inbox`, marked with `number` as it is when they come.
pub(super) fn forward(bus: &gst::Bus, inbox: Sender<Input>, number: Arc<AtomicU64>) {
    bus.set_sync_handler(move |_, message| {
        if let Some(event) = translate(message) {
            // The worker may be gone already; then nobody needs to know.
            let _ = inbox.send(Input::Bus {
                number: number.load(Ordering::SeqCst),
                event,
            });
        }
        gst::BusSyncReply::Drop
    });
}

fn translate(message: &gst::Message) -> Option<BusEvent> {
    Some(match message.view() {
        gst::MessageView::AsyncDone(_) => BusEvent::Prerolled,
        gst::MessageView::Eos(_) => BusEvent::EndOfStream,
        gst::MessageView::ClockLost(_) => BusEvent::ClockLost,
        gst::MessageView::Latency(_) => BusEvent::LatencyChanged,
        gst::MessageView::Error(error) => BusEvent::Failed(failure(error)),
        gst::MessageView::Warning(warning) => {
            tracing::warn!(error = %warning.error(), debug = ?warning.debug(), "GStreamer warned and went on");
            return None;
        }
        _ => return None,
    })
}

fn failure(error: &gst::message::Error) -> PipelineFailure {
    let cause = error.error();
    let kind =
        if cause.matches(gst::CoreError::MissingPlugin) || cause.matches(gst::StreamError::CodecNotFound) {
            FailureKind::MissingPlugin
        } else if cause.matches(gst::ResourceError::Read) {
            FailureKind::Read
        } else if cause.is::<gst::StreamError>() {
            FailureKind::Decode
        } else {
            FailureKind::Other
        };
    let debug = error.debug().map(|text| text.to_string()).unwrap_or_default();
    PipelineFailure {
        message: cause.message().to_owned(),
        debug,
        kind,
    }
}
