//! Images made to harm, as a whole: what is said of each, what reading them costs, and that nothing but the image is
//! opened. Two witnesses for that: `strace` sees what the process asks for; with Landlock it could not even ask.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use skein_image::bytes::FileBytes;
use skein_image::inspect::inspect;
use skein_image::{Budget, Confined, Disk, Format, Result, confine, source};
use support::attacks::{self, Attack};
use support::{Dir, MIB, have, mutants, read_all, run, skipped, text, usage};

const SECRET: &str = "the host's secret";

/// The whole way of an import: opened, looked into, read.
fn read(file: File, spool: File, format: Option<Format>) -> Result<u64> {
    let bytes = Arc::new(FileBytes::new(file)?);
    let disk: Arc<dyn Disk> = Arc::from(source::open(bytes, format, &Budget::default(), || Ok(spool), &())?.disk);
    let read = read_all(disk.as_ref(), 64 * MIB);
    // A table that is none is one more way to be refused, but the disk's bytes are what they are.
    inspect(&disk).map(|_| ()).unwrap_or_default();
    read
}

fn outcome(result: &Result<u64>) -> String {
    match result {
        Ok(read) => format!("read {read}"),
        Err(error) => format!("refused {error}"),
    }
}

/// The attacks as files, `0`, `1` and so on.
fn written(dir: &Path) -> Vec<Attack> {
    let secret = dir.join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let all = attacks::all(&secret);
    for (n, attack) in all.iter().enumerate() {
        File::create(dir.join(n.to_string())).unwrap().write_all(&attack.bytes).unwrap();
    }
    all
}

#[test]
fn each_attack_is_refused_in_words_or_read_as_what_it_is() {
    let test = "each_attack_is_refused_in_words_or_read_as_what_it_is";
    let used = usage::alone(test, || {
        let dir = Dir::new();
        for (n, attack) in written(&dir.path("")).iter().enumerate() {
            let (file, spool) = (File::open(dir.path(&n.to_string())).unwrap(), tempfile::tempfile().unwrap());
            let began = usage::thread_cpu();
            let result = read(file, spool, attack.format);
            let took = usage::thread_cpu().saturating_sub(began);
            assert!(took.as_millis() < 1_000, "{}: {took:?} of CPU", attack.name);
            match (attack.word, &result) {
                (Some(word), Err(error)) => assert!(error.to_string().contains(word), "{}: {error}", attack.name),
                (None, Ok(_)) => {}
                _ => panic!("{}: {}", attack.name, outcome(&result)),
            }
        }
    });
    if let Some(used) = used {
        assert!(used.peak_bytes < mutants::PEAK_BYTES_MAX, "{} MiB at the most", used.peak_bytes / MIB);
    }
}

/// Reads every attack of a folder, each opened beforehand; between two marks that `strace` shows.
fn read_between_marks(dir: &Path, attacks: &[Attack]) -> Vec<String> {
    let open = |n: usize| (File::open(dir.join(n.to_string())).unwrap(), tempfile::tempfile().unwrap());
    let files: Vec<(File, File)> = (0..attacks.len()).map(open).collect();
    File::open(dir.join("begin")).unwrap_err();
    let read = attacks.iter().zip(files).map(|(attack, (file, spool))| outcome(&read(file, spool, attack.format)));
    let said = read.collect();
    File::open(dir.join("end")).unwrap_err();
    said
}

#[test]
fn while_images_are_read_the_system_is_asked_for_no_file_and_no_connection() {
    const FOLDER: &str = "SKEIN_TEST_FOLDER";
    let test = "while_images_are_read_the_system_is_asked_for_no_file_and_no_connection";
    if let Some(dir) = std::env::var_os(FOLDER) {
        let dir = Path::new(&dir);
        read_between_marks(dir, &attacks::all(&dir.join("secret")));
        return;
    }
    if !have("strace") {
        return;
    }
    let dir = Dir::new();
    let count = written(&dir.path("")).len();
    let log = dir.path("log");
    let this = std::env::current_exe().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=%file,%network,execve", "-o", text(&log)]).arg(this);
    strace.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(FOLDER, dir.path(""));
    let output = strace.output().unwrap();
    if !output.status.success() && std::fs::read_to_string(&log).unwrap_or_default().is_empty() {
        return skipped("strace may trace nothing here, what is opened was not seen");
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(log).unwrap();
    let mark = |name: &str| log.lines().position(|line| line.contains(&format!("/{name}\""))).expect("the mark");
    let (begin, end) = (mark("begin"), mark("end"));
    let asked: Vec<&str> = log.lines().skip(begin + 1).take(end - begin - 1).collect();
    assert!(asked.is_empty(), "asked for while {count} images were read: {asked:#?}");
    let opened = (0..count).filter(|n| log.lines().take(begin).any(|line| line.contains(&format!("/{n}\""))));
    assert_eq!(opened.count(), count, "strace saw the images being opened");
}

#[test]
fn confined_by_the_kernel_the_same_is_said_of_each() {
    let test = "confined_by_the_kernel_the_same_is_said_of_each";
    usage::alone(test, || {
        let dir = Dir::new();
        let attacks = written(&dir.path(""));
        let free = read_between_marks(&dir.path(""), &attacks);
        // The thread that is confined stays so: another one cleans up.
        let confined = std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let folder = dir.path("");
                let open = |n: usize| (File::open(folder.join(n.to_string())).unwrap(), tempfile::tempfile().unwrap());
                let files: Vec<(File, File)> = (0..attacks.len()).map(open).collect();
                if confine(&[]).unwrap() == Confined::Not {
                    skipped("the kernel has no Landlock, reading was not confined");
                    return free.clone();
                }
                let denied = File::open(folder.join("secret")).unwrap_err();
                assert_eq!(denied.kind(), std::io::ErrorKind::PermissionDenied, "the wall stands");
                assert!(File::create(folder.join("new")).is_err(), "nothing can be made");
                let read = attacks.iter().zip(files);
                read.map(|(attack, (file, spool))| outcome(&read_one(file, spool, attack))).collect()
            });
            reading.join().unwrap()
        });
        assert_eq!(free, confined);
    });
}

fn read_one(file: File, spool: File, attack: &Attack) -> Result<u64> {
    read(file, spool, attack.format)
}

/// Where `qemu-img` and this library both read a mutant, it is the same disk; what `qemu-img` refuses is refused.
#[test]
fn what_qemu_img_refuses_is_refused_and_what_both_read_is_the_same() {
    if !have("qemu-img") {
        return;
    }
    let count = std::env::var("SKEIN_MUTANTS").map_or(40, |n| n.parse::<u64>().unwrap() / 25);
    let dir = Dir::new();
    let raw = dir.raw("raw", 300_000 / 512 * 512, &[(1000, support::Dice(3).mixed(90_000))]);
    let kinds: [(Format, &str, &[&str], usize); 6] = [
        (Format::Qcow2, "qcow2", &["-o", "cluster_size=512"], 4096),
        (Format::Qcow2, "qcow2", &["-c"], 4096),
        (Format::Vmdk, "vmdk", &[], 2048),
        (Format::Vdi, "vdi", &[], 1024),
        (Format::Vhd, "vpc", &["-o", "force_size=on"], 2048),
        (Format::Vhdx, "vhdx", &["-o", "block_size=1M"], 3 << 20),
    ];
    let mut dice = support::Dice(77);
    for (format, driver, arguments, hot) in kinds {
        let good = dir.path("good");
        run("qemu-img", &[&["convert", "-f", "raw", "-O", driver], arguments, &[text(&raw), text(&good)]].concat());
        let good = support::read(&good);
        for n in 0..count {
            let mut mutant = good.clone();
            mutants::mutate(&mut mutant, &mut dice, &[0..hot.min(512), 0..hot]);
            let what = format!("{driver} mutant {n}, changed at {:x?}", changed(&good, &mutant));
            compare(&dir, format, driver, &mutant, &what);
        }
    }
}

/// Where it is another, for a failure's message.
fn changed(good: &[u8], mutant: &[u8]) -> Vec<usize> {
    let other = good.iter().zip(mutant).enumerate().filter(|(_, (one, other))| one != other).map(|(at, _)| at);
    other.take(12).chain((good.len() != mutant.len()).then_some(mutant.len())).collect()
}

fn compare(dir: &Dir, format: Format, driver: &str, mutant: &[u8], what: &str) {
    let (path, theirs) = (dir.path("mutant"), dir.path("theirs"));
    std::fs::write(&path, mutant).unwrap();
    std::fs::remove_file(&theirs).unwrap_or_default();
    let ours = support::open(&path, format).and_then(|disk| read_all(disk.as_ref(), u64::MAX).map(|_| disk));
    let mut qemu = Command::new("qemu-img");
    qemu.args(["convert", "-f", driver, "-O", "raw", text(&path), text(&theirs)]);
    let qemu = qemu.output().unwrap();
    match ours {
        Ok(disk) => {
            assert!(qemu.status.success(), "{what}: read here: {}", String::from_utf8_lossy(&qemu.stderr));
            support::assert_same(disk.as_ref(), support::open(&theirs, Format::Raw).unwrap().as_ref(), what);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
