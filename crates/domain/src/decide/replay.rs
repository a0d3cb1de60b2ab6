//! Replay: the events of a ledger, decided once more.
//!
//! ```text
//! event --apply--> Snapshot          `decided` --decide--> orders  ==?  the orders on record
//!    ^                                                                        |
//!    +------------------------- what is on record goes on --------------------+
//! ```
//! Everything that a plan was made of is on record: rows as events, what was measured with `decided`, the policy,
//! what classes are worth. So equal orders, byte for byte, say that nothing else had a part in it. Failure paths: a
//! ledger whose first events its retention has removed cannot be replayed (there is no beginning to start from).

use std::collections::{BTreeMap, VecDeque};

use super::policy::Policy;
use super::reserve::may_keep;
use super::scale::may_end;
use super::snapshot::Snapshot;
use crate::attempt::Place;
use crate::event::Event;
use crate::id::{AttemptKey, ItemKey, SessionId};
use crate::quantity::Timestamp;

/// Differences that are kept; further ones are only counted.
pub const DIFFERENCES_MAX: usize = 100;

/// Events of a plan as they may happen: the ending of a machine is checked once more, in the very turn that writes it
/// down [invariant 2].
pub fn deconflict(snapshot: &Snapshot, policy: &Policy, events: &mut Vec<Event>) {
    events.retain(|event| match event {
        Event::InstanceEnding { instance, .. } => {
            let instance = snapshot.instances.get(instance);
            instance.is_some_and(|i| may_end(snapshot, policy, i).is_ok())
        }
        Event::WarmSet { solution, warm, .. } => may_keep(snapshot, solution, *warm),
        Event::InstanceDraining { instance, .. } => !policy.do_not_terminate.contains(instance),
        _ => true,
    });
}

/// An order that came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// In which turn.
    pub turn: u64,
    /// What is on record, as JSON; none when there is nothing more.
    pub recorded: Option<String>,
    /// What is decided now, as JSON; none when nothing is.
    pub decided: Option<String>,
}

/// One item that ended, as a trace has it: its last attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// Its attempt.
    pub attempt: AttemptKey,
    /// When it could be placed.
    pub ready_at: Timestamp,
    /// How long it lasted, ms.
    pub run_ms: u64,
    /// How long it was allowed to wait, ms.
    pub allowed_wait_ms: u64,
    /// Where.
    pub place: Place,
    /// Memory it needs, MiB.
    pub memory_mb: u32,
}

/// A ledger being replayed.
#[derive(Debug, Default)]
pub struct Replay {
    /// What is open at this point.
    pub snapshot: Snapshot,
    /// What was set about deciding, at this point.
    pub policy: Policy,
    started: bool,
    /// Orders of the plan that is on record next, decided once more.
    expected: VecDeque<String>,
    turn: u64,
    /// Plans decided again.
    pub plans: u64,
    /// Orders that were equal.
    pub equal: u64,
    /// Orders that were not.
    pub differing: u64,
    /// The first of those.
    pub differences: Vec<Difference>,
    /// Items of which an attempt ended; where several did (the first was lost), the last of them counts.
    pub played: BTreeMap<ItemKey, Played>,
    /// Only orders about this session are compared, and only its items are kept.
    session: Option<SessionId>,
}

impl Replay {
    /// Of all sessions, or of one.
    pub fn new(session: Option<SessionId>) -> Self {
        Self { session, ..Self::default() }
    }

    /// Takes the next event on record. An error says why it cannot be replayed.
    pub fn take(&mut self, turn: u64, at: Timestamp, event: &Event) -> Result<(), String> {
        if turn != self.turn {
            self.rest();
            self.turn = turn;
            self.snapshot.take_changes();
        }
        match event {
            Event::EngineStarted => self.started = true,
            _ if !self.started => {
                return Err(
                    "its first events are gone, or were written by an engine that did not say what it decided \
                            by: only a history from its beginning can be replayed"
                        .to_owned(),
                );
            }
            Event::PolicySet { policy } => self.policy = Policy::clone(policy),
            Event::Ended { attempt, end, .. } => self.ended(*attempt, end.run_ms),
            _ => {}
        }
        if !matches!(event, Event::Decided { .. }) {
            self.compare(event)?;
        }
        self.snapshot.apply(turn, at, event);
        self.snapshot.settled();
        if let Event::Decided { .. } = event {
            self.rest();
            self.decide(at)?;
        }
        Ok(())
    }

    /// What is left to compare when there are no more events.
    pub fn finish(&mut self) {
        self.rest();
    }

    fn decide(&mut self, now: Timestamp) -> Result<(), String> {
        let plan = super::decide(&self.snapshot, &self.policy, now);
        let mut events = plan.into_events(&self.snapshot, self.turn, now);
        deconflict(&self.snapshot, &self.policy, &mut events);
        self.plans += 1;
        self.expected = events.iter().map(json).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Orders follow `decided` at once, before what they bring about.
    fn compare(&mut self, event: &Event) -> Result<(), String> {
        let Some(decided) = self.expected.pop_front() else { return Ok(()) };
        let recorded = json(event)?;
        if decided == recorded {
            self.equal += u64::from(self.is_asked_for(event));
        } else if self.is_asked_for(event) {
            self.differ(Some(recorded), Some(decided));
        }
        Ok(())
    }

    fn is_asked_for(&self, event: &Event) -> bool {
        self.session.is_none_or(|session| event.session() == Some(session))
    }

    /// Orders decided now that are not on record.
    fn rest(&mut self) {
        for decided in std::mem::take(&mut self.expected) {
            if self.session.is_none() {
                self.differ(None, Some(decided));
            }
        }
    }

    fn differ(&mut self, recorded: Option<String>, decided: Option<String>) {
        self.differing += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(Difference { turn: self.turn, recorded, decided });
        }
    }

    fn ended(&mut self, key: AttemptKey, run_ms: u64) {
        if self.session.is_some_and(|session| session != key.item.session()) {
            return;
        }
        let (Some(attempt), Some(node)) = (self.snapshot.attempts.get(&key), self.snapshot.node(key.item.node)) else {
            return;
        };
        let (ready_at, place, profile) = (node.ready_at, attempt.place.clone(), &node.profile);
        let (allowed_wait_ms, memory_mb) = (profile.allowed_wait_ms, profile.needs.memory_mb);
        self.played.insert(key.item, Played { attempt: key, ready_at, run_ms, allowed_wait_ms, place, memory_mb });
    }
}

fn json(event: &Event) -> Result<String, String> {
    serde_json::to_string(event).map_err(|e| format!("an event cannot be written as JSON: {e}"))
}
