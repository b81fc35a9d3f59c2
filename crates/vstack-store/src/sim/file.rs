//! One file of the simulated disk: what is in memory, what is on the platter, and which sectors differ.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Random;

pub(super) const SECTOR: usize = 512;

#[derive(Debug, Default, Clone)]
pub(super) struct FileState {
    pub(super) bytes: Vec<u8>,
    pub(super) synced: Vec<u8>,
    /// Sectors that the next sync writes. A failed sync forgets them without writing, as Linux does.
    pub(super) dirty: BTreeSet<usize>,
    /// Room reserved past the end.
    pub(super) reserved: usize,
    /// A write or sync of it failed since it was opened.
    pub(super) failed: bool,
    pub(super) locked: bool,
    pub(super) handles: usize,
    /// Bytes that the platter can no longer give back.
    pub(super) unreadable: Vec<Range<usize>>,
}

impl FileState {
    /// A file that holds `bytes`, on the platter too.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self {
            synced: bytes.clone(),
            bytes,
            ..Self::default()
        }
    }

    /// What it takes of the disk.
    pub(super) fn room(&self) -> usize {
        self.bytes.len().max(self.reserved)
    }

    pub(super) fn write(&mut self, data: &[u8], start: usize) {
        self.bytes.resize(self.bytes.len().max(start + data.len()), 0);
        self.bytes[start..start + data.len()].copy_from_slice(data);
        if !data.is_empty() {
            self.dirty
                .extend(start / SECTOR..(start + data.len()).div_ceil(SECTOR));
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.resize(len, 0);
        self.reserved = 0;
    }

    pub(super) fn sync(&mut self) {
        self.synced.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector * SECTOR..(sector * SECTOR + SECTOR).min(self.bytes.len());
            if !range.is_empty() {
                self.synced[range.clone()].copy_from_slice(&self.bytes[range]);
            }
        }
    }

    /// Forgets what memory holds, unless it has yet to be written.
    pub(super) fn drop_cache(&mut self) {
        for sector in (0..self.bytes.len().div_ceil(SECTOR)).filter(|sector| !self.dirty.contains(sector)) {
            let range = sector * SECTOR..(sector * SECTOR + SECTOR).min(self.bytes.len());
            let on_disk = part(&self.synced, sector);
            let len = on_disk.len().min(range.len());
            self.bytes[range.clone()].fill(0);
            self.bytes[range][..len].copy_from_slice(&on_disk[..len]);
        }
    }

    pub(super) fn flip_bit(&mut self, bit: usize) {
        let mask = 1 << (bit % 8);
        for bytes in [&mut self.bytes, &mut self.synced] {
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= mask;
            }
        }
    }

    pub(super) fn can_read(&self, range: &Range<usize>) -> bool {
        !self
            .unreadable
            .iter()
            .any(|bad| bad.start < range.end && range.start < bad.end)
    }

    /// What a power cut leaves: synced bytes for certain, and of the others sector by sector the new ones, the old ones,
    /// or garbage; a file that grew has any of the lengths in between.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> Self {
        let mut bytes = self.synced.clone();
        if bytes.len() < self.bytes.len() {
            let grown = self.bytes.len() - bytes.len();
            let kept = usize::try_from(random.below(grown as u64 + 1)).unwrap_or(0);
            bytes.resize(bytes.len() + kept, 0);
        }
        let len = bytes.len();
        for sector in self.dirty.iter().copied().filter(|sector| sector * SECTOR < len) {
            let range = sector * SECTOR..(sector * SECTOR + SECTOR).min(len);
            match random.below(8) {
                0..5 => {
                    let written = part(&self.bytes, sector);
                    let len = written.len().min(range.len());
                    bytes[range][..len].copy_from_slice(&written[..len]);
                }
                5 => bytes[range].fill_with(|| random.next_u64().to_le_bytes()[3]),
                _ => {}
            }
        }
        Self {
            reserved: self.reserved,
            unreadable: self.unreadable.clone(),
            ..Self::of(bytes)
        }
    }

    /// A copy for another machine: nobody has it open.
    pub(super) fn at_rest(&self) -> Self {
        Self {
            locked: false,
            failed: false,
            handles: 0,
            ..self.clone()
        }
    }
}

fn part(bytes: &[u8], sector: usize) -> &[u8] {
    let start = (sector * SECTOR).min(bytes.len());
    &bytes[start..(start + SECTOR).min(bytes.len())]
}
