//! A file from a URL: fetched into a temporary file, resumed where it broke off.
//!
//! ```text
//! GET --bytes--> spool --broke off--> GET Range (If-Range: the same file) --> ... --> whole, with its SHA-256
//! ```
//! Failure paths: a server that cannot resume, or has another file by now, sends all of it again; after [`TRIES`]
//! without a byte more it fails with the last reason.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Url;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use skein_image::Progress;
use skein_image::digest::Sha256;

/// Tries in a row that bring nothing more.
const TRIES: u32 = 5;
/// A server that sends nothing for this long has broken off.
const SILENCE: Duration = Duration::from_mins(1);
/// Wait before the second try; doubled for each one more.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Largest file that is fetched, bytes (`image_fetch_bytes_max`).
const FETCH_BYTES_MAX: u64 = 4 << 40;

/// A file that could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server does not give it.
    #[error("{0} cannot be fetched: {1}")]
    Server(Url, String),
    /// It is too large.
    #[error("{0} is over {FETCH_BYTES_MAX} bytes (image_fetch_bytes_max)")]
    TooLarge(Url),
    /// The disk does not take it.
    #[error("keeping what is fetched: {0}")]
    Disk(#[from] std::io::Error),
    /// Somebody wanted it to end.
    #[error("cancelled")]
    Cancelled,
}

/// Told how large a fetch is, and how far.
pub trait Fetching: Progress {
    /// It begins, perhaps again; bytes, where the server says.
    fn begins(&self, total: Option<u64>);
}

/// Fetches `url` into `spool`; the file, and its SHA-256 as 64 hexadecimal digits.
pub async fn fetch(
    http: &reqwest::Client,
    url: &Url,
    spool: File,
    progress: &dyn Fetching,
) -> Result<(File, String), FetchError> {
    let mut state = Fetched { spool, bytes: 0, total: None, same: None, hash: Sha256::new() };
    let (mut idle, mut before) = (0, 0);
    loop {
        match state.go_on(http, url, progress).await {
            Ok(()) => {
                return Ok((state.spool, state.hash.finish()));
            }
            Err(Broke::ForGood(error)) => return Err(error),
            Err(Broke::Off(why)) => {
                idle = if state.bytes > before { 0 } else { idle + 1 };
                before = state.bytes;
                if idle >= TRIES {
                    return Err(FetchError::Server(url.clone(), why));
                }
                tracing::info!(%url, bytes = state.bytes, why, "a fetch broke off; it goes on");
                tokio::time::sleep(BACK_OFF * 2_u32.pow(idle)).await;
            }
        }
    }
}

/// How far a fetch is.
struct Fetched {
    spool: File,
    bytes: u64,
    total: Option<u64>,
    /// What names this very file: its entity tag, or when it was changed.
    same: Option<String>,
    hash: Sha256,
}

enum Broke {
    /// Another try may go on.
    Off(String),
    /// It may not.
    ForGood(FetchError),
}

impl Fetched {
    async fn go_on(&mut self, http: &reqwest::Client, url: &Url, progress: &dyn Fetching) -> Result<(), Broke> {
        let mut request = http.get(url.clone());
        if let Some(same) = self.same.as_ref().filter(|_| self.bytes > 0) {
            request = request.header(RANGE, format!("bytes={}-", self.bytes)).header(IF_RANGE, same);
        }
        let response = request.send().await.map_err(|e| Broke::Off(in_full(&e)))?;
        let status = response.status();
        match status.as_u16() {
            206 => {}
            200 => self.begin(response.headers(), progress)?,
            429 | 500..=599 => return Err(Broke::Off(format!("it answers {status}"))),
            _ => return Err(Broke::ForGood(FetchError::Server(url.clone(), format!("it answers {status}")))),
        }
        let mut body = response.bytes_stream();
        loop {
            if progress.is_cancelled() {
                return Err(Broke::ForGood(FetchError::Cancelled));
            }
            let piece = tokio::time::timeout(SILENCE, body.next()).await;
            let piece = piece.map_err(|_| Broke::Off(format!("nothing came for {} s", SILENCE.as_secs())))?;
            let Some(piece) = piece else { break };
            let piece = piece.map_err(|e| Broke::Off(in_full(&e)))?;
            self.bytes += piece.len() as u64;
            if self.bytes > FETCH_BYTES_MAX {
                return Err(Broke::ForGood(FetchError::TooLarge(url.clone())));
            }
            self.hash.update(&piece);
            self.spool.write_all(&piece).map_err(|e| Broke::ForGood(e.into()))?;
            progress.at(self.bytes);
        }
        match self.total {
            Some(total) if total != self.bytes => Err(Broke::Off(format!("{} of {total} bytes came", self.bytes))),
            _ => Ok(()),
        }
    }

    /// From its first byte.
    fn begin(&mut self, headers: &HeaderMap, progress: &dyn Fetching) -> Result<(), Broke> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        // A weak tag does not promise the same bytes (RFC 9110, section 13.1.5).
        let tag = text(ETAG).filter(|tag| !tag.starts_with("W/"));
        self.same = tag.or_else(|| text(LAST_MODIFIED)).map(str::to_owned);
        self.total = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        (self.bytes, self.hash) = (0, Sha256::new());
        progress.begins(self.total);
        let empty = self.spool.set_len(0).and_then(|()| self.spool.seek(SeekFrom::Start(0)));
        empty.map(|_| ()).map_err(|e| Broke::ForGood(e.into()))
    }
}

/// An error with its causes, which reqwest's own words leave out.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
