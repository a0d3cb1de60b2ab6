//! What is done when a metric moves, or at a time of the week.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Milli;

/// A way to say how many machines are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Policy {
    /// As many machines as bring the metric's average to a target.
    Target {
        /// Which metric.
        metric: String,
        /// Wanted value of it, in its unit.
        target: Milli,
        /// Also fewer machines.
        #[serde(default = "yes")]
        scale_in: bool,
        /// A new machine's values do not count for so long, seconds; the group's, where it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warm_up_s: Option<u32>,
    },
    /// While an alarm holds: by how much depends on how far the value is beyond the alarm's threshold.
    Stepped {
        /// Which alarm.
        alarm: String,
        /// What the changes of its bands mean.
        #[serde(default)]
        by: By,
        /// Changes, the one next to the threshold first.
        bands: Vec<Band>,
        /// A new machine's values do not count for so long, seconds; the group's, where it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warm_up_s: Option<u32>,
    },
    /// While an alarm holds: always by as much.
    Simple {
        /// Which alarm.
        alarm: String,
        /// What `change` means.
        #[serde(default)]
        by: By,
        /// More when positive, fewer when negative.
        change: i32,
        /// No further change for so long, seconds; the group's, where it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cooldown_s: Option<u32>,
    },
    /// Other bounds from a time of the week on.
    Scheduled {
        /// When.
        at: Weekly,
        /// Time zone of `at`, by its name in the tz database.
        #[serde(default = "utc")]
        zone: String,
        /// For so long, seconds; until the next one, where it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_s: Option<u32>,
        /// Fewest machines then.
        min: u32,
        /// Most machines then; the group's, where it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u32>,
    },
    /// As many machines as bring what is projected of a metric to a target: only ever more.
    Predictive {
        /// Which metric.
        metric: String,
        /// Wanted value of it, in its unit.
        target: Milli,
        /// Machines are there so long before they are needed, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ahead_s: Option<u32>,
        /// Not only shown, but done.
        #[serde(default = "yes")]
        acts: bool,
    },
}

fn yes() -> bool {
    true
}
fn utc() -> String {
    "UTC".to_owned()
}

/// What the number of a change means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// So many machines more or fewer.
    #[default]
    Machines,
    /// So many percent of the machines more or fewer, at least one.
    Percent,
    /// Exactly so many machines.
    Exactly,
}

/// A change, and for which values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// From so far beyond the alarm's threshold, in the metric's unit, never negative; on which side, the alarm says.
    #[serde(default)]
    pub from: Milli,
    /// More when positive, fewer when negative.
    pub change: i32,
}

/// Days and a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weekly {
    /// On which days.
    pub days: BTreeSet<Day>,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    #[serde(default)]
    pub minute: u8,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "days of the week")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Day {
    /// Every one, as the week has them.
    pub const ALL: [Self; 7] =
        [Self::Monday, Self::Tuesday, Self::Wednesday, Self::Thursday, Self::Friday, Self::Saturday, Self::Sunday];
}
