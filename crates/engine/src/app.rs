//! What the engine's parts share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use skein_domain::{AttemptKey, EngineId, UserName};
use skein_store::{Reader, SqliteReader, StoreError};

use crate::broker::Connections;
use crate::config::{Current, Settled};
use crate::content::Content;
use crate::core::OrderTo;
use crate::gateway::Gateways;
use crate::keys::Keys;
use crate::logs::Logs;
use crate::order::OrderMaker;
use crate::tls::Authority;
use crate::tokens::Tokens;
use crate::writer::Writer;

/// Shared state.
pub(crate) struct App {
    /// This engine's identifier.
    pub engine: RwLock<EngineId>,
    /// Its folder.
    pub dir: PathBuf,
    /// The way to the writer.
    pub writer: Writer,
    /// Readers of the ledger.
    pub readers: Readers,
    /// The content folder.
    pub content: RwLock<Arc<Content>>,
    /// The image database.
    pub images: crate::images::Images,
    /// The log folder.
    pub logs: Logs,
    /// Keys.
    pub keys: Keys,
    /// The configuration in force.
    pub config: Current,
    /// Agents connected.
    pub connections: Connections,
    /// Invocations under way.
    pub gateways: Gateways,
    /// Rings when there is something to tell receivers.
    pub to_tell: tokio::sync::Notify,
    /// Requests to clouds under way.
    pub machines: crate::machines::Machines,
    /// The custom algorithm.
    pub plugin: crate::plugin::Plugin,
    /// API tokens.
    pub tokens: Tokens,
    /// Where the engine is reached.
    pub url: std::sync::OnceLock<String>,
    /// Its own CA, when it speaks TLS.
    pub authority: Option<Authority>,
    /// Who starts things that nobody else does (documents of the watched folder).
    pub local_user: UserName,
    /// Lines of metrics that are counted, not looked up.
    pub metrics: crate::metrics::Metrics,
}

impl App {
    /// The identifier.
    pub(crate) fn engine(&self) -> EngineId {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration in force.
    pub(crate) fn settled(&self) -> Arc<Settled> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The content folder.
    pub(crate) fn content(&self) -> Arc<Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the engine is reached, as others see it.
    pub(crate) fn url(&self) -> String {
        let settled = self.settled();
        let advertised = settled.config.addresses.get("engine").cloned();
        advertised.unwrap_or_else(|| self.url.get().cloned().unwrap_or_default())
    }

    /// Where agents are to connect.
    pub(crate) fn agents_url(&self) -> String {
        let settled = self.settled();
        let config = &settled.config;
        let broker = config.addresses.get("broker").or(config.broker.url.as_ref()).cloned();
        broker.unwrap_or_else(|| self.url())
    }

    /// A secret's value.
    pub(crate) fn secret(&self, name: &str) -> Result<String, String> {
        secret(&self.readers, &self.keys, name)
    }

    /// The message for an order.
    pub(crate) fn make_order(&self, order: &OrderTo) -> Result<skein_wire::StartOrder, String> {
        let reader = self.readers.get().map_err(|e| e.to_string())?;
        let maker = OrderMaker {
            engine: &self.engine(),
            reader: &*reader,
            content: &self.content(),
            secret: &|name| self.secret(name),
        };
        maker.make(order)
    }

    /// The order of an open attempt, from the ledger.
    pub(crate) fn order_of(&self, key: AttemptKey) -> Result<Option<OrderTo>, StoreError> {
        let reader = self.readers.get()?;
        let Some(row) = reader.attempt(key)?.filter(|row| row.ended.is_none()) else { return Ok(None) };
        let spec = reader.session_spec(key.item.session())?;
        Ok(spec.map(|spec| OrderTo { spec: Arc::new(spec), attempt: row.attempt }))
    }
}

/// A secret's value.
pub(crate) fn secret(readers: &Readers, keys: &Keys, name: &str) -> Result<String, String> {
    let reader = readers.get().map_err(|e| e.to_string())?;
    let all = reader.secrets().map_err(|e| e.to_string())?;
    let row = all.into_iter().find(|s| s.name == name);
    let row = row.ok_or_else(|| format!("secret '{name}' is not set: set it with 'skein secret set {name}'"))?;
    keys.unseal(name, &row.sealed).map_err(|e| e.to_string())
}

/// A pool of readers: as many as are in use at once.
#[derive(Debug)]
pub(crate) struct Readers {
    dir: PathBuf,
    idle: Mutex<Vec<SqliteReader>>,
}

/// A reader on loan.
#[derive(Debug)]
pub(crate) struct Loan<'a> {
    pool: &'a Readers,
    reader: Option<SqliteReader>,
}

impl Readers {
    /// Readers of the ledger in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), idle: Mutex::new(Vec::new()) }
    }

    /// A reader.
    pub(crate) fn get(&self) -> Result<Loan<'_>, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = idle.map_or_else(|| SqliteReader::open(&self.dir), Ok)?;
        Ok(Loan { pool: self, reader: Some(reader) })
    }
}

impl std::ops::Deref for Loan<'_> {
    type Target = SqliteReader;
    fn deref(&self) -> &SqliteReader {
        self.reader.as_ref().unwrap_or_else(|| unreachable!("a loan has its reader until it is dropped"))
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        }
    }
}
