//! Whose bytes leave next, where the node itself is the bottleneck.
//!
//! With a limit (`--egress-mbit`, a little below what the machine's line carries) the queue stands here and not in the
//! kernel, and those who need their bytes soonest are served first: each request has a weight by the slack its client
//! tells, and shares are in proportion to the weights (start-time fair queueing). Nobody gets less than a quarter of an
//! even share, or a reader's own stall detection would give a well node up. Without a limit nothing waits here: the
//! kernel shares the line evenly, and weights would change nothing.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use vstack_api::slack::Weights;

/// An even share, divided by this, is the least that a request gets.
const FLOOR_DIVISOR: u64 = 4;
/// Virtual time counts bytes in so many parts, for the division by weights.
const SCALE: u64 = 1_000;
/// A turn takes about this long, so that a hundred readers get one every half second.
const TURN: Duration = Duration::from_millis(5);
const TURN_BYTES: std::ops::RangeInclusive<usize> = 4 * 1024..=64 * 1024;
/// A timer wakes so late; the line is not idle meanwhile.
const BURST: Duration = Duration::from_millis(5);

/// Who is served next. Knows no time: bytes go in, an order comes out.
#[derive(Debug)]
struct Queue<T> {
    waiting: BTreeMap<(u64, u64), (u64, T)>,
    /// The start of the turn that was served last.
    virtual_time: u64,
    /// Tells equal starts apart, first come first served.
    arrivals: u64,
    requests: u64,
    total_weight: u64,
}

/// What a request remembers between its turns.
#[derive(Debug, Clone, Copy)]
struct Place {
    weight: u64,
    /// Where its last turn ended.
    finish: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            virtual_time: 0,
            arrivals: 0,
            requests: 0,
            total_weight: 0,
        }
    }
}

impl<T> Queue<T> {
    fn enter(&mut self, weight: u32) -> Place {
        let weight = u64::from(weight.max(1));
        self.requests += 1;
        self.total_weight += weight;
        Place {
            weight,
            finish: self.virtual_time,
        }
    }

    fn leave(&mut self, place: Place) {
        self.requests -= 1;
        self.total_weight -= place.weight;
    }

    /// The weight in parts of [`SCALE`], raised to what keeps a quarter of an even share. A third of the mean does:
    /// even if it raises everyone else's least share, the sum grows by a third, and (1/3)/(4/3) is a quarter.
    fn effective_weight(&self, weight: u64) -> u64 {
        let is_enough = weight * FLOOR_DIVISOR * self.requests >= self.total_weight;
        if is_enough {
            return weight * SCALE;
        }
        let floor = self.total_weight * SCALE / (self.requests.max(1) * (FLOOR_DIVISOR - 1));
        floor.max(weight * SCALE)
    }

    fn push(&mut self, place: &mut Place, bytes: usize, item: T) {
        let start = place.finish.max(self.virtual_time);
        let length = bytes as u64 * SCALE * SCALE / self.effective_weight(place.weight);
        place.finish = start + length;
        self.arrivals += 1;
        self.waiting.insert((start, self.arrivals), (bytes as u64, item));
    }

    fn pop(&mut self) -> Option<(u64, T)> {
        let ((start, _), next) = self.waiting.pop_first()?;
        self.virtual_time = self.virtual_time.max(start);
        Some(next)
    }
}

/// The node's line to its readers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Egress(Option<Arc<Limited>>);

#[derive(Debug)]
struct Limited {
    line: Arc<Line>,
    weights: Weights,
    turn_bytes: usize,
    _serving: DropGuard,
}

#[derive(Debug)]
struct Line {
    queue: Mutex<Queue<oneshot::Sender<()>>>,
    arrived: Notify,
}

impl Line {
    fn queue(&self) -> MutexGuard<'_, Queue<oneshot::Sender<()>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Egress {
    /// A line of so many Mbit/s (10^6 bits), without a limit if `None`. To be called within a runtime.
    pub(super) fn new(mbit: Option<f64>, weights: Weights) -> Self {
        let Some(mbit) = mbit else {
            return Self(None);
        };
        let bytes_per_s = (mbit * 1e6 / 8.0).max(1.0);
        let line = Arc::new(Line {
            queue: Mutex::default(),
            arrived: Notify::new(),
        });
        let stop = CancellationToken::new();
        let serving = serve(Arc::clone(&line), bytes_per_s);
        tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
        Self(Some(Arc::new(Limited {
            line,
            weights,
            turn_bytes: turn_bytes(bytes_per_s),
            _serving: stop.drop_guard(),
        })))
    }

    /// Begins an answer; `None` where nothing limits it.
    pub(super) fn enter(&self, slack_ms: Option<u64>) -> Option<Turns> {
        let limited = Arc::clone(self.0.as_ref()?);
        let place = limited.line.queue().enter(limited.weights.of(slack_ms));
        Some(Turns {
            limited,
            place,
            granted_bytes: 0,
            waiting: None,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to a range of sizes"
)]
fn turn_bytes(bytes_per_s: f64) -> usize {
    let wanted = bytes_per_s * TURN.as_secs_f64();
    (wanted as usize).clamp(*TURN_BYTES.start(), *TURN_BYTES.end())
}

/// Gives turns, one after another, at the line's rate.
async fn serve(line: Arc<Line>, bytes_per_s: f64) {
    let mut free_at = Instant::now();
    loop {
        // The choice is made when the line is free, not before: who is in need may have come meanwhile.
        sleep_until(free_at.checked_sub(BURST).unwrap_or(free_at)).await;
        let next = line.queue().pop();
        let Some((bytes, wake)) = next else {
            line.arrived.notified().await;
            continue;
        };
        if wake.send(()).is_err() {
            continue; // the reader has left
        }
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(free_at);
        free_at = free_at.max(earliest) + Duration::from_secs_f64(bytes as f64 / bytes_per_s);
    }
}

/// The turns of one answer.
#[derive(Debug)]
pub(super) struct Turns {
    limited: Arc<Limited>,
    place: Place,
    granted_bytes: usize,
    /// The next turn, and how many bytes it is for. Asked for before the last one is used, so that a busy machine does
    /// not cost an answer its place.
    waiting: Option<(usize, oneshot::Receiver<()>)>,
}

impl Turns {
    /// How many of `available` bytes may go now; `left` are still to go, these included.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, available: usize, left: u64) -> Poll<usize> {
        if self.granted_bytes == 0 {
            let (bytes, turn) = self
                .waiting
                .get_or_insert_with(|| self.limited.ask(&mut self.place, left));
            let bytes = *bytes;
            // An error means that the node ends; what is left may go at once.
            let _ = ready!(Pin::new(turn).poll(cx));
            (self.granted_bytes, self.waiting) = (bytes, None);
        }
        let now = self.granted_bytes.min(available);
        self.granted_bytes -= now;
        let rest = left.saturating_sub(now as u64);
        if self.granted_bytes == 0 && rest > 0 {
            self.waiting = Some(self.limited.ask(&mut self.place, rest));
        }
        Poll::Ready(now)
    }
}

impl Limited {
    fn ask(&self, place: &mut Place, left: u64) -> (usize, oneshot::Receiver<()>) {
        let bytes = self.turn_bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
        let (wake, turn) = oneshot::channel();
        self.line.queue().push(place, bytes, wake);
        self.line.arrived.notify_one();
        (bytes, turn)
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.limited.line.queue().leave(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN_BYTES: usize = 1_000;

    /// What each of these requests, which always want more, has got after so many turns.
    fn shares(weights: &[u32], turns: usize) -> Vec<f64> {
        let mut queue = Queue::default();
        let mut places: Vec<Place> = weights.iter().map(|weight| queue.enter(*weight)).collect();
        for (index, place) in places.iter_mut().enumerate() {
            queue.push(place, TURN_BYTES, index);
        }
        let mut got = vec![0.0; weights.len()];
        for _ in 0..turns {
            let (bytes, index) = queue.pop().expect("everybody waits");
            got[index] += bytes as f64;
            queue.push(&mut places[index], TURN_BYTES, index);
        }
        let total: f64 = got.iter().sum();
        got.into_iter().map(|got| got / total).collect()
    }

    fn check_shares(weights: &[u32], expected: &[f64]) {
        for (share, expected) in shares(weights, 10_000).into_iter().zip(expected) {
            assert!(
                (share - expected).abs() < 0.01,
                "{share} instead of {expected} of {weights:?}"
            );
        }
    }

    #[test]
    fn shares_are_in_proportion_to_weights() {
        check_shares(&[1, 1], &[0.5, 0.5]);
        check_shares(&[4, 2, 1], &[4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0]);
    }

    #[test]
    fn nobody_gets_less_than_a_quarter_of_an_even_share() {
        for heavy in [4, 16, 1_000] {
            for (heavies, lights) in [(1, 1), (9, 1), (50, 50), (1, 99)] {
                let weights = [vec![heavy; heavies], vec![1; lights]].concat();
                let least = shares(&weights, 40_000).into_iter().fold(1.0, f64::min);
                let even = 1.0 / weights.len() as f64;
                assert!(
                    least >= even / 4.0 * 0.97,
                    "{:.3} of an even share: {heavies} of weight {heavy}, {lights} of 1",
                    least / even
                );
            }
        }
    }

    #[test]
    fn who_comes_late_has_saved_up_nothing() {
        let mut queue = Queue::default();
        let mut first = queue.enter(1);
        for _ in 0..100 {
            queue.push(&mut first, TURN_BYTES, "first");
            queue.pop();
        }
        let mut late = queue.enter(1);
        queue.push(&mut first, TURN_BYTES, "first");
        queue.push(&mut late, TURN_BYTES, "late");
        queue.push(&mut late, TURN_BYTES, "late");
        let order: Vec<&str> = std::iter::from_fn(|| queue.pop()).map(|(_, who)| who).collect();
        assert_ne!(order, ["late", "late", "first"]);
    }
}
