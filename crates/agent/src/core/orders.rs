//! Orders of the engine: start, cancel, recorded.

use std::sync::Arc;

use skein_domain::task::{RunSpec, check_path};
use skein_domain::{AttemptEnd, EndCause, ItemKey};
use skein_wire::message::AttemptRef;
use skein_wire::{FromAgent, OrderBody, StartOrder};

use super::run::slots_of;
use super::{Core, GENERATIONS_MAX, HELD_MAX, Held, Output, Phase, StopWhy};

impl Core {
    pub(super) fn start_ordered(&mut self, now: u64, of: AttemptRef, body: OrderBody) {
        if let Some(held) = self.held.get(&of.attempt)
            && held.generation == of.generation
        {
            // The same order again: the same answer again.
            self.tell(now, of);
            return;
        }
        if let Err(why) = self.fresh(of) {
            self.refuse(of, &why);
            return;
        }
        // Also what is refused below: the engine may send it again before it hears of the refusal, and
        // will then have given it to another.
        self.remember(of);
        if !self.lease.holds(now) {
            // It was sent before the engine gave this instance up, perhaps. Kept for the next lease, it
            // would start with the welcome, before the engine can say that it runs elsewhere by now.
            self.refuse(of, "the agent's lease is over: nothing that was ordered before the next one starts");
            return;
        }
        if self.draining() {
            self.refuse(of, "the agent drains and takes nothing new");
            return;
        }
        if self.held.len() >= HELD_MAX {
            self.refuse(of, &format!("the agent already holds {HELD_MAX} attempts"));
            return;
        }
        self.supersede(now, of);
        if self.held.get(&of.attempt).is_some_and(|held| !matches!(held.phase, Phase::Ended { .. })) {
            self.refuse(of, "an older generation of the same attempt is still being stopped");
            return;
        }
        self.held.insert(of.attempt, Held { generation: of.generation, order: None, phase: Phase::Fetching });
        self.send(FromAgent::Accepted(of));
        match body {
            OrderBody::Inline(order) => self.order_here(now, of, order),
            OrderBody::Fetch => self.out.push(Output::FetchOrder(of)),
        }
    }

    /// Newer than everything this agent has seen of the item?
    fn fresh(&self, of: AttemptRef) -> Result<(), String> {
        let last = match self.generations.get(&of.attempt.item) {
            Some(last) => *last,
            None if self.generation_floor == 0 => return Ok(()),
            None => self.generation_floor,
        };
        if of.generation > last {
            return Ok(());
        }
        Err(format!("stale order: generation {} came after generation {last} of the same item", of.generation))
    }

    fn remember(&mut self, of: AttemptRef) {
        let item: ItemKey = of.attempt.item;
        if let Some(old) = self.generations.insert(item, of.generation) {
            self.by_generation.remove(&(old, item));
        }
        self.by_generation.insert((of.generation, item));
        while self.by_generation.len() > GENERATIONS_MAX {
            if let Some((generation, item)) = self.by_generation.pop_first() {
                self.generations.remove(&item);
                self.generation_floor = self.generation_floor.max(generation);
            }
        }
    }

    /// An earlier attempt at the same item must be dead before this one starts.
    fn supersede(&mut self, now: u64, newer: AttemptRef) {
        let item = newer.attempt.item;
        let older: Vec<_> =
            self.of_item(item).filter(|(_, held)| held.is_live()).map(|(attempt, _)| *attempt).collect();
        for attempt in older {
            let why = format!("the engine ordered a newer attempt at the item (generation {})", newer.generation);
            self.stop(now, attempt, StopWhy::Lost(why), None);
        }
    }

    pub(super) fn order_fetched(&mut self, now: u64, of: AttemptRef, result: Result<Box<StartOrder>, String>) {
        let waits = self
            .held
            .get(&of.attempt)
            .is_some_and(|h| h.generation == of.generation && matches!(h.phase, Phase::Fetching));
        match result {
            _ if !waits => {}
            Ok(order) => self.order_here(now, of, order),
            Err(why) => self.not_started(now, of, format!("its order could not be fetched: {why}")),
        }
    }

    fn order_here(&mut self, now: u64, of: AttemptRef, order: Box<StartOrder>) {
        if let Err(why) = self.usable(of, &order) {
            self.not_started(now, of, why);
            return;
        }
        let Some(held) = self.held.get_mut(&of.attempt) else { return };
        let order = Arc::<StartOrder>::from(order);
        held.order = Some(Arc::clone(&order));
        if order.inputs.is_empty() {
            held.phase = Phase::Ready;
            self.ready.push_back(of.attempt);
        } else {
            held.phase = Phase::Preparing;
            self.out.push(Output::Prepare(order));
        }
    }

    fn usable(&self, of: AttemptRef, order: &StartOrder) -> Result<(), String> {
        if order.engine != self.config.engine {
            return Err(format!(
                "the order is of engine '{}', this agent belongs to '{}'",
                order.engine, self.config.engine
            ));
        }
        if order.attempt != of.attempt || order.generation != of.generation {
            return Err(format!("the order inside names {} generation {}", order.attempt, order.generation));
        }
        if slots_of(order) > self.config.slots {
            return Err(format!("it takes {} slots, and this agent has {}", order.slots, self.config.slots));
        }
        if let RunSpec::Function { reference } = &order.run {
            return Err(format!("function '{reference}' exists in a shared solution only: run it there"));
        }
        order.inputs.iter().map(|input| &input.path).chain(&order.outputs).try_for_each(|path| check_path(path))
    }

    pub(super) fn prepared(&mut self, now: u64, of: AttemptRef, result: Result<(), String>) {
        let Some(held) = self.held.get_mut(&of.attempt) else { return };
        if held.generation != of.generation || !matches!(held.phase, Phase::Preparing) {
            return;
        }
        match result {
            Ok(()) => {
                held.phase = Phase::Ready;
                self.ready.push_back(of.attempt);
            }
            Err(why) => self.not_started(now, of, why),
        }
    }

    fn not_started(&mut self, now: u64, of: AttemptRef, why: String) {
        self.ended(now, of, AttemptEnd::bare(EndCause::NotStarted { why }));
    }

    /// Gives back what has not started. What was never seen may still come, and is then refused.
    pub(super) fn recall(&mut self, now: u64, of: AttemptRef) {
        match self.held.get(&of.attempt) {
            Some(held) if held.generation == of.generation => {
                if !matches!(held.phase, Phase::Fetching | Phase::Preparing | Phase::Ready) {
                    self.tell(now, of);
                    return;
                }
                self.held.remove(&of.attempt);
                self.ready.retain(|waiting| *waiting != of.attempt);
                self.out.push(Output::Discard(of));
            }
            _ if self.fresh(of).is_ok() => self.remember(of),
            _ => {}
        }
        self.refuse(of, "it was called back before it started");
    }

    pub(super) fn cancel(&mut self, now: u64, of: AttemptRef, why: StopWhy) {
        match self.held.get(&of.attempt) {
            Some(held) if held.generation == of.generation => self.stop(now, of.attempt, why, None),
            Some(_) => self.refuse(of, "the cancel is for another generation of this attempt"),
            // Never seen: its start may still come, and must then be refused.
            None if self.fresh(of).is_ok() => {
                self.remember(of);
                self.held.insert(of.attempt, Held { generation: of.generation, order: None, phase: Phase::Ready });
                self.ended(now, of, AttemptEnd::bare(EndCause::Cancelled));
            }
            None => self.refuse(of, "the agent does not hold this attempt"),
        }
    }

    pub(super) fn recorded(&mut self, of: AttemptRef) {
        let known = |h: &Held| h.generation == of.generation && matches!(h.phase, Phase::Ended { .. });
        if self.held.get(&of.attempt).is_some_and(known) {
            self.held.remove(&of.attempt);
        }
    }

    /// After a welcome the engine hears of everything again; it handles each message once.
    pub(super) fn tell_all(&mut self, now: u64) {
        if self.draining() {
            self.send(FromAgent::Draining);
        }
        if let Some(why) = self.notice.clone() {
            self.send(FromAgent::Noticed { why });
        }
        for of in self.holding() {
            self.tell(now, of);
        }
    }

    fn tell(&mut self, now: u64, of: AttemptRef) {
        let Some(held) = self.held.get_mut(&of.attempt) else { return };
        let message = match &mut held.phase {
            Phase::Fetching | Phase::Preparing | Phase::Ready | Phase::Running { started: false, .. } => {
                FromAgent::Accepted(of)
            }
            Phase::Running { .. } | Phase::Finishing { .. } => FromAgent::Started(of),
            Phase::Ended { end, sent_at } => {
                *sent_at = now;
                FromAgent::Ended { order: of, end: end.clone() }
            }
        };
        self.send(message);
    }
}
