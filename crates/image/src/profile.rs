//! Deployment forms: what an image must be like where it goes. Data, one file each in `profiles/`; a cloud's
//! descriptor names one and does not repeat it.

use serde::{Deserialize, Serialize};

use crate::format::ManifestDigest;
use crate::{Disk, Error, Format, Options, Result};

/// What a cloud or hypervisor wants of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name: the file's.
    #[serde(skip)]
    pub name: String,
    /// For people.
    pub title: String,
    /// The format it takes.
    pub format: Format,
    /// How it gets there: the name of an upload transport.
    pub upload: String,
    /// Digests of an appliance's manifest.
    #[serde(default)]
    pub digest: ManifestDigest,
    /// The virtual size is a multiple of this, bytes.
    #[serde(default = "one")]
    pub size_multiple_bytes: u64,
    /// Smallest virtual size, bytes.
    #[serde(default)]
    pub size_min_bytes: u64,
    /// Largest virtual size, bytes.
    #[serde(default = "no_limit")]
    pub size_max_bytes: u64,
    /// How its machines start: `bios`, `uefi`, or `kernel` (given beside the disk).
    pub boot: Vec<String>,
    /// Drivers without which a guest finds neither its disk nor its network there.
    #[serde(default)]
    pub drivers: Vec<String>,
    /// Pages that say so.
    #[serde(default)]
    pub sources: Vec<String>,
    /// What here is not from such a page.
    #[serde(default)]
    pub assumed: Vec<String>,
}

fn one() -> u64 {
    1
}
fn no_limit() -> u64 {
    u64::MAX
}

macro_rules! profiles {
    ($($name:literal),* $(,)?) => {
        /// The profiles that come with the library, by name.
        const BUILTIN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../profiles/", $name, ".toml")))),*];
    };
}
profiles!(
    "alibaba",
    "aws",
    "aws-import",
    "azure",
    "cloud-hypervisor",
    "firecracker",
    "google",
    "hyperv",
    "ibm",
    "kvm",
    "lumen",
    "openstack",
    "oracle",
    "proxmox",
    "samsung",
    "virtualbox",
    "vmware",
);

impl Profile {
    /// Reads a profile of a user's.
    pub fn read(name: &str, text: &str) -> Result<Self> {
        let bad = |why: String| Error::Usage(format!("the profile '{name}' cannot be used: {why}"));
        let profile: Self = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        if profile.size_multiple_bytes == 0 || profile.boot.is_empty() {
            return Err(bad("size_multiple_bytes must not be 0, and boot must name a way to start".to_owned()));
        }
        Ok(Self { name: name.to_owned(), ..profile })
    }

    /// The one of this name that comes with the library.
    pub fn builtin(name: &str) -> Result<Self> {
        let found = BUILTIN.iter().find(|(known, _)| *known == name);
        let (name, text) = found.ok_or_else(|| {
            let known: Vec<&str> = Self::names().collect();
            Error::Usage(format!("there is no profile '{name}' (there are: {})", known.join(", ")))
        })?;
        Self::read(name, text)
    }

    /// Names of those that come with the library.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// How to convert for it.
    pub fn options(&self) -> Options {
        Options { size_multiple: self.size_multiple_bytes, manifest: self.digest, ..Options::new(self.format) }
    }

    /// Is the disk's size one it takes? The error says what would have to be done.
    pub fn check_size(&self, disk: &dyn Disk) -> Result<()> {
        let size = disk.size();
        if size > self.size_max_bytes {
            let most = self.size_max_bytes;
            return Err(Error::Usage(format!(
                "{} takes disks of at most {most} bytes, this one has {size}: make its partitions and the disk smaller first",
                self.title
            )));
        }
        if size < self.size_min_bytes {
            let least = self.size_min_bytes;
            return Err(Error::Usage(format!(
                "{} takes disks of at least {least} bytes, this one has {size}: make it larger first",
                self.title
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_profile_that_comes_with_the_library_can_be_read_and_says_where_it_is_from() {
        assert_eq!(
            Profile::names().count(),
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles")).unwrap().count()
        );
        for name in Profile::names() {
            let profile = Profile::builtin(name).unwrap();
            assert_eq!(profile.name, name);
            let local = profile.upload == "file";
            assert!(local || !profile.sources.is_empty() || !profile.assumed.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_wrong_profile_is_named() {
        let unknown = Profile::builtin("moon").unwrap_err().to_string();
        assert!(unknown.contains("'moon'") && unknown.contains("azure"), "{unknown}");
        let zero = Profile::read("x", "title='t'\nformat='raw'\nupload='file'\nboot=['bios']\nsize_multiple_bytes=0");
        assert!(zero.unwrap_err().to_string().contains("size_multiple_bytes"));
    }
}
