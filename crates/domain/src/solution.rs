//! A solution: one account or place in one cloud, with the facts and prices that decide [0049].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decide::threshold::Thresholds;
use crate::id::SolutionId;
use crate::instance::InstanceFacts;
use crate::quantity::NanoUsd;
use crate::scaling::Element;

/// One solution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solution {
    /// Its name.
    pub id: SolutionId,
    /// Dedicated or shared, with its facts.
    pub kind: SolutionKind,
    /// Paid there each month in any case: until so much was used, using it costs nothing more. 0: nothing is.
    #[serde(default)]
    pub minimum_purchase: NanoUsd,
    /// What a GiB that leaves it costs.
    #[serde(default)]
    pub per_gb_out: NanoUsd,
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
    /// Typical time from the wish to its agent's hello, ms, until some were measured.
    #[serde(default = "minute_ms")]
    pub typical_boot_ms: u64,
    /// Least time that is paid for one, ms.
    #[serde(default = "minute_ms")]
    pub min_billed_ms: u64,
    /// Most logical CPUs of all together: clouds count their quotas so.
    #[serde(default)]
    pub cpus_max: Option<u32>,
    /// Those that no session holds, kept ready for the next one.
    #[serde(default)]
    pub free: FreeAgents,
    /// People say when more and fewer are wanted; none: the engine decides by what waits and what it is worth.
    #[serde(default)]
    pub thresholds: Option<Thresholds>,
    /// A scaling element says when more and fewer are wanted.
    #[serde(default)]
    pub element: Option<Arc<Element>>,
    /// What its agent is expected to offer; what it says when it comes holds from then on.
    pub facts: InstanceFacts,
    /// Other sizes that may be made instead; each names its instance type.
    #[serde(default)]
    pub sizes: Vec<MachineSize>,
}

/// A size of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSize {
    /// Price of one, nano-USD per hour.
    pub price_per_hour: NanoUsd,
    /// What it offers.
    pub facts: InstanceFacts,
}

impl Dedicated {
    /// Every size of machine that may be made, the solution's own first, each with its price per hour.
    pub fn sizes(&self) -> impl Iterator<Item = (NanoUsd, &InstanceFacts)> {
        let own = self.machines.as_ref().map(|m| (self.price_per_hour, &m.facts));
        let others = self.machines.iter().flat_map(|m| &m.sizes);
        own.into_iter().chain(others.map(|size| (size.price_per_hour, &size.facts)))
    }

    /// Price of an instance that offers this, nano-USD per hour: that of the size of its type.
    pub fn price_of(&self, facts: &InstanceFacts) -> NanoUsd {
        let sizes = self.machines.iter().flat_map(|m| &m.sizes);
        let mut alike = sizes.filter(|size| size.facts.instance_type == facts.instance_type);
        alike.next().map_or(self.price_per_hour, |size| size.price_per_hour)
    }
}

/// Machines that no session holds [0064]: how many are kept ready. Each wish is met; the most that any of them asks
/// for is what is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FreeAgents {
    /// At least so many.
    pub min: u32,
    /// At most so many: beyond it they go without waiting for their idle time.
    pub max: Option<u32>,
    /// With so many logical CPUs together, at least.
    pub min_cpus: u32,
    /// With so much memory together, at least, MiB.
    pub min_memory_mb: u64,
    /// With slots for so many standard deviations of the demand seen of late, thousandths.
    pub deviations_milli: u32,
    /// With slots for what is projected beyond what is in use.
    pub projected: bool,
}

impl FreeAgents {
    /// Fewest machines to be kept free, each with `facts` and `slots`, where demand varies by `deviation_slots`
    /// and is projected to exceed what is in use by `ahead_slots`. Never over `max`.
    pub fn least(&self, facts: &InstanceFacts, slots: u32, deviation_slots: u32, ahead_slots: u32) -> u32 {
        let slots = slots.max(1);
        let by_memory = self.min_memory_mb.div_ceil(u64::from(facts.memory_mb.max(1)));
        let deviations = u64::from(deviation_slots) * u64::from(self.deviations_milli);
        let by_deviation = deviations.div_ceil(1_000 * u64::from(slots));
        let whole = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let ahead = if self.projected { ahead_slots.div_ceil(slots) } else { 0 };
        let wishes =
            [self.min, self.min_cpus.div_ceil(facts.cpus.max(1)), whole(by_memory), whole(by_deviation), ahead];
        wishes.into_iter().max().unwrap_or(0).min(self.max.unwrap_or(u32::MAX))
    }

    /// Is anything asked for that depends on the demand seen?
    pub fn looks_at_demand(&self) -> bool {
        self.deviations_milli > 0 || self.projected
    }
}

fn minute_ms() -> u64 {
    60_000
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
    /// An instance with nothing to do stays warm for so long, ms; 0 never.
    #[serde(default = "Shared::keepalive_ms")]
    pub keepalive_ms: u64,
    /// Instances kept warm.
    pub min_warm: u32,
    /// Most instances that are reserved for work that is about to come.
    #[serde(default)]
    pub warm_max: u32,
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
    /// The start of a cold instance is billed.
    #[serde(default)]
    pub bills_cold: bool,
}

impl Shared {
    /// Seven minutes: what clouds keep a function's instance for was seen to be 5 to 10 (Wang et al., 2018).
    pub const fn keepalive_ms() -> u64 {
        420_000
    }
}

impl Solution {
    /// The shared facts, when it is one.
    pub fn shared(&self) -> Option<&Shared> {
        match &self.kind {
            SolutionKind::Shared(shared) => Some(shared),
            SolutionKind::Dedicated(_) => None,
        }
    }
    /// The machines that may be made there.
    pub fn machines(&self) -> Option<&Machines> {
        self.dedicated()?.machines.as_ref()
    }
    /// The dedicated facts, when it is one.
    pub fn dedicated(&self) -> Option<&Dedicated> {
        match &self.kind {
            SolutionKind::Dedicated(dedicated) => Some(dedicated),
            SolutionKind::Shared(_) => None,
        }
    }
}
