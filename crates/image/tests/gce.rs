//! Google's tar: extracted by GNU tar to the same disk, as GNU tar makes it read by us; attacks; mutants.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, held to time limits")]
mod support;

use std::fs::File;
use std::io::Write as _;

use skein_image::bytes::FileBytes;
use skein_image::convert::Effort;
use skein_image::format::unpack_gce;
use skein_image::{Budget, Format, convert};
use support::{GIB, MIB, TIB, assert_is, cases, have, mutants, options, read, run, text, usage};

fn unpack(bytes: &[u8], budget: &Budget) -> skein_image::Result<File> {
    let file = tempfile::tempfile().unwrap();
    unpack_gce(&bytes.to_vec(), &file, budget, &())?;
    Ok(file)
}

#[test]
fn gnu_tar_and_we_extract_the_same_disk() {
    let (dir, tar) = (support::Dir::new(), have("tar"));
    for (name, size, data) in cases() {
        let (raw, ours) = (dir.raw(name, size, &data), dir.path("ours.tar.gz"));
        for effort in [Effort::Fast, Effort::Archive] {
            if size > GIB && effort == Effort::Archive {
                continue;
            }
            let mut options = options(Format::GceTar);
            options.effort = effort;
            let report = support::to_file(&raw, &options, &ours).unwrap();
            assert_eq!(report.virtual_bytes, size.next_multiple_of(GIB), "{name}");
            let spool = dir.path("spool");
            let bytes = FileBytes::new(File::open(&ours).unwrap()).unwrap();
            let back = unpack_gce(&bytes, &File::create(&spool).unwrap(), &Budget::default(), &()).unwrap();
            assert_eq!(back.virtual_bytes, report.virtual_bytes);
            assert_is(name, support::open(&spool, Format::Raw).unwrap().as_ref(), &raw);
            if tar {
                let list = run("tar", &["-tvzf", text(&ours)]);
                assert_eq!(list.lines().count(), 1, "{name}: {list}");
                run("tar", &["-xzf", text(&ours), "-C", text(&dir.path(""))]);
                let there = dir.path("disk.raw");
                assert_eq!(there.metadata().unwrap().len(), report.virtual_bytes, "{name}");
                assert_is(name, support::open(&there, Format::Raw).unwrap().as_ref(), &raw);
            }
        }
    }
}

#[test]
fn what_gnu_tar_makes_is_read() {
    if !have("tar") {
        return;
    }
    let dir = support::Dir::new();
    for (name, size, data) in cases() {
        let raw = dir.raw("disk.raw", size, &data);
        let kinds: &[&[&str]] = &[
            &["--format=oldgnu", "-S"],
            &["--format=posix", "-S"],
            &["--format=gnu", "-S", "--sparse-version=1.0"],
            &["--format=ustar"],
        ];
        for kind in kinds.iter().take(if size > 3 * GIB { 3 } else { 4 }) {
            if size > GIB && kind.len() == 1 {
                continue;
            }
            let archive = dir.path("theirs.tar.gz");
            let common = ["-C", text(&dir.path("")).to_owned().leak(), "-czf", text(&archive), "disk.raw"];
            run("tar", &[kind, &common[..]].concat());
            let spool = dir.path("spool");
            unpack_gce(&read(&archive), &File::create(&spool).unwrap(), &Budget::default(), &()).unwrap();
            assert_eq!(spool.metadata().unwrap().len(), size, "{name} {kind:?}");
            assert_is(name, support::open(&spool, Format::Raw).unwrap().as_ref(), &raw);
        }
    }
}

#[test]
fn it_is_one_gzip_member_and_always_the_same_bytes() {
    let dir = support::Dir::new();
    let raw = dir.raw("raw", 40 * MIB, &[(MIB, support::Dice(1).mixed(3_000_000)), (30 * MIB, vec![5; 100])]);
    let written = |threads: usize| {
        let (mut options, mut stream) = (options(Format::GceTar), Vec::new());
        options.threads = threads;
        let source = support::open(&raw, Format::Raw).unwrap();
        convert(source.as_ref(), &mut skein_image::Out::stream(&mut stream), &options, &()).unwrap();
        stream
    };
    let stream = written(1);
    assert!(stream == written(4), "threads do not change the result");
    let mut one = flate2::bufread::GzDecoder::new(stream.as_slice());
    let len = std::io::copy(&mut one, &mut std::io::sink()).unwrap();
    assert!(one.into_inner().is_empty(), "nothing stands behind the first member of {len} bytes");
    assert_eq!(len % 10_240, 0);
}

#[test]
fn sizes_beyond_octal_are_right() {
    let dir = support::Dir::new();
    let raw = dir.raw("raw", 2 * TIB, &[(TIB + 12_345, vec![1; 4096])]);
    let ours = dir.path("ours.tar.gz");
    let report = support::to_file(&raw, &options(Format::GceTar), &ours).unwrap();
    assert!(report.bytes < 100_000, "{} bytes", report.bytes);
    if have("tar") {
        run("tar", &["-xzf", text(&ours), "-C", text(&dir.path(""))]);
        assert_is("2 TiB", support::open(&dir.path("disk.raw"), Format::Raw).unwrap().as_ref(), &raw);
    }
    let empty = dir.raw("empty", 0, &[]);
    assert!(support::to_file(&empty, &options(Format::GceTar), &ours).unwrap_err().to_string().contains("0 bytes"));
}

#[test]
fn two_tebibytes_of_holes_take_no_time() {
    usage::assert_cpu_below("two_tebibytes_of_holes_take_no_time", usage::HOLES_CPU_MAX, || {
        let dir = support::Dir::new();
        let raw = dir.raw("raw", 2 * TIB, &[(TIB + 12_345, vec![1; 4096])]);
        support::to_file(&raw, &options(Format::GceTar), &dir.path("ours.tar.gz")).unwrap();
    });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A plain tar with one member.
fn tar(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar  \0");
    sum(&mut header);
    header.extend_from_slice(content);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn attacks_are_refused() {
    let refused = |what: &str, archive: &[u8], word: &str| {
        let archive = gzip(archive);
        let began = support::usage::thread_cpu();
        let error = unpack(&archive, &Budget::default()).expect_err(what).to_string();
        assert!(error.contains(word), "{what}: {error}");
        let took = support::usage::thread_cpu().saturating_sub(began);
        assert!(took.as_millis() < 1_000, "{what}: {took:?} of CPU");
    };
    let content = [7u8; 1000];
    assert!(unpack(&gzip(&tar("disk.raw", b'0', &content)), &Budget::default()).is_ok());
    for name in ["../disk.raw", "/etc/passwd", "a/disk.raw", "disk.raw/../../x", "", "././disk.raw"] {
        refused(name, &tar(name, b'0', &content), "only disk.raw");
    }
    for kind in [b'1', b'2', b'5', b'L', b'g', b'K', b'V'] {
        refused("another kind", &tar("disk.raw", kind, &content), "of type");
    }
    let two = [tar("disk.raw", b'0', &content), tar("../x", b'0', &content)].concat();
    refused("a second member", &two, "more than disk.raw");
    refused("a cut member", &tar("disk.raw", b'0', &content)[..700], "ends early");
    refused("no tar", &[0; 4096], "no tar");
    let pax = |line: &str| [tar("x", b'x', line.as_bytes()), tar("disk.raw", b'0', &content)].concat();
    refused("a path in an extended header", &pax("20 path=/etc/passwd\n"), "only disk.raw");
    refused("a length that is none", &pax("99999999999999999999 a=b\n"), "malformed");
    refused("a length of 0", &pax("0 a=b\n"), "malformed");
    refused("a giant size", &pax("29 size=18446744073709551615\n"), "virtual_bytes_max");
    let mut sparse = tar("disk.raw", b'S', &content);
    let mut with = |at: usize, text: &str, word: &str| {
        sparse[at..at + text.len()].copy_from_slice(text.as_bytes());
        sum(&mut sparse);
        refused(text, &sparse, word);
    };
    with(483, "77777777777", "counts 0 bytes");
    with(386, "77777777777\x0000000001750", "beyond its size");
    with(386, "00000000000\x0000000001751", "counts 1001 bytes");
    with(386, "0000000000z", "no");
    let mut endless = sparse.clone();
    endless[386..410].fill(0);
    endless[482] = 1;
    sum(&mut endless);
    endless.truncate(512);
    let mut more = vec![b'1'; 504];
    for entry in more.chunks_exact_mut(12) {
        entry.copy_from_slice(b"00000000000\0");
    }
    more.resize(512, 1);
    for _ in 0..200_000 {
        endless.extend_from_slice(&more);
    }
    refused("an endless map", &endless, "metadata_bytes_max");
}

#[test]
fn a_bomb_stops_at_the_budget_and_zeros_do_not_count() {
    let budget = Budget { data_bytes_max: 8 * MIB, ..Budget::default() };
    let mut bomb = tar("disk.raw", b'0', &vec![0xee; 16 << 20]);
    bomb.resize(bomb.len() + 1024, 0);
    let error = unpack(&gzip(&bomb), &budget).unwrap_err().to_string();
    assert!(error.contains("data_bytes_max"), "{error}");
    let zeros = gzip(&tar("disk.raw", b'0', &vec![0; 32 << 20]));
    assert!(unpack(&zeros, &budget).is_ok());
    let long_end = gzip(&[tar("disk.raw", b'0', b"x"), vec![0; 20 << 20]].concat());
    assert!(unpack(&long_end, &budget).unwrap_err().to_string().contains("more than disk.raw"));
}

#[test]
fn mutants_never_panic_or_hang() {
    // The tar is what is changed; gzip's own CRC would hide it.
    let mut sparse = tar("disk.raw", b'S', &support::Dice(3).mixed(4_000));
    for (at, text) in [(386, "00000000000"), (398, "00000007640"), (483, "00000200000")] {
        sparse[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    sum(&mut sparse);
    sparse.resize(sparse.len() + 1024, 0);
    let packed = gzip(&sparse);
    let mut n = 0;
    let images =
        || vec![(sparse.clone(), vec![0..512, 120..160, 380..512]), (packed.clone(), vec![0..20, 0..packed.len()])];
    mutants::try_all("mutants_never_panic_or_hang", mutants::PEAK_BYTES_MAX, images, |mut bytes| {
        if bytes.starts_with(&[0x1f]) {
            return unpack(&bytes, &Budget::default()).map(|_| ());
        }
        n += 1;
        if n % 2 == 0 && bytes.len() > 512 {
            sum(&mut bytes);
        }
        unpack(&gzip(&bytes), &Budget::default()).map(|_| ())
    });
}
