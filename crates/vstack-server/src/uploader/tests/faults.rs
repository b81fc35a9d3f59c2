//! Uploads over a network that loses, doubles and delays messages, to nodes and a catalogue behind proxies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use axum::http::Method;
use vstack_api::listing::ListedState;
use vstack_core::id::{ChunkKind, NodeId};
use vstack_core::manifest::Manifest;

use super::proxy::{Fault, Proxy};
use super::resume::{put, started_again};
use super::*;
use crate::metadata::Clock;

/// Of the 1, 2 and 4 s of production, so that a test that uses them up takes a second.
const PAUSES_MS: [u64; 3] = [40, 80, 160];

struct Lab {
    metadata: Running,
    /// Between uploader and metadata role.
    to_catalogue: Proxy,
    nodes: Vec<Running>,
    /// Between uploader (and collector) and each node.
    to_node: Vec<Proxy>,
    /// Between each node and the metadata role.
    from_node: Vec<Proxy>,
    uploader: Running,
    clock: Clock,
    folder: TempDir,
}

impl Lab {
    async fn start(nodes: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::default();
        let config = MetadataConfig {
            clock: clock.clone(),
            ..MetadataConfig::new(any_port(), folder.path().join("metadata"), key())
        };
        let metadata = metadata::start(config).await.expect("the metadata role starts");
        let to_catalogue = proxy_to(&metadata.url).await;
        let (mut running, mut to_node, mut from_node) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..nodes {
            let (to, from) = (Proxy::start().await, proxy_to(&metadata.url).await);
            let config = StorageConfig {
                metadata_url: Some(from.url.clone()),
                public_url: Some(to.url.clone()),
                reserve_bytes: Some(0),
                superblock_bytes: Some(64 << 20),
                ..StorageConfig::new(any_port(), folder.path().join(format!("node-{number}")), key())
            };
            let node = storage::start(config).await.expect("a node starts");
            to.lead_to(&node.url);
            running.push(node);
            to_node.push(to);
            from_node.push(from);
        }
        let config = UploaderConfig {
            retry_pauses_ms: PAUSES_MS,
            ..UploaderConfig::new(
                any_port(),
                &to_catalogue.url,
                folder.path().join("uploader"),
                key(),
            )
        };
        let uploader = start(config).await.expect("the uploader starts");
        let lab = Self {
            metadata,
            to_catalogue,
            nodes: running,
            to_node,
            from_node,
            uploader,
            clock,
            folder,
        };
        lab.until_healthy(nodes).await;
        lab
    }

    fn catalogue(&self) -> MetadataClient {
        MetadataClient::new(&self.metadata.url)
    }

    async fn until_healthy(&self, count: usize) {
        until("the nodes are healthy", || async {
            let healthy = self.catalogue().healthy_nodes().await;
            healthy.is_ok_and(|healthy| healthy.len() == count)
        })
        .await;
    }

    /// Sends a clip of 12 s (init segment, two chunks, poster) and waits for its job's end.
    async fn upload(&self) -> Job {
        let file = clip(self.folder.path(), 12).await;
        let bytes = fs::read(file).expect("the clip is there");
        let form = reqwest::multipart::Form::new().text("title", "Clip").part(
            "file",
            reqwest::multipart::Part::bytes(bytes).file_name("clip.mp4"),
        );
        let url = format!("{}/upload", self.uploader.url);
        let sent = reqwest::Client::new().post(url).multipart(form).send().await;
        let accepted: UploadAccepted = sent
            .expect("the uploader answers")
            .json()
            .await
            .expect("the file is taken");
        job_at(&self.uploader, &accepted.job_id).await
    }

    /// An upload that succeeds, and its manifest.
    async fn stored(&self) -> (Job, Manifest) {
        let job = self.upload().await;
        assert_eq!((job.state, &job.problem), (JobState::Done, &None), "{job:?}");
        let manifest = self
            .catalogue()
            .manifest(job.video_id)
            .await
            .expect("it is active");
        let played = self.folder.path().join("played.mp4");
        fs::write(&played, whole(&manifest).await).expect("room for a file");
        assert_eq!(frames_in(&played), "360");
        (job, manifest)
    }

    /// Objects of videos that a node holds; what the catalogue keeps of itself there is not counted.
    async fn held(&self, number: usize) -> u64 {
        let node = StorageClient(Endpoint::new(&self.nodes[number].url));
        let page = node.objects(None).await.expect("the node answers");
        let objects = page.objects.iter().filter(|listed| {
            listed.state != ListedState::Deleted && listed.object.kind() != ChunkKind::Catalogue
        });
        objects.count() as u64
    }

    /// Objects that are named by the manifest as being on a node.
    fn named(&self, manifest: &Manifest, number: usize) -> u64 {
        let init = manifest.init.iter().map(|init| &init.chunk);
        let chunks = manifest.chunks.iter().chain(init).chain(&manifest.poster);
        let here = chunks.filter(|chunk| chunk.replicas.contains(&self.to_node[number].url));
        here.count() as u64
    }

    /// When the catalogue heard last from each node.
    async fn last_seen(&self) -> BTreeMap<NodeId, String> {
        let nodes = self.catalogue().nodes().await.expect("the catalogue answers");
        let seen = nodes.into_iter().map(|node| (node.node_id, node.last_seen));
        seen.collect()
    }

    /// Puts the catalogue's clock forward by less than makes a node down, and waits until it has heard from all of them
    /// again. Whether they are healthy does not matter here: so many silences put them on probation.
    async fn let_time_pass(&self) {
        let before = self.last_seen().await;
        self.clock.advance(28_000);
        until("every node was heard again", || async {
            let now = self.last_seen().await;
            before.iter().all(|(node, seen)| now.get(node) != Some(seen))
        })
        .await;
    }

    /// Lets the graces of the catalogue pass.
    async fn let_graces_pass(&self) {
        for _ in 0..4 {
            self.let_time_pass().await;
        }
    }

    /// In the end a node holds what the manifest says, and nothing else.
    async fn until_only_named_objects_are_left(&self, manifest: &Manifest) {
        self.let_graces_pass().await;
        until("everything else is collected", || async {
            for number in 0..self.nodes.len() {
                if self.held(number).await != self.named(manifest, number) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    async fn stop(self) {
        self.uploader.stop().await;
        for node in self.nodes {
            node.stop().await;
        }
        self.metadata.stop().await;
    }
}

/// An uploader, started as soon as its folder is free.
async fn started(catalogue: &str, data: PathBuf) -> Running {
    started_again("the uploader", || {
        start(UploaderConfig {
            retry_pauses_ms: PAUSES_MS,
            ..UploaderConfig::new(any_port(), catalogue, data.clone(), key())
        })
    })
    .await
}

async fn proxy_to(url: &str) -> Proxy {
    let proxy = Proxy::start().await;
    proxy.lead_to(url);
    proxy
}

/// PUTs to a node: for each chunk, the ballots in the order in which they came.
fn puts(node: &Proxy) -> BTreeMap<String, Vec<String>> {
    let mut puts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in node.seen(Method::PUT, "/chunk/") {
        let (chunk, ballot) = seen.target.split_once("?ballot=").expect("a granted PUT");
        puts.entry(chunk.to_owned()).or_default().push(ballot.to_owned());
    }
    puts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_repeated_and_answered_with_what_it_decided() {
    let lab = Lab::start(3).await;
    lab.to_catalogue
        .disturb(Method::POST, "/consensus/commit", Fault::LoseAnswer, 2);
    let (job, manifest) = lab.stored().await;
    assert_eq!(job.sent_bytes, 3 * job.stored_bytes, "no byte is sent for it");
    let first = &manifest.chunks[0].placement.epoch;
    let ballots: BTreeSet<_> = lab
        .to_node
        .iter()
        .flat_map(|node| puts(node).into_values().flatten())
        .collect();
    assert!(ballots.contains(&first.to_string()));
    for node in &lab.to_node {
        assert!(
            puts(node).values().all(|ballots| ballots.len() == 1),
            "one ballot each"
        );
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_whose_answer_is_lost_opens_again_and_finalize_is_repeated_too() {
    let lab = Lab::start(3).await;
    lab.to_catalogue
        .disturb(Method::POST, "/consensus/open", Fault::LoseAnswer, 1);
    lab.to_catalogue
        .disturb(Method::POST, "/finalize", Fault::LoseAnswer, 1);
    let (job, _) = lab.stored().await;
    assert_eq!(job.sent_bytes, 3 * job.stored_bytes);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doubled_requests_change_nothing() {
    let lab = Lab::start(3).await;
    for node in &lab.to_node {
        node.disturb(Method::PUT, "/chunk/", Fault::Double, usize::MAX);
        node.disturb(Method::DELETE, "/chunk/", Fault::Double, usize::MAX);
    }
    for part in ["/consensus/open", "/consensus/commit", "/finalize"] {
        lab.to_catalogue
            .disturb(Method::POST, part, Fault::Double, usize::MAX);
    }
    // The doubled OPEN kills the first one, whose objects are collected later, by doubled orders.
    let (_, manifest) = lab.stored().await;
    lab.until_only_named_objects_are_left(&manifest).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_node_that_is_lost_is_asked_for_again_under_the_same_ballot() {
    let lab = Lab::start(3).await;
    lab.to_node[0].disturb(Method::PUT, "/chunk/", Fault::LoseAnswer, 2);
    let (job, manifest) = lab.stored().await;
    let repeated: usize = puts(&lab.to_node[0])
        .values()
        .map(|ballots| ballots.len() - 1)
        .sum();
    assert_eq!(repeated, 2);
    for ballots in puts(&lab.to_node[0]).values() {
        assert!(ballots.iter().all(|ballot| ballot == &ballots[0]), "{ballots:?}");
    }
    assert_eq!(
        lab.held(0).await,
        lab.named(&manifest, 0),
        "nothing is stored twice"
    );
    assert!(job.notes.is_empty(), "{:?}", job.notes);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_answers_is_tried_four_times_and_then_replaced_under_a_new_ballot() {
    let lab = Lab::start(4).await;
    lab.to_node[0].disturb(Method::PUT, "/chunk/", Fault::Lose, usize::MAX);
    let (job, manifest) = lab.stored().await;
    let tried = puts(&lab.to_node[0]);
    assert!(
        !tried.is_empty(),
        "of four nodes, one of four chunks falls to each, most likely"
    );
    for (chunk, ballots) in &tried {
        let ballot = &ballots[0];
        assert_eq!(
            ballots,
            &vec![ballot.clone(); 4],
            "{chunk}: three retries of one ballot"
        );
    }
    assert!(
        manifest
            .chunks
            .iter()
            .all(|chunk| { chunk.replicas.len() == 3 && !chunk.replicas.contains(&lab.to_node[0].url) })
    );
    // The other nodes adopted under the new ballot what they had under the first.
    for chunk in tried.keys() {
        let sent: usize = lab.to_node[1..]
            .iter()
            .map(|node| puts(node).get(chunk).map_or(0, Vec::len))
            .sum();
        assert_eq!(sent, 3, "{chunk} went once to each of its nodes");
    }
    assert!(job.spared_bytes > 0 && !job.notes.is_empty(), "{job:?}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_another_node_two_copies_are_kept_and_the_chunk_is_listed() {
    let lab = Lab::start(3).await;
    lab.to_node[0].disturb(Method::PUT, "/chunk/", Fault::Lose, usize::MAX);
    let (job, manifest) = lab.stored().await;
    for chunk in &manifest.chunks {
        assert_eq!(chunk.replicas.len(), 2);
    }
    assert!(
        job.notes.iter().any(|note| note.contains("two copies")),
        "{:?}",
        job.notes
    );
    let listed = reqwest::get(format!("{}/under-replicated", lab.metadata.url));
    let listed: serde_json::Value = listed.await.unwrap().json().await.unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(4), "{listed}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_node_left_the_upload_fails_with_the_reason_and_leaves_nothing() {
    let lab = Lab::start(3).await;
    for node in &lab.to_node[..2] {
        node.disturb(Method::PUT, "/chunk/", Fault::Lose, usize::MAX);
    }
    let job = lab.upload().await;
    let problem = job.problem.expect("a failed job says why");
    assert_eq!(
        (job.state, problem.code),
        (JobState::Failed, ErrorCode::NotEnoughReplicas)
    );
    assert!(problem.detail.contains("node "), "{}", problem.detail);
    let gone = lab.catalogue().video(job.video_id).await;
    assert_eq!(gone.unwrap_err().code(), ErrorCode::VideoNotFound);
    lab.let_graces_pass().await;
    until("no node holds anything", || async { lab.held(2).await == 0 }).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_and_a_delete_that_come_late_harm_nothing_that_is_decided() {
    let lab = Lab::start(4).await;
    lab.to_node[0].disturb(Method::PUT, "/chunk/", Fault::Delay, usize::MAX);
    for node in &lab.to_node {
        node.disturb(Method::DELETE, "/chunk/", Fault::Delay, usize::MAX);
    }
    let (_, manifest) = lab.stored().await;
    lab.let_graces_pass().await;
    let orders = || {
        lab.to_node
            .iter()
            .map(|node| node.seen(Method::DELETE, "/chunk/").len())
            .sum::<usize>()
    };
    until("the first orders are on their way", || async { orders() > 0 }).await;
    // The bytes of the ballot that was given up arrive now: stored, or refused since an order for them came first.
    lab.to_node[0].heal();
    for status in lab.to_node[0].deliver_late().await {
        assert!(status.is_success() || status == 409, "{status}");
    }
    for node in &lab.to_node {
        node.heal();
        node.deliver_late().await;
    }
    lab.let_time_pass().await;
    lab.until_only_named_objects_are_left(&manifest).await;
    let played = lab.folder.path().join("again.mp4");
    fs::write(&played, whole(&manifest).await).unwrap();
    assert_eq!(frames_in(&played), "360", "every committed copy is still there");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cut_off_from_the_catalogue_goes_on_serving_and_comes_back_with_all_it_had() {
    let lab = Lab::start(3).await;
    let (_, manifest) = lab.stored().await;
    lab.from_node[0].disturb(Method::POST, "/heartbeat", Fault::Lose, usize::MAX);
    until("the catalogue suspects it", || async {
        lab.clock.advance(1_000);
        let healthy = lab.catalogue().healthy_nodes().await;
        healthy.is_ok_and(|healthy| healthy.iter().all(|node| node.node_url != lab.to_node[0].url))
    })
    .await;
    let chunk = &manifest.chunks[0];
    assert_eq!(
        bytes_of(chunk, &lab.to_node[0].url).await.len() as u64,
        chunk.size_bytes
    );
    lab.from_node[0].heal();
    lab.until_healthy(3).await;
    let listed = reqwest::get(format!("{}/under-replicated", lab.metadata.url));
    let listed: serde_json::Value = listed.await.unwrap().json().await.unwrap();
    assert_eq!(
        listed,
        serde_json::json!([]),
        "no registration and no part was lost"
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_were_stored_and_not_decided_are_adopted_by_the_next_life_of_the_uploader() {
    // Of four nodes the next life may be given another one, where their free space has changed meanwhile.
    let mut lab = Lab::start(3).await;
    lab.to_catalogue
        .disturb(Method::POST, "/consensus/commit", Fault::Lose, usize::MAX);
    let file = clip(lab.folder.path(), 12).await;
    let video = lab.catalogue().create_video("Clip", 0.0).await.unwrap().video_id;
    let accepted: UploadAccepted = put(&lab.uploader, video, &file).await.json().await.unwrap();
    let everything = || {
        lab.to_node
            .iter()
            .map(|node| node.seen(Method::PUT, "/chunk/").len())
    };
    until("all copies of the four chunks are sent", || async {
        everything().sum::<usize>() == 12
    })
    .await;
    until("all of them are stored", || async {
        let mut held = 0;
        for number in 0..lab.nodes.len() {
            held += lab.held(number).await;
        }
        held == 12
    })
    .await;
    lab.uploader.stop().await;
    // Another way to the catalogue: what the first life still has on its way stays lost.
    lab.to_catalogue = proxy_to(&lab.metadata.url).await;
    lab.uploader = started(&lab.to_catalogue.url, lab.folder.path().join("uploader")).await;
    let job = job_at(&lab.uploader, &accepted.job_id).await;
    assert_eq!((job.state, &job.problem), (JobState::Done, &None), "{job:?}");
    assert_eq!(
        (job.sent_bytes, job.spared_bytes),
        (0, 3 * job.stored_bytes),
        "everything was there"
    );
    let asked: usize = lab
        .to_node
        .iter()
        .map(|node| node.seen(Method::POST, "/prepare").len())
        .sum();
    assert!(asked >= 12, "{asked} times a node was asked what it holds");
    assert_eq!(
        everything().sum::<usize>(),
        12,
        "no chunk went over the network again"
    );
    let manifest = lab.catalogue().manifest(video).await.unwrap();
    lab.until_only_named_objects_are_left(&manifest).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_uploads_of_one_file_to_one_video_at_once_both_succeed() {
    let lab = Lab::start(3).await;
    let file = clip(lab.folder.path(), 12).await;
    let video = lab.catalogue().create_video("Clip", 0.0).await.unwrap().video_id;
    let second = started(&lab.metadata.url, lab.folder.path().join("second")).await;
    let (one, other) = tokio::join!(put(&lab.uploader, video, &file), put(&second, video, &file));
    let one: UploadAccepted = one.json().await.unwrap();
    let other: UploadAccepted = other.json().await.unwrap();
    let (one, other) = tokio::join!(job_at(&lab.uploader, &one.job_id), job_at(&second, &other.job_id));
    for job in [&one, &other] {
        assert_eq!((job.state, &job.problem), (JobState::Done, &None), "{job:?}");
    }
    assert_eq!(
        one.sent_bytes + other.sent_bytes,
        3 * one.stored_bytes,
        "each copy was sent by one of the two"
    );
    let manifest = lab.catalogue().manifest(video).await.unwrap();
    assert!(manifest.chunks.iter().all(|chunk| chunk.replicas.len() == 3));
    second.stop().await;
    lab.stop().await;
}
