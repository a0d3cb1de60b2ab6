//! Reserving: how many instances a shared solution is told to keep warm [0063].
//!
//! ```text
//! items wait that its patience will send there ---> told more, up to `warm_max`   (they start at once then)
//! nothing waits or is open there for a keep-alive -> told fewer, down to `min_warm`
//! ```
//! Deconfliction: it is never told fewer than what is open there, by the planner and again in the turn that writes it
//! down ([`may_keep`]); an instance that works is its owner's to end, and no cloud ends it for being one too many.

use std::collections::BTreeMap;

use super::plan::Pass;
use super::reason::Reason;
use super::snapshot::Snapshot;
use crate::id::SolutionId;

/// A shared solution, and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warm {
    /// Which.
    pub solution: SolutionId,
    /// Instances that it is to keep warm.
    pub warm: u32,
    /// Why.
    pub why: String,
}

/// May it be told to keep so many? Not fewer than work there, but for what its configuration always keeps.
pub fn may_keep(snapshot: &Snapshot, solution: &SolutionId, warm: u32) -> bool {
    let Some(shared) = snapshot.solutions.get(solution).and_then(|s| s.shared()) else { return false };
    let before = snapshot.warm.get(solution).map_or(0, |(warm, _)| *warm);
    warm >= before || warm >= snapshot.open_in(solution).min(shared.warm_max)
}

/// What shared solutions are told, into the plan.
pub(super) fn reserve(pass: &mut Pass<'_>) {
    let snapshot = pass.overlay.snapshot;
    let coming = coming(pass);
    for (id, solution) in &snapshot.solutions {
        let Some(shared) = solution.shared() else { continue };
        let open = pass.overlay.open_in(id);
        let expected = coming.get(id).copied().unwrap_or(0).saturating_add(open);
        let wanted = expected.clamp(shared.min_warm, shared.warm_max.max(shared.min_warm));
        let said = snapshot.warm.get(id).copied();
        let why = match said {
            None if wanted > 0 => "what is kept from the start".to_owned(),
            Some((before, _)) if wanted > before => format!("{expected} items are there or about to come"),
            Some((before, since)) if wanted < before => {
                let due = since.after_ms(shared.keepalive_ms);
                if due > pass.now {
                    pass.plan.wake_at(due);
                    continue;
                }
                format!("{expected} items are there or about to come, for {} s", pass.now.ms_since(since) / 1_000)
            }
            _ => continue,
        };
        pass.plan.warm.push(Warm { solution: id.clone(), warm: wanted, why });
    }
}

/// Items that wait for a machine and will go to a shared solution when their patience is over.
fn coming(pass: &Pass<'_>) -> BTreeMap<SolutionId, u32> {
    let snapshot = pass.overlay.snapshot;
    let mut coming = BTreeMap::new();
    for waiting in &pass.plan.waiting {
        let Some(node) = snapshot.node(waiting.node) else { continue };
        let Some(plan) = snapshot.capacity_of(&node.profile.demand()) else { continue };
        if matches!(waiting.reason, Reason::WaitsForCheaper { .. } | Reason::ConcurrencyReached { .. }) {
            let items: &mut u32 = coming.entry(plan.shared.clone()).or_default();
            *items = items.saturating_add(pass.left(waiting.node));
        }
    }
    coming
}
