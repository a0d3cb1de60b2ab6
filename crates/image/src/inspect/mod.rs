//! What is on a disk, without mounting or running any of it: how it starts, which system it holds, which drivers that
//! has. What cannot be read here (other file systems, other packings) is said to be unknown, never guessed.

mod initrd;
pub mod partitions;

use std::collections::BTreeSet;
use std::sync::Arc;

use ext4_view::{Ext4, Ext4Read};
use serde::{Deserialize, Serialize};

use crate::bytes::field::le32;
use crate::{Disk, Result};
use partitions::{Partition, Purpose};

/// Groups of blocks that a file system may have: 64 TiB of the usual ones.
const EXT_GROUPS_MAX: u64 = 1 << 19;
/// Largest file that is read whole, bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// BIOS firmware can start it: there is boot code.
    pub bios: bool,
    /// UEFI firmware can start it: there is an EFI system partition.
    pub uefi: bool,
    /// It has a GPT.
    pub gpt: bool,
    /// A partition is encrypted (LUKS).
    pub encrypted: bool,
    /// The system it holds, where a file system could be read that has one.
    pub system: Option<System>,
    /// What could not be looked into, and why.
    pub unknown: Vec<String>,
}

/// An installed system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Its name for people, from os-release.
    pub name: String,
    /// Architecture of its programs, as Rust names it (`x86_64`, `aarch64`), where its dynamic linker says.
    #[serde(default)]
    pub arch: Option<String>,
    /// Version of its newest kernel.
    pub kernel: Option<String>,
    /// Drivers in that kernel or its initial RAM disk: what can find the disk. Unknown when that is packed in a way
    /// that is not read here.
    pub early_drivers: Option<BTreeSet<String>>,
    /// All drivers that are installed.
    pub drivers: BTreeSet<String>,
    /// Devices that fstab names by a path that depends on the machine (`/dev/sda1`).
    pub fragile_mounts: Vec<String>,
    /// cloud-init is installed.
    pub cloud_init: bool,
}

struct Part {
    disk: Arc<dyn Disk>,
    at: Partition,
}

impl Ext4Read for Part {
    fn read(
        &mut self,
        start: u64,
        buffer: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let end = start.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.at.len) {
            return Err("beyond the partition".into());
        }
        Ok(self.disk.read_at(self.at.offset + start, buffer)?)
    }
}

/// Looks at a disk.
pub fn inspect(disk: &Arc<dyn Disk>) -> Result<Facts> {
    let table = partitions::read(disk.as_ref())?;
    let has = |purpose| table.partitions.iter().any(|part| part.purpose == purpose);
    let mut facts = Facts {
        bios: table.boot_code && (!table.gpt || has(Purpose::BiosBoot)),
        uefi: has(Purpose::EfiSystem),
        gpt: table.gpt,
        ..Facts::default()
    };
    let systems = file_systems(disk, &table.partitions, &mut facts)?;
    // A partition of its own for /boot has the kernel, the root file system has the rest.
    let boot = systems.iter().find(|files| newest_kernel(files, "/").is_some());
    if let Some(root) = systems.iter().find(|files| os_release(files).is_some()) {
        facts.system = Some(system(root, boot.unwrap_or(root)));
    }
    Ok(facts)
}

/// The root file system, and the architecture of its programs; none when none could be read.
pub(crate) fn root(disk: &Arc<dyn Disk>) -> Result<Option<(Ext4, Option<String>)>> {
    let table = partitions::read(disk.as_ref())?;
    let systems = file_systems(disk, &table.partitions, &mut Facts::default())?;
    let root = systems.into_iter().find(|files| os_release(files).is_some());
    Ok(root.map(|root| {
        let arch = arch(&root);
        (root, arch)
    }))
}

/// A file system, or why it is not read. What its reader would allocate for it is bounded first: it believes the
/// superblock, and a small image can say anything there.
fn load(disk: &Arc<dyn Disk>, part: Partition) -> Result<std::result::Result<Ext4, String>> {
    let mut superblock = vec![0; 1024];
    if part.len < 2048 {
        return Ok(Err("its partition has no room for one".to_owned()));
    }
    disk.read_at(part.offset + 1024, &mut superblock)?;
    let (log_block, per_group) = (le32(&superblock, 24), u64::from(le32(&superblock, 32)));
    // 64 KiB are the largest blocks (2^16).
    if log_block > 6 || per_group == 0 {
        return Ok(Err(format!("blocks of 2^{} bytes, {per_group} in a group", 10 + u64::from(log_block))));
    }
    // Its reader takes the upper half whether the feature for it is set or not.
    let blocks = u64::from(le32(&superblock, 336)) << 32 | u64::from(le32(&superblock, 4));
    let groups = blocks.div_ceil(per_group);
    if groups > EXT_GROUPS_MAX || blocks > part.len >> (10 + log_block) {
        return Ok(Err(format!("it claims {blocks} blocks in {groups} groups, in {} bytes", part.len)));
    }
    let files = Ext4::load(Box::new(Part { disk: Arc::clone(disk), at: part }));
    Ok(files.map_err(|error| error.to_string()))
}

fn file_systems(disk: &Arc<dyn Disk>, partitions: &[Partition], facts: &mut Facts) -> Result<Vec<Ext4>> {
    let mut systems = Vec::new();
    for part in partitions.iter().filter(|part| part.purpose == Purpose::Other) {
        match kind(disk.as_ref(), *part)? {
            Kind::Ext => match load(disk, *part)? {
                Ok(files) => systems.push(files),
                Err(why) => facts.unknown.push(format!("a file system cannot be read: {why}")),
            },
            Kind::Luks => facts.encrypted = true,
            Kind::Unread(name) => facts.unknown.push(format!("a file system of the kind {name} is not read here")),
            Kind::Unknown => {}
        }
    }
    Ok(systems)
}

enum Kind {
    Ext,
    Luks,
    Unread(&'static str),
    Unknown,
}

fn kind(disk: &dyn Disk, part: Partition) -> Result<Kind> {
    let has = |offset: u64, magic: &[u8]| -> Result<bool> {
        let mut found = vec![0; magic.len()];
        if offset + magic.len() as u64 > part.len {
            return Ok(false);
        }
        disk.read_at(part.offset + offset, &mut found)?;
        Ok(found == magic)
    };
    Ok(if has(1080, &[0x53, 0xef])? {
        Kind::Ext
    } else if has(0, b"LUKS\xba\xbe")? {
        Kind::Luks
    } else if has(0, b"XFSB")? {
        Kind::Unread("XFS")
    } else if has(0x1_0040, b"_BHRfS_M")? {
        Kind::Unread("Btrfs")
    } else if has(3, b"NTFS")? {
        Kind::Unread("NTFS")
    } else if has(536, b"LABELONE")? || has(512, b"LABELONE")? {
        Kind::Unread("LVM")
    } else {
        Kind::Unknown
    })
}

fn text(files: &Ext4, path: &str) -> Option<String> {
    let small = files.metadata(path).is_ok_and(|m| m.len() <= 1 << 20);
    small.then(|| files.read_to_string(path).ok()).flatten()
}

fn os_release(files: &Ext4) -> Option<String> {
    text(files, "/etc/os-release").or_else(|| text(files, "/usr/lib/os-release"))
}

fn system(root: &Ext4, boot: &Ext4) -> System {
    let release = os_release(root).unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = newest_kernel(root, "/boot").or_else(|| newest_kernel(boot, "/"));
    let tree = kernel.as_deref().and_then(|version| {
        ["/usr/lib/modules", "/lib/modules"]
            .iter()
            .map(|base| format!("{base}/{version}"))
            .find(|d| root.exists(d.as_str()).unwrap_or(false))
    });
    let listed = |file: &str| -> BTreeSet<String> {
        let list = tree.as_ref().and_then(|tree| text(root, &format!("{tree}/{file}"))).unwrap_or_default();
        list.lines().filter_map(|line| initrd::module(line.split(':').next()?)).collect()
    };
    let builtin = listed("modules.builtin");
    let mut drivers = listed("modules.dep");
    drivers.extend(builtin.iter().cloned());
    let early_drivers = kernel.as_deref().and_then(|version| initial_ram_disk(root, boot, version)).map(|mut found| {
        found.extend(builtin);
        found
    });
    let cloud_init = ["/usr/bin/cloud-init", "/etc/cloud/cloud.cfg"].iter().any(|p| root.exists(*p).unwrap_or(false));
    System {
        name: pretty.unwrap_or("unnamed").trim_matches('"').to_owned(),
        arch: arch(root),
        kernel,
        early_drivers,
        drivers,
        fragile_mounts: fragile_mounts(&text(root, "/etc/fstab").unwrap_or_default()),
        cloud_init,
    }
}

/// By the dynamic linker, whose path each architecture's ABI fixes.
fn arch(root: &Ext4) -> Option<String> {
    let linkers = [
        ("x86_64", "lib64/ld-linux-x86-64.so.2"),
        ("aarch64", "lib/ld-linux-aarch64.so.1"),
        ("riscv64", "lib/ld-linux-riscv64-lp64d.so.1"),
        ("s390x", "lib/ld64.so.1"),
        ("x86_64", "lib/ld-musl-x86_64.so.1"),
        ("aarch64", "lib/ld-musl-aarch64.so.1"),
    ];
    let there = |path: &str| {
        ["/", "/usr/"].iter().any(|under| root.symlink_metadata(format!("{under}{path}").as_str()).is_ok())
    };
    linkers.iter().find(|(_, path)| there(path)).map(|(arch, _)| (*arch).to_owned())
}

fn newest_kernel(files: &Ext4, dir: &str) -> Option<String> {
    let names = files.read_dir(dir).ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().as_str().ok()?.to_owned();
        name.strip_prefix("vmlinuz-").map(str::to_owned)
    });
    names.max_by_key(|version| numbers(version))
}

/// `6.10.1` is newer than `6.9.12`.
fn numbers(version: &str) -> (Vec<u64>, String) {
    let parts = version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    (parts.collect(), version.to_owned())
}

fn initial_ram_disk(root: &Ext4, boot: &Ext4, version: &str) -> Option<BTreeSet<String>> {
    let names = [format!("initrd.img-{version}"), format!("initramfs-{version}.img"), format!("initrd-{version}")];
    let places = names.iter().flat_map(|name| [(root, format!("/boot/{name}")), (boot, format!("/{name}"))]);
    let mut found =
        places.filter(|(files, path)| files.metadata(path.as_str()).is_ok_and(|m| m.len() <= FILE_BYTES_MAX));
    let (files, path) = found.next()?;
    initrd_modules(&files.read(path.as_str()).ok()?)
}

/// Kernel modules in an initial RAM disk, under the names that the kernel gives them; none when it is packed in a way
/// that is not read here.
pub fn initrd_modules(initrd: &[u8]) -> Option<BTreeSet<String>> {
    initrd::modules(initrd)
}

fn fragile_mounts(fstab: &str) -> Vec<String> {
    let device = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let fragile = |device: &String| {
        ["/dev/sd", "/dev/hd", "/dev/vd", "/dev/xvd", "/dev/nvme"].iter().any(|p| device.starts_with(p))
    };
    fstab.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(device).filter(fragile).collect()
}
