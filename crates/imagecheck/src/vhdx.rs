//! Hyper-V: a VHDX without parent and with nothing in its log.

use crate::Findings;
use crate::input::{Input, Places, is_zero, le16, le32, le64};

const MIB: u64 = 1 << 20;
const BAT: [u8; 16] = [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08];
const METADATA: [u8; 16] =
    [0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e];
/// First four bytes of the items' identifiers, as stored: file parameters, size, page 83, both sector sizes.
const ITEMS: [(u32, &str); 5] = [
    (0xcaa1_6737, "file parameters"),
    (0x2fa5_4224, "virtual disk size"),
    (0xbeca_12ab, "page 83 data"),
    (0x8141_bf1d, "logical sector size"),
    (0xcda3_48c7, "physical sector size"),
];

pub(crate) fn check(input: &Input<'_>, found: &mut Findings) {
    let identified = input.at(0, 8).is_ok_and(|head| head == *b"vhdxfile");
    if !identified {
        return found.broken("vhdx.identifier", "it does not begin with 'vhdxfile'");
    }
    let mut places = Places::default();
    places.add("the headers", 0, MIB);
    headers(input, &mut places, found);
    let Some((table, metadata)) = regions(input, &mut places, found) else { return };
    let Some(facts) = items(input, metadata, found) else { return };
    blocks(input, table, &facts, &mut places, found);
    if let Some(why) = places.overlap() {
        found.broken("vhdx.places", why);
    }
}

fn sealed(bytes: &[u8]) -> bool {
    let mut zeroed = bytes.to_vec();
    zeroed[4..8].fill(0);
    crc32c::crc32c(&zeroed) == le32(bytes, 4)
}

fn headers(input: &Input<'_>, places: &mut Places, found: &mut Findings) {
    let read = |at| input.at(at, 4096).unwrap_or(vec![0; 4096]);
    let both = [read(64 << 10), read(128 << 10)];
    for header in &both {
        let sound = header.starts_with(b"head") && sealed(header);
        found.expect("vhdx.headers", sound, || "a header's signature or checksum is wrong".to_owned());
    }
    let newest = if le64(&both[0], 8) > le64(&both[1], 8) { &both[0] } else { &both[1] };
    found.expect("vhdx.version", le16(newest, 66) == 1 && le16(newest, 64) == 0, || {
        format!("version {}, its log {}", le16(newest, 66), le16(newest, 64))
    });
    found.expect("vhdx.log-empty", is_zero(&newest[48..64]), || "its log holds something to be replayed".to_owned());
    let (len, at) = (u64::from(le32(newest, 68)), le64(newest, 72));
    let placed = len.is_multiple_of(MIB) && at.is_multiple_of(MIB) && at >= MIB;
    found.expect("vhdx.log-place", placed && at.saturating_add(len) <= input.len, || format!("{len} bytes at {at}"));
    places.add("the log", at, len);
}

type Place = (u64, u64);

/// Block table and metadata.
fn regions(input: &Input<'_>, places: &mut Places, found: &mut Findings) -> Option<(Place, Place)> {
    let read = |at| input.at(at, 64 << 10).unwrap_or(vec![0; 64 << 10]);
    let both = [read(192 << 10), read(256 << 10)];
    let sound = both.iter().all(|table| table.starts_with(b"regi") && sealed(table)) && both[0] == both[1];
    found.expect("vhdx.regions", sound, || "the two region tables are not sound or not equal".to_owned());
    let count = usize::try_from(le32(&both[0], 8)).unwrap_or(usize::MAX).min(2047);
    let entries: Vec<&[u8]> = both[0][16..].chunks_exact(32).take(count).collect();
    let place = |id: [u8; 16]| {
        let entry = entries.iter().find(|entry| entry[..16] == id)?;
        Some((le64(entry, 16), u64::from(le32(entry, 24))))
    };
    let foreign = entries.iter().any(|e| e[..16] != BAT && e[..16] != METADATA && le32(e, 28) & 1 == 1);
    let (table, metadata) = (place(BAT), place(METADATA));
    found.expect("vhdx.regions", !foreign && table.is_some() && metadata.is_some(), || {
        "the regions are not the block table, the metadata and optional ones".to_owned()
    });
    for (name, place) in [("the block table", table), ("the metadata", metadata)] {
        let (at, len) = place?;
        let aligned = at >= MIB && at.is_multiple_of(MIB) && len > 0 && len.is_multiple_of(MIB);
        found.expect("vhdx.aligned", aligned, || format!("{name}: {len} bytes at {at}"));
        found.expect("vhdx.within", at.saturating_add(len) <= input.len, || format!("{name} leaves the file"));
        places.add(name, at, len);
    }
    Some((table?, metadata?))
}

struct Facts {
    size: u64,
    block: u64,
    sector: u64,
}

fn items(input: &Input<'_>, (at, len): Place, found: &mut Findings) -> Option<Facts> {
    let metadata = found.readable("vhdx.metadata", input.at(at, len))?;
    let count = usize::from(le16(&metadata, 10));
    found
        .expect("vhdx.metadata", metadata.starts_with(b"metadata") && count <= 2047, || "no metadata table".to_owned());
    let entries: Vec<&[u8]> = metadata[32..].chunks_exact(32).take(count.min(2047)).collect();
    let mut values = Vec::new();
    for (id, name) in ITEMS {
        let entry = entries.iter().find(|entry| le32(entry, 0) == id);
        found.expect("vhdx.items", entry.is_some(), || format!("no {name}"));
        let offset = usize::try_from(le32(entry?, 16)).ok()?;
        found.expect("vhdx.items", offset >= 64 << 10, || format!("{name} stands within the table"));
        values.push(metadata.get(offset..offset + 8).unwrap_or(&[0; 8]));
    }
    let known = |entry: &&&[u8]| ITEMS.iter().any(|(id, _)| le32(entry, 0) == *id);
    let foreign = entries.iter().filter(|entry| !known(entry)).any(|entry| le32(entry, 24) & 4 != 0);
    found.expect("vhdx.items", !foreign, || "an item that must be understood is not of the specification".to_owned());
    let (block, flags) = (u64::from(le32(values[0], 0)), le32(values[0], 4));
    let (size, sector, physical) = (le64(values[1], 0), le32(values[3], 0), le32(values[4], 0));
    found.expect("vhdx.no-parent", flags & 2 == 0, || "it is a differencing disk".to_owned());
    let fits = block.is_power_of_two() && (MIB..=256 * MIB).contains(&block);
    found.expect("vhdx.block", fits, || format!("blocks of {block} bytes"));
    let sectors = matches!(sector, 512 | 4096) && matches!(physical, 512 | 4096);
    found.expect("vhdx.sectors", sectors, || format!("sectors of {sector} and {physical} bytes"));
    if !fits || !sectors {
        return None;
    }
    let sector = u64::from(sector);
    let whole = size > 0 && size.is_multiple_of(sector) && size <= 64 << 40;
    found.expect("vhdx.size", whole, || format!("{size} bytes"));
    whole.then_some(Facts { size, block, sector })
}

fn blocks(input: &Input<'_>, (at, len): Place, facts: &Facts, places: &mut Places, found: &mut Findings) {
    let ratio = (1 << 23) * facts.sector / facts.block;
    let count = facts.size.div_ceil(facts.block);
    let entries = count + (count - 1) / ratio;
    found.expect("vhdx.table", entries * 8 <= len, || format!("{entries} entries in {len} bytes"));
    let Some(table) = found.readable("vhdx.table", input.at(at, (entries * 8).min(len))) else { return };
    for (number, entry) in (0..).zip(table.chunks_exact(8).map(|entry| le64(entry, 0))) {
        let (state, place) = (entry & 7, entry >> 20 << 20);
        if number % (ratio + 1) == ratio {
            found.expect("vhdx.bitmaps", state == 0, || "a sector bitmap on a disk without parent".to_owned());
            continue;
        }
        let known = matches!(state, 0..=3 | 6) && entry & 0xf_fff8 == 0;
        found.expect("vhdx.entries", known, || format!("entry {number} is {entry:#x}"));
        if state == 6 {
            let inside = place >= MIB && place.saturating_add(facts.block) <= input.len;
            found.expect("vhdx.within", inside, || format!("block {number} at {place} leaves the file"));
            places.add("a block", place, facts.block);
        }
    }
}
