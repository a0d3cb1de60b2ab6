//! What a ledger has on record, decided once more ([`skein_domain::decide::replay`]).

use std::path::Path;

use skein_domain::SessionId;
use skein_domain::decide::replay::Replay;
use skein_store::{Reader as _, SqliteReader};

/// Events read at a time.
const PAGE: u32 = 5_000;

/// Why a history cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum NoHistory {
    /// The ledger cannot be read.
    #[error("the ledger in {dir} cannot be read: {why}")]
    Read {
        /// The engine's folder.
        dir: String,
        /// Why.
        why: String,
    },
    /// It can, but not replayed.
    #[error("the history in {dir} cannot be replayed: {why}")]
    Replay {
        /// The engine's folder.
        dir: String,
        /// Why.
        why: String,
    },
}

/// Replays the ledger of an engine's folder, also while the engine is up: all of it, comparing the orders about one
/// session or about all.
pub fn replay(dir: &Path, session: Option<SessionId>) -> Result<Replay, NoHistory> {
    let shown = || dir.display().to_string();
    let read = |error: skein_store::StoreError| NoHistory::Read { dir: shown(), why: error.to_string() };
    let reader = SqliteReader::open(dir).map_err(read)?;
    let mut replay = Replay::new(session);
    let mut after = 0;
    loop {
        let page = reader.events(after, None, PAGE).map_err(read)?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for row in &page {
            replay.take(row.turn, row.at, &row.event).map_err(|why| NoHistory::Replay { dir: shown(), why })?;
        }
    }
    replay.finish();
    Ok(replay)
}
