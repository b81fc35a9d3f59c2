//! `--json`: what plays, as lines that other programs can read.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use super::playback::NowPlaying;
use crate::dto::PlaybackPhase;
use crate::player::surface::Surface;

/// The page is told as often.
const PERIOD: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Line {
    video_id: String,
    phase: PlaybackPhase,
    position_ms: u64,
    /// Where the picture is on the screen: x, y, width and height in pixels; `null` while none is shown.
    picture: Option<[f64; 4]>,
}

/// Prints a line for each change, until nobody reads any more.
pub(super) async fn tell(playing: Arc<NowPlaying>, surface: Surface) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        ticks.tick().await;
        let (reply, picture) = oneshot::channel();
        surface.ask_picture_area(move |area| {
            // Nobody waits any more when the player ends.
            let _ = reply.send(area);
        });
        let picture = picture.await.ok().flatten();
        let line = playing.snapshot(false).map(|now| Line {
            video_id: now.video_id,
            phase: now.phase,
            position_ms: now.position_ms,
            picture,
        });
        let Some(line) = line.filter(|line| last.as_ref() != Some(line)) else {
            continue;
        };
        if print(&line).is_err() {
            return;
        }
        last = Some(line);
    }
}

fn print(line: &Line) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, line)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}
