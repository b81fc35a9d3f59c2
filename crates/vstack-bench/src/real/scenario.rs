//! What the lines are like and what becomes of them: B1 to B13 of the design, as far as real sockets can make them.
//!
//! The same scenarios are played on emulated paths, in network namespaces and in virtual time; names and numbers are
//! those of the simulator's bench. Faults come at 2 s instead of 5 s, since less is fetched here.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use vstack_emulator::{Conditions, Direction, Fault, Profile};

/// A node's line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub(super) mbps: f64,
    /// There and back.
    pub(super) rtt_ms: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Turn {
    /// It carries so much of what it did at first.
    Share(f64),
    /// As a stopped process.
    Stall,
    /// As a killed one.
    Die,
    /// What it carries is wrong.
    Corrupt,
    /// None of the last three.
    Well,
}

/// At this time, to this line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event {
    pub(super) at_s: f64,
    pub(super) line: usize,
    pub(super) turn: Turn,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scenario {
    /// `B4`
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) lines: Vec<Line>,
    /// In order of time.
    pub(super) events: Vec<Event>,
    /// Copies of each chunk, or shards.
    pub(super) parts: usize,
    /// 1: copies; 3: shards.
    pub(super) needed: u8,
    /// Fewer than elsewhere, where lines are thin.
    most_chunks: u32,
}

/// How a line is at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct State {
    pub(super) share: f64,
    pub(super) fault: Option<Turn>,
}

const FLAP_S: f64 = 7.0;
const NOISE_PERIOD_S: f64 = 1.0;
const NOISE_HORIZON_S: u32 = 120;
/// Of the logarithm of a line's bandwidth, and what of it is left a second later: as in the simulator.
const NOISE: f64 = 0.5;
const NOISE_MEMORY: f64 = 0.8;
/// The best of the lines, which what happens happens to.
const BEST: usize = 0;

fn lines(of: &[(f64, u64)]) -> Vec<Line> {
    of.iter()
        .map(|(mbps, rtt_ms)| Line {
            mbps: *mbps,
            rtt_ms: *rtt_ms,
        })
        .collect()
}

fn steady(id: &'static str, name: &'static str, of: &[(f64, u64)]) -> Scenario {
    Scenario {
        id,
        name,
        lines: lines(of),
        events: Vec::new(),
        parts: 3,
        needed: 1,
        most_chunks: u32::MAX,
    }
}

const THREE: [(f64, u64); 3] = [(20.0, 20), (8.0, 40), (2.0, 80)];
const FIVE: [(f64, u64); 5] = [(20.0, 20), (8.0, 40), (8.0, 30), (4.0, 60), (2.0, 80)];

fn struck(id: &'static str, name: &'static str, at_s: f64, turn: Turn) -> Scenario {
    Scenario {
        events: vec![Event {
            at_s,
            line: BEST,
            turn,
        }],
        ..steady(id, name, &THREE)
    }
}

fn coded(scenario: Scenario) -> Scenario {
    Scenario {
        parts: 5,
        needed: 3,
        ..scenario
    }
}

/// Everything that an emulated path can do.
pub(super) fn emulated() -> Vec<Scenario> {
    let mut all = steady_ones();
    all.extend([
        struck("B4", "best collapses to 1 % at 2 s", 2.0, Turn::Share(0.01)),
        struck("B4a", "best collapses at 0.3 s", 0.3, Turn::Share(0.01)),
        struck("B5", "best stalls at 2 s", 2.0, Turn::Stall),
        struck("B5a", "best stalls from the start", 0.0, Turn::Stall),
        struck("B6", "best dies at 2 s", 2.0, Turn::Die),
        Scenario {
            events: turns(BEST, &[(0.0, Turn::Die), (3.0, Turn::Well)]),
            ..steady("B6a", "best joins at 3 s", &THREE)
        },
        struck("B7", "best sends wrong bytes from 2 s", 2.0, Turn::Corrupt),
        struck("B7a", "best sends wrong bytes from the start", 0.0, Turn::Corrupt),
        Scenario {
            events: flapping(),
            ..steady("B8", "best flaps every 7 s", &THREE)
        },
        Scenario {
            events: noisy(3),
            ..steady("B11", "noise, 6/4/3 Mbit/s", &[(6.0, 25), (4.0, 60), (3.0, 120)])
        },
    ]);
    all.extend(coded_ones());
    all
}

fn steady_ones() -> Vec<Scenario> {
    vec![
        steady("B1", "steady 20/8/2 Mbit/s", &THREE),
        steady("B1a", "steady 20/8", &THREE[..2]),
        steady(
            "B1b",
            "steady 20/8 and a slow third, 0.5",
            &[THREE[0], THREE[1], (0.5, 120)],
        ),
        steady("B2", "five nodes 20/8/8/4/2", &FIVE),
        steady("B3", "equal nodes 10/10/10", &[(10.0, 30); 3]),
        steady(
            "B9",
            "pings lie: 2 at 5 ms, 20 at 80 ms, 8 at 60 ms",
            &[(20.0, 80), (8.0, 60), (2.0, 5)],
        ),
        Scenario {
            most_chunks: 2,
            ..steady(
                "B10",
                "tight: 2.0 Mbit/s in all",
                &[(0.75, 30), (0.65, 40), (0.6, 50)],
            )
        },
    ]
}

fn coded_ones() -> Vec<Scenario> {
    vec![
        coded(steady("B13", "shards 20/8/8/4/2", &FIVE)),
        coded(Scenario {
            events: turns(BEST, &[(2.0, Turn::Stall)]),
            ..steady("B13a", "shards, best stalls at 2 s", &FIVE)
        }),
        coded(Scenario {
            events: [
                turns(BEST, &[(2.0, Turn::Die)]),
                turns(BEST + 1, &[(2.0, Turn::Die)]),
            ]
            .concat(),
            ..steady("B13b", "shards, two best die at 2 s", &FIVE)
        }),
    ]
}

/// What `tc tbf` and signals can do.
pub(super) fn in_namespaces() -> Vec<Scenario> {
    let wanted = [
        "B1", "B1a", "B1b", "B2", "B3", "B4", "B5", "B5a", "B6", "B7", "B7a",
    ];
    let mut scenarios = emulated();
    scenarios.retain(|scenario| wanted.contains(&scenario.id));
    for line in scenarios.iter_mut().flat_map(|scenario| &mut scenario.lines) {
        // Delay needs netem, which not every kernel has.
        line.rtt_ms = 1;
    }
    scenarios
}

fn turns(line: usize, of: &[(f64, Turn)]) -> Vec<Event> {
    of.iter()
        .map(|(at_s, turn)| Event {
            at_s: *at_s,
            line,
            turn: *turn,
        })
        .collect()
}

fn flapping() -> Vec<Event> {
    let turn = |number: u32| Event {
        at_s: 3.0 + f64::from(number) * FLAP_S,
        line: BEST,
        turn: if number.is_multiple_of(2) {
            Turn::Stall
        } else {
            Turn::Well
        },
    };
    (0..40).map(turn).collect()
}

/// Each line's bandwidth wanders once a second; the same way in every run.
fn noisy(line_count: usize) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(11);
    let mut noise = vec![0.0; line_count];
    let mut events = Vec::new();
    for second in 1..NOISE_HORIZON_S {
        for (line, level) in noise.iter_mut().enumerate() {
            // Six even lots are normal enough: deviation 1 / sqrt(2).
            let lot: f64 = (0..6).map(|_| random.random_range(-0.5..0.5)).sum::<f64>() * 2.0_f64.sqrt();
            *level = *level * NOISE_MEMORY + lot * NOISE * (1.0 - NOISE_MEMORY * NOISE_MEMORY).sqrt();
            events.push(Event {
                at_s: f64::from(second) * NOISE_PERIOD_S,
                line,
                turn: Turn::Share(level.exp()),
            });
        }
    }
    events
}

impl Scenario {
    /// The same with the lines moved on by one for each round: no policy may live off who is named first.
    pub(super) fn in_round(&self, round: u16) -> Self {
        let count = self.lines.len().max(1);
        // The best is not the first in the first round.
        let by = (usize::from(round) + 1) % count;
        let mut moved = self.clone();
        moved.lines.rotate_right(by);
        for event in &mut moved.events {
            event.line = (event.line + by) % count;
        }
        moved
    }

    pub(super) fn chunks(&self, wanted: u32) -> u32 {
        wanted.min(self.most_chunks)
    }

    pub(super) const fn is_coded(&self) -> bool {
        self.needed > 1
    }

    /// Where each part of a chunk lies, by line.
    pub(super) fn holders(&self, seq: u32) -> Vec<usize> {
        let count = self.lines.len().max(1);
        (0..self.parts.min(count))
            .map(|place| (seq as usize + place) % count)
            .collect()
    }

    pub(super) const fn has_fault(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn state(&self, line: usize, at_s: f64) -> State {
        let well = State {
            share: 1.0,
            fault: None,
        };
        let past = self
            .events
            .iter()
            .filter(|event| event.line == line && event.at_s <= at_s);
        past.fold(well, |state, event| match event.turn {
            Turn::Share(share) => State { share, ..state },
            Turn::Well => State { fault: None, ..state },
            fault => State {
                fault: Some(fault),
                ..state
            },
        })
    }

    /// What an emulated path is told.
    pub(super) fn conditions(&self, line: usize, at_s: f64) -> Conditions {
        let state = self.state(line, at_s);
        let Some(Line { mbps, rtt_ms }) = self.lines.get(line) else {
            return Conditions::default();
        };
        let faults = match state.fault {
            Some(Turn::Stall) => vec![Fault::Stall {
                direction: Direction::Both,
            }],
            Some(Turn::Die) => vec![Fault::Cut {}],
            Some(Turn::Corrupt) => vec![Fault::Corrupt { chance: 1.0 }],
            _ => Vec::new(),
        };
        Conditions {
            profile: Profile {
                down_mbps: Some(mbps * state.share),
                delay_ms: rtt_ms / 2,
                ..Profile::default()
            },
            faults,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_moves_lines_and_what_happens_to_them() {
        for scenario in emulated() {
            for round in 0..6 {
                let moved = scenario.in_round(round);
                for (event, before) in moved.events.iter().zip(&scenario.events) {
                    assert_eq!(moved.lines[event.line], scenario.lines[before.line]);
                    assert_eq!((event.at_s, event.turn), (before.at_s, before.turn));
                }
            }
        }
        let first = emulated()[0].in_round(0);
        assert_ne!(first.lines[0].mbps, 20.0);
    }

    #[test]
    fn a_line_is_as_the_last_event_left_it() {
        let of = |id| emulated().into_iter().find(|scenario| scenario.id == id).unwrap();
        let flap = of("B8");
        assert_eq!(flap.state(BEST, 2.9).fault, None);
        assert_eq!(flap.state(BEST, 3.0).fault, Some(Turn::Stall));
        assert_eq!(flap.state(BEST, 10.5).fault, None);
        assert_eq!(flap.state(BEST + 1, 3.0).fault, None);
        let collapse = of("B4");
        assert_eq!(collapse.state(BEST, 2.0).share, 0.01);
        assert_eq!(collapse.conditions(BEST, 2.0).profile.down_mbps, Some(0.2));
    }

    #[test]
    fn noise_neither_dies_away_nor_runs_off() {
        let shares: Vec<f64> = noisy(3)
            .iter()
            .map(|event| match event.turn {
                Turn::Share(share) => share.ln(),
                _ => 0.0,
            })
            .collect();
        let mean_square = shares.iter().map(|log| log * log).sum::<f64>() / shares.len() as f64;
        assert!((0.3..0.7).contains(&mean_square.sqrt()), "{mean_square}");
    }

    #[test]
    fn events_come_in_order_of_time() {
        for scenario in emulated() {
            let times: Vec<f64> = scenario.events.iter().map(|event| event.at_s).collect();
            assert!(times.is_sorted(), "{}", scenario.name);
        }
    }
}
