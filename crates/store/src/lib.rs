//! The ledger: one writer, one transaction a turn, current-state rows plus an event table.
//!
//! [`Ledger`] is synchronous on purpose: the engine runs it on a thread of its own, a simulation runs
//! it inline and stays deterministic. SQLite implements it here; another database gets its own SQL and
//! passes the same tests.

mod error;
mod row;
mod sqlite;

pub use error::StoreError;
pub use row::{
    AgentIdentity, AttemptRow, Document, DocumentKind, EventRow, ItemRow, JoinTokenRow, Limits, Page, Removed,
    ReplyRow, SecretRow, SessionRow, Side, TokenRow, Turn,
};
pub use sqlite::{BACKUP_SUFFIX, BACKUPS, SqliteLedger, SqliteReader, adopt_copy, copy_ledger, newest_backup};

use skein_domain::decide::snapshot::Stored;
use skein_domain::{
    AttemptKey, Digest, Image, InstanceId, ItemKey, NodeKey, OutputFile, SessionId, SessionSpec, Timestamp,
};

/// Writing. One at a time: opening claims the folder and a new epoch.
pub trait Ledger: Send {
    /// Everything open, to build the snapshot from.
    fn load(&mut self) -> Result<Stored, StoreError>;
    /// One turn, durably: all of it or nothing.
    fn commit(&mut self, turn: &Turn<'_>) -> Result<(), StoreError>;
    /// Can it be written to? Nothing in it changes.
    fn probe(&mut self) -> Result<(), StoreError>;
    /// Removes what is beyond its limits; says what.
    fn retain(&mut self, limits: &Limits, now: Timestamp) -> Result<Removed, StoreError>;
}

/// Reading, from any thread, beside the writer.
pub trait Reader: Send {
    /// Sessions, newest first.
    fn sessions(&self, page: Page) -> Result<Vec<SessionRow>, StoreError>;
    /// One session.
    fn session(&self, id: SessionId) -> Result<Option<SessionRow>, StoreError>;
    /// Has it ended? One that is not kept any more has.
    fn session_is_over(&self, id: SessionId) -> Result<bool, StoreError>;
    /// What was asked for at its start.
    fn session_spec(&self, id: SessionId) -> Result<Option<SessionSpec>, StoreError>;
    /// Items of a node that ended or were tried before, by index; one at its first attempt has no row but that
    /// attempt's.
    fn items(&self, node: NodeKey, page: Page) -> Result<Vec<ItemRow>, StoreError>;
    /// One item that left the default state.
    fn item(&self, item: ItemKey) -> Result<Option<ItemRow>, StoreError>;
    /// Attempts of a session, oldest first.
    fn attempts(&self, session: SessionId, page: Page) -> Result<Vec<AttemptRow>, StoreError>;
    /// Attempts of a session behind `after`, in the order of their keys: any page costs what the first does.
    fn attempts_after(
        &self,
        session: SessionId,
        after: Option<AttemptKey>,
        limit: u32,
    ) -> Result<Vec<AttemptRow>, StoreError>;
    /// How many of a session's first `limit` attempts ran where.
    fn places(&self, session: SessionId, limit: u32) -> Result<Vec<(String, u64)>, StoreError>;
    /// Attempts at an item.
    fn attempts_at(&self, item: ItemKey) -> Result<Vec<AttemptRow>, StoreError>;
    /// One attempt.
    fn attempt(&self, key: AttemptKey) -> Result<Option<AttemptRow>, StoreError>;
    /// Outputs of every succeeded item of a node: index and files.
    fn outputs(&self, node: NodeKey) -> Result<Vec<(u32, Vec<OutputFile>)>, StoreError>;
    /// Events after `seq`, oldest first; of one session, or of all.
    fn events(&self, after: u64, session: Option<SessionId>, limit: u32) -> Result<Vec<EventRow>, StoreError>;
    /// The newest event's number, and the oldest that is still kept.
    fn event_bounds(&self) -> Result<(u64, u64), StoreError>;
    /// Documents of a kind, newest version of each, by name.
    fn documents(&self, kind: DocumentKind) -> Result<Vec<Document>, StoreError>;
    /// One document; the newest version unless one is named.
    fn document(&self, kind: DocumentKind, name: &str, version: Option<u64>) -> Result<Option<Document>, StoreError>;
    /// The highest version of a document that ever was, removed ones included; 0 when there was none.
    fn last_version(&self, kind: DocumentKind, name: &str) -> Result<u64, StoreError>;
    /// Tokens.
    fn tokens(&self) -> Result<Vec<TokenRow>, StoreError>;
    /// A join token by its secret's hash.
    fn join_token(&self, hash: &str) -> Result<Option<JoinTokenRow>, StoreError>;
    /// Identities of agents.
    fn identities(&self) -> Result<Vec<AgentIdentity>, StoreError>;
    /// One agent's identity.
    fn identity(&self, instance: &InstanceId) -> Result<Option<AgentIdentity>, StoreError>;
    /// Secrets, sealed.
    fn secrets(&self) -> Result<Vec<SecretRow>, StoreError>;
    /// The image catalogue, newest first.
    fn images(&self) -> Result<Vec<Image>, StoreError>;
    /// One image.
    fn image(&self, id: &Digest) -> Result<Option<Image>, StoreError>;
    /// The session that a client key stands for.
    fn client_key(&self, user: &str, key: &str) -> Result<Option<SessionId>, StoreError>;
    /// Receivers that something is to be told to.
    fn receivers(&self) -> Result<Vec<String>, StoreError>;
    /// What is to be told to one, oldest first.
    fn replies(&self, receiver: &str, limit: u32) -> Result<Vec<ReplyRow>, StoreError>;
    /// Digests that sessions or documents refer to.
    fn referenced(&self) -> Result<std::collections::BTreeSet<Digest>, StoreError>;
}
