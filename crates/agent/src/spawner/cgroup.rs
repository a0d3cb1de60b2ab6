//! A slot's cgroup: memory and process limits, v1 and v2.
//!
//! CPU is never limited here: a CPU setting of 1-99 reserves, it does not cap.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ATTEMPT_PIDS_MAX, SPAWNER_MEMORY_MB};

/// Handed from a function host to its runners, which cannot prepare a cgroup v2 tree themselves
/// (their host sits in it).
pub(crate) const BASE_ENV: &str = "SKEIN_CGROUP_BASE";

/// Our cgroups begin with this; empty ones of an earlier, killed agent are removed by it.
const PREFIX: &str = "skein-slot-";

/// Folders under which slot cgroups can be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupBase {
    /// One tree for all controllers (v2) or one each (v1).
    pub unified: bool,
    /// Where memory can be limited.
    pub memory: Option<PathBuf>,
    /// Where the number of processes can be limited.
    pub pids: Option<PathBuf>,
}

/// Finds where this process may make cgroups, and on v2 moves it into a leaf so that limits can be
/// handed to its neighbours. Empty when it may not.
pub fn prepare() -> CgroupBase {
    if let Some(base) = std::env::var(BASE_ENV).ok().and_then(|text| serde_json::from_str(&text).ok()) {
        return base;
    }
    let (Ok(own), Ok(mounts)) = (fs::read_to_string("/proc/self/cgroup"), fs::read_to_string("/proc/self/mountinfo"))
    else {
        return CgroupBase::default();
    };
    let base = CgroupBase {
        unified: false,
        memory: v1_folder(&own, &mounts, "memory").filter(|p| writable(p)),
        pids: v1_folder(&own, &mounts, "pids").filter(|p| writable(p)),
    };
    let base = if base.memory.is_some() || base.pids.is_some() {
        base
    } else {
        v2_folder(&own, &mounts).and_then(|folder| prepare_v2(&folder)).unwrap_or_default()
    };
    for folder in [&base.memory, &base.pids].into_iter().flatten() {
        remove_stale(folder);
    }
    base
}

/// (mount point, file system type, super options) of a line of `/proc/self/mountinfo`.
fn mount(line: &str) -> Option<(&str, &str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    Some((left.split(' ').nth(4)?, right.next()?, right.nth(1).unwrap_or("")))
}

/// A container often sees its own cgroup as the root of the mount: then the path of
/// `/proc/self/cgroup` is not there, and the mount point itself is ours.
fn under(mount_point: &str, path: &str) -> PathBuf {
    let folder = Path::new(mount_point).join(path.trim_start_matches('/'));
    if folder.is_dir() { folder } else { PathBuf::from(mount_point) }
}

fn v1_folder(own: &str, mounts: &str, controller: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|c| c == controller).then(|| fields.next()).flatten()
    })?;
    let point = mounts
        .lines()
        .filter_map(mount)
        .find(|(_, kind, options)| *kind == "cgroup" && options.split(',').any(|o| o == controller))?
        .0;
    Some(under(point, path))
}

fn v2_folder(own: &str, mounts: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let point = mounts.lines().filter_map(mount).find(|(_, kind, _)| *kind == "cgroup2")?.0;
    Some(under(point, path))
}

fn writable(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

/// On v2 a cgroup that hands controllers down may hold no processes itself, except the root.
fn prepare_v2(folder: &Path) -> Option<CgroupBase> {
    let offered = fs::read_to_string(folder.join("cgroup.controllers")).ok()?;
    let has = |name: &str| offered.split_whitespace().any(|c| c == name);
    if !writable(folder) || !(has("memory") || has("pids")) {
        return None;
    }
    let is_root = !folder.join("cgroup.type").exists();
    let leaf = folder.join("skein-agent");
    if !is_root {
        fs::create_dir(&leaf)
            .or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
            .ok()?;
        fs::write(leaf.join("cgroup.procs"), std::process::id().to_string()).ok()?;
    }
    let hand_down =
        |name: &str| has(name) && fs::write(folder.join("cgroup.subtree_control"), format!("+{name}")).is_ok();
    let base = CgroupBase {
        unified: true,
        memory: hand_down("memory").then(|| folder.to_owned()),
        pids: hand_down("pids").then(|| folder.to_owned()),
    };
    if base.memory.is_none() && base.pids.is_none() && !is_root {
        fs::write(folder.join("cgroup.procs"), std::process::id().to_string()).ok();
        fs::remove_dir(&leaf).ok();
    }
    Some(base)
}

/// The kernel refuses to remove a cgroup with processes in it, so this only takes dead ones.
fn remove_stale(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_dir(entry.path()).ok();
        }
    }
}

/// The cgroup of one slot. The spawner sits in it, so its children start in it.
pub(crate) struct SlotCgroup {
    unified: bool,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    limit_mb: u32,
    oom_file: Option<File>,
    oom_seen: u64,
}

impl SlotCgroup {
    /// Makes the slot's cgroup and moves this process into it. What cannot be done is left out.
    pub(crate) fn enter(base: Option<&CgroupBase>, name: &str) -> Self {
        let base = base.cloned().unwrap_or_default();
        let memory = base.memory.as_deref().and_then(|parent| join(parent, name));
        let pids = base.pids.as_deref().and_then(|parent| join(parent, name));
        if let Some(folder) = &pids {
            fs::write(folder.join("pids.max"), ATTEMPT_PIDS_MAX.to_string()).ok();
        }
        let oom_name = if base.unified { "memory.events" } else { "memory.oom_control" };
        let oom_file = memory.as_ref().and_then(|folder| File::open(folder.join(oom_name)).ok());
        let mut slot = Self { unified: base.unified, memory, pids, limit_mb: 0, oom_file, oom_seen: 0 };
        slot.oom_seen = slot.oom_kills();
        slot
    }

    /// What cannot be limited, for the attempt's notes.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.memory.is_none() {
            notes.push("memory not limited: no cgroup write access".to_owned());
        }
        notes
    }

    /// Sets the memory limit for the next attempt; a text says why it could not.
    pub(crate) fn limit_memory(&mut self, limit_mb: u32) -> Option<String> {
        let folder = self.memory.as_ref()?;
        if limit_mb == self.limit_mb {
            return None;
        }
        let (name, none) = if self.unified { ("memory.max", "max") } else { ("memory.limit_in_bytes", "-1") };
        let value = match limit_mb {
            0 => none.to_owned(),
            mb => (u64::from(mb + SPAWNER_MEMORY_MB) << 20).to_string(),
        };
        match fs::write(folder.join(name), value) {
            Ok(()) => {
                self.limit_mb = limit_mb;
                None
            }
            Err(e) => {
                self.limit_mb = 0;
                Some(format!("memory not limited to {limit_mb} MiB: {} refused it ({e})", folder.join(name).display()))
            }
        }
    }

    /// Has the kernel killed anything here for want of memory since the last time it was asked?
    pub(crate) fn out_of_memory(&mut self) -> bool {
        let kills = self.oom_kills();
        let more = kills > self.oom_seen;
        self.oom_seen = kills;
        more
    }

    fn oom_kills(&self) -> u64 {
        let Some(file) = &self.oom_file else { return 0 };
        let mut buffer = [0; 512];
        let read = file.read_at(&mut buffer, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..read]);
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    }

    /// Leaves the cgroup and removes it.
    pub(crate) fn leave(&self) {
        for folder in [&self.memory, &self.pids].into_iter().flatten() {
            // The root of a v2 subtree that hands controllers down takes no processes: use the leaf.
            let Some(parent) = folder.parent() else { continue };
            let leaf = parent.join("skein-agent");
            let target = if self.unified && leaf.is_dir() { leaf } else { parent.to_owned() };
            fs::write(target.join("cgroup.procs"), std::process::id().to_string()).ok();
            fs::remove_dir(folder).ok();
        }
    }
}

/// Removes what a spawner that was killed could not remove itself.
pub(crate) fn remove(base: &CgroupBase, name: &str) {
    for parent in [&base.memory, &base.pids].into_iter().flatten() {
        fs::remove_dir(parent.join(format!("{PREFIX}{name}"))).ok();
    }
}

fn join(parent: &Path, name: &str) -> Option<PathBuf> {
    let folder = parent.join(format!("{PREFIX}{name}"));
    match fs::create_dir(&folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    fs::write(folder.join("cgroup.procs"), std::process::id().to_string()).ok().map(|()| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_found_in_mountinfo() {
        let own = "4:memory:/nowhere/x\n2:cpu,cpuacct:/\n0::/user.slice/a\n";
        let mounts = "30 1 0:26 / /proc rw - cgroup cgroup rw,memory\n\
                      31 1 0:27 / /sys rw,nosuid shared:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(v1_folder(own, mounts, "memory"), Some(PathBuf::from("/proc")));
        assert_eq!(v1_folder(own, mounts, "pids"), None);
        assert_eq!(v2_folder(own, mounts), Some(PathBuf::from("/sys")));
    }
}
