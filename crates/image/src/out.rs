//! Where a converted image goes.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;

use crate::{Error, Result};

/// A file that takes bytes anywhere, or a stream that takes them in order.
pub enum Out<'a> {
    /// Any place, in any order; what is not written is a hole.
    File(&'a File),
    /// In order only; holes are written as zeros.
    Stream {
        /// Where to.
        to: &'a mut (dyn Write + Send),
        /// Bytes written so far.
        written: u64,
    },
}

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

impl<'a> Out<'a> {
    /// In order.
    pub fn stream(to: &'a mut (dyn Write + Send)) -> Self {
        Self::Stream { to, written: 0 }
    }
    /// Can bytes be written out of order?
    pub fn can_seek(&self) -> bool {
        matches!(self, Self::File(_))
    }
    /// Writes at `offset`. A stream takes an offset at or behind what was written; the gap is filled with zeros.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File(file) => file.write_all_at(bytes, offset).map_err(Error::io("writing the image")),
            Self::Stream { written, .. } => {
                if offset < *written {
                    return Err(Error::Usage(
                        "this format is not written in order: give it a file instead of a stream".to_owned(),
                    ));
                }
                self.fill_to(offset)?;
                self.push(bytes)
            }
        }
    }
    /// The image's final length: what is missing at its end is zeros.
    pub fn finish(&mut self, len: u64) -> Result<()> {
        match self {
            Self::File(file) => file.set_len(len).map_err(Error::io("setting the image's length")),
            Self::Stream { .. } => {
                self.fill_to(len)?;
                let Self::Stream { to, .. } = self else { return Ok(()) };
                to.flush().map_err(Error::io("writing the image"))
            }
        }
    }

    fn fill_to(&mut self, offset: u64) -> Result<()> {
        loop {
            let Self::Stream { written, .. } = self else { return Ok(()) };
            let gap = usize::try_from(offset.saturating_sub(*written)).unwrap_or(usize::MAX).min(ZEROS.len());
            if gap == 0 {
                return Ok(());
            }
            self.push(&ZEROS[..gap])?;
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if let Self::Stream { to, written } = self {
            to.write_all(bytes).map_err(Error::io("writing the image"))?;
            *written += bytes.len() as u64;
        }
        Ok(())
    }
}
