//! What a role runs on: its way to other roles, its clock, where its random numbers come from, and its threads.
//!
//! The default is the system's. A simulation gives each role its own network and clock, numbers that come from a seed,
//! and no threads, so that a run can be repeated step by step. The roles do the same on either.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinError;
use uuid::Uuid;
use vstack_api::{HttpTransport, Transport};
use vstack_core::time::UnixMillis;

/// What a role runs on, beside its clock.
#[derive(Debug, Clone)]
pub struct Platform {
    /// The way to other roles; all clients of the role share its connections.
    pub transport: Arc<dyn Transport>,
    pub chance: Chance,
    pub threads: Threads,
}

impl Default for Platform {
    /// The system's.
    fn default() -> Self {
        Self {
            transport: Arc::new(HttpTransport::new()),
            chance: Chance::default(),
            threads: Threads::default(),
        }
    }
}

/// The wall clock, which tests and the fault lab can put forward. Clones are the same clock.
#[derive(Clone, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicU64>,
    /// The system's if absent.
    source: Option<Arc<dyn Fn() -> UnixMillis + Send + Sync>>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("ahead_ms", &self.ahead_ms)
            .finish_non_exhaustive()
    }
}

impl Clock {
    /// A clock that shows what `source` says.
    #[must_use]
    pub fn showing(source: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        Self {
            ahead_ms: Arc::default(),
            source: Some(Arc::new(source)),
        }
    }

    /// Puts this clock and its clones forward.
    pub fn advance(&self, ms: u64) {
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> UnixMillis {
        let shown = self.source.as_ref().map_or_else(system_time, |source| source());
        shown + self.ahead_ms.load(Ordering::Relaxed)
    }
}

fn system_time() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Where random numbers come from. Clones draw from the same source.
#[derive(Debug, Clone, Default)]
pub struct Chance(Option<Arc<Mutex<StdRng>>>);

impl Chance {
    /// The same numbers for the same seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    pub(crate) fn number(&self) -> u64 {
        match &self.0 {
            Some(seeded) => seeded.lock().unwrap_or_else(PoisonError::into_inner).random(),
            None => rand::random(),
        }
    }

    pub(crate) fn between(&self, range: Range<f64>) -> f64 {
        match &self.0 {
            Some(seeded) => {
                let mut seeded = seeded.lock().unwrap_or_else(PoisonError::into_inner);
                seeded.random_range(range)
            }
            None => rand::random_range(range),
        }
    }

    /// A name that nothing else has.
    pub(crate) fn uuid(&self) -> Uuid {
        match &self.0 {
            Some(_) => {
                let (high, low) = (self.number(), self.number());
                uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
                    .into_uuid()
            }
            None => Uuid::new_v4(),
        }
    }
}

/// Where work is done that takes long or waits for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Threads {
    /// On the runtime's pool of threads that may block.
    #[default]
    Pool,
    /// At once, by the task that needs it: for simulations, in which nothing may happen beside the one thread.
    Caller,
}

impl Threads {
    /// # Errors
    /// The work panicked, or the runtime ended.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match self {
            Self::Pool => tokio::task::spawn_blocking(work).await,
            Self::Caller => Ok(work()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same() {
        let drawn = |seed| {
            let chance = Chance::of_seed(seed);
            (chance.number(), chance.uuid(), chance.between(1.0..1.1))
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        assert_eq!(drawn(7).1.get_version_num(), 4);
    }

    #[test]
    fn clones_of_a_clock_are_put_forward_together() {
        let clock = Clock::showing(|| UnixMillis(100));
        clock.clone().advance(5);
        assert_eq!(clock.now(), UnixMillis(105));
    }
}
