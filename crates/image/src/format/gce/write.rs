//! The writer. The map of a sparse member stands before its data: the disk is read twice, once for the map, once for
//! the data. No temporary file.

use super::deflate::{Joiner, crc_joined};
use super::{MEMBER, tar};
use crate::blocks::Walk;
use crate::convert::{Effort, Options, Progress, Report};
use crate::format::shared::{Survey, changed, compressor, not_empty};
use crate::{Disk, Error, Out, Result};

const GIB: u64 = super::SIZE_UNIT;
/// What the map is in, and what a thread compresses at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// tar pads archives to this.
const ARCHIVE_MULTIPLE: u64 = 20 * 512;

/// A piece of the stream: deflated, with the CRC of what it was.
struct Piece {
    deflated: Vec<u8>,
    crc: u32,
    len: u64,
}

struct Deflater {
    compressor: libdeflater::Compressor,
    joiner: Joiner,
}

impl Deflater {
    fn new(effort: Effort) -> Self {
        Self { compressor: compressor(effort), joiner: Joiner::default() }
    }
    fn piece(&mut self, bytes: &[u8]) -> Result<Piece> {
        let mut deflated = vec![0; self.compressor.deflate_compress_bound(bytes.len()) + 8];
        let len = self
            .compressor
            .deflate_compress(bytes, &mut deflated)
            .map_err(|error| Error::Usage(format!("compressing: {error}")))?;
        deflated.truncate(len);
        self.joiner.open_end(&mut deflated)?;
        Ok(Piece { deflated, crc: libdeflater::crc32(bytes), len: bytes.len() as u64 })
    }
}

/// One gzip member that pieces are added to.
struct Gzip<'a, 'b> {
    out: &'a mut Out<'b>,
    at: u64,
    crc: u32,
    len: u64,
}

impl Gzip<'_, '_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
    fn add(&mut self, piece: &Piece) -> Result<()> {
        self.crc = crc_joined(self.crc, piece.crc, piece.len);
        self.len += piece.len;
        self.raw(&piece.deflated)
    }
    fn finish(mut self) -> Result<u64> {
        self.raw(&[1, 0, 0, 0xff, 0xff])?;
        let (crc, len) = (self.crc.to_le_bytes(), (self.len & 0xffff_ffff).to_le_bytes());
        self.raw(&crc)?;
        self.raw(&len[..4])?;
        self.out.finish(self.at)?;
        Ok(self.at)
    }
}

pub(in crate::format) fn write(
    disk: &dyn Disk,
    out: &mut Out<'_>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report> {
    let too_large = || Error::Usage(format!("{} bytes are no disk's size", disk.size()));
    let virtual_bytes = crate::format::rounded_size(disk, options.size_multiple)?;
    let virtual_bytes = virtual_bytes.checked_next_multiple_of(GIB).ok_or_else(too_large)?;
    not_empty("an image for Google", virtual_bytes)?;
    let survey = Survey::of("gce", disk, BLOCK_BYTES, options, progress)?;
    let block = BLOCK_BYTES as u64;
    let ranges: Vec<(u64, u64)> = survey.runs.iter().map(|(first, count)| (first * block, count * block)).collect();
    let data_bytes = survey.blocks() * block;

    let mut gzip = Gzip { out, at: 0, crc: 0, len: 0 };
    // No time, no name: the same disk gives the same bytes. 255: written on no particular system.
    gzip.raw(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
    let mut own = Deflater::new(options.effort);
    for part in tar::sparse_headers(MEMBER, virtual_bytes, &ranges).chunks(BLOCK_BYTES) {
        gzip.add(&own.piece(part)?)?;
    }
    let mut expected = survey.runs.iter().flat_map(|(first, count)| *first..*first + *count);
    let walk = Walk { disk, block_bytes: BLOCK_BYTES, threads: options.threads, progress };
    walk.run(
        || Deflater::new(options.effort),
        |deflater, _, bytes| deflater.piece(bytes),
        |number, piece| {
            if expected.next() != Some(number) {
                return Err(changed());
            }
            gzip.add(&piece)
        },
    )?;
    if expected.next().is_some() {
        return Err(changed());
    }
    let end = (gzip.len + 1024).next_multiple_of(ARCHIVE_MULTIPLE) - gzip.len;
    gzip.add(&own.piece(&vec![0; usize::try_from(end).unwrap_or(1024)])?)?;
    let bytes = gzip.finish()?;
    Ok(Report { bytes, virtual_bytes, data_bytes })
}
