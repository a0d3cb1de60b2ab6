//! What receivers are told: a row for each status, written in the turn that made it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use skein_domain::event::{Event, Then};
use skein_domain::session::Session;
use skein_domain::{ItemEnd, ItemKey, ReplyOn, SessionId, SessionSpec};
use skein_store::Side;

use super::{Core, Output};

/// Specs of the sessions that tell somebody.
pub(super) type Telling = BTreeMap<SessionId, Arc<SessionSpec>>;

impl Core {
    /// The sessions among those of `events` that tell somebody: an ended one is not in the snapshot any more.
    pub(super) fn telling(&self, events: &[Event]) -> Telling {
        let mut telling = Telling::new();
        if self.tells.is_empty() {
            return telling;
        }
        for event in events {
            let spec = match event {
                Event::SessionStarted { session, spec } => Some((*session, spec)),
                _ => event.session().and_then(|id| Some((id, &self.snapshot.sessions.get(&id)?.spec))),
            };
            if let Some((id, spec)) = spec.filter(|(id, _)| self.tells.contains(id)) {
                telling.entry(id).or_insert_with(|| spec.clone());
            }
        }
        telling
    }

    /// Remembers whether a session tells somebody: looking through its nodes at each event would cost more.
    pub(super) fn learn_telling(&mut self, events: &[Event]) {
        for event in events {
            if let Event::SessionStarted { session, spec } = event
                && Session::replies(spec)
            {
                self.tells.insert(*session);
            }
        }
    }

    /// The rows that these events ask for.
    pub(super) fn tell(&mut self, telling: &Telling, events: &[Event]) {
        if telling.is_empty() {
            return;
        }
        let before = self.turn.side.len();
        for event in events {
            if let Event::SessionEnded { session, .. } = event {
                self.tells.remove(session);
            }
            let Some((spec, status)) = event.session().and_then(|id| Some((telling.get(&id)?, status(event)?))) else {
                continue;
            };
            let Some(node) = spec.thread.nodes.get(status.node as usize) else { continue };
            let Some(to) = node.task.reply_to.clone().filter(|_| status.end || node.task.reply_on == ReplyOn::Changes)
            else {
                continue;
            };
            let mut body = json!({
                "session": status.session.to_string(),
                "thread": spec.thread.name.as_str(),
                "task": node.name.as_str(),
                "state": status.state,
                "at": self.now.0,
            });
            if let (Some(all), Some(more)) = (body.as_object_mut(), status.more.as_object()) {
                all.extend(more.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())));
            }
            self.turn.side.push(Side::Reply { to: to.into(), at: self.now, body: body.to_string() });
        }
        if self.turn.side.len() > before {
            self.turn.outputs.push(Output::TellReceivers);
        }
    }
}

struct Status {
    session: SessionId,
    node: u32,
    state: &'static str,
    end: bool,
    more: serde_json::Value,
}

fn status(event: &Event) -> Option<Status> {
    let of = |item: ItemKey, state, end, more| {
        Some(Status { session: item.session(), node: item.node.node, state, end, more })
    };
    match event {
        Event::Assigned { attempt } => {
            let key = attempt.key;
            let more = json!({"index": key.item.index, "attempt": key.to_string(), "place": attempt.place.to_string()});
            of(key.item, "assigned", false, more)
        }
        Event::Started { attempt } => {
            let more = json!({"index": attempt.item.index, "attempt": attempt.to_string()});
            of(attempt.item, "started", false, more)
        }
        Event::Ended { attempt, end, then } => {
            let more = json!({
                "index": attempt.item.index,
                "attempt": attempt.to_string(),
                "cause": end.cause.word(),
                "why": end.cause.to_string(),
                "exit_code": match end.cause {
                    skein_domain::EndCause::Succeeded => Some(0),
                    skein_domain::EndCause::Failed { exit_code } => Some(exit_code),
                    _ => None,
                },
                "run_ms": end.run_ms,
            });
            of(attempt.item, after(*then), matches!(then, Then::End(_)), more)
        }
        Event::Answered { item, then } => {
            of(*item, after(*then), matches!(then, Then::End(_)), json!({"index": item.index}))
        }
        // Of all the items of the node that had not started: a million of them are one status.
        Event::NodeCancelled { node, why } => {
            of(node.item(0), "cancelled", true, json!({"why": why, "of": "what had not started"}))
        }
        Event::ItemsCancelled { node, from, to, by } => {
            let more = json!({"from": from, "to": to, "why": format!("{by} cancelled what had not started of them")});
            of(node.item(*from), "cancelled", true, more)
        }
        _ => None,
    }
}

fn after(then: Then) -> &'static str {
    match then {
        Then::Retry { .. } => "ready",
        Then::Ask => "asking",
        Then::End(ItemEnd::Succeeded) => "succeeded",
        Then::End(ItemEnd::Failed) => "failed",
        Then::End(ItemEnd::Cancelled) => "cancelled",
        Then::End(ItemEnd::Lost) => "lost",
    }
}
