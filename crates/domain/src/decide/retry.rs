//! What becomes of an item when an attempt at it ends.
//!
//! Causes are counted apart ([`crate::session::Tries`]) and each has its own limit. What never started
//! may always go on; what may have started goes on only where its task allows a second start.

use super::snapshot::Snapshot;
use crate::attempt::{Attempt, EndCause};
use crate::event::Then;
use crate::id::AttemptKey;
use crate::quantity::Timestamp;
use crate::session::{ItemEnd, ItemState, SessionState, Tries};
use crate::task::{OnLost, TaskSpec};

/// What follows from `cause` for the item of an open attempt; none when it is not open.
pub fn then(snapshot: &Snapshot, key: AttemptKey, cause: &EndCause, now: Timestamp) -> Option<Then> {
    let attempt = snapshot.attempts.get(&key)?;
    let session = snapshot.sessions.get(&key.item.session())?;
    let task = &session.spec.thread.nodes.get(key.item.node.node as usize)?.task;
    let tries = match session.nodes.get(key.item.node.node as usize)?.open.get(&key.item.index) {
        Some(ItemState::Assigned { tries, .. }) => *tries,
        _ => Tries::default(),
    };
    if *cause == EndCause::Succeeded {
        return Some(Then::End(ItemEnd::Succeeded));
    }
    if attempt.is_cancelling() || session.state == SessionState::Stopping {
        return Some(Then::End(ItemEnd::Cancelled));
    }
    Some(after(attempt, task, cause, tries.and(cause), now))
}

/// `tries` counts this end too.
fn after(attempt: &Attempt, task: &TaskSpec, cause: &EndCause, tries: Tries, now: Timestamp) -> Then {
    let limits = &task.retry;
    let again = |count: u32, most: u32, or: ItemEnd| {
        if count > most {
            return Then::End(or);
        }
        Then::Retry { not_before: now.after_ms(backoff_ms(task, attempt.key, count)) }
    };
    match cause {
        EndCause::Recalled { .. } | EndCause::Moved { .. } => Then::Retry { not_before: now },
        // Stopped by its place without our asking counts as the place's loss.
        EndCause::Lost { .. } | EndCause::Cancelled | EndCause::Preempted { .. } => match task.on_lost {
            OnLost::Fail => Then::End(ItemEnd::Lost),
            OnLost::Ask => Then::Ask,
            OnLost::Retry if matches!(cause, EndCause::Preempted { .. }) => {
                again(tries.preempted, limits.preempted, ItemEnd::Lost)
            }
            // The first repetition goes at once: the place is at fault, not the task.
            OnLost::Retry if tries.lost <= 1 => Then::Retry { not_before: now },
            OnLost::Retry => again(tries.lost - 1, limits.lost, ItemEnd::Lost),
        },
        // Nothing ran, so trying again is safe whatever on_lost says.
        EndCause::NotStarted { .. } => again(tries.refused, limits.refused, ItemEnd::Failed),
        EndCause::TimedOut { .. } => again(tries.timed_out, limits.timed_out.unwrap_or(task.retries), ItemEnd::Failed),
        _ => again(tries.failed, task.retries, ItemEnd::Failed),
    }
}

/// Doubling from the task's first back-off to its longest, less up to a quarter: items that failed
/// together do not come back together. The same for the same attempt, so that a plan can be replayed.
fn backoff_ms(task: &TaskSpec, key: AttemptKey, tries: u32) -> u64 {
    let limits = &task.retry;
    let full = limits.backoff_first_ms.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(limits.backoff_max_ms);
    full - spread(key) % (full / 4 + 1)
}

/// `SplitMix64` over the attempt's key.
fn spread(key: AttemptKey) -> u64 {
    let index = u64::from(key.item.index) << 32 | u64::from(key.number);
    let mut z = (key.item.session().0 ^ u64::from(key.item.node.node).rotate_left(48) ^ index)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
