//! Which clusters of the file are used, and for what: two bits each.

use crate::{Error, Result};

/// What a cluster of the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A table, or one cluster of the disk: nobody else may point there.
    Alone,
    /// Compressed clusters: several share one.
    Packed,
}

/// The clusters of the file that something points at.
#[derive(Debug)]
pub(super) struct Taken {
    cluster_bits: u32,
    clusters: u64,
    bits: Vec<u8>,
}

impl Taken {
    /// Bytes that it takes for a file.
    pub(super) fn bytes_for(file_len: u64, cluster_bits: u32) -> u64 {
        file_len.div_ceil(1 << cluster_bits).div_ceil(4)
    }

    pub(super) fn new(file_len: u64, cluster_bits: u32) -> Self {
        let bytes = usize::try_from(Self::bytes_for(file_len, cluster_bits)).unwrap_or(usize::MAX);
        Self { cluster_bits, clusters: file_len.div_ceil(1 << cluster_bits), bits: vec![0; bytes] }
    }

    /// `len` bytes at `at` are used by `what`.
    pub(super) fn take(&mut self, at: u64, len: u64, how: Use, what: &str) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let last = at.checked_add(len - 1).map(|end| end >> self.cluster_bits);
        let Some(last) = last.filter(|last| *last < self.clusters) else {
            return Err(Error::corrupt(format!("{what} points at {at}, beyond the file's end")));
        };
        for cluster in at >> self.cluster_bits..=last {
            let place = usize::try_from(cluster / 4).unwrap_or(usize::MAX);
            let shift = cluster % 4 * 2;
            let slot = self.bits.get_mut(place).ok_or_else(|| Error::corrupt("a cluster beyond the file's end"))?;
            let wanted = match how {
                Use::Alone => 1,
                Use::Packed => 2,
            };
            let now = (*slot >> shift) & 3;
            if now != 0 && (how == Use::Alone || now != wanted) {
                return Err(Error::corrupt(format!(
                    "{what} points at {at}, a place that is in use for something else already"
                )));
            }
            *slot |= wanted << shift;
        }
        Ok(())
    }
}
