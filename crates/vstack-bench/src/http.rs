//! The cheapest HTTP/1.1 client that is still one: what it costs is taken from the servers, which share its processors.
//!
//! One keep-alive connection, one request at a time, bodies with a length; what arrives is counted, not kept, unless
//! asked for.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Large enough that reading costs the client little; small enough that a hundred of them stay in a shared cache.
const BUFFER_BYTES: usize = 256 * 1024;
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    /// From the request to the first byte of the answer.
    pub(crate) first_byte: Duration,
    /// The body, where it was wanted.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE_LIMIT))?;
        socket.set_write_timeout(Some(SILENCE_LIMIT))?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Sends a request (its head and body as they go over the wire) and reads the answer.
    pub(crate) fn exchange(&mut self, head: &[u8], body: &[u8], keep_body: bool) -> Result<Answer> {
        let started = Instant::now();
        self.send(head, body)?;
        let mut filled = self.read(0)?;
        let first_byte = started.elapsed();
        let head_len = loop {
            if let Some(end) = find(&self.buffer[..filled], b"\r\n\r\n") {
                break end + 4;
            }
            filled += self.read(filled)?;
        };
        let (status, length) = parse_head(&self.buffer[..head_len])?;
        let mut kept = Vec::new();
        let mut arrived = (filled - head_len) as u64;
        if keep_body {
            kept.extend_from_slice(&self.buffer[head_len..filled]);
        }
        while arrived < length {
            let read = self.read(0)?;
            arrived += read as u64;
            if keep_body {
                kept.extend_from_slice(&self.buffer[..read]);
            }
        }
        if arrived > length {
            bail!("the answer is longer than it says");
        }
        Ok(Answer {
            status,
            body_bytes: length,
            first_byte,
            body: kept,
        })
    }

    fn send(&mut self, head: &[u8], body: &[u8]) -> Result<()> {
        let mut pieces = [IoSlice::new(head), IoSlice::new(body)];
        let mut pieces = &mut pieces[..];
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            let written = self.socket.write_vectored(pieces)?;
            IoSlice::advance_slices(&mut pieces, written);
        }
        Ok(())
    }

    fn read(&mut self, at: usize) -> Result<usize> {
        match self.socket.read(&mut self.buffer[at..])? {
            0 => bail!("the server closed the connection in mid-answer"),
            read => Ok(read),
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Status and length of the body.
fn parse_head(head: &[u8]) -> Result<(u16, u64)> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .context("the answer has no status")?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok()).flatten()
    });
    match (status, length) {
        (204 | 304, _) => Ok((status, 0)),
        (_, Some(length)) => Ok((status, length)),
        (_, None) => bail!("the answer has no length: {head}"),
    }
}

/// The head of a request without a body.
pub(crate) fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes()
}

/// The head of a PUT.
pub(crate) fn put(address: SocketAddr, path: &str, length: usize) -> Vec<u8> {
    format!(
        "PUT {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/octet-stream\r\n\
         content-length: {length}\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_gives_status_and_length() {
        let head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(parse_head(head).unwrap(), (206, 12));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_head(b"garbage\r\n\r\n").is_err());
    }
}
