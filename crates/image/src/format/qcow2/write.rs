//! Version 3, clusters of 64 KiB, in one pass: clusters go to the file in the disk's order, an L2 table behind those
//! it tells about, L1 and the refcount table last.

use std::collections::BTreeMap;

use super::{COMPRESSED, COMPRESSION_BIT, COPIED, MAGIC, SECTOR};
use crate::blocks::{Spare, Walk};
use crate::convert::{Compression, Effort, Options, Progress, Report};
use crate::{Disk, Error, Out, Result};

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_LEN: usize = 1 << CLUSTER_BITS;
/// Clusters that an L2 table tells about.
const L2_LEN: u64 = CLUSTER / 8;
/// Clusters that a refcount block counts: 16 bits each.
const COUNTS_LEN: u64 = CLUSTER / 2;
/// Where the bytes of a compressed cluster's place end and its sectors begin.
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);
/// What QEMU allows for the L1 table, bytes.
const L1_BYTES_MAX: u64 = 32 << 20;
/// Compressed clusters are written together up to this, bytes.
const TOGETHER: usize = 1 << 20;
const HEADER_LEN: usize = 112;

/// Writes `disk`; the size is rounded up to sectors, as QEMU would cut the rest off.
pub(in crate::format) fn write(
    disk: &dyn Disk,
    out: &mut Out<'_>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report> {
    if !out.can_seek() {
        return Err(Error::Usage(
            "a qcow2's header is written last, when its tables have their places: give it a file instead of a stream"
                .to_owned(),
        ));
    }
    let virtual_bytes = crate::format::rounded_size(disk, options.size_multiple)?
        .checked_next_multiple_of(SECTOR)
        .ok_or_else(|| Error::Usage("the disk is too large".to_owned()))?;
    let l1_len = virtual_bytes.div_ceil(L2_LEN * CLUSTER).max(1);
    if l1_len * 8 > L1_BYTES_MAX {
        return Err(Error::Usage(format!("a qcow2 of {virtual_bytes} bytes is more than QEMU opens")));
    }
    let mut image = Image::new(out, usize::try_from(l1_len).unwrap_or(0));
    let walk = Walk { disk, block_bytes: CLUSTER_LEN, threads: options.threads, progress };
    let spare = Spare::default();
    walk.run(
        || Packer::new(options),
        |packer, _, block| packer.pack(block, &spare),
        |number, piece| {
            image.put(number, &piece)?;
            let (Piece::Plain(buffer) | Piece::Packed(buffer)) = piece;
            spare.give_back(buffer);
            Ok(())
        },
    )?;
    let data_bytes = image.blocks * CLUSTER;
    let bytes = image.finish(virtual_bytes, options.compression)?;
    Ok(Report { bytes, virtual_bytes, data_bytes: data_bytes.min(virtual_bytes) })
}

/// A cluster as it goes to the file.
enum Piece {
    Plain(Vec<u8>),
    Packed(Vec<u8>),
}

enum Method {
    None,
    Deflate(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

/// What a thread compresses with.
struct Packer {
    method: Result<Method>,
    packed: Vec<u8>,
}

impl Packer {
    fn new(options: &Options) -> Self {
        let fast = options.effort == Effort::Fast;
        let method = match options.compression {
            Compression::None => Ok(Method::None),
            Compression::Zlib => {
                let level = libdeflater::CompressionLvl::new(if fast { 1 } else { 6 }).unwrap_or_default();
                Ok(Method::Deflate(libdeflater::Compressor::new(level)))
            }
            Compression::Zstd => zstd::bulk::Compressor::new(if fast { 1 } else { 5 })
                .map(Method::Zstd)
                .map_err(Error::io("starting zstd")),
        };
        // One byte less than a cluster: what does not fit is better off as it is.
        Self { method, packed: vec![0; CLUSTER_LEN - 1] }
    }

    fn pack(&mut self, block: &[u8], spare: &Spare) -> Result<Piece> {
        let packed = match &mut self.method {
            Ok(Method::None) => None,
            // Their only error is that the result does not fit.
            Ok(Method::Deflate(deflate)) => deflate.deflate_compress(block, &mut self.packed).ok(),
            Ok(Method::Zstd(zstd)) => zstd.compress_to_buffer(block, self.packed.as_mut_slice()).ok(),
            Err(_) => return Err(Error::Usage("zstd cannot be started: choose another compression".to_owned())),
        };
        Ok(packed
            .and_then(|len| self.packed.get(..len))
            .map_or_else(|| Piece::Plain(spare.copy(block)), |packed| Piece::Packed(spare.copy(packed))))
    }
}

/// The file that grows.
struct Image<'a, 'b> {
    out: &'a mut Out<'b>,
    /// The next cluster of the file that is free.
    free: u64,
    /// Where compressed clusters go on, and up to where the clusters taken for them reach: bytes.
    packing: (u64, u64),
    /// Compressed clusters not written yet, and where they go.
    together: (u64, Vec<u8>),
    l1: Vec<u64>,
    /// The table that is filled: its L1 index and itself.
    l2: Option<(usize, Vec<u8>)>,
    /// Refcounts by refcount block, of those not written yet.
    counts: BTreeMap<u64, Vec<u16>>,
    /// Where each refcount block is.
    counts_at: BTreeMap<u64, u64>,
    /// Clusters of the disk that were written.
    blocks: u64,
}

impl<'a, 'b> Image<'a, 'b> {
    fn new(out: &'a mut Out<'b>, l1_len: usize) -> Self {
        let mut image = Self {
            out,
            free: 0,
            packing: (0, 0),
            together: (0, Vec::new()),
            l1: vec![0; l1_len],
            l2: None,
            counts: BTreeMap::new(),
            counts_at: BTreeMap::new(),
            blocks: 0,
        };
        // The header's.
        image.take(1);
        image
    }

    /// Takes clusters that follow each other, each used once: the first one's offset.
    fn take(&mut self, clusters: u64) -> u64 {
        let first = self.free;
        self.free += clusters;
        for cluster in first..self.free {
            self.count(cluster);
        }
        first * CLUSTER
    }

    fn count(&mut self, cluster: u64) {
        let len = usize::try_from(COUNTS_LEN).unwrap_or(usize::MAX);
        let block = self.counts.entry(cluster / COUNTS_LEN).or_insert_with(|| vec![0; len]);
        // A compressed cluster has over ten bytes, so that a cluster never holds 2^16 of them.
        block[usize::try_from(cluster % COUNTS_LEN).unwrap_or(usize::MAX)] += 1;
    }

    fn put(&mut self, number: u64, piece: &Piece) -> Result<()> {
        self.blocks += 1;
        let entry = match piece {
            Piece::Plain(bytes) => {
                let at = self.take(1);
                self.out.write_at(at, bytes)?;
                at | COPIED
            }
            Piece::Packed(bytes) => self.put_packed(bytes)?,
        };
        let index = usize::try_from(number / L2_LEN).unwrap_or(usize::MAX);
        if self.l2.as_ref().is_none_or(|(at, _)| *at != index) {
            self.end_table()?;
            self.l2 = Some((index, vec![0; CLUSTER_LEN]));
        }
        if let Some((_, table)) = &mut self.l2 {
            let at = usize::try_from(number % L2_LEN * 8).unwrap_or(usize::MAX);
            table[at..at + 8].copy_from_slice(&entry.to_be_bytes());
        }
        Ok(())
    }

    /// Places a compressed cluster behind the last one; it may reach into the next cluster when that follows.
    fn put_packed(&mut self, bytes: &[u8]) -> Result<u64> {
        let len = bytes.len() as u64;
        let (mut at, mut end) = self.packing;
        if at + len > end {
            if end == self.free * CLUSTER && at < end {
                end += CLUSTER;
            } else {
                at = self.free * CLUSTER;
                end = at + CLUSTER;
            }
            self.free += 1;
        }
        self.packing = (at + len, end);
        for cluster in at / CLUSTER..=(at + len - 1) / CLUSTER {
            self.count(cluster);
        }
        let (from, together) = &mut self.together;
        if *from + together.len() as u64 != at || together.len() >= TOGETHER {
            self.write_together()?;
            self.together.0 = at;
        }
        self.together.1.extend_from_slice(bytes);
        let sectors = (at % SECTOR + len).div_ceil(SECTOR) - 1;
        Ok(COMPRESSED | sectors << SECTORS_SHIFT | at)
    }

    fn write_together(&mut self) -> Result<()> {
        let (at, together) = &mut self.together;
        if !together.is_empty() {
            self.out.write_at(*at, together)?;
            together.clear();
        }
        Ok(())
    }

    /// The L2 table is full, or the last.
    fn end_table(&mut self) -> Result<()> {
        if let Some((index, table)) = self.l2.take() {
            let at = self.take(1);
            self.out.write_at(at, &table)?;
            self.l1[index] = at | COPIED;
        }
        self.write_counts()
    }

    /// Refcount blocks that will not change: memory does not grow with the disk.
    fn write_counts(&mut self) -> Result<()> {
        let final_before = self.free / COUNTS_LEN;
        // What is left of the cluster that compressed ones share is given up, when it is in an older block.
        if self.packing.0 / CLUSTER / COUNTS_LEN < final_before {
            self.packing = (0, 0);
        }
        while let Some(entry) = self.counts.first_entry().filter(|entry| *entry.key() < final_before) {
            let (number, counts) = entry.remove_entry();
            let at = self.take(1);
            self.write_block(at, number, &counts)?;
        }
        Ok(())
    }

    fn write_block(&mut self, at: u64, number: u64, counts: &[u16]) -> Result<()> {
        let block: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
        self.counts_at.insert(number, at);
        self.out.write_at(at, &block)
    }

    /// The tables, the header; the file's length.
    fn finish(mut self, virtual_bytes: u64, compression: Compression) -> Result<u64> {
        self.write_together()?;
        self.end_table()?;
        let l1: Vec<u8> = self.l1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let l1_at = self.take((l1.len() as u64).div_ceil(CLUSTER));
        self.out.write_at(l1_at, &l1)?;
        // The blocks and their table take clusters, which blocks must count: until nothing is added any more.
        let (mut blocks, mut table) = (0, 0);
        loop {
            let all = (self.free + blocks + table).div_ceil(COUNTS_LEN);
            let more = (all - self.counts_at.len() as u64, (all * 8).div_ceil(CLUSTER));
            if more == (blocks, table) {
                break;
            }
            (blocks, table) = more;
        }
        let (first, table_at) = (self.take(blocks), self.take(table));
        // Blocks are written from the first number on; the last ones are not.
        for (n, (number, counts)) in (0..).zip(std::mem::take(&mut self.counts)) {
            self.write_block(first + n * CLUSTER, number, &counts)?;
        }
        let entries: Vec<u8> = self.counts_at.values().flat_map(|at| at.to_be_bytes()).collect();
        self.out.write_at(table_at, &entries)?;
        let l1_len = self.l1.len();
        self.out.write_at(0, &header(virtual_bytes, compression, (l1_at, l1_len), (table_at, table)))?;
        let len = self.free * CLUSTER;
        self.out.finish(len)?;
        Ok(len)
    }
}

fn header(size: u64, compression: Compression, l1: (u64, usize), counts: (u64, u64)) -> [u8; HEADER_LEN] {
    let zstd = compression == Compression::Zstd;
    let mut header = [0; HEADER_LEN];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    let be32 = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    put(0, &MAGIC.to_be_bytes());
    put(4, &be32(3));
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &size.to_be_bytes());
    put(36, &be32(l1.1 as u64));
    put(40, &l1.0.to_be_bytes());
    put(48, &counts.0.to_be_bytes());
    put(56, &be32(counts.1));
    put(72, &(if zstd { COMPRESSION_BIT } else { 0 }).to_be_bytes());
    // Refcounts of 2^4 bits.
    put(96, &be32(4));
    put(100, &be32(HEADER_LEN as u64));
    put(104, &[u8::from(zstd)]);
    header
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Budget, Format};

    /// Clusters of no bytes are holes in the file: so an image of many GiB is written at once.
    #[test]
    fn refcounts_are_exact_when_they_take_several_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let mut out = Out::File(&file);
        // Up to the edge of a block and past it, where tables and blocks count themselves.
        for blocks in [32_700, 32_761, 32_762, 32_763, 32_764, 32_765, 32_768, 100_000] {
            file.set_len(0).unwrap();
            let virtual_bytes = blocks * CLUSTER;
            let l1_len = virtual_bytes.div_ceil(L2_LEN * CLUSTER);
            let mut image = Image::new(&mut out, usize::try_from(l1_len).unwrap());
            for number in 0..blocks {
                let piece = match number % 1_000 {
                    0..4 => Piece::Packed(vec![1; 30_000]),
                    _ => Piece::Plain(Vec::new()),
                };
                image.put(number, &piece).unwrap();
                assert!(image.counts.len() <= 2, "refcounts that are done are kept");
            }
            let len = image.finish(virtual_bytes, Compression::Zlib).unwrap();
            assert_eq!(len, file.metadata().unwrap().len());
            let bytes = crate::bytes::FileBytes::new(file.try_clone().unwrap()).unwrap();
            let disk = crate::format::open(Arc::new(bytes), Format::Qcow2, &Budget::default()).unwrap();
            assert_eq!(disk.size(), virtual_bytes);
            assert_eq!(disk.extent_at(virtual_bytes - 1).unwrap().len, 1);
            let Ok(check) = std::process::Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&path).output()
            else {
                eprintln!("SKIPPED: refcounts are not checked: there is no qemu-img on this machine");
                continue;
            };
            assert!(check.status.success(), "{blocks}: {}", String::from_utf8_lossy(&check.stdout));
        }
    }
}
