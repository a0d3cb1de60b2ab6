//! What a task asks of the place that runs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::SolutionId;

/// The CPU setting of [0068].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum CpuSetting {
    /// 0: the custom algorithm that the configuration names chooses the instance.
    Algorithm,
    /// 1-99: an instance with at least this percentage of its CPU free; that much is then reserved.
    AtLeast(u8),
    /// 100: the instance is the task's alone until it is done.
    Exclusive,
}

impl TryFrom<u8> for CpuSetting {
    type Error = String;
    fn try_from(value: u8) -> Result<Self, String> {
        match value {
            0 => Ok(Self::Algorithm),
            1..=99 => Ok(Self::AtLeast(value)),
            100 => Ok(Self::Exclusive),
            _ => Err(format!(
                "cpu = {value}: the CPU setting is 0 (the configured algorithm), 1-99 (percent of CPU free) or 100 (the instance alone)"
            )),
        }
    }
}

impl From<CpuSetting> for u8 {
    fn from(setting: CpuSetting) -> u8 {
        match setting {
            CpuSetting::Algorithm => 0,
            CpuSetting::AtLeast(percent) => percent,
            CpuSetting::Exclusive => 100,
        }
    }
}

impl CpuSetting {
    /// Percent of an instance's CPU set aside while an attempt with this setting is there.
    pub fn reserved_percent(self) -> u32 {
        u8::from(self).into()
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(slots: &u32) -> bool {
    *slots == 1
}

/// Needs that decide where a task fits. Equal needs are one class for the planner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Needs {
    /// The CPU setting.
    pub cpu: CpuSetting,
    /// Memory, MiB.
    pub memory_mb: u32,
    /// Scratch storage, MiB.
    pub storage_mb: u32,
    /// Slots of one instance that it takes at a time, at least 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slots: u32,
    /// Operating system (`linux`, `windows`, ...), any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Arc<str>>,
    /// Architecture as Rust names it (`x86_64`, `aarch64`), any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arc<str>>,
    /// The cloud's instance type, any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<Arc<str>>,
    /// The instance's role [0028] (gateway, firewall, ...), any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Arc<str>>,
    /// The VM image the instance must run [0074], any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Arc<str>>,
    /// One solution only, any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solution: Option<SolutionId>,
    /// Counted resources by name (`gpu`, `bandwidth_mbps`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<Arc<str>, u64>,
    /// A container engine (Docker or Podman socket) is needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub container: bool,
}
