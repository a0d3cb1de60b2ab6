//! Every reader against every writer. The star (each to raw, raw to each) and all pairs on small disks run always;
//! `SKEIN_MATRIX=all` adds disks of 2 TiB.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skein_image::bytes::FileBytes;
use skein_image::convert::Compression;
use skein_image::{Budget, Disk, Format, Options, Out, convert, source};
use support::{GIB, MIB, TIB, assert_same_within, disks, have, options_with, qemu_img, raw, scattered, text};

/// What is written, with the name that QEMU has for it, where it has one.
fn forms() -> Vec<(Options, Option<&'static str>)> {
    vec![
        (options_with(Format::Raw, Compression::None), Some("raw")),
        (options_with(Format::Qcow2, Compression::None), Some("qcow2")),
        (options_with(Format::Qcow2, Compression::Zlib), Some("qcow2")),
        (options_with(Format::Qcow2, Compression::Zstd), Some("qcow2")),
        (options_with(Format::Vmdk, Compression::None), Some("vmdk")),
        (options_with(Format::Vhd, Compression::None), Some("vpc")),
        (options_with(Format::Vhdx, Compression::None), Some("vhdx")),
        (options_with(Format::Vdi, Compression::None), Some("vdi")),
        (options_with(Format::GceTar, Compression::None), None),
        (options_with(Format::Ova, Compression::None), None),
    ]
}

fn open_as(path: &Path, format: Option<Format>) -> Box<dyn Disk> {
    let bytes = Arc::new(FileBytes::new(File::open(path).unwrap()).unwrap());
    let spool = || Ok(tempfile::tempfile().unwrap());
    source::open(bytes, format, &Budget::default(), spool, &()).unwrap().disk
}

fn write(disk: &dyn Disk, to: &Path, options: &Options) {
    let file = File::options().create(true).truncate(true).read(true).write(true).open(to).unwrap();
    convert(disk, &mut Out::File(&file), options, &()).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}

/// A disk that a format cannot hold is none of its tests.
fn holds(format: Format, size: u64) -> bool {
    match format {
        Format::Raw | Format::Qcow2 | Format::Vdi => true,
        Format::Vhd => size > 0 && size <= 2040 << 30,
        Format::Vmdk | Format::Vhdx | Format::GceTar | Format::Ova => size > 0,
        // Files, not blocks: tests/container.rs.
        Format::Oci => false,
    }
}

fn star(dir: &Path, disks: &[PathBuf]) {
    let judged = have("qemu-img");
    for path in disks {
        let disk = open_as(path, Some(Format::Raw));
        for (n, (options, driver)) in forms().iter().enumerate() {
            if !holds(options.format, disk.size()) {
                continue;
            }
            let what = format!("{} as {} {:?}", path.display(), options.format, options.compression);
            let out = dir.join(format!("star-{n}"));
            write(disk.as_ref(), &out, options);
            let from = (options.format == Format::Raw).then_some(Format::Raw);
            assert_same_within(disk.as_ref(), open_as(&out, from).as_ref(), GIB, &what);
            if let Some(driver) = driver.filter(|_| judged && disk.size() > 0) {
                // QEMU reads the holes of a VHDX one by one: 20 GiB take it half a minute.
                if driver != "vhdx" || disk.size() <= 1 << 30 {
                    qemu_img(&["compare", "-q", "-f", "raw", "-F", driver, text(path), text(&out)]);
                }
                if matches!(driver, "qcow2" | "vmdk" | "vhdx" | "vdi") {
                    qemu_img(&["check", "-q", "-f", driver, text(&out)]);
                }
            }
            std::fs::remove_file(&out).unwrap();
        }
    }
}

#[test]
fn claims_1_to_3_every_reader_gives_raw_and_raw_gives_every_writer() {
    let dir = tempfile::tempdir().unwrap();
    let disks = disks(dir.path());
    star(dir.path(), &disks);
}

#[test]
fn disks_of_2_tib() {
    if std::env::var("SKEIN_MATRIX").is_err() {
        return support::skipped("disks of 2 TiB: SKEIN_MATRIX=all runs them");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("2T.raw");
    raw(&path, 2 * TIB, &scattered(2 * TIB, 12, 5));
    star(dir.path(), &[path]);
}

#[test]
fn all_pairs_give_the_same_disk_and_the_same_bytes_whatever_it_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    raw(&path, 4 * MIB, &scattered(4 * MIB, 30, 9));
    pairs(dir.path(), &path);
}

#[test]
fn all_pairs_on_every_disk_also_a_debian_and_one_of_2_tib() {
    if std::env::var_os("SKEIN_MATRIX").is_none() {
        return support::skipped("all pairs on every disk: SKEIN_MATRIX=all runs them");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut all = disks(dir.path());
    let huge = dir.path().join("2T.raw");
    raw(&huge, 2 * TIB, &scattered(2 * TIB, 12, 5));
    all.push(huge);
    all.extend(support::guest::debian(dir.path(), "debian", 2 * GIB, &[]));
    for path in &all {
        let began = std::time::Instant::now();
        let count = pairs(dir.path(), path);
        support::said(&format!("{}: {count} pairs in {:.0} s", path.display(), began.elapsed().as_secs_f64()));
    }
}

/// Every form that can hold the disk to every other; how many pairs.
fn pairs(dir: &Path, path: &Path) -> usize {
    let disk = open_as(path, Some(Format::Raw));
    let files: Vec<(Options, PathBuf)> = forms()
        .into_iter()
        .enumerate()
        .filter(|(_, (options, _))| holds(options.format, disk.size()))
        .map(|(n, (options, _))| {
            let file = dir.join(format!("first-{n}"));
            write(disk.as_ref(), &file, &options);
            (options, file)
        })
        .collect();
    let mut count = 0;
    for (from, file) in &files {
        let form = (from.format == Format::Raw).then_some(Format::Raw);
        let read = open_as(file, form);
        // A form that counts in larger units gives a larger disk, which a form with a limit may not hold.
        for (to, first) in files.iter().filter(|(to, _)| holds(to.format, read.size())) {
            let what = format!(
                "{}: {} {:?} to {} {:?}",
                path.display(),
                from.format,
                from.compression,
                to.format,
                to.compression
            );
            let second = dir.join("second");
            write(read.as_ref(), &second, to);
            let form = (to.format == Format::Raw).then_some(Format::Raw);
            assert_same_within(disk.as_ref(), open_as(&second, form).as_ref(), GIB, &what);
            // Where the size is the same too, so are the bytes.
            if read.size() == disk.size() {
                assert!(same_file(&second, first), "{what}: other bytes");
            }
            count += 1;
        }
    }
    for (_, file) in files {
        std::fs::remove_file(file).unwrap();
    }
    count
}

/// Sparse files of terabytes are compared by what is in them.
fn same_file(one: &Path, other: &Path) -> bool {
    if std::fs::metadata(one).unwrap().len() > 64 * MIB {
        let (one, other) = (open_as(one, Some(Format::Raw)), open_as(other, Some(Format::Raw)));
        assert_same_within(one.as_ref(), other.as_ref(), 1, "the same file");
        return true;
    }
    std::fs::read(one).unwrap() == std::fs::read(other).unwrap()
}
