//! A VM image as the ledger's catalogue knows it [0053]: who calls it what, what is on it, where it was deployed. Its
//! bytes are the image store's; its id is the digest of its disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::UserName;
use crate::quantity::{Digest, Timestamp};

/// Most tags of an image.
pub const TAGS_MAX: usize = 64;
/// Longest name or tag, bytes.
pub const LABEL_BYTES_MAX: usize = 128;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its disk.
    pub id: Digest,
    /// A name for people; several images may have one, the newest is meant.
    pub name: String,
    /// Words to find it by.
    pub tags: BTreeSet<String>,
    /// The image that it was made from.
    pub parent: Option<Digest>,
    /// The format that it came in.
    pub native: Arc<str>,
    /// Size of its disk, bytes.
    pub virtual_bytes: u64,
    /// Of these, not zero.
    pub data_bytes: u64,
    /// What its disk needs and offers.
    pub offers: Offers,
    /// Who brought it.
    pub user: UserName,
    /// When.
    pub at: Timestamp,
    /// Where it was deployed.
    pub deployed: Vec<Deployed>,
}

/// What an image is, to a machine that would start it. What could not be seen is not assumed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    /// Operating system as Rust names it.
    pub os: Option<Arc<str>>,
    /// Architecture as Rust names it.
    pub arch: Option<Arc<str>>,
    /// How firmware can start it.
    pub boot: BTreeSet<Boot>,
    /// Drivers that its kernel has when it looks for its disk; none when they could not be seen.
    pub early_drivers: Option<BTreeSet<String>>,
    /// It has a root file system that can be read without starting it: what a container is made of.
    pub root_readable: bool,
    /// A partition is encrypted.
    pub encrypted: bool,
}

/// A way to start a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// Boot code in the first sector.
    Bios,
    /// An EFI system partition.
    Uefi,
    /// A kernel that is given beside the disk.
    Kernel,
}

/// An image in the form of a cloud, there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// The solution.
    pub solution: crate::id::SolutionId,
    /// The deployment form, by the profile's name.
    pub profile: Arc<str>,
    /// What the cloud calls it.
    pub cloud_id: String,
    /// When.
    pub at: Timestamp,
}

/// A name or a tag: what can be written on one line and read back.
pub fn check_label(text: &str) -> Result<(), crate::id::BadId> {
    let fits = !text.is_empty() && text.len() <= LABEL_BYTES_MAX;
    if fits && text.trim() == text && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(crate::id::BadId {
        given: text.chars().take(80).collect(),
        what: "image name or tag",
        rule: "1 to 128 bytes on one line, without space at its ends",
    })
}
