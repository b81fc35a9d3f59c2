//! Each bit of a superblock turned over, and each length it can be cut to.
//!
//! The superblock has 64 records that name objects (data, tombstones, references) beside padding and watermarks. What
//! must become of each object follows from the layout of the intact file, which this module reads for itself:
//!
//! - *A bit in a header*: the report proves rot there, and the object is still there. It is not missing.
//! - *A bit in an object's bytes or checksums*: the object is corrupt, and so is one that was adopted from it.
//! - *A bit in what follows the last watermark*: a torn tail, cut off. No rot.
//! - *Any other bit* (padding, zeros, the second copy of the file's header): nothing.
//! - *A cut*: a torn tail, and rot only if the file's own header is cut; what is whole before it is there, and what is not
//!   is never half there.
//! - In every case all neighbours are there with their bytes, and deleted objects stay deleted.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_store::record::{HEADER_LEN, RecordHeader, RecordKind, Reference};
use vstack_store::sim::{Random, SimDisk, bytes_of};
use vstack_store::superblock::{SUPERBLOCK_HEADER_LEN, SuperblockHeader};
use vstack_store::{
    AdoptRequest, DeleteReason, ErrorKind, PutRequest, RecoveryReport, SteppedStore, Store, StoreError,
};

use crate::ledger::Name;
use crate::report::{Report, Settings};
use crate::script::name;
use crate::session::{FOLDER, open, seed_identities};

const RECORDS: u32 = 64;
const SUPERBLOCK_BYTES: u64 = 1 << 20;
/// Bytes of the file's header that a reader needs: the first of its two copies.
const FILE_HEADER_BYTES: usize = 116;

/// Turns bits and cuts the file, one case after another. With a count of [`u64::MAX`] all of them; with a smaller one
/// as many of them, spread evenly. The seed chooses the objects' bytes.
pub fn run(settings: Settings, mut progress: impl FnMut(u64) -> bool) -> Report {
    let started = Instant::now();
    let mut report = Report::new("flips", "damaged files");
    let superblock = Intact::make(settings.seed);
    let mut figures = Figures::default();
    for case in superblock.cases(settings.count) {
        let outcome = match case {
            Case::Bit(bit) => superblock.check_bit(bit, &mut figures),
            Case::Cut(len) => superblock.check_cut(len, &mut figures),
        };
        report.count += 1;
        if let Err(what) = outcome {
            report.fail(settings.seed, format!("seed {}, {case:?}: {what}", settings.seed));
        }
        if !progress(report.count) {
            break;
        }
    }
    report.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.facts = vec![
        ("bytes of the superblock", superblock.file.len() as u64),
        ("records that name objects", u64::from(RECORDS)),
        ("bits turned over", figures.bits),
        ("lengths cut to", figures.cuts),
        ("headers healed, rot proven", figures.healed),
        ("objects called corrupt, as they were", figures.corrupt),
        ("torn tails", figures.torn),
        ("cases without any effect", figures.harmless),
    ];
    report
}

#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    bits: u64,
    cuts: u64,
    healed: u64,
    corrupt: u64,
    torn: u64,
    harmless: u64,
}

#[derive(Debug, Clone, Copy)]
enum Case {
    Bit(usize),
    Cut(usize),
}

/// A record of the intact file.
#[derive(Debug, Clone)]
struct Record {
    header: RecordHeader,
    range: Range<usize>,
    /// Body bytes that mean something; zeros that fill up do not.
    live: Vec<Range<usize>>,
}

/// An object and what is read under its name: its bytes, or that it was deleted.
#[derive(Debug, Clone)]
struct Object {
    name: Name,
    data: Option<Vec<u8>>,
    /// Whose bytes these are: itself, or what it was adopted from.
    bytes_of: Name,
}

/// The undamaged superblock and what is in it.
#[derive(Debug)]
struct Intact {
    disk: SimDisk,
    path: std::path::PathBuf,
    file: Vec<u8>,
    records: Vec<Record>,
    objects: Vec<Object>,
    /// Where the batch with the last watermark begins: nothing vouches for what follows.
    settled: usize,
}

impl Intact {
    fn make(seed: u64) -> Self {
        let disk = SimDisk::new();
        seed_identities(seed);
        let (stepped, _) = open(&disk, SUPERBLOCK_BYTES).expect("an empty disk opens");
        let objects = fill(stepped, seed);
        let path = Path::new(FOLDER).join("data/superblock_000000.dat");
        let file = disk.read(&path).expect("the store made it");
        let records = layout(&file);
        let named = records
            .iter()
            .filter(|record| record.header.name.is_some())
            .count();
        assert_eq!(named, RECORDS as usize, "the script makes 64 named records");
        let last = records
            .iter()
            .rfind(|record| record.header.kind == RecordKind::Watermark)
            .expect("a watermark ends the file");
        let settled = last.range.start;
        Self {
            disk,
            path,
            file,
            records,
            objects,
            settled,
        }
    }

    fn cases(&self, count: u64) -> impl Iterator<Item = Case> + use<> {
        let (bits, cuts) = (self.file.len() * 8, self.file.len());
        let all = bits + cuts;
        let wanted = usize::try_from(count).unwrap_or(usize::MAX).clamp(1, all);
        (0..wanted).map(move |number| {
            // A prime stride beside the even spread, so that all bits of a byte get their turn.
            let at = (number * (all / wanted) + number * 7 % (all / wanted).max(1)) % all;
            if at < bits {
                Case::Bit(at)
            } else {
                Case::Cut(at - bits)
            }
        })
    }

    fn open_with(&self, file: Vec<u8>) -> Result<(SteppedStore, RecoveryReport), String> {
        let disk = self.disk.with_file(&self.path, file);
        open(&disk, SUPERBLOCK_BYTES).map_err(|error| format!("does not open: {error}"))
    }

    fn check_bit(&self, bit: usize, figures: &mut Figures) -> Result<(), String> {
        figures.bits += 1;
        let mut file = self.file.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        let (stepped, report) = self.open_with(file)?;
        let hit = self
            .records
            .iter()
            .find(|record| record.range.contains(&(bit / 8)));
        let effect = hit.map_or(Effect::None, |record| self.effect(record, bit / 8));
        effect.check_report(&report)?;
        match effect {
            Effect::None => figures.harmless += 1,
            Effect::HeaderRot(_) => figures.healed += 1,
            Effect::Corrupt(_) => figures.corrupt += 1,
            Effect::Torn => figures.torn += 1,
        }
        self.check_objects(stepped.store(), |object| match effect {
            Effect::Corrupt(name) if object.bytes_of == name || object.name == name => Expected::Corrupt,
            _ => Expected::Intact,
        })
    }

    fn effect(&self, record: &Record, at: usize) -> Effect {
        let in_header = at < record.range.start + HEADER_LEN;
        if record.range.start >= self.settled {
            return if in_header { Effect::Torn } else { Effect::None };
        }
        if in_header {
            return Effect::HeaderRot(record.range.start as u64);
        }
        match record.header.name {
            Some(name) if record.live.iter().any(|range| range.contains(&at)) => {
                Effect::Corrupt((name.chunk, name.ballot))
            }
            _ => Effect::None,
        }
    }

    fn check_cut(&self, len: usize, figures: &mut Figures) -> Result<(), String> {
        figures.cuts += 1;
        let (stepped, report) = self.open_with(self.file[..len].to_vec())?;
        let unreadable = len < FILE_HEADER_BYTES;
        // The file's header was synced before its name was visible, so no crash cuts it.
        let rot = !unreadable && len < SUPERBLOCK_HEADER_LEN;
        if rot != report.bad.iter().any(|bad| bad.proven_rot) || !report.contradictions.is_empty() {
            return Err(format!(
                "rot is proven exactly if the file's header is cut: {report:?}"
            ));
        }
        figures.torn += report.torn.len() as u64;
        if unreadable != (report.skipped.len() == 1) {
            return Err(format!(
                "the file is left aside exactly if its header is cut: {report:?}"
            ));
        }
        self.check_objects(stepped.store(), |object| {
            let has = |kind: RecordKind, name: Name| {
                let named = |record: &&Record| {
                    record.header.kind == kind
                        && record.header.name.map(|name| (name.chunk, name.ballot)) == Some(name)
                };
                self.records
                    .iter()
                    .find(named)
                    .is_some_and(|record| record.range.end <= len)
            };
            let stored = has(RecordKind::Data, object.name) || has(RecordKind::Reference, object.name);
            if unreadable {
                Expected::Unsure
            } else if object.data.is_none() && stored && !has(RecordKind::Tombstone, object.name) {
                // The tombstone is cut off, and with it the news of the delete: a cut file is an older file.
                Expected::Anything
            } else if stored {
                Expected::Intact
            } else {
                Expected::Absent
            }
        })
    }

    fn check_objects(&self, store: &Store, expected: impl Fn(&Object) -> Expected) -> Result<(), String> {
        for object in &self.objects {
            let found = store.get(object.name.0, Some(object.name.1));
            let expected = expected(object);
            if !expected.fits(object, &found) {
                let found = found.map(|data| data.len());
                return Err(format!(
                    "{} at ballot {}: expected {expected:?}, found {found:?}",
                    object.name.0, object.name.1
                ));
            }
        }
        Ok(())
    }
}

/// What a turned bit does.
#[derive(Debug, Clone, Copy)]
enum Effect {
    None,
    /// The header at this position is damaged, below what is known to be synced.
    HeaderRot(u64),
    /// The bytes recorded under this name are damaged.
    Corrupt(Name),
    /// Nothing vouches for the record: it is the tail of a crash.
    Torn,
}

impl Effect {
    fn check_report(&self, report: &RecoveryReport) -> Result<(), String> {
        let proven = |position: u64| {
            report
                .bad
                .iter()
                .any(|bad| bad.proven_rot && bad.range.contains(&position))
        };
        let fits = match self {
            Self::HeaderRot(position) => proven(*position) && report.torn.is_empty(),
            Self::None | Self::Corrupt(_) => report.bad.is_empty() && report.torn.is_empty(),
            Self::Torn => !report.bad.iter().any(|bad| bad.proven_rot),
        };
        if fits && report.skipped.is_empty() && report.contradictions.is_empty() {
            Ok(())
        } else {
            Err(format!("{self:?} is reported as {report:?}"))
        }
    }
}

/// What must be read under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Intact,
    Corrupt,
    Absent,
    /// The store cannot know: 503, not 404.
    Unsure,
    Anything,
}

impl Expected {
    fn fits(self, object: &Object, found: &Result<Vec<u8>, StoreError>) -> bool {
        match (self, found) {
            (Self::Intact, found) => match (&object.data, found) {
                (Some(data), Ok(found)) => data == found,
                (None, Err(error)) => error.kind() == ErrorKind::NotFound,
                _ => false,
            },
            (Self::Corrupt, Err(error)) => {
                let expected = if object.data.is_some() {
                    ErrorKind::Corrupt
                } else {
                    ErrorKind::NotFound
                };
                error.kind() == expected
            }
            (Self::Absent, Err(error)) => error.kind() == ErrorKind::NotFound,
            (Self::Unsure, Err(error)) => error.kind() == ErrorKind::Unavailable,
            (Self::Anything, _) => true,
            (_, Ok(_)) => false,
        }
    }
}

/// Fills a store with 64 named records in batches of about nine, closed by a watermark.
fn fill(mut stepped: SteppedStore, seed: u64) -> Vec<Object> {
    let mut random = Random::new(seed);
    random.next_u64();
    let first = u32::try_from(random.below(1 << 20)).unwrap_or(0);
    let mut objects: Vec<Object> = Vec::new();
    for number in 0..RECORDS {
        let (store, round) = (stepped.store(), number as usize / 9);
        match number % 9 {
            // What was put last gets a second name.
            7 => {
                let source = plain(&mut objects, 0).clone();
                let adopted = (source.name.0, Ballot::from_number(6));
                let request = AdoptRequest {
                    chunk: adopted.0,
                    ballot: adopted.1,
                    from: source.name.1,
                    sha256: None,
                };
                store.adopt(request, expect_ok);
                objects.push(Object {
                    name: adopted,
                    ..source
                });
            }
            // Either that one, or another one, is deleted.
            8 => {
                let victim = plain(&mut objects, round % 3);
                store.delete(victim.name.0, victim.name.1, DeleteReason::Client, expect_ok);
                victim.data = None;
            }
            _ => {
                let len = 1 + usize::try_from(random.below(400)).unwrap_or(0);
                let (name, data) = (name(number, 0), bytes_of(first + number, len));
                let bytes = Bytes::from(data.clone());
                store.put(PutRequest::new(name.0, name.1, bytes), expect_ok);
                objects.push(Object {
                    name,
                    data: Some(data),
                    bytes_of: name,
                });
            }
        }
        // Adopts and deletes need what was put before them to be stored; they go into the next batch.
        if number % 9 == 6 {
            stepped.write_all();
        }
    }
    stepped.write_all();
    stepped.idle();
    objects
}

/// The object that was put last but `skip`, and is still there under its own name.
fn plain(objects: &mut [Object], skip: usize) -> &mut Object {
    let own = |object: &&mut Object| object.data.is_some() && object.bytes_of == object.name;
    let mut found = objects.iter_mut().rev().filter(own);
    found.nth(skip).expect("seven are put before each")
}

fn expect_ok<T>(answer: Result<T, StoreError>) {
    assert!(answer.is_ok(), "the disk is sound: {:?}", answer.err());
}

fn layout(file: &[u8]) -> Vec<Record> {
    let salt = SuperblockHeader::decode(&file[..SUPERBLOCK_HEADER_LEN])
        .expect("an intact file")
        .salt;
    let mut records = Vec::new();
    let mut at = SUPERBLOCK_HEADER_LEN;
    while at < file.len() {
        let bytes = file[at..at + HEADER_LEN].try_into().expect("a header's length");
        let header = RecordHeader::decode(bytes, at as u64, salt).expect("an intact file");
        let (body, len) = (at + HEADER_LEN, header.body_len as usize);
        let live = match header.kind {
            RecordKind::Data => {
                let checksums = body + len.next_multiple_of(8);
                vec![body..body + len, checksums..checksums + 4 * len.div_ceil(65_536)]
            }
            // The last 4 of its bytes are zeros without a meaning.
            RecordKind::Reference => std::iter::once(body..body + Reference::LEN - 4).collect(),
            _ => Vec::new(),
        };
        let range = at..at + header.record_len as usize;
        at = range.end;
        records.push(Record { header, range, live });
    }
    records
}
