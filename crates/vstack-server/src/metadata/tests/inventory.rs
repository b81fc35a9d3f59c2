//! INVENTORY between real nodes and the role: what nothing names goes, what is missing counts as lost.

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use vstack_api::ErrorCode;
use vstack_api::inventory::{InventoryAnswer, InventoryPage, InventorySummary, ObjectName, PAGE_OBJECTS};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, Incarnation, NodeId, VideoId};
use vstack_core::limits::UNKNOWN_OBJECT_GRACE_MS;
use vstack_core::paxos::DeleteOrder;

use super::cluster::{Cluster, DEADLINE, key, until};

impl Cluster {
    async fn take_inventories(&self) -> InventorySummary {
        let mut all = InventorySummary::default();
        for number in 0..self.nodes.len() {
            let summary = self.storage(number).take_inventory(DEADLINE).await;
            let summary = summary.expect("the node tells what it holds");
            all.objects += summary.objects;
            all.deleted += summary.deleted;
            all.lost += summary.lost;
        }
        all
    }

    async fn missing_parts(&self) -> u64 {
        let listed = self.http.get(self.at("/under-replicated")).send().await;
        let listed: serde_json::Value = listed.expect("an answer").json().await.expect("a list");
        let parts = |chunk: &serde_json::Value| chunk["missing_parts"].as_u64().expect("a number");
        listed.as_array().expect("a list").iter().map(parts).sum()
    }

    /// What a counter of ChunkPaxos in `/metrics` says.
    async fn counted(&self, name: &str) -> u64 {
        let answer = self.http.get(self.at("/metrics")).send().await;
        let text = answer.expect("an answer").text().await.expect("text");
        let name = format!("consensus_{name}_total ");
        let mut values = text.lines().filter(|line| !line.starts_with('#'));
        let value = values.find_map(|line| line.split_once(&name));
        let (_, value) = value.unwrap_or_else(|| unreachable!("no {name}in {text}"));
        value.parse().expect("a number")
    }

    fn node_id(&self, number: usize) -> NodeId {
        self.nodes[number].node_id.expect("a node has an id")
    }

    async fn incarnation(&self, number: usize) -> Incarnation {
        let nodes = self.catalogue.nodes().await.expect("the role answers");
        let node = nodes.iter().find(|node| node.node_id == self.node_id(number));
        node.expect("it is registered").incarnation
    }

    /// A page that the node itself did not send.
    async fn tell(
        &self,
        number: usize,
        span: (Option<ObjectName>, Option<ObjectName>),
        objects: Vec<ObjectName>,
    ) -> InventoryAnswer {
        let (node, incarnation) = (self.node_id(number), self.incarnation(number).await);
        let page = InventoryPage::signed(&key().receipt_key(node), (node, incarnation), span, objects);
        self.catalogue
            .inventory(node, &page)
            .await
            .expect("it is well formed")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_ballot_left_is_deleted_and_what_is_decided_or_open_stays() {
    let cluster = Cluster::start(3).await;
    let video = cluster.create("clip").await;
    let (decided, open) = (ChunkId::media(video, 0), ChunkId::media(video, 1));
    cluster.store(decided, b"bytes").await;
    let killed = cluster.open_as("uploader", open, None).await.unwrap();
    cluster.put_all(&killed, b"more").await;
    assert_eq!(
        cluster.take_inventories().await.deleted,
        0,
        "its ballot may still be decided"
    );
    let opened = cluster.open_as("uploader", open, None).await.unwrap();
    let receipts = cluster.put_all(&opened, b"more").await;
    let summary = cluster.take_inventories().await;
    assert_eq!((summary.objects, summary.deleted, summary.lost), (9, 3, 0));
    cluster.commit(&opened, b"more", receipts).await.unwrap();
    assert_eq!(cluster.take_inventories().await.deleted, 0);
    assert_eq!(
        (cluster.holders(decided).await, cluster.holders(open).await),
        (3, 3)
    );
    assert_eq!(cluster.missing_parts().await, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_is_kept_for_a_day() {
    let cluster = Cluster::start(1).await;
    let unknown = ChunkId::media(VideoId(uuid::Uuid::from_u128(5)), 0);
    let url = format!("{}/chunk/{unknown}", cluster.nodes[0].url);
    let put = cluster
        .http
        .put(url)
        .body(Bytes::from_static(b"plain"))
        .send()
        .await;
    assert_eq!(put.unwrap().status(), 201);
    assert_eq!(cluster.take_inventories().await.deleted, 0);
    cluster.clock.advance(UNKNOWN_OBJECT_GRACE_MS - 60_000);
    cluster.until_healthy(1).await;
    assert_eq!(cluster.take_inventories().await.deleted, 0);
    assert_eq!(cluster.holders(unknown).await, 1);
    cluster.clock.advance(120_000);
    cluster.until_healthy(1).await;
    // A node that was silent gives its inventory by itself, perhaps before this one.
    cluster.take_inventories().await;
    assert_eq!(cluster.holders(unknown).await, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_its_node_lacks_is_not_offered_to_readers() {
    let cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 2).await;
    let chunk = ChunkId::media(video, 0);
    let manifest = cluster.catalogue.manifest(video).await.unwrap();
    let part = &manifest.chunks[0].placement.parts[0];
    let victim = (0..3)
        .find(|&number| cluster.node_id(number) == part.node_id)
        .unwrap();
    let order = DeleteOrder::signed(&key().grant_key(), chunk, part.ballot, part.node_id);
    cluster.storage(victim).delete(&order).await.unwrap();
    cluster.take_inventories().await;
    cluster.take_inventories().await;
    // Nodes tell by themselves too, when they start. Whoever told it first, it is one loss.
    assert_eq!(cluster.counted("lost_parts").await, 1);
    // It is known as missing, or was made again under another ballot already.
    let after = cluster.catalogue.manifest(video).await.unwrap();
    let named = &after.chunks[0].placement.parts;
    assert!(
        named
            .iter()
            .all(|other| (other.node_id, other.ballot) != (part.node_id, part.ballot)),
        "{named:?}"
    );
    assert_eq!(after.chunks[1].replicas.len(), 3);
    until("the part is there again", async || {
        cluster.missing_parts().await == 0
    })
    .await;
    assert_eq!(cluster.take_inventories().await.lost, 0);
    assert_eq!(cluster.counted("lost_parts").await, 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_older_than_a_commit_loses_nothing() {
    let cluster = Cluster::start(3).await;
    let video = cluster.active_video("clip", 3).await;
    let name = |ballot, seq| ObjectName {
        object: ChunkId::media(video, seq),
        ballot,
    };
    let manifest = cluster.catalogue.manifest(video).await.unwrap();
    let ballots: Vec<Ballot> = manifest
        .chunks
        .iter()
        .map(|chunk| chunk.placement.parts[0].ballot)
        .collect();
    let told = |answer: InventoryAnswer| answer.missing.len();
    assert_eq!(
        told(cluster.tell(0, (None, None), Vec::new()).await),
        4,
        "all of it, with the init segment"
    );
    let first = Some(name(ballots[0], 0));
    assert_eq!(
        told(cluster.tell(0, (None, first), Vec::new()).await),
        2,
        "up to the page's end"
    );
    let rest = vec![name(ballots[1], 1)];
    assert_eq!(
        told(cluster.tell(0, (first, None), rest).await),
        1,
        "behind its begin"
    );
    assert_eq!(cluster.missing_parts().await, 0, "a question is no verdict");
    assert_eq!(cluster.take_inventories().await.lost, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_node_itself_tells_what_it_holds_and_only_its_present_life() {
    let cluster = Cluster::start(2).await;
    let (node, incarnation) = (cluster.node_id(0), cluster.incarnation(0).await);
    let page = |key_of: NodeId, life| {
        InventoryPage::signed(&key().receipt_key(key_of), (node, life), (None, None), Vec::new())
    };
    let code = async |page| {
        cluster
            .catalogue
            .inventory(node, &page)
            .await
            .map_err(|error| error.code())
    };
    assert!(code(page(node, incarnation)).await.is_ok());
    assert_eq!(
        code(page(cluster.node_id(1), incarnation)).await,
        Err(ErrorCode::BadSignature)
    );
    let earlier = Incarnation(uuid::Uuid::nil());
    assert_eq!(code(page(node, earlier)).await, Err(ErrorCode::DuplicateNode));
    let name = |seq| ObjectName {
        object: ChunkId::media(VideoId(uuid::Uuid::nil()), seq),
        ballot: Ballot::from_number(1),
    };
    let disordered = vec![name(2), name(1)];
    let disordered = InventoryPage::signed(
        &key().receipt_key(node),
        (node, incarnation),
        (None, None),
        disordered,
    );
    assert_eq!(code(disordered).await, Err(ErrorCode::InvalidField));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_more_objects_than_a_page_holds_tells_of_all_of_them() {
    let cluster = Cluster::start(3).await;
    // The lowest of all ids: these fill the first page.
    let low = VideoId(uuid::Uuid::nil());
    let full = u32::try_from(PAGE_OBJECTS).unwrap();
    let puts = (0..full).map(|seq| {
        let url = format!("{}/chunk/{}", cluster.nodes[0].url, ChunkId::media(low, seq));
        cluster.http.put(url).body(Bytes::from_static(b"plain")).send()
    });
    let stored = stream::iter(puts)
        .buffer_unordered(128)
        .all(async |answer| answer.is_ok_and(|answer| answer.status() == 201));
    assert!(stored.await);
    let behind = ChunkId::media(cluster.create("clip").await, 0);
    let killed = cluster.open_as("uploader", behind, None).await.unwrap();
    cluster.put_all(&killed, b"bytes").await;
    cluster.open_as("uploader", behind, None).await.unwrap();
    let told = cluster.storage(0).take_inventory(DEADLINE).await.unwrap();
    assert_eq!((told.objects, told.pages), (u64::from(full) + 1, 2));
    assert_eq!(told.deleted, 1, "what lies on the second page is judged, too");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_by_itself_when_it_starts() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.create("clip").await;
    let chunk = ChunkId::media(video, 0);
    let killed = cluster.open_as("uploader", chunk, None).await.unwrap();
    cluster.put_all(&killed, b"bytes").await;
    cluster.nodes.remove(2).stop().await;
    // The collector leaves these objects alone for a minute.
    cluster.open_as("uploader", chunk, None).await.unwrap();
    cluster.start_node(2).await;
    until("it has deleted what the killed ballot left", async || {
        let health = cluster.storage(2).health().await;
        health.is_ok_and(|health| health.chunk_count == 0)
    })
    .await;
    cluster.stop().await;
}
