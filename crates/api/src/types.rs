//! Requests and answers. Ids and names are text; money is nano-USD; moments are microseconds since the
//! Unix epoch; durations carry their unit in their name.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::planned::{DeploymentView, ModeView};

/// An error: what, and what to do next. Every answer with a status of 400 or above has this body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong and why, in words.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
}

/// Start a session, or (to `/plan`) say what it would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// A task or thread document in JSON form; or a name from the repository below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<serde_json::Value>,
    /// Name of a task in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Name of a thread in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// Its version; the newest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Running mode for every task of this start: `auto`, `dedicated`, `serverless` or `hybrid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_mode: Option<String>,
    /// Balancing of every task of this start: `fewest-tasks`, `packing`, `first-fit`, `lowest-load` or `by-number`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    /// Overrides, `TASK.PARAMETER=VALUE`; they stay with the session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Only these tasks of the thread, and what comes before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<String>,
    /// What the session is to reach, where tasks leave their running mode to the engine; over the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goals: Option<GoalsRequest>,
    /// A key of the client's: the same key again is the same session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// The most that it may spend, nano-USD: it is paused before what would exceed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_nano_usd: Option<i64>,
}

/// Let a paused session go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResumeRequest {
    /// The most that it may spend from now on, nano-USD; as before when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_nano_usd: Option<i64>,
}

/// How it stands with a cap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetView {
    /// What it is for, in words.
    pub budget: String,
    /// `warn`, `pause` or `refuse`.
    pub action: String,
    /// The most that may be spent, nano-USD.
    pub limit_nano_usd: i64,
    /// What is spent, nano-USD.
    pub spent_nano_usd: i64,
    /// What open attempts are expected to cost, nano-USD.
    pub open_nano_usd: i64,
    /// What may still be asked for, nano-USD.
    pub left_nano_usd: i64,
    /// It was said that so much of it is spent or open, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warned_percent: Option<u8>,
}

/// What a session is to reach [0057].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GoalsRequest {
    /// `cost` or `speed`: what is best among the modes that reach the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// Most it may cost, USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_max_usd: Option<f64>,
    /// Time within which it is to end, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_s: Option<f64>,
    /// Most machines that may be made for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines_max: Option<u32>,
}

/// Run a session's thread again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerunRequest {
    /// All of it; else only what did not succeed, and what comes after that.
    #[serde(default)]
    pub all: bool,
}

/// A session was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Started {
    /// Its id.
    pub session: String,
    /// False when the client's key was known: nothing was started again.
    pub new: bool,
    /// What it is expected to cost, nano-USD, where a cap holds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_nano_usd: Option<i64>,
    /// The caps that hold for it, as they stood before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetView>,
}

/// How many items are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// All.
    pub total: u64,
    /// With an open attempt.
    pub running: u64,
    /// Waiting or ready.
    pub waiting: u64,
    /// Succeeded.
    pub succeeded: u64,
    /// Failed.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Lost.
    pub lost: u64,
}

/// A session in a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionSummary {
    /// Its id.
    pub session: String,
    /// The thread's name.
    pub name: String,
    /// Who started it.
    pub user: String,
    /// `running`, `paused`, `stopping`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// When it was accepted, microseconds since the epoch.
    pub created_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Its items.
    pub items: Counts,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionDetail {
    /// As in a listing.
    #[serde(flatten)]
    pub summary: SessionSummary,
    /// What can be done to it as it is now.
    #[serde(default)]
    pub actions: Vec<String>,
    /// The session whose results it takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
    /// What the thread does.
    pub description: String,
    /// Its nodes.
    pub nodes: Vec<NodeView>,
    /// Instances it holds now.
    pub holds: Vec<HoldView>,
    /// Overrides given at launch.
    pub overrides: Vec<String>,
    /// What its ended attempts cost, by the prices known when they were placed, nano-USD.
    pub cost_nano_usd: i64,
    /// Where its groups are deployed, while it is open; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentView>,
    /// The caps that hold for it, while it is open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetView>,
    /// The cap that paused it, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_budget: Option<String>,
    /// Attempts by place.
    pub places: Vec<PlaceCount>,
    /// Only the first 100,000 attempts are counted by place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub places_cut: bool,
}

/// A node of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its place in the thread, from 0.
    pub node: u32,
    /// Its name.
    pub name: String,
    /// What it runs, in short.
    pub runs: String,
    /// Names of the nodes before it.
    pub after: Vec<String>,
    /// Its items.
    pub items: Counts,
    /// Its running mode, and who named it.
    pub running_mode: String,
    /// `launch`, `context`, `user`, `task`, `thread` or `default`.
    pub mode_source: String,
    /// What can be done to its items now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
}

/// An instance that a session holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldView {
    /// The instance.
    pub instance: String,
    /// Open attempts of the session there.
    pub attempts: u32,
}

/// Attempts at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlaceCount {
    /// The instance or shared solution.
    pub place: String,
    /// `instance` or `function`.
    pub kind: String,
    /// Attempts there.
    pub attempts: u64,
}

/// An attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// Its key.
    pub attempt: String,
    /// Whose session it belongs to.
    pub user: String,
    /// The node's name.
    pub node: String,
    /// The array index.
    pub index: u32,
    /// 1 for the first try.
    pub number: u32,
    /// The instance or shared solution.
    pub place: String,
    /// `instance` or `function`.
    pub kind: String,
    /// `assigned`, `sent`, `started`, or how it ended.
    pub state: String,
    /// Why it is there, in words.
    pub why: String,
    /// Why it is there, typed.
    pub choice: serde_json::Value,
    /// What can be done to it as it is now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// How it ended, in words.
    pub ending: Option<String>,
    /// Exit status, when the program ended by itself.
    pub exit_code: Option<i32>,
    /// When it was ordered, microseconds since the epoch.
    pub assigned_at: i64,
    /// When it started.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// How long it ran, ms.
    pub run_ms: Option<u64>,
    /// CPU time, ms.
    pub cpu_ms: Option<u64>,
    /// Peak memory, KiB.
    pub peak_memory_kb: Option<u64>,
    /// A cold start before it, ms.
    pub cold_start_ms: Option<u64>,
    /// What it was expected to cost, nano-USD.
    pub cost_estimate_nano_usd: i64,
    /// What it cost by its measured run time, nano-USD.
    pub cost_nano_usd: Option<i64>,
    /// Files it left.
    pub outputs: Vec<FileView>,
    /// What could not be limited or kept.
    pub notes: Vec<String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileView {
    /// Path in the working folder.
    pub path: String,
    /// BLAKE3.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// Why an item is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The item's key.
    pub item: String,
    /// Its node's name.
    pub node: String,
    /// Its index.
    pub index: u32,
    /// `waiting`, `placeable`, `placed` or `ended`.
    pub state: String,
    /// In words.
    pub text: String,
    /// What a person can do about it.
    pub next_step: Option<String>,
    /// Typed reason or choice.
    pub detail: serde_json::Value,
    /// How many machines its class of items is worth and how long one waits, with prices and alternatives; absent
    /// where not both kinds of place could take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What each place says.
    pub candidates: Vec<CandidateView>,
    /// Attempts so far, oldest first.
    pub attempts: Vec<AttemptView>,
}

/// A place's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CandidateView {
    /// The place.
    pub place: String,
    /// `instance` or `function`.
    pub kind: String,
    /// Why not; absent when it would take the item now.
    pub reason: Option<String>,
    /// Expected cost there, nano-USD.
    pub cost_nano_usd: i64,
}

/// What a session would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// Items in order of their start.
    pub items: Vec<PlannedItem>,
    /// Nodes that would find no place.
    pub stuck: Vec<StuckView>,
    /// Until the last item ends, ms.
    pub total_ms: u64,
    /// Expected cost, nano-USD.
    pub cost_nano_usd: i64,
    /// Some run times are assumed, not stated.
    pub assumed: Vec<String>,
    /// The answer was cut at its limit.
    pub cut: bool,
    /// The same in each running mode, and in each solution by itself.
    #[serde(default)]
    pub modes: Vec<ModeView>,
    /// Which mode the goals pick, and why; absent without a goal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picked: Option<String>,
    /// Why no mode reaches the goals, when none does: a start would be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
    /// Where its groups would be deployed; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentView>,
    /// The caps that would hold for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetView>,
}

/// One item of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedItem {
    /// Node name.
    pub node: String,
    /// Index.
    pub index: u32,
    /// Where.
    pub place: String,
    /// `instance` or `function`.
    pub kind: String,
    /// Why there.
    pub why: String,
    /// From now, ms.
    pub start_ms: u64,
    /// From now, ms.
    pub end_ms: u64,
    /// Expected cost, nano-USD.
    pub cost_nano_usd: i64,
}

/// A node that would find no place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StuckView {
    /// Its name.
    pub node: String,
    /// Why.
    pub reason: String,
    /// What to do about it.
    pub next_step: Option<String>,
}

/// A task or thread in the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DocumentView {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Who wrote it.
    pub user: String,
    /// When, microseconds since the epoch.
    pub at: i64,
    /// The document in its one local form.
    pub document: serde_json::Value,
    /// Fields with their default values (tasks only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<serde_json::Value>,
}

/// A solution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SolutionView {
    /// Its name.
    pub solution: String,
    /// `dedicated` or `shared`.
    pub kind: String,
    /// Facts and prices.
    pub facts: serde_json::Value,
    /// Open attempts.
    pub attempts: u64,
    /// Instances (dedicated).
    pub instances: u64,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// Its name.
    pub instance: String,
    /// Its solution.
    pub solution: String,
    /// `ready`, `draining`, `gone`, ...
    pub state: String,
    /// When its state, or whether it is free, last changed, microseconds since the epoch.
    #[serde(default)]
    pub since: i64,
    /// The cloud's name for it, when we had it made and it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_id: Option<String>,
    /// Its agent's control connection is up.
    pub connected: bool,
    /// Held by no session, and able to take work.
    pub free: bool,
    /// Sessions that hold it.
    pub held_by: Vec<String>,
    /// Slots.
    pub slots: u32,
    /// Open attempts.
    pub attempts: Vec<String>,
    /// CPU in use, percent.
    pub cpu_percent: u32,
    /// Memory in use, MiB.
    pub memory_used_mb: u32,
    /// Memory, MiB.
    pub memory_mb: u32,
    /// CPUs.
    pub cpus: u32,
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub arch: String,
}

/// A secret's name; values are never given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    /// Name.
    pub name: String,
    /// When it was set, microseconds since the epoch.
    pub at: i64,
}

/// A value of a custom metric, for scaling elements that name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricValue {
    /// The value, in the metric's unit; kept to a thousandth.
    pub value: f64,
    /// Of this solution's machines only; of all whose element names the metric, where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solution: Option<String>,
}

/// A metric of a scaling element that the engine carries out, as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricView {
    /// Whose machines.
    pub solution: String,
    /// The element's name.
    pub element: String,
    /// The metric's name.
    pub metric: String,
    /// Unit of its values.
    pub unit: String,
    /// How the values of a period become one.
    pub statistic: String,
    /// Length of a period, seconds.
    pub period_s: u32,
    /// People and programs say its values; others are measured.
    pub custom: bool,
    /// Of the newest whole period; none: nothing was measured or said in it.
    pub value: Option<f64>,
    /// Machines that the element wants now; none: it has not looked yet.
    pub wants: Option<u32>,
    /// Why.
    pub why: Option<String>,
}

/// Sets a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretValue {
    /// The value.
    pub value: String,
}

/// An API token, without the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Public id.
    pub id: String,
    /// Whose.
    pub user: String,
    /// When it was made, microseconds since the epoch.
    pub created_at: i64,
}

/// Asks for an API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// For whom.
    pub user: String,
}

/// A new token; shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// Public id (empty for a join token).
    #[serde(default)]
    pub id: String,
    /// The token.
    pub token: String,
}

/// A piece of an attempt's log, as the follow stream sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPiece {
    /// Attempt key.
    pub attempt: String,
    /// Node name.
    pub node: String,
    /// Index.
    pub index: u32,
    /// `out` or `err`.
    pub stream: String,
    /// Text; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// An event of the change stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its number: the stream's `Last-Event-ID`.
    pub seq: u64,
    /// When, microseconds since the epoch.
    pub at: i64,
    /// What, tagged by `event`.
    pub event: serde_json::Value,
}

/// The engine, as `/healthz` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`; or `unwritten`, with status 503: the last turn could not be written.
    pub status: String,
    /// The engine's identifier.
    pub engine: String,
    /// Version of the program.
    pub version: String,
    /// Why not, when it is not `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a session is paused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PauseRequest {
    /// What runs is stopped, and started again when the session goes on; else it finishes.
    pub stop_running: bool,
}

/// Cancel some of a task's items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Ranges of indices, from and up to but without the second; all of them when there is none.
    #[serde(default)]
    pub ranges: Vec<(u32, u32)>,
}

/// Have items of a task that wait for their back-off tried now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryNowRequest {
    /// Ranges of indices, from and up to but without the second; all of them when there is none.
    #[serde(default)]
    pub ranges: Vec<(u32, u32)>,
}

/// Answer items of a task whose place was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswersRequest {
    /// Try them again; else they end as lost.
    pub again: bool,
    /// Ranges of indices, from and up to but without the second: those of them that ask; all that ask when there is
    /// none.
    #[serde(default)]
    pub ranges: Vec<(u32, u32)>,
}

/// A signal to an attempt that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// Its name, as `USR1` or `SIGUSR1`, or its number.
    pub signal: String,
}

/// Something for the standard input of an attempt that runs (its task says `stdin = true`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InputRequest {
    /// A line, without its end.
    pub line: Option<String>,
    /// Then the end of the input.
    pub end: bool,
}

/// What webhooks are signed with, as the Standard Webhooks specification writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplySecret {
    /// `whsec_` and base64.
    pub secret: String,
}

/// Lines found in a session's logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogSearch {
    /// By task, index and attempt.
    pub hits: Vec<LogHit>,
    /// Bytes looked through.
    pub bytes: u64,
    /// Why not everything was looked through or is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogHit {
    /// Whose log.
    pub attempt: String,
    /// Its task.
    pub node: String,
    /// Its index.
    pub index: u32,
    /// `out` or `err`.
    pub stream: String,
    /// The line's number, from 1.
    pub line: u64,
    /// The line, or its first 500 characters.
    pub text: String,
}

/// A person's answer about an item whose place was lost (`on_lost = "ask"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequest {
    /// Try it again; else it ends as lost.
    pub again: bool,
}

/// Part of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Rows to skip.
    #[serde(default)]
    pub offset: u64,
    /// Most rows, 1 to 1000.
    #[serde(default = "page_limit")]
    pub limit: u32,
}

/// Part of a session's attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AttemptQuery {
    /// Behind this attempt: any page is as quick as the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Rows to skip; the more, the slower.
    #[serde(default)]
    pub offset: u64,
    /// Most rows, 1 to 1000.
    #[serde(default = "page_limit")]
    pub limit: u32,
}

impl From<AttemptQuery> for PageQuery {
    fn from(query: AttemptQuery) -> Self {
        Self { offset: query.offset, limit: query.limit }
    }
}

fn page_limit() -> u32 {
    100
}

impl Default for PageQuery {
    fn default() -> Self {
        Self { offset: 0, limit: page_limit() }
    }
}
