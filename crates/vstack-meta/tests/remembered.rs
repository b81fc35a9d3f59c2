//! What the workers of redundancy must still know when the role starts again.

mod support;

use std::collections::BTreeMap;

use support::{Catalogue, T0, node};
use vstack_core::durability::Measured;
use vstack_core::rebalance::BalanceState;
use vstack_meta::{Cmd, MeasuredWork, MetaStore as _, NodeChange, Remembered};

async fn lied(catalogue: &Catalogue, number: u128, after_ms: u64) {
    let (node, now) = (node(number), T0 + after_ms);
    let noted = catalogue.apply(Cmd::Lied { node, now }).await;
    noted.expect("a lie is noted");
}

#[tokio::test]
async fn a_new_catalogue_remembers_nothing() {
    let catalogue = Catalogue::new().await;
    let remembered = catalogue.store.remembered().await.unwrap();
    assert_eq!(remembered, Remembered::default());
}

#[tokio::test]
async fn lies_wishes_and_speeds_are_there_after_a_kill() {
    let catalogue = Catalogue::new().await;
    for (number, after_ms) in [(1, 1), (2, 2), (1, 3), (1, 4), (1, 5)] {
        lied(&catalogue, number, after_ms).await;
    }
    let measured = |read_bytes, seconds| Measured { read_bytes, seconds };
    for (work, measured) in [
        (MeasuredWork::Repairs, measured(10, 1.0)),
        (MeasuredWork::Conversions, measured(30, 0.5)),
        (MeasuredWork::Repairs, measured(20, 1.5)),
    ] {
        catalogue.apply(Cmd::Measure { work, measured }).await.unwrap();
    }
    for balance in [BalanceState::Moving, BalanceState::Paused] {
        catalogue.apply(Cmd::SetBalance { balance }).await.unwrap();
    }
    let revived = catalogue.as_after_kill();
    let expected = Remembered {
        lies: [(2, 2), (1, 3), (1, 4), (1, 5)]
            .map(|(number, after_ms)| (node(number), T0 + after_ms))
            .to_vec(),
        balance: BalanceState::Paused,
        speeds: BTreeMap::from([
            (MeasuredWork::Repairs, measured(20, 1.5)),
            (MeasuredWork::Conversions, measured(30, 0.5)),
        ]),
    };
    assert_eq!(revived.store.remembered().await.unwrap(), expected);
    revived.assert_sound().await;
}

#[tokio::test]
async fn a_node_that_its_operator_trusts_again_has_told_no_lies() {
    let catalogue = Catalogue::new().await;
    lied(&catalogue, 1, 1).await;
    lied(&catalogue, 2, 2).await;
    let readopt = Cmd::ChangeNode {
        node: node(1),
        change: NodeChange::Readopt,
        now: T0,
    };
    catalogue.apply(readopt).await.unwrap();
    let lies = catalogue.store.remembered().await.unwrap().lies;
    assert_eq!(lies, [(node(2), T0 + 2)]);
}
