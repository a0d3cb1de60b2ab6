//! What is said of images before they are uploaded, against a table made by hand. The file systems are real ones.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use skein_image::fits::{Level, fits};
use skein_image::inspect::{Facts, inspect};
use skein_image::{Budget, Disk, Format, Profile, format};

const KERNEL: &str = "6.1.0-9-cloud";
const PART_AT: usize = 1 << 20;

/// One made-up system.
#[derive(Clone, Copy)]
struct Made {
    early: &'static [&'static str],
    installed: &'static [&'static str],
    fstab: &'static str,
    cloud_init: bool,
    table: Table,
}

#[derive(Clone, Copy, PartialEq)]
enum Table {
    MbrWithCode,
    GptWithEsp,
}

const GOOD: Made = Made {
    early: &["virtio_blk", "virtio_scsi", "nvme", "hv_storvsc"],
    installed: &["virtio_net", "ena", "hv_netvsc", "virtio_blk", "virtio_scsi", "nvme", "hv_storvsc"],
    fstab: "UUID=0a1b / ext4 defaults 0 1\n# /dev/sda2 /old ext4\n",
    cloud_init: true,
    table: Table::MbrWithCode,
};

/// A cpio archive ("newc") of empty files.
fn cpio(names: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for name in names.iter().map(String::as_str).chain(["TRAILER!!!"]) {
        let mut fields = [0_usize; 13];
        fields[11] = name.len() + 1;
        out.extend_from_slice(b"070701");
        for field in &fields {
            out.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

fn root(dir: &Path, made: &Made) {
    let put = |path: &str, text: &[u8]| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("etc/os-release", b"NAME=Test\nPRETTY_NAME=\"Test Linux 1\"\n");
    put("etc/fstab", made.fstab.as_bytes());
    put("boot/vmlinuz-6.1.0-8-cloud", b"old");
    put(&format!("boot/vmlinuz-{KERNEL}"), b"new");
    let path = |name: &&str| format!("usr/lib/modules/{KERNEL}/kernel/drivers/{}.ko.xz", name.replace('_', "-"));
    // As in Debian: microcode first, plain; the rest behind it, packed.
    let mut initrd = cpio(&["kernel/x86/microcode/x.bin".to_owned()]);
    let packed: Vec<String> = made.early.iter().map(path).collect();
    initrd.extend(zstd::encode_all(&cpio(&packed)[..], 1).unwrap());
    put(&format!("boot/initrd.img-{KERNEL}"), &initrd);
    let dep: Vec<String> = made.installed.iter().map(|name| format!("{}: ", path(name))).collect();
    put(&format!("usr/lib/modules/{KERNEL}/modules.dep"), dep.join("\n").as_bytes());
    put(&format!("usr/lib/modules/{KERNEL}/modules.builtin"), b"kernel/fs/ext4/ext4.ko\n");
    if made.cloud_init {
        put("etc/cloud/cloud.cfg", b"");
    }
}

/// None where there is no mke2fs.
fn disk(made: &Made) -> Option<Arc<dyn Disk>> {
    let dir = tempfile::tempdir().unwrap();
    let (tree, image) = (dir.path().join("root"), dir.path().join("ext4"));
    root(&tree, made);
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&image).stdout(Stdio::null()).stderr(Stdio::null());
    if !mke2fs.status().is_ok_and(|status| status.success()) {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "SKIPPED: no mke2fs -d here (Debian: e2fsprogs)").ok();
        return None;
    }
    let files = fs::read(&image).unwrap();
    let mut bytes = vec![0; PART_AT + files.len() + PART_AT];
    bytes[PART_AT..PART_AT + files.len()].copy_from_slice(&files);
    let (first, sectors) = (PART_AT / 512, files.len() / 512);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    if made.table == Table::MbrWithCode {
        bytes[0] = 0xeb;
        bytes[446 + 4] = 0x83;
        bytes[446 + 8..446 + 12].copy_from_slice(&u32::try_from(first).unwrap().to_le_bytes());
        bytes[446 + 12..446 + 16].copy_from_slice(&u32::try_from(sectors).unwrap().to_le_bytes());
    } else {
        bytes[446 + 4] = 0xee;
        bytes[446 + 12] = 1;
        bytes[512..520].copy_from_slice(b"EFI PART");
        bytes[512 + 72..512 + 80].copy_from_slice(&2_u64.to_le_bytes());
        bytes[512 + 80..512 + 84].copy_from_slice(&2_u32.to_le_bytes());
        bytes[512 + 84..512 + 88].copy_from_slice(&128_u32.to_le_bytes());
        let esp = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        for (n, kind, from, to) in [(0, esp, 64, 127), (1, [7; 16], first, first + sectors - 1)] {
            let entry = &mut bytes[1024 + n * 128..1024 + (n + 1) * 128];
            entry[..16].copy_from_slice(&kind);
            entry[32..40].copy_from_slice(&u64::try_from(from).unwrap().to_le_bytes());
            entry[40..48].copy_from_slice(&u64::try_from(to).unwrap().to_le_bytes());
        }
    }
    Some(Arc::from(format::open(Arc::new(bytes), Format::Raw, &Budget::default()).unwrap()))
}

fn refusals(facts: &Facts, bytes: u64, cloud: &str) -> Vec<String> {
    let found = fits(facts, bytes, &Profile::builtin(cloud).unwrap());
    found.into_iter().filter(|f| f.level == Level::Refused).map(|f| f.what).collect()
}

#[test]
fn a_table_of_images_and_clouds_made_by_hand() {
    let without = |early: &'static [&'static str]| Made { early, ..GOOD };
    let table: [(&str, Made, &str, Option<&str>); 12] = [
        ("good", GOOD, "openstack", None),
        ("good", GOOD, "google", None),
        ("good", GOOD, "aws", None),
        ("good", GOOD, "azure", None),
        ("BIOS only, and the machines there know BIOS", GOOD, "ibm", Some("10737418240 or more")),
        ("uefi only", Made { table: Table::GptWithEsp, ..GOOD }, "openstack", None),
        (
            "uefi only, BIOS wanted",
            Made { table: Table::GptWithEsp, ..GOOD },
            "lumen",
            Some("an EFI system partition only"),
        ),
        ("no nvme in the RAM disk", without(&["virtio_blk"]), "aws", Some("nvme is installed, but not in")),
        (
            "no hv_storvsc at all",
            Made { installed: &["virtio_net"], early: &["virtio_blk"], ..GOOD },
            "azure",
            Some("hv_storvsc is missing"),
        ),
        ("no virtio at all", without(&["nvme"]), "kvm", Some("virtio_blk is installed, but not in")),
        ("fstab by device", Made { fstab: "/dev/sda1 / ext4\n", ..GOOD }, "kvm", Some("fstab names /dev/sda1")),
        ("given a kernel beside it", Made { table: Table::GptWithEsp, ..GOOD }, "firecracker", None),
    ];
    for (what, made, cloud, wanted) in table {
        let Some(disk) = disk(&made) else { return };
        let facts = inspect(&disk).unwrap();
        assert_eq!(
            facts.system.as_ref().map(|s| (s.name.as_str(), s.kernel.as_deref())),
            Some(("Test Linux 1", Some(KERNEL)))
        );
        let found = refusals(&facts, disk.size(), cloud);
        match wanted {
            None => assert!(found.is_empty(), "{what} on {cloud}: {found:?}"),
            Some(word) => assert!(found.iter().any(|f| f.contains(word)), "{what} on {cloud}: {found:?}"),
        }
    }
}

#[test]
fn what_cannot_be_read_is_unknown_and_never_a_guess() {
    let open = |bytes: Vec<u8>| -> Arc<dyn Disk> {
        Arc::from(format::open(Arc::new(bytes), Format::Raw, &Budget::default()).unwrap())
    };
    let mut xfs = vec![0; 1 << 20];
    xfs[..4].copy_from_slice(b"XFSB");
    let facts = inspect(&open(xfs)).unwrap();
    assert!(facts.unknown[0].contains("XFS") && facts.system.is_none(), "{facts:?}");
    let mut luks = vec![0; 1 << 20];
    luks[..6].copy_from_slice(b"LUKS\xba\xbe");
    let facts = inspect(&open(luks)).unwrap();
    assert!(facts.encrypted && refusals(&facts, 1 << 20, "kvm").iter().any(|f| f.contains("LUKS")));
    // A partition that leaves the disk is no guess either.
    let mut beyond = vec![0; 1 << 20];
    beyond[510..512].copy_from_slice(&[0x55, 0xaa]);
    beyond[446 + 4] = 0x83;
    beyond[446 + 8..446 + 16].copy_from_slice(&[0xff; 8]);
    assert!(inspect(&open(beyond)).unwrap_err().to_string().contains("reaches to sector"));
    for size in [0, 1, 511, 513] {
        inspect(&open(vec![0xff; size])).unwrap();
    }
}
