//! What several formats need: overlapping places, identifiers that derive from the content, the map of a disk's data.

use crate::blocks::Walk;
use crate::convert::{Effort, Options, Progress};
use crate::{Disk, Error, Result};

/// Places in a file that must not overlap: what the tables of an image point at. Two entries that share bytes are how
/// a small file becomes a large disk, and how tables are shown to a guest as its data.
#[derive(Default)]
pub(super) struct Claims(Vec<(u64, u64)>);

impl Claims {
    /// `len` bytes at `start`; they must lie before `end`.
    pub(super) fn add(&mut self, what: &str, start: u64, len: u64, end: u64) -> Result<()> {
        match start.checked_add(len) {
            Some(stop) if stop <= end => self.0.push((start, stop)),
            _ => {
                return Err(Error::corrupt(format!(
                    "{what} is said to be {len} bytes at {start}, but the file ends at {end}"
                )));
            }
        }
        Ok(())
    }
    /// Does no byte belong to two of them? They come back in order.
    pub(super) fn check(mut self) -> Result<Taken> {
        self.0.sort_unstable();
        match self.0.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            None => Ok(Taken(self.0)),
            Some(pair) => Err(Error::Refused(format!(
                "two parts of the image share bytes of the file: {}..{} and {}..{}",
                pair[0].0, pair[0].1, pair[1].0, pair[1].1
            ))),
        }
    }
}

/// Places that are taken, in order.
pub(super) struct Taken(Vec<(u64, u64)>);

impl Taken {
    /// Does `len` bytes at `start` touch one of them?
    pub(super) fn touches(&self, start: u64, len: u64) -> bool {
        let next = self.0.partition_point(|place| place.1 <= start);
        self.0.get(next).is_some_and(|place| place.0 < start.saturating_add(len))
    }
}

/// A set of small numbers: which parts of a file are taken, one bit each.
#[derive(Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// For numbers below `len`, which the caller's budget allows.
    pub(super) fn new(len: u64) -> Self {
        Self(vec![0; usize::try_from(len.div_ceil(64)).unwrap_or(0)])
    }
    /// Adds it; was it there already? Beyond the end everything is.
    pub(super) fn set(&mut self, bit: u64) -> bool {
        let Some(word) = usize::try_from(bit / 64).ok().and_then(|n| self.0.get_mut(n)) else { return true };
        let mask = 1 << (bit % 64);
        let was = *word & mask != 0;
        *word |= mask;
        was
    }
}

/// Identifiers of an image, from its content: the same disk gets the same. Not a proof of equality: the blocks go in
/// by their CRC-32C, because formats without compression are written as fast as memory can be copied.
pub(super) struct Mark(blake3::Hasher);

impl Mark {
    pub(super) fn new(format: &str, virtual_bytes: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format.as_bytes()).update(&virtual_bytes.to_le_bytes());
        Self(hasher)
    }
    pub(super) fn block(&mut self, number: u64, crc: u32) {
        self.0.update(&number.to_le_bytes()).update(&crc.to_le_bytes());
    }
    /// 16 bytes for each `purpose`, marked as a random UUID (version 4), which is what readers expect.
    pub(super) fn uuid(&self, purpose: &str) -> [u8; 16] {
        let mut hasher = self.0.clone();
        hasher.update(purpose.as_bytes());
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }
}

/// A mark from samples: for formats whose identifier stands before the data and that are too dear to be read twice.
/// Taken are the first 4 MiB (partition tables, the first file system's superblock) and 64 KiB at each 64th.
pub(super) fn sampled_mark(format: &str, disk: &dyn Disk, virtual_bytes: u64) -> Result<Mark> {
    const SAMPLE: u64 = 1 << 16;
    let mut mark = Mark::new(format, virtual_bytes);
    let (size, mut buffer) = (disk.size(), vec![0; 1 << 16]);
    let step = (size / 64).max(SAMPLE);
    let far = (0..64).map(|n| n * step / SAMPLE * SAMPLE).filter(|at| *at >= 64 * SAMPLE);
    for at in (0..64).map(|n| n * SAMPLE).chain(far).filter(|at| *at < size) {
        let len = usize::try_from((size - at).min(SAMPLE)).unwrap_or(0);
        disk.read_at(at, &mut buffer[..len])?;
        buffer[len..].fill(0);
        if !crate::blocks::is_zero(&buffer) {
            mark.block(at, crc32c::crc32c(&buffer));
        }
    }
    Ok(mark)
}

/// Which blocks of a disk hold something: found by reading it, so that it depends on the content and not on how the
/// source keeps it.
pub(super) struct Survey {
    /// Runs of blocks: number of the first, and how many. In order, none touches the next.
    pub(super) runs: Vec<(u64, u64)>,
    pub(super) mark: Mark,
}

/// Runs that a survey may have: 64 MiB of memory. A disk of 8 TiB with every second MiB used has as many.
const RUNS_MAX: usize = 4 << 20;

impl Survey {
    pub(super) fn of(
        format: &str,
        disk: &dyn Disk,
        block_bytes: usize,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let (mut runs, mut mark) = (Vec::<(u64, u64)>::new(), Mark::new(format, disk.size()));
        let walk = Walk { disk, block_bytes, threads: options.threads, progress: &OnlyCancel(progress) };
        walk.run(
            || (),
            |(), _, block| Ok(crc32c::crc32c(block)),
            |number, crc| {
                mark.block(number, crc);
                let full = runs.len() == RUNS_MAX;
                match runs.last_mut() {
                    Some((first, count)) if *first + *count == number => *count += 1,
                    _ if full => return Err(too_scattered(block_bytes)),
                    _ => runs.push((number, 1)),
                }
                Ok(())
            },
        )?;
        Ok(Self { runs, mark })
    }
    /// Blocks that hold something.
    pub(super) fn blocks(&self) -> u64 {
        self.runs.iter().map(|run| run.1).sum()
    }
}

fn too_scattered(block_bytes: usize) -> Error {
    Error::OverBudget {
        what: format!("the number of separate runs of data (in blocks of {block_bytes} bytes)"),
        limit: "RUNS_MAX",
        unit: "runs",
        asked: RUNS_MAX as u64 + 1,
        most: RUNS_MAX as u64,
    }
}

/// The first of two passes says nothing of how far it is: the second one counts.
struct OnlyCancel<'a>(&'a dyn Progress);

impl Progress for OnlyCancel<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// The second pass found other data than the first.
pub(super) fn changed() -> Error {
    Error::Refused("the disk changed while it was being read: stop what writes to it and convert again".to_owned())
}

/// A disk of 0 bytes in a format that cannot express it.
pub(super) fn not_empty(format: &str, virtual_bytes: u64) -> Result<()> {
    if virtual_bytes == 0 {
        return Err(Error::Usage(format!(
            "a disk of 0 bytes cannot be written as {format}: nothing would boot from it"
        )));
    }
    Ok(())
}

/// The virtual size: as asked for, and whole sectors.
pub(super) fn sectored_size(disk: &dyn Disk, options: &Options) -> Result<u64> {
    let asked = super::rounded_size(disk, options.size_multiple)?;
    asked.checked_next_multiple_of(512).ok_or_else(|| Error::Usage(format!("{asked} bytes are no disk's size")))
}

/// A compressor of deflate. One is kept for each thread: making it costs more than compressing a small block.
pub(super) fn compressor(effort: Effort) -> libdeflater::Compressor {
    let level = match effort {
        Effort::Fast => 1,
        Effort::Archive => 6,
    };
    libdeflater::Compressor::new(libdeflater::CompressionLvl::new(level).unwrap_or_default())
}
