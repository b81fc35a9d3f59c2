//! The server roles on their machines: each life opens what the last one left and serves it with the real handlers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vstack_core::repair;
use vstack_server::metadata::{self, Clock, MetadataConfig, RedundancySettings};
use vstack_server::storage::{self, StorageConfig};
use vstack_store::disk::Disk;
use vstack_store::{Reserve, SteppedStore, StoreOptions};

use crate::lying::LyingDisk;
use crate::mutant::Mutant;
use crate::shared::{Shared, new_uuid, now};
use crate::wire::{Machine, PORT, SimListener};

const FOLDER: &str = "/node";
/// Two or three chunks: runs close superblocks and begin new ones.
const SUPERBLOCK_BYTES: u64 = 1 << 20;
/// Silence after which a node's store notes how far it is synced, as in production.
const IDLE: Duration = Duration::from_millis(100);
/// From "down" until parts are made again: long enough for a machine that comes back.
const REPAIR_GRACE_MS: u64 = 5_000;

fn listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}

/// One life of a storage node. Its writer works in turns, between which the disk is busy.
pub(crate) async fn node(shared: Arc<Shared>, number: u8) -> turmoil::Result {
    let machine = Machine::Node(number);
    let (store, _) = open_store(&shared, number)?;
    let mut store = store;
    let platform = shared.platform(machine);
    let config = StorageConfig {
        metadata_url: Some(Machine::Catalogue.url()),
        public_url: Some(machine.url()),
        // The disk is simulated: scrubs and compactions of it have proof runs of their own.
        upkeep: false,
        clock: Clock::showing(now),
        platform,
        ..StorageConfig::new(listen(), PathBuf::from(FOLDER), Shared::key())
    };
    let _running = storage::serve(store.store().clone(), SimListener::bind().await?, config)?;
    let pause = shared.plan.disk_pause;
    let mut quiet_since = Instant::now();
    loop {
        sleep(pause).await;
        if store.write_batch() {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() > IDLE {
            store.idle();
        }
    }
}

/// Opens a node's folder on its disk as it is now.
pub(crate) fn open_store(
    shared: &Shared,
    number: u8,
) -> Result<(SteppedStore, vstack_store::RecoveryReport), vstack_store::StoreError> {
    let disk: Arc<dyn Disk> = match shared.mutant {
        Some(Mutant::NothingIsSynced) => Arc::new(LyingDisk(shared.disk(number))),
        _ => Arc::new(shared.disk(number)),
    };
    let options = StoreOptions {
        superblock_bytes: SUPERBLOCK_BYTES,
        reserve: Reserve::Bytes(0),
        disk,
        now,
        new_uuid,
        ..StoreOptions::default()
    };
    SteppedStore::open(Path::new(FOLDER), options)
}

/// One life of the catalogue.
pub(crate) async fn catalogue(shared: Arc<Shared>) -> turmoil::Result {
    let config = MetadataConfig {
        clock: shared.catalogue_clock.clone(),
        redundancy: RedundancySettings {
            repair: repair::Settings {
                grace_ms: REPAIR_GRACE_MS,
                ..repair::Settings::default()
            },
            ..RedundancySettings::default()
        },
        platform: shared.platform(Machine::Catalogue),
        ..MetadataConfig::new(listen(), shared.catalogue_folder(), Shared::key())
    };
    let _running = metadata::start_on(SimListener::bind().await?, config).await?;
    std::future::pending().await
}
