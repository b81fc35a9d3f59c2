//! Looking after the catalogue's file: at night, and at the start when it is too large to be checked before.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::state::Metadata;

/// Between two checks. SQLite has no page checksums: only reading everything finds a bit that has flipped.
const EVERY: Duration = Duration::from_secs(24 * 3_600);
/// Findings that are told one by one.
const TOLD: usize = 20;

/// Works until the role stops. `now` checks at once.
pub(super) async fn run(metadata: Arc<Metadata>, now: bool, stop: CancellationToken) {
    let mut pause = if now { Duration::ZERO } else { EVERY };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = check(&metadata) => {}
        }
        pause = EVERY;
    }
}

/// Damage ends writing: what is written on top of it could make it worse. Reading goes on, row by row.
pub(super) async fn check(metadata: &Metadata) {
    let findings = match metadata.store.check().await {
        Ok(findings) => findings,
        Err(reason) => {
            warn!(%reason, "the catalogue could not be checked");
            return;
        }
    };
    if findings.is_empty() {
        info!("the catalogue was checked and is sound");
        return;
    }
    for finding in findings.iter().take(TOLD) {
        error!(%finding, "the catalogue is not sound");
    }
    if let Some(damage) = findings.iter().find(|finding| finding.is_damage) {
        metadata.store.refuse_commands(damage);
        error!(%damage, "nothing is written to the catalogue any more; see `vstack restore --help`");
    }
}
