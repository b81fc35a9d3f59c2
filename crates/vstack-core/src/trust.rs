//! Nodes that gave out wrong bytes: three times within the quarantine, and nothing they hold counts until it is over.
//!
//! One wrong answer may be a turned bit on the way; its part is made again and that is that. A node that keeps on lying
//! would be given the same parts again and again. Should most nodes seem to lie, the reader is more likely to be broken
//! than they are, and all are believed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::NodeId;
use crate::time::UnixMillis;

/// So many wrong answers within the quarantine; the latest so many of a node are kept.
pub const LIES: usize = 3;

/// Wrong answers of nodes, as they were met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distrust {
    /// When each node lied last, the latest [`LIES`] of them.
    lies: BTreeMap<NodeId, VecDeque<UnixMillis>>,
}

impl Distrust {
    /// A verified read of this node's part found other bytes than the placement names.
    pub fn lied(&mut self, node: NodeId, now: UnixMillis) {
        let lies = self.lies.entry(node).or_default();
        lies.push_back(now);
        while lies.len() > LIES {
            lies.pop_front();
        }
    }

    /// Its operator trusts it again.
    pub fn forgive(&mut self, node: NodeId) {
        self.lies.remove(&node);
    }

    /// Nodes that are not trusted now, among so many that belong to the cluster.
    #[must_use]
    pub fn distrusted(&self, members: usize, quarantine_ms: u64, now: UnixMillis) -> BTreeSet<NodeId> {
        let lies_on = |lies: &VecDeque<UnixMillis>| {
            lies.len() == LIES
                && lies
                    .front()
                    .is_some_and(|first| now.since(*first) < quarantine_ms)
        };
        let liars: BTreeSet<NodeId> = self
            .lies
            .iter()
            .filter(|(_, lies)| lies_on(lies))
            .map(|(node, _)| *node)
            .collect();
        match 2 * liars.len() > members {
            true => BTreeSet::new(),
            false => liars,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const QUARANTINE_MS: u64 = 600_000;

    fn check(lies: &[(u128, u64)], at: u64, expected: &[u128]) {
        let mut distrust = Distrust::default();
        for (node, ms) in lies {
            distrust.lied(NodeId(Uuid::from_u128(*node)), UnixMillis(*ms));
        }
        let found = distrust.distrusted(5, QUARANTINE_MS, UnixMillis(at));
        let found: Vec<u128> = found.iter().map(|node| node.0.as_u128()).collect();
        assert_eq!(found, expected, "{lies:?} at {at}");
    }

    #[test]
    fn three_lies_within_the_quarantine_and_it_ends_by_itself() {
        check(&[(1, 0), (1, 1)], 2, &[]);
        check(&[(1, 0), (1, 1), (1, 2)], 3, &[1]);
        check(&[(1, 0), (1, 1), (1, 2)], QUARANTINE_MS, &[]);
        check(&[(1, 0), (1, 1), (1, 2), (1, 500)], QUARANTINE_MS, &[1]);
    }

    #[test]
    fn when_most_nodes_seem_to_lie_the_reader_does() {
        let lies = |nodes: u128| -> Vec<_> { (1..=nodes).flat_map(|node| [(node, 0); 3]).collect() };
        check(&lies(2), 1, &[1, 2]);
        check(&lies(3), 1, &[]);
    }

    #[test]
    fn an_operator_may_forgive() {
        let (node, mut distrust) = (NodeId(Uuid::from_u128(1)), Distrust::default());
        (0..3).for_each(|ms| distrust.lied(node, UnixMillis(ms)));
        distrust.forgive(node);
        assert_eq!(
            distrust.distrusted(5, QUARANTINE_MS, UnixMillis(3)),
            BTreeSet::new()
        );
    }
}
