//! The reader.

use std::sync::Arc;

use super::{
    BLOCK_FULL, FILE_PARAMETERS, Guid, HEADER_BYTES, HEADERS_AT, LOGICAL_SECTOR, MIB, PAGE_83, PARENT_LOCATOR,
    PHYSICAL_SECTOR, REGION_BAT, REGION_METADATA, REGIONS_AT, REGIONS_BYTES, TABLE_ENTRIES_MAX, VIRTUAL_SIZE, checksum,
    chunk_ratio, log,
};
use crate::bytes::field::{le16, le32, le64};
use crate::bytes::read_vec;
use crate::format::shared::Bits;
use crate::{Budget, Bytes, Disk, Error, Extent, Kind, Result};

struct Vhdx {
    bytes: Arc<dyn Bytes>,
    size: u64,
    block_bytes: u64,
    chunk_ratio: u64,
    /// As it stands in the file.
    table: Vec<u8>,
}

pub(in crate::format) fn open(bytes: Arc<dyn Bytes>, budget: &Budget) -> Result<Box<dyn Disk>> {
    if read_vec(bytes.as_ref(), 0, 8)? != *b"vhdxfile" {
        return Err(Error::corrupt("the file does not begin as a VHDX does"));
    }
    let header = current_header(bytes.as_ref())?;
    let file_bytes = bytes.len();
    let (log_len, log_at) = (u64::from(le32(&header, 68)), le64(&header, 72));
    let mut log_id: Guid = [0; 16];
    log_id.copy_from_slice(&header[48..64]);
    check_place("the log", log_at, log_len, file_bytes)?;
    if !log_len.is_multiple_of(MIB) {
        // Its entries are pages: a last one that is cut must not be looked at (MS-VHDX 2.2.2).
        return Err(Error::corrupt(format!("the log has {log_len} bytes: no whole MiB")));
    }
    let bytes = if log_id == [0; 16] {
        bytes
    } else {
        // The log, and its pages once more.
        budget.metadata("the VHDX's log", log_len * 2)?;
        log::replay(bytes, log_at, usize::try_from(log_len).unwrap_or(usize::MAX), log_id)?
    };
    budget.metadata("the check of the VHDX's places", bytes.len() / MIB / 8)?;
    let mut taken = Taken { bits: Bits::new(bytes.len().div_ceil(MIB)), len: bytes.len() };
    taken.take("the headers", 0, MIB)?;
    if log_len > 0 {
        taken.take("the log", log_at, log_len)?;
    }
    let (table, metadata) = regions(bytes.as_ref())?;
    taken.take("the metadata", metadata.0, metadata.1)?;
    taken.take("the block table", table.0, table.1)?;
    let facts = facts(bytes.as_ref(), metadata)?;
    budget.virtual_size(facts.size)?;
    Ok(Box::new(Vhdx::new(bytes, file_bytes, table, &facts, taken, budget)?))
}

/// Each MiB of the file belongs to one part at most: all of them are whole MiB.
struct Taken {
    bits: Bits,
    len: u64,
}

impl Taken {
    fn take(&mut self, what: &str, at: u64, len: u64) -> Result<()> {
        check_place(what, at, len, self.len)?;
        for slot in at / MIB..(at + len).div_ceil(MIB) {
            if self.bits.set(slot) {
                return Err(Error::Refused(format!("{what} of the VHDX shares bytes with another part, at {at}")));
            }
        }
        Ok(())
    }
}

fn check_place(what: &str, at: u64, len: u64, end: u64) -> Result<()> {
    if at.checked_add(len).is_none_or(|stop| stop > end) || !at.is_multiple_of(MIB) {
        return Err(Error::corrupt(format!(
            "{what} is said to be {len} bytes at {at}, but the file ends at {end} and parts begin at whole MiB"
        )));
    }
    Ok(())
}

/// The one of the two headers that is sound and newer.
fn current_header(bytes: &dyn Bytes) -> Result<Vec<u8>> {
    let mut best: Option<Vec<u8>> = None;
    for at in HEADERS_AT {
        let header = read_vec(bytes, at, HEADER_BYTES)?;
        let sound = header.starts_with(b"head") && le32(&header, 4) == checksum(&header);
        if sound && best.as_ref().is_none_or(|best| le64(best, 8) < le64(&header, 8)) {
            best = Some(header);
        }
    }
    let header = best.ok_or_else(|| Error::corrupt("neither of the VHDX's two headers is sound"))?;
    if le16(&header, 66) != 1 || le16(&header, 64) != 0 {
        return Err(Error::corrupt(format!(
            "the VHDX has version {} and its log {}; known are 1 and 0",
            le16(&header, 66),
            le16(&header, 64)
        )));
    }
    Ok(header)
}

type Place = (u64, u64);

/// Places of the block table and of the metadata.
fn regions(bytes: &dyn Bytes) -> Result<(Place, Place)> {
    // They are written once and never changed: where one is damaged, or they differ, two readers would see two disks.
    let [raw, second] = REGIONS_AT.map(|at| read_vec(bytes, at, REGIONS_BYTES));
    let (raw, second) = (raw?, second?);
    if raw != second || !raw.starts_with(b"regi") || le32(&raw, 4) != checksum(&raw) {
        return Err(Error::corrupt("the VHDX's two region tables are not sound, or differ"));
    }
    let (mut table, mut metadata) = (None, None);
    for entry in entries(&raw, 16, le32(&raw, 8))? {
        let place = Some((le64(entry, 16), u64::from(le32(entry, 24))));
        let id = &entry[..16];
        let slot = if id == REGION_BAT {
            &mut table
        } else if id == REGION_METADATA {
            &mut metadata
        } else if le32(entry, 28) & 1 != 0 {
            return Err(Error::Refused("the VHDX needs a region that this reader does not know".to_owned()));
        } else {
            continue;
        };
        if slot.is_some() {
            return Err(Error::corrupt("the VHDX has two regions of one kind"));
        }
        *slot = place;
    }
    match (table, metadata) {
        (Some(table), Some(metadata)) => Ok((table, metadata)),
        _ => Err(Error::corrupt("the VHDX has no block table or no metadata")),
    }
}

fn entries(raw: &[u8], at: usize, count: u32) -> Result<impl Iterator<Item = &[u8]>> {
    if count > TABLE_ENTRIES_MAX {
        return Err(Error::corrupt(format!(
            "a table of the VHDX has {count} entries; {TABLE_ENTRIES_MAX} is the most"
        )));
    }
    Ok(raw[at..].chunks_exact(32).take(usize::try_from(count).unwrap_or(0)))
}

struct Facts {
    size: u64,
    block_bytes: u64,
    sector_bytes: u64,
}

fn facts(bytes: &dyn Bytes, (region_at, region_len): Place) -> Result<Facts> {
    let table = read_vec(bytes, region_at, 64 << 10)?;
    if !table.starts_with(b"metadata") {
        return Err(Error::corrupt("the VHDX's metadata do not begin as such"));
    }
    let (mut block, mut size, mut sector) = (None, None, None);
    for entry in entries(&table, 32, u32::from(le16(&table, 10)))? {
        let (id, offset, len) = (&entry[..16], u64::from(le32(entry, 16)), u64::from(le32(entry, 20)));
        if id == PARENT_LOCATOR {
            return Err(parent());
        }
        if id == PAGE_83 || id == PHYSICAL_SECTOR {
            continue;
        }
        let known = id == FILE_PARAMETERS || id == VIRTUAL_SIZE || id == LOGICAL_SECTOR;
        if !known && le32(entry, 24) & 4 == 0 {
            continue;
        }
        if !known {
            return Err(Error::Refused("the VHDX needs metadata that this reader does not know".to_owned()));
        }
        if offset < 64 << 10 || offset + len > region_len || !(4..=8).contains(&len) {
            return Err(Error::corrupt("an item of the VHDX's metadata lies outside them"));
        }
        let mut item = read_vec(bytes, region_at + offset, usize::try_from(len).unwrap_or(8))?;
        item.resize(8, 0);
        let slot = match id {
            id if id == FILE_PARAMETERS => &mut block,
            id if id == VIRTUAL_SIZE => &mut size,
            _ => &mut sector,
        };
        if slot.replace(le64(&item, 0)).is_some() {
            return Err(Error::corrupt("the VHDX has an item of its metadata twice"));
        }
    }
    let (Some(block), Some(size), Some(sector_bytes)) = (block, size, sector) else {
        return Err(Error::corrupt("the VHDX's metadata lack block size, disk size or sector size"));
    };
    if block >> 32 & 2 != 0 {
        return Err(parent());
    }
    let block_bytes = block & 0xffff_ffff;
    if !block_bytes.is_power_of_two() || !(MIB..=256 * MIB).contains(&block_bytes) {
        return Err(Error::corrupt(format!("blocks of {block_bytes} bytes; known are powers of two, 1 to 256 MiB")));
    }
    if !matches!(sector_bytes & 0xffff_ffff, 512 | 4096) {
        return Err(Error::corrupt(format!("sectors of {} bytes; known are 512 and 4096", sector_bytes & 0xffff_ffff)));
    }
    let sector_bytes = sector_bytes & 0xffff_ffff;
    if size == 0 || !size.is_multiple_of(sector_bytes) {
        return Err(Error::corrupt(format!("the disk has {size} bytes: no whole sectors of {sector_bytes}")));
    }
    Ok(Facts { size, block_bytes, sector_bytes })
}

fn parent() -> Error {
    Error::Refused(
        "a differencing VHDX names a parent that would have to be opened: merge it into its parent first".to_owned(),
    )
}

impl Vhdx {
    fn new(
        bytes: Arc<dyn Bytes>,
        file_bytes: u64,
        table: Place,
        facts: &Facts,
        mut taken: Taken,
        budget: &Budget,
    ) -> Result<Self> {
        let blocks = facts.size.div_ceil(facts.block_bytes);
        let ratio = chunk_ratio(facts.sector_bytes, facts.block_bytes);
        let needed = (blocks + (blocks - 1) / ratio) * 8;
        if table.1 < needed {
            return Err(Error::corrupt(format!("the VHDX's block table has {} bytes instead of {needed}", table.1)));
        }
        budget.metadata("the VHDX's block table", needed)?;
        let raw = read_vec(bytes.as_ref(), table.0, usize::try_from(needed).unwrap_or(usize::MAX))?;
        let disk = Self { bytes, size: facts.size, block_bytes: facts.block_bytes, chunk_ratio: ratio, table: raw };
        let mut data = 0u64;
        for number in 0..blocks {
            if let Some(at) = disk.block(number)? {
                let len = facts.block_bytes.min(facts.size - number * facts.block_bytes);
                taken.take("a block", at, len)?;
                data += len;
            }
        }
        budget.data(file_bytes, data)?;
        Ok(disk)
    }

    /// Where block `number` is; none is zeros.
    fn block(&self, number: u64) -> Result<Option<u64>> {
        let index = usize::try_from(number + number / self.chunk_ratio).unwrap_or(usize::MAX / 8);
        let entry = le64(&self.table, index * 8);
        match entry & 7 {
            0..=3 => Ok(None),
            BLOCK_FULL => Ok(Some(entry >> 20 << 20)),
            7 => Err(parent()),
            state => Err(Error::corrupt(format!("block {number} is in the unknown state {state}"))),
        }
    }
}

impl Disk for Vhdx {
    fn size(&self) -> u64 {
        self.size
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (mut number, within, rest) =
            (offset / self.block_bytes, offset % self.block_bytes, self.size.saturating_sub(offset));
        if let Some(place) = self.block(number)? {
            // Of a fixed one, or one with large blocks, most may be holes of the file.
            let (hole, len) = self.bytes.hole_at(place + within)?;
            let kind = if hole { Kind::Zero } else { Kind::Data };
            return Ok(Extent { kind, len: len.min(self.block_bytes - within).min(rest) });
        }
        number += 1;
        let blocks = self.size.div_ceil(self.block_bytes);
        while number < blocks && self.block(number)?.is_none() {
            number += 1;
        }
        Ok(Extent { kind: Kind::Zero, len: (number * self.block_bytes - offset).min(rest) })
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size) {
            return Err(Error::corrupt(format!("{offset} is beyond the disk's end at {}", self.size)));
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = at % self.block_bytes;
            let rest = usize::try_from(self.block_bytes - within).unwrap_or(usize::MAX);
            let end = done + rest.min(buffer.len() - done);
            match self.block(at / self.block_bytes)? {
                None => buffer[done..end].fill(0),
                Some(place) => self.bytes.read_at(place + within, &mut buffer[done..end])?,
            }
            done = end;
        }
        Ok(())
    }
    fn piece_bytes(&self) -> u64 {
        self.block_bytes
    }
}
