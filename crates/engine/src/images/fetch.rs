//! An image from a URL: fetched into a temporary file, resumed where it broke off, then taken in.
//!
//! ```text
//! GET --bytes--> spool --broke off--> GET Range (If-Range: the same file) --> ... --> whole --> SHA-256 --> import
//! ```
//! Failure paths: a server that cannot resume, or has another file by now, sends all of it again; after
//! `TRIES` without a byte more the operation fails with the last reason.

use std::collections::BTreeSet;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{CONTENT_LENGTH, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use serde_json::Value;
use skein_domain::UserName;
use skein_image::bytes::FileBytes;
use skein_image::store::{New, Origin};
use skein_image::{Budget, Bytes, Format, Progress as _};

use super::Operation;
use crate::app::App;
use crate::http::{Fail, image_view};

/// Tries in a row that bring nothing more.
const TRIES: u32 = 5;
/// A server that sends nothing for this long has broken off.
const SILENCE: Duration = Duration::from_secs(60);
/// Largest file that is fetched, bytes (image_fetch_bytes_max).
const FETCH_BYTES_MAX: u64 = 4 << 40;

/// What to take in.
pub(crate) struct Asked {
    /// From where.
    pub url: reqwest::Url,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its format, if known.
    pub from: Option<Format>,
    /// Its SHA-256, if known, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// Keep the file too.
    pub keep: bool,
    /// Who asked.
    pub user: UserName,
}

/// Fetches, takes in, and puts into the catalogue.
pub(crate) async fn import_url(app: Arc<App>, asked: Asked, operation: Arc<Operation>) {
    let result = import(&app, asked, &operation).await;
    operation.end(result);
}

async fn import(app: &Arc<App>, asked: Asked, operation: &Arc<Operation>) -> Result<Value, Fail> {
    let spool = tempfile::tempfile_in(&app.dir).map_err(Fail::internal)?;
    let (file, sha256) = fetch(app, &asked, spool, operation).await?;
    let found = asked.sha256.as_ref().filter(|known| !known.eq_ignore_ascii_case(&sha256));
    if let Some(known) = found {
        return Err(Fail::bad(format!("the file's SHA-256 is {sha256}, not {known}: it is another file, or damaged")));
    }
    let (shared, progress) = (Arc::clone(app), Arc::clone(operation));
    let (from, keep, name, source) = (asked.from, asked.keep, asked.name.clone(), asked.url.to_string());
    let manifest = tokio::task::spawn_blocking(move || {
        let bytes: Arc<dyn Bytes> = Arc::new(FileBytes::new(file)?);
        let spool = || tempfile::tempfile_in(&shared.dir).map_err(skein_image::Error::io("making a temporary file"));
        progress.stage("unpacking", None);
        let opened = skein_image::source::open(Arc::clone(&bytes), from, &Budget::default(), spool, progress.as_ref())?;
        progress.stage("taking in", Some(opened.disk.size()));
        let origin = Origin { name, source, sha256: Some(sha256), parent: None };
        let keep = keep.then_some(bytes);
        let new = New { disk: opened.disk.as_ref(), format: opened.format, keep, origin };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        shared.images.store.import(new, threads, progress.as_ref()).map(|imported| imported.manifest)
    });
    let manifest = manifest.await.map_err(Fail::internal)??;
    let image = super::catalogue(app, &manifest, &asked.user, &asked.name, asked.tags).await?;
    serde_json::to_value(image_view(app, image)).map_err(Fail::internal)
}

async fn fetch(
    app: &App,
    asked: &Asked,
    mut spool: std::fs::File,
    operation: &Operation,
) -> Result<(std::fs::File, String), Fail> {
    operation.stage(format!("fetching {}", asked.url), None);
    let mut state = Fetched { bytes: 0, total: None, same: None, hash: new_hash() };
    let (mut idle, mut before) = (0, 0);
    loop {
        match state.go_on(app, asked, &mut spool, operation).await {
            Ok(()) => return Ok((spool, hex(state.hash.finish().as_ref()))),
            Err(Broke::ForGood(fail)) => return Err(fail),
            Err(Broke::Off(why)) => {
                idle = if state.bytes > before { 0 } else { idle + 1 };
                before = state.bytes;
                if idle >= TRIES {
                    return Err(Fail::bad(format!("{} cannot be fetched: {why}", asked.url)));
                }
                tracing::info!(url = %asked.url, bytes = state.bytes, why, "an image's fetch broke off; it goes on");
                tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(idle)).await;
            }
        }
    }
}

fn new_hash() -> ring::digest::Context {
    ring::digest::Context::new(&ring::digest::SHA256)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How far a fetch is.
struct Fetched {
    bytes: u64,
    total: Option<u64>,
    /// What names this very file: its entity tag, or when it was changed.
    same: Option<String>,
    hash: ring::digest::Context,
}

enum Broke {
    /// Another try may go on.
    Off(String),
    /// It may not.
    ForGood(Fail),
}

impl Fetched {
    async fn go_on(
        &mut self,
        app: &App,
        asked: &Asked,
        spool: &mut std::fs::File,
        operation: &Operation,
    ) -> Result<(), Broke> {
        let mut request = app.gateways.http().get(asked.url.clone());
        if let Some(same) = self.same.as_ref().filter(|_| self.bytes > 0) {
            request = request.header(RANGE, format!("bytes={}-", self.bytes)).header(IF_RANGE, same);
        }
        let response = request.send().await.map_err(|e| Broke::Off(crate::http::in_full(&e)))?;
        let status = response.status();
        match status.as_u16() {
            206 => {}
            200 => self.begin(response.headers(), spool, operation, asked)?,
            429 | 500..=599 => return Err(Broke::Off(format!("it answers {status}"))),
            _ => return Err(Broke::ForGood(Fail::bad(format!("{} answers {status}", asked.url)))),
        }
        let mut body = response.bytes_stream();
        loop {
            if operation.is_cancelled() {
                return Err(Broke::ForGood(Fail::bad("cancelled")));
            }
            let piece = tokio::time::timeout(SILENCE, body.next()).await;
            let piece = piece.map_err(|_| Broke::Off(format!("nothing came for {} s", SILENCE.as_secs())))?;
            let Some(piece) = piece else { break };
            let piece = piece.map_err(|e| Broke::Off(crate::http::in_full(&e)))?;
            self.bytes += piece.len() as u64;
            if self.bytes > FETCH_BYTES_MAX {
                let why = format!("the file is over {FETCH_BYTES_MAX} bytes (image_fetch_bytes_max)");
                return Err(Broke::ForGood(Fail::bad(why)));
            }
            self.hash.update(&piece);
            spool.write_all(&piece).map_err(|e| Broke::ForGood(Fail::disk(&e, "the image being fetched")))?;
            operation.at(self.bytes);
        }
        match self.total {
            Some(total) if total != self.bytes => {
                Err(Broke::Off(format!("{} of {total} bytes came", self.bytes)))
            }
            _ => Ok(()),
        }
    }

    /// From its first byte.
    fn begin(
        &mut self,
        headers: &reqwest::header::HeaderMap,
        spool: &mut std::fs::File,
        operation: &Operation,
        asked: &Asked,
    ) -> Result<(), Broke> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        // A weak tag does not promise the same bytes (RFC 9110, section 13.1.5).
        let tag = text(ETAG).filter(|tag| !tag.starts_with("W/"));
        let total = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        *self = Self {
            bytes: 0,
            total,
            same: tag.or_else(|| text(LAST_MODIFIED)).map(str::to_owned),
            hash: new_hash(),
        };
        operation.stage(format!("fetching {}", asked.url), total);
        let empty = spool.set_len(0).and_then(|()| spool.seek(SeekFrom::Start(0)));
        empty.map(|_| ()).map_err(|e| Broke::ForGood(Fail::disk(&e, "the image being fetched")))
    }
}
