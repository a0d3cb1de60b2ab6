//! The formats, one file each: its reader ([`open`]) and its writer.

mod qcow2;
mod raw;
mod vdi;

use std::sync::Arc;

use crate::convert::{Options, Progress, Report};
use crate::{Budget, Bytes, Disk, Error, Format, Out, Result};

/// The disk in `bytes`, which are of `format`.
pub fn open(bytes: Arc<dyn Bytes>, format: Format, budget: &Budget) -> Result<Box<dyn Disk>> {
    match format {
        Format::Raw => Ok(Box::new(raw::Raw::open(bytes, budget)?)),
        Format::Qcow2 => Ok(Box::new(qcow2::Qcow2::open(bytes, budget)?)),
        Format::Vdi => Ok(Box::new(vdi::Vdi::open(bytes, budget)?)),
        other => Err(not_yet(other)),
    }
}

pub(crate) fn write(disk: &dyn Disk, out: &mut Out<'_>, options: &Options, progress: &dyn Progress) -> Result<Report> {
    match options.format {
        Format::Raw => raw::write(disk, out, options, progress),
        Format::Qcow2 => qcow2::write(disk, out, options, progress),
        Format::Vdi => vdi::write(disk, out, options, progress),
        other => Err(not_yet(other)),
    }
}

fn not_yet(format: Format) -> Error {
    Error::Unsupported { what: format!("the format {format}"), next_step: "convert it to raw first".to_owned() }
}

/// The virtual size that is asked for.
pub(crate) fn rounded_size(disk: &dyn Disk, multiple: u64) -> Result<u64> {
    disk.size()
        .checked_next_multiple_of(multiple)
        .ok_or_else(|| Error::Usage(format!("{} bytes cannot be rounded up to {multiple}", disk.size())))
}
