//! Everything the planner looks at, in memory. Only [`Snapshot::apply`] changes what the ledger
//! keeps; [`Snapshot::set_live`] changes what it does not (connections, measurements).

use std::collections::{BTreeMap, BTreeSet};

use super::budget::{CapKey, Warned};
use super::change::Touched;
use super::demand::{CapacityPlan, DemandSeen};
use super::index::Index;
use super::proposal::Proposals;
use super::rooms::{Holder, Kind, Room};
use super::threshold::Changes;
use crate::attempt::{Attempt, Place};
use crate::id::{AttemptKey, InstanceId, NodeKey, SessionId, SolutionId, UserName};
use crate::instance::{Instance, InstanceFacts, InstanceState, Live};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{ItemState, Session, Tries};
use crate::solution::Solution;
use crate::spend::{Spent, SpentKey};
use crate::task::Profile;

/// The open state of the world. Ended things leave it; the ledger keeps them.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The last turn applied.
    pub turn: u64,
    /// Solutions by name.
    pub solutions: BTreeMap<SolutionId, Solution>,
    /// Instances by name, those gone included until the retention removes them.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// Open sessions.
    pub sessions: BTreeMap<SessionId, Session>,
    /// Open attempts.
    pub attempts: BTreeMap<AttemptKey, Attempt>,
    /// What was spent.
    pub spent: Spent,
    /// What was said of caps.
    pub warned: BTreeMap<CapKey, Warned>,
    /// Connections and measurements.
    pub(super) live: BTreeMap<InstanceId, Live>,
    /// Solutions that made no machine when asked: until when they are not asked again, and why.
    pub(super) avoided: BTreeMap<SolutionId, (Timestamp, String)>,
    /// How many machines each class of items is worth; not kept: after a restart it is found anew.
    pub(super) capacity: BTreeMap<Profile, CapacityPlan>,
    /// Demand of each solution that has machines, as seen of late; not kept.
    pub(super) seen: BTreeMap<SolutionId, DemandSeen>,
    /// Machines that scaling elements want, by solution, and why; not kept.
    pub(super) elements: BTreeMap<SolutionId, (u32, String)>,
    /// Instances that each shared solution was told to keep warm, and when; not kept: after a restart it is told again.
    pub(super) warm: BTreeMap<SolutionId, (u32, Timestamp)>,
    /// When machines of each solution were last asked for and marked as going; not kept.
    pub(super) changes: BTreeMap<SolutionId, Changes>,
    /// What the configured algorithm has said: not kept, it is asked again after a restart.
    pub(super) proposals: Proposals,
    /// Derived from the above; rebuilt on load.
    pub(super) index: Index,
    /// Changed since [`Snapshot::take_changes`].
    pub(super) touched: Touched,
}

impl PartialEq for Snapshot {
    /// Equal in what the ledger keeps, and in everything derived from it.
    fn eq(&self, other: &Self) -> bool {
        self.solutions == other.solutions
            && self.instances == other.instances
            && self.sessions == other.sessions
            && self.attempts == other.attempts
            && self.spent == other.spent
            && self.warned == other.warned
            && self.index == other.index
    }
}

/// What the ledger hands back when the engine starts.
#[derive(Debug, Default)]
pub struct Stored {
    /// The last turn committed.
    pub turn: u64,
    /// Solutions.
    pub solutions: Vec<Solution>,
    /// Instances.
    pub instances: Vec<Instance>,
    /// Open sessions, nodes filled in.
    pub sessions: Vec<Session>,
    /// Open attempts.
    pub attempts: Vec<Attempt>,
    /// What was spent.
    pub spent: Vec<(SpentKey, NanoUsd)>,
    /// What was said of caps.
    pub warned: Vec<(CapKey, Warned)>,
}

impl Snapshot {
    /// The snapshot of a ledger's open rows.
    pub fn load(stored: Stored) -> Self {
        let mut snapshot = Self {
            turn: stored.turn,
            solutions: stored.solutions.into_iter().map(|s| (s.id.clone(), s)).collect(),
            instances: stored.instances.into_iter().map(|i| (i.id.clone(), i)).collect(),
            sessions: stored.sessions.into_iter().map(|s| (s.id, s)).collect(),
            attempts: stored.attempts.into_iter().map(|a| (a.key, a)).collect(),
            spent: stored.spent.into_iter().collect(),
            warned: stored.warned.into_iter().collect(),
            ..Self::default()
        };
        snapshot.complete();
        snapshot.index = Index::build(&snapshot);
        let ids: Vec<InstanceId> = snapshot.instances.keys().cloned().collect();
        for id in &ids {
            snapshot.index_instance(id);
        }
        snapshot
    }

    /// What open attempts say beside their own rows: the state of an item at its first attempt, and how many of
    /// a session's are on an instance it holds.
    fn complete(&mut self) {
        self.sessions.values_mut().for_each(|session| drop(session.hold_members()));
        for hold in self.sessions.values_mut().flat_map(|session| session.holds.values_mut()) {
            hold.attempts = 0;
        }
        for attempt in self.attempts.values() {
            let Some(session) = self.sessions.get_mut(&attempt.key.item.session()) else { continue };
            if let Place::Instance(id) = &attempt.place
                && let Some(hold) = session.holds.get_mut(id)
            {
                hold.attempts += 1;
            }
            if let Some(node) = session.nodes.get_mut(attempt.key.item.node.node as usize) {
                let first = || ItemState::Assigned { attempt: attempt.key, tries: Tries::default() };
                node.open.entry(attempt.key.item.index).or_insert_with(first);
            }
        }
    }

    /// What is known of an instance now.
    pub fn live(&self, instance: &InstanceId) -> Live {
        self.live.get(instance).copied().unwrap_or_default()
    }

    /// Takes a connection or a measurement. Not an event: it is gone after a restart.
    pub fn set_live(&mut self, instance: &InstanceId, live: Live) {
        if self.live(instance) == live {
            return;
        }
        self.live.insert(instance.clone(), live);
        self.index_instance(instance);
    }

    /// Forgets what no restart keeps.
    pub(super) fn forget_unkept(&mut self) {
        self.avoided.clear();
        self.warm.clear();
        self.elements.clear();
        self.proposals = Proposals::default();
        self.capacity.clear();
        self.seen.clear();
        self.changes.clear();
        for id in std::mem::take(&mut self.live).into_keys() {
            self.index_instance(&id);
        }
    }

    /// What is wanted for a class of items (see [`Profile::demand`]).
    pub fn capacity_of(&self, class: &Profile) -> Option<&CapacityPlan> {
        self.capacity.get(class)
    }

    /// Every class that machines are considered for.
    pub fn capacity(&self) -> impl Iterator<Item = (&Profile, &CapacityPlan)> {
        self.capacity.iter()
    }

    /// Demand of a solution that has machines, as seen of late.
    pub fn demand_of(&self, solution: &SolutionId) -> Option<&DemandSeen> {
        self.seen.get(solution)
    }

    /// Machines that a solution's scaling element wants, and why.
    pub fn element_wants(&self, solution: &SolutionId) -> Option<&(u32, String)> {
        self.elements.get(solution)
    }

    /// Machines of one size that classes of items are worth, all together; none when none asks for any there.
    pub(super) fn worth(&self, solution: &SolutionId, size: &InstanceFacts) -> Option<u32> {
        let wanted = self.capacity.values().flat_map(|plan| &plan.machines);
        let of_size = wanted.filter(|w| w.solution == *solution && w.instance_type == size.instance_type);
        of_size.map(|w| w.machines).reduce(u32::saturating_add)
    }

    /// Machines of a solution in these states.
    pub fn machines_in(
        &self,
        solution: &SolutionId,
        states: std::ops::RangeInclusive<InstanceState>,
    ) -> impl Iterator<Item = &InstanceId> {
        self.index.machines.get(solution).into_iter().flat_map(move |by| by.range(states.clone())).flat_map(|(_, m)| m)
    }

    /// Open attempts on an instance.
    pub fn attempts_on(&self, instance: &InstanceId) -> impl Iterator<Item = &Attempt> {
        self.index.on_instance.get(instance).into_iter().flatten().filter_map(|key| self.attempts.get(key))
    }

    /// Open attempts of a session.
    pub fn attempts_of(&self, session: SessionId) -> impl Iterator<Item = &Attempt> {
        let first = NodeKey { session, node: 0 }.item(0).attempt(0);
        self.attempts.range(first..).map(|(_, attempt)| attempt).take_while(move |a| a.key.item.session() == session)
    }

    /// Open attempts in a shared solution.
    pub fn open_in(&self, solution: &SolutionId) -> u32 {
        self.index.in_gateway.get(solution).copied().unwrap_or(0)
    }

    /// What is taken on an instance.
    pub fn load_of(&self, instance: &InstanceId) -> &super::index::Load {
        self.index.load_of(instance)
    }

    /// Open sessions whose thread has groups.
    pub fn deployed(&self) -> impl Iterator<Item = &Session> {
        self.index.deployed.iter().filter_map(|id| self.sessions.get(id))
    }

    /// Items that could be placed now, untouched array indices included.
    pub fn ready_items(&self) -> u64 {
        let nodes = self.index.ready.values().flatten();
        nodes.filter_map(|(_, key)| self.node(*key)).map(|n| u64::from(n.untouched()) + n.retry.len() as u64).sum()
    }

    /// Items of a user that have not ended.
    pub fn items_open(&self, user: &UserName) -> u64 {
        self.index.items_open.get(user).copied().unwrap_or(0)
    }

    /// Items that have not ended, of all users.
    pub fn all_items_open(&self) -> u64 {
        self.index.items_open.values().sum()
    }

    /// A node of an open session.
    pub fn node(&self, key: crate::id::NodeKey) -> Option<&crate::session::Node> {
        self.sessions.get(&key.session)?.nodes.get(key.node as usize)
    }

    /// Puts an instance where its state, its connection, its load and its holders say.
    pub(super) fn index_instance(&mut self, id: &InstanceId) {
        let live = self.live(id);
        let Some(instance) = self.instances.get(id) else {
            self.index.rooms.set_member(id, None);
            self.index.set_life(id, None);
            return;
        };
        self.index.set_life(id, Some(instance));
        let load = self.index.load_of(id);
        let usable = instance.state == InstanceState::Ready && live.connected;
        let holder = Holder::of(instance.held_by.iter().copied());
        let at = usable.then(|| (holder, Room::of(load, live)));
        let over = load.slots > instance.facts.slots;
        let could = instance.state < InstanceState::Draining;
        if !could || self.index.rooms.kind_no(id).is_none() {
            self.index.rooms.set_member(id, could.then(|| Kind::of(instance)));
        }
        self.index.rooms.set_room(id, at);
        set(&mut self.index.over, id, over);
        set(&mut self.index.draining, id, instance.state == InstanceState::Draining);
    }

    /// As [`Snapshot::index_instance`], when what the instance offers may have changed too.
    pub(super) fn index_instance_anew(&mut self, id: &InstanceId) {
        self.index.rooms.set_member(id, None);
        self.index_instance(id);
    }

    /// Instances that can take work now.
    pub fn usable(&self) -> impl DoubleEndedIterator<Item = &InstanceId> {
        self.index.rooms.usable().keys()
    }

    /// Does every index by instance say what a new one would?
    pub fn is_well_indexed(&self) -> bool {
        let mut anew = Self { index: Index::build(self), live: self.live.clone(), ..self.clone() };
        self.instances.keys().for_each(|id| anew.index_instance(id));
        anew.index == self.index && anew.index.rooms.usable() == self.index.rooms.usable()
    }

    /// Nodes to be cancelled because a link can no longer open.
    pub(super) fn doomed(&self) -> impl Iterator<Item = crate::id::NodeKey> {
        self.index.doomed.iter().copied()
    }

    /// Sessions with something for [`super::settle::settle`] to look at.
    pub(super) fn to_settle(&self) -> &BTreeSet<SessionId> {
        &self.index.unsettled
    }
}

fn set(ids: &mut BTreeSet<InstanceId>, id: &InstanceId, there: bool) {
    if !there {
        ids.remove(id);
    } else if !ids.contains(id) {
        ids.insert(id.clone());
    }
}
