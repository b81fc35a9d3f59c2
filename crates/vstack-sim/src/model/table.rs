//! The runs: the configurations that must hold and the mutants that must not.

use vstack_core::paxos::OpenKind;

use super::config::{Broken, Config};
use super::runs::{Run, Size};

/// The run of this name, among configurations and mutants.
#[must_use]
pub fn find(name: &str) -> Option<Run> {
    configurations()
        .into_iter()
        .chain(mutants())
        .find(|run| run.name == name)
}

const fn run(name: &'static str, size: Size, title: &'static str, config: Config) -> Run {
    Run {
        name,
        title,
        size,
        config,
    }
}

fn new(nodes: usize, ballots: usize) -> Config {
    Config::new(nodes, ballots)
}

/// What must hold. A name tells nodes and ballots; where it tells no ballots there are three.
#[must_use]
pub fn configurations() -> Vec<Run> {
    [small(), medium(), big()].concat()
}

/// Each takes seconds in the tests.
fn small() -> Vec<Run> {
    let run = |name, title, config| run(name, Size::Small, title, config);
    vec![
        run(
            "n3-b2",
            "a crash; write, sync and receipt apart",
            new(3, 2).split(),
        ),
        run("n3-b3", "a crash", new(3, 3)),
        run("n3-loss", "a lost disk", new(3, 3).crashes(0).losses(1)),
        run(
            "n3-b2-unfenced",
            "nodes that promise nothing, 2 crashes; write, sync and receipt apart",
            new(3, 2).split().unfenced().crashes(2),
        ),
        run(
            "n3-reduced",
            "3 copies wanted and 2 enough",
            new(3, 3).copies(3).crashes(0),
        ),
        run("n4-b3", "no failure but the messages'", new(4, 3).crashes(0)),
        run(
            "n4-shards",
            "conversion to shards and back",
            new(4, 3).conversions(4).crashes(0),
        ),
        run("n3-b2-prepare", "PREPARE, a crash", new(3, 2).prepare()),
        run(
            "n3-inventory",
            "INVENTORY at any time",
            new(3, 3).inventory().crashes(0),
        ),
        run(
            "n3-b2-plain",
            "plain clients, INVENTORY, a crash",
            new(3, 2).plain().inventory(),
        ),
        run(
            "n3-b2-restore",
            "the catalogue restored once, INVENTORY",
            new(3, 2).restores(1).inventory().crashes(0),
        ),
    ]
}

/// Each takes up to minutes in a release build.
fn medium() -> Vec<Run> {
    let run = |name, title, config| run(name, Size::Medium, title, config);
    vec![
        run(
            "n3-split",
            "a crash; write, sync and receipt apart",
            new(3, 3).split(),
        ),
        run("n3-crash-loss", "a crash and a lost disk", new(3, 3).losses(1)),
        run(
            "n3-unfenced",
            "nodes that promise nothing, 2 crashes; write, sync and receipt apart",
            new(3, 3).split().unfenced().crashes(2),
        ),
        run("n3-prepare", "PREPARE, a crash", new(3, 3).prepare()),
        run("n4-crash", "a crash", new(4, 3)),
        run("n5-crash", "a crash", new(5, 3)),
        run(
            "n5-shards",
            "conversion to five shards, of which four suffice",
            new(5, 3).conversions(5).crashes(0),
        ),
        run(
            "n5-b2-reduced",
            "3 copies wanted and 2 enough, a crash",
            new(5, 2).copies(3),
        ),
        run(
            "n3-b2-all",
            "PREPARE, INVENTORY, plain clients, a restore, a crash",
            new(3, 2).prepare().inventory().plain().restores(1),
        ),
        run(
            "n3-restore",
            "the catalogue restored once, INVENTORY",
            new(3, 3).restores(1).inventory().crashes(0),
        ),
        run(
            "n3-plain",
            "plain clients, INVENTORY",
            new(3, 3).plain().inventory().crashes(0),
        ),
    ]
}

/// Longer, or more than 2 GB.
fn big() -> Vec<Run> {
    let run = |name, title, config| run(name, Size::Big, title, config);
    vec![
        run(
            "n3-split-named",
            "a crash; write, sync and receipt apart; without node symmetry",
            new(3, 3).split().named_nodes(),
        ),
        run(
            "n3-restore-twice",
            "the catalogue restored twice, INVENTORY, a crash",
            new(3, 3).restores(2).inventory(),
        ),
        run(
            "n4-shards-loss",
            "conversion to shards and back, a crash and a lost disk",
            new(4, 3).conversions(4).losses(1),
        ),
        run(
            "n4-reduced",
            "3 copies wanted and 2 enough, a crash",
            new(4, 3).copies(3),
        ),
        run(
            "n5-reduced",
            "3 copies wanted and 2 enough, a crash",
            new(5, 3).copies(3),
        ),
        run("n4-b4", "no failure but the messages'", new(4, 4).crashes(0)),
        run("n3-b4", "a crash", new(3, 4)),
        run(
            "n3-all",
            "PREPARE, INVENTORY, plain clients, a restore",
            new(3, 3).prepare().inventory().plain().restores(1).crashes(0),
        ),
    ]
}

/// What must give a counterexample. Told with fixed names of nodes, so without symmetry.
#[must_use]
pub fn mutants() -> Vec<Run> {
    [broken_rules(), broken_rulings()].concat()
}

fn split(broken: Broken) -> Config {
    new(3, 3).named_nodes().split().broken(broken)
}

fn atomic(broken: Broken) -> Config {
    new(3, 3).named_nodes().crashes(0).broken(broken)
}

/// The rules R1 to R5, and write-once objects as such.
fn broken_rules() -> Vec<Run> {
    use Broken as B;
    let run = |name, title, config| run(name, Size::Small, title, config);
    vec![
        run(
            "in-place",
            "One object a chunk, overwritten in place.",
            split(B::InPlace),
        ),
        run(
            "in-place-durable-fence",
            "One object a chunk, overwritten in place by nodes that remember their promises.",
            split(B::InPlaceDurableFence),
        ),
        run(
            "commit-ignores-ballot",
            "COMMIT does not compare its ballot with the highest granted one (R1).",
            atomic(B::CommitIgnoresBallot),
        ),
        run(
            "incarnation-ignored",
            "Receipts of a replaced disk count (R2).",
            atomic(B::IncarnationIgnored).losses(1),
        ),
        run(
            "adopt-without-new-name",
            "A receipt is given for bytes under another ballot's name (R2).",
            split(B::AdoptWithoutNewName).crashes(0),
        ),
        run(
            "lost-parts-carried",
            "A repair carries over a part whose disk is lost (R2).",
            atomic(B::LostPartsCarried).losses(1),
        ),
        run(
            "collect-without-fence",
            "An open ballot's objects are collected while it can commit (R3).",
            atomic(B::CollectWithoutFence),
        ),
        run(
            "receipt-before-sync",
            "A node gives its receipt before the sync (R4).",
            split(B::ReceiptBeforeSync),
        ),
        run(
            "tombstone-forgotten",
            "A name is written again after its tombstone (R5).",
            atomic(B::TombstoneForgotten).crashes(1),
        ),
    ]
}

/// The rulings on tombstones, restored catalogues, plain clients and shards.
fn broken_rulings() -> Vec<Run> {
    use Broken as B;
    let run = |name, title, config| run(name, Size::Small, title, config);
    // Two nodes show it, and their few states make the search short.
    let restored = |broken| Config {
        nodes: 2,
        ..atomic(broken).restores(1).inventory()
    };
    let plain = |broken| atomic(broken).plain().inventory();
    vec![
        run(
            "tombstone-spans-ballots",
            "A tombstone is taken for all lower ballots, too.",
            atomic(B::TombstoneSpansBallots),
        ),
        run(
            "unknown-collected",
            "A restored catalogue collects what it does not know.",
            restored(B::UnknownCollected),
        ),
        run(
            "generation-repeated",
            "A restored catalogue goes on with the generation of its backup.",
            restored(B::GenerationRepeated),
        ),
        run(
            "generation-unannounced",
            "A restored catalogue grants before the nodes know its generation, and is restored again.",
            restored(B::GenerationUnannounced).restores(2),
        ),
        run(
            "open-survives-restore",
            "A ballot that is open in the backup commits after the restore.",
            restored(B::OpenSurvivesRestore),
        ),
        run(
            "plain-collected-young",
            "INVENTORY collects what a plain client has just stored.",
            plain(B::PlainCollectedYoung),
        ),
        run(
            "plain-delete-reaches-ballots",
            "A plain DELETE reaches a committed object.",
            plain(B::PlainDeleteReachesBallots),
        ),
        run(
            "three-shards",
            "Exactly the shards that a read needs are decided.",
            Config {
                kinds: vec![OpenKind::Upload, OpenKind::Convert],
                ..new(4, 2).named_nodes().crashes(0).broken(B::ThreeShards)
            },
        ),
    ]
}
