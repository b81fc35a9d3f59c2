//! Pictures against the frames that FFmpeg decodes: the right moment is told from a wrong one.

mod common;

use std::path::Path;

use vstack_media::barcode::{Area, Picture};
use vstack_media::clip::{ClipSpec, generate};
use vstack_media::ffmpeg::Tools;
use vstack_media::likeness::{SAME_FROM, Sketch, sketches};

const SIZE: (u32, u32) = (640, 360);

/// What a player would show at a time: one frame in colour, scaled by another scaler.
fn shown(file: &Path, at: &str) -> Sketch {
    let output = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-ss", at, "-i"])
        .arg(file)
        .args([
            "-frames:v",
            "1",
            "-vf",
            "scale=640:360:flags=bilinear,format=rgb24",
        ])
        .args(["-f", "rawvideo", "pipe:1"])
        .output()
        .expect("ffmpeg runs");
    let picture = Picture {
        width: SIZE.0,
        height: SIZE.1,
        channels: 3,
        pixels: &output.stdout,
    };
    Sketch::of(&picture, Area::whole(&picture)).expect("a whole picture")
}

async fn best(file: &Path, shown: &Sketch, from_ms: u64, to_ms: u64) -> f64 {
    let frames = sketches(&Tools::default(), file, from_ms, to_ms)
        .await
        .expect("FFmpeg decodes it");
    assert!(!frames.is_empty(), "no frames from {from_ms} to {to_ms} ms");
    let likenesses = frames.iter().filter_map(|frame| shown.likeness(frame));
    likenesses.fold(-1.0, f64::max)
}

/// A frame is found within 100 ms of its time, and not within 100 ms of others.
async fn check(file: &Path, at_ms: u64, elsewhere_ms: &[u64]) {
    let shown = shown(file, &format!("{}.{:03}", at_ms / 1000, at_ms % 1000));
    let here = best(file, &shown, at_ms - 100, at_ms + 100).await;
    assert!(here >= SAME_FROM, "{}: {here} at {at_ms} ms", file.display());
    for &other_ms in elsewhere_ms {
        let there = best(file, &shown, other_ms - 100, other_ms + 100).await;
        assert!(
            there < SAME_FROM,
            "{}: {there} at {other_ms} ms, {here} at {at_ms} ms",
            file.display()
        );
    }
}

#[tokio::test]
async fn a_frame_of_the_generated_clip_is_like_itself_and_no_other_moment() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    generate(&Tools::default(), &ClipSpec::small(10), &clip)
        .await
        .unwrap();
    check(&clip, 4_000, &[1_000, 3_000, 5_000, 8_000]).await;
}

#[tokio::test]
async fn a_frame_of_a_real_video_is_like_itself_and_no_other_moment() {
    let Some(corpus) = common::corpus() else {
        return;
    };
    check(
        &corpus.join("h264_bframes_aac51_30s_bbb.mp4"),
        10_000,
        &[2_000, 20_000],
    )
    .await;
    check(&corpus.join("hevc_main_10s.mp4"), 5_000, &[2_000, 8_000]).await;
}
