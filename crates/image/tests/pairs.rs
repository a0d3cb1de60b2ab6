//! What the store saves, on real pairs of images: two builds of a distribution, and machines that were captured after
//! packages were added in place. `SKEIN_DEBIAN=1` (`cargo xtask test --slow`), since three Debians are built for it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use skein_image::bytes::FileBytes;
use skein_image::convert::Compression;
use skein_image::store::{New, Origin, Store};
use skein_image::{Budget, Disk, Format, format};
use support::{Dir, GIB, guest, options_with, said, text};

const BYTES: u64 = 2 * GIB;
/// Where the root file system begins on the disks of `guest`.
const ROOT_AT: u64 = (1 + 128) << 20;

fn open(path: &Path) -> Box<dyn Disk> {
    let bytes = Arc::new(FileBytes::new(File::open(path).unwrap()).unwrap());
    format::open(bytes, Format::Raw, &Budget::default()).unwrap()
}

/// Files of `from` that `base` has not, written into the file system of a copy of `disk`: what a package manager does
/// to a machine that runs. By debugfs, which needs no mount.
fn captured(dir: &Dir, disk: &Path, base: &Path, from: &Path, name: &str) -> PathBuf {
    let copy = dir.path(name);
    support::run("cp", &["--sparse=always", text(disk), text(&copy)]);
    let list = Command::new("find").arg(".").args(["-mindepth", "1", "-printf", "%y %P\n"]).current_dir(from).output();
    let mut script = Vec::new();
    let mut all: Vec<String> = String::from_utf8_lossy(&list.unwrap().stdout).lines().map(str::to_owned).collect();
    all.sort_by_key(|line| line[2..].to_owned());
    for line in all.iter().filter(|line| !line[2..].contains(' ')) {
        let (kind, path) = (&line[..1], &line[2..]);
        if base.join(path).symlink_metadata().is_ok() {
            continue;
        }
        let command = match kind {
            "d" => format!("mkdir /{path}"),
            "f" => format!("write {} /{path}", text(&from.join(path))),
            "l" => format!("symlink /{path} {}", text(&fs::read_link(from.join(path)).unwrap())),
            _ => continue,
        };
        script.push(command);
    }
    let commands = dir.path(&format!("{name}.debugfs"));
    fs::write(&commands, script.join("\n") + "\n").unwrap();
    let at = format!("{}?offset={ROOT_AT}", text(&copy));
    let mut debugfs = Command::new("debugfs");
    debugfs.args(["-w", "-f", text(&commands)]).arg(&at).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(debugfs.status().unwrap().success());
    copy
}

/// Bytes of the chunks of fixed size of these disks, each once, packed as the store packs.
fn fixed(disks: &[&PathBuf], size: usize) -> u64 {
    let (mut known, mut bytes, mut buffer) = (BTreeSet::new(), 0, vec![0; size]);
    for path in disks {
        let disk = open(path);
        for at in (0..disk.size()).step_by(size) {
            let len = usize::try_from(disk.size() - at).unwrap().min(size);
            disk.read_at(at, &mut buffer[..len]).unwrap();
            if buffer[..len].iter().any(|byte| *byte != 0) && known.insert(*blake3::hash(&buffer[..len]).as_bytes()) {
                bytes += zstd::bulk::compress(&buffer[..len], 3).unwrap().len() as u64;
            }
        }
    }
    bytes
}

fn stored(dir: &Dir, disks: &[&PathBuf]) -> u64 {
    let place = dir.path("store");
    fs::remove_dir_all(&place).ok();
    let store = Store::open(&place).unwrap();
    for path in disks {
        let disk = open(path);
        let new = New { disk: disk.as_ref(), format: Format::Raw, keep: None, origin: Origin::default() };
        store.import(new, 2, &()).unwrap();
    }
    assert!(store.scrub(&()).unwrap().bad.is_empty());
    let lists: u64 = fs::read_dir(place.join("images")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    store.stored_bytes().unwrap() + lists
}

#[test]
fn pairs_of_images_cost_less_together_than_apart() {
    if std::env::var_os("SKEIN_DEBIAN").is_none() {
        return support::skipped("pairs of Debians: SKEIN_DEBIAN=1 makes three, and two captured ones");
    }
    let dir = Dir::new();
    let build = |name: &str, packages: &[&str]| guest::debian(&dir.path(""), name, BYTES, packages);
    let Some(base) = build("base", &[]) else { return };
    let web = build("web", &["nginx-light", "redis-server", "python3"]).unwrap();
    let tools = build("tools", &["git", "postgresql-client", "gcc"]).unwrap();
    let root = |name: &str| dir.path(&format!("{name}.root"));
    let base_and_web = captured(&dir, &base, &root("base"), &root("web"), "base-and-web");
    let base_and_tools = captured(&dir, &base, &root("base"), &root("tools"), "base-and-tools");
    let apart = |path: &PathBuf| {
        let out = dir.path("apart.qcow2");
        support::write(path, Format::Raw, &out, &options_with(Format::Qcow2, Compression::Zstd)).bytes
    };
    let groups: [(&str, Vec<&PathBuf>); 6] = [
        ("two builds: base, web", vec![&base, &web]),
        ("two builds: base, tools", vec![&base, &tools]),
        ("two builds: web, tools", vec![&web, &tools]),
        ("captured: base, base and web", vec![&base, &base_and_web]),
        ("captured: base, base and tools", vec![&base, &base_and_tools]),
        ("all three: base, web, base and web", vec![&base, &web, &base_and_web]),
    ];
    let mib = |bytes: u64| bytes >> 20;
    for (what, disks) in &groups {
        let separate: u64 = disks.iter().map(|path| apart(path)).sum();
        let ours = stored(&dir, disks);
        let (small, large) = (fixed(disks, 64 << 10), fixed(disks, 1 << 20));
        let percent = ours * 100 / separate;
        said(&format!(
            "{what}: {} MiB as zstd qcow2 apart; store {} MiB ({percent} %); fixed 64 KiB {} MiB, 1 MiB {} MiB",
            mib(separate),
            mib(ours),
            mib(small),
            mib(large)
        ));
        assert!(!what.starts_with("all three") || percent <= 75, "{what}: {percent} %");
    }
}
