//! `project`: what a session would do, by running the very same `decide` and `apply` forward over
//! expected run times. This is the dry run (`skein plan`) and the estimate shown before a start.
//!
//! Machines that it would have made come after their typical boot and are paid until the session ends or they are
//! ended before; demand is followed as in the engine ([`super::demand`]), from nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::budget::Budgets;
use super::cost::expected_ms;
use super::demand::{Demands, Zones};
use super::plan::Plan;
use super::policy::{Algorithm, Policy};
use super::reason::{Choice, Reason};
use super::snapshot::Snapshot;
use crate::attempt::{AttemptEnd, EndCause, Place};
use crate::event::{Event, Then};
use crate::id::{AttemptKey, InstanceId, ItemKey, NodeKey, SessionId};
use crate::instance::{InstanceState, Live};
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
    /// How long it would wait for that place, ms.
    #[serde(default)]
    pub wait_ms: u64,
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
    /// Time paid for machines that would be made for it, and for what their items do not use: boots, empty slots.
    pub machine_cost: NanoUsd,
    /// Machines that would be made.
    pub machines: u32,
    /// What the instances that are there cost for that long, whatever they do: owned and reserved.
    pub fixed_cost: NanoUsd,
    /// Wait of an item for its place, in the mean and at most, ms.
    pub wait_mean_ms: u64,
    /// See `wait_mean_ms`.
    pub wait_max_ms: u64,
    /// Time of slots on instances, ms.
    pub instance_ms: u64,
    /// Time of invocations, ms.
    pub gateway_ms: u64,
}

impl Projection {
    /// All that starting it would be paid for: its items, and what machines cost beside them.
    pub fn total_cost(&self) -> NanoUsd {
        self.cost + self.machine_cost
    }
}

/// Runs `session` forward from `now`, every other open session with it.
pub fn project(snapshot: &Snapshot, policy: &Policy, session: SessionId, now: Timestamp) -> Projection {
    // What waits at an agent starts no earlier than what waits here. A user's algorithm is not asked about what may
    // never be: what it would place goes by the default scheme. And no cap holds: it says what everything would cost.
    let algorithm = match &policy.algorithm {
        Algorithm::Custom { .. } => Algorithm::Builtin(policy.balance),
        builtin @ Algorithm::Builtin(_) => builtin.clone(),
    };
    let policy = &Policy { credit_ms: 0, algorithm, budgets: Budgets::default(), ..policy.clone() };
    let mut world = Course {
        world: snapshot.clone(),
        policy,
        session,
        now,
        ends: BTreeSet::new(),
        placed: 0,
        // What a scaling element is told meanwhile nobody knows, so its schedules by UTC are near enough.
        demands: Demands::new(Zones::default()),
        coming: BTreeSet::new(),
        made: BTreeMap::new(),
        shares: NanoUsd::ZERO,
    };
    world.world.lift_budgets();
    let mut result = Projection { fixed_cost: NanoUsd::ZERO, ..Projection::default() };
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
        world.look(at);
        let plan = super::plan::decide(&world.world, policy, at);
        let moved = !plan.assignments.is_empty() || !plan.releases.is_empty();
        let (wake, stuck) = (plan.next_wake, world.stuck(&plan));
        world.carry_out(plan, at, &mut result);
        if moved && wake.is_some_and(|wake| wake <= at) {
            continue;
        }
        let next_end = world.ends.first().map(|(end, _)| *end);
        let next_machine = world.coming.first().map(|(ready, _)| *ready);
        // Looks alone change nothing where nothing runs or comes.
        let waits = next_end.is_some() || next_machine.is_some() || at.ms_since(now) < LOOK_ON_MS;
        let next_look = world.demands.next_look().filter(|_| waits);
        let wake = wake.filter(|wake| *wake > at);
        match [next_end, next_machine, next_look, wake].into_iter().flatten().min() {
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
    world.sum_up(at, &mut result);
    result
}

/// For so long what finds no place may still get machines because it is worth it, ms.
const LOOK_ON_MS: u64 = 120_000;

/// A world that runs forward.
struct Course<'a> {
    world: Snapshot,
    policy: &'a Policy,
    session: SessionId,
    now: Timestamp,
    ends: BTreeSet<(Timestamp, AttemptKey)>,
    /// Items of all sessions placed so far.
    placed: usize,
    demands: Demands,
    /// Machines on their way, by when their agents say hello.
    coming: BTreeSet<(Timestamp, InstanceId)>,
    /// Machines made here: since when they are paid, until when, price per hour.
    made: BTreeMap<InstanceId, (Timestamp, Option<Timestamp>, NanoUsd)>,
    /// What items on them are charged.
    shares: NanoUsd,
}

impl Course<'_> {
    fn happen(&mut self, at: Timestamp, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let turn = self.world.turn + 1;
        for event in self.world.apply_all(turn, at, events) {
            self.demands.observe(&event, at);
        }
    }

    /// Demand as the engine follows it.
    fn look(&mut self, at: Timestamp) {
        self.demands.arrivals(&self.world, self.policy, at);
        self.world.take_changes();
        let events = self.demands.look(&self.world, self.policy, at);
        self.happen(at, events);
    }

    /// Machines whose agents say hello by now.
    fn arrive_until(&mut self, at: Timestamp) {
        while let Some((_, id)) = self.coming.first().cloned().filter(|(ready, _)| *ready <= at) {
            self.coming.pop_first();
            let Some(machine) = self.world.instances.get(&id).filter(|i| i.is_coming()) else { continue };
            let (solution, facts) = (machine.solution.clone(), machine.facts.clone());
            self.happen(at, vec![Event::InstanceReady { instance: id.clone(), solution, facts, boot: String::new() }]);
            self.world.set_live(&id, Live { connected: true, ..Live::default() });
        }
    }

    /// What a plan's events mean for machines: those wanted come later, those ended are gone at once.
    fn machines(&mut self, at: Timestamp, events: &[Event]) {
        for event in events {
            match event {
                Event::InstanceWanted { instance, solution, facts, .. } => {
                    let Some(dedicated) = self.world.solutions.get(solution).and_then(|s| s.dedicated()) else {
                        continue;
                    };
                    let boot_ms = dedicated.machines.as_ref().map_or(0, |m| m.typical_boot_ms);
                    self.made.insert(instance.clone(), (at, None, dedicated.price_of(facts)));
                    self.coming.insert((at.after_ms(boot_ms.max(1)), instance.clone()));
                }
                Event::InstanceEnding { instance, .. } => {
                    if let Some((_, until, _)) = self.made.get_mut(instance) {
                        *until = Some(at);
                    }
                    let why = String::new();
                    self.happen(at, vec![Event::InstanceGone { instance: instance.clone(), why }]);
                }
                _ => {}
            }
        }
    }

    /// Sums over the whole course, which ends at `at`.
    fn sum_up(&self, at: Timestamp, result: &mut Projection) {
        let charge = |price: NanoUsd, ms: u64| NanoUsd::charge(price, ms, 3_600_000);
        let mut paid = NanoUsd::ZERO;
        for (since, until, price) in self.made.values() {
            paid += charge(*price, until.unwrap_or(at).ms_since(*since));
        }
        result.machine_cost = NanoUsd((paid.0 - self.shares.0).max(0));
        result.machines = u32::try_from(self.made.len()).unwrap_or(u32::MAX);
        let there =
            self.world.instances.values().filter(|i| i.state == InstanceState::Ready && !self.made.contains_key(&i.id));
        for instance in there {
            let dedicated = self.world.solutions.get(&instance.solution).and_then(|s| s.dedicated());
            let price = dedicated.map_or(NanoUsd::ZERO, |d| d.price_of(&instance.facts));
            result.fixed_cost += charge(price, result.total_ms);
        }
        let items = u64::try_from(result.items.len()).unwrap_or(u64::MAX).max(1);
        result.wait_mean_ms = result.items.iter().map(|i| i.wait_ms).sum::<u64>() / items;
        result.wait_max_ms = result.items.iter().map(|i| i.wait_ms).max().unwrap_or(0);
        for item in &result.items {
            let lasts_ms = item.end_ms.saturating_sub(item.start_ms);
            let sum =
                if matches!(item.place, Place::Gateway(_)) { &mut result.gateway_ms } else { &mut result.instance_ms };
            *sum += lasts_ms;
        }
    }

    fn carry_out(&mut self, plan: Plan, at: Timestamp, result: &mut Projection) {
        self.placed += plan.assignments.len();
        for placed in &plan.assignments {
            let key = placed.item.attempt(placed.number);
            let end = end_of(&self.world, self.policy, key, &placed.place, at);
            self.ends.insert((end, key));
            if placed.item.session() == self.session {
                result.cost += placed.cost;
                let ready = self.world.node(placed.item.node).map_or(at, |node| node.ready_at);
                result.items.push(ProjectedItem {
                    item: placed.item,
                    place: placed.place.clone(),
                    choice: placed.choice.clone(),
                    start_ms: at.ms_since(self.now),
                    end_ms: end.ms_since(self.now),
                    cost: placed.cost,
                    wait_ms: at.ms_since(ready),
                });
            }
            if let Place::Instance(id) = &placed.place
                && self.made.contains_key(id)
            {
                self.shares += placed.cost;
            }
        }
        let turn = self.world.turn + 1;
        let events = plan.into_events(&self.world, turn, at);
        self.happen(at, events.clone());
        self.machines(at, &events);
    }

    fn finish_until(&mut self, at: Timestamp) {
        let mut events = Vec::new();
        while let Some((_, attempt)) = self.ends.first().copied().filter(|(end, _)| *end <= at) {
            self.ends.pop_first();
            // How long it lasted says what may be sent ahead: one that took no time would look as if anything may.
            let run_ms = self.world.node(attempt.item.node).map_or(0, |node| expected_ms(&node.profile, self.policy));
            let end = AttemptEnd { run_ms, ..AttemptEnd::bare(EndCause::Succeeded) };
            events.push(Event::Ended { attempt, end, then: Then::End(ItemEnd::Succeeded) });
        }
        self.happen(at, events);
        self.arrive_until(at);
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
