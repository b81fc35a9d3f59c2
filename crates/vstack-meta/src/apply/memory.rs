//! What the writer remembers of the rows that every OPEN and COMMIT asks for.
//!
//! An upload names one video and the same few nodes hundreds of times in a row. Their rows are read and checked once, and
//! remembered until a command comes that may change them: there is one writer, and nothing else does. That a video has
//! changed is counted here and written once a transaction.
//!
//! Rows that decide something about one chunk are never remembered.

use std::collections::BTreeMap;

use rusqlite::Connection;
use vstack_core::id::{ChunkId, ChunkKind, Incarnation, NodeId, VideoId};
use vstack_core::manifest::VideoStatus;
use vstack_core::paxos::master::Knowledge;

use crate::apply::{behind, generation};
use crate::command::{Behind, Cmd};
use crate::error::MetaError;
use crate::read::nodes::find_node;
use crate::read::videos::find_video;

/// Videos that are remembered: far more than are uploaded at a time.
const VIDEOS: usize = 1024;

/// Empty is always right.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    service: Option<Service>,
    lives: BTreeMap<NodeId, Incarnation>,
    videos: BTreeMap<VideoId, VideoStatus>,
    /// Changes that `videos.unsaved` does not count yet.
    unsaved: BTreeMap<VideoId, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Service {
    generation: u64,
    behind: Behind,
}

impl Memory {
    /// To be called before each command: what it may read is in the tables, and what it may change is forgotten.
    pub(crate) fn make_way(&mut self, connection: &Connection, command: &Cmd) -> Result<(), MetaError> {
        if matches!(command, Cmd::Open(_) | Cmd::OpenParts(_) | Cmd::Commit(_)) {
            return Ok(());
        }
        self.write_down(connection)?;
        self.forget();
        Ok(())
    }

    /// Writes what is only here. To be called before the transaction is committed.
    pub(crate) fn write_down(&mut self, connection: &Connection) -> Result<(), MetaError> {
        for (video, changes) in std::mem::take(&mut self.unsaved) {
            connection
                .prepare_cached("UPDATE videos SET unsaved = unsaved + ?2 WHERE video_id = ?1")?
                .execute((video.to_string(), changes))?;
        }
        Ok(())
    }

    /// To be called when the transaction is not committed.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The library's copy on the nodes is older than the catalogue now. What a catalogue object itself causes does not
    /// count.
    pub(super) fn mark_unsaved(&mut self, chunk: ChunkId) {
        if chunk.kind() != ChunkKind::Catalogue {
            *self.unsaved.entry(chunk.video()).or_default() += 1;
        }
    }

    /// The status of a video that is not deleted.
    pub(super) fn status(
        &mut self,
        connection: &Connection,
        video: VideoId,
    ) -> Result<VideoStatus, MetaError> {
        if let Some(status) = self.videos.get(&video) {
            return Ok(*status);
        }
        match find_video(connection, video)? {
            Some(record) if record.status != VideoStatus::Deleted => {
                if self.videos.len() >= VIDEOS {
                    self.videos.clear();
                }
                self.videos.insert(video, record.status);
                Ok(record.status)
            }
            _ => Err(MetaError::VideoNotFound { video }),
        }
    }

    /// The present life of a registered node.
    pub(super) fn life(
        &mut self,
        connection: &Connection,
        node: NodeId,
    ) -> Result<Option<Incarnation>, MetaError> {
        if let Some(life) = self.lives.get(&node) {
            return Ok(Some(*life));
        }
        let life = find_node(connection, node)?.map(|record| record.incarnation);
        self.lives.extend(life.map(|life| (node, life)));
        Ok(life)
    }

    /// The generation to grant a ballot in, and whether decisions of an earlier life may be missing.
    ///
    /// # Errors
    /// [`MetaError::Restored`]: a node may have seen a later generation.
    pub(super) fn granting(&mut self, connection: &Connection) -> Result<(u64, Knowledge), MetaError> {
        let service = match self.service {
            Some(service) => service,
            None => Service {
                generation: generation(connection)?,
                behind: behind(connection)?,
            },
        };
        self.service = Some(service);
        match service.behind {
            Behind::Ballots | Behind::Generations => Err(MetaError::Restored),
            Behind::No | Behind::Objects => Ok((service.generation, service.behind.knowledge())),
        }
    }
}
