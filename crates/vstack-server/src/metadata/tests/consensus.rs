//! ChunkPaxos over sockets: the fast path, and who is refused.

use futures::StreamExt as _;
use uuid::Uuid;
use vstack_api::ErrorCode;
use vstack_api::consensus::ConsensusChange;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, Incarnation, NodeId};
use vstack_core::paxos::Receipt;

use super::cluster::{Cluster, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_by_open_accept_and_commit_and_every_named_replica_has_the_bytes() {
    let cluster = Cluster::start(5).await;
    let video = cluster.active_video("clip", 2).await;
    let manifest = cluster.catalogue.manifest(video).await.unwrap();
    assert_eq!((manifest.total_chunks, manifest.chunks.len()), (2, 2));
    for chunk in &manifest.chunks {
        assert_eq!(chunk.replicas.len(), 3);
        for (part, url) in chunk.placement.parts.iter().zip(&chunk.replicas) {
            assert_eq!(&part.node_url, url);
            let plain = cluster.http.get(format!("{url}/chunk/{}", chunk.chunk_id));
            let named = cluster
                .http
                .get(format!("{url}/chunk/{}?ballot={}", chunk.chunk_id, part.ballot));
            for request in [plain, named] {
                let bytes = request
                    .send()
                    .await
                    .unwrap()
                    .error_for_status()
                    .unwrap()
                    .bytes()
                    .await
                    .unwrap();
                assert_eq!(ChunkDigest::of(&bytes).sha256, chunk.checksum);
            }
        }
    }
    let init = manifest.init.unwrap();
    let data = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &init.data_base64).unwrap();
    assert_eq!(ChunkDigest::of(&data).sha256, init.chunk.checksum);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_answered_is_answered_the_same_again_and_the_manifest_survives_a_node() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.create("clip").await;
    let chunk = ChunkId::media(video, 0);
    let opened = cluster.open_as("a", chunk, None).await.unwrap();
    let receipts = cluster.put_all(&opened, b"bytes").await;
    let first = cluster.commit(&opened, b"bytes", receipts.clone()).await.unwrap();
    assert_eq!(cluster.commit(&opened, b"bytes", receipts).await.unwrap(), first);
    let again = cluster.open_as("a", chunk, None).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::Committed);

    // A node that fell silent is named last.
    let gone = cluster.nodes.remove(0);
    let gone_id = gone.node_id.unwrap();
    gone.stop().await;
    cluster.clock.advance(6_000);
    cluster.until_healthy(3).await;
    let manifest = cluster.catalogue.manifest(video).await.unwrap();
    let parts = &manifest.chunks[0].placement.parts;
    let at = parts.iter().position(|part| part.node_id == gone_id);
    assert!(at.is_none_or(|at| at == parts.len() - 1), "{parts:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_ballot_fences_the_older_one_at_the_catalogue_and_at_the_nodes() {
    let cluster = Cluster::start(3).await;
    let chunk = ChunkId::media(cluster.create("clip").await, 0);
    let old = cluster.open_as("a", chunk, None).await.unwrap();
    let receipts = cluster.put_all(&old, b"old").await;
    let locked = cluster.open_as("b", chunk, None).await.unwrap_err();
    assert_eq!((locked.code, locked.retryable), (ErrorCode::Locked, true));
    let new = cluster.open_as("a", chunk, None).await.unwrap();
    cluster.put_all(&new, b"new").await;
    let late = cluster.commit(&old, b"old", receipts).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::Fenced);
    let late_put = cluster
        .storage(0)
        .put(&old.grant, chunk, "old".into())
        .await
        .unwrap_err();
    assert_eq!(late_put.code(), ErrorCode::Fenced);
    // What the dead ballot left is collected, and the live one stays.
    let receipts = cluster.put_all(&new, b"new").await;
    cluster.commit(&new, b"new", receipts).await.unwrap();
    cluster.let_graces_pass().await;
    let url = format!(
        "{}/chunk/{chunk}?ballot={}",
        cluster.nodes[0].url, old.grant.ballot
    );
    super::cluster::until("the dead ballot's object is gone", async || {
        cluster.http.get(&url).send().await.unwrap().status() == 404
    })
    .await;
    assert_eq!(cluster.holders(chunk).await, 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_a_node_did_not_give_decide_nothing() {
    let cluster = Cluster::start(3).await;
    let chunk = ChunkId::media(cluster.create("clip").await, 0);
    let opened = cluster.open_as("a", chunk, None).await.unwrap();
    let receipts = cluster.put_all(&opened, b"bytes").await;

    let mut forged = receipts.clone();
    forged[0].digest = ChunkDigest::of(b"other");
    assert_eq!(
        cluster.commit(&opened, b"bytes", forged).await.unwrap_err().code,
        ErrorCode::BadSignature
    );

    // A node of the cluster cannot vouch for a life that the catalogue does not know.
    let mut stale = receipts.clone();
    let node: NodeId = stale[0].node;
    let other_life = (node, Incarnation(Uuid::from_u128(1)));
    let name = (chunk, opened.grant.ballot);
    stale[0] = Receipt::signed(
        &key().receipt_key(node),
        name,
        other_life,
        ChunkDigest::of(b"bytes"),
    );
    let refused = cluster.commit(&opened, b"bytes", stale).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotEnoughReplicas);

    let two = receipts[..2].to_vec();
    assert_eq!(
        cluster.commit(&opened, b"bytes", two).await.unwrap_err().code,
        ErrorCode::NotEnoughReplicas
    );
    assert!(cluster.commit(&opened, b"bytes", receipts).await.is_ok());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_copies_are_accepted_only_when_the_ballot_was_opened_for_them_and_are_listed() {
    let mut cluster = Cluster::start(3).await;
    cluster.nodes.remove(2).stop().await;
    cluster.clock.advance(31_000);
    cluster.until_healthy(2).await;
    let video = cluster.create("clip").await;
    let chunk = ChunkId::media(video, 0);
    assert_eq!(
        cluster.open_as("a", chunk, None).await.unwrap_err().code,
        ErrorCode::NotEnoughNodes
    );
    let opened = cluster.open_as("a", chunk, Some(2)).await.unwrap();
    let receipts = cluster.put_all(&opened, b"bytes").await;
    assert!(
        cluster
            .commit(&opened, b"bytes", receipts)
            .await
            .unwrap()
            .under_replicated
    );
    assert_eq!(cluster.catalogue.video(video).await.unwrap().under_replicated, 1);
    let listed = cluster
        .http
        .get(cluster.at("/under-replicated"))
        .send()
        .await
        .unwrap();
    let listed: serde_json::Value = listed.json().await.unwrap();
    assert_eq!(
        listed,
        serde_json::json!([{ "chunk_id": chunk, "missing_parts": 1 }])
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_two_nodes_takes_no_chunk() {
    let cluster = Cluster::start(2).await;
    let chunk = ChunkId::media(cluster.create("clip").await, 0);
    for min_ack in [None, Some(2)] {
        let refused = cluster.open_as("a", chunk, min_ack).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotEnoughNodes);
        assert!(refused.detail.contains("add a node"), "{}", refused.detail);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_hears_of_every_step_of_a_chunk_and_keeps_no_role_from_stopping() {
    let cluster = Cluster::start(3).await;
    let chunk = ChunkId::media(cluster.create("clip").await, 0);
    let mut events = cluster.catalogue.consensus_events().await.unwrap();
    let opened = cluster.open_as("a", chunk, None).await.unwrap();
    let ballot = opened.grant.ballot;
    let receipts = cluster.put_all(&opened, b"bytes").await;
    cluster.commit(&opened, b"bytes", receipts).await.unwrap();
    cluster.open_as("b", chunk, None).await.unwrap_err();
    let mut heard = Vec::new();
    while heard.len() < 6 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), events.next()).await;
        let event = next
            .expect("an event in time")
            .expect("the stream goes on")
            .unwrap();
        assert_eq!((event.chunk_id, event.number), (chunk, heard.len() as u64 + 1));
        heard.push(event);
    }
    assert!(
        heard[..5].iter().all(|event| event.ballot == Some(ballot)),
        "{heard:?}"
    );
    assert!(
        matches!(&heard[0].change, ConsensusChange::Opened { owner, nodes, .. } if owner == "a" && nodes.len() == 3)
    );
    assert!(
        heard[1..4]
            .iter()
            .all(|event| matches!(event.change, ConsensusChange::Accepted { .. }))
    );
    assert!(
        matches!(&heard[4].change, ConsensusChange::Decided { nodes, under_replicated: false } if nodes.len() == 3)
    );
    assert!(matches!(heard[5].change, ConsensusChange::Refused { .. }));
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(8), cluster.stop()).await;
    assert!(stopped.is_ok(), "a listener kept the role waiting");
}
