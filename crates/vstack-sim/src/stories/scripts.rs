//! The scripts. Each is a list of who does what; what comes of it is decided by the core while the story is told.

use vstack_core::paxos::trace::Trace;
use vstack_core::paxos::{Grant, OpenKind, Receipt};

use super::stage::{CATALOGUE, Fortune, Stage};

const ONE: &str = "uploader 1";
const TWO: &str = "uploader 2";
const BYTES: &[u8] = b"the chunk";

use Fortune::{AnswerLost, Arrives, Lost};

fn store(stage: &mut Stage, who: &str, grant: &Grant, nodes: &[usize]) -> Vec<Receipt> {
    nodes
        .iter()
        .filter_map(|&node| stage.accept(who, grant, node, BYTES, Arrives))
        .collect()
}

fn granted(grant: Option<Grant>) -> Grant {
    grant.expect("the script opens where nothing is in the way")
}

pub(super) fn duel() -> Trace {
    let mut stage = Stage::new(
        "duel",
        "Two uploaders want the same chunk; one placement is decided.",
    );
    let first = granted(stage.open(ONE, OpenKind::Upload, &[1, 2, 3], Arrives));
    let mut receipts = store(&mut stage, ONE, &first, &[1, 2]);
    stage.open(TWO, OpenKind::Upload, &[1, 2, 3], Arrives);
    stage.wait_for_the_lease();
    let second = granted(stage.open(TWO, OpenKind::Upload, &[1, 2, 3], Arrives));
    for node in [1, 2, 3] {
        stage.prepare(TWO, &second, node);
    }
    receipts.extend(stage.accept(ONE, &first, 3, BYTES, Arrives));
    let adopted = [1, 2]
        .into_iter()
        .filter_map(|node| stage.adopt(TWO, &second, node, first.ballot));
    let mut proofs: Vec<Receipt> = adopted.collect();
    proofs.extend(stage.accept(TWO, &second, 3, BYTES, Arrives));
    stage.commit(ONE, &first, &[], &receipts, Arrives);
    stage.commit(TWO, &second, &[], &proofs, Arrives);
    stage.collect();
    stage.end()
}

pub(super) fn lost_messages() -> Trace {
    let mut stage = Stage::new(
        "lost-messages",
        "Every kind of message is lost once; repeating it is always right.",
    );
    stage.open(ONE, OpenKind::Upload, &[1, 2, 3], AnswerLost);
    let grant = granted(stage.open(ONE, OpenKind::Upload, &[1, 2, 3], Arrives));
    let mut receipts = store(&mut stage, ONE, &grant, &[1]);
    stage.accept(ONE, &grant, 2, BYTES, Lost);
    stage.accept(ONE, &grant, 3, BYTES, AnswerLost);
    receipts.extend(store(&mut stage, ONE, &grant, &[2, 3]));
    stage.commit(ONE, &grant, &[], &receipts, Lost);
    stage.commit(ONE, &grant, &[], &receipts, AnswerLost);
    stage.commit(ONE, &grant, &[], &receipts, Arrives);
    stage.end()
}

pub(super) fn crashed_uploader() -> Trace {
    let title = "An uploader dies half-way; another one goes on and sends only what is missing.";
    let mut stage = Stage::new("crashed-uploader", title);
    let first = granted(stage.open(ONE, OpenKind::Upload, &[1, 2, 3], Arrives));
    let mut receipts = store(&mut stage, ONE, &first, &[1, 2]);
    stage.say((ONE, ONE), "crash", "the process is gone, its bytes are not");
    stage.wait_for_the_lease();
    let second = granted(stage.open(TWO, OpenKind::Upload, &[1, 2, 3], Arrives));
    let mut proofs = Vec::new();
    for node in [1, 2, 3] {
        match stage.prepare(TWO, &second, node).last() {
            Some(&from) => proofs.extend(stage.adopt(TWO, &second, node, from)),
            None => proofs.extend(stage.accept(TWO, &second, node, BYTES, Arrives)),
        }
    }
    stage.commit(TWO, &second, &[], &proofs, Arrives);
    stage.say((ONE, ONE), "wakes up", "it knows nothing of all this");
    receipts.extend(stage.accept(ONE, &first, 3, BYTES, Arrives));
    stage.commit(ONE, &first, &[], &receipts, Arrives);
    stage.collect();
    stage.end()
}

pub(super) fn disjoint_sets() -> Trace {
    let title = "A retry takes other nodes altogether; the catalogue's row keeps the two attempts apart.";
    let mut stage = Stage::new("disjoint-sets", title);
    let first = granted(stage.open(ONE, OpenKind::Upload, &[1, 2, 3], Arrives));
    let receipts = store(&mut stage, ONE, &first, &[1, 2]);
    stage.wait_for_the_lease();
    let second = granted(stage.open(TWO, OpenKind::Upload, &[4, 5, 6], Arrives));
    let proofs: Vec<Receipt> = [4, 5, 6]
        .into_iter()
        .filter_map(|node| stage.accept(TWO, &second, node, b"other bytes", Arrives))
        .collect();
    stage.commit(ONE, &first, &[], &receipts, Arrives);
    stage.commit(TWO, &second, &[], &proofs, Arrives);
    stage.collect();
    stage.end()
}

pub(super) fn delete_against_repair() -> Trace {
    let title = "A chunk is deleted while it is being repaired; the repair cannot bring it back.";
    let mut stage = Stage::new("delete-against-repair", title);
    let first = granted(stage.open(ONE, OpenKind::Upload, &[1, 2, 3], Arrives));
    let receipts = store(&mut stage, ONE, &first, &[1, 2, 3]);
    stage.commit(ONE, &first, &[], &receipts, Arrives);
    stage.replace_disk(3);
    let repair = granted(stage.open("repairer", OpenKind::Repair, &[4], Arrives));
    let proof = store(&mut stage, "repairer", &repair, &[4]);
    stage.delete("library");
    let kept = receipts_parts(&first, &receipts[..2]);
    stage.commit("repairer", &repair, &kept, &proof, Arrives);
    stage.collect();
    stage.end()
}

fn receipts_parts(grant: &Grant, receipts: &[Receipt]) -> Vec<vstack_core::placement::Part> {
    let nodes: Vec<_> = receipts.iter().map(|receipt| receipt.node).collect();
    let digest = receipts.first().map(|receipt| receipt.digest);
    let digest = digest.unwrap_or_else(|| vstack_core::digest::ChunkDigest::of(BYTES));
    vstack_core::placement::Placement::replicated(digest, grant.ballot, &nodes).parts
}

pub(super) fn repair() -> Trace {
    let title =
        "A disk is replaced; the lost copy is made again, and the copies that are there are not touched.";
    let mut stage = Stage::new("repair", title);
    let first = granted(stage.open(ONE, OpenKind::Upload, &[1, 2, 3], Arrives));
    let receipts = store(&mut stage, ONE, &first, &[1, 2, 3]);
    stage.commit(ONE, &first, &[], &receipts, Arrives);
    stage.replace_disk(3);
    let repair = granted(stage.open("repairer", OpenKind::Repair, &[4], Arrives));
    let proof = store(&mut stage, "repairer", &repair, &[4]);
    let kept = stage.parts_without(3);
    stage.commit("repairer", &repair, &kept, &proof, Arrives);
    stage.collect();
    stage.end()
}

pub(super) fn restore(close_open: bool) -> Trace {
    let (name, title) = match close_open {
        true => (
            "restore",
            "A backup has an open ballot; the restore closes it, and a late COMMIT finds nothing.",
        ),
        false => (
            "restore-unsafe",
            "UNSAFE: the restore leaves the ballot open, and a late COMMIT counts bytes that are gone.",
        ),
    };
    let mut stage = Stage::new(name, title);
    let first = granted(stage.open(ONE, OpenKind::Upload, &[1, 2, 3], Arrives));
    let receipts = store(&mut stage, ONE, &first, &[1, 2, 3]);
    let backup = stage.row.clone();
    stage.say((CATALOGUE, CATALOGUE), "backup", "with the open ballot in it");
    stage.commit(ONE, &first, &[], &receipts, Lost);
    stage.wait_for_the_lease();
    stage.open(TWO, OpenKind::Upload, &[1, 2, 3], Arrives);
    stage.collect();
    stage.restore(&backup, close_open);
    stage.commit(ONE, &first, &[], &receipts, Arrives);
    stage.end()
}
