//! What goes wrong, and how it is mended.

use super::*;

impl World {
    pub(super) fn fault(&mut self) {
        if !self.faults {
            return;
        }
        match self.random.below(11) {
            0..=2 => {
                let node = self.random.index(self.nodes.len());
                self.crash_node(node);
            }
            3 | 4 => self.crash_catalogue(),
            5 => {
                let client = self.random.index(self.clients.len());
                self.crash_client(client);
            }
            6 => self.cut(false),
            7 => self.cut(true),
            8 => self.clog(),
            9 => self.replace_disk(),
            _ => self.back_up(),
        }
        let pause_ms = self.random.between(1, 2 * self.plan.fault_pause_ms);
        self.after(pause_ms, Timer::Fault);
    }

    pub(super) fn back_up(&mut self) {
        let now = self.clock(Address::Catalogue);
        if self.catalogue.up && !self.is_besieged() {
            self.catalogue.back_up(self.now_ms, now);
            self.note(|| "backup".to_owned());
        }
    }

    fn undo_within(&mut self, longest_ms: u64, undo: Undo) {
        let delay_ms = self.random.between(50, longest_ms);
        self.after(delay_ms, Timer::Mend(undo));
    }

    pub(super) fn crash(&mut self, machine: Address) {
        match machine {
            Address::Catalogue => self.crash_catalogue(),
            Address::Node(index) => self.crash_node(index),
            Address::Client(index) => self.crash_client(index),
        }
    }

    fn crash_node(&mut self, index: usize) {
        if self.nodes[index].up {
            self.note(|| format!("node-{index} loses its power"));
            let mut out = Outbox::default();
            self.nodes[index].crash(&mut self.random, &mut out);
            self.flush(Address::Node(index), out);
            self.undo_within(8_000, Undo::StartNode(index));
        }
    }

    fn crash_catalogue(&mut self) {
        if self.catalogue.up {
            let undone = self.random.index(self.catalogue.unsynced() + 1);
            let restored = self.plan.restores && self.random.chance(400);
            self.stop_catalogue(undone, restored, 6_000);
        }
    }

    /// The catalogue loses its power and its last `undone` changes, and perhaps its disk, of which there is a backup.
    pub(super) fn stop_catalogue(&mut self, undone: usize, restored: bool, longest_ms: u64) {
        self.note(|| format!("the catalogue loses its power and its last {undone} changes"));
        let mut out = Outbox::default();
        self.catalogue.crash(undone, &mut out);
        self.flush(Address::Catalogue, out);
        if restored && let Some(made_at_ms) = self.catalogue.restore(self.now_ms) {
            self.note(|| format!("the catalogue is restored to its backup of {made_at_ms} ms"));
            self.oracle.restored(made_at_ms);
        }
        self.undo_within(longest_ms, Undo::StartCatalogue);
    }

    fn crash_client(&mut self, index: usize) {
        if self.clients[index].up {
            self.note(|| format!("client-{index} dies"));
            self.clients[index].crash();
            self.undo_within(5_000, Undo::StartClient(index));
        }
    }

    fn machine(&mut self) -> Address {
        let (nodes, clients) = (self.nodes.len(), self.clients.len());
        match self.random.index(nodes + clients + 2) {
            index if index < nodes => Address::Node(index),
            index if index < nodes + clients => Address::Client(index - nodes),
            _ => Address::Catalogue,
        }
    }

    fn machines(&self) -> Vec<Address> {
        let nodes = (0..self.nodes.len()).map(Address::Node);
        let clients = (0..self.clients.len()).map(Address::Client);
        nodes.chain(clients).chain([Address::Catalogue]).collect()
    }

    /// No message passes from one machine to another, or in neither direction.
    fn cut(&mut self, both_ways: bool) {
        let (from, to) = (self.machine(), self.machine());
        self.note(|| format!("the link {from} -> {to} is cut, both ways: {both_ways}"));
        self.blocked.insert((from, to));
        if both_ways {
            self.blocked.insert((to, from));
        }
        self.undo_within(15_000, Undo::HealLink(from, to));
    }

    /// All links of one machine stop, and come back one by one in random order.
    fn clog(&mut self) {
        let machine = self.machine();
        self.note(|| format!("all links of {machine} stop"));
        for other in self.machines() {
            self.blocked.insert((machine, other));
            self.blocked.insert((other, machine));
            self.undo_within(10_000, Undo::HealLink(machine, other));
        }
    }

    /// Within what the protocol claims to survive.
    fn replace_disk(&mut self) {
        let index = self.random.index(self.nodes.len());
        let sight = Sight {
            now_ms: self.now_ms,
            catalogue: &self.catalogue,
            nodes: &self.nodes,
        };
        if self.nodes[index].up && sight.can_lose(index) {
            self.note(|| format!("the disk of node-{index} is replaced by an empty one"));
            self.nodes[index].lose_disk();
            let life = self.nodes[index].life;
            self.after(0, Timer::NodeBeat { node: index, life });
        }
    }

    pub(super) fn undo(&mut self, undo: Undo) {
        let mut out = Outbox::default();
        let from = match undo {
            Undo::StartNode(index) => {
                if !self.nodes[index].up {
                    self.note(|| format!("node-{index} starts"));
                    self.nodes[index].start(&mut out);
                }
                Address::Node(index)
            }
            Undo::StartCatalogue => {
                if !self.catalogue.up {
                    let now = self.clock(Address::Catalogue);
                    self.catalogue.start(now, &mut out);
                    let generation = self.catalogue.generation();
                    self.note(|| format!("the catalogue starts with generation {generation}"));
                }
                Address::Catalogue
            }
            Undo::StartClient(index) => {
                self.clients[index].up = true;
                Address::Client(index)
            }
            Undo::HealLink(from, to) => {
                self.blocked.remove(&(from, to));
                self.blocked.remove(&(to, from));
                from
            }
        };
        self.flush(from, out);
    }

    /// Everything is mended; from now on only the work counts.
    pub(super) fn end_faults(&mut self) {
        self.note(|| "faults end".to_owned());
        self.faults = false;
        self.blocked.clear();
        self.end_siege();
        for index in 0..self.nodes.len() {
            self.undo(Undo::StartNode(index));
        }
        self.undo(Undo::StartCatalogue);
        for index in 0..self.clients.len() {
            self.undo(Undo::StartClient(index));
        }
    }
}
