//! VHD: what Azure takes, read by QEMU; what QEMU writes, read by us; attacks; mutants.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, held to time limits")]
mod support;

use skein_image::{Format, convert};
use support::{
    GIB, MIB, TIB, assert_is, assert_refused, cases, have, mutants, options, patched, read, run, text, usage,
};

fn checksummed(mut bytes: Vec<u8>, at: usize, len: usize, field: usize) -> Vec<u8> {
    bytes[at + field..at + field + 4].fill(0);
    let sum = !bytes[at..at + len].iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[at + field..at + field + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn what_we_write_is_the_same_disk_to_qemu_and_to_us() {
    let (dir, qemu) = (support::Dir::new(), have("qemu-img"));
    for (name, size, data) in cases() {
        let (raw, vhd) = (dir.raw(name, size, &data), dir.path("ours.vhd"));
        let report = support::to_file(&raw, &options(Format::Vhd), &vhd).unwrap();
        assert_eq!((report.virtual_bytes, report.bytes), (size, size + 512), "{name}");
        assert_is(name, support::open(&vhd, Format::Vhd).unwrap().as_ref(), &raw);
        if qemu {
            run("qemu-img", &["compare", "-f", "raw", "-F", "vpc", text(&raw), text(&vhd)]);
            let info = run("qemu-img", &["info", "-f", "vpc", "--output=json", text(&vhd)]);
            assert!(info.contains(&format!("\"virtual-size\": {size}")), "{name}: {info}");
        }
    }
}

#[test]
fn for_azure_the_size_is_whole_mebibytes_and_the_footer_says_so() {
    let dir = support::Dir::new();
    let raw = dir.raw("odd", 5 * MIB + 100, &[(0, vec![1; 600])]);
    let mut options = options(Format::Vhd);
    options.size_multiple = MIB;
    support::to_file(&raw, &options, &dir.path("a.vhd")).unwrap();
    let bytes = read(&dir.path("a.vhd"));
    assert_eq!(bytes.len() as u64, 6 * MIB + 512);
    let footer = &bytes[bytes.len() - 512..];
    assert_eq!(footer[..8], *b"conectix");
    assert_eq!(footer[16..24], [0xff; 8], "a fixed disk has no header");
    assert_eq!(footer[40..56], [(6 * MIB).to_be_bytes(), (6 * MIB).to_be_bytes()].concat());
    assert_eq!(footer[60..64], 2u32.to_be_bytes());
    assert_eq!(bytes, checksummed(bytes.clone(), bytes.len() - 512, 512, 64), "the checksum is right");
    let sectors = u64::from(footer[56]) << 8 | u64::from(footer[57]);
    let geometry = sectors * u64::from(footer[58]) * u64::from(footer[59]) * 512;
    assert!(geometry <= 6 * MIB && geometry > 6 * MIB - 2 * MIB, "geometry of {geometry} bytes");
}

#[test]
fn a_stream_and_a_file_get_the_same_bytes_and_so_does_a_second_run() {
    let dir = support::Dir::new();
    let raw = dir.raw("raw", 3 * MIB, &[(MIB, support::Dice(1).mixed(300_000))]);
    support::to_file(&raw, &options(Format::Vhd), &dir.path("a.vhd")).unwrap();
    let mut stream = Vec::new();
    let source = support::open(&raw, Format::Raw).unwrap();
    convert(source.as_ref(), &mut skein_image::Out::stream(&mut stream), &options(Format::Vhd), &()).unwrap();
    assert!(stream == read(&dir.path("a.vhd")));
    let other = dir.raw("other", 3 * MIB, &[(MIB, support::Dice(2).mixed(300_000))]);
    support::to_file(&other, &options(Format::Vhd), &dir.path("b.vhd")).unwrap();
    let uuid = |bytes: &[u8]| bytes[bytes.len() - 512 + 68..][..16].to_vec();
    assert_ne!(uuid(&stream), uuid(&read(&dir.path("b.vhd"))), "another disk has another identifier");
}

#[test]
fn sizes_at_the_limits_of_the_format() {
    let dir = support::Dir::new();
    let vhd = dir.path("a.vhd");
    let chs = 65_535 * 16 * 255 * 512;
    for size in [chs - 512, chs, chs + 512, 127 * GIB, 2040 * GIB] {
        let raw = dir.raw("raw", size, &[(size - 512, vec![7; 512])]);
        support::to_file(&raw, &options(Format::Vhd), &vhd).unwrap();
        assert_is("limit", support::open(&vhd, Format::Vhd).unwrap().as_ref(), &raw);
        if have("qemu-img") {
            let info = run("qemu-img", &["info", "-f", "vpc", "--output=json", text(&vhd)]);
            assert!(info.contains(&format!("\"virtual-size\": {size}")), "{info}");
            run("qemu-img", &["compare", "-f", "raw", "-F", "vpc", text(&raw), text(&vhd)]);
        }
    }
    let raw = dir.raw("raw", 2040 * GIB + 512, &[]);
    let error = support::to_file(&raw, &options(Format::Vhd), &vhd).unwrap_err().to_string();
    assert!(error.contains("2040 GiB"), "{error}");
    let raw = dir.raw("raw", 0, &[]);
    let error = support::to_file(&raw, &options(Format::Vhd), &vhd).unwrap_err().to_string();
    assert!(error.contains("0 bytes"), "{error}");
}

#[test]
fn what_qemu_writes_is_read_as_qemu_reads_it() {
    if !have("qemu-img") {
        return;
    }
    let dir = support::Dir::new();
    let (vhd, back) = (dir.path("q.vhd"), dir.path("back"));
    for (name, size, data) in cases() {
        let raw = dir.raw(name, size, &data);
        for options in
            ["subformat=dynamic", "subformat=fixed", "subformat=dynamic,force_size=on", "subformat=fixed,force_size=on"]
        {
            run("qemu-img", &["convert", "-f", "raw", "-O", "vpc", "-o", options, text(&raw), text(&vhd)]);
            // Without force_size QEMU rounds the size: what it itself makes of the file is what we must see.
            run("qemu-img", &["convert", "-f", "vpc", "-O", "raw", text(&vhd), text(&back)]);
            let disk = support::open(&vhd, Format::Vhd).unwrap();
            assert_eq!(disk.size(), back.metadata().unwrap().len(), "{name} {options}");
            assert_is(name, disk.as_ref(), &back);
        }
    }
}

/// A dynamic disk of 8 MiB, made here so that the tests need no tool: blocks 0 and 2 of 2 MiB, half of block 2 unwritten.
fn dynamic() -> Vec<u8> {
    let mut bytes = vec![0u8; 512 + 1024 + 512];
    bytes[512..520].copy_from_slice(b"cxsparse");
    bytes[520..528].fill(0xff);
    bytes[528..536].copy_from_slice(&1536u64.to_be_bytes());
    bytes[536..540].copy_from_slice(&0x1_0000u32.to_be_bytes());
    bytes[540..544].copy_from_slice(&4u32.to_be_bytes());
    bytes[544..548].copy_from_slice(&(2u32 << 20).to_be_bytes());
    let mut bytes = checksummed(bytes, 512, 1024, 36);
    bytes[1536..2048].fill(0xff);
    for (block, fill) in [(0usize, 0xaau8), (2, 0xbb)] {
        let sector = u32::try_from(bytes.len() / 512).unwrap();
        bytes[1536 + block * 4..1540 + block * 4].copy_from_slice(&sector.to_be_bytes());
        let half = if block == 0 { 512 } else { 256 };
        bytes.extend((0..512).map(|n| if n < half { 0xff } else { 0 }));
        bytes.resize(bytes.len() + (2 << 20), fill);
    }
    let mut footer = vec![0u8; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[12..16].copy_from_slice(&0x1_0000u32.to_be_bytes());
    footer[16..24].copy_from_slice(&512u64.to_be_bytes());
    footer[28..32].copy_from_slice(b"win ");
    footer[48..56].copy_from_slice(&(8u64 << 20).to_be_bytes());
    footer[60..64].copy_from_slice(&3u32.to_be_bytes());
    let footer = checksummed(footer, 0, 512, 64);
    bytes[..512].copy_from_slice(&footer);
    bytes.extend(footer);
    bytes
}

#[test]
fn unwritten_sectors_of_a_block_are_zeros_and_a_damaged_footer_has_its_copy() {
    let dir = support::Dir::new();
    let raw = dir.raw("raw", 8 * MIB, &[(0, vec![0xaa; 2 << 20]), (4 * MIB, vec![0xbb; 1 << 20])]);
    let good = dynamic();
    for (name, bytes) in [("good", good.clone()), ("damaged", patched(&good, good.len() - 40, &[9]))] {
        std::fs::write(dir.path("d.vhd"), bytes).unwrap();
        assert_is(name, support::open(&dir.path("d.vhd"), Format::Vhd).unwrap().as_ref(), &raw);
    }
}

#[test]
fn attacks_are_refused() {
    let good = dynamic();
    let end = good.len() - 512;
    let refused = |what: &str, bytes: Vec<u8>, word: &str| assert_refused(what, bytes, Format::Vhd, word);
    let mended = |bytes: Vec<u8>| checksummed(checksummed(bytes, end, 512, 64), 0, 512, 64);
    let both = |at: usize, with: &[u8]| mended(patched(&patched(&good, end + at, with), at, with));
    refused("no copy", patched(&good, 0, b"x"), "no sound copy");
    refused("another copy", checksummed(patched(&good, 55, &[1]), 0, 512, 64), "different things");
    refused("a parent", both(60, &4u32.to_be_bytes()), "parent");
    refused("a giant disk", both(48, &(65 * TIB).to_be_bytes()), "virtual_bytes_max");
    refused("a table that is too short", both(48, &TIB.to_be_bytes()), "table only 4");
    refused("a header beyond the file", both(16, &(1u64 << 60).to_be_bytes()), "ends at");
    refused("a header at 2^64", both(16, &u64::MAX.to_be_bytes()), "ends at");
    let header = |at: usize, with: &[u8]| checksummed(patched(&good, 512 + at, with), 512, 1024, 36);
    refused("no blocks", header(32, &0u32.to_be_bytes()), "blocks of 0");
    refused("blocks of 2^31", header(32, &(1u32 << 31).to_be_bytes()), "blocks of");
    refused("a table beyond the file", header(16, &(1u64 << 63).to_be_bytes()), "ends at");
    refused("a header with a wrong checksum", patched(&good, 512 + 44, &[1]), "checksum");
    refused("an entry beyond the file", patched(&good, 1540, &0x0fff_ffffu32.to_be_bytes()), "ends at");
    refused("two entries for one block", patched(&good, 1540, &good[1536..1540]), "share bytes");
    refused("an entry that points at the table", patched(&good, 1540, &3u32.to_be_bytes()), "share bytes");
    refused("both footers damaged", patched(&patched(&good, end, b"x"), 0, b"x"), "footer");
    refused("nothing", vec![], "footer");
    let mut giant = patched(&good, 512 + 28, &u32::MAX.to_be_bytes());
    giant = patched(&giant, 512 + 32, &(1u32 << 12).to_be_bytes());
    giant = checksummed(giant, 512, 1024, 36);
    giant = patched(&patched(&giant, 48, &(15 * TIB).to_be_bytes()), end + 48, &(15 * TIB).to_be_bytes());
    refused("a giant table", mended(giant), "metadata_bytes_max");
}

#[test]
fn a_footer_that_a_guest_wrote_to_its_first_sector_changes_nothing() {
    let dir = support::Dir::new();
    let mut fake = dynamic()[..512].to_vec();
    fake[60..64].copy_from_slice(&4u32.to_be_bytes());
    let raw = dir.raw("raw", MIB, &[(0, checksummed(fake, 0, 512, 64))]);
    support::to_file(&raw, &options(Format::Vhd), &dir.path("a.vhd")).unwrap();
    assert_is("guest", support::open(&dir.path("a.vhd"), Format::Vhd).unwrap().as_ref(), &raw);
}

#[test]
fn mutants_never_panic_or_hang() {
    let end = dynamic().len();
    // A mutant of a checksummed header is refused at once; the checksums are mended so that others get further.
    let good = || vec![(dynamic(), vec![0..512, 512..560, 1536..1552, end - 512..end])];
    let mut n = 0;
    mutants::try_all("mutants_never_panic_or_hang", mutants::PEAK_BYTES_MAX, good, |bytes| {
        n += 1;
        let mended = n % 2 == 0 && bytes.len() == end;
        let bytes = if mended { checksummed(checksummed(bytes, 512, 1024, 36), end - 512, 512, 64) } else { bytes };
        support::read_through(bytes, Format::Vhd).map(|_| ())
    });
}

#[test]
fn two_tebibytes_of_holes_take_no_time() {
    usage::assert_cpu_below("two_tebibytes_of_holes_take_no_time", usage::HOLES_CPU_MAX, || {
        let dir = support::Dir::new();
        let raw = dir.raw("raw", 2000 * GIB, &[(TIB, vec![1; 4096])]);
        support::to_file(&raw, &options(Format::Vhd), &dir.path("a.vhd")).unwrap();
    });
}
