//! A scenario: a trace, what there is to run it on, and what wait is allowed. Read from `scenarios.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use skein_domain::NanoUsd;

use crate::quantiles::{Quantiles, us, whole};
use crate::trace::{Item, Trace, read};

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file of scenarios.
    #[error("{}: {what}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// A trace.
    #[error("trace {}: {what}", path.display())]
    Trace {
        /// Where.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// A name that is in no list of the file.
    #[error("there is no {what} '{name}' in the scenarios file: it has {known}")]
    Unknown {
        /// What was named.
        what: &'static str,
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// A transform that is not known.
    #[error("transform '{0}' is not known: write 'none' or 'fold:SECONDS'")]
    Transform(String),
}

/// The file of scenarios, as it is written.
#[derive(Debug, Clone, Deserialize)]
pub struct Scenarios {
    vm_types: BTreeMap<String, VmType>,
    serverless: BTreeMap<String, Serverless>,
    #[serde(rename = "scenarios")]
    sources: BTreeMap<String, Source>,
}

#[derive(Debug, Clone, Deserialize)]
struct VmType {
    slots: u32,
    usd_per_hour: f64,
    min_billed_s: f64,
    boot_quantiles: Vec<(f64, f64)>,
}

#[derive(Debug, Clone, Deserialize)]
struct Serverless {
    usd_per_s: f64,
    usd_per_request: f64,
    granularity_s: f64,
    min_billed_s: f64,
    timeout_s: f64,
    keepalive_s: f64,
    warm_s: f64,
    bill_cold: bool,
    max_concurrency: u32,
    cold_quantiles: Vec<(f64, f64)>,
}

/// One scenario, as it is written: the trace and how it is read, and names of offers. `vm` and `serverless`
/// are what the reference rules use; the engine's policy may also use what `vms` and `serverlesses` name.
#[derive(Debug, Clone, Deserialize)]
pub struct Source {
    pub(crate) trace: String,
    /// The column of lengths; of a trace in the standard workload format, `run_s` when it is not said.
    #[serde(default)]
    pub(crate) dur: String,
    #[serde(default = "unchanged")]
    pub(crate) dur_affine: (f64, f64),
    #[serde(default = "one")]
    pub(crate) min_dur: f64,
    #[serde(default)]
    transform: String,
    #[serde(default)]
    pub(crate) filter: BTreeMap<String, String>,
    vm: String,
    #[serde(default)]
    vms: Vec<String>,
    serverless: String,
    #[serde(default)]
    serverlesses: Vec<String>,
    slo_wait_s: f64,
    loose_slo_s: f64,
}

fn unchanged() -> (f64, f64) {
    (0.0, 1.0)
}

fn one() -> f64 {
    1.0
}

impl Source {
    pub(crate) fn fold_s(&self) -> Result<Option<f64>, ScenarioError> {
        match self.transform.split_once(':') {
            None if matches!(self.transform.as_str(), "" | "none") => Ok(None),
            Some(("fold", seconds)) if seconds.parse::<f64>().is_ok_and(|s| s > 0.0) => Ok(seconds.parse().ok()),
            _ => Err(ScenarioError::Transform(self.transform.clone())),
        }
    }
}

/// A machine that can be bought.
#[derive(Debug, Clone)]
pub struct MachineOffer {
    /// Its name.
    pub name: String,
    /// Items it takes at a time.
    pub slots: u32,
    /// Its price.
    pub price_per_hour: NanoUsd,
    /// Least time paid, us.
    pub min_billed_us: i64,
    /// From launch to its agent's hello.
    pub boot: Quantiles,
    /// So many are there and paid from the start to the end, whatever a rule wants.
    pub least: u32,
    /// Most of them at a time.
    pub most: u32,
}

/// A shared solution that can be called.
#[derive(Debug, Clone)]
pub struct SharedOffer {
    /// Its name.
    pub name: String,
    /// Price of one invocation while it runs.
    pub price_per_hour: NanoUsd,
    /// And for every call.
    pub per_request: NanoUsd,
    /// Billed time is rounded up to this, us.
    pub granularity_us: i64,
    /// Least billed time, us.
    pub min_billed_us: i64,
    /// Longest an item may last there, us.
    pub timeout_us: i64,
    /// How long an idle instance stays warm, us; 0 never.
    pub keepalive_us: i64,
    /// Start of a warm instance, us.
    pub warm_us: i64,
    /// A cold start is billed.
    pub bills_cold: bool,
    /// Most invocations at a time.
    pub concurrency: u32,
    /// Start of a cold instance.
    pub cold: Quantiles,
}

/// All that a simulation needs.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What arrives, in order.
    pub items: Vec<Item>,
    /// Lines of its trace that are no items.
    pub left_out: u64,
    /// Machines: the first is what the reference rules buy. None: everything goes to a shared solution.
    pub machines: Vec<MachineOffer>,
    /// Shared solutions: the first is what the reference rules call. None: everything goes to machines.
    pub shared: Vec<SharedOffer>,
    /// Longest wait that is in time, us.
    pub allowed_wait_us: i64,
    /// The same of each item, where they differ; else empty.
    pub allowed_waits_us: Vec<i64>,
    /// Longest wait that is tolerable, us.
    pub loose_wait_us: i64,
}

impl Scenario {
    /// Does a shared solution start 99 of 100 items within the wait that is allowed?
    pub fn starts_in_time(&self, offer: &SharedOffer) -> bool {
        whole(offer.cold.at(0.99)) <= self.allowed_wait_us
    }

    /// Longest wait of an item that is in time, us.
    pub(crate) fn allowed_us(&self, item: usize) -> i64 {
        self.allowed_waits_us.get(item).copied().unwrap_or(self.allowed_wait_us)
    }
}

impl Scenarios {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let failed = |what: String| ScenarioError::File { path: path.to_owned(), what };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    /// Names of all scenarios, and the trace file of each.
    pub fn list(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sources.iter().map(|(name, source)| (name.as_str(), source.trace.as_str()))
    }

    /// One scenario with its trace, from a folder.
    pub fn load(&self, name: &str, folder: &Path) -> Result<Scenario, ScenarioError> {
        let source = named(&self.sources, "scenario", name)?;
        self.with_items(name, source, read(folder, source)?)
    }

    fn with_items(&self, name: &str, source: &Source, trace: Trace) -> Result<Scenario, ScenarioError> {
        let machines = [&source.vm].into_iter().chain(source.vms.iter().filter(|vm| **vm != source.vm));
        let shared = [&source.serverless].into_iter();
        let shared = shared.chain(source.serverlesses.iter().filter(|s| **s != source.serverless));
        Ok(Scenario {
            name: name.to_owned(),
            items: trace.items,
            left_out: trace.left_out,
            machines: machines.map(|vm| self.machine(vm)).collect::<Result<_, _>>()?,
            shared: shared.map(|offer| self.shared(offer)).collect::<Result<_, _>>()?,
            allowed_wait_us: us(source.slo_wait_s),
            allowed_waits_us: Vec::new(),
            loose_wait_us: us(source.loose_slo_s),
        })
    }

    /// Names of all machines of the file.
    pub fn machine_names(&self) -> impl Iterator<Item = &str> {
        self.vm_types.keys().map(String::as_str)
    }

    /// A machine by its name.
    pub fn machine(&self, name: &str) -> Result<MachineOffer, ScenarioError> {
        let vm = named(&self.vm_types, "machine", name)?;
        Ok(MachineOffer {
            name: name.to_owned(),
            slots: vm.slots.max(1),
            price_per_hour: nano(vm.usd_per_hour),
            min_billed_us: us(vm.min_billed_s),
            boot: Quantiles::new(&vm.boot_quantiles),
            least: 0,
            most: u32::MAX,
        })
    }

    /// Every shared solution of the file.
    pub fn all_shared(&self) -> Result<Vec<SharedOffer>, ScenarioError> {
        self.serverless.keys().map(|name| self.shared(name)).collect()
    }

    /// A shared solution by its name.
    pub fn shared(&self, name: &str) -> Result<SharedOffer, ScenarioError> {
        let offer = named(&self.serverless, "serverless offer", name)?;
        Ok(SharedOffer {
            name: name.to_owned(),
            // A price per second may have half a nano-dollar; one per hour has none.
            price_per_hour: nano(offer.usd_per_s * 3600.0),
            per_request: nano(offer.usd_per_request),
            granularity_us: us(offer.granularity_s).max(1),
            min_billed_us: us(offer.min_billed_s),
            timeout_us: us(offer.timeout_s),
            keepalive_us: us(offer.keepalive_s),
            warm_us: us(offer.warm_s),
            bills_cold: offer.bill_cold,
            concurrency: offer.max_concurrency,
            cold: Quantiles::new(&offer.cold_quantiles),
        })
    }
}

fn nano(usd: f64) -> NanoUsd {
    NanoUsd(whole(usd * 1e9))
}

fn named<'a, T>(all: &'a BTreeMap<String, T>, what: &'static str, name: &str) -> Result<&'a T, ScenarioError> {
    all.get(name).ok_or_else(|| ScenarioError::Unknown {
        what,
        name: name.to_owned(),
        known: all.keys().cloned().collect::<Vec<_>>().join(", "),
    })
}
