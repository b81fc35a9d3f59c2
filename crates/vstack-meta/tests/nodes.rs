//! Who a node is: registration, identities in dispute, addresses used again, replaced disks.

mod support;

use support::{Catalogue, T0, commit_of, life, node, open_of, report, url, video};
use uuid::Uuid;
use vstack_core::id::{ChunkId, Incarnation};
use vstack_core::node::{NodeHealth, NodeState};
use vstack_core::paxos::OpenKind;
use vstack_core::paxos::master::{Conflict, Fault, Value};
use vstack_core::placement::Part;
use vstack_core::time::UnixMillis;
use vstack_meta::{
    Cmd, HeartbeatReply, MetaError, MetaStore, Named, NodeChange, NodeParts, NodeReport, Reply,
};

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
            lost_parts: 0,
            returned: false,
            generation: Some(catalogue.store.generation()),
            named: Named {
                name: "node-6".to_owned(),
                refused: false,
            },
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
async fn a_repair_carries_no_part_over_whose_disk_is_lost() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    let chunk = ChunkId::media(video(1), 0);
    let replaced = NodeReport {
        incarnation: Incarnation(Uuid::from_u128(5)),
        ..report(3)
    };
    assert_eq!(
        beat(&catalogue, replaced, SILENT + 60_000)
            .await
            .unwrap()
            .lost_parts,
        2
    );

    let mut open = open_of(chunk, &[4]);
    open.kind = OpenKind::Repair;
    let opened = catalogue.apply(Cmd::Open(open)).await.unwrap().opened().unwrap();
    let base = opened.base.unwrap();
    let carrying = |nodes: &[u128]| {
        let mut commit = commit_of(chunk, opened.ballot, &[4]);
        let Value::Placed(placement) = &mut commit.value else {
            unreachable!("it is a placement")
        };
        let kept = |part: &&Part| nodes.iter().any(|&number| node(number) == part.node);
        let parts = &base.value.placement().unwrap().parts;
        placement.parts.extend(parts.iter().filter(kept));
        Cmd::Commit(Box::new(commit))
    };
    let refused = catalogue.apply(carrying(&[1, 2, 3])).await;
    let fault = Fault::Lost;
    let unproven = Conflict::Unproven { node: node(3), fault };
    assert_eq!(refused, Err(MetaError::Conflict(unproven)));
    let decided = catalogue.done(carrying(&[1, 2])).await.committed().unwrap();
    assert_eq!(decided.missing_parts, 0);
    catalogue.assert_sound().await;
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
    let restored = MetaError::RolledBack {
        node: node(1),
        known: 2,
        reported: 1,
    };
    assert_eq!(
        beat(&catalogue, report(1), SILENT + 60_000).await,
        Err(restored),
        "silence does not bring it back"
    );
}

async fn change(catalogue: &Catalogue, number: u128, change: NodeChange) -> Result<NodeParts, MetaError> {
    let command = Cmd::ChangeNode {
        node: node(number),
        change,
        now: T0,
    };
    let reply = catalogue.apply(command).await?;
    Ok(reply.node().expect("a change is answered by what lies there"))
}

#[tokio::test]
async fn a_folder_that_went_back_is_taken_when_its_operator_says_so_and_only_then() {
    let catalogue = Catalogue::new().await;
    let later = NodeReport {
        boot_epoch: 5,
        ..report(1)
    };
    assert!(beat(&catalogue, later.clone(), T0).await.is_ok());
    change(&catalogue, 1, NodeChange::Readopt).await.unwrap();
    assert!(beat(&catalogue, report(1), SILENT).await.is_ok());
    // The permission was for once.
    assert!(beat(&catalogue, later, SILENT).await.is_ok());
    assert!(beat(&catalogue, report(1), SILENT + 60_000).await.is_err());
}

#[tokio::test]
async fn a_node_that_flaps_is_suspect_until_it_holds_still() {
    let catalogue = Catalogue::new().await;
    let mut now = T0;
    let mut healthy = 0;
    for _ in 0..40 {
        now = now + 8_000;
        beat(&catalogue, report(1), now).await.unwrap();
        let nodes = catalogue.store.nodes().await.unwrap();
        healthy += u32::from(nodes[0].health(now) == NodeHealth::Healthy);
    }
    assert!(
        (1..=6).contains(&healthy),
        "{healthy} of 40 returns were believed"
    );
    for _ in 0..160 {
        now = now + 2_000;
        beat(&catalogue, report(1), now).await.unwrap();
    }
    assert_eq!(
        catalogue.store.nodes().await.unwrap()[0].health(now),
        NodeHealth::Healthy
    );
}

#[tokio::test]
async fn the_only_holder_of_a_chunk_is_not_removed_unless_forced() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 2).await;
    for number in 2..=3 {
        let parts = change(&catalogue, number, NodeChange::Remove { force: false })
            .await
            .unwrap();
        assert_eq!((parts.live, parts.lost), (0, 3));
    }
    let refused = change(&catalogue, 1, NodeChange::Remove { force: false }).await;
    let expected = MetaError::OnlyHolder {
        node: node(1),
        chunks: 3,
    };
    assert_eq!(refused, Err(expected));
    let parts = catalogue.store.node_parts(node(1)).await.unwrap();
    assert_eq!((parts.live, parts.only_holder_of), (3, 3));
    let forced = change(&catalogue, 1, NodeChange::Remove { force: true }).await;
    assert_eq!(forced.unwrap().lost, 3);
    assert_eq!(catalogue.store.under_replicated(9).await.unwrap().len(), 3);
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn a_removed_node_stays_away_until_it_is_readopted() {
    let catalogue = Catalogue::new().await;
    change(&catalogue, 5, NodeChange::Remove { force: false })
        .await
        .unwrap();
    let removed = MetaError::NodeRemoved { node: node(5) };
    assert_eq!(beat(&catalogue, report(5), T0).await, Err(removed.clone()));
    let drain = NodeChange::State(NodeState::Draining);
    assert_eq!(change(&catalogue, 5, drain).await, Err(removed));
    change(&catalogue, 5, NodeChange::Readopt).await.unwrap();
    assert!(beat(&catalogue, report(5), T0).await.is_ok());
    assert_eq!(
        change(&catalogue, 77, NodeChange::Readopt).await,
        Err(MetaError::UnknownNode { node: node(77) })
    );
}

#[tokio::test]
async fn states_are_kept_over_heartbeats_and_restarts() {
    let catalogue = Catalogue::new().await;
    for (number, state) in [(1, NodeState::Draining), (2, NodeState::Maintenance)] {
        change(&catalogue, number, NodeChange::State(state))
            .await
            .unwrap();
        beat(&catalogue, report(number), T0).await.unwrap();
    }
    let catalogue = catalogue.restarted();
    let nodes = catalogue.store.nodes().await.unwrap();
    let states: Vec<_> = nodes.iter().map(|known| known.state).collect();
    let active = NodeState::Active;
    assert_eq!(
        states,
        [
            NodeState::Draining,
            NodeState::Maintenance,
            active,
            active,
            active
        ]
    );
}

#[tokio::test]
async fn a_replaced_disk_is_bound_at_once_and_the_old_one_never_again() {
    let catalogue = Catalogue::new().await;
    catalogue.active_video(video(1), 1).await;
    let parts = change(&catalogue, 1, NodeChange::Replace { force: false })
        .await
        .unwrap();
    assert_eq!((parts.live, parts.lost), (0, 2));
    assert!(
        is_duplicate(&beat(&catalogue, report(1), T0 + 1_000).await),
        "the old disk"
    );
    let replaced = NodeReport {
        incarnation: Incarnation(Uuid::from_u128(5)),
        ..report(1)
    };
    assert!(beat(&catalogue, replaced.clone(), T0 + 1_000).await.is_ok());
    assert!(beat(&catalogue, replaced, T0 + 2_000).await.is_ok());
    assert!(is_duplicate(&beat(&catalogue, report(1), SILENT + 60_000).await));
    catalogue.assert_sound().await;
}

#[tokio::test]
async fn a_clock_that_went_back_keeps_no_dead_node_alive() {
    let catalogue = Catalogue::new().await;
    const MONTH_MS: u64 = 30 * 24 * 3_600_000;
    let now = UnixMillis(T0.0 - MONTH_MS);
    catalogue.done(Cmd::JudgeNodes { now }).await;
    let nodes = catalogue.store.nodes().await.unwrap();
    assert!(nodes.iter().all(|known| known.health(now) == NodeHealth::Healthy));
    assert!(
        nodes
            .iter()
            .all(|known| known.health(now + 30_000) == NodeHealth::Down)
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
