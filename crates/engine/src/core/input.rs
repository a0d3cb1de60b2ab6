//! What comes in.

use std::sync::Arc;

use skein_domain::decide::{Answer, Fault, Policy};
use skein_domain::scaling::Milli;
use skein_domain::{AttemptEnd, Digest, InstanceId, SessionId, SessionSpec, Solution, SolutionId, UserName};
use skein_store::Side;
use skein_wire::{AttemptCommand, AttemptRef, FromAgent, Hello};

/// Whom to answer: the rim knows.
pub type ReplyId = u64;

/// What the core needs of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How to decide.
    pub policy: Policy,
    /// Lease of an agent, ms.
    pub lease_ms: u64,
}

/// One input.
#[derive(Debug)]
pub enum Input {
    /// Start a session.
    Submit {
        /// Whom to answer.
        reply: ReplyId,
        /// What was asked for, settled and checked.
        spec: Arc<SessionSpec>,
        /// The client's key: the same key again is the same session.
        client_key: Option<String>,
        /// Content it refers to.
        digests: Vec<Digest>,
        /// What it is expected to cost, where a cap holds for it.
        estimate: Option<skein_domain::NanoUsd>,
    },
    /// Stop a session.
    Stop {
        /// Whom to answer.
        reply: ReplyId,
        /// Which.
        session: SessionId,
        /// By whom.
        by: UserName,
    },
    /// Start nothing new in a session until it is resumed.
    Pause {
        /// Whom to answer.
        reply: ReplyId,
        /// Which.
        session: SessionId,
        /// By whom.
        by: UserName,
        /// Have what runs save its state and end; else it finishes.
        stop_running: bool,
    },
    /// Let a paused session go on.
    Resume {
        /// Whom to answer.
        reply: ReplyId,
        /// Which.
        session: SessionId,
        /// By whom.
        by: UserName,
        /// The most that it may spend from now on, if that changes.
        budget: Option<skein_domain::NanoUsd>,
    },
    /// A person answers items whose place was lost (`on_lost = "ask"`).
    Answer {
        /// Whom to tell.
        reply: ReplyId,
        /// Which node.
        node: skein_domain::NodeKey,
        /// Index ranges `from..to`: those of them that ask.
        ranges: Vec<(u32, u32)>,
        /// Try them again; else they end as lost.
        again: bool,
    },
    /// Items that wait for their back-off are due at once.
    RetryNow {
        /// Whom to answer.
        reply: ReplyId,
        /// Which node.
        node: skein_domain::NodeKey,
        /// Index ranges `from..to`: those of them that wait for it.
        ranges: Vec<(u32, u32)>,
        /// By whom.
        by: UserName,
    },
    /// Cancel some of a node's items.
    CancelItems {
        /// Whom to answer.
        reply: ReplyId,
        /// Which node.
        node: skein_domain::NodeKey,
        /// Index ranges `from..to`.
        ranges: Vec<(u32, u32)>,
        /// By whom.
        by: UserName,
    },
    /// Say something to an attempt that runs.
    Command {
        /// Whom to answer.
        reply: ReplyId,
        /// Which.
        attempt: skein_domain::AttemptKey,
        /// What.
        command: AttemptCommand,
    },
    /// Drain an instance.
    Drain {
        /// Whom to answer.
        reply: ReplyId,
        /// Which.
        instance: InstanceId,
        /// Why.
        why: String,
    },
    /// Its cloud takes an instance away.
    Notice {
        /// Whom to answer.
        reply: ReplyId,
        /// Which.
        instance: InstanceId,
        /// What was said.
        why: String,
    },
    /// A value of a custom metric, for scaling elements that name it.
    SayMetric {
        /// Whom to answer.
        reply: ReplyId,
        /// Which metric.
        metric: String,
        /// Of this solution's machines only.
        solution: Option<SolutionId>,
        /// The value, in the metric's unit.
        value: Milli,
        /// Who says it.
        by: UserName,
    },
    /// Write rows that the planner does not look at.
    Write {
        /// Whom to answer.
        reply: ReplyId,
        /// The rows.
        side: Vec<Side>,
    },
    /// The configuration changed.
    Configure {
        /// Settings.
        settings: Box<Settings>,
        /// Solutions.
        solutions: Vec<Solution>,
    },
    /// An agent connected and proved its identity.
    Hello {
        /// What it said.
        hello: Box<Hello>,
        /// Its solution, from its identity.
        solution: SolutionId,
    },
    /// An agent's connection ended.
    Disconnected {
        /// Which.
        instance: InstanceId,
        /// Its boot: an older connection's end says nothing about a newer one.
        boot: String,
    },
    /// Messages of a connected agent.
    FromAgent {
        /// Whose.
        instance: InstanceId,
        /// Its boot.
        boot: String,
        /// The messages.
        messages: Vec<FromAgent>,
    },
    /// News of an invocation.
    FromGateway {
        /// The shared solution.
        solution: SolutionId,
        /// Which attempt.
        order: AttemptRef,
        /// What.
        event: GatewayEvent,
    },
    /// What a cloud says of machines.
    FromCloud {
        /// The dedicated solution.
        solution: SolutionId,
        /// What.
        event: CloudEvent,
    },
    /// An order could not be made (a secret or a file is missing).
    OrderFailed {
        /// Which.
        order: AttemptRef,
        /// What, why, next step.
        why: String,
    },
    /// The configured algorithm's answer to [`super::Output::AskAlgorithm`], or why there is none.
    Proposed {
        /// The question's number.
        ask: u64,
        /// The answer.
        answer: Result<Answer, Fault>,
    },
    /// The configured algorithm was read, or read again.
    AlgorithmSet {
        /// Its class name.
        class: Arc<str>,
        /// Of its text and its configuration.
        digest: String,
    },
}

impl Input {
    /// A copy, if nobody would say this again.
    pub(super) fn said_once(&self) -> Option<Self> {
        match self {
            Self::Configure { settings, solutions } => {
                Some(Self::Configure { settings: settings.clone(), solutions: solutions.clone() })
            }
            Self::Hello { hello, solution } => Some(Self::Hello { hello: hello.clone(), solution: solution.clone() }),
            Self::Disconnected { instance, boot } => {
                Some(Self::Disconnected { instance: instance.clone(), boot: boot.clone() })
            }
            Self::FromAgent { instance, boot, messages } => {
                let once =
                    |m: &&FromAgent| matches!(m, FromAgent::Draining | FromAgent::Noticed { .. } | FromAgent::Leaving);
                let messages: Vec<FromAgent> = messages.iter().filter(once).cloned().collect();
                let some = !messages.is_empty();
                some.then(|| Self::FromAgent { instance: instance.clone(), boot: boot.clone(), messages })
            }
            Self::FromGateway { event: GatewayEvent::Started, .. } => None,
            Self::FromGateway { solution, order, event } => {
                Some(Self::FromGateway { solution: solution.clone(), order: *order, event: event.clone() })
            }
            Self::FromCloud { solution, event } => {
                Some(Self::FromCloud { solution: solution.clone(), event: event.clone() })
            }
            Self::AlgorithmSet { class, digest } => {
                Some(Self::AlgorithmSet { class: class.clone(), digest: digest.clone() })
            }
            Self::OrderFailed { order, why } => Some(Self::OrderFailed { order: *order, why: why.clone() }),
            _ => None,
        }
    }
}

/// What a cloud says of machines.
#[derive(Debug, Clone)]
pub enum CloudEvent {
    /// It is being asked to make one.
    Asked(InstanceId),
    /// It makes one.
    Made {
        /// Our name.
        instance: InstanceId,
        /// The cloud's.
        cloud_id: String,
    },
    /// It makes none: no capacity, over a quota, a bad request.
    NotMade {
        /// Our name.
        instance: InstanceId,
        /// Why.
        why: String,
    },
    /// Every machine of that name is ended.
    Ended(InstanceId),
    /// What it has under our engine's identifier.
    Listed {
        /// When it was asked.
        asked_at: skein_domain::Timestamp,
        /// What it has.
        machines: Vec<Listed>,
    },
}

/// A machine that a cloud lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Our name, from its tag.
    pub instance: InstanceId,
    /// The cloud's name.
    pub cloud_id: String,
}

/// News of an invocation.
#[derive(Debug, Clone)]
pub enum GatewayEvent {
    /// The request is under way.
    Started,
    /// It ended.
    Ended(Box<AttemptEnd>),
    /// The gateway did not take it, and nothing was started.
    NotTaken(String),
}
