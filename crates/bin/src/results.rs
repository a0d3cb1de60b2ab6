//! Attempts of a session, and the files they left.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use skein_api::{AttemptView, Client, FileView};
use tokio::io::AsyncWriteExt as _;

/// Rows asked for at a time.
const PAGE: u32 = 1000;

/// All attempts of a session.
pub(crate) async fn attempts(client: &Client, session: &str) -> anyhow::Result<Vec<AttemptView>> {
    let mut all: Vec<AttemptView> = Vec::new();
    loop {
        let page = client.attempts(session, all.last().map(|a| a.attempt.as_str()), PAGE).await?;
        let last = page.len() < PAGE as usize;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

/// A file of an item.
pub(crate) struct ItemFile {
    /// The node's name.
    pub(crate) node: String,
    /// The array index.
    pub(crate) index: u32,
    /// The file.
    pub(crate) file: FileView,
}

/// The files that the items of a session left: those of each item's last attempt that has any.
pub(crate) fn files(attempts: &[AttemptView]) -> Vec<ItemFile> {
    let mut last: std::collections::BTreeMap<(&str, u32), &AttemptView> = std::collections::BTreeMap::new();
    for attempt in attempts.iter().filter(|attempt| !attempt.outputs.is_empty()) {
        let entry = last.entry((&attempt.node, attempt.index)).or_insert(attempt);
        if entry.number < attempt.number {
            *entry = attempt;
        }
    }
    let of = |attempt: &&AttemptView| {
        let (node, index) = (attempt.node.clone(), attempt.index);
        let each = attempt.outputs.iter().map(move |file| ItemFile { node: node.clone(), index, file: file.clone() });
        each.collect::<Vec<_>>()
    };
    last.values().flat_map(of).collect()
}

/// Fetches a file to `dir/path`. The digest is checked; a file that is cut short gets no name.
pub(crate) async fn download(client: &Client, file: &FileView, dir: &Path) -> anyhow::Result<PathBuf> {
    // The engine is another program: its paths must not leave the folder.
    skein_domain::task::check_path(&file.path).map_err(anyhow::Error::msg)?;
    let path = dir.join(&file.path);
    let said = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(said)?;
    }
    let part = path.with_added_extension("part");
    let mut out = tokio::fs::File::create(&part).await.with_context(said)?;
    let mut hasher = blake3::Hasher::new();
    let mut stream = std::pin::pin!(client.get_file(&file.digest).await?);
    while let Some(piece) = stream.next().await {
        let piece =
            piece.with_context(|| format!("'{}' broke off; fetch it again with 'skein session files'", file.path))?;
        hasher.update(&piece);
        out.write_all(&piece).await.with_context(said)?;
    }
    out.flush().await.with_context(said)?;
    if hasher.finalize().to_hex().as_str() != file.digest {
        bail!("'{}' came with other bytes than its digest says; fetch it again with 'skein session files'", file.path);
    }
    std::fs::rename(&part, &path).with_context(said)?;
    Ok(path)
}

/// Fetches files below `dir`: `NODE/PATH`, of an array `NODE/INDEX/PATH`, and of a session that has
/// one item only, `PATH`.
pub(crate) async fn download_all(
    client: &Client,
    files: &[ItemFile],
    arrays: &[String],
    one: bool,
    dir: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::with_capacity(files.len());
    for ItemFile { node, index, file } in files {
        let own = match (one, arrays.contains(node)) {
            (true, _) => dir.to_owned(),
            (false, false) => dir.join(node),
            (false, true) => dir.join(node).join(index.to_string()),
        };
        paths.push(download(client, file, &own).await?);
    }
    Ok(paths)
}
