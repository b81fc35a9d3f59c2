//! The one thread that writes.
//!
//! It takes the first waiting job and all that wait behind it, up to 256 commands, runs them in one transaction, commits,
//! and only then answers. While one transaction is being synced the next jobs gather, so the group grows with the load by
//! itself and a lone caller never waits for company.
//!
//! A refused command changes nothing. Almost every refusal comes before its command's first write; only where one does
//! not, the group is rolled back and run again with a savepoint around each command. Commands bring their time and random
//! ids along, so the second run decides as the first.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::apply::{self, memory::Memory};
use crate::command::{Cmd, Reply};
use crate::error::MetaError;
use crate::versions::Versions;

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

/// The connection that writes, and what it knows by heart.
#[derive(Debug)]
pub(crate) struct Hand {
    connection: Connection,
    memory: Memory,
    versions: Arc<Versions>,
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
    Caller(Mutex<Hand>),
}

impl Writer {
    pub(crate) fn start(connection: Connection, versions: Arc<Versions>) -> Result<Self, MetaError> {
        let (jobs, queue) = sync_channel(QUEUED_JOBS);
        let thread = std::thread::Builder::new()
            .name("catalogue-writer".into())
            .spawn(move || run(Hand::new(connection, versions), &queue))
            .map_err(|error| MetaError::Database {
                reason: error.to_string(),
            })?;
        Ok(Self::Thread {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    pub(crate) fn on_caller(connection: Connection, versions: Arc<Versions>) -> Self {
        Self::Caller(Mutex::new(Hand::new(connection, versions)))
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
            Self::Caller(hand) => {
                let mut hand = hand.lock().unwrap_or_else(PoisonError::into_inner);
                hand.answer(vec![job]);
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

fn run(mut hand: Hand, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        hand.answer(gather(first, queue));
    }
    let folded = hand
        .connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = folded {
        warn!(%error, "the log was not folded into the catalogue; the next start does it");
    }
}

impl Hand {
    fn new(connection: Connection, versions: Arc<Versions>) -> Self {
        Self {
            connection,
            memory: Memory::default(),
            versions,
        }
    }

    fn answer(&mut self, group: Vec<Job>) {
        let answers = transact(&mut self.connection, &group, &mut self.memory);
        for (job, answers) in group.into_iter().zip(answers) {
            for (command, answer) in job.commands.iter().zip(&answers) {
                self.versions.note(command, answer);
            }
            // A caller that went away does not need its answer.
            drop(job.answer.send(answers));
        }
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
fn transact(connection: &mut Connection, group: &[Job], memory: &mut Memory) -> Vec<Answers> {
    let answers = try_transact(connection, group, memory, Undo::Group).and_then(|answers| match answers {
        Some(answers) => Ok(Some(answers)),
        None => {
            memory.forget();
            try_transact(connection, group, memory, Undo::Command)
        }
    });
    let error = match answers {
        Ok(Some(answers)) => return answers,
        Ok(None) => MetaError::Busy,
        Err(error) => error,
    };
    memory.forget();
    warn!(%error, jobs = group.len(), "a transaction of the catalogue failed");
    let failed = |job: &Job| vec![Err(error.clone()); job.commands.len()];
    group.iter().map(failed).collect()
}

/// How what a refused command wrote is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undo {
    /// With everything else.
    Group,
    /// Alone.
    Command,
}

/// `None` if a refused command has written, and that cannot be undone alone: nothing is changed then.
fn try_transact(
    connection: &mut Connection,
    group: &[Job],
    memory: &mut Memory,
    undo: Undo,
) -> Result<Option<Vec<Answers>>, MetaError> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut answers = Vec::with_capacity(group.len());
    for job in group {
        let mut replies = Vec::with_capacity(job.commands.len());
        for command in &job.commands {
            memory.make_way(&transaction, command)?;
            let changes = transaction.total_changes();
            let reply = match undo {
                Undo::Group => apply::apply(&transaction, command, memory),
                Undo::Command => apply_alone(&mut transaction, command, memory),
            };
            match &reply {
                // The disk's failures are everybody's: SQLite may have rolled back more than this command.
                Err(error) if error.fails_all() => return Err(error.clone()),
                Err(_) if undo == Undo::Group && transaction.total_changes() != changes => return Ok(None),
                _ => replies.push(reply),
            }
        }
        answers.push(replies);
    }
    memory.write_down(&transaction)?;
    transaction.commit()?;
    Ok(Some(answers))
}

fn apply_alone(
    transaction: &mut Transaction<'_>,
    command: &Cmd,
    memory: &mut Memory,
) -> Result<Reply, MetaError> {
    let savepoint = transaction.savepoint()?;
    let reply = apply::apply(&savepoint, command, memory)?;
    savepoint.commit()?;
    Ok(reply)
}
