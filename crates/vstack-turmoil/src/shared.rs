//! What the machines of a run and the run itself know together: who has which disk, what was acknowledged, what is wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tempfile::TempDir;
use uuid::Uuid;
use vstack_core::digest::Sha256Digest;
use vstack_core::id::{ChunkId, VideoId};
use vstack_core::keys::ClusterKey;
use vstack_core::time::UnixMillis;
use vstack_server::metadata::Clock;
use vstack_server::platform::{Chance, Platform, Threads};
use vstack_store::sim::SimDisk;

use crate::forged::Forging;
use crate::mutant::Mutant;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::wire::{Machine, SimTransport};

/// When every run begins; any time will do.
const EPOCH: UnixMillis = UnixMillis(1_700_000_000_000);

thread_local! {
    /// Where stores take their identities from: their options have room for a plain function only.
    static IDENTITIES: RefCell<StdRng> = RefCell::new(StdRng::seed_from_u64(0));
}

/// A video as far as its uploader knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) id: Option<VideoId>,
    pub(crate) active: bool,
    pub(crate) pinned: bool,
    /// A deletion was asked for: from here on it may be gone.
    pub(crate) deleting: bool,
    pub(crate) deleted: bool,
    pub(crate) done: bool,
    pub(crate) rival_done: bool,
}

/// Everything that is shared.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) trace: Trace,
    /// The catalogue's folder.
    folder: TempDir,
    pub(crate) catalogue_clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    disks: BTreeMap<u8, SimDisk>,
    /// Starts of each machine.
    lives: BTreeMap<Machine, u64>,
    videos: Vec<Progress>,
    acknowledged: BTreeMap<ChunkId, Sha256Digest>,
    wrong: Option<String>,
    /// Why the cluster is not at rest yet; `None` when it is.
    restless: Option<String>,
    settled: bool,
}

impl Shared {
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>, trace: Trace) -> std::io::Result<Arc<Self>> {
        IDENTITIES.with_borrow_mut(|random| *random = StdRng::seed_from_u64(seed));
        let plan = Plan::new(seed);
        let state = State {
            disks: (1..=plan.nodes).map(|node| (node, SimDisk::new())).collect(),
            videos: vec![Progress::default(); plan.videos.len()],
            ..State::default()
        };
        Ok(Arc::new(Self {
            seed,
            plan,
            mutant,
            trace,
            folder: memory_folder()?,
            catalogue_clock: Clock::showing(now),
            state: Mutex::new(state),
        }))
    }

    pub(crate) fn key() -> ClusterKey {
        ClusterKey::from_bytes(&[7; 32]).expect("a key has 32 bytes")
    }

    pub(crate) fn catalogue_folder(&self) -> PathBuf {
        self.folder.path().join("metadata")
    }

    /// The catalogue itself, by the name that the role gives it.
    pub(crate) fn catalogue_file(&self) -> PathBuf {
        self.catalogue_folder().join("catalogue.db")
    }

    /// Copies the catalogue's files as they are now, for [`Shared::forget_catalogue`].
    pub(crate) fn keep_catalogue(&self) {
        self.move_catalogue(&self.catalogue_folder(), &self.folder.path().join("older"));
    }

    /// Puts the last copy back: what was decided since then is gone.
    pub(crate) fn forget_catalogue(&self) {
        self.move_catalogue(&self.folder.path().join("older"), &self.catalogue_folder());
    }

    fn move_catalogue(&self, from: &Path, to: &Path) {
        let copied = std::fs::create_dir_all(to).and_then(|()| {
            for name in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
                match std::fs::remove_file(to.join(name)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                if from.join(name).exists() {
                    std::fs::copy(from.join(name), to.join(name))?;
                }
            }
            Ok(())
        });
        if let Err(error) = copied {
            self.wrong(format!("the catalogue's files cannot be copied: {error}"));
        }
    }

    /// Whether a deletion of its video was asked for.
    pub(crate) fn may_be_gone(&self, chunk: ChunkId) -> bool {
        let state = self.lock();
        let mut videos = state.videos.iter();
        videos.any(|video| video.deleting && video.id == Some(chunk.video()))
    }

    /// What a machine's next life runs on.
    pub(crate) fn platform(&self, machine: Machine) -> Platform {
        let life = {
            let mut state = self.lock();
            let life = state.lives.entry(machine).or_default();
            *life += 1;
            *life
        };
        let transport = SimTransport::new(machine, self.trace.clone());
        let number = self.seed ^ (u64::from(machine.number()) << 32) ^ (life << 40);
        Platform {
            transport: match self.mutant {
                Some(Mutant::UnaskedNodesCount) => Arc::new(Forging::new(transport, Self::key())),
                _ => transport,
            },
            chance: Chance::of_seed(number),
            threads: Threads::Caller,
        }
    }

    pub(crate) fn disk(&self, node: u8) -> SimDisk {
        self.lock().disks.get(&node).cloned().unwrap_or_default()
    }

    pub(crate) fn put_disk(&self, node: u8, disk: SimDisk) {
        self.lock().disks.insert(node, disk);
    }

    pub(crate) fn video(&self, index: usize) -> Progress {
        self.lock().videos.get(index).cloned().unwrap_or_default()
    }

    pub(crate) fn change_video(&self, index: usize, change: impl FnOnce(&mut Progress)) {
        if let Some(video) = self.lock().videos.get_mut(index) {
            change(video);
        }
    }

    /// The bytes of a chunk, by the uploader that owns it or by its rival.
    pub(crate) fn bytes(&self, index: usize, seq: usize, rival: bool) -> Bytes {
        let size = self.plan.videos.get(index).and_then(|video| video.sizes.get(seq));
        let seed = self.seed ^ ((index as u64) << 20) ^ ((seq as u64) << 8) ^ u64::from(rival);
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; size.copied().unwrap_or(1) + usize::from(rival)];
        random.fill(&mut bytes[..]);
        bytes.into()
    }

    /// Somebody was told that this chunk is stored with these bytes.
    pub(crate) fn acknowledge(&self, chunk: ChunkId, sha256: Sha256Digest) {
        let known = *self.lock().acknowledged.entry(chunk).or_insert(sha256);
        if known != sha256 {
            self.wrong(format!(
                "{chunk} was acknowledged with two contents: {known} and {sha256}"
            ));
        }
    }

    pub(crate) fn acknowledged(&self) -> BTreeMap<ChunkId, Sha256Digest> {
        self.lock().acknowledged.clone()
    }

    /// Something happened that never may. The first one counts.
    pub(crate) fn wrong(&self, what: String) {
        self.trace.note(|| format!("WRONG: {what}"));
        self.lock().wrong.get_or_insert(what);
    }

    pub(crate) fn what_is_wrong(&self) -> Option<String> {
        self.lock().wrong.clone()
    }

    /// What the cluster still waits for.
    pub(crate) fn report_rest(&self, restless: Option<String>) {
        let mut state = self.lock();
        state.settled = restless.is_none();
        state.restless = restless;
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.lock().settled
    }

    pub(crate) fn restless(&self) -> String {
        self.lock()
            .restless
            .clone()
            .unwrap_or_else(|| "nobody has looked".to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In memory where the system has such a folder: the catalogue syncs each decision, and what a run must survive is the
/// end of its process.
fn memory_folder() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
}

/// The simulated wall clock.
pub(crate) fn now() -> UnixMillis {
    let since = turmoil::sim_elapsed().unwrap_or(Duration::ZERO);
    EPOCH + u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn new_uuid() -> Uuid {
    let bytes: [u8; 16] = IDENTITIES.with_borrow_mut(|random| random.random());
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
