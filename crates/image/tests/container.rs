//! The container of an image against the tree that its file system was made of, by GNU tar and, where it is there,
//! podman.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use skein_image::convert::Effort;
use skein_image::{Budget, Disk, Error, Format, container, format};

const PART_AT: usize = 1 << 20;

fn tree(dir: &Path) {
    let put = |path: &str, mode: u32, bytes: &[u8]| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    put("etc/os-release", 0o644, b"PRETTY_NAME=\"Test Linux 1\"\n");
    put("usr/bin/su", 0o4755, b"#!/bin/sh\n");
    put("var/empty", 0o600, b"");
    put("var/sparse", 0o640, &[&[1; 5000][..], &vec![0; 3 << 20], &[2; 777]].concat());
    put(&format!("srv/{}/{}", "d".repeat(120), "f".repeat(200)), 0o444, b"long names");
    put("srv/über", 0o644, b"not ASCII");
    fs::create_dir_all(dir.join("lib64")).unwrap();
    symlink("../usr/lib/ld-linux-x86-64.so.2", dir.join("lib64/ld-linux-x86-64.so.2")).unwrap();
    symlink("usr//bin/", dir.join("bin")).unwrap();
    symlink("/very/".repeat(30), dir.join("far")).unwrap();
    fs::create_dir_all(dir.join("tmp")).unwrap();
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
}

/// None where there is no mke2fs.
fn disk(tree: &Path) -> Option<Arc<dyn Disk>> {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("ext4");
    fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(tree).arg(&image).stdout(Stdio::null()).stderr(Stdio::null());
    if !mke2fs.status().is_ok_and(|status| status.success()) {
        writeln!(std::io::stderr(), "SKIPPED: no mke2fs -d here (Debian: e2fsprogs)").ok();
        return None;
    }
    let files = fs::read(&image).unwrap();
    let mut bytes = vec![0; PART_AT + files.len()];
    bytes[PART_AT..].copy_from_slice(&files);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes[446 + 4] = 0x83;
    bytes[446 + 8..446 + 12].copy_from_slice(&u32::try_from(PART_AT / 512).unwrap().to_le_bytes());
    bytes[446 + 12..446 + 16].copy_from_slice(&u32::try_from(files.len() / 512).unwrap().to_le_bytes());
    Some(Arc::from(format::open(Arc::new(bytes), Format::Raw, &Budget::default()).unwrap()))
}

/// Type, mode, owner, size, time, target and name of everything below, and the bytes of all files.
fn listed(dir: &Path) -> (String, String) {
    let run = |command: &str| {
        let done = Command::new("sh").arg("-c").arg(command).current_dir(dir).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    // A folder's own size and a link's time depend on the file system.
    let files = "find . -mindepth 1 -not -path './lost+found*'";
    let all = run(&format!(
        "{files} \\( -type d -printf '%y %m %U %G %p\\n' -o -type l -printf '%y %l %p\\n' -o -printf '%y %m %U %G %s %Ts %p\\n' \\) | sort"
    ));
    (all, run(&format!("{files} -type f -print0 | sort -z | xargs -0 sha256sum")))
}

fn contain(disk: &Arc<dyn Disk>, effort: Effort) -> (Vec<u8>, container::Contained) {
    let mut out = Vec::new();
    let done = container::write(disk, &mut out, tempfile::tempfile().unwrap(), effort, &()).unwrap();
    (out, done)
}

fn unpack(archive: &[u8], into: &Path) -> serde_json::Value {
    fs::create_dir_all(into).unwrap();
    let file = into.join("archive.tar");
    fs::write(&file, archive).unwrap();
    tar(&["-xf"], &file, into);
    serde_json::from_slice(&fs::read(into.join("index.json")).unwrap()).unwrap()
}

fn tar(how: &[&str], file: &Path, into: &Path) {
    let done = Command::new("tar").args(how).arg(file).arg("-C").arg(into).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn claims_4_and_13_the_container_has_the_files_of_the_disk_with_modes_owners_times_and_links() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("tree");
    tree(&source);
    let Some(disk) = disk(&source) else { return };
    let (archive, done) = contain(&disk, Effort::Fast);
    assert_eq!(done.bytes, archive.len() as u64);
    let layout = dir.path().join("layout");
    let index = unpack(&archive, &layout);
    let blob = |entry: &serde_json::Value| {
        let digest = entry["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let path = layout.join("blobs/sha256").join(&digest);
        assert_eq!(entry["size"], fs::metadata(&path).unwrap().len());
        let sum = Command::new("sha256sum").arg(&path).output().unwrap();
        assert!(String::from_utf8_lossy(&sum.stdout).starts_with(&digest), "a blob is named by its SHA-256");
        path
    };
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(blob(&index["manifests"][0])).unwrap()).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&fs::read(blob(&manifest["config"])).unwrap()).unwrap();
    let layer = blob(&manifest["layers"][0]);
    let raw = Command::new("sh").arg("-c").arg("gzip -dc \"$0\" | sha256sum").arg(&layer).output().unwrap();
    assert!(String::from_utf8_lossy(&raw.stdout).starts_with(&done.diff_id));
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", done.diff_id));
    assert_eq!((&config["architecture"], &config["os"]), (&"amd64".into(), &"linux".into()));
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    tar(&["--numeric-owner", "-xpzf"], &layer, &root);
    assert_eq!(listed(&root), listed(&source));
}

#[test]
fn the_same_disk_gives_the_same_container_and_one_without_a_system_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("tree");
    tree(&source);
    let Some(disk) = disk(&source) else { return };
    let (first, done) = contain(&disk, Effort::Fast);
    assert!(contain(&disk, Effort::Fast).0 == first);
    let (smaller, again) = contain(&disk, Effort::Archive);
    assert!(smaller.len() <= first.len() && again.diff_id == done.diff_id);
    let empty: Arc<dyn Disk> =
        Arc::from(format::open(Arc::new(vec![0; 1 << 20]), Format::Raw, &Budget::default()).unwrap());
    let refused = container::write(&empty, &mut Vec::new(), tempfile::tempfile().unwrap(), Effort::Fast, &());
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
}

#[test]
fn podman_takes_it() {
    let there = Command::new("podman").arg("--version").output().is_ok_and(|done| done.status.success());
    if !there {
        writeln!(std::io::stderr(), "SKIPPED: no podman here (Debian: podman)").ok();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("tree");
    tree(&source);
    let Some(disk) = disk(&source) else { return };
    let file = dir.path().join("image.tar");
    fs::write(&file, contain(&disk, Effort::Fast).0).unwrap();
    let podman = |arguments: &[&str]| {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(dir.path().join("storage")).arg("--runroot").arg(dir.path().join("run"));
        let done = podman.args(["--storage-driver", "vfs"]).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let loaded = podman(&["load", "-i", file.to_str().unwrap()]);
    let id = loaded.trim().rsplit(['/', ' ', ':']).next().unwrap();
    let shown = podman(&["image", "inspect", id, "--format", "{{.Architecture}} {{len .RootFS.Layers}}"]);
    assert_eq!(shown.trim(), "amd64 1");
}
