//! Taking bytes in, in one pass: read, digest, cut, compress, keep.
//!
//! ```text
//! Walk (MiB blocks, their digests, several threads) --in order--> cutter --chunks--> threads that compress and keep
//! ```

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use fastcdc::v2020::FastCDC;

use super::chunk::{self, AVERAGE, ChunkId, MAX, MIN};
use super::recipe::Part;
use super::shelf::Shelf;
use crate::blocks::{Spare, Walk, is_zero};
use crate::convert::Progress;
use crate::digest::{self, LEAF_BYTES, Leaf};
use crate::{Disk, Error, Result};

/// Zero pieces of this size are left out.
const PIECE_BYTES: usize = 1 << 16;
/// Bytes that gather before they are cut.
const CUT_BYTES: usize = 4 << 20;
/// Chunks that wait for a thread.
const WAITING: usize = 64;
/// Chunks that a thread asks about, and puts, at a time: to a shelf behind a network each is a round trip.
const BATCH: usize = 32;

/// Bytes that were taken in.
pub(super) struct Taken {
    /// Their chunks, in order.
    pub(super) parts: Vec<Part>,
    /// The digest of all.
    pub(super) root: String,
    /// Of them, not zero.
    pub(super) data_bytes: u64,
    /// Bytes that new chunks take.
    pub(super) new_bytes: u64,
}

pub(super) fn take(shelf: &dyn Shelf, disk: &dyn Disk, threads: usize, progress: &dyn Progress) -> Result<Taken> {
    let (sender, receiver) = sync_channel::<Chunk>(WAITING);
    let receiver = Mutex::new(receiver);
    let kept = Mutex::new(Ok((Vec::new(), 0)));
    let (mut leaves, spare): (BTreeMap<u64, Leaf>, _) = (BTreeMap::new(), Spare::default());
    let cut = std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| keep_all(shelf, &receiver, &kept));
        }
        let mut cutter = Cutter { sender, run: Vec::new(), at: 0, data_bytes: 0 };
        let walk = Walk { disk, block_bytes: LEAF_BYTES, threads, progress };
        walk.run(
            || (),
            |(), _, block| Ok((digest::leaf(block), spare.copy(block))),
            |number, (leaf, block)| {
                leaves.insert(number, leaf);
                let offset = number * LEAF_BYTES as u64;
                let len = usize::try_from(disk.size() - offset).unwrap_or(usize::MAX).min(block.len());
                cutter.take(offset, &block[..len])?;
                spare.give_back(block);
                Ok(())
            },
        )?;
        cutter.end_run()?;
        Ok(cutter.data_bytes)
        // The cutter, and with it the way to the threads, ends here: they end when all is kept.
    });
    // Their error is the cause when both failed.
    let (mut parts, new_bytes) = kept.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    let data_bytes = cut?;
    parts.sort_unstable_by_key(|part: &Part| part.offset);
    Ok(Taken { parts, root: digest::root(disk.size(), &leaves), data_bytes, new_bytes })
}

type Chunk = (u64, Vec<u8>);
type Kept = Mutex<Result<(Vec<Part>, u64)>>;

fn keep_all(shelf: &dyn Shelf, chunks: &Mutex<Receiver<Chunk>>, kept: &Kept) {
    let mut compressor = chunk::compressor();
    while let Some(batch) = next(chunks) {
        let done = match &mut compressor {
            Ok(compressor) => keep(shelf, compressor, &batch),
            Err(error) => Err(Error::corrupt(error.to_string())),
        };
        let mut all = kept.lock().unwrap_or_else(PoisonError::into_inner);
        match (done, &mut *all) {
            (Ok((new, bytes)), Ok((parts, sum))) => {
                parts.extend(new);
                *sum += bytes;
            }
            (Err(error), Ok(_)) => *all = Err(error),
            // The first error is the one that is told; the rest is taken and dropped, so that nobody waits.
            (_, Err(_)) => {}
        }
    }
}

/// A chunk, and those that wait behind it.
fn next(chunks: &Mutex<Receiver<Chunk>>) -> Option<Vec<Chunk>> {
    let chunks = chunks.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = vec![chunks.recv().ok()?];
    batch.extend(chunks.try_iter().take(BATCH - 1));
    Some(batch)
}

/// Keeps what is not there yet; the parts, and the bytes that were put.
fn keep(shelf: &dyn Shelf, compressor: &mut zstd::bulk::Compressor<'_>, batch: &[Chunk]) -> Result<(Vec<Part>, u64)> {
    let part = |(offset, content): &Chunk| {
        let chunk = ChunkId::of(content);
        Part { offset: *offset, len: content.len() as u64, chunk }
    };
    let parts: Vec<Part> = batch.iter().map(part).collect();
    let names: Vec<String> = parts.iter().map(|part| part.chunk.object()).collect();
    let missing = shelf.missing(&names)?;
    let (mut put, mut bytes) = (Vec::new(), 0);
    for ((name, (_, content)), _) in names.into_iter().zip(batch).zip(missing).filter(|(_, missing)| *missing) {
        let packed = compressor.compress(content).map_err(Error::io("compressing a chunk"))?;
        bytes += packed.len() as u64;
        put.push((name, packed));
    }
    if !put.is_empty() {
        shelf.put_chunks(put)?;
    }
    Ok((parts, bytes))
}

/// Cuts runs of data where their content says, so that what moved within a disk is found again.
struct Cutter {
    sender: SyncSender<Chunk>,
    run: Vec<u8>,
    /// Where `run` begins on the disk.
    at: u64,
    data_bytes: u64,
}

impl Cutter {
    fn take(&mut self, offset: u64, block: &[u8]) -> Result<()> {
        for (n, piece) in block.chunks(PIECE_BYTES).enumerate() {
            let place = offset + (n * PIECE_BYTES) as u64;
            if is_zero(piece) {
                self.end_run()?;
                continue;
            }
            if self.at + self.run.len() as u64 != place {
                self.end_run()?;
            }
            if self.run.is_empty() {
                self.at = place;
            }
            self.run.extend_from_slice(piece);
            self.data_bytes += piece.len() as u64;
            if self.run.len() >= CUT_BYTES {
                self.cut(false)?;
            }
        }
        Ok(())
    }

    fn end_run(&mut self) -> Result<()> {
        self.cut(true)
    }

    /// Hands on what is cut; the last chunk stays unless the run is over, since it may go on.
    fn cut(&mut self, over: bool) -> Result<()> {
        let mut done = 0;
        let run = std::mem::take(&mut self.run);
        for chunk in FastCDC::new(&run, MIN, AVERAGE, MAX) {
            let end = chunk.offset + chunk.length;
            if end == run.len() && !over {
                break;
            }
            let content = run[chunk.offset..end].to_vec();
            self.sender
                .send((self.at + chunk.offset as u64, content))
                .map_err(|_| Error::corrupt("the threads that keep chunks ended"))?;
            done = end;
        }
        self.at += done as u64;
        self.run = run;
        self.run.drain(..done);
        Ok(())
    }
}
