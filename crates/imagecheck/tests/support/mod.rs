//! Disks to convert, and what is said of the results.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests, of sizes that are known")]

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use skein_image::bytes::FileBytes;
use skein_image::{Budget, Disk, Format, Options, Out, convert, format};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// A disk of each kind that profiles treat in their own way; the names are those of the files.
pub(crate) fn disks(dir: &Path) -> Vec<PathBuf> {
    let one = |name: &str, size: u64, parts: &[(u64, Vec<u8>)]| {
        let path = dir.join(name);
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (at, bytes) in parts {
            file.write_all_at(bytes, *at).unwrap();
        }
        path
    };
    let mut mbr = vec![0; 512];
    mbr[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x20, 1, 0]);
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let scattered: Vec<(u64, Vec<u8>)> = (0..12).map(|n| (n * 1700 * MIB + n * 4096, noise(70_000, n))).collect();
    let gpt_bytes = 45 * MIB + 1536;
    let mut with_gpt = gpt(gpt_bytes);
    with_gpt.push((3 * MIB, noise(200_000, 7)));
    vec![
        one("empty", 3 * MIB, &[]),
        one("odd", 5 * MIB + 700, &[(0, noise(3000, 1)), (5 * MIB + 600, noise(100, 2))]),
        one("gpt", gpt_bytes, &with_gpt),
        one("mbr", 40 * MIB, &[(0, mbr), (MIB, noise(900_000, 3))]),
        one("sparse", 20 * GIB, &scattered),
    ]
}

/// The parts of a GPT with two partitions on a disk of `size` bytes.
pub(crate) fn gpt(size: u64) -> Vec<(u64, Vec<u8>)> {
    let last = size / 512 - 1;
    let mut mbr = vec![0; 512];
    mbr[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
    mbr[458..462].copy_from_slice(&(last as u32).to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut entries = vec![0; 128 * 128];
    for (n, (from, to)) in [(2048, 4095), (4096, last - 33)].into_iter().enumerate() {
        let entry = &mut entries[n * 128..];
        entry[..16].copy_from_slice(&[
            0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
        ]);
        entry[16..32].fill(n as u8 + 1);
        entry[32..40].copy_from_slice(&u64::to_le_bytes(from));
        entry[40..48].copy_from_slice(&u64::to_le_bytes(to));
        entry[56..58].copy_from_slice(b"a\0");
    }
    let header = |own: u64, other: u64, entries_at: u64| {
        let mut header = vec![0; 512];
        header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
        for (at, value) in [(24, own), (32, other), (40, 34), (48, last - 33), (72, entries_at)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[56..72].fill(9);
        header[80..88].copy_from_slice(&[128, 0, 0, 0, 128, 0, 0, 0]);
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let sum = crc32(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        header
    };
    vec![
        (0, mbr),
        (512, header(1, last, 2)),
        (1024, entries.clone()),
        ((last - 32) * 512, entries.clone()),
        (last * 512, header(last, 1, last - 32)),
    ]
}

pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

pub(crate) fn disk(path: &Path) -> Box<dyn Disk> {
    format::open(Arc::new(FileBytes::new(File::open(path).unwrap()).unwrap()), Format::Raw, &Budget::default()).unwrap()
}

pub(crate) fn write(from: &Path, options: &Options, to: &Path) {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(to).unwrap();
    convert(disk(from).as_ref(), &mut Out::File(&file), options, &()).unwrap();
}

/// Names of the rules that the file breaks.
pub(crate) fn broken(cloud: &str, path: &Path) -> Vec<&'static str> {
    let mut names: Vec<_> =
        skein_imagecheck::check(cloud, &File::open(path).unwrap()).unwrap().iter().map(|one| one.rule.name).collect();
    names.sort_unstable();
    names
}

/// What is said of it, for a failure's message.
pub(crate) fn said(cloud: &str, path: &Path) -> String {
    let broken = skein_imagecheck::check(cloud, &File::open(path).unwrap()).unwrap();
    broken.iter().fold(String::new(), |all, one| format!("{all}{}: {}\n", one.rule.name, one.why))
}

/// Is the program there? When not, says so, past the harness.
pub(crate) fn have(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        let skipped = format!("SKIPPED: {program} is not installed, what it makes or says was not looked at\n");
        std::io::stderr().lock().write_all(skipped.as_bytes()).unwrap();
    }
    there
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}
