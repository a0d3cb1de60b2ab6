//! What a file is, by its bytes; its name says nothing.

use crate::{Bytes, Error, Result};

/// A format of disk images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// `VMware`'s sparse extents: monolithicSparse, streamOptimized.
    Vmdk,
    /// Microsoft's first format (Azure, Xen): fixed or dynamic.
    Vhd,
    /// Microsoft's second (Hyper-V).
    Vhdx,
    /// `VirtualBox`'s.
    Vdi,
    /// Google's: `disk.raw` in a sparse tar, gzipped.
    #[serde(rename = "gce")]
    GceTar,
    /// A virtual appliance: a tar of OVF, manifest and VMDK.
    Ova,
    /// No disk: the root file system as a container image (OCI image layout in a tar). Written, not read.
    Oci,
}

impl Format {
    /// Every one that is a disk.
    pub const ALL: [Self; 8] =
        [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vhd, Self::Vhdx, Self::Vdi, Self::GceTar, Self::Ova];

    /// Its word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::GceTar => "gce",
            Self::Ova => "ova",
            Self::Oci => "oci",
        }
    }
}

impl std::str::FromStr for Format {
    type Err = Error;
    fn from_str(word: &str) -> Result<Self> {
        let alias = match word {
            "vpc" => "vhd",
            "img" | "dd" => "raw",
            "oci" => return Ok(Self::Oci),
            other => other,
        };
        Self::ALL.into_iter().find(|format| format.word() == alias).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().chain(&[Self::Oci]).map(|format| format.word()).collect();
            Error::Usage(format!("there is no format '{word}' (there are: {})", known.join(", ")))
        })
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// Bytes of the beginning and of the end that signatures stand in.
const LOOKED_AT: usize = 1024;

/// The format, by signatures only. What bears none is raw. A disk that a guest wrote can bear one too: whoever
/// knows the format says it instead of asking here.
pub fn detect(bytes: &dyn Bytes) -> Result<Format> {
    let known = usize::try_from(bytes.len()).unwrap_or(usize::MAX).min(LOOKED_AT);
    let head = crate::bytes::read_vec(bytes, 0, known)?;
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    if at(0, b"QFI\xfb") {
        return Ok(Format::Qcow2);
    }
    if at(0, b"KDMV") || at(0, b"COWD") || at(0, b"# Disk DescriptorFile") {
        return Ok(Format::Vmdk);
    }
    if at(0, b"vhdxfile") {
        return Ok(Format::Vhdx);
    }
    if at(0x40, &[0x7f, 0x10, 0xda, 0xbe]) {
        return Ok(Format::Vdi);
    }
    if at(0, &[0x1f, 0x8b]) {
        return Ok(Format::GceTar);
    }
    if at(257, b"ustar") {
        return Ok(Format::Ova);
    }
    if at(0, b"conectix") {
        return Ok(Format::Vhd);
    }
    if bytes.len() >= 512 {
        let footer = crate::bytes::read_vec(bytes, bytes.len() - 512, 512)?;
        if footer.starts_with(b"conectix") {
            return Ok(Format::Vhd);
        }
    }
    Ok(Format::Raw)
}
