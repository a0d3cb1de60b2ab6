//! A solution: one account or place in one cloud, with the facts and prices that decide [0049].

use serde::{Deserialize, Serialize};

use crate::id::SolutionId;
use crate::instance::InstanceFacts;
use crate::quantity::NanoUsd;

/// One solution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solution {
    /// Its name.
    pub id: SolutionId,
    /// Dedicated or shared, with its facts.
    pub kind: SolutionKind,
}

/// The two kinds of [0024] and [0025].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolutionKind {
    /// Instances under our control, each with our agent.
    Dedicated(Dedicated),
    /// A gateway to capacity that its owner manages.
    Shared(Shared),
}

/// Facts of a dedicated solution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dedicated {
    /// Price of one instance, nano-USD per hour.
    pub price_per_hour: NanoUsd,
    /// Most attempts on one instance at a time; the agent's own number of slots when absent.
    pub slots_max: Option<u32>,
    /// Longest run time when a task states none, ms.
    pub timeout_ms: u64,
    /// The machines that may be made there; none when only people add instances.
    #[serde(default)]
    pub machines: Option<Machines>,
}

/// Machines of a solution: how many, and what each offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {
    /// Kept even when nothing waits.
    pub min: u32,
    /// Most at a time, those that are being ended included.
    pub max: u32,
    /// One that no session has held for so long is ended, ms.
    pub idle_ms: u64,
    /// One whose agent has not said hello by then is ended, ms.
    pub boot_ms: u64,
    /// After the cloud made none, it is not asked for another for so long, ms.
    pub avoid_ms: u64,
    /// Interval at which what the cloud has is compared with the ledger, ms.
    pub list_ms: u64,
    /// What its agent is expected to offer; what it says when it comes holds from then on.
    pub facts: InstanceFacts,
}

/// Facts of a shared solution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Its gateway.
    pub url: String,
    /// The cloud ends an invocation after this, ms.
    pub timeout_ms: u64,
    /// Most invocations at a time.
    pub concurrency: u32,
    /// Largest memory of one invocation, MiB.
    pub memory_mb_max: u32,
    /// What it costs.
    pub price: SharedPrice,
    /// Start of a cold instance, 99th percentile, ms: how early a waiting item must overflow.
    pub cold_start_ms: u64,
    /// Instances kept warm.
    pub min_warm: u32,
    /// Operating system of the instances.
    pub os: String,
    /// Architecture of the instances.
    pub arch: String,
}

/// A serverless price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPrice {
    /// Per request.
    pub per_request: NanoUsd,
    /// Per GB-second.
    pub per_gb_s: NanoUsd,
    /// Billed time is rounded up to this, ms.
    pub granularity_ms: u64,
    /// Least billed time, ms.
    pub min_billed_ms: u64,
}

impl Solution {
    /// The shared facts, when it is one.
    pub fn shared(&self) -> Option<&Shared> {
        match &self.kind {
            SolutionKind::Shared(shared) => Some(shared),
            SolutionKind::Dedicated(_) => None,
        }
    }
    /// The dedicated facts, when it is one.
    pub fn dedicated(&self) -> Option<&Dedicated> {
        match &self.kind {
            SolutionKind::Dedicated(dedicated) => Some(dedicated),
            SolutionKind::Shared(_) => None,
        }
    }
}
