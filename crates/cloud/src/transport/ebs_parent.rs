//! What differs between two images, block by block, found by making both again side by side.
//!
//! ```text
//! thread: the parent --blocks--> (number, digest) --+
//!                                                    +--> only new, changed, or become nothing (then written as zeros)
//! caller's thread: the new image --blocks-----------+
//! ```
//! The service could list what its snapshot holds, but not digests of it: comparing would mean to download it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use skein_image::out::Pieces;
use skein_image::{Error, Format, Progress, Result};
use tokio::sync::OwnedSemaphorePermit;

use super::cut::{Cutter, Part, Parts, Shape};
use super::ebs::BLOCK_BYTES;
use super::{ContentId, Parent, Source};

/// Digests that may wait: 40 KiB.
const AHEAD: usize = 1024;

/// The blocks of an image that its parent does not have so.
pub(super) struct Changes {
    content: ContentId,
    new: Arc<dyn Source>,
    old: Arc<dyn Source>,
}

impl Changes {
    pub(super) fn new(new: Arc<dyn Source>, parent: &Parent) -> Self {
        let old = Arc::clone(&parent.source);
        let content =
            ContentId::derived(&[new.content().as_str(), old.content().as_str(), &parent.reference, "changes"]);
        Self { content, new, old }
    }
}

type Digest = (u64, blake3::Hash);

impl Source for Changes {
    fn content(&self) -> &ContentId {
        &self.content
    }
    fn format(&self) -> Format {
        self.new.format()
    }
    fn len_known(&self) -> Option<u64> {
        self.new.len_known()
    }
    fn write(&self, to: &mut dyn Pieces, progress: &dyn Progress) -> Result<()> {
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(AHEAD);
            let parent = scope.spawn(move || digests(self.old.as_ref(), sender, progress));
            let mut merge = Merge { old: receiver, next: None, to };
            let mut cutter = Cutter::new(Shape::Blocks { block_bytes: BLOCK_BYTES }, &mut merge);
            let written = self.new.write(&mut cutter, progress);
            let len = cutter.len;
            let written = written.and_then(|()| merge.rest(len));
            // When this side failed, nobody takes the digests any more: that ends the other.
            drop(merge);
            let parent = parent.join().unwrap_or_else(|_| Err(Error::Usage("reading the parent failed".to_owned())));
            written?;
            parent
        })
    }
}

/// Hands over the digest of each block.
fn digests(of: &dyn Source, to: SyncSender<Digest>, progress: &dyn Progress) -> Result<()> {
    let mut to = Digests(to);
    of.write(&mut Cutter::new(Shape::Blocks { block_bytes: BLOCK_BYTES }, &mut to), progress)
}

struct Digests(SyncSender<Digest>);

impl Parts for Digests {
    fn hold(&mut self, _: u64) -> Result<Option<OwnedSemaphorePermit>> {
        Ok(None)
    }
    fn part(&mut self, part: Part) -> Result<()> {
        self.0.send((part.number, blake3::hash(&part.bytes))).map_err(|_| Error::Cancelled)
    }
}

struct Merge<'a> {
    old: Receiver<Digest>,
    next: Option<Digest>,
    to: &'a mut dyn Pieces,
}

impl Merge<'_> {
    /// The parent's next block before `number`, if there is one.
    fn old_before(&mut self, number: u64) -> Option<u64> {
        self.next = self.next.take().or_else(|| self.old.recv().ok());
        let (at, _) = self.next.filter(|(at, _)| *at < number)?;
        self.next = None;
        Some(at)
    }
    fn zero(&mut self, number: u64) -> Result<()> {
        const ZEROS: &[u8] = &[0; 512 << 10];
        self.to.piece(number * BLOCK_BYTES, ZEROS)
    }
    /// What only the parent has left, and the end.
    fn rest(&mut self, len: u64) -> Result<()> {
        // Behind the end of a disk that became smaller, nothing can be read.
        let end = len.div_ceil(BLOCK_BYTES);
        while let Some(gone) = self.old_before(u64::MAX) {
            if gone < end {
                self.zero(gone)?;
            }
        }
        self.to.finish(len)
    }
}

impl Parts for Merge<'_> {
    fn hold(&mut self, _: u64) -> Result<Option<OwnedSemaphorePermit>> {
        Ok(None)
    }
    fn part(&mut self, part: Part) -> Result<()> {
        while let Some(gone) = self.old_before(part.number) {
            self.zero(gone)?;
        }
        let same = self.next.is_some_and(|(at, digest)| at == part.number && digest == blake3::hash(&part.bytes));
        if self.next.is_some_and(|(at, _)| at == part.number) {
            self.next = None;
        }
        if same { Ok(()) } else { self.to.piece(part.offset, &part.bytes) }
    }
}
