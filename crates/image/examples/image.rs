//! `cargo xtask bench image [MIB]`: each pair of formats beside `qemu-img`, on one disk, in one run: wall time, CPU
//! time and peak memory of the whole process, medians of interleaved runs. The disk: 4 times as large as its data,
//! which is what stands in this machine's `/usr`, in extents of 32 MiB. Then the same data on disks of 20 GiB and of
//! 2 TiB: time and memory are to follow the data.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a tool for a terminal")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use skein_image::bytes::FileBytes;
use skein_image::convert::{Compression, Effort};
use skein_image::{Budget, Format, Options, Out, source};
use wait4::Wait4 as _;

/// Of pairs that compress, and of those that do not: these take a second, and vary more.
const RUNS: (usize, usize) = (3, 9);
const EXTENT: u64 = 32 << 20;

struct Pair {
    name: &'static str,
    from: &'static str,
    /// Arguments of `qemu-img convert`; none for Google's form, which takes a tar more.
    qemu: &'static [&'static str],
    /// Our format, compression and effort.
    ours: (&'static str, &'static str, &'static str),
}

const PAIRS: &[Pair] = &[
    Pair { name: "raw to qcow2", from: "raw", qemu: &["-O", "qcow2"], ours: ("qcow2", "none", "fast") },
    Pair { name: "qcow2 to raw", from: "qcow2", qemu: &["-O", "raw"], ours: ("raw", "none", "fast") },
    Pair {
        name: "raw to VHD fixed",
        from: "raw",
        qemu: &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
        ours: ("vhd", "none", "fast"),
    },
    Pair { name: "raw to VHDX", from: "raw", qemu: &["-O", "vhdx"], ours: ("vhdx", "none", "fast") },
    Pair { name: "raw to VDI", from: "raw", qemu: &["-O", "vdi"], ours: ("vdi", "none", "fast") },
    Pair { name: "raw to qcow2 zlib", from: "raw", qemu: &["-c", "-O", "qcow2"], ours: ("qcow2", "zlib", "fast") },
    Pair {
        name: "raw to qcow2 zlib, archive",
        from: "raw",
        qemu: &["-c", "-O", "qcow2"],
        ours: ("qcow2", "zlib", "archive"),
    },
    Pair {
        name: "raw to qcow2 zstd",
        from: "raw",
        qemu: &["-c", "-O", "qcow2", "-o", "compression_type=zstd"],
        ours: ("qcow2", "zstd", "fast"),
    },
    Pair { name: "qcow2 zlib to raw", from: "zlib", qemu: &["-O", "raw"], ours: ("raw", "none", "fast") },
    Pair {
        name: "raw to VMDK stream",
        from: "raw",
        qemu: &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        ours: ("vmdk", "none", "fast"),
    },
    Pair { name: "raw to Google tar.gz", from: "raw", qemu: &[], ours: ("gce", "none", "fast") },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["one", from, to, format, compression, effort] = words.as_slice() {
        return one(Path::new(from), Path::new(to), format, compression, effort);
    }
    let data_mib: u64 = words.first().map_or(1024, |n| n.parse().unwrap());
    let dir = std::env::var_os("SKEIN_BENCH_DIR").map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let raw = dir.path().join("raw");
    let bytes = make(&raw, data_mib << 20);
    println!(
        "a disk of {} MiB with {} MiB of data; medians of {} runs (uncompressed: {}), ours and qemu's in turn",
        4 * data_mib,
        bytes >> 20,
        RUNS.0,
        RUNS.1
    );
    println!(
        "{:<28} {:>22} {:>22} {:>8} {:>8} {:>12} {:>8}",
        "", "ours wall/CPU s", "qemu wall/CPU s", "wall x", "CPU x", "peak MiB", "size x"
    );
    for (name, more) in [("qcow2", &[][..]), ("zlib", &["-c"][..])] {
        let mut qemu = Command::new("qemu-img");
        qemu.args(["convert", "-f", "raw", "-O", "qcow2"]).args(more).arg(&raw).arg(dir.path().join(name));
        if !qemu.status().is_ok_and(|status| status.success()) {
            println!("qemu-img is not installed (Debian: qemu-utils): nothing to stand beside");
            return;
        }
    }
    for pair in PAIRS {
        pair_of(dir.path(), pair);
    }
    sizes(dir.path(), data_mib);
}

/// The same data on a small and on a huge disk.
fn sizes(dir: &Path, data_mib: u64) {
    println!();
    println!("{data_mib} MiB of data in extents of 1 MiB on disks of 20 GiB and 2 TiB, medians of {} runs", RUNS.0);
    println!("{:<28} {:>22} {:>22} {:>8} {:>16}", "", "20 GiB wall/CPU s", "2 TiB wall/CPU s", "wall x", "peak MiB");
    for (name, format, compression) in [
        ("raw to qcow2", "qcow2", "none"),
        ("raw to qcow2 zlib", "qcow2", "zlib"),
        ("raw to VHDX", "vhdx", "none"),
        ("raw to VDI", "vdi", "none"),
        ("raw to VMDK stream", "vmdk", "none"),
        ("raw to Google tar.gz", "gce", "none"),
    ] {
        let to = dir.join("ours");
        let [small, large] = [20 << 30, 2 << 40].map(|size: u64| {
            // `one` knows raw by its name.
            let folder = dir.join(format!("{size}"));
            std::fs::create_dir_all(&folder).unwrap();
            let raw = folder.join("raw");
            if !raw.exists() {
                scatter(&dir.join("raw"), &raw, size, data_mib);
            }
            let mut costs = Vec::new();
            for _ in 0..RUNS.0 {
                remove(&[&to]);
                let mut command = Command::new(std::env::current_exe().unwrap());
                costs.push(run(command.arg("one").arg(&raw).arg(&to).args([format, compression, "fast"])));
            }
            median(&mut costs)
        });
        println!(
            "{name:<28} {:>11.2} {:>10.2} {:>11.2} {:>10.2} {:>8.2} {:>8.0} {:>7.0}",
            small.wall_s,
            small.cpu_s,
            large.wall_s,
            large.cpu_s,
            large.wall_s / small.wall_s,
            small.peak_mib,
            large.peak_mib
        );
        remove(&[&to]);
    }
}

/// The data of `from`, one MiB at a time, spread evenly.
fn scatter(from: &Path, to: &Path, size: u64, data_mib: u64) {
    use std::os::unix::fs::FileExt as _;
    let (from, to) = (File::open(from).unwrap(), File::create(to).unwrap());
    to.set_len(size).unwrap();
    let (mut at, mut written, mut piece) = (0, 0, vec![0; 1 << 20]);
    while written < data_mib && from.read_exact_at(&mut piece, at).is_ok() {
        at += piece.len() as u64;
        if piece.iter().any(|byte| *byte != 0) {
            to.write_all_at(&piece, size / data_mib / 4096 * 4096 * written).unwrap();
            written += 1;
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Cost {
    wall_s: f64,
    cpu_s: f64,
    peak_mib: f64,
}

fn run(command: &mut Command) -> Cost {
    let begin = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let used = { child }.wait4().unwrap();
    assert!(used.status.success(), "{command:?}");
    let wall_s = begin.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let peak_mib = used.rusage.maxrss as f64 / f64::from(1 << 20);
    Cost { wall_s, cpu_s: (used.rusage.utime + used.rusage.stime).as_secs_f64(), peak_mib }
}

fn median(costs: &mut [Cost]) -> Cost {
    let middle = costs.len() / 2;
    costs.sort_by(|a, b| a.wall_s.total_cmp(&b.wall_s));
    let wall_s = costs[middle].wall_s;
    costs.sort_by(|a, b| a.cpu_s.total_cmp(&b.cpu_s));
    let peak_mib = costs.iter().map(|cost| cost.peak_mib).fold(0.0, f64::max);
    Cost { wall_s, cpu_s: costs[middle].cpu_s, peak_mib }
}

fn pair_of(dir: &Path, pair: &Pair) {
    let from = dir.join(pair.from);
    let driver = if pair.from == "raw" { "raw" } else { "qcow2" };
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    let (mut mine, mut qemus) = (Vec::new(), Vec::new());
    let compresses = pair.ours.1 != "none" || matches!(pair.ours.0, "vmdk" | "gce") || pair.from == "zlib";
    for _ in 0..if compresses { RUNS.0 } else { RUNS.1 } {
        remove(&[&ours, &theirs]);
        let (format, compression, effort) = pair.ours;
        let mut command = Command::new(std::env::current_exe().unwrap());
        mine.push(run(command.args(["one"]).arg(&from).arg(&ours).args([format, compression, effort])));
        qemus.push(if pair.qemu.is_empty() {
            google(dir, &from, &theirs)
        } else {
            qemu(driver, pair.qemu, &from, &theirs)
        });
    }
    let (mine, qemu) = (median(&mut mine), median(&mut qemus));
    let size = |path: &PathBuf| {
        use std::os::unix::fs::MetadataExt as _;
        // Blocks, so that holes count for nothing on either side.
        std::fs::metadata(path).map_or(1, |m| m.blocks()).max(1)
    };
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let size_x = size(&ours) as f64 / size(&theirs) as f64;
    println!(
        "{:<28} {:>11.2} {:>10.2} {:>11.2} {:>10.2} {:>8.2} {:>8.2} {:>5.0} {:>6.0} {:>8.3}",
        pair.name,
        mine.wall_s,
        mine.cpu_s,
        qemu.wall_s,
        qemu.cpu_s,
        mine.wall_s / qemu.wall_s,
        mine.cpu_s / qemu.cpu_s,
        mine.peak_mib,
        qemu.peak_mib,
        size_x
    );
    remove(&[&ours, &theirs]);
}

fn remove(paths: &[&PathBuf]) {
    // There may be none yet.
    for path in paths {
        std::fs::remove_file(path).unwrap_or_default();
    }
}

fn qemu(driver: &str, arguments: &[&str], from: &Path, to: &Path) -> Cost {
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-m", "16", "-t", "unsafe", "-T", "unsafe", "-f", driver]);
    if !arguments.iter().any(|a| a.starts_with("subformat=streamOptimized")) {
        command.arg("-W");
    }
    run(command.args(arguments).arg(from).arg(to))
}

/// What Google's documentation says: a raw disk of that name, then `tar`.
fn google(dir: &Path, from: &Path, to: &Path) -> Cost {
    let raw = dir.join("disk.raw");
    let first = qemu("raw", &["-O", "raw"], from, &raw);
    let mut tar = Command::new("tar");
    let second = run(tar.args(["--format=oldgnu", "-Sczf"]).arg(to).arg("-C").arg(dir).arg("disk.raw"));
    remove(&[&raw]);
    Cost {
        wall_s: first.wall_s + second.wall_s,
        cpu_s: first.cpu_s + second.cpu_s,
        peak_mib: first.peak_mib.max(second.peak_mib),
    }
}

fn one(from: &Path, to: &Path, format: &str, compression: &str, effort: &str) {
    let compression = match compression {
        "zlib" => Compression::Zlib,
        "zstd" => Compression::Zstd,
        _ => Compression::None,
    };
    let effort = if effort == "archive" { Effort::Archive } else { Effort::Fast };
    let options = Options { compression, effort, ..Options::new(format.parse().unwrap()) };
    let bytes = Arc::new(FileBytes::new(File::open(from).unwrap()).unwrap());
    let from_raw = from.file_name().is_some_and(|name| name == "raw");
    let spool = || Ok(tempfile::tempfile().unwrap());
    let known = from_raw.then_some(Format::Raw);
    let disk = source::open(bytes, known, &Budget::default(), spool, &()).unwrap().disk;
    let file = File::options().create(true).truncate(true).read(true).write(true).open(to).unwrap();
    skein_image::convert(disk.as_ref(), &mut Out::File(&file), &options, &()).unwrap();
}

/// Bytes of data written.
fn make(path: &Path, wanted: u64) -> u64 {
    use std::os::unix::fs::FileExt as _;
    let file = File::create(path).unwrap();
    file.set_len(wanted * 4).unwrap();
    let (mut folders, mut at, mut written) = (vec![PathBuf::from("/usr")], 0, 0);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            if entry.is_symlink() || written >= wanted {
                continue;
            }
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let mut content = Vec::new();
            let read = File::open(&entry).and_then(|f| f.take(8 << 20).read_to_end(&mut content));
            if read.is_err() || content.is_empty() {
                continue;
            }
            if at / EXTENT != (at + content.len() as u64) / EXTENT {
                // The next extent begins after a hole.
                at = (at / EXTENT + 4) * EXTENT;
            }
            if at + content.len() as u64 > wanted * 4 {
                return written;
            }
            file.write_all_at(&content, at).unwrap();
            at = (at + content.len() as u64).next_multiple_of(4096);
            written += content.len() as u64;
        }
    }
    (&file).flush().unwrap();
    written
}
