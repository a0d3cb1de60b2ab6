//! Scaling as people write it, checked.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use skein_api::document::{self, Format};
use skein_domain::InstanceFacts;
use skein_domain::decide::capacity;
use skein_domain::decide::goals::Goals;
use skein_domain::decide::policy::CapacityPolicy;
use skein_domain::decide::threshold::{Threshold, Thresholds};
use skein_domain::scaling::Element;
use skein_domain::solution::{FreeAgents, MachineSize};

use super::convert::{ms, usd, word, wrong};
use super::{BadConfig, FreeConfig, GoalsConfig, MachinesConfig, Scaling, SizeConfig, ThresholdsConfig};

/// `value` percent as parts of a million.
fn ppm(key: &str, percent: f64) -> Result<u32, BadConfig> {
    if !percent.is_finite() || !(0.0..=100.0).contains(&percent) {
        return Err(wrong(key, format!("{percent} is not a percentage: give 0 to 100")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
    Ok((percent * 10_000.0).round() as u32)
}

/// What decides how many machines are had.
pub(super) fn capacity(scaling: &Scaling) -> Result<CapacityPolicy, BadConfig> {
    let base = CapacityPolicy::default();
    let family = capacity::Settings::default();
    let us = |key: &str, value: Option<f64>, default_us: u64| match value {
        Some(_) => ms(&format!("scaling.{key}"), value, 0.0).map(|ms| ms * 1_000),
        None => Ok(default_us),
    };
    let share = |key: &str, value: Option<f64>, default_ppm: u32| {
        value.map_or(Ok(default_ppm), |percent| ppm(&format!("scaling.{key}"), percent))
    };
    let rule = scaling.rule.as_deref();
    Ok(CapacityPolicy {
        rule: rule.map_or(Ok(base.rule), |text| word("scaling.rule", text, "least-cost or price"))?,
        late_budget_ppm: share("late_budget_percent", scaling.late_budget_percent, base.late_budget_ppm)?,
        family: capacity::Settings {
            tick_us: us("look_s", scaling.look_s, family.tick_us)?.max(1_000_000),
            idle_us: us("idle_s", scaling.idle_s, family.idle_us)?,
            memory_us: us("memory_s", scaling.memory_s, family.memory_us)?.max(60_000_000),
            switch_ppm: share("switch_percent", scaling.switch_percent, family.switch_ppm)?,
            ..family
        },
    })
}

/// A policy to be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlayedPolicy {
    /// What decides how many machines are had.
    pub capacity: CapacityPolicy,
    /// People say it instead.
    pub thresholds: Option<Thresholds>,
}

/// A policy from a document: the configuration's `scaling`, by itself or under that key, and beside its keys
/// `thresholds`, `min` and `max` as machines have them. Other keys of a configuration are not looked at where
/// `scaling` is a key.
pub fn played_policy(document: Value) -> Result<PlayedPolicy, BadConfig> {
    let bad = |why: String| wrong("scaling", why);
    let Value::Object(mut document) = document else {
        return Err(bad("write a table of its keys, such as late_budget_percent and thresholds".to_owned()));
    };
    if let Some(Value::Object(inner)) = document.remove("scaling") {
        document = inner;
    }
    let written = document.remove("thresholds").map(serde_json::from_value::<ThresholdsConfig>).transpose();
    let written = written.map_err(|error| wrong("scaling.thresholds", error.to_string()))?;
    let mut limit = |name: &str, default: u32| match document.remove(name) {
        None => Ok(default),
        Some(_) if written.is_none() => {
            Err(bad(format!("'{name}' limits thresholds: give those too, or leave it out")))
        }
        Some(value) => value.as_u64().and_then(|value| u32::try_from(value).ok()).ok_or_else(|| {
            wrong(format!("scaling.{name}"), format!("{value} is not usable: give a number of machines"))
        }),
    };
    let base = Thresholds::default();
    let (min, max) = (limit("min", base.min)?, limit("max", base.max)?);
    let scaling: Scaling = serde_json::from_value(Value::Object(document)).map_err(|error| bad(error.to_string()))?;
    let thresholds = written.map(|config| limited("scaling.thresholds", &config, min, max)).transpose()?;
    Ok(PlayedPolicy { capacity: capacity(&scaling)?, thresholds })
}

/// What sessions are to reach.
pub(super) fn goals(config: &GoalsConfig) -> Result<Goals, BadConfig> {
    let objective = config.objective.as_deref();
    Ok(Goals {
        objective: objective.map(|text| word("goals.objective", text, "cost or speed")).transpose()?,
        cost_max: config.cost_max_usd.map(|value| usd("goals.cost_max_usd", value)).transpose()?,
        within_ms: config.within_s.map(|_| ms("goals.within_s", config.within_s, 0.0)).transpose()?,
        machines_max: config.machines_max,
        spread_ppm: config.spread_percent.map_or(Ok(0), |percent| ppm("goals.spread_percent", percent))?,
    })
}

/// Goals as a launch gives them.
pub(crate) fn asked(request: &skein_api::GoalsRequest) -> Result<Goals, BadConfig> {
    let skein_api::GoalsRequest { objective, cost_max_usd, within_s, machines_max } = request.clone();
    goals(&GoalsConfig { objective, cost_max_usd, within_s, machines_max, spread_percent: None })
}

/// A scaling element's file, in TOML, JSON or YAML.
pub(super) fn element(key: &str, path: &Path) -> Result<Arc<Element>, BadConfig> {
    let said = |why: String| wrong(key, format!("{}: {why}", path.display()));
    let format = Format::of_path(path).map_err(|e| said(e.to_string()))?;
    let bytes = std::fs::read(path).map_err(|e| said(e.to_string()))?;
    let value = document::parse(&bytes, format).map_err(|e| said(e.to_string()))?;
    let element: Element = serde_json::from_value(value).map_err(|e| said(e.to_string()))?;
    element.check().and_then(|()| element.check_here(crate::is_zone)).map_err(|e| said(e.to_string()))?;
    Ok(Arc::new(element))
}

/// Machines kept ready.
pub(super) fn free(key: &str, config: &FreeConfig) -> Result<FreeAgents, BadConfig> {
    if !config.deviations.is_finite() || !(0.0..=100.0).contains(&config.deviations) {
        return Err(wrong(format!("{key}.deviations"), format!("{} is not usable: give 0 to 100", config.deviations)));
    }
    if let Some(max) = config.max.filter(|max| *max < config.min) {
        return Err(wrong(format!("{key}.min"), format!("it is over max ({max})")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
    let deviations_milli = (config.deviations * 1_000.0).round() as u32;
    Ok(FreeAgents {
        min: config.min,
        max: config.max,
        min_cpus: config.min_cpus,
        min_memory_mb: config.min_memory_mb,
        deviations_milli,
        projected: config.projected,
    })
}

/// Other sizes of machines; what they do not say is as the solution's own.
pub(super) fn sizes(key: &str, config: &MachinesConfig, own: &InstanceFacts) -> Result<Vec<MachineSize>, BadConfig> {
    let mut names: BTreeSet<Option<String>> = BTreeSet::from([own.instance_type.as_deref().map(str::to_owned)]);
    let mut size = |(at, size): (usize, &SizeConfig)| {
        let key = format!("{key}.sizes[{at}]");
        if !names.insert(Some(size.instance_type.clone())) {
            return Err(wrong(format!("{key}.instance_type"), format!("'{}' is there already", size.instance_type)));
        }
        let facts = InstanceFacts {
            cpus: size.cpus.max(1),
            memory_mb: size.memory_mb,
            slots: size.slots.unwrap_or(size.cpus).max(1),
            instance_type: Some(size.instance_type.as_str().into()),
            ..own.clone()
        };
        let price_per_hour = usd(&format!("{key}.price_per_hour_usd"), size.price_per_hour_usd)?;
        Ok(MachineSize { price_per_hour, facts })
    };
    config.sizes.iter().enumerate().map(&mut size).collect()
}

/// When more and fewer are wanted.
pub(super) fn thresholds(key: &str, machines: &MachinesConfig) -> Result<Option<Thresholds>, BadConfig> {
    let Some(config) = &machines.thresholds else { return Ok(None) };
    limited(&format!("{key}.thresholds"), config, machines.min, machines.max).map(Some)
}

/// Thresholds, between a least and a most number of machines.
fn limited(key: &str, config: &ThresholdsConfig, min: u32, max: u32) -> Result<Thresholds, BadConfig> {
    let ThresholdsConfig { up_percent, up_free_slots, up_projected, .. } = config;
    let up = one(&format!("{key}.up"), *up_percent, *up_free_slots, *up_projected)?;
    let down = one(&format!("{key}.down"), config.down_percent, config.down_free_slots, config.down_projected)?;
    if let (Threshold::Share(up), Threshold::Share(down)) = (up, down)
        && down >= up
    {
        return Err(wrong(format!("{key}.down_percent"), "give less than up_percent, or machines would come and go"));
    }
    let base = Thresholds::default();
    let us = |name: &str, value: Option<f64>, default_us: u64| match value {
        Some(_) => ms(&format!("{key}.{name}"), value, 0.0).map(|ms| ms * 1_000),
        None => Ok(default_us),
    };
    Ok(Thresholds {
        up,
        down,
        cooldown_us: us("cooldown_s", config.cooldown_s, base.cooldown_us)?,
        turn_us: us("turn_s", config.turn_s, base.turn_us)?,
        min,
        max,
        change_max: config.change_max.unwrap_or(base.change_max).max(1),
    })
}

fn one(key: &str, percent: Option<f64>, free: Option<u32>, projected: bool) -> Result<Threshold, BadConfig> {
    match (percent, free, projected) {
        (Some(percent), None, false) => ppm(&format!("{key}_percent"), percent).map(Threshold::Share),
        (None, Some(free), false) => Ok(Threshold::Free(free)),
        (None, None, true) => Ok(Threshold::Projected),
        _ => Err(wrong(key, format!("give one of {key}_percent, {key}_free_slots and {key}_projected"))),
    }
}
