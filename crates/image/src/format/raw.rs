//! The disk's bytes as they are.

use std::sync::Arc;

use crate::blocks::{Spare, Walk};
use crate::convert::{Options, Progress, Report};
use crate::{Budget, Bytes, Disk, Extent, Kind, Out, Result};

/// Blocks that are left out when they are zero: what file systems keep holes in.
const BLOCK_BYTES: usize = 1 << 16;

/// A raw disk.
pub(super) struct Raw(Arc<dyn Bytes>);

impl Raw {
    /// Of these bytes.
    pub(super) fn open(bytes: Arc<dyn Bytes>, budget: &Budget) -> Result<Self> {
        budget.virtual_size(bytes.len())?;
        Ok(Self(bytes))
    }
}

impl Disk for Raw {
    fn size(&self) -> u64 {
        self.0.len()
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (hole, len) = self.0.hole_at(offset)?;
        Ok(Extent { kind: if hole { Kind::Zero } else { Kind::Data }, len })
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buffer)
    }
}

/// Zero blocks become holes.
pub(super) fn write(disk: &dyn Disk, out: &mut Out<'_>, options: &Options, progress: &dyn Progress) -> Result<Report> {
    let virtual_bytes = super::rounded_size(disk, options.size_multiple)?;
    let mut data_bytes = 0;
    let spare = Spare::default();
    let walk = Walk { disk, block_bytes: BLOCK_BYTES, threads: options.threads, progress };
    walk.run(
        || (),
        |(), _, block| Ok(spare.copy(block)),
        |number, block| {
            let offset = number * BLOCK_BYTES as u64;
            let len = usize::try_from(disk.size() - offset).unwrap_or(usize::MAX).min(block.len());
            data_bytes += len as u64;
            out.write_at(offset, &block[..len])?;
            spare.give_back(block);
            Ok(())
        },
    )?;
    out.finish(virtual_bytes)?;
    Ok(Report { bytes: virtual_bytes, virtual_bytes, data_bytes })
}
