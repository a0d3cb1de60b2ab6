//! Indices of a snapshot: what makes a pass look at classes and at what has room, never at all
//! items x all instances. Everything here is derived and rebuilt on load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use super::snapshot::Snapshot;
use crate::attempt::{Attempt, Place};
use crate::id::{AttemptKey, InstanceId, NodeKey, SessionId, SolutionId};
use crate::needs::{CpuSetting, Needs};
use crate::quantity::Timestamp;
use crate::session::Node;
use crate::task::Profile;

/// Items of one session with equal profiles: what one of them cannot have, none can.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// The session.
    pub session: SessionId,
    /// The profile.
    pub profile: Arc<Profile>,
}

/// What is taken on one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Open attempts.
    pub attempts: u32,
    /// CPU set aside by CPU settings, percent.
    pub cpu_percent: u32,
    /// Memory set aside, MiB.
    pub memory_mb: u32,
    /// Storage set aside, MiB.
    pub storage_mb: u32,
    /// Attempts that have the instance to themselves (0 or 1).
    pub exclusive: u32,
    /// Counted resources set aside.
    pub resources: BTreeMap<Arc<str>, u64>,
}

impl Load {
    /// Sets `needs` aside.
    pub fn add(&mut self, needs: &Needs) {
        self.attempts += 1;
        self.cpu_percent += needs.cpu.reserved_percent();
        self.memory_mb = self.memory_mb.saturating_add(needs.memory_mb);
        self.storage_mb = self.storage_mb.saturating_add(needs.storage_mb);
        self.exclusive += u32::from(needs.cpu == CpuSetting::Exclusive);
        for (name, amount) in &needs.resources {
            *self.resources.entry(name.clone()).or_default() += amount;
        }
    }

    fn remove(&mut self, needs: &Needs) {
        self.attempts = self.attempts.saturating_sub(1);
        self.cpu_percent = self.cpu_percent.saturating_sub(needs.cpu.reserved_percent());
        self.memory_mb = self.memory_mb.saturating_sub(needs.memory_mb);
        self.storage_mb = self.storage_mb.saturating_sub(needs.storage_mb);
        self.exclusive = self.exclusive.saturating_sub(u32::from(needs.cpu == CpuSetting::Exclusive));
        for (name, amount) in &needs.resources {
            if let Some(left) = self.resources.get_mut(name) {
                *left = left.saturating_sub(*amount);
                if *left == 0 {
                    self.resources.remove(name);
                }
            }
        }
    }
}

/// The indices.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Nodes with items to place, by class, oldest first.
    pub ready: BTreeMap<Class, BTreeSet<(Timestamp, NodeKey)>>,
    /// What is taken where.
    pub loads: BTreeMap<InstanceId, Load>,
    /// Open attempts by instance.
    pub on_instance: BTreeMap<InstanceId, BTreeSet<AttemptKey>>,
    /// Open attempts by shared solution.
    pub in_gateway: BTreeMap<SolutionId, u32>,
    /// Instances that can take work, by attempts there.
    pub by_load: BTreeSet<(u32, InstanceId)>,
    /// Sessions in which something ended since the last settling.
    pub unsettled: BTreeSet<SessionId>,
    /// Nodes with a link that can no longer open, to be cancelled by the next settling.
    pub doomed: BTreeSet<NodeKey>,
    /// Instances held but idle, by since when.
    pub idle: BTreeSet<(Timestamp, SessionId, InstanceId)>,
}

impl PartialEq for Index {
    /// `by_load` depends on connections; `unsettled` and `doomed` are empty between turns: none is kept.
    fn eq(&self, other: &Self) -> bool {
        self.ready == other.ready
            && self.loads == other.loads
            && self.on_instance == other.on_instance
            && self.in_gateway == other.in_gateway
            && self.idle == other.idle
    }
}

impl Index {
    /// The indices of a snapshot.
    pub(super) fn build(snapshot: &Snapshot) -> Self {
        let mut index = Self::default();
        for session in snapshot.sessions.values() {
            for (at, node) in session.nodes.iter().enumerate() {
                let key = NodeKey { session: session.id, node: u32::try_from(at).unwrap_or(u32::MAX) };
                index.set_ready(key, node);
            }
            for (instance, hold) in &session.holds {
                if hold.attempts == 0 {
                    index.idle.insert((hold.idle_since, session.id, instance.clone()));
                }
            }
        }
        for attempt in snapshot.attempts.values() {
            if let Some(node) = snapshot.node(attempt.key.item.node) {
                index.add_attempt(attempt, &node.profile.needs);
            }
        }
        index
    }

    /// What is taken on an instance.
    pub fn load_of(&self, instance: &InstanceId) -> &Load {
        static NOTHING: LazyLock<Load> = LazyLock::new(Load::default);
        self.loads.get(instance).unwrap_or(&NOTHING)
    }

    /// Puts a node in or out of `ready`, as its state says.
    pub(super) fn set_ready(&mut self, key: NodeKey, node: &Node) {
        let class = Class { session: key.session, profile: node.profile.clone() };
        let entry = (node.ready_at, key);
        if node.links_open == 0 && (node.untouched() > 0 || !node.retry.is_empty()) {
            self.ready.entry(class).or_default().insert(entry);
        } else if let Some(nodes) = self.ready.get_mut(&class) {
            nodes.remove(&entry);
            if nodes.is_empty() {
                self.ready.remove(&class);
            }
        }
    }

    pub(super) fn add_attempt(&mut self, attempt: &Attempt, needs: &Needs) {
        match &attempt.place {
            Place::Instance(id) => {
                self.on_instance.entry(id.clone()).or_default().insert(attempt.key);
                self.change_load(id, |load| load.add(needs));
            }
            Place::Gateway(id) => *self.in_gateway.entry(id.clone()).or_default() += 1,
        }
    }

    pub(super) fn remove_attempt(&mut self, attempt: &Attempt, needs: &Needs) {
        match &attempt.place {
            Place::Instance(id) => {
                if let Some(keys) = self.on_instance.get_mut(id) {
                    keys.remove(&attempt.key);
                    if keys.is_empty() {
                        self.on_instance.remove(id);
                    }
                }
                self.change_load(id, |load| load.remove(needs));
                if self.loads.get(id).is_some_and(|load| *load == Load::default()) {
                    self.loads.remove(id);
                }
            }
            Place::Gateway(id) => {
                if let Some(open) = self.in_gateway.get_mut(id) {
                    *open = open.saturating_sub(1);
                    if *open == 0 {
                        self.in_gateway.remove(id);
                    }
                }
            }
        }
    }

    fn change_load(&mut self, id: &InstanceId, change: impl FnOnce(&mut Load)) {
        let load = self.loads.entry(id.clone()).or_default();
        let before = load.attempts;
        change(load);
        let after = load.attempts;
        if self.by_load.remove(&(before, id.clone())) {
            self.by_load.insert((after, id.clone()));
        }
    }

    pub(super) fn set_usable(&mut self, id: &InstanceId, usable: bool) {
        let entry = (self.load_of(id).attempts, id.clone());
        if usable {
            self.by_load.insert(entry);
        } else {
            self.by_load.remove(&entry);
        }
    }
}
