//! What can be done to a session or an attempt as it is now. API, CLI and the engine's core offer and accept
//! exactly these.

use std::fmt;

use crate::attempt::{Attempt, AttemptState, Place};
use crate::quantity::Timestamp;
use crate::session::{ItemState, Node, Outcome, SessionState};
use crate::task::{RunSpec, TaskSpec};

/// One possible action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Start nothing new in it.
    Pause,
    /// Let it go on.
    Resume,
    /// Stop it.
    Stop,
    /// Run again what did not succeed, and what comes after that.
    Rerun,
    /// Run all of it again.
    RerunAll,
    /// Cancel items of it.
    Cancel,
    /// Answer items whose place was lost.
    Answer,
    /// Have items that wait for their back-off tried now.
    RetryNow,
    /// Send it a signal.
    Signal,
    /// Give its standard input a line, or its end.
    Input,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Rerun => "rerun",
            Self::RerunAll => "rerun --all",
            Self::Cancel => "cancel",
            Self::Answer => "answer",
            Self::RetryNow => "retry-now",
            Self::Signal => "signal",
            Self::Input => "input",
        })
    }
}

/// What can be done to a session in this state.
pub fn of_session(state: SessionState) -> &'static [Action] {
    match state {
        SessionState::Running => &[Action::Pause, Action::Stop],
        SessionState::Paused => &[Action::Resume, Action::Stop],
        SessionState::Stopping => &[],
        SessionState::Ended(Outcome::Succeeded) => &[Action::RerunAll],
        SessionState::Ended(_) => &[Action::Rerun, Action::RerunAll],
    }
}

/// What can be done to items of a node of an open session.
pub fn of_items(node: &Node, state: SessionState, now: Timestamp) -> Vec<Action> {
    if !matches!(state, SessionState::Running | SessionState::Paused) || node.is_over() {
        return Vec::new();
    }
    let asks = node.open.values().any(|state| matches!(state, ItemState::Asking { .. }));
    let waits = node.retry.last().is_some_and(|(not_before, _)| *not_before > now);
    [(true, Action::Cancel), (asks, Action::Answer), (waits, Action::RetryNow)]
        .into_iter()
        .filter_map(|(can, action)| can.then_some(action))
        .collect()
}

/// What can be done to an open attempt at an item of `task`.
pub fn of_attempt(attempt: &Attempt, task: &TaskSpec) -> Vec<Action> {
    let runs = attempt.state == AttemptState::Started && attempt.withdrawn.is_none();
    if !runs || !matches!(attempt.place, Place::Instance(_)) {
        return Vec::new();
    }
    let input = task.stdin && matches!(task.run, RunSpec::Command(_));
    [(true, Action::Signal), (input, Action::Input)]
        .into_iter()
        .filter_map(|(can, action)| can.then_some(action))
        .collect()
}
