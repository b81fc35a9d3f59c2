//! What a seed decides: the cluster, the work, and what goes wrong.

use std::time::Duration;

use vstack_store::sim::Random;

use crate::wire::Machine;

/// One video that an uploader brings in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VideoPlan {
    /// Whose it is.
    pub(crate) uploader: u8,
    /// Bytes of the init segment and of each media chunk.
    pub(crate) sizes: Vec<usize>,
    pub(crate) then: Then,
    /// Another uploader brings other bytes for the same chunks at the same time.
    pub(crate) rival: Option<u8>,
}

/// What becomes of a video once it is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Keep,
    Convert,
    Delete,
    ConvertAndDelete,
}

impl Then {
    pub(crate) const fn converts(self) -> bool {
        matches!(self, Self::Convert | Self::ConvertAndDelete)
    }

    pub(crate) const fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::ConvertAndDelete)
    }
}

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its process is killed; what it wrote stays.
    Killed,
    /// What was not synced may be lost or torn.
    PowerCut,
    /// As a power cut, at one of the next calls to its disk.
    MidWrite,
    /// It comes back with an empty disk.
    DiskLost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash(Machine, End),
    Bounce(Machine),
    /// Nothing passes between the two.
    Part(Machine, Machine),
    /// Nothing passes from the first to the second.
    PartOneWay(Machine, Machine),
    Repair(Machine, Machine),
    /// Everything between the two takes this long.
    Slow(Machine, Machine, Duration),
    /// What is sent between the two waits until it is released.
    Hold(Machine, Machine),
    Release(Machine, Machine),
    /// The catalogue's wall clock jumps ahead.
    ClockJump(Duration),
}

/// One seed's run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: u8,
    pub(crate) uploaders: u8,
    pub(crate) videos: Vec<VideoPlan>,
    pub(crate) latency: (Duration, Duration),
    /// Share of messages that break their link for a while.
    pub(crate) loss: f64,
    /// Longest pause of a node's writer between two batches.
    pub(crate) disk_pause: Duration,
    /// In the order of their times.
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// From here on everything works.
    pub(crate) calm_from: Duration,
}

const SECOND_MS: u64 = 1_000;

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..8 {
            random.next_u64();
        }
        let nodes = 5 + u8::from(random.one_in(3)) + u8::from(random.one_in(3));
        let uploaders = 1 + u8::from(random.one_in(2));
        let calm_from_ms = 8 * SECOND_MS + random.below(14 * SECOND_MS);
        let videos = (0..1 + random.below(2) + u64::from(uploaders - 1))
            .map(|number| video(&mut random, uploaders, number))
            .collect();
        let mut plan = Self {
            nodes,
            uploaders,
            videos,
            latency: latency(&mut random),
            loss: [0.0, 0.0, 0.002, 0.01][pick(&mut random, 4)],
            disk_pause: Duration::from_millis([2, 10, 40, 200][pick(&mut random, 4)]),
            faults: Vec::new(),
            calm_from: Duration::from_millis(calm_from_ms),
        };
        plan.add_faults(&mut random, calm_from_ms);
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    fn add_faults(&mut self, random: &mut Random, calm_from_ms: u64) {
        // An empty disk is one that the copies must make up for: nobody else may be unlucky for ever.
        if random.one_in(5) {
            let node = Machine::Node(1 + below(random, self.nodes));
            self.add_crash(random, calm_from_ms, node, End::DiskLost);
        }
        for _ in 0..random.below(8) {
            let at_ms = 500 + random.below(calm_from_ms - SECOND_MS);
            let at = Duration::from_millis(at_ms);
            let back = Duration::from_millis((at_ms + 200 + random.below(8 * SECOND_MS)).min(calm_from_ms));
            let (one, other) = self.two_machines(random);
            match random.below(9) {
                0..=2 => {
                    let end = [End::Killed, End::PowerCut, End::MidWrite][pick(random, 3)];
                    self.add_crash(random, calm_from_ms, one, end);
                }
                3 => {
                    self.faults.push((at, Fault::Part(one, other)));
                    self.faults.push((back, Fault::Repair(one, other)));
                }
                4 | 5 => {
                    self.faults.push((at, Fault::PartOneWay(one, other)));
                    self.faults.push((back, Fault::Repair(one, other)));
                }
                6 => {
                    // All links of one machine.
                    for peer in self.machines().filter(|peer| *peer != one) {
                        self.faults.push((at, Fault::Part(one, peer)));
                        let back = back + Duration::from_millis(random.below(SECOND_MS));
                        self.faults.push((back, Fault::Repair(one, peer)));
                    }
                }
                7 => {
                    self.faults.push((at, Fault::Hold(one, other)));
                    self.faults.push((back, Fault::Release(one, other)));
                }
                _ => {
                    let slow = Duration::from_millis(100 + random.below(3 * SECOND_MS));
                    self.faults.push((at, Fault::Slow(one, other, slow)));
                }
            }
        }
        if random.one_in(10) {
            let jump = Duration::from_secs(10 + random.below(100));
            let at = Duration::from_millis(random.below(calm_from_ms));
            self.faults.push((at, Fault::ClockJump(jump)));
        }
    }

    fn add_crash(&mut self, random: &mut Random, calm_from_ms: u64, machine: Machine, end: End) {
        let at_ms = 500 + random.below(calm_from_ms - SECOND_MS);
        let back_ms = at_ms + 50 + random.below(6 * SECOND_MS);
        self.faults
            .push((Duration::from_millis(at_ms), Fault::Crash(machine, end)));
        self.faults
            .push((Duration::from_millis(back_ms), Fault::Bounce(machine)));
    }

    pub(crate) fn machines(&self) -> impl Iterator<Item = Machine> + use<> {
        let uploaders = (1..=self.uploaders).map(Machine::Uploader);
        let nodes = (1..=self.nodes).map(Machine::Node);
        std::iter::once(Machine::Catalogue).chain(uploaders).chain(nodes)
    }

    fn two_machines(&self, random: &mut Random) -> (Machine, Machine) {
        let all: Vec<Machine> = self.machines().collect();
        let one = pick(random, all.len());
        let other = (one + 1 + pick(random, all.len() - 1)) % all.len();
        (all[one], all[other])
    }
}

fn video(random: &mut Random, uploaders: u8, number: u64) -> VideoPlan {
    let uploader = 1 + u8::try_from(number % u64::from(uploaders)).unwrap_or(0);
    let size = |random: &mut Random| match random.below(4) {
        0 => 1 + pick(random, 100),
        1 => 4_096,
        2 => 1 + pick(random, 20_000),
        _ => 60_000 + pick(random, 100_000),
    };
    let chunks = 2 + random.below(4);
    VideoPlan {
        uploader,
        sizes: (0..chunks).map(|_| size(random)).collect(),
        then: [
            Then::Keep,
            Then::Keep,
            Then::Convert,
            Then::Convert,
            Then::Delete,
            Then::ConvertAndDelete,
        ][pick(random, 6)],
        rival: (uploaders > 1 && random.one_in(3)).then_some(3 - uploader),
    }
}

fn latency(random: &mut Random) -> (Duration, Duration) {
    let shortest = 1 + random.below(5);
    let longest = shortest + [5, 20, 40, 300][pick(random, 4)];
    (Duration::from_millis(shortest), Duration::from_millis(longest))
}

fn pick(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).unwrap_or(0)
}

fn below(random: &mut Random, count: u8) -> u8 {
    u8::try_from(random.below(u64::from(count))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_and_repeat() {
        let told = |seed| format!("{:?}", Plan::new(seed));
        assert_eq!(told(3), told(3));
        assert_ne!(told(3), told(4));
    }

    #[test]
    fn every_kind_of_fault_is_planned_by_some_seed() {
        let all: Vec<Fault> = (0..300)
            .flat_map(|seed| Plan::new(seed).faults)
            .map(|(_, fault)| fault)
            .collect();
        let some = |is: fn(&Fault) -> bool| assert!(all.iter().any(is));
        some(|fault| matches!(fault, Fault::Crash(Machine::Catalogue, _)));
        some(|fault| matches!(fault, Fault::Crash(Machine::Uploader(_), _)));
        some(|fault| matches!(fault, Fault::Crash(Machine::Node(_), End::MidWrite)));
        some(|fault| matches!(fault, Fault::Crash(Machine::Node(_), End::DiskLost)));
        some(|fault| matches!(fault, Fault::PartOneWay(..)));
        some(|fault| matches!(fault, Fault::Hold(..)));
        some(|fault| matches!(fault, Fault::Slow(..)));
        some(|fault| matches!(fault, Fault::ClockJump(_)));
    }
}
