//! What becomes of an item when its attempt ends.

use skein_domain::decide::retry;
use skein_domain::event::{Event, Then};
use skein_domain::{AttemptEnd, AttemptKey, EndCause, InstanceState, ItemEnd, Place};

use super::Core;

/// An order that an agent gave back without being asked is not given out again before this, ms: an
/// agent that refuses whatever it gets must not keep the engine busy.
const GIVEN_BACK_MS: u64 = 500;

impl Core {
    /// The end of an open attempt as an event.
    pub(super) fn ended(&self, key: AttemptKey, end: AttemptEnd) -> Event {
        let then = retry::then(&self.snapshot, key, &end.cause, self.now).unwrap_or(Then::End(ItemEnd::Cancelled));
        Event::Ended { attempt: key, end, then }
    }

    /// An order that its agent gave back before anything started: the item goes on as if it had never
    /// been assigned there, however often that happens.
    pub(super) fn handed_back(&self, key: AttemptKey, why: String) -> Event {
        let end = AttemptEnd::bare(EndCause::Recalled { why });
        let event = self.ended(key, end);
        match event {
            Event::Ended { attempt, end, then: Then::Retry { not_before } } if !self.is_asked_back(key) => {
                Event::Ended { attempt, end, then: Then::Retry { not_before: not_before.after_ms(GIVEN_BACK_MS) } }
            }
            event => event,
        }
    }

    /// Was it to come back, or is its instance going?
    fn is_asked_back(&self, key: AttemptKey) -> bool {
        self.snapshot.attempts.get(&key).is_some_and(|attempt| {
            attempt.withdrawn.is_some()
                || match &attempt.place {
                    Place::Instance(id) => {
                        self.snapshot.instances.get(id).is_none_or(|i| i.state >= InstanceState::Draining)
                    }
                    Place::Gateway(_) => false,
                }
        })
    }
}
