//! Rows, as the ledger takes and gives them.

use serde::{Deserialize, Serialize};
use skein_domain::decide::change::{Change, NodeRow};
use skein_domain::session::{ItemState, Tally};
use skein_domain::{
    Attempt, AttemptEnd, Digest, EngineId, Event, Image, InstanceId, ItemEnd, ItemKey, SessionId, SessionState,
    SolutionId, Timestamp, UserName,
};

/// One turn.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Its number, one more than the last.
    pub turn: u64,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub events: &'a [Event],
    /// Turns that are written with this one because nobody waited for them: events before a position happened in
    /// that turn, at that moment. Ascending.
    pub earlier: &'a [(usize, u64, Timestamp)],
    /// Rows that changed.
    pub changes: &'a [Change],
    /// Everything else that is written with it.
    pub side: &'a [Side],
}

/// Rows that the planner does not look at.
#[derive(Debug, Clone, PartialEq)]
pub enum Side {
    /// A new version of a document.
    Document(Document),
    /// A document, all versions, is removed from the listing; sessions keep their own copy.
    DocumentRemoved(DocumentKind, String),
    /// An API token.
    Token(TokenRow),
    /// An API token is revoked.
    TokenRevoked(String),
    /// A join token.
    JoinToken(JoinTokenRow),
    /// A join token is used up.
    JoinTokenUsed(String),
    /// An agent's identity.
    Identity(AgentIdentity),
    /// A secret.
    Secret(SecretRow),
    /// A secret is removed.
    SecretRemoved(String),
    /// An image of the catalogue, new or changed.
    Image(Box<Image>),
    /// An image is not in the catalogue any more.
    ImageRemoved(Digest),
    /// A client key stands for a session.
    ClientKey {
        /// Whose key.
        user: UserName,
        /// The key.
        key: String,
        /// The session.
        session: SessionId,
    },
    /// The engine's identifier from now on.
    Identifier(EngineId),
    /// Something to tell a receiver.
    Reply {
        /// Whom, in the form of a task's `reply_to`.
        to: String,
        /// When it happened.
        at: Timestamp,
        /// The status, JSON.
        body: String,
    },
    /// These were told, or given up.
    RepliesDone(Vec<u64>),
    /// A session refers to content.
    FileRef {
        /// The session.
        session: SessionId,
        /// The content.
        digest: Digest,
    },
}

/// What a document describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// A task.
    Task,
    /// A thread.
    Thread,
}

impl DocumentKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Thread => "thread",
        }
    }
}

/// A version of a task or thread in the repository, in the local form (JSON).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Task or thread.
    pub kind: DocumentKind,
    /// Its name.
    pub name: String,
    /// Counts up from 1.
    pub version: u64,
    /// The draft.
    pub body: serde_json::Value,
    /// Who wrote it.
    pub user: UserName,
    /// When.
    pub at: Timestamp,
}

/// An API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// A short public id, for listing and revoking.
    pub id: String,
    /// BLAKE3 of the token.
    pub hash: String,
    /// Whose it is.
    pub user: UserName,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRow {
    /// BLAKE3 of its secret.
    pub hash: String,
    /// Good until.
    pub expires_at: Timestamp,
    /// It was used.
    pub used: bool,
}

/// An agent that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentIdentity {
    /// Its instance.
    pub instance: InstanceId,
    /// Its solution.
    pub solution: SolutionId,
    /// Ed25519 public key, base64.
    pub public_key: String,
}

/// A secret, encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRow {
    /// Its name.
    pub name: String,
    /// Nonce and ciphertext, base64.
    pub sealed: String,
    /// When it was set.
    pub at: Timestamp,
}

/// Something to tell a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyRow {
    /// Counts up: the delivery's id.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The status, JSON.
    pub body: String,
}

/// A session, open or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// The thread's name.
    pub name: String,
    /// Who started it.
    pub user: UserName,
    /// Where it is.
    pub state: SessionState,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its nodes' counters.
    pub nodes: Vec<NodeRow>,
}

impl SessionRow {
    /// What its ended attempts cost.
    pub fn cost(&self) -> skein_domain::NanoUsd {
        self.nodes.iter().fold(skein_domain::NanoUsd::default(), |sum, node| sum + node.cost)
    }
    /// Sum of its nodes' ends.
    pub fn tally(&self) -> Tally {
        self.nodes.iter().map(|node| node.tally).sum()
    }
    /// All its items.
    pub fn count(&self) -> u64 {
        self.nodes.iter().map(|n| u64::from(n.count)).sum()
    }
}

/// An item that left the default state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemRow {
    /// Which.
    pub key: ItemKey,
    /// Its open state.
    pub open: Option<ItemState>,
    /// Or its end, and when.
    pub ended: Option<(ItemEnd, Timestamp)>,
}

/// An attempt, open or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// As it was ordered.
    pub attempt: Attempt,
    /// How it ended, and when.
    pub ended: Option<(AttemptEnd, Timestamp)>,
}

/// An event as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRow {
    /// Counts up; the change stream's `Last-Event-ID`.
    pub seq: u64,
    /// Its turn.
    pub turn: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// A part of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Rows to skip.
    pub offset: u64,
    /// Most rows.
    pub limit: u32,
}

impl Page {
    /// Everything, within a bound that keeps one answer small enough to hold.
    pub const ALL: Self = Self { offset: 0, limit: 1_000_000 };
}

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ended sessions with their items and attempts, ms since the end.
    pub sessions_age_ms: u64,
    /// Events, ms.
    pub events_age_ms: u64,
    /// Most events.
    pub events_max: u64,
}

/// What the retention removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Sessions; their logs are to be removed by whoever keeps them.
    pub sessions: Vec<SessionId>,
    /// Number of events.
    pub events: u64,
}
