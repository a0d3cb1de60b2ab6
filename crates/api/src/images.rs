//! Images: requests and answers. An image's id is the digest of its disk; sizes are bytes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An image of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The image that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The format that it came in.
    pub native: String,
    /// Size of its disk, bytes.
    pub virtual_bytes: u64,
    /// Of these, not zero.
    pub data_bytes: u64,
    /// What its disk is to a machine: `os`, `arch`, `boot`, `early_drivers`, ...
    pub offers: serde_json::Value,
    /// Who brought it.
    pub user: String,
    /// When.
    pub at: i64,
    /// Where it was deployed.
    pub deployed: Vec<DeployedView>,
    /// Its bytes are in the store; one without them came from a ledger that has lost its store.
    pub stored: bool,
}

/// An image in the form of a cloud, there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployedView {
    /// The solution.
    pub solution: String,
    /// The deployment form.
    pub profile: String,
    /// What the cloud calls it.
    pub cloud_id: String,
    /// When.
    pub at: i64,
}

/// Change what people call an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelRequest {
    /// Its name from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tags to add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_tags: Vec<String>,
    /// Tags to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_tags: Vec<String>,
}

/// Have the engine take an image in from a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// `http://` or `https://`.
    pub url: String,
    /// A name for people; the file's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The format; found out by the first bytes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The file's SHA-256, 64 hexadecimal digits: another file is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Keep the file too, byte for byte.
    #[serde(default)]
    pub keep_native: bool,
}

/// Bring an image to a destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// A destination of the configuration's `images.destinations`.
    pub to: String,
    /// What it is called there; its name and the beginning of its id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Which of these chunks are not in the store?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MissingRequest {
    /// Names of chunks, 64 hexadecimal digits; at most 4096.
    pub chunks: Vec<String>,
}

/// Which are not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Missing {
    /// For each that was asked for. Those that are there stay for an hour at least.
    pub missing: Vec<bool>,
}

/// Choose an image for a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChooseRequest {
    /// A destination, a solution, or a deployment form by name.
    pub to: String,
    /// This image: a name, an id or the beginning of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Operating system as Rust names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Architecture as Rust names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// All of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The machine's disk, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// Which image, in which form, and why no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageChoiceView {
    /// The image; none when none fits.
    pub image: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// `there`, `as_stored` or `converted`.
    pub form: Option<String>,
    /// The form in words.
    pub says: String,
    /// Who is given it: `agent` or `gateway`.
    pub receiver: Option<String>,
    /// Size of the disk there, bytes.
    pub virtual_bytes: Option<u64>,
    /// What could not be seen on it, and may stand against it.
    pub unsure: Vec<String>,
    /// Images that were not taken.
    pub passed_over: Vec<PassedOverView>,
}

/// An image that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PassedOverView {
    /// Which.
    pub image: String,
    /// Its name.
    pub name: String,
    /// Why not; empty when it would do, and another was better.
    pub because: Vec<String>,
}

/// Something that takes its time: an import, a collection, a scrub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    /// Its id.
    pub id: String,
    /// `import`, `deploy`, `gc` or `scrub`.
    pub kind: String,
    /// `running`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// What it is at, in words.
    pub at: String,
    /// Bytes done of this part.
    pub done_bytes: u64,
    /// Bytes of this part, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Bytes a second, since this part began.
    pub bytes_per_s: u64,
    /// Left of this part, ms, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it came to: of an import the `ImageView`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}
