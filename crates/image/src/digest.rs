//! What an image is, as one number: BLAKE3 over the BLAKE3 of each MiB of its disk, with its size. A MiB of zeros
//! has a digest known beforehand, so the cost follows the data; and a part can be checked without the rest.

use std::sync::LazyLock;

use crate::convert::Progress;
use crate::{Disk, Result};

/// Bytes of a leaf.
pub const LEAF_BYTES: usize = 1 << 20;

/// Digest of a leaf.
pub type Leaf = [u8; 32];

static ZERO: LazyLock<Leaf> = LazyLock::new(|| leaf(&vec![0; LEAF_BYTES]));

/// Of one MiB; the last of a disk is filled up with zeros.
pub fn leaf(content: &[u8]) -> Leaf {
    *blake3::hash(content).as_bytes()
}

/// Of a disk of `size` bytes whose leaves that are not zero are `leaves`, by number.
pub fn root(size: u64, leaves: &std::collections::BTreeMap<u64, Leaf>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    for number in 0..size.div_ceil(LEAF_BYTES as u64) {
        hasher.update(leaves.get(&number).unwrap_or(&ZERO));
    }
    hasher.finalize().to_hex().to_string()
}

/// Of a disk, read from end to end.
pub fn of(disk: &dyn Disk, threads: usize, progress: &dyn Progress) -> Result<String> {
    let mut leaves = std::collections::BTreeMap::new();
    let walk = crate::blocks::Walk { disk, block_bytes: LEAF_BYTES, threads, progress };
    walk.run(
        || (),
        |(), _, block| Ok(leaf(block)),
        |number, leaf| {
            leaves.insert(number, leaf);
            Ok(())
        },
    )?;
    Ok(root(disk.size(), &leaves))
}

/// SHA-256 of a file, piece by piece: what its publisher says of it.
pub struct Sha256(ring::digest::Context);

impl Sha256 {
    /// Of nothing so far.
    #[expect(clippy::new_without_default, reason = "what a digest of nothing would be for")]
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
    /// And of these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// As 64 hexadecimal digits.
    pub fn finish(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

/// Two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
