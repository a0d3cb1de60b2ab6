//! What goes on beside the turns: the configuration and the task folder re-read live, retention.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use skein_store::{DocumentKind, Reader as _};
use tokio::task::JoinHandle;

use crate::app::App;
use crate::clock;
use crate::config::Config;
use crate::config::watch::{Guard, Settled, watch};
use crate::content::Content;
use crate::core::Input;

/// Watching goes on for as long as this lives.
pub(crate) type Watching = Vec<Guard>;

/// Starts watching and the retention.
pub(crate) fn start(app: &Arc<App>, config: Option<PathBuf>, tasks: &mut Vec<JoinHandle<()>>) -> anyhow::Result<Watching> {
    let mut guards = Vec::new();
    let handle = tokio::runtime::Handle::current();
    if let Some(path) = config {
        let settled = app.settled();
        let mut paths = vec![path.clone()];
        paths.extend(settled.config.vm_configuration_files.values().cloned());
        let (app, path) = (app.clone(), path.clone());
        guards.push(watch(&paths, move || {
            reload(&app, &path);
            true
        }).context("watching the configuration")?);
    }
    if let Some(dir) = app.settled().config.tasks_directory.clone() {
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let (worker, folder) = (app.clone(), dir.clone());
        tasks.push(tokio::spawn(async move { load_folder(&worker, &folder).await }));
        let (worker, folder) = (app.clone(), dir.clone());
        guards.push(watch(&[dir], move || {
            let (worker, folder) = (worker.clone(), folder.clone());
            handle.spawn(async move { load_folder(&worker, &folder).await });
            true
        }).context("watching the task folder")?);
    }
    let worker = app.clone();
    tasks.push(tokio::spawn(async move { retain(&worker).await }));
    Ok(guards)
}

/// Puts the file in force, or says why it is not and keeps the one before.
fn reload(app: &App, path: &Path) {
    match Config::read(path).and_then(|config| config.settle()) {
        Ok(settled) => put_in_force(app, settled),
        Err(error) => tracing::error!(%error, "the configuration was not taken; the one before stays in force"),
    }
}

fn put_in_force(app: &App, settled: Settled) {
    let before = app.settled();
    let content_dir = settled.content_dir.clone().unwrap_or_else(|| app.dir.join("content"));
    let content_before = before.content_dir.clone().unwrap_or_else(|| app.dir.join("content"));
    if content_dir == content_before {
        app.content().set_limit(settled.file_bytes_max);
    } else {
        match Content::open(&content_dir, settled.file_bytes_max) {
            Ok(content) => *app.content.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(content),
            Err(error) => return tracing::error!(%error, "classes.storage: the folder cannot be used; nothing was changed"),
        }
    }
    let logs_dir = settled.config.logging.logs_directory.clone().unwrap_or_else(|| app.dir.join("logs"));
    if let Err(error) = app.logs.move_to(&logs_dir) {
        return tracing::error!(%error, "logging.logs_directory cannot be used; nothing was changed");
    }
    if !settled.connection_open {
        app.connections.close_all();
    }
    let input = Input::Configure { settings: Box::new(settled.settings.clone()), solutions: settled.solutions.clone() };
    *app.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settled);
    app.writer.tell(input);
    tracing::info!("the configuration was read again and is in force");
}

/// Stores every document of the folder that is new or changed [0046].
async fn load_folder(app: &Arc<App>, dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let Ok(format) = skein_api::document::Format::of_path(&path) else { continue };
        if let Err(why) = load_document(app, &path, format).await {
            tracing::error!(path = %path.display(), why, "a document of the task folder was not taken");
        }
    }
}

async fn load_document(app: &Arc<App>, path: &Path, format: skein_api::document::Format) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let mut document = skein_api::document::parse(&bytes, format).map_err(|e| e.to_string())?;
    let folder = path.parent().unwrap_or(Path::new("."));
    for file in skein_api::document::files_of(&document) {
        upload(app, &folder.join(&file)).await.map_err(|e| format!("file '{file}': {e}"))?;
    }
    skein_api::document::resolve_files(&mut document, |file| digest_of(&folder.join(file))).map_err(|e| e.to_string())?;
    let kind = if skein_api::document::is_thread(&document) { DocumentKind::Thread } else { DocumentKind::Task };
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
    let name = document.get("name").and_then(|n| n.as_str()).map_or(stem, str::to_owned);
    crate::http::store_document(app, kind, &name, document).await
}

fn digest_of(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

async fn upload(app: &App, path: &Path) -> Result<(), String> {
    let digest = digest_of(path).map_err(|e| e.to_string())?;
    let digest = skein_domain::Digest::new(&digest).map_err(|e| e.to_string())?;
    let file = tokio::fs::File::open(path).await.map_err(|e| e.to_string())?;
    app.content().put(&digest, tokio_util::io::ReaderStream::new(file)).await.map_err(|e| e.to_string())
}

/// Removes what is beyond its limits, again and again.
async fn retain(app: &App) {
    loop {
        tokio::time::sleep(Duration::from_millis(app.settled().retention_check_ms)).await;
        match app.writer.retain(app.settled().limits).await {
            Ok(removed) => {
                for session in &removed.sessions {
                    if let Err(error) = app.logs.remove(*session) {
                        tracing::warn!(%session, %error, "its logs could not be removed");
                    }
                }
                if !removed.sessions.is_empty() || removed.events > 0 {
                    tracing::info!(sessions = removed.sessions.len(), events = removed.events, "removed what is too old");
                }
                collect(app);
            }
            Err(error) => tracing::error!(%error, "the retention failed"),
        }
    }
}

fn collect(app: &App) {
    let referenced = match app.readers.get().and_then(|reader| reader.referenced()) {
        Ok(referenced) => referenced,
        Err(error) => return tracing::error!(%error, "content was not collected"),
    };
    let now_s = u64::try_from(clock::now().0 / 1_000_000).unwrap_or(0);
    match app.content().collect(&referenced, now_s) {
        Ok((0, _)) => {}
        Ok((files, bytes)) => tracing::info!(files, bytes, "removed content that nothing refers to"),
        Err(error) => tracing::warn!(%error, "content was not collected"),
    }
}
