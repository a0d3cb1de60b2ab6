//! `VMware`'s formats. Read: monolithicSparse and streamOptimized, and flat extents that the caller opened himself.
//! Written: streamOptimized, in order, as ESX, vCenter and AWS take it.
//!
//! ```text
//! streamOptimized: header | descriptor | grain, grain, ... | marker, grain table | ... | directory | footer | end
//! ```
//! Specification: `VMware` Virtual Disk Format 5.0. Its descriptor is a text that may name other files (extents, a
//! parent): each of its lines must be understood, and a file that it names is never opened.

mod descriptor;
mod flat;
mod read;
mod write;

use std::sync::Arc;

pub use flat::open_flat;
pub(super) use write::write;

use crate::{Budget, Bytes, Disk, Error, Result};

const SECTOR: u64 = 512;
const FLAG_NEWLINES: u32 = 1;
const FLAG_SECOND: u32 = 1 << 1;
const FLAG_ZERO_GRAINS: u32 = 1 << 2;
const FLAG_COMPRESSED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;
/// Where the directory is: at the end, the footer says it.
const AT_END: u64 = u64::MAX;
/// Entries of a grain table: the specification fixes them.
const TABLE_ENTRIES: u64 = 512;
const MARKER_END: u32 = 0;
const MARKER_TABLE: u32 = 1;
const MARKER_DIRECTORY: u32 = 2;
const MARKER_FOOTER: u32 = 3;

pub(super) fn open(bytes: Arc<dyn Bytes>, budget: &Budget) -> Result<Box<dyn Disk>> {
    let head = crate::bytes::read_vec(bytes.as_ref(), 0, usize::try_from(bytes.len().min(21)).unwrap_or(0))?;
    if head.starts_with(b"COWD") {
        return Err(Error::Unsupported {
            what: "a VMDK of the old ESX kind (COWD)".to_owned(),
            next_step: "export the machine again, as OVF or OVA: that writes streamOptimized".to_owned(),
        });
    }
    if head.starts_with(b"# Disk DescriptorFile") {
        return Err(Error::Refused(
            "this VMDK is only a description that names the files of its disk; none of them is opened: pass the file \
             it describes (usually *-flat.vmdk) as raw, or export the machine as OVA"
                .to_owned(),
        ));
    }
    Ok(Box::new(read::Sparse::open(bytes, budget)?))
}
