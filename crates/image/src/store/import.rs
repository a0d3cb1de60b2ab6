//! Taking a disk in, in one pass: read, digest, cut, compress, keep.
//!
//! ```text
//! Walk (MiB blocks, their digests, several threads) --in order--> cutter --chunks--> threads that compress and keep
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use fastcdc::v2020::FastCDC;
use serde::{Deserialize, Serialize};

use super::chunk::{self, AVERAGE, MAX, MIN};
use super::recipe::{self, Part};
use super::{ImageId, Manifest, Store};
use crate::blocks::{Walk, is_zero};
use crate::convert::Progress;
use crate::digest::{self, LEAF_BYTES, Leaf};
use crate::{Disk, Error, Format, Result};

/// Zero pieces of this size are left out.
const PIECE_BYTES: usize = 1 << 16;
/// Bytes that gather before they are cut.
const CUT_BYTES: usize = 4 << 20;
/// Chunks that wait for a thread.
const WAITING: usize = 64;

/// Where an image came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// A name for people.
    pub name: String,
    /// The file or address that it was read from.
    pub source: String,
    /// The image that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ImageId>,
}

/// An image that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What is known of it.
    pub manifest: Manifest,
    /// It was there before.
    pub known: bool,
    /// Bytes that its new chunks take.
    pub new_bytes: u64,
}

type Chunk = (u64, Vec<u8>);

pub(super) fn import(
    store: &Store,
    disk: &dyn Disk,
    native: Format,
    origin: Origin,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Imported> {
    let dir = store.dir.as_path();
    let (sender, receiver) = sync_channel::<Chunk>(WAITING);
    let receiver = Mutex::new(receiver);
    let kept = Mutex::new(Ok((Vec::new(), 0)));
    let mut leaves: BTreeMap<u64, Leaf> = BTreeMap::new();
    let cut = std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| keep_all(dir, &receiver, &kept));
        }
        let mut cutter = Cutter { sender, run: Vec::new(), at: 0, data_bytes: 0 };
        let walk = Walk { disk, block_bytes: LEAF_BYTES, threads, progress };
        walk.run(
            || (),
            |(), _, block| Ok((digest::leaf(block), block.to_vec())),
            |number, (leaf, block)| {
                leaves.insert(number, leaf);
                let offset = number * LEAF_BYTES as u64;
                let len = usize::try_from(disk.size() - offset).unwrap_or(usize::MAX).min(block.len());
                cutter.take(offset, &block[..len])
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
    let id = ImageId::new(&digest::root(disk.size(), &leaves))?;
    if let Ok(manifest) = store.manifest(&id) {
        return Ok(Imported { manifest, known: true, new_bytes });
    }
    sync(dir)?;
    let manifest = Manifest {
        chunks_digest: recipe::write(dir, &id, &parts)?,
        id,
        virtual_bytes: disk.size(),
        data_bytes,
        origin,
        native,
        chunks: parts.len() as u64,
        written_by: concat!("skein-image ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::corrupt(e.to_string()))?;
    recipe::put(&dir.join("images").join(format!("{}.json", manifest.id)), &text)?;
    Ok(Imported { manifest, known: false, new_bytes })
}

/// Chunks are written without a sync each: one of the whole file system comes before the image is named.
fn sync(dir: &Path) -> Result<()> {
    let file = std::fs::File::open(dir).map_err(Error::io("opening the store"))?;
    rustix::fs::syncfs(&file).map_err(|e| Error::io("syncing the store")(e.into()))
}

type Kept = Mutex<Result<(Vec<Part>, u64)>>;

fn keep_all(dir: &Path, chunks: &Mutex<Receiver<Chunk>>, kept: &Kept) {
    let mut compressor = chunk::compressor();
    loop {
        let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((offset, content)) = next else { return };
        let done = match &mut compressor {
            Ok(compressor) => chunk::keep(dir, compressor, &content),
            Err(error) => Err(Error::corrupt(error.to_string())),
        };
        let mut all = kept.lock().unwrap_or_else(PoisonError::into_inner);
        match (done, &mut *all) {
            (Ok((id, bytes)), Ok((parts, sum))) => {
                parts.push(Part { offset, len: content.len() as u64, chunk: Some(id) });
                *sum += bytes;
            }
            (Err(error), Ok(_)) => *all = Err(error),
            // The first error is the one that is told; the rest is taken and dropped, so that nobody waits.
            (_, Err(_)) => {}
        }
    }
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
