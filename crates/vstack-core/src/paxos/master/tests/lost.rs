//! Parts whose disk is lost, and ballots that replaced another one.

use super::*;

/// Node 1's disk is known to be lost.
struct OneLost;

impl Registry for OneLost {
    fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        live(node)
    }

    fn is_lost(&self, part: &Part) -> bool {
        part.node == node(1)
    }
}

#[test]
fn r2_a_lost_part_is_not_carried_over() {
    let first = committed(&[1, 2, 3]);
    let repair = open(chunk(), &first.row, &request(OpenKind::Repair, &[4])).unwrap();
    let refused = commit(
        chunk(),
        &repair.row,
        repair.ballot,
        &first.accepted.value,
        &[],
        OneLost,
    );
    let fault = Fault::Lost;
    assert_eq!(refused, Err(Conflict::Unproven { node: node(1), fault }));
}

#[test]
fn an_open_names_the_ballot_it_replaced_with_its_nodes() {
    let first = opened(&Row::default(), &[1, 2, 3]);
    assert_eq!(first.replaced, None);
    let replaced = opened(&first.row, &[2, 3, 4]).replaced.unwrap();
    assert_eq!(replaced.ballot, first.ballot);
    assert_eq!(
        replaced.nodes,
        [1, 2, 3].map(|number| Target::whole(node(number)))
    );
}
