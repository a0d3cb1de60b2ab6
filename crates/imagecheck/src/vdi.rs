//! `VirtualBox`: a VDI.

use crate::Findings;
use crate::input::{Input, is_zero, le32, le64};

pub(crate) fn check(input: &Input<'_>, found: &mut Findings) {
    let Some(header) = found.readable("vdi.signature", input.at(0, 512)) else { return };
    if le32(&header, 0x40) != 0xbeda_107f {
        return found.broken("vdi.signature", "no signature at 0x40");
    }
    let (version, len, kind) = (le32(&header, 0x44), le32(&header, 0x48), le32(&header, 0x4c));
    found.expect("vdi.version", version == 0x1_0001 && len >= 0x180, || format!("{version:#x}, header of {len}"));
    found.expect("vdi.kind", matches!(kind, 1 | 2), || format!("kind {kind}"));
    found.expect("vdi.sector", le32(&header, 0x168) == 512, || format!("sectors of {}", le32(&header, 0x168)));
    let (map_at, data_at) = (u64::from(le32(&header, 0x154)), u64::from(le32(&header, 0x158)));
    let (size, block) = (le64(&header, 0x170), u64::from(le32(&header, 0x178)));
    let (blocks, allocated) = (u64::from(le32(&header, 0x180)), u64::from(le32(&header, 0x184)));
    let aligned = map_at >= 512 && map_at.is_multiple_of(512) && data_at.is_multiple_of(512);
    if !aligned || data_at < map_at + blocks * 4 {
        return found.broken("vdi.places", format!("map {map_at}, data {data_at}"));
    }
    if !block.is_power_of_two() || block < 1 << 20 {
        return found.broken("vdi.block", format!("blocks of {block} bytes"));
    }
    found.expect("vdi.size", size > 0 && size.is_multiple_of(512) && blocks == size.div_ceil(block), || {
        format!("{size} bytes in {blocks} blocks of {block}")
    });
    found.expect("vdi.id", !is_zero(&header[0x188..0x198]), || "the identifier is all zeros".to_owned());
    found.expect("vdi.no-parent", is_zero(&header[0x1a8..0x1c8]), || "a parent or a link is named".to_owned());
    let Some(map) = found.readable("vdi.places", input.at(map_at, blocks * 4)) else { return };
    let mut used: Vec<u32> = map.chunks_exact(4).map(|entry| le32(entry, 0)).filter(|n| *n < 0xffff_fffe).collect();
    used.sort_unstable();
    let each_once = used.iter().zip(0..).all(|(there, expected)| *there == expected);
    found.expect("vdi.map", each_once && used.len() as u64 == allocated, || {
        format!("{} blocks are in the map, the header says {allocated}", used.len())
    });
    let end = data_at + allocated * block;
    found.expect("vdi.length", input.len == end, || format!("{} bytes, the blocks end at {end}", input.len));
}
