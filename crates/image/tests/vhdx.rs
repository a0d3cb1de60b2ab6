//! VHDX: ours read by QEMU, QEMU's read by us, a log replayed in memory; attacks; mutants.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, held to time limits")]
mod support;

use std::sync::Arc;

use skein_image::{Budget, Format, Kind, convert};
use support::{
    GIB, KIB, MIB, TIB, assert_is, assert_refused, cases, have, mutants, options, patched, read, run, text, usage,
};

#[test]
fn what_we_write_is_the_same_disk_to_qemu_and_to_us() {
    let (dir, qemu) = (support::Dir::new(), have("qemu-img"));
    for (name, size, data) in cases() {
        let (raw, vhdx) = (dir.raw(name, size, &data), dir.path("ours.vhdx"));
        let report = support::to_file(&raw, &options(Format::Vhdx), &vhdx).unwrap();
        assert_eq!(report.virtual_bytes, size, "{name}");
        assert!(report.bytes <= report.data_bytes * 102 / 100 + 6 * MIB, "{name}: {report:?}");
        assert_is(name, support::open(&vhdx, Format::Vhdx).unwrap().as_ref(), &raw);
        if qemu {
            // QEMU does not know the holes of a VHDX: comparing one of 20 GiB would take it half a minute.
            if size < 64 * MIB {
                run("qemu-img", &["compare", "-f", "raw", "-F", "vhdx", text(&raw), text(&vhdx)]);
            }
            run("qemu-img", &["check", "-f", "vhdx", text(&vhdx)]);
            let info = run("qemu-img", &["info", "-f", "vhdx", "--output=json", text(&vhdx)]);
            assert!(info.contains(&format!("\"virtual-size\": {size}")), "{name}: {info}");
        }
    }
}

#[test]
fn what_qemu_writes_is_read() {
    if !have("qemu-img") {
        return;
    }
    let dir = support::Dir::new();
    let vhdx = dir.path("q.vhdx");
    for (name, size, data) in cases() {
        let raw = dir.raw(name, size, &data);
        for option in ["subformat=dynamic", "subformat=fixed", "block_size=1M", "block_size=256M"] {
            run(
                "qemu-img",
                &["convert", "-t", "unsafe", "-f", "raw", "-O", "vhdx", "-o", option, text(&raw), text(&vhdx)],
            );
            assert_is(name, support::open(&vhdx, Format::Vhdx).unwrap().as_ref(), &raw);
        }
    }
}

/// Data in a third of 300 blocks, the last one short: QEMU finds each of them.
#[test]
fn qemu_finds_the_blocks_behind_each_sector_bitmap() {
    if !have("qemu-img") {
        return;
    }
    let (dir, mut seed) = (support::Dir::new(), support::Dice(8));
    let data: Vec<_> = (0..100).map(|n| (n * 3 * MIB + n * 512, seed.mixed(3000))).collect();
    let (raw, vhdx) = (dir.raw("raw", 300 * MIB - 4096, &data), dir.path("a.vhdx"));
    support::to_file(&raw, &options(Format::Vhdx), &vhdx).unwrap();
    run("qemu-img", &["compare", "-f", "raw", "-F", "vhdx", text(&raw), text(&vhdx)]);
    assert_is("300 blocks", support::open(&vhdx, Format::Vhdx).unwrap().as_ref(), &raw);
    // Behind 4 GiB stands the first entry of a bitmap, which shifts all that follow.
    let raw = dir.raw("raw", 9 * GIB, &[(4 * GIB, seed.mixed(512)), (9 * GIB - 512, seed.mixed(512))]);
    support::to_file(&raw, &options(Format::Vhdx), &vhdx).unwrap();
    assert_is("9 GiB", support::open(&vhdx, Format::Vhdx).unwrap().as_ref(), &raw);
    for at in [4 * GIB, 9 * GIB - 512] {
        // qemu-img counts from the beginning, not from what is skipped.
        let (part, count) = (format!("skip={}", at / 512), format!("count={}", at / 512 + 1));
        let (a, b) = (dir.path("a"), dir.path("b"));
        for (kind, from, to) in [("raw", &raw, &a), ("vhdx", &vhdx, &b)] {
            let (input, output) = (format!("if={}", text(from)), format!("of={}", text(to)));
            run("qemu-img", &["dd", "-f", kind, "-O", "raw", "bs=512", &count, &part, &input, &output]);
        }
        assert!(read(&a) == read(&b) && read(&a).len() == 512 && read(&a).iter().any(|byte| *byte != 0), "at {at}");
    }
}

#[test]
fn blocks_are_large_where_data_lie_together_and_small_where_they_are_scattered() {
    let dir = support::Dir::new();
    let vhdx = dir.path("a.vhdx");
    let block_size = |raw: &std::path::Path| {
        support::to_file(raw, &options(Format::Vhdx), &vhdx).unwrap();
        let bytes = read(&vhdx);
        u32::from_le_bytes(bytes[2 * 1024 * 1024 + 65_536..][..4].try_into().unwrap())
    };
    let together = dir.raw("together", 128 * MIB, &[(0, vec![1; 64 << 20])]);
    assert_eq!(block_size(&together), 32 << 20);
    let pairs: Vec<_> = (0..20).map(|n| (n * 100 * MIB, vec![2; 2 << 20])).collect();
    assert_eq!(block_size(&dir.raw("pairs", 20 * GIB, &pairs)), 2 << 20);
    let scattered: Vec<_> = (0..20).map(|n| (n * 101 * MIB, vec![2; 100])).collect();
    assert_eq!(block_size(&dir.raw("scattered", 20 * GIB, &scattered)), 1 << 20);
}

#[test]
fn two_tebibytes_of_holes_take_no_time_and_nothing_is_written_for_them() {
    let test = "two_tebibytes_of_holes_take_no_time_and_nothing_is_written_for_them";
    usage::assert_cpu_below(test, usage::HOLES_CPU_MAX, || {
        let dir = support::Dir::new();
        let (raw, vhdx) = (dir.raw("raw", 2 * TIB, &[(TIB, vec![1; 4096])]), dir.path("a.vhdx"));
        support::to_file(&raw, &options(Format::Vhdx), &vhdx).unwrap();
        let disk = support::open(&vhdx, Format::Vhdx).unwrap();
        assert_eq!(disk.extent_at(0).unwrap().kind, Kind::Zero);
        assert_is("2 TiB", disk.as_ref(), &raw);
    });
}

#[test]
fn a_disk_of_0_bytes_is_refused() {
    let dir = support::Dir::new();
    let vhdx = dir.path("a.vhdx");
    let error = support::to_file(&dir.raw("none", 0, &[]), &options(Format::Vhdx), &vhdx).unwrap_err().to_string();
    assert!(error.contains("0 bytes"), "{error}");
}

#[test]
fn a_stream_and_a_file_get_the_same_bytes_and_so_does_a_second_run() {
    let dir = support::Dir::new();
    let raw = dir.raw("raw", 9 * MIB, &[(MIB, support::Dice(1).mixed(300_000)), (7 * MIB, vec![3; 9])]);
    support::to_file(&raw, &options(Format::Vhdx), &dir.path("a.vhdx")).unwrap();
    let mut stream = Vec::new();
    let source = support::open(&raw, Format::Raw).unwrap();
    convert(source.as_ref(), &mut skein_image::Out::stream(&mut stream), &options(Format::Vhdx), &()).unwrap();
    assert!(stream == read(&dir.path("a.vhdx")));
}

const HEADERS: [usize; 2] = [65_536, 131_072];
const LOG: usize = 1 << 20;
const METADATA: usize = 2 << 20;
const TABLE: usize = 3 << 20;

/// 6 MiB with data in blocks 1 and 4 of 1 MiB.
fn small() -> Vec<u8> {
    let mut disk = vec![0; 6 << 20];
    disk[1 << 20..][..1000].fill(0x11);
    disk[4 << 20..][..1000].fill(0x44);
    let mut stream = Vec::new();
    let source = skein_image::format::open(Arc::new(disk), Format::Raw, &Budget::default()).unwrap();
    convert(source.as_ref(), &mut skein_image::Out::stream(&mut stream), &options(Format::Vhdx), &()).unwrap();
    stream
}

fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let sum = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// With both headers changed at `at`, and their checksums mended.
fn headers(good: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for header in HEADERS {
        bytes[header + at..header + at + with.len()].copy_from_slice(with);
        seal(&mut bytes[header..header + 4096]);
    }
    bytes
}

/// With both region tables changed.
fn regions(good: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for table in [3 << 16, 4 << 16] {
        bytes[table + at..table + at + with.len()].copy_from_slice(with);
        seal(&mut bytes[table..table + 65_536]);
    }
    bytes
}

/// A log entry with one page for the file's `offset` and one range of zeros.
fn entry(id: [u8; 16], sequence: u64, tail: u32, offset: u64, page: &[u8; 4096], zero: (u64, u64)) -> Vec<u8> {
    let mut bytes = vec![0u8; 8192];
    let mut put = |at: usize, with: &[u8]| bytes[at..at + with.len()].copy_from_slice(with);
    put(0, b"loge");
    put(8, &8192u32.to_le_bytes());
    put(12, &tail.to_le_bytes());
    put(16, &sequence.to_le_bytes());
    put(24, &2u32.to_le_bytes());
    put(32, &id);
    put(64, b"zero");
    put(72, &zero.1.to_le_bytes());
    put(80, &zero.0.to_le_bytes());
    put(88, &sequence.to_le_bytes());
    put(96, b"desc");
    put(100, &page[4092..]);
    put(104, &page[..8]);
    put(112, &offset.to_le_bytes());
    put(120, &sequence.to_le_bytes());
    put(4096, b"data");
    put(4100, &sequence.to_le_bytes()[4..]);
    put(4104, &page[8..4092]);
    put(8188, &sequence.to_le_bytes()[..4]);
    seal(&mut bytes);
    bytes
}

/// The small disk, its block table emptied in the file and kept in a log of two entries that begins near the log's end.
fn with_log() -> Vec<u8> {
    let good = small();
    let id = [0x5a; 16];
    let mut bytes = headers(&good, 48, &id);
    let mut page: [u8; 4096] = bytes[TABLE..TABLE + 4096].try_into().unwrap();
    let tail = (1 << 20) - 4096;
    // The first entry writes something wrong, the second one what is right, and zeros over a part of block 1.
    page[..64].rotate_left(8);
    let first = entry(id, 70, tail, TABLE as u64, &page, (0x8000, 4096));
    page[..64].rotate_right(8);
    let second = entry(id, 71, tail, TABLE as u64, &page, (4 << 20, 4096));
    bytes[TABLE..TABLE + 4096].fill(0);
    bytes[LOG + tail as usize..LOG + (1 << 20)].copy_from_slice(&first[..4096]);
    bytes[LOG..LOG + 4096].copy_from_slice(&first[4096..]);
    bytes[LOG + 4096..LOG + 12_288].copy_from_slice(&second);
    bytes
}

#[test]
fn a_log_that_was_not_replayed_counts_and_the_file_stays_as_it_is() {
    let bytes = with_log();
    let disk = skein_image::format::open(Arc::new(bytes.clone()), Format::Vhdx, &Budget::default()).unwrap();
    let (mut one, mut four) = (vec![1; 5000], vec![1; 5000]);
    disk.read_at(MIB, &mut one).unwrap();
    disk.read_at(4 * MIB, &mut four).unwrap();
    assert!(one == vec![0; 5000], "the log wrote zeros over block 1");
    assert!(four[..1000] == [0x44; 1000] && four[1000..] == [0; 4000]);
    if have("qemu-img") {
        // QEMU refuses to open it without writing, which it may do to a copy.
        let dir = support::Dir::new();
        std::fs::write(dir.path("log.vhdx"), &bytes).unwrap();
        run("qemu-img", &["check", "-r", "all", "-f", "vhdx", text(&dir.path("log.vhdx"))]);
        run("qemu-img", &["convert", "-f", "vhdx", "-O", "raw", text(&dir.path("log.vhdx")), text(&dir.path("back"))]);
        assert_is("qemu's replay", disk.as_ref(), &dir.path("back"));
    }
}

#[test]
fn logs_that_are_attacks_are_refused() {
    let good = with_log();
    let refused = |what: &str, bytes: Vec<u8>, word: &str| assert_refused(what, bytes, Format::Vhdx, word);
    // The newest whole row counts: with the second entry gone that is the first alone, which says block 0 is full.
    let first_only = patched(&good, LOG + 4096 + 16, &[9]);
    let disk = skein_image::format::open(Arc::new(first_only.clone()), Format::Vhdx, &Budget::default()).unwrap();
    assert_eq!(disk.extent_at(0).unwrap().kind, Kind::Data);
    refused("no whole row", patched(&first_only, LOG, &[9]), "no whole row");
    refused("a log with half a page", headers(&good, 68, &((1u32 << 20) + 77).to_le_bytes()), "no whole MiB");
    refused("a log that is empty", headers(&small(), 48, &[7; 16]), "no whole row");
    let second = |at: usize, with: &[u8]| {
        let mut bytes = patched(&good, LOG + 4096 + at, with);
        seal(&mut bytes[LOG + 4096..LOG + 4096 + 8192]);
        bytes
    };
    refused("a page beyond everything", second(112, &(1u64 << 62).to_le_bytes()), "metadata_bytes_max");
    refused("a page at no page", second(112, &[1]), "not of its entry");
    refused("a page of another entry", second(120, &[1]), "not of its entry");
    refused("zeros beyond 2^64", second(72, &(u64::MAX - 4095).to_le_bytes()), "no range");
    refused("too many parts", second(24, &[0xff; 4]), "too many parts");
    refused("a file that was cut", second(48, &(1u64 << 40).to_le_bytes()), "it was cut");
    refused("a file that grows without end", second(56, &u64::MAX.to_le_bytes()), "metadata_bytes_max");
    refused("a giant log", headers(&good, 68, &0xfff0_0000u32.to_le_bytes()), "the log");
    let mut giant = headers(&good, 68, &(256u32 << 20).to_le_bytes());
    giant.resize(300 << 20, 0);
    refused("a log over the budget", giant, "metadata_bytes_max");
    // Entries one in the other, each as long as the log and with a wrong checksum: quadratic for who does not count.
    let mut nested = headers(&small(), 48, &[7; 16]);
    for at in (0..1 << 20).step_by(4096) {
        let head = &mut nested[LOG + at..LOG + at + 64];
        head[..4].copy_from_slice(b"loge");
        head[8..12].copy_from_slice(&(1u32 << 20).to_le_bytes());
        head[16] = 1;
        head[32..48].fill(7);
    }
    refused("entries in entries", nested, "overlap");
}

#[test]
fn attacks_are_refused() {
    let good = small();
    let refused = |what: &str, bytes: Vec<u8>, word: &str| assert_refused(what, bytes, Format::Vhdx, word);
    refused("nothing", vec![], "ends at 0");
    refused("both headers damaged", patched(&patched(&good, HEADERS[0], b"x"), HEADERS[1], b"x"), "two headers");
    assert!(support::read_through(patched(&good, HEADERS[1], b"x"), Format::Vhdx).is_ok(), "the other header counts");
    refused("a damaged region table", patched(&good, 3 << 16, b"x"), "region tables");
    refused("the other one damaged", patched(&good, 4 << 16, b"x"), "region tables");
    refused("version 2", headers(&good, 66, &[2]), "version 2");
    refused("both region tables damaged", patched(&patched(&good, 3 << 16, b"x"), 4 << 16, b"x"), "region tables");
    refused("an unknown region", regions(&good, 16, &[0; 16]), "does not know");
    refused("too many regions", regions(&good, 8, &[0xff; 4]), "entries");
    refused("a region at no MiB", regions(&good, 32, &[1]), "whole MiB");
    refused("a region beyond the file", regions(&good, 32, &(1u64 << 60).to_le_bytes()), "file ends");
    refused("a table in the metadata", regions(&good, 32, &(2u64 << 20).to_le_bytes()), "shares bytes");
    refused("a table in the headers", regions(&good, 32, &0u64.to_le_bytes()), "shares bytes");
    let item = METADATA + 65_536;
    refused("a parent's flag", patched(&good, item + 4, &[2]), "parent");
    refused("blocks of 3 MiB", patched(&good, item, &(3u32 << 20).to_le_bytes()), "blocks of");
    refused("blocks of 0", patched(&good, item, &[0; 4]), "blocks of 0");
    refused("a giant disk", patched(&good, item + 8, &(65 * TIB).to_le_bytes()), "virtual_bytes_max");
    refused("a table that is too short", patched(&good, item + 8, &TIB.to_le_bytes()), "block table has");
    refused("half a sector", patched(&good, item + 8, &[1]), "no whole sectors");
    refused("sectors of 1", patched(&good, item + 32, &1u32.to_le_bytes()), "sectors of 1");
    let parent = [0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c];
    refused("a parent locator", patched(&good, METADATA + 32 + 64, &parent), "parent");
    refused("unknown metadata", patched(&good, METADATA + 32, &[0; 16]), "does not know");
    refused("too much metadata", patched(&good, METADATA + 10, &[0xff; 2]), "entries");
    refused("an item outside", patched(&good, METADATA + 32 + 16, &[0xff; 4]), "outside");
    let entry = |number: usize, value: u64| patched(&good, TABLE + number * 8, &value.to_le_bytes());
    refused("a block beyond the file", entry(1, (1 << 50) | 6), "file ends");
    refused("two entries for one block", entry(2, (4 << 20) | 6), "shares bytes");
    refused("a block in the table", entry(1, (3 << 20) | 6), "shares bytes");
    refused("a block that is partly there", entry(1, (4 << 20) | 7), "parent");
    refused("a block in no state", entry(1, (4 << 20) | 4), "unknown state");
}

#[test]
fn both_sector_sizes_are_read() {
    let good = small();
    let large = patched(&good, METADATA + 65_536 + 32, &4096u32.to_le_bytes());
    assert!(support::read_through(large, Format::Vhdx).is_ok());
    assert_eq!(good[METADATA + 65_536 + 32..][..4], 512u32.to_le_bytes());
}

#[test]
fn mutants_never_panic_or_hang() {
    let (end, k) = (with_log().len(), usize::try_from(KIB).unwrap());
    let hot = vec![
        64 * k..64 * k + 80,
        192 * k..192 * k + 80,
        LOG..LOG + 12_288,
        METADATA..METADATA + 200,
        METADATA + 65_536..METADATA + 65_600,
    ];
    let mut n = 0;
    let images = || vec![(with_log(), hot)];
    mutants::try_all("mutants_never_panic_or_hang", mutants::PEAK_BYTES_MAX, images, |mut bytes| {
        n += 1;
        if n % 4 != 0 && bytes.len() == end {
            // Mended, and the second copies made useless, so that the change is seen.
            seal(&mut bytes[HEADERS[0]..HEADERS[0] + 4096]);
            seal(&mut bytes[3 << 16..4 << 16]);
            seal(&mut bytes[LOG + 4096..LOG + 12_288]);
            bytes[HEADERS[1]] ^= u8::from(n % 8 == 1);
            bytes.copy_within(3 << 16..4 << 16, 4 << 16);
        }
        support::read_through(bytes, Format::Vhdx).map(|_| ())
    });
}
