//! A store whose writer the caller works: the same requests always make the same batches.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use vstack_core::ballot::Ballot;
use vstack_store::{PutRequest, SteppedStore, StoreOptions};

mod common;
use common::{bytes_of, chunk, test_options};
use vstack_store::sim::SimDisk;

fn open(disk: &SimDisk) -> SteppedStore {
    let options = StoreOptions {
        disk: Arc::new(disk.clone()),
        ..test_options()
    };
    SteppedStore::open(Path::new("/disk/node"), options)
        .expect("the folder opens")
        .0
}

#[test]
fn what_waits_becomes_one_batch_when_the_writer_is_told_to_work() {
    let disk = SimDisk::default();
    let mut stepped = open(&disk);
    let answered = Arc::new(AtomicUsize::new(0));
    for seq in 0..5 {
        let answered = Arc::clone(&answered);
        let data = Bytes::from(bytes_of(seq, 500));
        stepped
            .store()
            .put(PutRequest::new(chunk(seq), Ballot::PLAIN, data), move |result| {
                result.expect("stored");
                answered.fetch_add(1, Ordering::Relaxed);
            });
    }
    assert_eq!(answered.load(Ordering::Relaxed), 0);
    assert!(stepped.write_batch());
    assert_eq!(answered.load(Ordering::Relaxed), 5);
    assert_eq!(stepped.store().stats().batches, 1);
    assert!(!stepped.write_batch(), "nothing waits");
    stepped.idle();
    let operations = disk.calls();
    stepped.idle();
    assert_eq!(disk.calls(), operations, "one watermark is enough");
    drop(stepped);
    let stepped = open(&disk);
    assert_eq!(
        stepped.store().get(chunk(3), None).expect("kept"),
        bytes_of(3, 500)
    );
}
