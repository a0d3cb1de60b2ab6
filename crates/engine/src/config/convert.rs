//! From the file's words to what the parts of the engine use; every value is checked here, so that a
//! bad file is refused whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use skein_domain::decide::{Algorithm, Policy};
use skein_domain::draft::TaskDefaults;
use skein_domain::scaling::Element;
use skein_domain::{
    Balance, CpuSetting, Dedicated, EngineId, HoldPolicy, InstanceFacts, Machines, NanoUsd, RunningMode, Shared,
    SharedPrice, Solution, SolutionId, SolutionKind,
};
use skein_store::Limits;

use super::{BadConfig, Config, MachinesConfig, SharedConfig, SolutionConfig};
use crate::core::Settings;
use crate::plugin::Script;

/// The solution that is always there.
pub const OWN: &str = "own";

const DAY_S: f64 = 86_400.0;
const SECONDS_MAX: f64 = 315_360_000.0;

/// A configuration whose every value is checked.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The file.
    pub config: Config,
    /// For the core.
    pub settings: Settings,
    /// Solutions.
    pub solutions: Vec<Solution>,
    /// For tasks.
    pub defaults: TaskDefaults,
    /// The engine's default mode.
    pub mode: RunningMode,
    /// How sessions hold agents when their thread does not say.
    pub hold: HoldPolicy,
    /// Interval of heartbeats, ms.
    pub heartbeat_ms: u64,
    /// Retention.
    pub limits: Limits,
    /// Interval of the retention, ms.
    pub retention_check_ms: u64,
    /// Most bytes of logs.
    pub logs_bytes_max: u64,
    /// Largest file, bytes.
    pub file_bytes_max: u64,
    /// Most bytes of content.
    pub content_bytes_max: u64,
    /// Content's own folder, when it has one.
    pub content_dir: Option<PathBuf>,
    /// Deployment forms that solutions were given, by profile.
    pub image_profiles: BTreeMap<SolutionId, String>,
    /// Agents may connect.
    pub connection_open: bool,
    /// Further instances may join.
    pub joins_open: bool,
    /// Identifier, when the file names one.
    pub identifier: Option<EngineId>,
    /// The custom algorithm for CPU setting 0, read and tried.
    pub algorithm: Option<Arc<Script>>,
}

pub(super) fn wrong(key: impl Into<String>, why: impl Into<String>) -> BadConfig {
    BadConfig::Value { key: key.into(), why: why.into() }
}

pub(super) fn ms(key: &str, value: Option<f64>, default_s: f64) -> Result<u64, BadConfig> {
    let seconds = value.unwrap_or(default_s);
    if !seconds.is_finite() || !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(wrong(key, format!("{seconds} is not a time: give 0 to {SECONDS_MAX}")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
    Ok((seconds * 1000.0).round() as u64)
}

pub(super) fn usd(key: &str, value: f64) -> Result<NanoUsd, BadConfig> {
    if !value.is_finite() || !(0.0..=1e6).contains(&value) {
        return Err(wrong(key, format!("{value} is not a price: give 0 to 1000000 USD")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked just above")]
    Ok(NanoUsd((value * 1e9).round() as i64))
}

pub(super) fn word<T: DeserializeOwned>(key: &str, text: &str, accepted: &str) -> Result<T, BadConfig> {
    let value = serde_json::Value::String(text.to_owned());
    serde_json::from_value(value).map_err(|_| wrong(key, format!("'{text}' is not known: give {accepted}")))
}

fn name<T: FromStr<Err = skein_domain::id::BadId>>(key: &str, text: &str) -> Result<T, BadConfig> {
    text.parse().map_err(|e: skein_domain::id::BadId| wrong(key, e.to_string()))
}

const MODES: &str = "auto, dedicated, serverless or hybrid";
/// Before the path of a class file.
const LUAU: &str = "luau:";
pub(crate) const SCHEMES: &str = "fewest-tasks, packing, first-fit, lowest-load or by-number";

impl Config {
    /// Checks every value.
    pub fn settle(&self) -> Result<Settled, BadConfig> {
        let content_dir = self.content_dir()?;
        Ok(Settled {
            settings: Settings { policy: self.policy()?, lease_ms: self.lease_ms()? },
            solutions: self.solutions()?,
            defaults: self.task_defaults()?,
            mode: self.mode("defaults.running_mode", self.defaults.running_mode.as_deref())?.unwrap_or_default(),
            hold: HoldPolicy::IdleMs(ms("defaults.hold_idle_s", self.defaults.hold_idle_s, 10.0)?),
            heartbeat_ms: ms("resource_time_check_s", self.resource_time_check_s, 1.0)?.max(50),
            limits: self.limits()?,
            retention_check_ms: ms("retention.check_s", self.retention.check_s, 300.0)?.max(100),
            logs_bytes_max: self.retention.logs_bytes_max.unwrap_or(50 << 30),
            file_bytes_max: self.content.file_bytes_max.unwrap_or(16 << 30),
            content_bytes_max: self.content.bytes_max.unwrap_or(200 << 30),
            content_dir,
            image_profiles: self.image_profiles()?,
            connection_open: self.class(
                "connection",
                &self.classes.connection,
                &["builtin:websocket", "builtin:closed"],
            )? == 0,
            joins_open: self.class("resource", &self.classes.resource, &["builtin:own-servers", "builtin:fixed"])? == 0,
            identifier: self
                .broker
                .engine_identifier
                .as_deref()
                .map(|text| name("broker.engine_identifier", text))
                .transpose()?,
            algorithm: self.script()?.map(Arc::new),
            config: self.clone(),
        })
    }

    /// The mode that a user has set.
    pub fn user_mode(&self, user: &str) -> Option<RunningMode> {
        let text = self.users.get(user)?.running_mode.as_deref()?;
        self.mode("users", Some(text)).ok().flatten()
    }

    /// The mode of the first context rule whose labels are all there.
    pub fn context_mode(&self, labels: &std::collections::BTreeMap<String, String>) -> Option<RunningMode> {
        let rule = self.contexts.iter().find(|rule| rule.labels.iter().all(|(k, v)| labels.get(k) == Some(v)))?;
        self.mode("contexts", Some(&rule.running_mode)).ok().flatten()
    }

    #[expect(clippy::unused_self, reason = "reads as part of the configuration")]
    fn mode(&self, key: &str, text: Option<&str>) -> Result<Option<RunningMode>, BadConfig> {
        text.map(|text| word(key, text, MODES)).transpose()
    }

    #[expect(clippy::unused_self, reason = "reads as part of the configuration")]
    fn class(&self, key: &str, given: &str, known: &[&str]) -> Result<usize, BadConfig> {
        let at = known.iter().position(|k| *k == given);
        at.ok_or_else(|| {
            wrong(format!("classes.{key}"), format!("'{given}' is not known: give {}", known.join(" or ")))
        })
    }

    fn lease_ms(&self) -> Result<u64, BadConfig> {
        let lease = ms("lease_s", self.lease_s, 30.0)?;
        let heartbeat = ms("resource_time_check_s", self.resource_time_check_s, 1.0)?;
        if lease < heartbeat.saturating_mul(3) {
            return Err(wrong(
                "lease_s",
                format!("give at least 3 x resource_time_check_s ({} s)", heartbeat / 1000 * 3),
            ));
        }
        Ok(lease)
    }

    fn policy(&self) -> Result<Policy, BadConfig> {
        let (b, base) = (&self.balancing, Policy::default());
        for rule in &self.contexts {
            self.mode("contexts", Some(&rule.running_mode))?;
        }
        for (user, settings) in &self.users {
            name::<skein_domain::UserName>("users", user)?;
            self.mode("users", settings.running_mode.as_deref())?;
        }
        let protect = self.do_not_terminate.iter().map(|n| name("do_not_terminate", n)).collect::<Result<_, _>>()?;
        Ok(Policy {
            balance: b.scheme.as_deref().map_or(Ok(self.default_scheme()), |s| word("balancing.scheme", s, SCHEMES))?,
            algorithm: self.algorithm()?,
            plan_orders_max: b.plan_orders_max.unwrap_or(256).max(1),
            capacity: super::scaling::capacity(&self.scaling)?,
            goals: super::scaling::goals(&self.goals)?,
            assumed_run_ms: ms("defaults.assumed_run_s", self.defaults.assumed_run_s, 60.0)?,
            tasks_per_instance_max: b.tasks_per_instance_max,
            cpu_ceiling_percent: b.cpu_ceiling_percent,
            instances_per_session_max: b.instances_per_session_max,
            credit_ms: b.credit_ms.unwrap_or(base.credit_ms),
            rebalance_after_ms: base.rebalance_after_ms,
            exclusive_wait_ms: ms("balancing.exclusive_wait_s", b.exclusive_wait_s, 5.0)?,
            weights: b
                .weights
                .iter()
                .map(|(user, w)| Ok((name("balancing.weights", user)?, *w)))
                .collect::<Result<_, _>>()?,
            user_items_max: b.user_items_max,
            items_max: b.items_max,
            forget_gone_ms: ms("retention.gone_hours", self.retention.gone_hours.map(|h| h * 3600.0), DAY_S)?,
            do_not_terminate: protect,
            sites: super::sites::settle(self)?,
            budgets: super::budgets::budgets(&self.budgets)?,
        })
    }

    /// Where machines come and go, full ones let others go; where they stand anyway, work is spread.
    fn default_scheme(&self) -> Balance {
        let makes = |s: &SolutionConfig| matches!(s, SolutionConfig::Dedicated { machines: Some(_), .. });
        if self.solutions.values().any(makes) { Balance::Packing } else { Balance::FewestTasks }
    }

    fn algorithm(&self) -> Result<Algorithm, BadConfig> {
        let tasking = &self.classes.tasking;
        match (tasking.strip_prefix("builtin:"), tasking.strip_prefix(LUAU)) {
            (Some(builtin), _) => Ok(Algorithm::Builtin(word("classes.tasking", builtin, SCHEMES)?)),
            (None, Some(path)) if !path.is_empty() => Ok(Algorithm::Custom { class: tasking.as_str().into() }),
            _ => {
                let why =
                    format!("'{tasking}' is not known: give builtin:{SCHEMES}, or {LUAU}PATH for a class of yours");
                Err(wrong("classes.tasking", why))
            }
        }
    }

    /// The class file that `classes.tasking` names, beside the configuration's own file.
    fn script(&self) -> Result<Option<Script>, BadConfig> {
        let Some(path) = self.classes.tasking.strip_prefix(LUAU) else { return Ok(None) };
        let path = self.folder.as_deref().unwrap_or(Path::new("")).join(path);
        let read = Script::read(&self.classes.tasking, &path, &self.custom);
        read.map(Some).map_err(|why| wrong("classes.tasking", why))
    }

    fn task_defaults(&self) -> Result<TaskDefaults, BadConfig> {
        let (d, base) = (&self.defaults, TaskDefaults::default());
        let cpu = d.cpu.map_or(Ok(base.cpu), CpuSetting::try_from).map_err(|why| wrong("defaults.cpu", why))?;
        let urgency = d.urgency.unwrap_or(base.urgency);
        if urgency > 100 {
            return Err(wrong("defaults.urgency", "give 0 to 100"));
        }
        Ok(TaskDefaults {
            cpu,
            memory_mb: d.memory_mb.unwrap_or(base.memory_mb),
            storage_mb: d.storage_mb.unwrap_or(base.storage_mb),
            grace_ms: ms("defaults.grace_s", d.grace_s, 5.0)?,
            allowed_wait_ms: ms("defaults.allowed_wait_s", d.allowed_wait_s, 10.0)?,
            urgency,
            retries: d.retries.unwrap_or(base.retries),
            on_lost: d
                .on_lost
                .as_deref()
                .map_or(Ok(base.on_lost), |t| word("defaults.on_lost", t, "retry, fail or ask"))?,
        })
    }

    fn limits(&self) -> Result<Limits, BadConfig> {
        let hours = |key, value: Option<f64>, default| ms(key, value.map(|h| h * 3600.0), default);
        Ok(Limits {
            sessions_age_ms: hours("retention.sessions_hours", self.retention.sessions_hours, 30.0 * DAY_S)?,
            events_age_ms: hours("retention.events_hours", self.retention.events_hours, 7.0 * DAY_S)?,
            events_max: self.retention.events_max.unwrap_or(10_000_000),
        })
    }

    fn content_dir(&self) -> Result<Option<PathBuf>, BadConfig> {
        let class = &self.classes.storage;
        match class.strip_prefix("folder:") {
            Some(path) if !path.is_empty() => Ok(Some(path.into())),
            None if class == "builtin:folder" => Ok(None),
            _ => Err(wrong("classes.storage", format!("'{class}' is not known: give builtin:folder or folder:PATH"))),
        }
    }

    fn image_profiles(&self) -> Result<BTreeMap<SolutionId, String>, BadConfig> {
        let named = |(solution, profile): (&String, &String)| {
            let key = format!("images.profiles.{solution}");
            if solution != OWN && !self.solutions.contains_key(solution) {
                return Err(wrong(key, "there is no such solution in 'solutions'".to_owned()));
            }
            Ok((name(&key, solution)?, profile.clone()))
        };
        self.images.profiles.iter().map(named).collect()
    }

    fn solutions(&self) -> Result<Vec<Solution>, BadConfig> {
        let mut all = Vec::new();
        if !self.solutions.contains_key(OWN) {
            let own = SolutionConfig::Dedicated {
                price_per_hour_usd: 0.0,
                slots_max: None,
                timeout_s: None,
                minimum_purchase_usd_per_month: 0.0,
                data_out_usd_per_gb: 0.0,
                machines: None,
            };
            all.push(self.solution(OWN, &own)?);
        }
        for (id, solution) in &self.solutions {
            all.push(self.solution(id, solution)?);
        }
        Ok(all)
    }

    fn solution(&self, id: &str, config: &SolutionConfig) -> Result<Solution, BadConfig> {
        let key = format!("solutions.{id}");
        let kind = match config {
            SolutionConfig::Dedicated { price_per_hour_usd, slots_max, timeout_s, machines, .. } => {
                SolutionKind::Dedicated(Dedicated {
                    price_per_hour: usd(&format!("{key}.price_per_hour_usd"), *price_per_hour_usd)?,
                    slots_max: self.vm_slots(id)?.or(*slots_max),
                    timeout_ms: ms(&format!("{key}.timeout_s"), *timeout_s, DAY_S)?,
                    machines: machines.as_deref().map(|m| self.machines(&format!("{key}.machines"), m)).transpose()?,
                })
            }
            SolutionConfig::Shared(shared) => SolutionKind::Shared(shared_facts(&key, shared)?),
        };
        let (SolutionConfig::Dedicated { minimum_purchase_usd_per_month: minimum, .. }
        | SolutionConfig::Shared(SharedConfig { minimum_purchase_usd_per_month: minimum, .. })) = config;
        let minimum_purchase =
            super::money(*minimum).map_err(|why| wrong(format!("{key}.minimum_purchase_usd_per_month"), why))?;
        let (SolutionConfig::Dedicated { data_out_usd_per_gb: out, .. }
        | SolutionConfig::Shared(SharedConfig { data_out_usd_per_gb: out, .. })) = config;
        let per_gb_out = usd(&format!("{key}.data_out_usd_per_gb"), *out)?;
        Ok(Solution { id: name::<SolutionId>(&key, id)?, kind, minimum_purchase, per_gb_out })
    }

    fn machines(&self, key: &str, config: &MachinesConfig) -> Result<Machines, BadConfig> {
        Ok(Machines { element: self.element(key, config)?, ..machine_facts(key, config)? })
    }

    /// Files of scaling elements, by solution.
    pub(crate) fn element_files(&self) -> impl Iterator<Item = PathBuf> {
        let folder = self.folder.as_deref().unwrap_or(Path::new(""));
        self.solutions.values().filter_map(move |solution| match solution {
            SolutionConfig::Dedicated { machines: Some(machines), .. } => {
                machines.scaling_element.as_ref().map(|path| folder.join(path))
            }
            _ => None,
        })
    }

    /// The scaling element that a solution's machines go by.
    fn element(&self, key: &str, config: &MachinesConfig) -> Result<Option<Arc<Element>>, BadConfig> {
        let Some(path) = &config.scaling_element else { return Ok(None) };
        let path = self.folder.as_deref().unwrap_or(Path::new("")).join(path);
        super::scaling::element(&format!("{key}.scaling_element"), &path).map(Some)
    }

    /// The VM configuration file's `slots`, which holds over the solution's own `slots_max`.
    fn vm_slots(&self, id: &str) -> Result<Option<u32>, BadConfig> {
        let Some(path) = self.vm_configuration_files.get(id) else { return Ok(None) };
        let key = format!("vm_configuration_files.{id}");
        let text = std::fs::read_to_string(path).map_err(|e| wrong(&key, format!("{}: {e}", path.display())))?;
        let value: VmConfig =
            serde_json::from_str(&text).map_err(|e| wrong(&key, format!("{}: {e}", path.display())))?;
        Ok(value.slots)
    }
}

/// How instances of a solution are made; `slots` is what running ones take at once.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct VmConfig {
    slots: Option<u32>,
    /// The user's own additions.
    #[serde(rename = "custom")]
    _custom: serde_json::Value,
}

fn machine_facts(key: &str, config: &MachinesConfig) -> Result<Machines, BadConfig> {
    for (name, command) in [("create", &config.create), ("end", &config.end), ("list", &config.list)] {
        if command.first().is_none_or(String::is_empty) {
            return Err(wrong(format!("{key}.{name}"), "give a program and its arguments"));
        }
    }
    if config.min > config.max {
        return Err(wrong(format!("{key}.min"), format!("it is over max ({})", config.max)));
    }
    ms(&format!("{key}.command_s"), config.command_s, 120.0)?;
    let cpus = config.cpus.unwrap_or(1).max(1);
    let text = |value: &Option<String>| value.as_deref().map(Arc::from);
    let facts = InstanceFacts {
        cpus,
        memory_mb: config.memory_mb.unwrap_or(1024),
        storage_mb: config.storage_mb.unwrap_or(10_240),
        os: config.os.as_deref().unwrap_or("linux").into(),
        arch: config.arch.as_deref().unwrap_or(std::env::consts::ARCH).into(),
        slots: config.slots.unwrap_or(cpus).max(1),
        instance_type: text(&config.instance_type),
        role: text(&config.role),
        image: text(&config.image),
        resources: config.resources.iter().map(|(name, n)| (Arc::from(name.as_str()), *n)).collect(),
        container: config.container,
    };
    Ok(Machines {
        min: config.min,
        max: config.max,
        idle_ms: ms(&format!("{key}.idle_s"), config.idle_s, 300.0)?,
        boot_ms: ms(&format!("{key}.boot_s"), config.boot_s, 600.0)?,
        avoid_ms: ms(&format!("{key}.avoid_s"), config.avoid_s, 30.0)?,
        list_ms: ms(&format!("{key}.list_s"), config.list_s, 60.0)?.max(1000),
        typical_boot_ms: ms(&format!("{key}.typical_boot_s"), config.typical_boot_s, 60.0)?,
        min_billed_ms: ms(&format!("{key}.min_billed_s"), config.min_billed_s, 60.0)?,
        cpus_max: config.cpus_max,
        free: super::scaling::free(&format!("{key}.free"), &config.free)?,
        thresholds: super::scaling::thresholds(key, config)?,
        element: None,
        sizes: super::scaling::sizes(key, config, &facts)?,
        facts,
    })
}

fn shared_facts(key: &str, shared: &SharedConfig) -> Result<Shared, BadConfig> {
    if !shared.url.starts_with("http://") && !shared.url.starts_with("https://") {
        return Err(wrong(format!("{key}.url"), format!("'{}' is not an http or https URL", shared.url)));
    }
    Ok(Shared {
        url: shared.url.trim_end_matches('/').to_owned(),
        timeout_ms: ms(&format!("{key}.timeout_s"), shared.timeout_s, 900.0)?,
        concurrency: shared.concurrency.unwrap_or(8),
        memory_mb_max: shared.memory_mb_max.unwrap_or(10_240),
        price: SharedPrice {
            per_request: usd(&format!("{key}.price.per_request_usd"), shared.price.per_request_usd)?,
            per_gb_s: usd(&format!("{key}.price.per_gb_s_usd"), shared.price.per_gb_s_usd)?,
            granularity_ms: shared.price.granularity_ms.max(1),
            min_billed_ms: shared.price.min_billed_ms,
            bills_cold: shared.price.bills_cold,
        },
        cold_start_ms: shared.cold_start_ms.unwrap_or(800),
        keepalive_ms: ms(&format!("{key}.keepalive_s"), shared.keepalive_s, 420.0)?,
        min_warm: shared.min_warm,
        warm_max: shared.warm_max.unwrap_or(shared.min_warm).max(shared.min_warm),
        os: shared.os.clone().unwrap_or_else(|| std::env::consts::OS.to_owned()),
        arch: shared.arch.clone().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
    })
}

/// Shared by every part that needs the configuration in force.
pub type Current = Arc<std::sync::RwLock<Arc<Settled>>>;
