//! A closed loop: so many connections, each sending its next request when the answer to the last one is whole.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::http::Connection;

/// What is sent, by how many, for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Heads of requests, taken in this order.
    pub(crate) heads: &'a [Vec<u8>],
    /// The body of each of them.
    pub(crate) body: &'a [u8],
    /// Whether to begin again when all heads were used; the run ends otherwise.
    pub(crate) again: bool,
    pub(crate) limit: Duration,
}

/// How a job went. Latencies are in ms and sorted.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    pub(crate) bytes: u64,
    pub(crate) whole_ms: Vec<f64>,
    pub(crate) first_byte_ms: Vec<f64>,
}

impl Outcome {
    pub(crate) fn requests(&self) -> usize {
        self.whole_ms.len()
    }

    pub(crate) fn mb_per_sec(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn per_sec(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }

    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.whole_ms.extend(other.whole_ms);
        self.first_byte_ms.extend(other.first_byte_ms);
    }
}

/// The value below which `share` of the sorted values lie.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index between 0 and the last"
    )]
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

impl Job<'_> {
    /// Runs it. The first answer that is no success ends the bench: figures of failed requests are worth nothing.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(Connection::open(self.address)?);
        }
        let (next, total) = (AtomicUsize::new(0), Mutex::new(Ok(Outcome::default())));
        let started = Instant::now();
        std::thread::scope(|scope| {
            for connection in connections {
                scope.spawn(|| {
                    let part = self.one(connection, &next, started);
                    merge(&total, part);
                });
            }
        });
        let elapsed = started.elapsed();
        let mut outcome = total.into_inner().map_err(|_| anyhow!("a client panicked"))??;
        outcome.elapsed = elapsed;
        outcome.whole_ms.sort_by(f64::total_cmp);
        outcome.first_byte_ms.sort_by(f64::total_cmp);
        if outcome.requests() == 0 {
            bail!("nothing was answered");
        }
        Ok(outcome)
    }

    fn one(&self, mut connection: Connection, next: &AtomicUsize, started: Instant) -> Result<Outcome> {
        let mut part = Outcome::default();
        while started.elapsed() < self.limit {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= self.heads.len() && !self.again {
                break;
            }
            let head = self
                .heads
                .get(turn % self.heads.len().max(1))
                .context("no requests")?;
            let sent = Instant::now();
            let answer = connection.exchange(head, self.body, false)?;
            if !answer.is_success() {
                let line = String::from_utf8_lossy(head);
                bail!(
                    "{} answered {}",
                    line.lines().next().unwrap_or_default(),
                    answer.status
                );
            }
            part.whole_ms.push(ms(sent.elapsed()));
            part.first_byte_ms.push(ms(answer.first_byte));
            part.bytes += if self.body.is_empty() {
                answer.body_bytes
            } else {
                self.body.len() as u64
            };
        }
        Ok(part)
    }
}

fn merge(total: &Mutex<Result<Outcome>>, part: Result<Outcome>) {
    let Ok(mut total) = total.lock() else { return };
    match (total.as_mut(), part) {
        (Ok(total), Ok(part)) => total.add(part),
        (Ok(_), Err(error)) => *total = Err(error),
        (Err(_), _) => {}
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// Answers each request with `answer` until its client leaves.
    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    while socket.read(&mut buffer).is_ok_and(|read| read > 0) {
                        socket.write_all(answer).unwrap();
                    }
                });
            }
        });
        address
    }

    fn run(answer: &'static [u8], again: bool) -> Result<Outcome> {
        let address = server(answer);
        let heads: Vec<_> = (0..10)
            .map(|turn| crate::http::get(address, &format!("/{turn}")))
            .collect();
        let job = Job {
            address,
            connections: 3,
            heads: &heads,
            body: &[],
            again,
            limit: Duration::from_millis(200),
        };
        job.run()
    }

    #[test]
    fn every_request_is_counted_once() {
        let once = run(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", false).unwrap();
        assert_eq!((once.requests(), once.bytes), (10, 50));
        let again = run(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", true).unwrap();
        assert!(again.requests() > 10, "{}", again.requests());
    }

    #[test]
    fn a_refusal_ends_the_run() {
        let refused = run(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", true);
        assert!(refused.unwrap_err().to_string().contains("503"));
    }

    #[test]
    fn percentiles_are_taken_from_sorted_values() {
        let values: Vec<f64> = (0..101).map(f64::from).collect();
        assert_eq!(
            (percentile(&values, 0.5), percentile(&values, 0.99)),
            (50.0, 99.0)
        );
        assert!(percentile(&[], 0.5).is_nan());
    }
}
