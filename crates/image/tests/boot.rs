//! What is written boots: a disk of a boot sector that reads another sector through the firmware and says what is in
//! it on the serial port, in every format that QEMU reads.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use skein_image::bytes::FileBytes;
use skein_image::convert::Compression;
use skein_image::{Budget, Disk, Format, Options, Out, format};

const MARKER: &str = "skein: this disk boots\r\n";
const DISK_BYTES: u64 = 64 << 20;
/// Far from the beginning, in a piece of its own: tables must be right for it to be found.
const MARKER_SECTOR: u64 = 99_999;

/// Reads [`MARKER_SECTOR`] by INT 13h, writes it to COM1 up to a zero byte, and ends the machine by port 0xf4.
#[rustfmt::skip]
fn boot_sector() -> Vec<u8> {
    let mut code = vec![
        0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // ds = es = ss = 0, sp = 0x7c00
        0xbe, 0x38, 0x7c, 0xb4, 0x42, 0xcd, 0x13, 0x72, 0x20,             // int 13h, ah = 42h; carry: stop
        0xbe, 0x00, 0x7e, 0xac, 0x84, 0xc0, 0x74, 0x12,                   // next byte; zero: done
        0x88, 0xc4, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb,       // until the port takes one
        0x88, 0xe0, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xe9,                   // write it, go on
        0xba, 0xf4, 0x00, 0xb0, 0x00, 0xee, 0xf4, 0xeb, 0xfd,             // done: end; stop: halt
        0x00,
        0x10, 0x00, 0x01, 0x00, 0x00, 0x7e, 0x00, 0x00,                   // one sector to 0:0x7e00
    ];
    assert_eq!(code.len(), 0x40);
    code.extend_from_slice(&MARKER_SECTOR.to_le_bytes());
    code.resize(510, 0);
    code.extend_from_slice(&[0x55, 0xaa]);
    code
}

fn raw_disk(path: &Path) -> Box<dyn Disk> {
    use std::os::unix::fs::FileExt as _;
    let file = File::options().create(true).truncate(true).write(true).read(true).open(path).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    file.write_all_at(&boot_sector(), 0).unwrap();
    file.write_all_at(MARKER.as_bytes(), MARKER_SECTOR * 512).unwrap();
    format::open(Arc::new(FileBytes::new(file).unwrap()), Format::Raw, &Budget::default()).unwrap()
}

/// What the machine said on its serial port before it ended, or was ended after 60 s.
fn boot(disk: &Path, driver: &str) -> String {
    let serial = disk.with_extension("serial");
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-M", "pc", "-accel", "tcg", "-m", "32", "-display", "none", "-no-reboot", "-snapshot"])
        .args(["-net", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .arg("-serial")
        .arg(format!("file:{}", serial.display()))
        .arg("-drive")
        .arg(format!("file={},format={driver},if=ide", disk.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_mins(1);
    while machine.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            machine.kill().unwrap();
            machine.wait().unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    String::from_utf8_lossy(&std::fs::read(&serial).unwrap_or_default()).into_owned()
}

#[test]
fn a_disk_boots_from_every_format_that_qemu_reads() {
    if !Command::new("qemu-system-x86_64").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success()) {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "SKIPPED: no qemu-system-x86_64 here (Debian: qemu-system-x86)").ok();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_disk(&dir.path().join("source"));
    for (format, compression, driver) in [
        (Format::Raw, Compression::None, "raw"),
        (Format::Qcow2, Compression::None, "qcow2"),
        (Format::Qcow2, Compression::Zlib, "qcow2"),
        (Format::Qcow2, Compression::Zstd, "qcow2"),
        (Format::Vmdk, Compression::None, "vmdk"),
        (Format::Vhd, Compression::None, "vpc"),
        (Format::Vhdx, Compression::None, "vhdx"),
        (Format::Vdi, Compression::None, "vdi"),
    ] {
        let path = dir.path().join(format!("{format}-{compression:?}"));
        let file = File::options().create(true).truncate(true).write(true).read(true).open(&path).unwrap();
        let options = Options { compression, ..Options::new(format) };
        skein_image::convert(raw.as_ref(), &mut Out::File(&file), &options, &()).unwrap();
        let said = boot(&path, driver);
        assert!(said.contains(MARKER), "{format} {compression:?}: {said:?}");
        // And back: what is read from it is the disk that boots.
        let back = format::open(Arc::new(FileBytes::new(file).unwrap()), format, &Budget::default()).unwrap();
        let path = dir.path().join("back");
        let file = File::options().create(true).truncate(true).write(true).read(true).open(&path).unwrap();
        skein_image::convert(back.as_ref(), &mut Out::File(&file), &Options::new(Format::Raw), &()).unwrap();
        assert!(boot(&path, "raw").contains(MARKER), "raw made of {format}");
    }
}
