//! How a superblock ends: sealed when it is full, abandoned when its disk failed.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use crate::batch::{Active, Record};
use crate::error::DiskFault;
use crate::footer::{FooterBuilder, Moves, seal_header};
use crate::record::{MARK_LEN, RecordHeader, RecordKind};
use crate::shared::Shared;
use crate::superblock::Superblock;

/// Appends the seal with its footer and gives back the room that was reserved for more. Everything in the file is durable
/// already; should the seal fail, the next start scans the file instead.
pub(crate) fn seal(shared: &Shared, mut active: Active, footer: &FooterBuilder) {
    let superblock = Arc::clone(&active.superblock);
    let durable = active.tail;
    let mark = RecordHeader::mark(RecordKind::Seal, MARK_LEN, 0, (shared.options.now)());
    let body = footer.finish(&Moves::new(), durable, superblock.header.salt);
    let with_footer = body.and_then(|body| Some((seal_header(body.len(), mark)?, Bytes::from(body))));
    let (header, body) = with_footer.unwrap_or((mark, Bytes::new()));
    let record = Record {
        header,
        data: &[body],
        tail: Vec::new(),
    };
    let sealed = active.append(&[record]).and_then(|_| {
        superblock
            .file
            .truncate(active.tail)
            .map_err(|error| ("shorten", error))
    });
    let number = superblock.header.number;
    match sealed {
        Ok(()) => info!(superblock = number, bytes = active.tail, "superblock sealed"),
        Err((operation, error)) => {
            let fault = DiskFault::new(operation, &superblock.path, &error);
            warn!(superblock = number, %fault, "superblock closed without a seal");
            if !fault.is_full() {
                shared.note_disk_error(&fault);
            }
        }
    }
    superblock.close(active.tail.max(durable));
}

/// Closes a superblock after a failed write or sync. Nothing of the failed batch counts; what memory holds of the file is
/// dropped, and everything in it is checked again, first of all.
pub(crate) fn abandon(shared: &Shared, superblock: &Arc<Superblock>, durable: u64, fault: &DiskFault) {
    superblock.close(durable);
    if let Err(error) = superblock.file.drop_cache(0) {
        warn!(%error, "the cache of a failed superblock cannot be dropped");
    }
    if !fault.is_full() {
        shared.upkeep.check_first(superblock.header.uuid);
        shared.note_disk_error(fault);
    }
}
