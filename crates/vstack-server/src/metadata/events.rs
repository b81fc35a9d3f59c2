//! `GET /consensus/events`: agreement as it happens.
//!
//! A bounded ring between those who decide and those who look on. Telling never waits; a listener that is slower than
//! the ring is long loses the oldest events and is told how many.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;
use vstack_api::Problem;
use vstack_api::consensus::{ConsensusChange, ConsensusEvent};
use vstack_core::ballot::Ballot;
use vstack_core::id::ChunkId;
use vstack_core::time::UnixMillis;

/// Events that a listener may be behind: some seconds of a busy cluster, less than 1 MiB.
const RING_EVENTS: usize = 1024;

#[derive(Debug)]
pub(super) struct Events {
    ring: broadcast::Sender<ConsensusEvent>,
    number: AtomicU64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            ring: broadcast::channel(RING_EVENTS).0,
            number: AtomicU64::new(0),
        }
    }
}

impl Events {
    /// Tells all listeners; costs nothing while there are none.
    pub(super) fn tell(
        &self,
        at: UnixMillis,
        (chunk_id, ballot): (ChunkId, Option<Ballot>),
        change: impl FnOnce() -> ConsensusChange,
    ) {
        if self.ring.receiver_count() == 0 {
            return;
        }
        let event = ConsensusEvent {
            number: self.number.fetch_add(1, Ordering::Relaxed) + 1,
            at_ms: at.0,
            chunk_id,
            ballot,
            change: change(),
        };
        // The last listener may just have gone.
        drop(self.ring.send(event));
    }

    pub(super) fn refused(&self, at: UnixMillis, about: (ChunkId, Option<Ballot>), problem: &Problem) {
        self.tell(at, about, || ConsensusChange::Refused {
            code: problem.code,
            detail: problem.detail.clone(),
        });
    }

    /// The stream of one listener, from now on. It ends with the role.
    pub(super) fn listen(
        &self,
        stop: &CancellationToken,
    ) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
        let stopped = stop.clone().cancelled_owned();
        let events = stream::unfold(self.ring.subscribe(), |mut ring| async {
            let event = match ring.recv().await {
                Ok(event) => Event::default().json_data(&event).ok()?,
                Err(RecvError::Lagged(missed)) => Event::default().comment(format!("missed {missed}")),
                Err(RecvError::Closed) => return None,
            };
            Some((Ok(event), ring))
        });
        Sse::new(events.take_until(stopped)).keep_alive(KeepAlive::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use vstack_core::id::{NodeId, VideoId};

    fn tell(events: &Events) {
        let chunk = ChunkId::media(VideoId(Uuid::from_u128(1)), 0);
        let node = NodeId(Uuid::from_u128(2));
        events.tell(UnixMillis(5), (chunk, None), || ConsensusChange::Collected {
            node,
        });
    }

    #[tokio::test]
    async fn a_slow_listener_loses_with_a_count_and_nobody_waits_for_it() {
        let events = Events::default();
        let mut slow = events.ring.subscribe();
        for _ in 0..RING_EVENTS + 10 {
            tell(&events);
        }
        assert!(matches!(slow.recv().await, Err(RecvError::Lagged(10))));
        assert_eq!(slow.recv().await.map(|event| event.number), Ok(11));
    }

    #[test]
    fn nothing_is_numbered_while_nobody_listens() {
        let events = Events::default();
        tell(&events);
        assert_eq!(events.number.load(Ordering::Relaxed), 0);
    }
}
