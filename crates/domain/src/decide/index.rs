//! Indices of a snapshot: what makes a pass look at classes and at what has room, never at all
//! items x all instances. Everything here is derived and rebuilt on load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use super::budget::Money;
use super::rooms::Rooms;
use super::snapshot::Snapshot;
use crate::attempt::{Attempt, Place};
use crate::id::{AttemptKey, InstanceId, NodeKey, SessionId, SolutionId, UserName};
use crate::instance::{Instance, InstanceState};
use crate::needs::{CpuSetting, Needs};
use crate::quantity::Timestamp;
use crate::session::{Node, SessionSpec, SessionState};
use crate::task::Profile;

/// Items of one user with equal profiles: what one of them cannot have anywhere, none can.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// The user: what is shared fairly is shared between users.
    pub user: UserName,
    /// The profile.
    pub profile: Arc<Profile>,
}

/// What is taken on one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Open attempts, those that wait there for a slot (its credit) included.
    pub attempts: u32,
    /// Slots that they take.
    pub slots: u32,
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
    /// How many attempts ask for how much memory, MiB.
    by_memory: BTreeMap<u32, u32>,
}

impl Load {
    /// Sets `needs` aside.
    pub fn add(&mut self, needs: &Needs) {
        self.attempts += 1;
        self.slots = self.slots.saturating_add(needs.slots);
        self.cpu_percent += needs.cpu.reserved_percent();
        self.memory_mb = self.memory_mb.saturating_add(needs.memory_mb);
        self.storage_mb = self.storage_mb.saturating_add(needs.storage_mb);
        self.exclusive += u32::from(needs.cpu == CpuSetting::Exclusive);
        *self.by_memory.entry(needs.memory_mb).or_default() += 1;
        for (name, amount) in &needs.resources {
            *self.resources.entry(name.clone()).or_default() += amount;
        }
    }

    /// Takes what [`Load::add`] set aside back.
    pub(super) fn remove(&mut self, needs: &Needs) {
        self.attempts = self.attempts.saturating_sub(1);
        self.slots = self.slots.saturating_sub(needs.slots);
        self.cpu_percent = self.cpu_percent.saturating_sub(needs.cpu.reserved_percent());
        self.memory_mb = self.memory_mb.saturating_sub(needs.memory_mb);
        self.storage_mb = self.storage_mb.saturating_sub(needs.storage_mb);
        self.exclusive = self.exclusive.saturating_sub(u32::from(needs.cpu == CpuSetting::Exclusive));
        less(&mut self.by_memory, &needs.memory_mb, 1);
        for (name, amount) in &needs.resources {
            less(&mut self.resources, name, *amount);
        }
    }

    /// The most memory that one attempt there asks for, MiB.
    pub fn memory_mb_most(&self) -> u32 {
        self.by_memory.last_key_value().map_or(0, |(memory_mb, _)| *memory_mb)
    }
}

/// Takes `amount` off a count, and the count away at zero.
fn less<K: Ord + Clone, N: Copy + Default + PartialEq + Saturating>(counts: &mut BTreeMap<K, N>, key: &K, amount: N) {
    if let Some(left) = counts.get_mut(key) {
        *left = left.less(amount);
        if *left == N::default() {
            counts.remove(key);
        }
    }
}

trait Saturating {
    fn less(self, other: Self) -> Self;
}

impl Saturating for u32 {
    fn less(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

impl Saturating for u64 {
    fn less(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

/// Where a node stands in `ready`, and whether in `paced` too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Queued {
    since: Timestamp,
    class: Class,
    paced: bool,
    set: bool,
}

fn dequeue(queues: &mut BTreeMap<Class, BTreeSet<(Timestamp, NodeKey)>>, class: &Class, entry: (Timestamp, NodeKey)) {
    if let Some(nodes) = queues.get_mut(class) {
        nodes.remove(&entry);
        if nodes.is_empty() {
            queues.remove(class);
        }
    }
}

/// Where a machine, or what is gone, stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Life {
    solution: SolutionId,
    state: InstanceState,
    since: Timestamp,
    free: bool,
}

/// Everything derived.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Nodes of running sessions with items to place, by class, by when the first of them could be.
    pub ready: BTreeMap<Class, BTreeSet<(Timestamp, NodeKey)>>,
    /// Of these, the ones whose run time is known: they may be sent ahead.
    pub paced: BTreeMap<Class, BTreeSet<(Timestamp, NodeKey)>>,
    /// Of these, the ones of a set that starts together.
    pub(super) sets: BTreeSet<(Timestamp, NodeKey)>,
    /// Where each stands in `ready`.
    queued: BTreeMap<NodeKey, Queued>,
    /// What is taken where.
    pub loads: BTreeMap<InstanceId, Load>,
    /// Open attempts by instance.
    pub on_instance: BTreeMap<InstanceId, BTreeSet<AttemptKey>>,
    /// Open attempts by shared solution.
    pub in_gateway: BTreeMap<SolutionId, u32>,
    /// Open attempts by user.
    pub by_user: BTreeMap<UserName, u32>,
    /// Items that have not ended, by user.
    pub items_open: BTreeMap<UserName, u64>,
    /// Instances that could take work, by kind and room.
    pub(super) rooms: Rooms,
    /// Instances whose attempts take more than their slots: the rest waits there for a slot.
    pub over: BTreeSet<InstanceId>,
    /// Machines that are not gone, by solution and state.
    pub(super) machines: BTreeMap<SolutionId, BTreeMap<InstanceState, BTreeSet<InstanceId>>>,
    /// Free machines, by since when.
    pub(super) free_machines: BTreeSet<(Timestamp, InstanceId)>,
    /// What is gone, by since when.
    pub(super) gone: BTreeSet<(Timestamp, InstanceId)>,
    /// Where each stands in the three above.
    lives: BTreeMap<InstanceId, Life>,
    /// Draining instances.
    pub draining: BTreeSet<InstanceId>,
    /// Sessions whose thread has groups.
    pub deployed: BTreeSet<SessionId>,
    /// Paused sessions.
    pub paused: BTreeSet<SessionId>,
    /// Sessions in which something ended since the last settling.
    pub unsettled: BTreeSet<SessionId>,
    /// Nodes with a link that can no longer open, to be cancelled by the next settling.
    pub doomed: BTreeSet<NodeKey>,
    /// Instances held but idle, by since when.
    pub idle: BTreeSet<(Timestamp, SessionId, InstanceId)>,
    /// What open attempts are expected to cost, and what open sessions have spent.
    pub(super) money: Money,
}

impl PartialEq for Index {
    /// `rooms` depends on connections; `unsettled` and `doomed` are empty between turns: none is kept.
    fn eq(&self, other: &Self) -> bool {
        self.ready == other.ready
            && self.sets == other.sets
            && self.queued == other.queued
            && self.loads == other.loads
            && self.on_instance == other.on_instance
            && self.in_gateway == other.in_gateway
            && self.by_user == other.by_user
            && self.items_open == other.items_open
            && self.over == other.over
            && self.draining == other.draining
            && self.lives == other.lives
            && self.machines == other.machines
            && self.free_machines == other.free_machines
            && self.gone == other.gone
            && self.deployed == other.deployed
            && self.paused == other.paused
            && self.idle == other.idle
            && self.money == other.money
    }
}

impl Index {
    /// The indices of a snapshot, but for those by instance.
    pub(super) fn build(snapshot: &Snapshot) -> Self {
        let mut index = Self::default();
        for session in snapshot.sessions.values() {
            if !session.spec.thread.groups.is_empty() {
                index.deployed.insert(session.id);
            }
            if session.state == SessionState::Paused {
                index.paused.insert(session.id);
            }
            index.money.set_launch(session.id, session.budget);
            for (at, node) in session.nodes.iter().enumerate() {
                index.money.ended(session.id, node.cost);
                let key = NodeKey { session: session.id, node: u32::try_from(at).unwrap_or(u32::MAX) };
                index.set_ready(key, &session.spec, session.state, node);
                index.more_items(&session.spec.user, u64::from(node.count - node.tally.ended()));
            }
            for (instance, hold) in &session.holds {
                if hold.attempts == 0 {
                    index.idle.insert((hold.idle_since, session.id, instance.clone()));
                }
            }
        }
        for attempt in snapshot.attempts.values() {
            let session = snapshot.sessions.get(&attempt.key.item.session());
            if let (Some(session), Some(node)) = (session, snapshot.node(attempt.key.item.node)) {
                index.add_attempt(attempt, &node.profile.needs, &session.spec.user);
            }
        }
        index
    }

    /// What is taken on an instance.
    pub fn load_of(&self, instance: &InstanceId) -> &Load {
        static NOTHING: LazyLock<Load> = LazyLock::new(Load::default);
        self.loads.get(instance).unwrap_or(&NOTHING)
    }

    /// Puts an instance where its state and its being free say.
    pub(super) fn set_life(&mut self, id: &InstanceId, instance: Option<&Instance>) {
        let life = instance.filter(|i| i.machine.is_some() || i.state == InstanceState::Gone).map(|i| Life {
            solution: i.solution.clone(),
            state: i.state,
            since: i.since,
            free: i.is_free(),
        });
        if self.lives.get(id) == life.as_ref() {
            return;
        }
        if let Some(before) = self.lives.remove(id) {
            self.free_machines.remove(&(before.since, id.clone()));
            self.gone.remove(&(before.since, id.clone()));
            let by_state = self.machines.entry(before.solution.clone()).or_default();
            by_state.entry(before.state).or_default().remove(id);
            by_state.retain(|_, ids| !ids.is_empty());
            self.machines.retain(|_, by_state| !by_state.is_empty());
        }
        let Some(life) = life else { return };
        if life.state == InstanceState::Gone {
            self.gone.insert((life.since, id.clone()));
        } else {
            let by_state = self.machines.entry(life.solution.clone()).or_default();
            by_state.entry(life.state).or_default().insert(id.clone());
            if life.free {
                self.free_machines.insert((life.since, id.clone()));
            }
        }
        self.lives.insert(id.clone(), life);
    }

    pub(super) fn more_items(&mut self, user: &UserName, count: u64) {
        if count > 0 {
            *self.items_open.entry(user.clone()).or_default() += count;
        }
    }

    pub(super) fn fewer_items(&mut self, user: &UserName, count: u64) {
        less(&mut self.items_open, user, count);
    }

    /// Puts a node in or out of `ready`, as its state and its session's say.
    pub(super) fn set_ready(&mut self, key: NodeKey, spec: &SessionSpec, state: SessionState, node: &Node) {
        let running = state == SessionState::Running && node.links_open == 0;
        let since = match node.retry.first() {
            _ if !running => None,
            _ if node.untouched() > 0 => Some(node.ready_at),
            Some((not_before, _)) => Some((*not_before).max(node.ready_at)),
            None => None,
        };
        let paced = node.typical_run_ms.is_some();
        let stands = self.queued.get(&key);
        let same = |stands: &Queued| {
            let of_class = &stands.class.profile;
            stands.paced == paced && (Arc::ptr_eq(of_class, &node.profile) || *of_class == node.profile)
        };
        if stands.map(|stands| stands.since) == since && stands.is_none_or(same) {
            return;
        }
        if let Some(Queued { since, class, paced, set }) = self.queued.remove(&key) {
            dequeue(&mut self.ready, &class, (since, key));
            if set {
                self.sets.remove(&(since, key));
            }
            if paced {
                dequeue(&mut self.paced, &class, (since, key));
            }
        }
        if let Some(since) = since {
            let class = Class { user: spec.user.clone(), profile: node.profile.clone() };
            self.ready.entry(class.clone()).or_default().insert((since, key));
            if paced {
                self.paced.entry(class.clone()).or_default().insert((since, key));
            }
            let set = spec.thread.together.iter().any(|set| set.contains(&key.node));
            if set {
                self.sets.insert((since, key));
            }
            self.queued.insert(key, Queued { since, class, paced, set });
        }
    }

    pub(super) fn add_attempt(&mut self, attempt: &Attempt, needs: &Needs, user: &UserName) {
        *self.by_user.entry(user.clone()).or_default() += 1;
        self.money.opened(attempt, user);
        match &attempt.place {
            Place::Instance(id) => {
                self.on_instance.entry(id.clone()).or_default().insert(attempt.key);
                self.loads.entry(id.clone()).or_default().add(needs);
            }
            Place::Gateway(id) => *self.in_gateway.entry(id.clone()).or_default() += 1,
        }
    }

    pub(super) fn remove_attempt(&mut self, attempt: &Attempt, needs: &Needs, user: &UserName) {
        less(&mut self.by_user, user, 1);
        self.money.closed(attempt, user);
        match &attempt.place {
            Place::Instance(id) => {
                if let Some(keys) = self.on_instance.get_mut(id) {
                    keys.remove(&attempt.key);
                    if keys.is_empty() {
                        self.on_instance.remove(id);
                    }
                }
                if let Some(load) = self.loads.get_mut(id) {
                    load.remove(needs);
                    if *load == Load::default() {
                        self.loads.remove(id);
                    }
                }
            }
            Place::Gateway(id) => less(&mut self.in_gateway, id, 1),
        }
    }
}
