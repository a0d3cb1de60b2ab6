//! `apply`: the only way the kept part of a snapshot changes.
//!
//! Events come from the engine's own core, which has checked them; one that does not fit (an unknown
//! key) changes nothing, so that a doubled event is harmless.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::budget::{CapKey, OverBudget, Warned};
use super::cost;
use super::deployment::Deployment;
use super::snapshot::Snapshot;
use crate::attempt::{Attempt, AttemptEnd, AttemptState, EndCause, Place, Withdrawal};
use crate::event::{Event, Then};
use crate::id::{AttemptKey, InstanceId, ItemKey, NodeKey, SessionId, SolutionId};
use crate::instance::{Instance, InstanceFacts, InstanceState, Machine};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{Hold, ItemEnd, ItemState, Node, Session, SessionSpec, SessionState, Tally, Tries};
use crate::thread::When;

impl Snapshot {
    /// Applies one event of turn `turn`, which happens at `at`.
    pub fn apply(&mut self, turn: u64, at: Timestamp, event: &Event) {
        if self.turn != turn {
            self.proposals.next_turn();
        }
        self.turn = turn;
        match event {
            Event::SolutionSet { solution } => {
                self.solution_changed(&solution.id);
                self.solutions.insert(solution.id.clone(), solution.clone());
            }
            Event::SolutionRemoved { solution } => {
                self.solution_changed(solution);
                self.warm.remove(solution);
                self.solutions.remove(solution);
            }
            Event::InstanceWanted { .. }
            | Event::InstanceRequested { .. }
            | Event::InstanceBooting { .. }
            | Event::InstanceReady { .. }
            | Event::InstanceNoticed { .. }
            | Event::InstanceDraining { .. }
            | Event::InstanceEnding { .. }
            | Event::InstanceGone { .. }
            | Event::InstanceForgotten { .. } => self.apply_to_instance(turn, at, event),
            Event::CapacitySet { .. }
            | Event::MetricSaid { .. }
            | Event::DemandSeen { .. }
            | Event::ElementWants { .. }
            | Event::WarmSet { .. }
            | Event::EngineStarted
            | Event::PolicySet { .. }
            | Event::OrphanFound { .. }
            | Event::AlgorithmSet { .. }
            | Event::Proposed { .. }
            | Event::AlgorithmFailed { .. }
            | Event::Decided { .. }
            | Event::SolutionAvoided { .. } => self.apply_unkept(at, event),
            Event::SessionStarted { session, spec } => self.start_session(at, *session, spec),
            Event::Deployed { session, deployment, .. } => self.deploy(*session, deployment),
            Event::SessionStopping { session, .. } => self.set_session_state(*session, SessionState::Stopping),
            Event::SessionPaused { session, .. } => self.set_session_state(*session, SessionState::Paused),
            Event::SessionResumed { session, budget, .. } => self.resume_session(*session, *budget),
            Event::BudgetReached { session, over } => self.pause_over_budget(*session, over),
            Event::BudgetWarned { cap, said, .. } => self.warn(cap, *said),
            Event::SessionEnded { session, outcome } => self.end_session(at, *session, SessionState::Ended(*outcome)),
            Event::InstanceHeld { instance, session } => self.hold(at, instance, *session),
            Event::InstanceReleased { instance, session, .. } => self.release(at, instance, *session),
            Event::NodeCancelled { node, .. } => self.cancel_node(at, *node),
            Event::ItemsCancelled { node, from, to, .. } => self.cancel_items(at, *node, *from, *to),
            Event::ItemsDue { node, from, to, .. } => self.items_due(at, *node, *from, *to),
            Event::Assigned { attempt } => self.assign(attempt),
            Event::Sent { attempt } => self.set_attempt(*attempt, |a| {
                if a.state == AttemptState::Assigned {
                    a.state = AttemptState::Sent;
                }
            }),
            Event::Started { attempt } => self.set_attempt(*attempt, |a| {
                a.state = AttemptState::Started;
                a.started_at = a.started_at.or(Some(at));
            }),
            Event::Cancelling { attempt } => self.withdraw(*attempt, Withdrawal::Cancel),
            Event::Recalling { attempt, .. } => self.withdraw(*attempt, Withdrawal::Recall),
            Event::Moving { attempt, .. } => self.withdraw(*attempt, Withdrawal::Move),
            Event::Ended { attempt, end, then } => self.end_attempt(at, *attempt, end, *then),
            Event::Answered { item, then } => self.answer(at, *item, *then),
        }
    }

    /// What was made of its facts and prices holds no longer.
    fn solution_changed(&mut self, solution: &SolutionId) {
        self.touched.solutions.insert(solution.clone());
        self.capacity.clear();
        self.elements.remove(solution);
    }

    /// What is on record for `why` and for a replay, and that no row keeps.
    fn apply_unkept(&mut self, at: Timestamp, event: &Event) {
        match event {
            Event::CapacitySet { class, plan } => {
                match plan {
                    Some(plan) => self.capacity.insert(class.clone(), plan.clone()),
                    None => self.capacity.remove(class),
                };
            }
            Event::DemandSeen { solution, seen } => {
                self.seen.insert(solution.clone(), seen.clone());
            }
            Event::ElementWants { solution, machines, why } => {
                self.elements.insert(solution.clone(), (*machines, why.clone()));
            }
            Event::WarmSet { solution, warm, .. } => {
                self.warm.insert(solution.clone(), (*warm, at));
            }
            Event::EngineStarted => self.forget_unkept(),
            Event::AlgorithmSet { .. } | Event::Proposed { .. } | Event::AlgorithmFailed { .. } => {
                self.proposals.apply(event);
            }
            Event::Decided { live } => live.iter().for_each(|(id, live)| self.set_live(id, *live)),
            Event::SolutionAvoided { solution, until, why } => {
                self.avoided.insert(solution.clone(), (*until, why.clone()));
            }
            _ => {}
        }
    }

    fn instance_changed(&mut self, instance: &InstanceId) {
        self.touched.instances.insert(instance.clone());
        self.index_instance_anew(instance);
    }

    fn apply_to_instance(&mut self, turn: u64, at: Timestamp, event: &Event) {
        let only_to = |from: fn(InstanceState) -> bool, to| (from, to);
        let (id, (from, to)) = match event {
            Event::InstanceWanted { instance, solution, facts, .. } => {
                self.proposals.apply(event);
                let machine = Some(Machine::default());
                self.changes.entry(solution.clone()).or_default().up = Some(at);
                return self.put_instance((turn, at), InstanceState::Wanted, instance, solution, facts, "", machine);
            }
            Event::InstanceReady { instance, solution, facts, boot } => {
                let machine = self.instances.get(instance).and_then(|i| i.machine.clone());
                return self.put_instance((turn, at), InstanceState::Ready, instance, solution, facts, boot, machine);
            }
            Event::InstanceForgotten { instance } => {
                self.instances.remove(instance);
                self.live.remove(instance);
                return self.instance_changed(instance);
            }
            Event::InstanceRequested { instance } => {
                (instance, only_to(|state| state == InstanceState::Wanted, InstanceState::Requested))
            }
            Event::InstanceBooting { instance, cloud_id } => {
                if let Some(known) = self.instances.get_mut(instance) {
                    known.machine = Some(Machine { cloud_id: Some(cloud_id.clone()) });
                }
                (instance, only_to(|state| state < InstanceState::Booting, InstanceState::Booting))
            }
            Event::InstanceNoticed { instance, why } => {
                if let Some(known) = self.instances.get_mut(instance) {
                    known.notice = Some(why.clone());
                    self.touched.instances.insert(instance.clone());
                }
                (instance, only_to(|state| state < InstanceState::Draining, InstanceState::Draining))
            }
            Event::InstanceDraining { instance, .. } => {
                if let Some(known) = self.instances.get(instance).filter(|i| i.machine.is_some()) {
                    self.changes.entry(known.solution.clone()).or_default().down = Some(at);
                }
                (instance, only_to(|state| state < InstanceState::Draining, InstanceState::Draining))
            }
            Event::InstanceEnding { instance, .. } => {
                (instance, only_to(|state| state < InstanceState::Ending, InstanceState::Ending))
            }
            Event::InstanceGone { instance, .. } => (instance, only_to(|_| true, InstanceState::Gone)),
            _ => return,
        };
        if let Some(instance) = self.instances.get_mut(id).filter(|i| from(i.state)) {
            (instance.state, instance.generation, instance.since) = (to, turn, at);
            self.instance_changed(id);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one row")]
    fn put_instance(
        &mut self,
        (generation, since): (u64, Timestamp),
        state: InstanceState,
        id: &InstanceId,
        solution: &SolutionId,
        facts: &InstanceFacts,
        boot: &str,
        machine: Option<Machine>,
    ) {
        let held_by = self.instances.get(id).map(|i| i.held_by.clone()).unwrap_or_default();
        let (id, solution, facts, boot) = (id.clone(), solution.clone(), facts.clone(), boot.to_owned());
        let known = Instance {
            id: id.clone(),
            solution,
            state,
            facts,
            boot,
            generation,
            held_by,
            since,
            machine,
            notice: None,
        };
        self.instances.insert(id.clone(), known);
        self.instance_changed(&id);
    }

    fn set_session_state(&mut self, id: SessionId, state: SessionState) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = state;
            if state == SessionState::Paused {
                self.index.paused.insert(id);
            } else {
                self.index.paused.remove(&id);
            }
            self.touched.sessions.insert(id);
            self.index.unsettled.insert(id);
            for (at, node) in session.nodes.iter().enumerate() {
                let key = NodeKey { session: id, node: u32::try_from(at).unwrap_or(u32::MAX) };
                self.index.set_ready(key, &session.spec, state, node);
            }
        }
    }

    fn resume_session(&mut self, id: SessionId, budget: Option<NanoUsd>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.over = None;
            session.budget = budget.or(session.budget);
            self.index.money.set_launch(id, session.budget);
        }
        self.set_session_state(id, SessionState::Running);
    }

    fn pause_over_budget(&mut self, id: SessionId, over: &OverBudget) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.over = Some(Box::new(over.clone()));
        self.set_session_state(id, SessionState::Paused);
    }

    fn warn(&mut self, cap: &CapKey, said: Warned) {
        if cap.session().is_some_and(|session| !self.sessions.contains_key(&session)) {
            return;
        }
        self.warned.insert(cap.clone(), said);
        self.touched.warned.insert(cap.clone());
        // What was said of months that are over is of no use any more.
        let newest = self.warned.keys().filter_map(CapKey::month).max();
        let old = |key: &CapKey| key.month().is_some_and(|month| Some(month) < newest);
        self.forget_warned(old);
    }

    fn forget_warned(&mut self, old: impl Fn(&CapKey) -> bool) {
        let gone: Vec<CapKey> = self.warned.keys().filter(|key| old(key)).cloned().collect();
        for key in gone {
            self.warned.remove(&key);
            self.touched.warned.insert(key);
        }
    }

    fn start_session(&mut self, at: Timestamp, id: SessionId, spec: &Arc<SessionSpec>) {
        if self.sessions.contains_key(&id) {
            return;
        }
        let nodes: Vec<Node> = spec.thread.nodes.iter().map(|node| new_node(node, at)).collect();
        for (place, node) in nodes.iter().enumerate() {
            let key = NodeKey { session: id, node: u32::try_from(place).unwrap_or(u32::MAX) };
            self.touched.nodes.insert(key);
            self.index.set_ready(key, spec, SessionState::Running, node);
            self.index.more_items(&spec.user, node.count.into());
        }
        let session = Session {
            id,
            spec: spec.clone(),
            state: SessionState::Running,
            created_at: at,
            nodes_open: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
            nodes,
            followers: Arc::new(Session::followers_of(&spec.thread)),
            holds: BTreeMap::new(),
            groups: BTreeMap::new(),
            deployment: None,
            budget: spec.budget,
            over: None,
        };
        self.index.money.set_launch(id, spec.budget);
        let grouped = !spec.thread.groups.is_empty();
        self.sessions.insert(id, session);
        if grouped {
            self.index.deployed.insert(id);
            self.hold_members(id);
        }
        self.touched.sessions.insert(id);
        self.touched.new_sessions.insert(id);
        for (node, ranges) in spec.earlier.iter().flat_map(|earlier| &earlier.done) {
            self.take_over(at, NodeKey { session: id, node: *node }, ranges);
        }
    }

    fn deploy(&mut self, id: SessionId, deployment: &Deployment) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.deployment = Some(Arc::new(deployment.clone()));
        self.touched.sessions.insert(id);
        self.hold_members(id);
    }

    fn hold_members(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for at in session.hold_members() {
            if let Some(node) = session.nodes.get(at as usize) {
                self.index.set_ready(NodeKey { session: id, node: at }, &session.spec, session.state, node);
            }
        }
    }

    /// Indices of a node that an earlier session has done: only the others run.
    fn take_over(&mut self, at: Timestamp, key: NodeKey, ranges: &[(u32, u32)]) {
        let Some(session) = self.sessions.get_mut(&key.session) else { return };
        let Some(node) = session.nodes.get_mut(key.node as usize) else { return };
        let done: u32 = ranges.iter().map(|(from, to)| to - from).sum();
        node.tally.add(ItemEnd::Succeeded, done);
        self.index.fewer_items(&session.spec.user, done.into());
        let mut from = 0;
        for (start, end) in ranges.iter().copied().chain([(node.count, node.count)]) {
            for index in from..start {
                let state = ItemState::Ready { not_before: at, attempts: 0, tries: Tries::default() };
                node.open.insert(index, state);
                node.retry.insert((at, index));
                self.touched.items.insert(key.item(index));
            }
            from = end;
        }
        node.next = node.count;
        self.index.set_ready(key, &session.spec, session.state, node);
        self.touched.nodes.insert(key);
        self.open_links(at, key);
    }

    fn end_session(&mut self, at: Timestamp, id: SessionId, state: SessionState) {
        let Some(mut session) = self.sessions.remove(&id) else { return };
        self.proposals.forget_session(id);
        session.state = state;
        for (instance, hold) in &session.holds {
            self.index.idle.remove(&(hold.idle_since, id, instance.clone()));
            if let Some(held) = self.instances.get_mut(instance) {
                held.held_by.remove(&id);
                held.since = at;
                self.touched.instances.insert(instance.clone());
                self.index_instance(instance);
            }
        }
        self.index.paused.remove(&id);
        self.index.deployed.remove(&id);
        self.index.money.session_over(id);
        for key in [CapKey::Launch { session: id }, CapKey::Session { session: id }] {
            if self.warned.remove(&key).is_some() {
                self.touched.warned.insert(key);
            }
        }
        session.holds.clear();
        self.index.unsettled.remove(&id);
        self.touched.sessions_ended.push((session, at));
    }

    fn hold(&mut self, at: Timestamp, id: &InstanceId, session_id: SessionId) {
        let (Some(instance), Some(session)) = (self.instances.get_mut(id), self.sessions.get_mut(&session_id)) else {
            return;
        };
        instance.held_by.insert(session_id);
        session.holds.entry(id.clone()).or_insert_with(|| {
            self.index.idle.insert((at, session_id, id.clone()));
            Hold { attempts: 0, idle_since: at }
        });
        self.touched.instances.insert(id.clone());
        self.touched.sessions.insert(session_id);
        self.index_instance(id);
    }

    fn release(&mut self, at: Timestamp, id: &InstanceId, session_id: SessionId) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.held_by.remove(&session_id);
            instance.since = at;
            self.touched.instances.insert(id.clone());
            self.index_instance(id);
        }
        if let Some(session) = self.sessions.get_mut(&session_id) {
            if let Some(hold) = session.holds.remove(id) {
                self.index.idle.remove(&(hold.idle_since, session_id, id.clone()));
            }
            self.touched.sessions.insert(session_id);
        }
    }

    fn assign(&mut self, attempt: &Attempt) {
        let key = attempt.key;
        let Some(session) = self.sessions.get_mut(&key.item.session()) else { return };
        let Some(node) = session.nodes.get_mut(key.item.node.node as usize) else { return };
        let index = key.item.index;
        let untouched = !node.open.contains_key(&index);
        let tries = match node.open.get(&index) {
            Some(ItemState::Ready { not_before, attempts, tries }) if key.number == attempts + 1 => {
                node.retry.remove(&(*not_before, index));
                *tries
            }
            // Untouched indices leave the default state in order, so that `next` says which are left.
            None if index == node.next && index < node.count && key.number == 1 => {
                node.next += 1;
                Tries::default()
            }
            _ => return,
        };
        self.proposals.items.remove(&key.item);
        node.open.insert(index, ItemState::Assigned { attempt: key, tries });
        let profile = node.profile.clone();
        let spec = session.spec.clone();
        self.index.set_ready(key.item.node, &spec, session.state, node);
        if let Place::Instance(id) = &attempt.place {
            if let Some(group) = &profile.group {
                session.groups.insert(group.clone(), id.clone());
                self.touched.sessions.insert(session.id);
            }
            if let Some(hold) = session.holds.get_mut(id) {
                if hold.attempts == 0 {
                    self.index.idle.remove(&(hold.idle_since, session.id, id.clone()));
                }
                // Counted anew from the open attempts when loaded: no row changes.
                hold.attempts += 1;
            }
        }
        self.index.add_attempt(attempt, &profile.needs, &spec.user);
        if let Place::Instance(id) = &attempt.place {
            self.index_instance(id);
        }
        self.attempts.insert(key, attempt.clone());
        self.touched.attempts.insert(key);
        if !untouched {
            self.touched.items.insert(key.item);
        }
        self.touched.nodes.insert(key.item.node);
    }

    fn withdraw(&mut self, key: AttemptKey, how: Withdrawal) {
        self.set_attempt(key, |a| a.withdrawn = a.withdrawn.max(Some(how)));
    }

    fn set_attempt(&mut self, key: AttemptKey, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.attempts.get_mut(&key) {
            change(attempt);
            self.touched.attempts.insert(key);
        }
    }

    fn end_attempt(&mut self, at: Timestamp, key: AttemptKey, end: &AttemptEnd, then: Then) {
        let Some(mut attempt) = self.attempts.remove(&key) else { return };
        if attempt.started_at.is_none() && end.cause.ran() {
            // A short attempt says so only with its end.
            attempt.started_at = Some(Timestamp(at.0 - i64::try_from(end.run_ms * 1000).unwrap_or(0)));
        }
        if let Some(session) = self.sessions.get(&key.item.session())
            && let Some(node) = session.nodes.get(key.item.node.node as usize)
        {
            self.index.remove_attempt(&attempt, &node.profile.needs, &session.spec.user);
        }
        if let Place::Instance(id) = &attempt.place {
            self.index_instance(id);
            self.idle_hold(at, key.item.session(), id);
        }
        attempt.cost = self.cost_of(&attempt, end);
        if let (Some(cost), Some(key)) = (attempt.cost, self.spent_key(at, &attempt)) {
            self.touched.spent.insert(key.clone());
            self.spent.add(key, cost);
            self.index.money.ended(attempt.key.item.session(), cost);
        }
        if let (Some(cost), Some(session)) = (attempt.cost, self.sessions.get_mut(&key.item.session()))
            && let Some(node) = session.nodes.get_mut(key.item.node.node as usize)
        {
            node.cost += cost;
        }
        if end.cause == EndCause::Succeeded
            && let Some(session) = self.sessions.get_mut(&key.item.session())
            && let Some(node) = session.nodes.get_mut(key.item.node.node as usize)
        {
            node.ran(end.run_ms);
        }
        self.touched.attempts_ended.push((attempt, end.clone(), at));
        self.change_item(at, key.item, key.number, Some(&end.cause), then);
    }

    /// What an attempt cost, by the prices of now; nothing when its place is not known any more.
    fn cost_of(&self, attempt: &Attempt, end: &AttemptEnd) -> Option<NanoUsd> {
        let needs = &self.node(attempt.key.item.node)?.profile.needs;
        let left = end.outputs.iter().map(|output| output.size).sum();
        match &attempt.place {
            Place::Gateway(id) => {
                let solution = self.solutions.get(id)?;
                let lasted_ms = end.run_ms + end.cold_start_ms.unwrap_or(0);
                let cost = cost::in_gateway(solution.shared()?, needs.memory_mb, lasted_ms);
                Some(cost + cost::data_out(solution.per_gb_out, left))
            }
            Place::Instance(id) => {
                let instance = self.instances.get(id)?;
                let solution = self.solutions.get(&instance.solution)?;
                let dedicated = solution.dedicated()?;
                let slots = dedicated.slots_max.map_or(instance.facts.slots, |most| most.min(instance.facts.slots));
                let cost = cost::on_instance(dedicated.price_of(&instance.facts), slots, needs, end.run_ms);
                Some(cost + cost::data_out(solution.per_gb_out, left))
            }
        }
    }

    fn idle_hold(&mut self, at: Timestamp, session_id: SessionId, id: &InstanceId) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let Some(hold) = session.holds.get_mut(id) else { return };
        hold.attempts = hold.attempts.saturating_sub(1);
        if hold.attempts == 0 {
            hold.idle_since = at;
            self.index.idle.insert((at, session_id, id.clone()));
            self.touched.sessions.insert(session_id);
        }
    }

    fn answer(&mut self, at: Timestamp, item: ItemKey, then: Then) {
        let attempts = match self.node(item.node).and_then(|n| n.open.get(&item.index)) {
            Some(ItemState::Asking { attempts, .. }) => *attempts,
            _ => return,
        };
        self.change_item(at, item, attempts, None, then);
    }

    fn change_item(&mut self, at: Timestamp, item: ItemKey, attempts: u32, cause: Option<&EndCause>, then: Then) {
        let Some(session) = self.sessions.get_mut(&item.session()) else { return };
        let Some(node) = session.nodes.get_mut(item.node.node as usize) else { return };
        let before = match node.open.get(&item.index) {
            Some(ItemState::Assigned { tries, .. } | ItemState::Asking { tries, .. }) => *tries,
            _ => Tries::default(),
        };
        let tries = cause.map_or(before, |cause| before.and(cause));
        match then {
            Then::End(end) => {
                node.open.remove(&item.index);
                node.tally.add(end, 1);
                self.index.fewer_items(&session.spec.user, 1);
                self.touched.items_ended.push((item, end, at));
            }
            Then::Retry { not_before } => {
                node.retry.insert((not_before, item.index));
                node.open.insert(item.index, ItemState::Ready { not_before, attempts, tries });
                self.touched.items.insert(item);
            }
            Then::Ask => {
                node.open.insert(item.index, ItemState::Asking { attempts, tries });
                self.touched.items.insert(item);
            }
        }
        self.index.set_ready(item.node, &session.spec, session.state, node);
        self.touched.nodes.insert(item.node);
        if session.state == SessionState::Stopping {
            self.index.unsettled.insert(item.session());
        }
        self.open_links(at, item.node);
    }

    fn cancel_node(&mut self, at: Timestamp, key: NodeKey) {
        self.index.doomed.remove(&key);
        let Some(session) = self.sessions.get_mut(&key.session) else { return };
        let Some(node) = session.nodes.get_mut(key.node as usize) else { return };
        if node.is_over() {
            return;
        }
        if node.untouched() > 0 {
            self.touched.cancelled.push((key, node.next, node.count));
            self.index.fewer_items(&session.spec.user, node.untouched().into());
            node.tally.add(ItemEnd::Cancelled, node.untouched());
            node.next = node.count;
        }
        let unplaced: Vec<u32> =
            node.open.iter().filter(|(_, s)| !matches!(s, ItemState::Assigned { .. })).map(|(i, _)| *i).collect();
        for index in unplaced {
            node.open.remove(&index);
            node.tally.add(ItemEnd::Cancelled, 1);
            self.index.fewer_items(&session.spec.user, 1);
            self.touched.items_ended.push((key.item(index), ItemEnd::Cancelled, at));
        }
        node.retry.clear();
        self.index.set_ready(key, &session.spec, session.state, node);
        self.touched.nodes.insert(key);
        self.doom_together(key);
        self.open_links(at, key);
    }

    /// Indices `from..to` of a node that have no open attempt.
    fn cancel_items(&mut self, at: Timestamp, key: NodeKey, from: u32, to: u32) {
        let Some(session) = self.sessions.get_mut(&key.session) else { return };
        let Some(node) = session.nodes.get_mut(key.node as usize) else { return };
        let to = to.min(node.count);
        if node.is_over() || from >= to {
            return;
        }
        let waiting = |(_, state): &(&u32, &ItemState)| !matches!(state, ItemState::Assigned { .. });
        let unplaced: Vec<u32> = node.open.range(from..to).filter(waiting).map(|(index, _)| *index).collect();
        for index in unplaced {
            if let Some(ItemState::Ready { not_before, .. }) = node.open.remove(&index) {
                node.retry.remove(&(not_before, index));
            }
            node.tally.add(ItemEnd::Cancelled, 1);
            self.index.fewer_items(&session.spec.user, 1);
            self.touched.items_ended.push((key.item(index), ItemEnd::Cancelled, at));
        }
        if to > node.next {
            // Those before the range leave the default state, so that the rest stays one range.
            for index in node.next..from.max(node.next) {
                let state = ItemState::Ready { not_before: at, attempts: 0, tries: Tries::default() };
                node.open.insert(index, state);
                node.retry.insert((at, index));
                self.touched.items.insert(key.item(index));
            }
            let first = from.max(node.next);
            self.touched.cancelled.push((key, first, to));
            self.index.fewer_items(&session.spec.user, (to - first).into());
            node.tally.add(ItemEnd::Cancelled, to - first);
            node.next = to;
        }
        self.index.set_ready(key, &session.spec, session.state, node);
        self.touched.nodes.insert(key);
        if session.state == SessionState::Stopping {
            self.index.unsettled.insert(key.session);
        }
        self.open_links(at, key);
    }

    /// Indices `from..to` of a node wait for no back-off any more.
    fn items_due(&mut self, at: Timestamp, key: NodeKey, from: u32, to: u32) {
        let Some(session) = self.sessions.get_mut(&key.session) else { return };
        let Some(node) = session.nodes.get_mut(key.node as usize).filter(|_| from < to) else { return };
        let mut changed = false;
        for (index, state) in node.open.range_mut(from..to) {
            let ItemState::Ready { not_before, .. } = state else { continue };
            if *not_before > at {
                node.retry.remove(&(*not_before, *index));
                node.retry.insert((at, *index));
                *not_before = at;
                self.touched.items.insert(key.item(*index));
                changed = true;
            }
        }
        if changed {
            self.index.set_ready(key, &session.spec, session.state, node);
            self.touched.nodes.insert(key);
        }
    }

    /// What was to start together with a cancelled node can no longer start either.
    fn doom_together(&mut self, key: NodeKey) {
        let Some(session) = self.sessions.get(&key.session) else { return };
        let sets = session.spec.thread.together.iter().filter(|set| set.contains(&key.node));
        for node in sets.flatten().filter(|node| session.nodes[**node as usize].untouched() > 0) {
            self.index.doomed.insert(NodeKey { session: key.session, node: *node });
        }
    }

    /// When a node is over, its followers' links open, or can never open.
    fn open_links(&mut self, at: Timestamp, key: NodeKey) {
        let Some(session) = self.sessions.get_mut(&key.session) else { return };
        let Some(node) = session.nodes.get(key.node as usize).filter(|n| n.is_over()) else { return };
        let (tally, count) = (node.tally, node.count);
        let (typical_run_ms, profile) = (node.typical_run_ms, node.profile.clone());
        session.nodes_open = session.nodes_open.saturating_sub(1);
        self.index.unsettled.insert(key.session);
        let followers = session.followers.clone();
        for follower in &followers[key.node as usize] {
            let links = &session.spec.thread.nodes[*follower as usize].after;
            let next = &mut session.nodes[*follower as usize];
            for link in links.iter().filter(|l| l.node == key.node) {
                let opens = match link.when {
                    When::Success => tally.succeeded == count,
                    When::End => true,
                    When::Failure => tally.failed + tally.lost > 0,
                };
                next.links_open = next.links_open.saturating_sub(u32::from(opens));
                if !opens && !next.is_over() {
                    self.index.doomed.insert(NodeKey { session: key.session, node: *follower });
                }
            }
            next.ready_at = at;
            // A guess until the first of its own: what follows and needs the same is mostly of the same kind.
            if next.profile == profile && next.tally.succeeded == 0 {
                next.typical_run_ms = next.typical_run_ms.max(typical_run_ms);
            }
            let next_key = NodeKey { session: key.session, node: *follower };
            self.index.set_ready(next_key, &session.spec, session.state, next);
            self.touched.nodes.insert(next_key);
        }
        self.touched.sessions.insert(key.session);
    }
}

fn new_node(spec: &crate::thread::NodeSpec, at: Timestamp) -> Node {
    Node {
        count: spec.task.array,
        next: 0,
        open: BTreeMap::new(),
        retry: BTreeSet::new(),
        tally: Tally::default(),
        links_open: u32::try_from(spec.after.len()).unwrap_or(u32::MAX),
        ready_at: at,
        typical_run_ms: None,
        cost: NanoUsd::default(),
        profile: Arc::new(spec.task.profile()),
    }
}
