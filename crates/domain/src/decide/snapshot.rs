//! Everything the planner looks at, in memory. Only [`Snapshot::apply`] changes what the ledger
//! keeps; [`Snapshot::set_live`] changes what it does not (connections, measurements).

use std::collections::{BTreeMap, BTreeSet};

use super::change::Touched;
use super::index::Index;
use crate::attempt::Attempt;
use crate::id::{AttemptKey, InstanceId, SessionId, SolutionId};
use crate::instance::{Instance, InstanceState, Live};
use crate::session::Session;
use crate::solution::Solution;

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
    /// Connections and measurements.
    pub(super) live: BTreeMap<InstanceId, Live>,
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
            ..Self::default()
        };
        snapshot.index = Index::build(&snapshot);
        snapshot
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

    /// Open attempts on an instance.
    pub fn attempts_on(&self, instance: &InstanceId) -> impl Iterator<Item = &Attempt> {
        self.index.on_instance.get(instance).into_iter().flatten().filter_map(|key| self.attempts.get(key))
    }

    /// Open attempts in a shared solution.
    pub fn open_in(&self, solution: &SolutionId) -> u32 {
        self.index.in_gateway.get(solution).copied().unwrap_or(0)
    }

    /// What is taken on an instance.
    pub fn load_of(&self, instance: &InstanceId) -> &super::index::Load {
        self.index.load_of(instance)
    }

    /// Items that could be placed now, untouched array indices included.
    pub fn ready_items(&self) -> u64 {
        let nodes = self.index.ready.values().flatten();
        nodes.filter_map(|(_, key)| self.node(*key)).map(|n| u64::from(n.untouched()) + n.retry.len() as u64).sum()
    }

    /// A node of an open session.
    pub fn node(&self, key: crate::id::NodeKey) -> Option<&crate::session::Node> {
        self.sessions.get(&key.session)?.nodes.get(key.node as usize)
    }

    /// Puts an instance in or out of the index of those that can take work.
    pub(super) fn index_instance(&mut self, id: &InstanceId) {
        let usable = self.instances.get(id).is_some_and(|i| i.state == InstanceState::Ready) && self.live(id).connected;
        self.index.set_usable(id, usable);
    }

    /// Instances that can take work, fewest attempts first.
    pub fn usable(&self) -> impl DoubleEndedIterator<Item = &InstanceId> {
        self.index.by_load.iter().map(|(_, id)| id)
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
