//! Whether the player on a virtual display really shows the video: pictures of that display, and what they must hold.
//!
//! A generated clip carries its frame number as a bar code: it is read back twice, the second time a later one. Any other
//! file is compared with the frames that FFmpeg decodes around the position that the player reports, twice as well.
//! Neither accepts a black box, an old frame or another picture.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::screen::Screen;
use crate::vstack::{Ended, Vstack, text};

/// From the player's start to two good pictures. A cold start with software rendering takes about 10 s.
const PLAYS_WITHIN: Duration = Duration::from_secs(120);
const PICTURE_PERIOD: Duration = Duration::from_millis(700);
/// The picture may be this far from the position that the player reports.
const TOLERANCE_MS: u64 = 100;
/// How long after a line of the player its position may be: it prints five a second.
const REPORT_LAG_MS: u64 = 200;
/// Longest stretch between the reports before and after a picture; where taking it took longer it proves little.
const LONGEST_STRETCH_MS: u64 = 2_000;
/// Controls fade away this long after the start of playback.
const CONTROLS_HIDDEN_FROM_MS: u64 = 4_000;
/// The picture that is kept shows this frame of the generated clip or a later one (30 a second): with software rendering
/// the page paints itself up to 2 s after the video's first frame, and a picture without the node panel shows only half.
const KEPT_FROM_FRAME: u64 = 90;

pub(crate) struct Watch<'a> {
    player: Ended,
    screen: &'a Screen,
    vstack: &'a Vstack,
    folder: &'a Path,
    deadline: Instant,
}

impl<'a> Watch<'a> {
    /// Starts the player; what it prints is in `player.json` and `player.log` of `folder`.
    pub(crate) fn start(
        command: Command,
        screen: &'a Screen,
        vstack: &'a Vstack,
        folder: &'a Path,
    ) -> Result<Self> {
        let player = Ended::printing(command, &folder.join("player.json"), &folder.join("player.log"))?;
        Ok(Self {
            player,
            screen,
            vstack,
            folder,
            deadline: Instant::now() + PLAYS_WITHIN,
        })
    }

    /// Two frame numbers, the second one higher and well after the start. `player.png` is the picture of the second.
    pub(crate) fn until_it_plays(&mut self) -> Result<(u64, u64)> {
        let mut first = None;
        loop {
            let picture = self.next_picture()?;
            let (readable, answer) = self.vstack.ask(&["read-frame", text(&picture)?])?;
            let frame = answer["frame"].as_u64().filter(|_| readable);
            match (first, frame) {
                (Some(earlier), Some(later)) if later > earlier && later >= KEPT_FROM_FRAME => {
                    self.keep(&picture)?;
                    return Ok((earlier, later));
                }
                (_, Some(frame)) => first = Some(frame),
                (_, None) => {}
            }
        }
    }

    /// Two pictures of different moments that are like the frames of `file` there: the position of the second, and how
    /// like it is. `player.png` is that picture.
    pub(crate) fn until_it_shows(&mut self, file: &Path) -> Result<(u64, f64)> {
        let mut first = None;
        loop {
            if self.line().is_some_and(|line| line["phase"] == "ended") {
                bail!(
                    "{} ended before two pictures of it were seen; take one of 15 s or more that is not of one shade",
                    file.display()
                );
            }
            let before = self.report();
            let picture = self.next_picture()?;
            sleep(Duration::from_millis(REPORT_LAG_MS));
            let (Some(before), Some(after)) = (before, self.report()) else {
                continue;
            };
            let Some(likeness) = self.likeness(&picture, file, &before, &after)? else {
                continue;
            };
            match first {
                Some(earlier_ms) if before.position_ms > earlier_ms => {
                    self.keep(&picture)?;
                    return Ok((before.position_ms, likeness));
                }
                _ => first = Some(before.position_ms),
            }
        }
    }

    /// How like the picture is to the best frame between two reports; `None` if it is not, or proves nothing.
    fn likeness(&self, picture: &Path, file: &Path, before: &Report, after: &Report) -> Result<Option<f64>> {
        let stretch = after.position_ms.checked_sub(before.position_ms);
        let still = before.area == after.area && before.position_ms >= CONTROLS_HIDDEN_FROM_MS;
        if !still || stretch.is_none_or(|stretch| stretch > LONGEST_STRETCH_MS) {
            return Ok(None);
        }
        let from = before.position_ms.saturating_sub(TOLERANCE_MS).to_string();
        let to = (after.position_ms + TOLERANCE_MS).to_string();
        let area = before.area.map(|side| side.to_string()).join(",");
        let arguments = [
            "match-frame",
            text(picture)?,
            text(file)?,
            "--from-ms",
            &from,
            "--to-ms",
            &to,
        ];
        let (same, answer) = self.vstack.ask(&[&arguments[..], &["--area", &area]].concat())?;
        Ok(answer["likeness"].as_f64().filter(|_| same))
    }

    /// Waits until it plays, at this place or later.
    pub(crate) fn until_position(&mut self, from_ms: u64) -> Result<()> {
        while self.report().is_none_or(|report| report.position_ms < from_ms) {
            self.must_go_on()?;
            sleep(PICTURE_PERIOD);
        }
        Ok(())
    }

    /// The newest line of the player.
    fn line(&self) -> Option<Value> {
        let lines = fs::read_to_string(self.folder.join("player.json")).ok()?;
        let whole = lines.get(..lines.rfind('\n')?)?;
        serde_json::from_str(whole.lines().last()?).ok()
    }

    /// What the player said last, if it plays.
    fn report(&self) -> Option<Report> {
        let line = self.line()?;
        let sides = line["picture"].as_array()?;
        let side = |index: usize| sides.get(index).and_then(Value::as_f64);
        let playing = line["phase"] == "playing";
        playing.then_some(Report {
            position_ms: line["position_ms"].as_u64()?,
            area: [side(0)?, side(1)?, side(2)?, side(3)?],
        })
    }

    fn next_picture(&mut self) -> Result<PathBuf> {
        self.must_go_on()?;
        let picture = self.folder.join("unread.png");
        sleep(PICTURE_PERIOD);
        self.screen.photograph(&picture)?;
        Ok(picture)
    }

    /// The player runs, and there is time left.
    fn must_go_on(&mut self) -> Result<()> {
        let log = self.folder.join("player.log");
        let picture = self.folder.join("unread.png");
        if !self.player.runs() {
            bail!("the player has ended; its output is in {}", log.display());
        }
        if Instant::now() > self.deadline {
            bail!(
                "no moving video within {} s; the last picture is {}, the player's output {}",
                PLAYS_WITHIN.as_secs(),
                picture.display(),
                log.display()
            );
        }
        Ok(())
    }

    fn keep(&self, picture: &Path) -> Result<()> {
        Ok(fs::rename(picture, self.folder.join("player.png"))?)
    }
}

/// What the player said last.
#[derive(Debug, Clone, Copy)]
struct Report {
    position_ms: u64,
    area: [f64; 4],
}
