//! Asking the configured algorithm (CPU setting 0): the core says what is to be asked, and takes the answer
//! as an input. What asks it is at the rim, so the core waits for nothing and does no IO.
//!
//! ```text
//!   +--> nothing open --wanted(snapshot)--> open (until ANSWER_MS) --Input::Proposed--> Event::Proposed --+
//!   |                                        |           |                                                |
//!   |                                        |           +-- a fault, a wrong answer --+                  |
//!   |                                        +-- no answer in time --------------------+                  |
//!   |                                                                                  v                  |
//!   |     rests (REST_MS) <-- FAILURES_MAX in a row -- Event::AlgorithmFailed: the default places --------+
//!   +-----------------------------------------------------------------------------------------------------+
//! ```
//! The same question is not asked again before [`ASK_AGAIN_MS`]. After a turn that could not be written, and
//! after a restart, nothing is open and everything is asked anew.

use std::sync::Arc;

use skein_domain::Timestamp;
use skein_domain::decide::{Algorithm, Answer, Fault, Question, wanted};
use skein_domain::event::Event;

use super::{Core, Output};

/// An answer is waited for this long, ms: the algorithm's own limit of time, and what a busy machine adds.
pub const ANSWER_MS: u64 = 500;
/// The same question is asked again after this, ms: the algorithm may go by something that it remembers.
pub const ASK_AGAIN_MS: u64 = 1_000;
/// Failures in a row after which it rests ...
pub const FAILURES_MAX: u32 = 5;
/// ... for this long, ms; meanwhile the default scheme places everything.
pub const REST_MS: u64 = 30_000;

/// How it stands with asking.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// Number of the last question.
    number: u64,
    /// The one that is open, and until when.
    open: Option<(Arc<Question>, Timestamp)>,
    /// The last one that was closed, and when it was asked.
    last: Option<(Arc<Question>, Timestamp)>,
    /// Failures in a row.
    failures: u32,
    /// When to look again if nothing else happens.
    pub(super) wake: Option<Timestamp>,
}

impl Core {
    /// Asks what is to be asked now.
    pub(super) fn ask_algorithm(&mut self) {
        self.asks.wake = None;
        if !matches!(self.settings.policy.algorithm, Algorithm::Custom { .. }) {
            (self.asks.open, self.asks.last, self.asks.failures) = (None, None, 0);
            return;
        }
        if let Some((_, until)) = &self.asks.open {
            self.asks.wake = Some(*until);
            return;
        }
        // While it rests, the plan says when what waits is to be looked at again.
        if self.snapshot.algorithm_rests().is_some_and(|until| until > self.now) {
            return;
        }
        let Some(question) = wanted(&self.snapshot, &self.settings.policy, self.now) else {
            self.asks.last = None;
            return;
        };
        if let Some((last, at)) = &self.asks.last {
            let again = at.after_ms(ASK_AGAIN_MS);
            if **last == question && self.now < again {
                self.asks.wake = Some(again);
                return;
            }
        }
        let (question, until) = (Arc::new(question), self.now.after_ms(ANSWER_MS));
        self.asks.number += 1;
        self.asks.open = Some((question.clone(), until));
        self.asks.wake = Some(until);
        self.turn.outputs.push(Output::AskAlgorithm { ask: self.asks.number, question });
    }

    /// An answer, or why there is none. One to an older question says nothing.
    pub(super) fn proposed(&mut self, ask: u64, answer: Result<Answer, Fault>) {
        if ask != self.asks.number {
            return;
        }
        let Some((question, until)) = self.asks.open.take() else { return };
        match answer.and_then(|answer| question.check(answer)) {
            Ok(event) => {
                self.asks.failures = 0;
                if self.snapshot.is_news(&event) {
                    self.happen(vec![event]);
                }
            }
            Err(fault) => self.algorithm_failed(&question, fault),
        }
        self.close(question, until);
    }

    /// The open question, when its time is over.
    pub(super) fn expire_ask(&mut self) {
        let Some((question, until)) = self.asks.open.take_if(|(_, until)| *until <= self.now) else { return };
        self.algorithm_failed(&question, Fault::NoAnswer { after_ms: ANSWER_MS });
        self.close(question, until);
    }

    fn close(&mut self, question: Arc<Question>, until: Timestamp) {
        let asked_at = Timestamp(until.0 - i64::try_from(ANSWER_MS * 1000).unwrap_or(0));
        self.asks.last = Some((question, asked_at));
    }

    fn algorithm_failed(&mut self, question: &Question, fault: Fault) {
        self.asks.failures += 1;
        // After a rest, one more failure is enough for the next.
        let rests = self.asks.failures >= FAILURES_MAX;
        let rests_until = rests.then(|| self.now.after_ms(REST_MS));
        let class = question.class.clone();
        self.turn.outputs.push(Output::AlgorithmFailed { class: class.clone(), fault: fault.clone(), rests });
        let items = question.items.iter().map(|asked| asked.item).collect();
        self.happen(vec![Event::AlgorithmFailed { class, items, fault, rests_until }]);
    }

    /// It was read anew: what was said and how often it failed is over.
    pub(super) fn algorithm_set(&mut self, class: Arc<str>, digest: String) {
        let number = self.asks.number;
        self.asks = Asks { number, ..Asks::default() };
        self.happen(vec![Event::AlgorithmSet { class, digest }]);
    }
}

#[cfg(test)]
#[path = "propose_tests.rs"]
mod tests;
