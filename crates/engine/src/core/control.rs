//! What people ask of sessions, items and instances.

use std::collections::BTreeSet;

use skein_domain::event::{Event, Then};
use skein_domain::scaling::{Milli, is_measured};
use skein_domain::{
    AttemptKey, AttemptState, InstanceId, InstanceState, ItemEnd, ItemState, NanoUsd, NodeKey, OnLost, Place,
    SessionId, SessionState, SolutionId, UserName,
};

use skein_domain::actions::{Action, of_attempt};
use skein_wire::{AttemptCommand, AttemptRef};

use super::input::ReplyId;
use super::{Answer, Core, Output, Refusal, RefusalKind};

/// Untouched items before a cancelled one each get a row of their own; more than this are not made.
const SINGLED_OUT_MAX: u32 = 100_000;

impl Core {
    /// Nothing new starts. What runs finishes; or, with `stop_running`, saves its state and ends, and is
    /// started again after the session is resumed (but not what may never start twice: it finishes).
    pub(super) fn pause(&mut self, reply: ReplyId, session: SessionId, by: UserName, stop_running: bool) {
        match self.snapshot.sessions.get(&session).map(|s| s.state) {
            None => return self.answer(reply, Err(Refusal::not_found(format!("there is no open session {session}")))),
            Some(SessionState::Running) => self.happen(vec![Event::SessionPaused { session, by }]),
            Some(SessionState::Paused) => {}
            Some(SessionState::Stopping | SessionState::Ended(_)) => {
                let why = format!("session {session} is stopping: it cannot be paused any more");
                return self.answer(reply, Err(Refusal { kind: RefusalKind::Conflict, why }));
            }
        }
        if stop_running {
            let why = "its session is paused".to_owned();
            let spec = self.snapshot.sessions.get(&session).map(|s| s.spec.clone());
            let again = |attempt: &&skein_domain::Attempt| {
                let node = spec.as_ref().and_then(|spec| spec.thread.nodes.get(attempt.key.item.node.node as usize));
                attempt.state == AttemptState::Started
                    && attempt.withdrawn.is_none()
                    && node.is_some_and(|node| node.task.on_lost != OnLost::Fail)
            };
            let moving = |a: &skein_domain::Attempt| Event::Moving { attempt: a.key, why: why.clone() };
            let events: Vec<Event> = self.snapshot.attempts_of(session).filter(again).map(moving).collect();
            self.happen(events);
        }
        self.answer(reply, Ok(Answer::Done));
    }

    /// A paused session goes on.
    pub(super) fn resume(&mut self, reply: ReplyId, session: SessionId, by: UserName, budget: Option<NanoUsd>) {
        match self.snapshot.sessions.get(&session).map(|s| s.state) {
            None => return self.answer(reply, Err(Refusal::not_found(format!("there is no open session {session}")))),
            Some(SessionState::Paused) => self.happen(vec![Event::SessionResumed { session, by, budget }]),
            Some(SessionState::Running) if budget.is_some() => {
                self.happen(vec![Event::SessionResumed { session, by, budget }]);
            }
            Some(SessionState::Running) => {}
            Some(SessionState::Stopping | SessionState::Ended(_)) => {
                let why = format!("session {session} is stopping: start it again instead");
                return self.answer(reply, Err(Refusal { kind: RefusalKind::Conflict, why }));
            }
        }
        self.answer(reply, Ok(Answer::Done));
    }

    pub(super) fn stop(&mut self, reply: ReplyId, session: SessionId, by: UserName) {
        match self.snapshot.sessions.get(&session).map(|s| s.state) {
            None => self.answer(reply, Err(Refusal::not_found(format!("there is no open session {session}")))),
            Some(SessionState::Running | SessionState::Paused) => {
                self.happen(vec![Event::SessionStopping { session, by }]);
                self.answer(reply, Ok(Answer::Done));
            }
            Some(_) => self.answer(reply, Ok(Answer::Done)),
        }
    }

    /// The items among these that ask; an answer that nothing asked for is refused.
    pub(super) fn answer_items(&mut self, reply: ReplyId, key: NodeKey, ranges: &[(u32, u32)], again: bool) {
        let asking: BTreeSet<u32> = self.open_in(key, ranges, |state| matches!(state, ItemState::Asking { .. }));
        if asking.is_empty() {
            return self.answer(reply, Err(Refusal::not_found(format!("nothing of these items of {key} asks"))));
        }
        let then = if again { Then::Retry { not_before: self.now } } else { Then::End(ItemEnd::Lost) };
        let events = asking.into_iter().map(|index| Event::Answered { item: key.item(index), then }).collect();
        self.happen(events);
        self.answer(reply, Ok(Answer::Done));
    }

    /// The items among these that wait for their back-off are due at once. What they tried counts as before.
    pub(super) fn retry_now(&mut self, reply: ReplyId, key: NodeKey, ranges: &[(u32, u32)], by: &UserName) {
        let now = self.now;
        let waits = |state: &ItemState| matches!(state, ItemState::Ready { not_before, .. } if *not_before > now);
        if self.open_in(key, ranges, waits).is_empty() {
            let why = format!("nothing of these items of {key} waits for its back-off");
            return self.answer(reply, Err(Refusal::not_found(why)));
        }
        let due = |(from, to): &(u32, u32)| Event::ItemsDue { node: key, from: *from, to: *to, by: by.clone() };
        self.happen(ranges.iter().map(due).collect());
        self.answer(reply, Ok(Answer::Done));
    }

    /// Indices in these ranges of a node whose open items are in such a state.
    fn open_in(&self, key: NodeKey, ranges: &[(u32, u32)], such: impl Fn(&ItemState) -> bool) -> BTreeSet<u32> {
        let Some(node) = self.snapshot.node(key) else { return BTreeSet::new() };
        let items = ranges.iter().flat_map(|(from, to)| node.open.range(*from..(*to).max(*from)));
        items.filter(|(_, state)| such(state)).map(|(index, _)| *index).collect()
    }

    /// Cancels some of a node's items: what waits at once, what runs as a stopped session's would be.
    pub(super) fn cancel_items(&mut self, reply: ReplyId, key: NodeKey, ranges: &[(u32, u32)], by: &UserName) {
        let Some(node) = self.snapshot.node(key) else {
            return self
                .answer(reply, Err(Refusal::not_found(format!("{key} is not open: nothing of it waits or runs"))));
        };
        let spec = self.snapshot.sessions.get(&key.session).map(|session| session.spec.clone());
        let together = spec.is_some_and(|spec| spec.thread.together.iter().any(|set| set.contains(&key.node)));
        if together && ranges.iter().any(|range| *range != (0, node.count)) {
            let why = "its items start together with others, all or none: cancel all of them".to_owned();
            return self.answer(reply, Err(Refusal { kind: RefusalKind::Conflict, why }));
        }
        let untouched = ranges.iter().map(|(from, _)| from.saturating_sub(node.next)).max().unwrap_or(0);
        if untouched > SINGLED_OUT_MAX {
            let why = format!(
                "{untouched} items before these have not begun, and each would have to be kept by itself (the limit is {SINGLED_OUT_MAX}): cancel from an earlier index on"
            );
            return self.answer(reply, Err(Refusal { kind: RefusalKind::Conflict, why }));
        }
        let mut events = Vec::new();
        for (from, to) in ranges {
            for state in node.open.range(*from..(*to).max(*from)).map(|(_, state)| state) {
                let ItemState::Assigned { attempt, .. } = state else { continue };
                if self.snapshot.attempts.get(attempt).is_some_and(|a| !a.is_cancelling()) {
                    events.push(Event::Cancelling { attempt: *attempt });
                }
            }
            events.push(if (*from, *to) == (0, node.count) {
                Event::NodeCancelled { node: key, why: format!("{by} cancelled it") }
            } else {
                Event::ItemsCancelled { node: key, from: *from, to: *to, by: by.clone() }
            });
        }
        self.happen(events);
        self.answer(reply, Ok(Answer::Done));
    }

    /// Passes a person's word on to an attempt that runs.
    pub(super) fn command(&mut self, reply: ReplyId, key: AttemptKey, command: AttemptCommand) {
        let Some(attempt) = self.snapshot.attempts.get(&key) else {
            return self.answer(reply, Err(Refusal::not_found(format!("there is no open attempt {key}"))));
        };
        let node = self.snapshot.sessions.get(&key.item.session()).map(|s| s.spec.thread.nodes.as_slice());
        let task = node.and_then(|nodes| nodes.get(key.item.node.node as usize)).map(|node| node.task.clone());
        let needs = if matches!(command, AttemptCommand::Signal(_)) { Action::Signal } else { Action::Input };
        let possible = task.map(|task| of_attempt(attempt, &task)).unwrap_or_default();
        let (Place::Instance(instance), true) = (attempt.place.clone(), possible.contains(&needs)) else {
            let why = format!(
                "{key} takes no {needs} now: it must run on an instance{}",
                match needs {
                    Action::Input => ", and its task must say stdin = true",
                    _ => "",
                }
            );
            return self.answer(reply, Err(Refusal { kind: RefusalKind::Conflict, why }));
        };
        let order = AttemptRef { attempt: key, generation: attempt.generation };
        self.turn.outputs.push(Output::Command { order, instance, command });
        self.answer(reply, Ok(Answer::Done));
    }

    pub(super) fn notice(&mut self, reply: ReplyId, instance: &InstanceId, why: String) {
        if !self.snapshot.instances.contains_key(instance) {
            return self.answer(reply, Err(Refusal::not_found(format!("there is no instance '{instance}'"))));
        }
        self.noticed(instance, why);
        self.answer(reply, Ok(Answer::Done));
    }

    pub(super) fn say_metric(
        &mut self,
        reply: ReplyId,
        metric: String,
        solution: Option<SolutionId>,
        value: Milli,
        by: UserName,
    ) {
        if let Err(refusal) = self.may_say(&metric, solution.as_ref()) {
            return self.answer(reply, Err(refusal));
        }
        self.happen(vec![Event::MetricSaid { metric, solution, value, by }]);
        self.answer(reply, Ok(Answer::Done));
    }

    fn may_say(&self, metric: &str, solution: Option<&SolutionId>) -> Result<(), Refusal> {
        if let Some(id) = solution.filter(|id| !self.snapshot.solutions.contains_key(*id)) {
            return Err(Refusal::not_found(format!("there is no solution '{id}'; 'skein solution list' has them all")));
        }
        let all = self.snapshot.solutions.values().filter(|s| solution.is_none_or(|id| *id == s.id));
        let elements = all.filter_map(|s| s.machines()?.element.as_ref());
        let custom: BTreeSet<&String> = elements.flat_map(|element| element.custom()).collect();
        if custom.iter().any(|known| known.as_str() == metric) {
            return Ok(());
        }
        if is_measured(metric) {
            let why =
                format!("'{metric}' is measured on the machines themselves: give a custom metric a name of its own");
            return Err(Refusal { kind: RefusalKind::Conflict, why });
        }
        let known: Vec<&str> = custom.iter().map(|name| name.as_str()).collect();
        let known = if known.is_empty() {
            "none has a custom metric".into()
        } else {
            format!("there are: {}", known.join(", "))
        };
        let of = solution.map_or(String::new(), |id| format!(" of '{id}'"));
        Err(Refusal::not_found(format!(
            "no scaling element{of} has a metric '{metric}' ({known}); write [metrics.{metric}] in the element's file"
        )))
    }

    pub(super) fn drain(&mut self, reply: ReplyId, instance: &InstanceId, why: String) {
        let Some(state) = self.snapshot.instances.get(instance).map(|i| i.state) else {
            return self.answer(reply, Err(Refusal::not_found(format!("there is no instance '{instance}'"))));
        };
        // Here and not at the API: the list has no way round it.
        if self.settings.policy.do_not_terminate.contains(instance) {
            let why = format!("'{instance}' is on the do-not-terminate list; take it off in the configuration first");
            return self.answer(reply, Err(Refusal { kind: RefusalKind::Protected, why }));
        }
        if state == InstanceState::Ready {
            self.happen(vec![Event::InstanceDraining { instance: instance.clone(), why }]);
        }
        self.answer(reply, Ok(Answer::Done));
    }
}
