//! What an element must be like, in words that name the field and what to write instead.

use std::collections::BTreeSet;

use super::{Alarm, By, Element, Policy, Unit};

/// Most metrics, alarms or policies of one element.
pub const ENTRIES_MAX: usize = 50;
/// Minutes of a metric that are kept where the engine carries an element out: a week.
pub const MINUTES_MAX: u32 = 7 * 1_440;
/// Metrics that the engine measures too where it carries an element out.
const HERE: [&str; 2] = ["slots", "queue"];
/// Most disks of a machine.
const DISKS_MAX: usize = 12;
/// Metrics that clouds measure themselves, and their units.
const STANDARD: [(&str, Unit); 6] = [
    ("cpu", Unit::Percent),
    ("memory", Unit::Percent),
    ("network_in", Unit::Bytes),
    ("network_out", Unit::Bytes),
    ("disk_read", Unit::Bytes),
    ("disk_write", Unit::Bytes),
];
/// Most machines of a group.
pub const MACHINES_MAX: u32 = 10_000;
/// Longest time of an element, seconds: a day.
pub const SECONDS_MAX: u32 = 86_400;
/// Most periods of an alarm: a day of minutes.
const PERIODS_MAX: u32 = 1440;
/// Largest user data, bytes.
pub const USER_DATA_BYTES_MAX: usize = 16_384;
/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 32;

/// Does the engine measure it itself, where it carries an element out? Every other metric is custom.
pub fn is_measured(metric: &str) -> bool {
    STANDARD.iter().any(|(name, _)| *name == metric) || HERE.contains(&metric)
}

/// An element that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct BadElement {
    /// Which field, as a path: `policies.up.alarm`.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

type Checked = Result<(), BadElement>;

fn bad<T>(field: impl Into<String>, why: impl Into<String>) -> Result<T, BadElement> {
    Err(BadElement { field: field.into(), why: why.into() })
}

fn name(field: &str, text: &str) -> Checked {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if plain && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    bad(
        field,
        format!(
            "'{text}' is no name: use 1 to {NAME_BYTES_MAX} lower-case letters, digits, '-' or '_', a letter first"
        ),
    )
}

fn seconds(field: &str, value: Option<u32>) -> Checked {
    match value {
        Some(s) if s > SECONDS_MAX => bad(field, format!("{s} s is more than {SECONDS_MAX} s")),
        _ => Ok(()),
    }
}

fn change(field: &str, by: By, change: i32) -> Checked {
    match by {
        By::Exactly if change < 0 => bad(field, "an exact number of machines is never negative"),
        By::Machines | By::Percent if change == 0 => bad(field, "0 changes nothing"),
        _ => Ok(()),
    }
}

impl Element {
    /// Does it hold together? The first thing that does not is named.
    pub fn check(&self) -> Checked {
        name("name", &self.name)?;
        if self.name.contains('_') {
            return bad("name", "must not contain '_': it becomes a host's name");
        }
        for (what, count, most) in [
            ("metrics", self.metrics.len(), ENTRIES_MAX),
            ("alarms", self.alarms.len(), ENTRIES_MAX),
            ("policies", self.policies.len(), ENTRIES_MAX),
            ("launch.disks", self.launch.disks.len(), DISKS_MAX),
        ] {
            if count > most {
                return bad(what, format!("{count} are more than {most}"));
            }
        }
        self.check_launch()?;
        self.check_group()?;
        for (key, metric) in &self.metrics {
            let at = format!("metrics.{key}");
            name(&at, key)?;
            seconds(&format!("{at}.period_s"), Some(metric.period_s))?;
            if metric.period_s == 0 {
                return bad(format!("{at}.period_s"), "must be at least 1 s");
            }
            if let Some((_, unit)) = STANDARD.iter().find(|(standard, unit)| standard == key && *unit != metric.unit) {
                return bad(
                    format!("{at}.unit"),
                    format!("'{key}' is measured in {unit:?}: give another metric a name of its own"),
                );
            }
        }
        for (key, alarm) in &self.alarms {
            self.check_alarm(key, alarm)?;
        }
        for (key, policy) in &self.policies {
            let at = format!("policies.{key}");
            name(&at, key)?;
            self.check_policy(&at, policy)?;
        }
        Ok(())
    }

    /// Can the engine carry it out itself? Beyond [`Element::check`], which holds for every cloud. `is_zone` knows the
    /// names of time zones.
    pub fn check_here(&self, is_zone: impl Fn(&str) -> bool) -> Checked {
        for (key, metric) in &self.metrics {
            let minutes = self.looks_back_minutes(key);
            if minutes > MINUTES_MAX {
                let alarms = "its alarms look at, one after the other";
                return bad(
                    format!("metrics.{key}.period_s"),
                    format!(
                        "{} s and the periods that {alarms} are {minutes} minutes: more than {MINUTES_MAX} are not kept",
                        metric.period_s
                    ),
                );
            }
        }
        for (key, policy) in &self.policies {
            if let Policy::Scheduled { zone, .. } = policy
                && !is_zone(zone)
            {
                return bad(
                    format!("policies.{key}.zone"),
                    format!(
                        "there is no time zone '{zone}': give a name of the tz database, such as Europe/Paris, or UTC"
                    ),
                );
            }
        }
        Ok(())
    }

    /// Minutes of a metric that its policies look at; 0 for a metric that it does not have.
    pub fn looks_back_minutes(&self, metric: &str) -> u32 {
        let Some(period) = self.metrics.get(metric).map(|metric| metric.period_s.div_ceil(60).max(1)) else { return 0 };
        let alarms = self.alarms.values().filter(|alarm| alarm.metric == metric);
        alarms.map(|alarm| alarm.periods).max().unwrap_or(1).max(1).saturating_mul(period)
    }

    /// A new machine's values do not count for so long, seconds: the longest that the group or a policy says.
    pub fn warm_up_s(&self) -> u32 {
        let of = |policy: &Policy| match policy {
            Policy::Target { warm_up_s, .. } | Policy::Stepped { warm_up_s, .. } => *warm_up_s,
            _ => None,
        };
        let own = self.policies.values().filter_map(of).max();
        own.max(self.group.warm_up_s).unwrap_or(0)
    }

    /// Metrics that nobody measures: people and programs say their values.
    pub fn custom(&self) -> impl Iterator<Item = &String> {
        self.metrics.keys().filter(|name| !is_measured(name))
    }

    /// Time zones of its schedules.
    pub fn zones(&self) -> impl Iterator<Item = &String> {
        self.policies.values().filter_map(|policy| match policy {
            Policy::Scheduled { zone, .. } => Some(zone),
            _ => None,
        })
    }

    fn check_launch(&self) -> Checked {
        let launch = &self.launch;
        if launch.instance_type.is_some() && launch.needs.is_some() {
            return bad("launch", "say either 'instance_type' or 'needs': the one names what the other chooses");
        }
        if launch.image.name.is_empty() || launch.image.name.contains(':') {
            return bad("launch.image.name", "must not be empty or contain ':' (the tag has its own field)");
        }
        if launch.user_data.as_ref().is_some_and(|text| text.len() > USER_DATA_BYTES_MAX || text.is_empty()) {
            return bad("launch.user_data", format!("must have 1 to {USER_DATA_BYTES_MAX} bytes"));
        }
        if launch.networks.iter().chain(&launch.keys).any(|text| text.is_empty() || text.contains(',')) {
            return bad("launch", "names of networks and keys must not be empty or contain ','");
        }
        if launch.disks.iter().any(|disk| disk.size_gib == 0) {
            return bad("launch.disks", "a disk has at least 1 GiB");
        }
        if let Some(role) = &self.role {
            name("role.name", &role.name)?;
            if role.may.is_empty() {
                return bad("role.may", "a role that allows nothing is none: leave it out");
            }
        }
        Ok(())
    }

    fn check_group(&self) -> Checked {
        let group = &self.group;
        if group.max > MACHINES_MAX {
            return bad("group.max", format!("{} machines are more than {MACHINES_MAX}", group.max));
        }
        if group.min > group.max {
            return bad("group.min", format!("{} is more than group.max, {}", group.min, group.max));
        }
        if group.desired.is_some_and(|desired| desired < group.min || desired > group.max) {
            return bad("group.desired", format!("must be from {} to {}", group.min, group.max));
        }
        if group.zones.iter().any(|zone| zone.is_empty() || zone.contains(',')) {
            return bad("group.zones", "must not be empty or contain ','");
        }
        seconds("group.health_grace_s", group.health_grace_s)?;
        seconds("group.cooldown_s", group.cooldown_s)?;
        seconds("group.warm_up_s", group.warm_up_s)
    }

    fn check_alarm(&self, key: &str, alarm: &Alarm) -> Checked {
        let at = format!("alarms.{key}");
        name(&at, key)?;
        self.check_metric(&format!("{at}.metric"), &alarm.metric)?;
        if alarm.periods == 0 || alarm.periods > PERIODS_MAX {
            return bad(format!("{at}.periods"), format!("must be from 1 to {PERIODS_MAX}"));
        }
        Ok(())
    }

    fn check_metric(&self, at: &str, metric: &str) -> Checked {
        if self.metrics.contains_key(metric) {
            return Ok(());
        }
        bad(at, format!("there is no metric '{metric}': write [metrics.{metric}]"))
    }

    fn alarm_of(&self, at: &str, alarm: &str) -> Result<&Alarm, BadElement> {
        match self.alarms.get(alarm) {
            Some(alarm) => Ok(alarm),
            None => bad(format!("{at}.alarm"), format!("there is no alarm '{alarm}': write [alarms.{alarm}]")),
        }
    }

    fn check_policy(&self, at: &str, policy: &Policy) -> Checked {
        match policy {
            Policy::Target { metric, target, warm_up_s, .. } => {
                self.check_metric(&format!("{at}.metric"), metric)?;
                if target.0 <= 0 {
                    return bad(format!("{at}.target"), "must be more than 0");
                }
                seconds(&format!("{at}.warm_up_s"), *warm_up_s)
            }
            Policy::Stepped { alarm, by, bands, warm_up_s } => {
                self.alarm_of(at, alarm)?;
                for band in bands {
                    change(&format!("{at}.bands"), *by, band.change)?;
                }
                let from: BTreeSet<i64> = bands.iter().map(|band| band.from.0).collect();
                if bands.is_empty() || from.len() != bands.len() || !bands.is_sorted_by_key(|band| band.from) {
                    return bad(
                        format!("{at}.bands"),
                        "need one at least, each further from the threshold than the last",
                    );
                }
                if bands[0].from.0 != 0 {
                    return bad(format!("{at}.bands"), "the first begins at the threshold: from = 0");
                }
                seconds(&format!("{at}.warm_up_s"), *warm_up_s)
            }
            Policy::Simple { alarm, by, cooldown_s, change: by_how_much } => {
                self.alarm_of(at, alarm)?;
                change(&format!("{at}.change"), *by, *by_how_much)?;
                seconds(&format!("{at}.cooldown_s"), *cooldown_s)
            }
            Policy::Scheduled { at: when, min, max, for_s, .. } => {
                if when.days.is_empty() || when.hour > 23 || when.minute > 59 {
                    return bad(format!("{at}.at"), "need a day at least, an hour to 23 and a minute to 59");
                }
                let most = max.unwrap_or(self.group.max);
                if *min > most || most > MACHINES_MAX {
                    return bad(format!("{at}.min"), format!("must be at most {most}"));
                }
                if for_s.is_some_and(|s| s > 7 * SECONDS_MAX) {
                    return bad(format!("{at}.for_s"), "must be at most a week");
                }
                Ok(())
            }
            Policy::Predictive { metric, target, ahead_s, .. } => {
                self.check_metric(&format!("{at}.metric"), metric)?;
                if target.0 <= 0 {
                    return bad(format!("{at}.target"), "must be more than 0");
                }
                seconds(&format!("{at}.ahead_s"), *ahead_s)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bad_field(change: impl Fn(&mut Value)) -> String {
        let mut element = json!({
            "name": "web",
            "metrics": {"cpu": {"unit": "percent"}},
            "launch": {"image": {"name": "web"}, "instance_type": "small"},
            "group": {"min": 1, "max": 4},
            "alarms": {"busy": {"metric": "cpu", "comparison": "above", "threshold": 70}},
            "policies": {"up": {"kind": "simple", "alarm": "busy", "change": 1}},
        });
        serde_json::from_value::<Element>(element.clone()).unwrap().check().unwrap();
        change(&mut element);
        serde_json::from_value::<Element>(element).unwrap().check().unwrap_err().field
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        assert_eq!(bad_field(|e| e["name"] = json!("Web")), "name");
        assert_eq!(bad_field(|e| e["group"]["min"] = json!(5)), "group.min");
        assert_eq!(bad_field(|e| e["group"]["desired"] = json!(0)), "group.desired");
        assert_eq!(bad_field(|e| e["group"]["cooldown_s"] = json!(SECONDS_MAX + 1)), "group.cooldown_s");
        assert_eq!(bad_field(|e| e["launch"]["needs"] = json!({"cpus": 1, "memory_mib": 1})), "launch");
        assert_eq!(bad_field(|e| e["metrics"]["cpu"]["unit"] = json!("count")), "metrics.cpu.unit");
        assert_eq!(bad_field(|e| e["alarms"]["busy"]["metric"] = json!("queue")), "alarms.busy.metric");
        assert_eq!(bad_field(|e| e["policies"]["up"]["alarm"] = json!("idle")), "policies.up.alarm");
        assert_eq!(bad_field(|e| e["policies"]["up"]["change"] = json!(0)), "policies.up.change");
        let bands = json!({"kind": "stepped", "alarm": "busy", "bands": [{"from": 5, "change": 1}]});
        assert_eq!(bad_field(|e| e["policies"]["up"] = bands.clone()), "policies.up.bands");
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused() {
        let element =
            json!({"name": "web", "launch": {"image": {"name": "w"}}, "group": {"min": 1, "max": 1, "most": 2}});
        let error = serde_json::from_value::<Element>(element).unwrap_err().to_string();
        assert!(error.contains("most"), "{error}");
    }
}
