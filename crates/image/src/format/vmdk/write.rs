//! streamOptimized, in order. What ESX and AWS are known to refuse in other writers' files is avoided: version 3, the
//! descriptor inside, grains from sector 128 on, a table after its grains, no redundant directory, a footer.

use super::{
    AT_END, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINES, MARKER_DIRECTORY, MARKER_END, MARKER_FOOTER, MARKER_TABLE,
    SECTOR, TABLE_ENTRIES,
};
use crate::blocks::Walk;
use crate::convert::{Options, Progress, Report};
use crate::format::shared::{compressor, not_empty, sampled_mark, sectored_size};
use crate::{Disk, Error, Out, Result};

const GRAIN_BYTES: usize = 1 << 16;
const GRAIN_SECTORS: u64 = GRAIN_BYTES as u64 / SECTOR;
const DESCRIPTOR_SECTORS: u64 = 20;
/// Sectors before the first grain.
const OVERHEAD: u64 = 128;

fn header(capacity: u64, directory_at: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"KDMV");
    put(4, &3u32.to_le_bytes());
    put(8, &(FLAG_NEWLINES | FLAG_COMPRESSED | FLAG_MARKERS).to_le_bytes());
    put(12, &capacity.to_le_bytes());
    put(20, &GRAIN_SECTORS.to_le_bytes());
    put(28, &1u64.to_le_bytes());
    put(36, &DESCRIPTOR_SECTORS.to_le_bytes());
    put(44, &[0, 2, 0, 0]);
    put(56, &directory_at.to_le_bytes());
    put(64, &OVERHEAD.to_le_bytes());
    put(73, b"\n \r\n");
    put(77, &1u16.to_le_bytes());
    header
}

/// The text. The content id is the last part of the long one, as `VMware`'s own tools have it.
fn descriptor(capacity: u64, id: [u8; 16]) -> String {
    let long = id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    // 255 heads and 63 sectors are what BIOSes of machines with SCSI disks show.
    let cylinders = (capacity / (255 * 63)).clamp(1, 65_535);
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={}\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
         # Extent description\nRW {capacity} SPARSE \"disk.vmdk\"\n\n\
         # The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.encoding = \"UTF-8\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\n\
         ddb.longContentID = \"{long}\"\nddb.toolsInstallType = \"4\"\nddb.toolsVersion = \"2147483647\"\n\
         ddb.virtualHWVersion = \"13\"\n",
        &long[24..]
    )
}

/// A sector that says what follows: `value` sectors of it.
fn marker(value: u64, kind: u32) -> [u8; 512] {
    let mut marker = [0; 512];
    marker[..8].copy_from_slice(&value.to_le_bytes());
    marker[12..16].copy_from_slice(&kind.to_le_bytes());
    marker
}

struct Stream<'a, 'b> {
    out: &'a mut Out<'b>,
    /// Sector that is written next.
    sector: u64,
    /// The table that grains are noted in, its number, and whether it holds one.
    table: Vec<u32>,
    number: u64,
    used: bool,
    directory: Vec<u32>,
}

impl Stream<'_, '_> {
    /// Whole sectors.
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_at(self.sector * SECTOR, bytes)?;
        self.sector += bytes.len() as u64 / SECTOR;
        Ok(())
    }
    fn here(&self) -> Result<u32> {
        u32::try_from(self.sector).map_err(|_| {
            Error::Usage("a streamOptimized VMDK of over 2 TiB cannot be: write another format".to_owned())
        })
    }
    fn grain(&mut self, number: u64, packed: &[u8]) -> Result<()> {
        if number / TABLE_ENTRIES != self.number {
            self.end_table()?;
            self.number = number / TABLE_ENTRIES;
        }
        let here = self.here()?;
        if let Some(entry) = usize::try_from(number % TABLE_ENTRIES).ok().and_then(|n| self.table.get_mut(n)) {
            *entry = here;
        }
        self.used = true;
        self.put(packed)
    }
    fn end_table(&mut self) -> Result<()> {
        if !self.used {
            return Ok(());
        }
        let raw: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        self.put(&marker(raw.len() as u64 / SECTOR, MARKER_TABLE))?;
        let here = self.here()?;
        if let Some(entry) = usize::try_from(self.number).ok().and_then(|n| self.directory.get_mut(n)) {
            *entry = here;
        }
        self.put(&raw)?;
        self.table.fill(0);
        self.used = false;
        Ok(())
    }
    fn end(mut self, capacity: u64) -> Result<u64> {
        self.end_table()?;
        let mut raw: Vec<u8> = self.directory.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        raw.resize(raw.len().next_multiple_of(512), 0);
        self.put(&marker(raw.len() as u64 / SECTOR, MARKER_DIRECTORY))?;
        let directory_at = self.sector;
        self.put(&raw)?;
        self.put(&marker(1, MARKER_FOOTER))?;
        self.put(&header(capacity, directory_at))?;
        self.put(&marker(0, MARKER_END))?;
        let bytes = self.sector * SECTOR;
        self.out.finish(bytes)?;
        Ok(bytes)
    }
}

pub(in crate::format) fn write(
    disk: &dyn Disk,
    out: &mut Out<'_>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report> {
    let size = sectored_size(disk, options)?;
    not_empty("VMDK", size)?;
    let capacity = size / SECTOR;
    let tables = usize::try_from(size.div_ceil(GRAIN_BYTES as u64 * TABLE_ENTRIES)).unwrap_or(usize::MAX);
    let id = sampled_mark("vmdk", disk, size)?.uuid("content");
    let table = vec![0; usize::try_from(TABLE_ENTRIES).unwrap_or(512)];
    let mut stream = Stream { out, sector: 0, table, number: 0, used: false, directory: vec![0; tables] };
    stream.put(&header(capacity, AT_END))?;
    let mut text = descriptor(capacity, id).into_bytes();
    text.resize(usize::try_from((OVERHEAD - 1) * SECTOR).unwrap_or(0), 0);
    stream.put(&text)?;
    let mut data_bytes = 0;
    let walk = Walk { disk, block_bytes: GRAIN_BYTES, threads: options.threads, progress };
    walk.run(
        || compressor(options.effort),
        pack,
        |number, packed| {
            data_bytes += GRAIN_BYTES as u64;
            stream.grain(number, &packed)
        },
    )?;
    let bytes = stream.end(capacity)?;
    Ok(Report { bytes, virtual_bytes: size, data_bytes })
}

/// A grain as it stands in the file: its first sector on the disk, its length, zlib, zeros up to a whole sector.
fn pack(compressor: &mut libdeflater::Compressor, number: u64, grain: &[u8]) -> Result<Vec<u8>> {
    let mut packed = vec![0; 12 + compressor.zlib_compress_bound(grain.len())];
    let len = compressor
        .zlib_compress(grain, &mut packed[12..])
        .map_err(|error| Error::Usage(format!("compressing: {error}")))?;
    packed[..8].copy_from_slice(&(number * GRAIN_SECTORS).to_le_bytes());
    packed[8..12].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    packed.truncate(12 + len);
    packed.resize(packed.len().next_multiple_of(512), 0);
    Ok(packed)
}
