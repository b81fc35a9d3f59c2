//! What was asked on a connection, in order: answers come in the same order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::framing::Framing;
use super::head::{Collected, HeadBuffer, parse_request};
use crate::conditions::SUBJECT;
use crate::path::lock;

/// A request, as far as its answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Its answer may be changed.
    Subject,
    /// Its answer has no body, whatever its head says.
    Head,
    Other,
}

/// Requests whose answers have not begun. Both directions of a connection share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<VecDeque<Request>>>);

impl Asked {
    fn push(&self, request: Request) {
        lock(&self.0).push_back(request);
    }

    /// What the answer that begins now is to.
    pub(super) fn next(&self) -> Request {
        lock(&self.0).pop_front().unwrap_or(Request::Other)
    }
}

/// Looks at what goes to the node.
#[derive(Debug)]
pub(crate) struct RequestScan {
    asked: Asked,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(HeadBuffer),
    Body(Framing),
    Opaque,
}

impl RequestScan {
    pub(crate) fn new(asked: Asked) -> Self {
        Self {
            asked,
            state: State::Head(HeadBuffer::default()),
        }
    }

    pub(crate) fn see(&mut self, bytes: &Bytes) {
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            match &mut self.state {
                State::Opaque => return,
                State::Body(framing) => {
                    let taken = framing.take(&rest);
                    rest = rest.split_off(taken);
                    if framing.is_done() {
                        self.state = State::Head(HeadBuffer::default());
                    }
                }
                State::Head(buffer) => match buffer.take(&mut rest, |bytes| bytes[0].is_ascii_uppercase()) {
                    Collected::More => return,
                    Collected::Opaque(_) => self.state = State::Opaque,
                    Collected::Head(head) => self.state = self.begun(&head),
                },
            }
        }
    }

    fn begun(&self, head: &[u8]) -> State {
        let Some((method, path, framing)) = parse_request(head) else {
            return State::Opaque;
        };
        self.asked.push(match method.as_str() {
            "GET" if path.starts_with(SUBJECT) => Request::Subject,
            "HEAD" => Request::Head,
            _ => Request::Other,
        });
        if framing.is_done() {
            State::Head(HeadBuffer::default())
        } else {
            State::Body(framing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_requests(bytes: &[u8], expected: &[Request]) {
        for piece in [1, 7, bytes.len()] {
            let asked = Asked::default();
            let mut scan = RequestScan::new(asked.clone());
            for part in bytes.chunks(piece) {
                scan.see(&Bytes::copy_from_slice(part));
            }
            let seen: Vec<Request> = lock(&asked.0).iter().copied().collect();
            assert_eq!(seen, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn requests_are_told_apart_whatever_lies_in_their_bodies() {
        check_requests(
            b"GET /chunk/a HTTP/1.1\r\nhost: x\r\n\r\nPUT /chunk/b HTTP/1.1\r\ncontent-length: 6\r\n\r\nGET /x\
              HEAD /chunk/a HTTP/1.1\r\n\r\nPOST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nG\r\n0\r\n\r\n\
              GET /ping HTTP/1.1\r\n\r\n",
            &[
                Request::Subject,
                Request::Other,
                Request::Head,
                Request::Other,
                Request::Other,
            ],
        );
    }

    #[test]
    fn what_is_no_http_is_left_alone() {
        check_requests(b"\x00\x00\x00\x05GET /chunk/a HTTP/1.1\r\n\r\n", &[]);
        check_requests(b"HELLO\r\n\r\nGET /chunk/a HTTP/1.1\r\n\r\n", &[]);
    }
}
