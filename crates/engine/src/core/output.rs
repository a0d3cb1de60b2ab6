//! What goes out, after the commit.

use std::sync::Arc;

use skein_domain::decide::{Fault, Question};
use skein_domain::{Attempt, AttemptKey, InstanceId, Place, SessionId, SessionSpec, SolutionId};
use skein_wire::AttemptRef;

use super::input::ReplyId;

/// An order to start, before it is put into the form its place wants.
#[derive(Debug, Clone)]
pub struct OrderTo {
    /// The session's spec.
    pub spec: Arc<SessionSpec>,
    /// The attempt.
    pub attempt: Attempt,
}

/// One output.
#[derive(Debug)]
pub enum Output {
    /// Answer whoever asked.
    Reply {
        /// Whom.
        reply: ReplyId,
        /// With what.
        answer: Result<Answer, Refusal>,
    },
    /// Order an agent to start.
    StartOnAgent {
        /// What.
        order: OrderTo,
    },
    /// Invoke a function.
    StartInGateway {
        /// What.
        order: OrderTo,
        /// It may have been invoked before a restart: attach to it if so.
        resume: bool,
    },
    /// Cancel an attempt.
    Cancel {
        /// Which.
        attempt: AttemptKey,
        /// Its generation.
        generation: u64,
        /// Where.
        place: Place,
        /// It goes on elsewhere.
        moving: bool,
    },
    /// Pass a person's word on to an attempt.
    Command {
        /// Which, and its generation.
        order: AttemptRef,
        /// Where.
        instance: InstanceId,
        /// What.
        command: skein_wire::AttemptCommand,
    },
    /// Ask an agent to give an attempt back unless it has started.
    Recall {
        /// Which.
        attempt: AttemptKey,
        /// Its generation.
        generation: u64,
        /// Whom.
        instance: InstanceId,
    },
    /// Tell an agent that its ends are in the ledger.
    Recorded {
        /// Whom.
        instance: InstanceId,
        /// Which.
        attempts: Vec<AttemptRef>,
    },
    /// Tell an agent to take nothing new.
    DrainAgent {
        /// Whom.
        instance: InstanceId,
        /// Why.
        why: String,
    },
    /// Renew an agent's lease.
    Lease {
        /// Whose.
        instance: InstanceId,
        /// Its boot: another one counts its heartbeats anew.
        boot: String,
        /// The heartbeat that it answers.
        heartbeat: u64,
    },
    /// There is something to tell receivers.
    TellReceivers,
    /// Ask a cloud for a machine; the same name again is the same machine.
    MakeMachine {
        /// Where.
        solution: SolutionId,
        /// Its name.
        instance: InstanceId,
        /// Which size, where the configuration names several.
        instance_type: Option<std::sync::Arc<str>>,
    },
    /// Ask a cloud to end every machine of this name.
    EndMachine {
        /// Where.
        solution: SolutionId,
        /// Its name.
        instance: InstanceId,
    },
    /// Ask a cloud what it has under our engine's identifier.
    ListMachines {
        /// Which.
        solution: SolutionId,
    },
    /// Ask the configured algorithm; its answer comes as [`super::Input::Proposed`].
    AskAlgorithm {
        /// The question's number.
        ask: u64,
        /// What is asked.
        question: Arc<Question>,
    },
    /// The configured algorithm gave no answer that could be used: say so, and count it.
    AlgorithmFailed {
        /// Its class name.
        class: Arc<str>,
        /// Which limit struck, or what was wrong.
        fault: Fault,
        /// It is not asked for a while.
        rests: bool,
    },
    /// Tell a shared solution how many instances to keep warm (scale-up or scale-down message).
    Scale {
        /// Which.
        solution: SolutionId,
        /// How many.
        min_warm: u32,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done, and in the ledger.
    Done,
    /// The session.
    Session {
        /// Its id.
        session: SessionId,
        /// It was started now; false when the client's key was known.
        new: bool,
    },
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, for a status code.
    pub kind: RefusalKind,
    /// What and why.
    pub why: String,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// It is not there.
    NotFound,
    /// The configuration protects it.
    Protected,
    /// Its state does not allow it.
    Conflict,
    /// Later, perhaps.
    Busy,
    /// A cap does not allow it.
    OverBudget,
}

impl Refusal {
    pub(super) fn not_found(why: String) -> Self {
        Self { kind: RefusalKind::NotFound, why }
    }
    pub(super) fn busy(why: String) -> Self {
        Self { kind: RefusalKind::Busy, why }
    }
}
