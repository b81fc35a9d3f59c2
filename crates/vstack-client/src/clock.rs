//! The one clock of a client: microseconds for the policy, Unix time for what people read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vstack_core::time::UnixMillis;

use crate::policy::Micros;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
    origin_unix: UnixMillis,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            origin: Instant::now(),
            origin_unix: UnixMillis(millis(unix)),
        }
    }

    pub(crate) fn now(&self) -> Micros {
        micros(self.origin.elapsed())
    }

    /// Moves on evenly even when the machine's clock is set.
    pub(crate) fn unix(&self, at: Micros) -> UnixMillis {
        self.origin_unix + at.as_ms()
    }

    pub(crate) fn instant(&self, at: Micros) -> tokio::time::Instant {
        (self.origin + Duration::from_micros(at.0)).into()
    }
}

pub(crate) fn micros(duration: Duration) -> Micros {
    Micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
