//! One direction of one connection: read, wait for the line, fly for the delay, write.
//!
//! Reading waits until the line has sent what was read, so that the sender feels the limit; pieces then fly in a queue,
//! so that delay costs no bandwidth. The queue is short: a reader that stops is felt by the sender too.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::conditions::{Ending, Fault};
use crate::gate::wait_until_open;
use crate::http::{Answers, RequestScan, Step};
use crate::path::{Line, Path};

/// Read at once. A slow line sends it in smaller packets.
const PIECE_BYTES: usize = 16 * 1024;
/// Packets in flight: at 16 KiB and a delay of 100 ms enough for 160 Mbit/s. Smaller ones last 5 ms each or more.
const PACKETS_IN_FLIGHT: usize = 128;

/// Why a connection is over although neither side has ended it.
#[derive(Debug)]
pub(crate) enum Over {
    Broken(io::Error),
    /// Ended in order on purpose.
    Closed,
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// What flies.
#[derive(Debug)]
enum Item {
    Bytes(Instant, Bytes),
    End(Ending),
}

/// Carries what clients send until the end of the stream, which it passes on.
pub(crate) async fn up(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    path: &Path,
    mut scan: RequestScan,
    random: StdRng,
) -> Result<(), Over> {
    let (sender, receiver) = mpsc::channel(PACKETS_IN_FLIGHT);
    let mut flight = Flight::new(path, Line::Up, sender, random);
    let reading = async {
        while let Some(piece) = read_piece(&mut from).await? {
            scan.see(&piece);
            flight.send(piece).await?;
        }
        drop(flight);
        Ok(())
    };
    tokio::try_join!(reading, write(to, path, Line::Up, receiver)).map(|_| ())
}

/// Carries what the node answers.
pub(crate) async fn down(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    path: &Path,
    mut answers: Answers,
    random: StdRng,
) -> Result<(), Over> {
    let (sender, receiver) = mpsc::channel(PACKETS_IN_FLIGHT);
    let mut flight = Flight::new(path, Line::Down, sender, random);
    let reading = async {
        while let Some(piece) = read_piece(&mut from).await? {
            for step in answers.take(piece, path) {
                flight.perform(step).await?;
            }
        }
        drop(flight);
        Ok(())
    };
    tokio::try_join!(reading, write(to, path, Line::Down, receiver)).map(|_| ())
}

async fn read_piece(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
    let mut piece = BytesMut::with_capacity(PIECE_BYTES);
    let read = from.read_buf(&mut piece).await?;
    Ok((read > 0).then(|| piece.freeze()))
}

/// The reading end: onto the line, and off.
struct Flight<'a> {
    path: &'a Path,
    line: Line,
    sender: mpsc::Sender<Item>,
    random: StdRng,
    /// The mean that was in force when the next reset was drawn, and how many bytes are left until then.
    reset: Option<(u64, f64)>,
}

impl<'a> Flight<'a> {
    const fn new(path: &'a Path, line: Line, sender: mpsc::Sender<Item>, random: StdRng) -> Self {
        Self {
            path,
            line,
            sender,
            random,
            reset: None,
        }
    }

    async fn perform(&mut self, step: Step) -> Result<(), Over> {
        match step {
            Step::Send(bytes) => self.send(bytes).await,
            Step::Drip { bytes, bytes_per_s } => {
                for at in 0..bytes.len() {
                    sleep(Duration::from_secs_f64(1.0 / bytes_per_s)).await;
                    self.send(bytes.slice(at..=at)).await?;
                }
                Ok(())
            }
            Step::Hang => {
                self.path
                    .until_gone(|fault| matches!(fault, Fault::Hang { .. }))
                    .await;
                Ok(())
            }
            Step::End(ending) => self.end(ending).await,
            Step::Repeat(bytes) => loop {
                self.send(bytes.clone()).await?;
            },
        }
    }

    async fn send(&mut self, mut bytes: Bytes) -> Result<(), Over> {
        while !bytes.is_empty() {
            let most = self.path.line(self.line).packet_bytes();
            let packet = bytes.split_to(bytes.len().min(most));
            self.send_packet(packet).await?;
        }
        Ok(())
    }

    async fn send_packet(&mut self, bytes: Bytes) -> Result<(), Over> {
        let mut doors = self.path.doors.subscribe();
        wait_until_open(&mut doors, self.line).await;
        let until_reset = self.until_reset(bytes.len());
        let length = until_reset.unwrap_or(bytes.len());
        let sent = self.path.line(self.line).send(length, Instant::now());
        sleep_until(sent).await;
        let due = sent + self.path.delay(&mut self.random);
        self.fly(Item::Bytes(due, bytes.slice(..length))).await?;
        match until_reset {
            Some(_) => self.end(Ending::Reset).await,
            None => Ok(()),
        }
    }

    /// Where in the next `length` bytes the connection is reset, if it is.
    fn until_reset(&mut self, length: usize) -> Option<usize> {
        if self.line == Line::Up {
            return None;
        }
        let conditions = self.path.conditions();
        let mean = conditions.faults.iter().find_map(|fault| match *fault {
            Fault::Reset { mean_bytes } => Some(mean_bytes),
            _ => None,
        });
        let Some(mean) = mean else {
            self.reset = None;
            return None;
        };
        let left = match self.reset {
            Some((known, left)) if known == mean => left,
            _ => -(1.0 - self.random.random::<f64>()).ln() * mean as f64,
        };
        self.reset = Some((mean, left - length as f64));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the length"
        )]
        (left < length as f64).then_some(left as usize)
    }

    /// Nothing is sent behind it: the connection is over when it arrives.
    async fn end(&self, ending: Ending) -> Result<(), Over> {
        self.fly(Item::End(ending)).await?;
        std::future::pending().await
    }

    async fn fly(&self, item: Item) -> Result<(), Over> {
        // It fails when the writer has failed, which says so itself.
        let failed = self.sender.send(item).await.is_err();
        if failed {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    path: &Path,
    line: Line,
    mut receiver: mpsc::Receiver<Item>,
) -> Result<(), Over> {
    let mut doors = path.doors.subscribe();
    while let Some(item) = receiver.recv().await {
        let (due, piece) = match item {
            Item::Bytes(due, piece) => (due, piece),
            Item::End(Ending::Close) => {
                to.shutdown().await?;
                return Err(Over::Closed);
            }
            Item::End(Ending::Reset) => return Err(Over::Broken(io::ErrorKind::ConnectionReset.into())),
        };
        sleep_until(due).await;
        wait_until_open(&mut doors, line).await;
        to.write_all(&piece).await?;
        path.line(line).count(piece.len());
    }
    to.shutdown().await?;
    Ok(())
}
