//! `decide`: one pass over what could be placed.
//!
//! Classes are served in order of rank (service level, urgency), then of how long their oldest node
//! has been ready. A class whose next item finds no place is put aside for this pass: its other items
//! ask for the same. Where both kinds of place can ever take an item, the cheaper kind gets it; when
//! that has no room, the item waits for it until its allowed wait (less the cold start it would then
//! still have before it) is over, and goes to the dearer kind ("patience").

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::balance::{InGateway, OnInstance, Overlay};
use super::index::Class;
use super::policy::Policy;
use super::reason::{Choice, Reason};
use super::snapshot::Snapshot;
use crate::attempt::Place;
use crate::event::Event;
use crate::id::{InstanceId, ItemKey, NodeKey, SessionId};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{HoldPolicy, ItemState, SessionState};
use crate::task::URGENT;

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

/// A class of items that found no place, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The class's session.
    pub session: SessionId,
    /// Its first node.
    pub node: NodeKey,
    /// Why its next item was not placed.
    pub reason: Reason,
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
    /// Classes that found no place.
    pub waiting: Vec<Waiting>,
    /// When time alone would change the answer.
    pub next_wake: Option<Timestamp>,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.next_wake = Some(self.next_wake.map_or(at, |w| w.min(at)));
    }
}

/// One pass. Same input, same plan.
pub fn decide(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Plan {
    let mut pass = Pass {
        overlay: Overlay::new(snapshot, policy),
        now,
        plan: Plan::default(),
        taken: BTreeMap::new(),
        together_tried: BTreeSet::new(),
    };
    pass.place();
    pass.release();
    pass.plan
}

struct Pass<'a> {
    overlay: Overlay<'a>,
    now: Timestamp,
    plan: Plan,
    /// Items of a node given out by this pass.
    taken: BTreeMap<NodeKey, u32>,
    /// First nodes of `together` sets looked at in this pass.
    together_tried: BTreeSet<NodeKey>,
}

/// Order in which classes are served: rank, oldest, key; with the class and its place in its queue.
type Head<'a> = (Reverse<(crate::task::ServiceLevel, u8)>, Timestamp, NodeKey, &'a Class);

enum Next {
    Item(ItemKey, u32, Timestamp),
    NotYet(Timestamp),
    None,
}

impl<'a> Pass<'a> {
    fn place(&mut self) {
        let ready = &self.overlay.snapshot.index.ready;
        let mut cursors: BTreeMap<&Class, _> = ready.iter().map(|(class, nodes)| (class, nodes.iter())).collect();
        let mut heads: BTreeSet<Head<'a>> = BTreeSet::new();
        let mut advance = |class: &'a Class, heads: &mut BTreeSet<Head<'a>>| {
            if let Some((since, node)) = cursors.get_mut(class).and_then(Iterator::next) {
                heads.insert((Reverse(class.profile.rank), *since, *node, class));
            }
        };
        for class in ready.keys() {
            advance(class, &mut heads);
        }
        while let Some((_, _, node, class)) = heads.pop_first() {
            match self.place_node(class, node) {
                Ok(()) => advance(class, &mut heads),
                Err(reason) => {
                    self.plan.waiting.push(Waiting { session: class.session, node, reason: reason.clone() });
                    match reason {
                        Reason::PlanFull => return self.plan.wake_at(self.now),
                        // These belong to this node, not to its class.
                        Reason::TogetherNotReady { .. } | Reason::TogetherLacks { .. } => advance(class, &mut heads),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Places as many items of a node as find room. An error says why its next item does not.
    fn place_node(&mut self, class: &Class, node: NodeKey) -> Result<(), Reason> {
        let session = self.overlay.snapshot.sessions.get(&node.session);
        let Some(session) = session.filter(|s| s.state == SessionState::Running) else {
            return Err(Reason::SessionStops);
        };
        if let Some(set) = session.spec.thread.together.iter().find(|set| set.contains(&node.node)) {
            return self.place_together(node.session, set);
        }
        loop {
            match self.next_item(node) {
                Next::None => return Ok(()),
                Next::NotYet(at) => {
                    self.plan.wake_at(at);
                    return Ok(());
                }
                Next::Item(item, number, since) => self.place_item(class, item, number, since)?,
            }
        }
    }

    /// The node's next item that this pass has not given out: retries whose time has come, then
    /// untouched indices.
    fn next_item(&self, key: NodeKey) -> Next {
        let Some(node) = self.overlay.snapshot.node(key) else { return Next::None };
        let taken = self.taken.get(&key).copied().unwrap_or(0);
        let due = node.retry.range(..=(self.now, u32::MAX)).count();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        if taken < due {
            let retry = node.retry.iter().nth(taken as usize).map(|(_, index)| *index);
            let index = retry.unwrap_or(0);
            if let Some(ItemState::Ready { not_before, attempts, .. }) = node.open.get(&index) {
                return Next::Item(key.item(index), attempts + 1, (*not_before).max(node.ready_at));
            }
        }
        let fresh = taken - due.min(taken);
        if fresh < node.untouched() {
            return Next::Item(key.item(node.next + fresh), 1, node.ready_at);
        }
        match node.retry.range((self.now, u32::MAX)..).next() {
            Some((at, _)) => Next::NotYet(*at),
            None => Next::None,
        }
    }

    fn place_item(&mut self, class: &Class, item: ItemKey, number: u32, since: Timestamp) -> Result<(), Reason> {
        if self.plan.assignments.len() >= self.overlay.policy.plan_orders_max as usize {
            return Err(Reason::PlanFull);
        }
        let chosen = choose(&self.overlay, class, since, self.now).inspect_err(|reason| {
            if let Reason::WaitsForCheaper { until, .. } = reason {
                self.plan.wake_at(*until);
            }
        })?;
        self.take(class, item, number, chosen);
        Ok(())
    }

    fn take(&mut self, class: &Class, item: ItemKey, number: u32, chosen: Chosen) {
        let profile = &class.profile;
        let place_limit = match &chosen.place {
            Place::Instance(id) => {
                let instance = self.overlay.snapshot.instances.get(id);
                if instance.is_some_and(|i| !self.overlay.holds(class.session, i)) {
                    self.plan.holds.push(Release { instance: id.clone(), session: class.session });
                }
                self.overlay.take_instance(class, id);
                let solution = instance.and_then(|i| self.overlay.snapshot.solutions.get(&i.solution));
                solution.and_then(|s| s.dedicated()).map(|d| d.timeout_ms)
            }
            Place::Gateway(id) => {
                self.overlay.take_gateway(id);
                self.overlay.snapshot.solutions.get(id).and_then(|s| s.shared()).map(|s| s.timeout_ms)
            }
        };
        let limits = [profile.longest_run_ms, place_limit];
        let limit_ms = if profile.service { None } else { limits.into_iter().flatten().min() };
        *self.taken.entry(item.node).or_default() += 1;
        self.plan.assignments.push(Assignment {
            item,
            number,
            place: chosen.place,
            choice: chosen.choice,
            cost: chosen.cost,
            limit_ms,
        });
    }

    /// All items of the set in this plan, or none.
    fn place_together(&mut self, session_id: SessionId, set: &[u32]) -> Result<(), Reason> {
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
            return Err(Reason::TogetherNotReady { nodes: not_ready });
        }
        let before = (self.overlay.clone(), self.plan.clone(), self.taken.clone());
        let (mut of, mut lacking, mut because) = (0, 0, None);
        for key in set.iter().map(node_key) {
            let profile = session.nodes[key.node as usize].profile.clone();
            let class = Class { session: session_id, profile };
            while let Next::Item(item, number, since) = self.next_item(key) {
                of += 1;
                if let Err(reason) = self.place_item(&class, item, number, since) {
                    lacking += 1;
                    because.get_or_insert(reason);
                    *self.taken.entry(key).or_default() += 1;
                }
            }
        }
        let Some(because) = because else { return Ok(()) };
        let wake = self.plan.next_wake;
        (self.overlay, self.plan, self.taken) = before;
        if let Some(at) = wake {
            self.plan.wake_at(at);
        }
        Err(Reason::TogetherLacks { lacking, of, because: Box::new(because) })
    }

    /// Holds that have been idle for as long as their session's policy allows.
    fn release(&mut self) {
        let snapshot = self.overlay.snapshot;
        for (since, session_id, instance) in &snapshot.index.idle {
            let Some(session) = snapshot.sessions.get(session_id) else { continue };
            let HoldPolicy::IdleMs(idle_ms) = session.spec.thread.hold else { continue };
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
    }
}

pub(super) struct Chosen {
    pub place: Place,
    pub choice: Choice,
    pub cost: NanoUsd,
}

fn on_instance(found: OnInstance, choice: Choice, group: Option<&std::sync::Arc<str>>) -> Chosen {
    let choice = match group.filter(|_| found.by_group) {
        Some(group) => Choice::Group { group: group.clone() },
        None => choice,
    };
    Chosen { place: Place::Instance(found.id), choice, cost: found.cost }
}

fn in_gateway(found: InGateway, choice: Choice) -> Chosen {
    Chosen { place: Place::Gateway(found.id), choice, cost: found.cost }
}

/// Chooses a place for one item that has been ready since `since`.
pub(super) fn choose(overlay: &Overlay<'_>, class: &Class, since: Timestamp, now: Timestamp) -> Result<Chosen, Reason> {
    let profile = &class.profile;
    let group = profile.group.as_ref();
    match (overlay.any_instance_ever(profile), overlay.any_gateway_ever(profile)) {
        (Err(_), Err(_)) => Err(neither(overlay, class)),
        (Ok(_), Err(other)) => {
            let found = overlay.best_instance(class)?;
            let choice = only(profile.mode, other, Some(found.balance));
            Ok(on_instance(found, choice, group))
        }
        (Err(other), Ok(_)) => Ok(in_gateway(overlay.best_gateway(profile)?, only(profile.mode, other, None))),
        (Ok(instance_cost), Ok(gateway_cost)) => {
            let both = Both { overlay, class, since, now, instance_cost, gateway_cost };
            if instance_cost <= gateway_cost { both.instance_first() } else { both.gateway_first() }
        }
    }
}

fn only(mode: crate::task::RunningMode, other: Reason, balance: Option<crate::task::Balance>) -> Choice {
    match other {
        Reason::ModeExcludes { .. } => Choice::Mode { mode, balance },
        other => Choice::OnlyKind { other: Box::new(other) },
    }
}

/// Neither kind can ever take it: the reason of the kind that the mode allows.
fn neither(overlay: &Overlay<'_>, class: &Class) -> Reason {
    let of_gateway = overlay.any_gateway_ever(&class.profile).err();
    match overlay.best_instance(class) {
        Err(Reason::ModeExcludes { .. } | Reason::FunctionNeedsGateway) => {
            of_gateway.unwrap_or(Reason::NoneConfigured { what: "shared solution".into() })
        }
        Err(reason) => reason,
        Ok(_) => Reason::PlanFull,
    }
}

struct Both<'a> {
    overlay: &'a Overlay<'a>,
    class: &'a Class,
    since: Timestamp,
    now: Timestamp,
    instance_cost: NanoUsd,
    gateway_cost: NanoUsd,
}

impl Both<'_> {
    fn instance_first(&self) -> Result<Chosen, Reason> {
        let group = self.class.profile.group.as_ref();
        let (here, there) = (self.instance_cost, self.gateway_cost);
        let because = match self.overlay.best_instance(self.class) {
            Ok(found) => return Ok(on_instance(found, Choice::Cheaper { here, there }, group)),
            Err(reason) => reason,
        };
        let choice = self.second(because, self.gateway_cold_start_ms(), self.gateway_cost, self.instance_cost)?;
        let found = self.overlay.best_gateway(&self.class.profile).map_err(|_| full(&choice))?;
        Ok(in_gateway(found, choice))
    }

    fn gateway_first(&self) -> Result<Chosen, Reason> {
        let group = self.class.profile.group.as_ref();
        let (here, there) = (self.gateway_cost, self.instance_cost);
        let because = match self.overlay.best_gateway(&self.class.profile) {
            Ok(found) => return Ok(in_gateway(found, Choice::Cheaper { here, there })),
            Err(reason) => reason,
        };
        let choice = self.second(because, 0, self.instance_cost, self.gateway_cost)?;
        let found = self.overlay.best_instance(self.class).map_err(|_| full(&choice))?;
        Ok(on_instance(found, choice, group))
    }

    /// May it go to the dearer kind yet? `start_ms` is how long that kind takes to start.
    fn second(&self, because: Reason, start_ms: u64, here: NanoUsd, there: NanoUsd) -> Result<Choice, Reason> {
        let because = Box::new(because);
        if self.class.profile.rank.1 >= URGENT {
            return Ok(Choice::Urgent { because });
        }
        let until = self.since.after_ms(self.class.profile.allowed_wait_ms.saturating_sub(start_ms));
        if self.now < until {
            return Err(Reason::WaitsForCheaper { until, because });
        }
        Ok(Choice::Overflow { waited_ms: self.now.ms_since(self.since), here, there, because })
    }

    fn gateway_cold_start_ms(&self) -> u64 {
        let shared = self.overlay.snapshot.solutions.values().filter_map(|s| s.shared());
        shared.map(|s| s.cold_start_ms).max().unwrap_or(0)
    }
}

/// Both kinds are full: what the cheaper one said.
fn full(choice: &Choice) -> Reason {
    match choice {
        Choice::Overflow { because, .. } | Choice::Urgent { because } => (**because).clone(),
        _ => Reason::PlanFull,
    }
}

impl Plan {
    /// The plan as events, in the order in which they are to be applied. `generation` is the turn.
    pub fn into_events(self, snapshot: &Snapshot, generation: u64, now: Timestamp) -> Vec<Event> {
        let held = |r: Release| Event::InstanceHeld { instance: r.instance, session: r.session };
        let mut events: Vec<Event> = self.holds.into_iter().map(held).collect();
        events.extend(self.assignments.into_iter().map(|a| Event::Assigned { attempt: a.into_attempt(snapshot, generation, now) }));
        events.extend(self.releases.into_iter().map(|r| Event::InstanceReleased {
            instance: r.instance,
            session: r.session,
            why: "idle for as long as the session keeps it".to_owned(),
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
            cancelling: false,
            assigned_at: now,
            started_at: None,
            limit_ms: self.limit_ms,
            choice: self.choice,
            cost_estimate: self.cost,
        }
    }
}
