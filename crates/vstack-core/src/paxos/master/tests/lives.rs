//! Any sequence of events in the life of a row.

use super::*;

/// One random event in the life of a row.
#[derive(Debug, Clone)]
enum Event {
    Open {
        kind: OpenKind,
        first_node: u128,
        generation: u64,
    },
    /// COMMIT of the ballot that was granted so many OPENs ago.
    Commit {
        grants_ago: usize,
        nodes: usize,
    },
    Delete,
}

fn any_event() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(vec![
        OpenKind::Upload,
        OpenKind::Repair,
        OpenKind::Convert,
        OpenKind::Abort,
    ]);
    prop_oneof![
        4 => (kind, 1u128..6, 1u64..3).prop_map(|(kind, first_node, generation)| Event::Open { kind, first_node, generation }),
        4 => (0usize..4, 1usize..4).prop_map(|(grants_ago, nodes)| Event::Commit { grants_ago, nodes }),
        1 => Just(Event::Delete),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_epochs_grow_and_no_live_object_is_garbage(events in prop::collection::vec(any_event(), 1..40)) {
        let mut row = Row::default();
        let mut grants: Vec<(Ballot, Vec<u128>)> = Vec::new();
        let mut garbage = BTreeSet::new();
        for event in events {
            let before = row.clone();
            match event {
                Event::Open { kind, first_node, generation } => {
                    let nodes: Vec<u128> = (first_node..first_node + 3).collect();
                    let request = OpenRequest { generation, ..request(kind, &nodes) };
                    if let Ok(opened) = open(chunk(), &row, &OpenRequest { min_ack: 1, ..request }) {
                        garbage.extend(opened.garbage);
                        grants.push((opened.ballot, nodes));
                        row = opened.row;
                    }
                }
                Event::Commit { grants_ago, nodes: count } => {
                    let Some((ballot, nodes)) = grants.iter().rev().nth(grants_ago) else { continue };
                    let nodes = &nodes[..count];
                    let proof = receipts(nodes, *ballot, b"bytes");
                    if let Ok(done) = commit(chunk(), &row, *ballot, &value(nodes, *ballot, b"bytes"), &proof, live) {
                        garbage.extend(done.garbage);
                        row = done.row;
                    }
                }
                Event::Delete => {
                    let deleted = delete(chunk(), &row, &request(OpenKind::Delete, &[])).unwrap();
                    garbage.extend(deleted.garbage);
                    row = deleted.row;
                }
            }
            prop_assert!(row.is_consistent());
            prop_assert!(row.epoch() >= before.epoch() && row.promised >= before.promised);
            if row.epoch() == before.epoch() {
                prop_assert_eq!(&row.accepted, &before.accepted);
            }
            prop_assert!(!before.is_deleted() || row.is_deleted());
            // I3: nothing that is live, and nothing that may still become so, was ever called garbage.
            for part in row.placement().map_or(&[][..], |placement| &placement.parts) {
                let live = Garbage { node: part.node, object: chunk(), ballot: part.object_ballot };
                prop_assert!(!garbage.contains(&live));
            }
            if row.open.is_some() {
                prop_assert!(garbage.iter().all(|garbage| garbage.ballot < row.promised));
            }
        }
    }
}
