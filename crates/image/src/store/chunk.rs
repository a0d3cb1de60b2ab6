//! One chunk: a zstd frame in a file named by the BLAKE3 of what is in it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

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
    pub(super) fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
    fn path(&self, dir: &Path) -> PathBuf {
        let name = self.to_string();
        dir.join("chunks").join(&name[..2]).join(name)
    }
}

impl std::fmt::Display for ChunkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Keeps a chunk unless it is there; bytes written.
pub(super) fn keep(dir: &Path, compressor: &mut zstd::bulk::Compressor<'_>, content: &[u8]) -> Result<(ChunkId, u64)> {
    let id = ChunkId::of(content);
    let path = id.path(dir);
    // One that a power cut left empty or short is written again.
    if fs::metadata(&path).is_ok_and(|m| m.len() > 0) && read(dir, &id).is_ok() {
        return Ok((id, 0));
    }
    let what = || format!("writing {}", path.display());
    let packed = compressor.compress(content).map_err(Error::io("compressing a chunk"))?;
    let folder = path.parent().unwrap_or(dir);
    fs::create_dir_all(folder).map_err(Error::io(what()))?;
    let mut part = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(what()))?;
    part.write_all(&packed).map_err(Error::io(what()))?;
    part.persist(&path).map_err(|e| Error::io(what())(e.error))?;
    Ok((id, packed.len() as u64))
}

pub(super) fn compressor() -> Result<zstd::bulk::Compressor<'static>> {
    zstd::bulk::Compressor::new(LEVEL).map_err(Error::io("starting the compressor"))
}

/// A chunk's content, checked against its name.
pub(super) fn read(dir: &Path, id: &ChunkId) -> Result<Vec<u8>> {
    let path = id.path(dir);
    let packed = fs::read(&path).map_err(Error::io(format!("reading {}", path.display())))?;
    let content = zstd::bulk::decompress(&packed, MAX)
        .map_err(|e| Error::corrupt(format!("the chunk {} cannot be unpacked: {e}", path.display())))?;
    if ChunkId::of(&content) != *id {
        return Err(Error::corrupt(format!("the chunk {} is not what its name says", path.display())));
    }
    Ok(content)
}
