//! The VDI reader and writer against QEMU's, and images made to harm.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "sizes of tests")]

mod support;

use std::path::Path;
use std::sync::Arc;

use skein_image::convert::Compression;
use skein_image::{Budget, Error, Format, Options, Out, convert, detect, format};
use support::{
    MIB, TIB, disks, have, mutants, open, options_with, qemu_img, raw, read_all, scattered, text, usage, write,
};

fn assert_good(image: &Path, raw: &Path, what: &str) {
    support::assert_same(&*open(raw, Format::Raw).unwrap(), &*open(image, Format::Vdi).unwrap(), what);
    if have("qemu-img") {
        qemu_img(&["check", "-q", "-f", "vdi", text(image)]);
        qemu_img(&["compare", "-q", "-f", "raw", "-F", "vdi", text(raw), text(image)]);
    }
}

#[test]
fn what_is_written_is_right_for_qemu_and_for_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    for raw in disks(dir.path()) {
        let report = write(&raw, Format::Raw, &image, &options_with(Format::Vdi, Compression::None));
        assert_eq!(report.bytes, image.metadata().unwrap().len());
        let bytes = skein_image::bytes::FileBytes::new(std::fs::File::open(&image).unwrap()).unwrap();
        assert_eq!(detect(&bytes).unwrap(), Format::Vdi);
        assert_good(&image, &raw, text(&raw));
    }
}

#[test]
fn what_qemu_writes_is_read() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    for raw in disks(dir.path()) {
        for kind in ["static=off", "static=on"] {
            if kind == "static=on" && raw.metadata().unwrap().len() > 100 * MIB {
                continue;
            }
            qemu_img(&["convert", "-f", "raw", "-O", "vdi", "-o", kind, text(&raw), text(&image)]);
            support::assert_same(&*open(&raw, Format::Raw).unwrap(), &*open(&image, Format::Vdi).unwrap(), kind);
        }
    }
}

#[test]
fn two_tebibytes_take_as_long_as_their_data() {
    usage::assert_cpu_below("two_tebibytes_take_as_long_as_their_data", usage::HOLES_CPU_MAX, || {
        let dir = tempfile::tempdir().unwrap();
        let (disk, image, back) = (dir.path().join("raw"), dir.path().join("image"), dir.path().join("back"));
        raw(&disk, 2 * TIB + 512, &scattered(2 * TIB, 20, 21));
        write(&disk, Format::Raw, &image, &options_with(Format::Vdi, Compression::None));
        write(&image, Format::Vdi, &back, &options_with(Format::Raw, Compression::None));
        support::assert_same(&*open(&disk, Format::Raw).unwrap(), &*open(&back, Format::Raw).unwrap(), "2 TiB");
    });
}

#[test]
fn identifiers_come_from_the_content() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, image) = (dir.path().join("raw"), dir.path().join("image"));
    let mut parts = scattered(9 * MIB, 10, 7);
    let made = |parts: &[(u64, Vec<u8>)], threads| {
        raw(&disk, 9 * MIB, parts);
        write(&disk, Format::Raw, &image, &Options { threads, ..options_with(Format::Vdi, Compression::None) });
        std::fs::read(&image).unwrap()
    };
    let (first, again) = (made(&parts, 1), made(&parts, 5));
    assert!(first == again, "the same disk gave other bytes");
    parts[9].1[0] ^= 1;
    let other = made(&parts, 2);
    assert_ne!(first[0x188..0x198], other[0x188..0x198], "two disks of one UUID");
}

#[test]
fn a_stream_is_refused_with_the_next_step() {
    let mut to = Vec::new();
    let disk = format::open(Arc::new(vec![0; 512]), Format::Raw, &Budget::default()).unwrap();
    let refused = convert(&*disk, &mut Out::stream(&mut to), &Options::new(Format::Vdi), &()).unwrap_err();
    assert!(matches!(&refused, Error::Usage(why) if why.contains("give it a file")), "{refused}");
}

/// A small good image: three blocks, of which two are there.
fn good() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (disk, image) = (dir.path().join("raw"), dir.path().join("image"));
    let parts = [(0, vec![1; 70_000]), (2 * MIB, vec![2; 1000])];
    raw(&disk, 3 * MIB, &parts);
    write(&disk, Format::Raw, &image, &options_with(Format::Vdi, Compression::None));
    std::fs::read(&image).unwrap()
}

fn go_over(image: Vec<u8>) -> skein_image::Result<u64> {
    let began = usage::thread_cpu();
    let result =
        format::open(Arc::new(image), Format::Vdi, &Budget::default()).and_then(|disk| read_all(&*disk, 8 * MIB));
    let took = usage::thread_cpu().saturating_sub(began);
    assert!(took.as_millis() < 1_000, "it took {took:?} of CPU");
    result
}

#[test]
fn images_made_to_harm_are_refused() {
    assert_eq!(go_over(good()).unwrap(), 2 * MIB);
    for (word, at, number) in [
        ("no VDI header", 0x40, 0u32),
        ("VDI version 2.1", 0x44, 0x0002_0001),
        ("undo image", 0x4c, 3),
        ("difference image", 0x4c, 4),
        ("of kind 0", 0x4c, 0),
        ("difference image", 0x1b8, 1),
        ("difference image", 0x1a8, 1 << 31),
        ("overlap", 0x154, 0),
        ("overlap", 0x154, 513),
        ("overlap", 0x158, 512),
        ("overlap", 0x154, !511),
        ("beyond the file's end", 0x158, !511),
        ("sectors of", 0x168, 4096),
        ("the size needs", 0x170, 3 * (1 << 20) + 1),
        ("the size needs", 0x174, 1),
        ("virtual_bytes_max", 0x174, 1 << 30),
        ("blocks of", 0x178, 0),
        ("blocks of", 0x178, 3 << 20),
        ("blocks of", 0x178, 1 << 31),
        ("beyond the file's end", 0x178, 1 << 30),
        ("the size needs", 0x178, 512),
        ("extra bytes", 0x17c, 512),
        ("the size needs", 0x180, 2),
        ("overlap", 0x180, u32::MAX),
        ("beyond the file's end", 0x200, 2),
        ("beyond the file's end", 0x200, u32::MAX - 2),
        ("two blocks", 0x200, 1),
    ] {
        let mut image = good();
        image[at..at + 4].copy_from_slice(&number.to_le_bytes());
        match go_over(image) {
            Ok(read) => panic!("'{word}' was expected for {at:#x}, but {read} bytes were read"),
            Err(error) => assert!(error.to_string().contains(word), "'{word}' was expected for {at:#x}: {error}"),
        }
    }
}

#[test]
fn a_map_larger_than_the_budget_is_refused_before_it_is_read() {
    let mut image = good();
    // 32 TiB in blocks of 1 MiB; the map would have 128 MiB.
    image[0x170..0x178].copy_from_slice(&(32 * TIB).to_le_bytes());
    image[0x180..0x184].copy_from_slice(&(32u32 << 20).to_le_bytes());
    image[0x158..0x15c].copy_from_slice(&(256u32 << 20).to_le_bytes());
    let error = go_over(image).unwrap_err();
    assert!(matches!(error, Error::OverBudget { limit: "metadata_bytes_max", .. }), "{error}");
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let image = good();
    for len in [0, 1, 511, 512, 4096, image.len() - 1] {
        assert!(go_over(image[..len].to_vec()).is_err(), "{len} bytes");
    }
}

#[test]
fn mutants_do_no_harm() {
    let images = || vec![(good(), vec![0..0x20c, 0..0x20c])];
    mutants::try_all("mutants_do_no_harm", mutants::PEAK_BYTES_MAX, images, |image| go_over(image).map(|_| ()));
}
