//! Flat extents: a descriptor, and files that the caller opened.

use std::sync::Arc;

use super::SECTOR;
use super::descriptor::{self, ExtentKind};
use crate::{Budget, Bytes, Disk, Error, Extent, Kind, Result};

/// A part of the disk.
struct Part {
    /// Where it begins on the disk, bytes.
    at: u64,
    len: u64,
    /// The bytes, and where in them; none is zeros.
    from: Option<(Arc<dyn Bytes>, u64)>,
}

struct Flat {
    parts: Vec<Part>,
    size: u64,
}

/// The disk of a descriptor whose extents are flat: `extents` are their files, in the descriptor's order. The names in
/// the descriptor are not looked at: which files these are, the caller decides.
pub fn open_flat(text: &[u8], extents: Vec<Arc<dyn Bytes>>, budget: &Budget) -> Result<Box<dyn Disk>> {
    if text.len() as u64 > descriptor::BYTES_MAX {
        return Err(Error::Refused(format!("a VMDK's descriptor of {} bytes", text.len())));
    }
    let parsed = descriptor::parse(text)?;
    if !matches!(parsed.create_type.as_str(), "monolithicFlat" | "twoGbMaxExtentFlat" | "vmfs") {
        return Err(Error::Unsupported {
            what: format!("flat extents of a VMDK of type '{}'", parsed.create_type.escape_debug()),
            next_step: "open the VMDK itself: sparse ones bear their descriptor".to_owned(),
        });
    }
    let (mut parts, mut size, mut files) = (Vec::new(), 0u64, extents.into_iter());
    for line in parsed.extents {
        let len = line.sectors.checked_mul(SECTOR).ok_or_else(|| Error::corrupt("an extent of too many sectors"))?;
        let from = match line.kind {
            ExtentKind::Zero => None,
            ExtentKind::Flat => {
                let file =
                    files.next().ok_or_else(|| Error::Usage("the VMDK has more extents than given".to_owned()))?;
                let at = line.offset.checked_mul(SECTOR);
                let at = at.filter(|at| at.checked_add(len).is_some_and(|end| end <= file.len()));
                let at = at.ok_or_else(|| Error::corrupt("an extent is longer than its file"))?;
                Some((file, at))
            }
            ExtentKind::Sparse => return Err(Error::corrupt("a sparse extent among flat ones")),
        };
        parts.push(Part { at: size, len, from });
        size = size.checked_add(len).ok_or_else(|| Error::corrupt("an extent of too many sectors"))?;
        budget.virtual_size(size)?;
    }
    if files.next().is_some() {
        return Err(Error::Usage("the VMDK has fewer extents than given".to_owned()));
    }
    Ok(Box::new(Flat { parts, size }))
}

impl Flat {
    fn part(&self, offset: u64) -> Result<&Part> {
        let number = self.parts.partition_point(|part| part.at + part.len <= offset);
        self.parts.get(number).ok_or_else(|| Error::corrupt(format!("the disk ends before {offset}")))
    }
}

impl Disk for Flat {
    fn size(&self) -> u64 {
        self.size
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let part = self.part(offset)?;
        let (within, rest) = (offset - part.at, part.at + part.len - offset);
        let (hole, len) = match &part.from {
            None => (true, rest),
            Some((bytes, at)) => bytes.hole_at(at + within)?,
        };
        Ok(Extent { kind: if hole { Kind::Zero } else { Kind::Data }, len: len.min(rest) })
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let part = self.part(at)?;
            let rest = usize::try_from(part.at + part.len - at).unwrap_or(usize::MAX);
            let end = done + rest.min(buffer.len() - done);
            match &part.from {
                None => buffer[done..end].fill(0),
                Some((bytes, from)) => bytes.read_at(from + (at - part.at), &mut buffer[done..end])?,
            }
            done = end;
        }
        Ok(())
    }
}
