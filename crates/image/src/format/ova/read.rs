//! The reader: finds the description, takes the one disk that it names, and opens it where it stands in the file.

use std::sync::Arc;

use quick_xml::events::{BytesStart, Event};

use super::ManifestDigest;
use crate::bytes::read_vec;
use crate::format::gce::{parse_number, sum};
use crate::{Budget, Bytes, Disk, Error, Format, Result};

const RECORD: u64 = 512;
const MEMBERS_MAX: usize = 64;
/// Bytes of a description.
const OVF_MAX: u64 = 1 << 20;
/// Bytes of a manifest.
const MANIFEST_MAX: u64 = 64 << 10;

struct Member {
    name: String,
    at: u64,
    len: u64,
}

/// A part of a file, as a file.
struct Slice {
    bytes: Arc<dyn Bytes>,
    at: u64,
    len: u64,
}

impl Bytes for Slice {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(Error::corrupt(format!("{offset} is beyond the member's end at {}", self.len)));
        }
        self.bytes.read_at(self.at + offset, buffer)
    }
    fn hole_at(&self, offset: u64) -> Result<(bool, u64)> {
        let (hole, len) = self.bytes.hole_at(self.at + offset)?;
        Ok((hole, len.min(self.len.saturating_sub(offset))))
    }
}

pub(in crate::format) fn open(bytes: Arc<dyn Bytes>, budget: &Budget) -> Result<Box<dyn Disk>> {
    let members = members(bytes.as_ref())?;
    let description = only(&members, ".ovf")?
        .ok_or_else(|| Error::corrupt("the archive holds no description (.ovf): it is no appliance"))?;
    let text = text(bytes.as_ref(), description, OVF_MAX)?;
    let name = disk_name(&text)?;
    let disk = members.iter().find(|member| member.name == name).ok_or_else(|| {
        Error::Refused(format!(
            "the appliance's description names '{}', which is not in the archive; nothing outside is opened",
            name.escape_debug()
        ))
    })?;
    if let Some(manifest) = only(&members, ".mf")? {
        let lines = self::text(bytes.as_ref(), manifest, MANIFEST_MAX)?;
        check_manifest(bytes.as_ref(), &lines, &[description, disk])?;
    }
    let slice: Arc<dyn Bytes> = Arc::new(Slice { bytes, at: disk.at, len: disk.len });
    match crate::detect(slice.as_ref())? {
        Format::Vmdk => crate::format::vmdk::open(slice, budget),
        other => Err(Error::Unsupported {
            what: format!("an appliance whose disk is {other}"),
            next_step: "export it with a streamOptimized VMDK".to_owned(),
        }),
    }
}

fn members(bytes: &dyn Bytes) -> Result<Vec<Member>> {
    let (mut members, mut at) = (Vec::<Member>::new(), 0u64);
    while at < bytes.len() {
        let header = read_vec(bytes, at, 512)?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if sum(&header) != parse_number(&header[148..156])? || header[257..262] != *b"ustar" {
            return Err(Error::corrupt(format!("the header at {at} of the archive is none")));
        }
        if !matches!(header[156], 0 | b'0') {
            return Err(Error::Refused(format!(
                "the appliance holds a member of type '{}'; only ordinary files are read",
                char::from(header[156]).escape_default()
            )));
        }
        let field = &header[..100];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        let name = String::from_utf8_lossy(&field[..end]).into_owned();
        let prefixed = header[262] == 0 && header[345] != 0;
        if name.is_empty() || prefixed || name.contains(['/', '\\']) || members.iter().any(|member| member.name == name)
        {
            return Err(Error::Refused(format!("the appliance holds '{}', or that twice", name.escape_debug())));
        }
        let (from, len) = (at + RECORD, parse_number(&header[124..136])?);
        let stop = from.checked_add(len).filter(|stop| *stop <= bytes.len());
        let stop = stop.ok_or_else(|| Error::corrupt(format!("'{}' ends behind the archive", name.escape_debug())))?;
        if members.len() == MEMBERS_MAX {
            return Err(Error::Refused(format!("an appliance of over {MEMBERS_MAX} files")));
        }
        members.push(Member { name, at: from, len });
        at = stop.next_multiple_of(RECORD);
    }
    Ok(members)
}

/// The one member whose name ends so.
fn only<'a>(members: &'a [Member], end: &str) -> Result<Option<&'a Member>> {
    let mut all = members.iter().filter(|member| member.name.ends_with(end));
    let first = all.next();
    if all.next().is_some() {
        return Err(Error::Refused(format!("the appliance holds several files *{end}")));
    }
    Ok(first)
}

fn text(bytes: &dyn Bytes, member: &Member, most: u64) -> Result<String> {
    if member.len > most {
        return Err(Error::Refused(format!("'{}' has {} bytes; read are at most {most}", member.name, member.len)));
    }
    let raw = read_vec(bytes, member.at, usize::try_from(member.len).unwrap_or(0))?;
    String::from_utf8(raw).map_err(|_| Error::corrupt(format!("'{}' is no UTF-8", member.name)))
}

/// Name of the file of the only disk.
fn disk_name(text: &str) -> Result<String> {
    let mut reader = quick_xml::Reader::from_str(text);
    let (mut files, mut disks) = (Vec::new(), Vec::new());
    loop {
        let event = reader.read_event();
        match event.map_err(|error| Error::corrupt(format!("the appliance's description is no XML: {error}")))? {
            Event::Start(element) | Event::Empty(element) => match element.local_name().into_inner() {
                "File" => {
                    let of = (attribute(&element, "id")?, attribute(&element, "href")?);
                    if attribute(&element, "compression")?.is_some_and(|how| how != "identity") {
                        return Err(unsupported("a compressed file"));
                    }
                    if attribute(&element, "chunkSize")?.is_some() {
                        return Err(unsupported("a file in chunks"));
                    }
                    files.push(of);
                }
                "Disk" => {
                    if attribute(&element, "parentRef")?.is_some() {
                        return Err(unsupported("a disk with a parent"));
                    }
                    disks.extend(attribute(&element, "fileRef")?);
                }
                _ => {}
            },
            Event::DocType(_) => {
                return Err(Error::Refused("the appliance's description defines a document type: entities".to_owned()));
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let [disk] = disks.as_slice() else {
        return Err(unsupported(&format!("a machine of {} disks with a file", disks.len())));
    };
    let mut named = files.into_iter().filter(|(id, _)| id.as_ref() == Some(disk));
    match (named.next(), named.next()) {
        (Some((_, Some(href))), None) => Ok(href),
        _ => Err(Error::corrupt("the appliance's description names no file for its disk, or several")),
    }
}

fn unsupported(what: &str) -> Error {
    Error::Unsupported {
        what: format!("an appliance with {what}"),
        next_step: "export it with one disk, as OVA with a streamOptimized VMDK".to_owned(),
    }
}

/// An attribute, whatever namespace its prefix stands for.
fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    for attribute in element.attributes() {
        let attribute =
            attribute.map_err(|error| Error::corrupt(format!("the appliance's description is no XML: {error}")))?;
        if attribute.key.local_name().into_inner() == name {
            if attribute.value.contains('&') {
                return Err(Error::Refused("an entity in a name of the appliance's description".to_owned()));
            }
            return Ok(Some(attribute.value.into_owned()));
        }
    }
    Ok(None)
}

/// Each of `wanted` must stand in the manifest, with its digest.
fn check_manifest(bytes: &dyn Bytes, manifest: &str, wanted: &[&Member]) -> Result<()> {
    let mut lines = Vec::new();
    for line in manifest.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parsed = line.split_once('(').and_then(|(word, rest)| {
            let (name, digest) = rest.rsplit_once(')')?;
            Some((word.trim(), name, digest.trim().strip_prefix('=')?.trim().to_ascii_lowercase()))
        });
        lines.push(parsed.ok_or_else(|| Error::corrupt("a line of the appliance's manifest is malformed"))?);
    }
    for member in wanted {
        let (word, _, expected) = lines
            .iter()
            .find(|line| line.1 == member.name)
            .ok_or_else(|| Error::Refused(format!("the manifest does not name '{}'", member.name.escape_debug())))?;
        let how = match *word {
            "SHA256" => ManifestDigest::Sha256,
            "SHA1" => ManifestDigest::Sha1,
            other => return Err(unsupported(&format!("a manifest of {}", other.escape_debug()))),
        };
        if super::digest(bytes, member.at, member.len, how)? != *expected {
            return Err(Error::corrupt(format!(
                "'{}' does not have the digest that the manifest says: it was changed or damaged",
                member.name.escape_debug()
            )));
        }
    }
    Ok(())
}
