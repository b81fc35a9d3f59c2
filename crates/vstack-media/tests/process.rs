//! FFmpeg as a process: it is watched, limited and ended, and it opens nothing but the file it was given.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vstack_media::MediaError;
use vstack_media::clip::{ClipSpec, generate};
use vstack_media::ffmpeg::{Conversion, Limits, Tools, convert_arguments, probe_arguments, run};
use vstack_media::plan::{Plan, StreamAction, VideoPlan};

const LIMITS: Limits = Limits {
    wall: Duration::from_secs(60),
    silence: Duration::from_secs(60),
    cpu_seconds: 60,
    memory_bytes: 4 << 30,
    file_bytes: 0,
};

/// A shell script in place of FFmpeg.
fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("ffmpeg");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

async fn run_script(text: &str, limits: Limits) -> Result<bytes::Bytes, MediaError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    run(
        &script(folder.path(), text),
        &[OsString::from("argument")],
        limits,
    )
    .await
}

/// Whether a process with this command line runs.
fn runs(command_line: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let wanted = command_line.as_bytes();
    processes
        .into_iter()
        .any(|process| fs::read(process.path().join("cmdline")).is_ok_and(|line| line == wanted))
}

#[tokio::test]
async fn a_process_without_progress_is_stopped() {
    let mark = format!("7{}", std::process::id());
    let limits = Limits {
        silence: Duration::from_secs(1),
        ..LIMITS
    };
    let started = Instant::now();
    let error = run_script(&format!("echo some output; exec sleep {mark}"), limits)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "timed_out");
    assert!(started.elapsed() < Duration::from_secs(20));
    let deadline = Instant::now() + Duration::from_secs(20);
    while runs(&format!("sleep\0{mark}\0")) {
        assert!(Instant::now() < deadline, "the process was not ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_process_that_says_it_gets_on_is_left_alone() {
    let limits = Limits {
        silence: Duration::from_secs(2),
        ..LIMITS
    };
    let text = "for i in 1 2 3 4 5 6 7 8; do echo out_time_us=${i}000000 >&3; sleep 0.5; done; echo done";
    assert_eq!(run_script(text, limits).await.unwrap(), "done\n");
}

#[tokio::test]
async fn the_wall_limit_ends_even_a_busy_process() {
    let limits = Limits {
        wall: Duration::from_secs(1),
        ..LIMITS
    };
    let error = run_script("while true; do echo more; sleep 0.05; done", limits)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "timed_out");
}

#[tokio::test]
async fn a_reader_that_takes_its_time_is_no_silence() {
    let folder = tempfile::tempdir().unwrap();
    let program = script(folder.path(), "head -c 1000000 /dev/zero");
    let limits = Limits {
        silence: Duration::from_secs(1),
        ..LIMITS
    };
    let mut process = Conversion::start(&program, &[], limits).unwrap();
    let mut bytes = process.next().await.unwrap().unwrap().len();
    // The pipe is full and the process blocked for longer than the silence that would end it.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    while let Some(piece) = process.next().await.unwrap() {
        bytes += piece.len();
    }
    process.finish().await.unwrap();
    assert_eq!(bytes, 1_000_000);
}

#[tokio::test]
async fn a_failure_carries_the_last_fifty_lines() {
    let text = "i=0; while [ $i -lt 80 ]; do i=$((i+1)); echo \"line $i\" >&2; done; exit 3";
    let error = run_script(text, LIMITS).await.unwrap_err();
    let tail = error.stderr_tail();
    assert_eq!(
        (tail.len(), tail[0].as_str(), tail[49].as_str()),
        (50, "line 31", "line 80")
    );
    assert_eq!(error.code(), "ffmpeg_failed");
}

#[tokio::test]
async fn a_process_for_pipes_can_write_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("written");
    // The limits are set a moment after the start.
    let result = run_script(&format!("sleep 0.5; echo text > {}", target.display()), LIMITS).await;
    assert!(result.is_err());
    assert_eq!(fs::read(target).unwrap_or_default(), b"");
}

/// Texts that make an unguarded FFmpeg open another file, even when they are named `.mp4`.
#[tokio::test]
async fn a_playlist_in_disguise_opens_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret.ts");
    let tools = Tools::default();
    generate(&tools, &ClipSpec::small(1), &folder.path().join("clip.mp4"))
        .await
        .unwrap();
    let remux = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(folder.path().join("clip.mp4"))
        .args(["-c", "copy"])
        .arg(&secret)
        .status()
        .unwrap();
    assert!(remux.success());
    let disguises = [
        format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{}\n#EXT-X-ENDLIST\n",
            secret.display()
        ),
        "ffconcat version 1.0\nfile secret.ts\n".to_owned(),
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
            .to_owned(),
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n".to_owned(),
    ];
    let plan = Plan {
        video: VideoPlan {
            index: 0,
            action: StreamAction::Copy,
        },
        audio: None,
        notes: Vec::new(),
    };
    for text in disguises {
        let disguised = folder.path().join("film.mp4");
        fs::write(&disguised, &text).unwrap();
        // The sniffer refuses them first; here FFmpeg's own guards stand alone.
        let probed = run(&tools.ffprobe, &probe_arguments(&disguised), LIMITS).await;
        assert!(probed.is_err(), "ffprobe took {text:?}");
        let converted = run(&tools.ffmpeg, &convert_arguments(&disguised, &plan), LIMITS).await;
        assert!(converted.is_err(), "ffmpeg took {text:?}");
        let prepared = vstack_media::ingest::prepare(&tools, &disguised).await;
        assert_eq!(prepared.unwrap_err().code(), "unsupported_format", "{text:?}");
    }
}
