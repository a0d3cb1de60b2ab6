//! What the tests of images share: disks to try, files, the real tools as oracles, bytes that are refused. What is
//! held to a figure of CPU or memory is in `usage`, what is changed at random in `mutants`.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests, of sizes that are known")]

pub(crate) mod attacks;
pub(crate) mod guest;
pub(crate) mod mutants;
pub(crate) mod usage;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use skein_image::bytes::FileBytes;
use skein_image::convert::Compression;
use skein_image::{Budget, Disk, Format, Kind, Options, Out, Report, Result, convert, format};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;

/// A temporary folder.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    pub(crate) fn raw(&self, name: &str, size: u64, parts: &[(u64, Vec<u8>)]) -> PathBuf {
        let path = self.path(name);
        raw(&path, size, parts);
        path
    }
}

/// A sparse raw disk: its size, and what stands where.
pub(crate) fn raw(path: &Path, size: u64, parts: &[(u64, Vec<u8>)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, bytes) in parts {
        let len = size.saturating_sub(*at).min(bytes.len() as u64) as usize;
        file.write_all_at(&bytes[..len], *at).unwrap();
    }
}

/// Numbers that look random and are the same each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }
    fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.roll().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
    /// Half noise, half text-like: deflate has something to do.
    pub(crate) fn mixed(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = self.noise(len);
        for (n, byte) in bytes.iter_mut().enumerate() {
            if n / 700 % 2 == 0 {
                *byte = b'a' + *byte % 8;
            }
        }
        bytes
    }
    /// One of the three kinds that writers treat in different ways: noise, one letter, words.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        match self.below(3) {
            0 => self.noise(len),
            1 => vec![self.roll().to_le_bytes()[0] | 1; len],
            _ => {
                let words = [self.roll().to_le_bytes(), self.roll().to_le_bytes(), [0; 8], *b"The disk"];
                (0..len.div_ceil(8)).flat_map(|_| words[self.below(4) as usize]).take(len).collect()
            }
        }
    }
}

/// (name, size, data).
pub(crate) type Case = (&'static str, u64, Vec<(u64, Vec<u8>)>);

/// Whole sectors, at the sizes at which formats break.
pub(crate) fn cases() -> Vec<Case> {
    let mut dice = Dice(7);
    let mut block = |len: usize| dice.mixed(len);
    let scattered =
        (0..96u64).map(|n| (n * 211 * MIB + n * 4096, block(if n % 3 == 0 { 70_000 } else { 512 }))).collect();
    vec![
        ("one-sector", 512, vec![(0, block(512))]),
        ("empty-64k", 64 * KIB, vec![]),
        ("64k-minus-sector", 64 * KIB - 512, vec![(0, block(65_024))]),
        ("64k-plus-sector", 64 * KIB + 512, vec![(0, block(100)), (64 * KIB, block(512))]),
        ("5-mib-odd-sectors", 5 * MIB + 1536, vec![(3, block(2_000_000)), (5 * MIB + 1024, block(512))]),
        ("34-mib", 34 * MIB, vec![(MIB - 7, block(3_000_000)), (33 * MIB, block(100_000))]),
        ("2-gib-edge", 2 * GIB + 512, vec![(2 * GIB - 700, block(1212)), (GIB, block(1))]),
        ("20-gib-scattered", 20 * GIB, scattered),
    ]
}

/// Of any size, also none and half a sector: for the formats that can say so.
pub(crate) fn disks(dir: &Path) -> Vec<PathBuf> {
    let mut dice = Dice(1);
    let mut made = Vec::new();
    let mut one = |name: &str, size: u64, parts: &[(u64, Vec<u8>)]| {
        let path = dir.join(format!("{name}.raw"));
        raw(&path, size, parts);
        made.push(path);
    };
    one("empty", 0, &[]);
    one("sector", 512, &[(0, dice.bytes(512))]);
    one("64K-1s", 64 * KIB - 512, &[(0, dice.bytes(64 << 10))]);
    one("64K+1s", 64 * KIB + 512, &[(0, dice.bytes(1 << 17))]);
    one("odd", 64 * KIB + 513, &[(0, dice.bytes(1 << 17))]);
    one("zeros", 3 * MIB, &[]);
    one("dense", 5 * MIB + 1024, &scattered(5 * MIB + 1024, 60, 2));
    one("20G", 20 * GIB, &scattered(20 * GIB, 12, 3));
    made
}

/// Parts scattered over a disk.
pub(crate) fn scattered(size: u64, count: u64, seed: u64) -> Vec<(u64, Vec<u8>)> {
    let mut dice = Dice(seed);
    (0..count)
        .map(|_| {
            let at = dice.below(size) / 512 * 512;
            let len = 1 + dice.below(200_000.min(size - at)) as usize;
            (at, dice.bytes(len))
        })
        .collect()
}

pub(crate) fn open(path: &Path, of: Format) -> Result<Box<dyn Disk>> {
    format::open(Arc::new(FileBytes::new(File::open(path).unwrap())?), of, &Budget::default())
}

pub(crate) fn options(of: Format) -> Options {
    Options { threads: 3, ..Options::new(of) }
}

pub(crate) fn options_with(of: Format, compression: Compression) -> Options {
    Options { compression, ..options(of) }
}

/// Converts a raw file to a file.
pub(crate) fn to_file(raw: &Path, options: &Options, to: &Path) -> Result<Report> {
    convert_file(raw, Format::Raw, to, options)
}

pub(crate) fn write(from: &Path, of: Format, to: &Path, options: &Options) -> Report {
    convert_file(from, of, to, options).unwrap()
}

fn convert_file(from: &Path, of: Format, to: &Path, options: &Options) -> Result<Report> {
    let source = open(from, of)?;
    let file = File::create(to).unwrap();
    let report = convert(source.as_ref(), &mut Out::File(&file), options, &())?;
    assert_eq!(report.bytes, file.metadata().unwrap().len(), "the report names the file's length");
    Ok(report)
}

/// Is the disk the raw file? What it has more must be zeros.
pub(crate) fn assert_is(name: &str, disk: &dyn Disk, raw: &Path) {
    let other = open(raw, Format::Raw).unwrap();
    assert!(disk.size() >= other.size(), "{name}: {} bytes instead of {}", disk.size(), other.size());
    assert_same_within(disk, other.as_ref(), u64::MAX, name);
}

/// The same, but for less than a sector at the end.
pub(crate) fn assert_same(one: &dyn Disk, other: &dyn Disk, what: &str) {
    assert_same_within(one, other, 512, what);
}

/// Are both disks the same, in what they say and in what they give? One may be longer by less than `slack` bytes,
/// which must be zeros: a format counts in its own units.
pub(crate) fn assert_same_within(one: &dyn Disk, other: &dyn Disk, slack: u64, what: &str) {
    assert!(one.size().abs_diff(other.size()) < slack, "{what}: {} and {} bytes", one.size(), other.size());
    let size = one.size().max(other.size());
    let (mut at, mut left, mut right) = (0, vec![0; 1 << 20], vec![0; 1 << 20]);
    while at < size {
        let (first, second) = (run_at(one, at, size, what), run_at(other, at, size, what));
        let len = first.1.min(second.1);
        if first.0 == Kind::Zero && second.0 == Kind::Zero {
            at += len;
            continue;
        }
        let len = len.min(1 << 20);
        for (disk, buffer, kind) in [(one, &mut left, first.0), (other, &mut right, second.0)] {
            let buffer = &mut buffer[..len as usize];
            buffer.fill(0);
            let there = disk.size().saturating_sub(at).min(len) as usize;
            disk.read_at(at, &mut buffer[..there]).unwrap();
            assert!(kind == Kind::Data || buffer.iter().all(|byte| *byte == 0), "{what}: called zero at {at}");
        }
        assert!(left[..len as usize] == right[..len as usize], "{what}: other bytes in {len} at {at}");
        at += len;
    }
}

fn run_at(disk: &dyn Disk, at: u64, size: u64, what: &str) -> (Kind, u64) {
    if at >= disk.size() {
        return (Kind::Zero, size - at);
    }
    let extent = disk.extent_at(at).unwrap();
    assert!(extent.len > 0 && at + extent.len <= disk.size(), "{what}: extent {extent:?} at {at}");
    (extent.kind, extent.len)
}

/// Is the program there? When not, says so, past the harness, which keeps what a passing test prints to itself.
pub(crate) fn have(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        skipped(&format!("{program} is not installed, its comparison was not made"));
    }
    there
}

pub(crate) fn skipped(what: &str) {
    said(&format!("SKIPPED: {what}"));
}

pub(crate) fn said(what: &str) {
    std::io::stderr().lock().write_all(format!("{what}\n").as_bytes()).unwrap();
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

pub(crate) fn qemu_img(arguments: &[&str]) -> String {
    run("qemu-img", arguments)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Puts `with` at `at`.
pub(crate) fn patched(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// Opens bytes and goes over the whole disk, as a converter would; gives how much was read.
pub(crate) fn read_through(bytes: Vec<u8>, of: Format) -> Result<u64> {
    read_all(format::open(Arc::new(bytes), of, &Budget::default())?.as_ref(), 64 * MIB)
}

/// Goes over a whole disk until `most` bytes of data were read.
pub(crate) fn read_all(disk: &dyn Disk, most: u64) -> Result<u64> {
    let (mut at, mut read, mut buffer) = (0, 0, vec![0; 1 << 20]);
    while at < disk.size() && read < most {
        let extent = disk.extent_at(at)?;
        assert!(extent.len > 0 && at + extent.len <= disk.size(), "extent {extent:?} at {at} of {}", disk.size());
        let mut len = extent.len;
        if extent.kind == Kind::Data {
            len = len.min(1 << 20);
            disk.read_at(at, &mut buffer[..len as usize])?;
            read += len;
        }
        at += len;
    }
    Ok(read)
}

/// Is it refused, quickly, and does the reason hold `word`?
pub(crate) fn assert_refused(what: &str, bytes: Vec<u8>, of: Format, word: &str) {
    let began = usage::thread_cpu();
    let error = read_through(bytes, of).expect_err(what).to_string();
    assert!(error.contains(word), "{what}: {error}");
    let took = usage::thread_cpu().saturating_sub(began);
    assert!(took < Duration::from_secs(1), "{what}: took {took:?} of CPU");
}
