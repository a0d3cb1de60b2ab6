//! What happened. Events are the only way a [`crate::decide::Snapshot`] changes, and each is stored
//! in the same transaction as the rows it changed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, AttemptEnd};
use crate::decide::Fault;
use crate::decide::budget::{CapKey, OverBudget, Warned};
use crate::decide::deployment::Deployment;
use crate::id::{AttemptKey, InstanceId, ItemKey, NodeKey, SessionId, SolutionId, UserName};
use crate::instance::InstanceFacts;
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{ItemEnd, Outcome, SessionSpec};
use crate::solution::Solution;

/// What becomes of an item when its attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It ends.
    End(ItemEnd),
    /// It is tried again, not before this moment.
    Retry {
        /// When the back-off is over.
        not_before: Timestamp,
    },
    /// A person decides.
    Ask,
}

/// What the algorithm said of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposedPlace {
    /// Which.
    pub item: ItemKey,
    /// Where it is to run; absent: it is to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<InstanceId>,
}

/// Machines that the algorithm asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachinesAsked {
    /// Of which solution.
    pub solution: SolutionId,
    /// How many, beside those that are there.
    pub count: u32,
    /// What for.
    pub why: String,
}

/// A machine that the algorithm gave back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    /// Which.
    pub instance: InstanceId,
    /// Why.
    pub why: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A solution is known, or its facts or prices changed.
    SolutionSet {
        /// As it is now.
        solution: Solution,
    },
    /// A solution is no longer configured.
    SolutionRemoved {
        /// Which.
        solution: SolutionId,
    },
    /// The engine started: what was known only in memory is forgotten.
    EngineStarted,
    /// How everything is decided from now on.
    PolicySet {
        /// The settings.
        policy: Box<crate::decide::Policy>,
    },
    /// What follows in this turn is a plan. What it was decided by is on record before it: this holds what was
    /// measured since the last.
    Decided {
        /// Connections and measurements that differ from the last recorded ones.
        live: Vec<(InstanceId, crate::instance::Live)>,
    },
    /// A solution made no machine when asked, and is not asked again until then.
    SolutionAvoided {
        /// Which.
        solution: SolutionId,
        /// Until when.
        until: Timestamp,
        /// What it said.
        why: String,
    },
    /// How many machines a class of items is worth, and how long it waits for one; none: it is followed no more.
    CapacitySet {
        /// The class.
        class: crate::task::Profile,
        /// What is wanted.
        plan: Option<crate::decide::demand::CapacityPlan>,
    },
    /// Somebody said a value of a custom metric, for scaling elements that name it.
    MetricSaid {
        /// Which metric.
        metric: String,
        /// Of this solution's machines; none: of all whose element names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        solution: Option<SolutionId>,
        /// The value, in the metric's unit.
        value: crate::scaling::Milli,
        /// Who.
        by: UserName,
    },
    /// What was seen of late of the demand for a solution's machines, and what is projected.
    DemandSeen {
        /// The solution.
        solution: SolutionId,
        /// What was seen.
        seen: crate::decide::demand::DemandSeen,
    },
    /// How many machines the scaling element of a solution wants from now on.
    ElementWants {
        /// The solution.
        solution: SolutionId,
        /// How many.
        machines: u32,
        /// Why.
        why: String,
    },
    /// A shared solution is to keep so many instances warm: more are reserved, or some released [0063].
    WarmSet {
        /// Which.
        solution: SolutionId,
        /// How many from now on.
        warm: u32,
        /// Why.
        why: String,
    },
    /// A machine is to be made; the cloud hears its name after this is written.
    InstanceWanted {
        /// Its name.
        instance: InstanceId,
        /// Where.
        solution: SolutionId,
        /// What it will offer.
        facts: InstanceFacts,
        /// What for.
        why: String,
    },
    /// The cloud was asked to make it.
    InstanceRequested {
        /// Which.
        instance: InstanceId,
    },
    /// The cloud makes it.
    InstanceBooting {
        /// Which.
        instance: InstanceId,
        /// The cloud's name for it.
        cloud_id: String,
    },
    /// An agent said hello: its instance can take work.
    InstanceReady {
        /// Its name.
        instance: InstanceId,
        /// Its solution.
        solution: SolutionId,
        /// What it offers.
        facts: InstanceFacts,
        /// This start of the agent.
        boot: String,
    },
    /// Its cloud takes it away soon: it takes nothing new, and what ends with it was preempted.
    InstanceNoticed {
        /// Which.
        instance: InstanceId,
        /// What was said.
        why: String,
    },
    /// It takes nothing new.
    InstanceDraining {
        /// Which.
        instance: InstanceId,
        /// Why.
        why: String,
    },
    /// Nothing is on it: the cloud is asked to end it after this is written.
    InstanceEnding {
        /// Which.
        instance: InstanceId,
        /// Why.
        why: String,
    },
    /// A cloud has a machine that bears our engine's identifier and that the ledger does not own.
    OrphanFound {
        /// Where.
        solution: SolutionId,
        /// Our name on it.
        instance: InstanceId,
        /// The cloud's.
        cloud_id: String,
        /// It is on the do-not-terminate list: it is left alone.
        protected: bool,
    },
    /// It has been gone for so long that it is no longer listed.
    InstanceForgotten {
        /// Which.
        instance: InstanceId,
    },
    /// It is not there any more.
    InstanceGone {
        /// Which.
        instance: InstanceId,
        /// Why.
        why: String,
    },
    /// A session was accepted.
    SessionStarted {
        /// Its id.
        session: SessionId,
        /// What was asked for.
        spec: Arc<SessionSpec>,
    },
    /// The groups of a session's thread are deployed, or wait to be.
    Deployed {
        /// Which.
        session: SessionId,
        /// Where.
        deployment: Box<Deployment>,
        /// Why now.
        why: String,
    },
    /// It was asked to stop.
    SessionStopping {
        /// Which.
        session: SessionId,
        /// By whom.
        by: UserName,
    },
    /// It starts nothing new until it is resumed.
    SessionPaused {
        /// Which.
        session: SessionId,
        /// By whom.
        by: UserName,
    },
    /// It goes on.
    SessionResumed {
        /// Which.
        session: SessionId,
        /// By whom.
        by: UserName,
        /// The most that it may spend from now on, when another cap was given to it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<NanoUsd>,
    },
    /// A cap pauses a session: what it has left to do would exceed it.
    BudgetReached {
        /// Which session.
        session: SessionId,
        /// Which cap, and by what.
        over: Box<OverBudget>,
    },
    /// A cap is spent, or expected to be by what is open, as far as is to be said.
    BudgetWarned {
        /// Which cap.
        cap: CapKey,
        /// The cap then, and the share of it, percent.
        said: Warned,
        /// What is spent.
        spent: NanoUsd,
        /// What open attempts are expected to cost.
        open: NanoUsd,
    },
    /// Every item ended.
    SessionEnded {
        /// Which.
        session: SessionId,
        /// How.
        outcome: Outcome,
    },
    /// A session took an instance.
    InstanceHeld {
        /// Which.
        instance: InstanceId,
        /// By whom.
        session: SessionId,
    },
    /// A session gave an instance back.
    InstanceReleased {
        /// Which.
        instance: InstanceId,
        /// By whom.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// The items of a node that have no open attempt are cancelled.
    NodeCancelled {
        /// Which.
        node: NodeKey,
        /// Why.
        why: String,
    },
    /// Items of a node that have no open attempt are cancelled; those that have one by themselves.
    ItemsCancelled {
        /// Which node.
        node: NodeKey,
        /// First index.
        from: u32,
        /// One past the last.
        to: u32,
        /// By whom.
        by: UserName,
    },
    /// Items of a node that wait for their back-off wait no longer.
    ItemsDue {
        /// Which node.
        node: NodeKey,
        /// First index.
        from: u32,
        /// One past the last.
        to: u32,
        /// By whom.
        by: UserName,
    },
    /// The algorithm for CPU setting 0 was read, or read again.
    AlgorithmSet {
        /// Its class name.
        class: Arc<str>,
        /// Of its text and its configuration.
        digest: String,
    },
    /// The algorithm answered: its proposals, which are checked like any other placement.
    Proposed {
        /// Its class name.
        class: Arc<str>,
        /// Items it was asked about.
        items: Vec<ProposedPlace>,
        /// Machines it asks for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        machines: Vec<MachinesAsked>,
        /// Machines it gives back.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        give_back: Vec<GivenBack>,
    },
    /// The algorithm gave no answer that could be used: the default scheme places what it was asked about.
    AlgorithmFailed {
        /// Its class name.
        class: Arc<str>,
        /// Items it was asked about.
        items: Vec<ItemKey>,
        /// Which limit struck, or what was wrong.
        fault: Fault,
        /// It has failed so often in a row that it is not asked until then.
        rests_until: Option<Timestamp>,
    },
    /// An attempt was ordered.
    Assigned {
        /// The attempt as it begins.
        attempt: Attempt,
    },
    /// Its place has it.
    Sent {
        /// Which.
        attempt: AttemptKey,
    },
    /// Its process runs.
    Started {
        /// Which.
        attempt: AttemptKey,
    },
    /// Its cancel was ordered.
    Cancelling {
        /// Which.
        attempt: AttemptKey,
    },
    /// It is asked back, unless it has started.
    Recalling {
        /// Which.
        attempt: AttemptKey,
        /// What for.
        why: String,
    },
    /// It is asked to save its state and end, to go on elsewhere.
    Moving {
        /// Which.
        attempt: AttemptKey,
        /// Why.
        why: String,
    },
    /// It ended; the one accepted end.
    Ended {
        /// Which.
        attempt: AttemptKey,
        /// How.
        end: AttemptEnd,
        /// And its item.
        then: Then,
    },
    /// A person decided about an item that asked.
    Answered {
        /// Which attempt was lost.
        item: ItemKey,
        /// Retry or end.
        then: Then,
    },
}

impl Event {
    /// One word, for filtering.
    pub fn word(&self) -> &'static str {
        match self {
            Self::SolutionSet { .. } => "solution_set",
            Self::SolutionRemoved { .. } => "solution_removed",
            Self::EngineStarted => "engine_started",
            Self::PolicySet { .. } => "policy_set",
            Self::Decided { .. } => "decided",
            Self::SolutionAvoided { .. } => "solution_avoided",
            Self::CapacitySet { .. } => "capacity_set",
            Self::MetricSaid { .. } => "metric_said",
            Self::DemandSeen { .. } => "demand_seen",
            Self::ElementWants { .. } => "element_wants",
            Self::WarmSet { .. } => "warm_set",
            Self::InstanceWanted { .. } => "instance_wanted",
            Self::InstanceRequested { .. } => "instance_requested",
            Self::InstanceBooting { .. } => "instance_booting",
            Self::InstanceReady { .. } => "instance_ready",
            Self::InstanceNoticed { .. } => "instance_noticed",
            Self::InstanceDraining { .. } => "instance_draining",
            Self::InstanceEnding { .. } => "instance_ending",
            Self::InstanceGone { .. } => "instance_gone",
            Self::InstanceForgotten { .. } => "instance_forgotten",
            Self::OrphanFound { .. } => "orphan_found",
            Self::SessionStarted { .. } => "session_started",
            Self::Deployed { .. } => "deployed",
            Self::SessionStopping { .. } => "session_stopping",
            Self::SessionPaused { .. } => "session_paused",
            Self::SessionResumed { .. } => "session_resumed",
            Self::BudgetReached { .. } => "budget_reached",
            Self::BudgetWarned { .. } => "budget_warned",
            Self::SessionEnded { .. } => "session_ended",
            Self::InstanceHeld { .. } => "instance_held",
            Self::InstanceReleased { .. } => "instance_released",
            Self::NodeCancelled { .. } => "node_cancelled",
            Self::ItemsCancelled { .. } => "items_cancelled",
            Self::ItemsDue { .. } => "items_due",
            Self::AlgorithmSet { .. } => "algorithm_set",
            Self::Proposed { .. } => "proposed",
            Self::AlgorithmFailed { .. } => "algorithm_failed",
            Self::Assigned { .. } => "assigned",
            Self::Sent { .. } => "sent",
            Self::Started { .. } => "started",
            Self::Cancelling { .. } => "cancelling",
            Self::Recalling { .. } => "recalling",
            Self::Moving { .. } => "moving",
            Self::Ended { .. } => "ended",
            Self::Answered { .. } => "answered",
        }
    }

    /// The session it is about, when it is about one.
    pub fn session(&self) -> Option<SessionId> {
        Some(match self {
            Self::SessionStarted { session, .. }
            | Self::Deployed { session, .. }
            | Self::SessionStopping { session, .. }
            | Self::SessionPaused { session, .. }
            | Self::SessionResumed { session, .. }
            | Self::BudgetReached { session, .. }
            | Self::SessionEnded { session, .. }
            | Self::InstanceHeld { session, .. }
            | Self::InstanceReleased { session, .. } => *session,
            Self::NodeCancelled { node, .. } | Self::ItemsCancelled { node, .. } | Self::ItemsDue { node, .. } => {
                node.session
            }
            Self::Assigned { attempt } => attempt.key.item.session(),
            Self::Sent { attempt }
            | Self::Started { attempt }
            | Self::Cancelling { attempt }
            | Self::Recalling { attempt, .. }
            | Self::Moving { attempt, .. }
            | Self::Ended { attempt, .. } => attempt.item.session(),
            Self::Answered { item, .. } => item.session(),
            Self::BudgetWarned { cap, .. } => return cap.session(),
            Self::SolutionSet { .. }
            | Self::SolutionRemoved { .. }
            | Self::EngineStarted
            | Self::PolicySet { .. }
            | Self::Decided { .. }
            | Self::SolutionAvoided { .. }
            | Self::CapacitySet { .. }
            | Self::MetricSaid { .. }
            | Self::DemandSeen { .. }
            | Self::ElementWants { .. }
            | Self::WarmSet { .. }
            | Self::InstanceWanted { .. }
            | Self::InstanceRequested { .. }
            | Self::InstanceBooting { .. }
            | Self::InstanceReady { .. }
            | Self::InstanceNoticed { .. }
            | Self::InstanceDraining { .. }
            | Self::InstanceEnding { .. }
            | Self::InstanceGone { .. }
            | Self::InstanceForgotten { .. }
            | Self::OrphanFound { .. }
            | Self::AlgorithmSet { .. }
            | Self::Proposed { .. }
            | Self::AlgorithmFailed { .. } => return None,
        })
    }
}
