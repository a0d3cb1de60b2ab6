//! A task: the stored definition, resolved to its one local form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{SolutionId, TaskName};
use crate::needs::Needs;
use crate::quantity::Digest;

/// Where tasks may be directed [0056].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunningMode {
    /// The engine picks by limits, price and speed, and says why.
    #[default]
    Auto,
    /// Instances under our control only.
    Dedicated,
    /// Shared solutions only.
    Serverless,
    /// Both.
    Hybrid,
}

impl fmt::Display for RunningMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Dedicated => "dedicated",
            Self::Serverless => "serverless",
            Self::Hybrid => "hybrid",
        })
    }
}

/// How an instance is chosen among those that fit [0069], [0071].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The one with the fewest attempts: the default where machines do not scale.
    #[default]
    FewestTasks,
    /// The one with the most attempts that still has room, so that others can be ended.
    Packing,
    /// The first by name.
    FirstFit,
    /// The one with the least CPU in use, as measured or set aside, whichever is more: [0071]'s "VM resource
    /// loading".
    LowestLoad,
    /// The one with the fewest attempts for what it takes at once, so that one of 128 slots gets its share beside
    /// one of 4: [0071]'s "number of tasks", read beside [0069]'s "lowest number of tasks", which counts them
    /// alone. Where all instances are of one size, the two are the same.
    ByNumber,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FewestTasks => "fewest-tasks",
            Self::Packing => "packing",
            Self::FirstFit => "first-fit",
            Self::LowestLoad => "lowest-load",
            Self::ByNumber => "by-number",
        })
    }
}

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunSpec {
    /// A program and its arguments, started without a shell.
    Command(Vec<String>),
    /// A container image, with arguments for its entry point.
    Container {
        /// Image reference as the container engine knows it.
        image: String,
        /// Arguments after the entry point.
        args: Vec<String>,
    },
    /// A function that already exists in a shared solution.
    Function {
        /// The solution's own name for it.
        reference: String,
    },
}

/// An environment value: plain text, or a secret's name whose value travels with the order only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "an environment value is a text in quotes, or {secret = \"NAME\"} and nothing else"
)]
pub enum EnvValue {
    /// Plain text.
    Plain(String),
    /// `{secret = "NAME"}`.
    Secret {
        /// The secret's name.
        secret: String,
    },
}

/// Where an input's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputSource {
    /// Content already in the engine's folder.
    Digest(Digest),
    /// An output of another node of the same thread.
    Output {
        /// The other node.
        from: TaskName,
        /// Its output's name; may hold `{index}` (this item's) or `{from_index}` (each of theirs).
        output: String,
    },
}

/// A file placed in the working folder before the attempt starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Path inside the working folder; may hold `{index}` and `{from_index}`.
    pub path: String,
    /// Its content.
    pub source: InputSource,
}

/// What to do with an item whose attempt was lost with its place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// Try again elsewhere.
    #[default]
    Retry,
    /// End the item as lost: it never starts twice.
    Fail,
    /// Keep the item until a person decides.
    Ask,
}

/// How often an item is tried again, by what ended its attempt, and how long it waits between tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryLimits {
    /// After it ran longer than it may; as after a failure when nothing is said.
    pub timed_out: Option<u32>,
    /// After its machine was lost (with `on_lost = "retry"`), beyond the first time.
    pub lost: u32,
    /// After its place did not start it.
    pub refused: u32,
    /// After the cloud took its machine away (with `on_lost = "retry"`).
    pub preempted: u32,
    /// First back-off, ms; doubled with each further try of the same kind.
    pub backoff_first_ms: u64,
    /// Longest back-off, ms.
    pub backoff_max_ms: u64,
}

impl Default for RetryLimits {
    /// Twenty losses in a row are more likely the item's doing than the machines': it may be what
    /// brings them down.
    fn default() -> Self {
        Self { timed_out: None, lost: 20, refused: 3, preempted: 20, backoff_first_ms: 500, backoff_max_ms: 60_000 }
    }
}

/// Service level: a coarser order than urgency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceLevel {
    /// Served when nothing else waits.
    BestEffort,
    /// The default.
    #[default]
    Standard,
    /// Served before everything else.
    Critical,
}

/// A task with every field settled. Made by [`crate::draft::TaskDraft::resolve`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name.
    pub name: TaskName,
    /// What runs.
    pub run: RunSpec,
    /// Environment.
    pub env: BTreeMap<String, EnvValue>,
    /// Files in.
    pub inputs: Vec<InputSpec>,
    /// Files out: paths inside the working folder, `*` allowed in the last component.
    pub outputs: Vec<String>,
    /// What it asks of a place.
    pub needs: Needs,
    /// Expected run time, ms.
    pub expected_run_ms: Option<u64>,
    /// What it is expected to leave (its outputs), MiB: what leaves a cloud is paid.
    #[serde(default, skip_serializing_if = "no_data")]
    pub data_out_mb: u32,
    /// Longest run time, ms; none for a service or when nothing was stated (then the place's limit holds).
    pub longest_run_ms: Option<u64>,
    /// A long-running service: no end expected, exempt from the time limit on purpose.
    pub service: bool,
    /// From SIGTERM to SIGKILL, ms.
    pub grace_ms: u64,
    /// Coarse order.
    pub service_level: ServiceLevel,
    /// 0-100, finer order; from [`URGENT`] on it waits for no price.
    pub urgency: u8,
    /// How long it may wait for the cheaper place, ms.
    pub allowed_wait_ms: u64,
    /// May be stopped and started elsewhere.
    pub movable: bool,
    /// Its standard input stays open and takes lines while it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// Related tasks of one group prefer one instance.
    pub group: Option<String>,
    /// Asked running mode.
    pub running_mode: RunningMode,
    /// Asked balancing; the policy's when absent.
    pub balance: Option<Balance>,
    /// Array size: items with index 0..array.
    pub array: u32,
    /// More tries after the task itself failed.
    pub retries: u32,
    /// More tries after anything else, and how long between tries.
    #[serde(default)]
    pub retry: RetryLimits,
    /// When its place was lost.
    pub on_lost: OnLost,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Receiver of status.
    pub reply_to: Option<ReplyTo>,
    /// Which status it gets.
    #[serde(default)]
    pub reply_on: ReplyOn,
    /// Parameters for one solution only, handed on as they are.
    pub proprietary: BTreeMap<SolutionId, serde_json::Value>,
    /// The user's own additions, kept.
    pub custom: serde_json::Map<String, serde_json::Value>,
    /// Fields that nobody stated: shown as defaults.
    pub defaulted: BTreeSet<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn no_data(mb: &u32) -> bool {
    *mb == 0
}

/// Who is told of an item's status [0089].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ReplyTo {
    /// A webhook: a POST to this URL.
    Webhook(String),
    /// A line in a file of this name, below the folder that the engine has for them.
    File(String),
    /// A program and its arguments, run by the engine with the status on standard input.
    Command(String),
}

impl TryFrom<String> for ReplyTo {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Self::Webhook(text));
        }
        match text.split_once(':') {
            Some(("file", name)) => check_path(name).map(|()| Self::File(name.to_owned())),
            Some(("command", line)) if !line.trim().is_empty() => Ok(Self::Command(line.trim().to_owned())),
            _ => Err(format!("reply_to '{text}': give https://..., file:NAME or command:PROGRAM ARGS")),
        }
    }
}

impl From<ReplyTo> for String {
    fn from(to: ReplyTo) -> Self {
        match to {
            ReplyTo::Webhook(url) => url,
            ReplyTo::File(name) => format!("file:{name}"),
            ReplyTo::Command(line) => format!("command:{line}"),
        }
    }
}

/// Which status a receiver gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyOn {
    /// How each item ended.
    #[default]
    Ends,
    /// Every change.
    Changes,
}

/// From this urgency on, the price decides only between places that have room now.
pub const URGENT: u8 = 80;

/// Largest array, indices.
pub const ARRAY_MAX: u32 = 1_000_000;

/// What the planner sees of a task; equal profiles in one session are one class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Profile {
    /// Service level and urgency, most pressing last.
    pub rank: (ServiceLevel, u8),
    /// The needs.
    pub needs: Needs,
    /// The settled mode.
    pub mode: RunningMode,
    /// Expected run time, ms.
    pub expected_run_ms: Option<u64>,
    /// What it is expected to leave (its outputs), MiB: what leaves a cloud is paid.
    #[serde(default, skip_serializing_if = "no_data")]
    pub data_out_mb: u32,
    /// Longest run time, ms.
    pub longest_run_ms: Option<u64>,
    /// No time limit on purpose.
    pub service: bool,
    /// Patience, ms.
    pub allowed_wait_ms: u64,
    /// May be stopped and started elsewhere: what its task says, unless it may never start twice.
    pub movable: bool,
    /// Balancing asked for.
    pub balance: Option<Balance>,
    /// Group.
    pub group: Option<Arc<str>>,
    /// A function that exists in a shared solution only.
    pub function_only: bool,
    /// Where a deployment plan holds it.
    pub held: Option<Arc<crate::decide::deployment::Held>>,
}

impl Profile {
    /// What decides which kinds of place take it, and for how long it waits: equal for items whose demand is
    /// one. How they are ordered and balanced is left out.
    #[must_use]
    pub fn demand(&self) -> Self {
        let rank = (ServiceLevel::default(), 0);
        Self { rank, movable: false, balance: None, group: None, ..self.clone() }
    }
}

impl TaskSpec {
    /// The part that decides placement.
    pub fn profile(&self) -> Profile {
        Profile {
            rank: (self.service_level, self.urgency),
            needs: self.needs.clone(),
            mode: self.running_mode,
            expected_run_ms: self.expected_run_ms,
            data_out_mb: self.data_out_mb,
            longest_run_ms: self.longest_run_ms,
            service: self.service,
            allowed_wait_ms: self.allowed_wait_ms,
            movable: self.movable && self.on_lost != OnLost::Fail,
            balance: self.balance,
            group: self.group.as_deref().map(Into::into),
            function_only: matches!(self.run, RunSpec::Function { .. }),
            held: None,
        }
    }
}

/// Puts the array index into a text: `{index}` becomes the item's own.
pub fn with_index(text: &str, index: u32) -> String {
    if text.contains("{index}") { text.replace("{index}", &index.to_string()) } else { text.to_owned() }
}

/// Checks that a path stays inside the working folder: relative, no `..`, no empty part, no NUL.
pub fn check_path(path: &str) -> Result<(), String> {
    let inside = !path.is_empty()
        && !path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if inside {
        Ok(())
    } else {
        Err(format!("path '{path}' leaves the task's folder: use a relative path without '..'"))
    }
}

/// Does `path` match `pattern`, where `*` stands for any run of characters but `/` and only in the
/// last component?
pub fn output_matches(pattern: &str, path: &str) -> bool {
    let (pattern_dir, pattern_name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    if pattern_dir != dir {
        return false;
    }
    let mut pieces = pattern_name.split('*');
    let first = pieces.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut last = None;
    for piece in pieces {
        if let Some(previous) = last.replace(piece) {
            let Some(at) = rest.find(previous) else { return false };
            rest = &rest[at + str::len(previous)..];
        }
    }
    match last {
        None => rest.is_empty(),
        Some(tail) => rest.ends_with(tail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_match_in_the_last_component_only() {
        for (pattern, path, yes) in [
            ("a.csv", "a.csv", true),
            ("a.csv", "b.csv", false),
            ("part-*.csv", "part-11.csv", true),
            ("part-*.csv", "part-.csv", true),
            ("part-*.csv", "part-1.csv.tmp", false),
            ("d/*", "d/x", true),
            ("*", "d/x", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXc", false),
        ] {
            assert_eq!(output_matches(pattern, path), yes, "{pattern} {path}");
        }
    }

    #[test]
    fn a_path_outside_the_folder_is_refused() {
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\0b"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        assert!(check_path("a/b.txt").is_ok());
    }
}
