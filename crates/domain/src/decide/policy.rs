//! What a person can set about deciding. Comes from the configuration, re-read live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::budget::Budgets;
use super::capacity::Settings;
use super::goals::Goals;
use super::patience::LATE_BUDGET_PPM;
use crate::id::{InstanceId, UserName};
use crate::site::Sites;
use crate::task::Balance;

/// Settings of `decide`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Balancing when a task asks for none.
    pub balance: Balance,
    /// What places items with CPU setting 0.
    pub algorithm: Algorithm,
    /// Most orders of one pass.
    pub plan_orders_max: u32,
    /// How many machines are had, and how long items wait for one.
    pub capacity: CapacityPolicy,
    /// What sessions are to reach that leave their running mode to the engine.
    pub goals: Goals,
    /// Run time assumed for prices when nothing is known, ms.
    pub assumed_run_ms: u64,
    /// Most attempts on one instance, over what agents offer.
    pub tasks_per_instance_max: Option<u32>,
    /// No new attempt on an instance whose CPU use is at or above this, percent [0072].
    pub cpu_ceiling_percent: Option<u32>,
    /// Most instances one session holds [0072].
    pub instances_per_session_max: Option<u32>,
    /// How much work may wait at an agent for each slot, ms of typical run time; 0 sends nothing ahead.
    pub credit_ms: u32,
    /// What waits at an agent for longer than this, while another place has room, is called back, ms.
    pub rebalance_after_ms: u64,
    /// An item that needs much at once (an instance alone, several slots, counted resources, a `together` set)
    /// and comes behind a stream of others waits this long, ms; then its room is reserved before they go on.
    pub exclusive_wait_ms: u64,
    /// A user's share of what there is, against 100 for those not named.
    pub weights: BTreeMap<UserName, u32>,
    /// Most items of one user that have not ended.
    pub user_items_max: Option<u64>,
    /// Most items of all users that have not ended.
    pub items_max: Option<u64>,
    /// What is gone is no longer listed after this, ms.
    pub forget_gone_ms: u64,
    /// Instances that are never ended, whatever their load.
    pub do_not_terminate: BTreeSet<InstanceId>,
    /// Where servers stand, and which instances are on them.
    pub sites: Arc<Sites>,
    /// The most that may be spent.
    #[serde(default)]
    pub budgets: Budgets,
}

/// The tasking class of [0052] for CPU setting 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// One of ours.
    Builtin(Balance),
    /// A user's: its proposals are events in the snapshot, checked like any other placement.
    Custom {
        /// Its class name.
        class: Arc<str>,
    },
}

/// What decides between machines and shared solutions where both could take the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityRule {
    /// What would have cost least of late ([`super::capacity`]).
    #[default]
    LeastCost,
    /// The plain comparison of prices [0065]: machines where a slot costs less than an invocation, none where it
    /// costs more, whatever share of them is used.
    Price,
}

/// Settings of capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityPolicy {
    /// What decides.
    pub rule: CapacityRule,
    /// Of the family of rules.
    pub family: Settings,
    /// Share of items that may start later than they are allowed to, ppm.
    pub late_budget_ppm: u32,
}

impl Default for CapacityPolicy {
    fn default() -> Self {
        Self { rule: CapacityRule::default(), family: Settings::default(), late_budget_ppm: LATE_BUDGET_PPM }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            balance: Balance::FewestTasks,
            algorithm: Algorithm::Builtin(Balance::FewestTasks),
            plan_orders_max: 256,
            capacity: CapacityPolicy::default(),
            goals: Goals::default(),
            assumed_run_ms: 60_000,
            tasks_per_instance_max: None,
            cpu_ceiling_percent: None,
            instances_per_session_max: None,
            credit_ms: 50,
            rebalance_after_ms: 200,
            exclusive_wait_ms: 5_000,
            weights: BTreeMap::new(),
            user_items_max: None,
            items_max: None,
            forget_gone_ms: 24 * 3_600_000,
            do_not_terminate: BTreeSet::new(),
            sites: Arc::default(),
            budgets: Budgets::default(),
        }
    }
}
