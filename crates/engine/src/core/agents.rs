//! What agents and gateways say, and what their silence means.

use std::collections::BTreeMap;

use skein_domain::event::Event;
use skein_domain::{
    AttemptEnd, AttemptKey, AttemptState, EndCause, InstanceId, InstanceState, Live, Place, SolutionId, Timestamp,
    Withdrawal,
};
use skein_wire::{AttemptRef, FromAgent, Hello};

use super::{Core, GatewayEvent, Input, Output};

/// An order without an answer is sent again after this, ms.
const REPEAT_MS: u64 = 5_000;

impl Core {
    pub(super) fn hello(&mut self, mut hello: Hello, solution: SolutionId) {
        let id = hello.instance.clone();
        // An agent need not know which size of machine it is on: who asked for it does.
        let asked = self.snapshot.instances.get(&id).filter(|i| i.machine.is_some());
        let size = asked.and_then(|i| i.facts.instance_type.clone());
        hello.facts.instance_type = hello.facts.instance_type.or(size);
        self.leases.insert(id.clone(), self.now.after_ms(self.settings.lease_ms));
        let known = self.snapshot.instances.get(&id);
        let protected = self.settings.policy.do_not_terminate.contains(&id);
        if known.is_some_and(|i| i.machine.is_some() && i.state >= InstanceState::Ending) && !protected {
            // It is being ended: nothing it holds is open, and nothing will be given to it.
            self.leases.remove(&id);
            let why = "the machine is being ended".to_owned();
            return self.turn.outputs.push(Output::DrainAgent { instance: id, why });
        }
        let same_boot = known.is_some_and(|i| i.boot == hello.boot && i.state != InstanceState::Gone);
        let unchanged = same_boot && known.is_some_and(|i| i.facts == hello.facts && i.solution == solution);
        if !same_boot {
            self.lose_attempts(&id, "its agent was started anew; what ran before ended with it");
        }
        if !unchanged {
            let (facts, boot) = (hello.facts.clone(), hello.boot.clone());
            self.happen(vec![Event::InstanceReady { instance: id.clone(), solution, facts, boot }]);
        }
        let draining = self.snapshot.instances.get(&id).is_some_and(|i| i.state == InstanceState::Draining);
        if hello.draining && !draining {
            let why = "its agent is stopping".to_owned();
            self.happen(vec![Event::InstanceDraining { instance: id.clone(), why }]);
        }
        self.measured(&id, Live { connected: true, ..Live::default() });
        self.reconcile(&id, &hello.holding);
    }

    /// Compares what the agent holds with what the ledger has open there.
    fn reconcile(&mut self, id: &InstanceId, holding: &[AttemptRef]) {
        let mut events = Vec::new();
        let mut resend = Vec::new();
        let mut back = Vec::new();
        for attempt in self.snapshot.attempts_on(id) {
            let held = holding.iter().any(|h| h.attempt == attempt.key && h.generation == attempt.generation);
            let recalled = attempt.withdrawn == Some(Withdrawal::Recall) && attempt.state != AttemptState::Started;
            match (held, attempt.state) {
                // Its start may be on the way by this very connection: only the agent's own word that
                // it will not start it counts.
                _ if recalled => back.push(attempt.key),
                (true, _) if attempt.withdrawn.is_some() => back.push(attempt.key),
                (true, AttemptState::Assigned) => events.push(Event::Sent { attempt: attempt.key }),
                (true, _) => {}
                (false, AttemptState::Assigned) => resend.push(attempt.key),
                (false, _) => events.push(self.ended(attempt.key, lost("its agent does not have it any more"))),
            }
        }
        for held in holding {
            let open = self.snapshot.attempts.get(&held.attempt);
            if open.is_none_or(|a| a.generation != held.generation) {
                let place = Place::Instance(id.clone());
                let (attempt, generation) = (held.attempt, held.generation);
                self.turn.outputs.push(Output::Cancel { attempt, generation, place, moving: false });
            }
        }
        if !events.is_empty() {
            self.happen(events);
        }
        for key in resend {
            self.order_start(key, false);
        }
        for key in back {
            self.order_back(key);
        }
    }

    pub(super) fn disconnected(&mut self, id: &InstanceId, boot: &str) {
        let ours = self.snapshot.instances.get(id).is_some_and(|i| i.boot == boot);
        if ours {
            self.measured(id, Live::default());
        }
    }

    pub(super) fn take_from_agent(&mut self, id: &InstanceId, boot: &str, messages: Vec<FromAgent>) {
        let Some(instance) = self.snapshot.instances.get(id) else { return };
        if instance.boot != boot || instance.state >= InstanceState::Ending {
            return;
        }
        let mut recorded = Vec::new();
        for message in messages {
            match message {
                FromAgent::Hello(_) => {}
                FromAgent::Heartbeat { number, cpu_percent, memory_mb, traffic, .. } => {
                    if let Some(traffic) = traffic {
                        self.demands.counted(id, traffic);
                    }
                    self.leases.insert(id.clone(), self.now.after_ms(self.settings.lease_ms));
                    self.measured(id, Live { connected: true, cpu_percent: cpu_percent.min(100), memory_mb });
                    let boot = boot.to_owned();
                    self.turn.outputs.push(Output::Lease { instance: id.clone(), boot, heartbeat: number });
                    self.repeat_orders(id);
                }
                FromAgent::Accepted(order) => self.advance(id, order, AttemptState::Sent),
                FromAgent::Started(order) => self.advance(id, order, AttemptState::Started),
                FromAgent::OrderRefused { order, why } => {
                    if self.is_open(id, order) {
                        let event = self.handed_back(order.attempt, why);
                        self.happen(vec![event]);
                    }
                }
                FromAgent::Ended { order, end } => {
                    if self.is_open(id, order) {
                        let event = self.ended(order.attempt, *end);
                        self.happen(vec![event]);
                    }
                    recorded.push(order);
                }
                FromAgent::Draining => {
                    let why = "its agent is stopping".to_owned();
                    self.happen(vec![Event::InstanceDraining { instance: id.clone(), why }]);
                }
                FromAgent::Noticed { why } => self.noticed(id, why),
                FromAgent::Leaving => self.gone(id, "its agent left"),
            }
        }
        if !recorded.is_empty() {
            self.turn.lazy = false;
            self.turn.outputs.push(Output::Recorded { instance: id.clone(), attempts: recorded });
        }
    }

    /// May this input wait for others, because its agent has work at hand for longer than that?
    /// `at_hand` counts, from one call to the next, what each agent still has beyond its slots.
    pub fn can_wait(&self, input: &Input, at_hand: &mut BTreeMap<InstanceId, u32>) -> bool {
        let Input::FromAgent { instance: id, messages, .. } = input else { return false };
        let Some(instance) = self.snapshot.instances.get(id) else { return false };
        let ahead = self.snapshot.load_of(id).slots.saturating_sub(instance.facts.slots);
        let left = at_hand.entry(id.clone()).or_insert(ahead);
        for message in messages {
            match message {
                FromAgent::Accepted(_) | FromAgent::Started(_) => {}
                FromAgent::Ended { .. } => *left = left.saturating_sub(1),
                _ => return false,
            }
        }
        // As much again as runs now: what gathers meanwhile must not leave a slot empty.
        *left > instance.facts.slots
    }

    /// Orders that the agent has not answered are sent again: it knows them by attempt and generation,
    /// so a doubled one is harmless and a lost one must not hang.
    fn repeat_orders(&mut self, id: &InstanceId) {
        let now = self.now;
        let overdue = |since: Timestamp| now.ms_since(since) >= REPEAT_MS;
        let unanswered: Vec<AttemptKey> = self
            .snapshot
            .attempts_on(id)
            .filter(|a| a.withdrawn.is_some() || a.state == AttemptState::Assigned)
            .filter(|a| overdue(self.repeated.get(&a.key).copied().unwrap_or(a.assigned_at)))
            .map(|a| a.key)
            .collect();
        for key in unanswered {
            self.repeated.insert(key, now);
            if self.snapshot.attempts.get(&key).is_some_and(|a| a.withdrawn.is_some()) {
                self.order_back(key);
            } else {
                self.order_start(key, false);
            }
        }
        let open = &self.snapshot.attempts;
        self.repeated.retain(|key, _| open.contains_key(key));
    }

    /// Is this the attempt's present generation, open on this instance?
    fn is_open(&self, id: &InstanceId, order: AttemptRef) -> bool {
        self.snapshot.attempts.get(&order.attempt).is_some_and(|open| {
            open.generation == order.generation && matches!(&open.place, Place::Instance(place) if place == id)
        })
    }

    fn advance(&mut self, id: &InstanceId, order: AttemptRef, to: AttemptState) {
        if !self.is_open(id, order) {
            return;
        }
        let attempt = order.attempt;
        let state = self.snapshot.attempts.get(&attempt).map(|a| a.state);
        let event = match (state, to) {
            (Some(AttemptState::Assigned), AttemptState::Sent) => Event::Sent { attempt },
            (Some(AttemptState::Assigned | AttemptState::Sent), AttemptState::Started) => Event::Started { attempt },
            _ => return,
        };
        self.happen(vec![event]);
    }

    pub(super) fn take_from_gateway(&mut self, solution: &SolutionId, order: AttemptRef, event: GatewayEvent) {
        let open = self.snapshot.attempts.get(&order.attempt);
        let ours = open.is_some_and(|a| {
            a.generation == order.generation && matches!(&a.place, Place::Gateway(place) if place == solution)
        });
        if !ours {
            return;
        }
        let attempt = order.attempt;
        let event = match event {
            GatewayEvent::Started => {
                if open.is_some_and(|a| a.state == AttemptState::Started) {
                    return;
                }
                Event::Started { attempt }
            }
            GatewayEvent::Ended(end) => self.ended(attempt, *end),
            GatewayEvent::NotTaken(why) => self.ended(attempt, AttemptEnd::bare(EndCause::NotStarted { why })),
        };
        self.happen(vec![event]);
    }

    pub(super) fn order_failed(&mut self, order: AttemptRef, why: String) {
        let open = self.snapshot.attempts.get(&order.attempt).is_some_and(|a| a.generation == order.generation);
        if open {
            let event = self.ended(order.attempt, AttemptEnd::bare(EndCause::NotStarted { why }));
            self.happen(vec![event]);
        }
    }

    /// Leases that are over: the instance is gone, and what ran there is lost.
    pub(super) fn expire_leases(&mut self) {
        let due: Vec<InstanceId> =
            self.leases.iter().filter(|(_, due)| **due <= self.now).map(|(id, _)| id.clone()).collect();
        for id in due {
            let why = format!("no heartbeat for {} s", self.settings.lease_ms / 1000);
            self.gone(&id, &why);
        }
    }

    fn gone(&mut self, id: &InstanceId, why: &str) {
        self.leases.remove(id);
        self.measured(id, Live::default());
        if self.snapshot.instances.get(id).is_none_or(|i| i.state >= InstanceState::Ending) {
            return;
        }
        self.lose_attempts(id, why);
        let mut events: Vec<Event> = Vec::new();
        if let Some(instance) = self.snapshot.instances.get(id) {
            events.extend(instance.held_by.iter().map(|session| Event::InstanceReleased {
                instance: id.clone(),
                session: *session,
                why: why.to_owned(),
            }));
        }
        let (instance, why) = (id.clone(), why.to_owned());
        let machine = self.snapshot.instances.get(id).is_some_and(|i| i.machine.is_some());
        // A machine is there, and paid for, until its cloud says that it is not.
        events.push(if machine && !self.settings.policy.do_not_terminate.contains(id) {
            Event::InstanceEnding { instance, why }
        } else {
            Event::InstanceGone { instance, why }
        });
        self.happen(events);
    }

    /// Its cloud takes it away: that is a drain that nobody asked for, so no list protects it.
    pub(super) fn noticed(&mut self, id: &InstanceId, why: String) {
        if self.snapshot.instances.get(id).is_some_and(|i| i.notice.is_none() && i.state < InstanceState::Ending) {
            self.happen(vec![Event::InstanceNoticed { instance: id.clone(), why }]);
        }
    }

    fn lose_attempts(&mut self, id: &InstanceId, why: &str) {
        let notice = self.snapshot.instances.get(id).and_then(|i| i.notice.clone());
        let end = || match &notice {
            Some(why) => AttemptEnd::bare(EndCause::Preempted { why: why.clone() }),
            None => lost(why),
        };
        let keys: Vec<AttemptKey> = self.snapshot.attempts_on(id).map(|a| a.key).collect();
        let events: Vec<Event> = keys.into_iter().map(|key| self.ended(key, end())).collect();
        if !events.is_empty() {
            self.happen(events);
        }
    }
}

fn lost(why: &str) -> AttemptEnd {
    AttemptEnd::bare(EndCause::Lost { why: why.to_owned() })
}
