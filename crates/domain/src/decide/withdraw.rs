//! Which open attempts are asked back: deconfliction of what is going, room for what wants an instance
//! alone, and balance of what was sent ahead.
//!
//! Only what has not started is recalled, and only what says it may is moved. The item goes on when its
//! place has answered, or its lease is over.

use std::collections::BTreeSet;

use super::balance::Overlay;
use super::choose::Ever;
use super::plan::{Plan, Withdrawn};
use super::reason::Choice;
use crate::attempt::{Attempt, AttemptState, Place, Withdrawal};
use crate::id::InstanceId;
use crate::quantity::Timestamp;

/// Most attempts asked back because another place has room, in one pass.
const REBALANCED_MAX: usize = 64;

pub(super) fn withdraw(overlay: &Overlay<'_>, cleared: &BTreeSet<InstanceId>, now: Timestamp, plan: &mut Plan) {
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
    rebalance(overlay, now, plan);
}

fn ask(plan: &mut Plan, attempt: &Attempt, how: Withdrawal, why: &str) {
    if attempt.withdrawn < Some(how) {
        plan.withdrawn.push(Withdrawn { attempt: attempt.key, how, why: why.to_owned() });
    }
}

/// What waits at an agent for longer than the policy says goes back when another instance has a slot
/// free now: it was sent ahead of something that runs for longer than was typical.
fn rebalance(overlay: &Overlay<'_>, now: Timestamp, plan: &mut Plan) {
    let snapshot = overlay.snapshot;
    let after_ms = overlay.policy.rebalance_after_ms;
    let mut free = None;
    let mut asked = 0;
    let over = snapshot.index.over.iter().flat_map(|id| snapshot.attempts_on(id));
    // What was called back before takes its room first.
    for attempt in over.filter(|a| a.withdrawn == Some(Withdrawal::Recall) && a.state != AttemptState::Started) {
        claim(overlay, &mut free, attempt);
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
            if claim(overlay, &mut free, attempt).is_none() {
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
fn claim<'a>(overlay: &Overlay<'a>, free: &mut Option<Overlay<'a>>, attempt: &Attempt) -> Option<()> {
    let node = overlay.snapshot.node(attempt.key.item.node)?;
    let (session, profile) = (attempt.key.item.session(), &node.profile);
    let free = free.get_or_insert_with(|| overlay.clone());
    let place = Ever::of(free, profile).instance_now(free, session, profile)?;
    free.take_instance(session, profile, &place);
    Some(())
}
