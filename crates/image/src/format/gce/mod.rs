//! Google's format: a gzipped tar with one member, `disk.raw`, kept sparse.

mod deflate;
mod read;
mod tar;
mod write;

pub use read::unpack;
pub(super) use tar::{parse as parse_number, plain_header, sum};
pub(super) use write::write;

/// Sizes of disks are multiples of this, bytes.
pub(super) const SIZE_UNIT: u64 = 1 << 30;
/// The only member.
const MEMBER: &str = "disk.raw";
