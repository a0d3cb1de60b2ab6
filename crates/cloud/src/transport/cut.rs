//! From pieces to what a service takes: parts of a stream, whole blocks, or runs.
//!
//! Where a cut is depends on offsets alone, never on when something came: part 7 holds the same bytes in every try.

use bytes::Bytes;
use skein_image::Result;
use skein_image::out::Pieces;
use tokio::sync::OwnedSemaphorePermit;

/// What is made of the pieces.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Everything, zeros included. Part `n` has `part_bytes`, doubled every `doubles_every` parts: services limit
    /// the number of parts, and the length of a compressed image is not known before.
    Stream {
        /// Bytes of the first parts.
        part_bytes: u64,
        /// Parts of one size.
        doubles_every: u64,
    },
    /// Blocks at multiples of their size, filled up with zeros; those that nothing was written to are left out.
    Blocks {
        /// Bytes of a block.
        block_bytes: u64,
    },
    /// Runs of what was written, in whole units, not across multiples of `most_bytes`.
    Pages {
        /// Longest run.
        most_bytes: u64,
        /// They begin and end at multiples of this.
        unit_bytes: u64,
    },
}

/// A part, held in memory until it is dropped.
#[derive(Debug)]
pub(super) struct Part {
    /// Number of the part in the stream, of the block in the disk, of the run in the image; from 0.
    pub(super) number: u64,
    /// Where it stands.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) bytes: Bytes,
    /// Nothing comes behind it (known of streams only).
    pub(super) last: bool,
    /// Its share of the memory.
    pub(super) _held: Option<OwnedSemaphorePermit>,
}

impl Part {
    pub(super) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// Where parts go, and who says whether there is memory for one more.
pub(super) trait Parts: Send {
    /// Waits until so many bytes may be held.
    fn hold(&mut self, bytes: u64) -> Result<Option<OwnedSemaphorePermit>>;
    /// Takes a part.
    fn part(&mut self, part: Part) -> Result<()>;
}

/// Cuts.
pub(super) struct Cutter<'a> {
    shape: Shape,
    to: &'a mut dyn Parts,
    buffer: Vec<u8>,
    held: Option<OwnedSemaphorePermit>,
    /// Where the buffer stands.
    start: u64,
    /// Number of the part in the buffer.
    number: u64,
    open: bool,
    pub(super) len: u64,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(shape: Shape, to: &'a mut dyn Parts) -> Self {
        Self { shape, to, buffer: Vec::new(), held: None, start: 0, number: 0, open: false, len: 0 }
    }

    /// The longest that the part in the buffer may become.
    fn capacity(&self) -> u64 {
        match self.shape {
            Shape::Stream { part_bytes, doubles_every } => {
                let doubled = u32::try_from(self.number / doubles_every.max(1)).unwrap_or(u32::MAX).min(20);
                part_bytes << doubled
            }
            Shape::Blocks { block_bytes } => block_bytes,
            Shape::Pages { most_bytes, .. } => most_bytes - self.start % most_bytes,
        }
    }

    fn open(&mut self, start: u64) -> Result<()> {
        self.start = start;
        let capacity = self.capacity();
        self.held = self.to.hold(capacity)?;
        self.buffer = Vec::with_capacity(usize::try_from(capacity).unwrap_or(0));
        self.open = true;
        Ok(())
    }

    fn close(&mut self, last: bool) -> Result<()> {
        self.open = false;
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let part = Part { number: self.number, offset: self.start, bytes, last, _held: self.held.take() };
        self.number += 1;
        self.to.part(part)
    }

    /// Room in the open buffer.
    fn room(&self) -> usize {
        usize::try_from(self.capacity()).unwrap_or(usize::MAX).saturating_sub(self.buffer.len())
    }

    /// Brings the buffer to where `offset` is in it.
    fn go_to(&mut self, offset: u64) -> Result<()> {
        match self.shape {
            Shape::Stream { .. } => self.zeros_to(offset),
            Shape::Blocks { block_bytes } => {
                let start = offset / block_bytes * block_bytes;
                if self.open && self.start != start {
                    self.end_block()?;
                }
                if !self.open {
                    self.number = start / block_bytes;
                    self.open(start)?;
                }
                self.zeros_within(offset);
                Ok(())
            }
            Shape::Pages { most_bytes, unit_bytes } => {
                let end = self.start + self.buffer.len() as u64;
                let joins =
                    offset <= end.next_multiple_of(unit_bytes) && offset / most_bytes == self.start / most_bytes;
                if self.open && !joins {
                    self.end_run(unit_bytes)?;
                }
                if !self.open {
                    self.open(offset / unit_bytes * unit_bytes)?;
                }
                self.zeros_within(offset);
                Ok(())
            }
        }
    }

    fn zeros_within(&mut self, offset: u64) {
        let len = usize::try_from(offset - self.start).unwrap_or(0);
        if len > self.buffer.len() {
            self.buffer.resize(len, 0);
        }
    }

    /// A stream has its zeros in it. A full part waits for what follows: only then is it known not to be the last.
    fn zeros_to(&mut self, offset: u64) -> Result<()> {
        loop {
            if !self.open {
                let start = self.start;
                self.open(start)?;
            }
            let at = self.start + self.buffer.len() as u64;
            let gap = usize::try_from(offset - at).unwrap_or(usize::MAX).min(self.room());
            self.buffer.resize(self.buffer.len() + gap, 0);
            if self.start + self.buffer.len() as u64 == offset {
                return Ok(());
            }
            self.next_stream_part()?;
        }
    }

    fn next_stream_part(&mut self) -> Result<()> {
        let next = self.start + self.buffer.len() as u64;
        self.close(false)?;
        self.open(next)
    }

    fn end_block(&mut self) -> Result<()> {
        if let Shape::Blocks { block_bytes } = self.shape {
            self.buffer.resize(usize::try_from(block_bytes).unwrap_or(0), 0);
        }
        self.close(false)
    }

    fn end_run(&mut self, unit_bytes: u64) -> Result<()> {
        let unit = usize::try_from(unit_bytes).unwrap_or(1);
        self.buffer.resize(self.buffer.len().next_multiple_of(unit), 0);
        self.close(false)
    }
}

impl Pieces for Cutter<'_> {
    fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (mut offset, mut bytes) = (offset, bytes);
        while !bytes.is_empty() {
            self.go_to(offset)?;
            if self.room() == 0 {
                // Of blocks and runs, only what is full: the next byte belongs to the next one.
                match self.shape {
                    Shape::Stream { .. } => self.next_stream_part()?,
                    Shape::Blocks { .. } => self.end_block()?,
                    Shape::Pages { unit_bytes, .. } => self.end_run(unit_bytes)?,
                }
                continue;
            }
            let len = bytes.len().min(self.room());
            self.buffer.extend_from_slice(&bytes[..len]);
            (offset, bytes) = (offset + len as u64, &bytes[len..]);
        }
        Ok(())
    }

    fn finish(&mut self, len: u64) -> Result<()> {
        self.len = len;
        match self.shape {
            Shape::Stream { .. } => {
                self.zeros_to(len)?;
                self.close(true)
            }
            _ if !self.open => Ok(()),
            Shape::Blocks { .. } => self.end_block(),
            Shape::Pages { unit_bytes, .. } => self.end_run(unit_bytes),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Vec<Part>);

    impl Parts for Kept {
        fn hold(&mut self, _: u64) -> Result<Option<OwnedSemaphorePermit>> {
            Ok(None)
        }
        fn part(&mut self, part: Part) -> Result<()> {
            self.0.push(part);
            Ok(())
        }
    }

    const PIECES: &[(u64, usize)] = &[(0, 100), (512, 512), (1024, 3000), (9000, 10), (20_000, 480), (20_480, 512)];
    const LEN: u64 = 20_992;

    fn whole() -> Vec<u8> {
        let mut whole = vec![0; usize::try_from(LEN).unwrap()];
        for (offset, len) in PIECES {
            let at = usize::try_from(*offset).unwrap();
            for (n, byte) in whole[at..at + len].iter_mut().enumerate() {
                *byte = u8::try_from(n % 250).unwrap() + 1;
            }
        }
        whole
    }

    /// Cut with pieces split at every `step` bytes: the parts must not show it.
    fn cut(shape: Shape, step: usize) -> Vec<(u64, u64, usize, bool)> {
        let (mut kept, whole) = (Kept::default(), whole());
        let mut cutter = Cutter::new(shape, &mut kept);
        for (offset, len) in PIECES {
            for from in (0..*len).step_by(step) {
                let at = usize::try_from(*offset).unwrap() + from;
                cutter.piece(at as u64, &whole[at..at + step.min(len - from)]).unwrap();
            }
        }
        cutter.finish(LEN).unwrap();
        let mut again = vec![0; whole.len().next_multiple_of(4096)];
        for part in &kept.0 {
            let at = usize::try_from(part.offset).unwrap();
            again[at..at + part.bytes.len()].copy_from_slice(&part.bytes);
        }
        assert!(again[..whole.len()] == whole[..], "{shape:?}: the parts are not the image");
        kept.0.iter().map(|part| (part.number, part.offset, part.bytes.len(), part.last)).collect()
    }

    #[test]
    fn a_stream_has_all_bytes_parts_that_grow_and_a_last_one() {
        let shape = Shape::Stream { part_bytes: 4096, doubles_every: 2 };
        let parts = [(0, 0, 4096, false), (1, 4096, 4096, false), (2, 8192, 8192, false), (3, 16_384, 4608, true)];
        assert_eq!(cut(shape, 4096), parts);
        assert_eq!(cut(shape, 7), parts);
        let even = Shape::Stream { part_bytes: LEN / 2, doubles_every: 100 };
        assert_eq!(cut(even, 99).len(), 2, "a length that is a multiple of a part has no empty last part");
    }

    #[test]
    fn an_empty_stream_is_one_empty_part() {
        let mut kept = Kept::default();
        Cutter::new(Shape::Stream { part_bytes: 8, doubles_every: 9 }, &mut kept).finish(0).unwrap();
        assert_eq!((kept.0.len(), kept.0[0].bytes.len(), kept.0[0].last), (1, 0, true));
    }

    #[test]
    fn blocks_are_whole_and_untouched_ones_left_out() {
        let shape = Shape::Blocks { block_bytes: 4096 };
        let blocks = [(0, 0, 4096, false), (2, 8192, 4096, false), (4, 16_384, 4096, false), (5, 20_480, 4096, false)];
        assert_eq!(cut(shape, 4096), blocks);
        assert_eq!(cut(shape, 7), blocks);
    }

    #[test]
    fn runs_are_joined_in_whole_units_up_to_a_limit() {
        let shape = Shape::Pages { most_bytes: 4096, unit_bytes: 512 };
        let runs = [(0, 0, 4096, false), (1, 8704, 512, false), (2, 19_968, 512, false), (3, 20_480, 512, false)];
        assert_eq!(cut(shape, 4096), runs);
        assert_eq!(cut(shape, 7), runs);
    }
}
