//! Uploads that outlive their uploader or their catalogue, and send no byte twice.

use std::fs;

use vstack_core::manifest::Manifest;

use super::*;
use crate::metadata::Clock;

/// FFmpeg that makes the whole clip and then never ends: chunks are stored, the job is not done.
const UNENDING: &str = "ffmpeg \"$@\" && exec sleep 600";

impl Cluster {
    /// Ends the uploader and starts another one on its folder.
    async fn restart_uploader(self, tools: Tools) -> Self {
        let Self {
            metadata,
            nodes,
            uploader,
            folder,
        } = self;
        uploader.stop().await;
        let data = folder.path().join("uploader");
        let uploader = started_again("the uploader", || {
            let config = UploaderConfig {
                tools: tools.clone(),
                ..UploaderConfig::new(any_port(), &metadata.url, data.clone(), key())
            };
            start(config)
        })
        .await;
        Self {
            metadata,
            nodes,
            uploader,
            folder,
        }
    }

    async fn manifest(&self, video: VideoId) -> Manifest {
        self.catalogue()
            .manifest(video)
            .await
            .expect("the video is there")
    }

    /// Every chunk is on three nodes, byte for byte.
    async fn check_whole(&self, video: VideoId, seconds: u64) {
        let manifest = self.manifest(video).await;
        assert_eq!(
            (manifest.status, manifest.duration_ms()),
            (VideoStatus::Active, seconds * 1000)
        );
        for chunk in &manifest.chunks {
            assert_eq!(chunk.replicas.len(), 3, "{}", chunk.chunk_id);
        }
        let played = self.folder.path().join("played.mp4");
        fs::write(&played, whole(&manifest).await).expect("room for a file");
        assert_eq!(frames_in(&played), (seconds * 30).to_string());
    }
}

/// A stopped role's tasks let go of its folder a moment after it said goodbye.
pub(super) async fn started_again<F>(what: &str, begin: impl Fn() -> F) -> Running
where
    F: Future<Output = Result<Running, crate::StartError>>,
{
    let deadline = Instant::now() + DEADLINE;
    loop {
        match begin().await {
            Ok(running) => return running,
            Err(error) => assert!(Instant::now() < deadline, "{what}: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// All copies of the job's chunks, each either sent by this life of the uploader or there before.
fn check_bytes(job: &Job, expect_spared: bool) {
    assert_eq!(
        job.sent_bytes + job.spared_bytes,
        3 * job.stored_bytes,
        "each copy was sent once or not at all: {job:?}"
    );
    assert_eq!(job.spared_bytes > 0, expect_spared, "{job:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_uploader_goes_on_by_itself_and_sends_no_stored_chunk_again() {
    let scripts = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(3, scripted_tools(scripts.path(), UNENDING)).await;
    let file = clip(cluster.folder.path(), 25).await;
    let accepted = cluster.upload("Clip", &file).await;
    let before = cluster
        .wait_for(&accepted.job_id, |job| job.stored_chunks >= 3)
        .await;
    let cluster = cluster.restart_uploader(Tools::default()).await;
    let job = cluster.end_of(&accepted.job_id).await;
    assert_eq!((job.state, &job.problem), (JobState::Done, &None), "{job:?}");
    assert_eq!(job.video_id, accepted.video_id);
    check_bytes(&job, true);
    assert!(
        job.spared_bytes >= 3 * before.stored_bytes,
        "{} bytes were stored before the restart, {} were spared",
        3 * before.stored_bytes,
        job.spared_bytes
    );
    assert!(job.notes.iter().any(|note| note.contains("restarted")), "{job:?}");
    cluster.check_whole(accepted.video_id, 25).await;
    assert_eq!(fs::read_dir(cluster.spool()).unwrap().count(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_brings_the_role_down_each_time_is_not_taken_up_for_ever() {
    let scripts = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(3, scripted_tools(scripts.path(), "exec sleep 600")).await;
    let file = clip(cluster.folder.path(), 4).await;
    let accepted = cluster.upload("Clip", &file).await;
    for _ in 0..5 {
        cluster = cluster
            .restart_uploader(scripted_tools(scripts.path(), "exec sleep 600"))
            .await;
        assert!(cluster.uploads().job(&accepted.job_id).await.is_ok());
    }
    let cluster = cluster.restart_uploader(Tools::default()).await;
    until("the video is gone", || async {
        cluster.is_gone(accepted.video_id).await
    })
    .await;
    let original = cluster.spool().join(format!("{}.original", accepted.job_id));
    assert!(original.is_file(), "the original is kept");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_waits_for_a_catalogue_that_went_away_and_goes_on() {
    let scripts = tempfile::tempdir().unwrap();
    // Ten times real time: the catalogue goes while chunks are still being made.
    let slow = scripted_tools(scripts.path(), "exec ffmpeg -readrate 10 \"$@\"");
    let cluster = Cluster::start(3, slow).await;
    let file = clip(cluster.folder.path(), 70).await;
    let accepted = cluster.upload("Clip", &file).await;
    cluster
        .wait_for(&accepted.job_id, |job| job.stored_chunks >= 3)
        .await;
    let Cluster {
        metadata,
        nodes,
        uploader,
        folder,
    } = cluster;
    let listen = metadata
        .url
        .strip_prefix("http://")
        .and_then(|address| address.parse().ok());
    metadata.stop().await;
    let uploads = UploaderClient::new(&uploader.url);
    until("the job says that it waits", || async {
        let job = uploads.job(&accepted.job_id).await.expect("the uploader runs");
        assert!(!job.state.is_final(), "{job:?}");
        job.notes.iter().any(|note| note.contains("metadata role"))
    })
    .await;
    let data = folder.path().join("metadata");
    let metadata = started_again("the metadata role", || {
        let config = MetadataConfig {
            clock: Clock::default(),
            ..MetadataConfig::new(listen.expect("an address"), data.clone(), key())
        };
        metadata::start(config)
    })
    .await;
    let cluster = Cluster {
        metadata,
        nodes,
        uploader,
        folder,
    };
    let job = cluster.end_of(&accepted.job_id).await;
    assert_eq!((job.state, &job.problem), (JobState::Done, &None), "{job:?}");
    assert!(
        job.sent_bytes <= 3 * job.stored_bytes,
        "no chunk was sent twice: {job:?}"
    );
    cluster.check_whole(accepted.video_id, 70).await;
    cluster.stop().await;
}

/// Sends the file to `uploader` for a video that is there.
pub(super) async fn put(uploader: &Running, video: VideoId, file: &Path) -> reqwest::Response {
    let url = format!("{}/upload/{video}", uploader.url);
    let bytes = fs::read(file).expect("the file is there");
    let sent = reqwest::Client::new().put(url).body(bytes).send().await;
    sent.expect("the uploader answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn another_uploader_goes_on_where_one_died_and_sends_only_what_is_missing() {
    let scripts = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(3, scripted_tools(scripts.path(), UNENDING)).await;
    let file = clip(cluster.folder.path(), 25).await;
    let accepted = cluster.upload("Clip", &file).await;
    cluster
        .wait_for(&accepted.job_id, |job| job.stored_chunks >= 3)
        .await;
    let second = tempfile::tempdir().unwrap();
    let second = start_uploader(&cluster.metadata.url, second.path(), Tools::default()).await;
    let answer = put(&second, accepted.video_id, &file).await;
    assert_eq!(answer.status(), 202);
    let taken: UploadAccepted = answer.json().await.unwrap();
    assert_eq!(taken.video_id, accepted.video_id);
    let job = job_at(&second, &taken.job_id).await;
    assert_eq!((job.state, &job.problem), (JobState::Done, &None), "{job:?}");
    check_bytes(&job, true);
    cluster.check_whole(accepted.video_id, 25).await;
    second.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_for_a_video_that_is_being_stored_is_refused_and_harms_nothing() {
    let scripts = tempfile::tempdir().unwrap();
    let slow = scripted_tools(scripts.path(), "exec ffmpeg -readrate 10 \"$@\"");
    let cluster = Cluster::start(3, slow).await;
    let file = clip(cluster.folder.path(), 40).await;
    let other = cluster.folder.path().join("other.mp4");
    let wider = ClipSpec {
        width: 640,
        height: 360,
        ..ClipSpec::small(4)
    };
    generate(&Tools::default(), &wider, &other).await.unwrap();
    let accepted = cluster.upload("Clip", &file).await;
    cluster
        .wait_for(&accepted.job_id, |job| job.stored_chunks >= 3)
        .await;
    let second = tempfile::tempdir().unwrap();
    let second = start_uploader(&cluster.metadata.url, second.path(), Tools::default()).await;
    let answer = put(&second, accepted.video_id, &other).await;
    let taken: UploadAccepted = answer.json().await.unwrap();
    let refused = job_at(&second, &taken.job_id).await;
    assert_eq!(refused.state, JobState::Failed, "{refused:?}");
    assert_eq!(refused.problem.unwrap().code, ErrorCode::Conflict);
    let job = cluster.end_of(&accepted.job_id).await;
    assert_eq!(job.state, JobState::Done, "{job:?}");
    cluster.check_whole(accepted.video_id, 40).await;
    second.stop().await;
    cluster.stop().await;
}
