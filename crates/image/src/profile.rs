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
    /// The format it is given.
    pub format: Format,
    /// Other formats that it takes as well: one that is kept so needs no conversion.
    #[serde(default)]
    pub also: Vec<Format>,
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

/// The form for shared solutions: a container image of the root file system.
pub const CONTAINER: &str = "container";

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
    "container",
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

    /// The one of this name: a user's, `NAME.toml` in `dir`, before one that comes with the library.
    pub fn find(name: &str, dir: Option<&std::path::Path>) -> Result<Self> {
        let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let path = dir.filter(|_| is_plain).map(|dir| dir.join(format!("{name}.toml")));
        let Some(path) = path.filter(|path| path.exists()) else { return Self::builtin(name) };
        let text = std::fs::read_to_string(&path).map_err(Error::io(format!("reading {}", path.display())))?;
        Self::read(name, &text)
    }

    /// Every one that can be found, by name.
    pub fn all(dir: Option<&std::path::Path>) -> Result<Vec<Self>> {
        let mut names: std::collections::BTreeSet<String> = Self::names().map(str::to_owned).collect();
        // No folder of a user's own is no error.
        for entry in dir.and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten() {
            names.extend(entry.file_name().to_str().and_then(|file| file.strip_suffix(".toml")).map(str::to_owned));
        }
        names.iter().map(|name| Self::find(name, dir)).collect()
    }

    /// It is no disk, but a root file system.
    pub fn is_container(&self) -> bool {
        self.format == Format::Oci
    }

    /// Those of its drivers without which a guest does not find its disk.
    pub fn disk_drivers(&self) -> impl Iterator<Item = &str> {
        self.drivers.iter().map(String::as_str).filter(|name| crate::fits::OF_DISKS.contains(name))
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
        let own = tempfile::tempdir().unwrap();
        let text = "title='ours'\nformat='raw'\nupload='file'\nboot=['bios']\n";
        for name in ["azure", "ours"] {
            std::fs::write(own.path().join(format!("{name}.toml")), text).unwrap();
            assert_eq!(Profile::find(name, Some(own.path())).unwrap().title, "ours", "a user's own comes first");
        }
        assert_eq!(Profile::all(Some(own.path())).unwrap().len(), Profile::names().count() + 1);
        assert!(Profile::find("../ours", Some(&own.path().join("x"))).is_err());
        let zero = Profile::read("x", "title='t'\nformat='raw'\nupload='file'\nboot=['bios']\nsize_multiple_bytes=0");
        assert!(zero.unwrap_err().to_string().contains("size_multiple_bytes"));
    }
}
