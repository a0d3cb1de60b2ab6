//! Appliances: the description first, digests right, the disk the same to QEMU and to us; attacks; mutants.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, held to time limits")]
mod support;

use std::process::Command;
use std::sync::Arc;

use skein_image::format::{Appliance, DiskFacts, Firmware, ManifestDigest, ovf, write_appliance};
use skein_image::{Budget, Format, Out, convert};
use support::{MIB, TIB, assert_is, assert_refused, cases, have, mutants, options, patched, read, run, text, usage};

fn appliance(disk: Vec<u8>, appliance: &Appliance) -> Vec<u8> {
    let (mut stream, spool) = (Vec::new(), tempfile::tempfile().unwrap());
    let source = skein_image::format::open(Arc::new(disk), Format::Raw, &Budget::default()).unwrap();
    let mut out = Out::stream(&mut stream);
    write_appliance(source.as_ref(), &mut out, &options(Format::Ova), appliance, &spool, &()).unwrap();
    stream
}

fn small() -> Vec<u8> {
    let mut disk = vec![0; 2 << 20];
    disk[..70_000].copy_from_slice(&support::Dice(5).mixed(70_000));
    disk
}

#[test]
fn tar_lists_the_description_first_and_the_disk_is_the_same() {
    let dir = support::Dir::new();
    for (name, size, data) in cases() {
        let (raw, ova) = (dir.raw(name, size, &data), dir.path("ours.ova"));
        let report = support::to_file(&raw, &options(Format::Ova), &ova).unwrap();
        assert_eq!(report.virtual_bytes, size, "{name}");
        assert_is(name, support::open(&ova, Format::Ova).unwrap().as_ref(), &raw);
        if have("tar") {
            let list = run("tar", &["-tf", text(&ova)]);
            assert_eq!(list.lines().collect::<Vec<_>>(), ["machine.ovf", "machine.mf", "machine-disk1.vmdk"]);
            run("tar", &["-xf", text(&ova), "-C", text(&dir.path(""))]);
        }
        if have("tar") && have("qemu-img") {
            let vmdk = dir.path("machine-disk1.vmdk");
            run("qemu-img", &["compare", "-f", "raw", "-F", "vmdk", text(&raw), text(&vmdk)]);
            run("qemu-img", &["check", "-f", "vmdk", text(&vmdk)]);
        }
    }
}

#[test]
fn sha256sum_and_sha1sum_agree_with_the_manifest() {
    if !have("tar") || !have("sha256sum") {
        return;
    }
    for (how, word, program) in
        [(ManifestDigest::Sha256, "SHA256", "sha256sum"), (ManifestDigest::Sha1, "SHA1", "sha1sum")]
    {
        let dir = support::Dir::new();
        let bytes = appliance(small(), &Appliance { manifest: how, name: "a_b".to_owned(), ..Appliance::default() });
        assert!(support::read_through(bytes.clone(), Format::Ova).is_ok());
        std::fs::write(dir.path("a.ova"), bytes).unwrap();
        run("tar", &["-xf", text(&dir.path("a.ova")), "-C", text(&dir.path(""))]);
        let manifest = String::from_utf8(read(&dir.path("a_b.mf"))).unwrap();
        for file in ["a_b.ovf", "a_b-disk1.vmdk"] {
            let output = Command::new(program).arg(dir.path(file)).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            let line = format!("{word}({file})= {}", said.split(' ').next().unwrap());
            assert!(manifest.lines().any(|one| one == line), "{line} is not in {manifest}");
        }
    }
}

#[test]
fn the_description_says_what_was_asked_for() {
    let machine = Appliance { cpus: 3, memory_mib: 777, firmware: Firmware::Efi, ..Appliance::default() };
    let facts = DiskFacts { file: "d.vmdk".to_owned(), file_bytes: 11, virtual_bytes: 2 << 20, data_bytes: 22 };
    let text = ovf(&machine, &facts).unwrap();
    for part in [
        "ovf:href=\"d.vmdk\" ovf:id=\"file1\" ovf:size=\"11\"",
        "ovf:capacity=\"2097152\" ovf:capacityAllocationUnits=\"byte\"",
        "<rasd:VirtualQuantity>3</rasd:VirtualQuantity>",
        "<rasd:VirtualQuantity>777</rasd:VirtualQuantity>",
        "vmw:key=\"firmware\" vmw:value=\"efi\"",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(ovf(&Appliance::default(), &facts).unwrap().contains("vmw:value=\"bios\""));
    for name in ["", "a b", "../a", "a.b", "\"><x"] {
        let error = ovf(&Appliance { name: name.to_owned(), ..Appliance::default() }, &facts).unwrap_err().to_string();
        assert!(error.contains("no name"), "{name}: {error}");
    }
    assert!(ovf(&Appliance { cpus: 0, ..Appliance::default() }, &facts).is_err());
}

#[test]
fn it_is_always_the_same_and_holes_take_no_room() {
    assert!(appliance(small(), &Appliance::default()) == appliance(small(), &Appliance::default()));
    let dir = support::Dir::new();
    let raw = dir.raw("raw", 2 * TIB, &[(TIB, vec![1; 4096])]);
    let report = support::to_file(&raw, &options(Format::Ova), &dir.path("a.ova")).unwrap();
    assert!(report.bytes < MIB);
    let source = support::open(&raw, Format::Raw).unwrap();
    let mut stream = Vec::new();
    convert(source.as_ref(), &mut Out::stream(&mut stream), &options(Format::Ova), &()).unwrap();
    assert!(stream == read(&dir.path("a.ova")), "a stream gets the same bytes as a file");
}

#[test]
fn two_tebibytes_of_holes_take_no_time() {
    usage::assert_cpu_below("two_tebibytes_of_holes_take_no_time", usage::HOLES_CPU_MAX, || {
        let dir = support::Dir::new();
        let raw = dir.raw("raw", 2 * TIB, &[(TIB, vec![1; 4096])]);
        support::to_file(&raw, &options(Format::Ova), &dir.path("a.ova")).unwrap();
    });
}

/// A tar of these members.
fn tar(members: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, content) in members {
        let mut header = vec![0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = *kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
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

#[test]
fn attacks_are_refused() {
    let refused = |what: &str, bytes: Vec<u8>, word: &str| assert_refused(what, bytes, Format::Ova, word);
    let mut vmdk = Vec::new();
    let source = skein_image::format::open(Arc::new(small()), Format::Raw, &Budget::default()).unwrap();
    convert(source.as_ref(), &mut Out::stream(&mut vmdk), &options(Format::Vmdk), &()).unwrap();
    let facts = DiskFacts { file: "d.vmdk".to_owned(), file_bytes: 1, virtual_bytes: 1, data_bytes: 1 };
    let text = ovf(&Appliance::default(), &facts).unwrap();
    let with = |text: &str| tar(&[("a.ovf", b'0', text.as_bytes()), ("d.vmdk", b'0', &vmdk)]);
    assert!(support::read_through(with(&text), Format::Ova).is_ok(), "without a manifest");

    for path in ["/etc/passwd", "../x.vmdk", "file:///etc/passwd", "http://169.254.169.254/", "e.vmdk"] {
        refused(path, with(&text.replace("d.vmdk", path)), "not in the archive");
    }
    let bomb = "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]>";
    refused("a document type", with(&text.replace("<Envelope", &format!("{bomb}<Envelope"))), "document type");
    refused("an entity in a name", with(&text.replace("\"d.vmdk\"", "\"&b;\"")), "entity");
    refused("two disks", with(&text.replace("</DiskSection>", "<Disk ovf:fileRef=\"x\"/></DiskSection>")), "2 disks");
    refused("a parent", with(&text.replace("ovf:diskId", "ovf:parentRef=\"x\" ovf:diskId")), "parent");
    refused("compression", with(&text.replace("ovf:size", "ovf:compression=\"gzip\" ovf:size")), "compressed");
    refused("no XML", with("<Envelope><File"), "no XML");
    refused("a giant description", with(&(text.clone() + &" ".repeat(1 << 20))), "read are at most");
    refused(
        "a flat disk",
        tar(&[("a.ovf", b'0', text.as_bytes()), ("d.vmdk", b'0', b"# Disk DescriptorFile\n")]),
        "none of them is opened",
    );
    refused(
        "a disk of another format",
        tar(&[("a.ovf", b'0', text.as_bytes()), ("d.vmdk", b'0', b"QFI\xfb")]),
        "whose disk is qcow2",
    );
    for kind in [b'1', b'2', b'5', b'L', b'x'] {
        refused("a link", tar(&[("a.ovf", b'0', text.as_bytes()), ("d.vmdk", kind, &vmdk)]), "of type");
    }
    refused("a path", tar(&[("../a.ovf", b'0', text.as_bytes())]), "holds");
    refused("a name twice", tar(&[("a", b'0', b""), ("a", b'0', b"")]), "twice");
    refused("no description", tar(&[("d.vmdk", b'0', &vmdk)]), "no description");
    refused("two descriptions", tar(&[("a.ovf", b'0', b""), ("b.ovf", b'0', b"")]), "several files");
    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    refused(
        "many members",
        tar(&many.iter().map(|name| (name.as_str(), b'0', &b""[..])).collect::<Vec<_>>()),
        "over 64",
    );
    refused("a cut archive", with(&text)[..40_000].to_vec(), "behind the archive");
}

#[test]
fn a_changed_disk_or_description_is_noticed() {
    let good = appliance(small(), &Appliance::default());
    assert_refused("the disk", patched(&good, good.len() - 4000, &[0xaa; 8]), Format::Ova, "digest");
    let at = good.windows(12).position(|part| part == b"network1\">\n ").unwrap();
    assert_refused("the description", patched(&good, at, b"networkX"), Format::Ova, "digest");
    let line = good.windows(7).position(|part| part == b"SHA256(").unwrap();
    assert_refused("another digest", patched(&good, line, b"SHA999"), Format::Ova, "SHA999");
    assert_refused("a manifest without the description", patched(&good, line + 7, b"x"), Format::Ova, "does not name");
    assert_refused("a manifest that is none", patched(&good, line + 6, b" "), Format::Ova, "malformed");
}

#[test]
fn mutants_never_panic_or_hang() {
    let good = || {
        let good = appliance(small(), &Appliance::default());
        let mf = good.windows(7).position(|part| part == b"SHA256(").unwrap();
        vec![(good, vec![0..512, 512..mf, mf - 512..mf + 1200])]
    };
    mutants::try_all("mutants_never_panic_or_hang", mutants::PEAK_BYTES_MAX, good, |bytes| {
        support::read_through(bytes, Format::Ova).map(|_| ())
    });
}
