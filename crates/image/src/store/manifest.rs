//! What is known of an image: written once, beside its bytes.

use serde::{Deserialize, Serialize};

use super::sign::{self, Signature, Signer};
use crate::inspect::Facts;
use crate::{Error, Format, Result};

/// An image's name: the digest of its disk, 64 hexadecimal digits. The same content has the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// From text.
    pub fn new(text: &str) -> Result<Self> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::Usage(format!("'{text}' is not an image's id: 64 hexadecimal digits")))
    }
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ImageId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0
    }
}

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Where an image came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// A name for people.
    pub name: String,
    /// The file or address that it was read from.
    pub source: String,
    /// The SHA-256 of that file, where somebody computed it: 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The image that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ImageId>,
}

/// The chunks of something that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its bytes.
    pub bytes: u64,
    /// BLAKE3 of the chunk list: a list that was changed is refused.
    pub list: String,
    /// Number of chunks, zero runs not counted.
    pub chunks: u64,
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name: BLAKE3 over the digests of its disk's MiB ([`crate::digest`]).
    pub id: ImageId,
    /// Of its disk, not zero, bytes.
    pub data_bytes: u64,
    /// Where it came from.
    pub origin: Origin,
    /// Format that it came in.
    pub native: Format,
    /// Its disk, kept raw.
    pub disk: Kept,
    /// The file that it came in, if that is kept too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native_file: Option<Kept>,
    /// What is on the disk.
    #[serde(default)]
    pub facts: Facts,
    /// The library that wrote it.
    pub written_by: String,
    /// Of the store that took it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

impl Manifest {
    /// Size of its disk, bytes.
    pub fn virtual_bytes(&self) -> u64 {
        self.disk.bytes
    }

    /// As JSON, signed if there is a signer.
    pub(super) fn seal(&mut self, signer: Option<&Signer>) -> Result<Vec<u8>> {
        self.signature = None;
        if let Some(signer) = signer {
            self.signature = Some(signer.sign(&self.signed_bytes()?));
        }
        serde_json::to_vec_pretty(self).map_err(|e| Error::corrupt(e.to_string()))
    }

    /// From JSON; a signature that does not hold is an error.
    pub fn read(text: &[u8], place: &str) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(text).map_err(|e| Error::corrupt(format!("{place}: {e}")))?;
        if let Some(signature) = &manifest.signature
            && !sign::holds(&manifest.signed_bytes()?, signature)
        {
            return Err(Error::corrupt(format!(
                "{place}: its signature does not hold, somebody changed it: import the image again from its source"
            )));
        }
        Ok(manifest)
    }

    fn signed_bytes(&self) -> Result<Vec<u8>> {
        let unsigned = Self { signature: None, ..self.clone() };
        serde_json::to_vec(&unsigned).map_err(|e| Error::corrupt(e.to_string()))
    }
}
