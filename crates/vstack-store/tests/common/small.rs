//! A store of small superblocks on a simulated disk, with several of them closed.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_store::sim::{Model, SimDisk, bytes_of, chunk, name};
use vstack_store::{CheckDepth, IndexLine, PutRequest, RecoveryReport, Store, StoreOptions, read_index};

use super::test_options;

pub const NODE: &str = "/disk/node";
pub const SNAPSHOT: &str = "/disk/node/index/chunk_index.0000000001.snap";

pub fn options(disk: &SimDisk) -> StoreOptions {
    StoreOptions {
        superblock_bytes: 96 * 1024,
        idle_watermark: Duration::from_secs(3600),
        disk: Arc::new(disk.clone()),
        ..test_options()
    }
}

pub fn open(disk: &SimDisk) -> (Store, RecoveryReport) {
    Store::open(Path::new(NODE), options(disk)).expect("the folder opens")
}

pub fn put(store: &Store, seq: u32, size: usize) {
    let request = PutRequest::new(chunk(seq), Ballot::PLAIN, Bytes::from(bytes_of(seq, size)));
    store.put_blocking(request).expect("stored");
}

/// Several closed superblocks and an open one.
pub fn filled() -> (SimDisk, Model) {
    let (disk, mut model) = (SimDisk::new(), Model::default());
    let (store, _) = open(&disk);
    for seq in 0..12 {
        model.put(&store, &[(seq, 0, 20_000 + seq as usize)]);
    }
    model.adopt(&store, 3, 0, 6);
    model.delete(&store, name(3, 0));
    model.delete(&store, name(4, 0));
    model.put(&store, &[(20, 0, 20_000), (21, 0, 30_000)]);
    (disk, model)
}

pub fn index_of(disk: &SimDisk, depth: CheckDepth) -> Vec<IndexLine> {
    read_index(Path::new(NODE), &options(disk), depth).expect("the folder can be read")
}

pub fn superblock(number: u32) -> PathBuf {
    Path::new(NODE).join(format!("data/superblock_{number:06}.dat"))
}
