//! A guest's disk, whatever format it is kept in.

use crate::Result;

/// What a part of a disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Zeros, known without reading.
    Zero,
    /// Perhaps something else.
    Data,
}

/// A run of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// What it holds.
    pub kind: Kind,
    /// Bytes; at least 1 before the disk's end, and never beyond it.
    pub len: u64,
}

/// Positioned reads of a virtual disk, from any number of threads.
pub trait Disk: Send + Sync {
    /// Bytes; not always a multiple of a sector.
    fn size(&self) -> u64;
    /// What stands at `offset` and for how long at least. Neighbours of one kind need not be joined.
    fn extent_at(&self, offset: u64) -> Result<Extent>;
    /// Fills `buffer` from `offset`; beyond the end is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// The size of the pieces it is kept in, bytes: reads that are whole ones are the cheapest.
    fn piece_bytes(&self) -> u64 {
        1 << 16
    }
}
