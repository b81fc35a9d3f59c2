//! The protocol that one might write first, and that is wrong: "stored" is what a majority of the attempt's own nodes
//! acknowledged, and nobody decides. Here to be seen breaking; nothing else uses it.

use std::collections::BTreeMap;

use vstack_core::paxos::trace::Trace;

/// What each node promised and accepted: a ballot and a value.
#[derive(Debug, Default)]
struct Acceptors {
    promised: BTreeMap<usize, u32>,
    accepted: BTreeMap<usize, (u32, char)>,
}

impl Acceptors {
    /// Phase 1 of an ordinary Paxos, on the attempt's own nodes.
    fn prepare(&mut self, trace: &mut Trace, who: &str, ballot: u32, node: usize) -> Option<char> {
        let promised = self.promised.entry(node).or_default();
        *promised = ballot.max(*promised);
        let accepted = self.accepted.get(&node).map(|(_, value)| *value);
        let told = accepted.map_or_else(
            || "has accepted nothing".to_owned(),
            |value| format!("has accepted {value}"),
        );
        trace.push(
            (who, format!("node {node}")),
            format!("PREPARE {ballot}"),
            format!("promised; it {told}"),
        );
        accepted
    }

    fn accept(&mut self, trace: &mut Trace, who: &str, ballot: u32, value: char, node: usize) -> bool {
        let refused = self
            .promised
            .get(&node)
            .is_some_and(|promised| *promised > ballot);
        let effect = if refused {
            "refused: a higher ballot was promised".to_owned()
        } else {
            self.promised.insert(node, ballot);
            self.accepted.insert(node, (ballot, value));
            format!("accepted {value}")
        };
        trace.push((who, format!("node {node}")), format!("ACCEPT {ballot}"), effect);
        !refused
    }
}

/// One attempt: both phases on `nodes`; gives the value that it believes is chosen.
fn attempt(
    acceptors: &mut Acceptors,
    trace: &mut Trace,
    who: &str,
    ballot: u32,
    own: char,
    nodes: [usize; 2],
) -> Option<char> {
    let heard: Vec<Option<char>> = nodes
        .into_iter()
        .map(|node| acceptors.prepare(trace, who, ballot, node))
        .collect();
    let value = heard.into_iter().flatten().next().unwrap_or(own);
    let acks = nodes
        .into_iter()
        .filter(|&node| acceptors.accept(trace, who, ballot, value, node))
        .count();
    let chosen = acks == nodes.len();
    if chosen {
        trace.push(
            (who, who),
            "done",
            format!("2 of 3 acknowledged: {value} is stored, the user is told so"),
        );
    }
    chosen.then_some(value)
}

pub(super) fn quorum_alone() -> Trace {
    let title = "UNSAFE: \"2 of 3 acknowledged\" is the decision, and a retry takes other nodes. Two values are chosen.";
    let mut trace = Trace::new("quorum-alone", title);
    let mut acceptors = Acceptors::default();
    let first = attempt(&mut acceptors, &mut trace, "uploader 1", 1, 'A', [1, 2]);
    let second = attempt(&mut acceptors, &mut trace, "uploader 2", 2, 'B', [4, 5]);
    if let (Some(one), Some(two)) = (first, second)
        && one != two
    {
        trace.violated = Some(format!("I2: {one} and {two} are both chosen for one chunk"));
    }
    trace
}
