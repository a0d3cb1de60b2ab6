//! The spawner: one small resident process per slot that starts, measures and ends attempts.
//!
//! ```text
//! agent (or function runner)            spawner, in its slot's cgroup
//!   | ---- Configure{slot, cgroup} ------> |  subreaper, cgroup
//!   | <--- Ready{notes} ------------------ |
//!   | ---- Start(Launch) ----------------> |  posix_spawn into a new process group
//!   | <--- Started{pid} ------------------ |  or StartFailed{why}
//!   | ---- Signal{term | kill} ----------> |  to the whole group
//!   | <--- Exited(Exit) ------------------ |  after everything the attempt left is dead
//! ```
//!
//! Why a process of its own: (1) starting a child costs one pipe message and no fork of a large
//! agent; (2) when the agent dies, also by SIGKILL, the spawner reads the end of its standard input
//! and kills the attempt; (3) it already sits in the slot's cgroup, so that children are limited
//! from their first instruction without a hook between fork and exec.
//!
//! Failure paths: the spawner dies -> the agent reads the end of its output, kills the process
//! group that `Started` named, ends the attempt and starts a new spawner. A child that leaves its
//! process group (`setsid`) is still caught: the spawner is its subreaper.

mod cgroup;
mod child;
mod client;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use cgroup::BASE_ENV;
pub use cgroup::{CgroupBase, prepare as prepare_cgroups};
pub use child::main;
pub use client::{Programs, Spawner, SpawnerEvent};

/// Most processes and threads one attempt may have at a time, where pids cgroups allow a limit.
pub const ATTEMPT_PIDS_MAX: u32 = 8192;

/// Memory granted to the spawner itself on top of its attempt's limit, MiB.
pub const SPAWNER_MEMORY_MB: u32 = 16;

/// How long the spawner tries to end what an attempt left behind, ms.
pub const SWEEP_MS_MAX: u64 = 5_000;

/// Agent to spawner, one JSON object a line, tagged from outside: a tag inside would make the reader build a
/// tree of the whole message first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// First line.
    Configure {
        /// Name of the slot's cgroup.
        name: String,
        /// Where cgroups can be made, if anywhere.
        cgroup: Option<CgroupBase>,
        /// Held, shared, for as long as the spawner or anything it started lives.
        #[serde(default)]
        lock: Option<PathBuf>,
    },
    /// Start a child.
    Start(Box<Launch>),
    /// If the agent dies, remove this container: it is not our child and would live on.
    Will {
        /// The container engine's socket.
        socket: PathBuf,
        /// The container's name; none when it is gone.
        container: Option<String>,
    },
    /// Signal the child's process group.
    Signal {
        /// Which launch; ignored when it is no longer the current one.
        id: u64,
        /// What.
        signal: StopSignal,
    },
    /// Something for the child's standard input, if its launch keeps that open.
    Input {
        /// Which launch; ignored when it is no longer the current one.
        id: u64,
        /// The line; none for the end.
        line: Option<String>,
    },
}

/// The two signals that stop an attempt, and any other that a person sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopSignal {
    /// SIGTERM: asked to end.
    Term,
    /// SIGKILL: ended.
    Kill,
    /// By number.
    Other(i32),
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The caller's number for it, never used twice on one spawner.
    pub id: u64,
    /// Program and arguments; the program is looked up in `env`'s PATH.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working folder.
    pub cwd: PathBuf,
    /// The attempt's own folders (it may have more than the working one): if they are empty and
    /// unchanged at its end, they can be used again as they are.
    pub folders: Vec<PathBuf>,
    /// File for standard output; made anew.
    pub out: PathBuf,
    /// File for standard error; made anew.
    pub err: PathBuf,
    /// Memory limit, MiB; 0 for none.
    pub memory_mb: u32,
    /// Standard input stays open and takes lines; else it is empty.
    #[serde(default)]
    pub stdin: bool,
}

/// Spawner to agent, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It waits for a start.
    Ready {
        /// What it cannot limit here, for the attempt's notes.
        notes: Vec<String>,
    },
    /// The child runs.
    Started {
        /// Which launch.
        id: u64,
        /// Its process id, which is also its process group's.
        pid: i32,
    },
    /// The child could not be started.
    StartFailed {
        /// Which launch.
        id: u64,
        /// What, why and the next step.
        why: String,
    },
    /// The child ended, and nothing of it is left.
    Exited(Exit),
}

/// How a child ended, with what was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Which launch.
    pub id: u64,
    /// Exit status, when it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// CPU time of it and the children it waited for, ms.
    pub cpu_ms: Option<u64>,
    /// Peak resident memory of its largest process, KiB.
    pub peak_memory_kb: Option<u64>,
    /// From start to end, ms.
    pub run_ms: u64,
    /// The kernel killed something in the slot for want of memory.
    pub out_of_memory: bool,
    /// Bytes in its two log files when it ended.
    pub log_bytes: u64,
    /// It left nothing in its folders and logs, and nothing of it runs.
    #[serde(default)]
    pub clean: bool,
    /// What could not be limited or cleaned up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
