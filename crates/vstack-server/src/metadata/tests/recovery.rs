//! Catalogue objects, backups, and catalogues that come back from them.

use std::collections::BTreeMap;
use std::time::Duration;

use vstack_api::ErrorCode;
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, ChunkKind, NodeId, VideoId};
use vstack_core::manifest::Manifest;

use super::cluster::{Cluster, code, key, start_metadata, until};
use crate::metadata::{MetadataConfig, OfflineError, check, rebuild, restore, start};
use crate::role::StartError;

fn object(video: VideoId, seq: u32) -> ChunkId {
    ChunkId::new(video, ChunkKind::Catalogue, 0, seq).unwrap()
}

/// Waits until the catalogue object is on three nodes.
async fn until_written(cluster: &Cluster, video: VideoId, seq: u32) {
    until("the catalogue object is written", async || {
        cluster.holders(object(video, seq)).await == 3
    })
    .await;
}

async fn until_caught_up(cluster: &Cluster) {
    // The first five seconds belong to nodes that have not reported yet.
    cluster.clock.advance(5_000);
    until("ballots are granted again", async || {
        let probe = cluster.create("probe").await;
        let opened = cluster.open_as("probe", ChunkId::media(probe, 0), None).await;
        if opened.is_ok() {
            cluster.catalogue.abort_video(probe).await.unwrap();
        }
        opened.is_ok()
    })
    .await;
}

/// What the nodes are called.
async fn names(cluster: &Cluster) -> BTreeMap<NodeId, Option<String>> {
    let nodes = cluster.catalogue.nodes().await.unwrap().into_iter();
    nodes.map(|node| (node.node_id, node.name)).collect()
}

/// All but the addresses' order.
fn facts(manifest: &Manifest) -> Vec<(ChunkId, String, Ballot, usize, u64)> {
    let chunks = manifest.init.iter().map(|init| &init.chunk);
    let all = chunks.chain(&manifest.chunks);
    all.map(|chunk| {
        (
            chunk.chunk_id,
            chunk.checksum.to_string(),
            chunk.placement.epoch,
            chunk.placement.parts.len(),
            vstack_core::manifest::seconds_to_ms(chunk.start_sec),
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_active_video_is_written_to_the_nodes_and_again_a_minute_after_a_change() {
    let cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 1).await;
    until_written(&cluster, video, 1).await;
    cluster.catalogue.rename_video(video, "renamed").await.unwrap();
    // The first object is on the nodes a moment before the catalogue notes it, and the minute begins with the note. Only
    // then is the object's number taken.
    until("the first object is noted", async || {
        let made = cluster.catalogue.backup().await.unwrap();
        made.chunks == 3
    })
    .await;
    cluster.clock.advance(61_000);
    cluster.until_healthy(3).await;
    until_written(&cluster, video, 2).await;
    let entry = cluster.catalogue.video(video).await.unwrap();
    assert_eq!(entry.size_bytes, {
        let manifest = cluster.catalogue.manifest(video).await.unwrap();
        let init = manifest.init.iter().map(|init| init.chunk.size_bytes);
        init.chain(manifest.chunks.iter().map(|chunk| chunk.size_bytes))
            .sum::<u64>()
    });
    cluster.let_graces_pass().await;
    cluster.until_gone(object(video, 1)).await;
    assert_eq!(cluster.holders(object(video, 2)).await, 3, "the last one counts");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_made_read_back_and_nothing_else_is_served() {
    let cluster = Cluster::start(3).await;
    cluster.active_video("clip", 1).await;
    let made = cluster.catalogue.backup().await.unwrap();
    assert_eq!((made.videos, made.chunks >= 2), (1, true));
    let body = cluster.catalogue.read_backup(&made.name).await.unwrap();
    let bytes = body.bytes(1 << 30).await.unwrap();
    assert_eq!(bytes.len() as u64, made.size_bytes);
    for name in ["catalogue.db", "..%2fcatalogue.db", "catalogue-1.db"] {
        let answer = cluster
            .http
            .get(cluster.at(&format!("/backup/{name}")))
            .send()
            .await;
        assert_eq!(code(answer.unwrap()).await, ErrorCode::NotFound, "{name}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalogue_restored_from_an_older_backup_finds_the_newer_videos_on_the_nodes() {
    let cluster = Cluster::start(3).await;
    let old = cluster.active_video("old", 1).await;
    let gone = cluster.active_video("gone", 1).await;
    until_written(&cluster, gone, 1).await;
    let backup = cluster.catalogue.backup().await.unwrap();
    let new = cluster.active_video("new", 2).await;
    until_written(&cluster, new, 1).await;
    cluster.catalogue.delete_video(gone).await.unwrap();
    cluster.let_graces_pass().await;
    for chunk in [ChunkId::init(gone), ChunkId::media(gone, 0), object(gone, 1)] {
        cluster.until_gone(chunk).await;
    }
    let before = [
        cluster.catalogue.manifest(old).await.unwrap(),
        cluster.catalogue.manifest(new).await.unwrap(),
    ];
    let highest = before[1].chunks[0].placement.epoch.generation();

    let cluster = cluster
        .restarted(async |data| {
            let restored = restore(data, backup.path.as_ref()).unwrap();
            assert_eq!((restored.facts.videos, restored.kept.is_empty()), (2, false));
        })
        .await;
    // The manifest of what it knows is there at once; it promises nothing that it may have promised before.
    assert_eq!(
        facts(&cluster.catalogue.manifest(old).await.unwrap()),
        facts(&before[0])
    );
    until_caught_up(&cluster).await;
    let after = cluster.catalogue.manifest(new).await.unwrap();
    assert_eq!(facts(&after), facts(&before[1]));
    until("the deleted video stays deleted", async || {
        cluster.catalogue.video(gone).await.is_err()
    })
    .await;

    let next = cluster.create("next").await;
    let opened = cluster
        .open_as("me", ChunkId::media(next, 0), None)
        .await
        .unwrap();
    assert!(
        opened.grant.ballot.generation() > highest,
        "{}",
        opened.grant.ballot
    );
    let folder = cluster.stop().await;
    assert_eq!(check(&folder.path().join("metadata")).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalogue_rebuilt_from_its_nodes_equals_the_original() {
    let cluster = Cluster::start(4).await;
    let mut before = Vec::new();
    for (title, chunks) in [("Ärger", 1), ("🎬", 3)] {
        let video = cluster.active_video(title, chunks).await;
        until_written(&cluster, video, 1).await;
        before.push(cluster.catalogue.manifest(video).await.unwrap());
    }
    let names = names(&cluster).await;
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
    let cluster = cluster
        .restarted(async |data| {
            // Not even the addresses can be read from the old file.
            std::fs::write(data.join("catalogue.db"), b"burnt").unwrap();
            let refused = start_metadata(data.parent().unwrap(), &crate::metadata::Clock::default()).await;
            assert!(refused.is_err(), "it started on a burnt file");
            let rebuilt = rebuild(data, &key(), &urls).await.unwrap();
            assert_eq!((rebuilt.learned.videos, rebuilt.learned.chunks), (2, 2 + 4));
            assert!(
                rebuilt.unread.is_empty() && !rebuilt.kept.is_empty(),
                "{rebuilt:?}"
            );
        })
        .await;
    until_caught_up(&cluster).await;
    assert_eq!(self::names(&cluster).await, names);
    for manifest in &before {
        let after = cluster.catalogue.manifest(manifest.video_id).await.unwrap();
        assert_eq!(facts(&after), facts(manifest));
        assert_eq!(
            (
                after.title,
                after.duration_sec,
                after.codecs,
                after.created_at,
                after.status
            ),
            (
                manifest.title.clone(),
                manifest.duration_sec,
                manifest.codecs.clone(),
                manifest.created_at.clone(),
                manifest.status
            )
        );
    }
    // The next object is numbered above those that are there.
    cluster.let_graces_pass().await;
    until_written(&cluster, before[0].video_id, 2).await;
    let folder = cluster.stop().await;
    assert_eq!(check(&folder.path().join("metadata")).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalogue_in_use_is_neither_restored_nor_rebuilt() {
    let cluster = Cluster::start(3).await;
    let backup = cluster.catalogue.backup().await.unwrap();
    let data = cluster.folder.path().join("metadata");
    let refused = restore(&data, backup.path.as_ref());
    assert!(
        matches!(refused, Err(OfflineError::Folder(StartError::Locked { .. }))),
        "{refused:?}"
    );
    let refused = rebuild(&data, &key(), &[]).await;
    assert!(matches!(
        refused,
        Err(OfflineError::Folder(StartError::Locked { .. }))
    ));
    let folder = cluster.stop().await;

    let data = folder.path().join("metadata");
    let nowhere = rebuild(&data, &key(), &["http://127.0.0.1:9".to_owned()]).await;
    assert!(matches!(nowhere, Err(OfflineError::NoNode { .. })), "{nowhere:?}");
    let missing = restore(&data, &folder.path().join("nothing.db"));
    assert!(matches!(missing, Err(OfflineError::Catalogue(_))), "{missing:?}");
    std::fs::write(
        folder.path().join("text.db"),
        "text, and more of it than a header",
    )
    .unwrap();
    assert!(restore(&data, &folder.path().join("text.db")).is_err());
    assert_eq!(check(&data).unwrap(), [], "a refusal changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_are_made_by_the_hour_and_only_the_newest_kept() {
    let folder = tempfile::tempdir().unwrap();
    let config = MetadataConfig {
        backup_every: Duration::from_millis(50),
        backups_kept: 2,
        ..MetadataConfig::new("127.0.0.1:0".parse().unwrap(), folder.path().to_owned(), key())
    };
    let role = start(config).await.unwrap();
    let names = || {
        let entries = std::fs::read_dir(folder.path().join("backups"));
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("catalogue-") && name.ends_with(".db"))
            .collect();
        names.sort();
        names
    };
    until("two backups are there", async || names().len() == 2).await;
    let first = names();
    until("newer ones have taken their place", async || {
        let now = names();
        now.len() == 2 && now.iter().all(|name| !first.contains(name))
    })
    .await;
    role.stop().await;
}
