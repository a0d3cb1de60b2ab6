//! What this instance offers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use skein_domain::InstanceFacts;

use crate::measure;

/// What a person says of an instance, since no system call does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Its role [0028].
    pub role: Option<String>,
    /// The cloud's instance type.
    pub instance_type: Option<String>,
    /// The VM image it runs.
    pub image: Option<String>,
    /// Counted resources by name (GPUs, ...).
    pub resources: BTreeMap<String, u64>,
}

/// Logical CPUs of this machine.
pub(crate) fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Free storage where `dir` is, MiB.
pub(crate) fn storage_mb(dir: &Path) -> u32 {
    let free = rustix::fs::statvfs(dir).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize) >> 20);
    u32::try_from(free).unwrap_or(u32::MAX)
}

/// The facts for `Hello`.
pub(crate) fn gather(dir: &Path, slots: u32, labels: &Labels, container: bool) -> InstanceFacts {
    let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
    InstanceFacts {
        cpus: cpus(),
        memory_mb: measure::memory_total_mb(),
        storage_mb: storage_mb(dir),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        slots,
        instance_type: shared(&labels.instance_type),
        role: shared(&labels.role),
        image: shared(&labels.image),
        resources: labels.resources.iter().map(|(name, count)| (name.as_str().into(), *count)).collect(),
        container,
    }
}
