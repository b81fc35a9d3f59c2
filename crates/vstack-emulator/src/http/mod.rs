//! As much HTTP/1.1 as it takes to know which bytes are an answer's head and which its body.
//!
//! `framing` finds where messages end, `requests` notes what was asked, `answers` passes what is answered on or changes
//! it. What is no HTTP passes as it is, for the rest of its connection.

mod answers;
mod framing;
mod head;
mod requests;

pub(crate) use answers::{Answers, Step};
pub(crate) use requests::{Asked, RequestScan};
