//! Whose bytes leave next, where the node itself is the bottleneck.
//!
//! With a limit (`--egress-mbit`, a little below what the machine's line carries) the queue stands here and not in the
//! kernel, and those who need their bytes soonest are served first: each request has a weight by the slack its client
//! told, less the time since, and counts more the nearer it is to its end, so that what is begun is finished first.
//! Shares are in proportion (self-clocked fair queueing, Golestani 1994) among those whose turns come up between two signs
//! of life: whoever waits is sent a few bytes now and then, or a reader's own stall detection would give a well node up,
//! and begins its wait anew. Without a limit nothing waits here: the kernel shares the
//! line evenly, and weights would change nothing.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use vstack_api::slack::Weights;

/// A turn takes about this long, so that a hundred readers get one every half second.
const TURN: Duration = Duration::from_millis(5);
const TURN_BYTES: std::ops::RangeInclusive<usize> = 4 * 1024..=64 * 1024;
/// A timer wakes so late; the line is not idle meanwhile.
const BURST: Duration = Duration::from_millis(5);
/// Nobody who could take bytes gets none for longer than this: half of what a player takes for silence.
const SIGN_PERIOD: Duration = Duration::from_millis(350);
/// So much then: of a hundred who wait, less than a tenth of a line of 6 Mbit/s.
const SIGN_BYTES: usize = 256;
/// Signs take at most one byte for so many in turns: where thousands wait, those in need still come first.
const TURN_BYTES_FOR_A_SIGN_BYTE: usize = 3;
const MOST_SIGN_CREDIT_BYTES: usize = 64 * 1024;

/// Who is served next, in bytes and in time that it is told of.
#[derive(Debug)]
struct Queue<T> {
    /// By the virtual time at which its turn would end, then first come first served.
    waiting: BTreeMap<Key, Waiting<T>>,
    /// By when a sign of life is due.
    signs: BTreeMap<(Duration, u64), Key>,
    /// What signs may still take.
    sign_credit_bytes: usize,
    /// Where the turn that was given last ends.
    virtual_time: f64,
    arrivals: u64,
}

/// Virtual time, in bytes for a weight of 1, and a number that tells equal times apart.
type Key = (OrderedBytes, u64);

/// A finite number of bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct OrderedBytes(f64);

impl Eq for OrderedBytes {}

impl PartialOrd for OrderedBytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedBytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[derive(Debug)]
struct Waiting<T> {
    bytes: usize,
    sign_due: Duration,
    item: T,
}

/// A turn that is asked for.
#[derive(Debug, Clone, Copy)]
struct Ask {
    bytes: usize,
    weight: f64,
}

/// A turn that is given.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grant {
    bytes: usize,
    at: Duration,
}

/// What a request remembers between its turns.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Where its last turn ended, in virtual time.
    finish: f64,
    /// Of the turn it waits for.
    start: f64,
    /// When it must get a sign of life.
    sign_due: Duration,
}

impl Place {
    /// A sign of life took less than was asked for. The wait begins anew with it: where many wait long, those in need gain
    /// more than their proportion, which crowds are better for (`docs/decisions/0215-who-is-served-first.md`).
    fn served(&mut self, asked: Ask, grant: Grant) {
        self.finish = self.start + grant.bytes as f64 / asked.weight;
        self.sign_due = grant.at + SIGN_PERIOD;
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            signs: BTreeMap::new(),
            sign_credit_bytes: MOST_SIGN_CREDIT_BYTES,
            virtual_time: 0.0,
            arrivals: 0,
        }
    }
}

impl<T> Queue<T> {
    /// A new request: the first bytes are a sign of life, which is due at once.
    const fn enter(&self, now: Duration) -> Place {
        Place {
            finish: self.virtual_time,
            start: self.virtual_time,
            sign_due: now,
        }
    }

    fn push(&mut self, place: &mut Place, ask: Ask, item: T) {
        place.start = place.finish.max(self.virtual_time);
        self.arrivals += 1;
        let end = place.start + ask.bytes as f64 / ask.weight;
        let key = (OrderedBytes(end), self.arrivals);
        let waiting = Waiting {
            bytes: ask.bytes,
            sign_due: place.sign_due,
            item,
        };
        self.signs.insert((place.sign_due, self.arrivals), key);
        self.waiting.insert(key, waiting);
    }

    fn pop(&mut self, now: Duration) -> Option<(Grant, T)> {
        let may_sign = self.sign_credit_bytes >= SIGN_BYTES;
        let due = self
            .signs
            .first_key_value()
            .filter(|((due, _), _)| may_sign && *due <= now);
        let (key, is_sign) = match due {
            Some((_, key)) => (*key, true),
            None => (*self.waiting.first_key_value()?.0, false),
        };
        let next = self.waiting.remove(&key)?;
        self.signs.remove(&(next.sign_due, key.1));
        let bytes = if is_sign {
            let bytes = next.bytes.min(SIGN_BYTES);
            self.sign_credit_bytes -= bytes;
            bytes
        } else {
            self.virtual_time = self.virtual_time.max(key.0.0);
            let earned = next.bytes / TURN_BYTES_FOR_A_SIGN_BYTE;
            self.sign_credit_bytes = (self.sign_credit_bytes + earned).min(MOST_SIGN_CREDIT_BYTES);
            next.bytes
        };
        Some((Grant { bytes, at: now }, next.item))
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
    queue: Mutex<Queue<oneshot::Sender<Grant>>>,
    arrived: Notify,
    opened: Instant,
}

impl Line {
    fn queue(&self) -> MutexGuard<'_, Queue<oneshot::Sender<Grant>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
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
            opened: Instant::now(),
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

    /// Begins an answer of so many bytes; `None` where nothing limits it.
    pub(super) fn enter(&self, slack_ms: Option<u64>, total_bytes: u64) -> Option<Turns> {
        let limited = Arc::clone(self.0.as_ref()?);
        let entered = limited.line.now();
        let place = limited.line.queue().enter(entered);
        Some(Turns {
            limited,
            place,
            slack_ms,
            entered,
            total_bytes,
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
        let next = line.queue().pop(line.now());
        let Some((grant, wake)) = next else {
            line.arrived.notified().await;
            continue;
        };
        if wake.send(grant).is_err() {
            continue; // the reader has left
        }
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(free_at);
        free_at = free_at.max(earliest) + Duration::from_secs_f64(grant.bytes as f64 / bytes_per_s);
    }
}

/// The turns of one answer.
#[derive(Debug)]
pub(super) struct Turns {
    limited: Arc<Limited>,
    place: Place,
    slack_ms: Option<u64>,
    entered: Duration,
    total_bytes: u64,
    granted_bytes: usize,
    /// The next turn. Asked for before the last one is used, so that a busy machine does not cost an answer its place.
    waiting: Option<(Ask, oneshot::Receiver<Grant>)>,
}

impl Turns {
    /// How many of `available` bytes may go now; `left` are still to go, these included.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, available: usize, left: u64) -> Poll<usize> {
        if self.granted_bytes == 0 {
            let (ask, mut turn) = match self.waiting.take() {
                Some(waiting) => waiting,
                None => self.ask(left),
            };
            let Poll::Ready(granted) = Pin::new(&mut turn).poll(cx) else {
                self.waiting = Some((ask, turn));
                return Poll::Pending;
            };
            self.granted_bytes = match granted {
                Ok(grant) => {
                    self.place.served(ask, grant);
                    grant.bytes
                }
                // The node ends; what is left may go at once.
                Err(_) => ask.bytes,
            };
        }
        let now = self.granted_bytes.min(available);
        self.granted_bytes -= now;
        let rest = left.saturating_sub(now as u64);
        if self.granted_bytes == 0 && rest > 0 {
            self.waiting = Some(self.ask(rest));
        }
        Poll::Ready(now)
    }

    fn ask(&mut self, left: u64) -> (Ask, oneshot::Receiver<Grant>) {
        let Limited {
            line,
            weights,
            turn_bytes,
            ..
        } = &*self.limited;
        // What was needed in seven seconds five seconds ago is needed in two.
        let waited_ms = u64::try_from((line.now() - self.entered).as_millis()).unwrap_or(u64::MAX);
        let slack_ms = self.slack_ms.map(|slack_ms| slack_ms.saturating_sub(waited_ms));
        let ask = Ask {
            bytes: usize::try_from(left).map_or(*turn_bytes, |left| left.min(*turn_bytes)),
            weight: f64::from(weights.of(slack_ms)) * weights.factor(self.total_bytes, left),
        };
        let (wake, turn) = oneshot::channel();
        line.queue().push(&mut self.place, ask, wake);
        line.arrived.notify_one();
        (ask, turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN_BYTES: usize = 1_000;
    /// Long enough after everybody's first sign of life, and before their second.
    const LATER: Duration = Duration::from_millis(100);

    fn ask(weight: u32) -> Ask {
        Ask {
            bytes: TURN_BYTES,
            weight: f64::from(weight),
        }
    }

    /// Requests of these weights that always want more.
    struct Crowd {
        queue: Queue<usize>,
        members: Vec<(Ask, Place)>,
        got: Vec<usize>,
    }

    impl Crowd {
        fn new(weights: &[u32]) -> Self {
            let mut queue = Queue::default();
            let mut members: Vec<(Ask, Place)> = weights
                .iter()
                .map(|weight| (ask(*weight), queue.enter(Duration::ZERO)))
                .collect();
            for (index, (ask, place)) in members.iter_mut().enumerate() {
                queue.push(place, *ask, index);
            }
            let got = vec![0; members.len()];
            Self { queue, members, got }
        }

        /// Who gets the next turn, and of how many bytes.
        fn turn(&mut self, now: Duration) -> (usize, usize) {
            let (grant, index) = self.queue.pop(now).expect("everybody waits");
            self.got[index] += grant.bytes;
            let (ask, place) = &mut self.members[index];
            place.served(*ask, grant);
            self.queue.push(place, *ask, index);
            (index, grant.bytes)
        }

        fn shares(&mut self, turns: usize) -> Vec<f64> {
            for _ in 0..turns {
                self.turn(LATER);
            }
            let total: usize = self.got.iter().sum();
            self.got.iter().map(|got| *got as f64 / total as f64).collect()
        }
    }

    fn check_shares(weights: &[u32], expected: &[f64]) {
        let shares = Crowd::new(weights).shares(10_000);
        for (share, expected) in shares.into_iter().zip(expected) {
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
        check_shares(&[24, 1, 1], &[24.0 / 26.0, 1.0 / 26.0, 1.0 / 26.0]);
    }

    #[test]
    fn whoever_waits_gets_a_sign_of_life_in_time_and_no_more_than_that() {
        for heavies in [1, 9, 50] {
            let weights = [vec![1_000_000; heavies], vec![1]].concat();
            let (mut crowd, light) = (Crowd::new(&weights), heavies);
            let mut served = Vec::new();
            for ms in 0..2_000 {
                let now = Duration::from_millis(ms);
                let (index, bytes) = crowd.turn(now);
                if index == light {
                    served.push((now, bytes));
                }
            }
            // As many as wait may be due at the same moment.
            let longest = SIGN_PERIOD + Duration::from_millis(weights.len() as u64);
            let gaps = served.windows(2).map(|pair| pair[1].0 - pair[0].0);
            assert!(gaps.max().expect("several") <= longest, "{served:?}");
            assert!(served.iter().all(|(_, bytes)| *bytes == SIGN_BYTES), "{served:?}");
        }
    }

    #[test]
    fn where_thousands_wait_those_in_need_still_come_first() {
        const BYTES_PER_MS: u64 = 800;
        let weights = [vec![1_000_000], vec![1; 3_000]].concat();
        let mut crowd = Crowd::new(&weights);
        let mut sent_bytes = 0;
        while sent_bytes < 4_000_000 {
            let (_, bytes) = crowd.turn(Duration::from_millis(sent_bytes / BYTES_PER_MS));
            sent_bytes += bytes as u64;
        }
        let share = crowd.got[0] as f64 / sent_bytes as f64;
        assert!((0.7..0.8).contains(&share), "{share}");
    }

    #[test]
    fn after_their_first_signs_equals_share_evenly() {
        let mut crowd = Crowd::new(&[1, 1]);
        let first = [crowd.turn(Duration::ZERO), crowd.turn(Duration::ZERO)];
        assert_eq!(first, [(0, SIGN_BYTES), (1, SIGN_BYTES)]);
        let shares = crowd.shares(1_000);
        assert!((shares[0] - 0.5).abs() < 0.01, "{shares:?}");
    }

    #[test]
    fn who_comes_late_has_saved_up_nothing() {
        let mut queue = Queue::default();
        let mut first = queue.enter(LATER);
        first.sign_due = Duration::MAX;
        for _ in 0..100 {
            queue.push(&mut first, ask(1), "first");
            let (grant, _) = queue.pop(LATER).expect("it waits");
            first.finish = first.start + grant.bytes as f64;
        }
        let mut late = queue.enter(LATER);
        late.sign_due = Duration::MAX;
        queue.push(&mut first, ask(1), "first");
        queue.push(&mut late, ask(1), "late");
        late.finish = late.start + TURN_BYTES as f64;
        queue.push(&mut late, ask(1), "late");
        let order: Vec<&str> = std::iter::from_fn(|| queue.pop(LATER))
            .map(|(_, who)| who)
            .collect();
        assert_ne!(order, ["late", "late", "first"]);
    }
}
