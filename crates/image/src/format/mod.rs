//! The formats, one file each: its reader ([`open`]) and its writer.

mod gce;
mod ova;
mod qcow2;
mod raw;
mod shared;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use std::sync::Arc;

pub use gce::unpack as unpack_gce;
pub use ova::{Appliance, DiskFacts, Firmware, ManifestDigest, ovf, write_appliance};
pub use vmdk::open_flat as open_flat_vmdk;

use crate::convert::{Options, Progress, Report};
use crate::{Budget, Bytes, Disk, Error, Format, Out, Result};

/// The disk in `bytes`, which are of `format`.
pub fn open(bytes: Arc<dyn Bytes>, format: Format, budget: &Budget) -> Result<Box<dyn Disk>> {
    match format {
        Format::Raw => Ok(Box::new(raw::Raw::open(bytes, budget)?)),
        Format::Qcow2 => Ok(Box::new(qcow2::Qcow2::open(bytes, budget)?)),
        Format::Vdi => Ok(Box::new(vdi::Vdi::open(bytes, budget)?)),
        Format::Vhd => vhd::open(bytes, budget),
        Format::Vmdk => vmdk::open(bytes, budget),
        Format::Vhdx => vhdx::open(bytes, budget),
        Format::Ova => ova::open(bytes, budget),
        Format::GceTar => Err(gce_is_packed()),
        Format::Oci => Err(Error::Unsupported {
            what: "reading a container image as a disk".to_owned(),
            next_step: "it has no disk: import the disk that it was made of".to_owned(),
        }),
    }
}

pub(crate) fn write(disk: &dyn Disk, out: &mut Out<'_>, options: &Options, progress: &dyn Progress) -> Result<Report> {
    match options.format {
        Format::Raw => raw::write(disk, out, options, progress),
        Format::Qcow2 => qcow2::write(disk, out, options, progress),
        Format::Vdi => vdi::write(disk, out, options, progress),
        Format::Vhd => vhd::write(disk, out, options, progress),
        Format::Vmdk => vmdk::write(disk, out, options, progress),
        Format::Vhdx => vhdx::write(disk, out, options, progress),
        Format::Ova => ova::write(disk, out, options, progress),
        Format::GceTar => gce::write(disk, out, options, progress),
        Format::Oci => Err(Error::Usage("a container is made of files, by container::write, not of blocks".to_owned())),
    }
}

fn gce_is_packed() -> Error {
    Error::Unsupported {
        what: "reading a gzipped tar in place".to_owned(),
        next_step: "spool its disk to a file with format::unpack_gce and open that as raw".to_owned(),
    }
}

/// The size that the written disk will have.
pub(crate) fn written_size(disk: &dyn Disk, options: &Options) -> Result<u64> {
    let unit = match options.format {
        // A container is no disk.
        Format::Raw | Format::Oci => 1,
        Format::GceTar => gce::SIZE_UNIT,
        Format::Qcow2 | Format::Vmdk | Format::Vhd | Format::Vhdx | Format::Vdi | Format::Ova => 512,
    };
    let asked = rounded_size(disk, options.size_multiple)?;
    asked.checked_next_multiple_of(unit).ok_or_else(|| Error::Usage(format!("{asked} bytes are no disk's size")))
}

/// The virtual size that is asked for.
pub(crate) fn rounded_size(disk: &dyn Disk, multiple: u64) -> Result<u64> {
    disk.size()
        .checked_next_multiple_of(multiple)
        .ok_or_else(|| Error::Usage(format!("{} bytes cannot be rounded up to {multiple}", disk.size())))
}
