//! Typed reasons: why a place was chosen, and why an item waits. UI, API and CLI show the same ones.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::budget::OverBudget;
use crate::id::{SolutionId, TaskName};
use crate::quantity::{NanoUsd, Timestamp};
use crate::task::{Balance, RunningMode};

/// Why an attempt was placed where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "choice", rename_all = "snake_case")]
pub enum Choice {
    /// The mode allows this kind of place only.
    Mode {
        /// The settled mode.
        mode: RunningMode,
        /// How the instance was chosen, when it is one.
        balance: Option<Balance>,
    },
    /// The other kind can never take it.
    OnlyKind {
        /// Why not.
        other: Box<Reason>,
    },
    /// A machine that is paid whether it is used or not had room.
    Paid {
        /// Its share of the machine's price.
        here: NanoUsd,
        /// Expected cost in the other kind.
        there: NanoUsd,
    },
    /// This kind is the cheaper one and had room.
    Cheaper {
        /// Expected cost here.
        here: NanoUsd,
        /// Expected cost in the other kind.
        there: NanoUsd,
    },
    /// The cheaper kind had no room within the allowed wait.
    Overflow {
        /// How long it had waited, ms.
        waited_ms: u64,
        /// Expected cost here.
        here: NanoUsd,
        /// Expected cost in the cheaper kind.
        there: NanoUsd,
        /// Why the cheaper kind did not take it.
        because: Box<Reason>,
    },
    /// So much is paid there each month in any case, and less was used: it costs nothing more.
    MinimumPurchase {
        /// The solution.
        solution: SolutionId,
        /// What it costs there, and is counted.
        here: NanoUsd,
        /// Used there this month, what is open included.
        spent: NanoUsd,
        /// Paid for in any case.
        minimum: NanoUsd,
    },
    /// Urgent: the first kind with room.
    Urgent {
        /// Why the cheaper kind did not take it.
        because: Box<Reason>,
    },
    /// Where its group's items are.
    Group {
        /// The group.
        group: Arc<str>,
    },
    /// Sent ahead: every slot is taken, and it waits there for the next one.
    Ahead {
        /// Typical run time of what is ahead of it, ms.
        run_ms: u32,
    },
    /// The configured algorithm proposed it (CPU setting 0).
    Algorithm {
        /// Its class name.
        class: Arc<str>,
    },
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode { mode, balance: Some(balance) } => write!(f, "{mode} mode, {balance}"),
            Self::Mode { mode, balance: None } => write!(f, "{mode} mode"),
            Self::OnlyKind { other } => write!(f, "the only kind that can take it ({other})"),
            Self::Paid { here, there } => {
                write!(f, "a machine that is paid has room: its share {here}, elsewhere {there} more")
            }
            Self::Cheaper { here, there } => write!(f, "cheaper here: {here} against {there}"),
            Self::Overflow { waited_ms, here, there, because } => write!(
                f,
                "overflow after {}.{:01} s: the cheaper kind ({there} against {here}) had no room ({because})",
                waited_ms / 1000,
                waited_ms % 1000 / 100
            ),
            Self::MinimumPurchase { solution, here, spent, minimum } => write!(
                f,
                "{minimum} a month is paid at '{solution}' in any case, {spent} used: it costs nothing more ({here})"
            ),
            Self::Urgent { because } => write!(f, "urgent: the first place with room ({because})"),
            Self::Group { group } => write!(f, "where group '{group}' is"),
            Self::Ahead { run_ms } => {
                write!(f, "sent ahead: it waits there for the next slot (about {run_ms} ms each)")
            }
            Self::Algorithm { class } => write!(f, "chosen by {class}"),
        }
    }
}

/// Why an item is not placed, or a place not taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// A link is open.
    WaitsFor {
        /// The nodes that have not ended.
        nodes: Vec<TaskName>,
    },
    /// It is being retried, later.
    Backoff {
        /// When.
        until: Timestamp,
    },
    /// Its place was lost and its task says `on_lost = "ask"`.
    AsksPerson,
    /// The mode does not allow this kind of place.
    ModeExcludes {
        /// The settled mode.
        mode: RunningMode,
    },
    /// There is no such kind of place at all.
    NoneConfigured {
        /// `instance` or `shared solution`.
        what: Arc<str>,
    },
    /// Its longest run time is over the place's limit.
    OverTimeLimit {
        /// Longest run time, ms.
        longest_ms: u64,
        /// The place's limit, ms.
        limit_ms: u64,
    },
    /// Nobody said how long it may run, so it could exceed the place's limit.
    RunTimeUnknown {
        /// The place's limit, ms.
        limit_ms: u64,
    },
    /// A service has no end; functions have.
    ServiceNeedsInstance,
    /// It is a function of a shared solution.
    FunctionNeedsGateway,
    /// The place is another solution than the one asked for.
    OtherSolution {
        /// Asked for.
        asked: SolutionId,
    },
    /// A property differs: operating system, architecture, type, role or image.
    Differs {
        /// Which property.
        what: Arc<str>,
        /// Asked for.
        asked: Arc<str>,
        /// Found.
        found: Arc<str>,
    },
    /// The place is too small even when empty.
    TooSmall {
        /// Of what.
        what: Arc<str>,
        /// Asked for.
        asked: u64,
        /// There at most.
        most: u64,
    },
    /// The place has too little free now.
    NotFree {
        /// Of what.
        what: Arc<str>,
        /// Asked for.
        asked: u64,
        /// Free now.
        free: u64,
    },
    /// Every slot is taken.
    SlotsTaken {
        /// Slots.
        slots: u32,
    },
    /// Another item has the instance to itself.
    TakenExclusively,
    /// It wants the instance to itself, but others run there.
    NotEmpty {
        /// Attempts there.
        attempts: u32,
    },
    /// The instance takes nothing new.
    NotReady {
        /// Its state.
        state: crate::instance::InstanceState,
    },
    /// Its agent is not connected.
    Unreachable,
    /// The gateway has its most invocations open.
    ConcurrencyReached {
        /// The limit.
        limit: u32,
    },
    /// Waits for the cheaper kind of place until its allowed wait is over.
    WaitsForCheaper {
        /// Until then.
        until: Timestamp,
        /// Why the cheaper kind does not take it now.
        because: Box<Reason>,
    },
    /// Not all items of its `together` set fit in one plan.
    TogetherLacks {
        /// Items that found no room.
        lacking: u32,
        /// Items of the set.
        of: u32,
        /// Why the first of them did not fit.
        because: Box<Reason>,
    },
    /// Others of its `together` set are not ready.
    TogetherNotReady {
        /// Which.
        nodes: Vec<TaskName>,
    },
    /// This pass gave out as many orders as one may; the next goes on.
    PlanFull,
    /// The configured algorithm (CPU setting 0) has proposed no place for it yet.
    NoProposal {
        /// The algorithm's class name.
        class: Arc<str>,
    },
    /// The session is stopping.
    SessionStops,
    /// The session is paused.
    SessionPaused,
    /// A cap does not allow what it is expected to cost.
    OverBudget(Box<OverBudget>),
    /// It is kept free for an item that wants it alone and has waited for long.
    KeptForExclusive,
    /// It waits for room, and a machine would be it.
    Machine {
        /// Of which solution.
        solution: SolutionId,
        /// How it stands with its machines.
        machines: MachinesAre,
        /// Why nothing that is there takes it.
        because: Box<Reason>,
    },
    /// No instance of several takes it; this is the commonest reason, `why` lists all.
    NoInstance {
        /// How many were looked at.
        looked_at: u32,
        /// The commonest reason.
        because: Box<Reason>,
    },
}

/// How it stands with the machines of a solution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachinesAre {
    /// So many are on their way.
    Coming(u32),
    /// The cloud made none when it was asked last, and why.
    NotMade(String),
    /// There are as many as may be.
    AtMost(u32),
}

impl Reason {
    /// One word, for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Self::WaitsFor { .. } => "waits_for",
            Self::Backoff { .. } => "backoff",
            Self::AsksPerson => "asks_person",
            Self::ModeExcludes { .. } => "mode_excludes",
            Self::NoneConfigured { .. } => "none_configured",
            Self::OverTimeLimit { .. } => "over_time_limit",
            Self::RunTimeUnknown { .. } => "run_time_unknown",
            Self::ServiceNeedsInstance => "service_needs_instance",
            Self::FunctionNeedsGateway => "function_needs_gateway",
            Self::OtherSolution { .. } => "other_solution",
            Self::Differs { .. } => "differs",
            Self::TooSmall { .. } => "too_small",
            Self::NotFree { .. } => "not_free",
            Self::SlotsTaken { .. } => "slots_taken",
            Self::TakenExclusively => "taken_exclusively",
            Self::NotEmpty { .. } => "not_empty",
            Self::NotReady { .. } => "not_ready",
            Self::Unreachable => "unreachable",
            Self::ConcurrencyReached { .. } => "concurrency_reached",
            Self::WaitsForCheaper { .. } => "waits_for_cheaper",
            Self::TogetherLacks { .. } => "together_lacks",
            Self::TogetherNotReady { .. } => "together_not_ready",
            Self::PlanFull => "plan_full",
            Self::NoProposal { .. } => "no_proposal",
            Self::SessionStops => "session_stops",
            Self::SessionPaused => "session_paused",
            Self::OverBudget(_) => "over_budget",
            Self::KeptForExclusive => "kept_for_exclusive",
            Self::Machine { .. } => "machine",
            Self::NoInstance { .. } => "no_instance",
        }
    }

    /// Would time or finishing work alone never change it?
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::ModeExcludes { .. }
                | Self::NoneConfigured { .. }
                | Self::OverTimeLimit { .. }
                | Self::RunTimeUnknown { .. }
                | Self::ServiceNeedsInstance
                | Self::FunctionNeedsGateway
                | Self::OtherSolution { .. }
                | Self::Differs { .. }
                | Self::TooSmall { .. }
        )
    }

    /// What a person can do about it.
    pub fn next_step(&self) -> Option<&'static str> {
        Some(match self {
            Self::AsksPerson => {
                "'skein session answer SESSION/NODE[INDEX] --again', or without --again to let it end as lost"
            }
            Self::NoneConfigured { .. } => "start an agent ('skein agent') or add a solution to the configuration",
            Self::OverTimeLimit { .. } => "run it in dedicated mode, or lower longest_run_s if it surely ends earlier",
            Self::RunTimeUnknown { .. } => "state longest_run_s (and expected_run_s) in the task",
            Self::OtherSolution { .. } | Self::Differs { .. } => "add such an instance, or drop the need",
            Self::TooSmall { .. } => "add a larger instance, or lower the need",
            Self::SessionPaused => "'skein session resume SESSION'",
            Self::OverBudget(over) => over.cap.next_step(),
            Self::Unreachable => "see the agent's log; it connects again by itself",
            Self::Machine { machines: MachinesAre::AtMost(_), .. } => "raise the solution's machines.max, or wait",
            Self::NoInstance { because, .. } | Self::TogetherLacks { because, .. } => return because.next_step(),
            _ => return None,
        })
    }
}

fn names(nodes: &[TaskName]) -> String {
    const SHOWN: usize = 4;
    let mut text: Vec<&str> = nodes.iter().take(SHOWN).map(TaskName::as_str).collect();
    let more = format!("and {} more", nodes.len().saturating_sub(SHOWN));
    if nodes.len() > SHOWN {
        text.push(&more);
    }
    text.join(", ")
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitsFor { nodes } => write!(f, "waits for {}", names(nodes)),
            Self::Backoff { .. } => f.write_str("waits to be tried again"),
            Self::AsksPerson => f.write_str("its place was lost; a person must decide (on_lost = \"ask\")"),
            Self::ModeExcludes { mode } => write!(f, "{mode} mode excludes it"),
            Self::NoneConfigured { what } => write!(f, "there is no {what}"),
            Self::OverTimeLimit { longest_ms, limit_ms } => {
                write!(f, "its longest run time of {} s is over the limit of {} s", longest_ms / 1000, limit_ms / 1000)
            }
            Self::RunTimeUnknown { limit_ms } => {
                write!(f, "its run time is unknown and could exceed the limit of {} s", limit_ms / 1000)
            }
            Self::ServiceNeedsInstance => f.write_str("a service has no end and needs an instance"),
            Self::FunctionNeedsGateway => f.write_str("it is a function of a shared solution"),
            Self::OtherSolution { asked } => write!(f, "only solution '{asked}' was asked for"),
            Self::Differs { what, asked, found } => write!(f, "{what} '{asked}' asked for, '{found}' found"),
            Self::TooSmall { what, asked, most } => write!(f, "{asked} {what} asked for, at most {most} there"),
            Self::NotFree { what, asked, free } => write!(f, "{asked} {what} asked for, {free} free"),
            Self::SlotsTaken { slots } => write!(f, "all {slots} slots taken"),
            Self::TakenExclusively => f.write_str("another item has it to itself (CPU setting 100)"),
            Self::NotEmpty { attempts } => write!(f, "wants it alone, but {attempts} run there"),
            Self::NotReady { state } => write!(f, "it is {}", format!("{state:?}").to_lowercase()),
            Self::Unreachable => f.write_str("its agent is not connected"),
            Self::ConcurrencyReached { limit } => write!(f, "all {limit} concurrent invocations in use"),
            Self::WaitsForCheaper { because, .. } => write!(f, "waits for the cheaper place ({because})"),
            Self::TogetherLacks { lacking, of, because } => {
                write!(f, "{lacking} of {of} items that start together find no room ({because})")
            }
            Self::TogetherNotReady { nodes } => write!(f, "starts together with {}, not ready yet", names(nodes)),
            Self::PlanFull => f.write_str("waits for the next pass"),
            Self::NoProposal { class } => write!(f, "{class} has proposed no place yet"),
            Self::SessionStops => f.write_str("the session is stopping"),
            Self::SessionPaused => f.write_str("the session is paused"),
            Self::OverBudget(over) => write!(f, "over budget: {over}"),
            Self::KeptForExclusive => f.write_str("it is kept free for an item that wants it alone (CPU setting 100)"),
            Self::Machine { solution, machines, because } => match machines {
                MachinesAre::Coming(1) => write!(f, "a machine of '{solution}' is on its way ({because})"),
                MachinesAre::Coming(n) => write!(f, "{n} machines of '{solution}' are on their way ({because})"),
                MachinesAre::NotMade(why) => write!(f, "'{solution}' made no machine: {why} ({because})"),
                MachinesAre::AtMost(max) => write!(f, "'{solution}' has its most machines, {max} ({because})"),
            },
            Self::NoInstance { looked_at: 1, because } => write!(f, "the only instance: {because}"),
            Self::NoInstance { looked_at, because } => write!(f, "none of {looked_at} instances: {because}"),
        }
    }
}
