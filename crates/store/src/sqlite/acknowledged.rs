//! The last turn that was acknowledged, kept outside the database: a log that was cut, emptied or left out of a
//! copy looks like a whole one, only shorter.
//!
//! It is written after a commit and never before, so it is never ahead of the ledger; it is not synced, so after
//! a power cut it may be behind. What cannot be read says nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Its file, beside the database.
pub(super) const FILE: &str = "ledger.turn";
const MAGIC: &[u8; 8] = b"skeinTrn";
const BYTES: usize = 24;

/// The file, open for writing, and what was last written to it.
#[derive(Debug)]
pub(super) struct Acknowledged {
    file: Option<File>,
    turn: u64,
}

impl Acknowledged {
    /// In the ledger's folder; where it cannot be made, the ledger goes on without.
    pub(super) fn open(dir: &Path, turn: u64) -> Self {
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(FILE));
        if let Err(error) = &opened {
            tracing::warn!(%error, "the last acknowledged turn is not kept beside the ledger");
        }
        let mut acknowledged = Self { file: opened.ok(), turn };
        acknowledged.note(turn);
        acknowledged
    }

    /// This turn is on disk. A failure only leaves the file behind.
    pub(super) fn note(&mut self, turn: u64) {
        self.turn = turn;
        self.try_again().ok();
    }

    /// Writes the same again.
    pub(super) fn try_again(&self) -> std::io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.write_all_at(&bytes(self.turn), 0))
    }
}

/// What the file in `dir` tells, if it can be read.
pub(super) fn read(dir: &Path) -> Option<u64> {
    let found = std::fs::read(dir.join(FILE)).ok()?;
    let turn = u64::from_le_bytes(found.get(8..16)?.try_into().ok()?);
    (found == bytes(turn)).then_some(turn)
}

fn bytes(turn: u64) -> [u8; BYTES] {
    let mut all = [0; BYTES];
    all[..8].copy_from_slice(MAGIC);
    all[8..16].copy_from_slice(&turn.to_le_bytes());
    // FNV-1a: a write of so few bytes is torn rarely, and only chance is to be told from a turn.
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    let sum = all[..16].iter().fold(0xCBF2_9CE4_8422_2325, mix);
    all[16..].copy_from_slice(&sum.to_le_bytes());
    all
}
