//! What the fuzz targets do with bytes from a fuzzer. The targets themselves (`fuzz/`) are one line each, and the tests
//! of this crate run the seed corpora through the same functions.
//!
//! No oracle is only "it does not crash": see each function. They panic when one fails, which is what a fuzzer looks for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_core::digest::ChunkDigest;
use vstack_core::range::ByteRange;
use vstack_store::record::{HEADER_LEN, MAGIC};
use vstack_store::sim::{SimDisk, bytes_of};
use vstack_store::superblock::{SUPERBLOCK_HEADER_LEN, SuperblockHeader};
use vstack_store::{
    AdoptRequest, CheckDepth, DeleteReason, ErrorKind, ObjectEntry, PutRequest, RecoveryReport, Store,
    read_index,
};

use crate::script::chunk;
use crate::session::{FOLDER, open, options, seed_identities};

/// How memory is measured: a fuzz target brings an allocator that counts, a test does not.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Begins to count anew.
    pub reset: fn(),
    /// The most bytes in use at once since then, beyond what was in use.
    pub peak_bytes: fn() -> usize,
}

impl Meter {
    /// Measures nothing.
    pub const NONE: Self = Self {
        reset: || {},
        peak_bytes: || 0,
    };
}

/// Memory that opening a store may take whatever the file holds: windows, tables, the fixture's names.
const FIXED_BYTES: usize = 512 * 1024;
/// And for each byte of the file. A record that is nothing but a header takes about twice its size in the index.
const BYTES_PER_BYTE: usize = 8;
const SUPERBLOCK_BYTES: u64 = 1 << 20;
const POSITION_AT: usize = 56;
const CRC_AT: usize = HEADER_LEN - 4;

/// A folder that a store has made, with one superblock.
struct Fixture {
    disk: SimDisk,
    path: PathBuf,
    header: Vec<u8>,
    salt: u64,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let disk = filled_disk(1);
        let path = superblock_path();
        let header = disk.read(&path).expect("the store made it")[..SUPERBLOCK_HEADER_LEN].to_vec();
        let salt = SuperblockHeader::decode(&header).expect("an intact file").salt;
        Fixture {
            disk,
            path,
            header,
            salt,
        }
    })
}

fn superblock_path() -> PathBuf {
    Path::new(FOLDER).join("data/superblock_000000.dat")
}

/// A closed folder with `objects` objects, one of them adopted and one deleted.
fn filled_disk(objects: u32) -> SimDisk {
    filled(objects, SUPERBLOCK_BYTES).0
}

/// As [`filled_disk`], with the store still open.
fn filled(objects: u32, superblock_bytes: u64) -> (SimDisk, Store) {
    let disk = SimDisk::new();
    seed_identities(7);
    let (mut stepped, _) = open(&disk, superblock_bytes).expect("an empty disk opens");
    for seq in 0..objects {
        let len = 100 * seq as usize + 1;
        let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(bytes_of(seq, len)));
        stepped
            .store()
            .put(request, |answer| assert!(answer.is_ok(), "{answer:?}"));
        if seq % 3 == 2 {
            stepped.write_all();
        }
    }
    stepped.write_all();
    let adopt = AdoptRequest {
        chunk: chunk(0),
        ballot: Ballot::from_number(6),
        from: Ballot::PLAIN,
        sha256: None,
    };
    stepped
        .store()
        .adopt(adopt, |answer| assert!(answer.is_ok(), "{answer:?}"));
    stepped.write_all();
    stepped
        .store()
        .delete(chunk(1), Ballot::PLAIN, DeleteReason::Client, drop);
    stepped.write_all();
    stepped.idle();
    (disk, stepped.store().clone())
}

/// The bytes of a superblock: the first byte says what is made right in the rest, so that a fuzzer need not guess
/// checksums. Bit 0: records get their position and checksum. Bit 1: the file's header is a good one.
fn superblock_of(data: &[u8]) -> Vec<u8> {
    let Some((how, rest)) = data.split_first() else {
        return Vec::new();
    };
    let Fixture { header, salt, .. } = fixture();
    let mut file = if how & 2 == 2 { header.clone() } else { Vec::new() };
    file.extend_from_slice(rest);
    if how & 1 == 1 {
        let last = file.len().saturating_sub(HEADER_LEN - 1);
        for at in (SUPERBLOCK_HEADER_LEN..last).step_by(8) {
            if file[at..at + MAGIC.len()] == MAGIC {
                let position = at as u64 ^ salt;
                file[at + POSITION_AT..at + POSITION_AT + 8].copy_from_slice(&position.to_le_bytes());
                let crc = crc32c::crc32c(&file[at..at + CRC_AT]);
                file[at + CRC_AT..at + HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
            }
        }
    }
    file
}

/// Any bytes as a superblock. The store opens; it takes memory in proportion to the file; opening again finds the same
/// (a scan is idempotent); places in the report are in the file and in order; every object reads as bytes with its own
/// digest, or is corrupt.
pub fn scan(data: &[u8], meter: Meter) {
    let fixture = fixture();
    let file = superblock_of(data);
    let len = file.len();
    let disk = fixture.disk.with_file(&fixture.path, file);
    (meter.reset)();
    let (stepped, report) = open(&disk, SUPERBLOCK_BYTES).expect("no file keeps a store from opening");
    let peak = (meter.peak_bytes)();
    assert!(
        peak <= FIXED_BYTES + BYTES_PER_BYTE * len,
        "{peak} bytes of memory for a file of {len}"
    );
    check_places(&report, len as u64);
    let first = stepped.store().objects(None, usize::MAX);
    check_objects(stepped.store(), &first);
    drop(stepped);
    let (stepped, again) = open(&disk, SUPERBLOCK_BYTES).expect("it opened before");
    assert_eq!(
        first,
        stepped.store().objects(None, usize::MAX),
        "a second start finds the same"
    );
    assert_eq!(report.bad, again.bad);
    assert_eq!(report.contradictions, again.contradictions);
}

fn check_places(report: &RecoveryReport, len: u64) {
    let mut before = 0;
    for bad in &report.bad {
        assert!(
            before <= bad.range.start && bad.range.start <= bad.range.end,
            "{report:?}"
        );
        before = bad.range.start;
    }
    for torn in &report.torn {
        assert!(
            torn.range.start <= torn.range.end && torn.range.end <= len,
            "{report:?}"
        );
    }
}

fn check_objects(store: &Store, objects: &[ObjectEntry]) {
    for object in objects {
        match store.get(object.chunk, Some(object.ballot)) {
            Ok(data) => {
                let digest = store
                    .stat(object.chunk, Some(object.ballot))
                    .expect("it was read")
                    .digest;
                let right = ChunkDigest::of(&data);
                assert_eq!(
                    (digest.size_bytes, digest.sha256),
                    (right.size_bytes, right.sha256)
                );
                check_leaves(store, object, digest == right);
            }
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound),
                "{error}"
            ),
        }
    }
}

/// The leaves are only handed out under the root that the header names. Reading the bytes does not need it.
fn check_leaves(store: &Store, object: &ObjectEntry, right: bool) {
    let reader = store
        .open_object(object.chunk, Some(object.ballot))
        .expect("it was read");
    let leaves = reader.hash_leaves().map_err(|error| error.kind());
    assert_eq!(leaves.is_ok(), right, "{leaves:?}");
}

/// Any text as a `Range` header: what is read is within the object, printing and reading gives the same, and a reader
/// that counts in 128 bits agrees.
pub fn range(data: &[u8]) {
    let (size, text) = data.split_first_chunk::<8>().unwrap_or((&[0; 8], data));
    let size = u64::from_le_bytes(*size);
    let text = String::from_utf8_lossy(text);
    let found = ByteRange::parse(&text, size);
    if let ByteRange::Part(part) = &found {
        assert!(part.start < part.end && part.end <= size, "{part:?} of {size}");
        assert_eq!(
            ByteRange::parse(&found.to_string(), size),
            found,
            "printed as {found}"
        );
    }
    assert_eq!(found, plainly(&text, u128::from(size)), "{text:?} of {size}");
}

/// RFC 9110 once more, slowly.
fn plainly(text: &str, size: u128) -> ByteRange {
    let digits = |text: &str| -> Option<u128> {
        let decimal = !text.is_empty() && text.chars().all(|char| char.is_ascii_digit());
        // What 64 bits do not hold is as large as any.
        let most = u128::from(u64::MAX);
        decimal.then(|| text.parse().unwrap_or(most).min(most))
    };
    let narrow = |number: u128| u64::try_from(number).expect("not more than the size");
    let Some(set) = text.trim().strip_prefix("bytes=") else {
        return ByteRange::Whole;
    };
    if set.contains(',') {
        return ByteRange::Several;
    }
    let parts: Vec<&str> = set.trim().splitn(2, '-').collect();
    let [first, last] = parts.as_slice() else {
        return ByteRange::Whole;
    };
    let (first, last) = match (digits(first), digits(last)) {
        (None, Some(suffix)) if first.is_empty() => {
            if suffix == 0 || size == 0 {
                return ByteRange::OutOfReach;
            }
            (size - suffix.min(size), size - 1)
        }
        (Some(first), None) if last.is_empty() => (first, u128::MAX),
        (Some(first), Some(last)) if first <= last => (first, last),
        _ => return ByteRange::Whole,
    };
    if first >= size {
        return ByteRange::OutOfReach;
    }
    ByteRange::Part(narrow(first)..narrow(last.min(size - 1)) + 1)
}

/// Where the fixture's index snapshot is.
fn snapshot_path() -> PathBuf {
    Path::new(FOLDER).join("index/chunk_index.0000000001.snap")
}

/// A closed folder with several superblocks, and the snapshot that its store made of them.
struct Snapshotted {
    disk: SimDisk,
    bytes: Vec<u8>,
    /// What a start finds in the superblocks alone.
    objects: Vec<ObjectEntry>,
}

const SNAPSHOT_HEAD_LEN: usize = 40;
const SNAPSHOT_COVER_LEN: usize = 40;
const SNAPSHOT_ENTRY_LEN: usize = 48;

fn snapshotted() -> &'static Snapshotted {
    static FIXTURE: OnceLock<Snapshotted> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        // Small ones, so that some are closed.
        let (disk, store) = filled(9, 8 << 10);
        assert!(
            store.save_snapshot().expect("the disk works"),
            "there is something to save"
        );
        drop(store);
        let bytes = disk.read(&snapshot_path()).expect("it was saved");
        let disk = disk.without_file(&snapshot_path());
        let (stepped, report) = open(&disk.snapshot(), SUPERBLOCK_BYTES).expect("it opened before");
        assert_eq!(report.by_snapshot, 0);
        let objects = stepped.store().objects(None, usize::MAX);
        Snapshotted { disk, bytes, objects }
    })
}

/// The bytes of a snapshot. Bit 0 of the first byte: the numbers of superblocks and entries and the checksum are made
/// right. Bit 1: head and superblocks are those of the folder, so that the fuzzer's bytes are entries.
fn snapshot_of(data: &[u8]) -> Vec<u8> {
    let Some((how, rest)) = data.split_first() else {
        return Vec::new();
    };
    let genuine = &snapshotted().bytes;
    let covers = genuine[12] as usize;
    let covers_end = SNAPSHOT_HEAD_LEN + covers * SNAPSHOT_COVER_LEN;
    let mut file = if how & 2 == 2 {
        genuine[..covers_end].to_vec()
    } else {
        Vec::new()
    };
    file.extend_from_slice(rest);
    if how & 1 == 1 && file.len() >= covers_end {
        let entries = (file.len() - covers_end) / SNAPSHOT_ENTRY_LEN;
        file.truncate(covers_end + entries * SNAPSHOT_ENTRY_LEN);
        file[12..16].copy_from_slice(&genuine[12..16]);
        file[16..24].copy_from_slice(&(entries as u64).to_le_bytes());
        let crc = crc32c::crc32c(&file);
        file.extend_from_slice(&crc.to_le_bytes());
    }
    file
}

/// Any bytes as an index snapshot. The store opens, in memory in proportion to the snapshot; one that is not believed
/// changes nothing at all; and whatever a believed one says, no object reads as anything but bytes of its own name with
/// their own digest, and the checker, which reads every header, is not impressed.
pub fn snapshot(data: &[u8], meter: Meter) {
    let Snapshotted { disk, objects, .. } = snapshotted();
    let file = snapshot_of(data);
    let len = file.len();
    let disk = disk.with_file(&snapshot_path(), file);
    (meter.reset)();
    let (stepped, report) = open(&disk, SUPERBLOCK_BYTES).expect("no snapshot keeps a store from opening");
    let peak = (meter.peak_bytes)();
    assert!(
        peak <= FIXED_BYTES + BYTES_PER_BYTE * len,
        "{peak} bytes of memory for a snapshot of {len}"
    );
    let found = stepped.store().objects(None, usize::MAX);
    if report.by_snapshot == 0 {
        assert_eq!(&found, objects, "a snapshot that is not believed says something");
    }
    check_objects(stepped.store(), &found);
    drop(stepped);
    let deep = read_index(
        Path::new(FOLDER),
        &options(Arc::new(disk.clone()), SUPERBLOCK_BYTES),
        CheckDepth::EveryByte,
    )
    .expect("it opened");
    let names = deep.iter().map(|line| (line.chunk, line.ballot));
    let expected = objects.iter().map(|object| (object.chunk, object.ballot));
    assert!(names.eq(expected), "a look at every byte believes a snapshot");
}

/// The seed corpora: for each target its inputs, by name.
#[must_use]
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (objects, cut) in [(2, 0), (6, 0), (6, 700), (12, 0)] {
        let file = filled_disk(objects)
            .read(&superblock_path())
            .expect("the store made it");
        let body = &file[SUPERBLOCK_HEADER_LEN..file.len() - cut];
        seeds.push((
            "scan",
            format!("records-{objects}-cut-{cut}"),
            [&[3], body].concat(),
        ));
        if objects == 2 {
            seeds.push(("scan", "whole-file".to_owned(), [&[0], &file[..]].concat()));
        }
    }
    let genuine = &snapshotted().bytes;
    let entries_at = SNAPSHOT_HEAD_LEN + genuine[12] as usize * SNAPSHOT_COVER_LEN;
    let entries = &genuine[entries_at..genuine.len() - 4];
    for (name, how, bytes) in [
        ("whole-file", 0, &genuine[..]),
        ("cut", 0, &genuine[..genuine.len() / 2]),
        ("head", 1, &genuine[..genuine.len() - 4]),
        ("entries", 3, entries),
        ("no-entries", 3, &[]),
    ] {
        seeds.push(("snapshot", name.to_owned(), [&[how], bytes].concat()));
    }
    let texts = [
        "bytes=0-0",
        "bytes=-1",
        "bytes=5-",
        "bytes=5-2",
        "bytes=999999999999-",
        "bytes=18446744073709551615-18446744073709551616",
        "bytes=0-0,0-0",
        "items=0-1",
        "bytes= 1-2 ",
    ];
    for (number, text) in texts.iter().enumerate() {
        let input = [&10_u64.to_le_bytes()[..], text.as_bytes()].concat();
        seeds.push(("range", format!("header-{number}"), input));
    }
    seeds
}
