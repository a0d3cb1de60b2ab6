//! What becomes of an item when its attempt ends.

use skein_domain::event::{Event, Then};
use skein_domain::session::ItemState;
use skein_domain::{Attempt, AttemptEnd, AttemptKey, EndCause, ItemEnd, OnLost, SessionState, TaskSpec, Timestamp};

use super::Core;

/// Most attempts at one item, whatever ended them: a poisonous item does not go round for ever.
const ATTEMPTS_MAX: u32 = 20;
/// First back-off, ms; doubled with each further try.
const BACKOFF_FIRST_MS: u64 = 500;
/// Longest back-off, ms.
const BACKOFF_MAX_MS: u64 = 60_000;

impl Core {
    /// The end of an open attempt as an event.
    pub(super) fn ended(&self, key: AttemptKey, end: AttemptEnd) -> Event {
        let then = self.then(key, &end.cause).unwrap_or(Then::End(ItemEnd::Cancelled));
        Event::Ended { attempt: key, end, then }
    }

    /// An order that its agent gave back before anything started (it drains, say): the item goes on as
    /// if it had never been assigned there, however often that happens.
    pub(super) fn handed_back(&self, key: AttemptKey, why: String) -> Event {
        let end = AttemptEnd::bare(EndCause::NotStarted { why });
        match self.then(key, &end.cause) {
            Some(Then::Retry { .. } | Then::End(ItemEnd::Failed)) => {
                Event::Ended { attempt: key, end, then: Then::Retry { not_before: self.now } }
            }
            _ => self.ended(key, end),
        }
    }

    fn then(&self, key: AttemptKey, cause: &EndCause) -> Option<Then> {
        let attempt = self.snapshot().attempts.get(&key)?;
        let session = self.snapshot().sessions.get(&key.item.session())?;
        let task = &session.spec.thread.nodes.get(key.item.node.node as usize)?.task;
        let node = session.nodes.get(key.item.node.node as usize)?;
        let failures = match node.open.get(&key.item.index) {
            Some(ItemState::Assigned { failures, .. }) => *failures,
            _ => 0,
        };
        if *cause == EndCause::Succeeded {
            return Some(Then::End(ItemEnd::Succeeded));
        }
        if attempt.cancelling || session.state == SessionState::Stopping {
            return Some(Then::End(ItemEnd::Cancelled));
        }
        Some(after_failure(attempt, task, cause, failures, self.now))
    }
}

fn after_failure(attempt: &Attempt, task: &TaskSpec, cause: &EndCause, failures: u32, now: Timestamp) -> Then {
    let number = attempt.key.number;
    let retry = |tries: u32| Then::Retry { not_before: now.after_ms(backoff_ms(tries)) };
    match cause {
        // Stopped by its place without our asking counts as the place's loss.
        EndCause::Lost { .. } | EndCause::Cancelled => match task.on_lost {
            OnLost::Fail => Then::End(ItemEnd::Lost),
            OnLost::Ask => Then::Ask,
            OnLost::Retry if number >= ATTEMPTS_MAX => Then::End(ItemEnd::Lost),
            OnLost::Retry => retry(number - 1),
        },
        // Nothing ran, so trying again is safe whatever on_lost says.
        EndCause::NotStarted { .. } if number < 3 => retry(number),
        _ if failures < task.retries && number < ATTEMPTS_MAX => retry(failures + 1),
        _ => Then::End(ItemEnd::Failed),
    }
}

/// Nothing before the first repetition of a lost attempt; then doubling.
fn backoff_ms(tries: u32) -> u64 {
    match tries {
        0 => 0,
        n => BACKOFF_FIRST_MS.saturating_mul(1 << (n - 1).min(16)).min(BACKOFF_MAX_MS),
    }
}
