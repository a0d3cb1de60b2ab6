//! What the tests of the formats share: disks to try, the real tools as oracles, mutants.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skein_image::bytes::FileBytes;
use skein_image::convert::Report;
use skein_image::{Budget, Bytes, Disk, Format, Kind, Options, Out, Result, convert, format};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
pub const TIB: u64 = 1 << 40;

pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// A sparse raw file of `size` with `data` at its places.
    pub fn raw(&self, name: &str, size: u64, data: &[(u64, Vec<u8>)]) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in data {
            let len = bytes.len().min(usize::try_from(size.saturating_sub(*offset)).unwrap());
            file.write_all_at(&bytes[..len], *offset).unwrap();
        }
        path
    }
}

/// Numbers from a seed: the same in every run.
pub struct Seed(pub u64);

impl Seed {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 32
    }
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
    /// Half noise, half text-like: deflate has something to do.
    pub fn mixed(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = self.bytes(len);
        for (n, byte) in bytes.iter_mut().enumerate() {
            if n / 700 % 2 == 0 {
                *byte = b'a' + *byte % 8;
            }
        }
        bytes
    }
}

/// (name, size, data): the sizes at which formats break.
pub type Case = (&'static str, u64, Vec<(u64, Vec<u8>)>);

pub fn cases() -> Vec<Case> {
    let mut seed = Seed(7);
    let mut block = |len: usize| seed.mixed(len);
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

pub fn disk(path: &Path, of: Format) -> Result<Box<dyn Disk>> {
    let bytes = FileBytes::new(File::open(path).unwrap())?;
    format::open(Arc::new(bytes), of, &Budget::default())
}

/// Converts a raw file with three threads, to a file.
pub fn to_file(raw: &Path, options: &Options, to: &Path) -> Result<Report> {
    let source = disk(raw, Format::Raw)?;
    let file = File::create(to).unwrap();
    let report = convert(source.as_ref(), &mut Out::File(&file), options, &())?;
    assert_eq!(report.bytes, file.metadata().unwrap().len(), "the report names the file's length");
    Ok(report)
}

pub fn options(of: Format) -> Options {
    let mut options = Options::new(of);
    options.threads = 3;
    options
}

/// Is the disk the raw file, in what it says and in what it gives? What one of them has more must be zeros.
pub fn assert_same(name: &str, disk: &dyn Disk, raw: &Path) {
    let file = FileBytes::new(File::open(raw).unwrap()).unwrap();
    assert!(disk.size() >= file.len(), "{name}: {} bytes instead of {}", disk.size(), file.len());
    let (mut at, mut ours, mut theirs) = (0, vec![0; 1 << 20], vec![0; 1 << 20]);
    while at < disk.size() {
        let extent = disk.extent_at(at).unwrap();
        assert!(extent.len > 0 && at + extent.len <= disk.size(), "{name}: extent {extent:?} at {at}");
        let (hole, hole_len) = if at < file.len() { file.hole_at(at).unwrap() } else { (true, disk.size() - at) };
        if extent.kind == Kind::Zero && hole {
            at += extent.len.min(hole_len);
            continue;
        }
        let len = usize::try_from((1 << 20).min(disk.size() - at).min(extent.len)).unwrap();
        disk.read_at(at, &mut ours[..len]).unwrap();
        theirs.fill(0);
        let there = usize::try_from(file.len().saturating_sub(at)).unwrap().min(len);
        file.read_at(at, &mut theirs[..there]).unwrap();
        assert!(ours[..len] == theirs[..len], "{name}: other bytes in {len} at {at}");
        if extent.kind == Kind::Zero {
            assert!(ours[..len].iter().all(|byte| *byte == 0), "{name}: called zero at {at}");
        }
        at += len as u64;
    }
}

/// Is the program there? When not, says so.
pub fn have(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        let skipped = format!("SKIPPED: {program} is not installed, its comparison was not made\n");
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
    }
    there
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Puts `with` at `at`.
pub fn patched(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// Opens bytes and reads the whole disk, as a converter would: at most 64 MiB of it, in 1 MiB reads.
pub fn read_through(bytes: Vec<u8>, of: Format) -> Result<()> {
    let disk = format::open(Arc::new(bytes), of, &Budget::default())?;
    let (mut at, mut buffer, mut read, mut steps) = (0, vec![0; 1 << 20], 0, 0);
    while at < disk.size() && read < 64 * MIB && steps < 100_000 {
        let extent = disk.extent_at(at)?;
        assert!(extent.len > 0, "an extent of nothing at {at}");
        let mut len = extent.len;
        if extent.kind == Kind::Data {
            len = len.min(1 << 20).min(disk.size() - at);
            disk.read_at(at, &mut buffer[..usize::try_from(len).unwrap()])?;
            read += len;
        }
        at = at.saturating_add(len);
        steps += 1;
    }
    Ok(())
}

/// Is it refused, quickly, and does the reason hold `word`?
pub fn assert_refused(what: &str, bytes: Vec<u8>, of: Format, word: &str) {
    let began = Instant::now();
    let error = read_through(bytes, of).expect_err(what).to_string();
    assert!(error.contains(word), "{what}: {error}");
    assert!(began.elapsed() < Duration::from_secs(1), "{what}: took {:?}", began.elapsed());
}

/// 2,000 mutants of a file, most of them changed where `hot` says its tables are. None may panic or take over 2 s.
pub fn mutants(good: &[u8], hot: &[std::ops::Range<usize>], mut try_one: impl FnMut(Vec<u8>) -> Result<()>) {
    assert!(try_one(good.to_vec()).is_ok(), "the file that is changed must itself be good");
    let (mut seed, mut refused) = (Seed(2024), 0);
    for n in 0..2_000 {
        let mut bytes = good.to_vec();
        for _ in 0..=seed.below(4) {
            let range = &hot[usize::try_from(seed.below(hot.len() as u64)).unwrap()];
            let span = if seed.below(8) == 0 { 0..bytes.len() } else { range.start..range.end.min(bytes.len()) };
            if span.is_empty() {
                continue;
            }
            let at = span.start + usize::try_from(seed.below(span.len() as u64)).unwrap();
            match seed.below(6) {
                0 => bytes[at] ^= 1 << seed.below(8),
                1 => bytes[at] = 0xff,
                2 => bytes[at] = 0,
                3 => bytes.truncate(at.max(1)),
                4 => {
                    let len = bytes.len().min(at + 8) - at;
                    bytes[at..at + len].fill(0xff);
                }
                _ => bytes[at] = u8::try_from(seed.below(256)).unwrap(),
            }
        }
        let began = Instant::now();
        refused += u32::from(try_one(bytes).is_err());
        assert!(began.elapsed() < Duration::from_secs(2), "mutant {n} took {:?}", began.elapsed());
    }
    assert!(refused > 200, "only {refused} of 2000 mutants were noticed");
}
