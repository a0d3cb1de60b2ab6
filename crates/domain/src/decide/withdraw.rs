//! Which open attempts are asked back: deconfliction of what is going, room for what needs much at once, and
//! balance, without a new task coming.
//!
//! Only what has not started is recalled, and only what says it may is moved. The item goes on when its
//! place has answered, or its lease is over. Moved for balance is only what has room elsewhere now: off an
//! instance that is reserved for what has waited for too long, if that makes its room there; and off one whose
//! CPU is in use beyond the ceiling, one attempt at a time, after it was there for a while.

use std::collections::BTreeSet;

use super::balance::Overlay;
use super::choose::Ever;
use super::plan::{Plan, Withdrawn};
use super::reason::Choice;
use crate::attempt::{Attempt, AttemptState, Place, Withdrawal};
use crate::id::InstanceId;
use crate::quantity::Timestamp;

/// What ends within this by its limit is not moved to make room, ms.
const MOVED_IF_LONGER_MS: u64 = 60_000;
/// What came to an instance is not moved off it for the CPU within this, ms: a measurement is of the past.
const MOVED_AFTER_MS: u64 = 60_000;
/// Most attempts asked back because another place has room, in one pass.
const REBALANCED_MAX: usize = 64;

/// `cleared` are instances that were reserved before what could be sent ahead there again; `waited`, those that are
/// reserved for what has waited for too long.
pub(super) fn withdraw(
    overlay: &Overlay<'_>,
    (cleared, waited): (&BTreeSet<InstanceId>, &BTreeSet<InstanceId>),
    now: Timestamp,
    plan: &mut Plan,
) {
    let snapshot = overlay.snapshot;
    for id in &snapshot.index.draining {
        for attempt in snapshot.attempts_on(id) {
            let movable = snapshot.node(attempt.key.item.node).is_some_and(|node| node.profile.movable);
            let (how, why) = match attempt.state {
                AttemptState::Started if movable => (Withdrawal::Move, "its instance is going"),
                AttemptState::Started => continue,
                AttemptState::Assigned | AttemptState::Sent => (Withdrawal::Recall, "its instance is going"),
            };
            ask(plan, attempt, how, why);
        }
    }
    for id in cleared {
        // What has a slot starts any moment now.
        let ahead = |a: &&Attempt| a.state != AttemptState::Started && matches!(a.choice, Choice::Ahead { .. });
        for attempt in snapshot.attempts_on(id).filter(ahead) {
            ask(plan, attempt, Withdrawal::Recall, "its instance is reserved for an item that needs much at once");
        }
    }
    for session in &snapshot.index.paused {
        for attempt in snapshot.attempts_of(*session).filter(|a| a.state != AttemptState::Started) {
            if matches!(attempt.place, Place::Instance(_)) {
                ask(plan, attempt, Withdrawal::Recall, "its session is paused");
            }
        }
    }
    let mut free = None;
    rebalance(overlay, &mut free, now, plan);
    make_room(overlay, waited, &mut free, now, plan);
    cool_down(overlay, &mut free, now, plan);
}

fn is_movable(overlay: &Overlay<'_>, attempt: &Attempt) -> bool {
    attempt.state == AttemptState::Started
        && overlay.snapshot.node(attempt.key.item.node).is_some_and(|node| node.profile.movable)
}

/// What may move leaves an instance that is reserved for what has waited for too long, unless something there may
/// not: then it would move for nothing.
fn make_room<'a>(
    overlay: &Overlay<'a>,
    waited: &BTreeSet<InstanceId>,
    free: &mut Option<Overlay<'a>>,
    now: Timestamp,
    plan: &mut Plan,
) {
    for id in waited.iter().filter(|id| overlay.given_on(id).is_empty()) {
        let is_going = |a: &&Attempt| {
            let ends = a.limit_ms.map(|most| a.started_at.unwrap_or(a.assigned_at).after_ms(most));
            a.withdrawn.is_some() || ends.is_some_and(|ends| ends <= now.after_ms(MOVED_IF_LONGER_MS))
        };
        let there = || overlay.snapshot.attempts_on(id).filter(|a| !is_going(a));
        if !there().all(|a| is_movable(overlay, a)) {
            continue;
        }
        for attempt in there() {
            if claim(overlay, free, attempt).is_some_and(|place| place != *id) {
                ask(plan, attempt, Withdrawal::Move, "its instance is reserved for an item that needs much at once");
            }
        }
    }
}

/// One attempt that may move leaves each instance whose CPU is in use beyond the ceiling, if it is not alone there.
fn cool_down<'a>(overlay: &Overlay<'a>, free: &mut Option<Overlay<'a>>, now: Timestamp, plan: &mut Plan) {
    let (snapshot, Some(ceiling)) = (overlay.snapshot, overlay.policy.cpu_ceiling_percent) else { return };
    let rooms = snapshot.index.rooms.kinds().flat_map(|(_, _, of_kind)| of_kind.rooms());
    let hot = rooms.filter(|(room, _)| room.attempts > 1 && room.cpu_percent >= ceiling).flat_map(|(_, ids)| ids);
    let hot: BTreeSet<&InstanceId> = hot.filter(|id| snapshot.live(id).cpu_percent >= ceiling).collect();
    for id in hot {
        if snapshot.attempts_on(id).any(|a| a.withdrawn.is_some()) {
            continue;
        }
        let mut movable: Vec<&Attempt> = snapshot.attempts_on(id).filter(|a| is_movable(overlay, a)).collect();
        movable.sort_by_key(|a| std::cmp::Reverse((a.generation, a.key)));
        let due = |a: &Attempt| a.started_at.unwrap_or(a.assigned_at).after_ms(MOVED_AFTER_MS);
        if let Some(next) = movable.iter().map(|a| due(a)).filter(|due| *due > now).min() {
            plan.wake_at(next);
        }
        let leaves = movable.into_iter().filter(|a| due(a) <= now);
        let mut leaves = leaves.filter(|a| claim(overlay, free, a).is_some_and(|place| place != *id));
        if let Some(attempt) = leaves.next() {
            ask(plan, attempt, Withdrawal::Move, "CPU in use there is beyond the ceiling, and another has room");
        }
    }
}

fn ask(plan: &mut Plan, attempt: &Attempt, how: Withdrawal, why: &str) {
    if attempt.withdrawn < Some(how) {
        plan.withdrawn.push(Withdrawn { attempt: attempt.key, how, why: why.to_owned() });
    }
}

/// What waits at an agent for longer than the policy says goes back when another instance has a slot
/// free now: it was sent ahead of something that runs for longer than was typical.
fn rebalance<'a>(overlay: &Overlay<'a>, free: &mut Option<Overlay<'a>>, now: Timestamp, plan: &mut Plan) {
    let snapshot = overlay.snapshot;
    let after_ms = overlay.policy.rebalance_after_ms;
    let mut asked = 0;
    let over = snapshot.index.over.iter().flat_map(|id| snapshot.attempts_on(id));
    // What was called back before takes its room first.
    for attempt in over.filter(|a| a.withdrawn == Some(Withdrawal::Recall) && a.state != AttemptState::Started) {
        claim(overlay, free, attempt);
    }
    for id in &snapshot.index.over {
        let waits = |a: &&Attempt| a.state != AttemptState::Started && a.withdrawn.is_none();
        let (mut due, later): (Vec<&Attempt>, Vec<&Attempt>) =
            snapshot.attempts_on(id).filter(waits).partition(|a| a.assigned_at.after_ms(after_ms) <= now);
        if let Some(next) = later.iter().map(|a| a.assigned_at.after_ms(after_ms)).min() {
            plan.wake_at(next);
        }
        // What was sent last waits for longest.
        due.sort_by_key(|a| std::cmp::Reverse((a.generation, a.key)));
        for attempt in due {
            if claim(overlay, free, attempt).is_none() {
                continue;
            }
            ask(plan, attempt, Withdrawal::Recall, "another instance has a slot free");
            asked += 1;
            if asked >= REBALANCED_MAX {
                plan.wake_at(now);
                return;
            }
        }
    }
}

/// Takes an instance that would have a slot for it now, if any.
fn claim<'a>(overlay: &Overlay<'a>, free: &mut Option<Overlay<'a>>, attempt: &Attempt) -> Option<InstanceId> {
    let node = overlay.snapshot.node(attempt.key.item.node)?;
    let (session, profile) = (attempt.key.item.session(), &node.profile);
    let free = free.get_or_insert_with(|| overlay.clone());
    let place = Ever::of(free, profile).instance_now(free, session, profile)?;
    free.take_instance(session, profile, &place);
    Some(place)
}
