//! VMDK, streamOptimized: Amazon's import, and the disk of an appliance.

use crate::Findings;
use crate::input::{Input, Places, is_zero, le16, le32, le64};

const SECTOR: u64 = 512;
const AT_END: u64 = u64::MAX;
const GRAIN_SECTORS: u64 = 128;
const TABLE_LEN: u64 = 512;

/// Bytes of the descriptor at most.
const DESCRIPTOR_MAX: u64 = 1 << 16;

pub(crate) fn check(input: &Input<'_>, found: &mut Findings) {
    within(input, 0, input.len, found);
}

/// A VMDK of `len` bytes at `base`. Its capacity in bytes, where that can be read.
pub(crate) fn within(input: &Input<'_>, base: u64, len: u64, found: &mut Findings) -> Option<u64> {
    let disk = Vmdk { input, base, len };
    let header = found.readable("vmdk.magic", disk.at(0, SECTOR))?;
    if !header.starts_with(b"KDMV") {
        found.broken("vmdk.magic", "it does not begin with 'KDMV'");
        return None;
    }
    fields(&header, found);
    let capacity = le64(&header, 12);
    disk.descriptor(&header, capacity, found);
    let last = disk.footer(&header, found);
    disk.tables(last.as_ref().unwrap_or(&header), capacity, found);
    capacity.checked_mul(SECTOR)
}

fn fields(header: &[u8], found: &mut Findings) {
    let (version, flags) = (le32(header, 4), le32(header, 8));
    found.expect("vmdk.version", version == 3, || format!("version {version}"));
    let wanted = 1 | 1 << 16 | 1 << 17;
    found.expect("vmdk.flags", flags & wanted == wanted, || format!("flags {flags:#x}"));
    found.expect("vmdk.newlines", header[73..77] == *b"\n \r\n", || "the bytes that tell of a text copy".to_owned());
    found.expect("vmdk.deflate", le16(header, 77) == 1, || format!("compression {}", le16(header, 77)));
    let (grain, table) = (le64(header, 20), le32(header, 44));
    found.expect("vmdk.grain", grain == GRAIN_SECTORS && u64::from(table) == TABLE_LEN, || {
        format!("grains of {grain} sectors, tables of {table}")
    });
    found.expect("vmdk.clean", header[72] == 0, || "marked as not closed".to_owned());
}

struct Vmdk<'a, 'b> {
    input: &'a Input<'b>,
    base: u64,
    len: u64,
}

impl Vmdk<'_, '_> {
    fn at(&self, offset: u64, len: u64) -> anyhow::Result<Vec<u8>> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            anyhow::bail!("{len} bytes at {offset} are not in the disk's file, which has {}", self.len);
        }
        self.input.at(self.base + offset, len)
    }

    fn descriptor(&self, header: &[u8], capacity: u64, found: &mut Findings) {
        let (at, len) = (le64(header, 28), le64(header, 36));
        let len = len.saturating_mul(SECTOR);
        let inside = at > 0 && len > 0 && len <= DESCRIPTOR_MAX;
        let read =
            if inside { self.at(at.saturating_mul(SECTOR), len) } else { Err(anyhow::anyhow!("none is inside")) };
        let Some(text) = found.readable("vmdk.descriptor", read) else { return };
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_end_matches('\0');
        let has = |line: &str| text.lines().any(|one| one.trim() == line);
        found.expect("vmdk.descriptor", text.starts_with("# Disk DescriptorFile") && has("version=1"), || {
            "it does not begin like a descriptor of version 1".to_owned()
        });
        found.expect("vmdk.no-parent", has("parentCID=ffffffff"), || "a parent is named".to_owned());
        let optimized = has("createType=\"streamOptimized\"");
        found.expect("vmdk.type", optimized, || "its type is not streamOptimized".to_owned());
        let extents: Vec<&str> =
            text.lines().filter(|line| ["RW ", "RDONLY ", "NOACCESS "].iter().any(|a| line.starts_with(a))).collect();
        let wanted = format!("RW {capacity} SPARSE \"");
        found.expect("vmdk.extent", matches!(&extents[..], [one] if one.starts_with(&wanted)), || {
            format!("extents {extents:?} for a capacity of {capacity} sectors")
        });
    }

    /// The copy of the header at the end, which says where the directory is.
    fn footer(&self, header: &[u8], found: &mut Findings) -> Option<Vec<u8>> {
        let whole = self.len.is_multiple_of(SECTOR) && self.len >= 4 * SECTOR;
        let end = if whole { self.at(self.len - 3 * SECTOR, 3 * SECTOR).ok() } else { None }?;
        let (marker, footer, eos) = (&end[..512], &end[512..1024], &end[1024..]);
        found.expect("vmdk.end-marker", is_zero(eos), || "the last sector is not all zeros".to_owned());
        let is_marker = le64(marker, 0) == 1 && le32(marker, 8) == 0 && le32(marker, 12) == 3;
        let same = footer[..56] == header[..56] && footer[64..] == header[64..];
        let named = le64(header, 56) == AT_END;
        found.expect("vmdk.footer", is_marker && same && named, || {
            format!("marker {is_marker}, a copy of the header {same}, the header points at it {named}")
        });
        footer.starts_with(b"KDMV").then(|| footer.to_vec())
    }

    fn tables(&self, header: &[u8], capacity: u64, found: &mut Findings) {
        let directory_at = le64(header, 56);
        let tables = capacity.div_ceil(GRAIN_SECTORS * TABLE_LEN);
        let directory = self.at(directory_at.saturating_mul(SECTOR), tables.saturating_mul(4));
        let Some(directory) = found.readable("vmdk.directory", directory) else { return };
        let mut places = Places::default();
        places.add("the header", 0, SECTOR);
        places.add("the descriptor", le64(header, 28) * SECTOR, le64(header, 36) * SECTOR);
        places.add("the directory", directory_at * SECTOR, directory.len() as u64);
        self.marked("vmdk.markers", directory_at, (directory.len() as u64).div_ceil(SECTOR), 2, found);
        let mut grains = 0u64;
        for (number, table_at) in (0..).zip(directory.chunks_exact(4).map(|entry| u64::from(le32(entry, 0)))) {
            if table_at == 0 {
                continue;
            }
            let Some(table) = found.readable("vmdk.directory", self.at(table_at * SECTOR, TABLE_LEN * 4)) else {
                return;
            };
            places.add("a table", table_at * SECTOR, TABLE_LEN * 4);
            let used: Vec<(u64, u64)> = (0..)
                .zip(table.chunks_exact(4).map(|entry| u64::from(le32(entry, 0))))
                .filter(|(_, at)| *at > 0)
                .collect();
            self.marked("vmdk.markers", table_at, TABLE_LEN * 4 / SECTOR, 1, found);
            for (n, at) in used {
                let sector = (number * TABLE_LEN + n) * GRAIN_SECTORS;
                found.expect("vmdk.capacity", sector < capacity, || {
                    format!("a grain for sector {sector} of {capacity}")
                });
                let Some(len) = self.grain(at, sector, found) else { continue };
                places.add("a grain", at * SECTOR, len);
                grains += 1;
            }
        }
        if let Some(why) = places.overlap() {
            found.broken("vmdk.places", format!("{why} ({grains} grains)"));
        }
    }

    /// Is there a marker before a table, with the number of its sectors and its kind?
    fn marked(&self, rule: &str, table_at: u64, sectors: u64, kind: u32, found: &mut Findings) {
        let marker = table_at.checked_sub(1).and_then(|at| self.at(at * SECTOR, SECTOR).ok()).unwrap_or(vec![0xff; 16]);
        let right = le64(&marker, 0) == sectors && le32(&marker, 8) == 0 && le32(&marker, 12) == kind;
        found.expect(rule, right, || format!("before the table at sector {table_at} stands no marker of kind {kind}"));
    }

    /// A grain; how long it is in the file, whole sectors.
    fn grain(&self, at: u64, sector: u64, found: &mut Findings) -> Option<u64> {
        let marker = found.readable("vmdk.grain-marker", self.at(at * SECTOR, 12))?;
        let (own, len) = (le64(&marker, 0), u64::from(le32(&marker, 8)));
        let right = own == sector && len > 0 && len < 1 << 17;
        found.expect("vmdk.grain-marker", right, || format!("sector {own}, {len} bytes, for the grain of {sector}"));
        let packed = found.readable("vmdk.grain-marker", self.at(at * SECTOR + 12, len.min(1 << 17)))?;
        let mut plain = Vec::new();
        let mut reader = std::io::Read::take(flate2::read::ZlibDecoder::new(&packed[..]), (1 << 16) + 1);
        let read = std::io::Read::read_to_end(&mut reader, &mut plain);
        let whole = read.is_ok() && plain.len() == 1 << 16;
        found.expect("vmdk.grain-data", whole, || format!("the grain of sector {sector} gives {} bytes", plain.len()));
        Some((12 + len).next_multiple_of(SECTOR))
    }
}
