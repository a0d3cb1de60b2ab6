//! What goes on beside the turns: the configuration and the task folder re-read live, retention.
//!
//! Files are looked at several times a second (time of change and size) rather than watched through the
//! kernel: which files matter changes with the configuration itself, editors replace files by renaming,
//! and network file systems announce nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use skein_domain::EngineId;
use skein_store::{DocumentKind, Reader as _, Side};
use tokio::task::JoinHandle;

use crate::app::App;
use crate::clock;
use crate::config::{Config, Settled};
use crate::content::Content;
use crate::core::Input;
use crate::{logging, serve};

/// Interval of looking at files.
const LOOK: Duration = Duration::from_millis(250);

/// A file's state, to notice changes.
type Seen = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

/// Keeps what is in force beside the configuration itself.
struct Keeper {
    app: Arc<App>,
    path: Option<PathBuf>,
    /// The broker's own listener, and where it is.
    broker: Option<(SocketAddr, JoinHandle<()>)>,
    /// Log levels in force.
    levels: Option<String>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some((_, listener)) = &self.broker {
            listener.abort();
        }
    }
}

/// Starts looking and the retention. An error here is one of the configuration it starts with.
pub(crate) async fn start(app: &Arc<App>, path: Option<PathBuf>) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut keeper = Keeper { app: app.clone(), path, broker: None, levels: None };
    let settled = app.settled();
    let prepared = keeper.prepare(&settled).await?;
    keeper.finish(prepared);
    if let Some(dir) = &settled.config.tasks_directory {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        load_folder(app, dir).await;
    }
    let retaining = app.clone();
    let retention = tokio::spawn(async move { retain(&retaining).await });
    Ok(vec![tokio::spawn(keeper.look()), retention])
}

/// What a configuration needs before it can be put in force.
struct Prepared {
    listener: Option<(SocketAddr, tokio::net::TcpListener)>,
    keep_listener: bool,
    levels: Option<String>,
}

impl Keeper {
    async fn look(mut self) {
        let mut files = self.files();
        let mut documents = self.documents();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.files();
            if now != files {
                files = now;
                self.reload().await;
                files = merge(files, &self.files());
            }
            let now = self.documents();
            if now != documents {
                documents = now;
                if let Some(dir) = self.app.settled().config.tasks_directory.clone() {
                    load_folder(&self.app, &dir).await;
                }
            }
        }
    }

    fn files(&self) -> Seen {
        let settled = self.app.settled();
        let config = &settled.config;
        let class = settled.algorithm.as_ref().map(|script| &script.path);
        let named =
            config.vm_configuration_files.values().chain(config.logging.configuration_file.as_ref()).chain(class);
        let all = self.path.iter().chain(named).cloned().chain(config.element_files());
        all.map(|path| (path.clone(), state_of(&path))).collect()
    }

    fn documents(&self) -> Seen {
        let Some(dir) = self.app.settled().config.tasks_directory.clone() else { return Vec::new() };
        let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let mut seen: Seen = entries.map(|path| (path.clone(), state_of(&path))).collect();
        seen.sort();
        seen
    }

    /// Puts the file in force, or says why it is not and keeps the one before.
    async fn reload(&mut self) {
        let Some(path) = self.path.clone() else { return };
        let read = Config::read(&path).and_then(|config| config.settle());
        let settled = match read {
            Ok(settled) => settled,
            Err(error) => {
                return tracing::error!(%error, "the configuration was not taken; the one before stays in force");
            }
        };
        match self.take(settled).await {
            Ok(()) => tracing::info!("the configuration was read again and is in force"),
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "the configuration was not taken; the one before stays in force"
            ),
        }
    }

    async fn take(&mut self, settled: Settled) -> anyhow::Result<()> {
        let prepared = self.prepare(&settled).await?;
        let content = self.content(&settled)?;
        let logs_dir = settled.config.logging.logs_directory.clone().unwrap_or_else(|| self.app.dir.join("logs"));
        self.app.logs.move_to(&logs_dir).context("logging.logs_directory")?;
        if let Some(identifier) = settled.identifier.clone().filter(|id| *id != self.app.engine()) {
            self.rename(identifier).await?;
        }
        if let Some(content) = content {
            *self.app.content.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(content);
        }
        self.app.content().set_limits(settled.file_bytes_max, settled.content_bytes_max);
        if !settled.connection_open {
            self.app.connections.close_all();
        }
        if let Some(dir) = &settled.config.tasks_directory {
            std::fs::create_dir_all(dir).with_context(|| format!("tasks_directory {}", dir.display()))?;
        }
        let input =
            Input::Configure { settings: Box::new(settled.settings.clone()), solutions: settled.solutions.clone() };
        let algorithm = settled.algorithm.clone();
        *self.app.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settled);
        self.app.writer.tell(input);
        self.app.plugin.set(algorithm);
        self.finish(prepared);
        Ok(())
    }

    async fn prepare(&self, settled: &Settled) -> anyhow::Result<Prepared> {
        let wanted = settled.config.broker.url.as_deref().map(broker_address).transpose()?;
        let keep_listener = wanted.is_some() && wanted == self.broker.as_ref().map(|(address, _)| *address);
        let listener = match wanted.filter(|_| !keep_listener) {
            Some(address) => {
                if !address.ip().is_loopback() && self.app.authority.is_none() {
                    anyhow::bail!(
                        "broker.url: {address} is not a loopback address and this engine has no TLS: start it with --tls"
                    );
                }
                Some((address, serve::bind(address).await.context("broker.url")?))
            }
            None => None,
        };
        let levels = settled.config.logging.configuration_file.as_deref().map(logging::read).transpose();
        let levels = levels.map_err(|why| anyhow::anyhow!("logging.configuration_file: {why}"))?;
        Ok(Prepared { listener, keep_listener, levels })
    }

    fn finish(&mut self, prepared: Prepared) {
        if !prepared.keep_listener
            && let Some((_, listener)) = self.broker.take()
        {
            listener.abort();
        }
        if let Some((address, listener)) = prepared.listener {
            let router = crate::http::agent_router(self.app.clone());
            let tls = self.app.authority.as_ref().map(|a| a.server.clone());
            self.broker = Some((address, tokio::spawn(serve::serve(listener, router, tls))));
        }
        if prepared.levels != self.levels {
            logging::put_in_force(prepared.levels.as_deref().unwrap_or(logging::DEFAULT));
            self.levels = prepared.levels;
        }
    }

    /// A new content folder, when the configuration names another.
    fn content(&self, settled: &Settled) -> anyhow::Result<Option<Content>> {
        let place = |settled: &Settled| settled.content_dir.clone().unwrap_or_else(|| self.app.dir.join("content"));
        let (before, now) = (place(&self.app.settled()), place(settled));
        if before == now {
            return Ok(None);
        }
        let content = Content::open(&now, settled.file_bytes_max)
            .with_context(|| format!("classes.storage: {}", now.display()))?;
        Ok(Some(content.with_earlier(self.app.content())))
    }

    /// Another identifier: agents of the old one are refused from now on, and must join again.
    async fn rename(&self, identifier: EngineId) -> anyhow::Result<()> {
        let side = vec![Side::Identifier(identifier.clone())];
        self.app.writer.ask(|reply| Input::Write { reply, side }).await?;
        *self.app.engine.write().unwrap_or_else(PoisonError::into_inner) = identifier;
        self.app.connections.close_all();
        Ok(())
    }
}

/// Files that are named only now count as seen; those seen before the reload keep their older state, so
/// that a change during the reload is noticed.
fn merge(before: Seen, now: &Seen) -> Seen {
    now.iter()
        .map(|(path, state)| {
            let known = before.iter().find(|(p, _)| p == path).map(|(_, s)| *s);
            (path.clone(), known.unwrap_or(*state))
        })
        .collect()
}

fn state_of(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn broker_address(url: &str) -> anyhow::Result<SocketAddr> {
    let bare = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let bare =
        bare.with_context(|| format!("broker.url: '{url}' is not http://ADDRESS:PORT or https://ADDRESS:PORT"))?;
    bare.trim_end_matches('/').parse().with_context(|| format!("broker.url: '{bare}' is not ADDRESS:PORT"))
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
    skein_api::document::resolve_files(&mut document, |file| digest_of(&folder.join(file)))
        .map_err(|e| e.to_string())?;
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
        // Slept in short pieces, so that a shorter interval holds at once.
        let mut slept = Duration::ZERO;
        while slept < Duration::from_millis(app.settled().retention_check_ms) {
            tokio::time::sleep(LOOK).await;
            slept += LOOK;
        }
        match app.writer.retain(app.settled().limits).await {
            Ok(removed) => {
                for session in &removed.sessions {
                    if let Err(error) = app.logs.remove(*session) {
                        tracing::warn!(%session, %error, "its logs could not be removed");
                    }
                }
                if !removed.sessions.is_empty() || removed.events > 0 {
                    tracing::info!(
                        sessions = removed.sessions.len(),
                        events = removed.events,
                        "removed what is too old"
                    );
                }
                collect(app);
                match app.logs.shrink(app.settled().logs_bytes_max) {
                    Ok(shrunk) if shrunk.is_empty() => {}
                    Ok(shrunk) => {
                        tracing::info!(sessions = shrunk.len(), "removed the oldest logs: retention.logs_bytes_max");
                    }
                    Err(error) => tracing::warn!(%error, "the logs could not be counted"),
                }
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
