//! One disk, written in another format.

use crate::format::{self, ManifestDigest};
use crate::gpt;
use crate::{Disk, Error, Format, Out, Result};

/// How hard to compress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Effort {
    /// Little CPU: what is uploaded once.
    #[default]
    Fast,
    /// Small: what is kept.
    Archive,
}

/// What the result is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its format.
    pub format: Format,
    /// How hard to compress, where the format compresses.
    pub effort: Effort,
    /// Compression of a qcow2.
    pub compression: Compression,
    /// Digests of an appliance's manifest.
    pub manifest: ManifestDigest,
    /// Threads that read and compress.
    pub threads: usize,
    /// The virtual size is rounded up to a multiple of this, bytes.
    pub size_multiple: u64,
}

/// Compression of a qcow2's clusters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// Deflate: every reader knows it.
    Zlib,
    /// Zstandard: QEMU 5.1 and later.
    Zstd,
}

impl Options {
    /// With defaults: fast, uncompressed, as many threads as the machine has cores.
    pub fn new(format: Format) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (effort, compression, manifest) = (Effort::Fast, Compression::None, ManifestDigest::Sha256);
        Self { format, effort, compression, manifest, threads, size_multiple: 1 }
    }
}

/// Told how far a conversion is; may end it.
pub trait Progress: Sync {
    /// The disk is done up to this offset, bytes.
    fn at(&self, _offset: u64) {}
    /// Does somebody want it to end?
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl Progress for () {}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Length of the result, bytes.
    pub bytes: u64,
    /// Its virtual size, bytes.
    pub virtual_bytes: u64,
    /// Bytes of the disk that are not zero, in whole blocks.
    pub data_bytes: u64,
}

/// Writes `disk` to `out`. Its bytes stay as they are, but for one thing: where the size is rounded up and the disk has
/// a GPT, that is made to fit the new size.
pub fn convert(disk: &dyn Disk, out: &mut Out<'_>, options: &Options, progress: &dyn Progress) -> Result<Report> {
    if options.size_multiple == 0 {
        return Err(Error::Usage("a size cannot be a multiple of 0 bytes".to_owned()));
    }
    // Where the size is rounded up, the second header of a GPT has to move to the new end.
    match gpt::moved(disk, format::written_size(disk, options)?)? {
        Some(moved) => format::write(&moved, out, options, progress),
        None => format::write(disk, out, options, progress),
    }
}
