//! The catalogue behind one trait, and its SQLite form.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::Semaphore;
use vstack_core::cost::PlacedChunks;
use vstack_core::id::{ChunkId, NodeId, VideoId};
use vstack_core::paxos::master::Row;
use vstack_core::placement::Scheme;
use vstack_core::time::UnixMillis;

use crate::apply;
use crate::backup::{self, BackupFacts};
use crate::check::{self, Finding};
use crate::command::{Behind, Cmd, Collectable, NodeParts, Reply};
use crate::error::MetaError;
use crate::read::{
    self, AtRisk, ChunkRecord, InventoryQuery, InventoryView, Library, LibraryPage, LibraryQuery, Losses,
    ManifestSource, NodeRecord, Remembered, Spread, UnderReplicated, Unsaved, VideoRedundancy,
};
use crate::schema;
use crate::versions::{Version, Versions};
use crate::writer::Writer;

/// A file up to this size is checked before it is written to. Guess; it takes about a second.
const CHECKED_AT_START_BYTES: u64 = 64 * 1024 * 1024;
/// Connections that only read: as many reads at once.
const READERS: usize = 4;

/// A catalogue. Every backend applies the same closed commands and answers the same reads.
#[async_trait]
pub trait MetaStore: Send + Sync + std::fmt::Debug {
    /// Applies commands, each on its own: a refusal of one leaves the others alone. What is answered is durable. The
    /// answers come in the order of the commands.
    async fn apply(&self, commands: Vec<Cmd>) -> Vec<Result<Reply, MetaError>>;

    /// Everything a manifest is made of; `None` for a video that never was or is deleted.
    async fn manifest_source(&self, video: VideoId) -> Result<Option<ManifestSource>, MetaError>;

    /// What [`MetaStore::manifest_source`] is made of, besides what the nodes' heartbeats change. Equal to what it was
    /// before an earlier read, it says that the answer of that read still holds.
    fn version(&self, video: VideoId) -> Version;

    /// A video with its totals, deleted or not.
    async fn video(&self, video: VideoId) -> Result<Option<Library>, MetaError>;

    async fn library(&self, query: LibraryQuery) -> Result<LibraryPage, MetaError>;

    /// A committed chunk.
    async fn chunk(&self, chunk: ChunkId) -> Result<Option<ChunkRecord>, MetaError>;

    /// The protocol's row of a chunk.
    async fn consensus_row(&self, chunk: ChunkId) -> Result<Row, MetaError>;

    /// All nodes that ever registered, by id.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, MetaError>;

    /// Chunks that wait for repair.
    async fn under_replicated(&self, limit: usize) -> Result<Vec<UnderReplicated>, MetaError>;

    /// All active videos, as far as their redundancy goes.
    async fn redundancy(&self) -> Result<Vec<VideoRedundancy>, MetaError>;

    /// One of them; `None` for a video that is not active or has no media chunks. Takes as long as the video is, however
    /// large the library.
    async fn redundancy_of(&self, video: VideoId) -> Result<Option<VideoRedundancy>, MetaError>;

    /// The scheme that an operator fixed for an active video, if one did; `None` for a video that is not active. Takes as
    /// long in any library.
    async fn pin_of(&self, video: VideoId) -> Result<Option<Option<Scheme>>, MetaError>;

    /// What the workers of redundancy knew when the role ended.
    async fn remembered(&self) -> Result<Remembered, MetaError>;

    /// All committed chunks of active videos, those together that lie on the same nodes in the same mode.
    async fn placed(&self) -> Result<Vec<PlacedChunks>, MetaError>;

    /// A page of the chunks that lack parts or have parts on `nodes`, those that may lack most first.
    async fn at_risk(
        &self,
        nodes: Vec<NodeId>,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<AtRisk>, MetaError>;

    /// Where every part is, for the rebalance planner.
    async fn spread(&self) -> Result<Spread, MetaError>;

    /// Objects whose time to be collected has come.
    async fn collectable(&self, now: UnixMillis, limit: usize) -> Result<Vec<Collectable>, MetaError>;

    /// The catalogue's side of one page of a node's inventory.
    async fn inventory(&self, query: InventoryQuery) -> Result<InventoryView, MetaError>;

    /// What the cluster lacks and has too much of.
    async fn losses(&self) -> Result<Losses, MetaError>;

    /// Objects that wait to be collected, due or not.
    async fn collections_waiting(&self) -> Result<u64, MetaError>;

    /// Whether exactly this object still waits to be collected.
    async fn is_queued(&self, object: Collectable) -> Result<bool, MetaError>;

    /// What lies on a registered node.
    async fn node_parts(&self, node: NodeId) -> Result<NodeParts, MetaError>;

    /// Videos whose catalogue object is older than they are and was last written before `before`.
    async fn unsaved(&self, before: UnixMillis, limit: usize) -> Result<Vec<Unsaved>, MetaError>;

    /// Videos that nobody finished and to which nothing was added since `before`, the oldest first.
    async fn abandoned(&self, before: UnixMillis, limit: usize) -> Result<Vec<VideoId>, MetaError>;

    /// How far the catalogue may be behind its nodes. While it is, objects that it does not know are not garbage.
    async fn behind(&self) -> Result<Behind, MetaError>;

    /// Copies the catalogue as it is now to `target`, checked and durable. Writing goes on meanwhile.
    async fn backup(&self, target: PathBuf) -> Result<BackupFacts, MetaError>;

    /// From now on every command is refused: the file is damaged, and must not be written to.
    fn refuse_commands(&self, damage: &Finding);

    /// Compares the projections with what is decided; empty when all is well.
    async fn check(&self) -> Result<Vec<Finding>, MetaError>;

    /// One command.
    async fn apply_one(&self, command: Cmd) -> Result<Reply, MetaError> {
        self.apply(vec![command])
            .await
            .pop()
            .unwrap_or(Err(MetaError::Busy))
    }
}

/// The default catalogue: one SQLite file. It must be opened by one process at a time; the caller holds the lock.
#[derive(Debug)]
pub struct SqliteMetaStore {
    writer: Writer,
    versions: Arc<Versions>,
    /// The nodes, and the version that they are of.
    nodes: Mutex<Option<(u64, Vec<NodeRecord>)>>,
    readers: Arc<Readers>,
    generation: u64,
    /// Why nothing is written any more.
    damage: OnceLock<String>,
}

#[derive(Debug)]
struct Readers {
    path: PathBuf,
    free: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl SqliteMetaStore {
    /// Opens or makes the catalogue at `path` and raises its generation. Returns when that is durable: no ballot of an
    /// earlier life can be granted again.
    ///
    /// A file of a size that takes no time is checked as a whole first; the caller checks a larger one beside its work.
    ///
    /// # Errors
    /// The file is no catalogue, of a newer version, damaged, or cannot be written.
    pub fn open(path: &Path) -> Result<Self, MetaError> {
        let (connection, generation) = Self::open_writer(path)?;
        let versions = Arc::new(Versions::default());
        let writer = Writer::start(connection, Arc::clone(&versions))?;
        Ok(Self::new(path, (writer, versions), generation))
    }

    /// The same without threads: commands and reads run on the thread that asks for them, and block it. For
    /// simulations, which must know when each happens.
    ///
    /// # Errors
    /// As [`SqliteMetaStore::open`].
    pub fn open_on_caller(path: &Path) -> Result<Self, MetaError> {
        let (connection, generation) = Self::open_writer(path)?;
        let versions = Arc::new(Versions::default());
        let writer = Writer::on_caller(connection, Arc::clone(&versions));
        Ok(Self::new(path, (writer, versions), generation))
    }

    fn open_writer(path: &Path) -> Result<(Connection, u64), MetaError> {
        let readable = check::undamaged(path, schema::is_present_version(path))?;
        let small = !Self::is_large(path);
        // Before it is opened for writing, which alone would change a byte or two.
        if readable && small {
            check::refuse_damage(path, &check::check(&mut schema::open_reader(path)?)?)?;
        }
        let mut connection = check::undamaged(path, schema::open_writer(path))?;
        if !readable && small {
            check::refuse_damage(path, &check::check(&mut connection)?)?;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let generation = apply::raise_generation(&transaction, 0)?;
        transaction.commit()?;
        Ok((connection, generation))
    }

    fn new(path: &Path, (writer, versions): (Writer, Arc<Versions>), generation: u64) -> Self {
        let readers = Readers {
            path: path.to_owned(),
            free: Mutex::new(Vec::with_capacity(READERS)),
            permits: Semaphore::new(READERS),
        };
        Self {
            writer,
            versions,
            nodes: Mutex::default(),
            readers: Arc::new(readers),
            generation,
            damage: OnceLock::new(),
        }
    }

    /// Whether the file at `path` was not checked as a whole when it was opened.
    #[must_use]
    pub fn is_large(path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|file| file.len() > CHECKED_AT_START_BYTES)
    }

    /// The generation that this start began with.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> Result<T, MetaError> + Send + 'static,
    ) -> Result<T, MetaError> {
        let readers = self.readers.clone();
        let _permit = self
            .readers
            .permits
            .acquire()
            .await
            .map_err(|_| MetaError::Busy)?;
        let read = move || {
            let mut connection = readers.take()?;
            let answer = query(&mut connection);
            // After an error the connection may be in any state; the next read opens a new one.
            if answer.is_ok() {
                readers.lock().push(connection);
            }
            answer
        };
        if matches!(self.writer, Writer::Caller(_)) {
            return read();
        }
        let joined = tokio::task::spawn_blocking(read).await;
        joined.unwrap_or_else(|error| {
            Err(MetaError::Database {
                reason: error.to_string(),
            })
        })
    }
}

impl Readers {
    fn take(&self) -> Result<Connection, MetaError> {
        let free = self.lock().pop();
        free.map_or_else(|| schema::open_reader(&self.path), Ok)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MetaStore for SqliteMetaStore {
    async fn apply(&self, commands: Vec<Cmd>) -> Vec<Result<Reply, MetaError>> {
        let count = commands.len();
        if let Some(what) = self.damage.get() {
            let (path, what) = (self.readers.path.display().to_string(), what.clone());
            return vec![Err(MetaError::Damaged { path, what }); count];
        }
        let busy = || vec![Err(MetaError::Busy); count];
        match self.writer.submit(commands) {
            Ok(answers) => answers.await.unwrap_or_else(|_| busy()),
            Err(_) => busy(),
        }
    }

    async fn manifest_source(&self, video: VideoId) -> Result<Option<ManifestSource>, MetaError> {
        self.read(move |connection| read::videos::manifest_source(connection, video))
            .await
    }

    fn version(&self, video: VideoId) -> Version {
        self.versions.of_video(video)
    }

    async fn video(&self, video: VideoId) -> Result<Option<Library>, MetaError> {
        self.read(move |connection| read::library::entry(&*connection.transaction()?, video))
            .await
    }

    async fn library(&self, query: LibraryQuery) -> Result<LibraryPage, MetaError> {
        self.read(move |connection| read::library::page(connection, &query))
            .await
    }

    async fn chunk(&self, chunk: ChunkId) -> Result<Option<ChunkRecord>, MetaError> {
        self.read(move |connection| read::chunks::find_chunk(&*connection.transaction()?, chunk))
            .await
    }

    async fn consensus_row(&self, chunk: ChunkId) -> Result<Row, MetaError> {
        self.read(move |connection| crate::rows::read_row(connection, chunk))
            .await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, MetaError> {
        let version = self.versions.of_nodes();
        let kept = |nodes: &Mutex<Option<(u64, Vec<NodeRecord>)>>| {
            let kept = nodes.lock().unwrap_or_else(PoisonError::into_inner);
            kept.as_ref()
                .filter(|(of, _)| *of == version)
                .map(|(_, nodes)| nodes.clone())
        };
        if let Some(nodes) = kept(&self.nodes) {
            return Ok(nodes);
        }
        let nodes = self.read(|connection| read::nodes::all_nodes(connection)).await?;
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, nodes.clone()));
        Ok(nodes)
    }

    async fn under_replicated(&self, limit: usize) -> Result<Vec<UnderReplicated>, MetaError> {
        self.read(move |connection| read::chunks::under_replicated(connection, limit))
            .await
    }

    async fn redundancy(&self) -> Result<Vec<VideoRedundancy>, MetaError> {
        self.read(|connection| read::redundancy::videos(connection)).await
    }

    async fn redundancy_of(&self, video: VideoId) -> Result<Option<VideoRedundancy>, MetaError> {
        self.read(move |connection| read::redundancy::video_of(connection, video))
            .await
    }

    async fn pin_of(&self, video: VideoId) -> Result<Option<Option<Scheme>>, MetaError> {
        self.read(move |connection| read::redundancy::pin_of(connection, video))
            .await
    }

    async fn remembered(&self) -> Result<Remembered, MetaError> {
        self.read(read::remembered::remembered).await
    }

    async fn placed(&self) -> Result<Vec<PlacedChunks>, MetaError> {
        self.read(|connection| read::redundancy::placed(connection)).await
    }

    async fn at_risk(
        &self,
        nodes: Vec<NodeId>,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<AtRisk>, MetaError> {
        self.read(move |connection| read::redundancy::at_risk(connection, &nodes, (offset, limit)))
            .await
    }

    async fn spread(&self) -> Result<Spread, MetaError> {
        self.read(|connection| read::balance::spread(connection)).await
    }

    async fn collectable(&self, now: UnixMillis, limit: usize) -> Result<Vec<Collectable>, MetaError> {
        self.read(move |connection| read::collectable(connection, now, limit))
            .await
    }

    async fn inventory(&self, query: InventoryQuery) -> Result<InventoryView, MetaError> {
        self.read(move |connection| read::inventory::view(&connection.transaction()?, &query))
            .await
    }

    async fn losses(&self) -> Result<Losses, MetaError> {
        self.read(|connection| read::inventory::losses(connection)).await
    }

    async fn collections_waiting(&self) -> Result<u64, MetaError> {
        self.read(|connection| read::collections_waiting(connection))
            .await
    }

    async fn is_queued(&self, object: Collectable) -> Result<bool, MetaError> {
        self.read(move |connection| read::is_queued(connection, object))
            .await
    }

    async fn node_parts(&self, node: NodeId) -> Result<NodeParts, MetaError> {
        self.read(move |connection| read::nodes::node_parts(connection, node))
            .await
    }

    async fn abandoned(&self, before: UnixMillis, limit: usize) -> Result<Vec<VideoId>, MetaError> {
        self.read(move |connection| read::videos::abandoned(connection, before, limit))
            .await
    }

    async fn unsaved(&self, before: UnixMillis, limit: usize) -> Result<Vec<Unsaved>, MetaError> {
        self.read(move |connection| read::videos::unsaved(connection, before, limit))
            .await
    }

    async fn behind(&self) -> Result<Behind, MetaError> {
        self.read(|connection| apply::behind(connection)).await
    }

    async fn backup(&self, target: PathBuf) -> Result<BackupFacts, MetaError> {
        let path = self.readers.path.clone();
        let copy = move || backup::backup(&path, &target);
        if matches!(self.writer, Writer::Caller(_)) {
            return copy();
        }
        let copied = tokio::task::spawn_blocking(copy).await;
        copied.unwrap_or_else(|error| {
            Err(MetaError::Database {
                reason: error.to_string(),
            })
        })
    }

    fn refuse_commands(&self, damage: &Finding) {
        // Only the first reason is kept.
        let _ = self.damage.set(damage.to_string());
    }

    async fn check(&self) -> Result<Vec<Finding>, MetaError> {
        self.read(check::check).await
    }
}
