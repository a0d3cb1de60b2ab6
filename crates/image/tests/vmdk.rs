//! VMDK: ours read by QEMU, QEMU's read by us, flat extents only from the caller; attacks; mutants.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, held to time limits")]
mod support;

use std::sync::Arc;

use skein_image::convert::Effort;
use skein_image::format::open_flat_vmdk;
use skein_image::{Budget, Bytes, Format, Kind, Options, convert};
use support::{MIB, TIB, assert_is, assert_refused, cases, have, mutants, options, patched, read, run, text, usage};

#[test]
fn what_we_write_is_the_same_disk_to_qemu_and_to_us() {
    let (dir, qemu) = (support::Dir::new(), have("qemu-img"));
    for (name, size, data) in cases() {
        let (raw, vmdk) = (dir.raw(name, size, &data), dir.path("ours.vmdk"));
        for effort in [Effort::Fast, Effort::Archive] {
            let options = Options { effort, ..options(Format::Vmdk) };
            let report = support::to_file(&raw, &options, &vmdk).unwrap();
            assert_eq!(report.virtual_bytes, size, "{name}");
            assert_is(name, support::open(&vmdk, Format::Vmdk).unwrap().as_ref(), &raw);
            if qemu {
                run("qemu-img", &["compare", "-f", "raw", "-F", "vmdk", text(&raw), text(&vmdk)]);
                run("qemu-img", &["check", "-f", "vmdk", text(&vmdk)]);
                let info = run("qemu-img", &["info", "-f", "vmdk", "--output=json", text(&vmdk)]);
                assert!(info.contains(&format!("\"virtual-size\": {size}")), "{name}: {info}");
                assert!(info.contains("streamOptimized"), "{name}: {info}");
            }
        }
    }
}

#[test]
fn what_qemu_writes_is_read() {
    if !have("qemu-img") {
        return;
    }
    let dir = support::Dir::new();
    let vmdk = dir.path("q.vmdk");
    for (name, size, data) in cases() {
        let raw = dir.raw(name, size, &data);
        for (kind, extra) in
            [("monolithicSparse", ""), ("streamOptimized", ""), ("monolithicSparse", ",zeroed_grain=on")]
        {
            let option = format!("subformat={kind}{extra}");
            run("qemu-img", &["convert", "-f", "raw", "-O", "vmdk", "-o", &option, text(&raw), text(&vmdk)]);
            assert_is(name, support::open(&vmdk, Format::Vmdk).unwrap().as_ref(), &raw);
        }
    }
}

/// Two megabytes with two grains, as a stream.
fn stream() -> Vec<u8> {
    let mut disk = vec![0; 2 << 20];
    disk[..70_000].copy_from_slice(&support::Dice(5).mixed(70_000));
    disk[1 << 20..][..65_536].fill(b'x');
    let mut stream = Vec::new();
    let source = skein_image::format::open(Arc::new(disk), Format::Raw, &Budget::default()).unwrap();
    convert(source.as_ref(), &mut skein_image::Out::stream(&mut stream), &options(Format::Vmdk), &()).unwrap();
    stream
}

#[test]
fn the_stream_has_what_esx_asks_for_and_is_always_the_same() {
    let bytes = stream();
    assert!(bytes == stream(), "the same disk gives the same bytes");
    assert_eq!(bytes[4..8], 3u32.to_le_bytes(), "version 3");
    assert_eq!(bytes[8..12], 0x3_0001u32.to_le_bytes(), "newlines, compressed, markers");
    assert_eq!(bytes[56..64], [0xff; 8], "the directory is at the end");
    let descriptor = String::from_utf8_lossy(&bytes[512..21 * 512]).into_owned();
    assert!(descriptor.contains("createType=\"streamOptimized\"\n"), "{descriptor}");
    assert!(descriptor.contains("RW 4096 SPARSE \"disk.vmdk\"\n"), "{descriptor}");
    assert_eq!(bytes[128 * 512..128 * 512 + 8], 0u64.to_le_bytes(), "the first grain is that of sector 0");
    let end = bytes.len();
    assert_eq!(bytes[end - 512..], [0; 512], "the end marker");
    assert_eq!(bytes[end - 1536..][8..16], [0, 0, 0, 0, 3, 0, 0, 0], "the footer's marker");
    let (header, footer) = (&bytes[..512], &bytes[end - 1024..end - 512]);
    assert_eq!(header[..56], footer[..56]);
    assert_ne!(header[56..64], footer[56..64]);
    assert_eq!(header[64..], footer[64..]);
}

#[test]
fn two_tebibytes_of_holes_take_no_time_and_nothing_is_written_for_them() {
    let test = "two_tebibytes_of_holes_take_no_time_and_nothing_is_written_for_them";
    usage::assert_cpu_below(test, usage::HOLES_CPU_MAX, || {
        let dir = support::Dir::new();
        let (raw, vmdk) = (dir.raw("raw", 2 * TIB, &[(TIB, vec![1; 4096])]), dir.path("a.vmdk"));
        let report = support::to_file(&raw, &options(Format::Vmdk), &vmdk).unwrap();
        let disk = support::open(&vmdk, Format::Vmdk).unwrap();
        assert_eq!(disk.extent_at(0).unwrap().kind, Kind::Zero);
        assert_is("2 TiB", disk.as_ref(), &raw);
        assert!(report.bytes < MIB, "{} bytes", report.bytes);
    });
}

#[test]
fn a_disk_of_0_bytes_is_refused() {
    let dir = support::Dir::new();
    let vmdk = dir.path("a.vmdk");
    let error = support::to_file(&dir.raw("none", 0, &[]), &options(Format::Vmdk), &vmdk).unwrap_err().to_string();
    assert!(error.contains("0 bytes"), "{error}");
}

fn flat(extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n{extents}\n"
    )
}

#[test]
fn flat_extents_are_those_the_caller_passes() {
    let (first, second): (Arc<dyn Bytes>, Arc<dyn Bytes>) = (Arc::new(vec![1u8; 1024]), Arc::new(vec![2u8; 2048]));
    let text = flat("RW 2 FLAT \"a.vmdk\" 0\nRW 2 ZERO\nRW 3 FLAT \"b.vmdk\" 1");
    let open = |files: Vec<Arc<dyn Bytes>>| open_flat_vmdk(text.as_bytes(), files, &Budget::default());
    let disk = open(vec![first.clone(), second.clone()]).unwrap();
    let mut bytes = vec![9; 7 * 512];
    disk.read_at(0, &mut bytes).unwrap();
    assert!(bytes == [vec![1; 1024], vec![0; 1024], vec![2; 1536]].concat());
    assert_eq!(disk.extent_at(1024).unwrap().kind, Kind::Zero);
    let said = |files: Vec<Arc<dyn Bytes>>| open(files).map(|_| ()).unwrap_err().to_string();
    assert!(said(vec![first.clone()]).contains("more extents"));
    assert!(said(vec![first.clone(), second.clone(), second.clone()]).contains("fewer extents"));
    assert!(said(vec![second, first]).contains("longer than its file"));
}

#[test]
fn attacks_are_refused() {
    let refused = |what: &str, bytes: Vec<u8>, word: &str| assert_refused(what, bytes, Format::Vmdk, word);
    for path in ["/etc/passwd", "passwd", "../../etc/passwd"] {
        let leak = flat(&format!("RW 8 FLAT \"{path}\" 0")).into_bytes();
        refused("a descriptor that names a file", leak.clone(), "none of them is opened");
        // 166 bytes or so: what CVE-2022-47951 was made of.
        assert!(leak.len() < 200);
    }
    refused("COWD", b"COWD\x01\0\0\0".to_vec(), "COWD");
    let good = stream();
    let text = String::from_utf8_lossy(&good[512..21 * 512]).trim_end_matches('\0').to_owned();
    let with = |text: String| {
        let mut bytes = good.clone();
        bytes[512..21 * 512].fill(0);
        patched(&bytes, 512, text.as_bytes())
    };
    let line = "RW 4096 SPARSE \"disk.vmdk\"";
    refused("a parent", with(text.replace("CID=ffffffff", "CID=12345678")), "parent");
    refused("a flat extent", with(text.replace(line, "RW 4096 FLAT \"disk.vmdk\" 0")), "flat extent");
    refused("a path", with(text.replace("disk.vmdk", "/etc/passwd")), "by its path");
    refused("a second extent", with(text.replace(line, &format!("{line}\n{line}"))), "2 extents");
    refused("a foreign type", with(text.replace("streamOptimized", "monolithicFlat")), "monolithicFlat");
    refused("a hint at a parent", with(text.clone() + "parentFileNameHint=\"/etc/passwd\"\n"), "not understood");
    refused("an unknown line", with(text.clone() + "changeTrackPath=\"x\"\n"), "not understood");
    refused("another size", with(text.replace("RW 4096", "RW 4097")), "4097 sectors");
    refused(
        "no descriptor",
        patched(&patched(&good, 28, &[0; 8]), good.len() - 1024 + 28, &[0; 8]),
        "without a descriptor",
    );
    refused(
        "a giant descriptor",
        patched(&patched(&good, 36, &[0xff; 8]), good.len() - 1024 + 36, &[0xff; 8]),
        "bytes",
    );
    refused("a footer that differs", patched(&good, good.len() - 1024 + 12, &[9]), "different things");
    let overhead = u64::MAX.to_le_bytes();
    let endless = patched(&patched(&good, 64, &overhead), good.len() - 1024 + 64, &overhead);
    refused("tables beyond the file", endless, "the file was cut");
    refused("a cut stream", good[..good.len() - 512].to_vec(), "no footer");
    let giant = (1u64 << 52).to_le_bytes();
    refused("a giant disk", patched(&patched(&good, 12, &giant), good.len() - 1024 + 12, &giant), "virtual_bytes_max");
    attack_tables(&good);
}

fn attack_tables(good: &[u8]) {
    let refused = |what: &str, bytes: Vec<u8>, word: &str| assert_refused(what, bytes, Format::Vmdk, word);
    let sector = |at: usize| usize::try_from(u32::from_le_bytes(good[at..at + 4].try_into().unwrap())).unwrap() * 512;
    let directory = sector(good.len() - 1024 + 56);
    let table = sector(directory);
    refused("a table beyond the file", patched(good, directory, &[0xff; 4]), "file ends");
    refused("a table that is the directory", patched(good, directory, &good[good.len() - 968..][..4]), "share bytes");
    refused("a grain beyond the file", patched(good, table, &[0xff; 4]), "file ends");
    refused("a grain twice", patched(good, table + 8, &good[table..table + 4]), "shares bytes");
    refused("a grain in the table", patched(good, table + 8, &good[directory..directory + 4]), "shares bytes");
    refused("a grain in the descriptor", patched(good, table + 8, &[2, 0, 0, 0]), "shares bytes");
    let grain = sector(table);
    refused("a grain of another place", patched(good, grain, &[128]), "belongs to sector");
    refused("a giant grain", patched(good, grain + 8, &[0xff; 4]), "compressed bytes");
    refused("a grain of 0 bytes", patched(good, grain + 8, &[0; 4]), "compressed bytes");
    refused("noise", patched(good, grain + 14, &[0xaa; 40]), "grain at");
}

#[test]
fn mutants_never_panic_or_hang() {
    let good = stream();
    let end = good.len();
    // Header, descriptor, the beginning of the first grain, tables, directory, footer. A change of the header is made
    // to the footer too in every second one, which gets further.
    let hot = [0..90, 512..1100, 65_536..65_600, end - 5 * 512 - 2048..end - 4 * 512, end - 1536..end - 400];
    let mut n = 0;
    let images = || vec![(good.clone(), hot.to_vec())];
    mutants::try_all("mutants_never_panic_or_hang", mutants::PEAK_BYTES_MAX, images, |mut bytes| {
        n += 1;
        if n % 2 == 0 && bytes.len() == end {
            bytes.copy_within(0..56, end - 1024);
            bytes.copy_within(64..512, end - 1024 + 64);
        }
        support::read_through(bytes, Format::Vmdk).map(|_| ())
    });
}

#[test]
fn mutants_of_qemus_sparse_kind_never_panic_or_hang() {
    if !have("qemu-img") {
        return;
    }
    let dir = support::Dir::new();
    let (raw, vmdk) = (dir.raw("raw", 3 * MIB, &[(MIB, support::Dice(4).mixed(100_000))]), dir.path("q.vmdk"));
    run("qemu-img", &["convert", "-f", "raw", "-O", "vmdk", text(&raw), text(&vmdk)]);
    let good = read(&vmdk);
    let refused = |what: &str, bytes: Vec<u8>, word: &str| assert_refused(what, bytes, Format::Vmdk, word);
    refused("deflate without markers", patched(&good, 10, &[1]), "flags");
    refused("copied as text", patched(&good, 73, b"\r"), "newlines");
    refused("a copy of the directory beyond the file", patched(&good, 55, &[1]), "copy of its grain directory");
    refused("grains of 0", patched(&good, 20, &[0]), "grains of 0");
    refused("tables of 4 G", patched(&good, 44, &[0xff; 4]), "instead of 512");
    let images = || vec![(good.clone(), vec![0..90, 512..900, 21 * 512..60_000])];
    let test = "mutants_of_qemus_sparse_kind_never_panic_or_hang";
    mutants::try_all(test, mutants::PEAK_BYTES_MAX, images, |bytes| {
        support::read_through(bytes, Format::Vmdk).map(|_| ())
    });
}
