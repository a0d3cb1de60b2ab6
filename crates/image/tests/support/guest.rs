//! Real systems on disks of our own making: Debian's cloud kernel with a busybox, which says what it sees of its disk,
//! and a whole Debian. Boot loader: syslinux, which needs neither a mount nor root.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{MIB, have, run, skipped, text};

/// Where the FAT of the boot loader begins.
const PART_AT: u64 = MIB;
/// Size of the tiny disk.
pub(crate) const TINY_BYTES: u64 = 40 * MIB;
const MBR_CODE: &str = "/usr/lib/syslinux/mbr/mbr.bin";
/// Size of a Debian's boot partition, and of all of it.
const DEBIAN_BOOT_BYTES: u64 = 128 * MIB;

/// What [`tiny`] says when it is up: this, and the SHA-256 of its disk as it sees it.
pub(crate) const TINY_SAYS: &str = "SKEIN-BOOT ";
/// What [`debian`] says when systemd has brought it up.
pub(crate) const DEBIAN_SAYS: &str = "SKEIN-DEBIAN-UP ";

/// The programs that this needs; says which is not there.
fn tools(more: &[&str]) -> bool {
    let there = |name: &&&str| {
        let found = Command::new("sh").arg("-c").arg(format!("command -v {name}")).stdout(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    let all: Vec<&&str> = ["syslinux", "mformat", "mcopy", "sfdisk"].iter().chain(more).collect();
    let missing: Vec<&&&str> = all.iter().filter(|name| !there(name)).collect();
    if !missing.is_empty() || !Path::new(MBR_CODE).exists() {
        skipped(&format!(
            "no guest could be made: {missing:?} (Debian: syslinux, mtools, busybox-static, cpio, fdisk)"
        ));
        return false;
    }
    have("qemu-system-x86_64")
}

/// Debian's cloud kernel, fetched once a build folder; none where there is no apt.
fn kernel() -> Option<PathBuf> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-kernel");
    let found = || {
        let boot = fs::read_dir(cache.join("boot")).ok()?.flatten().map(|entry| entry.path());
        boot.into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
    };
    if let Some(kernel) = found() {
        return Some(kernel);
    }
    // The package of that name is empty, and depends on the kernel's own.
    let script = "set -e; name=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2}'); \
                  apt-get download -qq $name; dpkg-deb -x ./*.deb .; rm ./*.deb";
    let fetching = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let done = Command::new("sh").arg("-c").arg(script).current_dir(fetching.path()).output();
    if !done.is_ok_and(|done| done.status.success()) {
        skipped("no guest could be made: Debian's linux-image-cloud-amd64 cannot be fetched by apt-get");
        return None;
    }
    // Two tests at once: the second finds the first one's.
    fs::rename(fetching.path(), &cache).ok();
    found()
}

/// A disk of [`TINY_BYTES`] with syslinux, the kernel, and an initial RAM disk that says [`TINY_SAYS`].
pub(crate) fn tiny(dir: &Path) -> Option<PathBuf> {
    if !tools(&["busybox", "cpio"]) {
        return None;
    }
    let kernel = kernel()?;
    let initrd = initrd(dir);
    let disk = dir.join("tiny.raw");
    File::create(&disk).unwrap().set_len(TINY_BYTES).unwrap();
    partitions(&disk, "start=2048, type=c, bootable\n");
    boot_partition(&disk, TINY_BYTES - PART_AT, &kernel, &initrd, "console=ttyS0 quiet panic=-1");
    Some(disk)
}

fn initrd(dir: &Path) -> PathBuf {
    let root = dir.join("initrd");
    for folder in ["bin", "dev"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let init = format!(
        "#!/bin/busybox sh\n\
         alias b=/bin/busybox\n\
         b mount -t devtmpfs none /dev\n\
         exec >/dev/console 2>&1 </dev/null\n\
         n=0; while [ ! -b /dev/nvme0n1 ] && [ $n -lt 300 ]; do b usleep 100000; n=$((n+1)); done\n\
         b echo \"{TINY_SAYS}$(b dd if=/dev/nvme0n1 bs=1M count={} 2>/dev/null | b sha256sum)\"\n\
         b poweroff -f\n",
        TINY_BYTES / MIB
    );
    fs::write(root.join("init"), init).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    let packed = dir.join("initrd.gz");
    let pack = format!("find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -9n > {}", text(&packed));
    let done = Command::new("sh").arg("-c").arg(pack).current_dir(&root).status().unwrap();
    assert!(done.success());
    packed
}

fn partitions(disk: &Path, table: &str) {
    let mut sfdisk = Command::new("sfdisk").arg("-q").arg(disk).stdin(Stdio::piped()).spawn().unwrap();
    sfdisk.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    assert!(sfdisk.wait().unwrap().success());
    let code = fs::read(MBR_CODE).unwrap();
    assert!(code.len() <= 440);
    std::os::unix::fs::FileExt::write_all_at(&File::options().write(true).open(disk).unwrap(), &code, 0).unwrap();
}

/// The FAT at [`PART_AT`]: boot loader, kernel, initial RAM disk.
fn boot_partition(disk: &Path, bytes: u64, kernel: &Path, initrd: &Path, kernel_says: &str) {
    let fat = format!("{}@@{PART_AT}", text(disk));
    let sectors = (bytes / 512).to_string();
    run("mformat", &["-i", &fat, "-T", &sectors, "-h", "255", "-s", "63", "-F", "::"]);
    let config = disk.with_extension("cfg");
    let menu = format!("DEFAULT l\nPROMPT 0\nLABEL l\nKERNEL /vmlinuz\nINITRD /initrd.gz\nAPPEND {kernel_says}\n");
    fs::write(&config, menu).unwrap();
    for (from, to) in [(kernel, "::/vmlinuz"), (initrd, "::/initrd.gz"), (&config, "::/syslinux.cfg")] {
        run("mcopy", &["-i", &fat, text(from), to]);
    }
    run("syslinux", &["-t", &PART_AT.to_string(), "-i", text(disk)]);
}

/// A Debian of these packages more than the least, on a disk of `bytes`; what it takes is fetched by apt. None where
/// that cannot be. It says [`DEBIAN_SAYS`] with its kernel's version, and ends.
pub(crate) fn debian(dir: &Path, name: &str, bytes: u64, packages: &[&str]) -> Option<PathBuf> {
    if !tools(&["mmdebstrap", "mke2fs"]) {
        return None;
    }
    let root = dir.join(format!("{name}.root"));
    let least = ["linux-image-cloud-amd64", "systemd-sysv", "udev", "initramfs-tools", "zstd"];
    let include = least.iter().chain(packages).copied().collect::<Vec<_>>().join(",");
    let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    let sources = sources.iter().find(|path| fs::metadata(path).is_ok_and(|m| m.len() > 20))?;
    let made = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--quiet", "--format=directory"])
        .arg(format!("--include={include}"))
        .args(["bookworm", text(&root), sources])
        .output()
        .unwrap();
    if !made.status.success() {
        skipped(&format!("no Debian could be made: {}", String::from_utf8_lossy(&made.stderr)));
        return None;
    }
    let unit = format!(
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo {DEBIAN_SAYS}$(uname -r) >/dev/ttyS0; systemctl poweroff -ff'\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    fs::write(root.join("etc/systemd/system/skein-up.service"), unit).unwrap();
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("../skein-up.service", wants.join("skein-up.service")).unwrap();
    fs::write(root.join("etc/fstab"), "LABEL=skein-root / ext4 defaults 0 1\n").unwrap();
    Some(on_disk(dir, name, bytes, &root))
}

/// Puts a root file system on a disk that boots it.
pub(crate) fn on_disk(dir: &Path, name: &str, bytes: u64, root: &Path) -> PathBuf {
    let disk = dir.join(format!("{name}.raw"));
    File::create(&disk).unwrap().set_len(bytes).unwrap();
    let (boot, first) = (DEBIAN_BOOT_BYTES / 512, (PART_AT + DEBIAN_BOOT_BYTES) / 512);
    partitions(&disk, &format!("start=2048, size={boot}, type=c, bootable\nstart={first}, type=83\n"));
    let of = |begin: &str| {
        let found = fs::read_dir(root.join("boot")).unwrap().flatten().map(|entry| entry.path());
        found.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with(begin)).unwrap()
    };
    let kernel_says = "root=LABEL=skein-root ro console=ttyS0 quiet panic=-1";
    boot_partition(&disk, DEBIAN_BOOT_BYTES, &of("vmlinuz-"), &of("initrd.img-"), kernel_says);
    let size = (bytes - PART_AT - DEBIAN_BOOT_BYTES) / 1024;
    let at = format!("offset={}", PART_AT + DEBIAN_BOOT_BYTES);
    run(
        "mke2fs",
        &["-q", "-t", "ext4", "-L", "skein-root", "-d", text(root), "-E", &at, text(&disk), &format!("{size}k")],
    );
    disk
}

/// Lines that a machine with this disk said on its serial port that begin with `says`; it ends by itself, or is ended
/// after `longest`.
#[allow(clippy::disallowed_methods, reason = "a machine that hangs is ended; nothing else is decided by the time")]
pub(crate) fn boot(disk: &Path, driver: &str, says: &str, longest: Duration) -> Vec<String> {
    let serial = disk.with_extension("serial");
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-M", "q35", "-accel", "tcg", "-m", "384", "-display", "none", "-no-reboot", "-nic", "none"])
        .arg("-serial")
        .arg(format!("file:{}", text(&serial)))
        .arg("-drive")
        .arg(format!("file={},format={driver},if=none,id=d,snapshot=on", text(disk)))
        .args(["-device", "nvme,drive=d,serial=skein"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let until = Instant::now() + longest;
    while machine.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            machine.kill().unwrap();
            machine.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = fs::read(&serial).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let found: Vec<String> = said.lines().filter_map(|line| line.split(says).nth(1)).map(str::to_owned).collect();
    if found.is_empty() {
        let last: String = said.chars().rev().take(400).collect::<Vec<_>>().into_iter().rev().collect();
        super::said(&format!("{} said: {last:?}", disk.display()));
    }
    found
}
