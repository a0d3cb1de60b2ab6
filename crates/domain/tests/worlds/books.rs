//! Every item ends exactly once, every count is the sum of its parts, and holds agree on both sides.

use std::collections::BTreeMap;

use skein_domain::decide::change::Change;
use skein_domain::decide::snapshot::Stored;
use skein_domain::decide::{Choice, Reason, Snapshot};
use skein_domain::event::Event;
use skein_domain::session::{ItemState, Tally};
use skein_domain::testing::Record;
use skein_domain::{AttemptKey, ItemEnd, ItemKey, Outcome, Place, SessionId, SessionState, When, Withdrawal};

/// What ended so far, from the rows that were written.
#[derive(Debug, Default)]
pub(crate) struct Books {
    items: BTreeMap<ItemKey, ItemEnd>,
    attempts: BTreeMap<AttemptKey, bool>,
    sessions: BTreeMap<SessionId, bool>,
    pub(crate) seen: Seen,
}

/// What a world came to: a check of what never happens checks nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    backfilled: u32,
    reserved: u32,
    several_slots: u32,
    moved: u32,
}

impl Seen {
    fn turn(&mut self, record: &Record) {
        for placed in &record.plan.assignments {
            self.backfilled += u32::from(matches!(placed.choice, Choice::Backfilled { .. }));
            let node = record.before.node(placed.item.node).unwrap();
            self.several_slots += u32::from(node.profile.needs.slots > 1);
        }
        for waiting in &record.plan.waiting {
            let because = |reason: &Reason| matches!(reason, Reason::Reserved { .. });
            let found = matches!(&waiting.reason, Reason::NoInstance { because: b, .. } if because(b));
            self.reserved += u32::from(found);
        }
        let moved = record.plan.withdrawn.iter().filter(|w| w.how == Withdrawal::Move && w.why.contains("reserved"));
        self.moved += u32::try_from(moved.count()).unwrap();
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            backfilled: self.backfilled + other.backfilled,
            reserved: self.reserved + other.reserved,
            several_slots: self.several_slots + other.several_slots,
            moved: self.moved + other.moved,
        }
    }

    pub(crate) fn everything(self) {
        let all = [self.backfilled, self.reserved, self.several_slots, self.moved];
        assert!(all.iter().all(|count| *count > 0), "the worlds never came to some of it: {self:?}");
    }
}

impl Books {
    pub(crate) fn turn(&mut self, record: &Record) {
        self.seen.turn(record);
        for event in &record.events {
            if let Some(session) = event.session() {
                let ended = self.sessions.entry(session).or_default();
                assert!(!*ended, "{event:?} after the end of its session");
                *ended = matches!(event, Event::SessionEnded { .. });
            }
        }
        for change in &record.changes {
            match change {
                Change::ItemEnded(key, end, _) => self.end(*key, *end),
                Change::ItemsCancelled { node, from, to } => {
                    (*from..*to).for_each(|index| self.end(node.item(index), ItemEnd::Cancelled));
                }
                Change::ItemOpen(key, _) => assert!(!self.items.contains_key(key), "{key} is open after its end"),
                Change::Attempt(attempt) => {
                    let ended = self.attempts.entry(attempt.key).or_default();
                    assert!(!*ended, "{:?} is open after its end", attempt.key);
                }
                Change::AttemptEnded(attempt, ..) => {
                    let before = self.attempts.insert(attempt.key, true);
                    assert_ne!(before, Some(true), "{:?} ended twice", attempt.key);
                }
                _ => {}
            }
        }
        for change in &record.changes {
            if let Change::Session { session, ended_at: Some(_), .. } = change {
                self.session_ended(session);
            }
        }
    }

    fn end(&mut self, key: ItemKey, end: ItemEnd) {
        let before = self.items.insert(key, end);
        assert_eq!(before, None, "{key} ended twice");
    }

    fn session_ended(&self, session: &skein_domain::Session) {
        let mut tally = Tally::default();
        let mine = self.items.iter().filter(|(key, _)| key.session() == session.id);
        mine.for_each(|(_, end)| tally.add(*end, 1));
        let count: u32 = session.nodes.iter().map(|n| n.count).sum();
        assert_eq!(tally.ended(), count, "{} ended with items that have not", session.id);
        assert_eq!(tally, session.tally());
        let SessionState::Ended(outcome) = session.state else {
            panic!("{} ended, but is {:?}", session.id, session.state)
        };
        assert_eq!(outcome == Outcome::Failed, tally.failed + tally.lost > 0);
    }

    /// Nothing is left over once every session has ended.
    pub(crate) fn closed(&self, snapshot: &Snapshot) {
        assert!(self.sessions.values().all(|ended| *ended));
        assert!(self.attempts.values().all(|ended| *ended));
        assert!(snapshot.attempts.is_empty() && snapshot.ready_items() == 0);
        assert!(snapshot.instances.values().all(|i| i.held_by.is_empty()), "held by sessions that are over");
        let instances = snapshot.instances.values().cloned().collect();
        let solutions = snapshot.solutions.values().cloned().collect();
        let spent = snapshot.spent.iter().map(|(key, cost)| (key.clone(), cost)).collect();
        let warned = snapshot.warned.iter().map(|(cap, said)| (cap.clone(), *said)).collect();
        let kept = Stored { instances, solutions, spent, warned, ..Stored::default() };
        assert_eq!(*snapshot, Snapshot::load(kept));
    }
}

/// Counts in the snapshot are the sums of their parts.
pub(crate) fn holds_and_nodes(snapshot: &Snapshot) {
    for (id, session) in &snapshot.sessions {
        for (instance, hold) in &session.holds {
            assert!(snapshot.instances[instance].held_by.contains(id), "{id} holds {instance}, which does not know");
            let here = snapshot.attempts_on(instance).filter(|a| a.key.item.session() == *id).count();
            assert_eq!(hold.attempts as usize, here, "attempts of {id} on {instance}");
        }
        let open = session.nodes.iter().filter(|n| !n.is_over()).count();
        assert_eq!(session.nodes_open as usize, open, "open nodes of {id}");
        assert!(open > 0, "{id} has nothing left to do, but has not ended");
        for (at, node) in session.nodes.iter().enumerate() {
            let open = u32::try_from(node.open.len()).unwrap();
            assert_eq!(node.untouched() + open + node.tally.ended(), node.count, "items of {id}.{at}");
            let retry: Vec<_> = node.retry.iter().map(|(_, index)| *index).collect();
            let ready = node.open.iter().filter(|(_, s)| matches!(s, ItemState::Ready { .. })).count();
            assert_eq!(retry.len(), ready, "retries of {id}.{at}");
            let links = &session.spec.thread.nodes[at].after;
            let closed = links.iter().filter(|l| !opened(&session.nodes[l.node as usize], l.when)).count();
            assert_eq!(node.links_open as usize, closed, "open links of {id}.{at}");
        }
    }
    for (id, instance) in &snapshot.instances {
        let holders = snapshot.sessions.values().filter(|s| s.holds.contains_key(id)).map(|s| s.id);
        assert!(holders.eq(instance.held_by.iter().copied()), "holders of {id}");
    }
    for attempt in snapshot.attempts.values() {
        let node = snapshot.node(attempt.key.item.node).unwrap();
        let open = &node.open[&attempt.key.item.index];
        assert!(
            matches!(open, ItemState::Assigned { attempt: a, .. } if *a == attempt.key),
            "{:?} is {open:?}",
            attempt.key
        );
        if let Place::Instance(id) = &attempt.place {
            assert!(
                snapshot.instances[id].held_by.contains(&attempt.key.item.session())
                    || snapshot.instances[id].state == skein_domain::InstanceState::Gone
            );
        }
    }
}

fn opened(before: &skein_domain::Node, when: When) -> bool {
    let tally = before.tally;
    before.is_over()
        && match when {
            When::Success => tally.succeeded == before.count,
            When::End => true,
            When::Failure => tally.failed + tally.lost > 0,
        }
}
