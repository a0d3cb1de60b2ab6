//! The configuration [0052]: one JSON file with a published schema, re-read live. A bad file is
//! reported with line and reason, and the one before stays in force.

mod budgets;
mod convert;
mod scaling;
mod sites;

pub(crate) use budgets::money;
pub use budgets::{BudgetsConfig, CapConfig};
pub(crate) use convert::SCHEMES;
pub use convert::{Current, OWN, Settled};
pub(crate) use scaling::asked as asked_goals;
pub use scaling::{PlayedPolicy, played_policy};
pub use sites::{RackConfig, ServerConfig, SiteConfig};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// It cannot be read.
    #[error("the configuration {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what the schema says.
    #[error("the configuration {} is not valid: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        why: String,
    },
    /// A value cannot be used.
    #[error("the configuration's '{key}': {why}")]
    Value {
        /// The key.
        key: String,
        /// Why, and what is accepted.
        why: String,
    },
}

/// The file. Every key may be left out; sizes, times and prices carry their unit in their name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where agents connect, and the identifier that routes to this engine.
    pub broker: Broker,
    /// Which classes do what.
    pub classes: Classes,
    /// Logging of the engine's own components, and where tasks' logs are kept.
    pub logging: Logging,
    /// How often agents measure and report, s (default 1).
    pub resource_time_check_s: Option<f64>,
    /// An agent that has not reported for this long is taken as gone, s (default 30).
    pub lease_s: Option<f64>,
    /// Instances that are never ended or drained, whatever their load.
    pub do_not_terminate: Vec<String>,
    /// How instances are made, by solution: a JSON file each, re-read live.
    pub vm_configuration_files: BTreeMap<String, PathBuf>,
    /// Addresses of the parts, as others are to reach them (`engine`, `broker`).
    pub addresses: BTreeMap<String, String>,
    /// Solutions by name; `own` is there even when it is not named.
    pub solutions: BTreeMap<String, SolutionConfig>,
    /// Sites, racks and servers by name: where instances are, for threads with groups.
    pub sites: BTreeMap<String, SiteConfig>,
    /// Values for what tasks leave open.
    pub defaults: Defaults,
    /// Settings of users, by name.
    pub users: BTreeMap<String, UserConfig>,
    /// Running modes by context: the first rule whose labels the session has.
    pub contexts: Vec<ContextRule>,
    /// Balancing.
    pub balancing: Balancing,
    /// What sessions are to reach that leave their running mode to the engine.
    pub goals: GoalsConfig,
    /// How many machines are had where shared solutions could take the work too.
    pub scaling: Scaling,
    /// The most that may be spent.
    pub budgets: BudgetsConfig,
    /// Telling receivers (`reply_to`).
    pub replies: Replies,
    /// How long things are kept.
    pub retention: Retention,
    /// Limits of the content folder.
    pub content: ContentConfig,
    /// The image database.
    pub images: ImagesConfig,
    /// A folder of task and thread documents, loaded at start and watched.
    pub tasks_directory: Option<PathBuf>,
    /// Yours: kept, and handed to classes.
    pub custom: Map<String, Value>,
    /// Where the file is: paths of classes start there.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
}

/// The broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Broker {
    /// Where agents connect: `http://ADDRESS:PORT` opens a listener of its own for them; absent: the
    /// API's port.
    pub url: Option<String>,
    /// This engine's identifier: messages, tokens and names carry it. Agents of another are refused.
    pub engine_identifier: Option<String>,
}

/// Class names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Classes {
    /// The broker: `builtin:websocket`, or `builtin:closed` (no agent connects).
    pub connection: String,
    /// Places tasks with CPU setting 0: `builtin:fewest-tasks`, `builtin:packing`, `builtin:first-fit`, or
    /// `luau:PATH`: a class of yours in Luau, from the configuration's folder, read again when it changes. When it
    /// fails, `balancing.scheme` places.
    pub tasking: String,
    /// Instances: `builtin:own-servers`, or `builtin:fixed` (no further instance joins).
    pub resource: String,
    /// Where content is kept: `builtin:folder`, or `folder:PATH`.
    pub storage: String,
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            connection: "builtin:websocket".into(),
            tasking: "builtin:fewest-tasks".into(),
            resource: "builtin:own-servers".into(),
            storage: "builtin:folder".into(),
        }
    }
}

/// Logging.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Logging {
    /// A JSON file of levels by component, as `{"engine": "debug", "http": "warn"}`; watched.
    pub configuration_file: Option<PathBuf>,
    /// Where tasks' logs are kept (default: `logs` in the engine's folder).
    pub logs_directory: Option<PathBuf>,
}

/// A solution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SolutionConfig {
    /// Instances under our control.
    Dedicated {
        /// Price of one instance, USD per hour.
        #[serde(default)]
        price_per_hour_usd: f64,
        /// Most attempts on one instance at a time.
        #[serde(default)]
        slots_max: Option<u32>,
        /// Longest run time of tasks that state none, s (default one day).
        #[serde(default)]
        timeout_s: Option<f64>,
        /// Paid each month in any case, USD: until so much was used, using it costs nothing more.
        #[serde(default)]
        minimum_purchase_usd_per_month: f64,
        /// What a GiB of outputs that leaves it costs, USD.
        #[serde(default)]
        data_out_usd_per_gb: f64,
        /// Machines that are made and ended as work comes and goes.
        #[serde(default)]
        machines: Option<Box<MachinesConfig>>,
    },
    /// A gateway.
    Shared(SharedConfig),
}

/// Machines of a solution, made and ended by commands of yours.
///
/// Each command gets `SKEIN_ENGINE` (this engine's identifier: put it on the machine as a tag),
/// `SKEIN_SOLUTION` and, but for `list`, `SKEIN_NAME` (the machine's name, a tag too).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachinesConfig {
    /// Makes a machine of this name, unless there is one, whose agent joins with `SKEIN_URL` and
    /// `SKEIN_JOIN`; prints the cloud's name for it. Ending with 75 says: no capacity now.
    pub create: Vec<String>,
    /// Ends every machine of this name; none is fine.
    pub end: Vec<String>,
    /// Prints a line `ENGINE NAME CLOUD_NAME` for each machine, by its tags; those of other engines may be
    /// among them.
    pub list: Vec<String>,
    /// Longest run of one command, s (default 120).
    #[serde(default)]
    pub command_s: Option<f64>,
    /// Kept even when nothing waits (default 0).
    #[serde(default)]
    pub min: u32,
    /// Most at a time.
    pub max: u32,
    /// One that no session has held for so long is ended, s (default 300).
    #[serde(default)]
    pub idle_s: Option<f64>,
    /// One whose agent has not joined by then is ended, s (default 600).
    #[serde(default)]
    pub boot_s: Option<f64>,
    /// After a command has made none, the next is tried after this, s (default 30).
    #[serde(default)]
    pub avoid_s: Option<f64>,
    /// How often what there is is compared with what there should be, s (default 60).
    #[serde(default)]
    pub list_s: Option<f64>,
    /// Typical time until its agent joins, s, until some were measured (default 60).
    #[serde(default)]
    pub typical_boot_s: Option<f64>,
    /// Least time that is paid for one, s (default 60).
    #[serde(default)]
    pub min_billed_s: Option<f64>,
    /// Most logical CPUs of all together, as clouds count quotas.
    #[serde(default)]
    pub cpus_max: Option<u32>,
    /// Those that no session holds, kept ready.
    #[serde(default)]
    pub free: FreeConfig,
    /// A file with a scaling element (`skein scaling check`): its policies say when more and fewer are wanted. `cpu`,
    /// `memory`, `slots` (percent) and `queue` (items that wait) are measured once a minute.
    #[serde(default)]
    pub scaling_element: Option<PathBuf>,
    /// When more and fewer are wanted, if not the engine says so.
    #[serde(default)]
    pub thresholds: Option<ThresholdsConfig>,
    /// Attempts at a time (default: `cpus`).
    #[serde(default)]
    pub slots: Option<u32>,
    /// Logical CPUs (default 1).
    #[serde(default)]
    pub cpus: Option<u32>,
    /// MiB (default 1024).
    #[serde(default)]
    pub memory_mb: Option<u32>,
    /// MiB (default 10240).
    #[serde(default)]
    pub storage_mb: Option<u32>,
    /// Operating system (default `linux`).
    #[serde(default)]
    pub os: Option<String>,
    /// Architecture (default: this machine's).
    #[serde(default)]
    pub arch: Option<String>,
    /// The cloud's instance type.
    #[serde(default)]
    pub instance_type: Option<String>,
    /// Role that tasks may ask for.
    #[serde(default)]
    pub role: Option<String>,
    /// The VM image it runs.
    #[serde(default)]
    pub image: Option<String>,
    /// Counted resources.
    #[serde(default)]
    pub resources: BTreeMap<String, u64>,
    /// Containers run there (default false).
    #[serde(default)]
    pub container: bool,
    /// Other sizes that may be made instead: the engine has the one made that costs least for the work there is;
    /// `create` gets its type as `SKEIN_INSTANCE_TYPE`.
    #[serde(default)]
    pub sizes: Vec<SizeConfig>,
}

/// Another size of machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SizeConfig {
    /// The cloud's instance type.
    pub instance_type: String,
    /// Price of one, USD per hour.
    pub price_per_hour_usd: f64,
    /// Logical CPUs.
    pub cpus: u32,
    /// MiB.
    pub memory_mb: u32,
    /// Attempts at a time (default: `cpus`).
    #[serde(default)]
    pub slots: Option<u32>,
}

/// A shared solution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedConfig {
    /// The gateway's URL.
    pub url: String,
    /// Bearer key of the gateway.
    #[serde(default)]
    pub key: Option<String>,
    /// The cloud ends an invocation after this, s (default 900).
    #[serde(default)]
    pub timeout_s: Option<f64>,
    /// Most invocations at a time (default 8).
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// Largest memory of an invocation, MiB (default 10240).
    #[serde(default)]
    pub memory_mb_max: Option<u32>,
    /// What it costs.
    #[serde(default)]
    pub price: PriceConfig,
    /// Paid each month in any case, USD: until so much was used, using it costs nothing more.
    #[serde(default)]
    pub minimum_purchase_usd_per_month: f64,
    /// What a GiB of outputs that leaves it costs, USD.
    #[serde(default)]
    pub data_out_usd_per_gb: f64,
    /// Start of a cold instance, 99th percentile, ms (default 800).
    #[serde(default)]
    pub cold_start_ms: Option<u64>,
    /// An instance with nothing to do stays warm for so long, s (default 420).
    #[serde(default)]
    pub keepalive_s: Option<f64>,
    /// Instances kept warm (default 0).
    #[serde(default)]
    pub min_warm: u32,
    /// Most instances that are reserved for work that waits and is about to come (default: `min_warm`).
    #[serde(default)]
    pub warm_max: Option<u32>,
    /// Operating system (default `linux`).
    #[serde(default)]
    pub os: Option<String>,
    /// Architecture (default: this machine's).
    #[serde(default)]
    pub arch: Option<String>,
}

/// A serverless price.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PriceConfig {
    /// USD per request.
    pub per_request_usd: f64,
    /// USD per GB-second.
    pub per_gb_s_usd: f64,
    /// Billed time is rounded up to this, ms.
    pub granularity_ms: u64,
    /// Least billed time, ms.
    pub min_billed_ms: u64,
    /// The start of a cold instance is billed.
    pub bills_cold: bool,
}

/// Values for what tasks leave open.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// `auto`, `dedicated`, `serverless` or `hybrid` (default `auto`).
    pub running_mode: Option<String>,
    /// CPU setting, 0-100 (default 0).
    pub cpu: Option<u8>,
    /// MiB (default 256).
    pub memory_mb: Option<u32>,
    /// MiB (default 0).
    pub storage_mb: Option<u32>,
    /// From SIGTERM to SIGKILL, s (default 5).
    pub grace_s: Option<f64>,
    /// Patience, s (default 10).
    pub allowed_wait_s: Option<f64>,
    /// 0-100 (default 50).
    pub urgency: Option<u8>,
    /// More tries after a failure (default 0).
    pub retries: Option<u32>,
    /// `retry`, `fail` or `ask` (default `retry`).
    pub on_lost: Option<String>,
    /// Run time assumed for prices when nothing is known, s (default 60).
    pub assumed_run_s: Option<f64>,
    /// A session keeps an idle instance this long, s (default 10).
    pub hold_idle_s: Option<f64>,
}

/// A user's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserConfig {
    /// The user's running mode.
    pub running_mode: Option<String>,
}

/// A context rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContextRule {
    /// Labels that the session must have.
    pub labels: BTreeMap<String, String>,
    /// The mode then.
    pub running_mode: String,
}

/// What sessions are to reach that leave their running mode to the engine. A launch may say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GoalsConfig {
    /// `cost` or `speed`: what is best among the modes that reach the rest.
    pub objective: Option<String>,
    /// Most that one session may cost, USD.
    pub cost_max_usd: Option<f64>,
    /// Time within which one is to end, s.
    pub within_s: Option<f64>,
    /// Most machines that may be made for one.
    pub machines_max: Option<u32>,
    /// Work is spread between shared solutions, and between clouds that make machines, that cost at most this much more
    /// than the cheapest, percent (default 0: the cheapest takes what it has room for).
    pub spread_percent: Option<f64>,
}

/// How many machines are had, where shared solutions could take the work too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scaling {
    /// `least-cost` (default: what would have cost least of late) or `price` (machines wherever a slot costs less
    /// than an invocation, none where it costs more).
    pub rule: Option<String>,
    /// Items that may start later than they are allowed to wait, percent (default 0.1).
    pub late_budget_percent: Option<f64>,
    /// Time between two looks, s (default 15).
    pub look_s: Option<f64>,
    /// A machine beyond what is worth having goes after it was free for so long, s (default 15).
    pub idle_s: Option<f64>,
    /// What something cost so long ago counts a third, s (default 21600).
    pub memory_s: Option<f64>,
    /// Another rule is followed when it would have cost less by this, percent (default 3).
    pub switch_percent: Option<f64>,
}

/// Machines that no session holds, kept ready; the most that any of these asks for is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FreeConfig {
    /// At least so many.
    pub min: u32,
    /// At most so many; beyond it they go at once.
    pub max: Option<u32>,
    /// With so many logical CPUs together.
    pub min_cpus: u32,
    /// With so much memory together, MiB.
    pub min_memory_mb: u64,
    /// With slots for so many standard deviations of the last hour's demand.
    pub deviations: f64,
    /// With slots for what is projected beyond what is in use.
    pub projected: bool,
}

/// When more and fewer machines are wanted; one way up and one way down.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdsConfig {
    /// More above this share of slots in use, percent.
    pub up_percent: Option<f64>,
    /// More below so many free slots.
    pub up_free_slots: Option<u32>,
    /// More when what is projected finds no room.
    pub up_projected: bool,
    /// Fewer below this share of slots in use, percent.
    pub down_percent: Option<f64>,
    /// Fewer above so many free slots.
    pub down_free_slots: Option<u32>,
    /// Fewer when what is projected leaves room.
    pub down_projected: bool,
    /// No second change in the same direction for so long, s (default 60).
    pub cooldown_s: Option<f64>,
    /// No change in the other direction for so long, s (default 300).
    pub turn_s: Option<f64>,
    /// Most machines of one change (default 64).
    pub change_max: Option<u32>,
}

/// Balancing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Balancing {
    /// For tasks with CPU setting 1-100 that ask for no scheme: `fewest-tasks` (default), `packing`, `first-fit`.
    pub scheme: Option<String>,
    /// Most attempts on one instance.
    pub tasks_per_instance_max: Option<u32>,
    /// No new attempt on an instance whose CPU use is at or above this, percent.
    pub cpu_ceiling_percent: Option<u32>,
    /// Most instances one session holds.
    pub instances_per_session_max: Option<u32>,
    /// Most orders of one pass (default 256).
    pub plan_orders_max: Option<u32>,
    /// Short items that may wait at an agent for each slot, ms of their typical run time (default 50);
    /// 0 sends nothing ahead.
    pub credit_ms: Option<u32>,
    /// An item that needs much at once (an instance alone, several slots, counted resources, a set that starts
    /// together) and comes behind a stream of others waits this long, s (default 5); then its room is reserved
    /// before they go on. Behind what is only a queue it has its turn without that.
    pub exclusive_wait_s: Option<f64>,
    /// Shares of users when several wait, against 100 for those not named.
    pub weights: BTreeMap<String, u32>,
    /// Most items of one user that have not ended; more are refused.
    pub user_items_max: Option<u64>,
    /// Most items of all users that have not ended; more are refused.
    pub items_max: Option<u64>,
}

/// Telling receivers of tasks' status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replies {
    /// Folder of `file:NAME` (default: `replies` in the engine's folder).
    pub directory: Option<PathBuf>,
    /// `command:PROGRAM ARGS` may be used: it runs as the engine (default false).
    pub commands: bool,
}

/// How long things are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Ended sessions with their items, attempts, logs and files, hours (default 720 = 30 days).
    pub sessions_hours: Option<f64>,
    /// Instances that are gone, hours (default 24).
    pub gone_hours: Option<f64>,
    /// Events, hours (default 168 = 7 days).
    pub events_hours: Option<f64>,
    /// Most events (default 10 million).
    pub events_max: Option<u64>,
    /// Most bytes of logs: beyond, the oldest sessions' logs are removed (default 50 GiB).
    pub logs_bytes_max: Option<u64>,
    /// How often it is looked at, s (default 300).
    pub check_s: Option<f64>,
}

/// The image database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesConfig {
    /// Folder of the images' bytes (default `images` in the engine's folder). Taken at the start.
    pub directory: Option<PathBuf>,
    /// An object store for the images' bytes instead: `service` (`s3`, `azblob`, `gcs`, `oss`, `swift`), `bucket` or
    /// `container`, `root` (a prefix of this engine's own), `endpoint` and the service's keys. A text `secret:NAME` is
    /// that secret's value. Taken at the start.
    pub store: Option<BTreeMap<String, String>>,
    /// Deployment form of each solution, by the profile's name (default `kvm` for dedicated, `container` for shared
    /// solutions). Profiles of your own are `profiles/NAME.toml` in the engine's folder.
    pub profiles: BTreeMap<String, String>,
    /// Places that images are brought to ('skein image deploy'), by name.
    pub destinations: BTreeMap<String, DestinationConfig>,
}

/// A place that images are brought to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationConfig {
    /// The form that images have there, by the profile's name.
    pub profile: String,
    /// The solution whose machines start from them (default: the destination's own name).
    #[serde(default)]
    pub solution: Option<String>,
    /// The upload transport and what it needs: `{"transport": "file", "dir": PATH}`, or `s3`, `ebs_blocks`,
    /// `azure_pages`, `gcs`, `glance` with endpoint, place and login. A text `secret:NAME` is that secret's value.
    pub at: Value,
}

/// Limits of the content folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContentConfig {
    /// Largest file, bytes (default 16 GiB).
    pub file_bytes_max: Option<u64>,
    /// Most bytes of the whole folder: beyond, nothing new is taken until old sessions are removed
    /// (default 200 GiB).
    pub bytes_max: Option<u64>,
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, BadConfig> {
        let text = std::fs::read_to_string(path).map_err(|source| BadConfig::Read { path: path.to_owned(), source })?;
        let mut config: Self =
            serde_json::from_str(&text).map_err(|e| BadConfig::Syntax { path: path.to_owned(), why: e.to_string() })?;
        config.folder = path.parent().map(Path::to_owned);
        config.settle()?;
        Ok(config)
    }

    /// The published schema, pretty JSON.
    pub fn schema() -> String {
        let schema = schemars::schema_for!(Self);
        serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
    }
}
