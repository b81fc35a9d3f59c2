//! The generated clip: its chunks, and its bar code read back from decoded pictures.

mod common;

use std::path::Path;
use std::process::Command;

use vstack_media::barcode::{Area, Picture, read_frame_number};
use vstack_media::clip::{ClipSpec, generate};
use vstack_media::describe::{describe, lay_end_to_end};
use vstack_media::ffmpeg::Tools;
use vstack_media::ingest::prepare;
use vstack_media::plan::StreamAction;
use vstack_media::split::Piece;

/// Gray pictures of some frames, scaled.
fn decoded(file: &Path, frames: &str, width: u32, height: u32) -> Vec<u8> {
    let filter = format!("select='{frames}',scale={width}:{height}:flags=bilinear,format=gray");
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(["-vf", &filter, "-vsync", "0", "-f", "rawvideo", "pipe:1"])
        .output()
        .expect("ffmpeg runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn number(pixels: &[u8], width: u32, height: u32) -> Option<u16> {
    let picture = Picture {
        width,
        height,
        channels: 1,
        pixels,
    };
    read_frame_number(&picture, Area::whole(&picture))
}

#[tokio::test]
async fn every_frame_of_the_clip_carries_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    generate(
        &Tools::default(),
        &ClipSpec {
            font: vstack_media::clip::system_font(),
            ..ClipSpec::small(25)
        },
        &clip,
    )
    .await
    .unwrap();
    for (width, height) in [(320, 180), (427, 240), (960, 540)] {
        let pixels = decoded(&clip, "1", width, height);
        let size = (width * height) as usize;
        let numbers: Vec<_> = pixels
            .chunks_exact(size)
            .map(|pixels| number(pixels, width, height))
            .collect();
        let expected: Vec<_> = (0..750).map(Some).collect();
        assert_eq!(numbers, expected, "at {width}x{height}");
    }
}

#[tokio::test]
async fn the_clip_is_copied_into_chunks_of_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    generate(&Tools::default(), &ClipSpec::small(25), &clip)
        .await
        .unwrap();
    let prepared = prepare(&Tools::default(), &clip).await.unwrap();
    assert_eq!(prepared.plan.video.action, StreamAction::Copy);
    let mut ingest = prepared.start(&Tools::default()).unwrap();
    let mut spans = Vec::new();
    while let Some(piece) = ingest.next().await.unwrap() {
        if let Piece::Chunk(chunk) = piece {
            spans.push((
                chunk.facts.start_ms,
                chunk.facts.duration_ms,
                chunk.facts.keyframes_ms.len(),
            ));
        }
    }
    assert_eq!(spans, [(0, 10_000, 5), (10_000, 10_000, 5), (20_000, 5_000, 3)]);
}

#[tokio::test]
async fn a_whole_file_per_chunk_is_described_with_and_without_reset_clocks() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    generate(&Tools::default(), &ClipSpec::small(25), &clip)
        .await
        .unwrap();
    for reset in ["0", "1"] {
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-i"])
            .arg(&clip)
            .args([
                "-c",
                "copy",
                "-map",
                "0",
                "-f",
                "segment",
                "-segment_time",
                "10",
                "-reset_timestamps",
                reset,
            ])
            .arg(folder.path().join("part-%d.mp4"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let described = |part: usize| {
            let bytes = std::fs::read(folder.path().join(format!("part-{part}.mp4"))).unwrap();
            describe(None, &bytes).unwrap()
        };
        let parts: Vec<_> = (0..3).map(described).collect();
        assert_eq!(parts.iter().map(|part| part.video_samples).sum::<u64>(), 750);
        assert_eq!(parts[0].tracks.len(), 2);
        let mut facts: Vec<_> = parts.into_iter().map(|part| part.facts).collect();
        lay_end_to_end(&mut facts);
        for (facts, start_ms) in facts.iter().zip([0u64, 10_000, 20_000]) {
            assert!(
                facts.start_ms.abs_diff(start_ms) <= 100,
                "reset {reset}: {facts:?}"
            );
            assert_eq!(
                facts.keyframes_ms.len(),
                if start_ms == 20_000 { 3 } else { 5 },
                "reset {reset}"
            );
        }
    }
}

#[tokio::test]
async fn a_missing_ffmpeg_is_named_with_the_command_that_installs_it() {
    let folder = tempfile::tempdir().unwrap();
    let error = generate(
        &Tools::in_folder(folder.path()),
        &ClipSpec::small(1),
        &folder.path().join("x.mp4"),
    )
    .await
    .unwrap_err();
    assert_eq!(error.code(), "ffmpeg_missing");
    assert!(error.to_string().contains("apt-get install -y ffmpeg"), "{error}");
}
