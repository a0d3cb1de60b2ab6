//! Where a converted image goes.
//!
//! Some formats have their header or a table before the data and know it only after them. For a file that is nothing;
//! [`convert_in_order`] writes them to what takes bytes in order without a temporary file: the image is made twice, and
//! the first time only what was written late is kept ([`Late`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;

use crate::convert::{Options, Progress, Report, convert};
use crate::{Disk, Error, Format, Result};

/// Bytes that a format may write late: tables of a disk of many terabytes.
const LATE_BYTES_MAX: u64 = 32 << 20;

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
    /// Nowhere; what is written late is kept.
    Looking(&'a mut Late),
    /// In order, with what will be written late.
    Patched {
        /// Where to.
        to: &'a mut dyn Pieces,
        /// What will be written late.
        late: &'a Late,
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
        matches!(self, Self::File(_) | Self::Looking(_) | Self::Patched { .. })
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
            Self::Looking(late) => late.look(offset, bytes),
            Self::Patched { to, late, end } => {
                // What begins before the end is known from the first time.
                let known = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
                let (from, rest) = (offset + known as u64, &bytes[known..]);
                late.fill(*to, *end, from)?;
                *end = (*end).max(from + rest.len() as u64);
                late.patch(*to, from, rest)
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
            Self::Looking(_) => Ok(()),
            Self::Patched { to, late, end } => {
                late.fill(*to, *end, len)?;
                to.finish(len)
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

/// What a format writes at places that it went past before.
#[derive(Debug, Default)]
pub struct Late {
    /// Up to where it went.
    end: u64,
    /// By offset; none touches another.
    patches: BTreeMap<u64, Vec<u8>>,
    bytes: u64,
}

impl Late {
    fn look(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let late = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        self.end = self.end.max(offset + bytes.len() as u64);
        if late == 0 {
            return Ok(());
        }
        self.bytes += late as u64;
        if self.bytes > LATE_BYTES_MAX {
            return Err(Error::OverBudget {
                what: "what this format writes before its data".to_owned(),
                limit: "LATE_BYTES_MAX",
                unit: "bytes",
                asked: self.bytes,
                most: LATE_BYTES_MAX,
            });
        }
        if self.between(offset, offset + late as u64).next().is_some() {
            return Err(not_in_order());
        }
        self.patches.insert(offset, bytes[..late].to_vec());
        Ok(())
    }

    /// Parts of patches within these bounds, in order.
    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &[u8])> {
        let first = self.patches.range(..=from).next_back().map_or(from, |(at, _)| *at);
        self.patches.range(first..to).filter_map(move |(at, bytes)| {
            let place = |bound: u64| usize::try_from(bound.saturating_sub(*at)).unwrap_or(usize::MAX).min(bytes.len());
            let part = bytes.get(place(from)..place(to)).filter(|part| !part.is_empty())?;
            Some((from.max(*at), part))
        })
    }

    /// What is late between two pieces.
    fn fill(&self, to: &mut dyn Pieces, from: u64, end: u64) -> Result<()> {
        self.between(from, end.max(from)).try_for_each(|(at, part)| to.piece(at, part))
    }

    /// A piece, with what is written over it later.
    fn patch(&self, to: &mut dyn Pieces, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut patched = std::borrow::Cow::Borrowed(bytes);
        for (at, part) in self.between(offset, offset + bytes.len() as u64) {
            let at = usize::try_from(at - offset).unwrap_or(usize::MAX);
            patched.to_mut()[at..at + part.len()].copy_from_slice(part);
        }
        if patched.is_empty() { Ok(()) } else { to.piece(offset, &patched) }
    }
}

/// Only whether it is to end: the second time counts.
struct FirstTime<'a>(&'a dyn Progress);

impl Progress for FirstTime<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Writes `disk` in any format, in order. A format whose header depends on its data is made twice.
pub fn convert_in_order(
    disk: &dyn Disk,
    to: &mut dyn Pieces,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report> {
    if !matches!(options.format, Format::Qcow2 | Format::Vdi) {
        return convert(disk, &mut Out::pieces(to), options, progress);
    }
    let mut late = Late::default();
    convert(disk, &mut Out::Looking(&mut late), options, &FirstTime(progress))?;
    convert(disk, &mut Out::Patched { to, late: &late, end: 0 }, options, progress)
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

    impl Pieces for Vec<u8> {
        fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
            let at = usize::try_from(offset).unwrap();
            assert!(at >= self.len(), "a piece at {at} after {}", self.len());
            self.resize(at, 0);
            self.extend_from_slice(bytes);
            Ok(())
        }
        fn finish(&mut self, len: u64) -> Result<()> {
            self.resize(usize::try_from(len).unwrap(), 0);
            Ok(())
        }
    }

    #[test]
    fn every_format_is_written_in_order_as_it_is_written_to_a_file() {
        let mut raw = vec![0; 9 << 20];
        for (n, byte) in raw.iter_mut().enumerate().filter(|(n, _)| n / 300_000 % 3 == 1) {
            *byte = u8::try_from(n * n % 251).unwrap();
        }
        let disk = crate::format::open(std::sync::Arc::new(raw), Format::Raw, &crate::Budget::default()).unwrap();
        let forms = Format::ALL.into_iter().map(Options::new);
        let packed = [crate::convert::Compression::Zlib, crate::convert::Compression::Zstd];
        let packed = packed.map(|compression| Options { compression, ..Options::new(Format::Qcow2) });
        for options in forms.chain(packed) {
            let (file, mut in_order) = (tempfile::tempfile().unwrap(), Vec::new());
            let to_file = convert(disk.as_ref(), &mut Out::File(&file), &options, &()).unwrap();
            let report = convert_in_order(disk.as_ref(), &mut in_order, &options, &()).unwrap();
            let mut expected = vec![0; usize::try_from(to_file.bytes).unwrap()];
            file.read_exact_at(&mut expected, 0).unwrap();
            assert_eq!(report, to_file, "{}", options.format);
            assert!(in_order == expected, "{}: other bytes", options.format);
        }
    }

    #[test]
    fn what_is_written_late_stands_where_it_belongs() {
        let writes: &[(u64, &[u8])] = &[(4, b"dddd"), (2, b"cc"), (12, b"ffff"), (5, b"DD"), (0, b"a"), (8, b"eeeeE")];
        let mut late = Late::default();
        let mut out = Out::Looking(&mut late);
        for (at, bytes) in writes {
            out.write_at(*at, bytes).unwrap();
        }
        let mut got = Vec::new();
        let mut out = Out::Patched { to: &mut got, late: &late, end: 0 };
        for (at, bytes) in writes {
            out.write_at(*at, bytes).unwrap();
        }
        out.finish(17).unwrap();
        assert_eq!(got, b"a\0ccdDDdeeeeEfff\0");
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
