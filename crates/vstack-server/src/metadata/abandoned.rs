//! Uploads that nobody finishes: given up when nothing was added to them for a week.
//!
//! Nothing is given up by the wall clock alone, which may jump: between the look that finds a video and the one that
//! gives it up the role itself has run for a day, and in that time nothing was added.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vstack_core::id::VideoId;
use vstack_core::limits::ABANDONED_AFTER_MS;
use vstack_core::time::UnixMillis;
use vstack_meta::Cmd;

use super::state::Metadata;

/// Videos of one look.
const BATCH: usize = 1_000;

/// Works until the role stops.
pub(super) async fn run(metadata: Arc<Metadata>, stop: CancellationToken) {
    let mut found = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(metadata.settings.abandoned_every) => {}
        }
        found = look(&metadata, &found).await;
    }
}

/// Gives up what the look before found, too. Gives what the next one is to give up.
async fn look(metadata: &Metadata, before: &BTreeSet<VideoId>) -> BTreeSet<VideoId> {
    let since = UnixMillis(metadata.now().0.saturating_sub(ABANDONED_AFTER_MS));
    let found = match metadata.store.abandoned(since, BATCH).await {
        Ok(found) => BTreeSet::from_iter(found),
        Err(error) => {
            warn!(%error, "it cannot be seen which uploads were given up");
            return BTreeSet::new();
        }
    };
    for &video in found.intersection(before) {
        let abandon = Cmd::AbandonVideo {
            video,
            before: since,
            now: metadata.now(),
        };
        match metadata.store.apply_one(abandon).await {
            Ok(_) => info!(%video, "nothing was added to an unfinished upload for a week, it is removed"),
            Err(error) => warn!(%video, %error, "an unfinished upload cannot be removed"),
        }
    }
    found
}
