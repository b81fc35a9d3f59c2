//! Server-sent events: an HTTP answer in, typed events out (WHATWG HTML, section 9.2; only `data` lines are used).

use futures::stream::{self, BoxStream, StreamExt as _};
use serde::de::DeserializeOwned;

use crate::client::ApiError;
use crate::transport::{Response, TransportError};

/// An event longer than this is not one of ours.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// The events of `answer`, each parsed from its JSON.
pub(crate) fn events<T: DeserializeOwned + Send + 'static>(
    answer: Response,
) -> BoxStream<'static, Result<T, ApiError>> {
    let Response { url, body, .. } = answer;
    let reader = Reader {
        url,
        body,
        pending: Vec::new(),
    };
    stream::try_unfold(reader, |mut reader| async move {
        let event = reader.next_event().await?;
        Ok(event.map(|event| (event, reader)))
    })
    .boxed()
}

struct Reader {
    url: String,
    body: BoxStream<'static, Result<bytes::Bytes, TransportError>>,
    pending: Vec<u8>,
}

impl Reader {
    async fn next_event<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ApiError> {
        loop {
            while let Some(block) = take_block(&mut self.pending) {
                if let Some(data) = data_of(&block) {
                    let reason = |error: serde_json::Error| error.to_string();
                    let parsed = serde_json::from_str(&data);
                    return parsed.map(Some).map_err(|error| ApiError::NotUnderstood {
                        url: self.url.clone(),
                        reason: reason(error),
                    });
                }
            }
            match self.body.next().await {
                Some(piece) => self.pending.extend_from_slice(&piece?),
                None => return Ok(None),
            }
            if self.pending.len() > MAX_EVENT_BYTES {
                return Err(TransportError::TooLong {
                    url: self.url.clone(),
                    limit_bytes: MAX_EVENT_BYTES as u64,
                }
                .into());
            }
        }
    }
}

/// Cuts off the first block that an empty line ends.
fn take_block(pending: &mut Vec<u8>) -> Option<String> {
    let end = pending.windows(2).position(|pair| pair == b"\n\n")?;
    let rest = pending.split_off(end + 2);
    let block = std::mem::replace(pending, rest);
    Some(String::from_utf8_lossy(&block).into_owned())
}

/// The `data` lines of a block; a comment or keep-alive has none.
fn data_of(block: &str) -> Option<String> {
    let lines: Vec<&str> = block
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(str::trim_start)
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_at_empty_lines_and_keep_alives_are_skipped() {
        let mut pending = b": ping\n\ndata: {\"a\":1}\n\ndata: {\"a\"".to_vec();
        assert_eq!(take_block(&mut pending).as_deref().map(data_of), Some(None));
        assert_eq!(
            take_block(&mut pending).and_then(|block| data_of(&block)),
            Some("{\"a\":1}".into())
        );
        assert_eq!(take_block(&mut pending), None);
        assert_eq!(pending, b"data: {\"a\"");
    }
}
