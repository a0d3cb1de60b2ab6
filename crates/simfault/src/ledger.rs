//! What the committed turns say, kept beside the ledger and compared with what must hold.

use std::collections::{BTreeMap, BTreeSet};

use skein_domain::event::{Event, Then};
use skein_domain::{AttemptKey, EndCause, InstanceId, ItemEnd, ItemKey, OnLost, Place, SessionId, SessionSpec};

use crate::setup::Counts;

#[derive(Debug, Default)]
pub struct Books {
    going: BTreeSet<InstanceId>,
    ended: BTreeMap<ItemKey, ItemEnd>,
    attempts_ended: BTreeSet<AttemptKey>,
    started: BTreeSet<AttemptKey>,
    specs: BTreeMap<SessionId, std::sync::Arc<SessionSpec>>,
    stopping: BTreeSet<SessionId>,
    moving: BTreeSet<AttemptKey>,
    /// Asked to be cancelled by a person or a stopping session.
    cancelling: BTreeSet<AttemptKey>,
    pub sessions_ended: usize,
    /// Every event, and the item that a failure is about.
    story: Vec<String>,
    culprit: Option<ItemKey>,
}

impl Books {
    /// Something is wrong with an item.
    pub fn blame(&mut self, item: ItemKey, why: String) {
        self.story.push(format!("!! {item}: {why}"));
        self.culprit.get_or_insert(item);
    }

    /// Something is wrong with no item.
    pub fn say(&mut self, what: String) {
        self.story.push(what);
    }

    /// What happened to the item that is to blame and to the instances it was on; else the last events.
    pub fn tell(&mut self) -> Vec<String> {
        const LAST: usize = 20;
        let about = |line: &String, item| {
            let name = format!("{item}");
            let whole = |at: usize| !line[at + name.len()..].starts_with(|c: char| c.is_ascii_digit());
            line.match_indices(&name).any(|(at, _)| whole(at))
        };
        let lines: Vec<String> = match self.culprit {
            Some(item) => self.story.iter().filter(|line| about(line, item)).cloned().collect(),
            None => std::mem::take(&mut self.story),
        };
        lines[lines.len().saturating_sub(LAST)..].to_vec()
    }

    /// One committed event.
    pub fn take(&mut self, event: &Event, counts: &mut Counts) {
        self.story.push(format!("{event:?}"));
        match event {
            Event::SessionStarted { session, spec } => {
                self.specs.insert(*session, spec.clone());
            }
            Event::SessionStopping { session, .. } => {
                self.stopping.insert(*session);
            }
            Event::SessionEnded { .. } => self.sessions_ended += 1,
            Event::OrphanFound { .. } => counts.orphans += 1,
            Event::InstanceReady { instance, .. } => {
                self.going.remove(instance);
            }
            Event::InstanceDraining { instance, .. }
            | Event::InstanceNoticed { instance, .. }
            | Event::InstanceEnding { instance, .. }
            | Event::InstanceGone { instance, .. } => {
                self.going.insert(instance.clone());
            }
            Event::Assigned { attempt } => {
                if matches!(&attempt.place, Place::Instance(id) if self.going.contains(id)) {
                    counts.misassigned += 1;
                }
            }
            Event::Started { attempt } => {
                self.started.insert(*attempt);
            }
            Event::Cancelling { attempt } => {
                self.cancelling.insert(*attempt);
            }
            Event::Moving { attempt, .. } => {
                self.moving.insert(*attempt);
            }
            Event::Ended { attempt, end, then } => self.ended(*attempt, &end.cause, *then, counts),
            Event::Answered { item, then: Then::End(end) } => self.item_ended(*item, *end, counts),
            _ => {}
        }
    }

    fn ended(&mut self, attempt: AttemptKey, cause: &EndCause, then: Then, counts: &mut Counts) {
        if !self.attempts_ended.insert(attempt) {
            counts.doubled += 1;
        }
        let task =
            self.specs.get(&attempt.item.session()).map(|s| &s.thread.nodes[attempt.item.node.node as usize].task);
        let stopped = self.stopping.contains(&attempt.item.session());
        let killed = match cause {
            // Only what never started may be called back, and only what says so may be moved.
            EndCause::Recalled { .. } => self.started.contains(&attempt),
            EndCause::Moved { .. } => {
                !self.moving.contains(&attempt) || task.is_none_or(|task| task.on_lost == OnLost::Fail)
            }
            EndCause::Cancelled => !stopped && !self.cancelling.contains(&attempt),
            _ => false,
        };
        counts.killed += u64::from(killed);
        if let Then::End(end) = then {
            self.item_ended(attempt.item, end, counts);
        }
    }

    fn item_ended(&mut self, item: ItemKey, end: ItemEnd, counts: &mut Counts) {
        if self.ended.insert(item, end).is_some() {
            counts.doubled += 1;
        }
    }
}
