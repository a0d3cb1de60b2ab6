//! The element, carried out on own servers: what its policies want becomes a load, and
//! [`crate::decide::threshold::scale`] decides as it does everywhere, with its cooldowns and limits.
//!
//! ```text
//!   metrics --policies--> machines wanted (the most that any policy wants) --load--+
//!   schedule, group ------------------------------------------------> thresholds --+--> scale --> Up, Down, Stay
//! ```
//! Failure paths: a metric without a value leaves its policies out, and where every policy that could want machines
//! is left out, nothing changes ([`Wanted::machines`] is what is there); a time zone that nobody told is UTC. Fewer
//! machines are wanted only as far as no alarm and no target would bring them back ([`Wanted::turns`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{Alarm, Band, By, Element, Milli, Policy, Unit, Weekly};
use crate::decide::threshold::{Changes, Held, Load, Scale, Threshold, Thresholds, scale};
use crate::id::InstanceId;
use crate::quantity::Timestamp;

/// What is waited after a change where nothing says it, seconds: what clouds wait.
const COOLDOWN_S: u32 = 300;
/// Of a target, ppm: fewer machines are wanted only when they would stay below it.
const TARGET_SLACK_PPM: i128 = 900_000;
const PPM: i128 = 1_000_000;
const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
const WEEK_S: i64 = 7 * DAY_S;

/// How it stands with a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Machines there and coming.
    pub machines: u32,
    /// Machines that may go: with nothing on them, and not among [`kept`].
    pub empty: u32,
    /// By metric: the value of each whole period, the newest first. Values of machines that are not warm are not in
    /// them.
    pub series: BTreeMap<String, Vec<Milli>>,
    /// By metric: the upper bound of what is projected, for the machines that are there.
    pub projected: BTreeMap<String, Milli>,
    /// By time zone: seconds that its clocks are ahead of UTC now.
    pub zones_s: BTreeMap<String, i32>,
}

/// What the policies want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// So many machines, before limits and cooldowns.
    pub machines: u32,
    /// The policy that wants them. None: no policy wants a change.
    pub policy: Option<String>,
    /// What is waited after that policy's change, seconds.
    pub cooldown_s: u32,
    /// Fewer were wanted, and they would have come back.
    pub turns: bool,
}

/// More, fewer, or as it is: pure, the same for the same input.
pub fn evaluate(element: &Element, metrics: &Metrics, changes: &Changes, now: Timestamp) -> Scale {
    let wanted = wanted(element, metrics);
    let thresholds = thresholds(element, metrics, &wanted, now);
    if wanted.turns && metrics.machines <= thresholds.max && metrics.machines >= thresholds.min {
        return Scale::Stay(Held::WouldTurn);
    }
    match scale(&load(element, metrics, &wanted), &thresholds, changes, now) {
        // Not an answer about work: no machine of this group may go.
        Scale::Stay(Held::NoneEmpty) if element.group.protect => Scale::Stay(Held::Limit(metrics.machines)),
        scale => scale,
    }
}

/// The load that stands for what is wanted: a machine is one slot, and each one wanted is in use.
pub fn load(element: &Element, metrics: &Metrics, wanted: &Wanted) -> Load {
    Load {
        machines: metrics.machines,
        slots: 1,
        used: wanted.machines,
        empty: if element.group.protect { 0 } else { metrics.empty },
        ..Load::default()
    }
}

/// Limits and waits at this time: the group's, or those of the schedule that holds now.
pub fn thresholds(element: &Element, metrics: &Metrics, wanted: &Wanted, now: Timestamp) -> Thresholds {
    let (min, max) = scheduled(element, metrics, now).unwrap_or((element.group.min, element.group.max));
    let us = |s: u32| u64::from(s) * 1_000_000;
    let turn_s =
        wanted.cooldown_s.max(element.group.cooldown_s.unwrap_or(COOLDOWN_S)).max(element.group.warm_up_s.unwrap_or(0));
    Thresholds {
        up: Threshold::Free(0),
        down: Threshold::Free(0),
        cooldown_us: us(wanted.cooldown_s),
        turn_us: us(turn_s),
        min,
        max,
        change_max: u32::MAX,
    }
}

/// Machines that nothing ends: for [`crate::decide::threshold::may_go`].
pub fn kept(element: &Element) -> BTreeSet<InstanceId> {
    element.group.do_not_terminate.iter().filter_map(|name| InstanceId::new(name).ok()).collect()
}

/// What the policies want: the most that any of them wants, as every cloud does it.
pub fn wanted(element: &Element, metrics: &Metrics) -> Wanted {
    let there = metrics.machines;
    let stay = Wanted { machines: there, policy: None, cooldown_s: COOLDOWN_S, turns: false };
    let mut most: Option<Wanted> = None;
    for (name, policy) in &element.policies {
        let Some(machines) = wanted_by(element, metrics, policy) else { continue };
        if most.as_ref().is_none_or(|most| machines > most.machines) {
            let cooldown_s = cooldown_s(element, policy);
            most = Some(Wanted { machines, policy: Some(name.clone()), cooldown_s, turns: false });
        }
    }
    let Some(most) = most else { return stay };
    if most.machines == there {
        return stay;
    }
    if most.machines < there {
        let left = (most.machines..there).find(|left| !comes_back(element, metrics, *left));
        return match left {
            Some(machines) => Wanted { machines, ..most },
            None => Wanted { turns: true, ..stay },
        };
    }
    most
}

fn cooldown_s(element: &Element, policy: &Policy) -> u32 {
    let own = match policy {
        Policy::Target { warm_up_s, .. } | Policy::Stepped { warm_up_s, .. } => warm_up_s.or(element.group.warm_up_s),
        Policy::Simple { cooldown_s, .. } => *cooldown_s,
        Policy::Scheduled { .. } | Policy::Predictive { .. } => element.group.warm_up_s,
    };
    own.or(element.group.cooldown_s).unwrap_or(COOLDOWN_S)
}

/// Machines that one policy wants. None: it wants nothing now.
fn wanted_by(element: &Element, metrics: &Metrics, policy: &Policy) -> Option<u32> {
    let there = metrics.machines;
    match policy {
        Policy::Target { metric, target, scale_in, .. } => {
            let value = *metrics.series.get(metric)?.first()?;
            let up = for_target(there, value, *target, PPM);
            if up >= there {
                return Some(up);
            }
            // Fewer only when they stay clearly below the target.
            let down = for_target(there, value, *target, TARGET_SLACK_PPM).min(there);
            Some(if *scale_in { down } else { there })
        }
        Policy::Predictive { metric, target, acts, .. } => {
            let value = *metrics.projected.get(metric)?;
            (*acts).then(|| for_target(there, value, *target, PPM)).filter(|wanted| *wanted > there)
        }
        Policy::Stepped { alarm, by, bands, .. } => {
            let alarm = element.alarms.get(alarm)?;
            let value = alarmed(alarm, metrics)?;
            band(bands, beyond(alarm, value)).map(|change| changed(there, *by, change))
        }
        Policy::Simple { alarm, by, change, .. } => {
            alarmed(element.alarms.get(alarm)?, metrics).map(|_| changed(there, *by, *change))
        }
        Policy::Scheduled { .. } => None,
    }
}

/// As many as bring a mean to its target: the load is the value times the machines that it is the mean of.
fn for_target(there: u32, value: Milli, target: Milli, of_target_ppm: i128) -> u32 {
    let load = i128::from(there.max(1)) * i128::from(value.0.max(0)) * PPM;
    let each = (i128::from(target.0) * of_target_ppm).max(1);
    u32::try_from((load + each - 1) / each).unwrap_or(u32::MAX)
}

/// The newest value, when every one of the alarm's periods is out of bounds.
fn alarmed(alarm: &Alarm, metrics: &Metrics) -> Option<Milli> {
    let periods = usize::try_from(alarm.periods).ok()?.max(1);
    let values = metrics.series.get(&alarm.metric)?.get(..periods)?;
    values.iter().all(|value| alarm.comparison.holds(*value, alarm.threshold)).then(|| values[0])
}

/// How far a value is beyond the alarm's threshold.
fn beyond(alarm: &Alarm, value: Milli) -> Milli {
    let far = value.0.saturating_sub(alarm.threshold.0);
    Milli(if alarm.comparison.is_upper() { far } else { far.saturating_neg() })
}

fn band(bands: &[Band], beyond: Milli) -> Option<i32> {
    bands.iter().rev().find(|band| band.from <= beyond).map(|band| band.change)
}

fn changed(there: u32, by: By, change: i32) -> u32 {
    let apply =
        |machines: u32| if change < 0 { there.saturating_sub(machines) } else { there.saturating_add(machines) };
    match by {
        By::Machines => apply(change.unsigned_abs()),
        By::Percent => {
            let share = u64::from(there) * u64::from(change.unsigned_abs()) / 100;
            apply(u32::try_from(share).unwrap_or(u32::MAX).max(u32::from(change != 0)))
        }
        By::Exactly => u32::try_from(change).unwrap_or(0),
    }
}

/// Would so few machines be wanted back at once? A mean in percent is of the machines that share the work: with fewer
/// of them it grows. Nothing is known of how other metrics move.
fn comes_back(element: &Element, metrics: &Metrics, left: u32) -> bool {
    let moved = |name: &str| -> Option<Milli> {
        let metric = element.metrics.get(name)?;
        let value = *metrics.series.get(name)?.first()?;
        let moves = metric.unit == Unit::Percent && metric.statistic == super::Statistic::Average;
        let grown = i128::from(value.0.max(0)) * i128::from(metrics.machines) / i128::from(left.max(1));
        moves.then(|| Milli(i64::try_from(grown).unwrap_or(i64::MAX)))
    };
    element.policies.values().any(|policy| match policy {
        Policy::Target { metric, target, .. } => moved(metric).is_some_and(|value| value > *target),
        Policy::Stepped { alarm, by, bands, .. } => {
            let of = element.alarms.get(alarm);
            of.and_then(|alarm| Some((alarm, moved(&alarm.metric)?))).is_some_and(|(alarm, value)| {
                alarm.comparison.holds(value, alarm.threshold)
                    && band(bands, beyond(alarm, value)).is_some_and(|change| changed(left, *by, change) > left)
            })
        }
        Policy::Simple { alarm, by, change, .. } => {
            let of = element.alarms.get(alarm);
            of.and_then(|alarm| Some((alarm, moved(&alarm.metric)?))).is_some_and(|(alarm, value)| {
                alarm.comparison.holds(value, alarm.threshold) && changed(left, *by, *change) > left
            })
        }
        Policy::Scheduled { .. } | Policy::Predictive { .. } => false,
    })
}

/// Bounds of the schedule that began last and still holds.
fn scheduled(element: &Element, metrics: &Metrics, now: Timestamp) -> Option<(u32, u32)> {
    let schedules = element.policies.values().filter_map(|policy| match policy {
        Policy::Scheduled { at, zone, for_s, min, max } => {
            let ahead = metrics.zones_s.get(zone).copied().unwrap_or(0);
            let local = now.0.div_euclid(SECOND_US) + i64::from(ahead);
            let since = since(at, local)?;
            let holds = for_s.is_none_or(|s| since < i64::from(s));
            holds.then(|| (since, (*min, max.unwrap_or(element.group.max).max(*min))))
        }
        _ => None,
    });
    schedules.min_by_key(|(since, _)| *since).map(|(_, bounds)| bounds)
}

/// Seconds since it last began: less than a week. `local` counts seconds of local time since 1970.
fn since(at: &Weekly, local: i64) -> Option<i64> {
    // 1 January 1970 was a Thursday, the fourth day.
    let in_week = (local + 3 * DAY_S).rem_euclid(WEEK_S);
    let starts = at.days.iter().map(|day| *day as i64 * DAY_S + i64::from(at.hour) * 3600 + i64::from(at.minute) * 60);
    starts.map(|start| (in_week - start).rem_euclid(WEEK_S)).min()
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
