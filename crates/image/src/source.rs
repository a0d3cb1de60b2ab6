//! Whatever a person gives: an image, an image that was compressed, an appliance. What cannot be read in place is
//! spooled to a temporary file, within the budget.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use crate::bytes::{FileBytes, read_vec};
use crate::convert::Progress;
use crate::{Budget, Bytes, Disk, Error, Format, Result, detect, detect_wrapper, format, unwrap_to};

/// Bytes of a gzip that are looked at to find out what is in it.
const PEEK_BYTES: usize = 64 << 10;

/// An image, ready to be read.
pub struct Opened {
    /// What it is.
    pub format: Format,
    /// Its disk.
    pub disk: Box<dyn Disk>,
    /// It was unpacked into a temporary file first.
    pub spooled: bool,
}

/// Opens an image of the format `from`, or of the one that its first bytes say. `spool` makes an empty temporary
/// file where it is needed.
pub fn open(
    bytes: Arc<dyn Bytes>,
    from: Option<Format>,
    budget: &Budget,
    spool: impl FnOnce() -> Result<File>,
    progress: &dyn Progress,
) -> Result<Opened> {
    let is_gce = from.map_or_else(|| holds_gce_tar(bytes.as_ref()), |from| Ok(from == Format::GceTar))?;
    if is_gce {
        let file = spool()?;
        format::unpack_gce(bytes.as_ref(), &file, budget, progress)?;
        let disk = format::open(Arc::new(FileBytes::new(file)?), Format::Raw, budget)?;
        return Ok(Opened { format: Format::GceTar, disk, spooled: true });
    }
    let wrapped = detect_wrapper(bytes.as_ref())?.is_some() && from.is_none_or(|from| from != Format::Raw);
    let bytes: Arc<dyn Bytes> = if wrapped {
        let file = spool()?;
        unwrap_to(bytes.as_ref(), &file, budget, progress)?;
        Arc::new(FileBytes::new(file)?)
    } else {
        bytes
    };
    let format = from.map_or_else(|| detect(bytes.as_ref()), Ok)?;
    if format == Format::GceTar {
        let next_step = "unpack it once by hand and look at what is in it".to_owned();
        return Err(Error::Unsupported { what: "an image packed twice".to_owned(), next_step });
    }
    Ok(Opened { format, disk: format::open(bytes, format, budget)?, spooled: wrapped })
}

/// A gzip whose content begins like a tar of `disk.raw`?
fn holds_gce_tar(bytes: &dyn Bytes) -> Result<bool> {
    let known = usize::try_from(bytes.len()).unwrap_or(usize::MAX).min(PEEK_BYTES);
    let head = read_vec(bytes, 0, known)?;
    if !head.starts_with(&[0x1f, 0x8b]) {
        return Ok(false);
    }
    let mut begin = Vec::new();
    // What is cut off or damaged is no tar; the reader that is asked next says what is wrong.
    let read = flate2::read::GzDecoder::new(&head[..]).take(512).read_to_end(&mut begin);
    Ok(read.is_ok() && begin.get(257..262) == Some(b"ustar"))
}
