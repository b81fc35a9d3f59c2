//! Damaged superblocks: every byte of a small one turned over, every length it can be cut to, blocks and sectors lost.
//!
//! The rules: no wrong byte is ever handed out, neighbours of the damage stay readable, damage is called damage where
//! the header still says whose it is, nothing is deleted, and the node starts.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_store::record::{HEADER_LEN, RecordHeader, RecordKind};
use vstack_store::sim::SimDisk;
use vstack_store::superblock::{SUPERBLOCK_HEADER_LEN, SuperblockHeader};
use vstack_store::{
    AdoptRequest, BadRange, DeleteReason, ErrorKind, PutRequest, RecoveryReport, SkipReason, SteppedStore,
    Store, StoreOptions,
};

mod common;
use common::{bytes_of, chunk, test_options};

const SUPERBLOCK: &str = "/disk/node/data/superblock_000000.dat";

fn options(disk: &SimDisk) -> StoreOptions {
    StoreOptions {
        disk: Arc::new(disk.clone()),
        ..test_options()
    }
}

fn open(disk: &SimDisk) -> (Store, RecoveryReport) {
    Store::open(Path::new("/disk/node"), options(disk)).expect("a damaged folder opens")
}

/// The objects of the small superblock: name and bytes, if they are to be found.
type Expected = Vec<(ChunkId, Ballot, Option<Vec<u8>>)>;

/// A disk with one small superblock that has a record of each kind, closed in order.
fn small_disk() -> (SimDisk, Expected) {
    let disk = SimDisk::default();
    let (store, _) = open(&disk);
    let put = |seq: u32, size: usize| {
        store
            .put_blocking(PutRequest::new(
                chunk(seq),
                Ballot::PLAIN,
                Bytes::from(bytes_of(seq, size)),
            ))
            .expect("stored");
    };
    put(1, 100);
    let (sender, done) = std::sync::mpsc::channel();
    for (seq, size) in [(2, 301), (3, 1000), (4, 8)] {
        let sender = sender.clone();
        let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(bytes_of(seq, size)));
        store.put(request, move |result| {
            sender.send(result.is_ok()).expect("the test waits")
        });
    }
    drop(sender);
    assert!(done.iter().all(|stored| stored));
    let six = Ballot::from_number(6);
    let adopt = AdoptRequest {
        chunk: chunk(1),
        ballot: six,
        from: Ballot::PLAIN,
        sha256: None,
    };
    store.adopt_blocking(adopt).expect("adopted");
    put(5, 40);
    store
        .delete_blocking(chunk(5), Ballot::PLAIN, DeleteReason::Client)
        .expect("deleted");
    drop(store);
    let object = |seq, size| (chunk(seq), Ballot::PLAIN, Some(bytes_of(seq, size)));
    let expected = vec![
        object(1, 100),
        object(2, 301),
        object(3, 1000),
        object(4, 8),
        (chunk(1), six, Some(bytes_of(1, 100))),
        (chunk(5), Ballot::PLAIN, None),
    ];
    (disk, expected)
}

/// A record of the file, as the format's own description finds it.
#[derive(Debug, Clone)]
struct Layout {
    header: RecordHeader,
    position: usize,
    /// Bytes that matter: padding behind the object does not.
    live: Vec<Range<usize>>,
}

fn layout(file: &[u8]) -> Vec<Layout> {
    let salt = SuperblockHeader::decode(&file[..SUPERBLOCK_HEADER_LEN])
        .expect("a header")
        .salt;
    let mut records = Vec::new();
    let mut position = SUPERBLOCK_HEADER_LEN;
    while position < file.len() {
        let bytes = file[position..position + HEADER_LEN]
            .try_into()
            .expect("a header's length");
        let header = RecordHeader::decode(bytes, position as u64, salt).expect("an intact file");
        let body = position + HEADER_LEN;
        let len = header.body_len as usize;
        let live = match header.kind {
            RecordKind::Data => {
                let crcs = body + len.next_multiple_of(8);
                vec![body..body + len, crcs..crcs + 4 * len.div_ceil(65_536)]
            }
            // The last 4 of its 80 bytes are zeros without a meaning.
            RecordKind::Reference => std::iter::once(body..body + 76).collect(),
            _ => Vec::new(),
        };
        records.push(Layout {
            header,
            position,
            live,
        });
        position += header.record_len as usize;
    }
    records
}

/// The content of padding is read by nobody: a byte here and there is enough of it.
fn in_padding(records: &[Layout], at: usize) -> bool {
    records
        .iter()
        .filter(|record| record.header.kind == RecordKind::Padding)
        .any(|record| {
            (record.position + HEADER_LEN..record.position + record.header.record_len as usize).contains(&at)
        })
}

#[test]
fn the_small_superblock_has_a_record_of_each_kind_that_an_open_one_can_have() {
    let (disk, _) = small_disk();
    let kinds: Vec<_> = layout(&disk.read(Path::new(SUPERBLOCK)).expect("it is there"))
        .iter()
        .map(|record| record.header.kind)
        .collect();
    for kind in [
        RecordKind::Data,
        RecordKind::Tombstone,
        RecordKind::Watermark,
        RecordKind::Padding,
        RecordKind::Reference,
    ] {
        assert!(kinds.contains(&kind), "{kind:?} is missing in {kinds:?}");
    }
}

/// What reading an object of a damaged file may answer.
fn check_objects(
    store: &Store,
    expected: &Expected,
    what: &str,
    mut may_fail: impl FnMut(ChunkId, Ballot) -> Option<ErrorKind>,
) {
    for (chunk, ballot, data) in expected {
        let found = store.get(*chunk, Some(*ballot)).map_err(|error| error.kind());
        let allowed = match may_fail(*chunk, *ballot) {
            Some(kind) => Err(kind),
            None => data.clone().ok_or(ErrorKind::NotFound),
        };
        assert_eq!(
            found.as_ref().map(Vec::len),
            allowed.as_ref().map(Vec::len),
            "{what}: {chunk} {ballot}"
        );
        assert_eq!(found.ok(), allowed.ok(), "{what}: {chunk} {ballot}");
    }
}

/// Turns a bit of byte `at` over and says what must have become of each object.
fn check_flip(disk: &SimDisk, file: &[u8], records: &[Layout], expected: &Expected, at: usize) {
    let what = format!("bit of byte {at}");
    let mut damaged = file.to_vec();
    damaged[at] ^= 1 << (at % 8);
    let (store, report) = open(&disk.with_file(Path::new(SUPERBLOCK), damaged));
    let hit = records
        .iter()
        .find(|record| (record.position..record.position + record.header.record_len as usize).contains(&at));
    let Some(hit) = hit else {
        // The file's own header stands there twice.
        return check_objects(&store, expected, &what, |_, _| None);
    };
    let in_header = at < hit.position + HEADER_LEN;
    let matters = in_header || hit.live.iter().any(|range| range.contains(&at));
    let name = hit.header.name.map(|name| (name.chunk, name.ballot));
    if in_header && name.is_some() {
        assert!(
            report
                .bad
                .iter()
                .any(|bad| bad.proven_rot && bad.range.contains(&(hit.position as u64))),
            "{what}: {report:?}"
        );
    }
    check_objects(&store, expected, &what, |chunk, ballot| {
        let of_data = name == Some((chunk, ballot)) && matters;
        // The adopted object shares the bytes of the plain one, so damage of those is damage of both.
        let of_reference = ballot.number() == 6 && name == Some((chunk, Ballot::PLAIN)) && matters;
        match hit.header.kind {
            // The bit in the header is turned back.
            _ if in_header => None,
            RecordKind::Data if (of_data || of_reference) && hit.header.body_len != 40 => {
                Some(ErrorKind::Corrupt)
            }
            RecordKind::Reference if of_data => Some(ErrorKind::Corrupt),
            _ => None,
        }
    });
}

#[test]
fn a_turned_bit_anywhere_harms_at_most_the_bytes_it_is_in_and_no_name() {
    let (disk, expected) = small_disk();
    let file = disk.read(Path::new(SUPERBLOCK)).expect("it is there");
    let records = layout(&file);
    for at in (0..file.len()).filter(|at| !in_padding(&records, *at) || at % 61 == 0) {
        check_flip(&disk, &file, &records, &expected, at);
    }
}

#[test]
fn a_header_with_several_turned_bits_is_a_hole_and_said_to_be_rot() {
    let (disk, expected) = small_disk();
    let file = disk.read(Path::new(SUPERBLOCK)).expect("it is there");
    let records = layout(&file);
    let named = records
        .iter()
        .filter(|record| record.header.kind == RecordKind::Data);
    for (record, hit) in named.filter_map(|record| Some((record, record.header.name?))) {
        let mut damaged = file.clone();
        damaged[record.position + 9] ^= 0x81;
        let (store, report) = open(&disk.with_file(Path::new(SUPERBLOCK), damaged));
        let position = record.position as u64;
        let rot = |bad: &BadRange| bad.proven_rot && bad.range.contains(&position);
        assert!(report.bad.iter().any(rot), "{report:?}");
        check_objects(&store, &expected, "two bits", |chunk, ballot| {
            let lost = (chunk, ballot) == (hit.chunk, hit.ballot) && record.header.body_len != 40;
            let adopted = chunk == hit.chunk && ballot.number() == 6;
            match (lost, adopted) {
                (true, _) => Some(ErrorKind::NotFound),
                (_, true) => Some(ErrorKind::Corrupt),
                _ => None,
            }
        });
    }
}

#[test]
fn a_file_cut_anywhere_keeps_what_is_whole_and_takes_new_writes() {
    let (disk, expected) = small_disk();
    let file = disk.read(Path::new(SUPERBLOCK)).expect("it is there");
    let records = layout(&file);
    for len in (0..=file.len()).filter(|len| !in_padding(&records, *len) || len % 61 == 0) {
        let what = format!("cut to {len}");
        let damaged = disk.with_file(Path::new(SUPERBLOCK), file[..len].to_vec());
        let (store, _) = open(&damaged);
        let whole = |chunk, ballot| {
            let record = records.iter().find(|record| {
                record.header.kind != RecordKind::Tombstone
                    && record
                        .header
                        .name
                        .is_some_and(|name| (name.chunk, name.ballot) == (chunk, ballot))
            });
            record.is_some_and(|record| record.position + record.header.record_len as usize <= len)
        };
        for (chunk, ballot, data) in expected.iter().filter(|(_, _, data)| data.is_some()) {
            match store.get(*chunk, Some(*ballot)) {
                Ok(found) => assert!(
                    whole(*chunk, *ballot) && Some(&found) == data.as_ref(),
                    "{what}: {chunk}"
                ),
                Err(error) => assert!(!whole(*chunk, *ballot), "{what}: {chunk}: {error}"),
            }
        }
        // A node id without a readable superblock is the same node; it goes on in a new file.
        if len % 97 == 0 || len == file.len() {
            store
                .put_blocking(PutRequest::new(
                    chunk(50),
                    Ballot::from_number(3),
                    Bytes::from(bytes_of(50, 500)),
                ))
                .expect(&what);
            drop(store);
            let (store, _) = open(&damaged);
            assert_eq!(store.get(chunk(50), None).expect(&what), bytes_of(50, 500));
        }
    }
}

#[test]
fn a_lost_block_in_the_middle_is_a_hole_and_nothing_after_it_is_lost() {
    let (disk, expected) = small_disk();
    let file = disk.read(Path::new(SUPERBLOCK)).expect("it is there");
    let records = layout(&file);
    for block in 1..file.len() / 4096 {
        for filler in [0x00, 0xff, 0x56] {
            let mut damaged = file.clone();
            damaged[block * 4096..(block + 1) * 4096].fill(filler);
            let (store, _) = open(&disk.with_file(Path::new(SUPERBLOCK), damaged));
            for record in records
                .iter()
                .filter(|record| record.position / 4096 != block && record.header.kind == RecordKind::Data)
            {
                let name = record.header.name.expect("data has a name");
                let data = expected
                    .iter()
                    .find(|(chunk, ballot, _)| (*chunk, *ballot) == (name.chunk, name.ballot));
                if let Some((_, _, Some(data))) = data {
                    assert_eq!(
                        &store.get(name.chunk, Some(name.ballot)).expect("a neighbour"),
                        data,
                        "block {block}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_the_disk_cannot_read_at_the_start_is_neither_cut_off_nor_called_unknown() {
    let disk = SimDisk::default();
    let (mut stepped, _) = SteppedStore::open(Path::new("/disk/node"), options(&disk)).expect("opens");
    let data = bytes_of(1, 50_000);
    for ballot in [Ballot::PLAIN, Ballot::from_number(6)] {
        let request = PutRequest::new(chunk(1), ballot, Bytes::from(data.clone()));
        let store = stepped.store();
        store.put(request, |result| assert!(result.is_ok(), "{result:?}"));
        stepped.write_all();
    }
    // Nothing after the batch vouches for it, so the next start reads all of it; it may not.
    drop(stepped);
    let second = SUPERBLOCK_HEADER_LEN + 53_248;
    let header = second..second + 512;
    // So far in that the search for headers does not come by.
    let body = second + 40_960..second + 45_056;
    for (lost, kind) in [(header, ErrorKind::Unavailable), (body, ErrorKind::Corrupt)] {
        let failing = disk.snapshot();
        failing.lose_sectors(Path::new(SUPERBLOCK), lost.clone());
        let (store, report) = open(&failing);
        assert_eq!(report.unread, [0], "{report:?}");
        assert!(report.torn.is_empty(), "{report:?}");
        assert_eq!(
            store.get(chunk(1), Some(Ballot::PLAIN)).expect("a neighbour"),
            data
        );
        let six = Some(Ballot::from_number(6));
        let answer = store.get(chunk(1), six).expect_err("it cannot be read");
        assert_eq!(answer.kind(), kind, "{lost:?}: {answer}");
        drop(store);
        let healed = disk.with_file(
            Path::new(SUPERBLOCK),
            failing.read(Path::new(SUPERBLOCK)).expect("kept"),
        );
        assert_eq!(
            open(&healed).0.get(chunk(1), None).expect("it is back"),
            data,
            "{lost:?}"
        );
    }
}

#[test]
fn a_deleted_plain_name_is_not_written_again_while_its_tombstone_cannot_be_read() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk);
    let put = |store: &Store, data: &'static [u8]| {
        store.put_blocking(PutRequest::new(chunk(1), Ballot::PLAIN, Bytes::from_static(data)))
    };
    put(&store, b"first").expect("stored");
    store
        .delete_blocking(chunk(1), Ballot::PLAIN, DeleteReason::Client)
        .expect("deleted");
    drop(store);
    let failing = disk.snapshot();
    failing.lose_sectors(Path::new(SUPERBLOCK), 0..SUPERBLOCK_HEADER_LEN);
    let (store, report) = open(&failing);
    assert!(
        matches!(report.skipped[0].reason, SkipReason::Disk(_)),
        "{report:?}"
    );
    let refused = put(&store, b"second").expect_err("the name is used up");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
}

#[test]
fn rot_before_a_torn_tail_is_still_rot_at_the_start_after_the_next() {
    let disk = SimDisk::default();
    let (mut stepped, _) = SteppedStore::open(Path::new("/disk/node"), options(&disk)).expect("opens");
    for seq in 1..=3 {
        let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(bytes_of(seq, 3000)));
        let store = stepped.store();
        store.put(request, |result| assert!(result.is_ok(), "{result:?}"));
        stepped.write_all();
    }
    drop(stepped);
    let file = disk.read(Path::new(SUPERBLOCK)).expect("it is there");
    let records = layout(&file);
    let data = |number| {
        let mut data = records
            .iter()
            .filter(|record| record.header.kind == RecordKind::Data);
        data.nth(number).expect("three objects").position
    };
    // The third batch is torn. Its header alone tells that the second one, which has rotted, had been synced.
    for rotten in [data(1) + 9, data(1) + HEADER_LEN + 5] {
        let mut damaged = file.clone();
        damaged[rotten] ^= 0x81;
        damaged[data(2) + HEADER_LEN + 5] ^= 0x81;
        let disk = disk.with_file(Path::new(SUPERBLOCK), damaged);
        let answers = || {
            let (store, report) = open(&disk);
            let rot = report.bad.iter().any(|bad| bad.proven_rot);
            let kind = store.get(chunk(2), None).map_err(|error| error.kind());
            drop(store);
            (rot, kind)
        };
        let (first, second, third) = (answers(), answers(), answers());
        assert!(
            first.0 || first.1 == Err(ErrorKind::Corrupt),
            "byte {rotten}: {first:?}"
        );
        assert_eq!((&first, &first), (&second, &third), "byte {rotten}");
    }
}
