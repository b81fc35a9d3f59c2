//! What goes to the client: passed on as it comes, or changed as the faults say.
//!
//! Faults are looked up when an answer's head is whole, and hold for that answer.

use bytes::{Bytes, BytesMut};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::framing::Framing;
use super::head::{AnswerHead, Collected, HeadBuffer};
use super::requests::{Asked, Request};
use crate::conditions::{Ending, Fault};
use crate::path::Path;

/// What an endless answer goes on with, framed as a chunk each.
const FILLER_BYTES: usize = 16 * 1024;

/// What is to be done next, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Send(Bytes),
    /// Byte by byte.
    Drip {
        bytes: Bytes,
        bytes_per_s: f64,
    },
    /// Nothing more until the fault is gone.
    Hang,
    End(Ending),
    /// These bytes again and again.
    Repeat(Bytes),
}

/// Looks at what comes from the node.
#[derive(Debug)]
pub(crate) struct Answers {
    asked: Asked,
    random: StdRng,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(HeadBuffer),
    Body(Box<Body>),
    Opaque,
}

/// An answer whose head has gone out.
#[derive(Debug)]
struct Body {
    framing: Framing,
    /// Of the next byte.
    at: u64,
    subject: bool,
    plan: Plan,
}

/// What happens to one answer.
#[derive(Debug, Default)]
struct Plan {
    drip: Option<f64>,
    cut: Option<(u64, Step)>,
    flip: Option<(u64, u8)>,
    old: Option<Bytes>,
    endless: bool,
    swallow: bool,
}

impl Answers {
    pub(crate) fn new(asked: Asked, random: StdRng) -> Self {
        Self {
            asked,
            random,
            state: State::Head(HeadBuffer::default()),
        }
    }

    pub(crate) fn take(&mut self, mut bytes: Bytes, path: &Path) -> Vec<Step> {
        let mut steps = Vec::new();
        while !bytes.is_empty() {
            match &mut self.state {
                State::Opaque => steps.push(Step::Send(std::mem::take(&mut bytes))),
                State::Body(body) => {
                    let taken = body.framing.take(&bytes);
                    body.pass(bytes.split_to(taken), path, &mut steps);
                    if body.framing.is_done() {
                        body.end(&mut steps);
                        self.state = State::Head(HeadBuffer::default());
                    }
                }
                State::Head(buffer) => match buffer.take(&mut bytes, begins_answer) {
                    Collected::More => {}
                    Collected::Opaque(all) => {
                        steps.push(Step::Send(all));
                        self.state = State::Opaque;
                    }
                    Collected::Head(head) => self.begin(head, path, &mut steps),
                },
            }
        }
        steps
    }

    fn begin(&mut self, bytes: Bytes, path: &Path, steps: &mut Vec<Step>) {
        let Some(mut head) = AnswerHead::parse(&bytes) else {
            steps.push(Step::Send(bytes));
            self.state = State::Opaque;
            return;
        };
        if head.status < 200 {
            // An interim answer; the real one follows.
            steps.push(Step::Send(bytes));
            self.state = State::Head(HeadBuffer::default());
            return;
        }
        let request = self.asked.next();
        let framing = head.framing(request == Request::Head);
        let (plan, changed) = match request {
            Request::Subject => self.plan(&mut head, path),
            _ => (Plan::default(), false),
        };
        let bytes = if changed { head.write() } else { bytes };
        steps.push(match plan.drip {
            Some(bytes_per_s) => Step::Drip { bytes, bytes_per_s },
            None => Step::Send(bytes),
        });
        let mut body = Body {
            framing,
            at: 0,
            subject: request == Request::Subject,
            plan,
        };
        body.cut_here(steps);
        self.state = if framing.is_done() {
            State::Head(HeadBuffer::default())
        } else {
            State::Body(Box::new(body))
        };
    }

    /// What the present faults do to this answer, and whether its head is another now.
    fn plan(&mut self, head: &mut AnswerHead, path: &Path) -> (Plan, bool) {
        let (mut plan, mut changed) = (Plan::default(), false);
        let length = head.length().filter(|length| *length > 0);
        for fault in &path.conditions().faults {
            let Some(chance) = fault.chance() else { continue };
            if !self.random.random_bool(chance.clamp(0.0, 1.0)) {
                continue;
            }
            match (*fault, length) {
                (Fault::SlowHeaders { bytes_per_s, .. }, _) => plan.drip = Some(bytes_per_s),
                (Fault::Status { status, .. }, _) => {
                    head.set_status(status);
                    head.remove("transfer-encoding");
                    head.set("content-length", "0");
                    (plan.swallow, changed) = (true, true);
                }
                (Fault::WrongRange { shift_bytes, .. }, _) => changed |= shift_range(head, shift_bytes),
                (Fault::Truncate { at_share, ending, .. }, Some(length)) => {
                    plan.cut = Some((share(length, at_share), Step::End(ending)));
                }
                (Fault::Hang { at_share, .. }, Some(length)) => {
                    plan.cut = Some((share(length, at_share), Step::Hang));
                }
                (Fault::Corrupt { .. }, Some(length)) => {
                    let bit = 1 << self.random.random_range(0..8);
                    plan.flip = Some((self.random.random_range(0..length), bit));
                }
                (Fault::Stale { .. }, Some(_)) => plan.old = path.old_body(),
                (Fault::Endless { .. }, Some(_)) => {
                    head.remove("content-length");
                    head.set("transfer-encoding", "chunked");
                    (plan.endless, changed) = (true, true);
                }
                _ => {}
            }
        }
        (plan, changed)
    }
}

impl Body {
    /// The next bytes of the body, all of which belong to it.
    fn pass(&mut self, bytes: Bytes, path: &Path, steps: &mut Vec<Step>) {
        if self.plan.swallow {
            return;
        }
        if self.subject && self.at == 0 {
            path.remember(&bytes);
        }
        let mut bytes = self.altered(bytes);
        let until_cut = self.plan.cut.as_ref().map(|(at, _)| at - self.at);
        if let Some(before) = until_cut.and_then(|left| usize::try_from(left).ok())
            && before <= bytes.len()
        {
            let first = bytes.split_to(before);
            self.send(first, steps);
            self.cut_here(steps);
        }
        self.send(bytes, steps);
    }

    fn altered(&self, bytes: Bytes) -> Bytes {
        let flip = self
            .plan
            .flip
            .filter(|(at, _)| (self.at..self.at + bytes.len() as u64).contains(at));
        if flip.is_none() && self.plan.old.is_none() {
            return bytes;
        }
        let mut bytes = BytesMut::from(&bytes[..]);
        if let Some(old) = &self.plan.old {
            let from = usize::try_from(self.at % old.len().max(1) as u64).unwrap_or(0);
            for (byte, old) in bytes.iter_mut().zip(old.iter().cycle().skip(from)) {
                *byte = *old;
            }
        }
        let flipped = flip.and_then(|(at, bit)| Some((usize::try_from(at - self.at).ok()?, bit)));
        if let Some((at, bit)) = flipped {
            bytes[at] ^= bit;
        }
        bytes.freeze()
    }

    fn send(&mut self, bytes: Bytes, steps: &mut Vec<Step>) {
        self.at += bytes.len() as u64;
        if bytes.is_empty() {
            return;
        }
        steps.push(Step::Send(if self.plan.endless { chunk(&bytes) } else { bytes }));
    }

    /// What happens at this very place.
    fn cut_here(&mut self, steps: &mut Vec<Step>) {
        if let Some((_, step)) = self.plan.cut.take_if(|(at, _)| *at == self.at) {
            steps.push(step);
        }
    }

    fn end(&mut self, steps: &mut Vec<Step>) {
        if self.plan.endless {
            steps.push(Step::Repeat(chunk(&[0x55; FILLER_BYTES])));
        }
    }
}

fn begins_answer(bytes: &[u8]) -> bool {
    let known = b"HTTP/1.";
    let compared = bytes.len().min(known.len());
    bytes[..compared] == known[..compared]
}

fn chunk(bytes: &[u8]) -> Bytes {
    let size = format!("{:x}\r\n", bytes.len());
    Bytes::from([size.as_bytes(), bytes, b"\r\n"].concat())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a length, between 0 and the length"
)]
fn share(length: u64, share: f64) -> u64 {
    ((length as f64 * share.clamp(0.0, 1.0)) as u64).min(length)
}

/// Whether the answer has a range that can be shifted.
fn shift_range(head: &mut AnswerHead, by_bytes: i64) -> bool {
    let Some((range, whole)) = head.header("content-range").and_then(|text| {
        let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((
            (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?),
            whole.to_owned(),
        ))
    }) else {
        return false;
    };
    let shifted = |at: u64| at.saturating_add_signed(by_bytes);
    let value = format!("bytes {}-{}/{whole}", shifted(range.0), shifted(range.1));
    head.set("content-range", &value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Conditions;
    use crate::http::RequestScan;
    use rand::SeedableRng as _;

    const ANSWER: &[u8] = b"HTTP/1.1 206 Partial Content\r\ncontent-length: 10\r\ncontent-range: bytes 5-14/99\r\n\r\n0123456789";

    fn steps(faults: Vec<Fault>, request: &str, answer: &[u8], piece: usize) -> Vec<Step> {
        let path = Path::new(Conditions {
            faults,
            ..Conditions::default()
        });
        let asked = Asked::default();
        RequestScan::new(asked.clone()).see(&Bytes::from(request.to_owned()));
        let mut answers = Answers::new(asked, StdRng::seed_from_u64(1));
        let pieces = answer.chunks(piece);
        pieces
            .flat_map(|piece| answers.take(Bytes::copy_from_slice(piece), &path))
            .collect()
    }

    const ASK: &str = "GET /chunk/a HTTP/1.1\r\n\r\n";

    /// The bytes that are sent until something else happens, and what that is.
    fn told(steps: &[Step]) -> (Vec<u8>, Option<Step>) {
        let mut sent = Vec::new();
        for step in steps {
            match step {
                Step::Send(bytes) => sent.extend_from_slice(bytes),
                other => return (sent, Some(other.clone())),
            }
        }
        (sent, None)
    }

    fn check(faults: &[Fault], expected: &[u8], then: Option<&Step>) {
        for piece in [1, 3, 50, ANSWER.len()] {
            let (sent, other) = told(&steps(faults.to_vec(), ASK, ANSWER, piece));
            let (sent, expected) = (String::from_utf8_lossy(&sent), String::from_utf8_lossy(expected));
            assert_eq!((sent, other.as_ref()), (expected, then), "in pieces of {piece}");
        }
    }

    #[test]
    fn without_faults_every_byte_passes() {
        check(&[], ANSWER, None);
    }

    #[test]
    fn only_answers_about_chunks_are_changed() {
        let all = vec![Fault::Status {
            status: 503,
            chance: 1.0,
        }];
        for ask in ["GET /ping HTTP/1.1\r\n\r\n", "PUT /chunk/a HTTP/1.1\r\n\r\n"] {
            assert_eq!(told(&steps(all.clone(), ask, ANSWER, 9)).0, ANSWER, "{ask}");
        }
    }

    #[test]
    fn an_answer_is_cut_at_its_share() {
        let cut = ANSWER.len() - 5;
        let hang = Fault::Hang {
            at_share: 0.5,
            chance: 1.0,
        };
        check(&[hang], &ANSWER[..cut], Some(&Step::Hang));
        let truncate = Fault::Truncate {
            at_share: 0.5,
            ending: Ending::Reset,
            chance: 1.0,
        };
        check(&[truncate], &ANSWER[..cut], Some(&Step::End(Ending::Reset)));
        let at_once = Fault::Hang {
            at_share: 0.0,
            chance: 1.0,
        };
        check(&[at_once], &ANSWER[..ANSWER.len() - 10], Some(&Step::Hang));
    }

    #[test]
    fn what_follows_a_hang_is_the_rest() {
        let hang = Fault::Hang {
            at_share: 0.5,
            chance: 1.0,
        };
        let all: Vec<u8> = steps(vec![hang], ASK, ANSWER, 4)
            .into_iter()
            .flat_map(|step| match step {
                Step::Send(bytes) => bytes.to_vec(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(all, ANSWER);
    }

    #[test]
    fn a_corrupted_answer_differs_in_one_bit_of_its_body() {
        let (sent, _) = told(&steps(vec![Fault::Corrupt { chance: 1.0 }], ASK, ANSWER, 7));
        let differing: u32 = sent.iter().zip(ANSWER).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((sent.len(), differing), (ANSWER.len(), 1));
        let head = ANSWER.len() - 10;
        assert_eq!(sent[..head], ANSWER[..head]);
    }

    #[test]
    fn a_range_is_renamed_and_a_status_replaces_the_body() {
        let shifted = steps(
            vec![Fault::WrongRange {
                shift_bytes: 100,
                chance: 1.0,
            }],
            ASK,
            ANSWER,
            11,
        );
        let text = String::from_utf8(told(&shifted).0).unwrap();
        assert!(text.contains("content-range: bytes 105-114/99"), "{text}");
        let refused = steps(
            vec![Fault::Status {
                status: 503,
                chance: 1.0,
            }],
            ASK,
            &[ANSWER, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"].concat(),
            11,
        );
        let text = String::from_utf8(told(&refused).0).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 503 ") && text.ends_with("\r\n\r\nx"),
            "{text}"
        );
        assert!(!text.contains("0123"), "{text}");
    }

    #[test]
    fn an_endless_answer_has_no_length_and_goes_on() {
        let steps = steps(vec![Fault::Endless { chance: 1.0 }], ASK, ANSWER, ANSWER.len());
        let (sent, then) = told(&steps);
        let text = String::from_utf8(sent).unwrap();
        assert!(text.ends_with("\r\n\r\na\r\n0123456789\r\n"), "{text}");
        assert!(!text.contains("content-length") && matches!(then, Some(Step::Repeat(_))));
    }

    #[test]
    fn stale_bytes_are_those_of_the_first_answer() {
        let path = Path::new(Conditions {
            faults: vec![Fault::Stale { chance: 1.0 }],
            ..Conditions::default()
        });
        let asked = Asked::default();
        let mut scan = RequestScan::new(asked.clone());
        let mut answers = Answers::new(asked, StdRng::seed_from_u64(1));
        let mut ask = |body: &str| {
            scan.see(&Bytes::from(ASK));
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let (sent, _) = told(&answers.take(Bytes::from(answer), &path));
            String::from_utf8(sent)
                .unwrap()
                .split("\r\n\r\n")
                .nth(1)
                .map(str::to_owned)
        };
        assert_eq!(ask("first").as_deref(), Some("first"));
        assert_eq!(ask("the second").as_deref(), Some("firstfirst"));
        assert_eq!(ask("abc").as_deref(), Some("fir"));
    }

    #[test]
    fn answers_without_a_body_keep_the_next_one_in_step() {
        let ask = "HEAD /chunk/a HTTP/1.1\r\n\r\nGET /chunk/b HTTP/1.1\r\n\r\n";
        let head_only = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
        let both = [&head_only[..], ANSWER].concat();
        let hang = Fault::Hang {
            at_share: 0.0,
            chance: 1.0,
        };
        let (sent, then) = told(&steps(vec![hang], ask, &both, 13));
        assert_eq!((sent.len(), then), (both.len() - 10, Some(Step::Hang)));
    }
}
