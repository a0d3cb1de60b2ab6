//! Microsoft's second format, of Hyper-V: a table of blocks, everything doubled and checksummed, and a log.
//!
//! ```text
//! 0 identifier | 64 KiB header | 128 KiB header | 192 KiB regions | 256 KiB regions | 1 MiB log, metadata, BAT, blocks
//! ```
//! Read are fixed and dynamic ones; a log that was not yet replayed is replayed in memory, the file is not touched. A
//! differencing one names a parent and is refused. Written are dynamic ones, in order. Specification: MS-VHDX.

mod log;
mod read;
mod write;

pub(super) use read::open;
pub(super) use write::write;

const MIB: u64 = 1 << 20;
const KIB64: u64 = 64 << 10;
const HEADER_BYTES: usize = 4096;
const REGIONS_BYTES: usize = 64 << 10;
const REGIONS_AT: [u64; 2] = [3 * KIB64, 4 * KIB64];
const HEADERS_AT: [u64; 2] = [KIB64, 2 * KIB64];
const TABLE_ENTRIES_MAX: u32 = 2047;
const BLOCK_FULL: u64 = 6;

type Guid = [u8; 16];

/// As it is printed to as it is stored: the first three parts are turned round.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> Guid {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

const REGION_BAT: Guid = guid(0x2dc2_7766, 0xf623, 0x4200, [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08]);
const REGION_METADATA: Guid = guid(0x8b7c_a206, 0x4790, 0x4b9a, [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e]);
const FILE_PARAMETERS: Guid = guid(0xcaa1_6737, 0xfa36, 0x4d43, [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b]);
const VIRTUAL_SIZE: Guid = guid(0x2fa5_4224, 0xcd1b, 0x4876, [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8]);
const PAGE_83: Guid = guid(0xbeca_12ab, 0xb2e6, 0x4523, [0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46]);
const LOGICAL_SECTOR: Guid = guid(0x8141_bf1d, 0xa96f, 0x4709, [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f]);
const PHYSICAL_SECTOR: Guid = guid(0xcda3_48c7, 0x445d, 0x4471, [0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56]);
const PARENT_LOCATOR: Guid = guid(0xa8d3_5f2d, 0xb30b, 0x454d, [0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c]);

/// CRC-32C of a structure whose own field, the four bytes at 4, counts as zeros.
fn checksum(bytes: &[u8]) -> u32 {
    let start = crc32c::crc32c(&bytes[..4]);
    crc32c::crc32c_append(crc32c::crc32c_append(start, &[0; 4]), &bytes[8..])
}

/// Payload blocks for each entry of a sector bitmap in between.
const fn chunk_ratio(sector_bytes: u64, block_bytes: u64) -> u64 {
    (1 << 23) * sector_bytes / block_bytes
}
