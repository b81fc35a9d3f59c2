//! Every file of the corpus ends as the design says: refused with its code, or cut into chunks that decode to the right
//! number of pictures.

#![expect(
    clippy::print_stdout,
    reason = "the run says which files it saw and what became of them"
)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::{corpus, decoded_frames};
use vstack_core::limits::CHUNK_SOFT_MAX_BYTES;
use vstack_media::MediaError;
use vstack_media::boxes::joined_codecs;
use vstack_media::describe::describe;
use vstack_media::ffmpeg::Tools;
use vstack_media::ingest::prepare;
use vstack_media::plan::StreamAction;
use vstack_media::poster::poster;
use vstack_media::split::Piece;

/// How a file ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Chunks: is the picture copied, is the sound?
    Stored {
        picture_copied: bool,
        sound_copied: Option<bool>,
    },
    Refused(&'static str),
}

const COPIED: End = End::Stored {
    picture_copied: true,
    sound_copied: Some(true),
};
const SILENT: End = End::Stored {
    picture_copied: true,
    sound_copied: None,
};

/// The whole corpus. A file that is not named here fails the test.
const EXPECTED: [(&str, End); 36] = [
    ("h264_bframes_aac51_30s_bbb.mp4", COPIED),
    ("h264_cbp_aac_300s.mp4", COPIED),
    ("h264_video_only_30s.mp4", SILENT),
    (
        "vp8_vorbis_webvtt.webm",
        End::Stored {
            picture_copied: false,
            sound_copied: Some(false),
        },
    ),
    ("vp9_opus_1s.webm", COPIED),
    ("av1_aac.mp4", COPIED),
    (
        "hevc_main_10s.mp4",
        End::Stored {
            picture_copied: false,
            sound_copied: None,
        },
    ),
    (
        "mpeg4sp_mp3.avi",
        End::Stored {
            picture_copied: false,
            sound_copied: Some(false),
        },
    ),
    (
        "mpeg2_mp2.ps",
        End::Stored {
            picture_copied: false,
            sound_copied: Some(false),
        },
    ),
    ("h264_aac_10s.ts", COPIED),
    (
        "mkv_h264_ac3_srt.mkv",
        End::Stored {
            picture_copied: true,
            sound_copied: Some(false),
        },
    ),
    (
        "mkv_h264_ac3_ass.mkv",
        End::Stored {
            picture_copied: true,
            sound_copied: Some(false),
        },
    ),
    ("rotate_reflect.mp4", COPIED),
    ("edit_list_positive.mp4", COPIED),
    ("edit_list_edts.mp4", COPIED),
    ("frag_300s_bogus_duration.mp4", COPIED),
    ("tiny_2x2_hdr10_tag.mp4", SILENT),
    ("odd_161x121.webm", SILENT),
    (
        "vp9_10bit.webm",
        End::Stored {
            picture_copied: false,
            sound_copied: None,
        },
    ),
    ("audio_only.m4a", End::Refused("no_video")),
    ("audio_only.mp3", End::Refused("no_video")),
    ("encrypted_cenc.mp4", End::Refused("protected_content")),
    ("bad_missing_stsd.mp4", End::Refused("unsupported_codec")),
    ("bad_corrupt.mkv", End::Refused("unsupported_format")),
    ("bad_invalid_bitstream.webm", End::Refused("unsupported_codec")),
    ("bad_truncated_moovonly.mp4", End::Refused("incomplete_upload")),
    ("vfr_sef_slow_motion.mp4", COPIED),
    ("long_gop_white_10s.mp4", SILENT),
    ("moov_at_end_8s.mp4", COPIED),
    (
        "mkv_2audio_srt.mkv",
        End::Stored {
            picture_copied: true,
            sound_copied: Some(false),
        },
    ),
    ("bad_truncated_tail.mp4", End::Refused("incomplete_upload")),
    ("bad_zero_length.mp4", End::Refused("empty_file")),
    ("bad_text_as_mp4.mp4", End::Refused("unsupported_format")),
    ("ssrf_playlist_http.mp4", End::Refused("unsupported_format")),
    ("näme with spaces & émoji 🎬.mp4", COPIED),
    ("quote's \"double\" $HOME `id`;.mp4", COPIED),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_of_the_corpus_ends_as_the_design_says() {
    let Some(folder) = corpus() else {
        println!("CORPUS NOT RUN: set VSTACK_CORPUS to the folder of test videos");
        return;
    };
    let index = fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
    let names: Vec<&str> = index
        .lines()
        .skip(1)
        .filter_map(|line| line.split('\t').next())
        .collect();
    let mut failures = String::new();
    for name in &names {
        let started = Instant::now();
        let result = match EXPECTED.iter().find(|(expected, _)| expected == name) {
            Some((_, expected)) => check(&folder.join(name), expected).await,
            None => Err("is not in this test's table".to_owned()),
        };
        println!(
            "{name}: {} in {} ms",
            result.as_ref().map_or("FAILED", |_| "as expected"),
            started.elapsed().as_millis()
        );
        if let Err(problem) = result {
            writeln!(failures, "{name}: {problem}").unwrap();
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    println!("corpus: {} files", names.len());
}

async fn check(input: &Path, expected: &End) -> Result<(), String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let outcome = store(input, scratch.path()).await;
    match (outcome, expected) {
        (Err(error), End::Refused(code)) if error.code() == *code => Ok(()),
        (Err(error), expected) => Err(format!("{expected:?} expected, got {}: {error}", error.code())),
        (Ok(stored), expected) if stored.end != *expected => {
            Err(format!("{expected:?} expected, got {:?}", stored.end))
        }
        (Ok(stored), _) => judge(input, &stored, scratch.path()),
    }
}

struct Stored {
    end: End,
    pieces: Vec<Piece>,
    packets: u64,
    duration_ms: u64,
}

async fn store(input: &Path, scratch: &Path) -> Result<Stored, MediaError> {
    let tools = Tools::default();
    let prepared = prepare(&tools, input).await?;
    let mut ingest = prepared.start(&tools)?;
    let mut pieces = Vec::new();
    while let Some(piece) = ingest.next().await? {
        pieces.push(piece);
    }
    let jpeg = poster(&tools, input, prepared.plan.video.index, prepared.duration_ms()).await?;
    fs::write(scratch.join("poster.jpg"), jpeg).expect("the scratch folder is writable");
    let copied = |action: &StreamAction| *action == StreamAction::Copy;
    let end = End::Stored {
        picture_copied: copied(&prepared.plan.video.action),
        sound_copied: prepared.plan.audio.as_ref().map(|audio| copied(&audio.action)),
    };
    Ok(Stored {
        end,
        pieces,
        packets: prepared.packets.packets,
        duration_ms: prepared.duration_ms(),
    })
}

/// The chunks after the init segment decode to as many pictures as the input, alone and together, and say of
/// themselves what the splitter said.
fn judge(input: &Path, stored: &Stored, scratch: &Path) -> Result<(), String> {
    let [Piece::Init(init), rest @ ..] = &stored.pieces[..] else {
        return Err("no init segment first".to_owned());
    };
    let tracks = init.movie.manifest_tracks();
    let sounds = usize::from(!matches!(
        stored.end,
        End::Stored {
            sound_copied: None,
            ..
        }
    ));
    if tracks.len() != 1 + sounds {
        return Err(format!(
            "{} tracks have a codec string: {:?}",
            tracks.len(),
            init.movie
        ));
    }
    let (mut joined, mut alone, mut samples, mut end_ms) = (init.bytes.to_vec(), 0, 0, 0);
    for piece in rest {
        let Piece::Chunk(chunk) = piece else {
            return Err("a second init segment".to_owned());
        };
        let described = describe(Some(&init.bytes), &chunk.bytes).map_err(|error| error.to_string())?;
        if described.facts != chunk.facts {
            return Err(format!(
                "chunk {}: {:?} described, {:?} split",
                chunk.sequence_num, described.facts, chunk.facts
            ));
        }
        if chunk.facts.keyframes_ms.first() != Some(&chunk.facts.start_ms)
            || chunk.bytes.len() as u64 > CHUNK_SOFT_MAX_BYTES
        {
            return Err(format!("chunk {}: {:?}", chunk.sequence_num, chunk.facts));
        }
        joined.extend_from_slice(&chunk.bytes);
        samples += chunk.video_samples;
        end_ms = chunk.facts.start_ms + chunk.facts.duration_ms;
        if rest.len() == 1 {
            alone = samples;
            continue;
        }
        let single = scratch.join("single.mp4");
        fs::write(&single, [&init.bytes[..], &chunk.bytes].concat()).expect("the scratch folder is writable");
        alone += decoded_frames(&single);
    }
    let whole = scratch.join("whole.mp4");
    fs::write(&whole, joined).expect("the scratch folder is writable");
    let (frames, expected) = (decoded_frames(&whole), decoded_frames(input));
    println!(
        "    {} chunks, {frames} pictures of {expected} ({} packets), {end_ms} of {} ms, {}",
        rest.len(),
        stored.packets,
        stored.duration_ms,
        joined_codecs(&tracks)
    );
    if frames != alone || frames != samples {
        return Err(format!(
            "{frames} pictures together, {alone} alone, {samples} samples"
        ));
    }
    // Cutting by an edit list and equalising time stamps may cost or add a picture; never more.
    if frames.abs_diff(expected) > 1 {
        return Err(format!("{frames} pictures, the input has {expected}"));
    }
    same_orientation(input, &whole)
}

/// Rotation and mirroring survive.
fn same_orientation(input: &Path, output: &Path) -> Result<(), String> {
    let matrix = |file: &Path| {
        let probe = Command::new("ffprobe")
            .args([
                "-v",
                "quiet",
                "-select_streams",
                "v:0",
                "-show_entries",
                "stream_side_data=rotation,displaymatrix",
            ])
            .args(["-of", "csv=p=0"])
            .arg(file)
            .output()
            .expect("ffprobe runs");
        String::from_utf8_lossy(&probe.stdout).trim().to_owned()
    };
    let (before, after) = (matrix(input), matrix(output));
    if before == after {
        Ok(())
    } else {
        Err(format!("orientation {before:?} became {after:?}"))
    }
}
