//! The stored form as it is: no converter is called (claims 2, 14).

use std::sync::Arc;

use skein_image::out::Pieces;
use skein_image::{Bytes, Error, Format, Progress};

use super::{ContentId, Source};

/// Most bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// A file's bytes, uploaded as they are kept.
#[derive(Clone)]
pub struct AsKept {
    content: ContentId,
    bytes: Arc<dyn Bytes>,
    format: Format,
}

impl AsKept {
    /// The bytes of the image `id` (its content's digest: a name would not do), which are of `format`.
    pub fn new(id: &str, bytes: Arc<dyn Bytes>, format: Format) -> Self {
        Self { content: ContentId::derived(&[id, "as kept", format.word()]), bytes, format }
    }
}

impl Source for AsKept {
    fn content(&self) -> &ContentId {
        &self.content
    }
    fn format(&self) -> Format {
        self.format
    }
    fn len_known(&self) -> Option<u64> {
        Some(self.bytes.len())
    }
    fn write(&self, to: &mut dyn Pieces, progress: &dyn Progress) -> skein_image::Result<()> {
        let (mut at, mut buffer) = (0, vec![0; READ_BYTES]);
        while at < self.bytes.len() {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (hole, len) = self.bytes.hole_at(at)?;
            let len = len.min(self.bytes.len() - at);
            let take = usize::try_from(len).unwrap_or(usize::MAX).min(READ_BYTES);
            if hole {
                at += len;
                continue;
            }
            self.bytes.read_at(at, &mut buffer[..take])?;
            to.piece(at, &buffer[..take])?;
            at += take as u64;
            progress.at(at);
        }
        to.finish(self.bytes.len())
    }
}
