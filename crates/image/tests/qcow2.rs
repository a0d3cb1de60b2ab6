//! The qcow2 reader and writer against QEMU's.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "sizes of tests")]

mod support;

use std::path::Path;

use skein_image::convert::{Compression, Effort};
use skein_image::{Error, Format, Options, Out, convert};
use support::{GIB, MIB, TIB, disks, have, open, options_with, qemu_img, raw, scattered, text, usage, write};

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Zlib, Compression::Zstd];

/// `qemu-img` finds nothing wrong with the image, and the disk in it is that of `raw`; so does our reader.
fn assert_good(image: &Path, raw: &Path, what: &str) {
    qemu_img(&["check", "-q", "-f", "qcow2", text(image)]);
    qemu_img(&["compare", "-q", "-f", "raw", "-F", "qcow2", text(raw), text(image)]);
    support::assert_same(&*open(raw, Format::Raw).unwrap(), &*open(image, Format::Qcow2).unwrap(), what);
}

#[test]
fn what_is_written_is_right_for_qemu_and_for_the_reader() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    for raw in disks(dir.path()) {
        for compression in COMPRESSIONS {
            for effort in [Effort::Fast, Effort::Archive] {
                let options = Options { effort, ..options_with(Format::Qcow2, compression) };
                let report = write(&raw, Format::Raw, &image, &options);
                let what = format!("{} {compression:?} {effort:?}", raw.display());
                assert_eq!(report.bytes, image.metadata().unwrap().len(), "{what}");
                assert_good(&image, &raw, &what);
            }
        }
    }
}

/// How `qemu-img` is asked to make an image, beyond the defaults.
const MADE_BY_QEMU: [(&str, &[&str]); 9] = [
    ("plain", &[]),
    ("zlib", &["-c"]),
    ("zstd", &["-c", "-o", "compression_type=zstd"]),
    ("version 2", &["-o", "compat=0.10"]),
    ("version 2, zlib", &["-c", "-o", "compat=0.10"]),
    ("clusters of 2 MiB, zstd", &["-c", "-o", "cluster_size=2M,compression_type=zstd"]),
    ("extended L2", &["-o", "extended_l2=on"]),
    ("extended L2, zlib, clusters of 2 MiB", &["-c", "-o", "extended_l2=on,cluster_size=2M"]),
    ("refcounts of 1 bit", &["-o", "refcount_bits=1"]),
];

#[test]
fn what_qemu_writes_is_read() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    for raw in disks(dir.path()) {
        for (name, args) in MADE_BY_QEMU {
            let mut all = vec!["convert", "-f", "raw", "-O", "qcow2"];
            all.extend(args);
            all.extend([text(&raw), text(&image)]);
            qemu_img(&all);
            let what = format!("{} {name}", raw.display());
            support::assert_same(&*open(&raw, Format::Raw).unwrap(), &*open(&image, Format::Qcow2).unwrap(), &what);
        }
        // The smallest clusters allow no large disk.
        if raw.metadata().unwrap().len() < GIB {
            for more in [&["-c"][..], &[]] {
                let mut all = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512"];
                all.extend(more);
                all.extend([text(&raw), text(&image)]);
                qemu_img(&all);
                let what = format!("{} clusters of 512 bytes {more:?}", raw.display());
                support::assert_same(&*open(&raw, Format::Raw).unwrap(), &*open(&image, Format::Qcow2).unwrap(), &what);
            }
        }
    }
}

#[test]
fn the_active_layer_of_an_image_with_snapshots_is_read() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (first, then, image) = (dir.path().join("first"), dir.path().join("then"), dir.path().join("image"));
    raw(&first, 8 * MIB, &scattered(8 * MIB, 10, 11));
    qemu_img(&["convert", "-O", "qcow2", text(&first), text(&image)]);
    qemu_img(&["snapshot", "-c", "before", text(&image)]);
    raw(&then, 8 * MIB, &scattered(8 * MIB, 20, 12));
    qemu_img(&["convert", "-n", "-f", "raw", "-O", "qcow2", text(&then), text(&image)]);
    qemu_img(&["snapshot", "-c", "after", text(&image)]);
    support::assert_same(&*open(&then, Format::Raw).unwrap(), &*open(&image, Format::Qcow2).unwrap(), "the last layer");
    qemu_img(&["snapshot", "-a", "before", text(&image)]);
    support::assert_same(&*open(&first, Format::Raw).unwrap(), &*open(&image, Format::Qcow2).unwrap(), "gone back");
}

#[test]
fn two_tebibytes_take_as_long_as_their_data() {
    let test = "two_tebibytes_take_as_long_as_their_data";
    usage::assert_cpu_below(test, 3 * usage::HOLES_CPU_MAX, || {
        let dir = tempfile::tempdir().unwrap();
        let (raw_disk, image, back) = (dir.path().join("raw"), dir.path().join("image"), dir.path().join("back"));
        raw(&raw_disk, 2 * TIB + 512, &scattered(2 * TIB, 20, 21));
        for compression in COMPRESSIONS {
            write(&raw_disk, Format::Raw, &image, &options_with(Format::Qcow2, compression));
            write(&image, Format::Qcow2, &back, &options_with(Format::Raw, Compression::None));
            support::assert_same(&*open(&raw_disk, Format::Raw).unwrap(), &*open(&back, Format::Raw).unwrap(), "2 TiB");
        }
    });
}

#[test]
fn the_same_disk_gives_the_same_bytes_with_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (raw_disk, image) = (dir.path().join("raw"), dir.path().join("image"));
    raw(&raw_disk, 12 * MIB, &scattered(12 * MIB, 40, 31));
    for compression in COMPRESSIONS {
        let made: Vec<Vec<u8>> = [1, 2, 7]
            .map(|threads| {
                let options = Options { threads, ..options_with(Format::Qcow2, compression) };
                write(&raw_disk, Format::Raw, &image, &options);
                std::fs::read(&image).unwrap()
            })
            .to_vec();
        assert!(made.windows(2).all(|pair| pair[0] == pair[1]), "{compression:?}");
    }
}

#[test]
fn compressed_it_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let (raw_disk, image) = (dir.path().join("raw"), dir.path().join("image"));
    // Two megabytes of text-like bytes.
    let words: Vec<u8> = (0..250_000u64).flat_map(|n| (n % 977 * 31 % 4093).to_string().into_bytes()).collect();
    raw(&raw_disk, 4 * MIB, &[(0, words)]);
    for compression in [Compression::Zlib, Compression::Zstd] {
        let report = write(&raw_disk, Format::Raw, &image, &options_with(Format::Qcow2, compression));
        assert!(report.bytes < report.data_bytes / 2 + 6 * 65_536, "{compression:?}: {report:?}");
    }
}

#[test]
fn a_stream_is_refused_with_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let raw_disk = dir.path().join("raw");
    raw(&raw_disk, MIB, &[]);
    let disk = open(&raw_disk, Format::Raw).unwrap();
    let mut to = Vec::new();
    let refused = convert(&*disk, &mut Out::stream(&mut to), &Options::new(Format::Qcow2), &()).unwrap_err();
    assert!(matches!(&refused, Error::Usage(why) if why.contains("give it a file")), "{refused}");
    assert!(to.is_empty());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]
    #[test]
    fn any_disk_comes_back(sectors in 0u64..9_000, parts in 0u64..12, seed: u64, which in 0usize..3, tail in 0u64..512) {
        let dir = tempfile::tempdir().unwrap();
        let (raw_disk, image) = (dir.path().join("raw"), dir.path().join("image"));
        let size = sectors * 512 + tail;
        let scattered = if size == 0 { Vec::new() } else { scattered(size, parts, seed) };
        raw(&raw_disk, size, &scattered);
        write(&raw_disk, Format::Raw, &image, &options_with(Format::Qcow2, COMPRESSIONS[which]));
        support::assert_same(&*open(&raw_disk, Format::Raw).unwrap(), &*open(&image, Format::Qcow2).unwrap(), "any");
        if have("qemu-img") {
            qemu_img(&["check", "-q", "-f", "qcow2", text(&image)]);
        }
    }
}
