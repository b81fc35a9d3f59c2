//! The doors of a path: whether bytes move in each direction, and whether connections live.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::conditions::{Direction, Fault, Loss};
use crate::path::Line;

/// What the path does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Doors {
    pub(crate) up_shut: bool,
    pub(crate) down_shut: bool,
    pub(crate) cut: bool,
}

impl Doors {
    /// As the faults say; a flap is in its well phase.
    pub(crate) fn under(faults: &[Fault]) -> Self {
        let mut doors = Self::default();
        for fault in faults {
            match fault {
                Fault::Stall { direction } => doors.shut(*direction),
                Fault::Cut {} => doors.cut = true,
                _ => {}
            }
        }
        doors
    }

    fn shut(&mut self, direction: Direction) {
        self.up_shut |= direction != Direction::Down;
        self.down_shut |= direction != Direction::Up;
    }

    fn lost(mut self, loss: Loss) -> Self {
        match loss {
            Loss::Cut => self.cut = true,
            Loss::Stall => self.shut(Direction::Both),
        }
        self
    }

    const fn lets_through(self, line: Line) -> bool {
        match line {
            Line::Up => !self.up_shut && !self.cut,
            Line::Down => !self.down_shut && !self.cut,
        }
    }
}

/// Turns the doors as the first flap of `faults` says, for ever; returns at once where there is none.
pub(crate) async fn flap(faults: Vec<Fault>, doors: watch::Sender<Doors>) {
    let flap = faults.iter().find_map(|fault| match *fault {
        Fault::Flap { up_ms, down_ms, loss } => Some((up_ms, down_ms, loss)),
        _ => None,
    });
    let Some((up_ms, down_ms, loss)) = flap else {
        return;
    };
    let well = Doors::under(&faults);
    loop {
        sleep(Duration::from_millis(up_ms)).await;
        doors.send_replace(well.lost(loss));
        sleep(Duration::from_millis(down_ms)).await;
        doors.send_replace(well);
    }
}

/// Waits until bytes move in that direction. Without anybody left who could open a shut door, for ever.
pub(crate) async fn wait_until_open(doors: &mut watch::Receiver<Doors>, line: Line) {
    let opened = doors.wait_for(|doors| doors.lets_through(line)).await.is_ok();
    if !opened && !doors.borrow().lets_through(line) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_way_stall_shuts_one_door() {
        let doors = Doors::under(&[Fault::Stall {
            direction: Direction::Up,
        }]);
        assert!(!doors.lets_through(Line::Up) && doors.lets_through(Line::Down));
        let cut = Doors::under(&[Fault::Cut {}]);
        assert!(!cut.lets_through(Line::Up) && !cut.lets_through(Line::Down));
    }
}
