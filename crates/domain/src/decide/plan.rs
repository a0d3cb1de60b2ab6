//! `decide`: one pass over what could be placed.
//!
//! Classes are served in order of rank (service level, urgency), then of how long their oldest node
//! has been ready. A class whose next item finds no place is put aside for this pass: its other items
//! ask for the same. [`super::choose`] finds the place for one item.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::balance::Overlay;
use super::choose::{Chosen, Ever, choose};
use super::index::Class;
use super::policy::Policy;
use super::reason::{Choice, Reason};
use super::snapshot::Snapshot;
use crate::attempt::Place;
use crate::event::Event;
use crate::id::{InstanceId, ItemKey, NodeKey, SessionId};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{HoldPolicy, ItemState, Session, SessionState};
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
        ever: BTreeMap::new(),
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
    taken: BTreeMap<NodeKey, Taken>,
    /// First nodes of `together` sets looked at in this pass.
    together_tried: BTreeSet<NodeKey>,
    /// Which kinds of place could ever take a profile, asked once.
    ever: BTreeMap<Arc<Profile>, Ever>,
}

/// How many of a node's items this pass has given out.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    retries: u32,
    untouched: u32,
}

/// Order in which classes are served: rank, oldest, key; with the class and its place in its queue.
type Head<'a> = (Reverse<(crate::task::ServiceLevel, u8)>, Timestamp, NodeKey, &'a Class);

#[derive(Debug, Clone, Copy)]
struct NextItem {
    item: ItemKey,
    number: u32,
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
            let (reason, goes_on) = match self.place_node(class, node) {
                Ok(()) => {
                    advance(class, &mut heads);
                    continue;
                }
                Err(Stop::Node(reason)) => (reason, true),
                Err(Stop::Class(reason)) => (reason, false),
                Err(Stop::Pass) => {
                    heads.clear();
                    self.plan.wake_at(self.now);
                    (Reason::PlanFull, false)
                }
            };
            self.plan.waiting.push(Waiting { session: class.session, node, reason });
            if goes_on {
                advance(class, &mut heads);
            }
        }
    }

    /// Places as many items of a node as find room. An error says why its next item does not.
    fn place_node(&mut self, class: &Class, node: NodeKey) -> Result<(), Stop> {
        let session = self.overlay.snapshot.sessions.get(&node.session);
        let Some(session) = session.filter(|s| s.state == SessionState::Running) else {
            return Err(Stop::Node(Reason::SessionStops));
        };
        if let Some(set) = session.spec.thread.together.iter().find(|set| set.contains(&node.node)) {
            return self.place_together(node.session, set);
        }
        let mut patient = None;
        while let Some(next) = self.next_retry(node) {
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
            self.place_item(class, next)?;
        }
        patient.map_or(Ok(()), |reason| Err(Stop::Node(reason)))
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
        Some(NextItem { item: key.item(index), number: attempts + 1, since: at.max(node.ready_at) })
    }

    /// The node's next untouched item that this pass has not given out.
    fn next_untouched(&self, key: NodeKey) -> Option<NextItem> {
        let node = self.overlay.snapshot.node(key)?;
        let taken = self.taken.get(&key).map_or(0, |t| t.untouched);
        (taken < node.untouched()).then(|| NextItem {
            item: key.item(node.next + taken),
            number: 1,
            since: node.ready_at,
        })
    }

    fn count_taken(&mut self, next: NextItem) {
        let taken = self.taken.entry(next.item.node).or_default();
        if next.number > 1 { taken.retries += 1 } else { taken.untouched += 1 }
    }

    fn orders_max(&self) -> usize {
        self.overlay.policy.plan_orders_max.max(1) as usize
    }

    fn place_item(&mut self, class: &Class, next: NextItem) -> Result<(), Stop> {
        if self.plan.assignments.len() >= self.orders_max() {
            return Err(Stop::Pass);
        }
        let overlay = &self.overlay;
        let ever = self.ever.entry(class.profile.clone()).or_insert_with(|| Ever::of(overlay, &class.profile));
        match choose(overlay, ever, class, next.since, self.now) {
            Ok(chosen) => {
                self.take(class, next, chosen);
                Ok(())
            }
            Err(reason) => {
                if let Reason::WaitsForCheaper { until, .. } = reason {
                    self.plan.wake_at(until);
                }
                Err(Stop::Class(reason))
            }
        }
    }

    fn take(&mut self, class: &Class, next: NextItem, chosen: Chosen) {
        let place_limit_ms = match &chosen.place {
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
        // A shared solution with a lower limit than the task's does not take it in the first place.
        let limit_ms = class.profile.longest_run_ms.or(place_limit_ms);
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
        let before = (self.overlay.clone(), self.plan.clone(), self.taken.clone());
        let mut keys: Vec<NodeKey> = set.iter().map(node_key).collect();
        keys.sort_by_cached_key(|key| (self.choosiness(session, *key), *key));
        let found = self.try_together(keys, session);
        if found.is_err() {
            let wake = self.plan.next_wake;
            (self.overlay, self.plan, self.taken) = before;
            if let Some(at) = wake {
                self.plan.wake_at(at);
            }
        }
        found
    }

    /// The set is placed without trying back, so what has the fewest places, and then what asks for
    /// most, goes first.
    fn choosiness(&self, session: &Session, key: NodeKey) -> (usize, Reverse<(u32, u32, u32)>) {
        let profile = session.nodes[key.node as usize].profile.clone();
        let class = Class { session: session.id, profile };
        let needs = &class.profile.needs;
        let asks = Reverse((needs.cpu.reserved_percent(), needs.memory_mb, needs.storage_mb));
        let instances = self.overlay.snapshot.usable().filter_map(|id| self.overlay.snapshot.instances.get(id));
        (instances.filter(|instance| self.overlay.fits(&class, instance).is_ok()).count(), asks)
    }

    fn try_together(&mut self, keys: Vec<NodeKey>, session: &Session) -> Result<(), Stop> {
        let (mut of, mut lacking, mut because, mut full) = (0_u32, 0_u32, None, false);
        for key in keys {
            let class = Class { session: session.id, profile: session.nodes[key.node as usize].profile.clone() };
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
        // What a session gives back counts against its own limit no more.
        let limited = self.overlay.policy.instances_per_session_max.is_some();
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
