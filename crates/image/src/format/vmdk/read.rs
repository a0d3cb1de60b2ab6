//! Sparse extents: a directory of grain tables, each with 512 grains. Tables are read when they are needed.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::descriptor::{self, ExtentKind};
use super::{
    AT_END, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINES, FLAG_SECOND, FLAG_ZERO_GRAINS, MARKER_END, MARKER_FOOTER,
    SECTOR, TABLE_ENTRIES,
};
use crate::bytes::field::{le16, le32, le64};
use crate::bytes::read_vec;
use crate::format::shared::{Bits, Claims, Taken};
use crate::{Budget, Bytes, Disk, Error, Extent, Kind, Result};

/// Tables kept in memory: 2 KiB each, for 32 MiB of disk each.
const TABLES_KEPT: usize = 256;
const TABLE_BYTES: usize = 2048;

#[derive(Default)]
struct Tables {
    kept: HashMap<u64, Arc<Vec<u8>>>,
    order: VecDeque<u64>,
    seen: Bits,
    claimed: Bits,
    data_bytes: u64,
    /// A table was bad: what comes from this image afterwards is not to be trusted either.
    bad: bool,
}

/// A sparse extent that is a whole disk.
pub(super) struct Sparse {
    bytes: Arc<dyn Bytes>,
    size: u64,
    grain_bytes: u64,
    compressed: bool,
    zero_grains: bool,
    directory: Vec<u32>,
    /// Where header, descriptor, directory and tables are: no grain may be there.
    taken: Taken,
    budget: Budget,
    tables: Mutex<Tables>,
}

/// What the header (or the footer) says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    flags: u32,
    capacity: u64,
    grain: u64,
    descriptor_at: u64,
    descriptor_sectors: u64,
    directory_at: u64,
    /// Of the copy of the directory, if there is one. Nothing is read from it.
    second_at: Option<u64>,
    /// Sectors that are no grains.
    overhead: u64,
    compression: u16,
}

impl Header {
    fn parse(raw: &[u8]) -> Result<Self> {
        let (version, flags) = (le32(raw, 4), le32(raw, 8));
        if !raw.starts_with(b"KDMV") || !(1..=3).contains(&version) {
            return Err(Error::corrupt(format!("a VMDK's header is missing, or its version {version} is unknown")));
        }
        if flags & FLAG_NEWLINES != 0 && raw[73..77] != *b"\n \r\n" {
            return Err(Error::corrupt("the VMDK was copied as text: its newlines were changed"));
        }
        let header = Self {
            flags,
            capacity: le64(raw, 12),
            grain: le64(raw, 20),
            descriptor_at: le64(raw, 28),
            descriptor_sectors: le64(raw, 36),
            directory_at: le64(raw, 56),
            second_at: (flags & FLAG_SECOND != 0).then(|| le64(raw, 48)),
            overhead: le64(raw, 64),
            compression: le16(raw, 77),
        };
        if !header.grain.is_power_of_two() || !(8..=2048).contains(&header.grain) {
            return Err(Error::corrupt(format!("grains of {} sectors; known are 8 to 2048", header.grain)));
        }
        if u64::from(le32(raw, 44)) != TABLE_ENTRIES {
            return Err(Error::corrupt(format!("grain tables of {} entries instead of 512", le32(raw, 44))));
        }
        Ok(header)
    }
    fn compressed(&self) -> Result<bool> {
        let both = FLAG_COMPRESSED | FLAG_MARKERS;
        match (self.flags & both, self.compression) {
            (0, 0) => Ok(false),
            (flags, 1) if flags == both => Ok(true),
            (flags, compression) => Err(Error::Unsupported {
                what: format!("a VMDK with flags {flags:#x} and compression {compression}"),
                next_step: "export the machine as OVA: that writes streamOptimized".to_owned(),
            }),
        }
    }
}

impl Sparse {
    pub(super) fn open(bytes: Arc<dyn Bytes>, budget: &Budget) -> Result<Self> {
        let mut header = Header::parse(&read_vec(bytes.as_ref(), 0, 512)?)?;
        let compressed = header.compressed()?;
        if header.directory_at == AT_END {
            header = footer(bytes.as_ref(), header)?;
        }
        let size = header.capacity.checked_mul(SECTOR).ok_or_else(|| Error::corrupt("a disk of too many sectors"))?;
        budget.virtual_size(size)?;
        if header.overhead.checked_mul(SECTOR).is_none_or(|end| end > bytes.len()) {
            return Err(Error::corrupt(format!("its tables alone have {} sectors: the file was cut", header.overhead)));
        }
        check_descriptor(bytes.as_ref(), &header)?;
        let grain_bytes = header.grain * SECTOR;
        let entries = size.div_ceil(grain_bytes * TABLE_ENTRIES);
        // A bit for each sector (compressed grains) or grain of the file, one for each table, the directory and its
        // check.
        let slots = bytes.len() / if compressed { SECTOR } else { grain_bytes } + 1;
        budget.metadata("the grain directory and its checks", entries.saturating_mul(4 + 16) + slots / 8)?;
        let directory_at = header.directory_at.saturating_mul(SECTOR);
        let raw = read_vec(bytes.as_ref(), directory_at, usize::try_from(entries * 4).unwrap_or(usize::MAX))?;
        let directory: Vec<u32> = raw.chunks_exact(4).map(|entry| le32(entry, 0)).collect();
        let mut claims = Claims::default();
        claims.add("the header", 0, SECTOR, bytes.len())?;
        claims.add("the grain directory", directory_at, entries * 4, bytes.len())?;
        let second_end = header.second_at.map(|at| at.saturating_mul(SECTOR).saturating_add(entries * 4));
        if second_end.is_some_and(|end| end > bytes.len()) {
            return Err(Error::corrupt("the copy of its grain directory is not in the file"));
        }
        for entry in directory.iter().filter(|entry| **entry > 1) {
            claims.add("a grain table", u64::from(*entry) * SECTOR, TABLE_BYTES as u64, bytes.len())?;
        }
        let descriptor_bytes = header.descriptor_sectors * SECTOR;
        claims.add("the descriptor", header.descriptor_at * SECTOR, descriptor_bytes, bytes.len())?;
        let taken = claims.check()?;
        let tables = Tables { seen: Bits::new(entries), claimed: Bits::new(slots), ..Tables::default() };
        Ok(Self {
            bytes,
            size,
            grain_bytes,
            compressed,
            zero_grains: header.flags & FLAG_ZERO_GRAINS != 0,
            directory,
            taken,
            budget: budget.clone(),
            tables: Mutex::new(tables),
        })
    }

    /// The table with grain `number`; none when there is none.
    fn table(&self, number: u64) -> Result<Option<Arc<Vec<u8>>>> {
        let place = number / TABLE_ENTRIES;
        let sector = usize::try_from(place).ok().and_then(|n| self.directory.get(n)).copied().unwrap_or(0);
        if sector < 2 {
            return Ok(None);
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.kept.get(&place) {
            return Ok(Some(table.clone()));
        }
        let table = Arc::new(read_vec(self.bytes.as_ref(), u64::from(sector) * SECTOR, TABLE_BYTES)?);
        if tables.bad {
            return Err(Error::corrupt("a table of the VMDK was refused before"));
        }
        if !tables.seen.set(place) {
            // Stays so when the check fails.
            tables.bad = true;
            self.check_table(&table, &mut tables)?;
            tables.bad = false;
        }
        if tables.order.len() == TABLES_KEPT {
            let oldest = tables.order.pop_front();
            oldest.map(|oldest| tables.kept.remove(&oldest));
        }
        tables.order.push_back(place);
        tables.kept.insert(place, table.clone());
        Ok(Some(table))
    }

    /// Once for each table: its grains lie in the file, belong to no other grain, and are within the budget.
    fn check_table(&self, table: &[u8], tables: &mut Tables) -> Result<()> {
        let slot_bytes = if self.compressed { SECTOR } else { self.grain_bytes };
        for entry in table.chunks_exact(4).map(|entry| le32(entry, 0)).filter(|entry| *entry > 1) {
            let at = u64::from(entry) * SECTOR;
            if at + slot_bytes > self.bytes.len() {
                return Err(Error::corrupt(format!("a grain at {at}, but the file ends at {}", self.bytes.len())));
            }
            if tables.claimed.set(at / slot_bytes) || self.taken.touches(at, slot_bytes) {
                return Err(Error::Refused(format!(
                    "a grain of the VMDK shares bytes of the file with another part, at {at}"
                )));
            }
            tables.data_bytes += self.grain_bytes;
        }
        self.budget.data(self.bytes.len(), tables.data_bytes)
    }

    /// Where grain `number` is in the file; none is zeros.
    fn grain(&self, table: Option<&Arc<Vec<u8>>>, number: u64) -> Result<Option<u64>> {
        let within = usize::try_from(number % TABLE_ENTRIES).unwrap_or(0);
        match table.map_or(0, |table| le32(table, within * 4)) {
            0 => Ok(None),
            1 if self.zero_grains => Ok(None),
            1 => Err(Error::corrupt("a grain is said to be in the header")),
            sector => Ok(Some(u64::from(sector) * SECTOR)),
        }
    }

    fn read_grain(&self, number: u64, at: u64, within: u64, buffer: &mut [u8]) -> Result<()> {
        if !self.compressed {
            return self.bytes.read_at(at + within, buffer);
        }
        let marker = read_vec(self.bytes.as_ref(), at, 12)?;
        let (sector, len) = (le64(&marker, 0), u64::from(le32(&marker, 8)));
        if sector != number * (self.grain_bytes / SECTOR) {
            return Err(Error::Refused(format!("the grain at {at} says it belongs to sector {sector}")));
        }
        // Deflate makes nothing longer than by some bytes; qemu allows twice as much.
        if len == 0 || len > self.grain_bytes * 2 {
            return Err(Error::corrupt(format!("the grain at {at} has {len} compressed bytes")));
        }
        let packed = read_vec(self.bytes.as_ref(), at + 12, usize::try_from(len).unwrap_or(usize::MAX))?;
        let whole = usize::try_from(self.grain_bytes).unwrap_or(usize::MAX);
        // The disk's last grain may be shorter than the others.
        let least = self.grain_bytes.min(self.size - number * self.grain_bytes);
        INFLATE.with_borrow_mut(|(inflater, kept)| {
            let direct = buffer.len() == whole;
            kept.resize(whole, 0);
            let into: &mut [u8] = if direct { &mut *buffer } else { kept.as_mut_slice() };
            let given = inflater
                .zlib_decompress(&packed, into)
                .map_err(|error| Error::corrupt(format!("the compressed grain at {at}: {error}")))?;
            if (given as u64) < least {
                return Err(Error::corrupt(format!("the grain at {at} gives {given} bytes instead of {least}")));
            }
            into[given..].fill(0);
            if !direct {
                let from = usize::try_from(within).unwrap_or(0);
                buffer.copy_from_slice(&kept[from..from + buffer.len()]);
            }
            Ok(())
        })
    }
}

thread_local! {
    static INFLATE: RefCell<(libdeflater::Decompressor, Vec<u8>)> =
        RefCell::new((libdeflater::Decompressor::new(), Vec::new()));
}

/// The footer of a stream: the header again, with the directory's place.
fn footer(bytes: &dyn Bytes, header: Header) -> Result<Header> {
    let tail = bytes.len().checked_sub(3 * SECTOR).ok_or_else(|| Error::corrupt("the VMDK ends before its footer"))?;
    let raw = read_vec(bytes, tail, 1536)?;
    let is_marker = |at: usize, kind: u32| le32(&raw, at + 8) == 0 && le32(&raw, at + 12) == kind;
    if !is_marker(0, MARKER_FOOTER) || !is_marker(1024, MARKER_END) || le64(&raw, 1024) != 0 {
        return Err(Error::corrupt("the VMDK ends early: its last three sectors are no footer"));
    }
    let footer = Header::parse(&raw[512..1024])?;
    let mut expected = header;
    expected.directory_at = footer.directory_at;
    if footer != expected || footer.directory_at == AT_END {
        return Err(Error::Refused("the VMDK's header and its footer say different things".to_owned()));
    }
    Ok(footer)
}

fn check_descriptor(bytes: &dyn Bytes, header: &Header) -> Result<()> {
    let len = header.descriptor_sectors.saturating_mul(SECTOR);
    if header.descriptor_at == 0 || len == 0 {
        return Err(Error::Unsupported {
            what: "a VMDK without a descriptor (a part of a split disk)".to_owned(),
            next_step: "export the machine as OVA: that writes one file".to_owned(),
        });
    }
    if len > descriptor::BYTES_MAX {
        return Err(Error::Refused(format!("a VMDK's descriptor of {len} bytes; read are {}", descriptor::BYTES_MAX)));
    }
    let at = header.descriptor_at.saturating_mul(SECTOR);
    let parsed = descriptor::parse(&read_vec(bytes, at, usize::try_from(len).unwrap_or(0))?)?;
    if !matches!(parsed.create_type.as_str(), "monolithicSparse" | "streamOptimized") {
        return Err(Error::Refused(format!(
            "a VMDK of type '{}' keeps its disk in other files; read are monolithicSparse and streamOptimized",
            parsed.create_type.escape_debug()
        )));
    }
    match parsed.extents.as_slice() {
        [one] if one.kind == ExtentKind::Sparse && one.sectors == header.capacity && one.offset == 0 => Ok(()),
        [one] if one.kind == ExtentKind::Sparse => Err(Error::Refused(format!(
            "the VMDK's descriptor says {} sectors, its header {}",
            one.sectors, header.capacity
        ))),
        [_] => Err(Error::Refused("the VMDK's descriptor names a flat extent: another file".to_owned())),
        all => Err(Error::Refused(format!("the VMDK's descriptor names {} extents instead of itself", all.len()))),
    }
}

impl Disk for Sparse {
    fn size(&self) -> u64 {
        self.size
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (table_bytes, rest) = (self.grain_bytes * TABLE_ENTRIES, self.size.saturating_sub(offset));
        let mut number = offset / self.grain_bytes;
        let Some(table) = self.table(number)? else {
            return Ok(Extent { kind: Kind::Zero, len: (table_bytes - offset % table_bytes).min(rest) });
        };
        let last = number / TABLE_ENTRIES * TABLE_ENTRIES + TABLE_ENTRIES;
        let data = self.grain(Some(&table), number)?.is_some();
        number += 1;
        while number < last && self.grain(Some(&table), number)?.is_some() == data {
            number += 1;
        }
        let kind = if data { Kind::Data } else { Kind::Zero };
        Ok(Extent { kind, len: (number * self.grain_bytes - offset).min(rest) })
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size) {
            return Err(Error::corrupt(format!("{offset} is beyond the disk's end at {}", self.size)));
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (number, within) = (at / self.grain_bytes, at % self.grain_bytes);
            let rest = usize::try_from(self.grain_bytes - within).unwrap_or(usize::MAX);
            let end = done + rest.min(buffer.len() - done);
            let table = self.table(number)?;
            match self.grain(table.as_ref(), number)? {
                None => buffer[done..end].fill(0),
                Some(place) => self.read_grain(number, place, within, &mut buffer[done..end])?,
            }
            done = end;
        }
        Ok(())
    }
    fn piece_bytes(&self) -> u64 {
        self.grain_bytes
    }
}
