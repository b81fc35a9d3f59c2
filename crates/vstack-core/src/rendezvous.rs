//! Which nodes take the parts of a chunk: weighted rendezvous hashing over free room and failure domains.
//!
//! Each node draws a number from its id and the chunk's, and the numbers are set against the share of all chunks that
//! the node should have a part of; the lowest win. A chunk takes several *distinct* nodes, and picking one after the
//! other by room alone would give small nodes more than their share.
//! Pareto sampling keeps to the shares. Between nodes of equal room the order never changes when one joins or leaves.
//!
//! Source: Rosen, "On sampling with probability proportional to size" (1997).

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ChunkId, NodeId};
use crate::limits::MAX_LABEL_BYTES;

/// What fails together: a host, a rack. Equal labels are one domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(u64);

impl Domain {
    /// The domain with this label.
    #[must_use]
    pub fn of(label: &str) -> Self {
        // FNV-1a, then mixed: labels differ in their last letters.
        let hash = label.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mix(hash))
    }

    /// The domain of a node about which nothing else is known: the host in its URL.
    #[must_use]
    pub fn of_url(url: &str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or(rest);
        let host = authority
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(authority, |(host, _)| host);
        Self::of(host)
    }
}

/// Whether operators may call a failure domain so: printable, without blanks, not too long for a table.
#[must_use]
pub fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_LABEL_BYTES
        && !text
            .chars()
            .any(|letter| letter.is_whitespace() || letter.is_control())
}

/// A node that could take a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub node: NodeId,
    /// How much it can take, in any unit that all candidates share. A node without room gets nothing.
    pub room: f64,
    pub domain: Domain,
}

/// Picks `count` distinct nodes for parts of `chunk`, spread over as many failure domains as there are. Fewer than
/// `count` come back when there are not enough nodes with room.
#[must_use]
pub fn choose_nodes(chunk: ChunkId, candidates: &[Candidate], count: usize) -> Vec<NodeId> {
    choose_beside(chunk, candidates, count, &[])
}

/// The same for a chunk that has parts in the domains `kept` already, one entry a part. The nodes that hold them must
/// not be among the candidates.
#[must_use]
pub fn choose_beside(chunk: ChunkId, candidates: &[Candidate], count: usize, kept: &[Domain]) -> Vec<NodeId> {
    let ranked = ranked(chunk, candidates, count);
    let mut parts_in: BTreeMap<Domain, usize> = BTreeMap::new();
    for domain in kept {
        *parts_in.entry(*domain).or_default() += 1;
    }
    let (mut chosen, mut used) = (Vec::new(), BTreeSet::new());
    // A second part in a domain is for when every domain has one, and so on.
    for most in 1..=count + kept.len() {
        for candidate in &ranked {
            if chosen.len() == count {
                return chosen;
            }
            let parts = parts_in.entry(candidate.domain).or_default();
            if *parts < most && used.insert(candidate.node) {
                *parts += 1;
                chosen.push(candidate.node);
            }
        }
    }
    chosen
}

/// Candidates with room, the winner first.
fn ranked(chunk: ChunkId, candidates: &[Candidate], count: usize) -> Vec<Candidate> {
    let with_room: Vec<Candidate> = candidates
        .iter()
        .copied()
        .filter(|candidate| candidate.room > 0.0)
        .collect();
    let mut drawn: Vec<(f64, Candidate)> = with_room
        .iter()
        .zip(shares(&with_room, count))
        .map(|(candidate, share)| {
            let (drawn, share) = (draw(chunk, candidate.node), share.min(NEARLY_ALWAYS));
            (odds(drawn) / odds(share), *candidate)
        })
        .collect();
    drawn.sort_by(|(a, a_node), (b, b_node)| a.total_cmp(b).then(a_node.node.cmp(&b_node.node)));
    drawn.into_iter().map(|(_, candidate)| candidate).collect()
}

/// A node that should have a part of every chunk still draws, so that the odds stay finite.
const NEARLY_ALWAYS: f64 = 0.999;

fn odds(probability: f64) -> f64 {
    probability / (1.0 - probability)
}

/// The share of all chunks that each node should have a part of: in proportion to room, never above 1.
fn shares(candidates: &[Candidate], count: usize) -> Vec<f64> {
    let mut full = vec![false; candidates.len()];
    loop {
        let full_count = full.iter().filter(|full| **full).count();
        let room: f64 = candidates
            .iter()
            .zip(&full)
            .filter(|(_, full)| !**full)
            .map(|(candidate, _)| candidate.room)
            .sum();
        let left = count.saturating_sub(full_count) as f64;
        let share = |candidate: &Candidate, full: bool| match full {
            true => 1.0,
            false => left * candidate.room / room,
        };
        let over: Vec<usize> = (0..candidates.len())
            .filter(|&index| !full[index] && share(&candidates[index], false) > 1.0)
            .collect();
        if over.is_empty() {
            return candidates
                .iter()
                .zip(full)
                .map(|(candidate, full)| share(candidate, full))
                .collect();
        }
        for index in over {
            full[index] = true;
        }
    }
}

/// A number in (0, 1) that chunk and node decide.
fn draw(chunk: ChunkId, node: NodeId) -> f64 {
    let mut state = 0;
    for word in chunk
        .whole()
        .to_bytes()
        .chunks_exact(8)
        .chain(node.0.as_bytes().chunks_exact(8))
    {
        let word = word
            .try_into()
            .map(u64::from_be_bytes)
            .expect("the pieces have 8 bytes");
        state = mix(state ^ word);
    }
    // The upper 53 bits fill a double exactly; the half keeps it away from 0 and 1.
    ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every input bit reaches every output bit.
const fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VideoId;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn candidate(number: u128, room: f64) -> Candidate {
        Candidate {
            node: NodeId(Uuid::from_u128(number)),
            room,
            domain: Domain::of(&number.to_string()),
        }
    }

    fn in_domain(number: u128, domain: u64) -> Candidate {
        Candidate {
            domain: Domain(domain),
            ..candidate(number, 1.0)
        }
    }

    fn chunk(number: u32) -> ChunkId {
        ChunkId::media(VideoId(Uuid::from_u128(77)), number)
    }

    fn by_number(rooms: &[f64]) -> Vec<Candidate> {
        (1..)
            .zip(rooms)
            .map(|(number, &room)| candidate(number, room))
            .collect()
    }

    proptest! {
        #[test]
        fn a_node_never_gets_two_parts_of_a_chunk(
            seq in any::<u32>(),
            rooms in prop::collection::vec(0.0f64..1.0, 0..9),
            domains in prop::collection::vec(0u64..4, 9),
            kept in prop::collection::vec(0u64..4, 0..4),
            count in 1usize..6,
        ) {
            let mut nodes = by_number(&rooms);
            for (node, domain) in nodes.iter_mut().zip(domains) {
                node.domain = Domain(domain);
            }
            let kept: Vec<_> = kept.into_iter().map(Domain).collect();
            let chosen = choose_beside(chunk(seq), &nodes, count, &kept);
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            let with_room = rooms.iter().filter(|&&room| room > 0.0).count();
            prop_assert_eq!(chosen.len(), with_room.min(count));
        }

        #[test]
        fn a_new_node_takes_parts_but_moves_none_between_equals(seq in any::<u32>(), count in 1usize..6) {
            let before = by_number(&[0.5; 5]);
            let mut after = before.clone();
            after.push(candidate(99, 0.5));
            let (old, new) = (choose_nodes(chunk(seq), &before, count), choose_nodes(chunk(seq), &after, count));
            let added: Vec<_> = new.iter().filter(|node| !old.contains(node)).collect();
            prop_assert!(added.is_empty() || added == [&NodeId(Uuid::from_u128(99))]);
        }

        #[test]
        fn no_domain_gets_a_second_part_before_each_has_one(
            seq in any::<u32>(),
            domains in prop::collection::vec(0u64..5, 5..12),
            count in 1usize..6,
        ) {
            let nodes: Vec<_> = (1..).zip(&domains).map(|(number, &domain)| in_domain(number, domain)).collect();
            let chosen = choose_nodes(chunk(seq), &nodes, count);
            let domain_of = |id: &NodeId| nodes.iter().find(|node| node.node == *id).map(|node| node.domain);
            let reached: BTreeSet<_> = chosen.iter().map(domain_of).collect();
            let there: BTreeSet<_> = domains.iter().collect();
            prop_assert_eq!(reached.len(), there.len().min(count));
        }
    }

    /// Parts of 20 000 chunks against the share of the room, where no node should have a part of every chunk.
    fn check_spread(rooms: &[f64], count: usize) {
        let nodes = by_number(rooms);
        let mut parts: BTreeMap<NodeId, f64> = BTreeMap::new();
        for seq in 0..20_000 {
            for node in choose_nodes(chunk(seq), &nodes, count) {
                *parts.entry(node).or_default() += 1.0;
            }
        }
        for (node, share) in nodes.iter().zip(shares(&nodes, count)) {
            let found = parts[&node.node] / 20_000.0;
            assert!(
                (found / share - 1.0).abs() < 0.1,
                "{rooms:?} x {count}: a part of {found} of the chunks instead of {share}"
            );
        }
    }

    #[test]
    fn parts_spread_by_room_within_a_tenth() {
        check_spread(&[0.2, 0.4, 0.4], 1);
        check_spread(&[1.0, 2.0, 2.0, 2.0, 2.0], 3);
        check_spread(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0], 3);
        check_spread(&[1.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0], 5);
        check_spread(&[5.0, 1.0, 1.0, 1.0, 1.0], 3);
    }

    #[test]
    fn a_new_node_among_unequal_ones_reorders_few_of_the_others() {
        // Placements are stored, so this moves nothing by itself: it is how far later choices differ from earlier ones.
        let before = by_number(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        let mut after = before.clone();
        after.push(candidate(99, 2.0));
        let new_node = NodeId(Uuid::from_u128(99));
        let (mut taken, mut between_others) = (0.0, 0.0);
        for seq in 0..10_000 {
            let (old, new) = (
                choose_nodes(chunk(seq), &before, 3),
                choose_nodes(chunk(seq), &after, 3),
            );
            for node in new.iter().filter(|node| !old.contains(node)) {
                if *node == new_node {
                    taken += 1.0
                } else {
                    between_others += 1.0
                }
            }
        }
        assert!(between_others < 0.15 * taken, "{between_others} beside {taken}");
    }

    #[test]
    fn a_repair_goes_to_a_domain_that_has_no_part_yet() {
        let nodes = [in_domain(1, 7), in_domain(2, 8), in_domain(3, 9)];
        for seq in 0..50 {
            let chosen = choose_beside(chunk(seq), &nodes, 1, &[Domain(7), Domain(8)]);
            assert_eq!(chosen, [nodes[2].node]);
        }
    }

    #[test]
    fn the_host_of_a_url_is_its_domain() {
        assert_eq!(Domain::of_url("http://10.0.0.7:9000"), Domain::of("10.0.0.7"));
        assert_eq!(Domain::of_url("http://nas/"), Domain::of("nas"));
        assert_eq!(Domain::of_url("http://[::1]:80/x"), Domain::of("[::1]"));
        assert_ne!(Domain::of_url("http://nas1"), Domain::of_url("http://nas2"));
    }
}
