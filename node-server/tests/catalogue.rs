//! The catalogue's process dies at any moment, its file is damaged, its disk is full, it is restored and rebuilt: real
//! processes, and nothing that was acknowledged is lost.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::lab::get_json;
use common::process::{Answer, Process};
use common::{alone, ask, clip, text, until, vstack};
use serde_json::Value;
use tempfile::TempDir;
use vstack_api::wire::{CommitBatch, CommitItem, ItemResult, OpenBatch, OpenItem};
use vstack_api::{ErrorCode, MetadataClient, StorageClient};
use vstack_core::digest::{ChunkDigest, Sha256Digest};
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::paxos::OpenKind;
use vstack_core::placement::Placement;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// Roles as processes of their own; the metadata role can be killed and started again where it was.
struct Roles {
    metadata: Process,
    url: String,
    node_urls: Vec<String>,
    _others: Vec<Process>,
    data: TempDir,
}

fn role(data: &Path, name: &str, folder: &str, more: &[&str]) -> (Process, Value) {
    let mut command = vstack();
    let pid = std::process::id().to_string();
    command
        .args(["serve", "--json", "--role", name, "--parent-pid", &pid])
        .arg("--data")
        .arg(data.join(folder))
        .arg("--cluster-key-file")
        .arg(data.join("cluster.key"))
        .args(more)
        .env("RUST_LOG", "error");
    started(command)
}

fn started(command: Command) -> (Process, Value) {
    let (process, lines) = Process::start(command);
    let ready = lines.next(READY_WITHIN).expect("a role says where it listens");
    assert!(ready["url"].is_string(), "the role did not start: {ready}");
    (process, ready)
}

impl Roles {
    fn start(nodes: usize, uploader: bool) -> Self {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("cluster.key"), [7; 32]).unwrap();
        let (metadata, ready) = role(data.path(), "metadata", "metadata", &["--listen", "127.0.0.1:0"]);
        let url = ready["url"].as_str().unwrap().to_owned();
        let mut others = Vec::new();
        let mut node_urls = Vec::new();
        let at = ["--listen", "127.0.0.1:0", "--metadata-url", &url];
        for number in 1..=nodes {
            let more = [&at[..], &["--superblock-mib", "128"]].concat();
            let (process, ready) = role(data.path(), "storage", &format!("node-{number}"), &more);
            node_urls.push(ready["url"].as_str().unwrap().to_owned());
            others.push(process);
        }
        if uploader {
            others.push(role(data.path(), "uploader", "uploader", &at).0);
        }
        let roles = Self {
            metadata,
            url,
            node_urls,
            _others: others,
            data,
        };
        roles.until_ready(uploader);
        roles
    }

    fn until_ready(&self, uploader: bool) {
        until("all roles are known", READY_WITHIN, || {
            let status = self.ask(&["status"]);
            status.code == Some(0)
                && status.last()["healthy"] == self.node_urls.len()
                && (!uploader || status.last()["uploader_url"].is_string())
        });
    }

    fn ask(&self, arguments: &[&str]) -> Answer {
        ask(&self.url, arguments)
    }

    fn folder(&self) -> PathBuf {
        self.data.path().join("metadata")
    }

    /// Where it was before.
    fn start_metadata(&mut self) {
        let listen = self.url.trim_start_matches("http://").to_owned();
        self.metadata = role(self.data.path(), "metadata", "metadata", &["--listen", &listen]).0;
    }

    fn upload(&self, file: &Path, title: &str) -> String {
        let job = self.ask(&["upload", text(file), "--title", title]).succeeded();
        job["video_id"].as_str().unwrap().to_owned()
    }

    fn assert_plays(&self, video: &str) {
        let report = self.ask(&["play", video, "--speed", "50"]).succeeded();
        assert_eq!(report["complete"], true, "{report}");
    }

    /// Waits until every node holds the video's catalogue object.
    fn until_object_is_written(&self, video: &str) {
        let prefix = format!("{video}-catalogue-");
        until(
            "the catalogue object is on the nodes",
            Duration::from_secs(30),
            || {
                self.node_urls.iter().all(|url| {
                    let page = get_json(&format!("{url}/objects"));
                    let objects = page["objects"].as_array().unwrap().clone();
                    objects.iter().any(|object| {
                        object["object"].as_str().unwrap().starts_with(&prefix) && object["state"] == "stored"
                    })
                })
            },
        );
    }
}

/// What was acknowledged: chunks by id, with their hashes.
type Acknowledged = Arc<Mutex<BTreeMap<ChunkId, Sha256Digest>>>;

/// Stores one chunk after another under one video until it is told to stop, and notes what was acknowledged. Failures
/// are expected: they leave nothing that is claimed.
async fn write_chunks(url: String, writer: u32, acknowledged: Acknowledged, stop: Arc<AtomicBool>) {
    let catalogue = MetadataClient::new(&url);
    let mut video: Option<VideoId> = None;
    let mut seq = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(id) = video else {
            let created = catalogue.create_video(&format!("writer {writer}"), 0.0).await;
            video = created.ok().map(|created| created.video_id);
            continue;
        };
        let bytes = format!("writer {writer} chunk {seq}").into_bytes();
        let chunk = ChunkId::media(id, seq);
        if let Some(digest) = store_chunk(&catalogue, chunk, bytes).await {
            acknowledged.lock().unwrap().insert(chunk, digest);
        }
        seq += 1;
    }
}

async fn store_chunk(catalogue: &MetadataClient, chunk: ChunkId, bytes: Vec<u8>) -> Option<Sha256Digest> {
    let requests = vec![OpenItem {
        chunk_id: chunk,
        kind: OpenKind::Upload,
        owner: "writer".to_owned(),
        exclude: Vec::new(),
        min_ack: None,
    }];
    let opened = catalogue.open(&OpenBatch { requests }).await.ok()?.grants.pop()?;
    let ItemResult::Ok(opened) = opened else {
        return None;
    };
    let digest = ChunkDigest::of(&bytes);
    let mut receipts = Vec::new();
    for node_url in &opened.node_urls {
        let node = StorageClient::new(node_url);
        let answer = node.put(&opened.grant, chunk, bytes.clone().into()).await;
        receipts.push(answer.ok()?.receipt?);
    }
    let nodes: Vec<_> = receipts.iter().map(|receipt| receipt.node).collect();
    let commits = vec![CommitItem {
        chunk_id: chunk,
        ballot: opened.grant.ballot,
        value: Placement::replicated(digest, opened.grant.ballot, &nodes),
        receipts,
        media: None,
    }];
    let answer = catalogue.commit(&CommitBatch { commits }).await.ok()?;
    match answer.results.first()? {
        ItemResult::Ok(_) => Some(digest.sha256),
        ItemResult::Problem(_) => None,
    }
}

/// Milliseconds until the next kill: 20 to 419, by a generator that a seed replays.
fn pauses(seed: u64) -> impl Iterator<Item = u64> {
    // Knuth's constants for a 64-bit linear generator.
    let step = |state: &u64| {
        Some(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407),
        )
    };
    std::iter::successors(Some(seed), step).map(|state| 20 + (state >> 33) % 400)
}

#[test]
fn a_metadata_role_that_is_killed_at_any_moment_loses_nothing_that_it_acknowledged() {
    const KILLS: usize = 12;
    let _alone = alone();
    let given = std::env::var("VSTACK_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("VSTACK_SEED={seed}");
    let mut roles = Roles::start(3, false);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (acknowledged, stop) = (Acknowledged::default(), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (url, acknowledged, stop) = (roles.url.clone(), acknowledged.clone(), stop.clone());
            runtime.spawn(write_chunks(url, writer, acknowledged, stop))
        })
        .collect();
    for pause in pauses(seed).take(KILLS) {
        let before = acknowledged.lock().unwrap().len();
        until("chunks are stored again", READY_WITHIN, || {
            acknowledged.lock().unwrap().len() > before
        });
        let kill_at = Instant::now() + Duration::from_millis(pause);
        until("the moment has come", READY_WITHIN, || Instant::now() >= kill_at);
        roles.metadata.kill();
        roles.start_metadata();
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime.block_on(writer).unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    check_all_there(&roles, &acknowledged);
    println!(
        "{} chunks acknowledged over {KILLS} kills, all there",
        acknowledged.len()
    );
    assert_eq!(
        roles
            .ask(&["meta", "check", "--data", text(&roles.folder())])
            .succeeded()["sound"],
        true
    );
}

fn check_all_there(roles: &Roles, acknowledged: &BTreeMap<ChunkId, Sha256Digest>) {
    let mut found = BTreeMap::new();
    let videos: std::collections::BTreeSet<_> = acknowledged.keys().map(|chunk| chunk.video()).collect();
    for video in videos {
        let manifest = get_json(&format!("{}/manifest/{video}", roles.url));
        for chunk in manifest["chunks"].as_array().unwrap() {
            let digest: Sha256Digest = chunk["checksum"].as_str().unwrap().parse().unwrap();
            let id: ChunkId = chunk["chunk_id"].as_str().unwrap().parse().unwrap();
            assert_eq!(chunk["replicas"].as_array().unwrap().len(), 3, "{id}");
            found.insert(id, digest);
        }
    }
    for (chunk, digest) in acknowledged {
        assert_eq!(found.get(chunk), Some(digest), "{chunk} was acknowledged");
    }
}

#[test]
fn an_operator_backs_up_restores_and_rebuilds_and_everything_plays() {
    let _alone = alone();
    let mut roles = Roles::start(3, true);
    let (first, data) = (roles.upload(&clip(20), "first"), roles.folder());
    let data = text(&data).to_owned();
    let backup = roles.data.path().join("backup.db");
    let made = roles.ask(&["backup", text(&backup)]).succeeded();
    assert_eq!((&made["videos"], backup.exists()), (&Value::from(1), true));
    let second = roles.upload(&clip(20), "second");
    roles.until_object_is_written(&second);

    let live = roles.ask(&["restore", text(&backup), "--data", &data]);
    assert!(live.failed(3)["detail"].as_str().unwrap().contains("in use"));
    roles.metadata.kill();
    let restored = roles
        .ask(&["restore", text(&backup), "--data", &data])
        .succeeded();
    assert_eq!(restored["videos"], 1);
    roles.start_metadata();
    roles.assert_plays(&first);
    until(
        "the newer video is found on the nodes",
        Duration::from_secs(60),
        || roles.ask(&["video", "info", &second]).code == Some(0),
    );
    roles.assert_plays(&second);

    // A letter of a title turns into another.
    assert_eq!(
        roles.metadata.stop(),
        Some(0),
        "a stop folds the log into the file"
    );
    let checked = roles.ask(&["meta", "check", "--data", &data]);
    assert_eq!(checked.succeeded()["sound"], true);
    damage_title(&roles.folder());
    let key = roles.data.path().join("cluster.key");
    let arguments = [
        "serve",
        "--role",
        "metadata",
        "--listen",
        "127.0.0.1:0",
        "--data",
        &data,
        "--cluster-key-file",
    ];
    let refused = roles.ask(&[&arguments[..], &[text(&key)]].concat());
    let detail = refused.failed(3)["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("damaged") && detail.contains("vstack restore"),
        "{detail}"
    );
    assert_eq!(
        roles.ask(&["meta", "check", "--data", &data]).failed(1)["code"],
        "metadata_corrupt"
    );

    let urls = roles.node_urls.join(",");
    let rebuild = [
        "meta",
        "rebuild",
        "--from-nodes",
        &urls,
        "--data",
        &data,
        "--cluster-key-file",
    ];
    let rebuilt = roles.ask(&[&rebuild[..], &[text(&key)]].concat()).succeeded();
    assert_eq!(
        (&rebuilt["nodes"], &rebuilt["videos"]),
        (&Value::from(3), &Value::from(2))
    );
    roles.start_metadata();
    roles.until_ready(true);
    for (video, title) in [(&first, "first"), (&second, "second")] {
        assert_eq!(roles.ask(&["video", "info", video]).succeeded()["title"], title);
        roles.assert_plays(video);
    }
    // And it goes on as before.
    until("uploads are taken again", Duration::from_secs(60), || {
        roles.ask(&["upload", text(&clip(20)), "--title", "third"]).code == Some(0)
    });
}

/// Flips a bit of the title "second" wherever the file has it.
fn damage_title(folder: &Path) {
    let path = folder.join("catalogue.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> = (0..bytes.len() - 6)
        .filter(|&at| &bytes[at..at + 6] == b"second")
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 2;
    }
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn nodes_are_listed_drained_and_described() {
    let _alone = alone();
    let roles = Roles::start(3, false);
    let nodes = roles.ask(&["node", "list"]).succeeded();
    let id = nodes[0]["node_id"].as_str().unwrap().to_owned();
    assert_eq!(nodes[0]["state"], "active");
    let drained = roles.ask(&["node", "drain", &id[..13]]).succeeded();
    assert_eq!(
        (&drained["state"], &drained["parts"]),
        (&"draining".into(), &0.into())
    );
    let info = roles
        .ask(&["node", "info", nodes[0]["node_url"].as_str().unwrap()])
        .succeeded();
    assert_eq!(info["state"], "draining");
    assert_eq!(
        roles.ask(&["node", "drain", &id, "--cancel"]).succeeded()["state"],
        "active"
    );
    assert_eq!(
        roles.ask(&["node", "drain", "nobody"]).failed(1)["code"],
        "not_found"
    );
    assert_eq!(
        roles.ask(&["node", "remove", &id]).succeeded()["state"],
        "removed"
    );
    until(
        "its heartbeats are refused, and it is not listed",
        READY_WITHIN,
        || roles.ask(&["node", "list"]).succeeded().as_array().unwrap().len() == 2,
    );
    roles.ask(&["node", "readopt", &id]).succeeded();
    until("it is back", READY_WITHIN, || {
        roles.ask(&["status"]).succeeded()["healthy"] == 3
    });
}

/// `vstack serve --role metadata` on a disk of its own of `mib` MiB, which ends with the process.
fn on_a_small_disk(data: &Path, mib: u32) -> Option<(Process, String)> {
    let possible = Command::new("unshare").args(["-rm", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        return None;
    }
    let folder = data.join("metadata");
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c"])
        .arg(format!(
            "mount -t tmpfs -o size={mib}m tmpfs \"$1\" && head -c 1000000 /dev/zero > \"$1/ballast\" && shift && exec \"$@\""
        ))
        .arg("sh")
        .arg(&folder)
        .arg(env!("CARGO_BIN_EXE_vstack"))
        .args(["serve", "--json", "--role", "metadata", "--listen", "127.0.0.1:0", "--data"])
        .arg(&folder)
        .arg("--cluster-key-file")
        .arg(data.join("cluster.key"));
    let (process, ready) = started(command);
    let url = ready["url"].as_str().unwrap().to_owned();
    Some((process, url))
}

#[test]
fn a_full_disk_of_the_catalogue_refuses_uploads_and_goes_on_reading() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("cluster.key"), [7; 32]).unwrap();
    let Some((process, url)) = on_a_small_disk(data.path(), 4) else {
        println!("FULL DISK NOT RUN: no mount namespaces here");
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let catalogue = MetadataClient::new(&url);
    let create = || runtime.block_on(catalogue.create_video(&"x".repeat(200), 0.0));
    let mut made = 0u64;
    let refused = loop {
        match create() {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 50_000, "the disk does not get full");
    };
    assert_eq!(refused.code(), ErrorCode::MetadataFull, "{refused}");
    assert!(made > 0);
    let page = || ask(&url, &["video", "list", "--limit", "1"]).succeeded();
    assert_eq!(
        page()["total"],
        made,
        "what was answered is there, and reading goes on"
    );

    let ballast = format!(
        "/proc/{}/root{}/metadata/ballast",
        process.pid(),
        text(data.path())
    );
    std::fs::remove_file(ballast).unwrap();
    assert!(create().is_ok(), "with room it takes videos again");
    assert_eq!(page()["total"], made + 1);
}
