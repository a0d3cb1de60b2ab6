//! Typed reasons: why a place was chosen, and why an item waits. UI, API and CLI show the same ones.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::budget::OverBudget;
use crate::id::{InstanceId, ItemKey, SessionId, SolutionId, TaskName};
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
    /// Placed before its turn on an instance that is reserved for an item which came first, and without
    /// delaying that.
    Backfilled {
        /// Whom it is reserved for.
        item: ItemKey,
        /// It ends before then, at the latest: the reserved room is had at that time. Absent when it takes what
        /// is spare there beside the reserved room.
        before: Option<Timestamp>,
    },
    /// The configured algorithm proposed it (CPU setting 0).
    Algorithm {
        /// Its class name.
        class: Arc<str>,
    },
    /// The default scheme placed it in the algorithm's stead.
    Instead {
        /// The algorithm's class name.
        class: Arc<str>,
        /// Why not the algorithm.
        why: Instead,
        /// Why there.
        then: Box<Choice>,
    },
}

/// Why the default scheme places an item that the configured algorithm (CPU setting 0) should.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "instead", rename_all = "snake_case")]
pub enum Instead {
    /// What it proposed does not take the item.
    Refused {
        /// What it proposed.
        instance: InstanceId,
        /// Why not.
        because: Box<Reason>,
    },
    /// It gave no answer that could be used.
    Failed {
        /// Which limit struck, or what was wrong.
        fault: Fault,
    },
    /// It is not asked for a while, having failed several times in a row.
    Rests {
        /// How it failed last.
        fault: Fault,
    },
}

/// How an algorithm failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// It passed more interrupts (loops and calls) than one call may.
    Interrupts {
        /// The limit.
        most: u64,
    },
    /// It took longer than one call may.
    WallTime {
        /// The limit, ms.
        most_ms: u64,
    },
    /// It wanted more memory than it may have.
    Memory {
        /// The limit, MiB.
        most_mb: u64,
    },
    /// It gave no answer at all: something that no interrupt reaches takes it too long.
    NoAnswer {
        /// Waited for, ms.
        after_ms: u64,
    },
    /// It ended with an error.
    Error {
        /// Its words, with file and line.
        what: Arc<str>,
    },
    /// Its answer is none.
    Answer {
        /// What is wrong with it.
        what: Arc<str>,
    },
    /// What runs it failed: a defect of ours.
    Panicked {
        /// What was said.
        what: Arc<str>,
    },
}

impl Fault {
    /// One word, for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Interrupts { .. } => "interrupts",
            Self::WallTime { .. } => "wall_time",
            Self::Memory { .. } => "memory",
            Self::NoAnswer { .. } => "no_answer",
            Self::Error { .. } => "error",
            Self::Answer { .. } => "answer",
            Self::Panicked { .. } => "panicked",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupts { most } => write!(f, "stopped at the limit of {most} interrupts"),
            Self::WallTime { most_ms } => write!(f, "stopped at the limit of {most_ms} ms"),
            Self::Memory { most_mb } => write!(f, "stopped at the limit of {most_mb} MiB of memory"),
            Self::NoAnswer { after_ms } => write!(f, "gave no answer within {after_ms} ms"),
            Self::Error { what } => write!(f, "failed: {what}"),
            Self::Answer { what } => write!(f, "gave a wrong answer: {what}"),
            Self::Panicked { what } => write!(f, "could not be called: {what}"),
        }
    }
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { instance, because } => {
                write!(f, "proposed '{instance}', which does not take it ({because})")
            }
            Self::Failed { fault } => write!(f, "{fault}"),
            Self::Rests { fault } => write!(f, "rests after several failures ({fault})"),
        }
    }
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
            Self::Backfilled { item, before: Some(at) } => {
                write!(f, "backfilled: ends before {at}, when {item} has its room here")
            }
            Self::Backfilled { item, before: None } => {
                write!(f, "backfilled: fits beside what is reserved here for {item}")
            }
            Self::Algorithm { class } => write!(f, "chosen by {class}"),
            Self::Instead { class, why, then } => write!(f, "by default, since {class} {why}: {then}"),
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
    /// The configured algorithm (CPU setting 0) leaves it waiting.
    LeftWaiting {
        /// The algorithm's class name.
        class: Arc<str>,
    },
    /// The default scheme, in the stead of the configured algorithm, finds no place for it either.
    Instead {
        /// The algorithm's class name.
        class: Arc<str>,
        /// Why not the algorithm.
        why: Instead,
        /// What the default scheme says.
        because: Box<Reason>,
    },
    /// The session is stopping.
    SessionStops,
    /// The session is paused.
    SessionPaused,
    /// A cap does not allow what it is expected to cost.
    OverBudget(Box<OverBudget>),
    /// Its room is reserved for an item that comes first and needs much at once.
    Reserved {
        /// For whom.
        item: ItemKey,
        /// When that item has its room, at the latest, by the time limits of what is there. Absent when something
        /// there has no limit.
        at: Option<Timestamp>,
    },
    /// It waits for room, and a machine would be it.
    Machine {
        /// Of which solution.
        solution: SolutionId,
        /// How it stands with its machines.
        machines: MachinesAre,
        /// Why nothing that is there takes it.
        because: Box<Reason>,
    },
    /// There is no deployment plan for its groups now.
    NoDeployment {
        /// What is in conflict.
        because: Arc<str>,
    },
    /// A deployment plan holds it to a server, so no gateway takes it.
    HeldToServer,
    /// A deployment plan holds it to another server.
    OtherServer {
        /// Which.
        server: Arc<str>,
    },
    /// The server to which a deployment plan holds it does not take it now.
    OnServer {
        /// Which.
        server: Arc<str>,
        /// Why not.
        because: Box<Reason>,
    },
    /// The place is kept for a group (exclusivity).
    KeptForGroup {
        /// Which place.
        place: Arc<str>,
        /// Of which group.
        group: Arc<str>,
        /// Of which session.
        session: SessionId,
    },
    /// Its group is to be alone there, and others have not ended yet.
    OthersThere {
        /// Which place.
        place: Arc<str>,
        /// Attempts of others.
        attempts: u32,
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
            Self::LeftWaiting { .. } => "left_waiting",
            Self::Instead { .. } => "instead",
            Self::SessionStops => "session_stops",
            Self::SessionPaused => "session_paused",
            Self::OverBudget(_) => "over_budget",
            Self::Reserved { .. } => "reserved",
            Self::Machine { .. } => "machine",
            Self::NoDeployment { .. } => "no_deployment",
            Self::HeldToServer => "held_to_server",
            Self::OtherServer { .. } => "other_server",
            Self::OnServer { .. } => "on_server",
            Self::KeptForGroup { .. } => "kept_for_group",
            Self::OthersThere { .. } => "others_there",
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
                | Self::HeldToServer
                | Self::OtherServer { .. }
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
            Self::Reserved { .. } => "state longest_run_s if it surely ends earlier: it may then go first",
            Self::Machine { machines: MachinesAre::AtMost(_), .. } => "raise the solution's machines.max, or wait",
            Self::NoDeployment { .. } => "add servers, or change the groups' rules: 'skein plan' shows what holds",
            Self::OnServer { because, .. }
            | Self::NoInstance { because, .. }
            | Self::TogetherLacks { because, .. }
            | Self::Instead { because, .. } => return because.next_step(),
            Self::LeftWaiting { .. } => {
                "it is asked again whenever something changes; its file says when it places one"
            }
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
            Self::LeftWaiting { class } => write!(f, "{class} leaves it waiting"),
            Self::Instead { class, why, because } => write!(f, "{because}; {class} {why}"),
            Self::SessionStops => f.write_str("the session is stopping"),
            Self::SessionPaused => f.write_str("the session is paused"),
            Self::OverBudget(over) => write!(f, "over budget: {over}"),
            Self::Reserved { item, at: Some(at) } => write!(f, "reserved for {item} at {at}, and it may last longer"),
            Self::Reserved { item, at: None } => write!(f, "reserved for {item} as soon as what is there has ended"),
            Self::NoDeployment { because } => write!(f, "there is no deployment plan for its groups now: {because}"),
            Self::HeldToServer => f.write_str("its deployment plan holds it to a server"),
            Self::OtherServer { server } => write!(f, "its deployment plan holds it to server '{server}'"),
            Self::OnServer { server, because } => {
                write!(f, "its deployment plan holds it to server '{server}', which does not take it now ({because})")
            }
            Self::KeptForGroup { place, group, session } => {
                write!(f, "'{place}' is kept for group '{group}' of session {session}")
            }
            Self::OthersThere { place, attempts } => {
                write!(f, "its group is to be alone in '{place}', and {attempts} of others run there still")
            }
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
