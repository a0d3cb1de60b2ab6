//! `skein simulate --from-ledger`: what an engine did, decided once more.

use std::path::Path;

use serde_json::json;
use skein_domain::SessionId;
use skein_engine::history;

use crate::failure::{Ended, FAILED, OK, usage};
use crate::output::{self, line};

/// Differences that are printed.
const SHOWN: usize = 5;

/// Replays the ledger in `dir` and compares its orders with what is decided now.
pub(super) fn run(dir: &Path, session: Option<&str>, as_json: bool) -> Ended {
    let session = session.map(|id| id.parse::<SessionId>().map_err(|e| usage(e.to_string()))).transpose()?;
    let replay = history::replay(dir, session).map_err(|e| usage(e.to_string()))?;
    let same = replay.differing == 0;
    if as_json {
        let differences: Vec<_> = replay
            .differences
            .iter()
            .map(|d| json!({"turn": d.turn, "recorded": d.recorded, "decided": d.decided}))
            .collect();
        output::json(&json!({
            "plans": replay.plans, "orders_equal": replay.equal, "orders_differing": replay.differing,
            "differences": differences, "items": replay.played.len(),
        }))?;
    } else {
        line(&format!(
            "{} plans decided once more: {} orders the same, byte for byte, {} otherwise; {} items ended",
            replay.plans,
            replay.equal,
            replay.differing,
            replay.played.len()
        ));
        for difference in replay.differences.iter().take(SHOWN) {
            line(&format!("turn {}:", difference.turn));
            line(&format!("  on record: {}", difference.recorded.as_deref().unwrap_or("nothing")));
            line(&format!("  now:       {}", difference.decided.as_deref().unwrap_or("nothing")));
        }
    }
    Ok(if same { OK } else { FAILED })
}
