//! The image's bytes: positioned reads, and numbers in them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail};

/// Most that is read at once, bytes: tables of the largest images that clouds take.
const READ_MAX: u64 = 512 << 20;

/// A file.
pub(crate) struct Input<'a> {
    pub(crate) file: &'a File,
    pub(crate) len: u64,
}

impl<'a> Input<'a> {
    pub(crate) fn new(file: &'a File) -> Result<Self> {
        Ok(Self { file, len: file.metadata().context("the file's length")?.len() })
    }
    /// `len` bytes at `offset`.
    pub(crate) fn at(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        if len > READ_MAX || offset.checked_add(len).is_none_or(|end| end > self.len) {
            bail!("{len} bytes at {offset} are not in the file, which has {}", self.len);
        }
        let mut bytes = vec![0; usize::try_from(len)?];
        self.file.read_exact_at(&mut bytes, offset).context("reading the image")?;
        Ok(bytes)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

macro_rules! numbers {
    ($($name:ident $type:ty, $from:ident;)*) => {
        $(pub(crate) fn $name(bytes: &[u8], at: usize) -> $type {
            <$type>::$from(array(bytes, at))
        })*
    };
}
numbers! {
    be16 u16, from_be_bytes;
    be32 u32, from_be_bytes;
    be64 u64, from_be_bytes;
    le16 u16, from_le_bytes;
    le32 u32, from_le_bytes;
    le64 u64, from_le_bytes;
}

/// Places in a file, which must not share a byte.
#[derive(Default)]
pub(crate) struct Places(Vec<(u64, u64, &'static str)>);

impl Places {
    pub(crate) fn add(&mut self, what: &'static str, offset: u64, len: u64) {
        self.0.push((offset, offset.saturating_add(len), what));
    }
    /// Two that share bytes, in words.
    pub(crate) fn overlap(&mut self) -> Option<String> {
        self.0.sort_unstable();
        let shared = self.0.windows(2).find(|pair| pair[0].1 > pair[1].0)?;
        Some(format!("{} at {} and {} at {} share bytes", shared[0].2, shared[0].0, shared[1].2, shared[1].0))
    }
}

/// All zero?
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
