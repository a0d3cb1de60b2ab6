//! `project`: what a session would do, by running the very same `decide` and `apply` forward over
//! expected run times. This is the dry run (`skein plan`) and the estimate shown before a start.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::cost::expected_ms;
use super::policy::Policy;
use super::reason::{Choice, Reason};
use super::snapshot::Snapshot;
use crate::attempt::{AttemptEnd, EndCause, Place};
use crate::event::{Event, Then};
use crate::id::{AttemptKey, ItemKey, NodeKey, SessionId};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::ItemEnd;

/// Most items a projection places; what is beyond is counted only.
pub const PROJECT_ITEMS_MAX: usize = 100_000;

/// One item of a projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectedItem {
    /// Which.
    pub item: ItemKey,
    /// Where it would run.
    pub place: Place,
    /// Why there.
    pub choice: Choice,
    /// From now, ms.
    pub start_ms: u64,
    /// From now, ms.
    pub end_ms: u64,
    /// Expected cost.
    pub cost: NanoUsd,
}

/// A session's expected course.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projection {
    /// Items in order of their start.
    pub items: Vec<ProjectedItem>,
    /// Nodes whose items would find no place, and why.
    pub stuck: Vec<(NodeKey, Reason)>,
    /// Until the last item ends, ms from now.
    pub total_ms: u64,
    /// Sum of expected costs.
    pub cost: NanoUsd,
    /// It was cut at [`PROJECT_ITEMS_MAX`].
    pub cut: bool,
}

/// Runs `session` forward from `now`, every other open session with it.
pub fn project(snapshot: &Snapshot, policy: &Policy, session: SessionId, now: Timestamp) -> Projection {
    let mut world = snapshot.clone();
    let mut result = Projection::default();
    let mut ends: BTreeSet<(Timestamp, AttemptKey)> = BTreeSet::new();
    for attempt in snapshot.attempts.values() {
        ends.insert((end_of(snapshot, policy, attempt.key, &attempt.place, attempt.started_at.unwrap_or(now)).max(now), attempt.key));
    }
    let mut at = now;
    while world.sessions.contains_key(&session) {
        let plan = super::plan::decide(&world, policy, at);
        let wake = plan.next_wake;
        for placed in &plan.assignments {
            let key = placed.item.attempt(placed.number);
            let end = end_of(&world, policy, key, &placed.place, at);
            ends.insert((end, key));
            if placed.item.session() == session {
                result.cost += placed.cost;
                result.items.push(ProjectedItem {
                    item: placed.item,
                    place: placed.place.clone(),
                    choice: placed.choice.clone(),
                    start_ms: at.ms_since(now),
                    end_ms: end.ms_since(now),
                    cost: placed.cost,
                });
            }
        }
        if result.items.len() >= PROJECT_ITEMS_MAX {
            result.cut = true;
            break;
        }
        let waiting: Vec<_> = plan.waiting.iter().filter(|w| w.session == session).map(|w| (w.node, w.reason.clone())).collect();
        let idle = plan.assignments.is_empty() && plan.releases.is_empty();
        let turn = world.turn + 1;
        let events = plan.into_events(&world, turn, at);
        world.apply_all(turn, at, events);
        let next_end = ends.first().map(|(end, _)| *end);
        let Some(next) = [next_end, wake.filter(|w| *w > at)].into_iter().flatten().min() else {
            if idle {
                result.stuck = waiting;
                break;
            }
            continue;
        };
        at = next;
        finish_until(&mut world, &mut ends, at);
    }
    result.total_ms = result.items.iter().map(|i| i.end_ms).max().unwrap_or(0);
    result
}

fn end_of(world: &Snapshot, policy: &Policy, key: AttemptKey, place: &Place, start: Timestamp) -> Timestamp {
    let run = world.node(key.item.node).map_or(0, |node| expected_ms(&node.profile, policy));
    let cold = match place {
        Place::Gateway(id) => world.solutions.get(id).and_then(|s| s.shared()).map_or(0, |s| s.cold_start_ms),
        Place::Instance(_) => 0,
    };
    // At least a millisecond, so that time moves on.
    start.after_ms((run + cold).max(1))
}

fn finish_until(world: &mut Snapshot, ends: &mut BTreeSet<(Timestamp, AttemptKey)>, at: Timestamp) {
    let mut events = Vec::new();
    while let Some((_, attempt)) = ends.first().copied().filter(|(end, _)| *end <= at) {
        ends.pop_first();
        let end = AttemptEnd::bare(EndCause::Succeeded);
        events.push(Event::Ended { attempt, end, then: Then::End(ItemEnd::Succeeded) });
    }
    let turn = world.turn + 1;
    world.apply_all(turn, at, events);
}
