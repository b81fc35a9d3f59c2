//! One direction of one connection: read, wait for the line, fly for the delay, write.
//!
//! Reading waits until the line has sent what was read, so that the sender feels the limit; pieces then fly in a queue,
//! so that delay costs no bandwidth. The queue is short: a reader that stops is felt by the sender too.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::path::{Line, Path, Switch};
use crate::wait_until_open;

/// Read at once. Small enough that a slow line moves evenly, large enough for a fast one.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces in flight: at 16 KiB and a delay of 100 ms enough for 160 Mbit/s.
const PIECES_IN_FLIGHT: usize = 128;

/// Carries bytes until the end of the stream, which it passes on.
pub(crate) async fn pipe(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    path: &Path,
    line: Line,
    switch: watch::Receiver<Switch>,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let reading = read(from, path, line, switch.clone(), sender);
    let writing = write(to, path, line, switch, receiver);
    tokio::try_join!(reading, writing).map(|_| ())
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    path: &Path,
    line: Line,
    mut switch: watch::Receiver<Switch>,
    sender: mpsc::Sender<(Instant, Bytes)>,
) -> io::Result<()> {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        if from.read_buf(&mut piece).await? == 0 {
            return Ok(());
        }
        wait_until_open(&mut switch).await;
        let sent = path.line(line).send(piece.len(), Instant::now());
        sleep_until(sent).await;
        if sender.send((sent + path.delay(), piece.freeze())).await.is_err() {
            return Ok(()); // the writer has failed, and says so itself
        }
    }
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    path: &Path,
    line: Line,
    mut switch: watch::Receiver<Switch>,
    mut receiver: mpsc::Receiver<(Instant, Bytes)>,
) -> io::Result<()> {
    while let Some((due, piece)) = receiver.recv().await {
        sleep_until(due).await;
        wait_until_open(&mut switch).await;
        to.write_all(&piece).await?;
        path.line(line).count(piece.len());
    }
    to.shutdown().await
}
