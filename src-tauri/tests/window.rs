//! The real window on a real cluster: clicks, time, and the picture as X shows it.
//!
//! The clip carries its frame number as a bar code, so a picture of the screen proves which moment of the video is
//! there: a black box, an old frame or another picture is none.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests and what they stand on"
)]
#![allow(unreachable_pub, reason = "the support is a module of this test alone")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use support::file_manager::FileManager;
use support::process::{Process, signal};
use support::screen::{Screen, Shot};
use support::webdriver::Page;
use support::{Cluster, PATIENCE, until, vstack};
use vstack_media::barcode::Area;
use vstack_media::clip::{ClipSpec, generate};
use vstack_media::ffmpeg::Tools;

const PLAY_PAUSE: &str = "[data-testid=play-pause]";
const POSITION: &str = "[data-testid=time-position]";
const PHASE: &str = "[data-testid=phase]";

/// The page is told five times a second and draws when it can.
const PAGE_LAG_MS: u64 = 1_500;

/// A cluster with one clip, and the player's window on it.
struct Stage {
    page: Page,
    screen: Screen,
    cluster: Cluster,
    video: String,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new(seconds: u32, arguments: impl Fn(&str) -> Vec<String>) -> Self {
        Self::with_clips(&[seconds], arguments)
    }

    /// Clips of these lengths, uploaded in this order; the last one is `video` and stands first in the library.
    fn with_clips(clips: &[u32], arguments: impl Fn(&str) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(&folder.path().join("cluster"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let upload = |&seconds: &u32| {
            let clip = folder.path().join(format!("bar code {seconds} s.mp4"));
            runtime
                .block_on(generate(&Tools::default(), &ClipSpec::hd(seconds), &clip))
                .unwrap();
            cluster.upload(&clip)
        };
        let videos: Vec<String> = clips.iter().map(upload).collect();
        let video = videos.last().unwrap().clone();
        let screen = Screen::start(folder.path());
        let log = std::env::temp_dir().join(format!("vstack-player-{}.log", std::process::id()));
        println!("the player's log: {}", log.display());
        let page = open_page(&screen, &cluster, &arguments(&video), &log);
        Self {
            page,
            screen,
            cluster,
            video,
            log,
            _folder: folder,
        }
    }

    /// The same after the player has ended and started again, with no arguments.
    fn started_again(self) -> Self {
        drop(self.page);
        let page = open_page(&self.screen, &self.cluster, &[], &self.log);
        Self { page, ..self }
    }

    /// Waits until the player's log has this text after its first `from` bytes; where the text ends.
    fn until_logged(&self, text: &str, from: usize) -> usize {
        until(&format!("{text:?} in {}", self.log.display()), PATIENCE, || {
            let log = std::fs::read(&self.log).unwrap();
            let fresh = log.get(from..)?;
            let found = fresh
                .windows(text.len())
                .position(|part| part == text.as_bytes())?;
            Some(from + found + text.len())
        })
    }

    fn log_bytes(&self) -> usize {
        std::fs::read(&self.log).unwrap().len()
    }

    /// Waits until the element of this name has the keyboard.
    fn until_focused(&self, name: &str) {
        until(&format!("the focus on {name}"), PATIENCE, || {
            let focused = self
                .page
                .run("return document.activeElement?.dataset.testid ?? null");
            (focused == name).then_some(())
        });
    }

    fn phase(&self) -> Option<String> {
        self.page.attribute(PHASE, "data-phase")
    }

    fn until_phase(&self, phase: &str) {
        until(&format!("the phase {phase}"), PATIENCE, || {
            (self.phase().as_deref() == Some(phase)).then_some(())
        });
    }

    fn position_ms(&self) -> u64 {
        let text = self.page.attribute(POSITION, "data-ms").unwrap_or_default();
        text.parse::<f64>()
            .map_or(0, |ms| vstack_core::manifest::seconds_to_ms(ms / 1000.0))
    }

    fn until_position(&self, what: &str, reached: impl Fn(u64) -> bool) -> u64 {
        until(what, PATIENCE, || {
            Some(self.position_ms()).filter(|&ms| reached(ms))
        })
    }

    /// Waits for the clip of this length.
    fn until_length_s(&self, seconds: u32) {
        until(&format!("the clip of {seconds} s"), PATIENCE, || {
            let length_ms = self.page.attribute("[data-testid=time-duration]", "data-ms")?;
            let off_ms = length_ms.parse::<f64>().ok()? - f64::from(seconds) * 1000.0;
            (off_ms.abs() < 1000.0).then_some(())
        });
    }

    /// Where the page says that the picture is, on the screen.
    fn stage_area(&self) -> Area {
        self.area_of("[data-testid=stage]")
    }

    fn area_of(&self, selector: &str) -> Area {
        let script = format!(
            "const r = document.querySelector({selector:?}).getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
        );
        let rect = self.page.run(&script);
        let side = |index: usize| {
            rect[index]
                .as_f64()
                .unwrap_or_else(|| panic!("no {selector}: {rect}"))
        };
        let (x, y) = self.screen.window_origin("V-Stack");
        Area {
            x: x + side(0),
            y: y + side(1),
            width: side(2),
            height: side(3),
        }
    }

    /// The number of the frame that is seen, once one is.
    fn frame(&self, area: impl Fn(&Shot) -> Area) -> u16 {
        until(
            &format!("a readable frame in {}", self.screen.shot_file().display()),
            PATIENCE,
            || {
                let shot = self.screen.shot();
                shot.frame(area(&shot))
            },
        )
    }

    fn seen_frame(&self) -> u16 {
        let area = self.stage_area();
        self.frame(|_| area)
    }

    /// The frame on the screen is that of the time on the page, while both move.
    fn check_moving_picture(&self) {
        let before_ms = self.position_ms();
        let seen_ms = u64::from(self.seen_frame()) * 1000 / 30;
        let after_ms = self.position_ms();
        println!("on the screen: {seen_ms} ms; on the page: {before_ms} to {after_ms} ms");
        assert!(seen_ms + PAGE_LAG_MS > before_ms && seen_ms < after_ms + PAGE_LAG_MS);
    }

    /// While the picture moves, the page over it is seen down to the window's edge.
    fn check_controls_over_the_picture(&self) {
        let button = self.area_of(PLAY_PAUSE);
        let mut seen = 0;
        until("the controls over the moving picture", PATIENCE, || {
            // They fade when nobody does anything.
            self.screen.press("shift");
            let before_ms = self.position_ms();
            let bright = self.screen.shot().brightest(button) > 200;
            // By chance a part of the page may have been painted just then.
            seen = if bright { seen + 1 } else { 0 };
            (seen == 3 && self.position_ms() > before_ms).then_some(())
        });
    }

    /// The frame on the screen is exactly that of the time on the page, which stands still.
    fn check_still_picture(&self) {
        let frame = until(
            "a still frame that fits the time",
            Duration::from_secs(15),
            || {
                let frame = self.screen.shot().frame(self.stage_area())?;
                let wanted = self.position_ms() * 30 / 1000;
                (u64::from(frame).abs_diff(wanted) <= 1).then_some(frame)
            },
        );
        println!("still: frame {frame} at {} ms", self.position_ms());
    }
}

fn open_page(screen: &Screen, cluster: &Cluster, arguments: &[String], log: &Path) -> Page {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let environment = [
        ("VSTACK_METADATA_URL", cluster.metadata_url.as_str()),
        ("VSTACK_LOG", "info,vstack_client=debug"),
    ];
    Page::open(screen, &arguments, &environment, log)
}

fn seek_to(page: &Page, share: f64) {
    point_at(page, share, "['pointerdown', 'pointerup']");
}

fn point_at(page: &Page, share: f64, events: &str) {
    let script = format!(
        "const bar = document.querySelector('[data-testid=seek-bar]'), r = bar.getBoundingClientRect();\
         for (const type of {events})\
           bar.dispatchEvent(new PointerEvent(type, {{ clientX: r.x + r.width * {share}, clientY: r.y + r.height / 2,\
             pointerId: 1, button: 0, buttons: 1, isPrimary: true, bubbles: true, cancelable: true }}));"
    );
    page.run(&script);
}

#[test]
fn a_click_plays_the_video_and_the_screen_shows_its_frames() {
    let stage = Stage::new(60, |_| Vec::new());
    stage.page.click("[data-testid=video-card] button.open");
    stage.until_position("the time moves", |ms| ms > 2_000);
    stage.check_moving_picture();
    stage.check_controls_over_the_picture();

    stage.page.click(PLAY_PAUSE);
    stage.until_phase("paused");
    stage.check_still_picture();

    seek_to(&stage.page, 0.5);
    let at_ms = stage.until_position("the middle", |ms| ms.abs_diff(30_000) < 1_000);
    assert_eq!(stage.phase().as_deref(), Some("paused"), "at {at_ms} ms");
    stage.check_still_picture();

    stage.page.click(PLAY_PAUSE);
    stage.until_position("the time moves on", |ms| ms > at_ms + 1_000);
    stage.page.key("f");
    let before = stage.frame(Shot::whole);
    until("later frames on the whole screen", PATIENCE, || {
        let shot = stage.screen.shot();
        shot.frame(shot.whole()).filter(|&frame| frame > before)
    });
    stage.page.key("f");
    let area = stage.stage_area();

    stage.page.click("[data-testid=back]");
    until("no picture in the library", PATIENCE, || {
        stage
            .page
            .count("[data-testid=video-card]")
            .eq(&1)
            .then_some(())?;
        stage.screen.shot().frame(area).is_none().then_some(())
    });
}

#[test]
fn the_node_that_serves_most_dies_and_the_panel_says_so_while_the_video_plays_on() {
    let stage = Stage::new(120, |video| vec!["--play".into(), video.into()]);
    stage.until_position("the time moves without a click", |ms| ms > 1_000);
    let panel = "[data-testid=node-card]";
    until("five nodes in the panel, each with a chart", PATIENCE, || {
        (stage.page.count(&format!("{panel} svg")) >= 5).then_some(())
    });
    check_names(&stage);
    let busiest = until("a node that served", PATIENCE, || {
        let script = "const cards = [...document.querySelectorAll('[data-testid=node-card]')];\
            const served = (card) => Number(card.dataset.bytes);\
            cards.sort((a, b) => served(b) - served(a));\
            return served(cards[0]) > 0 ? cards[0].dataset.nodeName : null";
        stage.page.run(script).as_str().map(str::to_owned)
    });
    // As the README has it: what the panel names is killed by the name that `vstack status` has.
    signal(stage.cluster.pid_of(&busiest), Signal::KILL);
    until("the panel says that it is down", PATIENCE, || {
        let card = stage.page.text(&format!("{panel}[data-node-name='{busiest}']"));
        card.contains("down").then_some(())
    });
    let at_ms = stage.position_ms();
    stage.until_position("playback well past the death", |ms| ms > at_ms + 15_000);
    stage.check_moving_picture();
    assert_eq!(stage.page.text("[data-testid=kpi-stalls]").trim(), "0");
    println!(
        "video {}: decisions: {}",
        stage.video,
        stage.page.text("[data-testid=log-line]")
    );
    check_report(&stage.page);
    let file = check_saved_trace(&stage.page);
    check_trace_is_found(&stage, &file);
}

/// The panel calls each node, and its lane, as `vstack dev` does, in that order.
fn check_names(stage: &Stage) {
    let named = |field: &str| {
        format!("[...document.querySelectorAll('[data-testid=node-card]')].map((one) => one.dataset.{field})")
    };
    let (ids, names) = (named("nodeId"), named("nodeName"));
    let cards = stage.page.run(&format!("return [{ids}, {names}]"));
    let started = stage
        .cluster
        .children
        .iter()
        .filter(|child| child["role"] == "storage");
    let (ids, names): (Vec<_>, Vec<_>) = started
        .map(|child| (child["node_id"].clone(), child["name"].clone()))
        .unzip();
    assert_eq!(cards, serde_json::json!([ids, names]));
    let lanes = "return [...document.querySelectorAll('[data-testid=lanes] .name')].map((one) => one.title)";
    until("a lane for each node, under its name", PATIENCE, || {
        (stage.page.run(lanes) == serde_json::json!(names)).then_some(())
    });
}

/// The report has the figures that the panel has.
fn check_report(page: &Page) {
    page.key("i");
    let same = "const bytes = (all) => Object.fromEntries([...document.querySelectorAll(all)].map((one) => [one.dataset.nodeName, one.dataset.bytes]).sort());\
        const cards = bytes('[data-testid=node-card]'), report = bytes('[data-testid=report-node]');\
        return Object.keys(report).length === 5 && JSON.stringify(cards) === JSON.stringify(report)";
    page.key(" ");
    until("the report and the cards name the same bytes", PATIENCE, || {
        (page.run(same) == true).then_some(())
    });
    page.key(" ");
    println!("report: {}", page.text("[data-testid=report]"));
    assert_eq!(page.text("[data-testid=report-stalls]"), "0");
}

/// What the player saves is what `vstack trace replay` plays, to the same decisions.
fn check_saved_trace(page: &Page) -> String {
    page.click("[data-testid=save-trace]");
    let file = until("the trace is saved", PATIENCE, || {
        page.attribute("[data-testid=trace-file]", "data-file")
    });
    let replay = Command::new(vstack())
        .args(["trace", "replay", "--json", &file])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&replay.stdout);
    println!("{file}: {text}");
    assert!(replay.status.success(), "{text}");
    let replay: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(
        replay["actions"].as_u64().unwrap() > 20 && replay["parted"].is_null(),
        "{replay}"
    );
    file
}

/// The file manager is asked for the file, and what is copied is its path: the search field takes it.
fn check_trace_is_found(stage: &Stage, file: &str) {
    let manager = FileManager::start(&stage.screen);
    stage.page.click("[data-testid=show-trace]");
    assert_eq!(manager.asked(), [format!("file://{file}")]);
    stage.page.click("[data-testid=copy-trace]");
    until("it says that it has copied", PATIENCE, || {
        (stage.page.text("[data-testid=copy-trace]").trim() == "Copied").then_some(())
    });
    stage.page.click("[data-testid=back]");
    stage.page.click("[data-testid=search]");
    stage.screen.press("ctrl+v");
    until("the path in the search field", PATIENCE, || {
        let typed = stage.page.run("return document.activeElement?.value ?? null");
        (typed == file).then_some(())
    });
}

#[test]
fn the_policy_that_was_chosen_is_in_force_after_the_next_start() {
    let stage = Stage::new(20, |_| Vec::new());
    stage.page.click("[data-testid=nav-settings]");
    stage.until_focused("policy-pool");
    stage.screen.press("Down");
    stage.until_focused("policy-seed");
    stage.screen.press("Down");
    check_dialogs_keep_the_focus(&stage);
    let settings = stage.screen.config_file("dev.vstack.player/settings.json");
    until("it is kept", PATIENCE, || {
        let text = std::fs::read_to_string(&settings).ok()?;
        text.contains("\"round-robin\"").then_some(())
    });
    let stage = stage.started_again();
    stage.page.click("[data-testid=video-card] button.open");
    stage.until_position("the time moves", |ms| ms > 1_000);
    let chosen = stage
        .page
        .run("return document.querySelector('[data-testid=policy]').value");
    assert_eq!(chosen, "round-robin");
}

/// The settings are open with the focus on this policy: by keys alone around them, out of them, and to another dialog.
fn check_dialogs_keep_the_focus(stage: &Stage) {
    for focused in ["policy-round-robin", "dialog-close", "policy-round-robin"] {
        stage.until_focused(focused);
        stage.screen.press("Tab");
    }
    stage.until_focused("dialog-close");
    stage.screen.press("shift+Tab");
    stage.until_focused("policy-round-robin");
    stage.screen.press("Escape");
    stage.until_focused("nav-settings");
    assert_eq!(stage.page.count("dialog"), 0);
    stage.screen.press("question");
    stage.until_focused("dialog-close");
    stage.screen.press("Return");
    stage.until_focused("nav-settings");
    assert_eq!(stage.page.count("dialog"), 0);
}

#[test]
fn what_the_viewer_is_likely_to_watch_lies_ready_when_they_do() {
    let stage = Stage::with_clips(&[20, 150], |video| vec!["--play".into(), video.into()]);
    stage.until_position("the time moves", |ms| ms > 1_000);
    // A chunk far outside of what is fetched for playback.
    point_at(&stage.page, 0.7, "['pointermove']");
    let asked = stage.until_logged("is fetched in advance: the pointer rests there", 0);
    let ready = stage.until_logged("lies ready, from", asked);
    seek_to(&stage.page, 0.7);
    stage.until_position("the place", |ms| ms > 104_000);
    stage.until_logged("lay ready", ready);

    // 45 s are left.
    let asked = stage.until_logged("is fetched in advance: it comes next", ready);
    let ready = stage.until_logged("lies ready, from", asked);
    stage.page.run(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'N', shiftKey: true, bubbles: true }))",
    );
    stage.until_length_s(20);
    stage.until_logged("chunk 0 lay ready", ready);
    stage.until_position("the next video plays", |ms| ms > 1_000 && ms < 20_000);

    let before = stage.log_bytes();
    stage.page.click("[data-testid=back]");
    stage.page.click("[data-testid=video-card] button.open");
    stage.until_logged("is fetched in advance: the viewer may go on there", before);
    stage.page.click("[data-testid=resume]");
    stage.until_position("where it was left", |ms| ms > 106_000);
    stage.check_moving_picture();
    assert_eq!(stage.page.text("[data-testid=kpi-stalls]").trim(), "0");

    // The player may still speak of the place where the same video was closed.
    stage.page.click("[data-testid=back]");
    stage.page.click("[data-testid=video-card] button.open");
    stage.page.click("[data-testid=resume]");
}

#[test]
fn what_was_put_up_next_by_a_key_lies_ready_and_begins_when_the_open_video_has_ended() {
    let stage = Stage::with_clips(&[20, 30, 40], |_| Vec::new());
    until("three videos", PATIENCE, || {
        (stage.page.count("[data-testid=video-card]") == 3).then_some(())
    });
    // The library itself would go on with the clip of 30 s.
    stage
        .page
        .run("document.querySelector('[data-testid=video-card]:last-child button.open').focus()");
    stage.screen.press("q");
    until("it is up next", PATIENCE, || {
        (stage.page.count("[data-testid=queued]") == 1).then_some(())
    });
    stage.page.click("[data-testid=video-card] button.open");
    stage.until_length_s(40);
    stage.until_position("the time moves", |ms| ms > 1_000);
    let asked = stage.until_logged("is fetched in advance: it comes next", 0);
    let ready = stage.until_logged("lies ready, from", asked);
    seek_to(&stage.page, 0.9);
    stage.until_phase("ended");
    until("a way to stay", PATIENCE, || {
        (stage.page.count("[data-testid=stay]") == 1).then_some(())
    });
    stage.until_length_s(20);
    stage.until_logged("chunk 0 lay ready", ready);
    stage.until_position("it plays", |ms| ms > 1_000 && ms < 18_000);
    stage.check_moving_picture();
    stage.page.click("[data-testid=back]");
    until("nothing is up next any more", PATIENCE, || {
        (stage.page.count("[data-testid=video-card]") == 3).then_some(())
    });
    assert_eq!(stage.page.count("[data-testid=queue]"), 0);
}

#[test]
fn a_video_goes_on_where_it_was_left_after_the_window_was_closed_and_after_the_player_was_killed() {
    let stage = Stage::new(150, |_| Vec::new());
    stage.page.click("[data-testid=video-card] button.open");
    stage.until_position("the time moves", |ms| ms > 1_000);
    seek_to(&stage.page, 0.5);
    let left_ms = stage.until_position("some seconds more", |ms| ms > 81_000 && ms < 100_000);
    stage.screen.close_window("V-Stack");
    until("the player ends with its window", PATIENCE, || {
        stage.page.player_pid().is_none().then_some(())
    });
    let stage = stage.started_again();
    let left_ms = check_goes_on(&stage, left_ms);

    signal(stage.page.player_pid().unwrap(), Signal::KILL);
    let stage = stage.started_again();
    check_goes_on(&stage, left_ms);
}

/// The open window offers to go on where the video was left, which lies ready, and goes on there. Where it is left now.
fn check_goes_on(stage: &Stage, left_ms: u64) -> u64 {
    stage.page.click("[data-testid=video-card] button.open");
    let offered_ms = until("an offer to go on", PATIENCE, || {
        stage
            .page
            .attribute("[data-testid=resume]", "data-ms")?
            .parse::<u64>()
            .ok()
    });
    println!("left at {left_ms} ms, offered: {offered_ms} ms");
    assert!(offered_ms.abs_diff(left_ms) < 5_000 + PAGE_LAG_MS);
    let asked = stage.until_logged("is fetched in advance: the viewer may go on there", 0);
    let ready = stage.until_logged("lies ready, from", asked);
    stage.page.click("[data-testid=resume]");
    let at_ms = stage.until_position("well past the place", |ms| ms > offered_ms + 6_000);
    stage.until_logged("lay ready", ready);
    stage.check_moving_picture();
    assert_eq!(stage.page.text("[data-testid=kpi-stalls]").trim(), "0");
    stage.page.key("i");
    until("it counts among what was fetched in advance", PATIENCE, || {
        let used = stage.page.attribute("[data-testid=report-ahead]", "data-used")?;
        (used.parse::<u64>().ok()? > 0).then_some(())
    });
    at_ms
}

#[test]
fn without_a_server_the_player_starts_its_own_cluster_and_stops_it_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let screen = Screen::start(folder.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_vstack-player"));
    screen.show(&mut command);
    command
        .env("VSTACK_BIN", vstack())
        .env_remove("VSTACK_METADATA_URL");
    let mut player = Process::start(command);
    let state = folder.path().join("data/dev.vstack.player/cluster/cluster.json");
    let running: serde_json::Value = until("the cluster runs", PATIENCE, || {
        serde_json::from_slice(&std::fs::read(&state).ok()?).ok()
    });
    let pids: Vec<u64> = running["children"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|child| child["pid"].as_u64())
        .collect();
    assert_eq!(pids.len(), 8, "{running}");
    let ended = player.terminate().expect("the player ends when it is told to");
    assert!(ended.success(), "{ended}");
    let left: Vec<&u64> = pids
        .iter()
        .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
        .collect();
    assert!(left.is_empty(), "still running: {left:?}");
}
