//! What a turn changed, as the ledger must keep it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::budget::{CapKey, Warned};
use super::snapshot::Snapshot;
use crate::attempt::{Attempt, AttemptEnd};
use crate::id::{AttemptKey, InstanceId, ItemKey, NodeKey, SessionId, SolutionId};
use crate::instance::Instance;
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{ItemEnd, ItemState, Node, Session, Tally};
use crate::solution::Solution;
use crate::spend::SpentKey;

/// One row to write. Rows of a turn are written in this order: later ones may refer to earlier ones.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A solution.
    Solution(Solution),
    /// A solution that is no longer there.
    SolutionGone(SolutionId),
    /// An instance.
    Instance(Instance),
    /// An instance that is no longer listed.
    InstanceForgotten(InstanceId),
    /// A session, as it is now (its spec is written once, when `new`).
    Session {
        /// The session.
        session: Box<Session>,
        /// It was started in this turn.
        new: bool,
        /// When it ended.
        ended_at: Option<Timestamp>,
    },
    /// A node's counters.
    Node(NodeKey, NodeRow),
    /// Items of a node, `from..to`, cancelled without ever having left the default state.
    ItemsCancelled {
        /// The node.
        node: NodeKey,
        /// First index.
        from: u32,
        /// One past the last index.
        to: u32,
    },
    /// An open item.
    ItemOpen(ItemKey, ItemState),
    /// An ended item.
    ItemEnded(ItemKey, ItemEnd, Timestamp),
    /// An open attempt.
    Attempt(Attempt),
    /// An ended attempt.
    AttemptEnded(Attempt, AttemptEnd, Timestamp),
    /// What was spent, all of it so far.
    Spent(SpentKey, NanoUsd),
    /// What was said of a cap.
    Warned(CapKey, Warned),
    /// A cap of which nothing is to be kept any more.
    WarnedGone(CapKey),
}

/// What the ledger keeps of a node beside its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Array size.
    pub count: u32,
    /// Indices from here on are untouched.
    pub next: u32,
    /// Ends so far.
    pub tally: Tally,
    /// Links not opened.
    pub links_open: u32,
    /// When the last opened.
    pub ready_at: Timestamp,
    /// Typical run time so far, ms.
    #[serde(default)]
    pub typical_run_ms: Option<u32>,
    /// What its ended attempts cost.
    #[serde(default)]
    pub cost: NanoUsd,
}

impl From<&Node> for NodeRow {
    fn from(node: &Node) -> Self {
        Self {
            count: node.count,
            next: node.next,
            tally: node.tally,
            links_open: node.links_open,
            ready_at: node.ready_at,
            typical_run_ms: node.typical_run_ms,
            cost: node.cost,
        }
    }
}

/// Keys changed since the last [`Snapshot::take_changes`].
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    pub solutions: BTreeSet<SolutionId>,
    pub instances: BTreeSet<InstanceId>,
    pub new_sessions: BTreeSet<SessionId>,
    pub sessions: BTreeSet<SessionId>,
    pub nodes: BTreeSet<NodeKey>,
    pub items: BTreeSet<ItemKey>,
    pub attempts: BTreeSet<AttemptKey>,
    pub cancelled: Vec<(NodeKey, u32, u32)>,
    pub items_ended: Vec<(ItemKey, ItemEnd, Timestamp)>,
    pub attempts_ended: Vec<(Attempt, AttemptEnd, Timestamp)>,
    pub sessions_ended: Vec<(Session, Timestamp)>,
    pub spent: BTreeSet<SpentKey>,
    pub warned: BTreeSet<CapKey>,
}

impl Snapshot {
    /// The rows that the events applied since the last call have changed.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        let mut changes = Vec::new();
        for id in touched.solutions {
            changes.push(match self.solutions.get(&id) {
                Some(solution) => Change::Solution(solution.clone()),
                None => Change::SolutionGone(id),
            });
        }
        changes.extend(touched.instances.into_iter().map(|id| match self.instances.get(&id) {
            Some(instance) => Change::Instance(instance.clone()),
            None => Change::InstanceForgotten(id),
        }));
        for id in &touched.sessions {
            if let Some(session) = self.sessions.get(id) {
                let new = touched.new_sessions.contains(id);
                changes.push(Change::Session { session: Box::new(without_nodes(session)), new, ended_at: None });
            }
        }
        let ended: BTreeSet<SessionId> = touched.sessions_ended.iter().map(|(s, _)| s.id).collect();
        for key in touched.nodes {
            if let Some(node) = self.node(key) {
                changes.push(Change::Node(key, node.into()));
            }
        }
        for (session, at) in touched.sessions_ended {
            let new = touched.new_sessions.contains(&session.id);
            for (node, state) in session.nodes.iter().enumerate() {
                let key = NodeKey { session: session.id, node: u32::try_from(node).unwrap_or(u32::MAX) };
                changes.push(Change::Node(key, state.into()));
            }
            changes.push(Change::Session { session: Box::new(session), new, ended_at: Some(at) });
        }
        changes.extend(touched.cancelled.into_iter().map(|(node, from, to)| Change::ItemsCancelled { node, from, to }));
        for key in touched.items {
            let state = self.node(key.node).and_then(|n| n.open.get(&key.index));
            if let Some(state) = state.filter(|_| !ended.contains(&key.session())) {
                changes.push(Change::ItemOpen(key, state.clone()));
            }
        }
        changes.extend(touched.items_ended.into_iter().map(|(k, end, at)| Change::ItemEnded(k, end, at)));
        changes.extend(touched.attempts.iter().filter_map(|k| self.attempts.get(k).cloned()).map(Change::Attempt));
        changes.extend(touched.attempts_ended.into_iter().map(|(a, end, at)| Change::AttemptEnded(a, end, at)));
        let spent = |key: SpentKey| (self.spent.of(&key), key);
        let some = touched.spent.into_iter().map(spent).filter(|(cost, _)| *cost > NanoUsd::ZERO);
        changes.extend(some.map(|(cost, key)| Change::Spent(key, cost)));
        changes.extend(touched.warned.into_iter().map(|key| match self.warned.get(&key) {
            Some(said) => Change::Warned(key, *said),
            None => Change::WarnedGone(key),
        }));
        changes
    }
}

/// Nodes have rows of their own: a session's row leaves them out, so that a thread of 100,000 nodes
/// is not copied each turn.
fn without_nodes(session: &Session) -> Session {
    Session {
        id: session.id,
        spec: session.spec.clone(),
        state: session.state,
        created_at: session.created_at,
        nodes: Vec::new(),
        followers: session.followers.clone(),
        nodes_open: session.nodes_open,
        holds: session.holds.clone(),
        groups: session.groups.clone(),
        deployment: session.deployment.clone(),
        budget: session.budget,
        over: session.over.clone(),
    }
}
