//! What the lines are like, what happens to the best of them, and the least time that physics allows.

use vstack_emulator::{Conditions, Fault, Loss, Profile};

/// A node's line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) mbps: f64,
    /// There and back.
    pub(super) rtt_ms: u64,
}

/// What happens to the first line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Trouble {
    /// It carries a hundredth from then on.
    Collapse,
    /// As a stopped process.
    Stall,
    /// As a killed one.
    Die,
    /// What it carries is wrong.
    Corrupt,
    /// Seven seconds well, seven lost.
    Flap,
}

#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) lines: Vec<Line>,
    pub(super) trouble: Option<(f64, Trouble)>,
}

const FLAP_MS: u64 = 7_000;
/// The steps in which the bound is summed up.
const STEP_S: f64 = 0.001;
/// Nothing here takes longer.
const HORIZON_S: f64 = 10_000.0;

fn lines(of: &[(f64, u64)]) -> Vec<Line> {
    of.iter()
        .map(|(mbps, rtt_ms)| Line {
            mbps: *mbps,
            rtt_ms: *rtt_ms,
        })
        .collect()
}

/// Everything that an emulated path can do; B1 to B9 of the design.
pub(super) fn emulated() -> Vec<Scenario> {
    let three = [(20.0, 20), (8.0, 40), (2.0, 80)];
    let with = |name, trouble| Scenario {
        name,
        lines: lines(&three),
        trouble,
    };
    let steady = |name, of: &[(f64, u64)]| Scenario {
        name,
        lines: lines(of),
        trouble: None,
    };
    vec![
        with("steady 20/8/2", None),
        steady("equal 10/10/10", &[(10.0, 30); 3]),
        steady(
            "five 20/8/8/4/2",
            &[(20.0, 20), (8.0, 40), (8.0, 40), (4.0, 60), (2.0, 80)],
        ),
        steady(
            "a slow one more 20/8/2/0.5",
            &[(20.0, 20), (8.0, 40), (2.0, 80), (0.5, 80)],
        ),
        steady("pings lie 20@80/8@60/2@5", &[(20.0, 80), (8.0, 60), (2.0, 5)]),
        with("collapse at 0.3 s", Some((0.3, Trouble::Collapse))),
        with("collapse at 2 s", Some((2.0, Trouble::Collapse))),
        with("stall at 0 s", Some((0.0, Trouble::Stall))),
        with("stall at 2 s", Some((2.0, Trouble::Stall))),
        with("die at 2 s", Some((2.0, Trouble::Die))),
        with("corrupt at 0 s", Some((0.0, Trouble::Corrupt))),
        with("corrupt at 2 s", Some((2.0, Trouble::Corrupt))),
        with("flap of 7 s", Some((0.0, Trouble::Flap))),
    ]
}

/// What `tc tbf` and signals can do.
pub(super) fn in_namespaces() -> Vec<Scenario> {
    let wanted = [
        "steady 20/8/2",
        "collapse at 2 s",
        "stall at 2 s",
        "die at 2 s",
        "corrupt at 2 s",
    ];
    let mut scenarios = emulated();
    scenarios.retain(|scenario| wanted.contains(&scenario.name));
    for line in scenarios.iter_mut().flat_map(|scenario| &mut scenario.lines) {
        // Delay needs netem, which not every kernel has.
        line.rtt_ms = 1;
    }
    scenarios
}

impl Line {
    pub(super) fn conditions(self) -> Conditions {
        Conditions {
            profile: Profile {
                down_mbps: Some(self.mbps),
                delay_ms: self.rtt_ms / 2,
                ..Profile::default()
            },
            faults: Vec::new(),
        }
    }
}

impl Trouble {
    pub(super) fn on(self, mut line: Conditions) -> Conditions {
        match self {
            Self::Collapse => line.profile.down_mbps = line.profile.down_mbps.map(|mbps| mbps / 100.0),
            Self::Stall => line.faults.push(Fault::Stall {
                direction: vstack_emulator::Direction::Both,
            }),
            Self::Die => line.faults.push(Fault::Cut {}),
            Self::Corrupt => line.faults.push(Fault::Corrupt { chance: 1.0 }),
            Self::Flap => line.faults.push(Fault::Flap {
                up_ms: FLAP_MS,
                down_ms: FLAP_MS,
                loss: Loss::Stall,
            }),
        }
        line
    }

    /// What is left of the line, so long after it began.
    fn left(self, since_s: f64) -> f64 {
        match self {
            Self::Collapse => 0.01,
            Self::Stall | Self::Die | Self::Corrupt => 0.0,
            Self::Flap if since_s * 1e3 % (2.0 * FLAP_MS as f64) < FLAP_MS as f64 => 1.0,
            Self::Flap => 0.0,
        }
    }
}

impl Scenario {
    /// The fluid bound: every line full from the end of its first round trip on, nothing fetched twice, everything
    /// foreseen.
    pub(super) fn bound_s(&self, bytes: u64) -> f64 {
        let (mut time_s, mut left_bits) = (0.0, bytes as f64 * 8.0);
        while left_bits > 0.0 && time_s < HORIZON_S {
            left_bits -= self.mbps_at(time_s) * 1e6 * STEP_S;
            time_s += STEP_S;
        }
        time_s
    }

    fn mbps_at(&self, time_s: f64) -> f64 {
        let rate = |(index, line): (usize, &Line)| {
            let began = time_s * 1e3 >= line.rtt_ms as f64;
            let share = match self.trouble {
                Some((at_s, trouble)) if index == 0 && time_s >= at_s => trouble.left(time_s - at_s),
                _ => 1.0,
            };
            if began { line.mbps * share } else { 0.0 }
        };
        self.lines.iter().enumerate().map(rate).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_bound(name: &str, bytes: u64, expected_s: f64) {
        let scenario = emulated()
            .into_iter()
            .find(|scenario| scenario.name == name)
            .unwrap();
        let bound_s = scenario.bound_s(bytes);
        assert!(
            (bound_s - expected_s).abs() < 0.02,
            "{name}: {bound_s} s instead of {expected_s}"
        );
    }

    /// By hand, from the formulas of the limits: sum of b_i (T - tau_i) = S.
    #[test]
    fn bounds_are_those_of_the_formulas() {
        check_bound("steady 20/8/2", 2_000_000, 0.559);
        check_bound("steady 20/8/2", 24_000_000, 6.429);
        check_bound("equal 10/10/10", 24_000_000, 6.43);
        // 20 Mbit/s until 2 s, then 10 are left.
        check_bound("die at 2 s", 24_000_000, 15.288);
        check_bound("stall at 0 s", 2_000_000, 1.648);
    }

    #[test]
    fn no_trouble_makes_a_bound_smaller() {
        for scenario in emulated() {
            let calm = Scenario {
                trouble: None,
                ..scenario.clone()
            };
            assert!(
                scenario.bound_s(24_000_000) >= calm.bound_s(24_000_000),
                "{}",
                scenario.name
            );
        }
    }
}
