//! Dry runs: what a session would be in each mode, and where its groups would be deployed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a session would be in one running mode, or in one solution by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeView {
    /// `auto`, `hybrid`, `dedicated` or `serverless`.
    pub mode: String,
    /// The only solution, when it is one by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solution: Option<String>,
    /// What its items cost, nano-USD.
    pub items_nano_usd: i64,
    /// What machines made for it cost beside that (boots, empty slots), nano-USD.
    pub machines_nano_usd: i64,
    /// What instances that are there cost for that long, whatever they do, nano-USD.
    pub fixed_nano_usd: i64,
    /// Until its last item ends, ms.
    pub total_ms: u64,
    /// Wait of an item in the mean, ms.
    pub wait_mean_ms: u64,
    /// The longest wait of an item, ms.
    pub wait_max_ms: u64,
    /// Machines that would be made.
    pub machines: u32,
    /// Items on instances, and in shared solutions.
    pub on_instances: u64,
    /// See `on_instances`.
    pub in_gateways: u64,
    /// Time of slots on instances, ms.
    pub instance_ms: u64,
    /// Time of invocations, ms.
    pub gateway_ms: u64,
    /// Why it does not do, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miss: Option<String>,
}

/// A deployment plan: members of groups on servers in racks in sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentView {
    /// `planned`, or `waits` until there are servers for it.
    pub state: String,
    /// Why it waits: what cannot hold on the servers that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Members by name, each with its server.
    pub members: Vec<DeployedMember>,
    /// Rules, each with what holds it.
    pub rules: Vec<HeldRuleView>,
    /// Pairs of members with a pipe.
    pub pipes: Vec<DeployedPipe>,
    /// Sum over pipes of Mbit/s times levels crossed (1 in a rack, 2 in a site, 3 between sites).
    pub crossed_mbps: u64,
    /// Servers used.
    pub servers: u32,
    /// No plan is better (less of that sum, then fewer servers). Else it is the best found within the limit of tries.
    pub proved: bool,
}

/// A member and its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployedMember {
    /// Its name.
    pub name: String,
    /// `task`, or what else it is.
    pub kind: String,
    /// Its site.
    pub site: String,
    /// Its rack; absent where nobody knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// Its server.
    pub server: String,
    /// Virtual CPUs that it takes there.
    pub vcpus: u32,
    /// MiB that it takes there.
    pub memory_mb: u64,
}

/// A rule and what holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldRuleView {
    /// The rule.
    pub rule: String,
    /// What holds it.
    pub by: String,
}

/// Bandwidth between two members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployedPipe {
    /// One member.
    pub from: String,
    /// The other.
    pub to: String,
    /// Mbit/s.
    pub mbps: u64,
    /// `in one server`, `in one rack`, `in one site` or `between sites`.
    pub way: String,
}
