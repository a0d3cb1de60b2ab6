//! The first inputs of every target, made here: what our writers make of a small disk, what `qemu-img` makes of it
//! where that is installed, and a few lines of text.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use skein_fuzz::VHDX_PARTS;
use skein_image::convert::Compression;
use skein_image::{Budget, Format, Options, Out, convert, format};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let scratch = tempfile::tempdir()?;
    let raw = scratch.path().join("raw");
    std::fs::write(&raw, small_disk())?;
    let put = |target: &str, name: &str, how: &[u8], bytes: &[u8]| -> Result<()> {
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(folder.join(name), [how, bytes].concat())?)
    };
    for (name, options) in forms() {
        let path = scratch.path().join("ours");
        write(&raw, &options, &path)?;
        seeds_of(&put, options.format, name, &std::fs::read(&path)?)?;
    }
    for (n, (of, arguments)) in QEMU.iter().enumerate() {
        let path = scratch.path().join("theirs");
        if qemu(&raw, arguments, &path) {
            seeds_of(&put, *of, &format!("qemu-{n}"), &std::fs::read(&path)?)?;
        }
    }
    put("vdi", "small", &[], &small_vdi())?;
    put("vhd", "small", &[1], &small_vhd())?;
    texts(&put)?;
    disks(&put, scratch.path())
}

fn small_disk() -> Vec<u8> {
    let mut disk = vec![0; 3 << 15];
    for (n, byte) in disk[66_000..70_000].iter_mut().enumerate() {
        *byte = u8::try_from(n * n % 251).unwrap_or(0);
    }
    disk[..600].fill(b'x');
    disk
}

fn forms() -> Vec<(&'static str, Options)> {
    let of = |format, compression| Options { compression, threads: 1, ..Options::new(format) };
    vec![
        ("plain", of(Format::Qcow2, Compression::None)),
        ("zlib", of(Format::Qcow2, Compression::Zlib)),
        ("zstd", of(Format::Qcow2, Compression::Zstd)),
        ("ours", of(Format::Vmdk, Compression::None)),
        ("ours", of(Format::Vhd, Compression::None)),
        ("ours", of(Format::Vhdx, Compression::None)),
        ("ours", of(Format::Vdi, Compression::None)),
        ("ours", of(Format::Ova, Compression::None)),
        ("ours", of(Format::GceTar, Compression::None)),
    ]
}

/// Four blocks of 4 KiB, of which two are there.
fn small_vdi() -> Vec<u8> {
    let mut image = vec![0; 1024 + 2 * 4096];
    let mut put = |at: usize, number: u32| image[at..at + 4].copy_from_slice(&number.to_le_bytes());
    let fields =
        [(0x40, 0xbeda_107f), (0x44, 0x1_0001), (0x48, 400), (0x4c, 1), (0x154, 512), (0x158, 1024), (0x168, 512)];
    let disk = [(0x170, 4 * 4096), (0x178, 4096), (0x180, 4), (0x184, 2)];
    let map = [(512, 0), (516, u32::MAX), (520, 1), (524, u32::MAX - 1)];
    for (at, number) in fields.into_iter().chain(disk).chain(map) {
        put(at, number);
    }
    image[1024..].fill(0xaa);
    image
}

/// A dynamic one: two blocks of 4 KiB, of which one is there. The checksums are mended by the target.
fn small_vhd() -> Vec<u8> {
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[12..16].copy_from_slice(&0x1_0000u32.to_be_bytes());
    footer[16..24].copy_from_slice(&512u64.to_be_bytes());
    footer[28..32].copy_from_slice(b"win ");
    footer[48..56].copy_from_slice(&8192u64.to_be_bytes());
    footer[60..64].copy_from_slice(&3u32.to_be_bytes());
    let mut header = [0; 1024];
    header[..8].copy_from_slice(b"cxsparse");
    header[16..24].copy_from_slice(&1536u64.to_be_bytes());
    header[28..32].copy_from_slice(&2u32.to_be_bytes());
    header[32..36].copy_from_slice(&4096u32.to_be_bytes());
    let mut table = [0xff; 512];
    table[..4].copy_from_slice(&4u32.to_be_bytes());
    [&footer[..], &header, &table, &[0xff; 512], &[0xbb; 4096], &footer].concat()
}

const QEMU: [(Format, &[&str]); 8] = [
    (Format::Qcow2, &["-O", "qcow2", "-o", "cluster_size=512"]),
    (Format::Qcow2, &["-c", "-O", "qcow2", "-o", "cluster_size=4096,refcount_bits=1"]),
    (Format::Qcow2, &["-O", "qcow2", "-o", "extended_l2=on,cluster_size=16k"]),
    (Format::Qcow2, &["-O", "qcow2", "-o", "compat=0.10,cluster_size=512"]),
    (Format::Vmdk, &["-O", "vmdk"]),
    (Format::Vmdk, &["-O", "vmdk", "-o", "subformat=streamOptimized"]),
    (Format::Vhd, &["-O", "vpc"]),
    (Format::Vdi, &["-O", "vdi"]),
];

fn write(raw: &Path, options: &Options, to: &Path) -> Result<()> {
    let disk = format::open(Arc::new(std::fs::read(raw)?), Format::Raw, &Budget::default())?;
    let file = std::fs::File::create(to)?;
    convert(disk.as_ref(), &mut Out::File(&file), options, &())?;
    Ok(())
}

fn qemu(raw: &Path, arguments: &[&str], to: &PathBuf) -> bool {
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-f", "raw"]).args(arguments).arg(raw).arg(to);
    command.status().is_ok_and(|status| status.success())
}

fn seeds_of(put: &dyn Fn(&str, &str, &[u8], &[u8]) -> Result<()>, of: Format, name: &str, bytes: &[u8]) -> Result<()> {
    put("detect", &format!("{of}-{name}"), &[], bytes)?;
    match of {
        Format::Qcow2 => put("qcow2", name, &[], bytes),
        Format::Vdi => put("vdi", name, &[], bytes),
        Format::Vmdk => put("vmdk", name, &[1], bytes),
        Format::Vhd => put("vhd", name, &[1], bytes),
        Format::Ova => put("ova", name, &[1], bytes),
        Format::Vhdx => {
            let parts: Vec<u8> =
                VHDX_PARTS.iter().flat_map(|(at, len)| bytes.get(*at..at + len).unwrap_or_default()).copied().collect();
            put("vhdx", name, &[3], &parts)
        }
        Format::GceTar => {
            let mut tar = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(bytes), &mut tar)?;
            put("gce", "packed", &[2], bytes)?;
            put("wrapper", "gzip", &[], bytes)?;
            put("gce", name, &[1], &tar)
        }
        Format::Raw | Format::Oci => Ok(()),
    }
}

fn texts(put: &dyn Fn(&str, &str, &[u8], &[u8]) -> Result<()>) -> Result<()> {
    let facts = format::DiskFacts { file: "d.vmdk".to_owned(), file_bytes: 1, virtual_bytes: 1, data_bytes: 1 };
    put("ovf", "ours", &[], format::ovf(&format::Appliance::default(), &facts)?.as_bytes())?;
    let lines = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n\
                 RW 8 FLAT \"a.vmdk\" 0\nRW 2 ZERO\nRW 15 FLAT \"b.vmdk\" 1\nddb.adapterType = \"ide\"\n";
    put("descriptor", "flat", &[], lines.as_bytes())?;
    let entry = |offset: u64, len: u64| [&offset.to_le_bytes()[..], &len.to_le_bytes(), &[7; 32]].concat();
    let list = [&(1u64 << 20).to_le_bytes()[..], &entry(0, 65_536), &entry(70_000, 1000)].concat();
    put("recipe", "two", &[], &list)?;
    let manifest = format!(
        "{{\"id\":\"{0}\",\"data_bytes\":0,\"origin\":{{\"name\":\"\",\"source\":\"\"}},\"native\":\"raw\",\"written_by\":\"\",\
         \"disk\":{{\"bytes\":1,\"chunks\":0,\"list\":\"{0}\"}}}}",
        "0".repeat(64)
    );
    put("manifest", "one", &[], manifest.as_bytes())?;
    let file = "kernel/drivers/virtio_blk.ko.xz\0";
    let mut cpio = format!("070701{:048x}{:08x}{:032x}{:08x}{:08x}{file}", 0, 4, 0, file.len(), 0).into_bytes();
    cpio.resize(cpio.len().next_multiple_of(4), 0);
    cpio.extend_from_slice(b"code");
    put("initrd", "plain", &[], &cpio)
}

/// A file system in a partition, where there is a program to make one.
fn disks(put: &dyn Fn(&str, &str, &[u8], &[u8]) -> Result<()>, scratch: &Path) -> Result<()> {
    let tree = scratch.join("tree");
    for (name, text) in [
        ("etc/os-release", "PRETTY_NAME=\"A\"\n"),
        ("etc/fstab", "/dev/sda1 / ext4\n"),
        ("boot/vmlinuz-6.1", ""),
        ("boot/initrd.img-6.1", ""),
        ("lib/modules/6.1/modules.dep", "kernel/a.ko:\n"),
    ] {
        let path = tree.join(name);
        std::fs::create_dir_all(path.parent().ok_or("a path")?)?;
        std::fs::write(path, text)?;
    }
    let image = scratch.join("ext4");
    std::fs::File::create(&image)?.set_len(128 << 10)?;
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-O", "^has_journal", "-N", "32", "-d"]).arg(&tree).arg(&image);
    if mkfs.status().is_ok_and(|status| status.success()) {
        let files = std::fs::read(&image)?;
        put("disk", "ext4", &[], &files)?;
        let mut disk = vec![0; 4096];
        disk[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0, 0]);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk.extend(files);
        put("disk", "mbr", &[], &disk)?;
    }
    let mut gpt = vec![0; 64 << 9];
    gpt[446 + 4] = 0xee;
    gpt[510..512].copy_from_slice(&[0x55, 0xaa]);
    gpt[512..520].copy_from_slice(b"EFI PART");
    gpt[512 + 72] = 2;
    gpt[512 + 80] = 4;
    gpt[512 + 84] = 128;
    gpt[1024..1056].fill(1);
    gpt[1024 + 32] = 10;
    gpt[1024 + 40] = 20;
    put("disk", "gpt", &[], &gpt)
}
