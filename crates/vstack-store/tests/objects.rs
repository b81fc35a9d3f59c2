//! What a caller can rely on: put, read, adopt, delete, and all of it again after a restart.

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::{LEAF_BYTES, Sha256Digest, leaf_hash, merkle_root};
use vstack_core::id::ChunkId;
use vstack_store::{
    AdoptRequest, DeleteDone, DeleteReason, ErrorKind, ObjectState, PutRequest, Reserve, Store, StoreError,
};

mod common;
use common::{Folder, bytes_of, chunk};

fn put(store: &Store, chunk: ChunkId, ballot: u64, data: &[u8]) -> Result<bool, StoreError> {
    let request = PutRequest::new(chunk, Ballot::from_number(ballot), Bytes::copy_from_slice(data));
    store.put_blocking(request).map(|done| done.already_stored)
}

fn adopt(store: &Store, chunk: ChunkId, ballot: u64, from: u64) -> Result<bool, StoreError> {
    let (ballot, from) = (Ballot::from_number(ballot), Ballot::from_number(from));
    store
        .adopt_blocking(AdoptRequest {
            chunk,
            ballot,
            from,
            sha256: None,
        })
        .map(|done| done.already_stored)
}

fn delete(store: &Store, chunk: ChunkId, ballot: u64) -> Result<DeleteDone, StoreError> {
    store.delete_blocking(chunk, Ballot::from_number(ballot), DeleteReason::Client)
}

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> ErrorKind {
    result.expect_err("a refusal").kind()
}

#[test]
fn objects_of_every_awkward_size_are_read_back_and_survive_a_restart() {
    let folder = Folder::new();
    let sizes = [
        1,
        7,
        8,
        9,
        LEAF_BYTES - 1,
        LEAF_BYTES,
        LEAF_BYTES + 1,
        3 * LEAF_BYTES,
        5_000_000,
    ];
    for reopened in [false, true] {
        let store = folder.open();
        for (seq, size) in (0..).zip(sizes) {
            let data = bytes_of(seq, size);
            assert_eq!(put(&store, chunk(seq), 0, &data).unwrap(), reopened);
            assert_eq!(store.get(chunk(seq), None).unwrap(), data);
        }
        assert_eq!(store.stats().chunk_count, sizes.len() as u64);
    }
}

#[test]
fn ranges_are_cut_at_the_byte_whatever_the_leaves_are() {
    let store = Folder::new().into_open();
    let data = bytes_of(1, 200_000);
    put(&store, chunk(1), 0, &data).unwrap();
    for (start, end) in [
        (0, 1),
        (0, 65_536),
        (65_535, 65_537),
        (199_999, 200_000),
        (70_000, 140_000),
        (0, 1 << 40),
        (200_000, 300_000),
    ] {
        let clipped = &data[usize::min(start, data.len())..usize::min(end, data.len())];
        assert_eq!(
            store
                .read_range(chunk(1), None, start as u64..end as u64)
                .unwrap(),
            clipped
        );
    }
}

#[test]
fn the_leaves_are_those_of_the_merkle_root() {
    let store = Folder::new().into_open();
    let data = bytes_of(2, 200_000);
    put(&store, chunk(2), 0, &data).unwrap();
    let leaves = store.leaves(chunk(2), None).unwrap();
    assert_eq!(leaves, data.chunks(LEAF_BYTES).map(leaf_hash).collect::<Vec<_>>());
    assert_eq!(
        store.stat(chunk(2), None).unwrap().digest.leaf_root,
        merkle_root(&leaves)
    );
}

#[test]
fn the_same_bytes_again_are_a_success_and_other_bytes_a_conflict() {
    let store = Folder::new().into_open();
    for ballot in [0, 7] {
        let id = chunk(ballot);
        assert!(!put(&store, id, u64::from(ballot), b"one").unwrap());
        assert!(put(&store, id, u64::from(ballot), b"one").unwrap());
        assert_eq!(
            kind(put(&store, id, u64::from(ballot), b"two")),
            ErrorKind::Conflict
        );
        assert_eq!(store.get(id, None).unwrap(), b"one");
    }
}

#[test]
fn a_plain_put_must_agree_with_the_highest_ballot() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, chunk(1), 5, b"committed").unwrap();
    assert_eq!(kind(put(&store, chunk(1), 0, b"other")), ErrorKind::Conflict);
    assert!(put(&store, chunk(1), 0, b"committed").unwrap());
    drop(store);
    // It is an object of its own now, which a catalogue can adopt, although its bytes were not stored twice.
    let store = folder.open();
    assert_eq!(store.get(chunk(1), Some(Ballot::PLAIN)).unwrap(), b"committed");
    delete(&store, chunk(1), 5).unwrap();
    assert_eq!(store.get(chunk(1), None).unwrap(), b"committed");
}

#[test]
fn without_a_ballot_readers_get_the_highest_one() {
    let store = Folder::new().into_open();
    for (ballot, data) in [(3, b"three"), (9, b"nine!"), (5, b"five!")] {
        put(&store, chunk(1), ballot, data).unwrap();
    }
    assert_eq!(store.get(chunk(1), None).unwrap(), b"nine!");
    assert_eq!(
        store.get(chunk(1), Some(Ballot::from_number(3))).unwrap(),
        b"three"
    );
    assert_eq!(store.highest_ballot(chunk(1)).number(), 9);
}

#[test]
fn a_tombstone_names_one_ballot_and_uses_its_name_up() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, chunk(1), 3, b"live").unwrap();
    put(&store, chunk(1), 5, b"aborted").unwrap();
    assert_eq!(delete(&store, chunk(1), 5).unwrap(), DeleteDone::Deleted);
    drop(store);
    let store = folder.open();
    assert_eq!(store.get(chunk(1), None).unwrap(), b"live");
    assert_eq!(delete(&store, chunk(1), 5).unwrap(), DeleteDone::AlreadyDeleted);
    assert_eq!(kind(put(&store, chunk(1), 5, b"aborted")), ErrorKind::Conflict);
    assert_eq!(
        kind(store.get(chunk(1), Some(Ballot::from_number(5)))),
        ErrorKind::NotFound
    );
    assert_eq!(kind(delete(&store, chunk(2), 0)), ErrorKind::NotFound);
}

#[test]
fn an_adopted_object_outlives_the_one_it_came_from() {
    let folder = Folder::new();
    let store = folder.open();
    let data = bytes_of(4, 100_000);
    put(&store, chunk(4), 0, &data).unwrap();
    assert!(!adopt(&store, chunk(4), 6, 0).unwrap());
    assert!(adopt(&store, chunk(4), 6, 0).unwrap());
    assert!(!adopt(&store, chunk(4), 8, 6).unwrap());
    delete(&store, chunk(4), 0).unwrap();
    delete(&store, chunk(4), 6).unwrap();
    drop(store);
    let store = folder.open();
    assert_eq!(store.get(chunk(4), None).unwrap(), data);
    assert_eq!(store.stats().chunk_count, 1);
    assert_eq!(kind(adopt(&store, chunk(4), 9, 0)), ErrorKind::NotFound);
}

#[test]
fn adopting_with_the_wrong_hash_or_over_other_bytes_is_refused() {
    let store = Folder::new().into_open();
    put(&store, chunk(1), 0, b"mine").unwrap();
    put(&store, chunk(1), 4, b"other").unwrap();
    let request = AdoptRequest {
        chunk: chunk(1),
        ballot: Ballot::from_number(9),
        from: Ballot::PLAIN,
        sha256: Some(Sha256Digest::of(b"theirs")),
    };
    assert_eq!(kind(store.adopt_blocking(request)), ErrorKind::Conflict);
    assert_eq!(kind(adopt(&store, chunk(1), 4, 0)), ErrorKind::Conflict);
    assert_eq!(
        kind(store.get(chunk(1), Some(Ballot::from_number(9)))),
        ErrorKind::NotFound
    );
}

#[test]
fn full_superblocks_are_sealed_and_new_ones_begun() {
    let folder = Folder::new();
    let store = folder.open_with(|options| options.superblock_bytes = 64 * 1024);
    for seq in 0..20 {
        put(&store, chunk(seq), 0, &bytes_of(seq, 10_000)).unwrap();
    }
    // Larger than a whole superblock: it gets one for itself.
    put(&store, chunk(99), 0, &bytes_of(99, 200_000)).unwrap();
    assert!(store.stats().superblock_count >= 5, "{:?}", store.stats());
    drop(store);
    let (store, report) = folder.try_open(|_| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
    for seq in 0..20 {
        assert_eq!(store.get(chunk(seq), None).unwrap(), bytes_of(seq, 10_000));
    }
    assert_eq!(store.get(chunk(99), None).unwrap(), bytes_of(99, 200_000));
}

#[test]
fn many_writers_share_their_syncs() {
    let store = Folder::new().into_open();
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for seq in 0..20 {
                    put(store, chunk(writer * 100 + seq), 0, &bytes_of(seq, 2_000)).unwrap();
                }
            });
        }
    });
    let stats = store.stats();
    assert_eq!(stats.chunk_count, 320);
    assert!(
        stats.batches < stats.batched_requests,
        "no batch held two requests: {stats:?}"
    );
}

#[test]
fn two_puts_of_one_name_at_once_have_one_outcome() {
    let store = Folder::new().into_open();
    for round in 0..20 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let put = |data: &'static [u8]| scope.spawn(|| put(&store, chunk(round), 0, data));
            let racing = [put(b"red"), put(b"blue")];
            racing
                .into_iter()
                .map(|racer| racer.join().expect("no panic"))
                .collect()
        });
        assert_eq!(
            results.iter().filter(|result| result.is_ok()).count(),
            1,
            "{results:?}"
        );
    }
}

#[test]
fn a_second_process_is_kept_out_and_told_the_pid() {
    let folder = Folder::new();
    let store = folder.open();
    let pid = std::process::id().to_string();
    assert!(matches!(folder.try_open(|_| {}), Err(StoreError::Locked { pid: holder, .. }) if holder == pid));
    drop(store);
    folder.open();
}

#[test]
fn the_identity_stays_and_the_boot_epoch_grows() {
    let folder = Folder::new();
    let first = folder.open().identity();
    let second = folder.open().identity();
    assert_eq!(
        (first.node_id, first.incarnation),
        (second.node_id, second.incarnation)
    );
    assert_eq!(second.boot_epoch, first.boot_epoch + 1);
}

#[test]
fn superblocks_without_their_node_json_are_refused() {
    let folder = Folder::new();
    put(&folder.open(), chunk(1), 0, b"x").unwrap();
    std::fs::remove_file(folder.path().join("node.json")).unwrap();
    assert!(matches!(
        folder.try_open(|_| {}),
        Err(StoreError::BadFolder { .. })
    ));
}

#[test]
fn a_lost_boot_epoch_is_found_again_in_the_superblocks() {
    let folder = Folder::new();
    for _ in 0..5 {
        drop(folder.open());
    }
    put(&folder.open(), chunk(1), 0, b"x").unwrap();
    std::fs::write(folder.path().join("LOCK"), b"").unwrap();
    assert!(folder.open().identity().boot_epoch > 6);
}

#[test]
fn the_highest_generation_is_remembered() {
    let folder = Folder::new();
    folder.open().note_generation(7).unwrap();
    let store = folder.open();
    store.note_generation(3).unwrap();
    assert_eq!(store.generation(), 7);
    put(&store, chunk(1), (9 << 40) + 1, b"x").unwrap();
    drop(store);
    assert_eq!(folder.open().generation(), 9);
}

#[test]
fn below_the_reserve_writes_are_refused_while_deletes_and_reads_go_on() {
    let folder = Folder::new();
    put(&folder.open(), chunk(1), 0, b"before").unwrap();
    let store = folder.open_with(|options| options.reserve = Reserve::Bytes(u64::MAX / 2));
    assert!(matches!(
        put(&store, chunk(2), 0, b"after"),
        Err(StoreError::Full { .. })
    ));
    assert!(put(&store, chunk(1), 0, b"before").unwrap());
    assert_eq!(store.get(chunk(1), None).unwrap(), b"before");
    assert_eq!(delete(&store, chunk(1), 0).unwrap(), DeleteDone::Deleted);
}

#[test]
fn empty_and_lying_requests_are_refused() {
    let store = Folder::new().into_open();
    assert_eq!(kind(put(&store, chunk(1), 0, b"")), ErrorKind::Invalid);
    let mut request = PutRequest::new(chunk(1), Ballot::PLAIN, Bytes::from_static(b"four"));
    request.data.push(Bytes::from_static(b"more"));
    assert_eq!(kind(store.put_blocking(request)), ErrorKind::Invalid);
    assert_eq!(store.stats().chunk_count, 0);
}

#[test]
fn the_inventory_is_read_in_pages() {
    let store = Folder::new().into_open();
    for seq in 0..10 {
        put(&store, chunk(seq), 0, b"x").unwrap();
    }
    delete(&store, chunk(3), 0).unwrap();
    let mut seen = Vec::new();
    while let page @ [_, ..] = &store.objects(seen.last().map(|(id, _)| (*id, Ballot::PLAIN)), 3)[..] {
        seen.extend(page.iter().map(|entry| (entry.chunk, entry.state)));
    }
    assert_eq!(seen.len(), 10);
    assert_eq!(seen[3], (chunk(3), ObjectState::Deleted));
}
