//! A task as people write it (TOML, JSON or YAML, all turned into one JSON value first), and its
//! resolution: unknown fields are refused by name, what has a default gets it and is marked, what has
//! none is asked for by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::group::{GroupDraft, MemberDraft};
use crate::id::{SolutionId, TaskName};
use crate::needs::{CpuSetting, Needs};
use crate::quantity::Digest;
use crate::session::HoldPolicy;
use crate::task::{
    ARRAY_MAX, Balance, EnvValue, InputSource, InputSpec, OnLost, ReplyOn, ReplyTo, RetryLimits, RunSpec, RunningMode,
    ServiceLevel, TaskSpec, check_path,
};
use crate::thread::When;

/// A draft that cannot be used: every complaint at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct BadDraft(pub Vec<String>);

impl From<String> for BadDraft {
    fn from(one: String) -> Self {
        Self(vec![one])
    }
}

/// A task as written. Every field is optional here; [`TaskDraft::resolve`] says which are missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskDraft {
    /// Name in the repository.
    pub name: Option<String>,
    /// Program and arguments.
    pub command: Option<Vec<String>>,
    /// Container image and arguments.
    pub container: Option<ContainerDraft>,
    /// A function of a shared solution.
    pub function: Option<String>,
    /// Environment.
    pub env: BTreeMap<String, EnvValue>,
    /// Files in.
    pub inputs: Vec<InputDraft>,
    /// Files out.
    pub outputs: Vec<String>,
    /// CPU setting, 0-100.
    pub cpu: Option<u8>,
    /// Memory, MiB.
    pub memory_mb: Option<u32>,
    /// Scratch storage, MiB.
    pub storage_mb: Option<u32>,
    /// Slots of one instance, 1 when left out.
    pub slots: Option<u32>,
    /// Operating system.
    pub os: Option<String>,
    /// Architecture.
    pub arch: Option<String>,
    /// Instance type.
    pub instance_type: Option<String>,
    /// Role of the instance.
    pub role: Option<String>,
    /// VM image.
    pub image: Option<String>,
    /// One solution only.
    pub solution: Option<SolutionId>,
    /// Counted resources.
    pub resources: BTreeMap<String, u64>,
    /// Expected run time, s.
    pub expected_run_s: Option<f64>,
    /// What it is expected to leave (its outputs), MiB: what leaves a cloud is paid.
    pub data_out_mb: Option<u32>,
    /// Longest run time, s.
    pub longest_run_s: Option<f64>,
    /// A long-running service.
    pub service: Option<bool>,
    /// From SIGTERM to SIGKILL, s.
    pub grace_s: Option<f64>,
    /// Service level.
    pub service_level: Option<ServiceLevel>,
    /// 0-100.
    pub urgency: Option<u8>,
    /// Patience, s.
    pub allowed_wait_s: Option<f64>,
    /// May be moved.
    pub movable: Option<bool>,
    /// Its standard input stays open and takes lines while it runs.
    pub stdin: Option<bool>,
    /// Group.
    pub group: Option<String>,
    /// Running mode.
    pub running_mode: Option<RunningMode>,
    /// Balancing.
    pub balance: Option<Balance>,
    /// Array size.
    pub array: Option<u32>,
    /// More tries after a failure.
    pub retries: Option<u32>,
    /// More tries after anything else, and how long between tries.
    pub retry: RetryDraft,
    /// When its place was lost.
    pub on_lost: Option<OnLost>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Receiver of status: `https://...`, `file:NAME` or `command:PROGRAM ARGS`.
    pub reply_to: Option<ReplyTo>,
    /// `ends` or `changes`.
    pub reply_on: Option<ReplyOn>,
    /// Parameters for one solution.
    pub proprietary: BTreeMap<SolutionId, Value>,
    /// The user's own additions.
    pub custom: Map<String, Value>,
    /// What must end first (in a thread).
    pub after: Vec<AfterDraft>,
    /// A task of the repository to start from (in a thread).
    #[serde(rename = "use")]
    pub base: Option<String>,
}

/// `retry = {lost = 5, backoff_s = 2}`: what is left out has its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryDraft {
    /// After it ran longer than it may; `retries` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timed_out: Option<u32>,
    /// After its machine was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u32>,
    /// After its place did not start it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u32>,
    /// After the cloud took its machine away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preempted: Option<u32>,
    /// First back-off, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_s: Option<f64>,
    /// Longest back-off, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_max_s: Option<f64>,
}

impl RetryDraft {
    fn resolve(&self) -> Result<RetryLimits, BadDraft> {
        let base = RetryLimits::default();
        let ms = |field, given: Option<f64>, default| given.map_or(Ok(default), |s| millis(field, s));
        Ok(RetryLimits {
            timed_out: self.timed_out,
            lost: self.lost.unwrap_or(base.lost),
            refused: self.refused.unwrap_or(base.refused),
            preempted: self.preempted.unwrap_or(base.preempted),
            backoff_first_ms: ms("retry.backoff_s", self.backoff_s, base.backoff_first_ms)?,
            backoff_max_ms: ms("retry.backoff_max_s", self.backoff_max_s, base.backoff_max_ms)?,
        })
    }
}

/// `container = {image = "...", args = [...]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerDraft {
    /// Image reference.
    pub image: String,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
}

/// An input as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputDraft {
    /// Where to place it.
    pub path: String,
    /// A file beside the document; whoever reads the document uploads it and puts `digest` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Content by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Another node of the thread ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TaskName>,
    /// ... and its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// A link as written: a name, or a name and a condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a link is a task's name, or {task = \"NAME\", when = \"success\" | \"end\" | \"failure\"}"
)]
pub enum AfterDraft {
    /// After its success.
    Name(String),
    /// After the end named.
    When {
        /// The node.
        task: String,
        /// On which end.
        #[serde(default)]
        when: When,
    },
}

/// A thread as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThreadDraft {
    /// Name in the repository.
    pub name: Option<String>,
    /// One line.
    pub description: String,
    /// Running mode of tasks that name none.
    pub running_mode: Option<RunningMode>,
    /// Balancing of tasks that name none.
    pub balance: Option<Balance>,
    /// Labels of the session, matched by context rules.
    pub labels: BTreeMap<String, String>,
    /// How sessions hold agents: `{idle_s = 10}` or `"session_end"`.
    pub hold: Option<HoldDraft>,
    /// Nodes that start in one plan.
    pub together: Vec<Vec<String>>,
    /// The nodes.
    pub tasks: BTreeMap<String, TaskDraft>,
    /// Groups of nodes and other members, with rules on where they go.
    pub groups: Vec<GroupDraft>,
    /// What members are, beside what their tasks say.
    pub members: BTreeMap<String, MemberDraft>,
    /// The user's own additions.
    pub custom: Map<String, Value>,
}

/// A hold policy as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldDraft {
    /// Until the session ends.
    SessionEnd,
    /// Until idle this long, s.
    IdleS(f64),
}

impl HoldDraft {
    /// Settled.
    pub fn resolve(&self) -> Result<HoldPolicy, BadDraft> {
        Ok(match self {
            Self::SessionEnd => HoldPolicy::SessionEnd,
            Self::IdleS(s) => HoldPolicy::IdleMs(millis("hold.idle_s", *s)?),
        })
    }
}

/// Values for what a draft leaves open. From the configuration's `defaults`.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDefaults {
    /// CPU setting.
    pub cpu: CpuSetting,
    /// MiB.
    pub memory_mb: u32,
    /// MiB.
    pub storage_mb: u32,
    /// ms.
    pub grace_ms: u64,
    /// ms.
    pub allowed_wait_ms: u64,
    /// 0-100.
    pub urgency: u8,
    /// More tries after a failure.
    pub retries: u32,
    /// When its place was lost.
    pub on_lost: OnLost,
}

impl Default for TaskDefaults {
    fn default() -> Self {
        Self {
            cpu: CpuSetting::Algorithm,
            memory_mb: 256,
            storage_mb: 0,
            grace_ms: 5_000,
            allowed_wait_ms: 10_000,
            urgency: 50,
            retries: 0,
            on_lost: OnLost::Retry,
        }
    }
}

/// Longest time that can be asked for, s: 10 years.
const SECONDS_MAX: f64 = 315_360_000.0;

fn millis(field: &str, seconds: f64) -> Result<u64, BadDraft> {
    if seconds.is_finite() && (0.0..=SECONDS_MAX).contains(&seconds) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
        return Ok((seconds * 1000.0).round() as u64);
    }
    Err(format!("{field} = {seconds}: give seconds from 0 to {SECONDS_MAX}").into())
}

impl TaskDraft {
    /// Reads a draft from a JSON value, naming an unknown field and where it is.
    pub fn read(value: Value) -> Result<Self, BadDraft> {
        serde_json::from_value(value).map_err(|e| BadDraft::from(e.to_string()))
    }

    /// Settles every field. `name` is the node's name in a thread; a lone task needs its own.
    pub fn resolve(
        &self,
        name: Option<&str>,
        mode: RunningMode,
        defaults: &TaskDefaults,
    ) -> Result<TaskSpec, BadDraft> {
        let mut wrong = Vec::new();
        let mut defaulted = BTreeSet::new();
        let mut note = |field: &str, given: bool| {
            if !given {
                defaulted.insert(field.to_owned());
            }
        };
        for (field, given) in [
            ("cpu", self.cpu.is_some()),
            ("memory_mb", self.memory_mb.is_some()),
            ("storage_mb", self.storage_mb.is_some()),
            ("slots", self.slots.is_some()),
            ("grace_s", self.grace_s.is_some()),
            ("allowed_wait_s", self.allowed_wait_s.is_some()),
            ("urgency", self.urgency.is_some()),
            ("service_level", self.service_level.is_some()),
            ("retries", self.retries.is_some()),
            ("on_lost", self.on_lost.is_some()),
            ("array", self.array.is_some()),
            ("movable", self.movable.is_some()),
            ("service", self.service.is_some()),
            ("running_mode", self.running_mode.is_some()),
        ] {
            note(field, given);
        }
        let spec = TaskSpec {
            name: self.resolve_name(name, &mut wrong),
            run: self.resolve_run(&mut wrong),
            env: self.env.clone(),
            inputs: self.resolve_inputs(&mut wrong),
            outputs: self.outputs.clone(),
            needs: self.resolve_needs(defaults, &mut wrong),
            expected_run_ms: self.time("expected_run_s", self.expected_run_s, &mut wrong),
            data_out_mb: self.data_out_mb.unwrap_or(0),
            longest_run_ms: self.time("longest_run_s", self.longest_run_s, &mut wrong),
            service: self.service.unwrap_or(false),
            grace_ms: self.time("grace_s", self.grace_s, &mut wrong).unwrap_or(defaults.grace_ms),
            service_level: self.service_level.unwrap_or_default(),
            urgency: self.urgency.unwrap_or(defaults.urgency),
            allowed_wait_ms: self
                .time("allowed_wait_s", self.allowed_wait_s, &mut wrong)
                .unwrap_or(defaults.allowed_wait_ms),
            movable: self.movable.unwrap_or(false),
            stdin: self.stdin.unwrap_or(false),
            group: self.group.clone(),
            running_mode: mode,
            balance: self.balance,
            array: self.array.unwrap_or(1),
            retries: self.retries.unwrap_or(defaults.retries),
            retry: self.retry.resolve().unwrap_or_else(|bad| {
                wrong.extend(bad.0);
                RetryLimits::default()
            }),
            on_lost: self.on_lost.unwrap_or(defaults.on_lost),
            labels: self.labels.clone(),
            reply_to: self.reply_to.clone(),
            reply_on: self.reply_on.unwrap_or_default(),
            proprietary: self.proprietary.clone(),
            custom: self.custom.clone(),
            defaulted,
        };
        Self::check(&spec, &mut wrong);
        if wrong.is_empty() { Ok(spec) } else { Err(BadDraft(wrong)) }
    }

    fn resolve_name(&self, name: Option<&str>, wrong: &mut Vec<String>) -> TaskName {
        let Some(text) = name.or(self.name.as_deref()) else {
            wrong.push("'name' is missing and has no default: give the task a name".to_owned());
            return placeholder();
        };
        TaskName::new(text).unwrap_or_else(|e| {
            wrong.push(e.to_string());
            placeholder()
        })
    }

    fn resolve_run(&self, wrong: &mut Vec<String>) -> RunSpec {
        match (&self.command, &self.container, &self.function) {
            (Some(argv), None, None) if argv.first().is_some_and(|program| !program.is_empty()) => {
                return RunSpec::Command(argv.clone());
            }
            (Some(_), None, None) => wrong.push("'command' is empty: its first word is the program".to_owned()),
            (None, Some(c), None) => return RunSpec::Container { image: c.image.clone(), args: c.args.clone() },
            (None, None, Some(f)) => return RunSpec::Function { reference: f.clone() },
            (None, None, None) => {
                wrong.push(
                    "'command' is missing and has no default: give 'command', 'container' or 'function'".to_owned(),
                );
            }
            _ => wrong.push("give only one of 'command', 'container' and 'function'".to_owned()),
        }
        RunSpec::Command(Vec::new())
    }

    fn resolve_inputs(&self, wrong: &mut Vec<String>) -> Vec<InputSpec> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let source = match (&input.digest, &input.from, &input.output, &input.file) {
                (Some(digest), None, None, _) => InputSource::Digest(digest.clone()),
                (None, Some(from), Some(output), None) => {
                    InputSource::Output { from: from.clone(), output: output.clone() }
                }
                (None, None, None, Some(file)) => {
                    wrong.push(format!(
                        "input '{file}' was not uploaded: submit with 'skein run', or give its 'digest'"
                    ));
                    continue;
                }
                _ => {
                    wrong.push(format!("input '{}': give 'file', 'digest', or both 'from' and 'output'", input.path));
                    continue;
                }
            };
            inputs.push(InputSpec { path: input.path.clone(), source });
        }
        inputs
    }

    fn resolve_needs(&self, defaults: &TaskDefaults, wrong: &mut Vec<String>) -> Needs {
        let arc = |text: &Option<String>| text.as_deref().map(Arc::from);
        let cpu = self.cpu.map_or(Ok(defaults.cpu), CpuSetting::try_from).unwrap_or_else(|e| {
            wrong.push(e);
            defaults.cpu
        });
        Needs {
            cpu,
            memory_mb: self.memory_mb.unwrap_or(defaults.memory_mb),
            storage_mb: self.storage_mb.unwrap_or(defaults.storage_mb),
            slots: self.slots.unwrap_or(1),
            os: arc(&self.os),
            arch: arc(&self.arch),
            instance_type: arc(&self.instance_type),
            role: arc(&self.role),
            image: arc(&self.image),
            solution: self.solution.clone(),
            resources: self.resources.iter().map(|(k, v)| (Arc::from(k.as_str()), *v)).collect(),
            container: self.container.is_some(),
        }
    }

    #[expect(clippy::unused_self, reason = "reads as part of the draft at its call sites")]
    fn time(&self, field: &str, seconds: Option<f64>, wrong: &mut Vec<String>) -> Option<u64> {
        match millis(field, seconds?) {
            Ok(ms) => Some(ms),
            Err(BadDraft(why)) => {
                wrong.extend(why);
                None
            }
        }
    }

    fn check(spec: &TaskSpec, wrong: &mut Vec<String>) {
        if spec.urgency > 100 {
            wrong.push(format!("urgency = {}: give 0 to 100", spec.urgency));
        }
        if spec.needs.slots == 0 {
            wrong.push("slots = 0: give 1 or more, as many slots of one instance as it takes at a time".to_owned());
        }
        if spec.array == 0 || spec.array > ARRAY_MAX {
            wrong.push(format!("array = {}: give 1 to {ARRAY_MAX}", spec.array));
        }
        if spec.longest_run_ms == Some(0) {
            wrong.push("longest_run_s = 0: give the seconds after which it is stopped".to_owned());
        }
        if spec.service && spec.longest_run_ms.is_some() {
            wrong.push("a service has no end: remove 'longest_run_s' or 'service'".to_owned());
        }
        if spec.expected_run_ms.zip(spec.longest_run_ms).is_some_and(|(expected, longest)| expected > longest) {
            wrong.push("expected_run_s is over longest_run_s: raise the one or lower the other".to_owned());
        }
        let paths = spec.inputs.iter().map(|i| i.path.as_str()).chain(spec.outputs.iter().map(String::as_str));
        wrong.extend(paths.filter_map(|path| check_path(path).err()));
        for pattern in &spec.outputs {
            if pattern.rsplit_once('/').is_some_and(|(dir, _)| dir.contains('*')) {
                wrong.push(format!("output '{pattern}': '*' may stand in the last component only"));
            }
        }
        for name in spec.env.keys() {
            if name.is_empty() || name.contains('=') || name.contains('\0') {
                wrong.push(format!("env name '{name}' cannot be set: use letters, digits and '_'"));
            }
        }
    }
}

fn placeholder() -> TaskName {
    TaskName::new("unnamed").unwrap_or_else(|_| unreachable!("a valid name"))
}

/// Puts `task.param=value` overrides into a thread or task document. The value is read as JSON when
/// it is JSON, else as text. `task` is `*` for every node; a lone task is named by its own name.
pub fn apply_override(document: &mut Value, text: &str) -> Result<(), BadDraft> {
    let form = || BadDraft::from(format!("override '{text}': write TASK.PARAMETER=VALUE, as in split.memory_mb=512"));
    let (target, value) = text.split_once('=').ok_or_else(form)?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    let object = document.as_object_mut().ok_or_else(form)?;
    let (task, param) = split_target(object, target).ok_or_else(form)?;
    let Some(tasks) = object.get_mut("tasks").and_then(Value::as_object_mut) else {
        let own = object.get("name").and_then(Value::as_str).unwrap_or(task);
        if task != "*" && task != own {
            return Err(format!("override '{text}': the task is named '{own}'").into());
        }
        return set_path(object, param, value, text);
    };
    let names: Vec<String> = if task == "*" { tasks.keys().cloned().collect() } else { vec![task.to_owned()] };
    for name in names {
        let known = tasks.keys().cloned().collect::<Vec<_>>().join(", ");
        let node = tasks.get_mut(&name).and_then(Value::as_object_mut);
        let node = node.ok_or_else(|| format!("override '{text}': there is no task '{name}' (there are: {known})"))?;
        set_path(node, param, value.clone(), text)?;
    }
    Ok(())
}

/// `task.param`: a task's name may have dots itself, so the longest one that is there counts.
fn split_target<'a>(document: &Map<String, Value>, target: &'a str) -> Option<(&'a str, &'a str)> {
    let tasks = document.get("tasks").and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let own = document.get("name").and_then(Value::as_str);
    let names = tasks.map(String::as_str).chain(own);
    let param = |name: &str| target.strip_prefix(name)?.strip_prefix('.').map(str::len);
    match names.filter_map(param).min() {
        Some(length) => Some((&target[..target.len() - length - 1], &target[target.len() - length..])),
        None => target.split_once('.'),
    }
}

fn set_path(object: &mut Map<String, Value>, path: &str, value: Value, text: &str) -> Result<(), BadDraft> {
    match path.split_once('.') {
        None => {
            object.insert(path.to_owned(), value);
            Ok(())
        }
        Some((head, rest)) => {
            let inner = object.entry(head).or_insert_with(|| Value::Object(Map::new()));
            let inner = inner.as_object_mut().ok_or_else(|| format!("override '{text}': '{head}' has no parts"))?;
            set_path(inner, rest, value, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolve(value: Value) -> Result<TaskSpec, BadDraft> {
        TaskDraft::read(value)?.resolve(None, RunningMode::Auto, &TaskDefaults::default())
    }

    #[test]
    fn what_is_missing_is_asked_for_by_name_all_at_once() {
        let BadDraft(wrong) = resolve(json!({"urgency": 101, "outputs": ["../x"]})).unwrap_err();
        let all = wrong.join("\n");
        for part in ["'name' is missing", "'command' is missing", "urgency = 101", "'../x'"] {
            assert!(all.contains(part), "{part} in {all}");
        }
    }

    #[test]
    fn bad_values_name_the_field_and_what_is_accepted() {
        for (value, part) in [
            (json!({"name": "a", "command": ["x"], "cpu": 101}), "cpu = 101"),
            (json!({"name": "a", "command": ["x"], "colour": 1}), "unknown field `colour`"),
            (json!({"name": "a", "command": ["x"], "longest_run_s": -1.0}), "longest_run_s"),
            (json!({"name": "a", "command": ["x"], "function": "f"}), "only one of"),
            (json!({"name": "a", "command": [""]}), "'command' is empty"),
            (json!({"name": "a", "command": ["x"], "array": 2_000_000}), "array"),
            (json!({"name": "a", "command": ["x"], "slots": 0}), "slots = 0"),
            (json!({"name": "a", "command": ["x"], "inputs": [{"path": "p"}]}), "'digest'"),
            (json!({"name": "a", "command": ["x"], "longest_run_s": 0}), "longest_run_s = 0"),
            (json!({"name": "a", "command": ["x"], "env": {"A": 5}}), "{secret = \"NAME\"}"),
            (json!({"name": "a", "command": ["x"], "env": {"A": {"secret": "S", "x": 1}}}), "nothing else"),
            (json!({"name": "a", "command": ["x"], "after": [{"task": "b", "wen": "end"}]}), "a link is"),
        ] {
            let text = resolve(value).unwrap_err().to_string();
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn defaults_are_marked_and_custom_is_kept() {
        let spec = resolve(json!({"name": "a", "command": ["x"], "cpu": 40, "custom": {"mine": [1]}})).unwrap();
        assert!(spec.defaulted.contains("memory_mb") && !spec.defaulted.contains("cpu"));
        assert_eq!(spec.custom["mine"], json!([1]));
    }

    #[test]
    fn overrides_reach_one_task_or_all() {
        let mut thread = json!({"tasks": {"a": {"command": ["x"]}, "b": {"command": ["y"]}}});
        apply_override(&mut thread, "a.memory_mb=512").unwrap();
        apply_override(&mut thread, "*.running_mode=serverless").unwrap();
        apply_override(&mut thread, "b.env.LEVEL=high").unwrap();
        assert_eq!(thread["tasks"]["a"]["memory_mb"], 512);
        assert_eq!(thread["tasks"]["b"]["running_mode"], "serverless");
        assert_eq!(thread["tasks"]["b"]["env"]["LEVEL"], "high");
        let mut dotted = json!({"tasks": {"a": {}, "a.b": {}}});
        apply_override(&mut dotted, "a.b.cpu=40").unwrap();
        assert_eq!(dotted["tasks"]["a.b"]["cpu"], 40);
        assert!(apply_override(&mut thread, "c.cpu=1").unwrap_err().to_string().contains("there are: a, b"));
        assert!(apply_override(&mut thread, "cpu").is_err());
    }
}
