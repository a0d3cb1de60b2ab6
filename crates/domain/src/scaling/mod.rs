//! Scaling elements [0062]: custom metrics, roles, launch configuration, groups, alarms and policies, written once.
//!
//! ```text
//!   file (TOML, JSON) --> Element --evaluate--> Scale          own servers: the engine carries it out itself
//!                            |
//!                            +-----port-------> a cloud's own documents, and what differs there (crate `cloud`)
//!                            <-----adopt-------
//! ```
//! An element names no cloud: images by name and tag, permissions by what they allow, times in seconds, values in the
//! metric's own unit. What a cloud cannot say is told when the element is ported, not when it is written.

mod check;
mod evaluate;
mod milli;
mod policy;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use check::{BadElement, ENTRIES_MAX, MACHINES_MAX, MINUTES_MAX, SECONDS_MAX, USER_DATA_BYTES_MAX, is_measured};
pub use evaluate::{Metrics, Wanted, evaluate, kept, load, thresholds, wanted};
pub use milli::Milli;
pub use policy::{Band, By, Day, Policy, Weekly};

/// Everything about how one group of machines comes and goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Element {
    /// What it is called, here and in every cloud: 1 to 32 lower-case letters, digits and '-', a letter first.
    pub name: String,
    /// What is measured, by name. `cpu`, `memory`, `network_in`, `network_out`, `disk_read` and `disk_write` are
    /// measured by clouds and agents themselves; every other name is a custom metric. On own machines `slots` (percent in
    /// use) and `queue` (items that wait for one) are measured too.
    #[serde(default)]
    pub metrics: BTreeMap<String, Metric>,
    /// What machines of the group may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What a new machine is made of.
    pub launch: Launch,
    /// How many machines, and where.
    pub group: Group,
    /// When a metric is out of bounds, by name.
    #[serde(default)]
    pub alarms: BTreeMap<String, Alarm>,
    /// What is done about it, by name.
    #[serde(default)]
    pub policies: BTreeMap<String, Policy>,
}

/// A series of values: one for each period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Unit of its values, and of every threshold and target on it.
    pub unit: Unit,
    /// How the machines' values of one period become one.
    #[serde(default)]
    pub statistic: Statistic,
    /// Length of a period, seconds.
    #[serde(default = "minute")]
    pub period_s: u32,
}

fn minute() -> u32 {
    60
}

/// Unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 0 to 100.
    Percent,
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Seconds.
    Seconds,
    /// Thousandths of a second.
    Milliseconds,
}

/// How values of one period become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Their mean.
    #[default]
    Average,
    /// The smallest.
    Minimum,
    /// The largest.
    Maximum,
    /// Their sum.
    Sum,
}

/// Permissions of the group's machines, for requests to their cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// What it is called.
    pub name: String,
    /// What it allows.
    pub may: BTreeSet<Capability>,
}

/// One thing that a role allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Start machines.
    MakeMachines,
    /// End machines.
    EndMachines,
    /// See machines and groups.
    ListMachines,
    /// Read images.
    ReadImages,
    /// Read measured values.
    ReadMetrics,
    /// Write values of custom metrics.
    WriteMetrics,
    /// Write logs.
    WriteLogs,
    /// Read objects of the account's buckets.
    ReadObjects,
    /// Write objects into the account's buckets.
    WriteObjects,
    /// Read secrets.
    ReadSecrets,
}

/// What a new machine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Its image.
    pub image: ImageRef,
    /// The cloud's kind of machine, where one is asked for by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// What it needs, where the kind is to be chosen. With neither, any kind will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<MachineNeeds>,
    /// Given to the machine at its first start: plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Networks that it is in, the first one first.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Names of keys for people who log in.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Its disks; the first one starts it.
    #[serde(default)]
    pub disks: Vec<Disk>,
}

/// An image of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// Its name.
    pub name: String,
    /// Which one of that name.
    #[serde(default = "latest")]
    pub tag: String,
}

fn latest() -> String {
    "latest".to_owned()
}

/// What a machine needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineNeeds {
    /// Fewest virtual CPUs.
    pub cpus: u32,
    /// Least memory, MiB.
    pub memory_mib: u32,
}

/// A disk of a new machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Size, GiB.
    pub size_gib: u32,
    /// How fast.
    #[serde(default)]
    pub kind: DiskKind,
}

/// How fast a disk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskKind {
    /// Cheapest.
    Slow,
    /// What the cloud takes for general purposes.
    #[default]
    Standard,
    /// Provisioned or premium.
    Fast,
}

/// How many machines, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Fewest machines.
    pub min: u32,
    /// Most machines.
    pub max: u32,
    /// How many at the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<u32>,
    /// Zones of the cloud, or solutions of ours, that it is spread over.
    #[serde(default)]
    pub zones: Vec<String>,
    /// A new machine's health does not count for so long, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_grace_s: Option<u32>,
    /// After a change, no further one for so long, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_s: Option<u32>,
    /// A new machine's values do not count for so long, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_s: Option<u32>,
    /// Machines of the group are not ended by scaling.
    #[serde(default)]
    pub protect: bool,
    /// Machines that nothing ends, by name.
    #[serde(default)]
    pub do_not_terminate: BTreeSet<String>,
}

/// A metric out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// Which metric.
    pub metric: String,
    /// On which side of the threshold.
    pub comparison: Comparison,
    /// The bound, in the metric's unit.
    pub threshold: Milli,
    /// For so many periods in a row.
    #[serde(default = "one")]
    pub periods: u32,
}

fn one() -> u32 {
    1
}

/// On which side of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// Greater.
    Above,
    /// Greater or equal.
    AtOrAbove,
    /// Less.
    Below,
    /// Less or equal.
    AtOrBelow,
}

impl Comparison {
    /// Is the value out of bounds?
    pub fn holds(self, value: Milli, threshold: Milli) -> bool {
        match self {
            Self::Above => value > threshold,
            Self::AtOrAbove => value >= threshold,
            Self::Below => value < threshold,
            Self::AtOrBelow => value <= threshold,
        }
    }

    /// Greater, or greater or equal.
    pub fn is_upper(self) -> bool {
        matches!(self, Self::Above | Self::AtOrAbove)
    }
}
