//! Limits for what comes from outside. Each is looked at before anything is allocated or written for it.

use crate::{Error, Result};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Limits of one image. The defaults fit what clouds take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Largest virtual disk, bytes.
    pub virtual_bytes_max: u64,
    /// Most bytes of tables held in memory at a time.
    pub metadata_bytes_max: u64,
    /// Most bytes of data that an image may give, for each byte of its file.
    pub ratio_max: u64,
    /// Most bytes of data (zero runs not counted).
    pub data_bytes_max: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { virtual_bytes_max: 64 << 40, metadata_bytes_max: 48 * MIB, ratio_max: 256, data_bytes_max: 16 << 40 }
    }
}

impl Budget {
    /// Is a virtual disk of `bytes` within the limit?
    pub fn virtual_size(&self, bytes: u64) -> Result<()> {
        within("the virtual disk", "virtual_bytes_max", bytes, self.virtual_bytes_max)
    }
    /// May `bytes` of tables be held?
    pub fn metadata(&self, what: &str, bytes: u64) -> Result<()> {
        within(what, "metadata_bytes_max", bytes, self.metadata_bytes_max)
    }
    /// May an image whose file has `file_bytes` give `data_bytes`? A small file may always give a GiB.
    pub fn data(&self, file_bytes: u64, data_bytes: u64) -> Result<()> {
        within("the image's data", "data_bytes_max", data_bytes, self.data_bytes_max)?;
        let most = file_bytes.saturating_mul(self.ratio_max).max(GIB);
        within("what the file expands to", "ratio_max", data_bytes, most)
    }
}

fn within(what: &str, limit: &'static str, asked: u64, most: u64) -> Result<()> {
    if asked <= most {
        return Ok(());
    }
    Err(Error::OverBudget { what: what.to_owned(), limit, unit: "bytes", asked, most })
}
