//! Where a converted image goes.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;

use crate::{Error, Result};

/// Takes an image piece by piece, in ascending order and without overlaps; what is not given is zeros.
pub trait Pieces: Send {
    /// Bytes at `offset`.
    fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// The image's length: no piece ends behind it, and none comes after it is known.
    fn finish(&mut self, len: u64) -> Result<()>;
}

/// A file that takes bytes anywhere, or what takes them in order.
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
    /// In order only; holes are not written at all.
    Pieces {
        /// Where to.
        to: &'a mut dyn Pieces,
        /// Where the next piece may begin.
        end: u64,
    },
}

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

impl<'a> Out<'a> {
    /// In order.
    pub fn stream(to: &'a mut (dyn Write + Send)) -> Self {
        Self::Stream { to, written: 0 }
    }
    /// In order, without what is only zeros.
    pub fn pieces(to: &'a mut dyn Pieces) -> Self {
        Self::Pieces { to, end: 0 }
    }
    /// Can bytes be written out of order?
    pub fn can_seek(&self) -> bool {
        matches!(self, Self::File(_))
    }
    /// Writes at `offset`. What takes bytes in order takes an offset at or behind what was written; in a stream the
    /// gap is filled with zeros.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File(file) => file.write_all_at(bytes, offset).map_err(Error::io("writing the image")),
            Self::Stream { written, .. } => {
                if offset < *written {
                    return Err(not_in_order());
                }
                self.fill_to(offset)?;
                self.push(bytes)
            }
            Self::Pieces { to, end } => {
                if offset < *end {
                    return Err(not_in_order());
                }
                *end = offset + bytes.len() as u64;
                to.piece(offset, bytes)
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
            Self::Pieces { to, .. } => to.finish(len),
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

fn not_in_order() -> Error {
    Error::Usage("this format is not written in order: give it a file instead of a stream".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<(u64, usize)>, Option<u64>);

    impl Pieces for Seen {
        fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
            self.0.push((offset, bytes.len()));
            Ok(())
        }
        fn finish(&mut self, len: u64) -> Result<()> {
            self.1 = Some(len);
            Ok(())
        }
    }

    #[test]
    fn pieces_come_in_order_and_holes_do_not_come_at_all() {
        let mut seen = Seen::default();
        let mut out = Out::pieces(&mut seen);
        assert!(!out.can_seek());
        out.write_at(4096, &[1; 512]).unwrap();
        out.write_at(1 << 30, &[2; 7]).unwrap();
        assert!(out.write_at(1 << 30, &[3]).unwrap_err().to_string().contains("not written in order"));
        out.finish(1 << 40).unwrap();
        assert_eq!(seen.0, [(4096, 512), (1 << 30, 7)]);
        assert_eq!(seen.1, Some(1 << 40));
    }
}
