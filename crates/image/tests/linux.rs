//! Disks with a real Linux boot in every form: what the guest digests of its disk is what was written. The tiny one
//! always; a whole Debian with `SKEIN_DEBIAN=1` (`cargo xtask test --slow`).
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use skein_image::bytes::FileBytes;
use skein_image::convert::Compression;
use skein_image::{Budget, Format, Options, source};
use support::guest::{self, DEBIAN_SAYS, TINY_BYTES, TINY_SAYS};
use support::{Dir, GIB, options_with, said, text};

/// Forms that QEMU reads, by its word for them.
fn forms() -> Vec<(Options, &'static str)> {
    vec![
        (options_with(Format::Raw, Compression::None), "raw"),
        (options_with(Format::Qcow2, Compression::None), "qcow2"),
        (options_with(Format::Qcow2, Compression::Zlib), "qcow2"),
        (options_with(Format::Qcow2, Compression::Zstd), "qcow2"),
        (options_with(Format::Vmdk, Compression::None), "vmdk"),
        (options_with(Format::Vhd, Compression::None), "vpc"),
        (options_with(Format::Vhdx, Compression::None), "vhdx"),
        (options_with(Format::Vdi, Compression::None), "vdi"),
    ]
}

/// A disk in every form, and raw made of each form that is not raw: (path, driver).
fn every_form(dir: &Dir, raw: &Path) -> Vec<(PathBuf, &'static str)> {
    let mut all = Vec::new();
    let mut packed: Vec<(PathBuf, Format)> = Vec::new();
    for (n, (options, driver)) in forms().into_iter().enumerate() {
        let path = dir.path(&format!("{n}-{}", options.format));
        support::write(raw, Format::Raw, &path, &options);
        packed.push((path.clone(), options.format));
        all.push((path, driver));
    }
    for format in [Format::GceTar, Format::Ova] {
        let path = dir.path(format.word());
        support::write(raw, Format::Raw, &path, &options_with(format, Compression::None));
        packed.push((path, format));
    }
    for (path, format) in packed {
        let back = path.with_extension("back");
        let bytes = Arc::new(FileBytes::new(File::open(&path).unwrap()).unwrap());
        let spool = || Ok(tempfile::tempfile().unwrap());
        let disk = source::open(bytes, Some(format), &Budget::default(), spool, &()).unwrap().disk;
        let file = File::create(&back).unwrap();
        let raw_options = options_with(Format::Raw, Compression::None);
        skein_image::convert(disk.as_ref(), &mut skein_image::Out::File(&file), &raw_options, &()).unwrap();
        all.push((back, "raw"));
    }
    all
}

/// Boots all, two at a time; what each said.
fn boot_all(disks: Vec<(PathBuf, &'static str)>, says: &str, longest: Duration) -> Vec<(PathBuf, Vec<String>)> {
    let (waiting, done) = (Mutex::new(disks), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((disk, driver)) = waiting.lock().unwrap().pop() else { return };
                    let said = guest::boot(&disk, driver, says, longest);
                    done.lock().unwrap().push((disk, said));
                }
            });
        }
    });
    done.into_inner().unwrap()
}

#[test]
fn a_linux_boots_from_every_form_and_sees_the_bytes_that_were_written() {
    let dir = Dir::new();
    let Some(raw) = guest::tiny(&dir.path("")) else { return };
    let digest = support::run("sha256sum", &[text(&raw)]);
    let disks = every_form(&dir, &raw);
    let (count, began) = (disks.len(), std::time::Instant::now());
    for (disk, said) in boot_all(disks, TINY_SAYS, Duration::from_mins(2)) {
        assert!(said.iter().any(|line| line[..64] == digest[..64]), "{}: {said:?}", disk.display());
    }
    assert!(count == 18 && raw.metadata().unwrap().len() == TINY_BYTES);
    said(&format!("{count} boots of Debian's cloud kernel in {:.0} s", began.elapsed().as_secs_f64()));
}

#[test]
fn a_whole_debian_boots_from_every_form() {
    if std::env::var_os("SKEIN_DEBIAN").is_none() {
        return support::skipped("a whole Debian: SKEIN_DEBIAN=1 makes one, and boots it from every form");
    }
    let dir = Dir::new();
    let Some(raw) = guest::debian(&dir.path(""), "debian", 2 * GIB, &[]) else { return };
    let disks = every_form(&dir, &raw);
    let judged: Vec<(PathBuf, &str)> = disks.clone();
    for (path, driver) in &judged {
        support::qemu_img(&["compare", "-f", "raw", "-F", driver, text(&raw), text(path)]);
    }
    let (count, began) = (disks.len(), std::time::Instant::now());
    for (disk, said) in boot_all(disks, DEBIAN_SAYS, Duration::from_mins(10)) {
        assert!(said.iter().any(|line| line.contains("cloud-amd64")), "{}: {said:?}", disk.display());
    }
    said(&format!("{count} boots of a Debian in {:.0} s", began.elapsed().as_secs_f64()));
}
