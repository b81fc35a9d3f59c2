//! The stage: a catalogue's row, storage nodes and uploaders, moved step by step by a script. Every decision is the
//! core's; the script says only who does what, and what gets lost.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::id::{ChunkId, Incarnation, NodeId, VideoId};
use vstack_core::keys::ClusterKey;
use vstack_core::paxos::acceptor::{self, Fence, Object, Verdict};
use vstack_core::paxos::master::{self, Garbage, Knowledge, OpenRequest, Row, Value, Witness};
use vstack_core::paxos::trace::Trace;
use vstack_core::paxos::{DeleteOrder, Grant, Held, OpenKind, Receipt, Target};
use vstack_core::placement::{Part, Placement};
use vstack_core::time::UnixMillis;

pub(super) const CATALOGUE: &str = "catalogue";
const LEASE_MS: u64 = 60_000;

#[derive(Debug, Default)]
struct StageNode {
    objects: BTreeMap<Ballot, ChunkDigest>,
    deleted: BTreeSet<Ballot>,
    fence: Fence,
    life: u128,
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) trace: Trace,
    key: ClusterKey,
    pub(super) row: Row,
    generation: u64,
    now: UnixMillis,
    nodes: BTreeMap<usize, StageNode>,
    garbage: Vec<Garbage>,
}

/// Whether a message arrives, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fortune {
    Arrives,
    Lost,
    AnswerLost,
}

pub(super) fn node_id(number: usize) -> NodeId {
    NodeId(Uuid::from_u128(number as u128))
}

fn node_number(node: NodeId) -> usize {
    usize::try_from(node.0.as_u128()).unwrap_or_default()
}

fn chunk() -> ChunkId {
    ChunkId::media(VideoId(Uuid::from_u128(1)), 0)
}

/// `1.2`: the second ballot of the first generation.
pub(super) fn short(ballot: Ballot) -> String {
    format!("{ballot:?}")
        .trim_start_matches("Ballot(")
        .trim_end_matches(')')
        .to_owned()
}

fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn on_nodes(nodes: &[usize]) -> String {
    let word = if nodes.len() == 1 { "node" } else { "nodes" };
    format!("{word} {}", list(nodes))
}

fn node_name(number: usize) -> String {
    format!("node {number}")
}

impl Stage {
    pub(super) fn new(name: &str, title: &str) -> Self {
        Self {
            trace: Trace::new(name, title),
            key: ClusterKey::from_bytes(&[7; 32]).expect("32 bytes that are not zero"),
            row: Row::default(),
            generation: 1,
            now: UnixMillis(1_000_000),
            nodes: BTreeMap::new(),
            garbage: Vec::new(),
        }
    }

    fn node(&mut self, number: usize) -> &mut StageNode {
        self.nodes.entry(number).or_default()
    }

    pub(super) fn say(&mut self, arrow: (&str, &str), message: impl Into<String>, effect: impl Into<String>) {
        self.trace.push(arrow, message, effect);
    }

    pub(super) fn wait_for_the_lease(&mut self) {
        self.now = self.now + LEASE_MS + 1;
        self.say(
            (CATALOGUE, CATALOGUE),
            "time",
            "the lease of the open ballot ends",
        );
    }

    pub(super) fn open(
        &mut self,
        who: &str,
        kind: OpenKind,
        nodes: &[usize],
        fortune: Fortune,
    ) -> Option<Grant> {
        if fortune == Fortune::Lost {
            self.say((who, CATALOGUE), "OPEN", "lost on the way");
            return None;
        }
        let targets: Vec<Target> = nodes.iter().map(|&number| node_id(number).into()).collect();
        let kept = self.row.placement().map_or(0, |placement| placement.parts.len());
        let request = OpenRequest {
            kind,
            owner: who.to_owned(),
            expect_epoch: None,
            nodes: targets.clone(),
            min_ack: u8::try_from(nodes.len().max(kept)).unwrap_or(u8::MAX),
            generation: self.generation,
            now: self.now,
            lease_ms: LEASE_MS,
            knowledge: Knowledge::Complete,
        };
        match master::open(chunk(), &self.row, &request) {
            Ok(opened) => {
                let replaced = opened.replaced.as_ref().map_or_else(String::new, |replaced| {
                    format!("; {} can never commit any more", short(replaced.ballot))
                });
                let grant = Grant::signed(
                    &self.key.grant_key(),
                    chunk(),
                    (opened.ballot, self.row.epoch()),
                    targets,
                    request.min_ack,
                    self.now + LEASE_MS,
                );
                let lost = if fortune == Fortune::AnswerLost {
                    "; the answer is lost"
                } else {
                    ""
                };
                let effect = format!(
                    "granted ballot {} on {}{replaced}{lost}",
                    short(opened.ballot),
                    on_nodes(nodes)
                );
                self.say((who, CATALOGUE), format!("OPEN {}", kind.as_str()), effect);
                self.row = opened.row;
                self.garbage.extend(opened.garbage);
                (fortune == Fortune::Arrives).then_some(grant)
            }
            Err(conflict) => {
                self.say(
                    (who, CATALOGUE),
                    format!("OPEN {}", kind.as_str()),
                    format!("refused: {conflict}"),
                );
                None
            }
        }
    }

    pub(super) fn prepare(&mut self, who: &str, grant: &Grant, number: usize) -> Vec<Ballot> {
        let held: Vec<Held> = self
            .node(number)
            .objects
            .iter()
            .map(|(ballot, digest)| Held {
                object: chunk(),
                ballot: *ballot,
                digest: *digest,
            })
            .collect();
        let holds: Vec<Ballot> = held.iter().map(|held| held.ballot).collect();
        let effect = match self.node(number).fence.prepare(grant, node_id(number), held) {
            Ok(_) if holds.is_empty() => "promised; it holds nothing".to_owned(),
            Ok(_) => format!(
                "promised; it holds the bytes under {}",
                list(holds.iter().map(|ballot| short(*ballot)))
            ),
            Err(refusal) => format!("refused: {}", shorten(&refusal.to_string())),
        };
        self.say(
            (who, &node_name(number)),
            format!("PREPARE {}", short(grant.ballot)),
            effect,
        );
        holds
    }

    pub(super) fn accept(
        &mut self,
        who: &str,
        grant: &Grant,
        number: usize,
        bytes: &[u8],
        fortune: Fortune,
    ) -> Option<Receipt> {
        let message = format!("ACCEPT {}", short(grant.ballot));
        if fortune == Fortune::Lost {
            self.say((who, &node_name(number)), message, "lost on the way");
            return None;
        }
        let digest = ChunkDigest::of(bytes);
        let stored = self
            .node(number)
            .objects
            .keys()
            .copied()
            .max()
            .unwrap_or_default();
        let admitted = self
            .node(number)
            .fence
            .admit(grant, chunk(), node_id(number), stored);
        let verdict = admitted.and_then(|()| acceptor::accept(self.object(number, grant.ballot), &digest));
        let (effect, receipt) = match verdict {
            Ok(Verdict::Write) => {
                self.node(number).objects.insert(grant.ballot, digest);
                (
                    "stored and synced, receipt".to_owned(),
                    Some(self.receipt(number, grant.ballot, digest)),
                )
            }
            Ok(Verdict::Resend(digest)) => (
                "it is there already, the receipt again".to_owned(),
                Some(self.receipt(number, grant.ballot, digest)),
            ),
            Err(refusal) => (format!("refused: {}", shorten(&refusal.to_string())), None),
        };
        let lost = if fortune == Fortune::AnswerLost {
            "; the answer is lost"
        } else {
            ""
        };
        self.say((who, &node_name(number)), message, format!("{effect}{lost}"));
        receipt.filter(|_| fortune == Fortune::Arrives)
    }

    pub(super) fn adopt(&mut self, who: &str, grant: &Grant, number: usize, from: Ballot) -> Option<Receipt> {
        let stored = self
            .node(number)
            .objects
            .keys()
            .copied()
            .max()
            .unwrap_or_default();
        let admitted = self
            .node(number)
            .fence
            .admit(grant, chunk(), node_id(number), stored);
        let (source, target) = (self.object(number, from), self.object(number, grant.ballot));
        let adopted = admitted.and_then(|()| acceptor::adopt(source, None, target));
        let (effect, receipt) = match adopted {
            Ok((digest, _)) => {
                self.node(number).objects.insert(grant.ballot, digest);
                let effect = format!(
                    "the bytes of {} are named {} too, receipt",
                    short(from),
                    short(grant.ballot)
                );
                (effect, Some(self.receipt(number, grant.ballot, digest)))
            }
            Err(refusal) => (format!("refused: {}", shorten(&refusal.to_string())), None),
        };
        self.say(
            (who, &node_name(number)),
            format!("ADOPT {}", short(grant.ballot)),
            effect,
        );
        receipt
    }

    fn object(&mut self, number: usize, ballot: Ballot) -> Object {
        let node = self.node(number);
        match node.objects.get(&ballot) {
            Some(digest) => Object::Stored(*digest),
            None if node.deleted.contains(&ballot) => Object::Deleted,
            None => Object::Absent,
        }
    }

    fn receipt(&self, number: usize, ballot: Ballot, digest: ChunkDigest) -> Receipt {
        let node = node_id(number);
        Receipt::signed(
            &self.key.receipt_key(node),
            (chunk(), ballot),
            (node, self.incarnation(number)),
            digest,
        )
    }

    fn incarnation(&self, number: usize) -> Incarnation {
        Incarnation(Uuid::from_u128(
            self.nodes.get(&number).map_or(0, |node| node.life),
        ))
    }

    /// COMMIT of the parts that the receipts prove, beside the parts of `kept`.
    pub(super) fn commit(
        &mut self,
        who: &str,
        grant: &Grant,
        kept: &[Part],
        receipts: &[Receipt],
        fortune: Fortune,
    ) -> bool {
        let message = format!("COMMIT {}", short(grant.ballot));
        if fortune == Fortune::Lost {
            self.say((who, CATALOGUE), message, "lost on the way");
            return false;
        }
        let value = self.value(grant.ballot, kept, receipts);
        let witnesses: Vec<Witness> = receipts
            .iter()
            .map(|receipt| Witness::check(receipt.clone(), &self.key).expect("the stage signs"))
            .collect();
        let live = |node: NodeId| Some(self.incarnation(node_number(node)));
        match master::commit(chunk(), &self.row, grant.ballot, &value, &witnesses, live) {
            Ok(decided) => {
                let parts = decided
                    .accepted
                    .value
                    .placement()
                    .map_or_else(String::new, |placement| {
                        list(placement.parts.iter().map(|part| node_number(part.node)))
                    });
                let word = if decided.replayed {
                    "decided before"
                } else {
                    "decided"
                };
                let lost = if fortune == Fortune::AnswerLost {
                    "; the answer is lost"
                } else {
                    ""
                };
                let epoch = short(decided.accepted.ballot);
                self.say(
                    (who, CATALOGUE),
                    message,
                    format!("{word}: epoch {epoch} on nodes {parts}{lost}"),
                );
                self.garbage.extend(decided.garbage);
                self.row = decided.row;
                fortune == Fortune::Arrives
            }
            Err(conflict) => {
                self.say(
                    (who, CATALOGUE),
                    message,
                    format!("refused: {}", shorten(&conflict.to_string())),
                );
                false
            }
        }
    }

    fn value(&self, ballot: Ballot, kept: &[Part], receipts: &[Receipt]) -> Value {
        let digest = receipts.first().map(|receipt| receipt.digest);
        let digest = digest.or_else(|| self.row.placement().map(|placement| placement.digest));
        let nodes: Vec<NodeId> = receipts.iter().map(|receipt| receipt.node).collect();
        let mut placement =
            Placement::replicated(digest.unwrap_or_else(|| ChunkDigest::of(b"")), ballot, &nodes);
        placement.parts.splice(0..0, kept.iter().copied());
        Value::Placed(placement)
    }

    pub(super) fn delete(&mut self, who: &str) {
        let request = OpenRequest {
            kind: OpenKind::Delete,
            owner: who.to_owned(),
            expect_epoch: None,
            nodes: Vec::new(),
            min_ack: 0,
            generation: self.generation,
            now: self.now,
            lease_ms: 0,
            knowledge: Knowledge::Complete,
        };
        let deleted = master::delete(chunk(), &self.row, &request).expect("a deletion is never refused");
        self.row = deleted.row;
        self.garbage.extend(deleted.garbage);
        let effect = format!(
            "decided: tombstone, epoch {}; its id is never used again",
            short(self.row.epoch())
        );
        self.say((who, CATALOGUE), "DELETE", effect);
    }

    /// The orders for everything that was let go. One that finds nothing says so.
    pub(super) fn collect(&mut self) {
        let mut garbage = std::mem::take(&mut self.garbage);
        garbage.sort();
        garbage.dedup();
        for Garbage { node, object, ballot } in garbage {
            let order = DeleteOrder::signed(&self.key.grant_key(), object, ballot, node);
            let number = node_number(node);
            let there = self.object(number, ballot);
            let removed = self.node(number).fence.remove(&order, node, there);
            let had = self.node(number).objects.remove(&ballot).is_some();
            if had {
                self.node(number).deleted.insert(ballot);
            }
            let effect = match (removed.is_ok(), had) {
                (true, true) => format!("the object of {} is gone; nothing names it", short(ballot)),
                _ => "nothing is there".to_owned(),
            };
            self.say(
                (CATALOGUE, &node_name(number)),
                format!("GC {}", short(ballot)),
                effect,
            );
        }
    }

    /// A node's disk is replaced by an empty one.
    pub(super) fn replace_disk(&mut self, number: usize) {
        let life = self.node(number).life + 1;
        self.nodes.insert(
            number,
            StageNode {
                life,
                ..StageNode::default()
            },
        );
        let name = node_name(number);
        self.say(
            (&name, &name),
            "new disk",
            "everything on it is lost; a new incarnation begins",
        );
    }

    /// A restore puts the row back; what was open in it is closed unless told otherwise.
    pub(super) fn restore(&mut self, backup: &Row, close_open: bool) {
        self.row = backup.clone();
        self.generation += 1_000;
        self.garbage.clear();
        let effect = if close_open {
            self.row.open = None;
            "the row is as it was; the ballot that was open is closed"
        } else {
            "the row is as it was, with its open ballot"
        };
        self.say((CATALOGUE, CATALOGUE), "restore", effect);
    }

    /// Compares the decided placement with what nodes hold, and ends the story.
    pub(super) fn end(mut self) -> Trace {
        let parts = self
            .row
            .placement()
            .map_or_else(Vec::new, |placement| placement.parts.clone());
        let missing = parts.iter().filter(|part| {
            self.nodes
                .get(&node_number(part.node))
                .is_none_or(|node| !node.objects.contains_key(&part.object_ballot))
        });
        let missing = list(missing.map(|part| node_number(part.node)));
        if !missing.is_empty() {
            self.trace.violated = Some(format!("I1: committed parts are not on nodes {missing}"));
        }
        self.trace
    }

    pub(super) fn parts_without(&self, number: usize) -> Vec<Part> {
        let parts = self
            .row
            .placement()
            .map_or_else(Vec::new, |placement| placement.parts.clone());
        parts
            .into_iter()
            .filter(|part| part.node != node_id(number))
            .collect()
    }
}

/// Ballots are written short in a diagram.
fn shorten(text: &str) -> String {
    text.split(' ')
        .map(|word| match word.parse::<Ballot>() {
            Ok(ballot) if ballot.generation() > 0 => short(ballot),
            _ => word.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(" ")
}
