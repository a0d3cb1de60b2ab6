//! What an image is, as one number: BLAKE3 over the BLAKE3 of each MiB of its disk, with its size. A MiB of zeros
//! has a digest known beforehand, so the cost follows the data; and a part can be checked without the rest.

use std::sync::LazyLock;

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
