//! The head of a message: read for its framing, and written again where something in it is changed.

use bytes::{Bytes, BytesMut};

use super::framing::{Chunks, Framing};

/// Heads are far smaller; what is longer is no HTTP that we know.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

/// Collects the bytes of a head.
#[derive(Debug, Default)]
pub(super) struct HeadBuffer(BytesMut);

/// What came of the bytes so far.
#[derive(Debug)]
pub(super) enum Collected {
    More,
    /// The whole head; the rest of what was given belongs to what follows it.
    Head(Bytes),
    /// No HTTP: all bytes that were kept, and those given.
    Opaque(Bytes),
}

impl HeadBuffer {
    /// Takes bytes off the front of `bytes`. `begins` says whether the first bytes can begin such a head.
    pub(super) fn take(&mut self, bytes: &mut Bytes, begins: impl Fn(&[u8]) -> bool) -> Collected {
        let searched = self.0.len().saturating_sub(3);
        self.0.extend_from_slice(bytes);
        let end = self.0[searched..]
            .windows(4)
            .position(|window| window == b"\r\n\r\n");
        if !begins(&self.0) || (end.is_none() && self.0.len() > MAX_HEAD_BYTES) {
            *bytes = Bytes::new();
            return Collected::Opaque(self.0.split().freeze());
        }
        match end {
            Some(end) => {
                let head = self.0.split_to(searched + end + 4).freeze();
                *bytes = self.0.split().freeze();
                Collected::Head(head)
            }
            None => {
                *bytes = Bytes::new();
                Collected::More
            }
        }
    }
}

/// An answer's head.
#[derive(Debug)]
pub(super) struct AnswerHead {
    pub(super) status: u16,
    first_line: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl AnswerHead {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        if !answer.parse(bytes).ok()?.is_complete() {
            return None;
        }
        let first_line = bytes.split(|byte| *byte == b'\r').next()?;
        Some(Self {
            status: answer.code?,
            first_line: String::from_utf8_lossy(first_line).into_owned(),
            headers: owned(answer.headers),
        })
    }

    pub(super) fn framing(&self, to_head_request: bool) -> Framing {
        if to_head_request || self.status < 200 || matches!(self.status, 204 | 304) {
            return Framing::Length(0);
        }
        framing(&self.headers).unwrap_or(Framing::UntilEnd)
    }

    pub(super) fn length(&self) -> Option<u64> {
        match framing(&self.headers) {
            Some(Framing::Length(length)) => Some(length),
            _ => None,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// An answer of this status with the same headers.
    pub(super) fn set_status(&mut self, status: u16) {
        self.status = status;
        self.first_line = format!("HTTP/1.1 {status} Emulated");
    }

    pub(super) fn write(&self) -> Bytes {
        let mut head = BytesMut::from(self.first_line.as_bytes());
        for (name, value) in &self.headers {
            for part in [b"\r\n", name.as_bytes(), b": ", value] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n\r\n");
        head.freeze()
    }
}

/// A request's method, path and framing.
pub(super) fn parse_request(bytes: &[u8]) -> Option<(String, String, Framing)> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !request.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let (method, path) = (request.method?.to_owned(), request.path?.to_owned());
    let framing = framing(&owned(request.headers)).unwrap_or(Framing::Length(0));
    Some((method, path, framing))
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, Vec<u8>)> {
    let owned = |header: &httparse::Header<'_>| (header.name.to_owned(), header.value.to_vec());
    headers.iter().map(owned).collect()
}

fn find<'a>(headers: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a str> {
    let (_, value) = headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(value).ok()
}

/// As the headers say, if they do.
fn framing(headers: &[(String, Vec<u8>)]) -> Option<Framing> {
    let coding = find(headers, "transfer-encoding").unwrap_or_default();
    if coding.to_ascii_lowercase().ends_with("chunked") {
        return Some(Framing::Chunked(Chunks::START));
    }
    let length = find(headers, "content-length")?.trim().parse().ok()?;
    Some(Framing::Length(length))
}
