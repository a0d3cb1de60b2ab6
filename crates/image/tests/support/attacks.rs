//! Images made to harm, every form that is known of, in one table. `secret` is a file of the host that some of them try
//! to read.

use std::io::Write as _;
use std::path::Path;

use libdeflater::{CompressionLvl, Compressor};
use skein_image::Format;

use super::patched;

/// One of them.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What the uploader says it is; nothing: found out by its bytes.
    pub(crate) format: Option<Format>,
    pub(crate) bytes: Vec<u8>,
    /// A word of the refusal; nothing: it is read, as what it is.
    pub(crate) word: Option<&'static str>,
}

const CLUSTER: usize = 1 << 16;
const L1: usize = CLUSTER;
const L2: usize = 2 * CLUSTER;
const DATA: usize = 5 * CLUSTER;

/// A good qcow2 of 8 clusters, the first one data.
fn qcow2() -> Vec<u8> {
    let mut image = vec![0; 6 * CLUSTER];
    image[..8].copy_from_slice(&[b'Q', b'F', b'I', 0xfb, 0, 0, 0, 3]);
    put(&mut image, 16, &[0, 0, 0, 0, 0, 0, 0, 16]);
    put(&mut image, 24, &(8 * CLUSTER as u64).to_be_bytes());
    put(&mut image, 36, &[0, 0, 0, 1]);
    put(&mut image, 40, &(L1 as u64).to_be_bytes());
    put(&mut image, 48, &(3 * CLUSTER as u64).to_be_bytes());
    put(&mut image, 56, &[0, 0, 0, 1]);
    put(&mut image, 96, &[0, 0, 0, 4, 0, 0, 0, 104]);
    put(&mut image, L1, &(L2 as u64 | 1 << 63).to_be_bytes());
    put(&mut image, L2, &(DATA as u64 | 1 << 63).to_be_bytes());
    put(&mut image, 3 * CLUSTER, &(4 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..6 {
        put(&mut image, 4 * CLUSTER + cluster * 2, &[0, 1]);
    }
    image[DATA..].fill(0x5a);
    image
}

fn put(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..at + with.len()].copy_from_slice(with);
}

fn backed_by(name: &str) -> Vec<u8> {
    let mut image = patched(&qcow2(), 8, &1024u64.to_be_bytes());
    put(&mut image, 16, &u32::try_from(name.len()).unwrap().to_be_bytes());
    put(&mut image, L2, &[0; 8]);
    patched(&image, 1024, name.as_bytes())
}

/// 4 TiB from 384 KiB: all tables are one, all its entries one compressed cluster.
fn bomb() -> Vec<u8> {
    let mut image = qcow2();
    put(&mut image, 24, &(4u64 << 40).to_be_bytes());
    put(&mut image, 36, &8192u32.to_be_bytes());
    let mut packed = vec![0; CLUSTER];
    let mut compressor = Compressor::new(CompressionLvl::new(9).unwrap());
    let len = compressor.deflate_compress(&vec![b'!'; CLUSTER], &mut packed).unwrap();
    put(&mut image, DATA, &packed[..len]);
    for n in 0..CLUSTER / 8 {
        put(&mut image, L1 + n * 8, &(L2 as u64 | 1 << 63).to_be_bytes());
        put(&mut image, L2 + n * 8, &(DATA as u64 | 1 << 62).to_be_bytes());
    }
    image
}

fn data_file(name: &str) -> Vec<u8> {
    let mut image = patched(&qcow2(), 79, &[4]);
    put(&mut image, 104, &0x4441_5441u32.to_be_bytes());
    put(&mut image, 108, &u32::try_from(name.len()).unwrap().to_be_bytes());
    patched(&image, 112, name.as_bytes())
}

fn descriptor(kind: &str, extents: &str) -> Vec<u8> {
    let head = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n";
    format!("{head}createType=\"{kind}\"\n\n{extents}\n").into_bytes()
}

fn tar(members: &[(&str, u8, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, link, content) in members {
        let mut header = vec![0u8; 512];
        put(&mut header, 0, name.as_bytes());
        put(&mut header, 124, format!("{:011o}", content.len()).as_bytes());
        header[156] = *kind;
        put(&mut header, 157, link.as_bytes());
        put(&mut header, 257, b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn vhd(kind: u32) -> Vec<u8> {
    let mut footer = vec![0; 512];
    put(&mut footer, 0, b"conectix");
    put(&mut footer, 12, &0x1_0000u32.to_be_bytes());
    put(&mut footer, 16, &u64::MAX.to_be_bytes());
    put(&mut footer, 28, b"win ");
    put(&mut footer, 48, &4096u64.to_be_bytes());
    put(&mut footer, 60, &kind.to_be_bytes());
    let sum = !footer.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    put(&mut footer, 64, &sum.to_be_bytes());
    [vec![7; 4096], footer].concat()
}

fn vdi(kind: u32) -> Vec<u8> {
    let mut image = vec![0; 1024 + 4096];
    let header = [(0x40, 0xbeda_107f), (0x44, 0x1_0001), (0x48, 400), (0x4c, kind), (0x154, 512), (0x158, 1024)];
    let disk = [(0x168, 512), (0x170, 4096), (0x178, 4096), (0x180, 1), (0x184, 1)];
    for (at, number) in header.into_iter().chain(disk) {
        put(&mut image, at, &u32::to_le_bytes(number));
    }
    image
}

/// The first bytes of formats that `qemu-img` would find by itself, with a name of a file in them where there is room.
fn probed(magic: &[u8], secret: &str) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    put(&mut bytes, 0, magic);
    put(&mut bytes, 1024, secret.as_bytes());
    bytes
}

fn ovf(extra: &str, href: &str) -> Vec<u8> {
    let text = format!(
        "<?xml version=\"1.0\"?>{extra}<Envelope xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"><References>\
         <File ovf:href=\"{href}\" ovf:id=\"f\"/></References><DiskSection><Disk ovf:diskId=\"d\" ovf:fileRef=\"f\" \
         ovf:capacity=\"1\"/></DiskSection></Envelope>"
    );
    tar(&[("a.ovf", b'0', "", text.as_bytes()), ("d.vmdk", b'0', "", b"KDMV")])
}

/// A disk that is one file system, whose superblock claims nearly 2^32 groups of blocks.
fn endless_ext4(upper: bool) -> Vec<u8> {
    let mut disk = vec![0; 1 << 16];
    // As the lower half of the blocks in groups of one, or as the upper half in usual groups.
    put(&mut disk, 1024 + if upper { 336 } else { 4 }, &[0xfe, 0x0f, 0, 0]);
    put(&mut disk, 1024 + 6, &if upper { [0, 0] } else { [0xff, 0xff] });
    put(&mut disk, 1024 + 32, &if upper { [0, 0x20, 0, 0] } else { [1, 0, 0, 0] });
    put(&mut disk, 1024 + 40, &[1, 0, 0, 0]);
    put(&mut disk, 1024 + 56, &[0x53, 0xef]);
    put(&mut disk, 1024 + 76, &[1, 0, 0, 0]);
    put(&mut disk, 1024 + 88, &[0, 1]);
    put(&mut disk, 1024 + 96, &[0x42, 0, 0, 0]);
    disk
}

/// All of them.
pub(crate) fn all(secret: &Path) -> Vec<Attack> {
    let path = secret.to_str().unwrap();
    let json = format!("json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{path}\"}}}}");
    let of = |name, format, bytes, word| Attack { name, format, bytes, word };
    let qcow2_as = Some(Format::Qcow2);
    let be = |at: usize, with: &[u8]| patched(&qcow2(), at, with);
    let flat = descriptor("monolithicFlat", &format!("RW 8 FLAT \"{path}\" 0"));
    let mut all = vec![
        of("a backing file by its path", qcow2_as, backed_by(path), Some("layer over another file")),
        of("a backing file in JSON", qcow2_as, backed_by(&json), Some("layer over another file")),
        of("a backing file of a protocol", qcow2_as, backed_by("nbd://127.0.0.1/x"), Some("layer over another file")),
        of("a raw upload that is a qcow2", None, backed_by(path), Some("layer over another file")),
        of("the same, said to be raw", Some(Format::Raw), backed_by(path), None),
        of("an external data file", qcow2_as, data_file(path), Some("external data file")),
        of("a data file in JSON", qcow2_as, data_file(&json), Some("external data file")),
        of("a bomb", qcow2_as, bomb(), Some("points at")),
        of("an L1 table of 2^31 entries", qcow2_as, be(36, &[0x80, 0, 0, 0]), Some("L1 table")),
        of("2^32 snapshots", qcow2_as, be(60, &[0xff; 4]), Some("snapshots")),
        of("an L2 entry at the L2 table", qcow2_as, be(L2 + 8, &(L2 as u64).to_be_bytes()), Some("in use")),
        of("an L2 entry at the L1 table", qcow2_as, be(L2 + 8, &(L1 as u64).to_be_bytes()), Some("in use")),
        of("one cluster twice", qcow2_as, be(L2 + 8, &(DATA as u64).to_be_bytes()), Some("in use")),
        of("an unknown feature", qcow2_as, be(76, &[1]), Some("incompatible bit")),
        of("a LUKS disk in a qcow2", qcow2_as, be(35, &[2]), Some("encrypted")),
        of("clusters of 2^31 bytes", qcow2_as, be(23, &[31]), Some("clusters of")),
    ];
    all.extend([
        of("a flat extent by its path", Some(Format::Vmdk), flat.clone(), Some("none of them is opened")),
        of("the same, found out", None, flat, Some("none of them is opened")),
        of(
            "a device map",
            None,
            descriptor("fullDevice", &format!("RW 8 VMFSRDM \"{path}\"")),
            Some("none of them is opened"),
        ),
        of("an old VMDK", None, b"COWD\x01\0\0\0".to_vec(), Some("COWD")),
        of("a differencing VHD", None, vhd(4), Some("parent")),
        of("a differencing VDI", None, vdi(4), Some("difference image")),
        of("a description with a path", None, ovf("", path), Some("not in the archive")),
        of("a description with a URL", None, ovf("", "http://169.254.169.254/x"), Some("not in the archive")),
        of(
            "an external entity",
            None,
            ovf(&format!("<!DOCTYPE a [<!ENTITY b SYSTEM \"file://{path}\">]>"), "&b;"),
            Some("document type"),
        ),
        of("a link as the disk", None, tar(&[("a.ovf", b'0', "", b"<a/>"), ("d.vmdk", b'2', path, b"")]), Some("type")),
        of("a link as disk.raw", None, gzip(&tar(&[("disk.raw", b'2', path, b"")])), Some("type")),
        of("disk.raw by a path", None, gzip(&tar(&[("../../disk.raw", b'0', "", b"x")])), Some("only disk.raw")),
        of("a qcow2 in a gzip", None, gzip(&backed_by(path)), Some("layer over another file")),
        of("a gzip in a gzip", None, gzip(&gzip(&vec![0; 1 << 20])), Some("packed twice")),
        of("a window of 2 GiB", None, vec![0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 0x0b, 0, 0x10, b'!'], Some("memory")),
    ]);
    all.push(of("a file system of endless groups", None, endless_ext4(false), None));
    all.push(of("the same, in the upper half of its size", None, endless_ext4(true), None));
    // What qemu-img finds out by itself, and reads more files for: to us they are the bytes that they are.
    for (name, magic) in [
        ("QED", &b"QED\0"[..]),
        ("bochs", b"Bochs Virtual HD Image\0"),
        ("parallels", b"WithoutFreeSpace"),
        ("cloop", b"#!/bin/sh\n#V2.0 Format\n"),
        ("LUKS", b"LUKS\xba\xbe\0\x01"),
    ] {
        all.push(of(name, None, probed(magic, path), None));
    }
    all
}
