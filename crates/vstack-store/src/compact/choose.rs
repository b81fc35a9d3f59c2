//! Which superblocks are compacted.

use std::sync::Arc;

use crate::shared::Shared;
use crate::superblock::Superblock;

/// Superblocks up to this share of the usual size join a compaction that happens anyway, so that small ones do not pile
/// up.
const SMALL_PERCENT: u64 = 25;
/// Superblocks that become one. More would only make one step longer.
const MAX_SOURCES: usize = 8;

/// The superblocks that are worth it, and small ones that join them.
pub(super) fn choose(shared: &Shared, percent: u64) -> Vec<Arc<Superblock>> {
    let limit = shared.options.superblock_limit();
    let record_limit = shared.options.record_limit() as u64;
    let mut worth = Vec::new();
    let mut small = Vec::new();
    {
        let index = shared.index();
        for superblock in shared.superblocks() {
            let len = superblock.durable();
            if !superblock.is_closed() || shared.was_not_worth_compacting(&superblock) {
                continue;
            }
            let used = index.file_use(superblock.header.number);
            let live = used.bytes.min(len);
            let dead_percent = (len - live).saturating_mul(100) / len.max(1);
            if dead_percent > percent {
                worth.push((live, used.entries, superblock));
            } else if len < limit / 100 * SMALL_PERCENT {
                small.push((live, used.entries, superblock));
            }
        }
    }
    if worth.is_empty() {
        return Vec::new();
    }
    worth.sort_by_key(|(live, ..)| *live);
    let (mut total, mut records) = (0, 0);
    let mut abandoned = 0;
    let mut chosen = Vec::new();
    for (live, entries, superblock) in worth.into_iter().chain(small) {
        let abandons = usize::from(superblock.header.abandoned.is_some());
        let has_room = total + live < limit / 10 * 9 && records + entries <= record_limit;
        let fits = chosen.is_empty() || (has_room && abandoned + abandons <= 1);
        if fits && chosen.len() < MAX_SOURCES {
            total += live;
            records += entries;
            abandoned += abandons;
            chosen.push(superblock);
        }
    }
    chosen
}
