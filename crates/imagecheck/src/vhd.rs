//! Azure: a fixed VHD.

use crate::input::{Input, be16, be32, be64, is_zero};
use crate::{Findings, gpt};

const MIB: u64 = 1 << 20;
const FOOTER: u64 = 512;

pub(crate) fn check(input: &Input<'_>, found: &mut Findings) {
    let Some(start) = input.len.checked_sub(FOOTER) else {
        return found.broken("vhd.cookie", "the file is shorter than a footer");
    };
    let Some(footer) = found.readable("vhd.cookie", input.at(start, FOOTER)) else { return };
    if !footer.starts_with(b"conectix") {
        return found.broken("vhd.cookie", "the last 512 bytes do not begin with 'conectix'");
    }
    let whole = start > 0 && start.is_multiple_of(MIB);
    found.expect("azure.size", whole, || format!("the disk has {start} bytes: no whole MiB"));
    fields(&footer, start, found);
    gpt::check(start, &|offset, len| input.at(offset, len), found);
}

fn fields(footer: &[u8], disk_bytes: u64, found: &mut Findings) {
    let stored = be32(footer, 64);
    let sum = footer.iter().enumerate().filter(|(n, _)| !(64..68).contains(n)).map(|(_, byte)| u32::from(*byte));
    let sum = !sum.sum::<u32>();
    found.expect("vhd.checksum", stored == sum, || format!("{stored:#x} is stored, the bytes give {sum:#x}"));
    let (features, version, kind) = (be32(footer, 8), be32(footer, 12), be32(footer, 60));
    found.expect("vhd.features", features & !1 == 2, || format!("features {features:#x}"));
    found.expect("vhd.version", version == 0x1_0000, || format!("version {version:#x}"));
    found.expect("vhd.fixed", kind == 2, || format!("disk type {kind}"));
    let offset = be64(footer, 16);
    found.expect("vhd.data-offset", offset == u64::MAX, || format!("data offset {offset:#x}"));
    let (original, current) = (be64(footer, 40), be64(footer, 48));
    found.expect("vhd.current-size", current == disk_bytes, || format!("{current} bytes, the file has {disk_bytes}"));
    found.expect("vhd.original-size", original == current || current != disk_bytes, || {
        format!("{original} bytes at first, {current} now")
    });
    found.expect("vhd.creator-host", matches!(&footer[36..40], b"Wi2k" | b"Mac "), || {
        format!("creator host OS '{}'", footer[36..40].escape_ascii())
    });
    let (cylinders, heads, sectors) = (be16(footer, 56), footer[58], footer[59]);
    let shown = (u64::from(cylinders), u64::from(heads), u64::from(sectors));
    let fits = shown == geometry(disk_bytes / 512) || shown == (65_535, 16, 255);
    found.expect("vhd.geometry", fits, || format!("{shown:?}, the size gives {:?}", geometry(disk_bytes / 512)));
    found.expect("vhd.id", !is_zero(&footer[68..84]), || "the identifier is all zeros".to_owned());
    found.expect("vhd.saved-state", footer[84] == 0, || format!("saved state {}", footer[84]));
    found.expect("vhd.reserved", is_zero(&footer[85..]), || "bytes behind the last field are in use".to_owned());
}

/// Appendix of the specification, written from its text.
fn geometry(total: u64) -> (u64, u64, u64) {
    let total = total.min(65_535 * 16 * 255);
    if total >= 65_535 * 16 * 63 {
        return (total / 255 / 16, 16, 255);
    }
    let (mut sectors, mut product) = (17, total / 17);
    let mut heads = product.div_ceil(1024).max(4);
    if product >= heads * 1024 || heads > 16 {
        (sectors, heads, product) = (31, 16, total / 31);
    }
    if product >= heads * 1024 {
        (sectors, heads, product) = (63, 16, total / 63);
    }
    (product / heads, heads, sectors)
}
