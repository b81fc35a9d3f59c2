//! The uploader with real roles on real sockets and a real FFmpeg.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::StreamExt as _;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep};
use vstack_api::wire::{Job, JobState, UploadAccepted, VideoQuery};
use vstack_api::{Endpoint, ErrorCode, MetadataClient, StorageClient, UploaderClient};
use vstack_core::id::VideoId;
use vstack_core::keys::ClusterKey;
use vstack_core::manifest::{Manifest, ManifestChunk, VideoStatus};
use vstack_media::clip::{ClipSpec, generate};
use vstack_media::ffmpeg::Tools;

mod faults;
mod proxy;
mod resume;

use super::{UploaderConfig, start};
use crate::metadata::{self, MetadataConfig};
use crate::role::Running;
use crate::storage::{self, StorageConfig};

/// Everything here ends well within this on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

struct Cluster {
    metadata: Running,
    nodes: Vec<Option<Running>>,
    uploader: Running,
    folder: TempDir,
}

fn key() -> ClusterKey {
    ClusterKey::from_bytes(&[7; 32]).expect("32 bytes")
}

fn any_port() -> std::net::SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// Waits until `condition` holds.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

impl Cluster {
    async fn start(nodes: usize, tools: Tools) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = MetadataConfig::new(any_port(), folder.path().join("metadata"), key());
        let metadata = metadata::start(config).await.expect("the metadata role starts");
        let mut running = Vec::new();
        for number in 0..nodes {
            let config = StorageConfig {
                metadata_url: Some(metadata.url.clone()),
                reserve_bytes: Some(0),
                superblock_bytes: Some(64 << 20),
                ..StorageConfig::new(any_port(), folder.path().join(format!("node-{number}")), key())
            };
            running.push(Some(storage::start(config).await.expect("a node starts")));
        }
        let uploader = start_uploader(&metadata.url, folder.path(), tools).await;
        let cluster = Self {
            metadata,
            nodes: running,
            uploader,
            folder,
        };
        until("all nodes are healthy", || async {
            cluster
                .catalogue()
                .healthy_nodes()
                .await
                .is_ok_and(|healthy| healthy.len() == nodes)
        })
        .await;
        cluster
    }

    fn catalogue(&self) -> MetadataClient {
        MetadataClient::new(&self.metadata.url)
    }

    fn uploads(&self) -> UploaderClient {
        UploaderClient::new(&self.uploader.url)
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("uploader/spool")
    }

    async fn upload(&self, title: &str, file: &Path) -> UploadAccepted {
        let bytes = fs::read(file).expect("the file is there");
        let size_bytes = bytes.len() as u64;
        let pieces: Vec<_> = bytes
            .chunks(60_000)
            .map(|piece| Ok(piece.to_vec().into()))
            .collect();
        let content = futures::stream::iter(pieces).boxed();
        self.uploads()
            .upload(title, "clip.mp4", content, size_bytes)
            .await
            .expect("the file is taken")
    }

    async fn end_of(&self, job_id: &str) -> Job {
        self.wait_for(job_id, |job| job.state.is_final()).await
    }

    /// The first event of the job that fits.
    async fn wait_for(&self, job_id: &str, fits: impl Fn(&Job) -> bool) -> Job {
        let mut events = self.uploads().job_events(job_id).await.expect("the job is known");
        let looking = async {
            while let Some(job) = events.next().await {
                let job = job.expect("events are jobs");
                if fits(&job) || job.state.is_final() {
                    return job;
                }
            }
            panic!("the events ended before the job did");
        };
        tokio::time::timeout(DEADLINE, looking)
            .await
            .expect("the job gets on")
    }

    async fn is_gone(&self, video: VideoId) -> bool {
        let entry = self.catalogue().video(video).await;
        entry.is_err_and(|error| error.code() == ErrorCode::VideoNotFound)
    }

    async fn stop(self) {
        self.uploader.stop().await;
        for node in self.nodes.into_iter().flatten() {
            node.stop().await;
        }
        self.metadata.stop().await;
    }
}

async fn start_uploader(metadata_url: &str, folder: &Path, tools: Tools) -> Running {
    let config = UploaderConfig {
        tools,
        ..UploaderConfig::new(any_port(), metadata_url, folder.join("uploader"), key())
    };
    start(config).await.expect("the uploader starts")
}

/// The job of an uploader once it has ended.
async fn job_at(uploader: &Running, job_id: &str) -> Job {
    let uploads = UploaderClient::new(&uploader.url);
    let end = || async { uploads.job(job_id).await.is_ok_and(|job| job.state.is_final()) };
    until("the job has ended", end).await;
    uploads.job(job_id).await.expect("the job is known")
}

async fn clip(folder: &Path, seconds: u32) -> PathBuf {
    let path = folder.join(format!("clip-{seconds}.mp4"));
    generate(&Tools::default(), &ClipSpec::small(seconds), &path)
        .await
        .expect("ffmpeg makes a clip");
    path
}

/// FFmpeg's programs with `ffmpeg` behind a shell script: `{script} "$@"` runs instead.
fn scripted_tools(folder: &Path, script: &str) -> Tools {
    let path = folder.join("ffmpeg");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    Tools {
        ffmpeg: path,
        ..Tools::default()
    }
}

async fn bytes_of(chunk: &ManifestChunk, replica: &str) -> Vec<u8> {
    let node = StorageClient(Endpoint::new(replica));
    let answer = node
        .get(chunk.chunk_id, None, None, Duration::from_secs(5))
        .await
        .expect("a replica answers");
    answer
        .bytes(chunk.size_bytes)
        .await
        .expect("the whole chunk comes")
        .to_vec()
}

/// Init segment and chunks one after another, each from another of its replicas.
async fn whole(manifest: &Manifest) -> Vec<u8> {
    let init = manifest.init.as_ref().expect("there is an init segment");
    let mut bytes = bytes_of(&init.chunk, &init.chunk.replicas[0]).await;
    for (index, chunk) in manifest.chunks.iter().enumerate() {
        let replica = &chunk.replicas[index % chunk.replicas.len()];
        bytes.extend(bytes_of(chunk, replica).await);
    }
    bytes
}

fn frames_in(file: &Path) -> String {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-count_frames",
            "-select_streams",
            "v:0",
            "-show_entries",
            "stream=nb_read_frames",
        ])
        .args(["-of", "csv=p=0"])
        .arg(file)
        .output()
        .expect("ffprobe runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_becomes_a_video_on_three_nodes_each_chunk() {
    let cluster = Cluster::start(3, Tools::default()).await;
    let file = clip(cluster.folder.path(), 25).await;
    let accepted = cluster.upload("Clip \u{1f3ac}", &file).await;
    let job = cluster.end_of(&accepted.job_id).await;
    assert_eq!((job.state, job.problem), (JobState::Done, None));
    assert_eq!((job.percent, job.stored_chunks), (100.0, 5));
    let manifest = cluster.catalogue().manifest(accepted.video_id).await.unwrap();
    assert_eq!(
        (manifest.status, manifest.title.as_str()),
        (VideoStatus::Active, "Clip \u{1f3ac}")
    );
    assert_eq!(manifest.duration_ms(), 25_000);
    let starts: Vec<_> = manifest
        .chunks
        .iter()
        .map(|chunk| (chunk.start_ms(), chunk.keyframes_ms.len()))
        .collect();
    assert_eq!(starts, [(0, 5), (10_000, 5), (20_000, 3)]);
    assert!(
        manifest
            .chunks
            .iter()
            .all(|chunk| chunk.replicas.len() == 3 && !chunk.fragments.is_empty())
    );
    let poster = manifest.poster.as_ref().unwrap();
    assert_eq!(&bytes_of(poster, &poster.replicas[1]).await[..2], [0xff, 0xd8]);
    let played = cluster.folder.path().join("played.mp4");
    fs::write(&played, whole(&manifest).await).unwrap();
    assert_eq!(frames_in(&played), "750");
    assert_eq!(
        fs::read_dir(cluster.spool()).unwrap().count(),
        0,
        "the original is removed"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_video_fails_with_its_name_and_leaves_nothing() {
    let cluster = Cluster::start(3, Tools::default()).await;
    let file = cluster.folder.path().join("notes.mp4");
    fs::write(&file, "hello, I am a text").unwrap();
    let accepted = cluster.upload("Notes", &file).await;
    let job = cluster.end_of(&accepted.job_id).await;
    let problem = job.problem.unwrap();
    assert_eq!(
        (job.state, problem.code),
        (JobState::Failed, ErrorCode::UnsupportedFormat)
    );
    assert_eq!(problem.detail, "This is text, not a video that can be stored.");
    assert!(cluster.is_gone(accepted.video_id).await);
    assert_eq!(
        cluster
            .catalogue()
            .videos(&VideoQuery::default())
            .await
            .unwrap()
            .total,
        0
    );
    assert!(
        cluster
            .spool()
            .join(format!("{}.original", accepted.job_id))
            .is_file(),
        "the original is kept"
    );
    cluster.stop().await;
}

/// Who uploads without asking first what the cluster can take is told the same at the end of the job.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_too_small_says_so_and_what_to_do() {
    let cluster = Cluster::start(2, Tools::default()).await;
    let file = clip(cluster.folder.path(), 2).await;
    let job = cluster.end_of(&cluster.upload("clip", &file).await.job_id).await;
    let problem = job.problem.as_ref().expect("a failed job says why");
    assert_eq!(
        (job.state, problem.code),
        (JobState::Failed, ErrorCode::NotEnoughNodes)
    );
    for words in ["3 copies need 3 nodes", "2 are registered", "add a node"] {
        assert_eq!(problem.detail.matches(words).count(), 1, "{}", problem.detail);
    }
    assert!(cluster.is_gone(job.video_id).await);
    cluster.stop().await;
}

/// Whether a process with this command line runs.
fn runs(command_line: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    processes.into_iter().any(|process| {
        fs::read(process.path().join("cmdline")).is_ok_and(|line| line == command_line.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_upload_ends_ffmpeg_and_leaves_no_rows_and_no_chunks() {
    let scripts = tempfile::tempdir().unwrap();
    // The clip comes out whole, but FFmpeg does not end: chunks are stored, the job is not done.
    let mark = format!("6{}", std::process::id());
    let script = format!("ffmpeg \"$@\" && exec sleep {mark}");
    let cluster = Cluster::start(3, scripted_tools(scripts.path(), &script)).await;
    let file = clip(cluster.folder.path(), 25).await;
    let accepted = cluster.upload("Clip", &file).await;
    cluster
        .wait_for(&accepted.job_id, |job| job.stored_chunks >= 3)
        .await;
    cluster.uploads().cancel_job(&accepted.job_id).await.unwrap();
    let job = cluster.end_of(&accepted.job_id).await;
    assert_eq!(
        (job.state, job.problem.unwrap().code),
        (JobState::Cancelled, ErrorCode::Cancelled)
    );
    assert!(cluster.is_gone(accepted.video_id).await);
    until("FFmpeg has ended", || async {
        !runs(&format!("sleep\0{mark}\0"))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_during_an_upload_is_replaced() {
    let scripts = tempfile::tempdir().unwrap();
    // Ten times real time: the node goes while chunks are still being made.
    let slow = scripted_tools(scripts.path(), "exec ffmpeg -readrate 10 \"$@\"");
    let mut cluster = Cluster::start(4, slow).await;
    let file = clip(cluster.folder.path(), 70).await;
    let accepted = cluster.upload("Clip", &file).await;
    cluster
        .wait_for(&accepted.job_id, |job| job.stored_chunks >= 3)
        .await;
    let victim = cluster.nodes[0].take().unwrap();
    let victim_url = victim.url.clone();
    victim.stop().await;
    let job = cluster.end_of(&accepted.job_id).await;
    assert_eq!(
        (job.state, job.problem),
        (JobState::Done, None),
        "{:?}",
        job.notes
    );
    let manifest = cluster.catalogue().manifest(accepted.video_id).await.unwrap();
    assert_eq!(manifest.chunks.len(), 7);
    assert!(manifest.chunks.iter().all(|chunk| chunk.replicas.len() == 3));
    let last = manifest.chunks.last().unwrap();
    assert!(
        !last.replicas.contains(&victim_url),
        "the dead node took no chunk"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_uploads_at_once_all_arrive() {
    let cluster = Cluster::start(3, Tools::default()).await;
    let file = clip(cluster.folder.path(), 12).await;
    let uploads = (0..10).map(|number| {
        let title = format!("Clip {number}");
        let (cluster, file) = (&cluster, &file);
        async move {
            let accepted = cluster.upload(&title, file).await;
            cluster.end_of(&accepted.job_id).await
        }
    });
    let jobs = futures::future::join_all(uploads).await;
    assert!(jobs.iter().all(|job| job.state == JobState::Done), "{jobs:?}");
    assert_eq!(
        cluster
            .catalogue()
            .videos(&VideoQuery::default())
            .await
            .unwrap()
            .total,
        10
    );
    assert_eq!(cluster.uploads().jobs().await.unwrap().len(), 10);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_can_be_put_to_the_address_of_a_video_once() {
    let cluster = Cluster::start(3, Tools::default()).await;
    let file = fs::read(clip(cluster.folder.path(), 4).await).unwrap();
    let catalogue = cluster.catalogue();
    until("the uploader is known", || async {
        catalogue.uploader_url().await.is_ok_and(|url| url.is_some())
    })
    .await;
    let created = catalogue.create_video("By hand", 0.0).await.unwrap();
    let url = created.upload_url.unwrap();
    let client = reqwest::Client::new();
    let answer = client.put(&url).body(file.clone()).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let accepted: UploadAccepted = answer.json().await.unwrap();
    assert_eq!(accepted.video_id, created.video_id);
    assert_eq!(cluster.end_of(&accepted.job_id).await.state, JobState::Done);
    assert_eq!(
        catalogue.manifest(created.video_id).await.unwrap().title,
        "By hand"
    );
    let again = client.post(&url).body(file).send().await.unwrap();
    assert_eq!(again.status(), 409);
    let unknown = format!("{}/upload/{}", cluster.uploader.url, uuid::Uuid::new_v4());
    assert_eq!(client.put(unknown).body("x").send().await.unwrap().status(), 404);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_breaks_off_leaves_nothing() {
    let cluster = Cluster::start(3, Tools::default()).await;
    let address = cluster.uploader.url.strip_prefix("http://").unwrap().to_owned();
    let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: {address}\r\nContent-Length: 5000000\r\n\
         Content-Type: multipart/form-data; boundary=x\r\n\r\n\
         --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp4\"\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&[0; 300_000]).await.unwrap();
    until("the job is there", || async {
        !cluster.uploads().jobs().await.unwrap().is_empty()
    })
    .await;
    let job = cluster.uploads().jobs().await.unwrap().remove(0);
    assert_eq!((job.state, job.title.as_str()), (JobState::Receiving, "a"));
    drop(socket);
    let job = cluster.end_of(&job.job_id).await;
    assert_eq!(
        (job.state, job.problem.unwrap().code),
        (JobState::Failed, ErrorCode::BadRequest)
    );
    assert!(cluster.is_gone(job.video_id).await);
    assert_eq!(fs::read_dir(cluster.spool()).unwrap().count(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_make_no_sense_are_refused() {
    let cluster = Cluster::start(1, Tools::default()).await;
    let url = format!("{}/upload", cluster.uploader.url);
    let client = reqwest::Client::new();
    let form = |parts: &[(&'static str, &'static str)]| {
        parts
            .iter()
            .fold(reqwest::multipart::Form::new(), |form, (name, text)| {
                form.text(*name, *text)
            })
    };
    for (parts, status) in [
        (&[("title", "only a title")][..], 422),
        (&[("title", ""), ("file", "x")], 422),
        (&[("files", "x")], 422),
        (&[("file", "x"), ("redundancy", "some")], 422),
        // One node is too few for shards.
        (&[("file", "x"), ("redundancy", "erasure")], 409),
        (&[("file", "x"), ("file", "y")], 400),
    ] {
        let answer = client.post(&url).multipart(form(parts)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{parts:?}");
    }
    assert_eq!(client.post(&url).body("x").send().await.unwrap().status(), 415);
    let missing = client
        .get(format!("{}/jobs/nothing", cluster.uploader.url))
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 404);
    until("nothing is left", || async {
        cluster
            .catalogue()
            .videos(&VideoQuery::default())
            .await
            .is_ok_and(|page| page.total == 0)
    })
    .await;
    cluster.stop().await;
}
