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
    let mut worth = Vec::new();
    let mut small = Vec::new();
    {
        let index = shared.index();
        for superblock in shared.superblocks() {
            let len = superblock.durable();
            if !superblock.is_closed() || shared.was_not_worth_compacting(&superblock) {
                continue;
            }
            let live = index.file_use(superblock.header.number).bytes.min(len);
            let dead_percent = (len - live).saturating_mul(100) / len.max(1);
            if dead_percent > percent {
                worth.push((live, superblock));
            } else if len < limit / 100 * SMALL_PERCENT {
                small.push((live, superblock));
            }
        }
    }
    if worth.is_empty() {
        return Vec::new();
    }
    worth.sort_by_key(|(live, _)| *live);
    let mut total = 0;
    let mut abandoned = 0;
    let mut chosen = Vec::new();
    for (live, superblock) in worth.into_iter().chain(small) {
        let abandons = usize::from(superblock.header.abandoned.is_some());
        let fits = chosen.is_empty() || (total + live < limit / 10 * 9 && abandoned + abandons <= 1);
        if fits && chosen.len() < MAX_SOURCES {
            total += live;
            abandoned += abandons;
            chosen.push(superblock);
        }
    }
    chosen
}
