//! What a container uses: read from its cgroup while it runs, since the cgroup goes with its last process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often it is read. What a container uses after the last reading is not counted.
pub(crate) const READ: Duration = Duration::from_millis(100);
/// Where cgroups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// CPU time and the most memory so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ContainerUsage {
    pub cpu_ms: Option<u64>,
    pub peak_memory_kb: Option<u64>,
}

/// The files that say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    /// CPU time, and how much of its unit is a ms.
    cpu: Option<(PathBuf, CpuForm)>,
    memory: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CpuForm {
    /// `cpuacct.usage`: one number, ns (cgroup v1).
    Nanoseconds,
    /// `cpu.stat`: a line `usage_usec N` (cgroup v2).
    Stat,
}

impl Files {
    /// Of the container whose first process this is, as this machine numbers it.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        // A process that its runtime has not moved yet is where we are, or in the root: that counts all of us.
        let ours = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let own = |line: &&str| !line.ends_with(":/") && !ours.lines().any(|our| our == *line);
        let text: Vec<&str> = text.lines().filter(own).collect();
        let files = Self::named(&text.join("\n"), Path::new(MOUNT));
        (files.cpu.is_some() || files.memory.is_some()).then_some(files)
    }

    /// Lines `NUMBER:CONTROLLERS:PATH`, as cgroups(7) says; v2's has no controllers.
    fn named(text: &str, mount: &Path) -> Self {
        let mut files = Self { cpu: None, memory: None };
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let at = |folder: &str, file: &str| mount.join(folder).join(path.trim_start_matches('/')).join(file);
            if controllers.split(',').any(|c| c == "cpuacct") {
                let folders = [controllers, "cpuacct", "cpu,cpuacct", "cpuacct,cpu"];
                let there = folders.iter().map(|folder| at(folder, "cpuacct.usage")).find(|path| path.exists());
                files.cpu = there.map(|path| (path, CpuForm::Nanoseconds)).or(files.cpu);
            }
            if controllers == "memory" {
                let path = at("memory", "memory.max_usage_in_bytes");
                files.memory = path.exists().then_some(path).or(files.memory);
            }
            if controllers.is_empty() {
                let (cpu, memory) = (at("", "cpu.stat"), at("", "memory.peak"));
                files.cpu = files.cpu.or_else(|| cpu.exists().then_some((cpu, CpuForm::Stat)));
                files.memory = files.memory.or_else(|| memory.exists().then_some(memory));
            }
        }
        files
    }

    /// Now; what was read before stays where nothing can be read any more.
    pub(crate) fn read(&self, before: ContainerUsage) -> ContainerUsage {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let cpu = self.cpu.as_ref().and_then(|(path, form)| {
            let text = fs::read_to_string(path).ok()?;
            match form {
                CpuForm::Nanoseconds => number(&text).map(|ns| ns / 1_000_000),
                CpuForm::Stat => {
                    text.lines().find_map(|line| number(line.strip_prefix("usage_usec ")?)).map(|us| us / 1000)
                }
            }
        });
        let memory = self.memory.as_ref().and_then(|path| number(&fs::read_to_string(path).ok()?));
        ContainerUsage {
            cpu_ms: cpu.or(before.cpu_ms),
            peak_memory_kb: memory.map(|bytes| bytes / 1024).or(before.peak_memory_kb),
        }
    }
}

/// Reads again and again until it is ended; `to` has the last reading.
pub(crate) async fn watch(pid: i32, to: Arc<Mutex<ContainerUsage>>) {
    // Looked up anew each time: the runtime may move the process to its cgroup after it has started.
    loop {
        if let Some(files) = Files::of(pid) {
            let mut last = to.lock().unwrap_or_else(PoisonError::into_inner);
            let now = files.read(*last);
            *last = ContainerUsage {
                cpu_ms: now.cpu_ms.max(last.cpu_ms),
                peak_memory_kb: now.peak_memory_kb.max(last.peak_memory_kb),
            };
        }
        tokio::time::sleep(READ).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_cgroup_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("cpu,cpuacct/box/cpuacct.usage", "2500000000\n");
        write("memory/box/memory.max_usage_in_bytes", "1048576\n");
        let first = Files::named("4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n", dir.path());
        let usage = first.read(ContainerUsage::default());
        assert_eq!(usage, ContainerUsage { cpu_ms: Some(2500), peak_memory_kb: Some(1024) });
        write("unified/cpu.stat", "usage_usec 7000\nuser_usec 5000\n");
        write("unified/memory.peak", "4096\n");
        let second = Files::named("0::/unified\n", dir.path());
        assert_eq!(second.read(usage), ContainerUsage { cpu_ms: Some(7), peak_memory_kb: Some(4) });
        fs::remove_dir_all(dir.path().join("unified")).unwrap();
        assert_eq!(second.read(usage), usage, "what was read last stays");
    }
}
