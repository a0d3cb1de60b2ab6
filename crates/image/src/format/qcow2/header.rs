//! The header: everything that decides whether an image is read at all.

use super::{COMPRESSION_BIT, CORRUPT_BIT, Codec, DATA_FILE_BIT, EXTENDED_BIT, MAGIC};
use crate::bytes::{field, read_vec};
use crate::{Budget, Bytes, Error, Result};

const V2_BYTES: u64 = 72;
const V3_BYTES: u64 = 104;
/// What QEMU refuses beyond.
const L1_BYTES_MAX: u64 = 32 << 20;
const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
const RAW_DATA_FILE_AUTOCLEAR_BIT: u64 = 1 << 1;
const SNAPSHOTS_MAX: u64 = 65_536;

/// What the reader needs of it, checked.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    /// Virtual size, bytes.
    pub(super) size: u64,
    pub(super) l1_at: u64,
    /// Entries.
    pub(super) l1_len: u64,
    pub(super) refcounts_at: u64,
    /// Bytes of the refcount table.
    pub(super) refcounts_bytes: u64,
    pub(super) snapshots_at: u64,
    pub(super) snapshots: u64,
    /// L2 entries of 16 bytes, clusters in 32 parts.
    pub(super) extended: bool,
    pub(super) codec: Codec,
}

impl Header {
    /// Reads and checks it.
    pub(super) fn read(bytes: &dyn Bytes, budget: &Budget) -> Result<Self> {
        let known = usize::try_from(bytes.len().min(512)).unwrap_or(512);
        let head = read_vec(bytes, 0, known)?;
        if (known as u64) < V2_BYTES || field::be32(&head, 0) != MAGIC {
            return Err(Error::corrupt("this is no qcow2 header"));
        }
        let version = field::be32(&head, 4);
        if !matches!(version, 2 | 3) {
            return Err(Error::Unsupported {
                what: format!("qcow version {version}"),
                next_step: "convert it with the program that made it to version 2 or 3".to_owned(),
            });
        }
        if version == 3 && (known as u64) < V3_BYTES {
            return Err(Error::corrupt("the file ends within its header"));
        }
        let cluster_bits = field::be32(&head, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(Error::corrupt(format!("clusters of 2^{cluster_bits} bytes: 2^9 to 2^21 are allowed")));
        }
        let (extended, codec) = features(&head, version, cluster_bits)?;
        nothing_foreign(bytes, &head)?;
        extensions(bytes, &head, version, cluster_bits)?;
        let header = Self {
            version,
            cluster_bits,
            // Disks are made of sectors; QEMU cuts the rest off too.
            size: field::be64(&head, 24) / super::SECTOR * super::SECTOR,
            l1_len: u64::from(field::be32(&head, 36)),
            l1_at: field::be64(&head, 40),
            refcounts_at: field::be64(&head, 48),
            refcounts_bytes: u64::from(field::be32(&head, 56)) << cluster_bits,
            snapshots: u64::from(field::be32(&head, 60)),
            snapshots_at: field::be64(&head, 64),
            extended,
            codec,
        };
        budget.virtual_size(header.size)?;
        header.tables(field::be64(&head, 24), bytes.len())?;
        Ok(header)
    }

    pub(super) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }
    pub(super) fn entry_bytes(&self) -> u64 {
        if self.extended { 16 } else { 8 }
    }
    /// Clusters that one L2 table tells about.
    pub(super) fn l2_len(&self) -> u64 {
        self.cluster() / self.entry_bytes()
    }
    /// Bytes of the disk that one L2 table tells about.
    pub(super) fn l2_covers(&self) -> u64 {
        self.l2_len() << self.cluster_bits
    }

    /// `size` is the header's, which need not be a number of sectors.
    fn tables(&self, size: u64, file_len: u64) -> Result<()> {
        let needed = size.div_ceil(self.l2_covers());
        if self.l1_len < needed {
            return Err(Error::corrupt(format!("the L1 table has {} entries, the size needs {needed}", self.l1_len)));
        }
        if self.refcounts_bytes == 0 {
            return Err(Error::corrupt("there is no refcount table"));
        }
        if self.snapshots > SNAPSHOTS_MAX {
            return Err(Error::corrupt(format!("{} snapshots: at most {SNAPSHOTS_MAX} are allowed", self.snapshots)));
        }
        self.table("the L1 table", self.l1_at, self.l1_len * 8, L1_BYTES_MAX, file_len)?;
        self.table("the refcount table", self.refcounts_at, self.refcounts_bytes, REFCOUNT_TABLE_BYTES_MAX, file_len)?;
        // Each has at least 40 bytes; the rest is checked where they are read.
        self.table("the snapshot table", self.snapshots_at, self.snapshots * 40, u64::MAX, file_len)
    }

    fn table(&self, what: &str, at: u64, len: u64, most: u64, file_len: u64) -> Result<()> {
        if len > most {
            return Err(Error::corrupt(format!("{what} has {len} bytes: at most {most} are allowed")));
        }
        // QEMU asks this of the place of an empty table too.
        if (at == 0 && len > 0) || !at.is_multiple_of(self.cluster()) || at > i64::MAX as u64 {
            return Err(Error::corrupt(format!("{what} stands at {at}, which is no cluster of its own")));
        }
        if at.checked_add(len).is_none_or(|end| end > file_len) {
            return Err(Error::corrupt(format!(
                "{what} ({len} bytes at {at}) ends beyond the file's {file_len} bytes"
            )));
        }
        Ok(())
    }
}

fn header_len(head: &[u8], version: u32, cluster_bits: u32) -> Result<u64> {
    if version == 2 {
        return Ok(V2_BYTES);
    }
    let len = u64::from(field::be32(head, 100));
    if !(V3_BYTES..=1 << cluster_bits).contains(&len) || !len.is_multiple_of(8) {
        return Err(Error::corrupt(format!("a header of {len} bytes")));
    }
    Ok(len)
}

/// Extended L2 entries, and the compression.
fn features(head: &[u8], version: u32, cluster_bits: u32) -> Result<(bool, Codec)> {
    let header_len = header_len(head, version, cluster_bits)?;
    if version == 2 {
        return Ok((false, Codec::Deflate));
    }
    let bits = field::be64(head, 72);
    if bits & CORRUPT_BIT != 0 {
        return Err(Error::Refused(
            "the image is marked as damaged by the program that wrote it: repair a copy (qemu-img check -r all)"
                .to_owned(),
        ));
    }
    if bits & DATA_FILE_BIT != 0 {
        return Err(foreign("keeps its data in another file (external data file)"));
    }
    let unknown = bits & !0b1_1111;
    if unknown != 0 {
        return Err(Error::Unsupported {
            what: format!("the qcow2 feature of incompatible bit {}", unknown.trailing_zeros()),
            next_step: "convert it with the program that made it, without that feature".to_owned(),
        });
    }
    if field::be64(head, 88) & RAW_DATA_FILE_AUTOCLEAR_BIT != 0 {
        return Err(Error::corrupt("it says how its data file is kept, and that it has none"));
    }
    let refcount_order = field::be32(head, 96);
    if refcount_order > 6 {
        return Err(Error::corrupt(format!("refcounts of 2^{refcount_order} bits: at most 2^6 are allowed")));
    }
    let extended = bits & EXTENDED_BIT != 0;
    if extended && cluster_bits < 14 {
        return Err(Error::corrupt("extended L2 entries need clusters of at least 16 KiB"));
    }
    let kind = if header_len > V3_BYTES { head.get(104).copied().unwrap_or(0) } else { 0 };
    match (kind, bits & COMPRESSION_BIT != 0) {
        (0, false) => Ok((extended, Codec::Deflate)),
        (1, true) => Ok((extended, Codec::Zstd)),
        (0 | 1, _) => Err(Error::corrupt("the compression type and its feature bit contradict each other")),
        (other, _) => Err(Error::Unsupported {
            what: format!("the compression type {other} of qcow2"),
            next_step: "convert it with -o compression_type=zlib or zstd".to_owned(),
        }),
    }
}

/// Nothing outside the file is needed, and no key.
fn nothing_foreign(bytes: &dyn Bytes, head: &[u8]) -> Result<()> {
    let (at, len) = (field::be64(head, 8), field::be32(head, 16));
    if at != 0 {
        let len = usize::try_from(len.min(200)).unwrap_or(200);
        let name = read_vec(bytes, at, len).unwrap_or_default();
        return Err(foreign(&format!("is a layer over another file ({:?})", String::from_utf8_lossy(&name))));
    }
    match field::be32(head, 32) {
        0 => Ok(()),
        method => Err(Error::Unsupported {
            what: format!("an encrypted qcow2 (method {method})"),
            next_step: "decrypt it with the program that has the key (qemu-img convert)".to_owned(),
        }),
    }
}

fn foreign(what: &str) -> Error {
    Error::Refused(format!(
        "the image {what}, and nothing that an image names is opened: flatten it where it was made (qemu-img convert)"
    ))
}

/// Goes over the header's extensions: what they ask for is refused, what they only tell is skipped.
fn extensions(bytes: &dyn Bytes, head: &[u8], version: u32, cluster_bits: u32) -> Result<()> {
    const END: u32 = 0;
    const DATA_FILE: u32 = 0x4441_5441;
    const ENCRYPTION: u32 = 0x0537_be77;
    let end = (1u64 << cluster_bits).min(bytes.len());
    let mut at = header_len(head, version, cluster_bits)?;
    while at + 8 <= end {
        let extension = read_vec(bytes, at, 8)?;
        let (kind, len) = (field::be32(&extension, 0), u64::from(field::be32(&extension, 4)));
        at += 8;
        if len > end - at {
            return Err(Error::corrupt(format!(
                "the header extension {kind:#x} ({len} bytes) ends beyond its cluster"
            )));
        }
        match kind {
            END => return Ok(()),
            DATA_FILE => return Err(foreign("names another file for its data")),
            ENCRYPTION => return Err(Error::corrupt("a header of an encryption without an encryption")),
            _ => {}
        }
        at += len.next_multiple_of(8);
    }
    Ok(())
}
