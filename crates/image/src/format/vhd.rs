//! Microsoft's first format: fixed (the disk's bytes and a footer) and dynamic (blocks, each with a bitmap).
//!
//! Written is the fixed kind only: what Azure takes. Read are both; a differencing disk names its parent and is
//! refused. Specification: Virtual Hard Disk Image Format 1.0.

use std::sync::Arc;

use super::shared::{Claims, Mark, not_empty, sectored_size};
use crate::blocks::{Spare, Walk};
use crate::bytes::field::{be16, be32, be64};
use crate::bytes::read_vec;
use crate::convert::{Options, Progress, Report};
use crate::{Budget, Bytes, Disk, Error, Extent, Kind, Out, Result};

const SECTOR: u64 = 512;
const FOOTER: usize = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
const UNUSED: u32 = 0xffff_ffff;
/// The largest geometry that cylinders, heads and sectors can express (127 GiB): beyond it the size counts.
const GEOMETRY_SECTORS_MAX: u64 = 65_535 * 16 * 255;
/// The largest disk of this format, 2040 GiB: sector offsets have 32 bits.
const BYTES_MAX: u64 = 0xff00_0000 * SECTOR;
/// Blocks that are left out when they are zero.
const BLOCK_BYTES: usize = 1 << 16;

/// A fixed disk: the bytes before the footer.
struct Fixed {
    bytes: Arc<dyn Bytes>,
    size: u64,
}

/// A dynamic disk.
struct Dynamic {
    bytes: Arc<dyn Bytes>,
    size: u64,
    block_bytes: u64,
    bitmap_bytes: u64,
    table: Vec<u32>,
}

pub(super) fn open(bytes: Arc<dyn Bytes>, budget: &Budget) -> Result<Box<dyn Disk>> {
    let (footer, at_end) = footer(bytes.as_ref())?;
    let kind = be32(&footer, 60);
    let size = virtual_bytes(&footer)?;
    budget.virtual_size(size)?;
    match kind {
        FIXED if at_end => {
            if size > bytes.len() - FOOTER as u64 {
                return Err(Error::corrupt(format!(
                    "the footer says a disk of {size} bytes, but the file has {} bytes",
                    bytes.len()
                )));
            }
            Ok(Box::new(Fixed { bytes, size }))
        }
        DYNAMIC => {
            if at_end {
                same_copy(bytes.as_ref(), &footer)?;
            }
            Ok(Box::new(dynamic(bytes, &footer, size, budget)?))
        }
        DIFFERENCING => Err(Error::Refused(
            "a differencing VHD names a parent that would have to be opened: merge it into its parent first".to_owned(),
        )),
        other => Err(Error::corrupt(format!("the footer says disk type {other}; known are 2 (fixed) and 3 (dynamic)"))),
    }
}

/// The footer, and whether it stood at the end. A dynamic disk has a copy at the beginning. The one at the end counts:
/// the first sector of a fixed disk belongs to its guest, who could write a footer there.
fn footer(bytes: &dyn Bytes) -> Result<(Vec<u8>, bool)> {
    if bytes.len() < FOOTER as u64 {
        return Err(Error::corrupt("a VHD has at least a footer of 512 bytes"));
    }
    let last = read_vec(bytes, bytes.len() - FOOTER as u64, FOOTER)?;
    let Err(why) = checked(&last) else { return Ok((last, true)) };
    let first = read_vec(bytes, 0, FOOTER)?;
    if checked(&first).is_ok() && be32(&first, 60) != FIXED { Ok((first, false)) } else { Err(why) }
}

/// Two readers must not see two disks: one takes the copy at the beginning, another the footer at the end.
fn same_copy(bytes: &dyn Bytes, footer: &[u8]) -> Result<()> {
    let copy = read_vec(bytes, 0, FOOTER)?;
    if checked(&copy).is_err() {
        return Err(Error::corrupt("its footer has no sound copy at the beginning"));
    }
    // Features, version, offset, time, creator, sizes, geometry, type.
    if copy[8..64] != footer[8..64] {
        return Err(Error::corrupt("its footer and the copy at the beginning say different things"));
    }
    Ok(())
}

fn checked(footer: &[u8]) -> Result<()> {
    if !footer.starts_with(b"conectix") {
        return Err(Error::corrupt("the last 512 bytes are not a VHD's footer"));
    }
    if be32(footer, 64) != checksum(footer, 64) {
        return Err(Error::corrupt("the footer's checksum is wrong"));
    }
    if be32(footer, 12) >> 16 != 1 {
        return Err(Error::corrupt(format!("the footer has version {:#x}; known is 0x10000", be32(footer, 12))));
    }
    Ok(())
}

/// The complement of the sum of all bytes but the checksum's own four at `at`.
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let counted = bytes.iter().enumerate().filter(|(n, _)| !(at..at + 4).contains(n));
    !counted.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

/// Virtual PC takes the geometry for the size, others the size itself: which one it is, the creating program says.
/// The same table as QEMU's, so that both see the same disk.
fn virtual_bytes(footer: &[u8]) -> Result<u64> {
    let exact: [&[u8; 4]; 7] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0", b"vs  "];
    let creator = &footer[28..32];
    let sectors = u64::from(be16(footer, 56)) * u64::from(footer[58]) * u64::from(footer[59]);
    let size = be64(footer, 48);
    if sectors != GEOMETRY_SECTORS_MAX && !exact.iter().any(|known| *known == creator) {
        return Ok(sectors * SECTOR);
    }
    if !size.is_multiple_of(SECTOR) {
        return Err(Error::corrupt(format!("the disk has {size} bytes: no whole sectors")));
    }
    Ok(size)
}

fn dynamic(bytes: Arc<dyn Bytes>, footer: &[u8], size: u64, budget: &Budget) -> Result<Dynamic> {
    let header_at = be64(footer, 16);
    let header = read_vec(bytes.as_ref(), header_at, 1024)?;
    if !header.starts_with(b"cxsparse") || be32(&header, 36) != checksum(&header, 36) {
        return Err(Error::corrupt("the header of a dynamic VHD is missing or its checksum is wrong"));
    }
    let (table_at, entries, block_bytes) = (be64(&header, 16), u64::from(be32(&header, 28)), be32(&header, 32));
    if !block_bytes.is_power_of_two() || !(1 << 12..=1 << 28).contains(&block_bytes) {
        return Err(Error::corrupt(format!(
            "blocks of {block_bytes} bytes: known are powers of two, 4 KiB to 256 MiB"
        )));
    }
    let block_bytes = u64::from(block_bytes);
    let needed = size.div_ceil(block_bytes);
    if entries < needed {
        return Err(Error::corrupt(format!("the disk has {needed} blocks, but its table only {entries}")));
    }
    // The table, and 16 bytes an entry while the places are compared.
    budget.metadata("the block table", needed.saturating_mul(4 + 16))?;
    let table_bytes = usize::try_from(needed * 4).unwrap_or(usize::MAX);
    let raw = read_vec(bytes.as_ref(), table_at, table_bytes)?;
    let table: Vec<u32> = raw.chunks_exact(4).map(|entry| be32(entry, 0)).collect();
    let bitmap_bytes = (block_bytes / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
    let (mut claims, end) = (Claims::default(), bytes.len());
    claims.add("the header", header_at, 1024, end)?;
    claims.add("the block table", table_at, needed * 4, end)?;
    for entry in table.iter().filter(|entry| **entry != UNUSED) {
        claims.add("a block", u64::from(*entry) * SECTOR, bitmap_bytes + block_bytes, end)?;
    }
    claims.check()?;
    let data = table.iter().filter(|entry| **entry != UNUSED).count() as u64 * block_bytes;
    budget.data(bytes.len(), data)?;
    Ok(Dynamic { bytes, size, block_bytes, bitmap_bytes, table })
}

impl Disk for Fixed {
    fn size(&self) -> u64 {
        self.size
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (hole, len) = self.bytes.hole_at(offset)?;
        let kind = if hole { Kind::Zero } else { Kind::Data };
        Ok(Extent { kind, len: len.min(self.size.saturating_sub(offset)) })
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        beyond(self.size, offset, buffer.len())?;
        self.bytes.read_at(offset, buffer)
    }
}

fn beyond(size: u64, offset: u64, len: usize) -> Result<()> {
    if offset.checked_add(len as u64).is_none_or(|end| end > size) {
        return Err(Error::corrupt(format!("{len} bytes at {offset} are asked for, but the disk ends at {size}")));
    }
    Ok(())
}

impl Dynamic {
    /// Where the block with `offset` is, and its bitmap: none when it was never written.
    fn block(&self, offset: u64) -> Result<Option<(u64, Vec<u8>)>> {
        let entry = usize::try_from(offset / self.block_bytes).ok().and_then(|n| self.table.get(n));
        match entry {
            None | Some(&UNUSED) => Ok(None),
            Some(sector) => {
                let at = u64::from(*sector) * SECTOR;
                let len = usize::try_from(self.bitmap_bytes).unwrap_or(usize::MAX);
                Ok(Some((at + self.bitmap_bytes, read_vec(self.bytes.as_ref(), at, len)?)))
            }
        }
    }
    /// From `within` on in a block: were the sectors written, and for how many bytes is that the same?
    fn run(&self, bitmap: &[u8], within: u64) -> (bool, u64) {
        let written = |sector: u64| {
            let byte = usize::try_from(sector / 8).ok().and_then(|n| bitmap.get(n)).copied().unwrap_or(0);
            byte & (0x80 >> (sector % 8)) != 0
        };
        let (first, all) = (within / SECTOR, self.block_bytes / SECTOR);
        let is = written(first);
        let end = (first..all).find(|sector| written(*sector) != is).unwrap_or(all);
        (is, end * SECTOR - within)
    }
}

impl Disk for Dynamic {
    fn size(&self) -> u64 {
        self.size
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let within = offset % self.block_bytes;
        let (data, len) = match self.block(offset)? {
            None => (false, self.block_bytes - within),
            Some((_, bitmap)) => self.run(&bitmap, within),
        };
        let kind = if data { Kind::Data } else { Kind::Zero };
        Ok(Extent { kind, len: len.min(self.size.saturating_sub(offset)) })
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        beyond(self.size, offset, buffer.len())?;
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let within = at % self.block_bytes;
            let in_block = usize::try_from(self.block_bytes - within).unwrap_or(usize::MAX).min(rest.len());
            let (part, left) = std::mem::take(&mut rest).split_at_mut(in_block);
            match self.block(at)? {
                None => part.fill(0),
                Some((data_at, bitmap)) => self.read_block(data_at, &bitmap, within, part)?,
            }
            at += in_block as u64;
            rest = left;
        }
        Ok(())
    }
    fn piece_bytes(&self) -> u64 {
        self.block_bytes
    }
}

impl Dynamic {
    fn read_block(&self, data_at: u64, bitmap: &[u8], within: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let here = within + done as u64;
            let (written, len) = self.run(bitmap, here);
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len() - done);
            let part = &mut buffer[done..done + len];
            if written {
                self.bytes.read_at(data_at + here, part)?;
            } else {
                part.fill(0);
            }
            done += len;
        }
        Ok(())
    }
}

/// Cylinders, heads and sectors, as the specification's appendix computes them.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let sectors = sectors.min(GEOMETRY_SECTORS_MAX);
    let (mut per_track, mut heads) = (255, 16);
    let mut cylinders_heads = sectors / per_track;
    if sectors < 65_535 * 16 * 63 {
        per_track = 17;
        cylinders_heads = sectors / per_track;
        heads = cylinders_heads.div_ceil(1024).max(4);
        if cylinders_heads >= heads * 1024 || heads > 16 {
            (per_track, heads) = (31, 16);
            cylinders_heads = sectors / per_track;
        }
        if cylinders_heads >= heads * 1024 {
            (per_track, heads) = (63, 16);
            cylinders_heads = sectors / per_track;
        }
    }
    let narrow = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    (u16::try_from(cylinders_heads / heads).unwrap_or(u16::MAX), narrow(heads), narrow(per_track))
}

/// A footer of a fixed disk. "win " on "Wi2k" (Hyper-V) is what Azure and every reader takes for "the size counts, not
/// the geometry". The time is that of the format's epoch: the same disk gives the same file.
fn fixed_footer(size: u64, uuid: [u8; 16]) -> [u8; FOOTER] {
    let mut footer = [0; FOOTER];
    let (cylinders, heads, per_track) = geometry(size / SECTOR);
    let mut put = |at: usize, bytes: &[u8]| footer[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"conectix");
    put(8, &2u32.to_be_bytes());
    put(12, &0x1_0000u32.to_be_bytes());
    put(16, &u64::MAX.to_be_bytes());
    put(28, b"win ");
    put(32, &0x000a_0000u32.to_be_bytes());
    put(36, b"Wi2k");
    put(40, &size.to_be_bytes());
    put(48, &size.to_be_bytes());
    put(56, &cylinders.to_be_bytes());
    put(58, &[heads, per_track]);
    put(60, &FIXED.to_be_bytes());
    put(68, &uuid);
    let sum = checksum(&footer, 64);
    footer[64..68].copy_from_slice(&sum.to_be_bytes());
    footer
}

pub(super) fn write(disk: &dyn Disk, out: &mut Out<'_>, options: &Options, progress: &dyn Progress) -> Result<Report> {
    let size = sectored_size(disk, options)?;
    not_empty("VHD", size)?;
    if size > BYTES_MAX {
        return Err(Error::Usage(format!(
            "a VHD holds at most 2040 GiB ({BYTES_MAX} bytes), this disk has {size}: write a VHDX, or shrink the disk"
        )));
    }
    let (mut data_bytes, mut mark, spare) = (0, Mark::new("vhd", size), Spare::default());
    let walk = Walk { disk, block_bytes: BLOCK_BYTES, threads: options.threads, progress };
    walk.run(
        || (),
        |(), _, block| Ok((crc32c::crc32c(block), spare.copy(block))),
        |number, (crc, block)| {
            mark.block(number, crc);
            let offset = number * BLOCK_BYTES as u64;
            let len = usize::try_from(disk.size() - offset).unwrap_or(usize::MAX).min(block.len());
            data_bytes += len as u64;
            out.write_at(offset, &block[..len])?;
            spare.give_back(block);
            Ok(())
        },
    )?;
    out.write_at(size, &fixed_footer(size, mark.uuid("disk")))?;
    let bytes = size + FOOTER as u64;
    out.finish(bytes)?;
    Ok(Report { bytes, virtual_bytes: size, data_bytes })
}
