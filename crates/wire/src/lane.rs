//! The bulk lane: paths, limits and the body of a log request. All requests bear the lane token.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /agent/v1/files/{digest}` | | the bytes |
//! | `HEAD /agent/v1/files/{digest}` | | 200 or 404 |
//! | `PUT /agent/v1/files/{digest}` | the bytes (checked) | 204 |
//! | `POST /agent/v1/logs` | [`LogChunk`]s, see [`encode_logs`] | [`LogCredit`] |
//! | `POST /agent/v1/messages` | a frame of any size | 204 |
//! | `GET /agent/v1/orders/{attempt}?generation=N` | | a `StartOrder` |

use serde::{Deserialize, Serialize};
use skein_domain::AttemptKey;

/// Where the control lane's WebSocket is.
pub const CONNECT_PATH: &str = "/agent/v1/connect";
/// Where files are, followed by the digest.
pub const FILES_PATH: &str = "/agent/v1/files/";
/// Where log chunks go.
pub const LOGS_PATH: &str = "/agent/v1/logs";
/// Where large messages go.
pub const MESSAGES_PATH: &str = "/agent/v1/messages";
/// Where large orders are, followed by the attempt.
pub const ORDERS_PATH: &str = "/agent/v1/orders/";
/// Where an agent joins (no lane token yet).
pub const JOIN_PATH: &str = "/agent/v1/join";

/// Largest log request, bytes.
pub const LOGS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest body of messages on the bulk lane, bytes.
pub const MESSAGES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Some bytes of an attempt's log. Chunks of one stream are sent in order; one that overlaps what
/// the engine has is taken from where it has it, one beyond leaves a named gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Whose.
    pub attempt: AttemptKey,
    /// Which stream.
    pub stream: Stream,
    /// Where in the stream, bytes from its start.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The engine's answer to a log request: how much may be sent, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCredit {
    /// Bytes that the next request may carry.
    pub credit_bytes: u64,
    /// Wait this long before it, ms.
    pub wait_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    attempt: AttemptKey,
    stream: Stream,
    offset: u64,
    bytes: usize,
}

/// A log body that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("not a log body: {0}")]
pub struct BadLogs(String);

/// Each chunk as one line of JSON (`attempt`, `stream`, `offset`, `bytes`), then that many bytes.
pub fn encode_logs(chunks: &[LogChunk]) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in chunks {
        let header =
            Header { attempt: chunk.attempt, stream: chunk.stream, offset: chunk.offset, bytes: chunk.bytes.len() };
        if serde_json::to_writer(&mut body, &header).is_ok() {
            body.push(b'\n');
            body.extend_from_slice(&chunk.bytes);
        }
    }
    body
}

/// The chunks of a body made by [`encode_logs`].
pub fn decode_logs(mut body: &[u8]) -> Result<Vec<LogChunk>, BadLogs> {
    let mut chunks = Vec::new();
    while !body.is_empty() {
        let end = body.iter().position(|b| *b == b'\n').ok_or_else(|| BadLogs("a header without an end".into()))?;
        let header: Header = serde_json::from_slice(&body[..end]).map_err(|e| BadLogs(e.to_string()))?;
        let rest = &body[end + 1..];
        if rest.len() < header.bytes {
            return Err(BadLogs(format!("{} bytes announced, {} there", header.bytes, rest.len())));
        }
        let (bytes, after) = rest.split_at(header.bytes);
        chunks.push(LogChunk {
            attempt: header.attempt,
            stream: header.stream,
            offset: header.offset,
            bytes: bytes.to_vec(),
        });
        body = after;
    }
    Ok(chunks)
}
