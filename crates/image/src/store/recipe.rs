//! An image's chunks in order, and its disk put together from them.

use std::sync::{Arc, Mutex, PoisonError};

use super::ImageId;
use super::chunk::{self, ChunkId};
use super::shelf::{Guard, Shelf};
use crate::{Bytes, Disk, Error, Extent, Kind, Result};

/// Bytes of one entry: offset, length, name.
const ENTRY: usize = 8 + 8 + 32;
/// Chunks kept unpacked, for reads that come back to one.
const CACHED: usize = 64;

/// A part of a disk: a chunk; what stands between two parts is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) chunk: ChunkId,
}

/// Lists that an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// Of its disk.
    Disk,
    /// Of the file that it came in.
    Native,
}

impl List {
    /// The name of the object.
    pub(super) fn object(self, id: &ImageId) -> String {
        let end = if self == Self::Disk { "chunks" } else { "native" };
        format!("images/{id}.{end}")
    }
}

/// The list as bytes.
pub(super) fn encode(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.len() * ENTRY);
    for part in parts {
        bytes.extend_from_slice(&part.offset.to_le_bytes());
        bytes.extend_from_slice(&part.len.to_le_bytes());
        bytes.extend_from_slice(&part.chunk.0);
    }
    bytes
}

/// A list, checked: the one that the manifest names, in order, without overlaps, within `size` bytes.
pub(super) fn read(shelf: &dyn Shelf, object: &str, digest: &str, size: u64) -> Result<Vec<Part>> {
    let bad = |why: &str| Error::corrupt(format!("{object} in {}: {why}", shelf.place()));
    let bytes = shelf.get(object)?.ok_or_else(|| bad("it is missing"))?;
    if blake3::hash(&bytes).to_hex().as_str() != digest || bytes.len() % ENTRY != 0 {
        return Err(bad("it is not the list that the image's manifest names"));
    }
    let mut parts = Vec::with_capacity(bytes.len() / ENTRY);
    let mut end = 0;
    for entry in bytes.chunks_exact(ENTRY) {
        let number = |at: usize| entry[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let mut name = [0; 32];
        name.copy_from_slice(&entry[16..]);
        let part = Part { offset: number(0), len: number(8), chunk: ChunkId(name) };
        let fits = part.offset >= end && part.len > 0 && part.len <= chunk::MAX as u64;
        end = part.offset.saturating_add(part.len);
        if !fits || end > size {
            return Err(bad("its parts overlap or leave the disk"));
        }
        parts.push(part);
    }
    Ok(parts)
}

type Cached = Vec<(ChunkId, Arc<Vec<u8>>)>;

/// The disk of an image that is kept (its bytes are the stored form: raw), or the file that it came in.
pub struct StoredDisk {
    shelf: Arc<dyn Shelf>,
    size: u64,
    parts: Vec<Part>,
    cached: Mutex<Cached>,
    /// Held for as long as it is read: no collection meanwhile.
    _lock: Guard,
}

impl StoredDisk {
    pub(super) fn new(shelf: Arc<dyn Shelf>, size: u64, parts: Vec<Part>, lock: Guard) -> Self {
        Self { shelf, size, parts, cached: Mutex::default(), _lock: lock }
    }

    fn chunk(&self, id: ChunkId) -> Result<Arc<Vec<u8>>> {
        let lock = || self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, content)) = lock().iter().find(|(known, _)| *known == id) {
            return Ok(Arc::clone(content));
        }
        let content = Arc::new(chunk::read(self.shelf.as_ref(), id)?);
        let mut cached = lock();
        if cached.len() >= CACHED {
            cached.remove(0);
        }
        cached.push((id, Arc::clone(&content)));
        Ok(content)
    }

    /// The first part that ends behind `offset`.
    fn part_from(&self, offset: u64) -> usize {
        self.parts.partition_point(|part| part.offset + part.len <= offset)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.size {
            return Err(Error::Usage(format!("bytes up to {end} of a disk of {} were asked for", self.size)));
        }
        buffer.fill(0);
        for part in self.parts[self.part_from(offset)..].iter().take_while(|part| part.offset < end) {
            let content = self.chunk(part.chunk)?;
            if content.len() as u64 != part.len {
                return Err(Error::corrupt(format!(
                    "the chunk {} is not as long as the image's list says",
                    part.chunk
                )));
            }
            let (from, to) = (part.offset.max(offset), (part.offset + part.len).min(end));
            let place = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
            buffer[place(from, offset)..place(to, offset)]
                .copy_from_slice(&content[place(from, part.offset)..place(to, part.offset)]);
        }
        Ok(())
    }

    fn hole(&self, offset: u64) -> (bool, u64) {
        let at = self.part_from(offset);
        match self.parts.get(at) {
            None => (true, self.size - offset),
            Some(part) if part.offset > offset => (true, part.offset - offset),
            Some(part) => {
                let mut end = part.offset + part.len;
                end = self.parts[at + 1..]
                    .iter()
                    .map_while(|next| {
                        let joins = next.offset == end;
                        end = next.offset + next.len;
                        joins.then_some(end)
                    })
                    .last()
                    .unwrap_or(part.offset + part.len);
                (false, end - offset)
            }
        }
    }
}

impl Disk for StoredDisk {
    fn size(&self) -> u64 {
        self.size
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (hole, len) = self.hole(offset);
        Ok(Extent { kind: if hole { Kind::Zero } else { Kind::Data }, len })
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read(offset, buffer)
    }
}

/// The stored form itself: what is uploaded where raw is taken unconverted.
impl Bytes for StoredDisk {
    fn len(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read(offset, buffer)
    }
    fn hole_at(&self, offset: u64) -> Result<(bool, u64)> {
        Ok(self.hole(offset))
    }
}
