//! GPT: what the UEFI specification says of both headers. It is asked of every raw disk whose size a cloud rounds up,
//! as the second header has to move then.

use anyhow::Result;

use crate::Findings;
use crate::input::{le32, le64};

const SECTOR: u64 = 512;

struct Header {
    bytes: Vec<u8>,
    other: u64,
    first_usable: u64,
    last_usable: u64,
    entries_at: u64,
    entries: Vec<u8>,
}

/// A disk of `size` bytes; `read` gives bytes of it.
pub(crate) fn check(size: u64, read: &dyn Fn(u64, u64) -> Result<Vec<u8>>, found: &mut Findings) {
    let Ok(mbr) = read(0, SECTOR) else { return };
    let types: Vec<u8> = (0..4).map(|n| mbr[446 + n * 16 + 4]).collect();
    if mbr[510..] != [0x55, 0xaa] || !types.contains(&0xee) {
        return;
    }
    let last = size / SECTOR - 1;
    let Some(first) = header(1, read).map_err(|why| found.broken("gpt.primary", why)).ok() else { return };
    let reaches = first.other == last;
    found.expect("gpt.backup-at-end", reaches, || {
        format!("the first header names sector {} for the second; the disk's last is {last}", first.other)
    });
    let Ok(second) = header(last, read) else {
        return found.broken("gpt.backup-at-end", format!("the disk's last sector, {last}, holds no good header"));
    };
    let usable = first.last_usable < second.entries_at && second.last_usable == first.last_usable;
    found.expect("gpt.last-usable", usable, || {
        format!("last usable {} and {}, entries at {}", first.last_usable, second.last_usable, second.entries_at)
    });
    let same = first.entries == second.entries
        && first.bytes[56..72] == second.bytes[56..72]
        && first.first_usable == second.first_usable
        && second.other == 1;
    found.expect("gpt.copies-agree", same, || "the two headers or their entries tell of different disks".to_owned());
    for entry in first.entries.chunks(128).filter(|entry| !crate::input::is_zero(&entry[..16])) {
        let (from, to) = (le64(entry, 32), le64(entry, 40));
        found.expect("gpt.partitions", from >= first.first_usable && from <= to && to <= first.last_usable, || {
            format!("a partition from {from} to {to}, usable are {} to {}", first.first_usable, first.last_usable)
        });
    }
}

fn header(sector: u64, read: &dyn Fn(u64, u64) -> Result<Vec<u8>>) -> std::result::Result<Header, String> {
    let bytes = read(sector * SECTOR, SECTOR).map_err(|error| error.to_string())?;
    let len = usize::try_from(le32(&bytes, 12)).unwrap_or(usize::MAX);
    if !bytes.starts_with(b"EFI PART") || !(92..=512).contains(&len) {
        return Err(format!("no header in sector {sector}"));
    }
    let mut zeroed = bytes[..len].to_vec();
    zeroed[16..20].fill(0);
    if crc32(&zeroed) != le32(&bytes, 16) {
        return Err(format!("the checksum of the header in sector {sector} is wrong"));
    }
    let (entries_at, count, size) = (le64(&bytes, 72), le32(&bytes, 80), le32(&bytes, 84));
    let entries = read(entries_at.saturating_mul(SECTOR), u64::from(count) * u64::from(size));
    let entries = entries.map_err(|error| error.to_string())?;
    if size != 128 || crc32(&entries) != le32(&bytes, 88) {
        return Err(format!("the checksum of the entries of sector {sector} is wrong"));
    }
    let [own, other, first_usable, last_usable] = [24, 32, 40, 48].map(|at| le64(&bytes, at));
    if own != sector {
        return Err(format!("the header in sector {sector} says that it is in {own}"));
    }
    Ok(Header { bytes, other, first_usable, last_usable, entries_at, entries })
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
