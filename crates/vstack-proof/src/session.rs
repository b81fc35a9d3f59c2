//! One open store on a simulated disk, with a ledger that hears every answer.

use std::cell::Cell;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;
use vstack_core::time::UnixMillis;
use vstack_store::disk::Disk;
use vstack_store::sim::{Random, SimDisk};
use vstack_store::{
    AdoptRequest, Compaction, CompactionStep, DeleteReason, ErrorKind, PutRequest, RecoveryReport, Reserve,
    SteppedStore, Store, StoreError, StoreOptions,
};

use crate::ledger::{Asked, Ledger, Name};
use crate::script::{Contents, Move, Request, is_confirmed, name};

/// Where the simulated disk has the folder.
pub(crate) const FOLDER: &str = "/disk/node";

/// Of a superblock must be dead for a compaction. Far less than in production, so that there are many.
const WORTH_PERCENT: u64 = 5;

thread_local! {
    // `StoreOptions::new_uuid` is a plain function, so the seed of a run reaches it this way.
    static IDENTITIES: Cell<u64> = const { Cell::new(0) };
}

/// Makes the identities of this thread's next stores those of `seed`.
pub(crate) fn seed_identities(seed: u64) {
    IDENTITIES.set(seed << 20);
}

fn next_uuid() -> Uuid {
    let number = IDENTITIES.get() + 1;
    IDENTITIES.set(number);
    let mut random = Random::new(number);
    random.next_u64();
    Uuid::from_u64_pair(random.next_u64(), random.next_u64())
}

/// Options for a store on `disk`: small superblocks, no reserve, no clock.
pub(crate) fn options(disk: Arc<dyn Disk>, superblock_bytes: u64) -> StoreOptions {
    StoreOptions {
        superblock_bytes,
        reserve: Reserve::Bytes(0),
        idle_watermark: Duration::from_secs(3600),
        disk,
        now: || UnixMillis(1_700_000_000_000),
        new_uuid: next_uuid,
        ..StoreOptions::default()
    }
}

/// Opens the folder on `disk`.
pub(crate) fn open(
    disk: &SimDisk,
    superblock_bytes: u64,
) -> Result<(SteppedStore, RecoveryReport), StoreError> {
    open_on(Arc::new(disk.clone()), superblock_bytes)
}

/// Opens the folder on any disk.
pub(crate) fn open_on(
    disk: Arc<dyn Disk>,
    superblock_bytes: u64,
) -> Result<(SteppedStore, RecoveryReport), StoreError> {
    SteppedStore::open(Path::new(FOLDER), options(disk, superblock_bytes))
}

/// A ledger that callbacks and observers share. All of them run on one thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedLedger {
    ledger: Arc<Mutex<Ledger>>,
    refusals: Arc<Mutex<Vec<StoreError>>>,
}

impl SharedLedger {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            ledger: Arc::new(Mutex::new(ledger)),
            refusals: Arc::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every answer so far that said "not now".
    pub(crate) fn refusals(&self) -> Vec<StoreError> {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A copy as it is now.
    pub(crate) fn copy(&self) -> Ledger {
        self.lock().clone()
    }

    fn refuse(&self, refusal: StoreError) {
        if refusal.kind() == ErrorKind::Unavailable {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.push(refusal);
        }
    }

    /// Sends one request; the answer comes when the store's writer works.
    pub(crate) fn send(&self, store: &Store, request: Request, contents: &mut Contents) {
        match request {
            Request::Put { seq, ballot } => {
                let (data, digest) = contents.of(seq, ballot);
                let (chunk, ballot) = name(seq, ballot);
                let done = self.answer((chunk, ballot), Asked::Put(data.clone()));
                let data = vec![data];
                store.put(
                    PutRequest {
                        chunk,
                        ballot,
                        data,
                        digest,
                    },
                    done,
                );
            }
            Request::Adopt { seq, from, to } => {
                let Some(data) = self.lock().stored(name(seq, from)).cloned() else {
                    return;
                };
                let ((chunk, from), (_, ballot)) = (name(seq, from), name(seq, to));
                let request = AdoptRequest {
                    chunk,
                    ballot,
                    from,
                    sha256: None,
                };
                store.adopt(request, self.answer((chunk, ballot), Asked::Put(data)));
            }
            Request::Delete { seq, ballot } => {
                let name = name(seq, ballot);
                store.delete(
                    name.0,
                    name.1,
                    DeleteReason::Client,
                    self.answer(name, Asked::Delete),
                );
            }
        }
    }

    /// Notes that something is asked, and returns what notes the answer.
    fn answer<T>(
        &self,
        name: Name,
        asked: Asked,
    ) -> impl FnOnce(Result<T, StoreError>) + Send + 'static + use<T> {
        self.lock().begin(name, asked.clone());
        let ledger = self.clone();
        move |answer| {
            if let Err(refusal) = &answer {
                ledger.refuse(refusal.clone());
            }
            let answer = answer.map(drop).map_err(|error| error.kind());
            ledger.lock().finish(name, &asked, answer);
        }
    }

    /// Does one move to its end.
    pub(crate) fn perform(&self, stepped: &mut SteppedStore, step: &Move, contents: &mut Contents) {
        match step {
            Move::Idle => stepped.idle(),
            Move::Group(requests) => {
                for request in requests {
                    self.send(stepped.store(), *request, contents);
                }
                stepped.write_all();
            }
            Move::Compact(requests) => {
                if let Err(refusal) = self.compact(stepped, requests, contents) {
                    self.refuse(refusal);
                }
                stepped.write_all();
            }
        }
    }

    fn compact(
        &self,
        stepped: &mut SteppedStore,
        requests: &[Request],
        contents: &mut Contents,
    ) -> Result<(), StoreError> {
        let confirmed = |chunk, ballot, _| {
            let confirmed = is_confirmed(chunk);
            if confirmed {
                self.lock().may_be_forgotten((chunk, ballot));
            }
            confirmed
        };
        let mut requests = requests.iter();
        let Some(mut compaction) = Compaction::begin_at(stepped.store(), WORTH_PERCENT, &confirmed)? else {
            requests.for_each(|request| self.send(stepped.store(), *request, contents));
            return Ok(());
        };
        loop {
            if let Some(request) = requests.next() {
                self.send(stepped.store(), *request, contents);
            }
            match compaction.step()? {
                CompactionStep::Copied(_) => drop(stepped.write_batch()),
                CompactionStep::Waiting => stepped.write_all(),
                CompactionStep::Done(_) => return Ok(()),
            }
        }
    }
}
