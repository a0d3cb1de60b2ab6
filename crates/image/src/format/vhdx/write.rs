//! The writer: dynamic, in order. Where blocks are stands before them, so the disk is read once for its map.

use super::{
    BLOCK_FULL, FILE_PARAMETERS, Guid, HEADER_BYTES, HEADERS_AT, LOGICAL_SECTOR, MIB, PAGE_83, PHYSICAL_SECTOR,
    REGION_BAT, REGION_METADATA, REGIONS_AT, REGIONS_BYTES, VIRTUAL_SIZE, checksum, chunk_ratio,
};
use crate::blocks::Walk;
use crate::convert::{Options, Progress, Report};
use crate::format::shared::{Mark, Survey, changed, not_empty, sectored_size};
use crate::{Disk, Error, Out, Result};

const SECTOR: u64 = 512;
/// The largest disk of this format.
const BYTES_MAX: u64 = 64 << 40;
const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 2 * MIB;
const TABLE_AT: u64 = 3 * MIB;
/// What the map is in: the smallest block.
const UNIT_BYTES: usize = 1 << 20;
const BLOCK_BYTES_MAX: u64 = 32 * MIB;

fn put(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..at + with.len()].copy_from_slice(with);
}

fn seal(bytes: &mut [u8]) {
    let sum = checksum(bytes);
    put(bytes, 4, &sum.to_le_bytes());
}

fn identifier() -> Vec<u8> {
    let mut bytes = b"vhdxfile".to_vec();
    bytes.extend("skein".encode_utf16().flat_map(u16::to_le_bytes));
    bytes
}

/// The log has no id: nothing is left to be replayed.
fn header(sequence: u64, mark: &Mark) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    put(&mut bytes, 0, b"head");
    put(&mut bytes, 8, &sequence.to_le_bytes());
    put(&mut bytes, 16, &mark.uuid("file"));
    put(&mut bytes, 32, &mark.uuid("data"));
    put(&mut bytes, 66, &1u16.to_le_bytes());
    put(&mut bytes, 68, &(1u32 << 20).to_le_bytes());
    put(&mut bytes, 72, &LOG_AT.to_le_bytes());
    seal(&mut bytes);
    bytes
}

fn regions(table_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; REGIONS_BYTES];
    put(&mut bytes, 0, b"regi");
    put(&mut bytes, 8, &2u32.to_le_bytes());
    for (n, (id, at, len)) in
        [(REGION_BAT, TABLE_AT, table_bytes), (REGION_METADATA, METADATA_AT, MIB)].into_iter().enumerate()
    {
        let len = u32::try_from(len).map_err(|_| Error::Usage("the VHDX's block table is too large".to_owned()))?;
        put(&mut bytes, 16 + n * 32, &id);
        put(&mut bytes, 32 + n * 32, &at.to_le_bytes());
        put(&mut bytes, 40 + n * 32, &len.to_le_bytes());
        put(&mut bytes, 44 + n * 32, &1u32.to_le_bytes());
    }
    seal(&mut bytes);
    Ok(bytes)
}

fn metadata(size: u64, block_bytes: u64, mark: &Mark) -> Vec<u8> {
    // Required, and those but the first belong to the disk.
    let (file, disk) = (4u32, 6u32);
    let items: [(Guid, u32, Vec<u8>); 5] = [
        (FILE_PARAMETERS, file, block_bytes.to_le_bytes().to_vec()),
        (VIRTUAL_SIZE, disk, size.to_le_bytes().to_vec()),
        (PAGE_83, disk, mark.uuid("page 83").to_vec()),
        (LOGICAL_SECTOR, disk, 512u32.to_le_bytes().to_vec()),
        (PHYSICAL_SECTOR, disk, 4096u32.to_le_bytes().to_vec()),
    ];
    let mut bytes = vec![0; 64 << 10];
    put(&mut bytes, 0, b"metadata");
    put(&mut bytes, 10, &5u16.to_le_bytes());
    for (n, (id, flags, value)) in items.into_iter().enumerate() {
        let (entry, offset, len) = (32 + n * 32, bytes.len(), value.len());
        put(&mut bytes, entry, &id);
        put(&mut bytes, entry + 16, &u32::try_from(offset).unwrap_or(0).to_le_bytes());
        put(&mut bytes, entry + 20, &u32::try_from(len).unwrap_or(0).to_le_bytes());
        put(&mut bytes, entry + 24, &flags.to_le_bytes());
        bytes.extend(value);
    }
    bytes
}

/// Blocks in use, in order, when a block has `units` units.
fn blocks(runs: &[(u64, u64)], units: u64) -> impl Iterator<Item = u64> {
    let mut next = 0;
    runs.iter().flat_map(move |(first, count)| {
        let (from, to) = ((first / units).max(next), (first + count - 1) / units + 1);
        next = to.max(next);
        from..to
    })
}

/// The largest block with which the file gets at most 1 % longer than with the smallest one.
fn block_bytes(survey: &Survey) -> u64 {
    let most = survey.blocks() * MIB / 100 * 101;
    let fits = |bytes: &u64| blocks(&survey.runs, bytes / MIB).count() as u64 * bytes <= most;
    let sizes = std::iter::successors(Some(BLOCK_BYTES_MAX), |bytes| Some(bytes / 2)).take_while(|bytes| *bytes > MIB);
    sizes.into_iter().find(fits).unwrap_or(MIB)
}

pub(in crate::format) fn write(
    disk: &dyn Disk,
    out: &mut Out<'_>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report> {
    let size = sectored_size(disk, options)?;
    not_empty("VHDX", size)?;
    if size > BYTES_MAX {
        return Err(Error::Usage(format!("a VHDX holds at most 64 TiB, this disk has {size} bytes")));
    }
    let survey = Survey::of("vhdx", disk, UNIT_BYTES, options, progress)?;
    let block_bytes = if survey.runs.is_empty() { BLOCK_BYTES_MAX } else { block_bytes(&survey) };
    let ratio = chunk_ratio(SECTOR, block_bytes);
    let count = size.div_ceil(block_bytes);
    let table_bytes = ((count + (count - 1) / ratio) * 8).next_multiple_of(MIB);
    let data_at = TABLE_AT + table_bytes;

    out.write_at(0, &identifier())?;
    for (at, sequence) in HEADERS_AT.into_iter().zip([1, 2]) {
        out.write_at(at, &header(sequence, &survey.mark))?;
    }
    for at in REGIONS_AT {
        out.write_at(at, &regions(table_bytes)?)?;
    }
    out.write_at(METADATA_AT, &metadata(size, block_bytes, &survey.mark))?;
    let used = write_table(out, &survey, block_bytes, data_at)?;
    write_blocks(disk, out, (options, progress), &survey, (block_bytes, data_at))?;
    let bytes = data_at + used * block_bytes;
    out.finish(bytes)?;
    Ok(Report { bytes, virtual_bytes: size, data_bytes: survey.blocks() * MIB })
}

/// The block table, its parts that are not all zero. How many blocks are in use?
fn write_table(out: &mut Out<'_>, survey: &Survey, block_bytes: u64, data_at: u64) -> Result<u64> {
    const PART: u64 = 1 << 16;
    let ratio = chunk_ratio(SECTOR, block_bytes);
    let (mut part, mut part_at, mut used) = (vec![0; 1 << 16], None, 0);
    for number in blocks(&survey.runs, block_bytes / MIB) {
        let at = (number + number / ratio) * 8;
        if part_at != Some(at / PART * PART) {
            if let Some(part_at) = part_at {
                out.write_at(TABLE_AT + part_at, &part)?;
            }
            part.fill(0);
            part_at = Some(at / PART * PART);
        }
        let entry = (data_at + used * block_bytes) | BLOCK_FULL;
        put(&mut part, usize::try_from(at % PART).unwrap_or(0), &entry.to_le_bytes());
        used += 1;
    }
    if let Some(part_at) = part_at {
        out.write_at(TABLE_AT + part_at, &part)?;
    }
    Ok(used)
}

fn write_blocks(
    disk: &dyn Disk,
    out: &mut Out<'_>,
    (options, progress): (&Options, &dyn Progress),
    survey: &Survey,
    (block_bytes, data_at): (u64, u64),
) -> Result<()> {
    let units = block_bytes / MIB;
    let mut expected = survey.runs.iter().flat_map(|(first, count)| *first..*first + *count);
    let (mut block, mut index) = (None, 0u64);
    let walk = Walk { disk, block_bytes: UNIT_BYTES, threads: options.threads, progress };
    walk.run(
        || (),
        |(), _, bytes| Ok(bytes.to_vec()),
        |number, bytes| {
            if expected.next() != Some(number) {
                return Err(changed());
            }
            if block.is_some_and(|block| block != number / units) {
                index += 1;
            }
            block = Some(number / units);
            out.write_at(data_at + index * block_bytes + number % units * MIB, &bytes)
        },
    )?;
    if expected.next().is_some() { Err(changed()) } else { Ok(()) }
}
