//! Who a node is: registration, identities in dispute, addresses used again, replaced disks.

mod support;

use support::{Catalogue, T0, life, node, report, url, video};
use uuid::Uuid;
use vstack_core::id::{ChunkId, Incarnation};
use vstack_core::node::NodeHealth;
use vstack_core::paxos::master::{Conflict, Fault};
use vstack_core::time::UnixMillis;
use vstack_meta::{Cmd, HeartbeatReply, MetaError, MetaStore, NodeReport, Reply};

/// Just enough silence for a node to count as suspect.
const SILENT: UnixMillis = UnixMillis(T0.0 + 5_000);

async fn beat(
    catalogue: &Catalogue,
    report: NodeReport,
    now: UnixMillis,
) -> Result<HeartbeatReply, MetaError> {
    match catalogue.apply(Cmd::Heartbeat { report, now }).await? {
        Reply::Heartbeat(reply) => Ok(reply),
        other => unreachable!("a heartbeat is answered by {other:?}"),
    }
}

fn is_duplicate<T>(result: &Result<T, MetaError>) -> bool {
    matches!(result, Err(MetaError::DuplicateNode { .. }))
}

#[tokio::test]
async fn the_first_heartbeat_registers_and_silence_is_judged() {
    let catalogue = Catalogue::new().await;
    let first = beat(&catalogue, report(9), T0).await.unwrap();
    assert_eq!(
        first,
        HeartbeatReply {
            before: None,
            lost_parts: 0
        }
    );
    let later = beat(&catalogue, report(9), SILENT).await.unwrap();
    assert_eq!(later.before, Some(NodeHealth::Degraded));
    let record = catalogue.store.nodes().await.unwrap().pop().unwrap();
    assert_eq!(
        (record.node, record.health(SILENT)),
        (node(9), NodeHealth::Healthy)
    );
    assert_eq!(record.health(SILENT + 30_000), NodeHealth::Down);
}

#[tokio::test]
async fn a_copied_data_folder_is_refused_while_the_first_process_lives() {
    let catalogue = Catalogue::new().await;
    let copy = NodeReport {
        url: url(99),
        ..report(1)
    };
    assert!(is_duplicate(&beat(&catalogue, copy.clone(), T0 + 1_000).await));
    // Once the first one is silent, the copy is simply the node at a new address.
    assert!(beat(&catalogue, copy, SILENT).await.is_ok());
}

#[tokio::test]
async fn of_two_starts_of_one_folder_the_later_wins_and_the_earlier_is_refused() {
    let catalogue = Catalogue::new().await;
    let later = NodeReport {
        boot_epoch: 2,
        url: url(99),
        ..report(1)
    };
    assert!(beat(&catalogue, later, T0 + 1_000).await.is_ok());
    assert!(is_duplicate(&beat(&catalogue, report(1), T0 + 2_000).await));
    assert!(
        is_duplicate(&beat(&catalogue, report(1), SILENT + 60_000).await),
        "silence does not bring it back"
    );
}

#[tokio::test]
async fn a_node_that_moves_takes_its_replicas_along() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    let moved = NodeReport {
        url: url(50),
        boot_epoch: 2,
        ..report(1)
    };
    assert!(beat(&catalogue, moved, T0).await.is_ok());
    let source = catalogue.store.manifest_source(video(1)).await.unwrap().unwrap();
    assert_eq!(source.nodes[&node(1)].url, url(50));
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn an_address_goes_to_a_new_node_only_when_its_holder_is_silent() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    let newcomer = NodeReport {
        url: url(1),
        ..report(9)
    };
    assert!(is_duplicate(
        &beat(&catalogue, newcomer.clone(), T0 + 1_000).await
    ));
    assert!(beat(&catalogue, newcomer, SILENT).await.is_ok());
    let source = catalogue.store.manifest_source(video(1)).await.unwrap().unwrap();
    assert_eq!(source.nodes[&node(1)].known_url(), None);
    assert_eq!(source.nodes[&node(9)].known_url(), Some(url(1).as_str()));
    catalogue.assert_sound().await;
    // The old holder comes back elsewhere.
    assert!(
        beat(
            &catalogue,
            NodeReport {
                url: url(77),
                boot_epoch: 2,
                ..report(1)
            },
            SILENT
        )
        .await
        .is_ok()
    );
    let source = catalogue.store.manifest_source(video(1)).await.unwrap().unwrap();
    assert_eq!(source.nodes[&node(1)].known_url(), Some(url(77).as_str()));
}

#[tokio::test]
async fn a_replaced_disk_loses_its_parts_and_its_old_receipts() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    let stored = ChunkId::media(video(1), 0);
    catalogue.store_chunk(stored, &[1, 2, 3]).await;
    let in_flight = ChunkId::media(video(1), 1);
    let opened = catalogue.open(in_flight, &[1, 2, 3]).await.unwrap();

    let replaced = NodeReport {
        incarnation: Incarnation(Uuid::from_u128(5)),
        ..report(1)
    };
    assert!(is_duplicate(
        &beat(&catalogue, replaced.clone(), T0 + 1_000).await
    ));
    assert_eq!(beat(&catalogue, replaced, SILENT).await.unwrap().lost_parts, 1);

    let chunk = catalogue.store.chunk(stored).await.unwrap().unwrap();
    assert_eq!(chunk.lost.into_iter().collect::<Vec<_>>(), [node(1)]);
    assert_eq!(
        catalogue.store.under_replicated(9).await.unwrap()[0].missing_parts,
        1
    );
    // The receipts below were given by the disk that is gone.
    assert_ne!(life(node(1)), Incarnation(Uuid::from_u128(5)));
    let refused = catalogue.commit(in_flight, opened.ballot, &[1, 2, 3]).await;
    let fault = Fault::OtherIncarnation;
    assert_eq!(
        refused,
        Err(MetaError::Conflict(Conflict::Unproven { node: node(1), fault }))
    );
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn an_impossible_generation_is_not_followed() {
    let catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    let liar = NodeReport {
        highest_generation: u64::MAX,
        ..report(1)
    };
    assert!(beat(&catalogue, liar, T0).await.is_ok());
    let opened = catalogue
        .open(ChunkId::media(video(1), 0), &[1, 2, 3])
        .await
        .unwrap();
    assert_eq!(opened.ballot.generation(), catalogue.store.generation());
}

#[tokio::test]
async fn the_status_column_follows_the_silence() {
    let catalogue = Catalogue::new().await;
    catalogue.done(Cmd::JudgeNodes { now: T0 + 30_000 }).await;
    let file = rusqlite::Connection::open(catalogue.path()).unwrap();
    let down: i64 = file
        .query_row(
            "SELECT count(*) FROM storage_nodes WHERE status = 'down'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(down, 5);
}
