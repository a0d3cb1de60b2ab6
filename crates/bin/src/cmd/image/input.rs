//! What a person gives: a file, standard input, a URL.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use skein_engine::fetch::{FetchError, fetch};
use skein_image::bytes::FileBytes;
use skein_image::source::Opened;
use skein_image::{Budget, Bytes, Error, Format};

use super::bar::Bar;
use crate::failure::usage;
use crate::output::note;

/// An image's bytes.
pub(super) struct Input {
    pub(super) bytes: Arc<dyn Bytes>,
    /// SHA-256 of them, where they passed by here anyway.
    pub(super) sha256: Option<String>,
}

/// Is it a URL?
pub(super) fn url(text: &Path) -> Option<reqwest::Url> {
    let text = text.to_str()?;
    let is_url = text.starts_with("http://") || text.starts_with("https://");
    is_url.then(|| reqwest::Url::parse(text).ok()).flatten()
}

/// The image's bytes; what comes through a pipe or from a URL is kept in a temporary file.
pub(super) fn input(path: &Path, quiet: bool) -> anyhow::Result<Input> {
    let (file, sha256) = if path == Path::new("-") {
        let mut spooled = tempfile::tempfile().context("no temporary file")?;
        note("reading standard input into a temporary file: disks are not read in order");
        std::io::copy(&mut std::io::stdin().lock(), &mut spooled).context("reading standard input")?;
        (spooled, None)
    } else if let Some(url) = url(path) {
        let (file, sha256) = fetched(&url, quiet)?;
        (file, Some(sha256))
    } else {
        (File::open(path).with_context(|| format!("cannot open {}", path.display()))?, None)
    };
    Ok(Input { bytes: Arc::new(FileBytes::new(file)?), sha256 })
}

fn fetched(url: &reqwest::Url, quiet: bool) -> anyhow::Result<(File, String)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let http = crate::connect::http(url.as_str(), None)?;
    let spool = tempfile::tempfile().context("no temporary file")?;
    let bar = Bar::new(0, quiet);
    note(&format!("fetching {url} into a temporary file"));
    let fetched = runtime.block_on(fetch(&http, url, spool, &bar));
    bar.end();
    fetched.map_err(|error| match error {
        FetchError::Cancelled => Error::Cancelled.into(),
        other => other.into(),
    })
}

/// Its disk.
pub(super) fn open(bytes: &Arc<dyn Bytes>, from: Option<Format>) -> anyhow::Result<Opened> {
    let spool = || {
        note("unpacking into a temporary file first");
        tempfile::tempfile().map_err(Error::io("making a temporary file"))
    };
    Ok(skein_image::source::open(Arc::clone(bytes), from, &Budget::default(), spool, &())?)
}

/// Is it the file that the person means?
pub(super) fn check_sha256(input: &mut Input, known: Option<&String>) -> anyhow::Result<()> {
    let Some(known) = known else { return Ok(()) };
    let found = match input.sha256.take() {
        Some(found) => found,
        None => sha256(input.bytes.as_ref())?,
    };
    if !known.eq_ignore_ascii_case(&found) {
        return Err(usage(format!("the file's SHA-256 is {found}, not {known}: it is another file, or damaged")));
    }
    input.sha256 = Some(found);
    Ok(())
}

fn sha256(bytes: &dyn Bytes) -> anyhow::Result<String> {
    let (mut hash, mut at) = (skein_image::digest::Sha256::new(), 0);
    let mut piece = vec![0; 1 << 20];
    while at < bytes.len() {
        let len = usize::try_from(bytes.len() - at).unwrap_or(usize::MAX).min(piece.len());
        bytes.read_at(at, &mut piece[..len])?;
        hash.update(&piece[..len]);
        at += len as u64;
    }
    Ok(hash.finish())
}
