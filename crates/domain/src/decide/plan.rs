//! `decide`: one pass over what could be placed.
//!
//! Classes are served in order of rank (service level, urgency), then of how long their oldest node
//! has been ready. A class whose next item finds no place is put aside for this pass: its other items
//! ask for the same. [`super::choose`] finds the place for one item.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::backfill::Overdue;
use super::balance::Overlay;
use super::budget::{OverBudget, Purse, Warning};
use super::choose::{Asking, Chosen, Ever, choose};
use super::index::Class;
use super::place::credit_per_slot;
use super::policy::Policy;
use super::proposal::{self, Proposal};
use super::reason::{Choice, Instead, Reason};
use super::reserve::Warm;
use super::snapshot::Snapshot;
use crate::attempt::{Place, Withdrawal};
use crate::event::Event;
use crate::id::{AttemptKey, InstanceId, ItemKey, NodeKey, SessionId, SolutionId, UserName};
use crate::instance::InstanceFacts;
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{HoldPolicy, ItemState, Session};
use crate::task::Profile;

/// An item, and where it is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which item.
    pub item: ItemKey,
    /// Number of the attempt.
    pub number: u32,
    /// Where.
    pub place: Place,
    /// Why there.
    pub choice: Choice,
    /// What it is expected to cost.
    pub cost: NanoUsd,
    /// Its time limit there, ms.
    pub limit_ms: Option<u64>,
}

/// An instance that a session gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Which.
    pub instance: InstanceId,
    /// By whom.
    pub session: SessionId,
}

/// An open attempt to be asked back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    /// Which.
    pub attempt: AttemptKey,
    /// How.
    pub how: Withdrawal,
    /// Why.
    pub why: String,
}

/// A class of items that found no place, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its first node.
    pub node: NodeKey,
    /// Why its next item was not placed.
    pub reason: Reason,
    /// It holds for every node of the same user and profile.
    pub of_class: bool,
}

/// A machine to be made; its name is given when the plan becomes events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMachine {
    /// Where.
    pub solution: SolutionId,
    /// What it will offer.
    pub facts: InstanceFacts,
    /// What for.
    pub why: String,
}

/// What is to be done. Concrete: whoever carries it out chooses nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Instances taken by sessions, before the assignments that use them.
    pub holds: Vec<Release>,
    /// Items to start.
    pub assignments: Vec<Assignment>,
    /// Instances given back.
    pub releases: Vec<Release>,
    /// Attempts asked back.
    pub withdrawn: Vec<Withdrawn>,
    /// Machines to be made.
    pub wanted: Vec<NewMachine>,
    /// Free machines to be marked as going, and why.
    pub drained: Vec<(InstanceId, String)>,
    /// Machines that the cloud is to end, and why.
    pub ended: Vec<(InstanceId, String)>,
    /// Shared solutions that are to keep another number of instances warm.
    pub warm: Vec<Warm>,
    /// What has been gone for long.
    pub forgotten: Vec<InstanceId>,
    /// Sessions that a cap pauses, and why.
    pub paused: Vec<(SessionId, OverBudget)>,
    /// Caps that are spent as far as is to be said.
    pub warnings: Vec<Warning>,
    /// Classes that found no place.
    pub waiting: Vec<Waiting>,
    /// When time alone would change the answer.
    pub next_wake: Option<Timestamp>,
}

impl Plan {
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.next_wake = Some(self.next_wake.map_or(at, |w| w.min(at)));
    }
}

/// One pass. Same input, same plan.
pub fn decide(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Plan {
    passed(snapshot, policy, now).plan
}

/// One pass, with what it reserved beside its plan.
pub(super) fn passed<'a>(snapshot: &'a Snapshot, policy: &'a Policy, now: Timestamp) -> Pass<'a> {
    let mut pass = Pass {
        overlay: Overlay::new(snapshot, policy, now),
        now,
        plan: Plan::default(),
        taken: BTreeMap::new(),
        together_tried: BTreeSet::new(),
        ever: BTreeMap::new(),
        full: BTreeMap::new(),
        given: BTreeMap::new(),
        defaulted: BTreeMap::new(),
        answered: None,
        overdue: Vec::new(),
        waited_long: BTreeSet::new(),
        cleared: BTreeSet::new(),
        has_reserved: false,
        purse: Purse::new(snapshot, policy, now),
    };
    pass.find_overdue();
    pass.place();
    pass.release();
    super::scale::scale(&mut pass);
    super::reserve::reserve(&mut pass);
    let waited = pass.reserved_for_long();
    super::withdraw::withdraw(&pass.overlay, (&pass.cleared, &waited), now, &mut pass.plan);
    pass.settle_budgets();
    // What was reserved may have been taken, or be better had elsewhere now: look again at what is reserved.
    if pass.has_reserved && !pass.plan.is_idle() {
        pass.plan.wake_at(now);
    }
    pass
}

impl Plan {
    /// Is there anything to carry out?
    pub fn is_idle(&self) -> bool {
        self.assignments.is_empty()
            && self.releases.is_empty()
            && self.withdrawn.is_empty()
            && self.wanted.is_empty()
            && self.drained.is_empty()
            && self.ended.is_empty()
            && self.warm.is_empty()
            && self.forgotten.is_empty()
            && self.paused.is_empty()
            && self.warnings.is_empty()
    }

    /// Why the items of a node that is ready found no place, as far as this plan says.
    pub fn reason_of(&self, snapshot: &Snapshot, node: NodeKey) -> Option<&Reason> {
        let own = self.waiting.iter().find(|w| w.node == node);
        let (session, at) = (snapshot.sessions.get(&node.session)?, snapshot.node(node)?);
        let alike = |w: &&Waiting| {
            let other = snapshot.sessions.get(&w.node.session);
            w.of_class
                && snapshot.node(w.node).is_some_and(|n| n.profile == at.profile)
                && other.is_some_and(|other| other.spec.user == session.spec.user)
        };
        own.or_else(|| self.waiting.iter().find(alike)).map(|w| &w.reason)
    }
}

pub(super) struct Pass<'a> {
    pub(super) overlay: Overlay<'a>,
    pub(super) now: Timestamp,
    pub(super) plan: Plan,
    /// Items of a node given out by this pass.
    taken: BTreeMap<NodeKey, Taken>,
    /// First nodes of `together` sets looked at in this pass.
    together_tried: BTreeSet<NodeKey>,
    /// Which kinds of place could ever take a profile, asked once.
    pub(super) ever: BTreeMap<Arc<Profile>, Ever>,
    /// Profiles that only instances take and that found none: within a pass room only gets less, so that holds
    /// for every other class of the profile too.
    full: BTreeMap<Arc<Profile>, Reason>,
    /// Attempts given to each user by this pass.
    given: BTreeMap<UserName, u32>,
    /// Profiles as the default scheme places them in the algorithm's stead.
    defaulted: BTreeMap<Arc<Profile>, Arc<Profile>>,
    /// Nodes of which the algorithm has said something, and that this pass has not come to, by class.
    answered: Option<BTreeMap<Class, BTreeSet<NodeKey>>>,
    /// What has waited for too long and has nothing reserved yet.
    pub(super) overdue: Vec<Overdue<'a>>,
    /// First nodes of all that has waited for too long.
    pub(super) waited_long: BTreeSet<NodeKey>,
    /// Instances with a reservation when such had theirs: nothing is sent ahead there from then on.
    pub(super) cleared: BTreeSet<InstanceId>,
    /// Anything was reserved, if only for a while.
    pub(super) has_reserved: bool,
    /// What may still be spent.
    pub(super) purse: Purse,
}

/// How many of a node's items this pass has given out.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    retries: u32,
    untouched: u32,
}

/// Order in which classes are served: rank, the user's share, oldest, key; with the class.
type Head<'a> = (Reverse<(crate::task::ServiceLevel, u8)>, u64, Timestamp, NodeKey, &'a Class);

/// Items given to one user before another user of the same rank is looked at.
const FAIR_ITEMS: usize = 4;
/// Nodes of one class looked at for what could be sent ahead, in one pass.
const AHEAD_NODES_MAX: usize = 64;
/// Items sent ahead for a slot while their run time is only a guess.
const CREDIT_GUESSED_MAX: u32 = 8;
/// Share of a user who is not named in the policy.
const WEIGHT: u32 = 100;

#[derive(Debug, Clone, Copy)]
struct NextItem {
    item: ItemKey,
    number: u32,
    /// It has left the default state: it was tried before, or an earlier session did others of its array.
    retry: bool,
    since: Timestamp,
}

/// Why a node's next item was not placed, and for what else that holds.
enum Stop {
    /// For this node only.
    Node(Reason),
    /// For its whole class.
    Class(Reason),
    /// For everything: the plan is full.
    Pass,
}

/// How far a node came.
enum Placed {
    /// Nothing of it is left to place.
    All,
    /// It gave way to another user.
    Some,
}

impl<'a> Pass<'a> {
    fn place(&mut self) {
        let ready = &self.overlay.snapshot.index.ready;
        let mut cursors: BTreeMap<&Class, _> = ready.iter().map(|(class, nodes)| (class, nodes.iter())).collect();
        let mut heads: BTreeSet<Head<'a>> = BTreeSet::new();
        for class in ready.keys() {
            self.advance(class, &mut cursors, &mut heads);
        }
        let several = ready.keys().any(|class| ready.keys().next().is_some_and(|first| first.user != class.user));
        while let Some((rank, share, since, node, class)) = heads.pop_first() {
            let present = self.share(&class.user);
            if several && share < present {
                // What this pass gave its user since then counts.
                heads.insert((rank, present, since, node, class));
                continue;
            }
            self.reserve_overdue_before(class, since, node);
            let (reason, of_class) = match self.place_node(class, node, several) {
                Ok(Placed::All) => {
                    self.advance(class, &mut cursors, &mut heads);
                    continue;
                }
                Ok(Placed::Some) => {
                    heads.insert((rank, self.share(&class.user), since, node, class));
                    continue;
                }
                Err(Stop::Node(reason)) => (reason, false),
                Err(Stop::Class(reason)) => (reason, true),
                Err(Stop::Pass) => {
                    heads.clear();
                    self.plan.wake_at(self.now);
                    (Reason::PlanFull, true)
                }
            };
            self.reserve(class, node, &reason, of_class);
            if !of_class {
                self.advance(class, &mut cursors, &mut heads);
            } else if !matches!(reason, Reason::PlanFull) {
                self.place_ahead(class);
            }
            self.plan.waiting.push(Waiting { node, reason, of_class });
        }
    }

    /// The class's next node that could be placed by now becomes a head.
    fn advance(
        &mut self,
        class: &'a Class,
        cursors: &mut BTreeMap<&'a Class, std::collections::btree_set::Iter<'a, (Timestamp, NodeKey)>>,
        heads: &mut BTreeSet<Head<'a>>,
    ) {
        let Some((since, node)) = cursors.get_mut(class).and_then(Iterator::next) else { return };
        if *since > self.now {
            self.plan.wake_at(*since);
        } else {
            heads.insert((Reverse(class.profile.rank), self.share(&class.user), *since, *node, class));
        }
    }

    /// What a user has open, against the user's weight.
    fn share(&self, user: &UserName) -> u64 {
        let before = self.overlay.snapshot.index.by_user.get(user).copied().unwrap_or(0);
        let open = before + self.given.get(user).copied().unwrap_or(0);
        let weight = self.overlay.policy.weights.get(user).copied().unwrap_or(WEIGHT).max(1);
        u64::from(open) * 1_000_000 / u64::from(weight)
    }

    /// Places as many items of a node as find room, or a few when others wait. An error says why its
    /// next item does not.
    fn place_node(&mut self, class: &Class, node: NodeKey, several: bool) -> Result<Placed, Stop> {
        let Some(session) = self.overlay.snapshot.sessions.get(&node.session) else { return Ok(Placed::All) };
        if let Some(set) = session.spec.thread.together.iter().find(|set| set.contains(&node.node)) {
            return self.place_together(node.session, set).map(|()| Placed::All);
        }
        let mut patient = None;
        let most = if several { FAIR_ITEMS } else { usize::MAX };
        let until = self.plan.assignments.len().saturating_add(most);
        while let Some(next) = self.next_retry(node) {
            if self.plan.assignments.len() >= until {
                return Ok(Placed::Some);
            }
            match self.place_item(class, next) {
                Ok(()) => {}
                // Of the same class, but untouched items have waited for longer than a retry.
                Err(Stop::Class(reason @ Reason::WaitsForCheaper { .. })) => {
                    patient = Some(reason);
                    break;
                }
                Err(stop) => return Err(stop),
            }
        }
        while let Some(next) = self.next_untouched(node) {
            if self.plan.assignments.len() >= until {
                return Ok(Placed::Some);
            }
            self.place_item(class, next)?;
        }
        patient.map_or(Ok(Placed::All), |reason| Err(Stop::Node(reason)))
    }

    /// The node's next item to be tried again that this pass has not given out.
    fn next_retry(&mut self, key: NodeKey) -> Option<NextItem> {
        let node = self.overlay.snapshot.node(key)?;
        let taken = self.taken.get(&key).map_or(0, |t| t.retries);
        let (at, index) = *node.retry.iter().nth(taken as usize)?;
        if at > self.now {
            self.plan.wake_at(at);
            return None;
        }
        let Some(ItemState::Ready { attempts, .. }) = node.open.get(&index) else { return None };
        Some(NextItem { item: key.item(index), number: attempts + 1, retry: true, since: at.max(node.ready_at) })
    }

    /// The node's next untouched item that this pass has not given out.
    fn next_untouched(&self, key: NodeKey) -> Option<NextItem> {
        let node = self.overlay.snapshot.node(key)?;
        let taken = self.taken.get(&key).map_or(0, |t| t.untouched);
        (taken < node.untouched()).then(|| NextItem {
            item: key.item(node.next + taken),
            number: 1,
            retry: false,
            since: node.ready_at,
        })
    }

    /// Items of a node that could start now and that this pass has not given out.
    pub(super) fn left(&self, key: NodeKey) -> u32 {
        let Some(node) = self.overlay.snapshot.node(key) else { return 0 };
        let taken = self.taken.get(&key).copied().unwrap_or_default();
        let due = node.retry.iter().take_while(|(at, _)| *at <= self.now).count();
        let retries = u32::try_from(due).unwrap_or(u32::MAX).saturating_sub(taken.retries);
        node.untouched().saturating_sub(taken.untouched).saturating_add(retries)
    }

    /// The same of a class.
    pub(super) fn left_of(&self, class: &Class) -> u32 {
        let nodes = self.overlay.snapshot.index.ready.get(class).into_iter().flatten();
        let left = nodes.filter(|(since, _)| *since <= self.now).map(|(_, node)| self.left(*node));
        left.fold(0, u32::saturating_add)
    }

    fn count_taken(&mut self, next: NextItem) {
        let taken = self.taken.entry(next.item.node).or_default();
        if next.retry { taken.retries += 1 } else { taken.untouched += 1 }
    }

    fn orders_max(&self) -> usize {
        self.overlay.policy.plan_orders_max.max(1) as usize
    }

    fn place_item(&mut self, class: &Class, next: NextItem) -> Result<(), Stop> {
        if self.plan.assignments.len() >= self.orders_max() {
            return Err(Stop::Pass);
        }
        let instead = match proposal::of(&self.overlay, &class.profile, next.item, self.now) {
            Proposal::AsItIs => None,
            Proposal::Place(chosen) => {
                self.within_budget(class, next, chosen.cost, chosen.cost)?;
                self.take(class, next, chosen);
                return Ok(());
            }
            Proposal::Default(algorithm, instead) => Some((algorithm, instead)),
        };
        if matches!(instead, Some((_, Instead::Rests { .. }))) {
            // From then on it is asked again.
            self.overlay.snapshot.algorithm_rests().into_iter().for_each(|until| self.plan.wake_at(until));
        }
        let defaulted = instead.as_ref().map(|_| self.by_default(&class.profile));
        let (overlay, profile) = (&self.overlay, defaulted.as_ref().unwrap_or(&class.profile));
        let of_session = profile.group.is_some() || overlay.policy.instances_per_session_max.is_some();
        if let Some(reason) = self.full.get(profile).filter(|_| !of_session) {
            return Err(self.stop(class, next.item, reason.clone(), instead));
        }
        let ever = self.ever.entry(profile.clone()).or_insert_with(|| Ever::of(overlay, profile));
        let asking = Asking { session: next.item.session(), profile, since: next.since, now: self.now };
        let reason = match choose(overlay, ever, asking) {
            Ok(mut chosen) => {
                let cheapest = ever.cheapest().unwrap_or(chosen.cost).min(chosen.cost);
                self.within_budget(class, next, chosen.cost, cheapest)?;
                if let Some((algorithm, instead)) = instead {
                    chosen.choice = instead.choice(&algorithm, chosen.choice);
                }
                self.take(class, next, chosen);
                return Ok(());
            }
            Err(reason) => reason,
        };
        if let Reason::WaitsForCheaper { until, .. } = reason {
            self.plan.wake_at(until);
        } else if ever.only_instances() {
            self.full.insert(profile.clone(), reason.clone());
        }
        Err(self.stop(class, next.item, reason, instead))
    }

    /// The profile as the default scheme places it.
    fn by_default(&mut self, profile: &Arc<Profile>) -> Arc<Profile> {
        let overlay = &self.overlay;
        let made = || Arc::new(proposal::by_default(overlay, profile));
        self.defaulted.entry(profile.clone()).or_insert_with(made).clone()
    }

    /// Is there money for it? A session's cap, and one that pauses, say nothing of other sessions of its class.
    fn within_budget(&mut self, class: &Class, next: NextItem, asks: NanoUsd, cheapest: NanoUsd) -> Result<(), Stop> {
        let (snapshot, policy) = (self.overlay.snapshot, self.overlay.policy);
        let Some(session) = snapshot.sessions.get(&next.item.session()) else { return Ok(()) };
        let Err(over) = self.purse.allows((snapshot, policy), session, asks, cheapest) else { return Ok(()) };
        let alone = over.cap.session().is_some() || self.purse.over.contains_key(&session.id);
        let reason = Reason::OverBudget(Box::new(over));
        Err(if alone { Stop::Node(reason) } else { self.stop(class, next.item, reason, None) })
    }

    /// What finds no slot now is sent ahead, where its run time is known to be short: nodes of the class
    /// that have one, as many items as may wait.
    fn place_ahead(&mut self, class: &Class) {
        let (snapshot, now) = (self.overlay.snapshot, self.now);
        let nodes = snapshot.index.paced.get(class).into_iter().flatten().take(AHEAD_NODES_MAX);
        for (_, node) in nodes.filter(|(since, _)| *since <= now) {
            while let Some(next) = self.next_retry(*node).or_else(|| self.next_untouched(*node)) {
                let Some(chosen) = self.ahead(class, next) else { break };
                if self.plan.assignments.len() >= self.orders_max() {
                    self.plan.wake_at(now);
                    return;
                }
                if self.within_budget(class, next, chosen.cost, chosen.cost).is_err() {
                    break;
                }
                self.take(class, next, chosen);
            }
        }
    }

    fn ahead(&self, class: &Class, next: NextItem) -> Option<Chosen> {
        let (node, profile) = (self.overlay.snapshot.node(next.item.node)?, &class.profile);
        let per_slot = credit_per_slot(profile, node.typical_run_ms, self.overlay.policy);
        // A run time that is only a guess binds little.
        let per_slot = if node.tally.succeeded == 0 { per_slot.min(CREDIT_GUESSED_MAX) } else { per_slot };
        let run_ms = node.typical_run_ms.filter(|_| per_slot > 0 && !self.in_a_set(next.item.node))?;
        let asking = Asking { session: next.item.session(), profile, since: next.since, now: self.now };
        self.ever.get(profile)?.ahead(&self.overlay, asking, per_slot, run_ms)
    }

    fn in_a_set(&self, node: NodeKey) -> bool {
        let session = self.overlay.snapshot.sessions.get(&node.session);
        session.is_some_and(|s| s.spec.thread.together.iter().any(|set| set.contains(&node.node)))
    }

    /// For what else does the reason hold? A limit of instances and a group's place belong to a session: they
    /// stop the node only. So does what the configured algorithm said of one item, while it said something of
    /// other nodes of the class.
    fn stop(&mut self, class: &Class, item: ItemKey, reason: Reason, instead: Option<(Arc<str>, Instead)>) -> Stop {
        let of_session = class.profile.group.is_some() || self.overlay.policy.instances_per_session_max.is_some();
        let of_item = match &instead {
            Some((_, why)) => !matches!(why, Instead::Rests { .. }),
            None => self.overlay.policy.custom(&class.profile).is_some() && self.answered_elsewhere(class, item.node),
        };
        let reason = match (reason, instead) {
            (reason, Some((algorithm, instead))) => instead.reason(&algorithm, reason),
            (Reason::NoProposal { class }, None) if proposal::waits(&self.overlay, item) => {
                Reason::LeftWaiting { class }
            }
            (reason, None) => reason,
        };
        if of_session || of_item { Stop::Node(reason) } else { Stop::Class(reason) }
    }

    /// Has the algorithm said something of a node of the class that this pass has not come to?
    fn answered_elsewhere(&mut self, class: &Class, node: NodeKey) -> bool {
        let snapshot = self.overlay.snapshot;
        let answered = self.answered.get_or_insert_with(|| {
            let mut answered: BTreeMap<Class, BTreeSet<NodeKey>> = BTreeMap::new();
            for key in snapshot.proposals.items.keys().map(|item| item.node) {
                let session = snapshot.sessions.get(&key.session);
                if let (Some(session), Some(node)) = (session, snapshot.node(key)) {
                    let class = Class { user: session.spec.user.clone(), profile: node.profile.clone() };
                    answered.entry(class).or_default().insert(key);
                }
            }
            answered
        });
        let Some(nodes) = answered.get_mut(class) else { return false };
        nodes.remove(&node);
        !nodes.is_empty()
    }

    fn take(&mut self, class: &Class, next: NextItem, chosen: Chosen) {
        let session = next.item.session();
        let place_limit_ms = match &chosen.place {
            Place::Instance(id) => {
                let instance = self.overlay.snapshot.instances.get(id);
                if instance.is_some_and(|i| !self.overlay.holds(session, i)) {
                    self.plan.holds.push(Release { instance: id.clone(), session });
                }
                self.overlay.take_instance(session, &class.profile, id);
                let solution = instance.and_then(|i| self.overlay.snapshot.solutions.get(&i.solution));
                solution.and_then(|s| s.dedicated()).map(|d| d.timeout_ms)
            }
            Place::Gateway(id) => {
                self.overlay.take_gateway(id);
                self.overlay.snapshot.solutions.get(id).and_then(|s| s.shared()).map(|s| s.timeout_ms)
            }
        };
        // A shared solution with a lower limit than the task's does not take it in the first place.
        let limit_ms = class.profile.longest_run_ms.or(place_limit_ms);
        *self.given.entry(class.user.clone()).or_default() += 1;
        self.purse.give(session, &class.user, &chosen.place, chosen.cost);
        self.count_taken(next);
        self.plan.assignments.push(Assignment {
            item: next.item,
            number: next.number,
            place: chosen.place,
            choice: chosen.choice,
            cost: chosen.cost,
            limit_ms: limit_ms.filter(|_| !class.profile.service),
        });
    }

    /// All items of the set that are ready in this plan, or none.
    fn place_together(&mut self, session_id: SessionId, set: &[u32]) -> Result<(), Stop> {
        let node_key = |node: &u32| NodeKey { session: session_id, node: *node };
        let Some(first) = set.first().map(node_key).filter(|first| self.together_tried.insert(*first)) else {
            return Ok(());
        };
        let snapshot = self.overlay.snapshot;
        let Some(session) = snapshot.sessions.get(&first.session) else { return Ok(()) };
        let not_ready: Vec<_> = set
            .iter()
            .filter(|n| session.nodes[**n as usize].links_open > 0)
            .map(|n| session.spec.thread.nodes[*n as usize].name.clone())
            .collect();
        if !not_ready.is_empty() {
            return Err(Stop::Node(Reason::TogetherNotReady { nodes: not_ready }));
        }
        let before = (self.overlay.clone(), self.plan.clone(), self.taken.clone(), self.given.clone());
        let mut keys: Vec<NodeKey> = set.iter().map(node_key).collect();
        keys.sort_by_cached_key(|key| (self.choosiness(session, *key), *key));
        let (full, money) = (self.full.clone(), self.purse.given());
        let found = self.try_together(keys, session);
        if found.is_err() {
            // What found no room beside the rest of the set may find some without it.
            self.full = full;
            self.purse.take_back(money);
            let wake = self.plan.next_wake;
            (self.overlay, self.plan, self.taken, self.given) = before;
            if let Some(at) = wake {
                self.plan.wake_at(at);
            }
        }
        found
    }

    /// The set is placed without trying back, so what has the fewest places, and then what asks for
    /// most, goes first.
    pub(super) fn choosiness(&self, session: &Session, key: NodeKey) -> (usize, Reverse<(u32, u32, u32, u32)>) {
        let profile = &session.nodes[key.node as usize].profile;
        let needs = &profile.needs;
        let asks = Reverse((needs.cpu.reserved_percent(), needs.slots, needs.memory_mb, needs.storage_mb));
        let instances = self.overlay.snapshot.usable().filter_map(|id| self.overlay.snapshot.instances.get(id));
        (instances.filter(|instance| self.overlay.fits(session.id, profile, instance).is_ok()).count(), asks)
    }

    fn try_together(&mut self, keys: Vec<NodeKey>, session: &Session) -> Result<(), Stop> {
        let (mut of, mut lacking, mut because, mut full) = (0_u32, 0_u32, None, false);
        for key in keys {
            let profile = session.nodes[key.node as usize].profile.clone();
            let class = Class { user: session.spec.user.clone(), profile };
            while let Some(next) = self.next_retry(key).or_else(|| self.next_untouched(key)) {
                of += 1;
                match self.place_item(&class, next) {
                    Ok(()) => continue,
                    Err(Stop::Pass) => full = true,
                    Err(Stop::Class(reason) | Stop::Node(reason)) => {
                        lacking += 1;
                        because.get_or_insert(reason);
                    }
                }
                self.count_taken(next);
            }
        }
        let (asked, most) = (u64::from(of), self.orders_max() as u64);
        if asked > most {
            let what = "orders in one plan".into();
            (lacking, because) = (of, Some(Reason::TooSmall { what, asked, most }));
        } else if full {
            return Err(Stop::Pass);
        }
        because.map_or(Ok(()), |because| {
            Err(Stop::Node(Reason::TogetherLacks { lacking, of, because: Box::new(because) }))
        })
    }

    /// Holds that have been idle for as long as their session's policy allows.
    fn release(&mut self) {
        let snapshot = self.overlay.snapshot;
        for (since, session_id, instance) in &snapshot.index.idle {
            let Some(session) = snapshot.sessions.get(session_id) else { continue };
            // What is going is given back at once.
            let idle_ms = match session.spec.thread.hold {
                _ if snapshot.index.draining.contains(instance) => 0,
                HoldPolicy::IdleMs(idle_ms) => idle_ms,
                HoldPolicy::SessionEnd => continue,
            };
            let used = |a: &Assignment| a.item.session() == *session_id && a.place == Place::Instance(instance.clone());
            if self.plan.assignments.iter().any(used) {
                continue;
            }
            let due = since.after_ms(idle_ms);
            if due <= self.now {
                self.plan.releases.push(Release { instance: instance.clone(), session: *session_id });
            } else {
                self.plan.wake_at(due);
            }
        }
        // What a session gives back counts against its own limit no more; and what no cap allows may find a cheaper
        // place where it was.
        let over = |w: &Waiting| matches!(w.reason, Reason::OverBudget(_));
        let limited = self.overlay.policy.instances_per_session_max.is_some() || self.plan.waiting.iter().any(over);
        if limited && !self.plan.releases.is_empty() && !self.plan.waiting.is_empty() {
            self.plan.wake_at(self.now);
        }
    }
}

impl Plan {
    /// The plan as events, in the order in which they are to be applied. `generation` is the turn.
    pub fn into_events(self, snapshot: &Snapshot, generation: u64, now: Timestamp) -> Vec<Event> {
        let held = |r: Release| Event::InstanceHeld { instance: r.instance, session: r.session };
        let mut events: Vec<Event> = self.holds.into_iter().map(held).collect();
        events.extend(
            self.assignments
                .into_iter()
                .map(|a| Event::Assigned { attempt: a.into_attempt(snapshot, generation, now) }),
        );
        events.extend(
            self.paused.into_iter().map(|(session, over)| Event::BudgetReached { session, over: Box::new(over) }),
        );
        events.extend(self.warnings.into_iter().map(|w| {
            let Warning { cap, said, spent, open } = w;
            Event::BudgetWarned { cap, said, spent, open }
        }));
        events.extend(self.withdrawn.into_iter().map(|w| match w.how {
            Withdrawal::Recall => Event::Recalling { attempt: w.attempt, why: w.why },
            Withdrawal::Move => Event::Moving { attempt: w.attempt, why: w.why },
            Withdrawal::Cancel => Event::Cancelling { attempt: w.attempt },
        }));
        events.extend(self.releases.into_iter().map(|r| Event::InstanceReleased {
            instance: r.instance,
            session: r.session,
            why: "idle for as long as the session keeps it".to_owned(),
        }));
        events.extend(self.drained.into_iter().map(|(instance, why)| Event::InstanceDraining { instance, why }));
        events.extend(self.ended.into_iter().map(|(instance, why)| Event::InstanceEnding { instance, why }));
        let warm = |w: Warm| Event::WarmSet { solution: w.solution, warm: w.warm, why: w.why };
        events.extend(self.warm.into_iter().map(warm));
        events.extend(self.forgotten.into_iter().map(|instance| Event::InstanceForgotten { instance }));
        events.extend(self.wanted.into_iter().enumerate().filter_map(|(ordinal, machine)| {
            let NewMachine { solution, facts, why } = machine;
            let instance = Self::name(&solution, generation, ordinal)?;
            Some(Event::InstanceWanted { instance, solution, facts, why })
        }));
        events
    }
}

impl Assignment {
    fn into_attempt(self, snapshot: &Snapshot, generation: u64, now: Timestamp) -> crate::attempt::Attempt {
        let boot = match &self.place {
            Place::Instance(id) => snapshot.instances.get(id).map(|i| i.boot.clone()).unwrap_or_default(),
            Place::Gateway(_) => String::new(),
        };
        crate::attempt::Attempt {
            key: self.item.attempt(self.number),
            place: self.place,
            generation,
            boot,
            state: crate::attempt::AttemptState::Assigned,
            withdrawn: None,
            assigned_at: now,
            started_at: None,
            limit_ms: self.limit_ms,
            choice: self.choice,
            cost_estimate: self.cost,
            cost: None,
        }
    }
}
