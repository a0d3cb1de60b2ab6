//! Images come compressed as a whole, in gzip, xz or zstd. They are made whole in a file, as every reader wants to
//! go back and forth in them; what is zero stays a hole.

use std::fs::File;
use std::io::{BufReader, Read};

use crate::blocks::runs;
use crate::bytes::InOrder;
use crate::convert::Progress;
use crate::{Budget, Bytes, Error, Out, Result};

/// What a whole image is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapper {
    /// Deflate in gzip's members.
    Gzip,
    /// LZMA2 in xz's streams.
    Xz,
    /// Zstandard's frames.
    Zstd,
}

impl Wrapper {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
}

/// Bytes made whole between two looks at the budget; what is written together.
const STEP_BYTES: usize = 1 << 20;
/// Pieces that are left out when they are zero.
const PIECE_BYTES: usize = 1 << 16;
/// Largest window that a decoder may ask for: 2^27 bytes. The highest levels of xz ask for 2^26.
const WINDOW_LOG_MAX: u32 = 27;
/// The same for xz, KiB, with what its decoder needs besides.
const XZ_KIB_MAX: u32 = (1 << (WINDOW_LOG_MAX - 10)) + 1024;

/// By the first bytes. A gzip can hold Google's tar as well: that is found out by looking inside.
pub fn detect_wrapper(bytes: &dyn Bytes) -> Result<Option<Wrapper>> {
    let known = usize::try_from(bytes.len()).unwrap_or(usize::MAX).min(6);
    let head = crate::bytes::read_vec(bytes, 0, known)?;
    let known: [(&[u8], Wrapper); 3] = [
        (&[0x1f, 0x8b, 8], Wrapper::Gzip),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], Wrapper::Xz),
        (&[0x28, 0xb5, 0x2f, 0xfd], Wrapper::Zstd),
    ];
    Ok(known.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, wrapper)| wrapper))
}

/// Writes what is in the wrapper to a file, which is emptied first; returns its length, bytes. Ends when the budget
/// is used up: what was written by then is at most [`STEP_BYTES`] more.
pub fn unwrap_to(bytes: &dyn Bytes, to: &File, budget: &Budget, progress: &dyn Progress) -> Result<u64> {
    let wrapper = detect_wrapper(bytes)?.ok_or_else(|| {
        Error::Usage("the file is compressed neither with gzip nor with xz nor with zstd: read it as it is".to_owned())
    })?;
    // What the file held before would show through the holes.
    to.set_len(0).map_err(Error::io("emptying the file to write to"))?;
    let reader = BufReader::with_capacity(1 << 18, InOrder::new(bytes));
    let whole: Box<dyn Read + '_> = match wrapper {
        Wrapper::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Wrapper::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_KIB_MAX)),
        Wrapper::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader).map_err(Error::io("starting zstd"))?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(Error::io("starting zstd"))?;
            Box::new(decoder)
        }
    };
    let mut copy = Copy { whole, wrapper, out: Out::File(to), at: 0, data: 0 };
    copy.run(bytes.len(), budget, progress)
}

struct Copy<'a> {
    whole: Box<dyn Read + 'a>,
    wrapper: Wrapper,
    out: Out<'a>,
    /// Bytes made whole, and how many of them are no holes.
    at: u64,
    data: u64,
}

impl Copy<'_> {
    fn run(&mut self, file_bytes: u64, budget: &Budget, progress: &dyn Progress) -> Result<u64> {
        let mut buffer = vec![0; STEP_BYTES];
        loop {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let len = self.fill(&mut buffer)?;
            if len == 0 {
                break;
            }
            let part = &buffer[..len];
            budget.virtual_size(self.at + len as u64)?;
            self.data += runs(part, PIECE_BYTES).map(|run| run.len() as u64).sum::<u64>();
            budget.data(file_bytes, self.data)?;
            for run in runs(part, PIECE_BYTES) {
                self.out.write_at(self.at + run.start as u64, &part[run])?;
            }
            self.at += len as u64;
            progress.at(self.at);
        }
        self.out.finish(self.at)?;
        Ok(self.at)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.whole.read(&mut buffer[done..]) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        Ok(done)
    }

    /// The decoders' errors are about the bytes, unless reading them was what failed.
    fn error(&self, error: std::io::Error) -> Error {
        if error.kind() == std::io::ErrorKind::OutOfMemory {
            return Error::Refused(format!(
                "the {} wants a window of over {} MiB: compress it again with a lower level",
                self.wrapper.word(),
                (1u64 << WINDOW_LOG_MAX) >> 20
            ));
        }
        match error.downcast::<Error>() {
            Ok(read) => read,
            Err(other) => Error::corrupt(format!("the {}, after {} bytes: {other}", self.wrapper.word(), self.at)),
        }
    }
}
