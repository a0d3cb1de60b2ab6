//! A GPT made to fit a larger disk. Clouds want whole MiB or GiB; the second header has to be in the disk's last sector
//! (UEFI specification 2.10, 5.3.2), or firmware and tools call the table damaged.
//!
//! ```text
//! before:  MBR  header 1  entries | partitions ... | entries  header 2
//! after:   MBR' header 1' entries | partitions ... | zeros    zeros ...... entries  header 2'
//! ```
//! What is not a sound GPT of 512-byte sectors stays as it is: nothing here repairs.

use crate::bytes::field::{le32, le64};
use crate::{Disk, Error, Extent, Kind, Result};

const SECTOR: u64 = 512;
const SECTOR_LEN: usize = 512;
/// Longest table of entries, bytes: 64 times as long as usual.
const ENTRIES_BYTES_MAX: u64 = 1 << 20;
/// Places within a header.
const AT_CRC: usize = 16;
const AT_OWN: usize = 24;
const AT_OTHER: usize = 32;
const AT_LAST_USABLE: usize = 48;
const AT_ENTRIES: usize = 72;
/// Place of the first partition's fields in the MBR, bytes each has, and its kind in a GPT's.
const AT_MBR: usize = 446;
const MBR_LEN: usize = 16;
const PROTECTIVE: u8 = 0xee;

/// A disk of another size, with some of its bytes replaced.
pub(crate) struct Moved<'a> {
    disk: &'a dyn Disk,
    size: u64,
    /// Where, and what stands there now. A later one counts before an earlier one.
    patches: Vec<(u64, Vec<u8>)>,
}

/// The disk with `size` bytes and its GPT fitted to them; none when there is nothing to be done.
pub(crate) fn moved(disk: &dyn Disk, size: u64) -> Result<Option<Moved<'_>>> {
    if size <= disk.size() || disk.size() < 3 * SECTOR {
        return Ok(None);
    }
    let mut mbr = vec![0; SECTOR_LEN];
    disk.read_at(0, &mut mbr)?;
    let kind = |n: usize| mbr[AT_MBR + n * MBR_LEN + 4];
    let Some(protective) = (0..4).find(|n| mbr[510..] == [0x55, 0xaa] && kind(*n) == PROTECTIVE) else {
        return Ok(None);
    };
    let Some(old) = Table::read(disk)? else { return Ok(None) };
    let last = size / SECTOR - 1;
    let Some(entries_at) = last.checked_sub(old.entries.len() as u64 / SECTOR) else { return Ok(None) };
    if old.last_used() >= entries_at || le64(&old.header, AT_OTHER) >= last {
        return Ok(None);
    }
    let mut patches = old.second(disk)?;
    let at = AT_MBR + protective * MBR_LEN + 12;
    // As long as the disk, or as long as can be said.
    let sectors = u32::try_from(last).unwrap_or(u32::MAX);
    mbr[at..at + 4].copy_from_slice(&sectors.to_le_bytes());
    patches.push((0, mbr));
    let mut first = old.header.clone();
    put(&mut first, AT_OTHER, last);
    put(&mut first, AT_LAST_USABLE, entries_at - 1);
    let mut second = first.clone();
    put(&mut second, AT_OWN, last);
    put(&mut second, AT_OTHER, 1);
    put(&mut second, AT_ENTRIES, entries_at);
    seal(&mut first);
    seal(&mut second);
    patches.extend([(SECTOR, first), (entries_at * SECTOR, old.entries), (last * SECTOR, second)]);
    Ok(Some(Moved { disk, size, patches }))
}

/// The table at the disk's beginning.
struct Table {
    /// A whole sector.
    header: Vec<u8>,
    /// Whole sectors.
    entries: Vec<u8>,
    entry_len: usize,
}

impl Table {
    /// None when it is not sound.
    fn read(disk: &dyn Disk) -> Result<Option<Self>> {
        let mut header = vec![0; SECTOR_LEN];
        disk.read_at(SECTOR, &mut header)?;
        let mut sealed = header.clone();
        if !header.starts_with(b"EFI PART") || !seal(&mut sealed) || sealed != header || le64(&header, AT_OWN) != 1 {
            return Ok(None);
        }
        let (at, count, entry_len) = (le64(&header, AT_ENTRIES), u64::from(le32(&header, 80)), le32(&header, 84));
        let len = count * u64::from(entry_len);
        let end = at.checked_mul(SECTOR).and_then(|at| at.checked_add(len.next_multiple_of(SECTOR)));
        if !(128..=4096).contains(&entry_len) || len > ENTRIES_BYTES_MAX || end.is_none_or(|end| end > disk.size()) {
            return Ok(None);
        }
        let whole = |bytes: u64| usize::try_from(bytes).map_err(|_| Error::corrupt("the GPT's entries are too many"));
        let mut entries = vec![0; whole(len.next_multiple_of(SECTOR))?];
        disk.read_at(at * SECTOR, &mut entries)?;
        let sound = libdeflater::crc32(&entries[..whole(len)?]) == le32(&header, 88);
        Ok(sound.then_some(Self { header, entries, entry_len: whole(entry_len.into())? }))
    }

    /// The last sector that a partition has.
    fn last_used(&self) -> u64 {
        let used = self.entries.chunks_exact(self.entry_len).filter(|entry| entry[..16] != [0; 16]);
        used.map(|entry| le64(entry, 40)).max().unwrap_or(0)
    }

    /// Zeros for the second header and its entries, which are in use no more: when they are really there, and where no
    /// partition can be.
    fn second(&self, disk: &dyn Disk) -> Result<Vec<(u64, Vec<u8>)>> {
        let (at, usable) = (le64(&self.header, AT_OTHER), le64(&self.header, AT_LAST_USABLE));
        let end = at.checked_add(1).and_then(|end| end.checked_mul(SECTOR));
        if at <= usable || end.is_none_or(|end| end > disk.size()) {
            return Ok(Vec::new());
        }
        let mut header = vec![0; SECTOR_LEN];
        disk.read_at(at * SECTOR, &mut header)?;
        let entries_at = le64(&header, AT_ENTRIES);
        let beside = entries_at.checked_add(self.entries.len() as u64 / SECTOR) == Some(at);
        if !header.starts_with(b"EFI PART") || entries_at <= usable || !beside {
            return Ok(Vec::new());
        }
        Ok(vec![(entries_at * SECTOR, vec![0; self.entries.len() + SECTOR_LEN])])
    }
}

fn put(header: &mut [u8], at: usize, value: u64) {
    header[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Sets a header's checksum; false when the header's length is none.
fn seal(header: &mut [u8]) -> bool {
    let Some(len) = usize::try_from(le32(header, 12)).ok().filter(|len| (92..=SECTOR_LEN).contains(len)) else {
        return false;
    };
    header[AT_CRC..AT_CRC + 4].fill(0);
    let sum = libdeflater::crc32(&header[..len]);
    header[AT_CRC..AT_CRC + 4].copy_from_slice(&sum.to_le_bytes());
    true
}

impl Moved<'_> {
    /// What stands at `offset` without the patches.
    fn under(&self, offset: u64) -> Result<Extent> {
        if offset >= self.disk.size() {
            return Ok(Extent { kind: Kind::Zero, len: self.size.saturating_sub(offset) });
        }
        self.disk.extent_at(offset)
    }
}

impl Disk for Moved<'_> {
    fn size(&self) -> u64 {
        self.size
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let end = |patch: &(u64, Vec<u8>)| patch.0 + patch.1.len() as u64;
        let here = self.patches.iter().find(|patch| patch.0 <= offset && offset < end(patch));
        if let Some(patch) = here {
            return Ok(Extent { kind: Kind::Data, len: end(patch) - offset });
        }
        let next = self.patches.iter().map(|patch| patch.0).filter(|at| *at > offset).min();
        let under = self.under(offset)?;
        Ok(Extent { len: under.len.min(next.unwrap_or(self.size) - offset), ..under })
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        let end =
            end.ok_or_else(|| Error::corrupt(format!("bytes behind the disk's end, {}, are asked for", self.size)))?;
        let there = usize::try_from(self.disk.size().saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        if there > 0 {
            self.disk.read_at(offset, &mut buffer[..there])?;
        }
        buffer[there..].fill(0);
        for (at, bytes) in &self.patches {
            let (from, to) = (offset.max(*at), end.min(at + bytes.len() as u64));
            if from < to {
                let place = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
                buffer[place(from, offset)..place(to, offset)]
                    .copy_from_slice(&bytes[place(from, *at)..place(to, *at)]);
            }
        }
        Ok(())
    }
    fn piece_bytes(&self) -> u64 {
        self.disk.piece_bytes()
    }
}
