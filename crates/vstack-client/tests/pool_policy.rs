//! The pooled policy, told facts one by one.

use std::collections::{BTreeMap, BTreeSet};

use vstack_client::policy::{
    Action, AttemptId, BLOCK_BYTES, BlockRange, CancelReason, ChunkSpec, Fact, Failure, Micros, NodeIndex,
    NodeRecords, Part, Piece, Pool, PoolConfig, Prior, Shape, Start,
};

/// Blocks of a chunk's part.
const BLOCKS: u32 = 40;

/// A session's side of the conversation.
struct Told {
    pool: Pool,
    records: NodeRecords,
    now: Micros,
    running: BTreeMap<AttemptId, Start>,
    cancelled: Vec<(NodeIndex, u32, CancelReason)>,
    actions: Vec<Action>,
}

impl Told {
    fn new(shape: &Shape) -> Self {
        Self::knowing(shape, NodeRecords::default())
    }

    /// Eight chunks of this shape.
    fn knowing(shape: &Shape, records: NodeRecords) -> Self {
        let spec = |seq: u64| ChunkSpec {
            start: Micros::from_ms(seq * 4_000),
            end: Micros::from_ms((seq + 1) * 4_000),
            shape: shape.clone(),
        };
        let mut told = Self {
            pool: Pool::new(PoolConfig::default(), (0..8).map(spec).collect()),
            records,
            now: Micros(1),
            running: BTreeMap::new(),
            cancelled: Vec::new(),
            actions: Vec::new(),
        };
        told.tell(Fact::Tick);
        told
    }

    fn tell(&mut self, fact: Fact) {
        if let Fact::Done { attempt, .. } | Fact::Failed { attempt, .. } = fact {
            self.running.remove(&attempt);
        }
        self.actions = self.pool.apply(self.now, &mut self.records, fact);
        for action in &self.actions {
            match action {
                Action::Start(start) => {
                    self.running.insert(start.attempt, start.clone());
                }
                Action::Cancel {
                    attempt,
                    node,
                    seq,
                    why,
                } => {
                    self.running.remove(attempt);
                    self.cancelled.push((*node, *seq, *why));
                }
                _ => {}
            }
        }
    }

    fn at(&self, node: u16) -> Vec<Start> {
        let there = self
            .running
            .values()
            .filter(|start| start.node == NodeIndex(node));
        there.cloned().collect()
    }

    fn first_at(&self, node: u16) -> Start {
        self.at(node).first().expect("it is asked for something").clone()
    }

    /// All of a range comes, right.
    fn deliver(&mut self, start: &Start) {
        let range = blocks(start);
        let (attempt, bytes) = (start.attempt, u64::from(range.len()) * BLOCK_BYTES);
        self.tell(Fact::Progress { attempt, bytes });
        self.tell(Fact::Verified {
            attempt,
            blocks: range,
        });
        self.tell(Fact::Done {
            attempt,
            bytes,
            elapsed: Micros::from_ms(50),
        });
    }
}

fn blocks(start: &Start) -> BlockRange {
    match start.piece {
        Piece::Blocks(range) => range,
        Piece::Chunk => unreachable!("the pool asks for blocks"),
    }
}

fn copies(nodes: &[u16]) -> Shape {
    let nodes = nodes.iter().copied().map(NodeIndex);
    Shape::copies(u64::from(BLOCKS) * BLOCK_BYTES, nodes)
}

/// The nodes' shards, and which.
fn shards(of: &[(u16, u8)]) -> Shape {
    let part_bytes = u64::from(BLOCKS) * BLOCK_BYTES;
    let part = |(node, shard): &(u16, u8)| Part {
        node: NodeIndex(*node),
        shard: Some(*shard),
    };
    Shape {
        chunk_bytes: 3 * part_bytes,
        part_bytes,
        needed: 3,
        parts: of.iter().map(part).collect(),
    }
}

/// After the chunk at the playhead has moved, nothing is cancelled but what is under way at `gone`, and what comes from
/// those who stay counts.
fn check_move(from: &Shape, to: &Shape, gone: &[u16]) {
    let mut told = Told::new(from);
    let nodes: Vec<u16> = from.nodes().map(|node| node.0).collect();
    for node in &nodes {
        assert!(!told.at(*node).is_empty(), "node {node} is idle");
    }
    told.tell(Fact::Placed {
        seq: 0,
        shape: to.clone(),
    });
    let mut cancelled: Vec<u16> = told.cancelled.iter().map(|(node, ..)| node.0).collect();
    cancelled.dedup();
    assert_eq!(cancelled, gone);
    assert!(
        told.cancelled
            .iter()
            .all(|(_, seq, why)| (*seq, *why) == (0, CancelReason::Moved))
    );
    let mut brought: Vec<(u16, usize)> = Vec::new();
    let stays = |start: &&Start| start.seq == 0 && from.part_on(start.node) == to.part_on(start.node);
    for start in told.running.clone().values().filter(stays) {
        told.deliver(start);
        brought.extend(blocks(start).blocks().map(|block| (start.node.0, block)));
    }
    assert!(!brought.is_empty());
    for start in told.running.values().filter(|start| start.seq == 0) {
        let again = |(node, block): &(u16, usize)| {
            let same = to.needed == 1 || *node == start.node.0;
            same && blocks(start).blocks().contains(block)
        };
        assert!(
            !brought.iter().any(again),
            "{start:?} was brought already: {brought:?}"
        );
    }
}

#[test]
fn nodes_that_are_busy_with_what_is_played_later_are_asked_for_what_is_played_first() {
    let nodes = [0, 1, 2].map(NodeIndex);
    let mut told = Told::new(&Shape::copies(2 * BLOCK_BYTES, nodes));
    let of = |told: &Told, seq: u32| {
        let starts = told.running.values().filter(|start| start.seq == seq);
        starts.cloned().collect::<Vec<Start>>()
    };
    for start in of(&told, 0) {
        told.now = told.now + Micros::from_ms(20);
        told.deliver(&start);
    }
    told.tell(Fact::Finished { seq: 0, right: true });
    told.tell(Fact::Starved(false));
    let needed = of(&told, 1);
    let node = needed.first().expect("the next chunk is asked for").node;
    for start in needed.iter().filter(|start| start.node == node) {
        told.tell(Fact::Failed {
            attempt: start.attempt,
            failure: Failure::Broken { received_bytes: 0 },
        });
    }
    let elsewhere: BTreeSet<u32> = of(&told, 1)
        .iter()
        .filter(|start| start.node != node)
        .flat_map(|start| blocks(start).first..blocks(start).end)
        .collect();
    assert_eq!(elsewhere, BTreeSet::from([0, 1]), "{:?}", told.running);
}

#[test]
fn answers_that_bring_a_lot_do_not_put_off_the_look_at_those_that_bring_nothing() {
    let mut told = Told::new(&copies(&[0, 1, 2]));
    let starts: Vec<Start> = told.running.values().cloned().collect();
    for start in &starts {
        told.now = told.now + Micros::from_ms(20);
        told.deliver(start);
    }
    assert!(told.now > Micros::from_ms(100));
    let wake = told.actions.iter().find_map(|action| match action {
        Action::WakeAt(at) => Some(*at),
        _ => None,
    });
    assert_eq!(wake, Some(told.now), "it should have looked a while ago");
}

#[test]
fn a_block_that_is_here_and_not_checked_yet_is_not_thrown_away_when_the_rest_of_its_range_comes_from_elsewhere()
 {
    let mut told = Told::new(&copies(&[0, 1, 2]));
    let slow = told
        .running
        .values()
        .find(|start| blocks(start).len() == 2)
        .cloned();
    let slow = slow.expect("a second request has two blocks");
    let attempt = slow.attempt;
    let quick = (slow.node.0 + 1) % 3;
    told.tell(Fact::FirstByte { attempt });
    let mut hedge = None;
    for _ in 0..20 {
        hedge = told
            .at(quick)
            .into_iter()
            .find(|start| start.hedges == Some(attempt));
        if hedge.is_some() {
            break;
        }
        told.now = told.now + Micros::from_ms(20);
        let start = told.first_at(quick);
        told.deliver(&start);
    }
    let hedge = hedge.expect("the quick node helps");
    assert_eq!(
        blocks(&hedge).first,
        blocks(&slow).first + 1,
        "with the second block"
    );
    let (first, bytes) = (blocks(&slow).first, BLOCK_BYTES + 1);
    told.tell(Fact::Progress { attempt, bytes });
    told.deliver(&hedge);
    assert!(told.running.contains_key(&attempt), "the first block is lost");
    told.tell(Fact::Verified {
        attempt,
        blocks: BlockRange {
            first,
            end: first + 1,
        },
    });
    assert!(!told.running.contains_key(&attempt), "nothing is left to bring");
}

#[test]
fn a_copy_that_joins_or_a_list_in_another_order_cancels_nothing() {
    check_move(&copies(&[0, 1, 2]), &copies(&[0, 1, 2, 3]), &[]);
    check_move(&copies(&[0, 1, 2]), &copies(&[2, 3, 1, 0]), &[]);
}

#[test]
fn a_copy_that_is_gone_costs_its_own_requests_only() {
    check_move(&copies(&[0, 1, 2]), &copies(&[2, 0]), &[1]);
    check_move(&copies(&[0, 1, 2]), &copies(&[3, 1]), &[0, 2]);
}

#[test]
fn a_shard_that_has_moved_costs_the_requests_at_its_old_place_only() {
    let five: Vec<(u16, u8)> = (0..5).map(|shard| (u16::from(shard), shard)).collect();
    let mut moved = five.clone();
    moved[1] = (7, 1);
    moved.reverse();
    check_move(&shards(&five), &shards(&moved), &[1]);
    // A node that has another shard now sends other bytes.
    let mut swapped = five.clone();
    (swapped[2].1, swapped[3].1) = (3, 2);
    check_move(&shards(&five), &shards(&swapped), &[2, 3]);
}

/// Node 0 sends the first block of chunk `seq` wrong that it is asked for.
fn spoil(told: &mut Told, seq: u32) {
    let start = told.at(0).into_iter().find(|start| start.seq == seq);
    let start = start.expect("node 0 is asked for this chunk");
    told.tell(Fact::Progress {
        attempt: start.attempt,
        bytes: BLOCK_BYTES,
    });
    told.tell(Fact::BadBlock {
        attempt: start.attempt,
        block: blocks(&start).first,
    });
}

#[test]
fn a_node_with_one_rotten_chunk_goes_on_with_the_others() {
    let mut told = Told::new(&copies(&[0, 1, 2]));
    spoil(&mut told, 0);
    assert!(told.at(0).iter().all(|start| start.seq != 0), "{:?}", told.at(0));
    assert!(!told.at(0).is_empty(), "it is asked for later chunks at once");
    // Nor is it asked for more of that chunk while others bring it.
    for _ in 0..40 {
        told.now = told.now + Micros::from_ms(50);
        for start in told.running.clone().into_values() {
            told.deliver(&start);
        }
        assert!(told.at(0).iter().all(|start| start.seq != 0), "{:?}", told.at(0));
    }
}

#[test]
fn a_node_whose_chunks_are_wrong_one_after_another_is_left_alone_with_all() {
    let mut told = Told::new(&copies(&[0, 1, 2]));
    spoil(&mut told, 0);
    let second = told.first_at(0).seq;
    spoil(&mut told, second);
    let third = told.first_at(0).seq;
    assert!(second != 0 && third != second, "{second}, {third}");
    spoil(&mut told, third);
    assert!(told.at(0).is_empty(), "{:?}", told.at(0));
    let rests_until = told.now + Micros::from_ms(3_900);
    while told.now < rests_until {
        told.now = told.now + Micros::from_ms(50);
        for start in told.running.clone().into_values() {
            told.deliver(&start);
        }
        assert!(told.at(0).is_empty(), "{:?}", told.at(0));
    }
}

#[test]
fn the_only_node_that_is_left_is_asked_again_soon_after_a_wrong_block() {
    let mut told = Told::new(&copies(&[0]));
    spoil(&mut told, 0);
    let until = told.now + Micros::from_ms(2_500);
    while told.at(0).iter().all(|start| start.seq != 0) {
        told.now = told.now + Micros::from_ms(50);
        told.tell(Fact::Tick);
        assert!(told.now < until, "it is given up");
    }
}

#[test]
fn a_node_with_a_wrong_chunk_is_asked_for_it_soon_when_the_others_fail() {
    let mut told = Told::new(&copies(&[0, 1]));
    spoil(&mut told, 0);
    for start in told.at(1) {
        told.tell(Fact::Failed {
            attempt: start.attempt,
            failure: Failure::Connect,
        });
    }
    let until = told.now + Micros::from_ms(2_500);
    while told.at(0).iter().all(|start| start.seq != 0) {
        told.now = told.now + Micros::from_ms(50);
        for start in told.at(0).into_iter().filter(|start| start.seq != 0) {
            told.deliver(&start);
        }
        for start in told.at(1) {
            told.tell(Fact::Failed {
                attempt: start.attempt,
                failure: Failure::Connect,
            });
        }
        told.tell(Fact::Tick);
        assert!(told.now < until, "nobody is asked for chunk 0");
    }
}

#[test]
fn a_node_that_was_slow_to_answer_before_leaves_the_first_blocks_to_others() {
    let first_block_at = |slow: Option<u16>| {
        let mut records = NodeRecords::default();
        for node in 0..3 {
            let record = records.record_mut(NodeIndex(node));
            record.ping_answered(Micros(0), Micros::from_ms(20));
            let first_byte = Micros::from_ms(if Some(node) == slow { 600 } else { 20 });
            record.remember(
                Micros(0),
                Prior {
                    bytes_per_sec: 1e6,
                    first_byte,
                    age: Micros(0),
                },
            );
        }
        let told = Told::knowing(&copies(&[0, 1, 2]), records);
        let first = told
            .running
            .values()
            .min_by_key(|start| (start.seq, blocks(start).first));
        first.expect("something is asked for").node.0
    };
    assert_eq!(first_block_at(None), 0);
    assert_eq!(first_block_at(Some(0)), 1);
}

/// Before it, playback does not begin.
const GATE_BLOCKS: usize = 8;

#[test]
fn on_the_way_to_the_start_no_block_is_left_to_a_node_that_turned_out_slow() {
    let mut told = Told::new(&copies(&[0, 1, 2]));
    assert_eq!(told.at(0).len(), 2, "node 0 is asked for the first blocks");
    let (began, mut had, mut come) = (told.now, BTreeSet::new(), BTreeMap::new());
    while (0..GATE_BLOCKS).any(|block| !had.contains(&block)) {
        assert!(
            told.now - began < Micros::from_ms(350),
            "{had:?} at {:?}",
            told.now
        );
        told.now = told.now + Micros::from_ms(50);
        // The others bring a request each; node 0 has 2 Mbit/s for all that it was asked for.
        for start in [told.at(1), told.at(2)]
            .iter()
            .filter_map(|starts| starts.first())
        {
            told.deliver(start);
            had.extend(blocks(start).blocks());
        }
        let slow = told.at(0);
        for start in &slow {
            let bytes = come.entry(start.attempt).or_insert(0_u64);
            *bytes += 12_500 / slow.len() as u64;
            let (attempt, bytes) = (start.attempt, *bytes);
            told.tell(Fact::Progress { attempt, bytes });
        }
        told.tell(Fact::Tick);
    }
}
