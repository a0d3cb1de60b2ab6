//! Partition tables: the old one (MBR) and GPT, as far as finding file systems and ways to start asks.

use crate::bytes::field::{le32, le64};
use crate::{Disk, Error, Result};

const SECTOR: u64 = 512;
const SECTOR_LEN: usize = 512;
/// Most entries of a GPT that are looked at.
const ENTRIES_MAX: u32 = 1024;
/// EFI system partition (UEFI specification 2.10, table 5.7), as stored.
const ESP: [u8; 16] = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// BIOS boot partition, GRUB's.
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// What a partition is for, as far as starting asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// UEFI firmware starts from it.
    EfiSystem,
    /// GRUB's core image for BIOS firmware.
    BiosBoot,
    /// Anything else.
    Other,
}

/// A part of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What for.
    pub purpose: Purpose,
}

/// A disk's table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// There is code in the first sector.
    pub boot_code: bool,
    /// It is a GPT.
    pub gpt: bool,
    /// The partitions; the whole disk as one where there is no table.
    pub partitions: Vec<Partition>,
}

/// Reads the table. What leaves the disk is an error: a cloud would refuse it later.
pub fn read(disk: &dyn Disk) -> Result<Table> {
    let whole = Partition { offset: 0, len: disk.size(), purpose: Purpose::Other };
    if disk.size() < 2 * SECTOR {
        return Ok(Table { partitions: vec![whole], ..Table::default() });
    }
    let mut first = [0; SECTOR_LEN];
    disk.read_at(0, &mut first)?;
    let signed = first[510..] == [0x55, 0xaa];
    let boot_code = signed && first[..440].iter().any(|b| *b != 0);
    let entries: Vec<&[u8]> = first[446..510].chunks_exact(16).filter(|entry| entry[4] != 0).collect();
    if signed && entries.iter().any(|entry| entry[4] == 0xee) {
        return Ok(Table { boot_code, gpt: true, partitions: gpt(disk)? });
    }
    let sane = |entry: &&[u8]| matches!(entry[0], 0 | 0x80) && le32(entry, 12) > 0;
    if !signed || entries.is_empty() || !entries.iter().all(sane) {
        // A file system's first sector can bear the signature too.
        return Ok(Table { boot_code, gpt: false, partitions: vec![whole] });
    }
    let partition = |entry: &&[u8]| {
        let purpose = if entry[4] == 0xef { Purpose::EfiSystem } else { Purpose::Other };
        within(disk, u64::from(le32(entry, 8)), u64::from(le32(entry, 12)), purpose)
    };
    Ok(Table { boot_code, gpt: false, partitions: entries.iter().map(partition).collect::<Result<_>>()? })
}

fn within(disk: &dyn Disk, sector: u64, sectors: u64, purpose: Purpose) -> Result<Partition> {
    let bytes = |n: u64| n.saturating_mul(SECTOR);
    let (offset, len) = (bytes(sector), bytes(sectors));
    if offset.checked_add(len).is_none_or(|end| end > disk.size()) {
        return Err(Error::corrupt(format!(
            "a partition reaches to sector {}, the disk ends at {}",
            sector.saturating_add(sectors),
            disk.size() / SECTOR
        )));
    }
    Ok(Partition { offset, len, purpose })
}

fn gpt(disk: &dyn Disk) -> Result<Vec<Partition>> {
    let mut header = [0; SECTOR_LEN];
    disk.read_at(SECTOR, &mut header)?;
    if !header.starts_with(b"EFI PART") {
        return Err(Error::corrupt("the first sector announces a GPT, the second does not hold one"));
    }
    let (at, count, size) = (le64(&header, 72), le32(&header, 80).min(ENTRIES_MAX), le32(&header, 84));
    if !(128..=1024).contains(&size) {
        return Err(Error::corrupt(format!("entries of a GPT have 128 to 1024 bytes, these {size}")));
    }
    let mut found = Vec::new();
    let mut entry = vec![0; size as usize];
    for n in 0..u64::from(count) {
        let offset = at.checked_mul(SECTOR).and_then(|at| at.checked_add(n * u64::from(size)));
        let offset = offset.ok_or_else(|| Error::corrupt("the GPT's entries leave the disk"))?;
        disk.read_at(offset, &mut entry)?;
        if entry[..16].iter().all(|b| *b == 0) {
            continue;
        }
        let purpose = match entry.first_chunk::<16>() {
            Some(kind) if *kind == ESP => Purpose::EfiSystem,
            Some(kind) if *kind == BIOS_BOOT => Purpose::BiosBoot,
            _ => Purpose::Other,
        };
        let (first, last) = (le64(&entry, 32), le64(&entry, 40));
        let sectors = last.checked_sub(first).and_then(|n| n.checked_add(1));
        found.push(within(disk, first, sectors.unwrap_or(u64::MAX), purpose)?);
    }
    Ok(found)
}
