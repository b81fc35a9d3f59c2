//! As much gRPC as two calls of etcd need: unary requests over HTTP/2, with messages encoded by hand.
//!
//! A generated client would bring a compiler for protocol buffers for two messages of three fields.

use anyhow::{Context as _, Result, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

/// One HTTP/2 connection. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    requests: SendRequest<Bytes>,
    authority: String,
}

impl Channel {
    pub(super) async fn connect(authority: &str) -> Result<Self> {
        let socket = TcpStream::connect(authority).await?;
        socket.set_nodelay(true)?;
        let (requests, connection) = h2::client::handshake(socket).await?;
        tokio::spawn(async move {
            // Its end shows in the calls that it carries.
            let _ = connection.await;
        });
        Ok(Self {
            requests,
            authority: authority.to_owned(),
        })
    }

    /// Calls `method` with an encoded message; returns the encoded answer.
    pub(super) async fn call(&self, method: &str, message: &[u8]) -> Result<Bytes> {
        let request = Request::post(format!("http://{}/{method}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut body) = requests.send_request(request, false)?;
        body.send_data(framed(message), true)?;
        let answer = answer.await?;
        let headers = answer.headers().clone();
        let mut body = answer.into_body();
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            bytes.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await?;
        let status = trailers.as_ref().unwrap_or(&headers).get("grpc-status");
        if status.is_none_or(|status| status != "0") {
            bail!("{method} was refused: {status:?}");
        }
        let head = FRAME_HEAD.min(bytes.len());
        Ok(bytes.freeze().slice(head..))
    }
}

/// One byte for "not compressed" and four for the length.
const FRAME_HEAD: usize = 5;

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_HEAD + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// A field of bytes.
pub(super) fn bytes_field(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    message.push(number << 3 | 2);
    let mut len = value.len();
    loop {
        let seven = u8::try_from(len & 0x7f).expect("seven bits");
        len >>= 7;
        if len == 0 {
            message.push(seven);
            break;
        }
        message.push(seven | 0x80);
    }
    message.extend_from_slice(value);
}

/// The fields of a message: numbers, and bytes as they are.
pub(super) fn fields(mut message: &[u8]) -> Result<Vec<(u64, Field<'_>)>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            2 => {
                let len = usize::try_from(varint(&mut message)?)?;
                let (value, rest) = message.split_at_checked(len).context("a field is cut off")?;
                message = rest;
                Field::Bytes(value)
            }
            other => bail!("a field of wire type {other}"),
        };
        found.push((tag >> 3, field));
    }
    Ok(found)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(message: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().context("a number is cut off")?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut message = Vec::new();
        bytes_field(&mut message, 1, b"key");
        bytes_field(&mut message, 2, &[7; 300]);
        message.extend([4 << 3, 0xac, 0x02]);
        let found = fields(&message).unwrap();
        assert_eq!(found[0], (1, Field::Bytes(b"key")));
        assert_eq!(found[1], (2, Field::Bytes(&[7; 300])));
        assert_eq!(found[2], (4, Field::Number(300)));
        assert!(fields(&message[..20]).is_err());
    }
}
