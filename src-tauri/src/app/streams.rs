//! Streams to the page: one task for each, which ends when the page has opened too many newer ones or is gone.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;
use tauri::ipc::Channel;
use tokio_util::sync::CancellationToken;

/// Streams of one kind at a time. The page cannot close one: it stops to listen and opens a new one when it needs to.
const MAX_OPEN: usize = 3;

/// The open streams of one kind, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<VecDeque<CancellationToken>>);

impl Streams {
    /// Sends what `next` gives to `channel` every `period`, while it gives something new.
    pub(crate) fn open<T>(
        &self,
        channel: Channel<T>,
        period: Duration,
        mut next: impl FnMut() -> Option<T> + Send + 'static,
    ) where
        T: Serialize + Clone + PartialEq + Send + Sync + 'static,
    {
        let ended = self.token();
        tauri::async_runtime::spawn(async move {
            let mut ticks = tokio::time::interval(period);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut last: Option<T> = None;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = ended.cancelled() => return,
                }
                let Some(message) = next().filter(|message| last.as_ref() != Some(message)) else {
                    continue;
                };
                last = Some(message.clone());
                if channel.send(message).is_err() {
                    return;
                }
            }
        });
    }

    fn token(&self) -> CancellationToken {
        let mut open = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if open.len() >= MAX_OPEN
            && let Some(oldest) = open.pop_front()
        {
            oldest.cancel();
        }
        let token = CancellationToken::new();
        open.push_back(token.clone());
        token
    }
}
