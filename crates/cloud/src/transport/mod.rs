//! Uploads of images ([decision 13](../../../../docs/decisions/0013-uploads.md)).
//!
//! ```text
//! Source (can be written again and again, always the same bytes)
//!   | pieces in ascending order, on a thread of its own
//!   v
//! cutter: parts of a stream | blocks that hold something | runs of pages    (memory: Limits::memory_bytes)
//!   |
//!   v
//! transport: what the service has is left out; the rest is sent, several at a time; each with its digest
//!   |
//!   v
//! end: completed, compared, and marked with the content's digest: the same again sends nothing
//! ```
//! A crash anywhere: the next call begins the same way, and finds what was begun by what [`Remembers`] has and by
//! asking the service. An error leaves what was sent, for the next call; [`Transport::abandon`] takes it away.

mod azure;
mod cut;
mod ebs;
mod ebs_parent;
mod folder;
mod gcs;
mod glance;
mod kept;
mod memory;
mod pump;
mod s3;
mod s3_wire;
mod settings;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use azure::AzurePages;
pub use ebs::EbsBlocks;
pub use folder::Folder;

pub use gcs::Gcs;
pub use glance::Glance;
pub use kept::AsKept;
pub use memory::{FileMemory, Memory, Remembers};
pub use s3::S3;
pub use settings::{AzureLogin, GoogleLogin, Settings};
pub use source::{ContentId, Converted, Source};

use crate::{Error, Result};

/// Uploads begun anew within one call, because a session ended or what arrived was damaged.
const RESTARTS_MAX: u32 = 3;
/// Bytes of a name at a destination.
const NAME_BYTES_MAX: usize = 900;

/// Brings images to one place.
pub trait Transport: Send + Sync {
    /// The name by which deployment forms ask for it: a profile's `upload`.
    fn name(&self) -> &'static str;

    /// Uploads the source, or what is missing of it. May be called again after any error, crash or cancellation.
    fn upload<'a>(
        &'a self,
        source: Arc<dyn Source>,
        to: &'a Destination,
        memory: &'a mut dyn Remembers,
        control: &'a Control,
    ) -> BoxFuture<'a, Result<Uploaded>>;

    /// Takes away what an upload that did not end has left. What was completed stays.
    fn abandon<'a>(&'a self, to: &'a Destination, memory: &'a mut dyn Remembers) -> BoxFuture<'a, Result<()>>;
}

/// Where to, within the transport's place.
#[derive(Clone, Default)]
pub struct Destination {
    /// File, key, blob, object or image name.
    pub name: String,
    /// Tags or metadata that it gets besides the content's digest: who owns it, and what for.
    pub labels: BTreeMap<String, String>,
    /// Something else that stands there is replaced, when all has arrived (a page blob: when the upload begins).
    pub replace: bool,
    /// What is there already and differs little: only changes are sent, where the service can do that (EBS).
    pub parent: Option<Parent>,
}

/// What an upload is a new version of.
#[derive(Clone)]
pub struct Parent {
    /// Its name with the service: a snapshot's id.
    pub reference: String,
    /// What is in it.
    pub source: Arc<dyn Source>,
}

impl Destination {
    /// Of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Names that every service takes as one.
    fn check(&self) -> Result<()> {
        let bad = |why| Err(Error::Usage(format!("'{}' cannot be the name of an upload: {why}", self.name)));
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return bad("it has from 1 to 900 bytes (NAME_BYTES_MAX)");
        }
        if self.name.chars().any(char::is_control) {
            return bad("it holds a control character");
        }
        if self.name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return bad("its parts between slashes must be names");
        }
        Ok(())
    }
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// How the service calls it: path, address, or id.
    pub reference: String,
    /// Bytes of content handed to the network in this call, tries included.
    pub sent_bytes: u64,
    /// It was there already.
    pub already: bool,
}

/// Told how far an upload is.
pub trait Progress: Send + Sync {
    /// So many bytes were handed to the network, tries included.
    fn sent(&self, _bytes: u64) {}
    /// The image is with the service up to this offset; `total` when its length is known.
    fn done(&self, _offset: u64, _total: Option<u64>) {}
}

impl Progress for () {}

/// How the caller watches and ends an upload.
#[derive(Clone)]
pub struct Control {
    /// Ends it soon; what was sent is kept by the service until it is gone on with or abandoned.
    pub cancel: CancellationToken,
    /// Told how far it is.
    pub progress: Arc<dyn Progress>,
}

impl Default for Control {
    fn default() -> Self {
        Self { cancel: CancellationToken::new(), progress: Arc::new(()) }
    }
}

/// How much at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a part, where the service leaves that to us.
    pub part_bytes: u64,
    /// Parts under way at once.
    pub parts_at_once: usize,
    /// Bytes of parts that are made, wait or are under way; one part may always be.
    pub memory_bytes: u64,
    /// Bytes acknowledged between two notes of how far it is, where only we can tell (EBS, disks of Azure).
    pub note_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { part_bytes: 8 << 20, parts_at_once: 4, memory_bytes: 32 << 20, note_bytes: 8 << 20 }
    }
}

/// One call of `upload`: its control, and what it sent.
pub(crate) struct Underway<'a> {
    control: &'a Control,
    sent: AtomicU64,
}

impl<'a> Underway<'a> {
    pub(crate) fn new(control: &'a Control) -> Self {
        Self { control, sent: AtomicU64::new(0) }
    }
    pub(crate) fn sends(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.control.progress.sent(bytes);
    }
    pub(crate) async fn cancelled(&self) {
        self.control.cancel.cancelled().await;
    }
    fn done(&self, offset: u64, total: Option<u64>) {
        self.control.progress.done(offset, total);
    }
    fn uploaded(&self, reference: impl Into<String>) -> Uploaded {
        Uploaded { reference: reference.into(), sent_bytes: self.sent.load(Ordering::Relaxed), already: false }
    }
    fn already(&self, reference: impl Into<String>) -> Uploaded {
        Uploaded { already: true, ..self.uploaded(reference) }
    }
}

/// One call of `upload`, as most transports hand it on within themselves.
struct Call<'a> {
    content: ContentId,
    to: &'a Destination,
    memory: &'a mut dyn Remembers,
    underway: &'a Underway<'a>,
}

/// An upload was begun anew too often.
fn too_often(what: &str, why: String) -> Error {
    Error::Damaged { what: what.to_owned(), why: format!("{why}, {RESTARTS_MAX} times (RESTARTS_MAX)") }
}
