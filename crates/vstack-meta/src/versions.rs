//! When what readers see changed last: numbers for those who keep an answer and want to know whether it still holds.
//!
//! A number goes up after its transaction and before the command is answered. Who takes it before it reads, and finds it
//! unchanged later, has an answer that still holds: in between nothing was answered that it could lack. Numbers are kept
//! for groups of videos, so that they take no more memory in a large library; a foreign change costs a read in vain.

use std::sync::atomic::{AtomicU64, Ordering};

use vstack_core::id::VideoId;

use crate::command::{Cmd, Reply};
use crate::error::MetaError;

/// Groups of videos. So few of the videos of a library change at a time that two in one group are rare.
const GROUPS: usize = 1024;

/// What a manifest's answer was made of. Two that are equal stand for the same contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Of everything.
    all: u64,
    /// Of the video's group.
    group: u64,
}

#[derive(Debug)]
pub(crate) struct Versions {
    all: AtomicU64,
    nodes: AtomicU64,
    groups: Vec<AtomicU64>,
}

impl Default for Versions {
    fn default() -> Self {
        Self {
            all: AtomicU64::new(0),
            nodes: AtomicU64::new(0),
            groups: (0..GROUPS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Versions {
    /// Of a video's row, chunks, placements and lost parts, and of who the nodes are.
    pub(crate) fn of_video(&self, video: VideoId) -> Version {
        Version {
            all: self.all.load(Ordering::Acquire),
            group: self.group(video).load(Ordering::Acquire),
        }
    }

    /// Of the nodes' rows.
    pub(crate) fn of_nodes(&self) -> u64 {
        self.nodes.load(Ordering::Acquire)
    }

    fn group(&self, video: VideoId) -> &AtomicU64 {
        // The last bytes of a random id are random.
        let number = usize::from(u16::from_be_bytes([
            video.0.as_bytes()[14],
            video.0.as_bytes()[15],
        ]));
        &self.groups[number % GROUPS]
    }

    /// Notes what a command may have changed. A refused one has changed nothing, but a transaction that seems to have
    /// failed may be there.
    pub(crate) fn note(&self, command: &Cmd, reply: &Result<Reply, MetaError>) {
        if matches!(reply, Err(refusal) if !refusal.fails_all()) {
            return;
        }
        let changed = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Release);
        };
        let video = |video: &VideoId| changed(self.group(*video));
        match command {
            // A ballot that is open shows nowhere, and counts of views are not kept.
            Cmd::Open(_) | Cmd::OpenParts(_) | Cmd::RecordView { .. } => {}
            // Neither do the end of an object that nothing names, and what an operator wants.
            Cmd::CollectDone { .. } | Cmd::CollectLater { .. } | Cmd::CaughtUp { .. } => {}
            // Nor does what the workers note for their next life.
            Cmd::Lied { .. } | Cmd::SetBalance { .. } | Cmd::Measure { .. } => {}
            Cmd::PinRedundancy { video: of, .. } | Cmd::Converted { video: of, .. } => video(of),
            Cmd::CreateVideo { video: of, .. }
            | Cmd::StoreInit { video: of, .. }
            | Cmd::RenameVideo { video: of, .. }
            | Cmd::DeleteVideo { video: of, .. }
            | Cmd::AbortVideo { video: of, .. }
            | Cmd::AbandonVideo { video: of, .. } => video(of),
            Cmd::Commit(commit) => video(&commit.chunk.video()),
            Cmd::CatalogueSaved { chunk, .. } => video(&chunk.video()),
            Cmd::Finalize(finalize) => video(&finalize.video),
            Cmd::JudgeNodes { .. } => changed(&self.nodes),
            Cmd::Heartbeat { .. } => {
                changed(&self.nodes);
                // Its parts are lost with the disk that it had.
                if !matches!(reply, Ok(Reply::Heartbeat(known)) if known.lost_parts == 0) {
                    changed(&self.all);
                }
            }
            Cmd::ChangeNode { .. } | Cmd::Import { .. } | Cmd::LoseParts { .. } => {
                changed(&self.nodes);
                changed(&self.all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use vstack_core::time::UnixMillis;

    fn video(number: u128) -> VideoId {
        VideoId(Uuid::from_u128(number))
    }

    #[test]
    fn a_change_of_a_video_leaves_the_others_as_they_are() {
        let versions = Versions::default();
        let before = [1, 2].map(|number| versions.of_video(video(number)));
        let rename = Cmd::RenameVideo {
            video: video(1),
            title: String::new(),
        };
        versions.note(&rename, &Ok(Reply::Done));
        assert_ne!(versions.of_video(video(1)), before[0]);
        assert_eq!(versions.of_video(video(2)), before[1]);
    }

    #[test]
    fn a_command_that_failed_counts_and_one_that_was_refused_does_not() {
        let versions = Versions::default();
        let before = versions.of_video(video(1));
        let delete = Cmd::DeleteVideo {
            video: video(1),
            now: UnixMillis(1),
        };
        versions.note(&delete, &Err(MetaError::VideoNotFound { video: video(1) }));
        assert_eq!(versions.of_video(video(1)), before);
        let reason = "the sync failed".to_owned();
        versions.note(&delete, &Err(MetaError::Database { reason }));
        assert_ne!(versions.of_video(video(1)), before);
    }
}
