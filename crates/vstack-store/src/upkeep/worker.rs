//! Background work: one trait for everything that is done in small steps, and one helper that keeps its pace.
//!
//! Viewers come first: while requests are open a worker gets its lower rate, and never works in larger steps than about
//! a MiB at a time, so that a request waits at most for one of these.

use std::fmt;
use std::time::Duration;

/// Work that is never finished: scrub, compaction, repair.
pub trait Worker: Send + fmt::Debug {
    /// For the log.
    fn name(&self) -> &'static str;

    /// How fast it may go now.
    fn pace(&self) -> Pace;

    /// Does a little, reading and writing about a MiB, one object at most.
    fn step(&mut self) -> Work;
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It read or wrote so many bytes.
    Did { bytes: u64 },
    /// There is nothing to do; ask again later.
    Nothing,
}

/// Rates in bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub alone: u64,
    /// While viewers are being served.
    pub with_viewers: u64,
}

/// How long a worker that found nothing to do is left alone.
const REST: Duration = Duration::from_secs(5);
/// How often a worker that has to wait is looked at: so soon does it notice that viewers have come or gone.
const TICK: Duration = Duration::from_millis(20);
/// How long a stop may have to wait.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// Decides when a worker may take its next step: the bytes of the last one have to be "paid" by time that passed, at the
/// rate of the moment. Knows no clock.
#[derive(Debug, Default)]
pub struct Pacer {
    /// In bytes times seconds / 1e6.
    owed: u128,
    rest: Duration,
}

const MICROS: u128 = 1_000_000;

impl Pacer {
    /// Notes what a step did.
    pub fn did(&mut self, work: Work) {
        match work {
            Work::Did { bytes } => self.owed += u128::from(bytes) * MICROS,
            Work::Nothing => self.rest = REST,
        }
    }

    /// Lets time pass with so many requests of viewers open.
    pub fn passed(&mut self, time: Duration, pace: Pace, viewers: u32) {
        let rate = if viewers == 0 {
            pace.alone
        } else {
            pace.with_viewers
        };
        self.owed = self.owed.saturating_sub(time.as_micros() * u128::from(rate));
        self.rest = self.rest.saturating_sub(time);
    }

    /// How long it has nothing to do, if it has to wait for nothing else.
    fn rest(&self) -> Duration {
        if self.owed == 0 { self.rest } else { Duration::ZERO }
    }

    /// Whether the worker may go on.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.owed == 0 && self.rest.is_zero()
    }
}

/// Runs workers on the calling thread, each at its pace, until `wait` says so. `wait` sleeps for a time and returns how
/// much really passed, or `None` to stop; `viewers` counts open requests.
pub fn run_workers(
    workers: &mut [Box<dyn Worker>],
    viewers: &dyn Fn() -> u32,
    wait: &mut dyn FnMut(Duration) -> Option<Duration>,
) {
    let mut pacers: Vec<Pacer> = workers.iter().map(|_| Pacer::default()).collect();
    loop {
        for (worker, pacer) in workers.iter_mut().zip(&mut pacers) {
            if pacer.is_due() {
                pacer.did(worker.step());
            }
        }
        // While nobody has anything to do there is nothing to notice either.
        let rest = pacers.iter().map(Pacer::rest).min().unwrap_or_default();
        let Some(passed) = wait(rest.clamp(TICK, MAX_WAIT)) else {
            return;
        };
        let open = viewers();
        for (worker, pacer) in workers.iter().zip(&mut pacers) {
            pacer.passed(passed, worker.pace(), open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        alone: 1000,
        with_viewers: 10,
    };

    #[test]
    fn a_step_is_paid_by_time_and_slower_while_viewers_are_there() {
        let mut pacer = Pacer::default();
        assert!(pacer.is_due());
        pacer.did(Work::Did { bytes: 100 });
        assert!(!pacer.is_due());
        pacer.passed(Duration::from_millis(50), PACE, 0);
        assert!(!pacer.is_due(), "half of it is paid");
        pacer.passed(Duration::from_secs(4), PACE, 3);
        assert!(!pacer.is_due(), "viewers are there");
        pacer.passed(Duration::from_secs(1), PACE, 3);
        assert!(pacer.is_due());
    }

    #[test]
    fn a_worker_without_work_is_left_alone_for_a_while() {
        let mut pacer = Pacer::default();
        pacer.did(Work::Nothing);
        assert!(!pacer.is_due());
        pacer.passed(REST, PACE, 1);
        assert!(pacer.is_due());
    }

    #[derive(Debug)]
    struct Counter(u32);

    impl Worker for Counter {
        fn name(&self) -> &'static str {
            "counter"
        }

        fn pace(&self) -> Pace {
            PACE
        }

        fn step(&mut self) -> Work {
            self.0 += 1;
            Work::Did { bytes: 10 }
        }
    }

    #[test]
    fn viewers_slow_a_worker_down_and_their_going_speeds_it_up_at_once() {
        let steps_in_a_second = |viewers: u32| {
            let mut workers: Vec<Box<dyn Worker>> = vec![Box::new(Counter(0))];
            let mut left = 50;
            run_workers(&mut workers, &|| viewers, &mut |tick| {
                left -= 1;
                (left > 0).then_some(tick)
            });
            format!("{workers:?}")
        };
        assert_eq!(steps_in_a_second(0), "[Counter(50)]");
        assert_eq!(steps_in_a_second(1), "[Counter(1)]");
    }
}
