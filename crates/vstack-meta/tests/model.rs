//! Random commands against the catalogue and against a model in memory that calls the protocol's functions directly,
//! with restarts and kills in between. After every command both must say the same; at the end the files must too.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use support::{Catalogue, T0, commit_of, digest, life, node, open_of, video};
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, NodeId};
use vstack_core::limits::OPEN_LEASE_MS;
use vstack_core::paxos::master::{self, Garbage, Knowledge, OpenRequest, Row};
use vstack_core::paxos::{OpenKind, Target};
use vstack_meta::{Cmd, Collectable, MetaStore};

#[derive(Debug, Clone)]
enum Step {
    Open {
        chunk: u32,
        first_node: u128,
        owner: bool,
        kind: OpenKind,
    },
    /// COMMIT of the chunk's ballot granted so many OPENs ago.
    Commit {
        chunk: u32,
        grants_ago: usize,
        nodes: usize,
    },
    Delete,
    Restart,
    Kill,
}

fn any_step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![
        OpenKind::Upload,
        OpenKind::Upload,
        OpenKind::Upload,
        OpenKind::Repair,
        OpenKind::Abort,
    ]);
    prop_oneof![
        8 => (0u32..3, 1u128..4, any::<bool>(), kind)
            .prop_map(|(chunk, first_node, owner, kind)| Step::Open { chunk, first_node, owner, kind }),
        8 => (0u32..3, 0usize..3, 1usize..4)
            .prop_map(|(chunk, grants_ago, nodes)| Step::Commit { chunk, grants_ago, nodes }),
        1 => Just(Step::Delete),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

/// What the catalogue should hold.
#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<ChunkId, Row>,
    garbage: BTreeSet<Garbage>,
    grants: BTreeMap<ChunkId, Vec<(Ballot, Vec<u128>)>>,
    deleted: bool,
}

impl Model {
    fn row(&self, chunk: ChunkId) -> Row {
        self.rows.get(&chunk).cloned().unwrap_or_default()
    }

    fn open(
        &mut self,
        command: &vstack_meta::OpenChunk,
        nodes: Vec<u128>,
        generation: u64,
    ) -> Option<Ballot> {
        if self.deleted {
            return None;
        }
        let request = OpenRequest {
            kind: command.kind,
            owner: command.owner.clone(),
            expect_epoch: None,
            nodes: command.nodes.iter().copied().map(Target::whole).collect(),
            min_ack: command.min_ack,
            generation,
            now: command.now,
            lease_ms: OPEN_LEASE_MS,
            knowledge: Knowledge::Complete,
        };
        let opened = master::open(command.chunk, &self.row(command.chunk), &request).ok()?;
        self.garbage.extend(opened.garbage);
        self.rows.insert(command.chunk, opened.row);
        self.grants
            .entry(command.chunk)
            .or_default()
            .push((opened.ballot, nodes));
        Some(opened.ballot)
    }

    fn commit(&mut self, command: &vstack_meta::CommitChunk) -> Option<usize> {
        let row = self.row(command.chunk);
        let live = |node: NodeId| Some(life(node));
        let decided = master::commit(
            command.chunk,
            &row,
            command.ballot,
            &command.value,
            &command.witnesses,
            live,
        )
        .ok()?;
        self.garbage.extend(decided.garbage);
        self.rows.insert(command.chunk, decided.row);
        Some(decided.missing_parts)
    }

    fn delete(&mut self, generation: u64) {
        let request = OpenRequest {
            kind: OpenKind::Delete,
            owner: String::new(),
            expect_epoch: None,
            nodes: Vec::new(),
            min_ack: 0,
            generation,
            now: T0,
            lease_ms: 0,
            knowledge: Knowledge::Complete,
        };
        for (&chunk, row) in &mut self.rows {
            let deleted = master::delete(chunk, row, &request).expect("a deletion always goes");
            self.garbage.extend(deleted.garbage);
            *row = deleted.row;
        }
        self.deleted = true;
    }
}

async fn run(steps: Vec<Step>) {
    let mut catalogue = Catalogue::new().await;
    catalogue.create(video(1)).await;
    let mut model = Model::default();
    for step in steps {
        let generation = catalogue.store.generation();
        match step {
            Step::Open {
                chunk,
                first_node,
                owner,
                kind,
            } => {
                let nodes: Vec<u128> = (first_node..first_node + 3).collect();
                let mut command = open_of(ChunkId::media(video(1), chunk), &nodes);
                command.kind = kind;
                command.owner = owner.to_string();
                let expected = model.open(&command, nodes, generation);
                let found = catalogue.apply(Cmd::Open(command)).await;
                let found = found
                    .ok()
                    .and_then(vstack_meta::Reply::opened)
                    .map(|opened| opened.ballot);
                assert_eq!(found, expected);
            }
            Step::Commit {
                chunk,
                grants_ago,
                nodes,
            } => {
                let chunk = ChunkId::media(video(1), chunk);
                let granted = model
                    .grants
                    .get(&chunk)
                    .and_then(|grants| grants.iter().rev().nth(grants_ago));
                let Some((ballot, granted)) = granted.cloned() else {
                    continue;
                };
                let command = commit_of(chunk, ballot, &granted[..nodes]);
                let expected = model.commit(&command);
                let found = catalogue.apply(Cmd::Commit(Box::new(command))).await;
                let found = found
                    .ok()
                    .and_then(vstack_meta::Reply::committed)
                    .map(|done| done.missing_parts);
                assert_eq!(found, expected);
            }
            Step::Delete => {
                model.delete(generation);
                catalogue
                    .done(Cmd::DeleteVideo {
                        video: video(1),
                        now: T0,
                    })
                    .await;
            }
            Step::Restart => catalogue = catalogue.restarted(),
            Step::Kill => catalogue = catalogue.as_after_kill(),
        }
    }
    compare(&catalogue, &model).await;
}

const READ: &str = "the catalogue can be read";

async fn compare(catalogue: &Catalogue, model: &Model) {
    catalogue.assert_sound().await;
    for (&chunk, row) in &model.rows {
        assert_eq!(&catalogue.store.consensus_row(chunk).await.expect(READ), row);
        let placed = catalogue
            .store
            .chunk(chunk)
            .await
            .expect(READ)
            .map(|record| record.placement);
        assert_eq!(placed.as_ref(), row.placement());
    }
    let queued = catalogue
        .store
        .collectable(T0 + u64::from(u32::MAX), 10_000)
        .await
        .expect(READ);
    let queued: BTreeSet<Garbage> = queued
        .into_iter()
        .map(|Collectable { node, object, ballot }| Garbage { node, object, ballot })
        .collect();
    assert_eq!(queued, model.garbage);
    let size: u64 = model
        .rows
        .iter()
        .filter(|(_, row)| row.placement().is_some())
        .map(|(&chunk, _)| digest(chunk).size_bytes)
        .sum();
    assert_eq!(
        catalogue
            .store
            .video(video(1))
            .await
            .expect(READ)
            .expect(READ)
            .size_bytes,
        size
    );
    assert!(
        catalogue
            .store
            .nodes()
            .await
            .expect(READ)
            .iter()
            .any(|known| known.node == node(1))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_catalogue_does_what_the_model_does(steps in prop::collection::vec(any_step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}
