//! Appliances: a tar of a description (OVF), a manifest of digests, and the disk.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use quick_xml::events::{BytesStart, Event};
use ring::digest;

use crate::input::Input;
use crate::tar::{self, RECORD};
use crate::{Findings, GIB, vmdk};

/// Members at most.
const MEMBERS_MAX: usize = 64;
/// Bytes of a description or manifest at most.
const TEXT_MAX: u64 = 4 << 20;

/// What one receiver of appliances asks for.
pub(crate) struct Receiver {
    digest: &'static str,
    size_max: u64,
    lumen: bool,
}

pub(crate) const VMWARE: Receiver = Receiver { digest: "SHA256", size_max: u64::MAX, lumen: false };
pub(crate) const LUMEN: Receiver = Receiver { digest: "SHA1", size_max: 1024 * GIB - 1, lumen: true };

struct Member {
    name: String,
    at: u64,
    len: u64,
}

impl Member {
    fn is(&self, ending: &str) -> bool {
        self.name.ends_with(ending)
    }
}

pub(crate) fn check(input: &Input<'_>, receiver: &Receiver, found: &mut Findings) {
    let listed = members(input, found);
    let Some(members) = found.readable("ova.tar", listed) else { return };
    let first = members.first().filter(|first| first.is(".ovf"));
    found.expect("ova.first", first.is_some(), || "the first member is not the description".to_owned());
    let Some(description) = members.iter().find(|member| member.is(".ovf")) else { return };
    if receiver.lumen {
        let stem = description.name.trim_end_matches(".ovf");
        found.expect("lumen.name", !stem.contains(['.', '-']), || format!("'{}'", description.name));
    }
    manifest(input, &members, receiver, found);
    let text = text_of(input, description).and_then(|text| ovf(&text));
    let Some(machine) = found.readable("ovf.xml", text) else { return };
    judge(input, &machine, &members, receiver, found);
}

fn members(input: &Input<'_>, found: &mut Findings) -> Result<Vec<Member>> {
    let (mut members, mut at) = (Vec::new(), 0);
    while let Some(header) = tar::header(&input.at(at, RECORD as u64)?)? {
        found.expect("ova.ustar", header.magic[..5] == *b"ustar" && matches!(header.kind, b'0' | 0), || {
            format!("'{}' has type '{}'", header.name, char::from(header.kind))
        });
        found.expect("ova.tar", header.sum_is_right, || format!("the checksum of '{}' is wrong", header.name));
        at += RECORD as u64;
        members.push(Member { name: header.name, at, len: header.size });
        at = at.saturating_add(header.size.next_multiple_of(RECORD as u64));
        if members.len() > MEMBERS_MAX {
            bail!("over {MEMBERS_MAX} members")
        }
    }
    Ok(members)
}

fn text_of(input: &Input<'_>, member: &Member) -> Result<String> {
    if member.len > TEXT_MAX {
        bail!("{} has {} bytes", member.name, member.len)
    }
    String::from_utf8(input.at(member.at, member.len)?).context("it is no UTF-8")
}

/// Every member but the manifest itself has its digest there.
fn manifest(input: &Input<'_>, members: &[Member], receiver: &Receiver, found: &mut Findings) {
    let Some(manifest) = members.iter().find(|member| member.is(".mf")) else {
        return found.broken("ova.manifest", "there is no manifest");
    };
    let Some(text) = found.readable("ova.manifest", text_of(input, manifest)) else { return };
    let mut said = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let parts = line.split_once('(').and_then(|(word, rest)| Some((word, rest.rsplit_once(")= ")?)));
        let Some((word, (name, hex))) = parts else {
            return found.broken("ova.manifest", format!("the line '{line}'"));
        };
        found.expect("ova.digest-kind", word == receiver.digest, || format!("{word}, {} is taken", receiver.digest));
        said.insert(name.to_owned(), (word.to_owned(), hex.trim().to_owned()));
    }
    for member in members.iter().filter(|member| !std::ptr::eq(*member, manifest)) {
        let Some((word, hex)) = said.get(&member.name) else {
            found.broken("ova.manifest", format!("'{}' is not in it", member.name));
            continue;
        };
        let Some(own) = found.readable("ova.digests", digest_of(input, member, word)) else { continue };
        found.expect("ova.digests", own.eq_ignore_ascii_case(hex), || format!("of '{}'", member.name));
    }
}

fn digest_of(input: &Input<'_>, member: &Member, word: &str) -> Result<String> {
    let algorithm = match word {
        "SHA256" => &digest::SHA256,
        "SHA1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        other => bail!("the digest {other} is not known"),
    };
    let (mut context, mut done) = (digest::Context::new(algorithm), 0);
    while done < member.len {
        let part = (member.len - done).min(1 << 20);
        context.update(&input.at(member.at + done, part)?);
        done += part;
    }
    Ok(context.finish().as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
}

/// What is read of a description: attributes by element, and numbers of hardware items.
#[derive(Default)]
struct Machine {
    files: Vec<BTreeMap<String, String>>,
    disks: Vec<BTreeMap<String, String>>,
    system_type: String,
    resources: Vec<String>,
}

fn ovf(text: &str) -> Result<Machine> {
    let (mut reader, mut machine, mut inside) = (quick_xml::Reader::from_str(text), Machine::default(), String::new());
    loop {
        match reader.read_event()? {
            Event::Start(element) | Event::Empty(element) => {
                inside = local_name(&element);
                match inside.as_str() {
                    "File" => machine.files.push(attributes(&element)?),
                    "Disk" => machine.disks.push(attributes(&element)?),
                    _ => {}
                }
            }
            Event::Text(text) => {
                let text = text.trim().to_owned();
                match inside.as_str() {
                    "VirtualSystemType" if !text.is_empty() => machine.system_type = text,
                    "ResourceType" if !text.is_empty() => machine.resources.push(text),
                    _ => {}
                }
            }
            Event::Eof => return Ok(machine),
            _ => {}
        }
    }
}

fn local_name(element: &BytesStart<'_>) -> String {
    element.local_name().as_ref().to_owned()
}

fn attributes(element: &BytesStart<'_>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for attribute in element.attributes() {
        let attribute = attribute?;
        let name = attribute.key.local_name().as_ref().to_owned();
        all.insert(name, attribute.value.clone().into_owned());
    }
    Ok(all)
}

fn judge(input: &Input<'_>, machine: &Machine, members: &[Member], receiver: &Receiver, found: &mut Findings) {
    for file in &machine.files {
        let href = file.get("href").map_or("", String::as_str);
        let Some(member) = members.iter().find(|member| member.name == href) else {
            found.broken("ovf.files", format!("'{href}' is not in the archive"));
            continue;
        };
        let said = file.get("size").and_then(|size| size.parse::<u64>().ok());
        found.expect("ovf.sizes", said == Some(member.len), || format!("{said:?} for the {} of '{href}'", member.len));
    }
    let [disk] = &machine.disks[..] else {
        return found.broken("ovf.one-disk", format!("{} disks", machine.disks.len()));
    };
    let format = disk.get("format").map_or("", String::as_str);
    found.expect("ovf.format", format.ends_with("vmdk.html#streamOptimized"), || format!("'{format}'"));
    if receiver.lumen {
        hardware(machine, found);
    }
    let file = machine.files.iter().find(|file| file.get("id") == disk.get("fileRef"));
    let href = file.and_then(|file| file.get("href"));
    let Some(member) = href.and_then(|href| members.iter().find(|member| member.name == *href)) else {
        return found.broken("ovf.files", "the disk's file is not in the archive");
    };
    let Some(bytes) = vmdk::within(input, member.at, member.len, found) else { return };
    let said = capacity(disk);
    found.expect("ovf.capacity", said == Some(bytes), || format!("{said:?}, the disk has {bytes} bytes"));
    found.expect("cloud.size", bytes <= receiver.size_max, || format!("{bytes} bytes, at most {}", receiver.size_max));
}

/// In bytes: the number, and a unit such as `byte * 2^30`.
fn capacity(disk: &BTreeMap<String, String>) -> Option<u64> {
    let number: u64 = disk.get("capacity")?.parse().ok()?;
    let unit = disk.get("capacityAllocationUnits").map_or("byte", String::as_str);
    let power = match unit.split_once('^') {
        Some((front, power)) if front.trim() == "byte * 2" => power.trim().parse().ok()?,
        None if unit.trim() == "byte" => 0,
        _ => return None,
    };
    number.checked_mul(1u64.checked_shl(power)?)
}

/// SCSI, one controller, one network adapter, hardware 11 to 13.
fn hardware(machine: &Machine, found: &mut Findings) {
    let version = machine.system_type.strip_prefix("vmx-").and_then(|version| version.parse::<u32>().ok());
    found.expect("lumen.hardware", version.is_some_and(|version| (11..=13).contains(&version)), || {
        format!("'{}'", machine.system_type)
    });
    let count = |kind: &str| machine.resources.iter().filter(|one| *one == kind).count();
    // 5 is IDE, 6 SCSI, 10 a network adapter (CIM_ResourceAllocationSettingData.ResourceType).
    let (ide, scsi, network) = (count("5"), count("6"), count("10"));
    found.expect("lumen.devices", ide == 0 && scsi == 1 && network == 1, || {
        format!("{ide} IDE and {scsi} SCSI controllers, {network} network adapters")
    });
}
