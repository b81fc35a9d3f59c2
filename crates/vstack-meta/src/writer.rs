//! The one thread that writes.
//!
//! It takes the first waiting job and all that wait behind it, up to 256 commands, runs each command in a savepoint of
//! one transaction, commits, and only then answers. While one transaction is being synced the next jobs gather, so the
//! group grows with the load by itself and a lone caller never waits for company.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::apply;
use crate::command::{Cmd, Reply};
use crate::error::MetaError;

/// Commands of one transaction. Measured: groups of 100 commit as fast with full syncing as without.
const GROUP_COMMANDS: usize = 256;
/// Jobs that may wait. A full queue is answered as busy, so that callers back off instead of piling up memory.
const QUEUED_JOBS: usize = 1024;

type Answers = Vec<Result<Reply, MetaError>>;

#[derive(Debug)]
pub(crate) struct Job {
    commands: Vec<Cmd>,
    answer: oneshot::Sender<Answers>,
}

/// The way to the connection that writes.
#[derive(Debug)]
pub(crate) enum Writer {
    /// Dropping it lets the thread finish what is queued and end.
    Thread {
        jobs: Option<SyncSender<Job>>,
        thread: Option<JoinHandle<()>>,
    },
    /// Whoever has a command runs it himself: for simulations, in which nothing may happen beside the one thread.
    Caller(Mutex<Connection>),
}

impl Writer {
    pub(crate) fn start(connection: Connection) -> Result<Self, MetaError> {
        let (jobs, queue) = sync_channel(QUEUED_JOBS);
        let thread = std::thread::Builder::new()
            .name("catalogue-writer".into())
            .spawn(move || run(connection, &queue))
            .map_err(|error| MetaError::Database {
                reason: error.to_string(),
            })?;
        Ok(Self::Thread {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    pub(crate) const fn on_caller(connection: Connection) -> Self {
        Self::Caller(Mutex::new(connection))
    }

    /// Queues commands that are answered together. The answer comes when they are durable.
    pub(crate) fn submit(&self, commands: Vec<Cmd>) -> Result<oneshot::Receiver<Answers>, MetaError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { commands, answer };
        match self {
            Self::Thread { jobs, .. } => match jobs.as_ref().ok_or(MetaError::Busy)?.try_send(job) {
                Ok(()) => Ok(answered),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(MetaError::Busy),
            },
            Self::Caller(connection) => {
                let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                answer_group(&mut connection, vec![job]);
                Ok(answered)
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Self::Thread { jobs, thread } = self else {
            return;
        };
        drop(jobs.take());
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            error!("the catalogue's writer had ended by a panic");
        }
    }
}

fn run(mut connection: Connection, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        answer_group(&mut connection, gather(first, queue));
    }
    let folded = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = folded {
        warn!(%error, "the log was not folded into the catalogue; the next start does it");
    }
}

fn answer_group(connection: &mut Connection, group: Vec<Job>) {
    let answers = transact(connection, &group);
    for (job, answers) in group.into_iter().zip(answers) {
        // A caller that went away does not need its answer.
        drop(job.answer.send(answers));
    }
}

fn gather(first: Job, queue: &Receiver<Job>) -> Vec<Job> {
    let mut commands = first.commands.len();
    let mut group = vec![first];
    while commands < GROUP_COMMANDS
        && let Ok(job) = queue.try_recv()
    {
        commands += job.commands.len();
        group.push(job);
    }
    group
}

/// Either everything that succeeded is durable, or every command of the group has failed.
fn transact(connection: &mut Connection, group: &[Job]) -> Vec<Answers> {
    try_transact(connection, group).unwrap_or_else(|error| {
        warn!(%error, jobs = group.len(), "a transaction of the catalogue failed");
        let failed = |job: &Job| vec![Err(error.clone()); job.commands.len()];
        group.iter().map(failed).collect()
    })
}

fn try_transact(connection: &mut Connection, group: &[Job]) -> Result<Vec<Answers>, MetaError> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut answers = Vec::with_capacity(group.len());
    for job in group {
        let mut replies = Vec::with_capacity(job.commands.len());
        for command in &job.commands {
            let savepoint = transaction.savepoint()?;
            match apply::apply(&savepoint, command) {
                Ok(reply) => {
                    savepoint.commit()?;
                    replies.push(Ok(reply));
                }
                // The disk's failures are everybody's: SQLite may have rolled back more than this command.
                Err(error) if error.fails_all() => return Err(error),
                Err(refusal) => {
                    savepoint.finish()?;
                    replies.push(Err(refusal));
                }
            }
        }
        answers.push(replies);
    }
    transaction.commit()?;
    Ok(answers)
}
