//! QEMU's copy-on-write format, versions 2 and 3. The reader takes the active layer only: no backing file, no data
//! file, no encryption. The writer makes version 3.
//!
//! ```text
//! header -> L1: one entry for each L2 table -> L2: one entry for each cluster -> cluster
//!        -> refcount table -> refcount blocks: how often each cluster of the file is used
//! ```

mod cluster;
mod header;
mod read;
mod taken;
mod write;

pub(super) use read::Qcow2;
pub(super) use write::write;

const MAGIC: u32 = 0x5146_49fb;

/// The only bits of an L1 or L2 entry that are an offset.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// The entry's cluster has a refcount of one.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// The cluster is zero, whether it has a place or not.
const ZERO: u64 = 1;
/// Compressed clusters are counted in these.
const SECTOR: u64 = 512;

const CORRUPT_BIT: u64 = 1 << 1;
const DATA_FILE_BIT: u64 = 1 << 2;
const COMPRESSION_BIT: u64 = 1 << 3;
const EXTENDED_BIT: u64 = 1 << 4;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Deflate,
    Zstd,
}
