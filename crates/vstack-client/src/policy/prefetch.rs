//! What to fetch before anybody asks for it, and when to leave that alone: a pure planner and the shelf that it fills.
//!
//! Hints say what may be needed soon: the pointer rests on the seek bar, the viewer may resume where they left, another
//! video comes next. The planner asks for one thing at a time, and only while playback needs nothing: more than
//! [`PrefetchConfig::above`] lies ahead of the playhead, or everything up to the end. The moment that is no longer so, what
//! is under way is stopped.
//!
//! Invariants: bytes that were fetched in advance and not used stay within `budget_bytes` and `share` of what playback
//! received; the shelf never holds more than `budget_bytes`; what nobody hints at any more makes room for what is.
//! Left out: parts of chunks. A fetch that is stopped begins anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::Micros;

/// The figures of prefetching.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefetchConfig {
    /// Nothing is fetched in advance while less than this lies ahead of the playhead (contracts: 10 s).
    pub above: Micros,
    /// After a stop, this much more has to lie ahead, so that what hovers at the mark does not begin again and again.
    pub again_above: Micros,
    /// What may lie on the shelf; 0 turns prefetching off.
    pub budget_bytes: u64,
    /// What may have been fetched for nothing, beside the budget: this share of what playback received.
    pub share: f64,
    /// A pointer that moves on sooner asks for nothing. Guess: longer than a hand takes to cross the bar.
    pub rest: Micros,
}

impl Default for PrefetchConfig {
    fn default() -> Self {
        Self {
            above: Micros::from_ms(10_000),
            again_above: Micros::from_ms(2_000),
            budget_bytes: 32 * 1024 * 1024,
            share: 0.05,
            rest: Micros::from_ms(150),
        }
    }
}

/// Why something may be needed soon; the likelier first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// The pointer rests there on the seek bar.
    Pointer,
    /// The viewer may go on where they left.
    Resume,
    /// It comes next in the queue.
    Next,
}

/// Why a fetch in advance was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// Playback waits for data, or somebody waits for a chunk.
    Needed,
    /// Too little lies ahead of the playhead.
    Level,
    /// Nobody hints at it any more.
    Unhinted,
}

/// How playback stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub level: Micros,
    /// Everything up to the end is held.
    pub reaches_end: bool,
    /// Playback waits for data, or somebody waits for a chunk.
    pub waits: bool,
    /// What playback has received so far.
    pub received_bytes: u64,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<K> {
    Start { key: K, why: Hint },
    Stop { key: K, why: PauseReason },
}

/// Decides for one session.
#[derive(Debug, Clone)]
pub struct Planner<K> {
    config: PrefetchConfig,
    wishes: BTreeMap<Hint, Vec<(K, u64)>>,
    pointed_at: Micros,
    running: Option<K>,
    stopped: bool,
    /// Not asked for again before another hint names it: no node delivered it, or playback has it.
    done: BTreeSet<K>,
}

impl<K: Copy + Ord> Planner<K> {
    #[must_use]
    pub fn new(config: PrefetchConfig) -> Self {
        Self {
            config,
            wishes: BTreeMap::new(),
            pointed_at: Micros(0),
            running: None,
            stopped: false,
            done: BTreeSet::new(),
        }
    }

    /// These, with their sizes, take the place of what was hinted at for this reason before; the first is needed first.
    pub fn hint(&mut self, now: Micros, why: Hint, wishes: Vec<(K, u64)>) {
        if self.wishes.get(&why) == Some(&wishes) {
            return;
        }
        for (key, _) in &wishes {
            self.done.remove(key);
        }
        if why == Hint::Pointer {
            self.pointed_at = now;
        }
        self.wishes.insert(why, wishes);
    }

    /// Whether somebody hints at it.
    #[must_use]
    pub fn wants(&self, key: K) -> bool {
        self.wishes.values().flatten().any(|(wished, _)| *wished == key)
    }

    /// What is under way has ended; `came` says whether it is on the shelf now.
    pub fn ended(&mut self, key: K, came: bool) {
        if self.running == Some(key) {
            self.running = None;
        }
        if !came {
            self.done.insert(key);
        }
    }

    /// Playback has it now.
    pub fn served(&mut self, key: K) {
        if self.wants(key) {
            self.done.insert(key);
        }
    }

    /// What to do now. Ask again after every change, and when [`Planner::look_at`] says.
    pub fn step<V>(&mut self, now: Micros, standing: Standing, shelf: &Shelf<K, V>) -> Option<Step<K>> {
        let pause = self.pause(standing);
        if let Some(key) = self.running {
            let why = pause.or_else(|| (!self.wants(key)).then_some(PauseReason::Unhinted))?;
            self.running = None;
            self.stopped = why != PauseReason::Unhinted;
            return Some(Step::Stop { key, why });
        }
        if pause.is_some() {
            self.stopped = true;
            return None;
        }
        self.stopped = false;
        let (key, why) = self.next(now, standing, shelf)?;
        self.running = Some(key);
        Some(Step::Start { key, why })
    }

    /// When a pointer will have rested long enough.
    #[must_use]
    pub fn look_at(&self, now: Micros) -> Option<Micros> {
        let rested = self.pointed_at + self.config.rest;
        let pointed = self
            .wishes
            .get(&Hint::Pointer)
            .is_some_and(|wishes| !wishes.is_empty());
        (pointed && rested > now).then_some(rested)
    }

    fn pause(&self, standing: Standing) -> Option<PauseReason> {
        let mark = if self.stopped {
            self.config.above + self.config.again_above
        } else {
            self.config.above
        };
        if standing.waits {
            Some(PauseReason::Needed)
        } else if standing.level <= mark && !standing.reaches_end {
            Some(PauseReason::Level)
        } else {
            None
        }
    }

    fn next<V>(&self, now: Micros, standing: Standing, shelf: &Shelf<K, V>) -> Option<(K, Hint)> {
        let allowed = self.config.budget_bytes as f64 + self.config.share * standing.received_bytes as f64;
        let kept = |(key, _): &(K, u64)| shelf.contains(*key);
        let wished_bytes: u64 = self.wished().filter(kept).map(|(_, bytes)| bytes).sum();
        let fits = |bytes: u64| {
            wished_bytes + bytes <= self.config.budget_bytes
                && (shelf.unused_bytes() + bytes) as f64 <= allowed
        };
        let rests = self.pointed_at + self.config.rest <= now;
        let open = self.wishes.iter().flat_map(|(why, wishes)| {
            let ready = *why != Hint::Pointer || rests;
            wishes
                .iter()
                .filter(move |_| ready)
                .map(move |(key, bytes)| (*key, *bytes, *why))
        });
        open.filter(|(key, bytes, _)| !shelf.contains(*key) && !self.done.contains(key) && fits(*bytes))
            .map(|(key, _, why)| (key, why))
            .next()
    }

    /// Each key once.
    fn wished(&self) -> impl Iterator<Item = (K, u64)> {
        let all: BTreeMap<K, u64> = self.wishes.values().flatten().copied().collect();
        all.into_iter()
    }
}

/// What was fetched in advance, until somebody needs it.
#[derive(Debug)]
pub struct Shelf<K, V> {
    budget_bytes: u64,
    /// The oldest first.
    kept: VecDeque<(K, u64, V)>,
    kept_bytes: u64,
    wasted_bytes: u64,
}

impl<K: Copy + Ord, V> Shelf<K, V> {
    #[must_use]
    pub const fn new(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            kept: VecDeque::new(),
            kept_bytes: 0,
            wasted_bytes: 0,
        }
    }

    #[must_use]
    pub fn contains(&self, key: K) -> bool {
        self.kept.iter().any(|(kept, ..)| *kept == key)
    }

    pub fn keys(&self) -> impl Iterator<Item = K> + '_ {
        self.kept.iter().map(|(key, ..)| *key)
    }

    /// Fetched in advance and not used: what lies here, and what was thrown away.
    #[must_use]
    pub const fn unused_bytes(&self) -> u64 {
        self.kept_bytes + self.wasted_bytes
    }

    #[must_use]
    pub const fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Puts it here; what nobody `wants`, and then what is oldest, makes room. The bytes thrown away.
    pub fn put(&mut self, key: K, bytes: u64, value: V, wants: impl Fn(K) -> bool) -> u64 {
        let mut thrown = self.remove(key).map_or(0, |(bytes, _)| bytes);
        while self.kept_bytes + bytes > self.budget_bytes {
            let unwanted = self.kept.iter().position(|(kept, ..)| !wants(*kept));
            let Some((_, freed, _)) = self.kept.remove(unwanted.unwrap_or(0)) else {
                self.wasted_bytes += thrown + bytes;
                return thrown + bytes;
            };
            self.kept_bytes -= freed;
            thrown += freed;
        }
        self.wasted_bytes += thrown;
        self.kept_bytes += bytes;
        self.kept.push_back((key, bytes, value));
        thrown
    }

    /// Takes out what is needed now: it was fetched in advance for something.
    pub fn take(&mut self, key: K) -> Option<V> {
        self.remove(key).map(|(_, value)| value)
    }

    /// Bytes of a fetch that was stopped or failed.
    pub const fn waste(&mut self, bytes: u64) {
        self.wasted_bytes += bytes;
    }

    fn remove(&mut self, key: K) -> Option<(u64, V)> {
        let place = self.kept.iter().position(|(kept, ..)| *kept == key)?;
        let (_, bytes, value) = self.kept.remove(place)?;
        self.kept_bytes -= bytes;
        Some((bytes, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WELL: Standing = Standing {
        level: Micros::from_ms(20_000),
        reaches_end: false,
        waits: false,
        received_bytes: 0,
    };

    fn planner() -> (Planner<u32>, Shelf<u32, ()>) {
        let config = PrefetchConfig {
            budget_bytes: 10,
            ..PrefetchConfig::default()
        };
        (Planner::new(config), Shelf::new(config.budget_bytes))
    }

    const fn start(key: u32, why: Hint) -> Option<Step<u32>> {
        Some(Step::Start { key, why })
    }

    #[test]
    fn a_pointer_that_rests_comes_before_the_next_video() {
        let (mut planner, mut shelf) = planner();
        planner.hint(Micros(0), Hint::Next, vec![(1, 4), (2, 4)]);
        planner.hint(Micros(0), Hint::Pointer, vec![(9, 2)]);
        assert_eq!(
            planner.step(Micros(1), WELL, &shelf),
            start(1, Hint::Next),
            "it has not rested"
        );
        planner.ended(1, true);
        shelf.put(1, 4, (), |key| planner.wants(key));
        let rested = planner.look_at(Micros(1)).unwrap();
        assert_eq!(planner.step(rested, WELL, &shelf), start(9, Hint::Pointer));
        planner.ended(9, true);
        shelf.put(9, 2, (), |key| planner.wants(key));
        assert_eq!(planner.step(rested, WELL, &shelf), start(2, Hint::Next));
        assert_eq!(planner.step(rested, WELL, &shelf), None, "one at a time");
    }

    #[test]
    fn what_is_under_way_stops_at_once_when_the_level_falls_and_begins_again_above_the_mark() {
        let (mut planner, shelf) = planner();
        let at = |ms| Standing {
            level: Micros::from_ms(ms),
            ..WELL
        };
        planner.hint(Micros(0), Hint::Next, vec![(1, 4)]);
        assert_eq!(planner.step(Micros(1), at(9_999), &shelf), None);
        assert_eq!(
            planner.step(Micros(1), at(10_001), &shelf),
            None,
            "it stood at the mark just now"
        );
        assert_eq!(planner.step(Micros(1), at(12_001), &shelf), start(1, Hint::Next));
        let stop = |why| Some(Step::Stop { key: 1, why });
        assert_eq!(
            planner.step(Micros(1), at(10_000), &shelf),
            stop(PauseReason::Level)
        );
        assert_eq!(planner.step(Micros(1), at(11_000), &shelf), None);
        let end = Standing {
            reaches_end: true,
            ..at(500)
        };
        assert_eq!(planner.step(Micros(1), end, &shelf), start(1, Hint::Next));
        let waits = Standing { waits: true, ..WELL };
        assert_eq!(planner.step(Micros(1), waits, &shelf), stop(PauseReason::Needed));
    }

    #[test]
    fn a_hint_that_is_taken_back_stops_its_fetch_and_a_failure_is_not_repeated() {
        let (mut planner, shelf) = planner();
        planner.hint(Micros(0), Hint::Resume, vec![(1, 4)]);
        assert_eq!(planner.step(Micros(1), WELL, &shelf), start(1, Hint::Resume));
        planner.hint(Micros(2), Hint::Resume, vec![(2, 4)]);
        let why = PauseReason::Unhinted;
        assert_eq!(
            planner.step(Micros(2), WELL, &shelf),
            Some(Step::Stop { key: 1, why })
        );
        assert_eq!(planner.step(Micros(2), WELL, &shelf), start(2, Hint::Resume));
        planner.ended(2, false);
        assert_eq!(planner.step(Micros(3), WELL, &shelf), None);
    }

    #[test]
    fn what_playback_has_taken_is_not_fetched_again_for_the_same_hint() {
        let (mut planner, mut shelf) = planner();
        planner.hint(Micros(0), Hint::Resume, vec![(1, 4)]);
        assert_eq!(planner.step(Micros(1), WELL, &shelf), start(1, Hint::Resume));
        planner.ended(1, true);
        shelf.put(1, 4, (), |key| planner.wants(key));
        assert!(shelf.take(1).is_some());
        planner.served(1);
        assert_eq!(planner.step(Micros(2), WELL, &shelf), None);
        planner.hint(Micros(3), Hint::Next, vec![(1, 4)]);
        assert_eq!(planner.step(Micros(3), WELL, &shelf), start(1, Hint::Resume));
    }

    #[test]
    fn what_nobody_hints_at_makes_room_first() {
        let (_, mut shelf) = planner();
        for key in 1..=3 {
            assert_eq!(shelf.put(key, 3, (), |_| true), 0);
        }
        assert_eq!(shelf.put(4, 3, (), |key| key != 2), 3);
        assert_eq!(shelf.keys().collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(
            shelf.put(5, 11, (), |_| true),
            20,
            "too large: it empties the shelf and is thrown away"
        );
        assert_eq!((shelf.kept_bytes(), shelf.unused_bytes()), (0, 23));
        assert!(shelf.take(1).is_none());
    }

    #[derive(Debug, Clone)]
    enum Happens {
        Hint(u8, Vec<u32>),
        Level(u64, bool, bool),
        Comes,
        Fails,
        Needed(u32),
        Received(u64),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            (0u8..3, prop::collection::vec(0u32..20, 0..4)).prop_map(|(why, keys)| Happens::Hint(why, keys)),
            (0u64..30_000, any::<bool>(), prop::bool::weighted(0.2))
                .prop_map(|(level, end, waits)| Happens::Level(level, end, waits)),
            Just(Happens::Comes),
            Just(Happens::Fails),
            (0u32..20).prop_map(Happens::Needed),
            (0u64..50).prop_map(Happens::Received),
        ]
    }

    /// Sizes differ and all fit the budget.
    fn size(key: u32) -> u64 {
        u64::from(key % 7 + 1)
    }

    proptest! {
        /// Whatever happens: nothing is under way while playback needs the network, and the budget holds.
        #[test]
        fn prefetching_keeps_off_playback_and_within_its_budget(story in prop::collection::vec(happens(), 1..200)) {
            let (mut planner, mut shelf) = planner();
            let (mut standing, mut running, mut came, mut used) = (WELL, None::<u32>, 0_u64, 0_u64);
            for (tick, event) in (1_u64..).zip(story) {
                let now = Micros::from_ms(tick * 100);
                match event {
                    Happens::Hint(why, keys) => {
                        let why = [Hint::Pointer, Hint::Resume, Hint::Next][usize::from(why)];
                        planner.hint(now, why, keys.into_iter().map(|key| (key, size(key))).collect());
                    }
                    Happens::Level(ms, reaches_end, waits) => {
                        standing = Standing { level: Micros::from_ms(ms), reaches_end, waits, ..standing };
                    }
                    Happens::Comes => if let Some(key) = running.take() {
                        planner.ended(key, true);
                        came += size(key);
                        shelf.put(key, size(key), (), |key| planner.wants(key));
                    },
                    Happens::Fails => if let Some(key) = running.take() {
                        planner.ended(key, false);
                        came += 1;
                        shelf.waste(1);
                    },
                    Happens::Needed(key) => used += shelf.take(key).map_or(0, |()| size(key)),
                    Happens::Received(bytes) => standing.received_bytes += bytes,
                }
                while let Some(step) = planner.step(now, standing, &shelf) {
                    match step {
                        Step::Start { key, .. } => {
                            prop_assert!(running.is_none() && !shelf.contains(key) && planner.wants(key));
                            running = Some(key);
                        }
                        Step::Stop { key, .. } => prop_assert_eq!(running.take(), Some(key)),
                    }
                }
                let free = !standing.waits && (standing.reaches_end || standing.level > Micros::from_ms(10_000));
                prop_assert!(running.is_none() || free, "{:?}", standing);
                prop_assert!(shelf.kept_bytes() <= 10);
                prop_assert_eq!(shelf.unused_bytes(), came - used);
                let spent = shelf.unused_bytes() + running.map_or(0, size);
                // A failure costs what it brought, which the budget cannot know before.
                prop_assert!(spent as f64 <= 10.0 + 0.05 * standing.received_bytes as f64 + 1.0, "{}", spent);
            }
        }
    }
}
