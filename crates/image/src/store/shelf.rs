//! What a store's objects lie on: a folder, an object store, another engine's store.
//!
//! ```text
//! chunks/ab/abcdef...   one chunk: zstd, named by the BLAKE3 of what is in it
//! images/ID.json        what is known of an image: put last
//! images/ID.chunks      its chunks in order
//! images/ID.native      chunks of the file that it came in, if that is kept
//! ```

use crate::Result;

/// An object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, with slashes.
    pub name: String,
    /// Bytes that it takes.
    pub bytes: u64,
}

/// Keeps others out for as long as it lives.
pub type Guard = Box<dyn std::any::Any + Send + Sync>;

/// Objects by name. A name is there with all its bytes or not at all.
pub trait Shelf: Send + Sync {
    /// Where it is, for people.
    fn place(&self) -> String;
    /// An object's bytes; none when it is not there.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Puts an object in place of what has the name.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()>;
    /// Puts chunks; they may be lost with the system until [`Shelf::sync`] returns.
    fn put_chunks(&self, chunks: Vec<(String, Vec<u8>)>) -> Result<()> {
        chunks.iter().try_for_each(|(name, bytes)| self.put(name, bytes))
    }
    /// Which of these are not there, or not whole?
    fn missing(&self, names: &[String]) -> Result<Vec<bool>>;
    /// What was put so far survives the system.
    fn sync(&self) -> Result<()>;
    /// Everything whose name begins so.
    fn list(&self, begin: &str) -> Result<Vec<Entry>>;
    /// Removes an object; one that is not there is no error.
    fn remove(&self, name: &str) -> Result<()>;
    /// Shared by who writes or reads; alone for a collection. An error says who is in the way.
    fn lock(&self, alone: bool) -> Result<Guard>;
}
