//! Raw disks: as they are (Firecracker, cloud-hypervisor), and as EBS takes them in blocks.

use crate::input::Input;
use crate::{Findings, GIB, gpt};

/// EBS direct: blocks of this size, bytes.
const EBS_BLOCK: u64 = 512 << 10;

pub(crate) fn check(input: &Input<'_>, found: &mut Findings) {
    let len = input.len;
    found.expect("raw.sectors", len > 0 && len.is_multiple_of(512), || format!("{len} bytes"));
    gpt::check(input.len, &|offset, len| input.at(offset, len), found);
}

pub(crate) fn check_blocks(input: &Input<'_>, found: &mut Findings) {
    let len = input.len;
    let blocks = len > 0 && len.is_multiple_of(EBS_BLOCK);
    found.expect("ebs.blocks", blocks, || format!("{len} bytes are no whole blocks of 512 KiB"));
    // Half a block is no whole GiB either: that is said once.
    let whole = len.is_multiple_of(GIB) && len <= 64 << 40;
    found.expect("ebs.size", whole || !blocks, || format!("{len} bytes are no whole GiB up to 64 TiB"));
    gpt::check(input.len, &|offset, len| input.at(offset, len), found);
}
