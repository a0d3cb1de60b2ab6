//! Frames of the control lane: a JSON object `{"messages": [...]}`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest frame on the control lane, bytes. What is larger goes over the bulk lane
/// (`POST /agent/v1/messages`, up to [`crate::lane::MESSAGES_BYTES_MAX`]).
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// A frame that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadFrame {
    /// Too large for the control lane.
    #[error(
        "a frame of {bytes} bytes is over the control lane's limit of {FRAME_BYTES_MAX}: send it over the bulk lane"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not what the protocol says.
    #[error("not a frame of this protocol: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Frame<T> {
    messages: Vec<T>,
}

/// One frame with these messages, whatever its size.
pub fn encode<T: Serialize>(messages: &[T]) -> Result<String, BadFrame> {
    #[derive(Serialize)]
    struct Borrowed<'a, T> {
        messages: &'a [T],
    }
    Ok(serde_json::to_string(&Borrowed { messages })?)
}

/// As few frames as possible, each within [`FRAME_BYTES_MAX`]; a message that alone is larger is
/// handed back beside them for the bulk lane.
pub fn pack<T: Serialize + Clone>(messages: &[T]) -> Result<(Vec<String>, Vec<T>), BadFrame> {
    const EMPTY: usize = r#"{"messages":[]}"#.len();
    let (mut frames, mut large) = (Vec::new(), Vec::new());
    let mut body = String::new();
    for message in messages {
        let text = serde_json::to_string(message)?;
        if text.len() + EMPTY > FRAME_BYTES_MAX {
            large.push(message.clone());
            continue;
        }
        if !body.is_empty() && EMPTY + body.len() + 1 + text.len() > FRAME_BYTES_MAX {
            frames.push(format!("{{\"messages\":[{body}]}}"));
            body.clear();
        }
        if !body.is_empty() {
            body.push(',');
        }
        body.push_str(&text);
    }
    if !body.is_empty() {
        frames.push(format!("{{\"messages\":[{body}]}}"));
    }
    Ok((frames, large))
}

/// The messages of a control frame.
pub fn decode<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, BadFrame> {
    if text.len() > FRAME_BYTES_MAX {
        return Err(BadFrame::TooLarge { bytes: text.len() });
    }
    decode_large(text.as_bytes())
}

/// The messages of a bulk body.
pub fn decode_large<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, BadFrame> {
    Ok(serde_json::from_slice::<Frame<T>>(bytes)?.messages)
}
