//! Every reader against every writer. The star (each to raw, raw to each) and all pairs on small disks run always;
//! `SKEIN_MATRIX=all` adds disks of 2 TiB.
#![allow(clippy::unwrap_used, reason = "tests")]

mod oracle;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oracle::{MIB, TIB, disks, has_qemu_img, options, qemu_img, raw, scattered, text};
use skein_image::bytes::FileBytes;
use skein_image::convert::Compression;
use skein_image::{Budget, Disk, Format, Kind, Options, Out, convert, source};

/// What is written, with the name that QEMU has for it, where it has one.
fn forms() -> Vec<(Options, Option<&'static str>)> {
    vec![
        (options(Format::Raw, Compression::None), Some("raw")),
        (options(Format::Qcow2, Compression::None), Some("qcow2")),
        (options(Format::Qcow2, Compression::Zlib), Some("qcow2")),
        (options(Format::Qcow2, Compression::Zstd), Some("qcow2")),
        (options(Format::Vmdk, Compression::None), Some("vmdk")),
        (options(Format::Vhd, Compression::None), Some("vpc")),
        (options(Format::Vhdx, Compression::None), Some("vhdx")),
        (options(Format::Vdi, Compression::None), Some("vdi")),
        (options(Format::GceTar, Compression::None), None),
        (options(Format::Ova, Compression::None), None),
    ]
}

fn open(path: &Path) -> Box<dyn Disk> {
    open_as(path, None)
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

/// Equal, where one may be longer: a format counts in its own units, and what it adds is zeros.
fn assert_same(one: &dyn Disk, other: &dyn Disk, what: &str) {
    let size = one.size().max(other.size());
    assert!(size - one.size().min(other.size()) < 1 << 30, "{what}: {} and {}", one.size(), other.size());
    let (mut at, mut left, mut right) = (0, vec![0; 1 << 20], vec![0; 1 << 20]);
    while at < size {
        let zero = |disk: &dyn Disk| {
            if at >= disk.size() {
                return size - at;
            }
            let extent = disk.extent_at(at).unwrap();
            if extent.kind == Kind::Zero { extent.len } else { 0 }
        };
        let skipped = zero(one).min(zero(other));
        if skipped > 0 {
            at += skipped;
            continue;
        }
        let len = (size - at).min(1 << 20);
        for (disk, buffer) in [(one, &mut left), (other, &mut right)] {
            buffer.fill(0);
            let there = usize::try_from(disk.size().saturating_sub(at).min(len)).unwrap();
            disk.read_at(at, &mut buffer[..there]).unwrap();
        }
        assert!(left == right, "{what}: they differ between {at} and {}", at + len);
        at += len;
    }
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
    let judged = has_qemu_img("the matrix");
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
            assert_same(disk.as_ref(), open_as(&out, from).as_ref(), &what);
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
        return oracle::skipped("disks of 2 TiB: SKEIN_MATRIX=all runs them");
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
    let disk = open_as(&path, Some(Format::Raw));
    let files: Vec<(Options, PathBuf)> = forms()
        .into_iter()
        .enumerate()
        .map(|(n, (options, _))| {
            let file = dir.path().join(format!("first-{n}"));
            write(disk.as_ref(), &file, &options);
            (options, file)
        })
        .collect();
    for (from, file) in &files {
        let form = (from.format == Format::Raw).then_some(Format::Raw);
        let read = open_as(file, form);
        for (to, first) in &files {
            let what = format!("{} {:?} to {} {:?}", from.format, from.compression, to.format, to.compression);
            let second = dir.path().join("second");
            write(read.as_ref(), &second, to);
            let form = (to.format == Format::Raw).then_some(Format::Raw);
            assert_same(disk.as_ref(), open_as(&second, form).as_ref(), &what);
            // Where the size is the same too, so are the bytes.
            if read.size() == disk.size() {
                assert!(std::fs::read(&second).unwrap() == std::fs::read(first).unwrap(), "{what}: other bytes");
            }
        }
    }
    drop(open(&files[1].1));
}
