//! An instance: one VM, container or plain server whose agent runs attempts.
//!
//! ```text
//! wanted -> requested -> booting -> ready -> draining -> ending -> gone
//!                                     ^                             |
//!                                     +---- hello (own server) -----+
//! ```
//! Own servers enter at `ready` when their agent joins and says hello, and go from `draining` to `gone`
//! when it leaves. Machines (what a cloud makes for us) begin at `wanted`; docs/decisions/0008 has their
//! whole life. Failure paths: a lease that ends without a heartbeat takes an own server to `gone` and a
//! machine to `ending`, and every attempt there to `lost`; a hello with another boot id does the same
//! for the attempts of the earlier boot, since the agent's children end with it. A machine that never
//! says hello is ended; a hello of one that is ending or gone changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, SessionId, SolutionId};
use crate::quantity::Timestamp;

/// Where in its life an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Decided, and its name is in the ledger.
    Wanted,
    /// The cloud was asked.
    Requested,
    /// The cloud makes it; no agent yet.
    Booting,
    /// Takes attempts.
    Ready,
    /// Takes nothing new; what runs there may finish.
    Draining,
    /// Being ended.
    Ending,
    /// Not there.
    Gone,
}

/// What an agent says of its instance when it connects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceFacts {
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mb: u32,
    /// Free scratch storage, MiB.
    pub storage_mb: u32,
    /// Operating system as Rust names it.
    pub os: Arc<str>,
    /// Architecture as Rust names it.
    pub arch: Arc<str>,
    /// Attempts at a time.
    pub slots: u32,
    /// The cloud's instance type.
    #[serde(default)]
    pub instance_type: Option<Arc<str>>,
    /// Its role [0028].
    #[serde(default)]
    pub role: Option<Arc<str>>,
    /// The VM image it runs.
    #[serde(default)]
    pub image: Option<Arc<str>>,
    /// Counted resources by name.
    #[serde(default)]
    pub resources: BTreeMap<Arc<str>, u64>,
    /// A container engine answers on its socket.
    #[serde(default)]
    pub container: bool,
}

/// An instance as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name.
    pub id: InstanceId,
    /// Its solution.
    pub solution: SolutionId,
    /// Where in its life.
    pub state: InstanceState,
    /// What it offers.
    pub facts: InstanceFacts,
    /// Changes with every start of the agent.
    pub boot: String,
    /// The turn of the last change of state: an older order about it is refused.
    pub generation: u64,
    /// Sessions that hold it; free when empty [0064].
    pub held_by: std::collections::BTreeSet<SessionId>,
    /// When its state, or whether it is free, last changed.
    #[serde(default)]
    pub since: Timestamp,
    /// Its cloud takes it away, and what it said of that.
    #[serde(default)]
    pub notice: Option<String>,
    /// What the cloud knows of it, when we had it made.
    #[serde(default)]
    pub machine: Option<Machine>,
}

/// An instance that a cloud makes for us and ends for us.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The cloud's own name for it, once it is known. Ours is what it is asked by.
    pub cloud_id: Option<String>,
}

impl Instance {
    /// Held by no session, and able to take work: a free agent.
    pub fn is_free(&self) -> bool {
        self.state == InstanceState::Ready && self.held_by.is_empty()
    }

    /// Was it asked for, and has no agent said hello from it yet?
    pub fn is_coming(&self) -> bool {
        self.state < InstanceState::Ready
    }
}

/// What a machine has counted since it booted, bytes. Not part of [`Live`]: it never stands still, and placing does not
/// look at it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Received by its network interfaces, the one to itself left out.
    pub network_in: u64,
    /// Sent by them.
    pub network_out: u64,
    /// Read from its disks.
    pub disk_read: u64,
    /// Written to them.
    pub disk_write: u64,
}

impl Traffic {
    /// What was added since, by the name of the metric. A machine that booted meanwhile counts from nothing.
    pub fn since(&self, before: &Self) -> [(&'static str, u64); 4] {
        let added = |now: u64, before: u64| if now < before { now } else { now - before };
        [
            ("network_in", added(self.network_in, before.network_in)),
            ("network_out", added(self.network_out, before.network_out)),
            ("disk_read", added(self.disk_read, before.disk_read)),
            ("disk_write", added(self.disk_write, before.disk_write)),
        ]
    }
}

/// What is known of an instance only while its agent is connected: never in the ledger, unknown
/// after a restart. Quantised to whole percents, so that noise does not change plans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The control connection is up.
    pub connected: bool,
    /// CPU in use, percent of the whole instance.
    pub cpu_percent: u32,
    /// Memory in use, MiB.
    pub memory_mb: u32,
}
