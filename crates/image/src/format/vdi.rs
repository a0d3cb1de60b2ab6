//! `VirtualBox`'s format: a header, a map with one entry for each block, the blocks. Dynamic and static images are
//! read, dynamic ones written; differences to a parent are refused.

use std::sync::Arc;

use crate::blocks::{Spare, Walk, runs};
use crate::bytes::{field, read_vec};
use crate::convert::{Options, Progress, Report};
use crate::{Budget, Bytes, Disk, Error, Extent, Kind, Out, Result};

const TEXT: &[u8] = b"<<< Skein: VirtualBox Disk Image >>>\n";
const SIGNATURE: u32 = 0xbeda_107f;
const VERSION: u32 = 0x0001_0001;
const DYNAMIC: u32 = 1;
const STATIC: u32 = 2;
const UNDO: u32 = 3;
const SECTOR: u64 = 512;

/// Where things stand in the header.
const AT_SIGNATURE: usize = 0x40;
const AT_VERSION: usize = 0x44;
const AT_HEADER_LEN: usize = 0x48;
const AT_KIND: usize = 0x4c;
const AT_MAP: usize = 0x154;
const AT_DATA: usize = 0x158;
const AT_SECTOR: usize = 0x168;
const AT_SIZE: usize = 0x170;
const AT_BLOCK: usize = 0x178;
const AT_BLOCK_EXTRA: usize = 0x17c;
const AT_BLOCKS: usize = 0x180;
const AT_ALLOCATED: usize = 0x184;
const AT_UUID: usize = 0x188;
const AT_UUID_SNAPSHOT: usize = 0x198;
const AT_UUID_LINK: usize = 0x1a8;
const AT_UUID_PARENT: usize = 0x1b8;
const HEADER_BYTES: usize = 512;
/// Its length as the header has it: up to the parent's UUID, counted from its own field.
const HEADER_LEN: u32 = 0x180;

/// The block is nowhere, or was given back: from here on, entries are no numbers.
const NOWHERE: u32 = 0xffff_ffff;
const DISCARDED: u32 = 0xffff_fffe;

/// Blocks that are written.
const BLOCK_BYTES: u64 = 1 << 20;
/// What is zero within a block is left out in pieces of this.
const PIECE_BYTES: usize = 1 << 16;
/// The blocks begin at a multiple of this.
const DATA_ALIGN: u64 = 4096;
/// A data extent is at most so long: who asks again and again must not go over the whole map each time.
const RUN_MAX: u64 = 16 << 20;

/// A VDI image.
pub(super) struct Vdi {
    bytes: Arc<dyn Bytes>,
    size: u64,
    block: u64,
    /// Where the first block is.
    data_at: u64,
    map: Vec<u32>,
}

impl Vdi {
    /// Of these bytes.
    pub(super) fn open(bytes: Arc<dyn Bytes>, budget: &Budget) -> Result<Self> {
        let known = usize::try_from(bytes.len()).unwrap_or(HEADER_BYTES).min(HEADER_BYTES);
        let head = read_vec(&*bytes, 0, known)?;
        if known < HEADER_BYTES || field::le32(&head, AT_SIGNATURE) != SIGNATURE {
            return Err(Error::corrupt("this is no VDI header"));
        }
        kind(&head)?;
        let size = field::le64(&head, AT_SIZE)
            .checked_next_multiple_of(SECTOR)
            .ok_or_else(|| Error::corrupt("the disk's size is no number of sectors"))?;
        budget.virtual_size(size)?;
        let block = u64::from(field::le32(&head, AT_BLOCK));
        if !block.is_power_of_two() || !(SECTOR..=1 << 30).contains(&block) {
            return Err(Error::corrupt(format!("blocks of {block} bytes")));
        }
        let (needed, blocks) = (size.div_ceil(block), u64::from(field::le32(&head, AT_BLOCKS)));
        if blocks < needed {
            return Err(Error::corrupt(format!("the map has {blocks} blocks, the size needs {needed}")));
        }
        let (map_at, data_at) = (u64::from(field::le32(&head, AT_MAP)), u64::from(field::le32(&head, AT_DATA)));
        let aligned = map_at.is_multiple_of(SECTOR) && data_at.is_multiple_of(SECTOR);
        if !aligned || map_at < HEADER_BYTES as u64 || map_at + blocks * 4 > data_at {
            return Err(Error::corrupt(format!(
                "the header's end, the map ({blocks} entries at {map_at}) and the blocks (at {data_at}) overlap"
            )));
        }
        // Twice: once more, sorted, to find those that share a block.
        budget.metadata("the VDI's block map", needed * 8)?;
        let map = read_vec(&*bytes, map_at, usize::try_from(needed * 4).unwrap_or(usize::MAX))?;
        let map = map.chunks_exact(4).map(|entry| field::le32(entry, 0)).collect();
        let vdi = Self { bytes, size, block, data_at, map };
        vdi.check_map()?;
        Ok(vdi)
    }

    /// Every block has a place of its own within the file.
    fn check_map(&self) -> Result<()> {
        let mut places: Vec<u32> = Vec::with_capacity(self.map.len());
        for (n, entry) in (0..).zip(&self.map) {
            let Some(host) = self.host(*entry) else { continue };
            let len = self.block.min(self.size - n * self.block);
            if host.checked_add(len).is_none_or(|end| end > self.bytes.len()) {
                return Err(Error::corrupt(format!("block {n} is at {host}, beyond the file's end")));
            }
            places.push(*entry);
        }
        places.sort_unstable();
        match places.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::corrupt(format!("two blocks are at place {}", pair[0]))),
            None => Ok(()),
        }
    }

    fn host(&self, entry: u32) -> Option<u64> {
        (entry < DISCARDED).then(|| self.data_at + u64::from(entry) * self.block)
    }

    /// Where an offset is in the file, if anywhere, and how much of its block follows.
    fn place(&self, offset: u64) -> (Option<u64>, u64) {
        let entry = usize::try_from(offset / self.block).ok().and_then(|n| self.map.get(n));
        let within = offset % self.block;
        (self.host(*entry.unwrap_or(&NOWHERE)).map(|host| host + within), self.block - within)
    }
}

/// Only what is whole by itself.
fn kind(head: &[u8]) -> Result<()> {
    let version = field::le32(head, AT_VERSION);
    if version != VERSION {
        return Err(Error::Unsupported {
            what: format!("VDI version {}.{}", version >> 16, version & 0xffff),
            next_step: "convert it with VirtualBox (VBoxManage clonemedium)".to_owned(),
        });
    }
    let kind = field::le32(head, AT_KIND);
    let names_other = [AT_UUID_LINK, AT_UUID_PARENT].iter().any(|at| head[*at..*at + 16].iter().any(|byte| *byte != 0));
    match kind {
        DYNAMIC | STATIC if !names_other => {}
        DYNAMIC..=4 => {
            let what = if kind == UNDO { "undo" } else { "difference" };
            return Err(Error::Refused(format!(
                "the image is a {what} image that needs its parent: clone the whole disk (VBoxManage clonemedium)"
            )));
        }
        other => return Err(Error::corrupt(format!("a VDI of kind {other}"))),
    }
    if field::le32(head, AT_SECTOR) != 512 {
        return Err(Error::corrupt(format!("sectors of {} bytes", field::le32(head, AT_SECTOR))));
    }
    if field::le32(head, AT_BLOCK_EXTRA) != 0 {
        return Err(Error::Unsupported {
            what: "a VDI with extra bytes before each block".to_owned(),
            next_step: "convert it with VirtualBox (VBoxManage clonemedium)".to_owned(),
        });
    }
    Ok(())
}

impl Disk for Vdi {
    fn size(&self) -> u64 {
        self.size
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let is_data = self.place(offset).0.is_some();
        let mut at = offset;
        while at < self.size && !(is_data && at - offset >= RUN_MAX) {
            let (place, len) = self.place(at);
            if place.is_some() != is_data {
                break;
            }
            at += len;
        }
        let kind = if is_data { Kind::Data } else { Kind::Zero };
        Ok(Extent { kind, len: at.min(self.size).saturating_sub(offset) })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size) {
            return Err(Error::corrupt(format!(
                "{} bytes at {offset} are asked for, but the disk ends at {}",
                buffer.len(),
                self.size
            )));
        }
        let mut done = 0;
        while done < buffer.len() {
            let (place, len) = self.place(offset + done as u64);
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len() - done);
            let part = &mut buffer[done..done + len];
            match place {
                Some(host) => self.bytes.read_at(host, part)?,
                None => part.fill(0),
            }
            done += len;
        }
        Ok(())
    }

    fn piece_bytes(&self) -> u64 {
        self.block
    }
}

/// A dynamic image: its blocks in the disk's order, the map and the header last.
pub(super) fn write(disk: &dyn Disk, out: &mut Out<'_>, options: &Options, progress: &dyn Progress) -> Result<Report> {
    if !out.can_seek() {
        return Err(Error::Usage(
            "a VDI's map is written last, when its blocks have their places: give it a file instead of a stream"
                .to_owned(),
        ));
    }
    let virtual_bytes = super::rounded_size(disk, options.size_multiple)?
        .checked_next_multiple_of(SECTOR)
        .ok_or_else(|| Error::Usage("the disk is too large".to_owned()))?;
    let blocks = virtual_bytes.div_ceil(BLOCK_BYTES);
    let data_at = (HEADER_BYTES as u64 + blocks * 4).next_multiple_of(DATA_ALIGN);
    let Ok(data_field) = u32::try_from(data_at) else {
        return Err(Error::Usage(format!("a VDI cannot hold {virtual_bytes} bytes")));
    };
    let mut map = vec![NOWHERE; usize::try_from(blocks).unwrap_or(0)];
    let mut allocated = 0u32;
    let mut digest = blake3::Hasher::new();
    digest.update(&virtual_bytes.to_le_bytes());
    let block_bytes = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
    let spare = Spare::default();
    let walk = Walk { disk, block_bytes, threads: options.threads, progress };
    walk.run(
        || (),
        |(), _, block| Ok((spare.copy(block), checksums(block))),
        |number, (block, checksums)| {
            digest.update(&number.to_le_bytes());
            digest.update(&checksums);
            map[usize::try_from(number).unwrap_or(usize::MAX)] = allocated;
            let at = data_at + u64::from(allocated) * BLOCK_BYTES;
            for run in runs(&block, PIECE_BYTES) {
                out.write_at(at + run.start as u64, &block[run])?;
            }
            spare.give_back(block);
            allocated += 1;
            Ok(())
        },
    )?;
    let map_bytes: Vec<u8> = map.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    out.write_at(HEADER_BYTES as u64, &map_bytes)?;
    let digest = digest.finalize();
    out.write_at(0, &header(virtual_bytes, data_field, (map.len(), allocated), digest.as_bytes()))?;
    let bytes = data_at + u64::from(allocated) * BLOCK_BYTES;
    out.finish(bytes)?;
    Ok(Report { bytes, virtual_bytes, data_bytes: (u64::from(allocated) * BLOCK_BYTES).min(virtual_bytes) })
}

/// Tells contents apart for the image's UUID, at a small part of the cost of a digest: `VirtualBox` takes no two
/// disks of one UUID.
fn checksums(block: &[u8]) -> Vec<u8> {
    block.chunks(PIECE_BYTES).flat_map(|piece| crc32c::crc32c(piece).to_le_bytes()).collect()
}

fn header(size: u64, data_at: u32, (blocks, allocated): (usize, u32), digest: &[u8; 32]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, TEXT);
    put(AT_SIGNATURE, &SIGNATURE.to_le_bytes());
    put(AT_VERSION, &VERSION.to_le_bytes());
    put(AT_HEADER_LEN, &HEADER_LEN.to_le_bytes());
    put(AT_KIND, &DYNAMIC.to_le_bytes());
    put(AT_MAP, &(HEADER_BYTES as u64).to_le_bytes()[..4]);
    put(AT_DATA, &data_at.to_le_bytes());
    put(AT_SECTOR, &SECTOR.to_le_bytes()[..4]);
    put(AT_SIZE, &size.to_le_bytes());
    put(AT_BLOCK, &BLOCK_BYTES.to_le_bytes()[..4]);
    put(AT_BLOCKS, &blocks.to_le_bytes()[..4]);
    put(AT_ALLOCATED, &allocated.to_le_bytes());
    put(AT_UUID, &uuid(&digest[..16]));
    put(AT_UUID_SNAPSHOT, &uuid(&digest[16..]));
    header
}

/// RFC 9562, version 8 (made by the vendor's own rule); the fields are little-endian here.
fn uuid(digest: &[u8]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(digest);
    uuid[7] = uuid[7] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}
