//! What the tests of the formats share: disks, files, and `qemu-img` as the oracle.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "sizes of tests")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use skein_image::bytes::FileBytes;
use skein_image::convert::Compression;
use skein_image::{Budget, Disk, Format, Kind, Options, Out, Report, convert, format};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;

/// Is `qemu-img` there? Says so when the test is skipped.
pub(crate) fn has_qemu_img(test: &str) -> bool {
    let there = Command::new("qemu-img").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        skipped(&format!("{test}: there is no qemu-img on this machine"));
    }
    there
}

/// Said past the test harness, which keeps what a passing test prints to itself.
pub(crate) fn skipped(what: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "SKIPPED: {what}").ok();
}

/// Runs it; its output is in the failure.
pub(crate) fn qemu_img(args: &[&str]) {
    let output = Command::new("qemu-img").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "qemu-img {args:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
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
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.roll() % most.max(1)
    }
    /// Bytes: of the three kinds that writers treat in different ways.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        match self.below(3) {
            // Does not compress.
            0 => (0..len).map(|_| self.roll().to_le_bytes()[0]).collect(),
            1 => vec![self.roll().to_le_bytes()[0] | 1; len],
            _ => {
                let words = [self.roll().to_le_bytes(), self.roll().to_le_bytes(), [0; 8], *b"The disk"];
                (0..len.div_ceil(8)).flat_map(|_| words[self.below(4) as usize]).take(len).collect()
            }
        }
    }
}

/// A raw disk: its size, and what stands where.
pub(crate) fn raw(path: &Path, size: u64, parts: &[(u64, Vec<u8>)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, bytes) in parts {
        let len = (size - at).min(bytes.len() as u64) as usize;
        file.write_all_at(&bytes[..len], *at).unwrap();
    }
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

/// The disks that every format is tried on, small in data.
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

pub(crate) fn open(path: &Path, format: Format) -> skein_image::Result<Box<dyn Disk>> {
    open_within(path, format, &Budget::default())
}

pub(crate) fn open_within(path: &Path, format: Format, budget: &Budget) -> skein_image::Result<Box<dyn Disk>> {
    format::open(Arc::new(FileBytes::new(File::open(path).unwrap()).unwrap()), format, budget)
}

pub(crate) fn options(format: Format, compression: Compression) -> Options {
    Options { compression, threads: 2, ..Options::new(format) }
}

/// Converts to a file.
pub(crate) fn write(from: &Path, of: Format, to: &Path, options: &Options) -> Report {
    let disk = open(from, of).unwrap();
    let file = File::create(to).unwrap();
    convert(&*disk, &mut Out::File(&file), options, &()).unwrap()
}

/// Goes over a whole disk as a converter does; ends with the first error. At most `most` bytes are read.
pub(crate) fn read_all(disk: &dyn Disk, most: u64) -> skein_image::Result<u64> {
    let (mut at, mut read, mut buffer) = (0, 0, Vec::new());
    while at < disk.size() && read < most {
        let extent = disk.extent_at(at)?;
        assert!(extent.len > 0, "an extent at {at} that does not end");
        assert!(at + extent.len <= disk.size(), "an extent beyond the end");
        if extent.kind == Kind::Data {
            let mut done = 0;
            while done < extent.len && read < most {
                let step = (extent.len - done).min(1 << 20);
                buffer.resize(step as usize, 0);
                disk.read_at(at + done, &mut buffer)?;
                (done, read) = (done + step, read + step);
            }
        }
        at += extent.len;
    }
    Ok(read)
}

/// Are both disks the same? What one says is zero must be so in the other; the longer one ends in zeros.
pub(crate) fn assert_same(a: &dyn Disk, b: &dyn Disk, what: &str) {
    let size = a.size().min(b.size());
    assert!(a.size().abs_diff(b.size()) < 512, "{what}: sizes {} and {}", a.size(), b.size());
    let (mut at, mut left, mut right) = (0, Vec::new(), Vec::new());
    while at < size {
        let (first, second) = (a.extent_at(at).unwrap(), b.extent_at(at).unwrap());
        let len = first.len.min(second.len).min(size - at);
        assert!(len > 0, "{what}: no extent at {at}");
        if first.kind == Kind::Zero && second.kind == Kind::Zero {
            at += len;
            continue;
        }
        let len = len.min(1 << 20);
        left.resize(len as usize, 0);
        right.resize(len as usize, 0);
        a.read_at(at, &mut left).unwrap();
        b.read_at(at, &mut right).unwrap();
        assert!(left == right, "{what}: differs within {len} bytes at {at}");
        for (extent, bytes) in [(first, &left), (second, &right)] {
            let zero = bytes.iter().all(|byte| *byte == 0);
            assert!(extent.kind == Kind::Data || zero, "{what}: said to be zero at {at}, and is not");
        }
        at += len;
    }
}

/// Now, for what must not take long.
#[allow(clippy::disallowed_methods, reason = "a test of how long something takes")]
pub(crate) fn started() -> std::time::Instant {
    std::time::Instant::now()
}

/// Changes a few bytes, half of the time among the first `header` ones, or cuts the image off.
pub(crate) fn mutate(image: &mut Vec<u8>, dice: &mut Dice, header: usize) {
    if dice.below(20) == 0 {
        image.truncate(dice.below(image.len() as u64) as usize);
    }
    for _ in 0..=dice.below(3) {
        if image.is_empty() {
            return;
        }
        let most = if dice.below(2) == 0 { image.len().min(header) } else { image.len() };
        let at = dice.below(most as u64) as usize;
        match dice.below(4) {
            0 => image[at] ^= 1 << dice.below(8),
            1 => image[at] = dice.roll().to_le_bytes()[0],
            // Numbers that are limits, and places that exist.
            kind => {
                let number = match dice.below(4) {
                    0 => u64::MAX,
                    1 => 0,
                    2 => 1 << dice.below(64),
                    _ => dice.below(image.len() as u64) / 512 * 512,
                };
                let bytes = if kind == 2 { number.to_be_bytes() } else { number.to_le_bytes() };
                let (at, len) = (at / 8 * 8, if dice.below(2) == 0 { 8 } else { 4 });
                let from = if kind == 2 { 8 - len } else { 0 };
                for (to, byte) in image[at..].iter_mut().zip(&bytes[from..from + len]) {
                    *to = *byte;
                }
            }
        }
    }
}
