//! What must survive a crash for an upload to go on: little, and written before it is needed.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ContentId;
use crate::{Error, Result, Secret};

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Name of the transport.
    pub transport: String,
    /// Name of the destination.
    pub to: String,
    /// What is uploaded.
    pub content: ContentId,
    /// How the service calls the upload: an id, or an address that is itself a key. None: it is about to be asked
    /// for, and may exist.
    pub handle: Option<Secret>,
    /// How far the service acknowledged everything, where it cannot be asked: a block's number, or an offset.
    pub done: u64,
    /// How often it was begun: part of what names it.
    pub generation: u32,
}

impl Memory {
    pub(super) fn intent(transport: &str, to: &str, content: &ContentId) -> Self {
        let (transport, to, content) = (transport.to_owned(), to.to_owned(), content.clone());
        Self { transport, to, content, handle: None, done: 0, generation: 0 }
    }
    pub(super) fn with(self, handle: impl Into<String>) -> Self {
        Self { handle: Some(Secret::new(handle)), ..self }
    }
    pub(super) fn handle(&self) -> Option<&str> {
        self.handle.as_ref().map(Secret::expose)
    }
    /// Begun anew, under another name.
    pub(super) fn next(self) -> Self {
        Self { handle: None, done: 0, generation: self.generation + 1, ..self }
    }
}

/// Keeps one upload's memory: a row, a file. When `remember` returns, it is kept.
pub trait Remembers: Send + Sync {
    /// What is kept.
    fn recall(&self) -> Result<Option<Memory>>;
    /// Keeps this instead.
    fn remember(&mut self, memory: &Memory) -> Result<()>;
    /// It is over.
    fn forget(&mut self) -> Result<()>;
}

/// What is remembered of this upload. Of another one, it is an error: going on would lose that one.
pub(super) fn recall(kept: &dyn Remembers, transport: &str, to: &str) -> Result<Option<Memory>> {
    let Some(memory) = kept.recall()? else { return Ok(None) };
    if memory.transport != transport || memory.to != to {
        return Err(Error::Usage(format!(
            "what is remembered here belongs to the upload of '{}' by {}: give each upload its own memory",
            memory.to, memory.transport
        )));
    }
    Ok(Some(memory))
}

/// For uploads that may begin anew after a crash.
impl Remembers for Option<Memory> {
    fn recall(&self) -> Result<Option<Memory>> {
        Ok(self.clone())
    }
    fn remember(&mut self, memory: &Memory) -> Result<()> {
        *self = Some(memory.clone());
        Ok(())
    }
    fn forget(&mut self) -> Result<()> {
        *self = None;
        Ok(())
    }
}

/// In a file, readable by its owner only, replaced by rename.
#[derive(Debug)]
pub struct FileMemory(PathBuf);

impl FileMemory {
    /// At this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
    fn io(&self, what: &str) -> impl FnOnce(std::io::Error) -> Error {
        Error::io(format!("{what} {}", self.0.display()))
    }
}

impl Remembers for FileMemory {
    fn recall(&self) -> Result<Option<Memory>> {
        let text = match std::fs::read(&self.0) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.io("reading")(e)),
        };
        let bad = |e| Error::Usage(format!("{} is not what an upload remembers ({e}): remove it", self.0.display()));
        serde_json::from_slice(&text).map(Some).map_err(bad)
    }
    fn remember(&mut self, memory: &Memory) -> Result<()> {
        let folder = self.0.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let text = serde_json::to_vec(memory).map_err(|e| Error::Usage(format!("an upload's memory: {e}")))?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(self.io("writing"))?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(self.io("writing"))?;
        file.persist(&self.0).map_err(|e| self.io("writing")(e.error))?;
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(self.io("writing"))
    }
    fn forget(&mut self) -> Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(self.io("removing")(e)),
            _ => Ok(()),
        }
    }
}
