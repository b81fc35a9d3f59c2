//! What the index costs in memory.

use uuid::Uuid;
use vstack_core::ballot::Ballot;
use vstack_core::id::{ChunkId, VideoId};

use super::Random;
use crate::index::{Index, Location, ObjectState};
use crate::record::ObjectName;

/// Bytes of memory that the index takes for each of `objects` objects, as the growth of the process's resident memory;
/// `None` where the system does not tell. Call it in a process that does nothing else.
///
/// The objects are those of a library: videos of 600 chunks with random ids, one ballot each.
#[must_use]
pub fn index_bytes_per_object(objects: u32) -> Option<f64> {
    let mut random = Random::new(7);
    let before = resident_bytes()?;
    let mut index = Index::default();
    let mut video = Uuid::nil();
    for number in 0..objects {
        if number % 600 == 0 {
            video = Uuid::from_u64_pair(random.next_u64(), random.next_u64());
        }
        let chunk = ChunkId::media(VideoId(video), number % 600);
        let ballot = Ballot::from_number(1 << 40);
        let place = Location::new(
            number / 500,
            u64::from(number % 500) << 21,
            2 << 20,
            ObjectState::Checked,
        );
        index.set(ObjectName { chunk, ballot }, place);
    }
    let grown = resident_bytes()?.saturating_sub(before);
    let live = index.totals().0;
    (live > 0).then(|| grown as f64 / live as f64)
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
