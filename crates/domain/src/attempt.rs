//! An attempt: one try at an item.
//!
//! ```text
//! assigned -> sent -> started -> ended(cause)
//!    |         |         |
//!    |         |         +-- withdrawn: cancel, move -> ended(cancelled | moved)
//!    +---------+------------ withdrawn: recall      -> ended(recalled), and its item is ready again
//! ```
//! `assigned` is the order to start, in the ledger before anyone is told. `sent` is not `started`: what
//! an agent holds beyond its slots (its credit) can be recalled. A recalled item moves only after the
//! agent has said that it will not start it, or the agent's lease is over; an attempt that started
//! before the recall came goes on as if nothing had been asked. Failure paths: the place
//! is lost (lease over, other boot, gateway answers nothing) -> ended(lost); a result that bears an
//! older generation, or comes after the end, is refused.

use serde::{Deserialize, Serialize};

use crate::decide::reason::Choice;
use crate::id::{AttemptKey, InstanceId, SolutionId};
use crate::quantity::{Digest, NanoUsd, Timestamp};

/// Where an attempt runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On an instance, by its agent.
    Instance(InstanceId),
    /// In a shared solution, through its gateway.
    Gateway(SolutionId),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Instance(id) => f.pad(id.as_str()),
            Self::Gateway(id) => f.pad(id.as_str()),
        }
    }
}

/// Open states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Ordered; nobody was told yet, or nobody has answered.
    Assigned,
    /// Its place has it.
    Sent,
    /// Its process runs.
    Started,
}

/// How an attempt is asked back, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Withdrawal {
    /// Give it back unless it has started.
    Recall,
    /// Have it save its state and end; it goes on elsewhere.
    Move,
    /// Stop it.
    Cancel,
}

/// Why an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum EndCause {
    /// Exit status 0 and every output there.
    Succeeded,
    /// The program ended with another status.
    Failed {
        /// Exit status.
        exit_code: i32,
    },
    /// A signal that we did not send ended it.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It ran longer than it may.
    TimedOut {
        /// The limit, ms.
        limit_ms: u64,
    },
    /// It used more memory than it may.
    OutOfMemory {
        /// The limit, MiB.
        limit_mb: u32,
    },
    /// A person or a policy stopped it.
    Cancelled,
    /// It could not be started, or its files could not be had.
    NotStarted {
        /// What, why and the next step.
        why: String,
    },
    /// Its place is gone.
    Lost {
        /// How that is known.
        why: String,
    },
    /// The cloud took its machine away, as it had announced.
    Preempted {
        /// What it said.
        why: String,
    },
    /// It was stopped to go on elsewhere, as its task says it may.
    Moved {
        /// Why it had to go.
        why: String,
    },
    /// It was taken back before it started.
    Recalled {
        /// What its room or its item was wanted for.
        why: String,
    },
}

impl EndCause {
    /// Did its process surely run?
    pub fn ran(&self) -> bool {
        matches!(
            self,
            Self::Succeeded
                | Self::Failed { .. }
                | Self::Signalled { .. }
                | Self::TimedOut { .. }
                | Self::OutOfMemory { .. }
        )
    }
    /// One word, for counting and filtering.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Signalled { .. } => "signalled",
            Self::TimedOut { .. } => "timed_out",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Cancelled => "cancelled",
            Self::NotStarted { .. } => "not_started",
            Self::Lost { .. } => "lost",
            Self::Preempted { .. } => "preempted",
            Self::Moved { .. } => "moved",
            Self::Recalled { .. } => "recalled",
        }
    }
}

impl std::fmt::Display for EndCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed { exit_code } => write!(f, "failed with exit status {exit_code}"),
            Self::Signalled { signal } => write!(f, "ended by signal {signal}"),
            Self::TimedOut { limit_ms } => write!(f, "stopped: it ran longer than {} s", limit_ms / 1000),
            Self::OutOfMemory { limit_mb } => write!(f, "ended: it used more than its {limit_mb} MiB of memory"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::NotStarted { why } => write!(f, "not started: {why}"),
            Self::Lost { why } => write!(f, "lost: {why}"),
            Self::Preempted { why } => write!(f, "preempted: {why}"),
            Self::Moved { why } => write!(f, "moved: {why}"),
            Self::Recalled { why } => write!(f, "recalled before it started: {why}"),
        }
    }
}

/// An output, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Path inside the working folder.
    pub path: String,
    /// Its content's digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// How an attempt ended, with what was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// Why.
    #[serde(flatten)]
    pub cause: EndCause,
    /// CPU time used, ms; none when nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Peak memory, KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_kb: Option<u64>,
    /// From start to end on the place's own clock, ms.
    #[serde(default)]
    pub run_ms: u64,
    /// Files it left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputFile>,
    /// What could not be limited or kept (no cgroup, log cut).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// A cold instance had to start for it; ms that took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start_ms: Option<u64>,
}

impl AttemptEnd {
    /// An end without measurements.
    pub fn bare(cause: EndCause) -> Self {
        Self {
            cause,
            cpu_ms: None,
            peak_memory_kb: None,
            run_ms: 0,
            outputs: Vec::new(),
            notes: Vec::new(),
            cold_start_ms: None,
        }
    }
}

/// An open attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its key.
    pub key: AttemptKey,
    /// Where.
    pub place: Place,
    /// Fencing token: the turn that ordered it.
    pub generation: u64,
    /// The agent's boot it was ordered from; empty for a gateway.
    pub boot: String,
    /// Its state.
    pub state: AttemptState,
    /// It was asked back; the strongest that was asked.
    #[serde(default)]
    pub withdrawn: Option<Withdrawal>,
    /// When it was ordered.
    pub assigned_at: Timestamp,
    /// When its process started, on the engine's clock.
    pub started_at: Option<Timestamp>,
    /// Its time limit, ms.
    pub limit_ms: Option<u64>,
    /// Why there.
    pub choice: Choice,
    /// What it was expected to cost.
    pub cost_estimate: NanoUsd,
    /// What it cost, by its run time and its place's price at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<NanoUsd>,
}

impl Attempt {
    /// A person or a stopping session wants it stopped.
    pub fn is_cancelling(&self) -> bool {
        self.withdrawn == Some(Withdrawal::Cancel)
    }
}
