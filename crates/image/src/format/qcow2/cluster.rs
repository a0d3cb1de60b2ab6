//! One cluster: where an L2 entry says it is, and compressed ones made whole.

use std::sync::{Arc, Mutex, PoisonError};

use super::header::Header;
use super::{COMPRESSED, COPIED, Codec, OFFSET_MASK, SECTOR, ZERO};
use crate::bytes::field;
use crate::{Bytes, Error, Result};

/// Parts of a cluster with extended L2 entries.
pub(super) const PARTS: u64 = 32;

/// Where a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    /// Nowhere: it is zero. Perhaps a place is reserved for it.
    Zero { reserved: Option<u64> },
    /// As it is.
    Plain(u64),
    /// Only those of its 32 parts whose bit is set; the others are zero.
    Parts(u64, u32),
    /// Compressed, in so many bytes at most.
    Packed(u64, u64),
}

impl Cluster {
    /// Entry `n` of a table.
    pub(super) fn decode(header: &Header, table: &[u8], n: u64) -> Result<Self> {
        let at = usize::try_from(n * header.entry_bytes()).unwrap_or(usize::MAX);
        let entry = field::be64(table, at);
        if entry & COMPRESSED != 0 {
            return Ok(Self::packed(header, entry));
        }
        let host = entry & OFFSET_MASK;
        let flag = if header.extended { 0 } else { ZERO };
        let reserved = entry & !(OFFSET_MASK | COPIED | flag);
        if reserved != 0 || !host.is_multiple_of(header.cluster()) {
            return Err(Error::corrupt(format!("the L2 entry {entry:#018x} is none")));
        }
        let place = (host != 0).then_some(host);
        if header.extended {
            return Self::parts(place, field::be64(table, at + 8));
        }
        if entry & ZERO != 0 {
            if header.version < 3 {
                return Err(Error::corrupt("a zero cluster in an image of version 2"));
            }
            return Ok(Self::Zero { reserved: place });
        }
        Ok(place.map_or(Self::Zero { reserved: None }, Self::Plain))
    }

    fn packed(header: &Header, entry: u64) -> Self {
        let shift = 62 - (header.cluster_bits - 8);
        let host = entry & ((1 << shift) - 1);
        let sectors = ((entry & (COMPRESSED - 1)) >> shift) + 1;
        Self::Packed(host, sectors * SECTOR - host % SECTOR)
    }

    fn parts(place: Option<u64>, bitmap: u64) -> Result<Self> {
        let (there, zero) = (bitmap & 0xffff_ffff, bitmap >> 32);
        let Some(host) = place else {
            if there != 0 {
                return Err(Error::corrupt("parts of a cluster that has no place"));
            }
            return Ok(Self::Zero { reserved: None });
        };
        if there & zero != 0 {
            return Err(Error::corrupt("parts of a cluster that are there and zero as well"));
        }
        Ok(match u32::try_from(there).unwrap_or(u32::MAX) {
            0 => Self::Zero { reserved: Some(host) },
            u32::MAX => Self::Plain(host),
            some => Self::Parts(host, some),
        })
    }
}

/// What one decompression needs; kept from one to the next.
struct Unpacker {
    deflate: libdeflater::Decompressor,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    packed: Vec<u8>,
}

/// A cluster made whole, by its place in the file.
type Whole = (u64, Arc<Vec<u8>>);

/// Makes compressed clusters whole, in any number of threads.
pub(super) struct Unpackers {
    codec: Codec,
    idle: Mutex<Vec<Unpacker>>,
    /// The last ones that were read in part: the rest is asked for soon.
    lately: Mutex<Vec<Whole>>,
    /// How many of them.
    kept: usize,
}

/// Bytes of clusters kept because the rest of them may be asked for.
const KEPT_BYTES: u64 = 4 << 20;

impl Unpackers {
    pub(super) fn new(header: &Header) -> Self {
        let kept = usize::try_from(KEPT_BYTES / header.cluster()).unwrap_or(2).clamp(2, 16);
        Self { codec: header.codec, idle: Mutex::new(Vec::new()), lately: Mutex::new(Vec::new()), kept }
    }

    /// The whole cluster, which fills `whole`.
    pub(super) fn unpack(&self, bytes: &dyn Bytes, host: u64, len: u64, whole: &mut [u8]) -> Result<()> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut unpacker = idle.unwrap_or_else(|| Unpacker {
            deflate: libdeflater::Decompressor::new(),
            zstd: None,
            packed: Vec::new(),
        });
        // The last sector may be cut off by the file's end.
        let len = len.min(bytes.len().saturating_sub(host));
        let result = unpacker.unpack(self.codec, bytes, (host, len), whole);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(unpacker);
        match result? {
            found if found == whole.len() => Ok(()),
            found => Err(Error::corrupt(format!(
                "the compressed cluster at {host} has {found} bytes instead of {}",
                whole.len()
            ))),
        }
    }

    /// A part of a cluster of `cluster` bytes, from `within` on.
    pub(super) fn part(
        &self,
        bytes: &dyn Bytes,
        (host, len): (u64, u64),
        cluster: usize,
        within: usize,
        part: &mut [u8],
    ) -> Result<()> {
        let lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lately.iter().find(|(at, _)| *at == host).map(|(_, whole)| Arc::clone(whole));
        drop(lately);
        let whole = if let Some(whole) = known {
            whole
        } else {
            let mut whole = vec![0; cluster];
            self.unpack(bytes, host, len, &mut whole)?;
            let whole = Arc::new(whole);
            let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
            if lately.len() >= self.kept {
                lately.remove(0);
            }
            lately.push((host, Arc::clone(&whole)));
            whole
        };
        let from = whole.get(within..within + part.len());
        part.copy_from_slice(from.ok_or_else(|| Error::corrupt("a read beyond its cluster"))?);
        Ok(())
    }
}

impl Unpacker {
    fn unpack(&mut self, codec: Codec, bytes: &dyn Bytes, (host, len): (u64, u64), whole: &mut [u8]) -> Result<usize> {
        let damaged = |why: String| Error::corrupt(format!("the compressed cluster at {host}: {why}"));
        // At most two clusters: the entry's field of sectors has no more bits.
        self.packed.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        bytes.read_at(host, &mut self.packed)?;
        match codec {
            // QEMU compresses with a window of 4 KiB; what needs a larger one is read all the same, here and there,
            // as a cluster is made whole in one step.
            Codec::Deflate => {
                self.deflate.deflate_decompress(&self.packed, whole).map_err(|error| damaged(error.to_string()))
            }
            Codec::Zstd => {
                // Behind the frame comes what fills up the last sector.
                let frame = zstd::zstd_safe::find_frame_compressed_size(&self.packed)
                    .map_err(|code| damaged(zstd::zstd_safe::get_error_name(code).to_owned()))?;
                let frame = self.packed.get(..frame).ok_or_else(|| damaged("its frame is cut off".to_owned()))?;
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(Error::io("starting zstd"))?),
                };
                zstd.decompress_to_buffer(frame, whole).map_err(|error| damaged(error.to_string()))
            }
        }
    }
}
