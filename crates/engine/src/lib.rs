//! The engine: ledger, deciding, and the ways in and out.
//!
//! ```text
//!            http (API, agents' lanes)
//!              |            ^
//!      inputs  v            | answers, change stream
//!   writer thread [ core + ledger ] --outputs--> dispatch --> broker --> agents
//!                                                        \--> gateway --> shared solutions
//! ```

mod app;
pub mod backup;
mod broker;
pub mod clock;
pub mod config;
mod content;
pub mod core;
mod dispatch;
mod gateway;
pub mod history;
mod http;
mod images;
mod keys;
mod log_search;
pub mod logging;
mod logs;
mod machines;
mod maintain;
mod metrics;
mod order;
pub mod plugin;
mod replies;
mod serve;
mod submit;
mod tls;
mod tokens;
pub mod writer;
mod zone;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};

use anyhow::{Context as _, bail};
use skein_domain::{EngineId, UserName};
use skein_store::{JoinTokenRow, Reader as _, Side, SqliteLedger};
use skein_wire::join::JoinToken;
use tokio::sync::mpsc::unbounded_channel;

use crate::app::{App, Readers};
use crate::config::Config;
use crate::core::Input;
use crate::writer::Writer;

pub use http::openapi;
pub use images::fetch;
pub use zone::is_zone;

/// A join token is good for this long, ms: a day.
const JOIN_TOKEN_MS: u64 = 86_400_000;

/// How to start.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Its folder; made when there is none.
    pub dir: PathBuf,
    /// Where to listen; port 0 for any.
    pub listen: SocketAddr,
    /// The configuration file, watched.
    pub config: Option<PathBuf>,
    /// Its identifier.
    pub engine: EngineId,
    /// Speak TLS with a certificate of the engine's own CA.
    pub tls: bool,
}

/// A running engine.
pub struct Engine {
    app: Arc<App>,
    local_token: String,
    writer_thread: Option<std::thread::JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// The JSON Schema of the configuration file.
pub fn config_schema() -> String {
    Config::schema()
}

/// Reads and checks a configuration file.
pub fn check_config(path: &Path) -> Result<(), config::BadConfig> {
    Config::read(path).map(|_| ())
}

/// An address that others can reach needs TLS: tokens would travel in the clear.
fn check_listen(options: &EngineOptions) -> anyhow::Result<()> {
    if !options.listen.ip().is_loopback() && !options.tls {
        bail!(
            "{} is not a loopback address: others could read tokens on the way; add --tls, or listen on 127.0.0.1",
            options.listen
        );
    }
    Ok(())
}

impl Engine {
    /// Starts: folder, ledger, writer, listeners, watching.
    pub async fn start(options: EngineOptions) -> anyhow::Result<Self> {
        check_listen(&options)?;
        let config = options.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
        let settled = config.settle()?;
        let engine = settled.identifier.clone().unwrap_or_else(|| options.engine.clone());
        let ledger = SqliteLedger::open(&options.dir, &engine)?;
        let (queue, outputs) = unbounded_channel();
        let settings = settled.settings.clone();
        let (writer, writer_thread) =
            Writer::start(Box::new(ledger), settings.clone(), Box::new(dispatch::Queue(queue)))?;
        let listener = serve::bind(options.listen).await?;
        let bound = listener.local_addr().context("the listener's address")?;
        let authority = if options.tls { Some(tls::Authority::open(&options.dir, serve::names(bound))?) } else { None };
        let app = Arc::new(open_app(&options, engine, settled, writer, authority)?);
        let scheme = if options.tls { "https" } else { "http" };
        app.url.set(format!("{scheme}://{}", serve::reachable(bound))).unwrap_or_default();
        let local_token = app.tokens.local(&options.dir, &app.local_user)?;
        for row in app.readers.get()?.tokens()? {
            app.tokens.learn(&row);
        }
        let settled = app.settled();
        app.plugin.set(settled.algorithm.clone());
        app.writer.tell(Input::Configure { settings: Box::new(settings), solutions: settled.solutions.clone() });
        let cell = Arc::new(OnceLock::new());
        cell.set(app.clone()).map_err(|_| ()).unwrap_or_default();
        let mut tasks = vec![tokio::spawn(dispatch::run(cell, outputs))];
        tasks.push(tokio::spawn(serve::serve(
            listener,
            http::router(app.clone()),
            app.authority.as_ref().map(|a| a.server.clone()),
        )));
        tasks.push(tokio::spawn(replies::run(app.clone())));
        tasks.push(tokio::spawn(images::reconcile(app.clone())));
        tasks.extend(maintain::start(&app, options.config.clone()).await?);
        write_whereabouts(&app)?;
        Ok(Self { app, local_token, writer_thread: Some(writer_thread), tasks })
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        self.app.url()
    }

    /// The local user's API token.
    pub fn local_token(&self) -> &str {
        &self.local_token
    }

    /// A new one-time join token.
    pub async fn join_token(&self) -> anyhow::Result<String> {
        new_join_token(&self.app).await
    }

    /// Ends it; everything accepted is in the ledger.
    pub async fn stop(mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.app.connections.close_all();
        self.app.writer.stop();
        if let Some(thread) = self.writer_thread.take() {
            let ended = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
            if !matches!(ended, Ok(true)) {
                tracing::error!("the writer did not end as it should");
            }
        }
        let whereabouts = self.app.dir.join("engine.json");
        if let Err(error) = std::fs::remove_file(&whereabouts) {
            tracing::debug!(%error, "removing engine.json");
        }
    }
}

fn open_app(
    options: &EngineOptions,
    engine: EngineId,
    settled: config::Settled,
    writer: Writer,
    authority: Option<tls::Authority>,
) -> anyhow::Result<App> {
    let dir = &options.dir;
    let telling = writer.clone();
    let plugin = plugin::Plugin::new(move |input| telling.tell(input));
    let (readers, keys) = (Readers::new(dir), keys::Keys::open(dir)?);
    let content_dir = settled.content_dir.clone().unwrap_or_else(|| dir.join("content"));
    let content = content::Content::open(&content_dir, settled.file_bytes_max).context("opening the content folder")?;
    content.set_limits(settled.file_bytes_max, settled.content_bytes_max);
    let logs_dir = settled.config.logging.logs_directory.clone().unwrap_or_else(|| dir.join("logs"));
    let objects = settled.config.images.store.as_ref().map(|store| secrets_in(store, &readers, &keys)).transpose()?;
    let images_dir = settled.config.images.directory.clone().unwrap_or_else(|| dir.join("images"));
    let http = reqwest::Client::builder().build().context("making the HTTP client")?;
    Ok(App {
        engine: RwLock::new(engine),
        dir: dir.clone(),
        writer,
        readers,
        content: RwLock::new(Arc::new(content)),
        images: images::Images::open(&images_dir, objects.as_ref()).context("opening the image store")?,
        logs: logs::Logs::open(&logs_dir).context("opening the log folder")?,
        keys,
        config: Arc::new(RwLock::new(Arc::new(settled))),
        connections: broker::Connections::default(),
        gateways: gateway::Gateways::new(http),
        to_tell: tokio::sync::Notify::new(),
        machines: machines::Machines::default(),
        plugin,
        tokens: tokens::Tokens::default(),
        url: OnceLock::new(),
        authority,
        local_user: local_user(),
        metrics: metrics::Metrics::default(),
    })
}

/// With the values of the secrets that are named.
fn secrets_in(
    store: &BTreeMap<String, String>,
    readers: &Readers,
    keys: &keys::Keys,
) -> anyhow::Result<BTreeMap<String, String>> {
    let value = |(key, text): (&String, &String)| {
        let value = match text.strip_prefix(images::SECRET) {
            Some(name) => app::secret(readers, keys, name).map_err(|e| anyhow::anyhow!("images.store.{key}: {e}"))?,
            None => text.clone(),
        };
        Ok((key.clone(), value))
    };
    store.iter().map(value).collect()
}

fn local_user() -> UserName {
    let named = std::env::var("USER").ok().and_then(|name| UserName::new(&name).ok());
    named.or_else(|| UserName::new("local").ok()).unwrap_or_else(|| unreachable!("'local' is a valid name"))
}

/// `engine.json`: how the command line finds a running engine.
fn write_whereabouts(app: &App) -> anyhow::Result<()> {
    let whereabouts = serde_json::json!({
        "url": app.url(),
        "process": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "ca_pem": app.authority.as_ref().map(|a| a.ca_pem.clone()),
    });
    keys::write_private(&app.dir.join("engine.json"), whereabouts.to_string().as_bytes())
}

/// Makes a one-time join token.
pub(crate) async fn new_join_token(app: &App) -> anyhow::Result<String> {
    let secret = clock::hex(&clock::random_32()?);
    let expires_at = clock::now().after_ms(JOIN_TOKEN_MS);
    let row = JoinTokenRow { hash: tokens::hash(&secret), expires_at, used: false };
    let side = vec![Side::JoinToken(row)];
    app.writer.ask(|reply| Input::Write { reply, side }).await?;
    let ca_digest = app.authority.as_ref().map(|a| a.digest.clone());
    Ok(JoinToken { engine: app.engine(), secret, ca_digest }.encode())
}

/// Settles a document without a repository: what a session of it would be. For simulations and tools.
pub fn settle_document(
    document: serde_json::Value,
    request: &skein_api::StartRequest,
    version: Option<u64>,
    user: &UserName,
    settled: &config::Settled,
) -> Result<skein_domain::SessionSpec, skein_domain::draft::BadDraft> {
    submit::settle(document, request, version, user, settled, |_| Ok(None)).map(|made| made.spec)
}
