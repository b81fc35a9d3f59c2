//! Shared by the tests of this crate: synthetic streams, the corpus, and counting what decodes.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A box with its header.
pub(crate) fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).expect("test boxes are small");
    [&size.to_be_bytes()[..], kind, body].concat()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// An init segment with one video track (id 1) of 1000 units a second.
pub(crate) fn init_segment() -> Vec<u8> {
    let mvhd = boxed(b"mvhd", &words(&[0, 0, 0, 1000, 0]));
    let mut tkhd_words = vec![0, 0, 0, 1, 0, 0];
    tkhd_words.extend([0; 13]);
    tkhd_words.extend([640 << 16, 360 << 16]);
    let tkhd = boxed(b"tkhd", &words(&tkhd_words));
    let mdhd = boxed(
        b"mdhd",
        &[words(&[0, 0, 0, 1000, 0]), vec![0x55, 0xc4, 0, 0]].concat(),
    );
    let hdlr = boxed(b"hdlr", &[words(&[0, 0]), b"vide".to_vec()].concat());
    let mdia = boxed(b"mdia", &[mdhd, hdlr].concat());
    let trak = boxed(b"trak", &[tkhd, mdia].concat());
    let trex = boxed(b"trex", &words(&[0, 1, 1, 40, 0, 0x0001_0000]));
    let moov = boxed(b"moov", &[mvhd, trak, boxed(b"mvex", &trex)].concat());
    [boxed(b"ftyp", b"iso5\0\0\x02\0iso5"), moov].concat()
}

/// A fragment of the track: its first sample is a keyframe or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TestFragment {
    pub(crate) start_ms: u32,
    pub(crate) duration_ms: u32,
    pub(crate) keyframe: bool,
    pub(crate) media_bytes: usize,
}

impl TestFragment {
    /// `moof` and `mdat`.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let tfhd = boxed(b"tfhd", &words(&[0x0002_0000, 1]));
        let tfdt = boxed(b"tfdt", &words(&[0, self.start_ms]));
        let flags = if self.keyframe { 0x0200_0000 } else { 0x0101_0000 };
        let trun = boxed(b"trun", &words(&[0x0000_0104, 1, flags, self.duration_ms]));
        let traf = boxed(b"traf", &[tfhd, tfdt, trun].concat());
        let moof = boxed(b"moof", &traf);
        [moof, boxed(b"mdat", &vec![0xab; self.media_bytes])].concat()
    }
}

/// The folder of test videos: `VSTACK_CORPUS`, else `../shared/corpus` from the project root.
pub(crate) fn corpus() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder =
        std::env::var_os("VSTACK_CORPUS").map_or_else(|| root.join("../shared/corpus"), PathBuf::from);
    folder.join("INDEX.tsv").is_file().then_some(folder)
}

/// Pictures that FFmpeg decodes from a file, complaining or not.
pub(crate) fn decoded_frames(file: &Path) -> u64 {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "quiet",
            "-select_streams",
            "v:0",
            "-count_frames",
            "-show_entries",
            "stream=nb_read_frames",
        ])
        .args(["-of", "csv=p=0"])
        .arg(file)
        .output()
        .expect("ffprobe runs");
    // A transport stream is listed twice, as a program's and as the file's.
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.trim_end_matches(',').parse().ok())
        .unwrap_or(0)
}
