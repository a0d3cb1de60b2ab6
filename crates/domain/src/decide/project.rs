//! `project`: what a session would do, by running the very same `decide` and `apply` forward over
//! expected run times. This is the dry run (`skein plan`) and the estimate shown before a start.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::budget::Budgets;
use super::cost::expected_ms;
use super::plan::Plan;
use super::policy::Policy;
use super::reason::{Choice, Reason};
use super::snapshot::Snapshot;
use crate::attempt::{AttemptEnd, EndCause, Place};
use crate::event::{Event, Then};
use crate::id::{AttemptKey, ItemKey, NodeKey, SessionId};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{ItemEnd, ItemState};

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
    // What waits at an agent starts no earlier than what waits here.
    // And no cap holds: it says what everything would cost.
    let policy = &Policy { credit_ms: 0, budgets: Budgets::default(), ..policy.clone() };
    let mut world = Course { world: snapshot.clone(), policy, session, now, ends: BTreeSet::new(), placed: 0 };
    world.world.lift_budgets();
    let mut result = Projection::default();
    for attempt in snapshot.attempts.values() {
        let start = attempt.started_at.unwrap_or(now);
        let end = end_of(snapshot, policy, attempt.key, &attempt.place, start).max(now);
        world.ends.insert((end, attempt.key));
    }
    let mut at = now;
    while world.world.sessions.contains_key(&session) {
        if world.placed >= PROJECT_ITEMS_MAX {
            result.cut = true;
            break;
        }
        let plan = super::plan::decide(&world.world, policy, at);
        let moved = !plan.assignments.is_empty() || !plan.releases.is_empty();
        let (wake, stuck) = (plan.next_wake, world.stuck(&plan));
        world.carry_out(plan, at, &mut result);
        if moved && wake.is_some_and(|wake| wake <= at) {
            continue;
        }
        let next_end = world.ends.first().map(|(end, _)| *end);
        match [next_end, wake.filter(|wake| *wake > at)].into_iter().flatten().min() {
            Some(next) => at = next,
            None if moved => continue,
            None => {
                result.stuck = stuck;
                break;
            }
        }
        world.finish_until(at);
    }
    let ended = !world.world.sessions.contains_key(&session);
    let last = result.items.iter().map(|i| i.end_ms).max().unwrap_or(0);
    result.total_ms = if ended { at.ms_since(now) } else { last };
    result
}

/// A world that runs forward.
struct Course<'a> {
    world: Snapshot,
    policy: &'a Policy,
    session: SessionId,
    now: Timestamp,
    ends: BTreeSet<(Timestamp, AttemptKey)>,
    /// Items of all sessions placed so far.
    placed: usize,
}

impl Course<'_> {
    fn carry_out(&mut self, plan: Plan, at: Timestamp, result: &mut Projection) {
        self.placed += plan.assignments.len();
        for placed in &plan.assignments {
            let key = placed.item.attempt(placed.number);
            let end = end_of(&self.world, self.policy, key, &placed.place, at);
            self.ends.insert((end, key));
            if placed.item.session() == self.session {
                result.cost += placed.cost;
                result.items.push(ProjectedItem {
                    item: placed.item,
                    place: placed.place.clone(),
                    choice: placed.choice.clone(),
                    start_ms: at.ms_since(self.now),
                    end_ms: end.ms_since(self.now),
                    cost: placed.cost,
                });
            }
        }
        let turn = self.world.turn + 1;
        let events = plan.into_events(&self.world, turn, at);
        self.world.apply_all(turn, at, events);
    }

    fn finish_until(&mut self, at: Timestamp) {
        let mut events = Vec::new();
        while let Some((_, attempt)) = self.ends.first().copied().filter(|(end, _)| *end <= at) {
            self.ends.pop_first();
            let end = AttemptEnd::bare(EndCause::Succeeded);
            events.push(Event::Ended { attempt, end, then: Then::End(ItemEnd::Succeeded) });
        }
        let turn = self.world.turn + 1;
        self.world.apply_all(turn, at, events);
    }

    /// The session's nodes that found no place, and those that wait for a person.
    fn stuck(&self, plan: &Plan) -> Vec<(NodeKey, Reason)> {
        let mut stuck = Vec::new();
        let nodes = self.world.sessions.get(&self.session).into_iter().flat_map(|s| s.nodes.iter().enumerate());
        for (at, node) in nodes {
            let key = NodeKey { session: self.session, node: u32::try_from(at).unwrap_or(u32::MAX) };
            let ready = node.links_open == 0 && (node.untouched() > 0 || !node.retry.is_empty());
            if let Some(reason) = plan.reason_of(&self.world, key).filter(|_| ready) {
                stuck.push((key, reason.clone()));
            }
            if node.open.values().any(|state| matches!(state, ItemState::Asking { .. })) {
                stuck.push((key, Reason::AsksPerson));
            }
        }
        stuck
    }
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
