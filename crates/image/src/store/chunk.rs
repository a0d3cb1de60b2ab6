//! One chunk: a zstd frame in an object named by the BLAKE3 of what is in it.

use super::shelf::Shelf;
use crate::{Error, Result};

/// Smallest, usual and largest chunk, bytes: the cut that kept most in common between two builds of one system.
pub(super) const MIN: usize = 16 << 10;
pub(super) const AVERAGE: usize = 64 << 10;
pub(super) const MAX: usize = 256 << 10;
/// Compression level of what is kept.
const LEVEL: i32 = 3;

/// A chunk's name: the BLAKE3 of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkId(pub(super) [u8; 32]);

impl ChunkId {
    pub(super) fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
    /// The name of its object on a shelf.
    pub fn object(self) -> String {
        let name = self.to_string();
        format!("chunks/{}/{name}", &name[..2])
    }
    /// The chunk that an object is, by its name.
    pub(super) fn of_object(name: &str) -> Option<Self> {
        name.rsplit('/').next().and_then(Self::parse).filter(|id| id.object() == name)
    }
}

impl std::fmt::Display for ChunkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

pub(super) fn compressor() -> Result<zstd::bulk::Compressor<'static>> {
    zstd::bulk::Compressor::new(LEVEL).map_err(Error::io("starting the compressor"))
}

fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::decompress(packed, MAX)
}

/// The chunk that these packed bytes are.
pub(super) fn name_of(packed: &[u8]) -> Result<ChunkId> {
    let content = unpack(packed).map_err(|e| Error::corrupt(format!("a chunk cannot be unpacked: {e}")))?;
    Ok(ChunkId::of(&content))
}

/// Is this the chunk that the object's name says?
pub(super) fn is_whole(object: &str, packed: &[u8]) -> bool {
    let content = unpack(packed).ok();
    content.is_some_and(|content| ChunkId::of_object(object) == Some(ChunkId::of(&content)))
}

/// A chunk's content, checked against its name.
pub(super) fn read(shelf: &dyn Shelf, id: ChunkId) -> Result<Vec<u8>> {
    let packed = shelf.get(&id.object())?;
    let packed = packed.ok_or_else(|| Error::corrupt(format!("the chunk {id} is missing in {}", shelf.place())))?;
    let content = unpack(&packed)
        .map_err(|e| Error::corrupt(format!("the chunk {id} in {} cannot be unpacked: {e}", shelf.place())))?;
    if ChunkId::of(&content) != id {
        return Err(Error::corrupt(format!("the chunk {id} in {} is not what its name says", shelf.place())));
    }
    Ok(content)
}
