//! From a free slot to the end: starting, stopping, finishing.

use std::sync::Arc;

use skein_domain::{AttemptEnd, AttemptKey, EndCause, ItemKey, OutputFile};
use skein_wire::message::AttemptRef;
use skein_wire::{FromAgent, StartOrder};

use super::{
    CollectFailure, Core, ENDED_RESEND_MS, Held, LOG_WAIT_MS, LOG_WATCH_MS, Output, Phase, Slot, Stop, StopWhy,
};
use crate::spawner::{Exit, StopSignal};

impl Core {
    pub(super) fn slot_ready(&mut self, slot: usize, notes: Vec<String>) {
        if let Some(state @ Slot::Down) = self.slots.get_mut(slot) {
            *state = Slot::Free { notes };
        }
    }

    pub(super) fn slot_down(&mut self, now: u64, slot: usize) {
        let Some(state) = self.slots.get_mut(slot) else { return };
        let Slot::Busy { attempt, notes, .. } = std::mem::replace(state, Slot::Down) else { return };
        let Some(held) = self.held.get_mut(&attempt) else { return };
        let of = AttemptRef { attempt, generation: held.generation };
        let Phase::Running { pid, stop, .. } = &mut held.phase else { return };
        if let Some(pid) = pid {
            self.out.push(Output::KillGroup(*pid));
        }
        let why = "the process that watched it on its agent is gone (killed, or out of memory)".to_owned();
        let why = stop.take().map_or(StopWhy::Lost(why), |stop| stop.why);
        self.ended(now, of, AttemptEnd { notes, ..AttemptEnd::bare(cause_of_stop(why)) });
    }

    pub(super) fn start_ready(&mut self, now: u64) {
        let mut blocked = Vec::new();
        while self.lease.holds(now) && !self.ready.is_empty() {
            let Some(slot) = self.slots.iter().position(|s| matches!(s, Slot::Free { .. })) else { break };
            let Some(attempt) = self.ready.pop_front() else { break };
            let Some(held) = self.held.get(&attempt) else { continue };
            let (Phase::Ready, Some(order)) = (&held.phase, &held.order) else { continue };
            let order = Arc::clone(order);
            let taken = slots_of(&order);
            if self.free_slots() < taken {
                self.ready.push_front(attempt);
                break;
            }
            // An older attempt at the same item is still being stopped.
            let occupied = |(k, h): (&AttemptKey, &Held)| *k != attempt && matches!(h.phase, Phase::Running { .. });
            if self.of_item(attempt.item).any(occupied) {
                blocked.push(attempt);
                continue;
            }
            self.launches += 1;
            let launch = self.launches;
            let Slot::Free { notes } = std::mem::replace(&mut self.slots[slot], Slot::Down) else { continue };
            self.slots[slot] = Slot::Busy { attempt, slots: taken, notes };
            let deadline = order.limit_ms.map(|limit| now + limit);
            if let Some(held) = self.held.get_mut(&attempt) {
                held.phase = Phase::Running { slot, launch, pid: None, started: false, deadline, stop: None };
            }
            self.due(deadline.unwrap_or(u64::MAX));
            self.out.push(Output::Spawn { slot, launch, order });
        }
        for attempt in blocked.into_iter().rev() {
            self.ready.push_front(attempt);
        }
    }

    /// Slots that are free, less those that what runs takes beside the one that it runs in.
    fn free_slots(&self) -> usize {
        let free = self.slots.iter().filter(|slot| matches!(slot, Slot::Free { .. })).count();
        let beside = self.slots.iter().map(|slot| match slot {
            Slot::Busy { slots, .. } => slots - 1,
            _ => 0,
        });
        free.saturating_sub(beside.sum())
    }

    /// The attempts at one item that it holds.
    pub(super) fn of_item(&self, item: ItemKey) -> impl Iterator<Item = (&AttemptKey, &Held)> {
        self.held.range(item.attempt(0)..=item.attempt(u32::MAX))
    }

    /// The attempt that runs as `launch` in `slot`.
    fn launched(&mut self, slot: usize, launch: u64) -> Option<(AttemptRef, &mut Held)> {
        let Some(Slot::Busy { attempt, .. }) = self.slots.get(slot) else { return None };
        let attempt = *attempt;
        let held = self.held.get_mut(&attempt)?;
        let same = matches!(held.phase, Phase::Running { launch: running, .. } if running == launch);
        same.then_some((AttemptRef { attempt, generation: held.generation }, held))
    }

    /// Frees the slot and hands back what could not be limited in it.
    fn vacate(&mut self, slot: usize) -> Vec<String> {
        let Some(state) = self.slots.get_mut(slot) else { return Vec::new() };
        if let Slot::Busy { notes, .. } = state {
            let notes = std::mem::take(notes);
            *state = Slot::Free { notes: notes.clone() };
            return notes;
        }
        Vec::new()
    }

    pub(super) fn started(&mut self, now: u64, slot: usize, launch: u64, group: Option<i32>) {
        let Some((of, held)) = self.launched(slot, launch) else { return };
        let limit_ms = held.order.as_ref().and_then(|order| order.limit_ms);
        if let Phase::Running { pid, started, deadline, .. } = &mut held.phase {
            (*pid, *started, *deadline) = (group, true, limit_ms.map(|limit| now + limit));
            let at = deadline.unwrap_or(u64::MAX);
            self.due(at);
        }
        self.send(FromAgent::Started(of));
    }

    pub(super) fn start_failed(&mut self, now: u64, slot: usize, launch: u64, why: String) {
        let Some((of, held)) = self.launched(slot, launch) else { return };
        let stopped = match &mut held.phase {
            Phase::Running { stop, .. } => stop.take(),
            _ => None,
        };
        let cause = stopped.map_or(EndCause::NotStarted { why }, |stop| cause_of_stop(stop.why));
        self.vacate(slot);
        self.ended(now, of, AttemptEnd::bare(cause));
    }

    pub(super) fn exited(&mut self, now: u64, slot: usize, exit: Exit) {
        let Some((of, held)) = self.launched(slot, exit.id) else { return };
        let stopped = match &mut held.phase {
            Phase::Running { stop, .. } => stop.take().map(|stop| stop.why),
            _ => None,
        };
        let Some(order) = held.order.clone() else { return };
        let notes = self.vacate(slot);
        let flush = exit.log_bytes > 0 || exit.run_ms >= LOG_WATCH_MS;
        let mut end = end_of(exit, order.memory_mb, notes);
        if let Some(why) = stopped {
            end.cause = cause_of_stop(why);
        }
        let collecting = end.cause == EndCause::Succeeded && !order.outputs.is_empty();
        let log_until = flush.then_some(now + LOG_WAIT_MS);
        if !collecting && !flush {
            self.ended(now, of, end);
            return;
        }
        if collecting {
            self.out.push(Output::Collect(order));
        }
        if flush {
            self.out.push(Output::FlushLog(of));
        }
        if let Some(held) = self.held.get_mut(&of.attempt) {
            held.phase = Phase::Finishing { end: Box::new(end), collecting, log_until };
        }
        self.due(log_until.unwrap_or(u64::MAX));
    }

    pub(super) fn collected(&mut self, now: u64, of: AttemptRef, result: Result<Vec<OutputFile>, CollectFailure>) {
        self.finish(now, of, |end, collecting, _| {
            *collecting = false;
            match result {
                Ok(outputs) => end.outputs = outputs,
                Err(CollectFailure::Task(why)) => {
                    end.cause = EndCause::Failed { exit_code: 0 };
                    end.notes.push(why);
                }
                Err(CollectFailure::Place(why)) => end.cause = EndCause::Lost { why },
            }
        });
    }

    pub(super) fn log_flushed(&mut self, now: u64, of: AttemptRef, note: Option<String>) {
        self.finish(now, of, |end, _, log_until| {
            *log_until = None;
            end.notes.extend(note);
        });
    }

    /// Changes an attempt that is finishing, and ends it when nothing is awaited any more.
    fn finish(&mut self, now: u64, of: AttemptRef, change: impl FnOnce(&mut AttemptEnd, &mut bool, &mut Option<u64>)) {
        let Some(held) = self.held.get_mut(&of.attempt).filter(|held| held.generation == of.generation) else { return };
        let Phase::Finishing { end, collecting, log_until } = &mut held.phase else { return };
        change(end, collecting, log_until);
        if !*collecting && log_until.is_none() {
            let end = std::mem::replace(end, Box::new(AttemptEnd::bare(EndCause::Succeeded)));
            self.ended(now, of, *end);
        }
    }

    /// The end: sent now if there is a connection, kept until it is recorded.
    pub(super) fn ended(&mut self, now: u64, of: AttemptRef, end: AttemptEnd) {
        let Some(held) = self.held.get_mut(&of.attempt) else { return };
        held.order = None;
        held.phase = Phase::Ended { end: Box::new(end.clone()), sent_at: now };
        self.send(FromAgent::Ended { order: of, end: Box::new(end) });
        self.out.push(Output::Discard(of));
        self.due(now + ENDED_RESEND_MS);
    }

    /// Stops an attempt in whatever phase it is; one that finishes or has ended is left alone.
    pub(super) fn stop(&mut self, now: u64, attempt: AttemptKey, why: StopWhy, kill_at_most: Option<u64>) {
        let Some(held) = self.held.get_mut(&attempt) else { return };
        let of = AttemptRef { attempt, generation: held.generation };
        let grace_ms = held.order.as_ref().map_or(0, |order| order.grace_ms);
        match &mut held.phase {
            Phase::Fetching | Phase::Preparing | Phase::Ready => {
                self.ready.retain(|waiting| *waiting != attempt);
                self.ended(now, of, AttemptEnd::bare(cause_of_stop(why)));
            }
            Phase::Running { slot, launch, stop, .. } => {
                let kill_at = (now + grace_ms).min(kill_at_most.unwrap_or(u64::MAX));
                if let Some(stop) = stop {
                    stop.kill_at = stop.kill_at.min(kill_at);
                } else {
                    *stop = Some(Stop { why, kill_at, killed: false });
                    self.out.push(Output::Signal { slot: *slot, launch: *launch, signal: StopSignal::Term });
                }
                self.due(kill_at);
            }
            Phase::Finishing { .. } | Phase::Ended { .. } => {}
        }
    }

    pub(super) fn stop_all(&mut self, now: u64, kill_at_most: u64, why: &str) {
        let live: Vec<AttemptKey> = self.held.iter().filter(|(_, held)| held.is_live()).map(|(k, _)| *k).collect();
        for attempt in live {
            self.stop(now, attempt, StopWhy::Lost(why.to_owned()), Some(kill_at_most));
        }
    }

    /// Time limits, kills after the grace, logs that take too long, ends to be sent again.
    pub(super) fn attempts_due(&mut self, now: u64) {
        let (mut late, mut unlogged) = (Vec::new(), Vec::new());
        for (attempt, held) in &mut self.held {
            let of = AttemptRef { attempt: *attempt, generation: held.generation };
            match &mut held.phase {
                Phase::Running { slot, launch, stop: Some(stop), .. } if !stop.killed && now >= stop.kill_at => {
                    stop.killed = true;
                    self.out.push(Output::Signal { slot: *slot, launch: *launch, signal: StopSignal::Kill });
                }
                Phase::Running { deadline: Some(at), stop: None, .. } if now >= *at => {
                    late.push((*attempt, held.order.as_ref().and_then(|order| order.limit_ms).unwrap_or(0)));
                }
                Phase::Finishing { log_until: Some(until), .. } if now >= *until => unlogged.push(of),
                Phase::Ended { end, sent_at } if self.connected && now >= *sent_at + ENDED_RESEND_MS => {
                    *sent_at = now;
                    self.out.push(Output::Send(FromAgent::Ended { order: of, end: end.clone() }));
                }
                _ => {}
            }
        }
        for (attempt, limit_ms) in late {
            self.stop(now, attempt, StopWhy::TimedOut { limit_ms }, None);
        }
        for of in unlogged {
            let note = format!("the end of its log was not taken by the engine within {LOG_WAIT_MS} ms; it may follow");
            self.log_flushed(now, of, Some(note));
        }
    }
}

/// Slots that an attempt takes.
pub(super) fn slots_of(order: &StartOrder) -> usize {
    usize::try_from(order.slots).unwrap_or(usize::MAX).max(1)
}

fn cause_of_stop(why: StopWhy) -> EndCause {
    match why {
        StopWhy::TimedOut { limit_ms } => EndCause::TimedOut { limit_ms },
        StopWhy::Cancelled => EndCause::Cancelled,
        StopWhy::Moved => EndCause::Moved { why: "the engine asked for it to go on elsewhere".to_owned() },
        StopWhy::Lost(why) => EndCause::Lost { why },
    }
}

/// The end of a process that nobody stopped.
pub(crate) fn end_of(exit: Exit, memory_mb: u32, mut notes: Vec<String>) -> AttemptEnd {
    let cause = match (exit.code, exit.signal) {
        (Some(0), _) => EndCause::Succeeded,
        _ if exit.out_of_memory => EndCause::OutOfMemory { limit_mb: memory_mb },
        (Some(exit_code), _) => EndCause::Failed { exit_code },
        (None, Some(signal)) => EndCause::Signalled { signal },
        (None, None) => EndCause::Lost { why: "its exit status could not be read".to_owned() },
    };
    notes.extend(exit.notes);
    if exit.out_of_memory && cause == EndCause::Succeeded {
        notes.push("the kernel killed a part of it for want of memory".to_owned());
    }
    AttemptEnd {
        cpu_ms: exit.cpu_ms,
        peak_memory_kb: exit.peak_memory_kb,
        run_ms: exit.run_ms,
        notes,
        ..AttemptEnd::bare(cause)
    }
}
