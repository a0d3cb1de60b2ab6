//! The descriptor: a text of comments, `key=value`, and lines of extents.

use crate::{Error, Result};

/// A descriptor's bytes, at most. Real ones have some hundred.
pub(super) const BYTES_MAX: u64 = 64 << 10;
/// A parent's content id that says: none.
const NO_PARENT: &str = "ffffffff";

/// What an extent is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtentKind {
    Sparse,
    Flat,
    Zero,
}

/// A line of an extent. Its file's name is checked and dropped: nothing can open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExtentLine {
    pub(super) kind: ExtentKind,
    pub(super) sectors: u64,
    /// Sectors into its file.
    pub(super) offset: u64,
}

/// A descriptor in which every line was understood.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) create_type: String,
    pub(super) extents: Vec<ExtentLine>,
}

/// Strict: a line that is not understood could be one that another reader follows.
pub(super) fn parse(text: &[u8]) -> Result<Descriptor> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = String::from_utf8_lossy(&text[..end]);
    if text.lines().next().map(str::trim) != Some("# Disk DescriptorFile") {
        return Err(Error::corrupt("the VMDK's descriptor does not begin with '# Disk DescriptorFile'"));
    }
    let (mut create_type, mut parent, mut extents) = (None, None, Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(extent) = extent(line)? {
            extents.push(extent);
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| not_understood(line))?;
        let (key, value) = (key.trim(), value.trim().trim_matches('"'));
        match key {
            "version" | "CID" | "isNativeSnapshot" | "encoding" => {}
            "parentCID" if parent.is_none() => parent = Some(value.to_ascii_lowercase()),
            "createType" if create_type.is_none() => create_type = Some(value.to_owned()),
            _ if key.starts_with("ddb.") => {}
            _ => return Err(not_understood(line)),
        }
    }
    if parent.as_deref().is_some_and(|parent| parent != NO_PARENT) {
        return Err(Error::Refused(
            "the VMDK's descriptor names a parent disk, which is not opened: consolidate the snapshots first"
                .to_owned(),
        ));
    }
    let create_type = create_type.ok_or_else(|| Error::corrupt("the VMDK's descriptor has no createType"))?;
    Ok(Descriptor { create_type, extents })
}

fn not_understood(line: &str) -> Error {
    let shown: String = line.chars().take(80).collect();
    Error::Refused(format!("a line of the VMDK's descriptor is not understood: '{}'", shown.escape_debug()))
}

/// `RW 4192256 SPARSE "name.vmdk"`, or `RW 8192 FLAT "name" 0`.
fn extent(line: &str) -> Result<Option<ExtentLine>> {
    let mut words = line.splitn(4, ' ');
    let access = words.next().unwrap_or_default();
    if !matches!(access, "RW" | "RDONLY" | "NOACCESS") {
        return Ok(None);
    }
    let sectors: u64 = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| not_understood(line))?;
    let kind = match words.next() {
        Some("SPARSE") => ExtentKind::Sparse,
        Some("FLAT" | "VMFS") => ExtentKind::Flat,
        Some("ZERO") => ExtentKind::Zero,
        _ => return Err(not_understood(line)),
    };
    if access == "NOACCESS" {
        return Err(Error::Refused("the VMDK's descriptor has an extent without access".to_owned()));
    }
    let rest = words.next().unwrap_or_default().trim();
    let (name, offset) = match rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        Some((name, offset)) => (name, offset.trim()),
        None if kind == ExtentKind::Zero && rest.is_empty() => ("", ""),
        None => return Err(not_understood(line)),
    };
    if name.contains(['/', '\\', '\0']) {
        return Err(Error::Refused(format!(
            "the VMDK's descriptor names a file by its path ('{}'); nothing an image names is opened",
            name.escape_debug()
        )));
    }
    let offset = if offset.is_empty() { 0 } else { offset.parse().map_err(|_| not_understood(line))? };
    Ok(Some(ExtentLine { kind, sectors, offset }))
}
