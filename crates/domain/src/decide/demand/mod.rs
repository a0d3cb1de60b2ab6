//! Demand: what the items that ask for the same places are worth machines for, followed while they come and go.
//!
//! ```text
//! nodes that got items ready --arrivals--+
//! assigned, ended, cancelled --observe---+--> one Followed a class --look (every tick)--> CapacitySet
//! machines wanted, ready ------observe---+                                                    |
//!                                          apply --> Snapshot.capacity --> choose (patience), scale (targets)
//! ```
//! It stands beside the [`Snapshot`] and not in the ledger: its answers are events, so that what `decide` saw is on
//! record, but after a restart every class begins anew, with the first rule of [`super::capacity`]. A change of a
//! solution's facts or prices begins anew as well. Failure paths: a class beyond [`CLASSES_MAX`] and items of a
//! class beyond [`ITEMS_MAX`] are not followed; they are placed by list prices, and by what waits for room.

mod element;
mod facts;
mod followed;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::{CapacityPolicy, Policy};
use super::snapshot::Snapshot;
use crate::attempt::{Attempt, AttemptEnd, Place};
use crate::event::{Event, Then};
use crate::id::{InstanceId, ItemKey, NodeKey, SessionId, SolutionId};
use crate::instance::Traffic;
use crate::quantity::Timestamp;
use crate::session::SessionState;
use crate::task::Profile;
use element::Measured;
pub use element::{ElementMetric, Zones};
pub(super) use facts::items_at_once;
use followed::Followed;
pub use seen::DemandSeen;
use seen::Series;

/// Classes followed at a time.
pub const CLASSES_MAX: usize = 64;
/// Open items of one class that are followed; of a larger array the first ones stand for all.
pub const ITEMS_MAX: usize = 4_096;
/// A class without an open item and without machines is forgotten after this, us.
const FORGET_US: i64 = 3_600_000_000;

/// What is wanted for one class of items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityPlan {
    /// Machines, by solution and size; one that is not wanted is named too.
    pub machines: Vec<WantedMachines>,
    /// The shared solution that takes what machines do not.
    pub shared: SolutionId,
    /// How long an item waits for a slot before it goes there, ms.
    pub wait_ms: u64,
    /// Why, with prices and alternatives.
    pub why: String,
}

/// How many machines of one size are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedMachines {
    /// Where.
    pub solution: SolutionId,
    /// Of which type; none is the solution's own size where it names no type.
    #[serde(default)]
    pub instance_type: Option<Arc<str>>,
    /// How many.
    pub machines: u32,
}

/// Items and machines of one engine, as far as capacity depends on them.
#[derive(Default)]
pub struct Demands {
    classes: BTreeMap<Arc<Profile>, Followed>,
    /// The class of each profile that was asked about; none when not both kinds of place could take it.
    class_of: BTreeMap<Arc<Profile>, Option<Arc<Profile>>>,
    items: BTreeMap<ItemKey, Item>,
    /// Indices of a node below this were looked at.
    given: BTreeMap<NodeKey, u32>,
    /// Machines asked for, and when.
    wanted: BTreeMap<InstanceId, (SolutionId, Timestamp)>,
    /// Time from the wish to the first hello, by solution, us.
    boots: BTreeMap<SolutionId, u64>,
    look_at: Option<Timestamp>,
    /// What the families were made with.
    settings: Option<CapacityPolicy>,
    /// Demand of each solution that has machines.
    series: BTreeMap<SolutionId, Series>,
    series_anew: bool,
    /// Metrics of solutions whose machines go by a scaling element.
    measured: BTreeMap<SolutionId, Measured>,
    /// What machines have counted, as they said last.
    traffic: BTreeMap<InstanceId, Traffic>,
    zones: Zones,
    /// Everything that is ready is to be looked at, not only what was touched.
    anew: bool,
}

#[derive(Debug, Clone)]
struct Item {
    class: Arc<Profile>,
    arrived_at: Timestamp,
    in_gateway: bool,
}

impl Demands {
    /// Nothing followed yet; what is open is taken up with the first look.
    pub fn new(zones: Zones) -> Self {
        Self { anew: true, series_anew: true, zones, ..Self::default() }
    }

    /// When [`Demands::look`] is due.
    pub fn next_look(&self) -> Option<Timestamp> {
        self.series.values().map(|series| series.due).chain(self.look_at).min()
    }

    /// Takes in what happened.
    pub fn observe(&mut self, event: &Event, now: Timestamp) {
        match event {
            Event::SolutionSet { solution } => {
                self.forget_all();
                // From now on what is said of its metrics is kept for its next look.
                if solution.machines().is_some_and(|machines| machines.element.is_some()) {
                    self.measured.entry(solution.id.clone()).or_default();
                }
            }
            Event::SolutionRemoved { .. } => self.forget_all(),
            // A family follows the settings that it was made with.
            Event::PolicySet { policy } if self.settings.as_ref() != Some(&policy.capacity) => {
                self.settings = Some(policy.capacity.clone());
                self.forget_all();
            }
            Event::InstanceWanted { instance, solution, .. } => {
                self.wanted.insert(instance.clone(), (solution.clone(), now));
            }
            Event::InstanceReady { instance, .. } => self.booted(instance, now),
            Event::InstanceGone { instance, .. } => {
                self.wanted.remove(instance);
                self.traffic.remove(instance);
            }
            Event::MetricSaid { metric, solution, value, .. } => {
                let of = |id: &SolutionId| solution.as_ref().is_none_or(|solution| solution == id);
                for (_, measured) in self.measured.iter_mut().filter(|(id, _)| of(id)) {
                    measured.said(metric, *value);
                }
            }
            Event::Assigned { attempt } => self.assigned(attempt, now),
            Event::Ended { attempt, end, then } => self.ended(attempt.item, end, *then, now),
            Event::ItemsCancelled { node, from, to, .. } => self.left(node.item(*from)..node.item(*to), now),
            Event::NodeCancelled { node, .. } => self.left(node.item(0)..node.item(u32::MAX), now),
            Event::SessionEnded { session, .. } => self.session_over(*session, now),
            Event::SessionResumed { .. } | Event::Answered { .. } => self.anew = true,
            _ => {}
        }
    }

    fn forget_all(&mut self) {
        let Self { wanted, boots, series, measured, traffic, zones, settings, .. } = std::mem::take(self);
        let kept = Self { wanted, boots, settings, series, measured, traffic, zones, ..Self::default() };
        *self = Self { anew: true, series_anew: true, ..kept };
    }

    /// Metrics of scaling elements that are carried out here.
    pub fn metrics(&self, snapshot: &Snapshot) -> Vec<ElementMetric> {
        let none = Measured::default();
        let elements = snapshot.solutions.values().filter_map(|s| Some((&s.id, s.machines()?.element.as_ref()?)));
        elements.flat_map(|(id, element)| self.measured.get(id).unwrap_or(&none).seen(id, element)).collect()
    }

    /// What a machine has counted since it booted. Not an event: it never stands still, and what is made of it is one.
    pub fn counted(&mut self, instance: &InstanceId, traffic: Traffic) {
        self.traffic.insert(instance.clone(), traffic);
    }

    fn booted(&mut self, instance: &InstanceId, now: Timestamp) {
        let Some((solution, wanted_at)) = self.wanted.remove(instance) else { return };
        let took_us = u64::try_from(now.0 - wanted_at.0).unwrap_or(0);
        let typical_us = self.boots.entry(solution).or_insert(took_us);
        *typical_us = *typical_us - *typical_us / 8 + took_us / 8;
    }

    fn assigned(&mut self, attempt: &Attempt, now: Timestamp) {
        let Some(item) = self.items.get_mut(&attempt.key.item) else { return };
        let Some(class) = self.classes.get_mut(&item.class) else { return };
        item.in_gateway = matches!(attempt.place, Place::Gateway(_));
        class.assigned(now.us_since(item.arrived_at), item.in_gateway, item.class.allowed_wait_ms, now);
    }

    fn ended(&mut self, key: ItemKey, end: &AttemptEnd, then: Then, now: Timestamp) {
        let Some(item) = self.items.remove(&key) else { return };
        let Some(class) = self.classes.get_mut(&item.class) else { return };
        class.ended(key, end.run_ms.saturating_mul(1_000), item.in_gateway, now);
        if matches!(then, Then::Retry { .. }) {
            class.arrived(key, now);
            self.items.insert(key, Item { arrived_at: now, in_gateway: false, ..item });
        }
    }

    /// Items that will not be placed any more.
    fn left(&mut self, keys: std::ops::Range<ItemKey>, now: Timestamp) {
        let gone: Vec<ItemKey> = self.items.range(keys).map(|(key, _)| *key).collect();
        for key in gone {
            if let Some(class) = self.items.remove(&key).and_then(|item| self.classes.get_mut(&item.class)) {
                class.left(key, now);
            }
        }
    }

    fn session_over(&mut self, session: SessionId, now: Timestamp) {
        let (first, last) = (NodeKey { session, node: 0 }, NodeKey { session, node: u32::MAX });
        self.left(first.item(0)..last.item(u32::MAX), now);
        let nodes: Vec<NodeKey> = self.given.range(first..=last).map(|(node, _)| *node).collect();
        for node in nodes {
            self.given.remove(&node);
        }
    }

    /// Takes in what became ready in this turn. To be called before [`Snapshot::take_changes`].
    pub fn arrivals(&mut self, snapshot: &Snapshot, policy: &Policy, now: Timestamp) {
        if !snapshot.solutions.values().any(|s| s.shared().is_some()) {
            return;
        }
        let nodes: BTreeSet<NodeKey> = if std::mem::take(&mut self.anew) {
            snapshot.index.ready.values().flatten().map(|(_, node)| *node).collect()
        } else {
            snapshot.touched.nodes.clone()
        };
        for key in nodes {
            self.node_arrives(snapshot, policy, key, now);
        }
    }

    fn node_arrives(&mut self, snapshot: &Snapshot, policy: &Policy, key: NodeKey, now: Timestamp) {
        let running = snapshot.sessions.get(&key.session).filter(|s| s.state == SessionState::Running);
        let Some(node) = running.and_then(|s| s.nodes.get(key.node as usize)) else { return };
        if node.links_open > 0 || node.untouched() == 0 {
            return;
        }
        let from = self.given.get(&key).copied().unwrap_or(0).max(node.next);
        if from >= node.count {
            return;
        }
        let Some(class) = self.class_of(snapshot, policy, &node.profile) else { return };
        let Some(followed) = self.classes.get_mut(&class) else { return };
        let mut at = from;
        while at < node.count && followed.open() < ITEMS_MAX {
            let item = key.item(at);
            followed.arrived(item, now);
            let arrived_at = if from == 0 { node.ready_at.min(now) } else { now };
            self.items.insert(item, Item { class: class.clone(), arrived_at, in_gateway: false });
            at += 1;
        }
        self.given.insert(key, at);
        if followed.never_looked() {
            self.look_at = Some(now);
        }
    }

    /// The class that items of this profile are followed in, made when it is new.
    fn class_of(&mut self, snapshot: &Snapshot, policy: &Policy, profile: &Arc<Profile>) -> Option<Arc<Profile>> {
        if let Some(known) = self.class_of.get(profile) {
            let known = known.clone()?;
            if self.classes.contains_key(&known) {
                return Some(known);
            }
        }
        if self.class_of.len() > 16 * CLASSES_MAX {
            self.class_of.clear();
        }
        let class = Arc::new(profile.demand());
        let found = self.classes.contains_key(&class) || self.follow(snapshot, policy, &class);
        let class = found.then_some(class);
        self.class_of.insert(profile.clone(), class.clone());
        class
    }

    fn follow(&mut self, snapshot: &Snapshot, policy: &Policy, class: &Arc<Profile>) -> bool {
        if self.classes.len() >= CLASSES_MAX {
            return false;
        }
        let followed = Followed::new(snapshot, policy, class, &self.boots);
        followed.is_some_and(|followed| self.classes.insert(class.clone(), followed).is_none())
    }

    /// Looks at every class when it is time to, and says what is wanted otherwise than before.
    pub fn look(&mut self, snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Vec<Event> {
        let mut events = self.look_at_series(snapshot, now);
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at_classes(snapshot, policy, now, &mut events);
        }
        events
    }

    fn look_at_classes(&mut self, snapshot: &Snapshot, policy: &Policy, now: Timestamp, events: &mut Vec<Event>) {
        let mut over = Vec::new();
        for (class, followed) in &mut self.classes {
            let plan = followed.look(snapshot, class, now);
            if followed.is_over(now, FORGET_US) {
                over.push(class.clone());
                continue;
            }
            let Some(plan) = plan else { continue };
            let before = snapshot.capacity_of(class);
            let same =
                |b: &CapacityPlan| (&b.machines, &b.shared, b.wait_ms) == (&plan.machines, &plan.shared, plan.wait_ms);
            if !before.is_some_and(same) {
                events.push(Event::CapacitySet { class: Profile::clone(class), plan: Some(plan) });
            }
        }
        for class in over {
            self.classes.remove(&class);
            if snapshot.capacity_of(&class).is_some() {
                events.push(Event::CapacitySet { class: Profile::clone(&class), plan: None });
            }
        }
        let tick_us = i64::try_from(policy.capacity.family.tick_us).unwrap_or(i64::MAX);
        self.look_at = (!self.classes.is_empty()).then(|| Timestamp(now.0.saturating_add(tick_us)));
    }

    fn look_at_series(&mut self, snapshot: &Snapshot, now: Timestamp) -> Vec<Event> {
        if std::mem::take(&mut self.series_anew) {
            let made = |id: &SolutionId| snapshot.solutions.get(id).is_some_and(|s| s.machines().is_some());
            self.series.retain(|id, _| made(id));
            self.measured.retain(|id, _| made(id));
            for id in snapshot.solutions.keys().filter(|id| made(id)) {
                self.series.entry(id.clone()).or_insert_with(|| Series::new(now));
            }
        }
        let mut events = Vec::new();
        for (id, series) in self.series.iter_mut().filter(|(_, series)| series.due <= now) {
            let seen = series.observe(seen::demand(snapshot, id), now);
            if !snapshot.demand_of(id).is_some_and(|before| before.says(&seen)) {
                events.push(Event::DemandSeen { solution: id.clone(), seen });
            }
            let Some(element) = snapshot.solutions.get(id).and_then(|s| s.machines()?.element.clone()) else {
                continue;
            };
            let measured = self.measured.entry(id.clone()).or_default();
            let (machines, why) = element::wanted(snapshot, id, &element, measured, (&self.traffic, self.zones), now);
            if snapshot.elements.get(id).is_none_or(|(before, _)| *before != machines) {
                events.push(Event::ElementWants { solution: id.clone(), machines, why });
            }
        }
        events
    }
}

#[cfg(test)]
mod tests;
