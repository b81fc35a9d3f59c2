//! What the player's tests share: manifests made by hand, and a real clip in memory behind a [`ChunkFeed`].

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::manifest::{
    Container, FragmentSpan, Manifest, ManifestChunk, ManifestPlacement, MediaFacts, Redundancy, Track,
    VideoStatus, ms_to_seconds,
};
use vstack_media::clip::{ClipSpec, generate};
use vstack_media::ffmpeg::Tools;
use vstack_media::ingest::prepare;
use vstack_media::split::Piece;

use super::feed::{ChunkFeed, Feed, FeedError};
use super::timeline::Timeline;

/// A manifest without bytes: chunks given by start and number of fragments.
pub(super) fn manifest_with(chunks: &[(u64, u64)], fragment_ms: u64, keyframe_ms: u64) -> Manifest {
    let facts = chunks.iter().map(|&(start_ms, fragments)| {
        let starts = (0..fragments).map(|index| start_ms + index * fragment_ms);
        let spans = starts.zip(0u32..).map(|(start_ms, index)| FragmentSpan {
            offset: index * 100,
            size: 100,
            start_ms,
        });
        let end_ms = start_ms + fragments * fragment_ms;
        let keyframes_ms = (start_ms..end_ms)
            .step_by(usize::try_from(keyframe_ms).unwrap())
            .collect();
        let facts = MediaFacts {
            start_ms,
            duration_ms: end_ms - start_ms,
            keyframes_ms,
            fragments: spans.collect(),
        };
        (fragments * 100, facts)
    });
    manifest_of(facts.collect(), Vec::new())
}

/// A manifest of chunks of these sizes.
pub(super) fn manifest_of(chunks: Vec<(u64, MediaFacts)>, tracks: Vec<Track>) -> Manifest {
    let video_id = VideoId(uuid::Uuid::from_u128(7));
    let duration_ms = chunks
        .last()
        .map_or(0, |(_, facts)| facts.start_ms + facts.duration_ms);
    let chunks: Vec<_> = (0u32..)
        .zip(chunks)
        .map(|(seq, (size, facts))| chunk(video_id, seq, size, facts))
        .collect();
    Manifest {
        video_id,
        title: "test clip".into(),
        duration_sec: ms_to_seconds(duration_ms),
        total_chunks: u32::try_from(chunks.len()).unwrap(),
        chunk_duration_sec: 10.0,
        chunk_size_bytes: 2 << 20,
        created_at: "2026-01-01T00:00:00Z".into(),
        status: VideoStatus::Active,
        container: Container::Fmp4,
        codecs: String::new(),
        tracks,
        init: None,
        chunks,
        poster: None,
        storyboard: Vec::new(),
        subtitles: Vec::new(),
    }
}

fn chunk(video_id: VideoId, seq: u32, size_bytes: u64, facts: MediaFacts) -> ManifestChunk {
    ManifestChunk {
        chunk_id: ChunkId::media(video_id, seq),
        sequence_num: seq,
        size_bytes,
        checksum: Sha256Digest::of(b""),
        leaf_root: Sha256Digest::of(b""),
        replicas: Vec::new(),
        redundancy: Redundancy::Replicated,
        placement: ManifestPlacement {
            epoch: Ballot::PLAIN,
            parts: Vec::new(),
        },
        start_sec: ms_to_seconds(facts.start_ms),
        duration_sec: ms_to_seconds(facts.duration_ms),
        keyframes_ms: facts.keyframes_ms,
        fragments: facts.fragments,
    }
}

/// A clip as ingest makes it, in memory.
pub(super) struct Clip {
    pub(super) manifest: Manifest,
    init: Bytes,
    chunks: Vec<Bytes>,
}

impl Clip {
    /// A generated clip of this length, with bar code, split by the real splitter.
    pub(super) fn generated(duration_sec: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clip.mp4");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            generate(&Tools::default(), &ClipSpec::small(duration_sec), &file)
                .await
                .unwrap();
            let tools = Tools::default();
            let prepared = prepare(&tools, &file).await.unwrap();
            let mut ingest = prepared.start(&tools).unwrap();
            let (mut init, mut chunks) = (None, Vec::new());
            while let Some(piece) = ingest.next().await.unwrap() {
                match piece {
                    Piece::Init(piece) => init = Some(piece),
                    Piece::Chunk(piece) => chunks.push(piece),
                }
            }
            let init = init.unwrap();
            let tracks = vstack_media::describe::describe_init(&init.bytes).unwrap();
            let facts = chunks
                .iter()
                .map(|chunk| (chunk.bytes.len() as u64, chunk.facts.clone()))
                .collect();
            let manifest = manifest_of(facts, tracks);
            Self {
                manifest,
                init: init.bytes,
                chunks: chunks.into_iter().map(|chunk| chunk.bytes).collect(),
            }
        })
    }

    /// The clip as FFmpeg's `-f segment` cuts it: whole MP4 files of 10 s, with their own times or the video's.
    pub(super) fn as_files(duration_sec: u32, own_times: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clip.mp4");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime
            .block_on(generate(&Tools::default(), &ClipSpec::small(duration_sec), &file))
            .unwrap();
        let mut ffmpeg = std::process::Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-i"]).arg(&file).args([
            "-c",
            "copy",
            "-f",
            "segment",
            "-segment_time",
            "10",
        ]);
        ffmpeg.args(["-reset_timestamps", if own_times { "1" } else { "0" }]);
        assert!(
            ffmpeg
                .arg(folder.path().join("%03d.mp4"))
                .status()
                .unwrap()
                .success()
        );
        let files = (0..duration_sec.div_ceil(10))
            .map(|seq| std::fs::read(folder.path().join(format!("{seq:03}.mp4"))));
        let chunks: Vec<Bytes> = files.map(|bytes| Bytes::from(bytes.unwrap())).collect();
        let facts = (0u64..).zip(&chunks).map(|(seq, bytes)| {
            let duration_ms = (u64::from(duration_sec) * 1000 - seq * 10_000).min(10_000);
            (
                bytes.len() as u64,
                MediaFacts {
                    start_ms: seq * 10_000,
                    duration_ms,
                    ..MediaFacts::default()
                },
            )
        });
        let mut manifest = manifest_of(facts.collect(), Vec::new());
        manifest.container = Container::Mp4Segments;
        Self {
            manifest,
            init: Bytes::new(),
            chunks,
        }
    }

    /// The same with one chunk that no demuxer can read.
    pub(super) fn with_damaged_chunk(&self, seq: usize) -> Self {
        let mut chunks = self.chunks.clone();
        chunks[seq] = Bytes::from(vec![0xff; chunks[seq].len()]);
        Self {
            manifest: self.manifest.clone(),
            init: self.init.clone(),
            chunks,
        }
    }

    /// The clip behind a feed whose chunks can be held back, and the handle that does so.
    pub(super) fn feed(&self) -> (Arc<Feed>, Arc<Supply>) {
        let supply = Arc::new(Supply {
            chunks: self.chunks.clone(),
            ..Supply::default()
        });
        let feed = Feed::new(
            Timeline::of(&self.manifest),
            Some(self.init.clone()),
            Box::new(Arc::clone(&supply)),
        );
        (feed, supply)
    }
}

/// Chunks in memory that arrive when the test says so, and what the player told of its playback.
#[derive(Default)]
pub(super) struct Supply {
    chunks: Vec<Bytes>,
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    /// Chunks from this one on are not there yet.
    from: Option<u32>,
    fails: bool,
    wakes: u64,
    stalls: Vec<bool>,
    asked: Vec<u32>,
}

impl Supply {
    /// Chunks from `seq` on do not come until [`Supply::release`].
    pub(super) fn hold_from(&self, seq: u32) {
        self.held.lock().unwrap().from = Some(seq);
    }

    pub(super) fn release(&self) {
        self.held.lock().unwrap().from = None;
        self.changed.notify_all();
    }

    /// Every further chunk fails.
    pub(super) fn fail(&self) {
        self.held.lock().unwrap().fails = true;
        self.changed.notify_all();
    }

    /// Begin (true) and end (false) of stalls, as told.
    pub(super) fn stalls(&self) -> Vec<bool> {
        self.held.lock().unwrap().stalls.clone()
    }

    /// The chunks that were asked for, in order.
    pub(super) fn asked(&self) -> Vec<u32> {
        self.held.lock().unwrap().asked.clone()
    }
}

impl ChunkFeed for Arc<Supply> {
    fn bytes(
        &self,
        seq: u32,
        range: Option<Range<usize>>,
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Result<Bytes, FeedError>> {
        let mut held = self.held.lock().unwrap();
        held.asked.push(seq);
        loop {
            if held.fails {
                return Some(Err(FeedError {
                    message: "all nodes are gone".into(),
                }));
            }
            if held.from.is_none_or(|from| seq < from) {
                let chunk = self.chunks.get(seq as usize)?;
                let all = 0..chunk.len();
                return Some(Ok(chunk.slice(range.unwrap_or(all))));
            }
            let wakes = held.wakes;
            drop(held);
            if cancelled() {
                return None;
            }
            held = self.held.lock().unwrap();
            if held.wakes == wakes {
                held = self.changed.wait(held).unwrap();
            }
        }
    }

    fn wake(&self) {
        self.held.lock().unwrap().wakes += 1;
        self.changed.notify_all();
    }

    fn set_position(&self, _position_ms: u64) {}
    fn seek(&self, _position_ms: u64) {}
    fn note_playing(&self, _playing: bool) {}
    fn note_first_frame(&self) {}

    fn note_stall(&self, started: bool) {
        self.held.lock().unwrap().stalls.push(started);
    }
}
