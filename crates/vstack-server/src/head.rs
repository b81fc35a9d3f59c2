//! Looks at a request's head while it passes: does it give its body two lengths?
//!
//! `Content-Length` beside `Transfer-Encoding` is how a request is smuggled past a proxy that reads the one to a server
//! that reads the other. hyper drops the length and serves the request, so that nobody behind it can see both. We refuse
//! it, and have to look ourselves. Only names are compared; everything else of HTTP is left to hyper.

const LENGTH: &[u8] = b"content-length:";
const ENCODING: &[u8] = b"transfer-encoding:";
/// More of a line is of no interest.
const LINE_BYTES: usize = ENCODING.len();

/// The head that is passing.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    /// How the present line begins.
    line: Vec<u8>,
    has_length: bool,
    has_encoding: bool,
    /// Bytes of the head; empty lines before it do not count.
    begun: bool,
    ended: bool,
}

impl HeadScan {
    /// Takes the next bytes; what comes behind the head is passed over.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.ended {
                return;
            }
            match byte {
                b'\n' => self.close_line(),
                b'\r' => {}
                byte if self.line.len() < LINE_BYTES => {
                    self.begun = true;
                    self.line.push(byte.to_ascii_lowercase());
                }
                _ => {}
            }
        }
    }

    fn close_line(&mut self) {
        self.ended = self.begun && self.line.is_empty();
        self.has_length |= self.line.starts_with(LENGTH);
        self.has_encoding |= self.line.starts_with(ENCODING);
        self.line.clear();
    }

    /// Whether the head names both.
    pub(crate) const fn has_two_lengths(&self) -> bool {
        self.has_length && self.has_encoding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, expected: bool) {
        for step in [1, 3, head.len()] {
            let mut scan = HeadScan::default();
            for piece in head.as_bytes().chunks(step) {
                scan.take(piece);
            }
            assert_eq!(scan.has_two_lengths(), expected, "{head:?} in steps of {step}");
        }
    }

    #[test]
    fn both_lengths_in_either_order_and_any_case_are_seen() {
        check(
            "PUT / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
        );
        check(
            "\r\nPUT / HTTP/1.1\nTRANSFER-ENCODING: chunked\ncontent-length: 4\n\n",
            true,
        );
    }

    #[test]
    fn one_length_is_fine_and_a_body_is_no_head() {
        check(
            "PUT / HTTP/1.1\r\nContent-Length: 4\r\nX-Transfer-Encoding: chunked\r\n\r\n",
            false,
        );
        check(
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\ncontent-length: 4\r\n",
            false,
        );
    }
}
