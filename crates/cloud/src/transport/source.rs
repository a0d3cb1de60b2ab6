//! What is uploaded: something that can be written again, always the same.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skein_image::out::{Pieces, convert_in_order};
use skein_image::{Disk, Format, Options, Progress};

/// Raised when a writer of `skein-image` writes other bytes than before for the same disk and options: what an
/// older version began must not be gone on with.
const FORM: u32 = 1;

/// What an upload is, as one text: 64 hexadecimal digits that derive from the image's id and the form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentId(String);

impl ContentId {
    /// Of an image in the form that these options give.
    pub fn of(image: &str, options: &Options) -> Self {
        // Threads change how fast it is written, not what.
        let form = (options.format, options.effort, options.compression, options.manifest, options.size_multiple);
        Self::derived(&[image, &format!("{form:?}"), &FORM.to_string()])
    }
    /// From texts.
    pub(super) fn derived(texts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for text in texts {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        Self(hasher.finalize().to_hex().to_string())
    }
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ContentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image in one form. Writing it again gives the same bytes at the same places.
pub trait Source: Send + Sync {
    /// What it is.
    fn content(&self) -> &ContentId;
    /// Its form.
    fn format(&self) -> Format;
    /// Its length, bytes, where that is known before it is written.
    fn len_known(&self) -> Option<u64>;
    /// Hands over what is not zero, in ascending order, and at the end the length. Blocks the thread.
    fn write(&self, to: &mut dyn Pieces, progress: &dyn Progress) -> skein_image::Result<()>;
}

/// A disk, converted while it is uploaded.
#[derive(Clone)]
pub struct Converted {
    content: ContentId,
    disk: Arc<dyn Disk>,
    options: Options,
}

impl Converted {
    /// The disk of the image `id` (its content's digest: a name would not do), in the form that `options` say.
    pub fn new(id: &str, disk: Arc<dyn Disk>, options: Options) -> Self {
        Self { content: ContentId::of(id, &options), disk, options }
    }
}

impl Source for Converted {
    fn content(&self) -> &ContentId {
        &self.content
    }
    fn format(&self) -> Format {
        self.options.format
    }
    fn len_known(&self) -> Option<u64> {
        let rounded = self.disk.size().checked_next_multiple_of(self.options.size_multiple.max(1))?;
        match self.options.format {
            Format::Raw => Some(rounded),
            Format::Vhd => Some(rounded.checked_next_multiple_of(512)? + 512),
            _ => None,
        }
    }
    fn write(&self, to: &mut dyn Pieces, progress: &dyn Progress) -> skein_image::Result<()> {
        convert_in_order(self.disk.as_ref(), to, &self.options, progress).map(|_| ())
    }
}
