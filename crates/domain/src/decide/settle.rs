//! What follows from what happened: nodes whose link can never open are cancelled, sessions whose
//! nodes are all over end, a stopping session's open attempts are cancelled. Pure; the engine applies
//! the answer and asks again until nothing follows.

use super::snapshot::Snapshot;
use crate::event::Event;
use crate::id::{NodeKey, SessionId};
use crate::session::{ItemState, Outcome, Session, SessionState};

/// Events that follow from the snapshot's present state.
pub fn settle(snapshot: &Snapshot) -> Vec<Event> {
    let why = "a link it needs can no longer open";
    let mut events: Vec<Event> =
        snapshot.doomed().map(|node| Event::NodeCancelled { node, why: why.to_owned() }).collect();
    for id in snapshot.to_settle() {
        let Some(session) = snapshot.sessions.get(id) else { continue };
        let before = events.len();
        if session.state == SessionState::Stopping {
            stop(snapshot, session, &mut events);
        }
        if session.nodes_open == 0 && events.len() == before {
            events.push(Event::SessionEnded { session: *id, outcome: outcome(session) });
        }
    }
    events
}

impl Snapshot {
    /// Forgets which sessions to look at, after [`settle`] found nothing more.
    pub fn settled(&mut self) {
        self.index.unsettled.clear();
    }

    /// Applies `events` and everything that follows; returns all, in order.
    pub fn apply_all(&mut self, turn: u64, at: crate::quantity::Timestamp, events: Vec<Event>) -> Vec<Event> {
        let mut all = events;
        let mut done = 0;
        loop {
            for event in &all[done..] {
                self.apply(turn, at, event);
            }
            done = all.len();
            let more = settle(self);
            if more.is_empty() {
                self.settled();
                return all;
            }
            all.extend(more);
        }
    }
}

fn key(session: SessionId, node: usize) -> NodeKey {
    NodeKey { session, node: u32::try_from(node).unwrap_or(u32::MAX) }
}

fn stop(snapshot: &Snapshot, session: &Session, events: &mut Vec<Event>) {
    for (at, node) in session.nodes.iter().enumerate() {
        let unplaced = node.untouched() > 0 || node.open.values().any(|s| !matches!(s, ItemState::Assigned { .. }));
        if unplaced {
            let why = "the session was stopped".to_owned();
            events.push(Event::NodeCancelled { node: key(session.id, at), why });
        }
        for state in node.open.values() {
            let ItemState::Assigned { attempt, .. } = state else { continue };
            if snapshot.attempts.get(attempt).is_some_and(|a| !a.is_cancelling()) {
                events.push(Event::Cancelling { attempt: *attempt });
            }
        }
    }
}

fn outcome(session: &Session) -> Outcome {
    let tally = session.tally();
    if tally.failed + tally.lost > 0 {
        Outcome::Failed
    } else if session.state == SessionState::Stopping {
        Outcome::Cancelled
    } else {
        Outcome::Succeeded
    }
}
