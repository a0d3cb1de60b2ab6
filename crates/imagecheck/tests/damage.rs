//! Each rule has a file that breaks it, and nothing else: made from a good one by one change, checksums mended.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests, of sizes that are known")]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use skein_image::{Format, Options, Profile};
use support::{MIB, broken, crc32, gpt, said, write};

/// A folder with good files, and which rules were seen broken.
struct Bench {
    dir: tempfile::TempDir,
    seen: BTreeSet<&'static str>,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), seen: BTreeSet::new() }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// A small disk with a GPT and data, in a cloud's form.
    fn good(&self, cloud: &str) -> Vec<u8> {
        let (raw, out) = (self.path("raw"), self.path("good"));
        let file = File::create(&raw).unwrap();
        file.set_len(3 * MIB).unwrap();
        let mut parts = gpt(3 * MIB);
        parts.push((1 << 20, (0..200_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect()));
        for (at, bytes) in parts {
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, at).unwrap();
        }
        write(&raw, &Profile::builtin(cloud).unwrap().options(), &out);
        assert!(broken(cloud, &out).is_empty(), "{cloud}: {}", said(cloud, &out));
        std::fs::read(&out).unwrap()
    }
    fn breaks(&mut self, cloud: &str, rule: &'static str, bytes: &[u8]) {
        let path = self.path("damaged");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(broken(cloud, &path), [rule], "{}", said(cloud, &path));
        self.seen.insert(rule);
    }
    /// Everything else that begins so has been broken too?
    fn assert_all(&self, form: &str) {
        let all: BTreeSet<_> = skein_imagecheck::rules::RULES.iter().map(|rule| rule.name).collect();
        let of_form: BTreeSet<_> = all.into_iter().filter(|name| name.split('.').next() == Some(form)).collect();
        let missed: Vec<_> = of_form.difference(&self.seen).collect();
        assert!(missed.is_empty(), "no file breaks {missed:?}");
    }
}

fn patched(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

fn le32(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

#[test]
fn azure() {
    let mut bench = Bench::new();
    let good = bench.good("azure");
    let end = good.len() - 512;
    let with = |at: usize, with: &[u8]| {
        let mut bytes = patched(&good, end + at, with);
        bytes[end + 64..end + 68].fill(0);
        let sum = !bytes[end..].iter().map(|byte| u32::from(*byte)).sum::<u32>();
        patched(&bytes, end + 64, &sum.to_be_bytes())
    };
    bench.breaks("azure", "vhd.cookie", &patched(&good, end, b"conectiX"));
    bench.breaks("azure", "vhd.checksum", &patched(&good, end + 64, &[1]));
    bench.breaks("azure", "vhd.features", &with(8, &[0, 0, 0, 0]));
    bench.breaks("azure", "vhd.version", &with(12, &[0, 2]));
    bench.breaks("azure", "vhd.fixed", &with(63, &[3]));
    bench.breaks("azure", "vhd.data-offset", &with(16, &[0; 8]));
    bench.breaks(
        "azure",
        "vhd.current-size",
        &with(40, &[[0, 0, 0, 0, 0, 0x40, 0, 0], [0, 0, 0, 0, 0, 0x40, 0, 0]].concat()),
    );
    bench.breaks("azure", "vhd.original-size", &with(40, &[1]));
    bench.breaks("azure", "vhd.creator-host", &with(36, &[0; 4]));
    bench.breaks("azure", "vhd.geometry", &with(58, &[5]));
    bench.breaks("azure", "vhd.id", &with(68, &[0; 16]));
    bench.breaks("azure", "vhd.saved-state", &with(84, &[1]));
    bench.breaks("azure", "vhd.reserved", &with(300, &[1]));
    bench.assert_all("vhd");
    let raw = bench.path("odd");
    File::create(&raw).unwrap().set_len(3 * MIB + 512).unwrap();
    let out = bench.path("out");
    write(&raw, &Options::new(Format::Vhd), &out);
    bench.breaks("azure", "azure.size", &std::fs::read(out).unwrap());
}

/// A GPT's header at `at` with a change, sealed.
fn header(bytes: &[u8], at: usize, field: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = patched(bytes, at + field, with);
    bytes[at + 16..at + 20].fill(0);
    let sum = crc32(&bytes[at..at + 92]);
    patched(&bytes, at + 16, &sum.to_le_bytes())
}

#[test]
fn gpt_on_raw_disks() {
    let mut bench = Bench::new();
    let good = bench.good("firecracker");
    let last = good.len() - 512;
    let rule = |bench: &mut Bench, rule, bytes: &[u8]| bench.breaks("firecracker", rule, bytes);
    rule(&mut bench, "raw.sectors", &[good.clone(), vec![0; 7]].concat());
    rule(&mut bench, "gpt.primary", &patched(&good, 512 + 60, &[1]));
    rule(&mut bench, "gpt.primary", &patched(&good, 1024 + 70, &[1]));
    rule(&mut bench, "gpt.backup-at-end", &[good.clone(), vec![0; 1 << 20]].concat());
    rule(&mut bench, "gpt.backup-at-end", &patched(&good, last + 60, &[1]));
    rule(&mut bench, "gpt.copies-agree", &header(&good, last, 56, &[1]));
    let beyond = ((last / 512) as u64).to_le_bytes();
    rule(&mut bench, "gpt.last-usable", &header(&header(&good, 512, 48, &beyond), last, 48, &beyond));
    let mut bytes = good.clone();
    for (table, at) in [(1024, 512), (last - 32 * 512, last)] {
        bytes[table + 40..table + 48].copy_from_slice(&beyond);
        let sum = crc32(&bytes[table..table + 128 * 128]);
        bytes = header(&bytes, at, 88, &sum.to_le_bytes());
    }
    rule(&mut bench, "gpt.partitions", &bytes);
    bench.assert_all("gpt");
    bench.assert_all("raw");
}

#[test]
fn ebs() {
    let mut bench = Bench::new();
    bench.breaks("aws", "ebs.blocks", &[0; 512]);
    bench.breaks("aws", "ebs.size", &vec![0; 3 << 20]);
    bench.assert_all("ebs");
}

fn seal(mut bytes: Vec<u8>, at: usize, len: usize) -> Vec<u8> {
    bytes[at + 4..at + 8].fill(0);
    let sum = crc32c::crc32c(&bytes[at..at + len]);
    patched(&bytes, at + 4, &sum.to_le_bytes())
}

#[test]
fn hyperv() {
    let mut bench = Bench::new();
    let good = bench.good("hyperv");
    let rule = |bench: &mut Bench, rule, bytes: &[u8]| bench.breaks("hyperv", rule, bytes);
    let headers = |at: usize, with: &[u8]| {
        [64 << 10, 128 << 10]
            .iter()
            .fold(good.clone(), |bytes, place| seal(patched(&bytes, place + at, with), *place, 4096))
    };
    let regions = |at: usize, with: &[u8]| {
        [192 << 10, 256 << 10]
            .iter()
            .fold(good.clone(), |bytes, place| seal(patched(&bytes, place + at, with), *place, 64 << 10))
    };
    // Which region is which: the first four bytes of the block table's identifier.
    let (table, meta) = if good[(192 << 10) + 16] == 0x66 { (16, 48) } else { (48, 16) };
    let place = |entry: usize| u64::from_le_bytes(good[(192 << 10) + entry + 16..][..8].try_into().unwrap()) as usize;
    let (table_at, meta_at) = (place(table), place(meta));
    let item = |id: u8| {
        let entry = (0..5).map(|n| meta_at + 32 + n * 32).find(|entry| good[*entry] == id).unwrap();
        (entry, meta_at + le32(&good, entry + 16))
    };
    rule(&mut bench, "vhdx.identifier", &patched(&good, 0, b"V"));
    rule(&mut bench, "vhdx.headers", &patched(&good, (128 << 10) + 4, &[0xff, 0xff]));
    rule(&mut bench, "vhdx.version", &headers(66, &[2]));
    rule(&mut bench, "vhdx.log-empty", &headers(48, &[2]));
    rule(&mut bench, "vhdx.log-place", &headers(68, &[0, 0, 8, 0]));
    rule(&mut bench, "vhdx.regions", &patched(&good, (256 << 10) + 4, &[0xff, 0xff]));
    rule(&mut bench, "vhdx.aligned", &regions(table + 24, &[0, 0, 8]));
    rule(&mut bench, "vhdx.within", &patched(&good, table_at + 7, &[0x10]));
    rule(&mut bench, "vhdx.places", &patched(&good, table_at, &(6 | (table_at as u64)).to_le_bytes()));
    rule(&mut bench, "vhdx.metadata", &patched(&good, meta_at, b"M"));
    rule(&mut bench, "vhdx.items", &patched(&good, item(0xc7).0, b"x"));
    rule(&mut bench, "vhdx.no-parent", &patched(&good, item(0x37).1 + 4, &[2]));
    rule(&mut bench, "vhdx.block", &patched(&good, item(0x37).1, &[0, 0, 3, 0]));
    rule(&mut bench, "vhdx.sectors", &patched(&good, item(0x1d).1, &[0, 4]));
    rule(&mut bench, "vhdx.size", &patched(&good, item(0x24).1, &[1]));
    rule(&mut bench, "vhdx.entries", &patched(&good, table_at, &[4]));
    // 8 TiB in blocks of 1 MiB: more than the table has entries for.
    let large = patched(&good, item(0x24).1, &(8u64 << 40).to_le_bytes());
    rule(&mut bench, "vhdx.table", &patched(&large, item(0x37).1, &(1u32 << 20).to_le_bytes()));
    // Behind 4 GiB in blocks of 1 MiB stands the first bitmap.
    let large = patched(&good, item(0x24).1, &(5u64 << 30).to_le_bytes());
    let large = patched(&large, item(0x37).1, &(1u32 << 20).to_le_bytes());
    rule(&mut bench, "vhdx.bitmaps", &patched(&large, table_at + 4096 * 8, &[6]));
    bench.assert_all("vhdx");
}

#[test]
fn google() {
    let mut bench = Bench::new();
    let good = bench.good("google");
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(&good[..]).read_to_end(&mut tar).unwrap();
    let packed = |tar: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(tar).unwrap();
        gzip.finish().unwrap()
    };
    let summed = |at: usize, with: &[u8]| {
        let mut tar = patched(&tar, at, with);
        tar[148..156].fill(b' ');
        let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
        packed(&patched(&tar, 148, format!("{sum:06o}\0 ").as_bytes()))
    };
    let rule = |bench: &mut Bench, rule, bytes: &[u8]| bench.breaks("google", rule, bytes);
    rule(&mut bench, "gce.gzip", &patched(&good, 2, &[7]));
    rule(&mut bench, "gce.gzip", &patched(&good, good.len() - 8, &[1, 2, 3]));
    rule(&mut bench, "gce.gzip", &[good.clone(), packed(b"")].concat());
    rule(&mut bench, "gce.tar", &packed(&[tar.clone(), vec![1; 512]].concat()));
    rule(&mut bench, "gce.member", &summed(0, b"Disk"));
    let end = tar.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(512);
    let more = archive(b"ustar  \0", &[("x", b"")]);
    rule(&mut bench, "gce.member", &packed(&patched(&tar, end, &more[..512])));
    rule(&mut bench, "gce.old-gnu", &summed(257, b"ustar\x0000"));
    rule(&mut bench, "gce.tar-sum", &packed(&patched(&tar, 100, b"0000600")));
    rule(&mut bench, "gce.size", &packed(&archive(b"ustar  \0", &[("disk.raw", &vec![0; 1 << 20])])));
    rule(&mut bench, "gce.map", &summed(386 + 24, b"00000000001"));
    bench.assert_all("gce");
}

#[test]
fn amazons_import() {
    let mut bench = Bench::new();
    let good = bench.good("aws-import");
    let end = good.len();
    let rule = |bench: &mut Bench, rule, bytes: &[u8]| bench.breaks("aws-import", rule, bytes);
    // Header and footer alike.
    let both = |at: usize, with: &[u8]| patched(&patched(&good, at, with), end - 1024 + at, with);
    let text = String::from_utf8_lossy(&good[512..21 * 512]).trim_end_matches('\0').to_owned();
    let descriptor = |from: &str, to: &str| {
        assert!(text.contains(from));
        let mut bytes = good.clone();
        bytes[512..21 * 512].fill(0);
        patched(&bytes, 512, text.replace(from, to).as_bytes())
    };
    let directory = le32(&good, end - 1024 + 56) * 512;
    let table = le32(&good, directory) * 512;
    let used: Vec<usize> = (0..512).map(|n| le32(&good, table + n * 4)).filter(|at| *at > 0).collect();
    let grain = used[0] * 512;
    rule(&mut bench, "vmdk.magic", &patched(&good, 0, b"X"));
    rule(&mut bench, "vmdk.version", &both(4, &[1]));
    rule(&mut bench, "vmdk.flags", &both(8, &[0]));
    rule(&mut bench, "vmdk.newlines", &both(75, b"\n"));
    rule(&mut bench, "vmdk.deflate", &both(77, &[0]));
    rule(&mut bench, "vmdk.grain", &both(44, &[1]));
    rule(&mut bench, "vmdk.clean", &both(72, &[1]));
    rule(&mut bench, "vmdk.descriptor", &descriptor("version=1\n", "version=9\n"));
    rule(&mut bench, "vmdk.no-parent", &descriptor("parentCID=ffffffff", "parentCID=12345678"));
    rule(&mut bench, "vmdk.type", &descriptor("streamOptimized", "monolithicSparse"));
    rule(&mut bench, "vmdk.extent", &descriptor("RW 6144 SPARSE", "RW 6143 SPARSE"));
    rule(&mut bench, "vmdk.footer", &patched(&good, end - 1536 + 12, &[9]));
    rule(&mut bench, "vmdk.end-marker", &patched(&good, end - 3, &[9]));
    rule(&mut bench, "vmdk.directory", &patched(&good, directory, &[0xff; 4]));
    rule(&mut bench, "vmdk.markers", &patched(&good, directory - 512 + 12, &[1]));
    rule(&mut bench, "vmdk.grain-marker", &patched(&good, grain, &[1]));
    rule(&mut bench, "vmdk.grain-data", &patched(&good, grain + 14, &[0xff; 20]));
    // The next entry that is empty gets a grain of its own, said to be for that place, which is behind the disk's end.
    let mut beyond = patched(&good, table + 100 * 4, &good[table..table + 4]);
    beyond[table..table + 4].fill(0);
    rule(&mut bench, "vmdk.capacity", &patched(&beyond, grain, &(100u64 * 128).to_le_bytes()));
    // The descriptor is said to reach into the first grain.
    rule(&mut bench, "vmdk.places", &both(36, &[128]));
    bench.assert_all("vmdk");
}

struct Parts {
    ovf: String,
    vmdk: Vec<u8>,
}

fn parts(ova: &[u8]) -> Parts {
    let (mut at, mut found) = (0, Vec::new());
    while ova[at] != 0 {
        let size = usize::from_str_radix(std::str::from_utf8(&ova[at + 124..at + 135]).unwrap(), 8).unwrap();
        found.push(ova[at + 512..at + 512 + size].to_vec());
        at += 512 + size.next_multiple_of(512);
    }
    Parts { ovf: String::from_utf8(found[0].clone()).unwrap(), vmdk: found[2].clone() }
}

fn hex(algorithm: &'static ring::digest::Algorithm, bytes: &[u8]) -> String {
    let digest = ring::digest::digest(algorithm, bytes);
    digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn manifest(word: &str, members: &[(&str, &[u8])]) -> String {
    let algorithm = if word == "SHA1" { &ring::digest::SHA1_FOR_LEGACY_USE_ONLY } else { &ring::digest::SHA256 };
    let line = |(name, bytes): &(&str, &[u8])| format!("{word}({name})= {}\n", hex(algorithm, bytes));
    members.iter().map(line).collect()
}

fn archive(magic: &[u8], members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members {
        let mut header = vec![0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = b'0';
        header[257..257 + magic.len()].copy_from_slice(magic);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A whole appliance, its manifest right.
fn appliance(word: &str, name: &str, ovf: &str, vmdk: &[u8]) -> Vec<u8> {
    let described = [(name, ovf.as_bytes()), ("machine-disk1.vmdk", vmdk)];
    let manifest = manifest(word, &described);
    archive(b"ustar\x0000", &[described[0], ("machine.mf", manifest.as_bytes()), described[1]])
}

#[test]
fn appliances() {
    let mut bench = Bench::new();
    let good = bench.good("vmware");
    let Parts { ovf, vmdk } = parts(&good);
    let disk = ("machine-disk1.vmdk", &vmdk[..]);
    let description = ("machine.ovf", ovf.as_bytes());
    let right = manifest("SHA256", &[description, disk]);
    let text = ("machine.mf", right.as_bytes());
    let with = |from: &str, to: &str| {
        assert!(ovf.contains(from), "{from}");
        appliance("SHA256", "machine.ovf", &ovf.replace(from, to), &vmdk)
    };
    let rule = |bench: &mut Bench, rule, bytes: &[u8]| bench.breaks("vmware", rule, bytes);
    rule(&mut bench, "ova.tar", &patched(&good, 100, b"0000600"));
    rule(&mut bench, "ova.ustar", &archive(b"", &[description, text, disk]));
    rule(&mut bench, "ova.first", &archive(b"ustar\x0000", &[disk, text, description]));
    let short = manifest("SHA256", &[description]);
    rule(&mut bench, "ova.manifest", &archive(b"ustar\x0000", &[description, ("machine.mf", short.as_bytes()), disk]));
    rule(&mut bench, "ova.manifest", &archive(b"ustar\x0000", &[description, disk]));
    rule(&mut bench, "ova.digest-kind", &appliance("SHA1", "machine.ovf", &ovf, &vmdk));
    rule(&mut bench, "ova.digests", &patched(&good, 512 + ovf.find("hardware").unwrap(), b"H"));
    bench.assert_all("ova");
    rule(&mut bench, "ovf.xml", &with("</DiskSection>", "</Disk>"));
    rule(&mut bench, "ovf.files", &with("ovf:fileRef=\"file1\"", "ovf:fileRef=\"file2\""));
    rule(&mut bench, "ovf.sizes", &with("ovf:size=\"", "ovf:size=\"1"));
    rule(&mut bench, "ovf.one-disk", &with("</DiskSection>", "<Disk/></DiskSection>"));
    rule(&mut bench, "ovf.format", &with("vmdk.html#streamOptimized", "vmdk.html#sparse"));
    rule(&mut bench, "ovf.capacity", &with("ovf:capacity=\"", "ovf:capacity=\"1"));
    bench.assert_all("ovf");
}

#[test]
fn lumen() {
    let mut bench = Bench::new();
    let good = bench.good("lumen");
    let Parts { ovf, vmdk } = parts(&good);
    let with = |from: &str, to: &str| appliance("SHA1", "machine.ovf", &ovf.replace(from, to), &vmdk);
    let rule = |bench: &mut Bench, rule, bytes: &[u8]| bench.breaks("lumen", rule, bytes);
    rule(&mut bench, "lumen.name", &appliance("SHA1", "a-machine.ovf", &ovf, &vmdk));
    rule(&mut bench, "lumen.hardware", &with("vmx-13", "vmx-19"));
    rule(&mut bench, "lumen.devices", &with("<rasd:ResourceType>6<", "<rasd:ResourceType>5<"));
    rule(&mut bench, "ova.digest-kind", &appliance("SHA256", "machine.ovf", &ovf, &vmdk));
    bench.assert_all("lumen");
}

#[test]
fn qcow2() {
    let mut bench = Bench::new();
    let good = bench.good("openstack");
    let be = |at: usize| u64::from_be_bytes(good[at..at + 8].try_into().unwrap()) as usize;
    let (l1, counts) = (be(40), be(be(48)));
    let l2 = be(l1) & 0xff_ffff_ffff_fe00;
    let entries: Vec<usize> = (0..8192).map(|n| l2 + n * 8).filter(|at| be(*at) != 0).collect();
    let rule = |bench: &mut Bench, rule, bytes: &[u8]| bench.breaks("openstack", rule, bytes);
    rule(&mut bench, "qcow2.magic", &patched(&good, 7, &[4]));
    rule(&mut bench, "qcow2.no-backing", &patched(&good, 15, &[120]));
    rule(&mut bench, "qcow2.plain", &patched(&good, 35, &[2]));
    rule(&mut bench, "qcow2.no-snapshots", &patched(&good, 63, &[2]));
    rule(&mut bench, "qcow2.no-data-file", &patched(&good, 79, &[4]));
    rule(&mut bench, "qcow2.clean", &patched(&good, 79, &[2]));
    rule(&mut bench, "qcow2.features", &patched(&good, 79, &[32]));
    rule(&mut bench, "qcow2.compression", &patched(&good, 79, &[8]));
    rule(&mut bench, "qcow2.clusters", &patched(&good, 23, &[30]));
    rule(&mut bench, "qcow2.tables", &patched(&good, l1, &[0x80, 0, 0xff]));
    rule(&mut bench, "qcow2.l1", &patched(&good, 27, &[1]));
    rule(&mut bench, "qcow2.refcounts", &patched(&good, counts + 1, &[2]));
    // A leak: a cluster that nobody uses, counted.
    let leak = patched(&[good.clone(), vec![0; 65_536]].concat(), counts + good.len() / 65_536 * 2 + 1, &[1]);
    rule(&mut bench, "qcow2.refcounts", &leak);
    rule(&mut bench, "qcow2.copied", &patched(&good, entries[0], &[0]));
    // One cluster for two places, counted right and not said to be used once.
    let (first, second) = (entries[0], entries[1]);
    let (kept, freed) = (be(first) & 0xff_ffff_ffff_fe00, be(second) & 0xff_ffff_ffff_fe00);
    let mut twice = patched(&good, first, &(kept as u64).to_be_bytes());
    twice = patched(&twice, second, &(kept as u64).to_be_bytes());
    twice = patched(&twice, counts + kept / 65_536 * 2, &[0, 2]);
    rule(&mut bench, "qcow2.once", &patched(&twice, counts + freed / 65_536 * 2, &[0, 0]));
    bench.assert_all("qcow2");
    bench.breaks("ibm", "cloud.size", &good);
}

#[test]
fn virtualbox() {
    let mut bench = Bench::new();
    let good = bench.good("virtualbox");
    let rule = |bench: &mut Bench, rule, bytes: &[u8]| bench.breaks("virtualbox", rule, bytes);
    rule(&mut bench, "vdi.signature", &patched(&good, 0x40, &[0]));
    rule(&mut bench, "vdi.version", &patched(&good, 0x44, &[2]));
    rule(&mut bench, "vdi.kind", &patched(&good, 0x4c, &[4]));
    rule(&mut bench, "vdi.sector", &patched(&good, 0x168, &[0, 16]));
    rule(&mut bench, "vdi.places", &patched(&good, 0x154, &[0, 1]));
    rule(&mut bench, "vdi.block", &patched(&good, 0x178, &[0, 0, 0x18]));
    rule(&mut bench, "vdi.size", &patched(&good, 0x170, &[1]));
    rule(&mut bench, "vdi.id", &patched(&good, 0x188, &[0; 16]));
    rule(&mut bench, "vdi.no-parent", &patched(&good, 0x1a8, &[1]));
    rule(&mut bench, "vdi.map", &patched(&good, 512, &good[516..520]));
    rule(&mut bench, "vdi.length", &[good.clone(), vec![0; 512]].concat());
    bench.assert_all("vdi");
}
