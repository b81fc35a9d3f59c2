//! A network path to put in front of a node, since nothing below HTTP can be slowed down on every machine.
//!
//! A TCP proxy with one bandwidth limit for each direction, shared by all its connections as a real line is, an added
//! delay with jitter, and faults: stalls, cuts, flapping, resets, and answers that are slow, short, wrong, endless or
//! old (see [`Fault`]). It looks into HTTP only as far as the faults of answers need; everything else passes as bytes.
//! All chance comes from one seed: the n-th connection of a path draws the same.
//!
//! [`Emulator`] starts one path, [`Lab`] a set of named ones with a script.

mod conditions;
mod connection;
mod gate;
mod http;
mod lab;
mod path;
mod pipe;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use conditions::{Change, Complaint, Conditions, Direction, Ending, Fault, Loss, Profile};
pub use lab::{Event, Lab, LabError, PathView, Plan, PlanError, PlannedPath};

use path::{Path, lock};

/// A path could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    #[error("cannot listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
}

/// Starts paths.
#[derive(Debug, Clone, Copy)]
pub struct Emulator;

/// A running path. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Emulated {
    /// What clients connect to.
    pub addr: SocketAddr,
    pub handle: Handle,
    _task: DropGuard,
}

impl Emulated {
    /// What clients connect to, as the base of URLs.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// Changes a path while it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    path: Arc<Path>,
    flapping: Arc<Flapping>,
}

/// The task that turns the doors, where a fault flaps.
#[derive(Debug, Default)]
struct Flapping(Mutex<Option<AbortHandle>>);

impl Flapping {
    fn replace(&self, task: Option<AbortHandle>) {
        if let Some(before) = std::mem::replace(&mut *lock(&self.0), task) {
            before.abort();
        }
    }
}

impl Drop for Flapping {
    fn drop(&mut self) {
        self.replace(None);
    }
}

impl Emulator {
    /// A path on a free loopback port to the node at `upstream`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(upstream: SocketAddr, profile: Profile) -> Result<Emulated, EmulatorError> {
        let conditions = Conditions {
            profile,
            faults: Vec::new(),
        };
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), upstream, conditions, 1).await
    }

    /// A path from `listen` to the node at `upstream`.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start_on(
        listen: SocketAddr,
        upstream: SocketAddr,
        conditions: Conditions,
        seed: u64,
    ) -> Result<Emulated, EmulatorError> {
        let refused = |source| EmulatorError::Listen { addr: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let path = Arc::new(Path::new(conditions.clone()));
        let stop = CancellationToken::new();
        let accepting = connection::accept(listener, upstream, Arc::clone(&path), seed);
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(accepting).await });
        let handle = Handle {
            path,
            flapping: Arc::default(),
        };
        handle.set(conditions);
        Ok(Emulated {
            addr,
            handle,
            _task: stop.drop_guard(),
        })
    }
}

impl Handle {
    /// Changes everything, for bytes that are not on their way yet. A flap begins anew, with its well phase.
    ///
    /// Called within a runtime where a fault flaps.
    pub fn set(&self, conditions: Conditions) {
        let flaps = conditions
            .faults
            .iter()
            .any(|fault| matches!(fault, Fault::Flap { .. }));
        self.flapping.replace(None);
        let faults = conditions.faults.clone();
        self.path.set(conditions);
        if flaps {
            let flap = tokio::spawn(gate::flap(faults, self.path.doors.clone()));
            self.flapping.replace(Some(flap.abort_handle()));
        }
    }

    #[must_use]
    pub fn conditions(&self) -> Conditions {
        (*self.path.conditions()).clone()
    }

    /// Changes limits and delay.
    pub fn set_profile(&self, profile: Profile) {
        self.set(Conditions {
            profile,
            ..self.conditions()
        });
    }

    /// Changes what goes wrong.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.set(Conditions {
            faults,
            ..self.conditions()
        });
    }

    /// Nothing moves any more; connections stay open, and new ones are taken and stay silent.
    pub fn freeze(&self) {
        self.set_faults(vec![Fault::Stall {
            direction: Direction::Both,
        }]);
    }

    /// Resets all connections, and every new one.
    pub fn cut(&self) {
        self.set_faults(vec![Fault::Cut {}]);
    }

    /// Ends all faults. What was frozen goes on where it stopped.
    pub fn restore(&self) {
        self.set_faults(Vec::new());
    }

    /// Bytes that clients have been sent.
    #[must_use]
    pub fn down_bytes(&self) -> u64 {
        self.path.down.passed_bytes()
    }

    /// Bytes that the node has been sent.
    #[must_use]
    pub fn up_bytes(&self) -> u64 {
        self.path.up.passed_bytes()
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.path.connections.load(Ordering::Relaxed)
    }
}
