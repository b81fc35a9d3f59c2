//! `GET /redundancy/events`: what `GET /redundancy` answers, told anew when it changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::metadata::state::Metadata;

/// Changes within this are told together: repair ends chunks faster than people read.
const TOGETHER: Duration = Duration::from_millis(250);

/// The stream of one listener: the state now, and then each change. It ends with the role.
pub(in crate::metadata) fn listen(
    metadata: Arc<Metadata>,
    stop: &CancellationToken,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    let mut changes = metadata.redundancy.changed.subscribe();
    changes.mark_changed();
    let events = stream::unfold((metadata, changes), |(metadata, mut changes)| async {
        changes.changed().await.ok()?;
        let event = Event::default().json_data(metadata.redundancy.status()).ok()?;
        sleep(TOGETHER).await;
        Some((Ok(event), (metadata, changes)))
    });
    Sse::new(events.take_until(stop.clone().cancelled_owned())).keep_alive(KeepAlive::default())
}
