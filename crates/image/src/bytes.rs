//! The bytes of an image: positioned reads, nothing else. A reader of a format sees this and cannot open files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::{Error, Result};

/// Random access to bytes that do not change.
pub trait Bytes: Send + Sync {
    /// How many there are.
    fn len(&self) -> u64;
    /// There are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buffer` from `offset`; beyond the end is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// From `offset` on: is it a hole (nothing but zeros, known without reading), and for how many bytes at
    /// least is that so? Never 0 before the end. Whoever does not know says "data to the end".
    fn hole_at(&self, offset: u64) -> Result<(bool, u64)> {
        Ok((false, self.len().saturating_sub(offset)))
    }
}

impl Bytes for Vec<u8> {
    fn len(&self) -> u64 {
        Self::len(self) as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = from.checked_add(buffer.len()).and_then(|to| self.get(from..to));
        buffer.copy_from_slice(part.ok_or_else(|| beyond(offset, buffer.len(), Bytes::len(self)))?);
        Ok(())
    }
}

/// A file, as long as it was when it was opened.
#[derive(Debug)]
pub struct FileBytes {
    file: File,
    len: u64,
}

impl FileBytes {
    /// Of an open file or block device.
    pub fn new(mut file: File) -> Result<Self> {
        use std::io::Seek as _;
        // Of a block device the metadata says 0.
        let len = file.seek(std::io::SeekFrom::End(0)).map_err(Error::io("finding the image's length"))?;
        Ok(Self { file, len })
    }
}

impl Bytes for FileBytes {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(beyond(offset, buffer.len(), self.len));
        }
        self.file.read_exact_at(buffer, offset).map_err(Error::io("reading the image"))
    }
    fn hole_at(&self, offset: u64) -> Result<(bool, u64)> {
        use rustix::fs::{SeekFrom, seek};
        use rustix::io::Errno;
        let rest = self.len.saturating_sub(offset);
        let data = match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(at) => at,
            // Nothing but a hole to the end.
            Err(Errno::NXIO) => return Ok((true, rest)),
            Err(_) => return Ok((false, rest)),
        };
        if data > offset {
            return Ok((true, data.min(self.len) - offset));
        }
        let hole = seek(&self.file, SeekFrom::Hole(offset)).unwrap_or(self.len);
        Ok((false, hole.clamp(offset + 1, self.len.max(offset + 1)) - offset))
    }
}

/// The bytes in order: for decoders.
pub(crate) struct InOrder<'a> {
    bytes: &'a dyn Bytes,
    at: u64,
}

impl<'a> InOrder<'a> {
    pub(crate) fn new(bytes: &'a dyn Bytes) -> Self {
        Self { bytes, at: 0 }
    }
}

impl std::io::Read for InOrder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.bytes.len().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        self.bytes.read_at(self.at, &mut buffer[..len]).map_err(std::io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }
}

fn beyond(offset: u64, wanted: usize, len: u64) -> Error {
    Error::corrupt(format!("{wanted} bytes at {offset} are asked for, but the file ends at {len}"))
}

/// A whole table or header, its size checked by the caller.
pub(crate) fn read_vec(bytes: &dyn Bytes, offset: u64, len: usize) -> Result<Vec<u8>> {
    if offset.checked_add(len as u64).is_none_or(|end| end > bytes.len()) {
        return Err(beyond(offset, len, bytes.len()));
    }
    let mut buffer = vec![0; len];
    bytes.read_at(offset, &mut buffer)?;
    Ok(buffer)
}

/// Numbers in a header: `be`/`le` as the format stores them; out of bounds is 0, which every format refuses.
pub(crate) mod field {
    fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
    }
    pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes(array(bytes, at))
    }
    pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(array(bytes, at))
    }
    pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(array(bytes, at))
    }
    pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
        u16::from_le_bytes(array(bytes, at))
    }
    pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(array(bytes, at))
    }
    pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(array(bytes, at))
    }
}
